"""Group commit by natural batching.

What one turn of the event loop writes goes to the queue together. One thread owns the writing connection: it takes all
that waits, runs it in one transaction, reports, and takes what came in the meantime. Alone, a write waits for nobody;
under load, one `fsync` serves hundreds. There is no tick to tune.
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._turn: list[tuple[Write[Session, Any], asyncio.Future[Any]]] = []
        self._queue: SimpleQueue[list[tuple[Write[Session, Any], asyncio.Future[Any]]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True) if threaded else None
        if self._thread:
            self._thread.start()

    def run(self, write: Write[Session, T]) -> asyncio.Future[T]:
        """Return a future of the write's result, set once its batch is durable. Raise StoreUnavailable once closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # kept: asking for it costs a system call on Python 3.11
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append((write, future))
        return future

    async def close(self) -> None:
        """Finish what was handed in, then end the thread."""
        self._closed = True
        await asyncio.sleep(0)
        self._queue.put(None)
        if self._thread:
            await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)

    def _serve(self) -> None:
        while batch := self._take():
            outcome = self._attempt(batch)
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._finish, batch, *outcome)
            except RuntimeError:  # the loop is gone and with it everyone who waited; what was committed stays committed
                return

    def _hand_over(self) -> None:
        batch, self._turn = self._turn, []
        if self._thread:
            self._queue.put(batch)
        else:
            self._finish(batch, *self._attempt(batch))

    def _take(self) -> list[Any]:
        """Wait for writes and return all that are there; an empty list once closed."""
        batch: list[Any] = []
        while (turn := self._queue.get()) is not None:
            batch += turn
            if self._queue.empty():
                return batch
        if batch:
            self._queue.put(None)
        return batch

    def _attempt(self, batch: list[Any]) -> tuple[list[Outcome], Sequence[Update]]:
        try:
            return self._commit([write for write, _ in batch])
        except Exception as error:
            failure = error if isinstance(error, StoreUnavailable) else StoreUnavailable(f"the write failed: {error}")
            failure.__cause__ = error if failure is not error else error.__cause__
            return [failure] * len(batch), ()

    def _finish(self, batch: list[Any], outcomes: list[Outcome], updates: Sequence[Update]) -> None:
        if updates:
            self._committed(updates)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.cancelled():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
