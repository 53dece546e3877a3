"""The campaign: traders, processes that kill themselves, faults from outside, a drain, and the judge."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp

from fillwright.backends import open_store
from fillwright.clock import SystemClock
from fillwright.core.ports import Store
from fillwright.core.units import OrderId
from fillwright.execution.reconcile import reconcile
from tests import servers
from tests.campaign.clients import Clients
from tests.campaign.cluster import PLACES, ROOT, Cluster, Engine
from tests.campaign.engine import FULL_DISK
from tests.campaign.ledger import RemoteChain
from tests.proof.report import Report
from tests.proof.verdict import judge

LEASE_MS: Final = 1_000
DRAIN_S_MAX: Final = 60
IN_HAND_MAX: Final = 150  # orders of clients at the same time
SECONDS_PER_FAULT: Final = 0.55
LONG_FORM: Final = 500  # faults, from which on every place must have been died at so often:
HITS_IN_THE_LONG_FORM: Final = 10
Fault = Callable[[], Awaitable[None]]


class Campaign:
    """`faults` is how many there should be at least, those that the processes make themselves included."""

    def __init__(self, store: str, orders: int, faults: int, seed: int, planted: str = "") -> None:
        self.report = Report("kill", store, seed)
        self._store = store
        self._orders = orders
        self._faults = faults
        self._seed = seed
        self._planted = planted
        self._chance = Random(f"{seed}/campaign")
        self._frozen = 0
        self._span_s = faults * SECONDS_PER_FAULT

    async def run(self) -> Report:
        with contextlib.ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="campaign-")))
            postgres = redis = None
            settings = _settings(folder)
            if self._store == "postgres":
                postgres = opened.enter_context(servers.postgres())
                redis = opened.enter_context(servers.redis())
                settings |= {"database_url": postgres.new_database(), "redis_url": redis.url}
            async with _ledger(folder / "ledger.sock", self._seed) as chain:
                cluster = Cluster(folder, self._store, settings, chain._path, self._planted, self._seed)
                timeout = aiohttp.ClientTimeout(total=10)
                connector = aiohttp.TCPConnector(limit=0)
                async with (
                    cluster.running(),
                    aiohttp.ClientSession(timeout=timeout, connector=connector) as http,
                    _reader(settings) as reader,
                ):
                    await cluster.answering()
                    clients = Clients(cluster, http, self._seed)
                    trading = asyncio.create_task(self._trade(clients))
                    await self._make_faults(cluster, chain, postgres, redis, reader)
                    await self._drain(cluster, chain, trading, reader)
                    codes = await cluster.stop()
                    if any(codes):
                        self.report.failures.append(f"asked to stop, the processes ended with {codes}")
                    await self._judge(cluster, clients, chain, reader)
                if not self.report.passed:
                    _keep_logs(folder)
        return self.report

    async def _trade(self, clients: Clients) -> None:
        """Spread the orders over the time of the faults."""
        places = asyncio.Semaphore(IN_HAND_MAX)
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def trade(number: int) -> None:
            try:
                await clients.trade(number)
            finally:
                places.release()

        async with asyncio.TaskGroup() as group:
            for number in range(self._orders):
                await places.acquire()
                due = began + self._span_s * number / self._orders
                await asyncio.sleep(max(0.0, due - loop.time()))
                group.create_task(trade(number))

    async def _make_faults(
        self,
        cluster: Cluster,
        chain: RemoteChain,
        postgres: servers.PostgresServer | None,
        redis: servers.RedisServer | None,
        reader: Store,
    ) -> None:
        freezing: set[asyncio.Task[None]] = set()

        def kill() -> None:
            self._chance.choice(cluster.engines).send(signal.SIGKILL)

        def stop() -> None:
            """Ask one to stop: one that will die while it gives its orders back, if there is one."""
            doomed = [engine for engine in cluster.engines if engine.place.endswith("release")]
            self._chance.choice(doomed or cluster.engines).send(signal.SIGTERM)

        def jump() -> None:
            self._chance.choice(cluster.engines).set_clock(self._chance.randrange(-30_000, 30_000))

        async def freeze() -> None:
            engine = self._chance.choice(cluster.workers)
            task = asyncio.create_task(self._freeze(engine, reader))
            freezing.add(task)
            task.add_done_callback(freezing.discard)

        async def crash_postgres() -> None:
            assert postgres is not None
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)

        async def crash_redis() -> None:
            assert redis is not None
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(self._chance.uniform(0, 1))
            await asyncio.to_thread(redis.start)

        async def empty_redis() -> None:
            assert redis is not None
            await asyncio.to_thread(_flush, redis.url)

        async def pause_redis() -> None:
            assert redis is not None
            redis.pause()
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))
            redis.resume()

        kinds: dict[str, tuple[int, Callable[[], Any]]] = {
            "frozen": (24, freeze),
            "killed": (8, kill),
            "stopped": (14, stop),
            "clock jump": (8, jump),
            "chain dark": (4, lambda: chain.ask("dark", self._chance.uniform(0.3, 2.5))),
        }
        if postgres is not None:
            kinds |= {
                "PostgreSQL crashed": (4, crash_postgres),
                "Redis crashed": (3, crash_redis),
                "Redis emptied": (4, empty_redis),
                "Redis paused": (3, pause_redis),
            }
        else:
            kinds["disk full"] = (8, lambda: self._chance.choice(cluster.engines).send(FULL_DISK))
        loop = asyncio.get_running_loop()
        began = loop.time()
        weights = [weight for weight, _ in kinds.values()]
        while loop.time() - began < self._span_s:
            (name,) = self._chance.choices(list(kinds), weights)
            made = kinds[name][1]()
            if asyncio.iscoroutine(made):
                await made
            cluster.faults[name] += 1
            await asyncio.sleep(self._chance.uniform(0.4, 1.4))
        await asyncio.gather(*freezing)

    async def _freeze(self, engine: Engine, reader: Store) -> None:
        """Freeze a worker for longer than its lease, then let it go on with what it had in hand."""
        pid = engine.pid
        engine.send(signal.SIGSTOP)
        try:
            with contextlib.suppress(Exception):  # the database may be down
                self._frozen += await _holds_orders(reader, pid)
            await asyncio.sleep(LEASE_MS / 1000 * self._chance.uniform(1.2, 2.5))
        finally:
            if engine.pid == pid:
                engine.send(signal.SIGCONT)

    async def _drain(self, cluster: Cluster, chain: RemoteChain, trading: asyncio.Task[None], reader: Store) -> None:
        """Let everything be well, and wait until every order is over."""
        cluster.dooms = False
        for engine in cluster.engines:
            engine.set_clock(0)
            engine.send(signal.SIGCONT)
            engine.send(signal.SIGKILL)
            cluster.faults["killed"] += 1
        await chain.ask("calm")
        began = time.monotonic()
        try:
            async with asyncio.timeout(DRAIN_S_MAX + 30):
                await trading
                while True:
                    with contextlib.suppress(Exception):
                        if await _open_orders(reader) == 0:
                            break
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self.report.failures.append("not drained")
            trading.cancel()
        self.report.drain_s = round(time.monotonic() - began, 1)
        if self.report.drain_s > DRAIN_S_MAX:
            self.report.failures.append(f"drained only after {self.report.drain_s} s")

    async def _judge(self, cluster: Cluster, clients: Clients, chain: RemoteChain, reader: Store) -> None:
        report = self.report
        cluster.count_hits()
        logs = {order_id: await reader.history(order_id) for order_id in await _ids(reader)}
        verdict = judge(logs, [swap async for swap in chain.landed_swaps()], clients.witnesses)
        report.take(verdict)
        report.failures += clients.strange[:20]
        report.faults = cluster.faults.total() + cluster.hits.total()
        if report.faults < self._faults:
            report.failures.append(f"only {report.faults} faults")
        wanted = HITS_IN_THE_LONG_FORM if self._faults >= LONG_FORM else 0
        report.failures += [f"died only {cluster.hits[x]} times {x}" for x in PLACES if cluster.hits[x] < wanted]
        if verdict.clean and (found := (await reconcile(reader, chain)).findings):
            report.failures.append(f"reconcile does not agree: {found[:3]}")
        report.more = {
            "confirmed": verdict.confirmed,
            "failed": verdict.failed,
            "cancelled": verdict.cancelled,
            "expired": verdict.expired,
            "attempts": sum(sum(type(e.event).__name__ == "RoutingStarted" for e in log) for log in logs.values()),
            "followed": sum(len(witness.followed) for witness in clients.witnesses),
            "frozen_with_orders": self._frozen,
            "starts": sum(engine.starts for engine in cluster.engines),
            "answers": {str(status): count for status, count in sorted(clients.answers.items())},
            "faults": dict(cluster.faults.most_common()),
            "places": {place: cluster.hits[place] for place in PLACES},
        }


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
async def _ledger(path: Path, seed: int) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.campaign.ledger", str(path), str(seed)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == b"ready"
        yield RemoteChain(str(path))
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _reader(settings: dict[str, Any]) -> Any:
    """Open the database for the campaign's own eyes."""
    store = await open_store(
        settings["database_url"],
        clock=SystemClock(),
        committed=lambda _: None,
        capacity=1,
        lease_ms=LEASE_MS,
        starts_per_minute=0,
    )
    try:
        yield store
    finally:
        await store.close()


async def _ask(reader: Any, sqlite: str, postgres: str) -> list[Any]:
    if reader.is_shared:
        rows = await reader._read(lambda connection: connection.fetch(postgres))
        return [tuple(row) for row in rows]
    return list(await reader._read(lambda session: session.connection.execute(sqlite).fetchall()))


async def _ids(reader: Store) -> list[OrderId]:
    return [row[0] for row in await _ask(reader, "SELECT id FROM orders", "SELECT id FROM orders")]


async def _open_orders(reader: Store) -> int:
    rows = await _ask(reader, "SELECT count(*) FROM orders WHERE outcome IS NULL", "SELECT count(*) FROM queue")
    return int(rows[0][0])


async def _holds_orders(reader: Store, pid: int) -> bool:
    """Return whether a process, which stands still, has orders in hand."""
    name = f"LIKE '%-{pid}'"
    rows = await _ask(
        reader,
        f"SELECT count(*) FROM orders WHERE leased_by {name} AND outcome IS NULL",
        f"SELECT count(*) FROM queue WHERE leased_by {name}",
    )
    return int(rows[0][0]) > 0


def _flush(url: str) -> None:
    import redis

    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url, socket_timeout=2) as client:
        client.flushall()


def _keep_logs(folder: Path) -> None:
    """Show the end of what the processes said."""
    for log in sorted(folder.glob("*.log")):
        for line in _tail(log):
            print(f"{log.stem}: {line}")


def _tail(log: Path, lines: int = 15) -> Iterator[str]:
    yield from log.read_text(errors="replace").splitlines()[-lines:]


async def run(store: str, orders: int, faults: int, seed: int, planted: str = "") -> Report:
    return await Campaign(store, orders, faults, seed, planted).run()
