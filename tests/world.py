"""The whole engine in a test: real server, real connections, real store; simulated market, chain and time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from fillwright.app import Engine, open_chain, open_engine, open_ledger
from fillwright.core.ports import Clock
from fillwright.execution.gate import Gate
from fillwright.execution.reconcile import Reconciliation, reconcile
from fillwright.processes import Server, listen
from fillwright.settings import Settings
from tests.virtual import VirtualClock

Json = dict[str, Any]
DEFAULTS: dict[str, Any] = {"database_url": "sqlite://", "queue_rate_limit": 0}
SWAP: Json = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5, "slippage": 0.01}


class World:
    """A running engine and a client of it."""

    def __init__(self, engine: Engine, http: aiohttp.ClientSession, port: int, clock: VirtualClock) -> None:
        self.engine = engine
        self.http = http
        self.port = port
        self.clock = clock

    async def post(self, path: str = "/api/orders/execute", **request: Any) -> tuple[int, Json]:
        async with self.http.post(path, **request) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, Json]:
        async with self.http.get(path) as response:
            return response.status, await response.json()

    async def submit(self, **changes: Any) -> str:
        """Post a valid order and return its id."""
        status, body = await self.post(json={**SWAP, **changes})
        assert status == 201, body
        return str(body["orderId"])

    async def follow(self, order_id: str, after: int = 0) -> list[Json]:
        """Return an order's updates, up to its last."""
        path = f"/api/orders/{order_id}/stream?after={after}"
        async with self.http.ws_connect(path) as websocket:
            return [message for message in await read_all(websocket) if message["event"] == "order:update"]

    @property
    def gate(self) -> Gate:
        return self.engine.gate

    async def finished(self, order_id: str, headers: Mapping[str, str]) -> None:
        """Return once an order is over."""
        async with self.http.ws_connect(f"/api/orders/{order_id}/stream", headers=headers) as websocket:
            await read_all(websocket)

    async def statuses(self, order_id: str) -> list[str]:
        return [update["status"] for update in await self.follow(order_id)]

    async def reconcile(self) -> Reconciliation:
        return await reconcile(self.engine.store, self.engine.chain)


async def read_all(websocket: aiohttp.ClientWebSocketResponse) -> list[Json]:
    """Return every message until the server closes."""
    return [json.loads(message.data) async for message in websocket]


@contextlib.asynccontextmanager
async def a_world(*, working: bool = True, clock: VirtualClock | None = None, **settings: Any) -> AsyncIterator[World]:
    """Run an engine on a port of its own. Without `working`, orders are accepted but nobody takes them."""
    clock = clock or VirtualClock()
    chosen = Settings(**{**DEFAULTS, **settings})
    async with open_engine(chosen, clock, threaded=False, worker_name="w", chance=random.Random(0).random) as engine:
        server = Server(engine, engine.worker, chosen)
        with listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            work = asyncio.create_task(engine.worker.run()) if working else None
            try:
                async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
                    yield World(engine, http, port, clock)
            finally:
                server.should_exit = True
                engine.worker.stop()
                await asyncio.gather(serving, *([work] if work else []))


async def reconcile_folder(folder: Path, clock: Clock) -> Reconciliation:
    """Reconcile what an engine left in `folder`, as the command line does."""
    chosen = Settings(database_url=f"sqlite:///{folder}/orders.db")
    async with open_engine(chosen, clock, threaded=False) as engine:
        return await reconcile(engine.store, open_chain(chosen, open_ledger(chosen, clock), clock))
