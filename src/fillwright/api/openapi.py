"""The OpenAPI document, made from tables of endpoints and shapes and from the error tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from fillwright import __version__
from fillwright.api import wire
from fillwright.core.control import TEXT_MAX, Mode, Scope
from fillwright.core.errors import Denied, ExecutionError, FillwrightError
from fillwright.core.order import KINDS, OrderStatus
from fillwright.core.webhooks import URL_MAX

Json = dict[str, Any]

_ORDER_EXAMPLE: Final = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5, "slippage": 0.01}
_DECIMAL: Final = {"type": ["number", "string"], "examples": [1.5, "1.5"]}


def _query(name: str, description: str, **schema: Any) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}


_ID: Final[Json] = {"type": "string", "pattern": "^ord_[0-7][0-9A-HJKMNP-TV-Z]{25}$"}
_ORDER_ID: Final = {
    "name": "orderId",
    "in": "path",
    "required": True,
    "schema": _ID,
}
_WEBHOOK_ID: Final = {"name": "webhookId", "in": "path", "required": True, "schema": {"type": "string"}}
_KEY_ID: Final = {"name": "keyId", "in": "path", "required": True, "schema": {"type": "string"}}
_AFTER: Final = _query("after", "only events with a higher seq", type="integer", minimum=0)
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "the same as clientOrderId: a repeated request returns the same order",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}
_LIST: Final = [
    _query("status", "only orders in this status", enum=list(OrderStatus)),
    _query("token", "only orders with this token, by symbol or mint, on either side"),
    _query("clientOrderId", "only the order with this client order id"),
    _query("from", "created at or after this time", format="date-time"),
    _query("to", "created before this time", format="date-time"),
    _query("cursor", "the nextCursor of the previous page"),
    _query("limit", "orders per page", type="integer", minimum=1, maximum=200, default=50),
]

# --- the shapes of answers; `wire` and `http` make them ---

_TEXT: Final[Json] = {"type": "string"}
_WHOLE: Final[Json] = {"type": "integer", "minimum": 0}
_BPS: Final[Json] = {"type": "integer"}
_NUMBER: Final[Json] = {"type": "number"}
_AMOUNT: Final[Json] = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$", "description": "whole tokens, exact"}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_AMOUNTS: Final[Json] = {"type": "object", "additionalProperties": _AMOUNT}  # by token
_ANY: Final[Json] = {"type": "object"}
_STATUS: Final[Json] = {"enum": list(OrderStatus)}
_MODE: Final[Json] = {"enum": list(Mode)}
_SCOPE: Final[Json] = {"enum": list(Scope)}
_NAME: Final[Json] = {"type": "string", "minLength": 1}


def _object(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": [*required], "properties": properties, "additionalProperties": False}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _of(shape: str) -> Json:
    return {"$ref": f"#/components/schemas/{shape}"}


_TERMS: Final = {
    "tokenIn": _TEXT, "tokenOut": _TEXT, "mintIn": _TEXT, "mintOut": _TEXT,
    "amount": _AMOUNT, "slippage": _NUMBER, "slippageBps": _WHOLE, "expiresAt": _or_null(_TIME),
}  # fmt: skip
_SHAPES: Final = {
    "Accepted": _object({
        "orderId": _ID, "status": _STATUS, "timestamp": _TIME, "message": _TEXT, "clientOrderId": _or_null(_TEXT),
        "websocket": _TEXT, "links": _of("Links"),
    }),
    "Links": _object({"self": _TEXT, "events": _TEXT, "stream": _TEXT, "explain": _TEXT}),
    "Order": _object({
        "orderId": _ID, "clientOrderId": _or_null(_TEXT), "orderType": _TEXT, "status": _STATUS, **_TERMS,
        "minOutAmount": _or_null(_AMOUNT), "selectedDex": _or_null(_TEXT), "txHash": _or_null(_TEXT),
        "executedPrice": _or_null(_NUMBER), "fill": _or_null(_of("Fill")), "error": _or_null(_of("Failure")),
        "attempt": _WHOLE, "seq": _WHOLE, "createdAt": _TIME, "updatedAt": _TIME, "links": _of("Links"),
    }, {"quotes": _list(_of("Quote")), "attempts": _list(_of("Attempt"))}),
    "Orders": _object({"orders": _list(_of("Order")), "nextCursor": _or_null(_ID)}),
    "Fill": _object({"inAmount": _AMOUNT, "outAmount": _AMOUNT, "feeLamports": _WHOLE, "slot": _WHOLE}),
    "Failure": _object({"code": _TEXT, "message": _TEXT}),
    "Quote": _object({"dex": _TEXT, "selected": {"type": "boolean"}, "code": _TEXT, "reason": _TEXT}, {
        "pool": _TEXT, "outAmount": _AMOUNT, "price": _or_null(_NUMBER), "effectivePrice": _NUMBER, "fee": _NUMBER,
        "feeBps": _WHOLE, "priceImpactBps": _BPS, "timestamp": _TIME,
        "type": _TEXT, "slot": _WHOLE, "costAmount": _AMOUNT, "legs": _list(_of("Leg")),
    }),
    "Leg": _object({
        "dex": _TEXT, "pool": _TEXT, "type": _TEXT, "slot": _WHOLE, "tokenIn": _TEXT, "tokenOut": _TEXT,
        "inAmount": _AMOUNT, "outAmount": _AMOUNT, "feeBps": _WHOLE, "priceImpactBps": _BPS,
    }),
    "Attempt": _object({"attempt": _WHOLE, "startedAt": _TIME, "status": _TEXT}, {
        "selectedDex": _TEXT, "txHash": _TEXT, "submittedAt": _TIME, "endedAt": _TIME, "error": _of("Failure"),
    }),
    "Event": _object({
        "event": _TEXT, "orderId": _ID, "seq": _WHOLE, "status": _STATUS, "timestamp": _TIME, "data": _ANY,
    }),
    "Events": _object({"orderId": _ID, "status": _STATUS, "events": _list(_of("Event"))}),
    "Explanation": _object({
        "orderId": _ID, "status": _STATUS, **_TERMS,
        "decisions": _list(_object({
            "attempt": _WHOLE, "timestamp": _TIME, "selectedDex": _TEXT, "reason": _TEXT, "minOutAmount": _AMOUNT,
            "quotes": _list(_of("Quote")),
        })),
        "attempts": _list(_of("Attempt")), "quotedOutAmount": _or_null(_AMOUNT),
        "filledOutAmount": _or_null(_AMOUNT), "quoteToFillBps": _or_null(_BPS),
    }),
    "Preview": _object({
        **_TERMS, "selectedDex": _TEXT, "reason": _TEXT, "outAmount": _AMOUNT, "minOutAmount": _AMOUNT,
        "price": _NUMBER, "quotes": _list(_of("Quote")), "timestamp": _TIME,
    }),
    "Counts": _object({
        "queue": _object(dict.fromkeys(("waiting", "active", "completed", "failed", "delayed", "total"), _WHOLE)),
        "websocket": _object({"connections": _WHOLE}), "timestamp": _TIME,
    }),
    "Health": _object(
        {"status": {"enum": ["ok", "degraded", "unavailable"]}, "timestamp": _TIME, "uptime": _NUMBER},
        {"code": _TEXT, "message": _TEXT, "mode": _MODE},
    ),
    "Ticket": _object({"ticket": _TEXT, "expiresAt": _TIME}),
    "Mode": _object({"mode": _MODE, "reason": _TEXT}),
    "ModeBody": _object({"mode": _MODE}, {"reason": {"type": "string", "maxLength": TEXT_MAX}}),
    "Limits": _object({"limits": _list(_object({
        "of": _TEXT, "limits": _of("LimitSet"),
        "used": _or_null(_object({"usd": _AMOUNT, "amounts": _AMOUNTS, "openOrders": _WHOLE})),
    }))}),
    "LimitSet": _object({}, {
        "orderUsd": _AMOUNT, "dayUsd": _AMOUNT, "orderAmount": _AMOUNTS, "dayAmount": _AMOUNTS,
        "tokens": {**_list(_TEXT), "minItems": 1}, "slippage": _AMOUNT, "priceImpact": _AMOUNT,
        "priceDeviation": _AMOUNT, "openOrders": _WHOLE,
    }),
    "LimitsBody": _object({"of": _TEXT, "limits": _of("LimitSet")}),
    "Keys": _object({"keys": _list(_of("Key"))}),
    "Key": _object({
        "keyId": _TEXT, "name": _TEXT, "account": _TEXT, "scopes": _list(_SCOPE), "createdAt": _TIME,
        "revokedAt": _or_null(_TIME),
    }, {"key": _TEXT}),
    "KeyGone": _object({"keyId": _TEXT}),
    "KeyBody": _object({"name": _NAME, "scopes": {**_list(_SCOPE), "minItems": 1}}, {"account": _TEXT}),
    "Webhooks": _object({"webhooks": _list(_of("Webhook"))}),
    "Webhook": _object(
        {"webhookId": _TEXT, "keyId": _or_null(_TEXT), "account": _TEXT, "url": _TEXT, "addedAt": _TIME},
        {"secret": _TEXT},
    ),
    "WebhookGone": _object({"webhookId": _TEXT}),
    "Deliveries": _object({"webhookId": _TEXT, "deliveries": _list(_object({
        "orderId": _ID, "seq": _WHOLE, "tries": _WHOLE, "error": _TEXT, "nextTryAt": _or_null(_TIME),
        "givenUpAt": _or_null(_TIME),
    }))}),
    "Replayed": _object({"webhookId": _TEXT, "replayed": _WHOLE}),
    "WebhookBody": _object(
        {"url": {"type": "string", "format": "uri", "maxLength": URL_MAX}}, {"keyId": _or_null(_TEXT)}
    ),
    "Entries": _object({"entries": _list(_object({
        "seq": _WHOLE, "timestamp": _TIME, "actor": _TEXT, "action": _TEXT, "data": _ANY, "hash": _TEXT,
    }))}),
    "Index": _object({"name": _TEXT, "version": _TEXT, "endpoints": _list(_TEXT), "docs": _TEXT, "dashboard": _TEXT}),
    "Document": _ANY,
}  # fmt: skip
_MEDIA_TYPES: Final = {"text": "text/plain", "stream": "text/event-stream", "page": "text/html"}  # in place of a shape

# (path, method, summary, parameters, shape of the body, answers: status -> what it means and its shapes, refusals)
_OPERATIONS: Final[tuple[tuple[str, str, str, list[Json], str, dict[int, tuple[str, ...]], tuple[int, ...]], ...]] = (
    ("/api/orders/execute", "POST", "Submit an order. With Accept: text/event-stream its life is the answer.", [_KEY],
     "OrderBody",
     {201: ("accepted and durable", "Accepted"), 200: ("this order was accepted before", "Accepted", "stream")},
     (400, 413, 415, 422, 429)),
    ("/api/orders/execute", "GET", "WebSocket: follow an order, or send orders as messages.",
     [_query("orderId", "the order to follow; without it, each message is an order"), _AFTER], "",
     {101: ("a WebSocket",)}, (400, 404)),
    ("/api/orders", "GET", "List orders, newest first.", _LIST, "", {200: ("a page of orders", "Orders")}, (400,)),
    ("/api/orders/stats", "GET", "Count what waits, runs and is done.", [], "", {200: ("the counts", "Counts")}, ()),
    ("/api/orders/{orderId}", "GET", "The order with its fill, quotes and attempts.", [_ORDER_ID], "",
     {200: ("the order", "Order")}, (404,)),
    ("/api/orders/{orderId}", "DELETE", "Cancel, while nothing is signed.", [_ORDER_ID], "",
     {200: ("the order, cancelled", "Order")}, (404, 409)),
    ("/api/orders/{orderId}/events", "GET", "The order's event log.", [_ORDER_ID, _AFTER], "",
     {200: ("the events", "Events")}, (400, 404)),
    ("/api/orders/{orderId}/explain", "GET", "Every quote, why this venue, and how the fill compares.", [_ORDER_ID],
     "", {200: ("the decisions", "Explanation")}, (404,)),
    ("/api/orders/{orderId}/stream", "GET", "WebSocket, or server-sent events with Accept: text/event-stream.",
     [_ORDER_ID, _AFTER], "", {101: ("a WebSocket",), 200: ("server-sent events", "stream"),
     204: ("the order is over and nothing is left to tell",)}, (400, 404)),
    ("/api/stream", "GET", "WebSocket: the updates of the account's orders.", [], "", {101: ("a WebSocket",)},
     (400,)),
    ("/api/tickets", "POST", "A ticket, with which a browser may open one stream: ?ticket=", [], "",
     {201: ("the ticket, good for 30 s", "Ticket")}, ()),
    ("/api/mode", "GET", "Whether orders are taken and signed.", [], "", {200: ("the mode", "Mode")}, ()),
    ("/api/mode", "PUT", "Stop taking or signing orders, or go on. Needs the scope admin.", [], "ModeBody",
     {200: ("the mode, in force", "Mode")}, (400, 413, 415)),
    ("/api/limits", "GET", "How far orders may go, and what is used of it today.", [], "",
     {200: ("the limits", "Limits")}, ()),
    ("/api/limits", "PUT", "Set all limits of everybody, an account or a key. Needs the scope admin.", [], "LimitsBody",
     {200: ("all limits, in force", "Limits")}, (400, 413, 415)),
    ("/api/keys", "GET", "The keys, without their secrets. Needs the scope admin.", [], "",
     {200: ("the keys", "Keys")}, ()),
    ("/api/keys", "POST", "Make a key, with scopes that one has oneself. Needs the scope admin.", [], "KeyBody",
     {201: ("the key, with its secret, which is not kept", "Key")}, (400, 413, 415)),
    ("/api/keys/{keyId}", "DELETE", "Let a key open nothing any more. Needs the scope admin.", [_KEY_ID], "",
     {200: ("it is revoked", "KeyGone")}, (404,)),
    ("/api/webhooks", "GET", "The addresses that are told of the account's orders; to the scope admin, all.", [], "",
     {200: ("the webhooks", "Webhooks")}, ()),
    ("/api/webhooks", "POST", "Have an address told every event of an account's new orders. Needs the scope admin.", [],
     "WebhookBody",
     {201: ("the webhook, with the secret that signs its deliveries", "Webhook")}, (400, 413, 415)),
    ("/api/webhooks/{webhookId}", "DELETE", "Tell an address nothing any more. Needs the scope admin.",
     [_WEBHOOK_ID], "", {200: ("it is removed", "WebhookGone")}, (404,)),
    ("/api/webhooks/{webhookId}/deliveries", "GET",
     "What an address did not take: 200 at most, those that were given up first, the oldest first.", [_WEBHOOK_ID], "",
     {200: ("the deliveries", "Deliveries")}, (404,)),
    ("/api/webhooks/{webhookId}/replay", "POST", "Have what was given up tried again. Needs the scope admin.",
     [_WEBHOOK_ID, _query("orderId", "only what was given up of this order")], "",
     {200: ("how many are tried again", "Replayed")}, (404,)),
    ("/api/audit", "GET", "Who did what, oldest first. Needs the scope admin.", [_AFTER], "",
     {200: ("the entries", "Entries")}, (400,)),
    ("/api/quotes", "POST", "The route that an order would take now. Nothing is executed.", [], "OrderBody",
     {200: ("the route", "Preview")}, (400, 413, 415, 422)),
    ("/metrics", "GET", "What Prometheus is told of this process.", [], "", {200: ("the metrics", "text")}, (404,)),
    ("/health", "GET", "Whether the engine works.", [], "",
     {200: ("it does", "Health"), 503: ("it does not", "Health")}, ()),
    ("/health/live", "GET", "Whether the process runs.", [], "", {200: ("it does", "Health")}, ()),
    ("/health/ready", "GET", "Whether the engine can take orders.", [], "",
     {200: ("it can", "Health"), 503: ("it cannot", "Health")}, ()),
    ("/openapi.json", "GET", "This document.", [], "", {200: ("OpenAPI 3.1", "Document")}, ()),
    ("/asyncapi.json", "GET", "The messages of the streams.", [], "", {200: ("AsyncAPI 3.0", "Document")}, ()),
    ("/docs", "GET", "This document, for people.", [], "", {200: ("a page", "page")}, ()),
    ("/dashboard", "GET", "The dashboard.", [], "", {200: ("a page", "page")}, ()),
    ("/", "GET", "Name, version and endpoints; the dashboard, with Accept: text/html.", [], "",
     {200: ("the index", "Index", "page")}, ()),
)  # fmt: skip
_FAULTS: Final = (400, 500, 503)  # may be the answer to anything: what is no HTTP is no request for any page
_GUARDED: Final = (401, 403, 429)  # and these to whatever asks for a key
_EXAMPLES: Final = {
    "OrderBody": _ORDER_EXAMPLE,
    "ModeBody": {"mode": "reduce", "reason": "maintenance"},
    "KeyBody": {"name": "bot", "scopes": ["read", "trade"]},
    "WebhookBody": {"url": "https://desk.example.com/fills"},
    "LimitsBody": {"of": "everybody", "limits": {"orderUsd": "1000", "dayUsd": "20000", "tokens": ["SOL", "USDC"]}},
}


def operations() -> Iterator[tuple[str, str]]:
    """Yield the path and method of every endpoint."""
    for path, method, *_ in _OPERATIONS:
        yield path, method


def error_catalogue() -> list[tuple[str, int | None, bool | None, str]]:
    """Return every code with its title, its HTTP status (None: never an answer) and whether an attempt is retried."""
    catalogue = []
    for kind in dict.fromkeys(_leaves(FillwrightError)):  # what has two parents comes twice
        as_answer = issubclass(kind, Denied) or kind in wire.STATUS_CODES
        status = wire.status_of(kind) if as_answer else None
        retryable = kind.retryable if issubclass(kind, ExecutionError) else None
        catalogue.append((kind.code, status, retryable, kind.title))
    return sorted(catalogue)


@cache
def document() -> Json:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, Json] = {}
    for path, method, summary, parameters, body, answers, refusals in _OPERATIONS:
        guarded = _GUARDED if path.startswith(("/api/", "/metrics")) else ()
        operation: Json = {
            "summary": summary,
            "operationId": f"{method.lower()}{path.replace('/', '_').replace('{', '').replace('}', '')}",
            "parameters": parameters,
            "responses": {
                **{
                    str(status): {"$ref": "#/components/responses/Problem"}
                    for status in (*refusals, *guarded, *_FAULTS)
                },
                **{str(status): _answer(*answer) for status, answer in answers.items()},
            },
        }
        if body:
            operation["requestBody"] = {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": _of(body),
                        "example": _EXAMPLES[body],
                    }
                },
            }
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fillwright", "version": __version__, "description": "Order execution for Solana DEXs."},
        "paths": paths,
        "security": [{"key": []}],
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "fw_..., from `fillwright keys create`; not asked for while there are no keys",
                }
            },
            "schemas": {"OrderBody": _order_body(), "Problem": _problem(), **_SHAPES},
            "responses": {
                "Problem": {
                    "description": "RFC 9457 problem details",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
        },
    }


def _answer(meaning: str, *shapes: str) -> Json:
    content = {}
    for shape in shapes:
        if shape in _SHAPES:
            content["application/json"] = {"schema": _of(shape)}
        else:
            content[_MEDIA_TYPES[shape]] = {"schema": _TEXT}
    return {"description": meaning, **({"content": content} if content else {})}


def _order_body() -> Json:
    return {
        "type": "object",
        "required": ["tokenIn", "tokenOut", "amount"],
        "additionalProperties": False,
        "properties": {
            "tokenIn": {"type": "string", "description": "symbol or mint"},
            "tokenOut": {"type": "string", "description": "symbol or mint"},
            "amount": {**_DECIMAL, "description": "whole tokens, as a plain decimal; exact as a string"},
            "slippage": {
                "type": ["number", "string"],
                "examples": [0.01, "0.005"],
                "description": "a fraction: 0.01 is 1 %; 0 to 0.1",
                "default": 0.01,
            },
            "orderType": {"enum": list(KINDS), "default": "market"},
            "clientOrderId": {"type": ["string", "null"], "minLength": 1, "maxLength": 128},
            "expiresAt": {"type": ["string", "null"], "format": "date-time"},
        },
    }


def _problem() -> Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "error", "message"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": {"enum": [code for code, *_ in error_catalogue()]},
            "error": text,
            "message": text,
            "field": text,
            "limit": _object({"name": _TEXT, "of": _TEXT}, {"token": _TEXT}),
        },
    }


def _leaves(kind: type[FillwrightError]) -> Iterator[type[FillwrightError]]:
    for child in kind.__subclasses__():
        if hasattr(child, "code"):
            yield child
        yield from _leaves(child)
