"""Starts the engine's processes, each with a place at which it will kill itself. The product knows nothing of this.

One process imports everything and forks a child for each line that it reads: an engine's start then costs milliseconds.
In the child, the ports that `app` opens are wrapped: at the chosen place, at the chosen time, it is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import mmap
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from fillwright import app, processes
from fillwright.cli import running
from fillwright.clock import SystemClock
from fillwright.core.errors import ChainUnavailable, TransactionReverted
from fillwright.core.lifecycle import Accepted, Event, Update
from fillwright.core.limits import Cap
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Claims, Finalized, Store
from fillwright.core.routing import Route
from fillwright.core.units import BaseUnits, Millis, OrderId
from fillwright.settings import Settings
from fillwright.telemetry import configure_logs
from tests.campaign.ledger import RemoteChain

# Whatever else is imported when it is first used, so that children need not.
import fillwright.backends.postgres  # isort: skip
import fillwright.backends.redis  # isort: skip # noqa: F401

T = TypeVar("T")

FULL_DISK_S: Final = 1.0
FULL_DISK: Final = signal.SIGUSR1
TELL: Final = signal.SIGUSR2


class Doom:
    """Where this process will die, and after how many times of passing there."""

    def __init__(self, place: str, passes: int, note: str) -> None:
        self._place, self._passes, self._note = place, passes, note

    def pass_by(self, place: str) -> None:
        if place != self._place:
            return
        self._passes -= 1
        if self._passes <= 0:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # the disk may be full just now
            with Path(self._note).open("a") as notes:
                notes.write(place + "\n")
            os.kill(os.getpid(), signal.SIGKILL)

    async def around(self, place: str, call: Coroutine[Any, Any, T]) -> T:
        self.pass_by(f"before {place}")
        result = await call
        self.pass_by(f"after {place}")
        return result


class DoomedStore:
    def __init__(self, store: Store, doom: Doom) -> None:
        self._store, self._doom = store, doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def accept(
        self, order_id: OrderId, event: Accepted, caps: Sequence[Cap] = (), webhooks: Sequence[str] = ()
    ) -> Order:
        return await self._doom.around("accept", self._store.accept(order_id, event, caps, webhooks))

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        return await self._doom.around(type(event).__name__, self._store.append(order, event, lease))

    async def claim(self, worker: str, limit: int, *, begun_only: bool = False) -> Claims:
        claims = await self._store.claim(worker, limit, begun_only=begun_only)
        if claims.taken:
            self._doom.pass_by("after claim")
        return claims

    async def renew(self, claims: Sequence[tuple[OrderId, int]]) -> None:
        await self._doom.around("renew", self._store.renew(claims))

    async def release(self, claims: Sequence[tuple[OrderId, int]], *, delay_ms: Millis = 0) -> None:
        await self._doom.around("release", self._store.release(claims, delay_ms=delay_ms))


class DoomedChain(RemoteChain):
    def __init__(self, path: str, doom: Doom) -> None:
        super().__init__(path)
        self._doom = doom

    async def send(self, transaction: SignedTransaction) -> None:
        await self._doom.around("send", super().send(transaction))


class SendsBeforeRecord(DoomedChain):
    """A planted mistake, to see that the campaign finds it."""

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        signed = await super().sign(order, route, min_out_amount)
        with contextlib.suppress(ChainUnavailable):
            await self.send(signed)
        return signed


class TakesTimeOutForDead(DoomedChain):
    """Another one."""

    async def finalized(self) -> Finalized:
        try:
            return await super().finalized()
        except ChainUnavailable:
            return Finalized(10**12, 0)

    async def outcome(self, transaction: SignedTransaction, finalized: Finalized) -> Fill | Any:
        try:
            return await super().outcome(transaction, finalized)
        except ChainUnavailable as error:
            return TransactionReverted(f"taken for dead: {error}")


CHAINS: Final[dict[str, type[DoomedChain]]] = {
    "": DoomedChain,
    "record-after-send": SendsBeforeRecord,
    "time-out-means-dead": TakesTimeOutForDead,
}


class SkewedClock(SystemClock):
    """The machine's clock, set ahead or back by what stands in a file that the campaign writes."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._skew = mmap.mmap(file.fileno(), 8)

    def now_ms(self) -> Millis:
        (skew_ms,) = struct.unpack("<q", self._skew[:8])
        return super().now_ms() + int(skew_ms)


class NoLedger:
    def close(self) -> None:
        return


def run(order: dict[str, Any]) -> None:
    """Be an engine's process, until the end."""
    settings = Settings(**order["settings"])
    configure_logs("warning", "json")
    doom = Doom(order["place"], order["passes"], order["note"])
    replaced = vars(app)
    open_store = replaced["open_store"]

    async def open_doomed(url: str, *, committed: Callable[[Sequence[Update]], None], **options: Any) -> Any:
        def published(updates: Sequence[Update]) -> None:
            doom.pass_by("between commit and news")
            committed(updates)

        return DoomedStore(await open_store(url, committed=published, **options), doom)

    replaced["open_store"] = open_doomed
    replaced["open_ledger"] = lambda *_, **__: NoLedger()
    replaced["open_chain"] = lambda *_: CHAINS[order["planted"]](order["chain"], doom)
    replaced["SystemClock"] = lambda: SkewedClock(order["skew"])
    gc.enable()

    async def part(started: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(FULL_DISK, fill_disk)
        loop.add_signal_handler(TELL, tell)
        if order["role"] == "worker":
            await processes.work(settings, started)
        else:
            with processes.listen(settings.host, settings.port) as listener:
                await processes.serve(settings, listener, works=order["role"] == "serve", listening=lambda _: started())

    running.run(part)


def tell() -> None:
    """Write down what every task waits for."""
    for task in asyncio.all_tasks():
        task.print_stack(limit=4, file=sys.stderr)
    sys.stderr.flush()


def fill_disk() -> None:
    """Let every write to a file fail for a while, as it does when there is no room."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    asyncio.get_running_loop().call_later(FULL_DISK_S, resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))


def main() -> None:
    """Fork a child for each line on standard input; write a line when one begins and when one has ended."""
    gc.disable()
    gc.freeze()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                say(ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            be_a_child(order)
        say(began=pid, name=order["name"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def be_a_child(order: dict[str, Any]) -> None:
    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        run(order)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def say(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
