"""Metrics: what happened is counted once, and told as Prometheus reads it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final, cast

from prometheus_client.parser import text_string_to_metric_families

from fillwright.core.control import Mode, ModeSet
from fillwright.settings import Settings
from tests.api.test_access import keys
from tests.api.test_streams import UPGRADE, RawClient
from tests.world import World, a_world

LIFE: Final = ("Accepted", "RoutingStarted", "RouteSelected", "TransactionSigned", "Confirmed")
Samples = dict[tuple[str, ...], float]


def parsed(text: str) -> Samples:
    """Return the samples: name and values of the labels -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def overrun() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def scrape(world: World) -> Samples:
    async with world.http.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/plain; version=")
        return parsed(await response.text())


async def test_every_event_is_counted_once_and_the_queue_is_told() -> None:
    async with a_world() as world:
        for _ in range(3):
            await world.statuses(await world.submit())
        found = await scrape(world)
        assert [found["fillwright_events_total", event] for event in LIFE] == [3] * 5
        assert found["fillwright_store_orders", "all"] == found["fillwright_store_orders", "confirmed"] == 3
        assert [found["fillwright_queue_orders", state] for state in ("active", "delayed", "waiting")] == [0, 0, 0]
        assert sum(value for name, value in found.items() if name[0] == "fillwright_routes_total") == 3
        assert (found["fillwright_mode", "active"], found["fillwright_store_up",]) == (1, 1)
        assert found["fillwright_commit_events_sum",] == 15


async def test_each_phase_takes_the_time_it_took() -> None:
    async with a_world() as world:
        updates = await world.follow(await world.submit())
        found = await scrape(world)
        for phase in ("pending", "routing", "building", "submitted", "whole"):
            assert found["fillwright_phase_seconds_count", phase] == 1
        whole = found["fillwright_phase_seconds_sum", "whole"]
        parts = sum(
            found["fillwright_phase_seconds_sum", phase] for phase in ("pending", "routing", "building", "submitted")
        )
        assert abs(whole - parts) < 1e-9
        assert 2 < whole < 5
        assert updates[-1]["status"] == "confirmed"
        assert found["fillwright_venue_quote_seconds_count", "raydium"] == 1
        assert 0.2 <= found["fillwright_venue_quote_seconds_sum", "meteora"] < 0.3
        assert found["fillwright_quote_to_fill_bps_bucket", "+Inf"] == 1
        assert found["fillwright_quote_to_fill_bps_bucket", "-10.0"] == 1
        assert found["fillwright_quote_to_fill_bps_bucket", "-20.0"] == 0


async def test_failures_are_counted_by_why() -> None:
    async with a_world(sim_reverted_rate=1.0, attempts_max=2, retry_delay_ms=10) as world:
        assert (await world.statuses(await world.submit()))[-1] == "failed"
        found = await scrape(world)
        assert found["fillwright_attempts_failed_total", "transaction_reverted"] == 2
        assert found["fillwright_orders_failed_total", "transaction_reverted"] == 1
        assert [found["fillwright_phase_seconds_count", phase] for phase in ("pending", "submitted")] == [1, 2]


async def test_an_order_that_waits_is_seen_to_wait() -> None:
    async with a_world(working=False) as world:
        await world.submit()
        await world.clock.sleep(7_000)
        found = await scrape(world)
        assert found["fillwright_queue_orders", "waiting"] == 1
        assert 7 <= found["fillwright_queue_oldest_due_seconds",] < 8
        await world.gate.change("test", ModeSet(Mode.REDUCE, ""))
        assert (await scrape(world))["fillwright_mode", "reduce"] == 1


async def test_open_streams_are_counted() -> None:
    async with a_world(working=False) as world, world.http.ws_connect("/api/stream") as websocket:
        assert (await websocket.receive_json())["event"] == "connection:established"
        assert (await scrape(world))["fillwright_streams",] == 1


async def test_what_waits_for_streams_is_told_of_all_together_and_of_the_one_that_has_most() -> None:
    async with a_world(working=False) as world, contextlib.AsyncExitStack() as opened:
        for messages in (3, 5):
            following = cast("AsyncGenerator[object]", world.engine.streams.follow_all(overrun(), ""))
            await anext(await opened.enter_async_context(contextlib.aclosing(following)))
            for _ in range(messages):
                await world.submit()
        found = await scrape(world)
        assert (found["fillwright_stream_backlog",], found["fillwright_stream_backlog_largest",]) == (8 + 5, 8)


async def test_a_client_that_is_closed_because_it_does_not_read_is_counted_once() -> None:
    async with a_world(sim_speed=0.0, stream_backlog_max=50, queue_concurrency=100) as world:
        slow = await RawClient.connect(world, receive_buffer=4_096)
        await slow.request("GET", "/api/stream", b"", *UPGRADE)
        assert (await scrape(world))["fillwright_streams_overrun_total",] == 0
        while world.engine.streams.connections:
            await asyncio.gather(*(world.submit() for _ in range(20)))
        assert (await scrape(world))["fillwright_streams_overrun_total",] == 1
        slow.writer.close()


async def test_a_lease_that_ran_out_is_counted_by_the_worker_that_takes_the_order_and_one_given_back_is_not() -> None:
    async with a_world(working=False) as world:
        ids = [await world.submit() for _ in range(3)]
        store, lease_ms = world.engine.store, Settings().lease_ms
        claims = (await store.claim("died", 3)).taken
        await store.release([(claims[0].order.id, claims[0].lease)])
        await world.clock.sleep(lease_ms + 1)
        working = asyncio.create_task(world.engine.worker.run())
        for order_id in ids:
            assert (await world.statuses(order_id))[-1] == "confirmed"
        found = await scrape(world)
        assert (found["fillwright_leases_run_out_total",], found["fillwright_worker_orders",]) == (2, 0)
        world.engine.worker.stop()
        await working


async def test_with_keys_metrics_ask_for_one() -> None:
    async with keys() as all_:
        assert await all_.ask("nobody", "GET", "/metrics") == 401
        assert await all_.ask("trader", "GET", "/metrics") == 403
        async with all_.world.http.get("/metrics", headers=all_.headers("reader")) as response:
            assert response.status == 200


async def test_metrics_can_be_off() -> None:
    async with a_world(metrics="off") as world:
        assert (await world.get("/metrics"))[0] == 404
