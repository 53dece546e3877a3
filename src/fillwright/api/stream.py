"""The streams: WebSocket and server-sent events, over the same messages.

A WebSocket that names an order follows it to its end. One that names none takes orders as messages, each answered and
then followed on the same socket. A client that does not read is closed, with the reason, once its backlog is full.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from fillwright.api import wire
from fillwright.api.feed import Streams
from fillwright.api.protocol import ABORT
from fillwright.core.errors import FillwrightError, NotReady, Unauthorized
from fillwright.core.lifecycle import TERMINAL
from fillwright.core.order import Order
from fillwright.core.ports import Clock, Intake
from fillwright.core.units import OrderId

Close: TypeAlias = tuple[int, str]

NORMAL: Final = 1000
GOING_AWAY: Final = 1012
BROKEN: Final = 1011
POLICY: Final = 1008
RECHECK_S: Final = 1.0
OVERRUN: Final = 1013
STOPPING: Final = "the engine is stopping; resume with ?after=seq"
HEARTBEAT: Final = b": still here\n\n"
OVERRUN_REASON: Final = "backlog full: the client does not read fast enough; resume with ?after=seq"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    connections_max: int
    orders_per_socket_max: int = 1_000


@dataclass(frozen=True, slots=True)
class Follower:
    """Whose stream it is, and by whose key.

    `recheck` raises what ends it: it is asked before anything is told or taken. `count` raises what refuses one more
    order.
    """

    account: str
    key_id: str
    recheck: Callable[[], Awaitable[None]]
    count: Callable[[], None] = lambda: None


class StreamApi:
    def __init__(self, streams: Streams, intake: Intake, clock: Clock, settings: StreamSettings) -> None:
        self._streams = streams
        self._intake = intake
        self._clock = clock
        self._settings = settings
        self.overruns = 0  # streams closed because their backlog was full

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for streams. Raise NotReady if none is free."""
        if self._streams.connections >= self._settings.connections_max:
            raise NotReady(f"{self._settings.connections_max} streams are open, which is as many as the engine serves")
        self._streams.connections += 1
        try:
            yield
        finally:
            self._streams.connections -= 1

    async def follow_order(self, websocket: WebSocket, order: Order, after: int, follower: Follower) -> None:
        """Send an order's updates above `after`, then close."""
        overrun = _new_overrun()

        async def send() -> Close:
            await self._establish(websocket, orderId=order.id, status=order.status, after=after)
            async for messages in self._streams.follow(order.id, after, overrun):
                await follower.recheck()
                for message in messages:
                    await websocket.send_text(message.text)
            return (GOING_AWAY, STOPPING) if self._streams.stopped.is_set() else (NORMAL, "the order is over")

        await self._serve(websocket, send, _until_closed, overrun)

    async def follow_all(self, websocket: WebSocket, follower: Follower) -> None:
        """Send the updates of every order of an account from now on."""
        overrun = _new_overrun()

        async def send() -> Close:
            everything = self._streams.follow_all(overrun, follower.account)
            await anext(everything)  # from here on nothing is missed, and only then is the client told so
            await self._establish(websocket)
            async for messages in everything:
                await follower.recheck()
                for message in messages:
                    await websocket.send_text(message.text)
            return GOING_AWAY, STOPPING

        await self._serve(websocket, send, _until_closed, overrun)

    async def take_orders(
        self, websocket: WebSocket, follower: Follower, accepted: Callable[[Order, bool], wire.Json]
    ) -> None:
        """Take each message as an order; answer it and send its updates. `accepted` makes the answer."""
        overrun = _new_overrun()
        broken: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        orders: set[asyncio.Task[None]] = set()
        followed: set[OrderId] = set()

        async def submit(text: str) -> None:
            await follower.recheck()
            try:
                follower.count()
                order, created = await self._intake.submit(wire.order_request(text), follower.account, follower.key_id)
            except FillwrightError as error:
                await websocket.send_text(wire.encode({"event": "error", **wire.problem(error)[1]}).decode())
                return
            await websocket.send_text(wire.encode({"event": "order:accepted", **accepted(order, created)}).decode())
            if order.id in followed:
                return
            followed.add(order.id)
            try:
                async for messages in self._streams.follow(order.id, 0, overrun):
                    await follower.recheck()
                    for message in messages:
                        await websocket.send_text(message.text)
            finally:
                followed.discard(order.id)

        def ended(task: asyncio.Task[None]) -> None:
            orders.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and not broken.done():
                broken.set_result(error)  # silence would look like an order that takes long

        async def send() -> Close:
            await self._establish(websocket)
            stopped = asyncio.create_task(self._streams.stopped.wait())
            try:
                waiting: set[asyncio.Future[Any]] = {stopped, broken}
                while not (await asyncio.wait(waiting, timeout=RECHECK_S, return_when=asyncio.FIRST_COMPLETED))[0]:
                    await follower.recheck()
            finally:
                stopped.cancel()
            if broken.done():
                raise broken.result()
            return GOING_AWAY, STOPPING

        async def receive(websocket: WebSocket) -> None:
            try:
                while True:
                    message = await websocket.receive()
                    if message["type"] == "websocket.disconnect":
                        return
                    task = asyncio.create_task(submit(message.get("text") or ""))
                    orders.add(task)
                    task.add_done_callback(ended)
                    if len(orders) >= self._settings.orders_per_socket_max:
                        await asyncio.wait(orders, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(orders)

        await self._serve(websocket, send, receive, overrun)

    def events_response(self, order: Order, after: int, follower: Follower) -> Response:
        """Return a response that streams an order's updates as server-sent events, and ends with the order.

        Where there is nothing to come, the answer is 204: that is how a browser learns not to ask again.
        """
        if order.status in TERMINAL and after >= order.version:
            return Response(status_code=204)
        return _EventStream(self, order.id, after, follower)

    async def send_events(
        self, order_id: OrderId, after: int, follower: Follower, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send an order's updates as server-sent events. The caller holds a `place`."""
        overrun = _new_overrun()

        async def write() -> None:
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for messages in self._streams.follow(order_id, after, overrun):
                await follower.recheck()
                lines = [f"id: {m.seq}\nevent: order:update\ndata: {m.text}\n\n".encode() for m in messages]
                body = b"".join(lines) or HEARTBEAT
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def until_closed() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        try:
            await _first_of(write(), until_closed(), overrun)
        except FillwrightError as error:
            # The answer has begun; all that can be said now is that it is not complete. The client resumes.
            structlog.get_logger().error("stream.broken", order=order_id, reason=str(error))
            _drop(scope)
        if overrun.done():
            self.overruns += 1
            _drop(scope)

    async def _serve(
        self,
        websocket: WebSocket,
        send: Callable[[], Coroutine[Any, Any, Close]],
        receive: Callable[[WebSocket], Coroutine[Any, Any, None]],
        overrun: asyncio.Future[None],
    ) -> None:
        """Send and receive until one of them ends or the client is given up."""
        with self.place(), contextlib.suppress(WebSocketDisconnect, WebSocketDisconnected):  # gone: nobody to tell
            try:
                close = await _first_of(send(), receive(websocket), overrun)
            except Unauthorized as error:
                close = (POLICY, f"{error.code}: {error}")
            except FillwrightError as error:
                structlog.get_logger().error("stream.broken", reason=str(error))
                close = (BROKEN, f"{error.code}; resume with ?after=seq")
            if overrun.done():
                self.overruns += 1
                close = (OVERRUN, OVERRUN_REASON)
            if close is not None:
                await websocket.close(*close)

    async def _establish(self, websocket: WebSocket, **data: Any) -> None:
        await websocket.accept()
        message = {"event": "connection:established", **data, "timestamp": wire.iso(self._clock.now_ms())}
        await websocket.send_text(wire.encode(message).decode())


class _EventStream(Response):
    def __init__(self, api: StreamApi, order_id: OrderId, after: int, follower: Follower) -> None:
        super().__init__()
        self._api = api
        self._follower = follower
        self._order_id = order_id
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._api.place():
            await self._api.send_events(self._order_id, self._after, self._follower, scope, receive, send)


def _drop(scope: Scope) -> None:
    """Drop a client's connection, whatever it has not read."""
    if extension := scope.get("extensions", {}).get(ABORT):
        extension["abort"]()


def _new_overrun() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def _until_closed(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _first_of(
    send: Coroutine[Any, Any, Close | None],
    receive: Coroutine[Any, Any, None],
    overrun: asyncio.Future[None],
) -> Close | None:
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
