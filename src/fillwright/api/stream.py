"""The streams: WebSocket and server-sent events, over the same messages.

A WebSocket that names an order follows it to its end. One that names none takes orders as messages, each answered and
then followed on the same socket. A client that does not read is closed, with the reason, once its backlog is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from fillwright.api import wire
from fillwright.api.feed import Message, Streams
from fillwright.core.errors import FillwrightError, NotReady
from fillwright.core.lifecycle import TERMINAL
from fillwright.core.order import Order
from fillwright.core.ports import Clock, Intake
from fillwright.core.units import OrderId

NORMAL: Final = 1000
GOING_AWAY: Final = 1012
OVERRUN: Final = 1013
STOPPING: Final = "the engine is stopping; resume with ?after=seq"
HEARTBEAT: Final = b": still here\n\n"
OVERRUN_REASON: Final = "backlog full: the client does not read fast enough; resume with ?after=seq"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    connections_max: int
    orders_per_socket_max: int = 1_000


class StreamApi:
    def __init__(self, streams: Streams, intake: Intake, clock: Clock, settings: StreamSettings) -> None:
        self._streams = streams
        self._intake = intake
        self._clock = clock
        self._settings = settings

    async def follow_order(self, websocket: WebSocket, order: Order, after: int) -> None:
        """Send an order's updates above `after`, then close."""
        overrun = _new_overrun()

        async def send() -> tuple[int, str]:
            await self._establish(websocket, orderId=order.id, status=order.status, after=after)
            last: Message | None = None
            async for messages in self._streams.follow(order.id, after, overrun):
                for last in messages:
                    await websocket.send_text(last.text)
            over = last.is_last if last else order.status in TERMINAL
            return (NORMAL, "the order is over") if over else (GOING_AWAY, STOPPING)

        await self._serve(websocket, send, _until_closed, overrun)

    async def follow_all(self, websocket: WebSocket) -> None:
        """Send the updates of every order from now on."""
        overrun = _new_overrun()

        async def send() -> tuple[int, str]:
            everything = self._streams.follow_all(overrun)
            await self._establish(websocket)
            async for messages in everything:
                for message in messages:
                    await websocket.send_text(message.text)
            return GOING_AWAY, STOPPING

        await self._serve(websocket, send, _until_closed, overrun)

    async def take_orders(self, websocket: WebSocket, accepted: Callable[[Order, bool], wire.Json]) -> None:
        """Take each message as an order; answer it and send its updates. `accepted` makes the answer."""
        overrun = _new_overrun()
        orders: set[asyncio.Task[None]] = set()

        async def submit(text: str) -> None:
            try:
                order, created = await self._intake.submit(wire.order_request(text))
            except FillwrightError as error:
                await websocket.send_text(wire.encode({"event": "error", **wire.problem(error)[1]}).decode())
                return
            await websocket.send_text(wire.encode({"event": "order:accepted", **accepted(order, created)}).decode())
            async for messages in self._streams.follow(order.id, 0, overrun):
                for message in messages:
                    await websocket.send_text(message.text)

        async def send() -> tuple[int, str]:
            await self._establish(websocket)
            await self._streams.stopped.wait()
            return GOING_AWAY, STOPPING

        async def receive(websocket: WebSocket) -> None:
            try:
                while True:
                    message = await websocket.receive()
                    if message["type"] == "websocket.disconnect":
                        return
                    task = asyncio.create_task(submit(message.get("text") or ""))
                    orders.add(task)
                    task.add_done_callback(orders.discard)
                    if len(orders) >= self._settings.orders_per_socket_max:
                        await asyncio.wait(orders, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(orders)

        await self._serve(websocket, send, receive, overrun)

    def events_response(self, order: Order, after: int) -> Response:
        """Return a response that streams an order's updates as server-sent events, and ends with the order."""
        return _EventStream(self, order.id, after)

    async def send_events(self, order_id: OrderId, after: int, receive: Receive, send: Send) -> None:
        overrun = _new_overrun()

        async def write() -> None:
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for messages in self._streams.follow(order_id, after, overrun):
                lines = [f"id: {m.seq}\nevent: order:update\ndata: {m.text}\n\n".encode() for m in messages]
                body = b"".join(lines) or HEARTBEAT
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def until_closed() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        self._enter()
        try:
            await _first_of(write(), until_closed(), overrun)
        finally:
            self._streams.connections -= 1

    async def _serve(
        self,
        websocket: WebSocket,
        send: Callable[[], Coroutine[Any, Any, tuple[int, str]]],
        receive: Callable[[WebSocket], Coroutine[Any, Any, None]],
        overrun: asyncio.Future[None],
    ) -> None:
        """Send and receive until one of them ends or the client is given up."""
        self._enter()
        try:
            close = await _first_of(send(), receive(websocket), overrun)
            if overrun.done():
                close = (OVERRUN, OVERRUN_REASON)
            if close is not None:
                await websocket.close(*close)
        except (WebSocketDisconnect, WebSocketDisconnected):
            pass  # the client has gone; there is nobody to tell
        finally:
            self._streams.connections -= 1

    def _enter(self) -> None:
        if self._streams.connections >= self._settings.connections_max:
            raise NotReady(f"{self._settings.connections_max} streams are open, which is as many as the engine serves")
        self._streams.connections += 1

    async def _establish(self, websocket: WebSocket, **data: Any) -> None:
        await websocket.accept()
        message = {"event": "connection:established", **data, "timestamp": wire.iso(self._clock.now_ms())}
        await websocket.send_text(wire.encode(message).decode())


class _EventStream(Response):
    def __init__(self, api: StreamApi, order_id: OrderId, after: int) -> None:
        super().__init__()
        self._api = api
        self._order_id = order_id
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        await self._api.send_events(self._order_id, self._after, receive, send)


def _new_overrun() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def _until_closed(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _first_of(
    send: Coroutine[Any, Any, tuple[int, str] | None],
    receive: Coroutine[Any, Any, None],
    overrun: asyncio.Future[None],
) -> tuple[int, str] | None:
    """Run both until one ends or `overrun` is done; return what `send` returned, if it was first."""
    sending, receiving = asyncio.create_task(send), asyncio.create_task(receive)
    try:
        waiting: set[asyncio.Future[Any]] = {sending, receiving, overrun}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            return sending.result()
        if receiving.done():
            receiving.result()
        return None
    finally:
        await _end({sending, receiving})


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
