"""The Python client, over a real engine: what it asks, what comes back, and what becomes of a lost answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from fillwright.client import AsyncFillwright, Refused, Status, Unreachable, Update
from fillwright.core.control import KeyRevoked, Scope, new_key
from fillwright.core.lifecycle import TERMINAL
from fillwright.core.order import OrderStatus
from tests.relay import Relay, a_relay
from tests.virtual import VirtualClock, until
from tests.world import World, a_world

EXACT: Final = "123456789.123456789"  # a float has fewer digits
LIFE: Final = ["pending", "routing", "building", "submitted", "confirmed"]
NAMES: Final = ["Accepted", "RoutingStarted", "RouteSelected", "TransactionSigned", "Confirmed"]


@contextlib.asynccontextmanager
async def a_client(**settings: Any) -> AsyncIterator[tuple[AsyncFillwright, World]]:
    async with a_world(**settings) as world, AsyncFillwright(f"http://127.0.0.1:{world.port}") as client:
        yield client, world


@contextlib.asynccontextmanager
async def a_line(**settings: Any) -> AsyncIterator[tuple[AsyncFillwright, World, Relay]]:
    """A client whose line to the engine can be cut."""
    async with (
        a_world(**settings) as world,
        a_relay(f"http://127.0.0.1:{world.port}") as relay,
        AsyncFillwright(relay.url) as client,
    ):
        yield client, world, relay


def steps(updates: list[Update]) -> list[tuple[int, str]]:
    return [(update.seq, update.status) for update in updates]


def test_its_statuses_are_the_engine_s() -> None:
    assert [str(status) for status in Status] == [str(status) for status in OrderStatus]
    assert {str(status) for status in Status if status.is_over} == {str(status) for status in TERMINAL}


async def test_an_order_is_submitted_followed_and_shown_with_exact_amounts() -> None:
    async with a_client() as (client, _):
        accepted = await client.submit("SOL", "USDC", Decimal(EXACT), slippage="0.005")
        updates = [update async for update in client.follow(accepted.order_id)]
        order = await client.get(accepted.order_id)
    assert (accepted.is_new, accepted.client_order_id) == (True, order.client_order_id)
    assert steps(updates) == list(enumerate(LIFE, 1))
    assert updates[0].terms == order.terms
    assert (order.terms.amount, order.terms.slippage_bps) == (Decimal(EXACT), 50)
    assert order.fill is not None
    assert updates[-1].fill == order.fill
    assert order.fill.in_amount == Decimal(EXACT)
    assert order.executed_price == updates[-1].data["executedPrice"]
    assert isinstance(updates[-1].data["executedPrice"], Decimal)
    assert str(order.executed_price) == str(updates[-1].data["executedPrice"])
    assert [quote.is_selected for quote in order.quotes] == [True, False]
    assert (order.status, order.is_over, order.attempts[0].venue) == (Status.CONFIRMED, True, order.venue)


async def test_its_log_and_the_reasons_are_told() -> None:
    async with a_client() as (client, _):
        order_id = (await client.submit("SOL", "USDC", 2)).order_id
        order = await client.wait(order_id)
        events = await client.events(order_id)
        explained = await client.explain(order_id)
        assert await client.events(order_id, after=3) == events[3:]
        assert [update.seq async for update in client.follow(order_id, after=3)] == [4, 5]
        assert [update async for update in client.follow(order_id, after=5)] == []
    assert [event.name for event in events] == NAMES
    assert order.fill is not None
    assert explained.filled_out_amount == order.fill.out_amount
    assert [decision.venue for decision in explained.decisions] == [order.venue]
    assert explained.decisions[0].quotes == order.quotes


async def test_a_quote_and_the_counts() -> None:
    async with a_client() as (client, _):
        route = await client.quote("SOL", "USDC", "1.5", slippage=Decimal("0.02"))
        before = await client.stats()
        await client.wait((await client.submit("SOL", "USDC", "1.5")).order_id)
        after = await client.stats()
    assert route.terms.amount == Decimal("1.5")
    assert 0 < route.min_out_amount < route.out_amount
    assert (before.total, after.total, after.confirmed) == (0, 1, 1)


async def test_a_list_goes_over_all_pages() -> None:
    async with a_client(working=False) as (client, world):
        ids = [(await client.submit("SOL", "USDC", 1, client_order_id=f"mine-{n}")).order_id for n in range(201)]
        assert [order.order_id async for order in client.list()] == sorted(ids, reverse=True)
        assert [order.client_order_id async for order in client.list(client_order_id="mine-7")] == ["mine-7"]
        assert [order async for order in client.list(status=Status.CONFIRMED)] == []
        future = datetime.fromtimestamp(world.clock.now_ms() / 1000, UTC) + timedelta(days=1)
        assert [order async for order in client.list(created_from=future)] == []
        assert len([order async for order in client.list(created_to=future, token="SOL")]) == 201


async def test_an_order_is_cancelled_until_it_is_signed() -> None:
    async with a_client(working=False) as (client, _):
        order_id = (await client.submit("SOL", "USDC", 1)).order_id
        assert (await client.cancel(order_id)).status is Status.CANCELLED
        assert (await client.wait(order_id)).status is Status.CANCELLED
    async with a_client() as (client, _):
        order_id = (await client.submit("SOL", "USDC", 1)).order_id
        await client.wait(order_id)
        with pytest.raises(Refused) as refused:
            await client.cancel(order_id)
    assert (refused.value.code, refused.value.status) == ("not_cancellable", 409)


async def test_a_refusal_tells_its_code_status_detail_and_field() -> None:
    async with a_client() as (client, _):
        with pytest.raises(Refused) as refused:
            await client.submit("SOL", "USDC", "-1")
        with pytest.raises(Refused) as unknown:
            async for _ in client.follow("ord_nothing"):
                pass
        with pytest.raises(TypeError, match="amount must be a Decimal"):
            await client.submit("SOL", "USDC", 1.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no time zone"):
            await client.submit("SOL", "USDC", 1, expires_at=datetime(2099, 1, 1))  # noqa: DTZ001 - that is the point
    assert (refused.value.status, refused.value.code, refused.value.field) == (400, "invalid_amount", "amount")
    assert refused.value.detail
    assert str(refused.value) == f"{refused.value.detail} (invalid_amount)"
    assert (unknown.value.status, unknown.value.code) == (404, "order_not_found")


async def test_waiting_ends_at_its_time() -> None:
    async with a_client(working=False) as (client, _):
        order_id = (await client.submit("SOL", "USDC", 1)).order_id
        with pytest.raises(TimeoutError):
            await client.wait(order_id, timeout_s=60)


async def test_a_lost_answer_and_its_repetition_give_one_order() -> None:
    async with a_line(working=False) as (client, _, relay):
        relay.lose_the_reply_to(b"POST /api/orders/execute")
        accepted = await client.submit("SOL", "USDC", 1)
        orders = [order.order_id async for order in client.list()]
    assert (relay.lost, accepted.is_new) == (1, False)
    assert orders == [accepted.order_id]


async def test_an_engine_that_is_away_is_asked_until_the_deadline() -> None:
    async with a_line() as (client, _, relay):
        relay.refuse()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Unreachable, match="no engine at http"):
            await client.stats()
        assert 20 < loop.time() - began <= 30
        asking = asyncio.create_task(client.submit("SOL", "USDC", 1))
        await asyncio.sleep(10)
        relay.refuse(refusing=False)
        assert (await asking).is_new
        assert (await client.stats()).total == 1


async def test_a_full_queue_is_asked_again_after_as_long_as_it_says() -> None:
    async with a_client(working=False, queue_capacity=1) as (client, _):
        first = await client.submit("SOL", "USDC", 1)
        second = asyncio.create_task(client.submit("SOL", "USDC", 1))
        await asyncio.sleep(5)
        assert not second.done()
        await client.cancel(first.order_id)
        assert (await second).is_new
        with pytest.raises(Refused) as refused:
            await client.submit("SOL", "USDC", 1)
    assert (refused.value.code, refused.value.status, refused.value.retry_after_s) == ("queue_full", 429, 1)


async def test_a_key_is_sent_from_the_argument_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world() as world:
        key, text = new_key("desk", "bot", frozenset({Scope.READ}), bytes(40))
        await world.gate.change("test", key)
        url = f"http://127.0.0.1:{world.port}"
        async with AsyncFillwright(url, text) as client:
            assert (await client.stats()).total == 0
            with pytest.raises(Refused) as forbidden:
                await client.submit("SOL", "USDC", 1)
        monkeypatch.setenv("FILLWRIGHT_API_KEY", text)
        async with AsyncFillwright(url) as client:
            assert (await client.stats()).total == 0
        async with AsyncFillwright(url, "") as client:
            with pytest.raises(Refused) as nobody:
                await client.stats()
            with pytest.raises(Refused) as deaf:
                await anext(client.follow_all())
    assert (forbidden.value.code, nobody.value.code, deaf.value.code) == ("forbidden", "unauthorized", "unauthorized")


async def test_a_revoked_key_ends_what_follows_all_orders() -> None:
    async with a_world(working=False) as world:
        key, text = new_key("desk", "bot", frozenset({Scope.READ, Scope.TRADE}), bytes(40))
        await world.gate.change("test", key)
        async with AsyncFillwright(f"http://127.0.0.1:{world.port}", text) as client:
            following = asyncio.create_task(_collect(client, []))
            await until(lambda: world.engine.streams.connections == 1)
            await world.gate.change("test", KeyRevoked(key.key_id))
            with pytest.raises(Refused) as refused:
                await following
    assert refused.value.code == "unauthorized"


async def test_what_is_no_engine_is_said_to_be_none_at_once() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(status=404, text="<h1>nothing here</h1>")

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with AsyncFillwright(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            began = asyncio.get_running_loop().time()
            with pytest.raises(Unreachable, match="something else answers there, with HTTP 404"):
                await client.get("ord_x")
            with pytest.raises(Unreachable, match="something else answers there, with HTTP 404"):
                await anext(client.follow("ord_x"))
            assert asyncio.get_running_loop().time() - began < 1
    finally:
        await runner.cleanup()
    with pytest.raises(ValueError, match="must be like"):
        AsyncFillwright("ftp://localhost")


async def test_an_order_is_followed_over_cuts_and_a_restart_with_every_event_once(
    tmp_path: Path, clock: VirtualClock
) -> None:
    seen: list[Update] = []
    settings: dict[str, Any] = {"clock": clock, "database_url": f"sqlite:///{tmp_path}/orders.db"}
    async with contextlib.AsyncExitStack() as stack:
        async with a_world(working=False, **settings) as world:
            relay = await stack.enter_async_context(a_relay(f"http://127.0.0.1:{world.port}"))
            client = await stack.enter_async_context(AsyncFillwright(relay.url))
            order_id = (await client.submit("SOL", "USDC", 1)).order_id

            async def follow() -> None:
                async for update in client.follow(order_id):
                    seen.append(update)
                    relay.refuse()
                    relay.refuse(refusing=False)

            following = asyncio.create_task(follow())
            await until(lambda: len(seen) == 1)
        async with a_world(**settings) as world:
            relay.aim(f"http://127.0.0.1:{world.port}")
            await following
            events = await client.events(order_id)
    assert steps(seen) == steps(list(events)) == list(enumerate(LIFE, 1))


async def test_a_followed_engine_that_stays_away_is_given_up() -> None:
    async with a_line(working=False) as (client, _, relay):
        order_id = (await client.submit("SOL", "USDC", 1)).order_id
        following = client.follow(order_id)
        await anext(following)
        loop = asyncio.get_running_loop()
        relay.refuse()
        began = loop.time()
        with pytest.raises(Unreachable):
            await anext(following)
        assert 50 < loop.time() - began <= 60


async def test_all_orders_are_followed_over_cuts_with_every_event_once_and_in_turn() -> None:
    async with a_line(working=False) as (client, world, relay):
        before = (await client.submit("SOL", "USDC", 1)).order_id
        await asyncio.sleep(1)  # what happened in the millisecond in which the following begins may be told
        seen: list[Update] = []
        following = asyncio.create_task(_collect(client, seen))
        await until(lambda: world.engine.streams.connections == 1)
        early = (await client.submit("SOL", "USDC", 1)).order_id
        await until(lambda: len(seen) == 1)
        # While the line is cut, an old order ends, a known one goes on, and one comes and ends.
        relay.refuse()
        async with AsyncFillwright(f"http://127.0.0.1:{world.port}") as beside:
            missed = (await beside.submit("SOL", "USDC", 1)).order_id
            await beside.cancel(before)
            await beside.cancel(missed)
        relay.refuse(refusing=False)
        await until(lambda: len(seen) == 4)
        late = (await client.submit("SOL", "USDC", 1)).order_id
        await client.cancel(early)
        await until(lambda: len(seen) == 6)
        relay.refuse()
        relay.refuse(refusing=False)
        await client.cancel(late)
        await until(lambda: len(seen) == 7)
        following.cancel()
    told = {
        order_id: [update.seq for update in seen if update.order_id == order_id]
        for order_id in (before, early, missed, late)
    }
    assert told == {before: [2], early: [1, 2], missed: [1, 2], late: [1, 2]}


async def _collect(client: AsyncFillwright, seen: list[Update]) -> None:
    async for update in client.follow_all():
        seen.append(update)  # noqa: PERF401 - what has come so far is looked at meanwhile
