"""How soon an order is on its way to the chain: from its acceptance to the moment a node has its signed transaction.

    python -m benchmarks.landing [--orders N] [--rate N] [--delay-ms N]

An engine in a process of its own trades on a local chain in this one, with signed transactions, over loopback. Orders
come one after the other, `--rate` in a second. The time begins with the one that the engine gave the acceptance, which
is cut to whole milliseconds (each time is up to 1 ms too great), and ends when the node reads the `sendTransaction`.
In between the engine quotes, reads, simulates, checks, signs, and writes four events.

The targets are for the engine's time: all of that, less the time in which the node worked out its answers, of which
simulating takes most. Reading and writing them, and the way there and back, count as the engine's; what it does while
the node works does not, and orders are to come one by one, so that the node works for one at a time. Now and then it is
busy with a block: that is in the longest times. `--delay-ms` puts the node further away.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from solders.transaction import VersionedTransaction

from benchmarks.engine import OURS, ROOT, say
from fillwright.cli.child import start_engine
from fillwright.cli.client import RemoteEngine, connect
from fillwright.clock import SystemClock
from fillwright.core.accounts import format_address
from fillwright.localnet.chain import LocalChain
from fillwright.localnet.endpoint import Endpoint
from fillwright.localnet.faults import Faults
from fillwright.localnet.rpc import Rpc
from fillwright.localnet.world import Market, open_market, open_wallet

TARGETS_MS: Final = {"p50_ms": 10.0, "p99_ms": 50.0}
SWAPS: Final = (("SOL", "USDC", "0.5"), ("USDC", "SOL", "75"))
WARM_UP: Final = 10
PATIENCE_S: Final = 60
BEFORE_SENDING: Final = (
    "getMultipleAccounts",
    "getBalance",
    "getLatestBlockhash",
    "simulateTransaction",
    "getRecentPrioritizationFees",
)


class Distance(Faults):
    """No faults, but so many milliseconds to the node."""

    def __init__(self, added_ms: int) -> None:
        super().__init__(0)
        self._added_ms = added_ms

    def delay_ms(self, method: str) -> int:  # noqa: ARG002 - the same for all
        return self._added_ms


class TimedRpc(Rpc):
    """A node that notes when it has first read each transaction, and how long it took over each call."""

    def __init__(self, chain: LocalChain) -> None:
        super().__init__(chain)
        self.sent_s: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self.took_s: defaultdict[str, float] = defaultdict(float)
        self.worked_s: list[tuple[float, float]] = []

    def call(self, method: str, params: Sequence[Any]) -> Any:
        if method == "sendTransaction":
            signature = str(VersionedTransaction.from_bytes(base64.b64decode(params[0])).signatures[0])
            self.sent_s.setdefault(signature, time.time())
        begun_s = time.time()
        try:
            return super().call(method, params)
        finally:
            ended_s = time.time()
            if method in BEFORE_SENDING:
                self.calls[method] += 1
                self.took_s[method] += ended_s - begun_s
                self.worked_s.append((begun_s, ended_s))

    def worked_between_s(self, begun_s: float, ended_s: float) -> float:
        """Return how long the node worked on what comes before sending; one order's, as they come one by one."""
        return sum(max(0.0, min(end, ended_s) - max(begin, begun_s)) for begin, end in self.worked_s)


@dataclass(frozen=True, slots=True)
class Results:
    """Times of the orders that needed one attempt, the others are only counted. Calls and the node's are per order.

    `engine_ms` is without the node's work, `times_ms` with it.
    """

    engine_ms: Sequence[float]
    times_ms: Sequence[float]
    orders: int
    confirmed: int
    again: int
    calls: Mapping[str, float]
    node_ms: Mapping[str, float]

    @property
    def values(self) -> dict[str, float]:
        return {
            "p50_ms": statistics.median(self.engine_ms),
            "p99_ms": statistics.quantiles(self.engine_ms, n=100, method="inclusive")[98],
            "max_ms": max(self.engine_ms),
            "p50_with_node_ms": statistics.median(self.times_ms),
            "p99_with_node_ms": statistics.quantiles(self.times_ms, n=100, method="inclusive")[98],
            "node_ms": sum(self.node_ms.values()),
            "calls": sum(self.calls.values()),
        }


async def measure(orders: int, rate: float, delay_ms: int) -> Results:
    """Return what so many orders took. Raise Refused if the engine does not start."""
    with tempfile.TemporaryDirectory(prefix="fillwright-bench-") as folder:
        async with node(Path(folder), delay_ms) as (endpoint, rpc, market):
            environ = _environ(folder, endpoint, market)
            async with start_engine(folder, environ) as child, connect(child.url) as engine:
                await _submit(engine, WARM_UP, rate)
                rpc.calls.clear()
                rpc.took_s.clear()
                ids = await _submit(engine, orders, rate)
                ended = await asyncio.gather(*(_end(engine, order_id) for order_id in ids))
    once = [order for order in ended if order["attempt"] == 1 and order["txHash"]]
    spans_s = [(_accepted_s(order), rpc.sent_s[order["txHash"]]) for order in once]
    times_ms = [(sent_s - accepted_s) * 1000 for accepted_s, sent_s in spans_s]
    node_ms = [rpc.worked_between_s(*span_s) * 1000 for span_s in spans_s]
    return Results(
        [time_ms - of_node_ms for time_ms, of_node_ms in zip(times_ms, node_ms, strict=True)],
        times_ms,
        orders,
        sum(order["status"] == "confirmed" for order in ended),
        sum(order["attempt"] > 1 for order in ended),
        {name: rpc.calls[name] / orders for name in BEFORE_SENDING},
        {name: rpc.took_s[name] / orders * 1000 for name in BEFORE_SENDING},
    )


@contextlib.asynccontextmanager
async def node(folder: Path, delay_ms: int) -> AsyncIterator[tuple[Endpoint, TimedRpc, Market]]:
    """Run a local chain at the pace of the real one, behind a node that is timed."""
    clock = SystemClock()
    chain = LocalChain(seed=0, unix_time_s=clock.now_ms() // 1000)
    market = open_market(chain, open_wallet(folder / "wallet.json"))
    endpoint = Endpoint(chain, clock, Distance(delay_ms))
    endpoint.rpc = rpc = TimedRpc(chain)
    await endpoint.start()
    blocks = asyncio.create_task(chain.run(clock))
    try:
        yield endpoint, rpc, market
    finally:
        blocks.cancel()
        await asyncio.gather(blocks, return_exceptions=True)
        await endpoint.close()


def _environ(folder: str, endpoint: Endpoint, market: Market) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return environ | {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATABASE_URL": f"sqlite:///{folder}/bench.db",
        "QUEUE_RATE_LIMIT": "0",
        "LOG_LEVEL": "info",
        "FILLWRIGHT_LOG_FORMAT": "json",
        "FILLWRIGHT_MODE": "localnet",
        "FILLWRIGHT_RPC_URLS": endpoint.url,
        "FILLWRIGHT_RPC_WS_URL": endpoint.websocket_url,
        "FILLWRIGHT_RPC_REQUESTS_PER_SECOND": "0",
        "FILLWRIGHT_POOLS": ",".join(format_address(address) for _, address in market.pools),
        "FILLWRIGHT_WALLET": f"file:{folder}/wallet.json",
    }


async def _submit(engine: RemoteEngine, count: int, rate: float) -> list[str]:
    """Submit orders at a steady pace, and return their ids."""
    ids, begun_s = list[str](), time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, begun_s + number / rate - time.perf_counter()))
        token_in, token_out, amount = SWAPS[number % len(SWAPS)]
        body = {"tokenIn": token_in, "tokenOut": token_out, "amount": amount, "slippage": "0.02"}
        ids.append((await engine.post("/api/orders/execute", body)).body["orderId"])
    return ids


async def _end(engine: RemoteEngine, order_id: str) -> dict[str, Any]:
    """Return an order once it is over."""
    async with asyncio.timeout(PATIENCE_S):
        async for _ in engine.follow(order_id):
            pass
    return (await engine.get(f"/api/orders/{order_id}")).body


def _accepted_s(order: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(order["createdAt"]).timestamp()


def show(results: Results, *, with_targets: bool) -> None:
    print(f"{results.orders} orders, {results.confirmed} confirmed, {results.again} of them not at the first attempt")
    for name, value in results.values.items():
        target = TARGETS_MS.get(name) if with_targets else None
        verdict = "" if target is None else f"   target < {target:g}: {'met' if value < target else 'MISSED'}"
        print(f"  {name:16} {value:8.2f}{verdict}")
    print("the node's part, for each order:")
    for name in BEFORE_SENDING:
        print(f"  {name:28} {results.calls[name]:5.2f} calls {results.node_ms[name]:7.2f} ms")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.landing", description="Measure acceptance to sending.")
    parser.add_argument("--orders", type=int, default=300)
    parser.add_argument("--rate", type=float, default=5.0, help="orders in a second")
    parser.add_argument("--delay-ms", type=int, default=0, help="how long each call to the node takes at least")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-landing.json", help="where the JSON goes")
    given = parser.parse_args(arguments)
    results = asyncio.run(measure(given.orders, given.rate, given.delay_ms))
    if len(results.times_ms) < 2:
        say("the measurement failed: fewer than two orders were sent at their first attempt")
        return 1
    show(results, with_targets=not given.delay_ms)
    document = {
        "orders": results.orders,
        "confirmed": results.confirmed,
        "again": results.again,
        "rate": given.rate,
        "delay_ms": given.delay_ms,
        "values": results.values,
        "targets_ms": TARGETS_MS,
        "calls": dict(results.calls),
        "node_ms": dict(results.node_ms),
        "engine_ms": [round(each, 3) for each in results.engine_ms],
        "times_ms": [round(each, 3) for each in results.times_ms],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
