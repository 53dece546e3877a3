"""The store for one machine: SQLite in WAL mode with `synchronous=FULL`, so that a commit survives a power cut.

The rules it enforces are in the schema: one event per `(order_id, seq)`, one attempt per signature, one order per
client order id. Version and lease are checked under the writing lock, in the transaction that writes the event. Claims,
appends and new orders share one writing thread and, under load, one commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from fillwright.backends import codec
from fillwright.backends.group_commit import GroupCommit, Write
from fillwright.core.errors import LeaseLost, QueueFull, StoreUnavailable, VersionConflict
from fillwright.core.lifecycle import (
    TERMINAL,
    Accepted,
    AttemptFailed,
    Event,
    IllegalTransition,
    Recorded,
    TransactionSigned,
    Update,
    accepted,
    apply,
    begin,
    rebuild,
)
from fillwright.core.order import Order, OrderStatus
from fillwright.core.ports import Claim, Claims, Clock, Listener, OrderFilter, QueueCounts
from fillwright.core.units import Millis, OrderId, Signature, order_id_floor

T = TypeVar("T")

START_WINDOW_MS: Final = 60_000
EXPIRED_PER_CLAIM: Final = 100


class SqliteStore:
    """Open the database at `path` (":memory:" for one that nobody else sees), bringing its schema up to date.

    `starts_per_minute` 0 means no limit. `threaded=False` works on the event loop itself, for tests on virtual time.
    """

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
        self._writer = _connect(path)
        migrate(self._writer)
        self._group: GroupCommit[_Session] = GroupCommit(self._commit, committed, threaded=threaded)
        self._reader = _connect(path) if threaded else self._writer
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="store-reader") if threaded else None

    async def accept(self, order_id: OrderId, event: Accepted) -> Order:
        return await self._group.run(_Accept(order_id, event, self._clock, self._capacity))

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        now_ms = self._clock.now_ms()
        after = apply(order, event, now_ms)
        return await self._group.run(_Append(Update(Recorded(order.id, after.version, now_ms, event), after), lease))

    async def claim(self, worker: str, limit: int) -> Claims:
        def write(session: _Session) -> Claims:
            session.flush()
            now_ms = self._clock.now_ms()
            for order in session.orders(session.expired_ids(now_ms)):
                session.begin(order, now_ms)
            session.flush()
            ids = session.begun_ids(now_ms, limit)
            fresh = limit - len(ids)
            if self._starts_per_minute:
                fresh = min(fresh, self._starts_per_minute - session.starts_since(now_ms - START_WINDOW_MS))
            if fresh > 0:
                ids += session.fresh_ids(now_ms, fresh)
            leases = session.take(ids, worker, now_ms, now_ms + self._lease_ms)
            orders = [
                session.begin(order, now_ms) if order.status is OrderStatus.PENDING else order
                for order in session.orders(ids)
            ]
            taken = [Claim(order, leases[order.id]) for order in orders if order.status not in TERMINAL]
            if len(ids) == limit:
                return Claims(taken, now_ms)
            session.flush()
            limited = self._starts_per_minute > 0 and fresh <= 0
            return Claims(taken, session.next_due(now_ms - START_WINDOW_MS if limited else None))

        return await self._group.run(write)

    async def renew(self, claims: Sequence[tuple[OrderId, int]]) -> None:
        def write(session: _Session) -> None:
            session.move_leases(claims, self._clock.now_ms() + self._lease_ms, give_back=False)

        await self._group.run(write)

    async def release(self, claims: Sequence[tuple[OrderId, int]]) -> None:
        def write(session: _Session) -> None:
            session.move_leases(claims, self._clock.now_ms(), give_back=True)

        await self._group.run(write)

    async def history(self, order_id: OrderId, after: int = 0) -> list[Recorded]:
        return await self._read(lambda session: session.events([order_id], after))

    async def find(self, criteria: OrderFilter) -> list[Order]:
        def read(session: _Session) -> list[Order]:
            return sorted(session.orders(session.matching_ids(criteria)), key=lambda order: order.id, reverse=True)

        return await self._read(read)

    async def counts(self) -> QueueCounts:
        now_ms = self._clock.now_ms()

        def read(session: _Session) -> QueueCounts:
            limit = self._starts_per_minute
            limited = limit > 0 and session.starts_since(now_ms - START_WINDOW_MS) >= limit
            return session.counts(now_ms, limited=limited)

        return await self._read(read)

    async def scan(self) -> AsyncIterator[Order]:
        page = [OrderId("")]
        while page := await self._read(partial(_Session.ids_after, order_id=page[-1])):
            for order in await self._read(partial(_Session.orders, ids=page)):
                yield order

    async def check(self) -> None:
        await self._read(lambda session: session.connection.execute("SELECT 1 FROM tally LIMIT 1").fetchone())

    async def close(self) -> None:
        await self._group.close()
        if self._readers:
            await asyncio.to_thread(self._readers.shutdown)
            self._reader.close()
        self._writer.close()

    def _commit(self, writes: list[Write[_Session, Any]]) -> tuple[list[Any], Sequence[Update]]:
        connection = self._writer
        outcomes: list[Any] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            session = _Session(connection)
            session.look_up([write for write in writes if isinstance(write, _Accept | _Append)])
            for write in writes:
                try:
                    outcomes.append(write(session))
                except (VersionConflict, LeaseLost, QueueFull, IllegalTransition) as error:
                    outcomes.append(error)
            session.flush()
            session.write_tally()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return outcomes, session.updates

    async def _read(self, read: Callable[[_Session], T]) -> T:
        def work() -> T:
            try:
                return read(_Session(self._reader))
            except sqlite3.Error as error:
                raise StoreUnavailable(f"the database does not answer: {error}") from error

        if self._readers is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


@dataclass(frozen=True, slots=True)
class _Accept:
    """Write an order and its first event, unless its client order id is known."""

    order_id: OrderId
    event: Accepted
    clock: Clock
    capacity: int

    def __call__(self, session: _Session) -> Order:
        key = self.event.client_order_id
        known = session.by_client_id.get(key) if key is not None else None
        if known is not None:
            session.flush()
            return session.orders([known])[0]
        if session.open_orders() >= self.capacity:
            raise QueueFull(f"{self.capacity} orders are open, which is as many as the engine is set to hold")
        now_ms = self.clock.now_ms()
        order = accepted(self.order_id, self.event, now_ms)
        session.add_order(order)
        session.add_event(Update(Recorded(order.id, 1, now_ms, self.event), order))
        return order


@dataclass(frozen=True, slots=True)
class _Append:
    """Write an event, if it is the next of its order and its lease is the newest."""

    update: Update
    lease: int | None

    def __call__(self, session: _Session) -> Order:
        record, order = self.update.record, self.update.order
        lease, seq = session.heads.get(order.id, (0, 0))
        if self.lease is not None and self.lease != lease:
            raise LeaseLost(f"{order.id}: lease {self.lease} was followed by {lease}")
        if record.seq != seq + 1:
            raise VersionConflict(f"{order.id}: event {record.seq} cannot follow event {seq}")
        if isinstance(record.event, TransactionSigned) and record.event.transaction.signature in session.signatures:
            raise IllegalTransition(f"{order.id}: signature {record.event.transaction.signature} is already in the log")
        session.add_event(self.update)
        if order.status in TERMINAL or isinstance(record.event, AttemptFailed):
            session.settle(order)
        return order


class _Session:
    """One transaction: what was looked up for it, what it is about to write, and the SQL, one method per question.

    The writing lock is held from the start, so what was looked up stays true until the commit. Rows are gathered and
    written by one statement for each table: SQLite then works for a whole batch without asking for Python's lock.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.updates: list[Update] = []
        self.heads: dict[OrderId, tuple[int, int]] = {}  # newest lease and last seq
        self.by_client_id: dict[str, OrderId] = {}
        self.signatures: set[Signature] = set()
        self._tally: Counter[str] = Counter()
        self._open: int | None = None
        self._new_orders: list[tuple[Any, ...]] = []
        self._new_events: list[tuple[Any, ...]] = []
        self._settled: list[tuple[Any, ...]] = []

    def look_up(self, writes: Sequence[_Accept | _Append]) -> None:
        """Read what the writes must know, in one question of each kind."""
        appends = [write.update for write in writes if isinstance(write, _Append)]
        if appends:
            rows = self.connection.execute(
                "SELECT id, lease, (SELECT max(seq) FROM events WHERE order_id = id) FROM orders"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (_json([update.order.id for update in appends]),),
            )
            self.heads = {order_id: (lease, seq) for order_id, lease, seq in rows}
        if keys := [write.event.client_order_id for write in writes if isinstance(write, _Accept)]:
            rows = self.connection.execute(
                "SELECT client_order_id, id FROM orders WHERE client_order_id IN (SELECT value FROM json_each(?))",
                (_json([key for key in keys if key is not None]),),
            )
            self.by_client_id = dict(rows.fetchall())
        events = (update.record.event for update in appends)
        if signed := [event.transaction.signature for event in events if isinstance(event, TransactionSigned)]:
            rows = self.connection.execute(
                "SELECT signature FROM events WHERE signature IN (SELECT value FROM json_each(?))", (_json(signed),)
            )
            self.signatures = {row[0] for row in rows}

    def add_order(self, order: Order) -> None:
        terms, key = order.terms, order.client_order_id
        self._new_orders.append(
            (order.id, key, terms.token_in.mint, terms.token_out.mint, terms.expires_at_ms, order.due_at_ms)
        )
        self._tally["accepted"] += 1
        if key is not None:
            self.by_client_id[key] = order.id

    def add_event(self, update: Update) -> None:
        record = update.record
        name, data = codec.encode(record.event)
        signature = record.event.transaction.signature if isinstance(record.event, TransactionSigned) else None
        if signature is not None:
            self.signatures.add(signature)
        self._new_events.append((record.order_id, record.seq, record.at_ms, name, data.decode(), signature))
        lease, _ = self.heads.get(record.order_id, (0, 0))
        self.heads[record.order_id] = (lease, record.seq)
        self.updates.append(update)

    def begin(self, order: Order, now_ms: Millis) -> Order:
        event = begin(order, now_ms)
        after = apply(order, event, now_ms)
        self.add_event(Update(Recorded(order.id, after.version, now_ms, event), after))
        if after.status in TERMINAL:
            self.settle(after)
        return after

    def settle(self, order: Order) -> None:
        """Give the order's lease back: it is over, or rests until it is due again."""
        over = order.status in TERMINAL
        self._settled.append((order.id, order.status if over else None, order.due_at_ms))
        if over:
            self._tally[order.status] += 1

    def flush(self) -> None:
        """Write what has gathered."""
        if self._new_orders:
            self.connection.execute(
                "INSERT INTO orders (id, client_order_id, mint_in, mint_out, expires_at_ms, due_at_ms)"
                " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),"
                " json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')"
                " FROM json_each(?)",
                (_json(self._new_orders),),
            )
            self._new_orders = []
        if self._new_events:
            self.connection.execute(
                "INSERT INTO events (order_id, seq, at_ms, type, data, signature)"
                " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),"
                " json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')"
                " FROM json_each(?)",
                (_json(self._new_events),),
            )
            self._new_events = []
        if self._settled:
            self.connection.execute(
                "UPDATE orders SET outcome = new.outcome, due_at_ms = new.due_at_ms, leased_by = NULL FROM ("
                "SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS outcome,"
                " json_extract(value, '$[2]') AS due_at_ms FROM json_each(?)) AS new WHERE orders.id = new.id",
                (_json(self._settled),),
            )
            self._settled = []

    def take(self, ids: Sequence[OrderId], worker: str, now_ms: Millis, until_ms: Millis) -> dict[OrderId, int]:
        """Put the orders under a new lease each, and return the leases."""
        rows = self.connection.execute(
            "UPDATE orders SET lease = lease + 1, leased_by = ?, due_at_ms = ?,"
            " started_at_ms = coalesce(started_at_ms, ?) WHERE id IN (SELECT value FROM json_each(?))"
            " RETURNING id, lease",
            (worker, until_ms, now_ms, _json(ids)),
        )
        leases: dict[OrderId, int] = dict(rows.fetchall())
        for order_id, lease in leases.items():
            _, seq = self.heads.get(order_id, (0, 0))
            self.heads[order_id] = (lease, seq)
        return leases

    def move_leases(self, claims: Sequence[tuple[OrderId, int]], due_at_ms: Millis, *, give_back: bool) -> None:
        self.flush()
        self.connection.executemany(
            "UPDATE orders SET due_at_ms = ?, leased_by = CASE WHEN ? THEN NULL ELSE leased_by END"
            " WHERE id = ? AND lease = ? AND leased_by IS NOT NULL",
            [(due_at_ms, give_back, order_id, lease) for order_id, lease in claims],
        )

    def begun_ids(self, now_ms: Millis, limit: int) -> list[OrderId]:
        return self._ids(
            "SELECT id FROM orders WHERE due_at_ms <= ? AND due_at_ms IS NOT NULL AND started_at_ms IS NOT NULL"
            " ORDER BY due_at_ms LIMIT ?",
            now_ms,
            limit,
        )

    def fresh_ids(self, now_ms: Millis, limit: int) -> list[OrderId]:
        return self._ids(
            "SELECT id FROM orders WHERE due_at_ms <= ? AND due_at_ms IS NOT NULL AND started_at_ms IS NULL"
            " ORDER BY due_at_ms LIMIT ?",
            now_ms,
            limit,
        )

    def expired_ids(self, now_ms: Millis) -> list[OrderId]:
        return self._ids(
            "SELECT id FROM orders WHERE expires_at_ms <= ? AND expires_at_ms IS NOT NULL"
            " AND due_at_ms IS NOT NULL AND started_at_ms IS NULL ORDER BY expires_at_ms LIMIT ?",
            now_ms,
            EXPIRED_PER_CLAIM,
        )

    def starts_since(self, at_ms: Millis) -> int:
        return int(self._value("SELECT count(*) FROM orders WHERE started_at_ms >= ?", at_ms))

    def next_due(self, full_window_ms: Millis | None) -> Millis | None:
        """Return when a claim may next return something. `full_window_ms`: since when the rate limit is used up."""
        begun = self._value(
            "SELECT min(due_at_ms) FROM orders WHERE due_at_ms IS NOT NULL AND started_at_ms IS NOT NULL"
        )
        expiring = self._value(
            "SELECT min(expires_at_ms) FROM orders"
            " WHERE expires_at_ms IS NOT NULL AND due_at_ms IS NOT NULL AND started_at_ms IS NULL"
        )
        fresh = self._value("SELECT min(due_at_ms) FROM orders WHERE due_at_ms IS NOT NULL AND started_at_ms IS NULL")
        if full_window_ms is not None and fresh is not None:
            oldest = self._value("SELECT min(started_at_ms) FROM orders WHERE started_at_ms >= ?", full_window_ms)
            fresh = max(fresh, oldest + START_WINDOW_MS + 1)
        return min((due for due in (begun, expiring, fresh) if due is not None), default=None)

    def open_orders(self) -> int:
        """Count the orders that are not over, those of this transaction included."""
        if self._open is None:
            rows = self.connection.execute("SELECT status, orders FROM tally").fetchall()
            self._open = sum(orders if status == "accepted" else -orders for status, orders in rows)
        return self._open + sum(orders if status == "accepted" else -orders for status, orders in self._tally.items())

    def write_tally(self) -> None:
        if self._tally:
            self.connection.execute(
                "INSERT INTO tally (status, orders)"
                " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?) WHERE true"
                " ON CONFLICT (status) DO UPDATE SET orders = orders + excluded.orders",
                (_json(list(self._tally.items())),),
            )

    def counts(self, now_ms: Millis, *, limited: bool) -> QueueCounts:
        fresh = int(self._value("SELECT count(*) FROM orders WHERE due_at_ms IS NOT NULL AND started_at_ms IS NULL"))
        rows = self.connection.execute(
            "SELECT due_at_ms > ?, leased_by IS NOT NULL, count(*) FROM orders"
            " WHERE due_at_ms IS NOT NULL AND started_at_ms IS NOT NULL GROUP BY 1, 2",
            (now_ms,),
        ).fetchall()
        begun = {(bool(later), bool(leased)): orders for later, leased, orders in rows}
        tally: dict[str, int] = dict(self.connection.execute("SELECT status, orders FROM tally").fetchall())
        return QueueCounts(
            waiting=(0 if limited else fresh) + begun.get((False, False), 0) + begun.get((False, True), 0),
            active=begun.get((True, True), 0),
            delayed=(fresh if limited else 0) + begun.get((True, False), 0),
            confirmed=tally.get(OrderStatus.CONFIRMED, 0),
            failed=tally.get(OrderStatus.FAILED, 0),
            total=tally.get("accepted", 0),
        )

    def matching_ids(self, criteria: OrderFilter) -> list[OrderId]:
        conditions, values = ["1"], list[Any]()

        def where(condition: str, *parameters: Any) -> None:
            conditions.append(condition)
            values.extend(parameters)

        if criteria.status in TERMINAL:
            where("outcome = ?", criteria.status)
        elif criteria.status is not None:
            names = codec.NAMES_LEADING_TO[criteria.status]
            where("outcome IS NULL")
            where(
                "(SELECT type FROM events WHERE order_id = orders.id ORDER BY seq DESC LIMIT 1)"
                " IN (SELECT value FROM json_each(?))",
                _json(names),
            )
        if criteria.mint is not None:
            where("? IN (mint_in, mint_out)", criteria.mint)
        if criteria.client_order_id is not None:
            where("client_order_id = ?", criteria.client_order_id)
        if criteria.created_from_ms is not None:
            where("id >= ?", order_id_floor(criteria.created_from_ms))
        if criteria.created_to_ms is not None:
            where("id < ?", order_id_floor(criteria.created_to_ms))
        if criteria.before is not None:
            where("id < ?", criteria.before)
        return self._ids(
            f"SELECT id FROM orders WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",  # noqa: S608 (constants)
            *values,
            criteria.limit,
        )

    def ids_after(self, order_id: OrderId, limit: int = 500) -> list[OrderId]:
        return self._ids("SELECT id FROM orders WHERE id > ? ORDER BY id LIMIT ?", order_id, limit)

    def orders(self, ids: Sequence[OrderId]) -> list[Order]:
        """Return the orders, each rebuilt from its log, in the order of `ids`."""
        by_id = {key: rebuild(list(log)) for key, log in groupby(self.events(ids), lambda record: record.order_id)}
        return [by_id[key] for key in ids]

    def events(self, ids: Sequence[OrderId], after: int = 0) -> list[Recorded]:
        if not ids:
            return []
        rows: Iterable[tuple[OrderId, int, Millis, str, str]] = self.connection.execute(
            "SELECT order_id, seq, at_ms, type, data FROM events"
            " WHERE order_id IN (SELECT value FROM json_each(?)) AND seq > ? ORDER BY order_id, seq",
            (_json(ids), after),
        )
        return [Recorded(key, seq, at_ms, codec.decode(name, data)) for key, seq, at_ms, name, data in rows]

    def _ids(self, sql: str, *values: Any) -> list[OrderId]:
        return [row[0] for row in self.connection.execute(sql, values)]

    def _value(self, sql: str, *values: Any) -> Any:
        row = self.connection.execute(sql, values).fetchone()
        return row[0] if row else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, each numbered file in a transaction of its own.

    Raise StoreUnavailable if the schema is newer than this engine, or cannot be changed.
    """
    folder = resources.files("fillwright.backends.schema").joinpath("sqlite")
    scripts = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")  # of two processes that start together, one waits and finds it done
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version < len(scripts):
                for statement in folder.joinpath(scripts[version]).read_text(encoding="utf-8").split(";\n"):
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
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"cannot open the database at {path}: {error}") from error
    return connection
