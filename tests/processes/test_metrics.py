"""The metrics of several processes add up to what is in the database, each event once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Final

import aiohttp

from tests.api.test_metrics import Samples, parsed
from tests.process import EngineProcess, a_process, free_port, in_real_time
from tests.world import SWAP

ORDERS: Final = 500
LIFE: Final = ("Accepted", "RoutingStarted", "RouteSelected", "TransactionSigned", "Confirmed")


async def submit(api: EngineProcess) -> str:
    async with api.http.post("/api/orders/execute", json=SWAP) as response:
        return str((await response.json())["orderId"])


def test_what_four_processes_count_is_what_the_database_has(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    async def count() -> None:
        settings = {"database_url": postgres_url, "redis_url": redis_url, "fillwright_sim_speed": 0.02}
        ports = [free_port() for _ in range(4)]
        roles = (("serve", "--api-only"), ("serve", "--api-only"), ("worker",), ("worker",))
        async with contextlib.AsyncExitStack() as opened:
            processes = [
                await opened.enter_async_context(a_process(tmp_path, *role, fillwright_metrics_port=port, **settings))
                for role, port in zip(roles, ports, strict=True)
            ]
            apis = processes[:2]
            ids = await asyncio.gather(*(submit(apis[number % 2]) for number in range(ORDERS)))
            outcomes = await asyncio.gather(*(apis[0].outcome(order_id) for order_id in ids))
            assert set(outcomes) == {"confirmed"}
            total, stored = Counter[str](), list[float]()
            async with aiohttp.ClientSession() as http:
                for port in ports:
                    async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
                        found = parsed(await response.text())
                    total.update({event: int(found.get(("fillwright_events_total", event), 0)) for event in LIFE})
                    stored.append(found["fillwright_store_orders", "confirmed"])
                async with http.get(f"http://127.0.0.1:{ports[3]}/health/live") as response:
                    assert response.status == 200
                async with http.get(f"http://127.0.0.1:{ports[0]}/") as response:
                    assert response.status == 404
            assert total == dict.fromkeys(LIFE, ORDERS)
            assert stored == [ORDERS] * 4, "what is true of the engine, each process tells alike"

    in_real_time(count(), within_s=90)


def test_leases_of_a_killed_worker_are_counted_by_the_one_that_takes_its_orders(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    async def count() -> None:
        settings = {
            "database_url": postgres_url,
            "redis_url": redis_url,
            "fillwright_lease_ms": 1_000,
            "fillwright_sim_execution_min_ms": 600_000,  # so long are all of them in hand
            "fillwright_sim_execution_max_ms": 600_000,
        }
        ports = [free_port() for _ in range(2)]
        async with contextlib.AsyncExitStack() as opened:
            api = await opened.enter_async_context(a_process(tmp_path, "serve", "--api-only", **settings))
            await asyncio.gather(*(submit(api) for _ in range(5)))
            killed, other = [a_process(tmp_path, "worker", fillwright_metrics_port=port, **settings) for port in ports]
            worker = await opened.enter_async_context(killed)
            assert (await told_once(ports[0], "fillwright_worker_orders", 5))["fillwright_leases_run_out_total",] == 0
            await worker.kill()
            await opened.enter_async_context(other)
            found = await told_once(ports[1], "fillwright_leases_run_out_total", 5)
            assert found["fillwright_worker_orders",] == 5

    in_real_time(count(), within_s=90)


async def told_once(port: int, name: str, value: float) -> Samples:
    """Return what a process tells once a metric of its has a value."""
    async with aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
                found = parsed(await response.text())
            if found[name,] == value:
                return found
