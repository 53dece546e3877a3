"""`kill -9` in mid-run: everything that was accepted ends, once, and says the truth."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from tests.process import EngineProcess, an_engine, in_real_time, reconciled
from tests.world import SWAP

ORDERS = 200
SETTINGS = {"queue_concurrency": 20, "fillwright_sim_speed": 0.1, "fillwright_lease_ms": 1_000}


async def post(engine: EngineProcess, number: int, accepted: dict[int, str]) -> None:
    """Submit an order under its own key, and note its id once it is answered."""
    async with engine.http.post(
        "/api/orders/execute", json=SWAP, headers={"Idempotency-Key": f"key-{number}"}
    ) as response:
        accepted[number] = (await response.json())["orderId"]


async def after_updates(engine: EngineProcess, count: int) -> None:
    """Return when that many updates have come over the stream of everything."""
    async with engine.http.ws_connect("/api/stream") as websocket:
        for _ in range(count):
            await websocket.receive()


async def kill_in_mid_run(folder: Path, kills: tuple[int, ...]) -> None:
    accepted: dict[int, str] = {}
    for updates in kills:
        async with an_engine(folder, **SETTINGS) as engine:
            heard = asyncio.create_task(after_updates(engine, updates))
            missing = [number for number in range(ORDERS) if number not in accepted]
            posts = asyncio.gather(*(post(engine, number, accepted) for number in missing), return_exceptions=True)
            await heard
            await engine.kill()
            assert all(error is None or isinstance(error, aiohttp.ClientError) for error in await posts)
    async with an_engine(folder, **SETTINGS) as engine:
        before = dict(accepted)
        await asyncio.gather(*(post(engine, number, accepted) for number in range(ORDERS)))
        assert {number: accepted[number] for number in before} == before, "the same key gives the same order"
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcomes = await asyncio.gather(*(engine.outcome(order_id) for order_id in accepted.values()))
        assert set(outcomes) == {"confirmed"}
        assert loop.time() - started < 20
        async with engine.http.get("/api/orders/stats") as response:
            assert (await response.json())["queue"]["total"] == ORDERS
    result = await reconciled(folder, **SETTINGS)
    assert (result["orders"], result["confirmed"], result["open"]) == (ORDERS, ORDERS, 0)
    assert (result["lost"], result["doubled"], result["misreported"]) == (0, 0, 0)


def test_orders_survive_a_kill_in_mid_run(tmp_path: Path) -> None:
    in_real_time(kill_in_mid_run(tmp_path, kills=(400,)))


def test_orders_survive_one_kill_after_another(tmp_path: Path) -> None:
    in_real_time(kill_in_mid_run(tmp_path, kills=(5, 60, 300, 150)))


def test_a_stopped_engine_finishes_what_it_has_in_hand_and_ends_well(tmp_path: Path) -> None:
    async def stop() -> None:
        async with an_engine(tmp_path, fillwright_sim_speed=0.3) as engine:
            accepted: dict[int, str] = {}
            await asyncio.gather(*(post(engine, number, accepted) for number in range(20)))
            assert await engine.stop() == 0
        result = await reconciled(tmp_path)
        assert (result["orders"], result["findings"]) == (20, [])
        assert result["confirmed"] >= 10
        async with an_engine(tmp_path, fillwright_sim_speed=0.3) as engine:
            outcomes = await asyncio.gather(*(engine.outcome(order_id) for order_id in accepted.values()))
            assert set(outcomes) == {"confirmed"}

    in_real_time(stop())
