"""Group commit by natural batching.

While one transaction is being made durable, the writes of the next one gather; when it is done, all that gathered is
one transaction. Alone, a write waits for nobody; under load, one `fsync` serves hundreds. There is no tick to tune.

What waits for the disk or for another process (BEGIN, COMMIT) runs on a thread of its own. The statements in between
take microseconds and run on the event loop: on the thread, each would hand Python's lock to and fro with a loop that
never stands still, which costs more than the statement.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from fillwright.core.errors import StoreUnavailable
from fillwright.core.lifecycle import Update
from fillwright.core.ports import Listener

T = TypeVar("T")
Session = TypeVar("Session")

Write: TypeAlias = Callable[[Session], T]
Outcome: TypeAlias = Any | BaseException  # what each write returned or raised; the future it goes to knows its type


BATCH_MAX: Final = 500  # so that a burst does not keep the event loop for long
PATIENCE_S: Final = 5.0  # a write that has not had its turn by then is given up: whoever asked for it has gone, perhaps
TOO_LATE: Final = "the database does not keep up; nothing was written"


class Waiting(NamedTuple):
    write: Write[Any, Any]
    future: asyncio.Future[Any]
    until_s: float


class Transactions(Protocol):
    """The database, one transaction after another. An error of any step means that the transaction did not happen."""

    def begin(self) -> None: ...

    def write(self, writes: Sequence[Any]) -> tuple[list[Outcome], Sequence[Update]]:
        """Run the writes, and return the outcome of each and the news of all."""

    def commit(self) -> None: ...

    def rollback(self) -> None: ...


class GroupCommit:
    """Run writes in batches, one transaction each. With `threaded=False` nothing leaves the event loop."""

    def __init__(self, transactions: Transactions, committed: Listener, *, threaded: bool) -> None:
        self._transactions = transactions
        self._committed = committed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gathering: list[Waiting] = []
        self._busy = False
        self._closed = False
        self._idle: asyncio.Future[None] | None = None
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True) if threaded else None
        if self._thread:
            self._thread.start()

    def run(self, write: Write[Any, T]) -> asyncio.Future[T]:
        """Return a future of the write's result, set once its batch is durable. Raise StoreUnavailable once closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # kept: asking for it costs a system call on Python 3.11
        future: asyncio.Future[T] = self._loop.create_future()
        self._gathering.append(Waiting(write, future, self._loop.time() + PATIENCE_S))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._off_the_loop, self._begin, self._begun)
        return future

    async def close(self) -> None:
        """Finish what was handed in, then end the thread."""
        self._closed = True
        if self._busy:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        if self._thread:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _begun(self, error: Exception | None) -> None:
        batch = self._next_batch()
        if error is None:
            try:
                outcomes, updates = self._transactions.write([waiting.write for waiting in batch])
            except Exception as fault:
                self._transactions.rollback()
                error = fault
        if error is not None:
            self._settle(batch, [_unavailable(error)] * len(batch))
            self._go_on()
            return

        def ended(result: tuple[Exception | None, Exception | None, bool]) -> None:
            failure, next_failure, begun = result
            if failure is None:
                if updates:
                    self._committed(updates)
                self._settle(batch, outcomes)
            else:
                self._settle(batch, [_unavailable(failure)] * len(batch))
            if begun:
                self._begun(next_failure)
            else:
                self._go_on()

        self._off_the_loop(self._commit_and_begin, ended)

    def _next_batch(self) -> list[Waiting]:
        assert self._loop is not None
        now_s, gathering = self._loop.time(), self._gathering
        late = next((at for at, waiting in enumerate(gathering) if waiting.until_s >= now_s), len(gathering))
        self._settle(gathering[:late], [StoreUnavailable(TOO_LATE) for _ in range(late)])
        batch, self._gathering = gathering[late : late + BATCH_MAX], gathering[late + BATCH_MAX :]
        return batch

    def _go_on(self) -> None:
        if self._gathering:
            self._off_the_loop(self._begin, self._begun)
            return
        self._busy = False
        if self._idle is not None:
            self._idle.set_result(None)

    def _begin(self) -> Exception | None:
        try:
            self._transactions.begin()
        except Exception as error:
            return error
        return None

    def _commit_and_begin(self) -> tuple[Exception | None, Exception | None, bool]:
        """Commit; then, if writes have gathered, begin their transaction on the same errand."""
        failure: Exception | None = None
        try:
            self._transactions.commit()
        except Exception as error:
            self._transactions.rollback()
            failure = error
        if not self._gathering:
            return failure, None, False
        return failure, self._begin(), True

    def _settle(self, batch: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
        for waiting, outcome in zip(batch, outcomes, strict=True):
            future = waiting.future
            if future.cancelled():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _off_the_loop(self, job: Callable[[], T], then: Callable[[T], None]) -> None:
        if self._thread:
            self._jobs.put((job, then))
        else:
            then(job())

    def _serve(self) -> None:
        while (errand := self._jobs.get()) is not None:
            job, then = errand
            result = job()
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(then, result)
            except RuntimeError:  # the loop is gone and with it everyone who waited; what was committed stays committed
                return


def _unavailable(error: Exception) -> StoreUnavailable:
    if isinstance(error, StoreUnavailable):
        return error
    failure = StoreUnavailable(f"the write failed: {error}")
    failure.__cause__ = error
    return failure
