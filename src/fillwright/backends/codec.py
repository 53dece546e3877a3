"""Events as rows: a type name and a JSON document. A name or field, once written, is read for ever."""

from __future__ import annotations

from typing import Final

import msgspec

from fillwright.core import lifecycle
from fillwright.core.lifecycle import Event
from fillwright.core.order import OrderStatus

_TYPES: Final[dict[str, type[Event]]] = {event.__name__: event for event in lifecycle.STATUS_AFTER}
_DECODERS: Final = {name: msgspec.json.Decoder(event) for name, event in _TYPES.items()}
_ENCODER: Final = msgspec.json.Encoder()

NAMES_LEADING_TO: Final[dict[OrderStatus, list[str]]] = {
    status: [event.__name__ for event, after in lifecycle.STATUS_AFTER.items() if after is status]
    for status in OrderStatus
}


def encode(event: Event) -> tuple[str, bytes]:
    """Return the event's type name and its JSON."""
    return type(event).__name__, _ENCODER.encode(event)


def decode(name: str, data: bytes | str) -> Event:
    """Return the event. Raise ValueError if this version of the engine does not know it."""
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise ValueError(f"the log holds an event of type {name!r}, which this version does not know: upgrade first")
    return decoder.decode(data)
