"""The store for one machine: SQLite in WAL mode with `synchronous=FULL`, so that a commit survives a power cut.

The rules it enforces are in the schema: one event per `(order_id, seq)`, one attempt per signature, one order per
client order id. The fence is in the INSERT itself: an event under a lease is written only while that lease is the
newest. Claims, appends and new orders share one writing thread and, under load, one commit.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeVar

from fillwright.backends import codec
from fillwright.backends.group_commit import GroupCommit
from fillwright.core.errors import LeaseLost, QueueFull, StoreError, StoreUnavailable, VersionConflict
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
from fillwright.core.units import Millis, OrderId, order_id_floor

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
        self._session = _Session(self._writer)
        self._group: GroupCommit[_Session] = GroupCommit(self._commit, committed, threaded=threaded)
        self._reader = _connect(path) if threaded else self._writer
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="store-reader") if threaded else None

    async def accept(self, order_id: OrderId, event: Accepted) -> Order:
        name, data = codec.encode(event)

        def write(session: _Session) -> Order:
            if event.client_order_id is not None:
                known = session.order_with_client_id(event.client_order_id)
                if known is not None:
                    return known
            if session.open_orders() >= self._capacity:
                raise QueueFull(f"{self._capacity} orders are open, which is as many as the engine is set to hold")
            now_ms = self._clock.now_ms()
            session.insert_order(order_id, event, now_ms)
            order = accepted(order_id, event, now_ms)
            session.insert_event(Update(Recorded(order_id, 1, now_ms, event), order), name, data)
            session.tally["accepted"] += 1
            return order

        return await self._group.run(write)

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        now_ms = self._clock.now_ms()
        after = apply(order, event, now_ms)
        name, data = codec.encode(event)
        update = Update(Recorded(order.id, after.version, now_ms, event), after)

        def write(session: _Session) -> Order:
            session.insert_event(update, name, data, lease)
            if after.status in TERMINAL:
                session.end(after)
            elif isinstance(event, AttemptFailed):
                session.rest(after)
            return after

        return await self._group.run(write)

    async def claim(self, worker: str, limit: int) -> Claims:
        def write(session: _Session) -> Claims:
            now_ms = self._clock.now_ms()
            for order in session.orders(session.expired_ids(now_ms)):
                session.begin(order, now_ms)
            ids = session.begun_ids(now_ms, limit)
            fresh = limit - len(ids)
            if self._starts_per_minute:
                fresh = min(fresh, self._starts_per_minute - session.starts_since(now_ms - START_WINDOW_MS))
            if fresh > 0:
                ids += session.fresh_ids(now_ms, fresh)
            taken = []
            for order in session.orders(ids):
                lease = session.take(order.id, worker, now_ms, now_ms + self._lease_ms)
                if order.status is OrderStatus.PENDING:
                    order = session.begin(order, now_ms)
                if order.status not in TERMINAL:
                    taken.append(Claim(order, lease))
            if len(ids) == limit:
                return Claims(taken, now_ms)
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

    def _commit(self, writes: list[Callable[[_Session], Any]]) -> tuple[list[Any], Sequence[Update]]:
        session, connection = self._session, self._writer
        session.reset()
        outcomes: list[Any] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            for write in writes:
                changes = connection.total_changes
                try:
                    outcomes.append(write(session))
                except (StoreError, QueueFull, IllegalTransition) as error:
                    if connection.total_changes != changes:  # half a write must not be committed with its neighbours
                        raise
                    outcomes.append(error)
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


class _Session:
    """The SQL, one method per question, and what one transaction has written so far."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.reset()

    def reset(self) -> None:
        self.updates: list[Update] = []
        self.tally: Counter[str] = Counter()
        self._open: int | None = None

    def insert_order(self, order_id: OrderId, event: Accepted, due_at_ms: Millis) -> None:
        terms = event.terms
        self.connection.execute(
            "INSERT INTO orders (id, client_order_id, mint_in, mint_out, expires_at_ms, due_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                order_id,
                event.client_order_id,
                terms.token_in.mint,
                terms.token_out.mint,
                terms.expires_at_ms,
                due_at_ms,
            ),
        )

    def insert_event(self, update: Update, name: str, data: bytes, lease: int | None = None) -> None:
        """Write one event, unless its place is taken or `lease` is not the order's newest."""
        record = update.record
        signature = record.event.transaction.signature if isinstance(record.event, TransactionSigned) else None
        values = (record.order_id, record.seq, record.at_ms, name, data.decode(), signature)
        try:
            if lease is None:
                cursor = self.connection.execute(
                    "INSERT INTO events (order_id, seq, at_ms, type, data, signature) VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (order_id, seq) DO NOTHING",
                    values,
                )
            else:
                cursor = self.connection.execute(
                    "INSERT INTO events (order_id, seq, at_ms, type, data, signature)"
                    " SELECT ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM orders WHERE id = ? AND lease = ?)"
                    " ON CONFLICT (order_id, seq) DO NOTHING",
                    (*values, record.order_id, lease),
                )
        except sqlite3.IntegrityError as error:
            raise IllegalTransition(f"{record.order_id}: signature {signature} is already in the log") from error
        if cursor.rowcount == 0:
            newest = self._value("SELECT lease FROM orders WHERE id = ?", record.order_id)
            if lease is not None and newest != lease:
                raise LeaseLost(f"{record.order_id}: lease {lease} was followed by {newest}")
            raise VersionConflict(f"{record.order_id}: event {record.seq} is already there")
        self.updates.append(update)

    def begin(self, order: Order, now_ms: Millis) -> Order:
        event = begin(order, now_ms)
        after = apply(order, event, now_ms)
        self.insert_event(Update(Recorded(order.id, after.version, now_ms, event), after), *codec.encode(event))
        if after.status in TERMINAL:
            self.end(after)
        return after

    def end(self, order: Order) -> None:
        self.tally[order.status] += 1
        self.connection.execute(
            "UPDATE orders SET outcome = ?, due_at_ms = NULL, leased_by = NULL WHERE id = ?", (order.status, order.id)
        )

    def rest(self, order: Order) -> None:
        self.connection.execute(
            "UPDATE orders SET due_at_ms = ?, leased_by = NULL WHERE id = ?", (order.due_at_ms, order.id)
        )

    def take(self, order_id: OrderId, worker: str, now_ms: Millis, until_ms: Millis) -> int:
        row = self.connection.execute(
            "UPDATE orders SET lease = lease + 1, leased_by = ?, due_at_ms = ?,"
            " started_at_ms = coalesce(started_at_ms, ?) WHERE id = ? RETURNING lease",
            (worker, until_ms, now_ms, order_id),
        ).fetchone()
        return int(row[0])

    def move_leases(self, claims: Sequence[tuple[OrderId, int]], due_at_ms: Millis, *, give_back: bool) -> None:
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
        return self._open + sum(orders if status == "accepted" else -orders for status, orders in self.tally.items())

    def write_tally(self) -> None:
        if self.tally:
            self.connection.executemany(
                "INSERT INTO tally (status, orders) VALUES (?, ?)"
                " ON CONFLICT (status) DO UPDATE SET orders = orders + excluded.orders",
                list(self.tally.items()),
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

    def order_with_client_id(self, client_order_id: str) -> Order | None:
        ids = self._ids("SELECT id FROM orders WHERE client_order_id = ?", client_order_id)
        return self.orders(ids)[0] if ids else None

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
                json.dumps(names),
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
            (json.dumps(ids), after),
        )
        return [Recorded(key, seq, at_ms, codec.decode(name, data)) for key, seq, at_ms, name, data in rows]

    def _ids(self, sql: str, *values: Any) -> list[OrderId]:
        return [row[0] for row in self.connection.execute(sql, values)]

    def _value(self, sql: str, *values: Any) -> Any:
        row = self.connection.execute(sql, values).fetchone()
        return row[0] if row else None


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, one numbered file per transaction. Raise StoreUnavailable if it is newer than us."""
    scripts = sorted(
        (entry for entry in resources.files("fillwright.backends.schema").joinpath("sqlite").iterdir()),
        key=lambda entry: entry.name,
    )
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(scripts):
        connection.execute("ROLLBACK")
        raise StoreUnavailable(
            f"the database has schema {version}, but this version of fillwright knows only {len(scripts)}: upgrade it"
        )
    for number, script in enumerate(scripts[version:], start=version + 1):
        for statement in script.read_text(encoding="utf-8").split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("COMMIT")


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
