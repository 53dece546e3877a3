"""The store for one machine: SQLite in WAL mode with `synchronous=FULL`, so that a commit survives a power cut.

The rules it enforces are in the schema: one event per `(order_id, seq)`, one attempt per signature, one order per
client order id. Version and lease are checked under the writing lock, in the transaction that writes the event. Claims,
appends and new orders share one writing connection and, under load, one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import Any, Final, TypeVar

from fillwright.backends import codec
from fillwright.backends.group_commit import PATIENCE_S, GroupCommit, Write
from fillwright.backends.schema import read_scripts
from fillwright.backends.sqlite_session import Accept, Append, Session
from fillwright.core.control import Entry
from fillwright.core.errors import Denied, StoreError, StoreUnavailable
from fillwright.core.lifecycle import (
    TERMINAL,
    Accepted,
    Event,
    IllegalTransition,
    Recorded,
    Update,
    apply,
    rebuild,
)
from fillwright.core.limits import Cap
from fillwright.core.order import Order, OrderStatus
from fillwright.core.ports import START_WINDOW_MS, Claim, Claims, Clock, Delivery, Listener, OrderFilter, QueueCounts
from fillwright.core.units import Millis, OrderId

T = TypeVar("T")

WAL_TRIES: Final = 200
LOCK_S: Final = 5  # how long a write waits for another process
CHECKPOINT_PAGES: Final = 8_000  # 32 MB of log between two checkpoints: the same page is then copied back once


class SqliteStore:
    """Open the database at `path` (":memory:" for one that nobody else sees), bringing its schema up to date.

    `starts_per_minute` 0 means no limit. `threaded=False` works on the event loop itself, for tests on virtual time.
    """

    is_shared = False

    def __init__(
        self,
        path: str,
        *,
        clock: Clock,
        committed: Listener,
        capacity: int,
        lease_ms: Millis,
        starts_per_minute: int = 0,
        threaded: bool = True,
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._lease_ms = lease_ms
        self._starts_per_minute = starts_per_minute
        if threaded and path == ":memory:":
            raise StoreUnavailable("sqlite:// names no file; use sqlite:///orders.db, or memory:// to keep nothing")
        self._writer = _connect(path)
        migrate(self._writer)
        self._transactions = _Transactions(self._writer)
        self._group = GroupCommit(self._transactions, committed, threaded=threaded)
        self._lookups = _Reader(_connect(path) if threaded else self._writer, threaded=threaded)
        # What may take long has a connection of its own: one look at many orders must not keep all others waiting.
        self._searches = _Reader(_connect(path) if threaded else self._writer, threaded=threaded)

    async def accept(
        self, order_id: OrderId, event: Accepted, caps: Sequence[Cap] = (), webhooks: Sequence[str] = ()
    ) -> Order:
        encoded = codec.encode(event)
        return await self._group.run(Accept(order_id, event, encoded, self._clock, self._capacity, caps, webhooks))

    async def usage(self, day: int, of: Sequence[str]) -> Mapping[tuple[str, str], int]:
        return await self._read(lambda session: session.usage(day, of))

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        now_ms = self._clock.now_ms()
        after = apply(order, event, now_ms)
        update = Update(Recorded(order.id, after.version, now_ms, event), after)
        return await self._group.run(Append(update, codec.encode(event), lease))

    async def claim(self, worker: str, limit: int, *, begun_only: bool = False) -> Claims:
        def write(session: Session) -> Claims:
            session.flush()
            now_ms = self._clock.now_ms()
            for order in session.orders(session.expired_ids(now_ms)):
                session.begin(order, now_ms)
            session.flush()
            left_by = session.begun(now_ms, limit)
            ids = [*left_by]
            fresh = 0 if begun_only else limit - len(ids)
            if self._starts_per_minute:
                fresh = min(fresh, self._starts_per_minute - session.starts_since(now_ms - START_WINDOW_MS))
            if fresh > 0:
                ids += session.fresh_ids(fresh)
            leases = session.take(ids, worker, now_ms, now_ms + self._lease_ms)
            orders = [
                session.begin(order, now_ms) if order.status is OrderStatus.PENDING else order
                for order in session.orders(ids)
            ]
            taken = [
                Claim(order, leases[order.id], left_by.get(order.id, ""))
                for order in orders
                if order.status not in TERMINAL
            ]
            if len(ids) == limit:
                return Claims(taken, now_ms)
            session.flush()
            limited = self._starts_per_minute > 0 and fresh <= 0 and not begun_only
            return Claims(taken, session.next_due(now_ms - START_WINDOW_MS if limited else None))

        return await self._group.run(write)

    async def renew(self, claims: Sequence[tuple[OrderId, int]]) -> None:
        def write(session: Session) -> None:
            session.move_leases(claims, self._clock.now_ms() + self._lease_ms, give_back=False)

        await self._group.run(write)

    async def release(self, claims: Sequence[tuple[OrderId, int]], *, delay_ms: Millis = 0) -> None:
        def write(session: Session) -> None:
            session.move_leases(claims, self._clock.now_ms() + delay_ms, give_back=True)

        await self._group.run(write)

    async def history(self, order_id: OrderId, after: int = 0) -> list[Recorded]:
        return await self._read(lambda session: session.events([order_id], after))

    async def find(self, criteria: OrderFilter) -> list[Order]:
        def read(session: Session) -> list[Order]:
            return sorted(session.orders(session.matching_ids(criteria)), key=lambda order: order.id, reverse=True)

        return await self._read(read, long=True)

    async def counts(self) -> QueueCounts:
        now_ms = self._clock.now_ms()

        def read(session: Session) -> QueueCounts:
            limit = self._starts_per_minute
            limited = limit > 0 and session.starts_since(now_ms - START_WINDOW_MS) >= limit
            return session.counts(now_ms, limited=limited)

        return await self._read(read, long=True)

    async def count_events(self, from_ms: Millis, to_ms: Millis) -> int:
        return await self._read(lambda session: session.count_events(from_ms, to_ms), long=True)

    async def changed(self, since_ms: Millis, limit: int) -> list[Update]:
        def read(session: Session) -> list[Update]:
            histories = codec.replay_all(session.logs(session.changed_ids(since_ms, limit)))
            return [update for updates in histories for update in updates if update.record.at_ms >= since_ms]

        return await self._read(read, long=True)

    async def scan(self) -> AsyncIterator[Order]:
        page = [OrderId("")]
        while page := await self._read(partial(Session.ids_after, order_id=page[-1]), long=True):
            records = await self._read(partial(Session.events, ids=page), long=True)
            for _, log in groupby(records, lambda record: record.order_id):
                yield rebuild(list(log))

    async def pinned(self, name: str) -> str | None:
        return await self._read(lambda session: session.pinned(name))

    async def pin(self, name: str, value: str) -> str:
        return await self._group.run(lambda session: session.pin(name, value))

    async def add_ticket(self, digest: str, key_id: str, expires_at_ms: Millis) -> None:
        now_ms = self._clock.now_ms()
        await self._group.run(lambda session: session.add_ticket(digest, key_id, expires_at_ms, now_ms))

    async def take_ticket(self, digest: str) -> str | None:
        now_ms = self._clock.now_ms()
        return await self._group.run(lambda session: session.take_ticket(digest, now_ms))

    async def claim_deliveries(
        self, webhook_id: str, limit: int, lease_ms: Millis, orders: Sequence[OrderId] | None = None
    ) -> list[Delivery]:
        now_ms = self._clock.now_ms()
        if orders is None:  # on the reading thread: it may take long
            due = partial(Session.due_deliveries, webhook_id=webhook_id, limit=limit, now_ms=now_ms)
            orders = await self._read(due, long=True)
        if not orders:
            return []
        claim = partial(Session.claim_deliveries, webhook_id=webhook_id, limit=limit, now_ms=now_ms, orders=orders)
        return await self._group.run(partial(claim, until_ms=now_ms + lease_ms))

    async def settle_delivery(self, delivery: Delivery, *, is_over: bool = False) -> None:
        await self._group.run(lambda session: session.settle_delivery(delivery, is_over=is_over))

    async def failed_deliveries(self, webhooks: Sequence[str], limit: int) -> list[Delivery]:
        return await self._read(lambda session: session.failed_deliveries(webhooks, limit), long=True)

    async def revive_deliveries(self, webhooks: Sequence[str], order_id: OrderId | None = None) -> int:
        now_ms, revived = self._clock.now_ms(), 0
        while count := await self._group.run(lambda session: session.revive_deliveries(webhooks, order_id, now_ms)):
            revived += count
        return revived

    async def drop_deliveries(self, webhooks: Sequence[str], dead_before_ms: Millis = 0) -> None:
        while await self._group.run(lambda session: session.drop_deliveries(webhooks, dead_before_ms)):
            pass

    async def add_audit(self, entry: Entry) -> bool:
        return await self._group.run(lambda session: session.add_audit(codec.audit_row(entry)))

    async def audit_log(self, after: int = 0, limit: int | None = None) -> list[Entry]:
        return await self._read(lambda session: [codec.audit_entry(row) for row in session.audit_rows(after, limit)])

    async def check(self) -> None:
        await self._read(lambda session: session.connection.execute("SELECT 1 FROM tally LIMIT 1").fetchone())
        if self._transactions.fault is not None:
            raise StoreUnavailable(f"the last write failed: {self._transactions.fault}")

    async def close(self) -> None:
        await self._group.close()
        for readers in {self._lookups, self._searches}:
            await readers.close()
        self._writer.close()

    async def _read(self, read: Callable[[Session], T], *, long: bool = False) -> T:
        return await (self._searches if long else self._lookups).run(read)


class _Transactions:
    """The writing connection. `fault` is why the last transaction did not happen; None if it did."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.fault: str | None = None
        self._connection = connection

    def begin(self) -> None:
        with self._noting_faults():
            self._connection.execute("BEGIN IMMEDIATE")

    def write(self, writes: Sequence[Write[Session, Any]]) -> tuple[list[Any], Sequence[Update]]:
        outcomes: list[Any] = []
        session = Session(self._connection)
        with self._noting_faults():
            session.look_up([write for write in writes if isinstance(write, Accept | Append)])
            for write in writes:
                try:
                    outcomes.append(write(session))
                except (StoreError, Denied, IllegalTransition) as error:
                    if not isinstance(write, Accept | Append):  # those two refuse before they change anything
                        raise
                    outcomes.append(error)
            session.flush()
            session.write_tally()
            session.write_usage()
        return outcomes, session.updates

    def commit(self) -> None:
        with self._noting_faults():
            self._connection.execute("COMMIT")
        self.fault = None

    def rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.fault = str(error)
            raise


class _Reader:
    """A connection for reading, on a thread of its own; in WAL mode it waits for no writer."""

    def __init__(self, connection: sqlite3.Connection, *, threaded: bool) -> None:
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader") if threaded else None

    async def run(self, read: Callable[[Session], T]) -> T:
        if self._thread is None:
            return self._work(read)
        until_s = time.monotonic() + PATIENCE_S
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._thread, self._work_until, until_s, read)
        except RuntimeError as error:  # of the thread, which has ended: whoever still asks does so during a stop
            raise StoreUnavailable("the store is closed") from error
        return await reading

    async def close(self) -> None:
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)
            self._connection.close()

    def _work_until(self, until_s: float, read: Callable[[Session], T]) -> T:
        if time.monotonic() > until_s:  # so that what clients have asked for who have gone does not pile up
            raise StoreUnavailable("the database does not keep up with what is asked of it")
        return self._work(read)

    def _work(self, read: Callable[[Session], T]) -> T:
        try:
            return read(Session(self._connection))
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the database does not answer: {error}") from error
        except ValueError as error:
            raise StoreUnavailable(f"the log cannot be read: {error}") from error


def migrate_sqlite(path: str, *, change: bool) -> tuple[int, int]:
    """Bring the schema of the file at `path` up to date if `change`. Return its version, and the one it has or needs.

    Raise StoreUnavailable if the file cannot be opened or changed, or its schema is newer than this engine.
    """
    with contextlib.closing(_connect(path)) as connection:
        (before,) = connection.execute("PRAGMA user_version").fetchone()
        if change:
            migrate(connection)
    return before, len(read_scripts("sqlite"))


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, each numbered file in a transaction of its own.

    Raise StoreUnavailable if the schema is newer than this engine, or cannot be changed.
    """
    scripts = read_scripts("sqlite")
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")  # of two processes that start together, one waits and finds it done
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version < len(scripts):
                for statement in scripts[version].split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise StoreUnavailable(f"cannot bring the database up to date: {error}") from error
        if version > len(scripts):
            raise StoreUnavailable(
                f"the database has schema {version}, but this version knows only {len(scripts)}: upgrade fillwright"
            )
        if version == len(scripts):
            return


def _connect(path: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=LOCK_S, isolation_level=None, check_same_thread=False)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA foreign_keys = ON")
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"cannot open the database at {path}: {error}") from error
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode. SQLite does not wait for others with this, so processes that start together take turns."""
    for _ in range(WAL_TRIES):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            time.sleep(0.05)
        else:
            return
    connection.execute("PRAGMA journal_mode = WAL")
