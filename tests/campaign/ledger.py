"""The world that the engine trades in: a process of its own, which is never killed, and counts what really happened.

It drops transactions, lands them late, loses replies, goes dark, and answers from nodes that are behind. The engine's
processes reach it over a Unix socket; what is said there is pickled, for both ends are ours.
"""

from __future__ import annotations

import asyncio
import pickle
import random
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

from fillwright.chain.simulated import ChainSettings, Ledger, SimulatedChain
from fillwright.clock import SystemClock
from fillwright.core.errors import ChainUnavailable, ExecutionError
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Finalized, LandedSwap
from fillwright.core.routing import Route
from fillwright.core.units import BaseUnits, Millis, Signature

BEHIND_MS: Final = (0, 0, 300, 1_500)
RATES: Final = ChainSettings(
    speed=0.05,
    dropped_rate=0.1,
    late_rate=0.06,
    reply_lost_rate=0.1,
    reverted_rate=0.15,
    slippage_exceeded_rate=0.15,
)


class ClockBehind:
    def __init__(self, behind_ms: Millis) -> None:
        self._behind_ms = behind_ms
        self._clock = SystemClock()

    def now_ms(self) -> Millis:
        return self._clock.now_ms() - self._behind_ms

    async def sleep(self, span_ms: Millis) -> None:
        await self._clock.sleep(span_ms)


class World:
    """What can be asked of it; `calm` ends all mishaps, `dark` answers nobody for a while."""

    def __init__(self, seed: int) -> None:
        self._ledger = Ledger(":memory:", SystemClock(), RATES.speed)
        self._chance = random.Random(seed)
        self._dark_until = 0.0
        self._nodes = [self._node(behind_ms, RATES) for behind_ms in BEHIND_MS]

    async def answer(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if method in ("send", "finalized", "outcome") and asyncio.get_running_loop().time() < self._dark_until:
            raise ChainUnavailable("no node answers")
        return await getattr(self, method)(*arguments)

    async def calm(self) -> None:
        self._nodes = [self._node(0, ChainSettings(speed=RATES.speed))]
        self._dark_until = 0.0

    async def dark(self, span_s: float) -> None:
        self._dark_until = asyncio.get_running_loop().time() + span_s

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        return await self._nodes[0].sign(order, route, min_out_amount)

    async def send(self, transaction: SignedTransaction) -> None:
        await self._nodes[0].send(transaction)

    async def finalized(self) -> Finalized:
        return await self._chance.choice(self._nodes).finalized()

    async def outcome(self, transaction: SignedTransaction, finalized: Finalized) -> Fill | ExecutionError | None:
        return await self._chance.choice(self._nodes).outcome(transaction, finalized)

    async def swaps(self) -> list[LandedSwap]:
        return self._ledger.swaps()

    def _node(self, behind_ms: Millis, rates: ChainSettings) -> SimulatedChain:
        return SimulatedChain(self._ledger, rates, ClockBehind(behind_ms))


class RemoteChain:
    """The Chain port, as the engine's processes have it."""

    identity = "campaign"

    def __init__(self, path: str) -> None:
        self._path = path
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        signed = await self.ask("sign", order, route, min_out_amount)
        assert isinstance(signed, SignedTransaction)
        return signed

    async def send(self, transaction: SignedTransaction) -> None:
        await self.ask("send", transaction)

    async def finalized(self) -> Finalized:
        finalized = await self.ask("finalized")
        assert isinstance(finalized, Finalized)
        return finalized

    async def outcome(self, transaction: SignedTransaction, finalized: Finalized) -> Fill | ExecutionError | None:
        outcome: Fill | ExecutionError | None = await self.ask("outcome", transaction, finalized)
        return outcome

    async def wait(self, signature: Signature, span_ms: int) -> None:
        await asyncio.sleep(span_ms / 1000)

    async def landed_swaps(self) -> AsyncIterator[LandedSwap]:
        for swap in await self.ask("swaps"):
            yield swap

    async def ask(self, method: str, *arguments: Any) -> Any:
        async with self._turn:
            line, self._line = self._line, None  # one that breaks in between is not used again
            reader, writer = line or await asyncio.open_unix_connection(self._path)
            _write(writer, (method, arguments))
            answered, value = await _read(reader)
            self._line = reader, writer
        if answered:
            return value
        raise value

    async def close(self) -> None:
        if self._line is not None:
            _, writer = self._line
            writer.close()
            await writer.wait_closed()


async def serve(path: str, seed: int) -> None:
    world = World(seed)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                method, arguments = await _read(reader)
                try:
                    answer = True, await world.answer(method, arguments)
                except ChainUnavailable as error:
                    answer = False, error
                _write(writer, answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_unix_server(talk, path)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


def _write(writer: asyncio.StreamWriter, value: Any) -> None:
    data = pickle.dumps(value)
    writer.write(struct.pack(">I", len(data)) + data)


async def _read(reader: asyncio.StreamReader) -> Any:
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    return pickle.loads(await reader.readexactly(length))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
