"""The Python client under restarts: orders are submitted and followed while the engine is stopped, killed and cut off.

    python -m benchmarks.client_restarts [--orders N] [--restarts N]

Each order is followed by itself, and all of them together by `follow_all`; both must have been told of every event
once and in turn. The engine is a real process, ended by SIGTERM and by SIGKILL in turns; shortly before each end, every
connection is cut.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.process import an_engine
from tests.relay import Relay, a_relay

from fillwright.client import AsyncFillwright

SETTINGS: Final = {
    "fillwright_sim_speed": 0.2,
    "fillwright_lease_ms": 1_000,
    "fillwright_stop_ms": 500,
    "queue_concurrency": 50,
    "log_level": "info",
}
PATIENCE_S: Final = 120
SPAN_S: Final = 1.5  # how long each engine lives


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was followed, and what of it was not told once and in turn."""

    orders: int
    events: int
    faults: tuple[str, ...]
    restarts: int
    cuts: int
    seconds: float


async def run(folder: Path, orders: int, restarts: int) -> Outcome:
    began = time.monotonic()
    ready, done = asyncio.Event(), asyncio.Event()
    async with (
        a_relay("http://127.0.0.1:1") as relay,
        AsyncFillwright(relay.url, "", timeout_s=PATIENCE_S, patience_s=PATIENCE_S) as client,
    ):
        running = asyncio.create_task(_engines(folder, relay, restarts, ready, done))
        try:
            await ready.wait()
            followed = await _follow(client, orders, restarts)
        finally:
            done.set()
            ended = await running
    return Outcome(*followed, *ended, time.monotonic() - began)


async def _engines(
    folder: Path, relay: Relay, restarts: int, ready: asyncio.Event, done: asyncio.Event
) -> tuple[int, int]:
    """Run one engine after the other, the last one until `done`. Return how many restarts and cuts that made."""
    cuts = 0
    for life in range(restarts + 1):
        async with an_engine(folder, **SETTINGS) as engine:
            relay.aim(str(engine.http._base_url))
            relay.refuse(refusing=False)
            ready.set()
            if life == restarts:
                await done.wait()
                return restarts, cuts
            await asyncio.sleep(SPAN_S)
            relay.refuse(refusing=False)  # cut once while the engine goes on
            cuts += 1
            await asyncio.sleep(SPAN_S / 5)
            if life % 2:
                relay.refuse()
                await engine.kill()
            else:
                await engine.stop()
                relay.refuse()
    raise AssertionError


async def _follow(client: AsyncFillwright, orders: int, restarts: int) -> tuple[int, int, tuple[str, ...]]:
    """Submit and follow. Return how many orders and events there were, and what was not told once and in turn."""
    everything: defaultdict[str, list[int]] = defaultdict(list)
    over: set[str] = set()
    alone: dict[str, list[int]] = {}

    async def follow_all() -> None:
        async for update in client.follow_all():
            everything[update.order_id].append(update.seq)
            if update.is_last:
                over.add(update.order_id)

    async def follow_one(number: int) -> None:
        await asyncio.sleep(number / orders * restarts * SPAN_S)
        accepted = await client.submit("SOL", "USDC", "1", slippage="0.05", client_order_id=f"order-{number}")
        alone[accepted.order_id] = [update.seq async for update in client.follow(accepted.order_id)]

    all_of_them = asyncio.create_task(follow_all())
    await asyncio.sleep(SPAN_S / 2)  # until it hears: what was before is not for it
    await asyncio.gather(*(follow_one(number) for number in range(orders)))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while not over.issuperset(alone) and not all_of_them.done():
                await asyncio.sleep(0.1)
    all_of_them.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await all_of_them
    true = {order_id: [event.seq for event in await client.events(order_id)] for order_id in alone}
    faults = [f"{len(true)} orders instead of {orders}"] if len(true) != orders else []
    for order_id, seqs in true.items():
        faults += [
            f"{who} told {told} of {order_id}, whose events are {seqs}"
            for who, told in (("follow", alone[order_id]), ("follow_all", everything[order_id]))
            if told != seqs
        ]
    return len(true), sum(map(len, true.values())), tuple(faults)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1_000)
    parser.add_argument("--restarts", type=int, default=50)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fillwright-restarts-") as folder:
        outcome = asyncio.run(run(Path(folder), options.orders, options.restarts))
    print(
        f"{outcome.orders} orders with {outcome.events} events followed over {outcome.restarts} restarts and"
        f" {outcome.cuts} cuts in {outcome.seconds:.0f} s: {len(outcome.faults)} not told once and in turn"
    )
    for fault in outcome.faults[:20]:
        print(f"  {fault}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
