"""Connections to PostgreSQL that come back, and group commit over them.

A statement ends in one of three ways, and they must not be mixed up. It worked. The server refused it: then its
transaction was rolled back and nothing of it is there. Or the connection broke, or no answer came in time: then nobody
knows, and the server may even still be at it. What is unknown is asked again on a new connection, with statements that
wait for whoever is still at it and do nothing where it is already done, and the answer is read from the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from socket import gaierror
from types import MappingProxyType
from typing import Final, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

import asyncpg
import structlog

from fillwright.core.errors import StoreUnavailable
from fillwright.core.units import Millis

Item = TypeVar("Item")
Result = TypeVar("Result")
T = TypeVar("T")

SCHEMA: Final = "fillwright"
BATCH_MAX: Final = 250
BATCH_MIN: Final = 16  # what is less goes in one batch: a statement costs as much as the rows of ten events
PAUSE_S: Final = 0.05  # before the second try, doubled before each further one
PAUSE_S_MAX: Final = 1.0
ANSWER_S: Final = 2.0  # how much longer than the server's own limit we wait for its answer

# The statements never change, and neither does the best way to execute them: look up by index, whatever the statistics
# of tables that were empty a minute ago say. So they are planned once, and never turn slow from one second to the next.
ONE_PLAN: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# Nobody knows what became of the statement.
UNKNOWN: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.IdleSessionTimeoutError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
# The server cannot take us now, but may soon, or another one in its place.
NOT_NOW: Final = (
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.PostgresConnectionError,
    OSError,
    TimeoutError,
)
IN_WORDS: Final[Mapping[type[OSError], str]] = {
    ConnectionRefusedError: "the connection was refused",
    ConnectionResetError: "the connection was cut",
    ConnectionError: "the connection was cut, or not made as the URL asks for",
    TimeoutError: "no answer in time",
    gaierror: "the host is not known",
}
FATAL: Final = ("FATAL", "PANIC")  # the server ends the connection with these
# Rolled back because of others: the same again may work.
ROLLED_BACK: Final = (asyncpg.exceptions.TransactionRollbackError,)


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """`timeout_ms` bounds each statement, `patience_ms` how long a lost connection is sought before we give up."""

    writers: int = 2
    readers: int = 2
    timeout_ms: Millis = 5_000
    patience_ms: Millis = 5_000


async def connect(
    url: str,
    settings: PostgresSettings,
    server_settings: Mapping[str, str] = MappingProxyType({}),
    *,
    patiently: bool = False,
) -> Connection:
    """Return a new connection, set up as the engine needs it. `patiently`, its statements may take any time."""
    return await asyncpg.connect(
        url,
        timeout=settings.patience_ms / 1000,
        command_timeout=None if patiently else settings.timeout_ms / 1000 + ANSWER_S,
        server_settings={
            "application_name": "fillwright",
            "search_path": SCHEMA,
            "synchronous_commit": "on",  # whatever is the default there: what we call durable is durable
            # What waits for a lock must then see what its holder has committed.
            "default_transaction_isolation": "read committed",
            "statement_timeout": "0" if patiently else str(settings.timeout_ms),
            # A process that freezes or vanishes between two statements must not keep its locks for hours.
            "idle_in_transaction_session_timeout": "0" if patiently else str(settings.timeout_ms),
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            "jit": "off",
            **server_settings,
        },
    )


class Link:
    """One connection for writing, opened when it is first needed and again when it broke."""

    def __init__(self, url: str, settings: PostgresSettings) -> None:
        self._url = url
        self._settings = settings
        self._connection: Connection | None = None

    async def get(self) -> Connection:
        """Return the connection, and open it if need be. Raise what asyncpg raises if that fails."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, self._settings, ONE_PLAN)
        return self._connection

    def drop(self) -> None:
        """Let go of a connection that cannot be trusted any more."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Say goodbye; if nobody hears it, hang up."""
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._connection.close(timeout=ANSWER_S)
            except (asyncpg.PostgresError, *UNKNOWN):
                self.drop()


async def persist(
    link: Link, statement: Callable[[Connection, bool], Awaitable[T]], until_s: float, *, perhaps_done: bool = False
) -> T:
    """Return what `statement` returns, on a new connection after each break, until `until_s` on the loop's clock.

    It is told whether an earlier try may have been carried out. Raise StoreUnavailable when it does not work out,
    saying whether that is so.
    """
    loop, pause_s = asyncio.get_running_loop(), PAUSE_S
    while True:
        sent = False
        try:
            connection = await link.get()
            sent = True
            result = await statement(connection, perhaps_done)
            if pause_s > PAUSE_S:
                structlog.get_logger().info("store.answers_again")
            return result
        except ROLLED_BACK as error:
            failure: Exception = error
        except UNKNOWN + NOT_NOW as error:
            if isinstance(error, ValueError):  # asyncpg's own, for an argument that it cannot encode: nothing was sent
                raise Refused(error, perhaps_done) from error
            failure, perhaps_done = error, perhaps_done or sent
            link.drop()
        except Exception as error:
            if getattr(error, "severity_en", "") not in FATAL:
                raise Refused(error, perhaps_done) from error
            failure, perhaps_done = error, perhaps_done or sent
            link.drop()
        if loop.time() + pause_s > until_s:
            raise StoreUnavailable(_words(failure, perhaps_done)) from failure
        structlog.get_logger().warning("store.trying_again", reason=reason(failure), outcome_unknown=perhaps_done)
        await asyncio.sleep(pause_s)
        pause_s = min(PAUSE_S_MAX, pause_s * 2)


class Refused(Exception):
    """The server will not do it, however often it is asked. `is_unknown`: an earlier try may have been carried out."""

    def __init__(self, error: Exception, is_unknown: bool) -> None:
        super().__init__(reason(error))
        self.is_unknown = is_unknown


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result]
    until_s: float

    def settle(self, outcome: Result | Exception) -> None:
        if self.future.cancelled():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Lane(Generic[Item, Result]):
    """Group commit by natural batching: what gathers while one statement is under way is the next statement.

    `write` carries out a batch and returns the outcome of each item, or the error to raise for it. It is told whether
    an earlier try at the same batch may have been carried out. Items with the same `key` are never under way at the
    same time, so that one can see what became of the one before it.
    """

    def __init__(
        self,
        links: Sequence[Link],
        write: Callable[[Connection, Sequence[Item], bool], Awaitable[Sequence[Result | Exception]]],
        key: Callable[[Item], Hashable],
        patience_ms: Millis,
    ) -> None:
        self._free = list(links)
        self._links = tuple(links)
        self._write = write
        self._key = key
        self._patience_s = patience_ms / 1000
        self._gathering: list[_Entry[Item, Result]] = []
        self._under_way: dict[Hashable, asyncio.Future[Result]] = {}
        self._batches: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()  # kept: asking for it costs a system call on Python 3.11
        self._called = False
        self._closed = False

    def run(self, item: Item) -> asyncio.Future[Result]:
        """Return a future of the item's outcome, done once that is durable. Raise StoreUnavailable once closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        entry = _Entry[Item, Result](item, self._loop.create_future(), self._loop.time() + self._patience_s)
        self._gathering.append(entry)
        if self._free and not self._called:
            self._called = True
            self._loop.call_soon(self._begin)
        return entry.future

    def pending(self, key: Hashable) -> asyncio.Future[Result] | None:
        """Return the future of the item with this key whose batch is under way, if there is one."""
        return self._under_way.get(key)

    async def close(self) -> None:
        """Finish what was handed in, then close the connections."""
        self._closed = True
        while self._batches or self._gathering:
            await (asyncio.wait(self._batches) if self._batches else asyncio.sleep(0))
        for link in self._links:
            await link.close()

    def _begin(self) -> None:
        """Give each free connection its share: PostgreSQL works on one while we work on what came of another."""
        self._called = False
        share = max(BATCH_MIN, -(-len(self._gathering) // max(1, len(self._free))))
        while self._free and (batch := self._next_batch(min(share, BATCH_MAX))):
            self._under_way.update((key, entry.future) for key, entry in batch.items())
            task = self._loop.create_task(self._carry_out(self._free.pop(), batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _next_batch(self, size: int) -> dict[Hashable, _Entry[Item, Result]]:
        batch: dict[Hashable, _Entry[Item, Result]] = {}
        left: list[_Entry[Item, Result]] = []
        now_s = self._loop.time()
        for entry in self._gathering:
            key = self._key(entry.item)
            if entry.until_s < now_s:
                entry.settle(StoreUnavailable("the database does not keep up; nothing was written"))
            elif len(batch) >= size or key in batch or key in self._under_way:
                left.append(entry)
            else:
                batch[key] = entry
        self._gathering = left
        return batch

    async def _carry_out(self, link: Link, batch: dict[Hashable, _Entry[Item, Result]]) -> None:
        try:
            await self._settle(link, list(batch.values()), self._loop.time() + self._patience_s)
        finally:
            for key in batch:
                del self._under_way[key]
            self._free.append(link)
        if self._gathering:
            self._begin()

    async def _settle(
        self, link: Link, entries: Sequence[_Entry[Item, Result]], until_s: float, *, perhaps_done: bool = False
    ) -> None:
        items = [entry.item for entry in entries]

        async def write(connection: Connection, perhaps: bool) -> Sequence[Result | Exception]:
            return await self._write(connection, items, perhaps)

        try:
            outcomes = await persist(link, write, until_s, perhaps_done=perhaps_done)
        except StoreUnavailable as error:
            outcomes = [StoreUnavailable(str(error)) for _ in entries]
        except Refused as refusal:
            if len(entries) > 1:
                # One of them is at fault, and must not cost the others theirs. Some may be done: a batch is a statement
                # and then a look at what it left out, and either can be what was refused.
                for entry in entries:
                    await self._settle(link, [entry], until_s, perhaps_done=True)
                return
            unknown = "; whether it was carried out is not known" if refusal.is_unknown else ""
            outcomes = [StoreUnavailable(f"the write failed: {refusal}{unknown}")]
        for entry, outcome in zip(entries, outcomes, strict=True):
            entry.settle(outcome)


def _words(error: Exception, perhaps_done: bool) -> str:
    if perhaps_done:
        return f"the database does not answer, and whether the write was carried out is not known: {reason(error)}"
    return f"the database does not answer: {reason(error)}"


def reason(error: BaseException) -> str:
    """Return an error's message without what is nobody's business: addresses, and the values in a row."""
    if isinstance(error, OSError):  # a TimeoutError is one, too
        return IN_WORDS.get(type(error), type(error).__name__)
    return str(error).partition("\n")[0] or type(error).__name__


def place(url: str) -> str:
    """Return where a URL leads, without who goes there."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "localhost"
    return f"{parts.path.strip('/') or 'postgres'} at {host}"


def explain(error: BaseException) -> StoreUnavailable:
    """Return a failed read as our error."""
    failure = StoreUnavailable(f"the database does not answer: {reason(error)}")
    failure.__cause__ = error
    return failure
