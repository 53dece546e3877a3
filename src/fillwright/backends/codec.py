"""Events as rows: a type name and a JSON document. A name or field, once written, is read for ever."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from fillwright.core import lifecycle
from fillwright.core.lifecycle import Event
from fillwright.core.order import OrderStatus

Encoded: TypeAlias = tuple[str, str]

_TYPES: Final[dict[str, type[Event]]] = {event.__name__: event for event in lifecycle.STATUS_AFTER}
_DECODERS: Final = {name: msgspec.json.Decoder(event) for name, event in _TYPES.items()}
_ENCODER: Final = msgspec.json.Encoder()

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
