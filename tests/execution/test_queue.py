"""Ten at a time, a hundred a minute, three attempts: the queue as a client sees it."""

from __future__ import annotations

import asyncio
from typing import Any

from fillwright.core.lifecycle import (
    AttemptFailed,
    Confirmed,
    Failed,
    RouteSelected,
    RoutingStarted,
    TransactionSigned,
    Update,
)
from tests.virtual import until
from tests.world import World, a_world


def record(world: World) -> list[Update]:
    """Return the list that all news is added to from now on."""
    news: list[Update] = []
    world.engine.bus.subscribe(news.extend)
    return news


def over(news: list[Update]) -> int:
    return sum(update.order.due_at_ms is None for update in news)


def times(news: list[Update], kind: type[Any]) -> list[int]:
    return [update.record.at_ms for update in news if isinstance(update.record.event, kind)]


async def test_ten_orders_run_at_a_time_and_never_more() -> None:
    async with a_world() as world:
        news = record(world)
        await asyncio.gather(*(world.submit() for _ in range(40)))
        await until(lambda: over(news) == 40)
    running, most = 0, 0
    for update in news:
        running += isinstance(update.record.event, RoutingStarted) - isinstance(update.record.event, Confirmed)
        most = max(most, running)
    assert most == 10


async def test_at_the_seed_s_delays_ten_at_a_time_make_180_orders_a_minute() -> None:
    async with a_world() as world:
        news = record(world)
        await asyncio.gather(*(world.submit() for _ in range(200)))
        await until(lambda: over(news) == 200)
        ended = times(news, Confirmed)
        assert len([at for at in ended if at < ended[0] + 60_000]) >= 180


async def test_in_any_minute_at_most_a_hundred_orders_start_and_the_rest_are_delayed() -> None:
    async with a_world(queue_rate_limit=100, queue_concurrency=50, sim_speed=0.0) as world:
        news = record(world)
        await asyncio.gather(*(world.submit() for _ in range(250)))
        await until(lambda: over(news) == 100)
        _, stats = await world.get("/api/orders/stats")
        assert (stats["queue"]["waiting"], stats["queue"]["delayed"], stats["queue"]["completed"]) == (0, 150, 100)
        await until(lambda: over(news) == 250)
        starts = times(news, RoutingStarted)
        for start in starts:
            assert sum(start <= other <= start + 60_000 for other in starts) <= 100
        assert starts[-1] - starts[0] < 125_000, "the limit is used, not just kept"


async def test_without_a_limit_all_orders_start_as_fast_as_they_can() -> None:
    async with a_world(queue_rate_limit=0, sim_speed=0.0) as world:
        news = record(world)
        await asyncio.gather(*(world.submit() for _ in range(300)))
        await until(lambda: over(news) == 300)
        starts = times(news, RoutingStarted)
        assert starts[-1] - starts[0] < 10_000


async def test_a_failing_order_is_tried_three_times_with_doubling_pauses_and_fails_once() -> None:
    async with a_world(sim_reverted_rate=1.0) as world:
        news = record(world)
        order_id = await world.submit()
        statuses = await world.statuses(order_id)
        attempt = ["pending", "routing", "building", "submitted"]
        assert statuses == [*attempt, *attempt, *attempt, "failed"]
        failed, starts = times(news, AttemptFailed), times(news, RoutingStarted)
        assert 1_000 <= starts[1] - failed[0] <= 1_110
        assert 2_000 <= starts[2] - failed[1] <= 2_210
        assert len(times(news, Failed)) == 1
        _, order = await world.get(f"/api/orders/{order_id}")
        assert order["error"]["code"] == "transaction_reverted"
        assert [attempt["status"] for attempt in order["attempts"]] == ["failed"] * 3
        assert len({attempt["txHash"] for attempt in order["attempts"]}) == 3
        assert (await world.reconcile()).clean


async def test_the_last_attempt_fails_the_order_at_once() -> None:
    async with a_world(sim_venue_down_rate=1.0, attempts_max=1) as world:
        started = world.clock.now_ms()
        assert await world.statuses(await world.submit()) == ["pending", "routing", "failed"]
        assert world.clock.now_ms() - started < 500


async def test_an_order_that_no_venue_can_ever_fill_is_not_tried_again() -> None:
    async with a_world() as world:
        order_id = await world.submit(amount="0.000000001", tokenOut="ETH")
        assert await world.statuses(order_id) == ["pending", "routing", "failed"]
        assert (await world.get(f"/api/orders/{order_id}"))[1]["error"]["code"] == "unroutable"


async def test_an_order_whose_retry_succeeds_is_confirmed_once() -> None:
    async with a_world(sim_quote_error_rate=0.7, attempts_max=30, sim_seed=3) as world:
        news = record(world)
        ids = [await world.submit() for _ in range(10)]
        for order_id in ids:
            assert (await world.statuses(order_id))[-1] == "confirmed"
        assert len(times(news, AttemptFailed)) > 0
        result = await world.reconcile()
        assert (result.confirmed, result.clean) == (10, True)


async def test_the_minimum_is_pinned_by_the_first_quote_and_kept_by_every_attempt() -> None:
    async with a_world(sim_slippage_exceeded_rate=1.0) as world:
        news = record(world)
        await world.statuses(await world.submit())
        minima = [u.record.event.min_out_amount for u in news if isinstance(u.record.event, RouteSelected)]
        assert len(minima) >= 1
        assert len(set(minima)) == 1


async def test_a_dropped_transaction_is_sent_again_and_signed_once() -> None:
    async with a_world(sim_dropped_rate=0.7, sim_seed=5) as world:
        news = record(world)
        ids = [await world.submit() for _ in range(10)]
        for order_id in ids:
            assert (await world.statuses(order_id))[-1] == "confirmed"
        assert len(times(news, TransactionSigned)) == 10
        assert (await world.reconcile()).clean


async def test_lost_replies_prove_nothing_and_cost_no_attempt() -> None:
    async with a_world(sim_reply_lost_rate=0.6, sim_seed=7) as world:
        news = record(world)
        ids = [await world.submit() for _ in range(20)]
        for order_id in ids:
            assert (await world.statuses(order_id))[-1] == "confirmed"
        assert times(news, AttemptFailed) == []
        assert (await world.reconcile()).clean


async def test_a_transaction_that_never_lands_is_dead_only_past_its_last_valid_height() -> None:
    async with a_world(sim_dropped_rate=1.0, attempts_max=1) as world:
        started = world.clock.now_ms()
        order_id = await world.submit()
        assert (await world.statuses(order_id))[-1] == "failed"
        assert world.clock.now_ms() - started >= (150 + 32) * 400
        assert (await world.get(f"/api/orders/{order_id}"))[1]["error"]["code"] == "transaction_expired"


async def test_under_every_fault_at_once_no_order_is_lost_doubled_or_misreported() -> None:
    async with a_world(
        sim_quote_error_rate=0.2,
        sim_venue_down_rate=0.1,
        sim_slippage_exceeded_rate=0.1,
        sim_reverted_rate=0.1,
        sim_dropped_rate=0.3,
        sim_late_rate=0.3,
        sim_reply_lost_rate=0.3,
        queue_concurrency=50,
        sim_seed=11,
    ) as world:
        news = record(world)
        await asyncio.gather(*(world.submit() for _ in range(100)))
        await until(lambda: over(news) == 100, within_ms=3_600_000)
        result = await world.reconcile()
        assert (result.orders, result.open, result.findings) == (100, 0, [])
        assert result.confirmed > 50
        assert result.failed > 0
