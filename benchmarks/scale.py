"""Measure how cost grows: with old orders in the tables, with orders in hand, with worker processes.

    python -m benchmarks.scale [--old 10000,1000000] [--only history,throughput]

It starts its own PostgreSQL and Redis. "history" asks the store directly, so that nothing but the database is measured:
rounds of accepting, claiming and appending the events of 100 orders, over tables that hold more and more old orders
(made on the server, in the shape that real ones have). "throughput" runs the engine as its user does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
from rich.console import Console
from rich.table import Table
from tests.builders import a_route, some_terms
from tests.servers import postgres, redis

from benchmarks.engine import ROOT, say
from benchmarks.peers.engines import FILLWRIGHT, PYTHON, Backing, Command, Conditions, Engine, running
from benchmarks.peers.measuring import Plan, orders
from benchmarks.peers.node import install
from fillwright.backends.postgres import PostgresStore, open_postgres
from fillwright.clock import SystemClock
from fillwright.core.lifecycle import Accepted, Confirmed, RouteSelected, TransactionSigned
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Claim
from fillwright.core.units import OrderId, Signature, order_id

BATCH: Final = 100
ROUNDS: Final = 60
CHUNK: Final = 250_000
STEPS: Final = ("accept", "claim", "append", "find")

# Old orders are copies of one that is in the tables, under ids of their own: times and sizes are as in life.
COPY_ORDERS: Final = """
WITH copies AS (SELECT n, 'ord_00' || lpad(n::text, 24, '0') AS id FROM generate_series($1::bigint, $2::bigint) n),
new_orders AS (
    INSERT INTO orders SELECT c.id, 'old-' || c.n, o.mint_in, o.mint_out FROM copies c, orders o WHERE o.id = $3
), new_outcomes AS (
    INSERT INTO outcomes SELECT 'confirmed', c.id FROM copies c
)
INSERT INTO events SELECT c.id, e.seq, e.at_ms - 86400000, e.type, e.data,
    CASE WHEN e.signature IS NOT NULL THEN md5(c.n::text) || md5('x' || c.n) || md5('y' || c.n) END
FROM copies c, events e WHERE e.order_id = $3
"""


@dataclass(slots=True)
class Comparison:
    """Median milliseconds of each step for 100 orders: over few old orders, and over many."""

    few: dict[str, float]
    many: dict[str, float]


@dataclass(slots=True)
class Growth:
    """Steps by how many old orders there are; confirmed orders/s by what is varied."""

    history: dict[int, Comparison] = field(default_factory=dict)
    bytes_per_order: dict[str, int] = field(default_factory=dict)
    in_hand: dict[int, float] = field(default_factory=dict)
    workers: dict[int, float] = field(default_factory=dict)


async def history(few_url: str, many_url: str, sizes: Sequence[int], growth: Growth) -> None:
    """Measure two databases in turn, round by round: what disturbs the machine meets both."""
    async with a_store(few_url) as few, a_store(many_url) as many:
        ids = new_ids()
        for store in (few, many):
            for _ in range(5):
                await live_through(store, [next(ids) for _ in range(BATCH)], {})
        await grow(few_url, 0, sizes[0])
        there = 0
        for size in sizes:
            started = time.monotonic()
            await grow(many_url, there, size)
            there = size
            say(f"{there:,} old orders made in {time.monotonic() - started:.0f} s ...", end=" ")
            took: tuple[dict[str, list[float]], ...] = ({}, {})
            for _ in range(ROUNDS):
                for store, times in zip((few, many), took, strict=True):
                    await live_through(store, [next(ids) for _ in range(BATCH)], times)
            medians = [{step: statistics.median(times[step]) for step in STEPS} for times in took]
            growth.history[size] = Comparison(*medians)
            say(", ".join(f"{step} {medians[1][step]:.2f} to {medians[0][step]:.2f} ms" for step in STEPS))
        growth.bytes_per_order = await bytes_per_order(many_url)


@contextlib.asynccontextmanager
async def a_store(url: str) -> AsyncIterator[PostgresStore]:
    store = await open_postgres(url, clock=SystemClock(), committed=lambda _: None, capacity=1_000_000, lease_ms=60_000)
    try:
        yield store
    finally:
        await store.close()


async def grow(url: str, there: int, size: int) -> None:
    """Make old orders until there are `size` of them."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "fillwright"})
    try:
        model = await connection.fetchval("SELECT order_id FROM outcomes LIMIT 1")
        for first in range(there + 1, size + 1, CHUNK):
            await connection.execute(COPY_ORDERS, first, min(size, first + CHUNK - 1), model)
        for table in ("orders", "events", "outcomes", "queue"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def bytes_per_order(url: str) -> dict[str, int]:
    """Return what a table takes for each order, indexes and all."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "fillwright"})
    try:
        count = await connection.fetchval("SELECT sum(orders) FROM tally WHERE status = 'confirmed'")
        count += await connection.fetchval("SELECT count(*) FROM orders WHERE client_order_id LIKE 'old-%'")
        sizes = {
            table: await connection.fetchval("SELECT pg_total_relation_size($1::regclass)", table)
            for table in ("orders", "events", "outcomes")
        }
    finally:
        await connection.close()
    return {table: round(size / count) for table, size in sizes.items()}


def new_ids() -> Iterator[OrderId]:
    number = 0
    while True:
        number += 1
        yield order_id(time.time_ns() // 1_000_000, number)


async def live_through(store: PostgresStore, ids: Sequence[OrderId], took: dict[str, list[float]]) -> list[OrderId]:
    """Take orders from acceptance to confirmation, and note how long each step took."""
    terms = some_terms()
    started = time.perf_counter()
    await asyncio.gather(*(store.accept(order_id, Accepted(terms)) for order_id in ids))
    accepted = time.perf_counter()
    claims = (await store.claim("bench", len(ids))).taken
    claimed = time.perf_counter()
    routed = await append(store, claims, lambda _: RouteSelected(a_route(), 1))
    signed = await append(store, routed, lambda order: TransactionSigned(a_transaction(order)))
    await append(store, signed, lambda _: Confirmed(Fill(1, 1, 5_000, 1)))
    appended = time.perf_counter()
    await store.history(ids[0])
    found = time.perf_counter()
    times = (accepted - started, claimed - accepted, (appended - claimed) / 3, found - appended)
    for step, seconds in zip(STEPS, times, strict=True):
        took.setdefault(step, []).append(seconds * 1_000)
    return [claim.order.id for claim in claims]


async def append(
    store: PostgresStore,
    claims: Sequence[Claim],
    event: Callable[[Order], RouteSelected | TransactionSigned | Confirmed],
) -> list[Claim]:
    orders_ = await asyncio.gather(*(store.append(claim.order, event(claim.order), claim.lease) for claim in claims))
    return [Claim(order, claim.lease) for order, claim in zip(orders_, claims, strict=True)]


def a_transaction(order: Order) -> SignedTransaction:
    return SignedTransaction(Signature(f"{order.id}/{order.attempt}"), b"x" * 400, 1)


def throughput(growth: Growth, backing: Backing) -> None:
    """Run the whole engine: in one process with more and more orders in hand, then with one and with two workers."""
    plan = Plan(orders=10_000, seconds=0, warm_up_s=0, repeats=1, concurrency=(0,), kill_orders=0)
    for in_hand in (1, 10, 100, 1_000):
        few = replace(plan, orders=1_000 if in_hand == 1 else plan.orders)
        growth.in_hand[in_hand] = orders_per_s(FILLWRIGHT, "one", in_hand, few, backing)
    for workers in (1, 2):
        processes: tuple[Command, ...] = ((*PYTHON, "serve", "--api-only"), *(((*PYTHON, "worker"),) * workers))
        engine = replace(FILLWRIGHT, layouts={"apart": processes})
        growth.workers[workers] = orders_per_s(engine, "apart", 100, plan, backing)


def orders_per_s(engine: Engine, layout: str, in_hand: int, plan: Plan, backing: Backing) -> float:
    say(f"{in_hand} in hand, {len(engine.layouts[layout])} processes ...", end=" ")
    with running(engine, layout, Conditions(in_hand), backing) as run:
        values, _ = orders(run, plan, "")
    rate = values["orders_per_s"] or 0.0
    say(f"{rate:,.0f} orders/s")
    return rate


def show(growth: Growth) -> None:
    console = Console(highlight=False)
    if growth.history:
        table = Table("old orders", *(f"{step}, ms" for step in STEPS), title=f"median for {BATCH} orders")
        for size, both in growth.history.items():
            table.add_row(
                f"{size:,}", *(f"{both.many[step]:.2f} ({both.many[step] / both.few[step] - 1:+.0%})" for step in STEPS)
            )
        console.print(table)
        sizes = ", ".join(f"{table} {size:,}" for table, size in growth.bytes_per_order.items())
        console.print(f"bytes per order: {sizes}")
    for title, rates in (("orders in hand", growth.in_hand), ("worker processes", growth.workers)):
        if rates:
            table = Table(title, "confirmed orders/s")
            for number, rate in rates.items():
                table.add_row(f"{number:,}", f"{rate:,.0f}")
            console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--old", default="10000,1000000", help="how many old orders, in rising order")
    parser.add_argument("--only", default="history,throughput")
    given = parser.parse_args()
    growth = Growth()
    with postgres(checkpoint_timeout="1h", max_wal_size="16GB") as server, redis() as redis_server:
        if "throughput" in given.only:
            install()
            throughput(growth, Backing(server, redis_server))
        if "history" in given.only:
            asyncio.run(
                history(
                    server.new_database(), server.new_database(), [int(size) for size in given.old.split(",")], growth
                )
            )
    show(growth)
    out = ROOT / "build"
    out.mkdir(exist_ok=True)
    Path(out, "bench-scale.json").write_bytes(msgspec.json.format(msgspec.json.encode(growth), indent=2) + b"\n")


if __name__ == "__main__":
    main()
