"""Store and Bus in one process: for tests, and as the shortest statement of what a store does."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from fillwright.core.control import Entry, Mode, ModeSet
from fillwright.core.errors import Halted, LeaseLost, QueueFull, SigningHalted, VersionConflict
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
    replay,
)
from fillwright.core.limits import OPEN, Cap, counted, refusal, whose
from fillwright.core.order import Order, OrderStatus
from fillwright.core.ports import (
    START_WINDOW_MS,
    Claim,
    Claims,
    Clock,
    Delivery,
    Listener,
    OrderFilter,
    QueueCounts,
    anything,
)
from fillwright.core.units import Millis, OrderId, Signature, order_id_floor


def wakes(updates: Sequence[Update]) -> bool:
    """Return whether any of the orders may have become due by what happened to it."""
    return any(isinstance(update.record.event, Accepted | AttemptFailed) for update in updates)


class MemoryBus:
    """News between the parts of one process, in the order of the commits."""

    fault: str | None = None

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._log = structlog.get_logger()

    def start(self) -> None:
        return

    async def close(self) -> None:
        return

    def publish(self, updates: Sequence[Update]) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(updates)
            except Exception:
                # One listener's fault must not keep the news from the others; each can read the log.
                self._log.exception("bus.listener_failed", listener=repr(listener))

    def subscribe(self, listener: Listener, wants: Callable[[OrderId], bool] = anything) -> Callable[[], None]:  # noqa: ARG002 (it is at hand: nothing to spare)
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def subscribe_wakes(self, listener: Callable[[], None]) -> Callable[[], None]:
        def hear(updates: Sequence[Update]) -> None:
            if wakes(updates):
                listener()

        return self.subscribe(hear)


@dataclass(slots=True)
class _Row:
    order: Order
    due_at_ms: Millis | None
    log: list[Recorded] = field(default_factory=list)
    started_at_ms: Millis | None = None
    lease: int = 0
    leased_by: str | None = None


class MemoryStore:
    """Keeps everything in dictionaries and forgets it with the process."""

    is_shared = False

    def __init__(
        self,
        *,
        clock: Clock,
        committed: Listener,
        capacity: int,
        lease_ms: Millis,
        starts_per_minute: int = 0,
    ) -> None:
        self._clock = clock
        self._committed = committed
        self._capacity = capacity
        self._lease_ms = lease_ms
        self._starts_per_minute = starts_per_minute
        self._rows: dict[OrderId, _Row] = {}
        self._by_client_key: dict[str, OrderId] = {}
        self._signatures: set[Signature] = set()
        self._pins: dict[str, str] = {}
        self._audit: list[Entry] = []
        self._tickets: dict[str, tuple[str, Millis]] = {}
        self._usage: Counter[tuple[int, str, str]] = Counter()
        self._deliveries: dict[tuple[str, OrderId], Delivery] = {}

    async def accept(
        self, order_id: OrderId, event: Accepted, caps: Sequence[Cap] = (), webhooks: Sequence[str] = ()
    ) -> Order:
        now_ms = self._clock.now_ms()
        order = accepted(order_id, event, now_ms)
        if (known := self._by_client_key.get(order.client_key or "")) is not None:
            return self._rows[known].order
        if self._mode is not Mode.ACTIVE:
            raise Halted(f"an operator has stopped new orders (mode {self._mode})")
        if len(self._live()) >= self._capacity:
            raise QueueFull(f"{self._capacity} orders are open, which is as many as the engine is set to hold")
        if caps and event.charge is not None:
            used = await self.usage(event.charge.day, [cap.of for cap in caps])
            if (over := refusal(caps, used, event.terms)) is not None:
                raise over
        self._count(order, 1)
        self._deliveries |= {(each, order_id): Delivery(each, order_id, due_at_ms=now_ms) for each in webhooks}
        self._rows[order_id] = _Row(order, now_ms)
        if order.client_key is not None:
            self._by_client_key[order.client_key] = order_id
        self._committed([self._record(order, event)])
        return order

    async def usage(self, day: int, of: Sequence[str]) -> Mapping[tuple[str, str], int]:
        used = {(each, what): amount for (at, each, what), amount in self._usage.items() if at == day and each in of}
        return used | {(each, OPEN): sum(each in _owners(row.order) for row in self._live()) for each in of}

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        after = apply(order, event, self._clock.now_ms())
        row = self._rows.get(order.id)
        if row is None:
            raise VersionConflict(f"{order.id}: no such order")
        if lease is not None and row.lease != lease:
            raise LeaseLost(f"{order.id}: lease {lease} was followed by {row.lease}")
        if row.order.version != order.version:
            raise VersionConflict(f"{order.id}: event {after.version} is already there")
        if isinstance(event, TransactionSigned):
            if self._mode is Mode.HALTED:
                raise SigningHalted(f"{order.id}: an operator has halted the engine")
            if event.transaction.signature in self._signatures:
                raise IllegalTransition(f"{order.id}: signature {event.transaction.signature} is already in the log")
            self._signatures.add(event.transaction.signature)
        row.order = after
        if after.status in TERMINAL and after.status is not OrderStatus.CONFIRMED:
            self._count(after, -1)
        if after.status in TERMINAL or isinstance(event, AttemptFailed):
            row.due_at_ms, row.leased_by = after.due_at_ms, None
        self._committed([self._record(after, event)])
        return after

    async def claim(self, worker: str, limit: int, *, begun_only: bool = False) -> Claims:
        now_ms = self._clock.now_ms()
        updates = [
            self._begin(row, now_ms)
            for row in self._live()
            if row.started_at_ms is None and (row.order.terms.expires_at_ms or now_ms + 1) <= now_ms
        ]
        due = sorted(
            (
                row
                for row in self._live()
                if row.due_at_ms is not None and (row.started_at_ms is None or row.due_at_ms <= now_ms)
            ),
            key=lambda row: row.due_at_ms or 0,
        )
        begun = [row for row in due if row.started_at_ms is not None][:limit]
        fresh = 0 if begun_only else limit - len(begun)
        if self._starts_per_minute:
            fresh = max(0, min(fresh, self._starts_per_minute - len(self._starts(now_ms))))
        taken = begun + [row for row in due if row.started_at_ms is None][:fresh]
        left_by = {row.order.id: row.leased_by or "" for row in taken}
        for row in taken:
            row.lease, row.leased_by, row.due_at_ms = row.lease + 1, worker, now_ms + self._lease_ms
            row.started_at_ms = row.started_at_ms or now_ms
            if row.order.status is OrderStatus.PENDING:
                updates.append(self._begin(row, now_ms))
        if updates:
            self._committed(updates)
        claims = [
            Claim(row.order, row.lease, left_by[row.order.id]) for row in taken if row.order.status not in TERMINAL
        ]
        return Claims(claims, now_ms if len(taken) == limit else self._next_due(now_ms, limited=fresh == 0))

    async def renew(self, claims: Sequence[tuple[OrderId, int]]) -> None:
        for row in self._held(claims):
            row.due_at_ms = self._clock.now_ms() + self._lease_ms

    async def release(self, claims: Sequence[tuple[OrderId, int]], *, delay_ms: Millis = 0) -> None:
        for row in self._held(claims):
            row.due_at_ms, row.leased_by = self._clock.now_ms() + delay_ms, None

    async def history(self, order_id: OrderId, after: int = 0) -> list[Recorded]:
        row = self._rows.get(order_id)
        return row.log[after:] if row else []

    async def find(self, criteria: OrderFilter) -> list[Order]:
        def matches(order: Order) -> bool:
            mints = (order.terms.token_in.mint, order.terms.token_out.mint)
            return (
                order.account == criteria.account
                and (criteria.status is None or order.status is criteria.status)
                and (criteria.mint is None or criteria.mint in mints)
                and (criteria.client_order_id is None or order.client_order_id == criteria.client_order_id)
                and (criteria.created_from_ms is None or order.id >= order_id_floor(criteria.created_from_ms))
                and (criteria.created_to_ms is None or order.id < order_id_floor(criteria.created_to_ms))
                and (criteria.before is None or order.id < criteria.before)
            )

        newest_first = (self._rows[key].order for key in sorted(self._rows, reverse=True))
        return [order for order in newest_first if matches(order)][: criteria.limit]

    async def counts(self) -> QueueCounts:
        now_ms = self._clock.now_ms()
        limited = 0 < self._starts_per_minute <= len(self._starts(now_ms))
        live = self._live()
        active = sum(row.leased_by is not None and (row.due_at_ms or 0) > now_ms for row in live)
        delayed = sum(
            row.leased_by is None and (limited if row.started_at_ms is None else (row.due_at_ms or 0) > now_ms)
            for row in live
        )
        waiting = [
            row.due_at_ms or 0
            for row in live
            if (row.due_at_ms or 0) <= now_ms and not (limited and row.started_at_ms is None)
        ]
        outcomes = [row.order.status for row in self._rows.values()]
        return QueueCounts(
            waiting=len(live) - active - delayed,
            active=active,
            delayed=delayed,
            confirmed=outcomes.count(OrderStatus.CONFIRMED),
            failed=outcomes.count(OrderStatus.FAILED),
            total=len(outcomes),
            oldest_due_ms=min(waiting, default=None),
        )

    async def count_events(self, from_ms: Millis, to_ms: Millis) -> int:
        return sum(from_ms <= record.at_ms < to_ms for row in self._rows.values() for record in row.log)

    async def changed(self, since_ms: Millis, limit: int) -> list[Update]:
        changed = [row.log for row in self._rows.values() if row.log[-1].at_ms >= since_ms]
        return [update for log in changed[:limit] for update in replay(log) if update.record.at_ms >= since_ms]

    async def scan(self) -> AsyncIterator[Order]:
        for key in sorted(self._rows):
            yield self._rows[key].order

    async def pinned(self, name: str) -> str | None:
        return self._pins.get(name)

    async def pin(self, name: str, value: str) -> str:
        return self._pins.setdefault(name, value)

    async def add_ticket(self, digest: str, key_id: str, expires_at_ms: Millis) -> None:
        now_ms = self._clock.now_ms()
        self._tickets = {name: kept for name, kept in self._tickets.items() if kept[1] > now_ms}
        self._tickets[digest] = key_id, expires_at_ms

    async def take_ticket(self, digest: str) -> str | None:
        key_id, expires_at_ms = self._tickets.pop(digest, (None, 0))
        return key_id if expires_at_ms > self._clock.now_ms() else None

    async def claim_deliveries(
        self, webhook_id: str, limit: int, lease_ms: Millis, orders: Sequence[OrderId] | None = None
    ) -> list[Delivery]:
        now_ms = self._clock.now_ms()
        due = [
            each
            for each in self._deliveries.values()
            if each.webhook_id == webhook_id
            and each.dead_at_ms is None
            and each.due_at_ms <= now_ms
            and (orders is None or each.order_id in orders)
            and self._rows[each.order_id].order.version > each.sent
        ]
        due.sort(key=lambda each: each.due_at_ms)
        taken = [replace(each, lease=each.lease + 1, due_at_ms=now_ms + lease_ms) for each in due[:limit]]
        self._deliveries |= {(each.webhook_id, each.order_id): each for each in taken}
        return taken

    async def settle_delivery(self, delivery: Delivery, *, is_over: bool = False) -> None:
        key = delivery.webhook_id, delivery.order_id
        if key in self._deliveries and self._deliveries[key].lease == delivery.lease:
            self._deliveries[key] = delivery
            if is_over:
                del self._deliveries[key]

    async def failed_deliveries(self, webhooks: Sequence[str], limit: int) -> list[Delivery]:
        failed = [each for each in self._deliveries.values() if each.error and each.webhook_id in webhooks]
        return sorted(failed, key=lambda each: (each.dead_at_ms is None, each.dead_at_ms or 0, each.order_id))[:limit]

    async def revive_deliveries(self, webhooks: Sequence[str], order_id: OrderId | None = None) -> int:
        failed = await self.failed_deliveries(webhooks, len(self._deliveries))
        chosen = [each for each in failed if each.dead_at_ms is not None and order_id in (None, each.order_id)]
        now_ms = self._clock.now_ms()
        self._deliveries |= {
            (each.webhook_id, each.order_id): replace(each, dead_at_ms=None, tries=0, due_at_ms=now_ms)
            for each in chosen
        }
        return len(chosen)

    async def drop_deliveries(self, webhooks: Sequence[str], dead_before_ms: Millis = 0) -> None:
        for key, each in tuple(self._deliveries.items()):
            if key[0] in webhooks or (each.dead_at_ms or dead_before_ms) < dead_before_ms:
                del self._deliveries[key]

    async def add_audit(self, entry: Entry) -> bool:
        if entry.seq != len(self._audit) + 1:
            return entry in self._audit
        self._audit.append(entry)
        return True

    @property
    def _mode(self) -> Mode:
        modes = (each.action.mode for each in reversed(self._audit) if isinstance(each.action, ModeSet))
        return next(modes, Mode.ACTIVE)

    async def audit_log(self, after: int = 0, limit: int | None = None) -> list[Entry]:
        return self._audit[after:][:limit]

    async def check(self) -> None:
        return

    async def close(self) -> None:
        return

    def _record(self, order: Order, event: Event) -> Update:
        record = Recorded(order.id, order.version, order.updated_at_ms, event)
        self._rows[order.id].log.append(record)
        return Update(record, order)

    def _count(self, order: Order, sign: int) -> None:
        for day, of, what, amount in counted(order):
            self._usage[day, of, what] += sign * amount

    def _begin(self, row: _Row, now_ms: Millis) -> Update:
        event = begin(row.order, now_ms)
        row.order = apply(row.order, event, now_ms)
        if row.order.status in TERMINAL:
            self._count(row.order, -1)
            row.due_at_ms, row.leased_by = None, None
        return self._record(row.order, event)

    def _live(self) -> list[_Row]:
        return [row for row in self._rows.values() if row.order.status not in TERMINAL]

    def _held(self, claims: Sequence[tuple[OrderId, int]]) -> list[_Row]:
        rows = [(self._rows[key], lease) for key, lease in claims if key in self._rows]
        return [row for row, lease in rows if row.lease == lease and row.leased_by is not None]

    def _starts(self, now_ms: Millis) -> list[Millis]:
        starts = (row.started_at_ms for row in self._rows.values())
        return [start for start in starts if start is not None and abs(now_ms - start) <= START_WINDOW_MS]

    def _next_due(self, now_ms: Millis, *, limited: bool) -> Millis | None:
        free_at = min(self._starts(now_ms), default=now_ms) + START_WINDOW_MS + 1 if limited else 0
        times = [
            max(row.due_at_ms, free_at) if row.started_at_ms is None else row.due_at_ms
            for row in self._live()
            if row.due_at_ms is not None
        ]
        expiries = [row.order.terms.expires_at_ms for row in self._live() if row.started_at_ms is None]
        return min([*times, *(expiry for expiry in expiries if expiry is not None)], default=None)


def _owners(order: Order) -> tuple[str, ...]:
    return whose(order.account, order.charge.key_id if order.charge else "")
