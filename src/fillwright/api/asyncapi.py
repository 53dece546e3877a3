"""The AsyncAPI document: the messages of the streams, made from the shapes that the OpenAPI document has, too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from fillwright import __version__
from fillwright.api import openapi
from fillwright.core.lifecycle import TERMINAL
from fillwright.core.order import OrderStatus

Json = dict[str, Any]

_ID: Final[Json] = {"type": "string", "pattern": "^ord_[0-7][0-9A-HJKMNP-TV-Z]{25}$"}
_TEXT: Final[Json] = {"type": "string"}
_WHOLE: Final[Json] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Json] = {"type": "number"}
_AMOUNT: Final[Json] = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$", "description": "whole tokens, exact"}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_ATTEMPT: Final[Json] = {"type": "integer", "minimum": 1}
_TEXT_OR_NULL: Final[Json] = {"type": ["string", "null"]}
_SCHEMAS: Final = "#/components/schemas/"
_SHARED: Final = ("OrderBody", "Problem", "Accepted", "Links", "Quote", "Leg", "Failure")
OVER: Final = ", ".join(sorted(TERMINAL))


def _of(shape: str) -> Json:
    return {"$ref": f"{_SCHEMAS}{shape}"}


def _object(properties: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    return {
        "type": "object",
        "required": [*properties],
        "properties": {**properties, **(optional or {})},
        "additionalProperties": False,
    }


# What each event tells: the status after it, when that is, and its data.
_UPDATES: Final[Mapping[str, tuple[OrderStatus, str, Json]]] = {
    "accepted": (OrderStatus.PENDING, "The order is on disk.", _object({
        "orderType": _TEXT, "clientOrderId": _TEXT_OR_NULL, "tokenIn": _TEXT, "tokenOut": _TEXT, "mintIn": _TEXT,
        "mintOut": _TEXT, "amount": _AMOUNT, "slippage": _NUMBER, "slippageBps": _WHOLE,
        "expiresAt": {"type": ["string", "null"], "format": "date-time"},
    })),
    "routing": (OrderStatus.ROUTING, "An attempt begins: every venue is asked.", _object({"attempt": _ATTEMPT})),
    "building": (OrderStatus.BUILDING, "A venue is selected.", _object({
        "attempt": _ATTEMPT, "selectedDex": _TEXT, "reason": _TEXT, "minOutAmount": _AMOUNT,
        "quotes": {"type": "array", "items": _of("Quote"), "minItems": 1},
    })),
    "submitted": (OrderStatus.SUBMITTED, "The transaction is signed, and sent from now on.", _object({
        "attempt": _ATTEMPT, "selectedDex": _TEXT, "txHash": _TEXT, "lastValidBlockHeight": _WHOLE,
    })),
    "confirmed": (OrderStatus.CONFIRMED, "The swap is on the chain: this is the fill.", _object({
        "attempt": _ATTEMPT, "selectedDex": _TEXT, "txHash": _TEXT, "executedPrice": _NUMBER, "inAmount": _AMOUNT,
        "outAmount": _AMOUNT, "feeLamports": _WHOLE, "slot": _WHOLE,
    })),
    "attemptFailed": (OrderStatus.PENDING, "An attempt is proven to have no effect; another begins at retryAt.",
                      _object({"attempt": _ATTEMPT, "error": _of("Failure"), "retryAt": _TIME})),
    "failed": (OrderStatus.FAILED, "No fill, for ever.", _object({"attempts": _WHOLE, "error": _of("Failure")})),
    "cancelled": (OrderStatus.CANCELLED, "The client has cancelled it.", _object({}, {"by": _TEXT})),
    "expired": (OrderStatus.EXPIRED, "Its time ran out before anything was signed.", _object({})),
}  # fmt: skip
_GREETINGS: Final[Mapping[str, Json]] = {
    "establishedForOrder": {"orderId": _ID, "status": _of("Status"), "after": _WHOLE},
    "established": {},
}
_SUMMARIES: Final = {
    "establishedForOrder": "The stream of an order is open; `status` is where the order stands.",
    "established": "The stream is open: from here on nothing is missed.",
    "order": "An order to execute.",
    "orderAccepted": "The answer to an order: it is on disk, and its updates follow.",
    "error": "The answer to an order that is refused.",
}
_UPDATE_NAMES: Final = [f"update_{name}" for name in _UPDATES]


def _messages() -> dict[str, Json]:
    """Return the schema of each message."""
    problem = openapi.document()["components"]["schemas"]["Problem"]
    accepted = openapi.document()["components"]["schemas"]["Accepted"]
    return {
        **{
            name: _object({"event": {"const": "connection:established"}, **more, "timestamp": _TIME})
            for name, more in _GREETINGS.items()
        },
        "order": _of("OrderBody"),
        "orderAccepted": _object({"event": {"const": "order:accepted"}, **accepted["properties"]}),
        "error": {
            **problem,
            "required": ["event", *problem["required"]],
            "properties": {"event": {"const": "error"}, **problem["properties"]},
        },
        **{
            f"update_{name}": _object(
                {
                    "event": {"const": "order:update"},
                    "orderId": _ID,
                    "seq": {"type": "integer", "minimum": 1},
                    "status": {"const": str(status)},
                    "timestamp": _TIME,
                    "data": data,
                }
            )
            for name, (status, _, data) in _UPDATES.items()
        },
    }


def _query(properties: Mapping[str, Json]) -> Json:
    return {"ws": {"method": "GET", "query": {"type": "object", "properties": dict(properties)}}}


_TICKET: Final[Json] = {**_TEXT, "description": "from POST /api/tickets, in place of a key"}
_AFTER: Final[Json] = {**_WHOLE, "description": "only updates with a higher seq"}
_ORDER_MESSAGES: Final = ["establishedForOrder", *_UPDATE_NAMES]
# name: (address, what it is, query, messages that the engine sends, messages that it takes)
_CHANNELS: Final[Mapping[str, tuple[str, str, Json, list[str], list[str]]]] = {
    "order": (
        "/api/orders/{orderId}/stream",
        f"An order's updates, old and new; closed with 1000 after the last ({OVER}). With Accept: text/event-stream, "
        "the updates come as server-sent events, and Last-Event-ID resumes.",
        {"after": _AFTER, "ticket": _TICKET}, _ORDER_MESSAGES, [],
    ),
    "execute": (
        "/api/orders/execute",
        "Each message is an order, which is answered and followed; with ?orderId=, the updates of that order alone.",
        {"orderId": _ID, "after": _AFTER, "ticket": _TICKET},
        ["establishedForOrder", "established", "orderAccepted", "error", *_UPDATE_NAMES], ["order"],
    ),
    "all": (
        "/api/stream",
        "The updates of all orders of the account from now on, each order's in turn.",
        {"ticket": _TICKET}, ["established", *_UPDATE_NAMES], [],
    ),
}  # fmt: skip


@cache
def document() -> Json:
    """Return the AsyncAPI 3.0 document."""
    schemas = openapi.document()["components"]["schemas"]
    operations: dict[str, Json] = {}
    for name, (_, _, _, sent, taken) in _CHANNELS.items():
        for action, verb, messages in (("send", "follow", sent), ("receive", "submit", taken)):
            if messages:
                operations[f"{verb}_{name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in messages],
                }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Fillwright",
            "version": __version__,
            "description": "The streams of orders and their lives.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(*parts) for name, parts in _CHANNELS.items()},
        "operations": operations,
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "summary": _SUMMARIES.get(name) or _UPDATES[name.removeprefix("update_")][1],
                    "payload": schema,
                }
                for name, schema in _messages().items()
            },
            "schemas": {"Status": {"enum": list(OrderStatus)}, **{name: schemas[name] for name in _SHARED}},
            "securitySchemes": openapi.document()["components"]["securitySchemes"],
        },
    }


def _channel(address: str, description: str, query: Json, sent: list[str], taken: list[str]) -> Json:
    parameters = {"orderId": {"description": "ord_ and 26 letters or digits"}} if "{orderId}" in address else {}
    return {
        "address": address,
        "description": description,
        **({"parameters": parameters} if parameters else {}),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (*sent, *taken)},
        "bindings": _query(query),
    }
