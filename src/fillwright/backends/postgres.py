"""The store for production: PostgreSQL, shared by any number of processes on any number of hosts.

Three lanes write, each with connections of its own: new orders, events, claims. A batch is one statement, and so one
transaction and one round trip; the rules are in it and in the schema: one event per `(order_id, seq)`, one attempt per
signature, one order per client order id, and an append only under the newest lease. The statements, and why they cannot
wait for each other, are in `postgres_sql`; what happens when a connection breaks, in `postgres_link`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, cast

import asyncpg

from fillwright.backends import codec
from fillwright.backends import postgres_sql as sql
from fillwright.backends.postgres_link import (
    ANSWER_S,
    NOT_NOW,
    UNKNOWN,
    Connection,
    Lane,
    Link,
    PostgresSettings,
    connect,
    explain,
)
from fillwright.backends.postgres_schema import migrate
from fillwright.core.control import Entry, Mode
from fillwright.core.errors import (
    Halted,
    LeaseLost,
    OverLimit,
    QueueFull,
    SigningHalted,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)
from fillwright.core.lifecycle import (
    TERMINAL,
    Accepted,
    AttemptFailed,
    Event,
    IllegalTransition,
    Recorded,
    RoutingStarted,
    TransactionSigned,
    Update,
    accepted,
    apply,
    begin,
)
from fillwright.core.limits import OPEN, Cap, counted, owner, refusal, whose
from fillwright.core.order import Order, OrderStatus, client_key
from fillwright.core.ports import START_WINDOW_MS, Claim, Claims, Clock, Delivery, Listener, OrderFilter, QueueCounts
from fillwright.core.units import Millis, OrderId, order_id_floor

T = TypeVar("T")

SHARDS: Final = 32
FLOOR_MS: Final = 1_000  # how long a look at the earliest due times holds
PAGE: Final = 500
UNLIMITED: Final = 1 << 40
EARLIER_S: Final = 1.0
AUDIT_S: Final = 2.0
FIRST_ATTEMPT: Final = RoutingStarted(1)


@dataclass(frozen=True, slots=True)
class _Accept:
    update: Update
    event: Accepted
    encoded: codec.Encoded
    caps: Sequence[Cap]
    webhooks: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Append:
    update: Update
    encoded: codec.Encoded
    lease: int | None


async def open_postgres(
    url: str,
    *,
    clock: Clock,
    committed: Listener,
    capacity: int,
    lease_ms: Millis,
    starts_per_minute: int = 0,
    settings: PostgresSettings = PostgresSettings(),  # noqa: B008 - frozen
) -> PostgresStore:
    """Open the database, bringing its schema up to date. Raise StoreUnavailable if it cannot be had, or is newer."""
    await migrate(url, settings)
    readers = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=settings.readers,
        connect=lambda *_, **__: connect(url, settings),
        command_timeout=settings.timeout_ms / 1000,
    )
    return PostgresStore(
        url,
        readers,
        clock=clock,
        committed=committed,
        capacity=capacity,
        lease_ms=lease_ms,
        starts_per_minute=starts_per_minute,
        settings=settings,
    )


class PostgresStore:
    """Made by `open_postgres`. `starts_per_minute` 0 means no limit."""

    is_shared = True

    def __init__(
        self,
        url: str,
        readers: asyncpg.Pool[asyncpg.Record],
        *,
        clock: Clock,
        committed: Listener,
        capacity: int,
        lease_ms: Millis,
        starts_per_minute: int,
        settings: PostgresSettings,
    ) -> None:
        self._readers = readers
        self._clock = clock
        self._committed = committed
        self._capacity = capacity
        self._lease_ms = lease_ms
        self._starts_per_minute = starts_per_minute
        self._patience_ms = settings.patience_ms
        self._accepts = Lane(
            [Link(url, settings)], self._write_orders, lambda item: item.update.order.id, settings.patience_ms
        )
        self._appends = Lane(
            [Link(url, settings) for _ in range(settings.writers)],
            self._write_events,
            lambda item: item.update.order.id,
            settings.patience_ms,
        )
        self._claims = Link(url, settings)
        self._claiming = asyncio.Lock()
        # Not over the connections for reading: searches must not keep a worker from holding on to its orders.
        self._leases = Link(url, settings)
        self._moving_leases = asyncio.Lock()
        self._audit = Link(url, settings)
        self._reading_audit = asyncio.Lock()
        self._lookups = Lane([Link(url, settings)], self._read_logs, id, settings.patience_ms)
        self._floors: tuple[Millis, Millis, Millis] | None = None

    async def accept(
        self, order_id: OrderId, event: Accepted, caps: Sequence[Cap] = (), webhooks: Sequence[str] = ()
    ) -> Order:
        now_ms = self._clock.now_ms()
        order = accepted(order_id, event, now_ms)
        update = Update(Recorded(order_id, 1, now_ms, event), order)
        return await self._accepts.run(_Accept(update, event, codec.encode(event), caps, webhooks))

    async def usage(self, day: int, of: Sequence[str]) -> Mapping[tuple[str, str], int]:
        return await self._read(lambda connection: _usage(connection, day, of, of))

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        now_ms = self._clock.now_ms()
        after = apply(order, event, now_ms)
        update = Update(Recorded(order.id, after.version, now_ms, event), after)
        return await self._appends.run(_Append(update, codec.encode(event), lease))

    async def claim(self, worker: str, limit: int, *, begun_only: bool = False) -> Claims:
        async with self._claiming:
            rows, now_ms, limited_until_ms = await self._take(worker, limit, begun_only=begun_only)
        claims, resting = await self._taken(rows, now_ms)
        claims += await self._begin_again(resting, now_ms)
        if len({row["order_id"] for row in rows}) >= limit and rows[0]["order_id"] is not None:
            return Claims(claims, now_ms)
        next_at_ms, fresh_at_ms = rows[0]["next_at_ms"], rows[0]["fresh_at_ms"]
        if limited_until_ms is not None and fresh_at_ms is not None:
            fresh_at_ms = max(fresh_at_ms, limited_until_ms)
        return Claims(claims, min((at_ms for at_ms in (next_at_ms, fresh_at_ms) if at_ms is not None), default=None))

    async def renew(self, claims: Sequence[tuple[OrderId, int]]) -> None:
        await self._move_leases(claims, self._clock.now_ms() + self._lease_ms, give_back=False)

    async def release(self, claims: Sequence[tuple[OrderId, int]], *, delay_ms: Millis = 0) -> None:
        await self._move_leases(claims, self._clock.now_ms() + delay_ms, give_back=True)

    async def history(self, order_id: OrderId, after: int = 0) -> list[Recorded]:
        rows = await self._lookups.run((order_id, after))
        try:
            return [codec.recorded(row) for row in rows]
        except ValueError as error:
            raise StoreUnavailable(f"the log cannot be read: {error}") from error

    async def count_events(self, from_ms: Millis, to_ms: Millis) -> int:
        return await self._read(lambda connection: connection.fetchval(sql.COUNT_EVENTS, from_ms, to_ms))

    async def changed(self, since_ms: Millis, limit: int) -> list[Update]:
        async def read(connection: Connection) -> list[Update]:
            ids = [row["order_id"] for row in await connection.fetch(sql.CHANGED, since_ms, limit)]
            histories = codec.replay_all(await self._logs(connection, ids))
            return [update for updates in histories for update in updates if update.record.at_ms >= since_ms]

        return await self._read(read)

    async def find(self, criteria: OrderFilter) -> list[Order]:
        async def read(connection: Connection) -> list[Order]:
            query, values = _search(criteria)
            ids = [row["id"] for row in await connection.fetch(query, *values)]
            return await self._orders(connection, ids)

        return await self._read(read)

    async def counts(self) -> QueueCounts:
        now_ms = self._clock.now_ms()

        async def read(connection: Connection) -> QueueCounts:
            limit, limited = self._starts_per_minute, False
            if limit:
                window = await connection.fetchrow(sql.STARTS, now_ms - START_WINDOW_MS, now_ms + START_WINDOW_MS)
                limited = window is not None and window["orders"] >= limit
            queue = await connection.fetchrow(sql.COUNTS, now_ms, limited)
            assert queue is not None
            tally = {row["status"]: row["orders"] for row in await connection.fetch(sql.TALLY)}
            return QueueCounts(
                waiting=queue["open"] - queue["active"] - queue["delayed"],
                active=queue["active"],
                delayed=queue["delayed"],
                confirmed=tally.get(OrderStatus.CONFIRMED, 0),
                failed=tally.get(OrderStatus.FAILED, 0),
                total=tally.get("accepted", 0),
                oldest_due_ms=queue["oldest_due_ms"],
            )

        return await self._read(read)

    async def scan(self) -> AsyncIterator[Order]:
        last = OrderId("")

        async def read(connection: Connection) -> tuple[list[OrderId], list[Order]]:
            ids = [row["id"] for row in await connection.fetch(sql.IDS_AFTER, last, PAGE)]
            return ids, await self._orders(connection, ids)

        while (page := await self._read(read))[0]:
            ids, orders = page
            for order in orders:
                yield order
            last = ids[-1]

    async def pinned(self, name: str) -> str | None:
        return await self._read(lambda connection: connection.fetchval(sql.PINNED, name))

    async def pin(self, name: str, value: str) -> str:
        async def write(connection: Connection) -> str:
            await connection.execute(sql.PIN, name, value)
            return str(await connection.fetchval(sql.PINNED, name))

        return await self._read(write)

    async def add_ticket(self, digest: str, key_id: str, expires_at_ms: Millis) -> None:
        values = (digest, key_id, expires_at_ms, self._clock.now_ms())
        await self._read(lambda connection: connection.execute(sql.ADD_TICKET, *values))

    async def take_ticket(self, digest: str) -> str | None:
        row = await self._read(lambda connection: connection.fetchrow(sql.TAKE_TICKET, digest))
        return str(row["key_id"]) if row is not None and row["expires_at_ms"] > self._clock.now_ms() else None

    async def claim_deliveries(
        self, webhook_id: str, limit: int, lease_ms: Millis, orders: Sequence[OrderId] | None = None
    ) -> list[Delivery]:
        now_ms = self._clock.now_ms()
        values = (webhook_id, limit, now_ms, now_ms + lease_ms, orders)
        rows = await self._read(lambda connection: connection.fetch(sql.CLAIM_DELIVERIES, *values))
        return [Delivery(*row) for row in rows]

    async def settle_delivery(self, delivery: Delivery, *, is_over: bool = False) -> None:
        key = (delivery.webhook_id, delivery.order_id, delivery.lease)
        state = (delivery.sent, delivery.tries, delivery.due_at_ms, delivery.error, delivery.dead_at_ms)
        if is_over:
            await self._read(lambda connection: connection.execute(sql.END_DELIVERY, *key))
        else:
            await self._read(lambda connection: connection.execute(sql.SETTLE_DELIVERY, *key, *state))

    async def failed_deliveries(self, webhooks: Sequence[str], limit: int) -> list[Delivery]:
        rows = await self._read(lambda connection: connection.fetch(sql.FAILED_DELIVERIES, webhooks, limit))
        return [Delivery(*row) for row in rows]

    async def revive_deliveries(self, webhooks: Sequence[str], order_id: OrderId | None = None) -> int:
        values = (webhooks, order_id, self._clock.now_ms(), PAGE)
        revived = 0
        while count := int(await self._read(lambda connection: connection.fetchval(sql.REVIVE_DELIVERIES, *values))):
            revived += count
        return revived

    async def drop_deliveries(self, webhooks: Sequence[str], dead_before_ms: Millis = 0) -> None:
        values = (webhooks, dead_before_ms, PAGE)
        while await self._read(lambda connection: connection.fetchval(sql.DROP_DELIVERIES, *values)):
            pass

    async def add_audit(self, entry: Entry) -> bool:
        async def write(connection: Connection) -> bool:
            row = codec.audit_row(entry)
            await connection.execute(sql.ADD_AUDIT, *row)
            return bool(await connection.fetchval(sql.AUDIT_HASH, entry.seq) == entry.hash)

        return await self._read(write)

    async def audit_log(self, after: int = 0, limit: int | None = None) -> list[Entry]:
        async with self._reading_audit:
            try:
                async with asyncio.timeout(AUDIT_S):
                    connection = await self._audit.get()
                    rows = await connection.fetch(sql.AUDIT_LOG, after, limit)
                return [codec.audit_entry(tuple(row)) for row in rows]
            except ValueError as error:
                raise StoreUnavailable(f"the audit log cannot be read: {error}") from error
            except (asyncpg.PostgresError, *UNKNOWN, *NOT_NOW) as error:
                self._audit.drop()
                raise explain(error) from error

    async def check(self) -> None:
        await self._read(lambda connection: connection.fetchval("SELECT 1 FROM pins LIMIT 1"))

    async def close(self) -> None:
        for part in (self._accepts, self._appends, self._lookups, self._claims, self._leases, self._audit):
            await part.close()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._readers.close()
        except (asyncpg.PostgresError, *UNKNOWN):
            self._readers.terminate()

    async def _write_orders(
        self, connection: Connection, items: Sequence[_Accept], perhaps_done: bool
    ) -> list[Order | Exception]:
        over: dict[OrderId, OverLimit] = {}
        if any(item.caps for item in items):
            async with connection.transaction():
                await connection.execute(sql.LOCK_CAPS)
                over = await self._over_caps(connection, items)
                within = [item for item in items if item.update.order.id not in over]
                answers, new = await self._insert_orders(connection, within, perhaps_done)
        else:
            answers, new = await self._insert_orders(connection, items, perhaps_done)
        self._committed(new)
        if not over:
            return answers
        remaining = iter(answers)
        return [over.get(item.update.order.id) or next(remaining) for item in items]

    async def _over_caps(self, connection: Connection, items: Sequence[_Accept]) -> dict[OrderId, OverLimit]:
        """Return which orders would exceed a cap, and why. One that is known already is none that would be added."""
        orders = [item.update.order for item in items]
        keys = [order.client_key for order in orders if order.client_key is not None]
        rows = await connection.fetch(sql.KNOWN, [order.id for order in orders], keys)
        known = {text for row in rows for text in row if text is not None}
        used: dict[int, Counter[tuple[str, str]]] = {}
        for day in {order.charge.day for order in orders if order.charge is not None}:
            caps = [cap for item in items for cap in item.caps]
            opens = {cap.of for cap in caps if cap.what == OPEN}
            used[day] = Counter(await _usage(connection, day, {cap.of for cap in caps}, opens))
        over: dict[OrderId, OverLimit] = {}
        for order, item in zip(orders, items, strict=True):
            if order.id in known or order.client_key in known or order.charge is None:
                continue
            if (error := refusal(item.caps, used[order.charge.day], order.terms)) is not None:
                over[order.id] = error
                continue
            if order.client_key is not None:
                known.add(order.client_key)
            for day, of, what, amount in counted(order):
                used[day][of, what] += amount
            for of in whose(order.account, order.charge.key_id):
                for counts in used.values():
                    counts[of, OPEN] += 1
        return over

    async def _insert_orders(
        self, connection: Connection, items: Sequence[_Accept], perhaps_done: bool
    ) -> tuple[list[Order | Exception], list[Update]]:
        """Return what became of each order, and the news of those that are new."""
        orders = [item.update.order for item in items]
        keys = [order.client_key for order in orders]
        charged = [(order.id, *each) for order in orders for each in counted(order)]
        rows = await connection.fetch(
            sql.ACCEPT_UNLESS_KNOWN if perhaps_done or any(key is not None for key in keys) else sql.ACCEPT,
            [order.id for order in orders],
            keys,
            [order.terms.token_in.mint for order in orders],
            [order.terms.token_out.mint for order in orders],
            [order.terms.expires_at_ms for order in orders],
            [order.created_at_ms for order in orders],
            [item.encoded[0] for item in items],
            [item.encoded[1] for item in items],
            # Without room, the statement would not wait for an earlier try that is still at it.
            UNLIMITED if perhaps_done else self._capacity,
            _shard(connection),
            [order.account for order in orders],
            [order.charge.key_id if order.charge is not None else "" for order in orders],
            *_columns(charged),
            [item.update.order.id for item in items for _ in item.webhooks],
            [webhook_id for item in items for webhook_id in item.webhooks],
        )
        new = {row[0] for row in rows}
        before: dict[str, Order | None] = {}
        if len(new) < len(items):
            given = [key for key in keys if key is not None]
            known = await connection.fetch(sql.KNOWN, [order.id for order in orders if order.id not in new], given)
            if perhaps_done:
                new |= {row["id"] for row in known}  # ids are drawn anew for every order, so these are ours
            found = {order.id: order for order in await self._orders(connection, [row["id"] for row in known])}
            before = {row["client_order_id"]: found.get(row["id"]) for row in known}
        unknown = [order for order in orders if order.id not in new and order.client_key not in before]
        mode = str(await connection.fetchval(sql.MODE)) if unknown else Mode.ACTIVE
        answers = [order if order.id in new else self._not_new(order, before, mode) for order in orders]
        return answers, [item.update for item in items if item.update.order.id in new]

    def _not_new(self, order: Order, before: dict[str, Order | None], mode: str) -> Order | Exception:
        if order.client_key in before:
            known = before[order.client_key]
            return known or StoreUnavailable(f"the log of the order {order.client_order_id!r} cannot be read")
        if mode != Mode.ACTIVE:
            return Halted(f"an operator has stopped new orders (mode {mode})")
        return QueueFull(f"{self._capacity} orders are open, which is as many as the engine is set to hold")

    async def _write_events(
        self, connection: Connection, items: Sequence[_Append], perhaps_done: bool
    ) -> list[Order | Exception]:
        orders = [item.update.order for item in items]
        records = [item.update.record for item in items]
        settling = [
            order.status in TERMINAL or isinstance(record.event, AttemptFailed)
            for order, record in zip(orders, records, strict=True)
        ]
        columns = (
            [order.id for order in orders],
            [record.seq for record in records],
            [record.at_ms for record in records],
            [item.encoded[0] for item in items],
            [item.encoded[1] for item in items],
            [_signature(record) for record in records],
            [item.lease for item in items],
            [order.status if order.status in TERMINAL else None for order in orders],
            [order.due_at_ms if settles else None for order, settles in zip(orders, settling, strict=True)],
            [
                item.update.order.id
                for item, settles in zip(items, settling, strict=True)
                if settles or item.lease is None
            ],
            _shard(connection),
            *_columns(
                [
                    (order.id, *each)
                    for order in orders
                    if order.status in TERMINAL and order.status is not OrderStatus.CONFIRMED
                    for each in counted(order)
                ]
            ),
        )
        try:
            rows = await connection.fetch(sql.APPEND_UNLESS_THERE if perhaps_done else sql.APPEND, *columns)
        except asyncpg.UniqueViolationError:  # nothing of the batch is there: once more, now prepared for it
            rows = await connection.fetch(sql.APPEND_UNLESS_THERE, *columns)
        appended = {row[0] for row in rows}
        refused: dict[OrderId, Exception] = {}
        if len(appended) < len(items):
            refused = await self._why_not(
                connection, [i for i in items if i.update.order.id not in appended], perhaps_done
            )
        self._committed([item.update for item in items if item.update.order.id not in refused])
        return [refused.get(order.id, order) for order in orders]

    async def _why_not(
        self, connection: Connection, items: Sequence[_Append], perhaps_done: bool
    ) -> dict[OrderId, Exception]:
        """Return why events are not in the log; none for those that are, because an earlier try put them there."""
        rows = await connection.fetch(
            sql.OBSTACLES,
            [item.update.order.id for item in items],
            [item.update.record.seq for item in items],
            [_signature(item.update.record) for item in items],
        )
        found = {row["order_id"]: row for row in rows}
        refused: dict[OrderId, Exception] = {}
        for item in items:
            record, row = item.update.record, found[item.update.order.id]
            there = (row["at_ms"], row["type"], row["data"]) == (record.at_ms, *item.encoded)
            if perhaps_done and there:
                continue
            if item.lease is not None and row["lease"] is not None and row["lease"] != item.lease:
                error: Exception = LeaseLost(f"{record.order_id}: lease {item.lease} was followed by {row['lease']}")
            elif row["signature_known"] and row["type"] is None:
                error = IllegalTransition(f"{record.order_id}: signature {_signature(record)} is already in the log")
            elif isinstance(record.event, TransactionSigned) and row["last_seq"] == record.seq - 1:
                error = SigningHalted(f"{record.order_id}: an operator has halted the engine")
            else:
                error = VersionConflict(f"{record.order_id}: event {record.seq} cannot follow event {row['last_seq']}")
            refused[record.order_id] = error
        return refused

    async def _take(
        self, worker: str, limit: int, *, begun_only: bool
    ) -> tuple[list[asyncpg.Record], Millis, Millis | None]:
        """Return the rows of a claim, its time, and until when the rate limit is used up.

        A claim whose answer is lost is not made again: what it took comes back when the leases run out.
        """
        try:
            connection = await self._claims.get()
            if begun_only or not self._starts_per_minute:
                now_ms, room = self._clock.now_ms(), 0 if begun_only else limit
                return await self._claim(connection, worker, limit, room, now_ms, limited=False), now_ms, None
            async with connection.transaction():
                await connection.execute(sql.LOCK_STARTS)
                now_ms = self._clock.now_ms()
                span = (now_ms - START_WINDOW_MS, now_ms + START_WINDOW_MS)
                window = await connection.fetchrow(sql.STARTS, *span)
                assert window is not None
                room = self._starts_per_minute - window["orders"]
                rows = await self._claim(connection, worker, limit, room, now_ms, limited=room <= 0)
                await connection.execute(sql.FORGET_STARTS, *span)
                limited_until_ms = window["oldest_at_ms"] + START_WINDOW_MS + 1 if room <= 0 else None
                return rows, now_ms, limited_until_ms
        except (asyncpg.PostgresError, *UNKNOWN, *NOT_NOW) as error:
            self._claims.drop()
            raise explain(error) from error

    async def _claim(
        self, connection: Connection, worker: str, limit: int, room: int, now_ms: Millis, *, limited: bool
    ) -> list[asyncpg.Record]:
        if self._floors is None or abs(now_ms - self._floors[0]) >= FLOOR_MS:
            floors = await connection.fetchrow(sql.FLOORS)
            assert floors is not None
            begun_from_ms, fresh_from_ms = (
                now_ms - FLOOR_MS if due is None else min(now_ms - FLOOR_MS, due) for due in floors
            )
            self._floors = now_ms, begun_from_ms, fresh_from_ms
        _, begun_from_ms, fresh_from_ms = self._floors
        return await connection.fetch(
            sql.CLAIM,
            *(worker, now_ms, begun_from_ms, fresh_from_ms, limit, room, now_ms + self._lease_ms),
            *codec.encode(FIRST_ATTEMPT),
            fresh_from_ms if limited else now_ms + 1,
        )

    async def _taken(self, rows: Sequence[asyncpg.Record], now_ms: Millis) -> tuple[list[Claim], list[Claim]]:
        """Return the claims on orders that are under way, and on those that wait to begin again; tell the news."""
        logs: defaultdict[OrderId, list[codec.Row]] = defaultdict(list)
        leases: dict[OrderId, tuple[int, str]] = {}  # and who let the one before run out
        fresh: set[OrderId] = set()
        for row in rows:
            _, _, order_id, lease, left_by, is_fresh, *event = row
            if order_id is None:
                continue
            leases[order_id] = lease, left_by
            if is_fresh:
                fresh.add(order_id)
            logs[order_id].append((order_id, *event))
        under_way: list[Claim] = []
        resting: list[Claim] = []
        updates: list[Update] = []
        for order in codec.rebuild_all(logs):
            if order.id in fresh:
                order = apply(order, FIRST_ATTEMPT, now_ms)
                updates.append(Update(Recorded(order.id, order.version, now_ms, FIRST_ATTEMPT), order))
            claim = Claim(order, *leases[order.id])
            (resting if order.status is OrderStatus.PENDING else under_way).append(claim)
        if updates:
            # Their acceptance may have been committed on another connection whose answer we have not read yet.
            earlier = [future for order_id in fresh if (future := self._accepts.pending(order_id)) is not None]
            if earlier:
                await asyncio.wait(earlier, timeout=EARLIER_S)
            self._committed(updates)
        return under_way, resting

    async def _begin_again(self, resting: Sequence[Claim], now_ms: Millis) -> list[Claim]:
        """Begin the next attempt of orders that waited for it, or tell that they have expired."""
        if not resting:
            return []
        orders = await asyncio.gather(
            *(self.append(claim.order, begin(claim.order, now_ms), claim.lease) for claim in resting),
            return_exceptions=True,
        )
        begun = []
        for claim, order in zip(resting, orders, strict=True):
            if isinstance(order, StoreError):
                continue  # it was cancelled at the same moment, or comes back when the lease has run out
            if isinstance(order, BaseException):
                raise order
            if order.status not in TERMINAL:
                begun.append(replace(claim, order=order))
        return begun

    async def _move_leases(self, claims: Sequence[tuple[OrderId, int]], due_at_ms: Millis, *, give_back: bool) -> None:
        ids, leases = [order_id for order_id, _ in claims], [lease for _, lease in claims]
        async with self._moving_leases:
            try:
                connection = await self._leases.get()
                await connection.execute(sql.MOVE_LEASES, ids, leases, due_at_ms, give_back)
            except (asyncpg.PostgresError, *UNKNOWN, *NOT_NOW) as error:
                self._leases.drop()
                raise explain(error) from error

    async def _read_logs(
        self, connection: Connection, items: Sequence[tuple[OrderId, int]], _: bool
    ) -> list[list[codec.Row] | Exception]:
        wanted: dict[OrderId, int] = {}
        for order_id, after in items:
            wanted[order_id] = min(after, wanted.get(order_id, after))
        logs: defaultdict[OrderId, list[codec.Row]] = defaultdict(list)
        for row in await connection.fetch(sql.HISTORY, list(wanted), list(wanted.values())):
            logs[row[0]].append(tuple(row))
        return [[row for row in logs[order_id] if row[1] > after] for order_id, after in items]

    async def _orders(self, connection: Connection, ids: Sequence[OrderId]) -> list[Order]:
        """Return the orders, each rebuilt from its log, in the order of `ids`."""
        return codec.rebuild_all(await self._logs(connection, ids))

    async def _logs(self, connection: Connection, ids: Sequence[OrderId]) -> dict[OrderId, list[codec.Row]]:
        logs: dict[OrderId, list[codec.Row]] = {order_id: [] for order_id in ids}
        for row in await connection.fetch(sql.LOGS, ids):
            logs[row[0]].append(tuple(row))
        return logs

    async def _read(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """Ask over one of the connections for reading; one that turns out to be broken costs another try."""
        tries = self._readers.get_max_size() + 1
        while True:
            tries -= 1
            try:
                async with self._readers.acquire(timeout=self._patience_ms / 1000) as connection:
                    return await ask(cast("Connection", connection))
            except ValueError as error:
                raise StoreUnavailable(f"the log cannot be read: {error}") from error
            except (asyncpg.PostgresConnectionError, ConnectionError, asyncpg.InterfaceError) as error:
                if tries == 0:
                    raise explain(error) from error
            except (asyncpg.PostgresError, *UNKNOWN, *NOT_NOW) as error:
                raise explain(error) from error


def _search(criteria: OrderFilter) -> tuple[str, list[Any]]:
    """Return the query for the ids of one page, and its values."""
    values: list[Any] = []

    def value(given: Any) -> str:
        values.append(given)
        return f"${len(values)}"

    conditions = [f"o.account = {value(criteria.account)}"]
    match criteria.status:
        case None:
            source = "orders o"
        case status if status in TERMINAL:
            source = "outcomes s JOIN orders o ON o.id = s.order_id"
            conditions.append(f"s.outcome = {value(str(status))}")
        case status:
            source = "queue q JOIN orders o ON o.id = q.order_id"
            last = "SELECT type FROM events e WHERE e.order_id = o.id ORDER BY seq DESC LIMIT 1"
            conditions.append(f"({last}) = ANY({value(codec.NAMES_LEADING_TO[status])}::text[])")
    if criteria.mint is not None:
        mint = value(criteria.mint)
        conditions.append(f"(o.mint_in = {mint} OR o.mint_out = {mint})")
    if criteria.client_order_id is not None:
        conditions.append(f"o.client_order_id = {value(client_key(criteria.account, criteria.client_order_id))}")
    if criteria.created_from_ms is not None:
        conditions.append(f"o.id >= {value(order_id_floor(criteria.created_from_ms))}")
    if criteria.created_to_ms is not None:
        conditions.append(f"o.id < {value(order_id_floor(criteria.created_to_ms))}")
    if criteria.before is not None:
        conditions.append(f"o.id < {value(criteria.before)}")
    where = " AND ".join(conditions)
    key = "s.order_id" if source.startswith("outcomes") else "o.id"  # the index that the rows come in order from
    query = f"SELECT o.id FROM {source} WHERE {where} ORDER BY {key} DESC LIMIT {value(criteria.limit)}"  # noqa: S608 (constants)
    return query, values


async def _usage(
    connection: Connection, day: int, of: Collection[str], opens: Collection[str]
) -> dict[tuple[str, str], int]:
    """Return what the orders of a day count for, and how many are open of those in `opens`."""
    rows = await connection.fetch(sql.USAGE, day, list(of))
    used = {(row["whose"], row["what"]): int(row["amount"]) for row in rows}
    for each in opens:
        account, key_id = owner(each)
        if key_id is not None:
            used[each, OPEN] = await connection.fetchval(sql.OPEN_ORDERS_OF_KEY, key_id)
        elif account:
            used[each, OPEN] = await connection.fetchval(sql.OPEN_ORDERS_OF_ACCOUNT, account)
        else:
            used[each, OPEN] = await connection.fetchval(
                sql.OPEN_ORDERS if account is None else sql.OPEN_ORDERS_OF_NO_ACCOUNT
            )
    return used


def _columns(charged: Sequence[tuple[OrderId, int, str, str, int]]) -> tuple[list[Any], ...]:
    """Return what orders count for as columns. Amounts are text: a sum may be larger than any integer there."""
    if not charged:
        return [], [], [], [], []
    ids, days, of, what, amounts = zip(*charged, strict=True)
    return list(ids), list(days), list(of), list(what), [str(amount) for amount in amounts]


def _signature(record: Recorded) -> str | None:
    return record.event.transaction.signature if isinstance(record.event, TransactionSigned) else None


def _shard(connection: Connection) -> int:
    return connection.get_server_pid() % SHARDS
