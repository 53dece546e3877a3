"""Events as rows: a type name and a JSON document. A name or field, once written, is read for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import structlog

from fillwright.core import lifecycle
from fillwright.core.control import (
    Action,
    Entry,
    KeyCreated,
    KeyRevoked,
    LimitsSet,
    ModeSet,
    WebhookAdded,
    WebhookRemoved,
)
from fillwright.core.lifecycle import Event, IllegalTransition, Recorded, Update, replay
from fillwright.core.order import Order, OrderStatus
from fillwright.core.units import Millis, OrderId

Encoded: TypeAlias = tuple[str, str]
Row: TypeAlias = tuple[OrderId, int, Millis, str, str]  # order id, seq, at, type, data
AuditRow: TypeAlias = tuple[int, Millis, str, str, str, str]  # seq, at, actor, type, data, hash

_TYPES: Final[dict[str, type[Event]]] = {event.__name__: event for event in lifecycle.STATUS_AFTER}
_DECODERS: Final = {name: msgspec.json.Decoder(event) for name, event in _TYPES.items()}
_ENCODER: Final = msgspec.json.Encoder()
_ACTIONS: Final[dict[str, type[Action]]] = {
    action.__name__: action for action in (KeyCreated, KeyRevoked, ModeSet, LimitsSet, WebhookAdded, WebhookRemoved)
}

NAMES_LEADING_TO: Final[dict[OrderStatus, list[str]]] = {
    status: [event.__name__ for event, after in lifecycle.STATUS_AFTER.items() if after is status]
    for status in OrderStatus
}


def encode(event: Event) -> Encoded:
    """Return the event's type name and its JSON."""
    return type(event).__name__, _ENCODER.encode(event).decode()


def decode(name: str, data: str) -> Event:
    """Return the event. Raise ValueError if this version of the engine does not know it."""
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise ValueError(f"the log holds an event of type {name!r}, which this version does not know: upgrade first")
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"the log holds a {name} that cannot be read: {error}") from error


def recorded(row: Row) -> Recorded:
    """Return a row as an entry of the log. Raise ValueError if its event cannot be read."""
    order_id, seq, at_ms, name, data = row
    return Recorded(order_id, seq, at_ms, decode(name, data))


def replay_all(logs: Mapping[OrderId, Sequence[Row]]) -> list[list[Update]]:
    """Return what each complete log tells.

    One that cannot be read (a newer version wrote it, or the database is damaged) is left out and logged: it must not
    stand in the way of the others. Asked for by itself, it says what is wrong.
    """
    histories = []
    for order_id, rows in logs.items():
        try:
            histories.append(replay([recorded(row) for row in rows]))
        except (ValueError, IndexError, IllegalTransition) as error:
            structlog.get_logger().error("order.unreadable", order=order_id, reason=str(error))
    return histories


def rebuild_all(logs: Mapping[OrderId, Sequence[Row]]) -> list[Order]:
    """Return the order that each complete log tells of, without those that cannot be read."""
    return [history[-1].order for history in replay_all(logs)]


def audit_row(entry: Entry) -> AuditRow:
    action = entry.action
    return entry.seq, entry.at_ms, entry.actor, type(action).__name__, _ENCODER.encode(action).decode(), entry.hash


def audit_entry(row: AuditRow) -> Entry:
    """Return a row of the audit log. Raise ValueError if this version of the engine does not know its action."""
    seq, at_ms, actor, name, data, digest = row
    kind = _ACTIONS.get(name)
    if kind is None:
        raise ValueError(f"the audit log holds a {name!r}, which this version does not know: upgrade first")
    try:
        return Entry(seq, at_ms, actor, msgspec.json.decode(data, type=kind), digest)
    except msgspec.DecodeError as error:
        raise ValueError(f"entry {seq} of the audit log cannot be read: {error}") from error
