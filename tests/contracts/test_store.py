"""What every Store keeps. A new implementation is one more row in `STORES`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from fillwright.backends.memory import MemoryStore
from fillwright.backends.postgres import open_postgres
from fillwright.backends.sqlite import SqliteStore
from fillwright.core.control import (
    Control,
    KeyCreated,
    Mode,
    ModeSet,
    Scope,
    entry,
    replay,
)
from fillwright.core.errors import (
    DailyLimitReached,
    Failure,
    LeaseLost,
    QueueFull,
    SigningHalted,
    StoreUnavailable,
    TooManyOpenOrders,
    VersionConflict,
)
from fillwright.core.lifecycle import (
    Accepted,
    AttemptFailed,
    Cancelled,
    Confirmed,
    Event,
    Expired,
    Failed,
    IllegalTransition,
    RouteSelected,
    RoutingStarted,
    TransactionSigned,
    Update,
    rebuild,
)
from fillwright.core.limits import EVERYBODY, OPEN, USD, Cap, day_of, of_account, of_key
from fillwright.core.order import Charge, Fill, Order, OrderStatus
from fillwright.core.ports import Claim, Delivery, OrderFilter, Store
from fillwright.core.units import U64_MAX, OrderId
from fillwright.execution.gate import Gate
from tests.builders import BONK, ONE_SOL, SOL, a_route, a_transaction, seqs, some_id, some_terms
from tests.process import in_real_time
from tests.virtual import EPOCH_MS, HandClock, VirtualClock, run

LEASE_MS: Final = 5_000
FILL: Final = Fill(1_000_000_000, 149_000_000, 5_000, 77)
FAILURE: Final = Failure("no_route", "nobody answers")


async def memory(_: str, **options: Any) -> Store:
    return MemoryStore(**options)


async def sqlite(path: str, **options: Any) -> Store:
    return SqliteStore(path, threaded=False, **options)


async def sqlite_threaded(path: str, **options: Any) -> Store:
    return SqliteStore(path, threaded=True, **options)


STORES: Final[Mapping[str, Callable[..., Awaitable[Store]]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "sqlite-threaded": sqlite_threaded,
    "postgres": open_postgres,
}
KEPT: Final = [name for name in STORES if name != "memory"]


class Bench:
    """A store, its clock and all the news that it gave."""

    def __init__(self, name: str, place: str) -> None:
        # A server answers in real time; only the store's idea of what time it is can be ours.
        self.clock = HandClock() if name == "postgres" else VirtualClock()
        self.news: list[Update] = []
        self._make = STORES[name]
        self._place = place
        self.is_kept = name in KEPT

    def run_test(self, test: Coroutine[Any, Any, None]) -> None:
        if isinstance(self.clock, HandClock):
            in_real_time(test)
        else:
            run(test)

    @asynccontextmanager
    async def store(self, **options: Any) -> AsyncIterator[Store]:
        self.clock.now_ms()
        store = await self._make(
            self._place,
            **{"clock": self.clock, "committed": self.news.extend, "capacity": 1000, "lease_ms": LEASE_MS, **options},
        )
        try:
            yield store
        finally:
            await store.close()


@pytest.fixture(params=STORES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    place = request.getfixturevalue("postgres_url") if request.param == "postgres" else str(tmp_path / "orders.db")
    return Bench(request.param, place)


async def accept(store: Store, number: int = 1, client_order_id: str | None = None, **terms: Any) -> Order:
    return await store.accept(some_id(number, EPOCH_MS), Accepted(some_terms(**terms), client_order_id))


async def test_a_new_order_is_due_whatever_the_clock_says(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store)
        bench.clock.skew_ms = -20_000
        assert (await store.counts()).waiting == 1
        assert (await claim_one(store)).order.id == order.id


async def claim_one(store: Store, worker: str = "w") -> Claim:
    (claim,) = (await store.claim(worker, 1)).taken
    return claim


async def drive(store: Store, claim: Claim, *events: Event) -> Order:
    order = claim.order
    for event in events:
        order = await store.append(order, event, claim.lease)
    return order


def to_signed(name: str = "first") -> tuple[Event, ...]:
    return RouteSelected(a_route(), 148_500_000), TransactionSigned(a_transaction(name))


async def test_an_accepted_order_can_be_read_back_from_its_events(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store, client_order_id="mine")
        records = await store.history(order.id)
        assert rebuild(records) == order
        assert await store.history(some_id(99)) == []


async def test_the_log_is_gapless_and_can_be_read_from_any_point(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store)
        order = await drive(store, await claim_one(store), *to_signed(), Confirmed(FILL))
        assert seqs(await store.history(order.id)) == [1, 2, 3, 4, 5]
        assert seqs(await store.history(order.id, after=3)) == [4, 5]
        assert rebuild(await store.history(order.id)) == order


async def test_news_comes_after_each_commit_once_and_in_order(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store)
        order = await drive(store, await claim_one(store), *to_signed(), Confirmed(FILL))
        assert [update.record for update in bench.news] == await store.history(order.id)
        assert bench.news[-1].order == order


async def test_of_two_writers_who_saw_the_same_version_one_is_refused(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store)
        await store.append(order, Cancelled())
        with pytest.raises(VersionConflict):
            await store.append(order, Cancelled())
        assert seqs(await store.history(order.id)) == [1, 2]


async def test_writers_at_the_same_moment_leave_one_event(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store)
        outcomes = await asyncio.gather(*(store.append(order, Cancelled()) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(outcome, Order) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 19
        assert len(bench.news) == 2


async def test_an_event_that_the_table_forbids_is_never_written(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store)
        with pytest.raises(IllegalTransition):
            await store.append(order, Confirmed(FILL))
        assert seqs(await store.history(order.id)) == [1]


async def test_the_same_client_order_id_gives_the_same_order(bench: Bench) -> None:
    async with bench.store() as store:
        first = await accept(store, 1, "mine")
        again = await accept(store, 2, "mine")
        assert again == first
        assert await store.history(some_id(2, EPOCH_MS)) == []
        assert (await store.counts()).total == 1


async def test_the_same_client_order_id_at_the_same_moment_makes_one_order(bench: Bench) -> None:
    async with bench.store() as store:
        orders = await asyncio.gather(*(accept(store, number, "mine") for number in range(20)))
        assert len({order.id for order in orders}) == 1
        assert (await store.counts()).total == 1


async def test_more_open_orders_than_the_capacity_are_refused_and_leave_nothing(bench: Bench) -> None:
    async with bench.store(capacity=2) as store:
        first = await accept(store, 1)
        await accept(store, 2)
        with pytest.raises(QueueFull):
            await accept(store, 3)
        assert await store.history(some_id(3, EPOCH_MS)) == []
        await store.append(first, Cancelled())
        await accept(store, 4)


async def test_a_full_store_still_knows_a_client_order_id(bench: Bench) -> None:
    async with bench.store(capacity=1) as store:
        first = await accept(store, 1, "mine")
        assert await accept(store, 2, "mine") == first


async def test_a_claim_begins_the_order_and_holds_it(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store)
        claim = await claim_one(store)
        assert claim.order.id == order.id
        assert claim.order.status is OrderStatus.ROUTING
        assert [type(record.event) for record in await store.history(order.id)] == [Accepted, RoutingStarted]
        assert (await store.claim("other", 10)).taken == []


async def test_orders_are_claimed_oldest_first_and_as_many_as_asked(bench: Bench) -> None:
    async with bench.store() as store:
        for number in range(5):
            await accept(store, number)
            await bench.clock.sleep(1)
        taken = [claim.order.id for claim in (await store.claim("w", 3)).taken]
        assert taken == [some_id(number, EPOCH_MS) for number in range(3)]


async def test_claims_at_the_same_moment_never_share_an_order(bench: Bench) -> None:
    async with bench.store() as store:
        for number in range(40):
            await accept(store, number)
        claims = await asyncio.gather(*(store.claim(f"w{worker}", 7) for worker in range(8)))
        taken = [claim.order.id for claims in claims for claim in claims.taken]
        assert len(taken) == len(set(taken)) == 40


async def test_an_order_comes_back_once_its_lease_has_run_out_and_goes_on_where_it_was(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store)
        order = await drive(store, await claim_one(store), *to_signed())
        await bench.clock.sleep(LEASE_MS - 1)
        assert (await store.claim("other", 1)).taken == []
        await bench.clock.sleep(1)
        claim = await claim_one(store, "other")
        assert claim.order == order
        assert claim.order.status is OrderStatus.SUBMITTED


async def test_a_claim_tells_who_let_the_lease_before_it_run_out_and_nobody_where_it_was_given_back(
    bench: Bench,
) -> None:
    async with bench.store() as store:
        await accept(store)
        assert (await claim_one(store, "killed")).left_by == ""
        await bench.clock.sleep(LEASE_MS)
        claim = await claim_one(store, "stopped")
        assert claim.left_by == "killed"
        await store.release([(claim.order.id, claim.lease)])
        claim = await claim_one(store)
        assert claim.left_by == ""
        await drive(store, claim, AttemptFailed(1, FAILURE, bench.clock.now_ms() + 10))
        await bench.clock.sleep(LEASE_MS)
        assert (await claim_one(store, "other")).left_by == ""


async def test_a_worker_whose_lease_was_followed_by_another_cannot_append(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store)
        frozen = await claim_one(store)
        await bench.clock.sleep(LEASE_MS)
        await claim_one(store, "other")
        with pytest.raises(LeaseLost):
            await store.append(frozen.order, RouteSelected(a_route(), 1), frozen.lease)


async def test_a_renewed_lease_holds_longer_and_an_old_one_cannot_be_renewed(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store)
        claim = await claim_one(store)
        await bench.clock.sleep(LEASE_MS - 1)
        await store.renew([(claim.order.id, claim.lease)])
        await bench.clock.sleep(LEASE_MS - 1)
        assert (await store.claim("other", 1)).taken == []
        await bench.clock.sleep(1)
        newer = await claim_one(store, "other")
        await bench.clock.sleep(LEASE_MS - 1)
        await store.renew([(claim.order.id, claim.lease)])
        await bench.clock.sleep(1)
        assert (await claim_one(store)).lease == newer.lease + 1


async def test_a_released_order_is_due_at_once(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store)
        claim = await claim_one(store)
        await store.release([(claim.order.id, claim.lease)])
        assert (await claim_one(store, "other")).order.id == claim.order.id


async def test_an_order_that_is_released_for_later_is_due_then(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store)
        claim = await claim_one(store)
        await store.release([(claim.order.id, claim.lease)], delay_ms=1_000)
        assert (await store.claim("other", 1)).taken == []
        await bench.clock.sleep(1_000)
        assert (await claim_one(store, "other")).order.id == claim.order.id


async def test_a_claim_of_begun_orders_begins_no_other(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store, 1)
        begun = await claim_one(store)
        await accept(store, 2)
        await store.release([(begun.order.id, begun.lease)])
        claims = await store.claim("other", 10, begun_only=True)
        assert [claim.order.id for claim in claims.taken] == [begun.order.id]
        assert (await claim_one(store)).order.id == some_id(2, EPOCH_MS)


async def test_an_account_s_orders_and_client_order_ids_are_its_own(bench: Bench) -> None:
    async with bench.store() as store:
        orders = {
            account: await store.accept(some_id(number, EPOCH_MS), Accepted(some_terms(), "same", account))
            for number, account in enumerate(("", "desk", "other"))
        }
        assert len({order.id for order in orders.values()}) == 3
        for number, (account, order) in enumerate(orders.items(), 10):
            assert await store.accept(some_id(number, EPOCH_MS), Accepted(some_terms(), "same", account)) == order
            assert await store.find(OrderFilter(account)) == [order]
            assert await store.find(OrderFilter(account, client_order_id="same")) == [order]


async def test_the_audit_log_takes_what_follows_on_it_and_nothing_else(bench: Bench) -> None:
    async with bench.store() as store:
        first = entry(Control(), 1_000, "somebody", ModeSet(Mode.HALTED, "why"))
        assert await store.add_audit(first)
        assert await store.add_audit(first), "said again, it is there already"
        assert not await store.add_audit(entry(Control(), 1_000, "somebody else", ModeSet(Mode.ACTIVE, "")))
        after = replay([first])
        second = entry(after, 2_000, "somebody", KeyCreated("id", "desk", "bot", (Scope.READ, Scope.TRADE), "digest"))
        third = entry(replay([second], after), 3_000, "somebody", ModeSet(Mode.ACTIVE, ""))
        assert not await store.add_audit(third), "what it follows on is missing"
        assert await store.add_audit(second)
        assert await store.audit_log() == [first, second]
        assert await store.audit_log(after=1) == [second]
        assert (await store.audit_log(limit=1), await store.audit_log(after=1, limit=5)) == ([first], [second])


async def test_of_many_who_write_into_the_audit_log_at_once_each_finds_a_place(bench: Bench) -> None:
    async with bench.store() as store:
        gates = [Gate(store, bench.clock) for _ in range(8)]
        await asyncio.gather(*(gate.change(f"{number}", ModeSet(Mode.REDUCE, "")) for number, gate in enumerate(gates)))
        log = await store.audit_log()
        assert {each.actor for each in log} == {str(number) for number in range(8)}
        assert replay(log).seq == 8


async def test_while_the_engine_is_halted_no_signature_is_written_and_everything_else_is(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store, 1)
        await accept(store, 2)
        first, second = (await store.claim("w", 2)).taken
        signed = await drive(store, first, *to_signed("first"))
        routed = await drive(store, second, to_signed("second")[0])
        halt = entry(Control(), 1_000, "somebody", ModeSet(Mode.HALTED, ""))
        await store.add_audit(halt)
        with pytest.raises(SigningHalted):
            await store.append(routed, to_signed("second")[1], second.lease)
        assert (await store.append(signed, Confirmed(FILL), first.lease)).status is OrderStatus.CONFIRMED
        await store.add_audit(entry(replay([halt]), 2_000, "somebody", ModeSet(Mode.ACTIVE, "")))
        assert (await store.append(routed, to_signed("second")[1], second.lease)).status is OrderStatus.SUBMITTED


async def test_a_ticket_can_be_taken_once_and_in_time(bench: Bench) -> None:
    async with bench.store() as store:
        now_ms = bench.clock.now_ms()
        await store.add_ticket("first", "a key", now_ms + 1_000)
        await store.add_ticket("second", "a key", now_ms + 1_000)
        assert [await store.take_ticket("first"), await store.take_ticket("first")] == ["a key", None]
        assert await store.take_ticket("unknown") is None
        await bench.clock.sleep(1_000)
        assert await store.take_ticket("second") is None


async def test_a_failed_attempt_waits_for_its_time_and_then_begins_the_next(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store)
        now_ms = bench.clock.now_ms()
        await drive(store, await claim_one(store), AttemptFailed(1, FAILURE, now_ms + 1_000))
        claims = await store.claim("w", 1)
        assert claims.taken == []
        assert claims.next_due_ms == now_ms + 1_000
        await bench.clock.sleep(1_000)
        claim = await claim_one(store)
        assert (claim.order.attempt, claim.order.status) == (2, OrderStatus.ROUTING)


@pytest.mark.parametrize("last", [Failed(1, FAILURE), Cancelled()])
async def test_an_order_that_is_over_is_never_claimed_again(bench: Bench, last: Event) -> None:
    async with bench.store() as store:
        await accept(store)
        claim = await claim_one(store)
        await drive(store, claim, last)
        await store.renew([(claim.order.id, claim.lease)])
        await store.release([(claim.order.id, claim.lease)])
        await bench.clock.sleep(LEASE_MS * 10)
        claims = await store.claim("w", 1)
        assert claims.taken == []
        assert claims.next_due_ms is None


async def test_an_order_past_its_expiry_expires_instead_of_beginning(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store, expires_at_ms=EPOCH_MS + 500)
        await bench.clock.sleep(500)
        assert (await store.claim("w", 1)).taken == []
        records = await store.history(order.id)
        assert records[-1].event == Expired()
        assert (await store.counts()).waiting == 0


async def test_an_order_that_expires_while_it_waits_for_the_rate_limit_expires_on_time(bench: Bench) -> None:
    async with bench.store(starts_per_minute=1) as store:
        await accept(store, 1)
        await store.claim("w", 10)
        order = await accept(store, 2, expires_at_ms=EPOCH_MS + 500)
        claims = await store.claim("w", 10)
        assert claims.next_due_ms == EPOCH_MS + 500
        await bench.clock.sleep(500)
        await store.claim("w", 10)
        assert rebuild(await store.history(order.id)).status is OrderStatus.EXPIRED


async def test_an_order_whose_retry_lies_beyond_its_expiry_expires(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store, expires_at_ms=EPOCH_MS + 500)
        await drive(store, await claim_one(store), AttemptFailed(1, FAILURE, EPOCH_MS + 1_000))
        await bench.clock.sleep(500)
        await store.claim("w", 1)
        assert rebuild(await store.history(order.id)).status is OrderStatus.EXPIRED


async def test_in_any_minute_no_more_orders_begin_than_the_limit(bench: Bench) -> None:
    async with bench.store(starts_per_minute=10) as store:
        for number in range(35):
            await accept(store, number)
        for _ in range(200):
            for claim in (await store.claim("w", 3)).taken:
                await drive(store, claim, Failed(1, FAILURE))
            await bench.clock.sleep(1_000)
        starts = sorted(u.record.at_ms for u in bench.news if isinstance(u.record.event, RoutingStarted))
        assert len(starts) == 35
        for start in starts:
            assert sum(start <= other <= start + 60_000 for other in starts) <= 10


async def test_the_limit_counts_first_attempts_only_and_lets_begun_orders_go_on(bench: Bench) -> None:
    async with bench.store(starts_per_minute=1) as store:
        await accept(store, 1)
        await accept(store, 2)
        await drive(store, await claim_one(store), AttemptFailed(1, FAILURE, EPOCH_MS + 1_000))
        await bench.clock.sleep(1_000)
        claims = await store.claim("w", 5)
        assert [(claim.order.id, claim.order.attempt) for claim in claims.taken] == [(some_id(1, EPOCH_MS), 2)]


async def test_orders_held_back_by_the_limit_say_when_they_can_begin(bench: Bench) -> None:
    async with bench.store(starts_per_minute=1) as store:
        await accept(store, 1)
        await drive(store, await claim_one(store), Failed(1, FAILURE))
        await accept(store, 2)
        claims = await store.claim("w", 5)
        assert claims.taken == []
        assert claims.next_due_ms == EPOCH_MS + 60_001
        await bench.clock.sleep(60_001)
        await claim_one(store)


async def test_a_clock_set_back_does_not_hold_new_orders_up(bench: Bench) -> None:
    async with bench.store(starts_per_minute=1) as store:
        await accept(store, 1)
        await drive(store, await claim_one(store), Failed(1, FAILURE))
        bench.clock.skew_ms = -3_600_000
        await accept(store, 2)
        await claim_one(store)


async def test_what_is_pinned_first_stays(bench: Bench) -> None:
    async with bench.store() as store:
        assert await store.pinned("chain") is None
        assert await store.pin("chain", "one") == "one"
        assert await store.pinned("chain") == "one"
        assert await store.pin("chain", "another") == "one"
        await store.check()


async def test_a_signature_is_recorded_for_one_attempt_only(bench: Bench) -> None:
    async with bench.store() as store:
        for number in (1, 2):
            await accept(store, number)
        first, second = (await store.claim("w", 2)).taken
        await drive(store, first, *to_signed("same"))
        with pytest.raises(IllegalTransition):
            await drive(store, second, *to_signed("same"))
        assert seqs(await store.history(second.order.id)) == [1, 2, 3]


async def test_counts_tell_what_waits_runs_is_delayed_and_is_done(bench: Bench) -> None:
    async with bench.store() as store:
        for number in range(6):
            await accept(store, number)
        done, failed, retried, _ = (await store.claim("w", 4)).taken
        await drive(store, done, *to_signed(), Confirmed(FILL))
        await drive(store, failed, Failed(1, FAILURE))
        await drive(store, retried, AttemptFailed(1, FAILURE, EPOCH_MS + 60_000))
        counts = await store.counts()
        assert (counts.waiting, counts.active, counts.delayed) == (2, 1, 1)
        assert (counts.confirmed, counts.failed, counts.total) == (1, 1, 6)


async def test_orders_held_back_by_the_limit_count_as_delayed(bench: Bench) -> None:
    async with bench.store(starts_per_minute=1) as store:
        for number in range(3):
            await accept(store, number)
        assert (await store.counts()).waiting == 3
        await store.claim("w", 10)
        counts = await store.counts()
        assert (counts.waiting, counts.active, counts.delayed) == (0, 1, 2)


async def test_orders_are_found_by_status_token_client_id_and_time_newest_first(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store, 1, "mine")
        await accept(store, 2, token_out=BONK)
        await store.append(await accept(store, 3), Cancelled())
        await drive(store, await claim_one(store), RouteSelected(a_route(), 1))

        async def found(**criteria: Any) -> list[OrderId]:
            return [order.id for order in await store.find(OrderFilter(**criteria))]

        first, second, third = (some_id(number, EPOCH_MS) for number in (1, 2, 3))
        assert await found() == [third, second, first]
        assert await found(status=OrderStatus.CANCELLED) == [third]
        assert await found(status=OrderStatus.BUILDING) == [first]
        assert await found(status=OrderStatus.PENDING) == [second]
        assert await found(mint=BONK.mint) == [second]
        assert await found(mint=SOL.mint) == [third, second, first]
        assert await found(client_order_id="mine") == [first]
        assert await found(created_to_ms=EPOCH_MS) == []
        assert await found(created_from_ms=EPOCH_MS) == [third, second, first]
        assert await found(limit=2) == [third, second]
        assert await found(limit=2, before=second) == [first]


async def test_what_changed_since_a_time_is_told_and_counted(bench: Bench) -> None:
    async with bench.store() as store:
        first = await accept(store, 1)
        await bench.clock.sleep(1_000)
        since_ms = bench.clock.now_ms()
        await accept(store, 2)
        await store.append(first, Cancelled())
        changed = await store.changed(since_ms, 10)
        expected = {(first.id, 2), (some_id(2, EPOCH_MS), 1)}
        assert {(update.order.id, update.record.seq) for update in changed} == expected
        assert len(await store.changed(since_ms, 1)) == 1
        assert await store.count_events(since_ms, since_ms + 1) == 2
        assert await store.count_events(EPOCH_MS, since_ms) == 1


async def test_scan_yields_every_order_oldest_first(bench: Bench) -> None:
    async with bench.store(capacity=2_000) as store:
        for number in range(1_100):
            await accept(store, number)
        assert [order.id async for order in store.scan()] == [some_id(number, EPOCH_MS) for number in range(1_100)]


@pytest.mark.parametrize("bench", KEPT, indirect=True)
async def test_what_was_committed_is_there_after_a_restart(bench: Bench) -> None:
    async with bench.store() as store:
        await accept(store, client_order_id="mine")
        order = await drive(store, await claim_one(store), *to_signed())
    async with bench.store() as store:
        assert rebuild(await store.history(order.id)) == order
        assert (await accept(store, 2, "mine")).id == order.id
        await bench.clock.sleep(LEASE_MS)
        assert (await claim_one(store)).order == order


@pytest.mark.parametrize("bench", KEPT, indirect=True)
async def test_a_closed_store_refuses_and_says_so(bench: Bench) -> None:
    async with bench.store() as store:
        pass
    with pytest.raises(StoreUnavailable):
        await accept(store)


async def test_a_database_in_memory_is_refused_where_threads_would_see_different_ones() -> None:
    with pytest.raises(StoreUnavailable, match="names no file"):
        SqliteStore(":memory:", clock=VirtualClock(), committed=lambda _: None, capacity=1, lease_ms=LEASE_MS)


async def test_amounts_up_to_the_chain_s_limit_survive(bench: Bench) -> None:
    largest = 2**64 - 1
    async with bench.store() as store:
        await accept(store, in_amount=largest)
        order = await drive(store, await claim_one(store), *to_signed(), Confirmed(replace(FILL, in_amount=largest)))
        stored = rebuild(await store.history(order.id))
        assert stored.terms.in_amount == largest
        assert stored.fill == replace(FILL, in_amount=largest)


@pytest.mark.parametrize("threaded", [True, False])
def test_a_store_that_was_closed_says_so_to_whoever_still_asks(tmp_path: Path, threaded: bool) -> None:
    async def ask() -> None:
        store = SqliteStore(
            str(tmp_path / "orders.db"),
            clock=HandClock(),
            committed=lambda _: None,
            capacity=1,
            lease_ms=LEASE_MS,
            threaded=threaded,
        )
        await store.close()
        for call in (store.history(some_id()), store.find(OrderFilter()), store.counts(), accept(store)):
            with pytest.raises(StoreUnavailable):
                await call

    in_real_time(ask())


# ---- limits

TODAY: Final = day_of(EPOCH_MS)
KEY: Final = "K1"


def a_charge(usd: int | None = 150, key_id: str = KEY) -> Charge:
    return Charge(TODAY, usd, key_id, control_seq=0)


def usd_cap(maximum: int, usd: int = 150, of: str = EVERYBODY) -> Cap:
    return Cap(of, USD, maximum, usd)


async def accept_under(store: Store, number: int, *caps: Cap, client_order_id: str | None = None) -> Order:
    event = Accepted(some_terms(), client_order_id, "acme", a_charge())
    return await store.accept(some_id(number, EPOCH_MS), event, caps)


async def test_an_order_counts_for_everybody_its_account_and_its_key(bench: Bench) -> None:
    async with bench.store() as store:
        await accept_under(store, 1)
        await accept_under(store, 2)
        await store.accept(some_id(3, EPOCH_MS), Accepted(some_terms(token_in=BONK), charge=a_charge(None, "")))
        used = await store.usage(TODAY, [EVERYBODY, of_account("acme"), of_key(KEY), of_account(""), of_key("other")])
        for of in (of_account("acme"), of_key(KEY)):
            assert (used[of, USD], used[of, SOL.mint], used[of, OPEN]) == (300, 2 * ONE_SOL, 2)
        assert (used[EVERYBODY, USD], used[EVERYBODY, BONK.mint], used[EVERYBODY, OPEN]) == (300, ONE_SOL, 3)
        assert (used.get((of_account(""), USD), 0), used[of_account(""), OPEN]) == (0, 1)
        assert used[of_key("other"), OPEN] == 0
        assert (await store.usage(TODAY + 1, [EVERYBODY])).get((EVERYBODY, USD), 0) == 0


async def test_a_cap_refuses_what_would_exceed_it_and_nothing_else(bench: Bench) -> None:
    async with bench.store() as store:
        await accept_under(store, 1, usd_cap(300))
        await accept_under(store, 2, usd_cap(300))
        with pytest.raises(DailyLimitReached, match=EVERYBODY):
            await accept_under(store, 3, usd_cap(300))
        with pytest.raises(TooManyOpenOrders):
            await accept_under(store, 4, Cap(of_key(KEY), OPEN, 2, 1))
        assert [order.id async for order in store.scan()] == [some_id(number, EPOCH_MS) for number in (1, 2)]
        await accept_under(store, 5, usd_cap(450), Cap(of_key(KEY), OPEN, 3, 1))
        await accept_under(store, 6)  # who is under no cap is not refused for those who are


async def test_what_is_known_is_returned_though_there_would_be_no_room_for_it(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept_under(store, 1, usd_cap(150), client_order_id="mine")
        assert await accept_under(store, 2, usd_cap(150), client_order_id="mine") == order
        assert (await store.usage(TODAY, [EVERYBODY]))[EVERYBODY, USD] == 150


@pytest.mark.parametrize("outcome", ["confirmed", "failed", "cancelled", "expired"])
async def test_an_order_counts_until_it_ends_without_a_fill(bench: Bench, outcome: str) -> None:
    async with bench.store() as store:
        expires_at_ms = EPOCH_MS + 1_000 if outcome == "expired" else None
        event = Accepted(some_terms(expires_at_ms=expires_at_ms), None, "acme", a_charge())
        order = await store.accept(some_id(1, EPOCH_MS), event, [usd_cap(150)])
        if outcome == "expired":
            bench.clock.skew_ms = 2_000
            await store.claim("w", 1)
        elif outcome == "cancelled":
            await store.append(order, Cancelled())
        elif outcome == "failed":
            await drive(store, await claim_one(store), Failed(1, FAILURE))
        else:
            signed = (RouteSelected(a_route(), 1), TransactionSigned(a_transaction()), Confirmed(FILL))
            await drive(store, await claim_one(store), *signed)
        used = await store.usage(TODAY, [EVERYBODY, of_key(KEY)])
        expected = 150 if outcome == "confirmed" else 0
        assert [used[of, USD] for of in (EVERYBODY, of_key(KEY))] == [expected] * 2
        assert used[of_key(KEY), OPEN] == 0


async def test_of_many_at_once_exactly_as_many_are_taken_as_there_is_room_for(bench: Bench) -> None:
    """Through two stores on one database, where a database can have two."""
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(bench.store())]
        if bench.is_kept:
            stores.append(await opened.enter_async_context(bench.store()))
        caps = [
            usd_cap(37 * 150),
            Cap(of_key(KEY), OPEN, 40, 1),
            Cap(of_account("acme"), SOL.mint, 50 * ONE_SOL, ONE_SOL),
        ]
        answers = await asyncio.gather(
            *(accept_under(stores[number % len(stores)], number, *caps) for number in range(200)),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, Order) for answer in answers) == 37
        assert {type(answer) for answer in answers} == {Order, DailyLimitReached}
        assert (await stores[0].usage(TODAY, [EVERYBODY]))[EVERYBODY, USD] == 37 * 150


async def test_of_two_orders_with_one_client_order_id_the_one_that_is_taken_is_the_one_that_counts(
    bench: Bench,
) -> None:
    async with bench.store() as store:
        for turn in range(10):
            keys = [f"{hash_of(turn, number)}" for number in range(16)]
            small, large = (
                Accepted(some_terms(in_amount=amount), f"pair-{turn}", "acme", a_charge(None))
                for amount in (ONE_SOL, 500 * ONE_SOL)
            )
            events = [Accepted(some_terms(in_amount=1), key, "acme", a_charge(None)) for key in keys]
            events[5:5], events[11:11] = [small], [large]
            answers = await asyncio.gather(
                *(
                    store.accept(
                        some_id(100 * turn + number, EPOCH_MS),
                        event,
                        [Cap(EVERYBODY, SOL.mint, 100 * ONE_SOL, event.terms.in_amount)],
                    )
                    for number, event in enumerate(events)
                ),
                return_exceptions=True,
            )
            assert all(isinstance(answer, Order | DailyLimitReached) for answer in answers)
        assert (await store.usage(TODAY, [EVERYBODY]))[EVERYBODY, SOL.mint] <= 100 * ONE_SOL


def hash_of(*what: object) -> str:
    return sha256(repr(what).encode()).hexdigest()[:12]


async def test_sums_are_exact_beyond_what_a_machine_word_holds(bench: Bench) -> None:
    async with bench.store() as store:
        for number in range(3):
            event = Accepted(some_terms(in_amount=U64_MAX), None, "acme", a_charge())
            await store.accept(some_id(number, EPOCH_MS), event, [Cap(EVERYBODY, SOL.mint, 3 * U64_MAX, U64_MAX)])
        assert (await store.usage(TODAY, [EVERYBODY]))[EVERYBODY, SOL.mint] == 3 * U64_MAX


async def test_an_order_that_was_never_counted_gives_nothing_back(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept(store)  # as an earlier version accepted it
        await store.append(order, Cancelled())
        assert (await store.usage(TODAY, [EVERYBODY])).get((EVERYBODY, SOL.mint), 0) == 0


# ---- deliveries to webhooks

DELIVERY_LEASE_MS: Final = 1_000


async def accept_and_tell(store: Store, number: int, *webhooks: str) -> Order:
    return await store.accept(some_id(number, EPOCH_MS), Accepted(some_terms()), (), webhooks)


async def claim_deliveries(store: Store, webhook: str = "w1", limit: int = 10, **narrow: Any) -> list[Delivery]:
    return await store.claim_deliveries(webhook, limit, DELIVERY_LEASE_MS, **narrow)


async def test_an_order_is_to_be_told_to_the_webhooks_it_was_accepted_with(bench: Bench) -> None:
    async with bench.store() as store:
        first, second = await accept_and_tell(store, 1, "w1", "w2"), await accept_and_tell(store, 2, "w1")
        await accept_and_tell(store, 3)
        assert {each.order_id for each in await claim_deliveries(store)} == {first.id, second.id}
        assert [each.order_id for each in await claim_deliveries(store, "w2")] == [first.id]
        assert await claim_deliveries(store, "w3") == []


async def test_a_delivery_is_due_only_while_there_is_an_event_to_tell(bench: Bench) -> None:
    async with bench.store() as store:
        order = await accept_and_tell(store, 1, "w1")
        (delivery,) = await claim_deliveries(store)
        assert (delivery.sent, delivery.tries, delivery.error, delivery.dead_at_ms) == (0, 0, "", None)
        await store.settle_delivery(replace(delivery, sent=1, due_at_ms=bench.clock.now_ms()))
        assert await claim_deliveries(store) == []
        await store.append(order, Cancelled())
        (delivery,) = await claim_deliveries(store)
        assert delivery.sent == 1
        await store.settle_delivery(replace(delivery, sent=2), is_over=True)
        bench.clock.skew_ms = 2 * DELIVERY_LEASE_MS
        assert await claim_deliveries(store) == []


async def test_a_delivery_has_one_holder_and_one_that_lost_it_changes_nothing(bench: Bench) -> None:
    async with bench.store() as store:
        await accept_and_tell(store, 1, "w1")
        (frozen,) = await claim_deliveries(store)
        assert await claim_deliveries(store) == []
        bench.clock.skew_ms = 2 * DELIVERY_LEASE_MS
        (delivery,) = await claim_deliveries(store)
        await store.settle_delivery(replace(frozen, sent=1), is_over=True)
        await store.settle_delivery(replace(frozen, sent=1, due_at_ms=0))
        await store.settle_delivery(replace(delivery, tries=1, error="no answer", due_at_ms=bench.clock.now_ms()))
        (again,) = await claim_deliveries(store)
        assert (again.sent, again.tries, again.error) == (0, 1, "no answer")


async def test_claims_of_deliveries_are_as_many_as_asked_for_and_only_of_the_orders_asked_for(bench: Bench) -> None:
    async with bench.store() as store:
        ids = [(await accept_and_tell(store, number, "w1")).id for number in range(1, 6)]
        assert [each.order_id for each in await claim_deliveries(store, orders=[ids[3]])] == [ids[3]]
        assert len(await claim_deliveries(store, limit=2)) == 2
        assert len(await claim_deliveries(store)) == 2
        assert await claim_deliveries(store, orders=[]) == []


async def test_what_is_given_up_waits_until_it_is_revived_and_goes_with_its_webhook(bench: Bench) -> None:
    async with bench.store() as store:
        ids = [(await accept_and_tell(store, number, "w1", "w2")).id for number in (1, 2)]
        for delivery in await claim_deliveries(store):
            await store.settle_delivery(replace(delivery, tries=15, dead_at_ms=bench.clock.now_ms(), error="gone"))
        bench.clock.skew_ms = 10 * DELIVERY_LEASE_MS
        assert await claim_deliveries(store) == []
        dead = await store.failed_deliveries(["w1", "w2"], 10)
        assert [(each.webhook_id, each.order_id, each.error) for each in dead] == [("w1", each, "gone") for each in ids]
        assert len(await store.failed_deliveries(["w1"], 1)) == 1
        assert await store.failed_deliveries(["w2"], 10) == []
        assert await store.revive_deliveries(["w2"]) == 0
        assert await store.revive_deliveries(["w1"], ids[1]) == 1
        assert [(each.order_id, each.tries) for each in await claim_deliveries(store)] == [(ids[1], 0)]
        assert await store.revive_deliveries(["w1", "w2"]) == 1
        await store.drop_deliveries([], EPOCH_MS)
        await store.drop_deliveries(["w1"])
        bench.clock.skew_ms = 20 * DELIVERY_LEASE_MS
        assert await claim_deliveries(store) == []
        assert len(await claim_deliveries(store, "w2")) == 2


async def test_what_was_given_up_long_ago_is_forgotten(bench: Bench) -> None:
    async with bench.store() as store:
        await accept_and_tell(store, 1, "w1")
        (delivery,) = await claim_deliveries(store)
        await store.settle_delivery(replace(delivery, dead_at_ms=EPOCH_MS, error="gone"))
        await store.drop_deliveries([], EPOCH_MS)
        assert len(await store.failed_deliveries(["w1"], 10)) == 1
        await store.drop_deliveries([], EPOCH_MS + 1)
        assert await store.failed_deliveries(["w1"], 10) == []
