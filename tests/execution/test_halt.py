"""Halted: nothing new is taken and nothing signed, and what was signed is followed to its end."""

from __future__ import annotations

import asyncio

import pytest

from fillwright.core.control import Mode, ModeSet
from fillwright.core.lifecycle import RoutingStarted, TransactionSigned
from fillwright.core.order import OrderStatus
from tests.execution.test_queue import over, record, times
from tests.virtual import until
from tests.world import SWAP, World, a_world


async def set_mode(world: World, mode: Mode, reason: str = "") -> None:
    await world.gate.change("test", ModeSet(mode, reason))


async def test_a_halt_stops_signing_and_lets_what_was_signed_end() -> None:
    async with a_world(queue_concurrency=3) as world:
        news = record(world)
        signed = await world.submit()
        await until(lambda: len(times(news, TransactionSigned)) == 1)
        waiting = [await world.submit() for _ in range(5)]
        await set_mode(world, Mode.HALTED)
        halted_at = world.clock.now_ms()
        await world.clock.sleep(60_000)
        assert [at for at in times(news, TransactionSigned) if at > halted_at] == []
        assert (await world.statuses(signed))[-1] == "confirmed"
        await set_mode(world, Mode.ACTIVE)
        await until(lambda: over(news) == 6)
        assert [(await world.statuses(order))[-1] for order in waiting] == ["confirmed"] * 5
        assert (await world.reconcile()).findings == []


async def test_a_halt_while_orders_are_routed_keeps_them_from_being_signed() -> None:
    async with a_world(sim_quote_delay_ms=1_500) as world:
        news = record(world)
        order = await world.submit()
        await until(lambda: len(times(news, RoutingStarted)) == 1)
        await set_mode(world, Mode.HALTED)
        await world.clock.sleep(30_000)
        assert times(news, TransactionSigned) == []
        async with world.http.delete(f"/api/orders/{order}") as response:
            assert (response.status, (await response.json())["status"]) == (200, "cancelled")


async def test_a_halted_worker_begins_none_of_a_long_queue() -> None:
    async with a_world(queue_concurrency=3, queue_capacity=1_000, working=False) as world:
        news = record(world)
        for _ in range(20):
            await world.submit()
        await set_mode(world, Mode.HALTED)
        work = asyncio.create_task(world.engine.worker.run())
        await world.clock.sleep(30_000)
        assert times(news, RoutingStarted) == []
        await set_mode(world, Mode.ACTIVE)
        await until(lambda: over(news) == 20)
        world.engine.worker.stop()
        await work


@pytest.mark.parametrize("mode", [Mode.REDUCE, Mode.HALTED])
async def test_new_orders_are_refused_with_the_reason_but_a_repeated_one_finds_its_order(mode: Mode) -> None:
    async with a_world(working=False) as world:
        order = await world.submit(clientOrderId="mine")
        await set_mode(world, mode, "the venue acts up")
        status, answer = await world.post(json=SWAP)
        assert (status, answer["code"]) == (503, "halted")
        assert "the venue acts up" in answer["message"]
        status, answer = await world.post(json={**SWAP, "clientOrderId": "mine"})
        assert (status, answer["orderId"]) == (200, order)


async def test_reduced_the_open_orders_are_finished() -> None:
    async with a_world(queue_concurrency=2) as world:
        news = record(world)
        for _ in range(6):
            await world.submit()
        await set_mode(world, Mode.REDUCE)
        await until(lambda: over(news) == 6)


async def test_an_order_that_expires_while_everything_is_halted_says_so() -> None:
    async with a_world(sim_quote_delay_ms=1_500) as world:
        news = record(world)
        await world.submit(expiresAt="2027-01-15T08:00:05Z")
        await until(lambda: len(times(news, RoutingStarted)) == 1)
        await set_mode(world, Mode.HALTED)
        await until(lambda: over(news) == 1, within_ms=8_000)
        assert news[-1].order.status is OrderStatus.EXPIRED
