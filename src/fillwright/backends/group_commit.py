"""Group commit by natural batching.

One thread owns the writing connection. While it commits one batch, the next one gathers on the event loop; when it is
done, all that gathered goes over at once. Alone, a write waits for nobody; under load, one `fsync` serves hundreds.
There is no tick to tune.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from fillwright.core.errors import StoreUnavailable
from fillwright.core.lifecycle import Update
from fillwright.core.ports import Listener

T = TypeVar("T")
Session = TypeVar("Session")

Write: TypeAlias = Callable[[Session], T]
Outcome: TypeAlias = Any | BaseException  # what each write returned or raised; the future it goes to knows its type


class GroupCommit(Generic[Session]):
    """Run writes in batches, one transaction each.

    `commit` takes a batch and returns an outcome for each write and the updates committed. If it raises, no write of
    the batch happened. With `threaded=False` it runs on the event loop, one batch per turn of the loop.
    """

    def __init__(
        self,
        commit: Callable[[list[Write[Session, Any]]], tuple[list[Outcome], Sequence[Update]]],
        committed: Listener,
        *,
        threaded: bool,
    ) -> None:
        self._commit = commit
        self._committed = committed
        self._gathering: list[tuple[Write[Session, Any], asyncio.Future[Any]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = False
        self._closed = False
        self._batches: SimpleQueue[list[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True) if threaded else None
        if self._thread:
            self._thread.start()

    def run(self, write: Write[Session, T]) -> asyncio.Future[T]:
        """Return a future of the write's result, set once its batch is durable. Raise StoreUnavailable once closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # kept: asking for it costs a system call on Python 3.11
        loop = self._loop
        future: asyncio.Future[T] = loop.create_future()
        self._gathering.append((write, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._hand_over)
        return future

    async def close(self) -> None:
        """Wait for what was handed in, then end the thread."""
        self._closed = True
        waiting = [future for _, future in self._gathering]
        if waiting:
            await asyncio.wait(waiting)
        if self._thread:
            self._batches.put(None)
            await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        batch, self._gathering = self._gathering, []
        if self._thread:
            self._batches.put(batch)
        else:
            self._finish(batch, *self._attempt(batch))

    def _serve(self) -> None:
        while (batch := self._batches.get()) is not None:
            outcome = self._attempt(batch)
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._finish, batch, *outcome)
            except RuntimeError:  # the loop is gone and with it everyone who waited; what was committed stays committed
                return

    def _attempt(self, batch: list[Any]) -> tuple[list[Outcome], Sequence[Update]]:
        try:
            return self._commit([write for write, _ in batch])
        except Exception as error:
            failure = error if isinstance(error, StoreUnavailable) else StoreUnavailable(f"the write failed: {error}")
            failure.__cause__ = error if failure is not error else error.__cause__
            return [failure] * len(batch), ()

    def _finish(self, batch: list[Any], outcomes: list[Outcome], updates: Sequence[Update]) -> None:
        if self._gathering:
            assert self._loop is not None
            self._loop.call_soon(self._hand_over)
        else:
            self._busy = False
        if updates:
            self._committed(updates)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.cancelled():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
