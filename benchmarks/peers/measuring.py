"""What is measured of an engine that nobody disturbs. Each measurement has its own start, on an empty database."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import msgspec

from benchmarks.engine import BenchFailed
from benchmarks.peers.cpu import Used, difference
from benchmarks.peers.engines import LAYOUTS, Conditions, Run
from benchmarks.peers.node import CLIENT

Values: TypeAlias = dict[str, float | None]

POST_RATES: Final = (300, 100)
STREAM_RATE: Final = 50


@dataclass(frozen=True, slots=True)
class Plan:
    orders: int
    seconds: float
    warm_up_s: float
    repeats: int
    concurrency: tuple[int, ...]
    kill_orders: int


Take: TypeAlias = Callable[[Run, Plan], tuple[Values, Values]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """`take` returns what was measured, by name, and who used how many cores meanwhile."""

    group: str
    name: str
    conditions: Conditions
    take: Take
    layouts: tuple[str, ...] = LAYOUTS


def measurements(plan: Plan) -> Iterator[Measurement]:
    default = Conditions()
    for concurrency in plan.concurrency:
        take = partial(orders, suffix=in_hand_suffix(plan, concurrency))
        yield Measurement("orders", f"orders, {concurrency} in hand", Conditions(concurrency), take)
    yield Measurement("post", "POST at saturation", default, post_saturated)
    for rate in POST_RATES:
        take = partial(post_at_rate, rate=rate, suffix=rate_suffix(rate))
        yield Measurement("post", f"POST, {rate}/s", default, take)
    yield Measurement("stream", f"a WebSocket per order, {STREAM_RATE}/s", default, stream_at_rate)
    yield Measurement("stream", "firehose", default, firehose)


def in_hand_suffix(plan: Plan, concurrency: int) -> str:
    """The figures with most orders in hand have the plain names."""
    return "" if concurrency == max(plan.concurrency) else f"_in_hand_{concurrency}"


def rate_suffix(rate: int) -> str:
    return "" if rate == POST_RATES[0] else f"_at_{rate}"


def orders(run: Run, plan: Plan, suffix: str) -> tuple[Values, Values]:
    """Post orders and wait until the database says that all are confirmed."""
    rss_idle_mb = run.memory_mb("VmRSS")
    database = ("--db", run.database_url, "--count-sql", run.engine.count_sql.format(status="confirmed"))
    load, used, cores = run_load(run, "e2e", "--orders", str(plan.orders), *database)
    values = {
        f"orders_per_s{suffix}": load["orders_per_s"],
        f"cpu_ms_per_order{suffix}": per_order_ms(used.engine, plan.orders),
        f"cpu_all_ms_per_order{suffix}": per_order_ms(used.in_all(), plan.orders),
    }
    if not suffix:
        values |= {"rss_idle_mb": rss_idle_mb, "rss_max_mb": run.memory_mb("VmHWM")}
    return values, cores


def post_saturated(run: Run, plan: Plan) -> tuple[Values, Values]:
    load, _, cores = run_load(run, "post-sat", "--seconds", str(plan.seconds))
    return {"post_per_s": load["post_per_s"]}, cores


def post_at_rate(run: Run, plan: Plan, rate: int, suffix: str) -> tuple[Values, Values]:
    load, _, cores = run_load(run, "post-rate", *pace(plan, rate))
    return {f"{name}{suffix}": load[name] for name in ("post_p50_ms", "post_p99_ms")}, cores


def stream_at_rate(run: Run, plan: Plan) -> tuple[Values, Values]:
    load, _, cores = run_load(run, "ws-rate", *pace(plan, STREAM_RATE))
    return {name: load[name] for name in ("stream_p50_ms", "stream_p99_ms", "order_p50_ms", "order_p99_ms")}, cores


def firehose(run: Run, plan: Plan) -> tuple[Values, Values]:
    orders = str(max(500, plan.orders // 4))
    load, _, cores = run_load(run, "firehose", "--orders", orders, "--stream", run.engine.stream)
    values: Values = {"firehose_per_s": load["events_per_s"]}
    return values | {f"firehose_{name}": load[f"stream_{name}"] for name in ("p50_ms", "p99_ms")}, cores


def pace(plan: Plan, rate: int) -> tuple[str, ...]:
    return "--rate", str(rate), "--seconds", str(plan.seconds), "--warm-up-s", str(plan.warm_up_s)


def per_order_ms(cpu_s: float | None, orders: int) -> float | None:
    return None if cpu_s is None else cpu_s * 1000 / orders


def run_load(run: Run, mode: str, *arguments: str) -> tuple[dict[str, float], Used, Values]:
    """Run the load client. Return its report, what it cost, and who used how many cores. Raise BenchFailed."""
    command = ["node", str(CLIENT), mode, "--url", run.url, *arguments]
    start, before = time.monotonic(), Used.until_now(run)
    client = subprocess.run(command, capture_output=True, text=True, check=False)
    used, wall_s = Used.until_now(run).since(before), time.monotonic() - start
    if client.returncode != 0:
        raise BenchFailed(client.stderr.strip() or f"the load client ended with status {client.returncode}")
    load = msgspec.json.decode(client.stdout, type=dict[str, float])
    client_s = load["client_cpu"] * load["seconds"]
    elsewhere_s = difference(difference(used.machine, used.in_all()), client_s)
    return (
        load,
        used,
        {
            "client": load["client_cpu"],
            "engine": over(used.engine, wall_s),
            "postgres": over(used.postgres, wall_s),
            "redis": over(used.redis, wall_s),
            "elsewhere": over(elsewhere_s, wall_s),
        },
    )


def over(cpu_s: float | None, wall_s: float) -> float | None:
    return None if cpu_s is None else max(0.0, cpu_s / wall_s)
