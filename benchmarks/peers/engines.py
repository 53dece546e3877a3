"""The two engines: how each is started, what it is told, and where its orders stand in its database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg
import redis as redis_client
from tests.servers import PostgresServer, RedisServer, drop_database

from benchmarks.engine import IDLE_S, BenchFailed, Server, free_port, show_log, stop, wait_until_healthy
from benchmarks.peers.node import REFERENCE

Command: TypeAlias = tuple[str, ...]
SWAP_LOG: Final = "swaps.log"
PYTHON: Final = (sys.executable, "-m", "fillwright")


@dataclass(frozen=True, slots=True)
class Conditions:
    """How an engine is run: without delays, quotes and swaps take no time.

    `recorded`: the reference writes down each swap that it sends. Fillwright's simulated chain always does.
    """

    concurrency: int = 10  # the default of both engines
    quote_ms: int = 0
    swap_ms_min: int = 0
    swap_ms_max: int = 0
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """`layouts`: the commands of its processes, the API first and the worker last.

    The queries tell how many orders ended with a status, which orders there are, which are not over, and which of
    these a worker has in hand.
    """

    name: str
    layouts: Mapping[str, tuple[Command, ...]]
    settings: Callable[[Conditions], dict[str, str]]
    stream: str
    count_sql: str
    all_sql: str
    open_sql: str
    in_hand_sql: str


def fillwright_settings(conditions: Conditions) -> dict[str, str]:
    return {
        "FILLWRIGHT_SIM_SPEED": "1" if conditions.swap_ms_max else "0",
        "FILLWRIGHT_SIM_QUOTE_DELAY_MS": str(conditions.quote_ms),
        "FILLWRIGHT_SIM_EXECUTION_MIN_MS": str(conditions.swap_ms_min),
        "FILLWRIGHT_SIM_EXECUTION_MAX_MS": str(conditions.swap_ms_max),
        "FILLWRIGHT_SIM_LEDGER": "chain.db",
        "LOG_LEVEL": "warning",
    }


def node_settings(conditions: Conditions) -> dict[str, str]:
    return {
        "QUOTE_DELAY_MS": str(conditions.quote_ms),
        "SWAP_MIN_MS": str(conditions.swap_ms_min),
        "SWAP_MAX_MS": str(conditions.swap_ms_max),
        "SWAP_LOG": SWAP_LOG if conditions.recorded else "",
        "LOG_LEVEL": "error",
        "NODE_ENV": "production",
        "NODE_NO_WARNINGS": "1",
    }


FILLWRIGHT: Final = Engine(
    name="fillwright",
    layouts={"two": ((*PYTHON, "serve", "--api-only"), (*PYTHON, "worker")), "one": ((*PYTHON, "serve"),)},
    settings=fillwright_settings,
    stream="/api/stream",
    count_sql="SELECT coalesce(sum(orders), 0)::int FROM fillwright.tally WHERE status = '{status}'",
    all_sql="SELECT id FROM fillwright.orders",
    open_sql="SELECT order_id FROM fillwright.queue",
    in_hand_sql="SELECT order_id FROM fillwright.queue WHERE leased_by IS NOT NULL",
)
NODE: Final = Engine(
    name="node",
    layouts={
        "two": (("node", f"{REFERENCE}/src/main-api.js"), ("node", f"{REFERENCE}/src/main-worker.js")),
        "one": (("node", f"{REFERENCE}/src/main-all.js"),),
    },
    settings=node_settings,
    stream="/api/orders/stream",
    count_sql="SELECT count(*)::int FROM orders WHERE status = '{status}'",
    all_sql="SELECT id::text FROM orders",
    open_sql="SELECT id::text FROM orders WHERE status NOT IN ('confirmed', 'failed')",
    in_hand_sql="SELECT id::text FROM orders WHERE status IN ('routing', 'building', 'submitted')",
)
ENGINES: Final = (FILLWRIGHT, NODE)
LAYOUTS: Final = ("two", "one")


@dataclass(frozen=True, slots=True)
class Backing:
    """The PostgreSQL and the Redis that both engines use, one after the other."""

    postgres: PostgresServer
    redis: RedisServer

    @contextlib.contextmanager
    def fresh(self) -> Iterator[str]:
        """Empty Redis, make a database for one run and yield its URL. Nothing is left to write of earlier runs."""
        with self._redis() as connection:
            connection.flushall()
        url = self.postgres.new_database()
        asyncio.run(ask(url, "CHECKPOINT"))
        try:
            yield url
        finally:
            drop_database(self.postgres.url, url)

    def versions(self) -> dict[str, str]:
        with self._redis() as connection:
            redis = str(connection.info("server")["redis_version"])
        return {"postgres": str(asyncio.run(ask(self.postgres.url, "SHOW server_version"))), "redis": redis}

    def _redis(self) -> contextlib.closing[redis_client.Redis]:
        return contextlib.closing(redis_client.Redis.from_url(self.redis.url))


async def ask(database_url: str, question: str) -> object:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


@dataclass(slots=True)
class Run:
    """A running engine on an empty database. `folder` is where its processes run."""

    engine: Engine
    layout: str
    url: str
    database_url: str
    backing: Backing
    folder: Path
    environment: dict[str, str]
    servers: list[Server]

    def cpu_s(self) -> float | None:
        return added_up([server.cpu_s() for server in self.servers])

    def memory_mb(self, name: str) -> float | None:
        return added_up([server.memory_mb(name) for server in self.servers])

    def kill(self, index: int) -> None:
        """End a process as a power cut would."""
        process = self.servers[index].process
        process.kill()
        process.wait()

    def start_again(self, index: int) -> None:
        self.servers[index] = self.start(self.engine.layouts[self.layout][index])

    def check(self) -> None:
        """Raise BenchFailed if a process has ended by itself."""
        for server in self.servers:
            if server.process.poll() is not None:
                raise BenchFailed(f"a process of {self.engine.name} ended with status {server.process.returncode}")

    def start(self, command: Command) -> Server:
        with self.folder.joinpath("engine.log").open("ab") as output:
            started = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return Server(process, self.url, started)


@contextlib.contextmanager
def running(engine: Engine, layout: str, conditions: Conditions, backing: Backing) -> Iterator[Run]:
    """Start an engine's processes in a folder of their own and wait until they are idle; end them."""
    with (
        backing.fresh() as database_url,
        tempfile.TemporaryDirectory(prefix="fillwright-peers-", ignore_cleanup_errors=True) as name,
    ):
        folder, port = Path(name), free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DATABASE_URL": database_url,
            "REDIS_URL": backing.redis.url,
            "QUEUE_RATE_LIMIT": "0",
            "QUEUE_CONCURRENCY": str(conditions.concurrency),
            **engine.settings(conditions),
        }
        run = Run(engine, layout, f"http://127.0.0.1:{port}", database_url, backing, folder, environment, [])
        try:
            for command in engine.layouts[layout]:
                run.servers.append(run.start(command))
                wait_until_healthy(run.servers[0])  # the API brings the database up to date before there is a worker
            time.sleep(IDLE_S)
            run.check()
            yield run
            run.check()
        finally:
            for server in run.servers:
                stop(server.process)
            show_log((folder / "engine.log").read_text(errors="replace"))


def added_up(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
