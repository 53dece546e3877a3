"""The metrics of several processes add up to what is in the database, each event once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Final

import aiohttp

from tests.api.test_metrics import parsed
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
