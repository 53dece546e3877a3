"""The OpenAPI document and the page that shows it, made from one table of endpoints and the error tree."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any, Final

import msgspec

from fillwright import __version__
from fillwright.api import wire
from fillwright.core.errors import Denied, ExecutionError, FillwrightError
from fillwright.core.order import KINDS, OrderStatus

Json = dict[str, Any]

_ORDER_EXAMPLE: Final = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5, "slippage": 0.01}
_DECIMAL: Final = {"type": ["number", "string"], "examples": [1.5, "1.5"]}


def _query(name: str, description: str, **schema: Any) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}


_ORDER_ID: Final = {
    "name": "orderId",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^ord_[0-7][0-9A-HJKMNP-TV-Z]{25}$"},
}
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

# (path, method, summary, parameters, takes an order, answers: status -> what it means)
_OPERATIONS: Final[tuple[tuple[str, str, str, list[Json], bool, dict[int, str]], ...]] = (
    ("/api/orders/execute", "POST", "Submit an order. With Accept: text/event-stream its life is the answer.", [_KEY],
     True, {201: "accepted and durable", 200: "this order was accepted before"}),
    ("/api/orders/execute", "GET", "WebSocket: follow an order, or send orders as messages.",
     [_query("orderId", "the order to follow; without it, each message is an order"), _AFTER], False,
     {101: "a WebSocket"}),
    ("/api/orders", "GET", "List orders, newest first.", _LIST, False, {200: "a page of orders"}),
    ("/api/orders/stats", "GET", "Count what waits, runs and is done.", [], False, {200: "the counts"}),
    ("/api/orders/{orderId}", "GET", "The order with its fill, quotes and attempts.", [_ORDER_ID], False,
     {200: "the order"}),
    ("/api/orders/{orderId}", "DELETE", "Cancel, while nothing is signed.", [_ORDER_ID], False,
     {200: "the order, cancelled", 409: "too late"}),
    ("/api/orders/{orderId}/events", "GET", "The order's event log.", [_ORDER_ID, _AFTER], False, {200: "the events"}),
    ("/api/orders/{orderId}/explain", "GET", "Every quote, why this venue, and how the fill compares.", [_ORDER_ID],
     False, {200: "the decisions"}),
    ("/api/orders/{orderId}/stream", "GET", "WebSocket, or server-sent events with Accept: text/event-stream.",
     [_ORDER_ID, _AFTER], False, {101: "a WebSocket", 200: "server-sent events"}),
    ("/api/stream", "GET", "WebSocket: the updates of every order of the account from now on.", [], False,
     {101: "a WebSocket"}),
    ("/api/tickets", "POST", "A ticket, with which a browser may open one stream: ?ticket=", [], False,
     {201: "the ticket, good for 30 s"}),
    ("/api/mode", "GET", "Whether orders are taken and signed.", [], False, {200: "the mode"}),
    ("/api/mode", "PUT", "Stop taking or signing orders, or go on. Needs the scope admin.", [], False,
     {200: "the mode, in force"}),
    ("/api/audit", "GET", "Who did what, oldest first. Needs the scope admin.", [_AFTER], False, {200: "entries"}),
    ("/api/quotes", "POST", "The route that an order would take now. Nothing is executed.", [], True,
     {200: "the route"}),
    ("/health", "GET", "Whether the engine works.", [], False, {200: "it does", 503: "it does not"}),
    ("/health/live", "GET", "Whether the process runs.", [], False, {200: "it does"}),
    ("/health/ready", "GET", "Whether the engine can take orders.", [], False, {200: "it can", 503: "it cannot"}),
    ("/openapi.json", "GET", "This document.", [], False, {200: "OpenAPI 3.1"}),
    ("/docs", "GET", "This document, for people.", [], False, {200: "a page"}),
    ("/", "GET", "Name, version and endpoints.", [], False, {200: "the index"}),
)  # fmt: skip


def operations() -> Iterator[tuple[str, str]]:
    """Yield the path and method of every endpoint."""
    for path, method, *_ in _OPERATIONS:
        yield path, method


def error_catalogue() -> list[tuple[str, int | None, bool | None, str]]:
    """Return every code with its title, its HTTP status (None: never an answer) and whether an attempt is retried."""
    catalogue = []
    for kind in _leaves(FillwrightError):
        as_answer = issubclass(kind, Denied) or kind in wire.STATUS_CODES
        status = wire.problem(kind(""))[0] if as_answer else None
        retryable = kind.retryable if issubclass(kind, ExecutionError) else None
        catalogue.append((kind.code, status, retryable, kind.title))
    return sorted(catalogue)


@cache
def document() -> Json:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, Json] = {}
    for path, method, summary, parameters, takes_order, answers in _OPERATIONS:
        operation: Json = {
            "summary": summary,
            "operationId": f"{method.lower()}{path.replace('/', '_').replace('{', '').replace('}', '')}",
            "parameters": parameters,
            "responses": {
                **{str(status): {"description": meaning} for status, meaning in answers.items()},
                "default": {"$ref": "#/components/responses/Problem"},
            },
        }
        if takes_order:
            operation["requestBody"] = {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/OrderBody"},
                        "example": _ORDER_EXAMPLE,
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
            "schemas": {"OrderBody": _order_body(), "Problem": _problem()},
            "responses": {
                "Problem": {
                    "description": "RFC 9457 problem details",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
        },
    }


def page() -> str:
    """Return the document as a plain page that needs nothing from elsewhere."""
    rows = "".join(
        f"<tr><td><code>{method}</code></td><td><code>{escape(path)}</code></td><td>{escape(summary)}</td></tr>"
        for path, method, summary, *_ in _OPERATIONS
    )
    errors = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{status or ""}</td><td>{escape(title)}</td></tr>'
        for code, status, _, title in error_catalogue()
    )
    example = escape(msgspec.json.format(wire.encode(_ORDER_EXAMPLE)).decode())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Fillwright API</title>'
        '<meta name="viewport" content="width=device-width"><style>body{font:16px/1.5 system-ui;max-width:60rem;'
        "margin:2rem auto;padding:0 1rem;color-scheme:light dark}td{padding:.2rem .8rem .2rem 0;vertical-align:top}"
        f"</style><h1>Fillwright {__version__}</h1><p>The same as a machine reads it: "
        f'<a href="/openapi.json">/openapi.json</a></p><h2>Endpoints</h2><table>{rows}</table>'
        f"<h2>An order</h2><pre>{example}</pre><h2>Error codes</h2><table>{errors}</table></html>"
    )


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
        },
    }


def _leaves(kind: type[FillwrightError]) -> Iterator[type[FillwrightError]]:
    for child in kind.__subclasses__():
        if hasattr(child, "code"):
            yield child
        yield from _leaves(child)
