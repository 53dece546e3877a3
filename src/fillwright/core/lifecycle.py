"""The life of an order, as data.

An order is a list of events. `TRANSITIONS` is the whole law: which event may follow in which status, and where it
leads. `apply` is the only function that changes a status; everything else in the engine returns events. Whoever
appends an event names the version it saw, so of two writers one wins and the other reads again.

"Submitted" means that the signature is durable and the bytes may be on their way. From there only two things lead
out: the chain shows the fill, or the attempt is proven dead. Not knowing is not a transition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from fillwright.core.errors import Failure
from fillwright.core.order import Charge, Fill, Order, OrderStatus, SignedTransaction, Terms
from fillwright.core.routing import Route
from fillwright.core.units import BaseUnits, Millis, OrderId


@dataclass(frozen=True, slots=True)
class Accepted:
    """The engine owes the client an outcome."""

    terms: Terms
    client_order_id: str | None = None
    account: str = ""
    charge: Charge | None = None


@dataclass(frozen=True, slots=True)
class RoutingStarted:
    attempt: int


@dataclass(frozen=True, slots=True)
class RouteSelected:
    """`min_out_amount` is pinned by the first route of an order and repeated by every later one."""

    route: Route
    min_out_amount: BaseUnits


@dataclass(frozen=True, slots=True)
class TransactionSigned:
    """Durable before the first byte is sent."""

    transaction: SignedTransaction


@dataclass(frozen=True, slots=True)
class Confirmed:
    fill: Fill


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt is proven to have no effect, for ever; another one begins at `retry_at_ms`."""

    attempt: int
    failure: Failure
    retry_at_ms: Millis


@dataclass(frozen=True, slots=True)
class Failed:
    """No fill, for ever. Said once, after the last attempt."""

    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Cancelled:
    """By the client, while nothing was signed. `by` is whose key it was."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class Expired:
    """The order's own time ran out while nothing was signed."""


Event: TypeAlias = (
    Accepted
    | RoutingStarted
    | RouteSelected
    | TransactionSigned
    | Confirmed
    | AttemptFailed
    | Failed
    | Cancelled
    | Expired
)

PENDING, ROUTING, BUILDING, SUBMITTED = (
    OrderStatus.PENDING,
    OrderStatus.ROUTING,
    OrderStatus.BUILDING,
    OrderStatus.SUBMITTED,
)
CONFIRMED, FAILED, CANCELLED, EXPIRED = (
    OrderStatus.CONFIRMED,
    OrderStatus.FAILED,
    OrderStatus.CANCELLED,
    OrderStatus.EXPIRED,
)

# fmt: off
TRANSITIONS: Final[Mapping[OrderStatus, Mapping[type[Event], OrderStatus]]] = {
    PENDING:   {RoutingStarted: ROUTING,      Cancelled: CANCELLED,   Expired: EXPIRED},
    ROUTING:   {RouteSelected: BUILDING,      AttemptFailed: PENDING, Failed: FAILED,
                Cancelled: CANCELLED,         Expired: EXPIRED},
    BUILDING:  {TransactionSigned: SUBMITTED, AttemptFailed: PENDING, Failed: FAILED,
                Cancelled: CANCELLED,         Expired: EXPIRED},
    # Out of SUBMITTED, AttemptFailed and Failed lead only once the attempt is proven dead.
    SUBMITTED: {Confirmed: CONFIRMED,         AttemptFailed: PENDING, Failed: FAILED},
    CONFIRMED: {},
    FAILED:    {},
    CANCELLED: {},
    EXPIRED:   {},
}
# fmt: on

TERMINAL: Final = frozenset(status for status, row in TRANSITIONS.items() if not row)
CANCELLABLE: Final = frozenset(status for status, row in TRANSITIONS.items() if Cancelled in row)

STATUS_AFTER: Final[Mapping[type[Event], OrderStatus]] = {
    Accepted: PENDING,
    **{event: status for row in TRANSITIONS.values() for event, status in row.items()},
}
"""Each event leads to one status wherever it stands, so a single event tells a listener where the order is."""


class IllegalTransition(Exception):
    """A fault in the engine: an event that the table does not allow. Never caught and carried on from."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in its place in the log: the `seq`-th of its order, counted from 1, appended at `at_ms`."""

    order_id: OrderId
    seq: int
    at_ms: Millis
    event: Event

    @property
    def status(self) -> OrderStatus:
        return STATUS_AFTER[type(self.event)]


@dataclass(frozen=True, slots=True)
class Update:
    """News of one event: what happened, and the order as it stands after it."""

    record: Recorded
    order: Order


def accepted(order_id: OrderId, event: Accepted, at_ms: Millis) -> Order:
    """Return the order that its first event begins."""
    return Order(
        order_id,
        event.terms,
        event.client_order_id,
        PENDING,
        1,
        at_ms,
        at_ms,
        due_at_ms=at_ms,
        account=event.account,
        charge=event.charge,
    )


def apply(order: Order, event: Event, at_ms: Millis) -> Order:
    """Return the order after one more event. Raise IllegalTransition if the table does not allow it."""
    status = TRANSITIONS[order.status].get(type(event))
    if status is None:
        raise IllegalTransition(f"{order.id}: {type(event).__name__} cannot follow in status {order.status}")
    due_at_ms, attempt, min_out_amount = order.due_at_ms, order.attempt, order.min_out_amount
    route, live, fill, failure = order.route, order.live, order.fill, order.failure
    match event:
        case RoutingStarted():
            if event.attempt != order.attempt + 1:
                raise IllegalTransition(f"{order.id}: attempt {event.attempt} cannot follow attempt {order.attempt}")
            attempt, route, failure = event.attempt, None, None
        case RouteSelected():
            if order.min_out_amount not in (None, event.min_out_amount):
                raise IllegalTransition(f"{order.id}: min out is pinned at {order.min_out_amount}")
            route, min_out_amount = event.route, event.min_out_amount
        case TransactionSigned():
            live = event.transaction
        case Confirmed():
            fill, due_at_ms = event.fill, None
        case AttemptFailed():
            failure, live, due_at_ms = event.failure, None, _due(order, event.retry_at_ms)
        case Failed():
            failure, live, due_at_ms = event.failure, None, None
        case _:
            due_at_ms = None
    return Order(
        order.id,
        order.terms,
        order.client_order_id,
        status,
        order.version + 1,
        order.created_at_ms,
        at_ms,
        due_at_ms,
        attempt,
        min_out_amount,
        route,
        live,
        fill,
        failure,
        order.account,
        order.charge,
    )


def _due(order: Order, at_ms: Millis) -> Millis:
    """An order that expires while it waits is due at its expiry: somebody must say so."""
    return at_ms if order.terms.expires_at_ms is None else min(at_ms, order.terms.expires_at_ms)


def rebuild(records: Sequence[Recorded]) -> Order:
    """Return the order that a complete log tells of."""
    return replay(records)[-1].order


def replay(records: Sequence[Recorded]) -> list[Update]:
    """Return every step of a complete log. Raise IllegalTransition if it has a gap or breaks the law."""
    first = records[0]
    if not isinstance(first.event, Accepted) or first.seq != 1:
        raise IllegalTransition(
            f"{first.order_id}: the log begins with event {first.seq}, {type(first.event).__name__}"
        )
    order = accepted(first.order_id, first.event, first.at_ms)
    updates = [Update(first, order)]
    for record in records[1:]:
        if record.seq != order.version + 1:
            raise IllegalTransition(f"{order.id}: event {order.version + 1} is missing from the log")
        order = apply(order, record.event, record.at_ms)
        updates.append(Update(record, order))
    return updates


def begin(order: Order, now_ms: Millis) -> RoutingStarted | Expired:
    """Return what happens to a pending order when a worker takes it."""
    return Expired() if is_expired(order, now_ms) else RoutingStarted(order.attempt + 1)


def is_expired(order: Order, now_ms: Millis) -> bool:
    """Return whether the order's own time has run out. Once something is signed, that no longer matters."""
    return order.terms.expires_at_ms is not None and order.terms.expires_at_ms <= now_ms
