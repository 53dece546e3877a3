"""One SQLite transaction: the questions it asks and the rows it writes.

The writing lock is held from the start, so what was looked up stays true until the commit. Rows are gathered and
written by one statement for each table, which costs a fraction of one for each row.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fillwright.backends import codec
from fillwright.core.control import Mode
from fillwright.core.errors import Halted, LeaseLost, QueueFull, SigningHalted, StoreUnavailable, VersionConflict
from fillwright.core.lifecycle import (
    TERMINAL,
    Accepted,
    AttemptFailed,
    IllegalTransition,
    Recorded,
    TransactionSigned,
    Update,
    accepted,
    apply,
    begin,
    rebuild,
)
from fillwright.core.limits import EVERYBODY, OPEN, Cap, counted, of_account, of_key, owner, refusal, whose
from fillwright.core.order import Order, OrderStatus, client_key
from fillwright.core.ports import START_WINDOW_MS, Clock, Delivery, OrderFilter, QueueCounts
from fillwright.core.units import Millis, OrderId, Signature, order_id_floor

EXPIRED_PER_CLAIM: Final = 100
DELIVERIES_AT_ONCE: Final = 1_000

_MODE: Final = "SELECT json_extract(data, '$.mode') FROM audit WHERE type = 'ModeSet' ORDER BY seq DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Accept:
    """Write an order and its first event, unless its client order id is known."""

    order_id: OrderId
    event: Accepted
    encoded: codec.Encoded
    clock: Clock
    capacity: int
    caps: Sequence[Cap] = ()
    webhooks: Sequence[str] = ()

    def __call__(self, session: Session) -> Order:
        now_ms = self.clock.now_ms()
        order = accepted(self.order_id, self.event, now_ms)
        if (known := session.by_client_key.get(order.client_key or "")) is not None:
            session.flush()
            try:
                return rebuild(session.events([known]))
            except (ValueError, IndexError, IllegalTransition) as error:
                raise StoreUnavailable(f"the log of {known} cannot be read: {error}") from error
        if session.mode is not Mode.ACTIVE:
            raise Halted(f"an operator has stopped new orders (mode {session.mode})")
        if session.open_orders() >= self.capacity:
            raise QueueFull(f"{self.capacity} orders are open, which is as many as the engine is set to hold")
        if self.caps and order.charge is not None:
            over = refusal(self.caps, session.used[order.charge.day], order.terms)
            if over is not None:
                raise over
        session.add_order(order, self.webhooks)
        session.add_event(Update(Recorded(order.id, 1, now_ms, self.event), order), self.encoded)
        return order


@dataclass(frozen=True, slots=True)
class Append:
    """Write an event, if it is the next of its order and its lease is the newest."""

    update: Update
    encoded: codec.Encoded
    lease: int | None

    def __call__(self, session: Session) -> Order:
        record, order = self.update.record, self.update.order
        lease, seq = session.heads.get(order.id, (0, 0))
        if self.lease is not None and self.lease != lease:
            raise LeaseLost(f"{order.id}: lease {self.lease} was followed by {lease}")
        if record.seq != seq + 1:
            raise VersionConflict(f"{order.id}: event {record.seq} cannot follow event {seq}")
        if isinstance(record.event, TransactionSigned):
            if session.mode is Mode.HALTED:
                raise SigningHalted(f"{order.id}: an operator has halted the engine")
            if (signature := record.event.transaction.signature) in session.signatures:
                raise IllegalTransition(f"{order.id}: signature {signature} is already in the log")
        session.add_event(self.update, self.encoded)
        if order.status in TERMINAL or isinstance(record.event, AttemptFailed):
            session.settle(order)
        return order


class Session:
    """What was looked up, what is about to be written, and the SQL, one method per question."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.updates: list[Update] = []
        self.heads: dict[OrderId, tuple[int, int]] = {}  # newest lease and last seq
        self.by_client_key: dict[str, OrderId] = {}
        self.signatures: set[Signature] = set()
        self.mode = Mode.ACTIVE
        self._tally: Counter[str] = Counter()
        # By day, what caps ask for: as it was, and as it becomes by what this transaction writes.
        self.used: dict[int, dict[tuple[str, str], int]] = {}
        self._usage: Counter[tuple[int, str, str]] = Counter()  # what this transaction adds to what is kept
        self._open: int | None = None
        self._new_orders: list[tuple[Any, ...]] = []
        self._new_events: list[tuple[Any, ...]] = []
        self._new_deliveries: list[tuple[Any, ...]] = []
        self._settled: list[tuple[Any, ...]] = []

    def look_up(self, writes: Sequence[Accept | Append]) -> None:
        """Read what the writes must know, in one question of each kind."""
        appends = [write.update for write in writes if isinstance(write, Append)]
        if appends:
            rows = self.connection.execute(
                "SELECT id, lease, (SELECT max(seq) FROM events WHERE order_id = id) FROM orders"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (_json([update.order.id for update in appends]),),
            )
            self.heads = {order_id: (lease, seq) for order_id, lease, seq in rows}
        self.mode = Mode(self._value(_MODE) or Mode.ACTIVE)
        accepts = [write.event for write in writes if isinstance(write, Accept)]
        keys = [client_key(e.account, e.client_order_id) for e in accepts if e.client_order_id is not None]
        if keys:
            rows = self.connection.execute(
                "SELECT client_order_id, id FROM orders WHERE client_order_id IN (SELECT value FROM json_each(?))",
                (_json(keys),),
            )
            self.by_client_key = dict(rows.fetchall())
        capped = [write for write in writes if isinstance(write, Accept) and write.caps]
        if capped:
            self._look_up_usage(capped)
        events = (update.record.event for update in appends)
        if signed := [event.transaction.signature for event in events if isinstance(event, TransactionSigned)]:
            rows = self.connection.execute(
                "SELECT signature FROM events WHERE signature IN (SELECT value FROM json_each(?))", (_json(signed),)
            )
            self.signatures = {row[0] for row in rows}

    def add_order(self, order: Order, webhooks: Sequence[str]) -> None:
        terms, key = order.terms, order.client_key
        key_id = order.charge.key_id if order.charge is not None else ""
        mints = (terms.token_in.mint, terms.token_out.mint)
        self._new_orders.append((order.id, key, order.account, *mints, terms.expires_at_ms, order.due_at_ms, key_id))
        self._tally["accepted"] += 1
        self._new_deliveries += [(each, order.id, order.created_at_ms) for each in webhooks]
        self._count(order, 1, opened=1)
        if key is not None:
            self.by_client_key[key] = order.id

    def add_event(self, update: Update, encoded: codec.Encoded) -> None:
        record = update.record
        name, data = encoded
        signature = record.event.transaction.signature if isinstance(record.event, TransactionSigned) else None
        if signature is not None:
            self.signatures.add(signature)
        self._new_events.append((record.order_id, record.seq, record.at_ms, name, data, signature))
        lease, _ = self.heads.get(record.order_id, (0, 0))
        self.heads[record.order_id] = (lease, record.seq)
        self.updates.append(update)

    def begin(self, order: Order, now_ms: Millis) -> Order:
        event = begin(order, now_ms)
        after = apply(order, event, now_ms)
        self.add_event(Update(Recorded(order.id, after.version, now_ms, event), after), codec.encode(event))
        if after.status in TERMINAL:
            self.settle(after)
        return after

    def settle(self, order: Order) -> None:
        """Give the order's lease back: it is over, or rests until it is due again."""
        over = order.status in TERMINAL
        self._settled.append((order.id, order.status if over else None, order.due_at_ms))
        if over:
            self._tally[order.status] += 1
            self._count(order, 0 if order.status is OrderStatus.CONFIRMED else -1, opened=-1)

    def flush(self) -> None:
        """Write what has gathered."""
        if self._new_orders:
            self.connection.execute(
                "INSERT INTO orders (id, client_order_id, account, mint_in, mint_out, expires_at_ms, due_at_ms, key_id)"
                " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),"
                " json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),"
                " json_extract(value, '$[6]'), json_extract(value, '$[7]')"
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
        if self._new_deliveries:
            self.connection.executemany(
                "INSERT INTO deliveries (webhook_id, order_id, due_at_ms) VALUES (?, ?, ?)", self._new_deliveries
            )
            self._new_deliveries = []
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

    def begun(self, now_ms: Millis, limit: int) -> dict[OrderId, str]:
        """Return orders that are due again, and whose lease on each has run out, if it was not given back."""
        rows = self.connection.execute(
            "SELECT id, coalesce(leased_by, '') FROM orders"
            " WHERE due_at_ms <= ? AND due_at_ms IS NOT NULL AND started_at_ms IS NOT NULL ORDER BY due_at_ms LIMIT ?",
            (now_ms, limit),
        )
        return dict(rows.fetchall())

    def fresh_ids(self, limit: int) -> list[OrderId]:
        """Return orders that nobody has taken yet. They are due from the start, whatever the clock says since."""
        return self._ids(
            "SELECT id FROM orders WHERE due_at_ms IS NOT NULL AND started_at_ms IS NULL ORDER BY due_at_ms LIMIT ?",
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
        """Count the starts since then. Those far ahead of now were made before the clock was set back, and are over."""
        return int(
            self._value(
                "SELECT count(*) FROM orders WHERE started_at_ms BETWEEN ? AND ?", at_ms, at_ms + 2 * START_WINDOW_MS
            )
        )

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

    def usage(self, day: int, of: Sequence[str]) -> dict[tuple[str, str], int]:
        rows = self.connection.execute(
            "SELECT whose, what, amount FROM usage WHERE day = ? AND whose IN (SELECT value FROM json_each(?))",
            (day, _json(of)),
        )
        used = {(each, what): int(amount) for each, what, amount in rows}
        for each in of:
            account, key_id = owner(each)
            used[each, OPEN] = int(
                self._value(
                    "SELECT count(*) FROM orders WHERE outcome IS NULL"
                    " AND account = coalesce(?, account) AND key_id = coalesce(?, key_id)",
                    account,
                    key_id,
                )
            )
        return used

    def _look_up_usage(self, accepts: Sequence[Accept]) -> None:
        """Read how much there is already of what caps ask for."""
        most_open = self.open_orders() + len(accepts)
        exact: set[tuple[int, str]] = set()
        for accept in accepts:
            if accept.event.charge is None:
                continue
            day, key_id = accept.event.charge.day, accept.event.charge.key_id
            used = self.used.setdefault(day, {})
            for cap in accept.caps:
                key = cap.of, cap.what
                if cap.what != OPEN:
                    if key not in used:
                        sql = "SELECT amount FROM usage WHERE day = ? AND whose = ? AND what = ?"
                        used[key] = int(self._value(sql, day, *key) or 0)
                elif cap.of == EVERYBODY or most_open <= cap.maximum:  # nobody can have more open than there are
                    used.setdefault(key, self.open_orders())
                elif (day, cap.of) not in exact:
                    used |= (orders := self._open_orders_of(accept.event.account, key_id))
                    exact |= {(day, of) for of, _ in orders}

    def _open_orders_of(self, account: str, key_id: str) -> dict[tuple[str, str], int]:
        """Count the open orders of an account and of a key of its."""
        # That the account is not empty is said again for SQLite, which uses the index only if it is.
        chosen = "account = ? AND account <> ''" if account else "account = ?"
        rows = self.connection.execute(
            f"SELECT key_id, count(*) FROM orders WHERE {chosen} AND outcome IS NULL GROUP BY key_id",  # noqa: S608 (constants)
            (account,),
        )
        by_key: dict[str, int] = dict(rows.fetchall())
        return {(of_account(account), OPEN): sum(by_key.values()), (of_key(key_id), OPEN): by_key.get(key_id, 0)}

    def _count(self, order: Order, sign: int, *, opened: int) -> None:
        """Note what an order counts for from now on, `sign` times, and that so many more are open."""
        if sign:
            for day, of, what, amount in counted(order):
                self._usage[day, of, what] += sign * amount
                if (of, what) in self.used.get(day, ()):
                    self.used[day][of, what] += sign * amount
        for used in self.used.values():
            for of in whose(order.account, order.charge.key_id if order.charge is not None else ""):
                if (of, OPEN) in used:
                    used[of, OPEN] += opened

    def write_usage(self) -> None:
        """Write what this transaction adds to what orders count for."""
        if not self._usage:
            return
        added = _json([[*key, str(amount)] for key, amount in self._usage.items()])
        rows = self.connection.execute(
            "SELECT day, whose, what, amount FROM usage WHERE (day, whose, what) IN (SELECT"
            " json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?))",
            (added,),
        )
        before = {(day, of, what): int(amount) for day, of, what, amount in rows}
        after = [[*key, str(before.get(key, 0) + amount)] for key, amount in self._usage.items()]
        self.connection.execute(
            "INSERT OR REPLACE INTO usage (day, whose, what, amount) SELECT json_extract(value, '$[0]'),"
            " json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]') FROM json_each(?)",
            (_json(after),),
        )

    def counts(self, now_ms: Millis, *, limited: bool) -> QueueCounts:
        fresh = int(self._value("SELECT count(*) FROM orders WHERE due_at_ms IS NOT NULL AND started_at_ms IS NULL"))
        rows = self.connection.execute(
            "SELECT due_at_ms > ?, leased_by IS NOT NULL, count(*) FROM orders"
            " WHERE due_at_ms IS NOT NULL AND started_at_ms IS NOT NULL GROUP BY 1, 2",
            (now_ms,),
        ).fetchall()
        begun = {(bool(later), bool(leased)): orders for later, leased, orders in rows}
        oldest = [
            self._value("SELECT min(due_at_ms) FROM orders WHERE due_at_ms IS NOT NULL AND started_at_ms IS NOT NULL")
        ]
        if not limited:
            oldest.append(
                self._value("SELECT min(due_at_ms) FROM orders WHERE due_at_ms IS NOT NULL AND started_at_ms IS NULL")
            )
        tally: dict[str, int] = dict(self.connection.execute("SELECT status, orders FROM tally").fetchall())
        return QueueCounts(
            waiting=(0 if limited else fresh) + begun.get((False, False), 0) + begun.get((False, True), 0),
            active=begun.get((True, True), 0),
            delayed=(fresh if limited else 0) + begun.get((True, False), 0),
            confirmed=tally.get(OrderStatus.CONFIRMED, 0),
            failed=tally.get(OrderStatus.FAILED, 0),
            total=tally.get("accepted", 0),
            oldest_due_ms=min((due for due in oldest if due is not None and due <= now_ms), default=None),
        )

    def matching_ids(self, criteria: OrderFilter) -> list[OrderId]:
        conditions, values = ["account = ?"], list[Any]((criteria.account,))

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
            where("client_order_id = ?", client_key(criteria.account, criteria.client_order_id))
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

    def count_events(self, from_ms: Millis, to_ms: Millis) -> int:
        return int(self._value("SELECT count(*) FROM events WHERE at_ms >= ? AND at_ms < ?", from_ms, to_ms))

    def changed_ids(self, since_ms: Millis, limit: int) -> list[OrderId]:
        """Return orders that have events since then, looking back from the newest event until there are no more."""
        rows = self.connection.execute("SELECT order_id, at_ms FROM events ORDER BY rowid DESC")
        ids: dict[OrderId, None] = {}
        for order_id, at_ms in rows:
            if at_ms < since_ms or len(ids) == limit:
                break
            ids[order_id] = None
        return list(ids)

    def ids_after(self, order_id: OrderId, limit: int = 500) -> list[OrderId]:
        return self._ids("SELECT id FROM orders WHERE id > ? ORDER BY id LIMIT ?", order_id, limit)

    def orders(self, ids: Sequence[OrderId]) -> list[Order]:
        """Return the orders, each rebuilt from its log, in the order of `ids`, without those that cannot be read."""
        return codec.rebuild_all(self.logs(ids))

    def logs(self, ids: Sequence[OrderId]) -> dict[OrderId, list[codec.Row]]:
        logs: dict[OrderId, list[codec.Row]] = {order_id: [] for order_id in ids}
        for row in self._rows(ids):
            logs[row[0]].append(row)
        return logs

    def events(self, ids: Sequence[OrderId], after: int = 0) -> list[Recorded]:
        return [codec.recorded(row) for row in self._rows(ids, after)]

    def pinned(self, name: str) -> str | None:
        rows = self.connection.execute("SELECT value FROM pins WHERE name = ?", (name,)).fetchall()
        return str(rows[0][0]) if rows else None

    def pin(self, name: str, value: str) -> str:
        self.connection.execute("INSERT INTO pins (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
        return str(self._value("SELECT value FROM pins WHERE name = ?", name))

    def add_ticket(self, digest: str, key_id: str, expires_at_ms: Millis, now_ms: Millis) -> None:
        self.connection.execute("DELETE FROM tickets WHERE expires_at_ms <= ?", (now_ms,))
        self.connection.execute("INSERT INTO tickets VALUES (?, ?, ?)", (digest, key_id, expires_at_ms))

    def take_ticket(self, digest: str, now_ms: Millis) -> str | None:
        rows = self.connection.execute(
            "DELETE FROM tickets WHERE digest = ? RETURNING key_id, expires_at_ms", (digest,)
        ).fetchall()
        return next((str(key_id) for key_id, expires_at_ms in rows if expires_at_ms > now_ms), None)

    def due_deliveries(self, webhook_id: str, limit: int, now_ms: Millis) -> list[OrderId]:
        """Return the orders of a webhook's deliveries that may be claimed. Of many open orders, this looks at each."""
        return self._ids(
            "SELECT order_id FROM deliveries d WHERE webhook_id = ? AND due_at_ms <= ? AND dead_at_ms IS NULL"
            " AND EXISTS (SELECT 1 FROM events e WHERE e.order_id = d.order_id AND e.seq = d.sent + 1)"
            " ORDER BY due_at_ms LIMIT ?",
            webhook_id,
            now_ms,
            limit,
        )

    def claim_deliveries(
        self, webhook_id: str, limit: int, now_ms: Millis, until_ms: Millis, orders: Sequence[OrderId]
    ) -> list[Delivery]:
        self.flush()
        rows = self.connection.execute(
            "UPDATE deliveries SET lease = lease + 1, due_at_ms = ? WHERE webhook_id = ? AND order_id IN ("
            " SELECT d.order_id FROM json_each(?) AS given CROSS JOIN deliveries d"
            " ON d.webhook_id = ? AND d.order_id = given.value WHERE d.due_at_ms <= ? AND d.dead_at_ms IS NULL"
            " AND EXISTS (SELECT 1 FROM events e WHERE e.order_id = d.order_id AND e.seq = d.sent + 1) LIMIT ?)"
            " RETURNING webhook_id, order_id, sent, tries, due_at_ms, lease, error, dead_at_ms",
            (until_ms, webhook_id, _json(orders), webhook_id, now_ms, limit),
        )
        return [Delivery(*row) for row in rows.fetchall()]

    def settle_delivery(self, delivery: Delivery, *, is_over: bool) -> None:
        key = (delivery.webhook_id, delivery.order_id, delivery.lease)
        if is_over:
            self.connection.execute("DELETE FROM deliveries WHERE webhook_id = ? AND order_id = ? AND lease = ?", key)
            return
        self.connection.execute(
            "UPDATE deliveries SET sent = ?, tries = ?, due_at_ms = ?, error = ?, dead_at_ms = ?"
            " WHERE webhook_id = ? AND order_id = ? AND lease = ?",
            (delivery.sent, delivery.tries, delivery.due_at_ms, delivery.error, delivery.dead_at_ms, *key),
        )

    def failed_deliveries(self, webhooks: Sequence[str], limit: int) -> list[Delivery]:
        rows = self.connection.execute(
            "SELECT webhook_id, order_id, sent, tries, due_at_ms, lease, error, dead_at_ms FROM deliveries"
            " WHERE webhook_id IN (SELECT value FROM json_each(?)) AND error <> ''"
            " ORDER BY dead_at_ms IS NULL, dead_at_ms, order_id LIMIT ?",
            (_json(webhooks), limit),
        )
        return [Delivery(*row) for row in rows]

    def revive_deliveries(self, webhooks: Sequence[str], order_id: OrderId | None, now_ms: Millis) -> int:
        return self.connection.execute(
            "UPDATE deliveries SET dead_at_ms = NULL, tries = 0, due_at_ms = ? WHERE (webhook_id, order_id) IN ("
            " SELECT webhook_id, order_id FROM deliveries WHERE dead_at_ms IS NOT NULL"
            " AND webhook_id IN (SELECT value FROM json_each(?)) AND order_id = coalesce(?, order_id) LIMIT ?)",
            (now_ms, _json(webhooks), order_id, DELIVERIES_AT_ONCE),
        ).rowcount

    def drop_deliveries(self, webhooks: Sequence[str], dead_before_ms: Millis) -> int:
        return self.connection.execute(
            "DELETE FROM deliveries WHERE (webhook_id, order_id) IN (SELECT webhook_id, order_id FROM deliveries"
            " WHERE webhook_id IN (SELECT value FROM json_each(?)) OR dead_at_ms < ? LIMIT ?)",
            (_json(webhooks), dead_before_ms, DELIVERIES_AT_ONCE),
        ).rowcount

    def add_audit(self, row: codec.AuditRow) -> bool:
        """Write an entry of the audit log, if its place is free or its own."""
        if row[0] != 1 + int(self._value("SELECT coalesce(max(seq), 0) FROM audit")):
            return bool(row[5] == self._value("SELECT hash FROM audit WHERE seq = ?", row[0]))
        self.connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", row)
        return True

    def audit_rows(self, after: int, limit: int | None) -> list[codec.AuditRow]:
        return self.connection.execute(
            "SELECT seq, at_ms, actor, type, data, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT coalesce(?, -1)",
            (after, limit),
        ).fetchall()

    def _rows(self, ids: Sequence[OrderId], after: int = 0) -> list[codec.Row]:
        if not ids:
            return []
        return self.connection.execute(
            "SELECT order_id, seq, at_ms, type, data FROM events"
            " WHERE order_id IN (SELECT value FROM json_each(?)) AND seq > ? ORDER BY order_id, seq",
            (_json(ids), after),
        ).fetchall()

    def _ids(self, sql: str, *values: Any) -> list[OrderId]:
        return [row[0] for row in self.connection.execute(sql, values)]

    def _value(self, sql: str, *values: Any) -> Any:
        row = self.connection.execute(sql, values).fetchone()
        return row[0] if row else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
