"""Two API processes and two workers on one PostgreSQL and one Redis, each killed in turn, and the servers, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp

from tests import servers
from tests.process import EngineProcess, a_process, in_real_time, reconciled
from tests.world import SWAP

ORDERS = 300
Faults: TypeAlias = Callable[["Cluster", servers.PostgresServer, servers.RedisServer], Awaitable[None]]
ROLES = {
    "api 1": ("serve", "--api-only"),
    "api 2": ("serve", "--api-only"),
    "worker 1": ("worker",),
    "worker 2": ("worker",),
}


class Cluster:
    """The processes by name. One that is killed is started again, as whoever runs it would."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._settings = settings
        self._running: dict[str, contextlib.AsyncExitStack] = {}
        self.processes: dict[str, EngineProcess] = {}

    async def start(self, name: str) -> None:
        stack = self._running[name] = contextlib.AsyncExitStack()
        self.processes[name] = await stack.enter_async_context(a_process(self._folder, *ROLES[name], **self._settings))

    async def kill(self, name: str) -> None:
        await self.processes[name].kill()
        await self._running.pop(name).aclose()
        await self.start(name)

    async def close(self) -> None:
        for stack in self._running.values():
            await stack.aclose()

    @property
    def apis(self) -> list[EngineProcess]:
        return [process for name, process in self.processes.items() if name.startswith("api")]


@contextlib.asynccontextmanager
async def a_cluster(
    folder: Path, postgres: servers.PostgresServer, redis: servers.RedisServer
) -> AsyncIterator[Cluster]:
    cluster = Cluster(
        folder,
        {
            "database_url": postgres.new_database(),
            "redis_url": redis.url,
            "queue_concurrency": 20,
            "fillwright_sim_speed": 0.1,
            "fillwright_lease_ms": 1_000,
        },
    )
    try:
        for name in ROLES:
            await cluster.start(name)
        yield cluster
    finally:
        await cluster.close()


async def post(cluster: Cluster, number: int) -> str:
    """Submit an order under its own key, at whichever API answers, until one has taken it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + 40
    for turn in count(number):
        api = cluster.apis[turn % 2]
        with contextlib.suppress(aiohttp.ClientError, KeyError):
            headers = {"Idempotency-Key": f"key-{number}"}
            async with api.http.post("/api/orders/execute", json=SWAP, headers=headers) as response:
                if response.status in (200, 201):
                    return str((await response.json())["orderId"])
        assert loop.time() < until, "no API takes the order"
        await asyncio.sleep(0.05)
    raise AssertionError


async def survive(folder: Path, faults: Faults) -> None:
    with servers.postgres() as postgres, servers.redis() as redis:
        async with a_cluster(folder, postgres, redis) as cluster:
            posts = [asyncio.create_task(post(cluster, number)) for number in range(ORDERS)]
            await faults(cluster, postgres, redis)
            ids = await asyncio.gather(*posts)
            assert len(set(ids)) == ORDERS
            again = await asyncio.gather(*(post(cluster, number) for number in range(ORDERS)))
            assert again == ids, "the same key gives the same order, whichever API is asked"
            outcomes = await asyncio.gather(*(cluster.apis[0].outcome(order_id) for order_id in ids))
            assert set(outcomes) == {"confirmed"}
            result = await reconciled(folder, **cluster._settings)
    assert (result["orders"], result["confirmed"], result["open"]) == (ORDERS, ORDERS, 0)
    assert (result["lost"], result["doubled"], result["misreported"]) == (0, 0, 0)


async def some_work(cluster: Cluster, updates: int = 100) -> None:
    """Return when that many updates have been told, or a few seconds have passed."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(3), cluster.apis[0].http.ws_connect("/api/stream") as websocket:
            for _ in range(updates):
                await websocket.receive()


def test_orders_survive_each_process_being_killed_in_turn(tmp_path: Path) -> None:
    async def faults(cluster: Cluster, _: servers.PostgresServer, __: servers.RedisServer) -> None:
        for name in ROLES:
            await some_work(cluster)
            await cluster.kill(name)

    in_real_time(survive(tmp_path, faults), within_s=120)


def test_orders_survive_redis_being_killed_and_starting_empty(tmp_path: Path) -> None:
    async def faults(cluster: Cluster, _: servers.PostgresServer, redis: servers.RedisServer) -> None:
        await some_work(cluster)
        await asyncio.to_thread(redis.kill)
        await some_work(cluster)
        await cluster.kill("worker 1")
        await asyncio.to_thread(redis.start)

    in_real_time(survive(tmp_path, faults), within_s=120)


def test_orders_survive_a_crash_of_postgres(tmp_path: Path) -> None:
    async def faults(cluster: Cluster, postgres: servers.PostgresServer, __: servers.RedisServer) -> None:
        for _ in range(3):
            await some_work(cluster)
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)

    in_real_time(survive(tmp_path, faults), within_s=120)
