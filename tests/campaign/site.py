"""What a campaign stands on: servers, the world, the engine's processes, and eyes that look into the database."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from fillwright.backends import open_store
from fillwright.clock import SystemClock
from fillwright.core.lifecycle import Recorded
from fillwright.core.ports import LandedSwap, Store
from fillwright.core.units import OrderId
from tests import servers
from tests.campaign.cluster import ROOT, Cluster
from tests.campaign.engine import TELL
from tests.campaign.ledger import RemoteChain

LEASE_MS: Final = 1_000
ANSWER_S: Final = 10
LOG_LINES: Final = 30


@dataclass(slots=True)
class Site:
    """`postgres` and `redis` are there if the store is PostgreSQL."""

    folder: Path
    cluster: Cluster
    chain: RemoteChain
    http: aiohttp.ClientSession
    reader: Store
    postgres: servers.PostgresServer | None
    redis: servers.RedisServer | None

    async def logs(self) -> dict[OrderId, list[Recorded]]:
        """Return the whole log of every order."""
        rows = await self._ask("SELECT id FROM orders", "SELECT id FROM orders")
        return {row[0]: await self.reader.history(row[0]) for row in rows}

    async def swaps(self) -> list[LandedSwap]:
        return [swap async for swap in self.chain.landed_swaps()]

    async def open_orders(self) -> int:
        rows = await self._ask("SELECT count(*) FROM orders WHERE outcome IS NULL", "SELECT count(*) FROM queue")
        return int(rows[0][0])

    async def all_over(self) -> None:
        """Return once no order is open, whether or not the database can be asked in between."""
        while True:
            with contextlib.suppress(Exception):
                if await self.open_orders() == 0:
                    return
            await asyncio.sleep(0.05)

    async def holds_orders(self, pid: int) -> bool:
        """Return whether a process has orders in hand."""
        name = f"LIKE '%-{pid}'"
        rows = await self._ask(
            f"SELECT count(*) FROM orders WHERE leased_by {name} AND outcome IS NULL",
            f"SELECT count(*) FROM queue WHERE leased_by {name}",
        )
        return int(rows[0][0]) > 0

    async def show_open(self) -> None:
        """Print what keeps open orders waiting, and let the processes say what they are doing."""
        now_ms = SystemClock().now_ms()
        for row in await self._ask(
            f"SELECT id, due_at_ms - {now_ms}, lease, leased_by FROM orders WHERE outcome IS NULL LIMIT 20",
            f"SELECT order_id, due_at_ms - {now_ms}, lease, leased_by FROM queue LIMIT 20",
        ):
            print("open: {} due in {} ms, lease {} of {}".format(*row))
        for engine in self.cluster.engines:
            engine.send(TELL)
        await asyncio.sleep(1)

    def show_logs(self) -> None:
        """Print every fault that the processes told of, and the end of what each said."""
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            for line in [*(line for line in lines if '"exception"' in line), *lines[-LOG_LINES:]]:
                print(f"{log.stem}: {line[:3000]}")

    async def _ask(self, sqlite: str, postgres: str) -> list[Any]:
        reader: Any = self.reader
        if reader.is_shared:
            return [tuple(row) for row in await reader._read(lambda connection: connection.fetch(postgres))]
        return list(await reader._read(lambda session: session.connection.execute(sqlite).fetchall()))


@contextlib.asynccontextmanager
async def a_site(
    store: str, seed: int, *, planted: str = "", dooms: bool = False, **settings: Any
) -> AsyncIterator[Site]:
    """Start everything; yield once it answers. With `dooms`, processes kill themselves from the first on."""
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="campaign-")))
        postgres = redis = None
        chosen = {**_settings(folder), **settings}
        if store == "postgres":
            postgres = opened.enter_context(servers.postgres())
            redis = opened.enter_context(servers.redis())
            chosen |= {"database_url": postgres.new_database(), "redis_url": redis.url}
        async with contextlib.AsyncExitStack() as running:
            chain = await running.enter_async_context(_a_ledger(folder / "ledger.sock", seed))
            if not dooms:
                await chain.ask("calm")
            cluster = Cluster(folder, store, chosen, str(folder / "ledger.sock"), planted, seed)
            cluster.dooms = dooms
            await running.enter_async_context(cluster.running())
            http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=ANSWER_S), connector=aiohttp.TCPConnector(limit=0)
            )
            await running.enter_async_context(http)
            reader = await open_store(
                chosen["database_url"],
                clock=SystemClock(),
                committed=lambda _: None,
                capacity=1,
                lease_ms=LEASE_MS,
                starts_per_minute=0,
            )
            running.push_async_callback(reader.close)
            await cluster.answering()
            yield Site(folder, cluster, chain, http, reader, postgres, redis)


def _settings(folder: Path) -> dict[str, Any]:
    return {
        "database_url": f"sqlite:///{folder}/orders.db",
        "queue_concurrency": 20,
        "queue_rate_limit": 0,
        "lease_ms": LEASE_MS,
        "poll_ms": 500,
        "stop_ms": 400,
        "outcome_poll_ms": 250,
        "resend_ms": 1_000,
        "chain_deadline_ms": 3_000,
        "retry_delay_ms": 300,
        "sim_speed": 0.05,
        "sim_quote_error_rate": 0.02,
        "postgres_patience_ms": 3_000,
    }


@contextlib.asynccontextmanager
async def _a_ledger(path: Path, seed: int) -> AsyncIterator[RemoteChain]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.campaign.ledger", str(path), str(seed)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == b"ready"
        chain = RemoteChain(str(path))
        yield chain
        await chain.close()
    finally:
        process.kill()
        await process.wait()
