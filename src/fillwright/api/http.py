"""The HTTP endpoints. Each reads a request, asks a port, and writes what `wire` makes of the answer."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from fillwright import __version__
from fillwright.api import asyncapi, dashboard, openapi, reference, wire
from fillwright.api.access import CALLER, Access, Caller, caller_of
from fillwright.api.feed import Streams
from fillwright.api.protocol import EVENT_STREAM, EXECUTE, Answer, Head, Unparsed
from fillwright.api.stream import Follower, StreamApi
from fillwright.api.webhooks import WebhookSettings
from fillwright.core import control
from fillwright.core.errors import (
    FillwrightError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    OrderNotFound,
    PayloadTooLarge,
    StoreError,
    TooManyRequests,
    UnsupportedMediaType,
    WebhookNotFound,
)
from fillwright.core.lifecycle import Update, replay
from fillwright.core.limits import EVERYBODY, NONE, day_of, whose
from fillwright.core.order import Order, OrderStatus
from fillwright.core.ports import Bus, Clock, Gate, Intake, OrderFilter, Store
from fillwright.core.tokens import TokenRegistry
from fillwright.core.units import OrderId, is_order_id, parse_client_order_id
from fillwright.core.webhooks import check_url, secret_of, secret_text

T = TypeVar("T")

PAGE_MAX: Final = 200
REQUEST_ID_MAX: Final = 128
# That there is no order is told after this time: to find that there is one, of another account, takes a little longer.
NOT_FOUND_S: Final = 0.01
SECURE: Final = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
READ, TRADE, ADMIN = control.Scope.READ, control.Scope.TRADE, control.Scope.ADMIN


class MetricsText(Protocol):
    async def text(self) -> tuple[bytes, str]:
        """Return what Prometheus is told, and its media type."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`public_url` is how clients reach the engine, where that differs from what their request says.

    From a peer in `trusted_proxies` the X-Forwarded-Proto and X-Forwarded-Host headers are believed.
    """

    body_max_bytes: int
    public_url: str = ""
    trusted_proxies: frozenset[str] = frozenset()
    fast_lane: bool = True


class HttpApi:
    def __init__(
        self,
        store: Store,
        bus: Bus,
        intake: Intake,
        streams: Streams,
        stream_api: StreamApi,
        access: Access,
        gate: Gate,
        tokens: TokenRegistry,
        clock: Clock,
        webhooks: WebhookSettings,
        metrics: MetricsText | None,
        settings: HttpSettings,
    ) -> None:
        self._store = store
        self._bus = bus
        self._intake = intake
        self._streams = streams
        self._stream_api = stream_api
        self._access = access
        self._gate = gate
        self._tokens = tokens
        self._clock = clock
        self._webhooks = webhooks
        self._metrics = metrics
        self._settings = settings
        self.fast_lane_max_bytes = min(settings.body_max_bytes, HIGH_WATER_LIMIT) if settings.fast_lane else 0
        self._started = time.monotonic()
        self._log = structlog.get_logger()
        self._tells = self._log.is_enabled_for(logging.INFO)

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute(EXECUTE, self._for(None, self.execute_stream)),
            Route(EXECUTE, self.execute_page, methods=["GET", "PUT", "PATCH", "DELETE"]),
            # DELETE, lest it be taken for an order.
            Route("/api/orders/stats", self._for(READ, self.stats), methods=["GET", "DELETE"]),
            Route("/api/orders/{order_id}", self._for(READ, self.get_order), methods=["GET"]),
            Route("/api/orders/{order_id}", self._for(TRADE, self.cancel), methods=["DELETE"]),
            Route("/api/orders/{order_id}/events", self._for(READ, self.events)),
            Route("/api/orders/{order_id}/explain", self._for(READ, self.explain)),
            Route("/api/orders/{order_id}/stream", self._for(READ, self.order_events)),
            WebSocketRoute("/api/orders/{order_id}/stream", self._for(READ, self.order_stream)),
            Route("/api/orders", self._for(READ, self.list_orders)),
            Route("/api/quotes", self._for(READ, self.quote), methods=["POST"]),
            Route("/api/tickets", self._for(None, self.ticket), methods=["POST"]),
            Route("/api/mode", self._for(READ, self.mode), methods=["GET"]),
            Route("/api/mode", self._for(ADMIN, self.set_mode), methods=["PUT"]),
            Route("/api/limits", self._for(None, self.limits), methods=["GET"]),
            Route("/api/limits", self._for(ADMIN, self.set_limits), methods=["PUT"]),
            Route("/api/keys", self._for(ADMIN, self.keys), methods=["GET"]),
            Route("/api/keys", self._for(ADMIN, self.make_key), methods=["POST"]),
            Route("/api/keys/{key_id}", self._for(ADMIN, self.revoke_key), methods=["DELETE"]),
            Route("/api/webhooks", self._for(None, self.webhooks), methods=["GET"]),
            Route("/api/webhooks", self._for(ADMIN, self.add_webhook), methods=["POST"]),
            Route("/api/webhooks/{webhook_id}", self._for(ADMIN, self.remove_webhook), methods=["DELETE"]),
            Route("/api/webhooks/{webhook_id}/deliveries", self._for(None, self.deliveries)),
            Route("/api/webhooks/{webhook_id}/replay", self._for(ADMIN, self.replay_deliveries), methods=["POST"]),
            Route("/api/audit", self._for(ADMIN, self.audit)),
            WebSocketRoute("/api/stream", self._for(READ, self.all_stream)),
            Route("/api/stream", self.stream_page),
            Route("/metrics", self._for(READ, self.metrics)),
            Route("/health", self.health),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/openapi.json", self.openapi),
            Route("/asyncapi.json", self.asyncapi),
            Route("/docs", self.docs),
            Route("/dashboard", dashboard.file),
            Route("/dashboard/{file}", dashboard.file),
            Route("/", self.index),
        ]

    async def execute(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take an order. Plain ASGI, past the router: this is the one route whose cost is the engine's throughput."""
        if EVENT_STREAM.encode() not in _header(scope, b"accept"):
            status, headers, body = await self.answer(scope, receive)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        try:
            with self._stream_api.place():  # before the order: what is accepted must not be answered with a refusal
                caller = await self._access.caller(scope, TRADE)
                order, _ = await self._submit(scope, receive, caller)
                follower = Follower(caller.account, caller.key_id, lambda: self._access.recheck(caller))
                await self._stream_api.send_events(order.id, 0, follower, scope, receive, send)
        except FillwrightError as error:
            await _problem(error)(scope, receive, send)
        except Exception as error:
            await _fault(error)(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Take an order, and return the response to its POST: status, headers, body.

        Of the scope, only its headers, scheme and client are looked at.
        """
        try:
            caller = await self._access.caller(scope, TRADE)
            order, created = await self._submit(scope, receive, caller)
            body = wire.encode(self._accepted(scope, order, created))
        except FillwrightError as error:
            self._tell("order.refused", scope, code=error.code, reason=str(error))
            return _as_answer(_problem(error), _request_id(scope))
        except Exception as error:
            return _as_answer(_fault(error), _request_id(scope))
        headers = [
            (b"location", b"/api/orders/" + order.id.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *SECURE,
            *self._access.limits(caller),
            *_request_id(scope),
        ]
        return 201 if created else 200, headers, body

    async def execute_stream(self, websocket: WebSocket) -> None:
        order_id, caller = websocket.query_params.get("orderId"), caller_of(websocket)
        caller.check(TRADE if order_id is None else READ)
        if order_id is None:
            await self._stream_api.take_orders(
                websocket,
                Follower(
                    caller.account,
                    caller.key_id,
                    lambda: self._access.recheck(caller),
                    lambda: self._access.count(caller),
                ),
                lambda order, created: self._accepted(websocket.scope, order, created),
            )
        else:
            await self._follow(websocket, order_id)

    async def execute_page(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            raise InvalidRequest("POST an order here, or open this page as a WebSocket")
        raise HTTPException(405, headers={"Allow": "GET, POST"})

    async def order_stream(self, websocket: WebSocket) -> None:
        await self._follow(websocket, websocket.path_params["order_id"])

    async def all_stream(self, websocket: WebSocket) -> None:
        await self._stream_api.follow_all(websocket, self._follower(websocket))

    async def stream_page(self, _: Request) -> Response:
        raise InvalidRequest("open this page as a WebSocket")

    async def order_events(self, request: Request) -> Response:
        if EVENT_STREAM not in request.headers.get("accept", ""):
            raise InvalidRequest("open this page as a WebSocket, or with Accept: text/event-stream")
        updates = await self._updates(request, request.path_params["order_id"])
        after = request.headers.get("last-event-id") or request.query_params.get("after")
        after_seq = _whole_number(after, "after", 0)
        return self._stream_api.events_response(updates[-1].order, after_seq, self._follower(request))

    async def get_order(self, request: Request) -> Response:
        updates = await self._updates(request, request.path_params["order_id"])
        return reply(wire.order_view(updates[-1].order, updates))

    async def events(self, request: Request) -> Response:
        after = _whole_number(request.query_params.get("after"), "after", 0)
        updates = await self._updates(request, request.path_params["order_id"])
        shown = [wire.event_view(update) for update in updates if update.record.seq > after]
        return reply({"orderId": updates[0].order.id, "status": updates[-1].order.status, "events": shown})

    async def explain(self, request: Request) -> Response:
        updates = await self._updates(request, request.path_params["order_id"])
        return reply(wire.explain_view(updates[-1].order, updates))

    async def cancel(self, request: Request) -> Response:
        order_id, caller = _order_id(request.path_params["order_id"]), caller_of(request)
        order = await self._intake.cancel(order_id, caller.name, caller.account)
        return reply(wire.order_view(order, await self._updates(request, order_id)))

    async def list_orders(self, request: Request) -> Response:
        query = request.query_params
        known = {"status", "token", "clientOrderId", "from", "to", "cursor", "limit"}
        if unknown := sorted(set(query) - known):
            raise InvalidRequest(f"unknown parameter {unknown[0]!r}; known: {', '.join(sorted(known))}")
        status, token = query.get("status"), query.get("token")
        if status is not None and status not in tuple(OrderStatus):
            raise InvalidRequest(f"status must be one of {', '.join(OrderStatus)}", field="status")
        limit = _whole_number(query.get("limit"), "limit", 50)
        if not 1 <= limit <= PAGE_MAX:
            raise InvalidRequest(f"limit must be from 1 to {PAGE_MAX}", field="limit")
        criteria = OrderFilter(
            account=caller_of(request).account,
            status=OrderStatus(status) if status is not None else None,
            mint=self._tokens.resolve(token, "token").mint if token is not None else None,
            client_order_id=parse_client_order_id(query["clientOrderId"]) if "clientOrderId" in query else None,
            created_from_ms=wire.parse_time(query["from"], "from") if "from" in query else None,
            created_to_ms=wire.parse_time(query["to"], "to") if "to" in query else None,
            before=_cursor(query["cursor"]) if "cursor" in query else None,
            limit=limit,
        )
        orders = await self._store.find(criteria)
        cursor = orders[-1].id if len(orders) == limit else None
        return reply({"orders": [wire.order_view(order) for order in orders], "nextCursor": cursor})

    async def quote(self, request: Request) -> Response:
        caller = caller_of(request)
        asked = wire.order_request(
            await self._json_body(request.headers.get("content-type", "").encode("latin-1"), request.receive)
        )
        preview = await self._intake.quote(asked, caller.account, caller.key_id)
        return reply(wire.preview_view(preview))

    async def ticket(self, request: Request) -> Response:
        text, expires_at_ms = await self._access.ticket(caller_of(request))
        return reply({"ticket": text, "expiresAt": wire.iso(expires_at_ms)}, 201)

    async def mode(self, _: Request) -> Response:
        return reply(wire.mode_view(await self._gate.control()))

    async def set_mode(self, request: Request) -> Response:
        change = wire.mode_change(
            await self._json_body(request.headers.get("content-type", "").encode("latin-1"), request.receive)
        )
        await self._gate.change(caller_of(request).name, change)
        return reply(wire.mode_view(await self._gate.control()))

    async def limits(self, request: Request) -> Response:
        """Show a caller the limits that it is under; an operator, all that there are."""
        caller, limits = caller_of(request), (await self._gate.control()).limits
        caller.check(READ, ADMIN)
        own = whose(caller.account, caller.key_id)
        is_operator = control.Scope.ADMIN in caller.scopes
        shown = sorted({*own, *limits} if is_operator else own)
        # What everybody has used is the business of operators.
        told = shown if is_operator else [of for of in shown if of != EVERYBODY]
        used = await self._store.usage(day_of(self._clock.now_ms()), told)
        return reply(
            {
                "limits": [
                    wire.limits_view(of, limits.get(of, NONE), used if of in told else None, self._tokens)
                    for of in shown
                ]
            }
        )

    async def set_limits(self, request: Request) -> Response:
        of, limits = wire.limits_change(
            await self._json_body(request.headers.get("content-type", "").encode("latin-1"), request.receive),
            self._tokens,
        )
        await self._gate.change(caller_of(request).name, lambda known: control.limits_set(known, of, limits))
        return await self.limits(request)

    async def keys(self, _: Request) -> Response:
        known = await self._gate.control()
        shown = [wire.key_view(each, each.created_at_ms, each.revoked_at_ms) for each in known.keys.values()]
        return reply({"keys": shown})

    async def make_key(self, request: Request) -> Response:
        asked = wire.key_body(
            await self._json_body(request.headers.get("content-type", "").encode("latin-1"), request.receive)
        )
        scopes = control.asked_scopes(asked.account, asked.name, asked.scopes)
        created, text = control.new_key(asked.account, asked.name, scopes, os.urandom(control.KEY_BYTES))
        caller = caller_of(request)
        entry = await self._gate.change(caller.name, lambda known: control.key_made_by(known, caller.key_id, created))
        return reply({**wire.key_view(created, entry.at_ms), "key": text}, 201)

    async def revoke_key(self, request: Request) -> Response:
        key_id = request.path_params["key_id"]
        await self._gate.change(caller_of(request).name, lambda known: control.key_revoked(known, key_id))
        return reply({"keyId": key_id})

    async def webhooks(self, request: Request) -> Response:
        hooks = await self._webhooks_seen(request)
        return reply({"webhooks": [wire.webhook_view(each, each.added_at_ms) for each in hooks]})

    async def add_webhook(self, request: Request) -> Response:
        caller = caller_of(request)
        url, key_id = wire.webhook_body(
            await self._json_body(request.headers.get("content-type", "").encode("latin-1"), request.receive)
        )
        check_url(url, private=self._webhooks.private)
        webhook_id = control.new_webhook_id(os.urandom(control.WEBHOOK_ID_BYTES))
        secret = secret_of(self._webhooks.secret, webhook_id)
        whose = caller.key_id if key_id is None else key_id
        entry = await self._gate.change(
            caller.name, lambda known: control.webhook_added(known, webhook_id, whose, url, secret)
        )
        assert isinstance(entry.action, control.WebhookAdded)
        return reply({**wire.webhook_view(entry.action, entry.at_ms), "secret": secret_text(secret)}, 201)

    async def remove_webhook(self, request: Request) -> Response:
        webhook_id = request.path_params["webhook_id"]
        await self._gate.change(caller_of(request).name, lambda known: control.webhook_removed(known, webhook_id))
        return reply({"webhookId": webhook_id})

    async def deliveries(self, request: Request) -> Response:
        """Show what an address did not take."""
        webhook_id = await self._webhook_id(request)
        failed = await self._store.failed_deliveries([webhook_id], PAGE_MAX)
        return reply({"webhookId": webhook_id, "deliveries": [wire.delivery_view(each) for each in failed]})

    async def replay_deliveries(self, request: Request) -> Response:
        webhook_id, order_id = await self._webhook_id(request), request.query_params.get("orderId")
        revived = await self._store.revive_deliveries([webhook_id], None if order_id is None else _order_id(order_id))
        return reply({"webhookId": webhook_id, "replayed": revived})

    async def audit(self, request: Request) -> Response:
        after = _whole_number(request.query_params.get("after"), "after", 0)
        entries = await self._store.audit_log(after, PAGE_MAX)
        return reply({"entries": [wire.audit_view(entry, self._tokens) for entry in entries]})

    async def stats(self, request: Request) -> Response:
        if request.method == "DELETE":
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        counts = await self._store.counts()
        return reply(wire.counts_view(counts, self._streams.connections, self._clock.now_ms()))

    async def health(self, _: Request) -> Response:
        try:
            await self._store.check()
            mode = (await self._gate.control()).mode
        except StoreError as error:
            return reply({**self._alive("unavailable"), "code": error.code, "message": str(error)}, 503)
        if (fault := self._bus.fault) is not None:
            slower = f"Redis does not answer ({fault}): news between processes comes by polling until it does"
            return reply({**self._alive("degraded"), "mode": mode, "code": "redis_unavailable", "message": slower})
        return reply({**self._alive("ok"), "mode": mode})

    async def metrics(self, _: Request) -> Response:
        if self._metrics is None:
            raise NotFound("metrics are off: see FILLWRIGHT_METRICS")
        body, media_type = await self._metrics.text()
        response = Response(body, media_type=media_type)
        response.raw_headers += SECURE
        return response

    async def live(self, _: Request) -> Response:
        return reply(self._alive("ok"))

    async def ready(self, request: Request) -> Response:
        return await self.health(request)

    async def openapi(self, _: Request) -> Response:
        return reply(openapi.document())

    async def asyncapi(self, _: Request) -> Response:
        return reply(asyncapi.document())

    async def docs(self, _: Request) -> Response:
        policy = {"content-security-policy": PAGE_POLICY, "referrer-policy": "no-referrer"}
        return Response(reference.page(), headers=policy, media_type="text/html")

    async def index(self, request: Request) -> Response:
        """Say what there is; to a browser, with the dashboard."""
        if dashboard.prefers_page(request.headers.get("accept", "")):
            return await dashboard.file(request)
        return reply(
            {
                "name": "fillwright",
                "version": __version__,
                "endpoints": [f"{method} {path}" for path, method in openapi.operations()],
                "docs": "/docs",
                "dashboard": "/dashboard",
            },
            headers={"vary": "accept"},
        )

    async def _webhooks_seen(self, request: Request) -> list[control.Webhook]:
        """Return the webhooks of the caller's account; all, for an operator."""
        caller, known = caller_of(request), await self._gate.control()
        caller.check(READ, ADMIN)
        return known.webhooks_of(None if ADMIN in caller.scopes else caller.account)

    async def _webhook_id(self, request: Request) -> str:
        """Return the id in the path. That it is another account's is not told."""
        webhook_id: str = request.path_params["webhook_id"]
        if webhook_id not in {each.webhook_id for each in await self._webhooks_seen(request)}:
            raise WebhookNotFound(f"there is no webhook {webhook_id[:64]!r}")
        return webhook_id

    async def _follow(self, websocket: WebSocket, order_id: str) -> None:
        after = _whole_number(websocket.query_params.get("after"), "after", 0)
        updates = await self._updates(websocket, order_id)
        await self._stream_api.follow_order(websocket, updates[-1].order, after, self._follower(websocket))

    def _follower(self, connection: HTTPConnection) -> Follower:
        caller = caller_of(connection)
        return Follower(caller.account, caller.key_id, lambda: self._access.recheck(caller))

    async def _updates(self, connection: HTTPConnection, order_id: str) -> list[Update]:
        """Return the order's whole log. That it is another account's is not told."""
        records = await self._store.history(_order_id(order_id))
        updates = replay(records) if records else []
        if not updates or updates[0].order.account != caller_of(connection).account:
            raise OrderNotFound(f"there is no order {order_id}")
        return updates

    def _for(self, need: control.Scope | None, answer: Callable[[Any], Awaitable[T]]) -> Callable[[Any], Awaitable[T]]:
        """Return `answer`, for those whose key has the scope."""

        @functools.wraps(answer)
        async def checked(connection: HTTPConnection) -> T:
            caller = connection.scope[CALLER] = await self._access.caller(connection.scope, need)
            loop = asyncio.get_running_loop()
            until_s = loop.time() + NOT_FOUND_S
            try:
                response = await answer(connection)
            except OrderNotFound:
                await asyncio.sleep(until_s - loop.time())
                raise
            if isinstance(response, Response):
                response.raw_headers += self._access.limits(caller) + _request_id(connection.scope)
            return response

        return checked

    async def _submit(self, scope: Scope, receive: Receive, caller: Caller) -> tuple[Order, bool]:
        body = await self._json_body(_header(scope, b"content-type"), receive)
        keys = [value.decode("latin-1") for name, value in scope["headers"] if name == b"idempotency-key"]
        if len(keys) > 1:
            raise InvalidRequest("there is more than one Idempotency-Key header")
        order, created = await self._intake.submit(
            wire.order_request(body, keys[0] if keys else None), caller.account, caller.key_id
        )
        self._tell("order.accepted", scope, order=order.id, by=caller.name, new=created)
        return order, created

    def _tell(self, event: str, scope: Scope, **what: object) -> None:
        """Log what became of a request, if its sender gave it an id by which to look for that."""
        if self._tells:
            for _, value in _request_id(scope):
                self._log.info(event, **what, request=value.decode())

    async def _json_body(self, content_type: bytes, receive: Receive) -> bytes:
        if content_type.partition(b";")[0].strip().lower() != b"application/json":
            raise UnsupportedMediaType("send the body as JSON, with Content-Type: application/json")
        limit, body, more = self._settings.body_max_bytes, b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest("the body ended before it was complete")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise PayloadTooLarge(f"the body is larger than {limit} bytes")
        return body

    def _accepted(self, scope: Scope, order: Order, created: bool) -> wire.Json:
        message = "Order accepted" if created else "This order was accepted before"
        return {
            "orderId": order.id,
            "status": order.status,
            "timestamp": wire.iso(order.created_at_ms),
            "message": f"{message}; follow it over the WebSocket",
            "clientOrderId": order.client_order_id,
            "websocket": f"{self._websocket_base(scope)}{EXECUTE}?orderId={order.id}",
            "links": wire.links(order),
        }

    def _websocket_base(self, scope: Scope) -> str:
        if self._settings.public_url:
            return "ws" + self._settings.public_url.removeprefix("http").rstrip("/")
        scheme, host = scope["scheme"], (_header(scope, b"host") or b"localhost").decode("latin-1")
        if scope["client"] is not None and scope["client"][0] in self._settings.trusted_proxies:
            scheme = _forwarded(scope, b"x-forwarded-proto") or scheme
            host = _forwarded(scope, b"x-forwarded-host") or host
        return f"{'wss' if scheme in ('https', 'wss') else 'ws'}://{host}"

    def _alive(self, status: str) -> wire.Json:
        return {
            "status": status,
            "timestamp": wire.iso(self._clock.now_ms()),
            "uptime": round(time.monotonic() - self._started, 3),
        }


class Application:
    """What the server calls: the hot route past the router, or, past ASGI, `answer` (see `protocol`)."""

    def __init__(self, api: HttpApi, router: ASGIApp) -> None:
        self.answer = api.answer
        self.fast_lane_max_bytes = api.fast_lane_max_bytes
        self.known_heads: dict[bytes, Head] = {}
        self.unparsed = Unparsed()
        self._execute = api.execute
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == EXECUTE and scope["method"] == "POST":
            await self._execute(scope, receive, send)
        else:
            await self._router(scope, receive, send)


def application(api: HttpApi) -> Application:
    """Return the ASGI application: the routes, and every error as a problem with a code."""
    router = Starlette(
        routes=api.routes(),
        exception_handlers={FillwrightError: _on_problem, HTTPException: _on_http_problem, Exception: _on_fault},
    )
    router.router.default = _nothing
    return Application(api, router)


async def _nothing(scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stand where no route leads: Starlette would refuse a WebSocket there without a word."""
    raise NotFound(f"there is nothing at {scope['path']}; see / for all endpoints")


def _header(scope: Scope, name: bytes) -> bytes:
    """Return the header's last value, empty if there is none."""
    found = b""
    for key, value in scope["headers"]:
        if key == name:
            found = value
    return found


def _request_id(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the id that the sender gave the request, as a header of the answer; nothing if there is none."""
    value = _header(scope, b"x-request-id")
    if not value or len(value) > REQUEST_ID_MAX or not value.isascii() or not value.decode().isprintable():
        return []
    return [(b"x-request-id", value)]


def _forwarded(scope: Scope, name: bytes) -> str:
    return _header(scope, name).decode("latin-1").partition(",")[0].strip()


def reply(
    body: wire.Json, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    response = Response(wire.encode(body), status, headers, media_type)
    response.raw_headers += SECURE
    return response


async def _on_problem(_: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, FillwrightError)
    return _problem(error)


async def _on_http_problem(connection: HTTPConnection, error: Exception) -> Response:
    """Say what the router found wrong in the same shape as everything else."""
    assert isinstance(error, HTTPException)
    path = connection.scope["path"]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        refusal = _problem(MethodNotAllowed(f"{path} does not take this method; it takes {allowed}"))
        refusal.headers["allow"] = allowed
        return refusal
    return _problem(NotFound(f"there is nothing at {path}; see / for all endpoints"))


async def _on_fault(_: HTTPConnection, error: Exception) -> Response:
    return _fault(error)


def _problem(error: FillwrightError) -> Response:
    status, body = wire.problem(error)
    wait_s = error.retry_after_s if isinstance(error, TooManyRequests) else wire.RETRY_AFTER_S
    headers = {"retry-after": str(wait_s)} if status in (429, 503) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return reply(body, status, headers, "application/problem+json")


def _fault(error: Exception) -> Response:
    structlog.get_logger().error("http.fault", exc_info=error)
    return _problem(InternalError("the engine has a fault; its log says more"))


def _as_answer(response: Response, headers: list[tuple[bytes, bytes]]) -> Answer:
    return response.status_code, response.raw_headers + headers, bytes(response.body)


def _order_id(text: str) -> OrderId:
    if not is_order_id(text):
        raise OrderNotFound(f"there is no order {text[:64]!r}; an order id is ord_ and 26 letters or digits")
    return OrderId(text)


def _cursor(text: str) -> OrderId:
    if not is_order_id(text):
        raise InvalidRequest("cursor must be the nextCursor of an earlier answer", field="cursor")
    return OrderId(text)


def _whole_number(text: str | None, field: str, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise InvalidRequest(f"{field} must be a whole number", field=field)
    return int(text)
