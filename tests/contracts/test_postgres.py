"""What only a store of many processes can be asked: unknown outcomes, many claimers, schemas of other versions."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import asyncpg
import pytest

from fillwright.backends.postgres import PostgresStore, open_postgres
from fillwright.backends.postgres_link import PostgresSettings, connect
from fillwright.backends.postgres_schema import migrate
from fillwright.backends.postgres_sql import LOCK_STARTS
from fillwright.backends.schema import read_scripts
from fillwright.core.errors import Failure, QueueFull, StoreUnavailable, VersionConflict
from fillwright.core.lifecycle import (
    Accepted,
    AttemptFailed,
    Cancelled,
    Confirmed,
    Failed,
    RouteSelected,
    RoutingStarted,
    TransactionSigned,
    Update,
)
from fillwright.core.order import Order
from fillwright.core.ports import Claim
from tests.builders import a_route, a_transaction, some_id, some_terms
from tests.contracts.test_store import FAILURE, FILL, LEASE_MS, accept, claim_one, drive, to_signed
from tests.process import in_real_time
from tests.relay import Relay, a_relay
from tests.virtual import EPOCH_MS, HandClock

PATIENT: Final = PostgresSettings(timeout_ms=5_000, patience_ms=5_000)
IMPATIENT: Final = PostgresSettings(timeout_ms=300, patience_ms=300)


class Site:
    """A database, one clock for all who work on it, and the news that each store gives."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = HandClock()
        self.news: list[Update] = []

    def run_test(self, test: Coroutine[Any, Any, None]) -> None:
        in_real_time(test, within_s=30)

    @contextlib.asynccontextmanager
    async def store(self, url: str = "", **options: Any) -> AsyncIterator[PostgresStore]:
        given = {"capacity": 10_000, "lease_ms": LEASE_MS, "settings": PATIENT, **options}
        store = await open_postgres(url or self.url, clock=self.clock, committed=self.news.extend, **given)
        try:
            yield store
        finally:
            await store.close()

    @contextlib.asynccontextmanager
    async def stores(self, count: int, **options: Any) -> AsyncIterator[list[PostgresStore]]:
        async with contextlib.AsyncExitStack() as opened:
            yield [await opened.enter_async_context(self.store(**options)) for _ in range(count)]

    @contextlib.asynccontextmanager
    async def a_store_by_wire(self, **options: Any) -> AsyncIterator[tuple[PostgresStore, Relay]]:
        """A store whose line to the database can be cut."""
        async with a_relay(self.url) as relay, self.store(relay.url, **options) as store:
            yield store, relay


@pytest.fixture
def site(postgres_url: str) -> Site:
    return Site(postgres_url)


async def test_an_order_whose_acceptance_was_not_answered_is_there_once_and_told_once(site: Site) -> None:
    async with site.a_store_by_wire() as (store, relay):
        await accept(store, 1)
        relay.lose_the_reply_to(b"Accepted")
        order = await accept(store, 2, "mine")
        assert relay.lost == 1
        assert order.id == some_id(2, EPOCH_MS)
        assert [update.order.id for update in site.news] == [some_id(1, EPOCH_MS), some_id(2, EPOCH_MS)]
        assert (await store.counts()).total == 2
        assert (await accept(store, 3, "mine")).id == order.id


async def test_an_event_whose_append_was_not_answered_is_there_once_and_told_once(site: Site) -> None:
    async with site.a_store_by_wire() as (store, relay):
        await accept(store)
        claim = await claim_one(store)
        routed = await drive(store, claim, RouteSelected(a_route(), 1))
        relay.lose_the_reply_to(b"TransactionSigned")
        signed = await store.append(routed, TransactionSigned(a_transaction()), claim.lease)
        relay.lose_the_reply_to(b"Confirmed")
        confirmed = await store.append(signed, Confirmed(FILL), claim.lease)
        assert relay.lost == 2
        assert [update.record for update in site.news] == await store.history(confirmed.id)
        assert confirmed.fill == FILL
        assert (await store.counts()).confirmed == 1


async def test_an_event_that_another_writer_put_there_while_ours_was_unknown_is_not_taken_for_ours(site: Site) -> None:
    async with site.store() as other, site.a_store_by_wire() as (store, relay):
        await accept(store)
        claim = await claim_one(store)
        relay.refuse()
        ours = asyncio.ensure_future(store.append(claim.order, RouteSelected(a_route(), 1), claim.lease))
        await other.append(claim.order, Cancelled())
        relay.refuse(refusing=False)
        with pytest.raises(VersionConflict):
            await ours


async def test_what_stays_unknown_is_told_as_unknown_and_the_log_says_what_is_true(site: Site) -> None:
    async with site.a_store_by_wire(settings=IMPATIENT) as (store, relay):
        await accept(store, 1)
        relay.lose_the_reply_to(b"Accepted")
        unknown = asyncio.ensure_future(accept(store, 2, "mine"))
        while not relay.lost:
            await asyncio.sleep(0)
        relay.refuse()
        with pytest.raises(StoreUnavailable, match="whether the write was carried out is not known"):
            await unknown
        relay.refuse(refusing=False)
        assert (await accept(store, 3, "mine")).id == some_id(2, EPOCH_MS)


async def test_a_database_that_is_away_is_told_as_such_and_used_again_when_it_is_back(site: Site) -> None:
    async with site.a_store_by_wire(settings=IMPATIENT) as (store, relay):
        await accept(store, 1)
        relay.refuse()
        for call in (accept(store, 2), store.claim("w", 1), store.history(some_id(1, EPOCH_MS)), store.check()):
            with pytest.raises(StoreUnavailable):
                await call
        relay.refuse(refusing=False)
        await accept(store, 2)
        assert {claim.order.id for claim in (await store.claim("w", 5)).taken} == {
            some_id(number, EPOCH_MS) for number in (1, 2)
        }


async def test_a_claim_whose_answer_was_lost_comes_back_when_its_leases_run_out(site: Site) -> None:
    async with site.a_store_by_wire() as (store, relay):
        await accept(store)
        await store.claim("w", 0)
        relay.lose_the_reply_to(b"RoutingStarted")
        with pytest.raises(StoreUnavailable):
            await store.claim("w", 1)
        assert (await store.claim("w", 1)).taken == []
        await site.clock.sleep(LEASE_MS)
        assert (await claim_one(store)).order.attempt == 1


async def test_four_claimers_at_once_never_handle_an_order_twice_at_the_same_time(site: Site) -> None:
    seed = random.randrange(1_000)
    sys.stdout.write(f"seed {seed}\n")
    chance, orders = random.Random(seed), 200
    async with site.stores(4) as stores:
        await asyncio.gather(*(accept(stores[number % 4], number) for number in range(orders)))
        in_hand: set[str] = set()
        over: list[str] = []

        async def handle(store: PostgresStore, claim: Claim) -> None:
            assert claim.order.id not in in_hand, f"seed {seed}: {claim.order.id} is handled twice at the same time"
            in_hand.add(claim.order.id)
            if claim.order.attempt < 3 and chance.random() < 0.3:
                await drive(store, claim, AttemptFailed(claim.order.attempt, FAILURE, site.clock.now_ms() + 1_000))
                in_hand.remove(claim.order.id)
                return
            await drive(store, claim, *to_signed(f"{claim.order.id}/{claim.order.attempt}"), Confirmed(FILL))
            in_hand.remove(claim.order.id)
            over.append(claim.order.id)

        async def work(store: PostgresStore, name: str) -> None:
            while len(over) < orders:
                claims = await store.claim(name, chance.randrange(1, 12))
                await asyncio.gather(*(handle(store, claim) for claim in claims.taken))
                if not claims.taken and not in_hand:  # while something is, time stands still: no lease runs out
                    await site.clock.sleep(100)

        await asyncio.gather(*(work(store, f"w{number}") for number, store in enumerate(stores)))
        assert len(over) == len(set(over)) == orders
        assert (await stores[0].counts()).confirmed == orders


async def test_over_four_workers_exactly_the_limit_of_orders_begins_in_any_minute(site: Site) -> None:
    limit, orders = 100, 450
    async with site.stores(4, starts_per_minute=limit) as stores:
        await asyncio.gather(*(accept(stores[number % 4], number) for number in range(orders)))

        async def work(store: PostgresStore, name: str) -> None:
            for claim in (await store.claim(name, 7)).taken:
                await drive(store, claim, Failed(1, Failure("no_route", "nobody answers")))

        started_ms = site.clock.now_ms()
        while (await stores[0].counts()).failed < orders:
            await asyncio.gather(*(work(store, f"w{number}") for number, store in enumerate(stores)))
            await site.clock.sleep(500)
    starts = sorted(update.record.at_ms for update in site.news if isinstance(update.record.event, RoutingStarted))
    assert len(starts) == orders
    for start in starts:
        assert sum(start <= other <= start + 60_000 for other in starts) <= limit
    for minute in range(4):
        begun = sum(minute * 60_500 <= start - started_ms < (minute + 1) * 60_500 for start in starts)
        assert begun == limit, "the limit is used up, too"


async def test_a_cancel_and_a_claim_of_the_same_order_do_not_wait_for_each_other(site: Site) -> None:
    async with site.stores(2) as (store, other):
        for number in range(60):
            order = await accept(store, number)

            async def cancel(order: Order = order) -> bool:
                with contextlib.suppress(VersionConflict):
                    await other.append(order, Cancelled())
                    return True
                return False

            cancelled, claims = await asyncio.gather(cancel(), store.claim("w", 5))
            assert cancelled == (not claims.taken)
            for claim in claims.taken:
                await drive(store, claim, Failed(1, FAILURE))


async def test_processes_that_start_together_bring_the_schema_up_to_date_once(site: Site) -> None:
    versions = await asyncio.gather(*(migrate(site.url, PATIENT) for _ in range(8)))
    assert {after for _, after in versions} == {len(read_scripts("postgres"))}


async def test_a_schema_that_is_newer_is_refused_at_the_start_and_older_processes_go_on(site: Site) -> None:
    async with site.store() as running:
        connection = await asyncpg.connect(site.url)
        await connection.execute("UPDATE fillwright.schema_version SET version = 99")
        await connection.close()
        with pytest.raises(StoreUnavailable, match=r"has schema 99, .* knows only \d+: upgrade fillwright"):
            async with site.store():
                pass
        await running.accept(some_id(1, EPOCH_MS), Accepted(some_terms()))


async def test_statements_do_not_slow_down_because_the_tables_were_empty_when_they_were_planned(site: Site) -> None:
    async with site.store() as store:
        await asyncio.gather(*(accept(store, number) for number in range(300)))
        await store.claim("w", 100)
        connection = await store._claims.get()
        plan = await connection.fetch("EXPLAIN EXECUTE " + await _prepared(connection))
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on events" not in text
    assert "Seq Scan on queue" not in text


async def _prepared(connection: Any) -> str:
    """Return a call of the claim's prepared statement."""
    name = await connection.fetchval("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%SKIP LOCKED%'")
    return f"{name}('w', 1, 0, 0, 1, 1, 1, 'a', 'b', 1)"


async def test_a_refusal_after_an_unknown_try_is_told_as_unknown(site: Site) -> None:
    async with site.a_store_by_wire() as (store, relay):
        await accept(store, 1)
        relay.lose_the_reply_to(b"Accepted")
        unknown = asyncio.ensure_future(accept(store, 2))
        while not relay.lost:
            await asyncio.sleep(0)
        connection = await asyncpg.connect(site.url)
        await connection.execute("ALTER TABLE fillwright.tally RENAME TO gone")
        with pytest.raises(StoreUnavailable, match="whether it was carried out is not known"):
            await unknown
        await connection.execute("ALTER TABLE fillwright.gone RENAME TO tally")
        await connection.close()
        assert (await store.history(some_id(2, EPOCH_MS)))[0].seq == 1


async def test_an_unknown_order_is_not_refused_because_others_took_the_last_place(site: Site) -> None:
    async with site.a_store_by_wire(capacity=2) as (store, relay), site.store(capacity=2) as other:
        await accept(store, 1)
        relay.lose_the_reply_to(b"Accepted")
        unknown = asyncio.ensure_future(accept(store, 2))
        while not relay.lost:
            await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await accept(other, 3)
        assert (await unknown).id == some_id(2, EPOCH_MS)


async def test_a_claimer_that_freezes_in_the_middle_does_not_keep_the_others_from_claiming(site: Site) -> None:
    async with site.store(starts_per_minute=100, settings=IMPATIENT) as store:
        await accept(store)
        frozen = await connect(site.url, IMPATIENT)
        await frozen.execute("BEGIN")
        await frozen.execute(LOCK_STARTS)
        taken: list[Claim] = []
        for _ in range(3):
            with contextlib.suppress(StoreUnavailable):  # until the server has ended the frozen one's transaction
                taken += (await store.claim("w", 1)).taken
        assert len(taken) == 1
        frozen.terminate()


async def test_one_event_that_cannot_be_written_does_not_cost_the_others_theirs(site: Site) -> None:
    async with site.store() as store:
        for number in range(20):
            await accept(store, number)
        claims = (await store.claim("w", 20)).taken
        poison = RouteSelected(a_route(), 1 << 70)
        events = [poison if number == 7 else RouteSelected(a_route(), 1) for number in range(20)]
        connection = await asyncpg.connect(site.url)
        await connection.execute(f"ALTER TABLE fillwright.events ADD CHECK (data NOT LIKE '%{1 << 70}%') NOT VALID")
        await connection.close()
        outcomes = await asyncio.gather(
            *(store.append(claim.order, event, claim.lease) for claim, event in zip(claims, events, strict=True)),
            return_exceptions=True,
        )
        assert [isinstance(outcome, Order) for outcome in outcomes] == [number != 7 for number in range(20)]
        assert isinstance(outcomes[7], StoreUnavailable)


async def test_searches_do_not_keep_a_worker_from_holding_on_to_its_orders(site: Site) -> None:
    async with site.store(settings=PostgresSettings(readers=1, timeout_ms=2_000)) as store:
        await accept(store)
        claim = await claim_one(store)
        searching = asyncio.ensure_future(store._read(lambda c: c.fetchval("SELECT pg_sleep(1)")))
        await asyncio.sleep(0.05)
        await store.renew([(claim.order.id, claim.lease)])
        assert not searching.done()
        await searching
