"""The Python client under restarts: orders are submitted and followed while the engine is stopped, killed and cut off.

    python -m benchmarks.client_restarts [--orders N] [--restarts N] [--postgres]

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
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.process import EngineProcess, an_engine
from tests.relay import Relay, a_relay
from tests.servers import postgres

from fillwright.client import AsyncFillwright

SETTINGS: Final = {
    "fillwright_sim_speed": 0.2,
    "fillwright_lease_ms": 1_000,
    "fillwright_sim_reverted_rate": 0.1,
    "fillwright_sim_reply_lost_rate": 0.1,
    "fillwright_stop_ms": 500,
    "queue_concurrency": 50,
    "log_level": "info",
}
PATIENCE_S: Final = 120
SPAN_S: Final = 1.2  # how long each engine lives until it is cut off; half of that later, it ends


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was followed, and what of it was not told once and in turn. `hit` orders were open at a restart or cut."""

    orders: int
    events: int
    hit: int
    restarts: int
    cuts: int
    seconds: float
    faults: tuple[str, ...]


class Weather:
    """One engine after the other, as `relay` reaches them, and what befalls them.

    `orders` lets through as many orders as are to be submitted so far: some in each engine's life.
    """

    def __init__(self, folder: Path, relay: Relay, settings: Mapping[str, object]) -> None:
        self._folder = folder
        self._relay = relay
        self._settings = {**SETTINGS, **settings}
        self.orders = asyncio.Semaphore(0)
        self.ready, self.done = asyncio.Event(), asyncio.Event()
        self.restarts: list[datetime] = []
        self.cuts: list[datetime] = []

    async def run(self, orders: int, restarts: int) -> None:
        """Start engines and end them; let the last one run until `done`."""
        for life in range(restarts):
            async with self._engine() as engine:
                share = orders * (life + 1) // restarts - orders * life // restarts
                await self._let(share - share // 3, SPAN_S)
                self.cuts.append(datetime.now(UTC))
                self._relay.refuse(refusing=False)
                await self._let(share // 3, SPAN_S / 2)
                self.restarts.append(datetime.now(UTC))
                if life % 2:
                    self._relay.refuse()
                    await engine.kill()
                else:
                    await engine.stop()
                    self._relay.refuse()
        async with self._engine():
            await self.done.wait()

    @contextlib.asynccontextmanager
    async def _engine(self) -> AsyncIterator[EngineProcess]:
        async with an_engine(self._folder, **self._settings) as engine:
            self._relay.aim(str(engine.http._base_url))
            self._relay.refuse(refusing=False)
            self.ready.set()
            yield engine

    async def _let(self, orders: int, within_s: float) -> None:
        for _ in range(orders):
            self.orders.release()
            await asyncio.sleep(within_s / orders)


async def run(folder: Path, orders: int, restarts: int, **settings: object) -> Outcome:
    began = time.monotonic()
    async with (
        a_relay("http://127.0.0.1:1") as relay,
        AsyncFillwright(relay.url, "", timeout_s=PATIENCE_S, patience_s=PATIENCE_S) as client,
    ):
        weather = Weather(folder, relay, settings)
        running = asyncio.create_task(weather.run(orders, restarts))
        try:
            await weather.ready.wait()
            events, hit, faults = await _follow(client, orders, weather)
        finally:
            weather.done.set()
            await running
    return Outcome(
        orders, events, hit, len(weather.restarts), len(weather.cuts), time.monotonic() - began, tuple(faults)
    )


async def _follow(client: AsyncFillwright, orders: int, weather: Weather) -> tuple[int, int, list[str]]:
    """Submit and follow. Return how many events there were, how many orders were hit, and what was told wrongly."""
    everything: defaultdict[str, list[int]] = defaultdict(list)
    over: set[str] = set()
    alone: dict[str, list[int]] = {}

    async def follow_all() -> None:
        async for update in client.follow_all():
            everything[update.order_id].append(update.seq)
            if update.is_last:
                over.add(update.order_id)

    async def follow_one(number: int) -> None:
        await weather.orders.acquire()
        accepted = await client.submit("SOL", "USDC", "1", slippage="0.05", client_order_id=f"order-{number}")
        alone[accepted.order_id] = [update.seq async for update in client.follow(accepted.order_id)]

    streams = (await client.stats()).streams
    all_of_them = asyncio.create_task(follow_all())
    while (await client.stats()).streams == streams:  # what was before it hears is not for it
        await asyncio.sleep(0.01)
    await asyncio.gather(*(follow_one(number) for number in range(orders)))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while not over.issuperset(alone) and not all_of_them.done():
                await asyncio.sleep(0.1)
    all_of_them.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await all_of_them
    logs = {order_id: await client.events(order_id) for order_id in alone}
    faults = [f"{len(logs)} orders instead of {orders}"] if len(logs) != orders else []
    for order_id, log in logs.items():
        true = [event.seq for event in log]
        faults += [
            f"{who} told {told} of {order_id}, whose events are {true}"
            for who, told in (("follow", alone[order_id]), ("follow_all", everything[order_id]))
            if told != true
        ]
    moments = weather.restarts + weather.cuts
    hit = sum(any(log[0].at < moment < log[-1].at for moment in moments) for log in logs.values())
    return sum(map(len, logs.values())), hit, faults


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1_000)
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL instead of SQLite")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fillwright-restarts-"))
        settings = {"database_url": stack.enter_context(postgres()).new_database()} if options.postgres else {}
        outcome = asyncio.run(run(Path(folder), options.orders, options.restarts, **settings))
    print(
        f"{outcome.orders} orders with {outcome.events} events followed over {outcome.restarts} restarts and"
        f" {outcome.cuts} cuts, which hit {outcome.hit} of them, in {outcome.seconds:.0f} s:"
        f" {len(outcome.faults)} not told once and in turn"
    )
    for fault in outcome.faults[:20]:
        print(f"  {fault}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
