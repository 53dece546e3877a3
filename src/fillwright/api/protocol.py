"""What uvicorn's protocol classes do not do by themselves.

- Only a GET can become a WebSocket (RFC 6455, 4.1). A request that asks for an upgrade which it cannot have is answered
  as if it had not asked (RFC 9110, 7.8): a POST is a POST, body and all.
- POSTs of orders have a fast lane: the whole request is at hand when it has been parsed, so its answer is asked for
  directly and written at once, without scope, events and messages in between. A client that keeps its connection says
  the same with every request but for the body: a head that has come before need not be parsed again. What is out of
  the ordinary about a request (no length, too long, a stream asked for, an upgrade, others before it on the
  connection) goes the usual way, and `FILLWRIGHT_FAST_LANE=off` sends all of them there; the tests run over both.
- Closing does not wait for a client that does not read: the close frame follows what is already buffered, and the
  connection is dropped if the client has not taken it in time. A plain HTTP response can be dropped likewise.
- Whatever a client sends has bounds: the head of a request in bytes, its arrival in time, its parsing in the share of
  the event loop that one turn of it may take. What cannot be read is refused with a problem document, as all else is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, cast

import httptools
from starlette.types import Receive, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.http11 import Response

from fillwright.api import wire
from fillwright.core.errors import FillwrightError, InternalError, InvalidRequest, NotReady

LINGER_S: Final = 10
LOOK_S: Final = 15  # a client that has not moved from one look to the next is given up
PIECE_BYTES: Final = 2_048  # parsed without looking up; what is longer than that waits for its turn
TURN_S: Final = 0.005  # of the event loop's time at a go, for all that waits to be parsed
REQUEST_HEAD_BYTES_MAX: Final = 65_536
EXECUTE: Final = "/api/orders/execute"
EXECUTE_URL: Final = EXECUTE.encode()
EVENT_STREAM: Final = "text/event-stream"
REQUEST_LINE: Final = b"POST " + EXECUTE_URL + b" HTTP/1.1\r\n"
HEAD_END: Final = b"\r\n\r\n"
HEAD_BYTES_MAX: Final = 2_048  # of a head that is kept
HEADS_MAX: Final = 256
OUT_OF_THE_ORDINARY: Final = frozenset({b"expect", b"upgrade", b"transfer-encoding", b"content-encoding"})
ABORT: Final = "fillwright.abort"  # in a request's scope: drops its connection, whatever is still unsent


Answer: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]  # status, headers, body


class HasFastLane(Protocol):
    """The application. Bodies up to `fast_lane_max_bytes` may take the fast lane; 0 closes it."""

    fast_lane_max_bytes: int
    known_heads: dict[bytes, Head]
    unparsed: Unparsed

    async def answer(self, scope: Scope, receive: Receive) -> Answer: ...


class _Cycle:
    """A request in the fast lane, as far as uvicorn looks at it."""

    __slots__ = ("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete")
    response_started: Final = False

    def __init__(self, keep_alive: bool) -> None:
        self.body = bytearray()
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = self

    def set(self) -> None:
        """Nobody waits: stands in for an event."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the parser made of a request's head."""

    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    body_bytes: int


class Sender(Protocol):
    """A connection that has sent more than was parsed at once; `is_waiting` for its turn."""

    loop: asyncio.AbstractEventLoop
    is_waiting: bool

    def parse_piece(self) -> None:
        """Parse a piece of what has come, and say by `is_waiting` whether another turn is wanted."""


class Unparsed:
    """The connections that sent more than can be parsed in passing: ten thousand tiny requests, say, in one packet.

    They take turns, a piece each, so that whoever sends little is not kept waiting by those who send much.
    """

    def __init__(self) -> None:
        self._waiting: deque[Sender] = deque()
        self._is_scheduled = False

    def add(self, sender: Sender) -> None:
        if sender.is_waiting:
            return
        sender.is_waiting = True
        self._waiting.append(sender)
        if not self._is_scheduled:
            self._is_scheduled = True
            sender.loop.call_soon(self._take_turns, sender.loop)

    def _take_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        end_s = time.perf_counter() + TURN_S
        try:
            while self._waiting and time.perf_counter() < end_s:
                sender = self._waiting.popleft()
                sender.is_waiting = False
                sender.parse_piece()
                if sender.is_waiting:
                    self._waiting.append(sender)
        finally:
            self._is_scheduled = bool(self._waiting)
            if self._is_scheduled:
                loop.call_soon(self._take_turns, loop)


class _Flow(FlowControl):
    """Does not resume reading while there is something left to parse."""

    has_unparsed = False

    def resume_reading(self) -> None:
        if not self.has_unparsed:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    flow: _Flow
    _is_between_requests = True
    _is_in_head = False
    _head_bytes = 0  # of the head that has begun, as far as its pieces have been parsed
    _piece = b""  # what came last, if a request begins with it
    _unparsed = b""  # what has come and must wait for its turn
    _is_deaf = False  # nothing more is read: the connection ends with the answer that is due
    _stuck = ""  # what the client was seen to be late with at the last look
    _look: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    is_waiting = False  # for its turn to be parsed

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._look = self.loop.call_later(LOOK_S, self._look_after_client)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        if self._running is not None:  # with more requests behind it, uvicorn would have it write on
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._stuck = ""
        super().resume_writing()

    def on_message_begin(self) -> None:
        self._is_between_requests = False
        self._is_in_head = True
        self._head_bytes = 0
        self._stuck = ""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # what trails the body must not pass for what a proxy has let through before it
            super().on_header(name, value)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if len(data) <= PIECE_BYTES and not self.flow.has_unparsed and not self.pipeline:
            self._parse(data)
            return
        self._unparsed += data
        self.flow.has_unparsed = True
        self.flow.pause_reading()
        self._wait_for_turn()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.flow.has_unparsed:
            self._unset_keepalive_if_required()
            self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        if not self.pipeline:  # a request that waits for the answers before its own comes first
            self._application.unparsed.add(self)

    def parse_piece(self) -> None:
        if self._is_deaf or self.transport.is_closing():
            return
        piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
        self._parse(piece)
        if self._unparsed:
            self.is_waiting = not self.pipeline
        else:
            self.flow.has_unparsed = False
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._piece = data if self._is_between_requests else b""
        if self._piece.startswith(REQUEST_LINE) and self._answer_known_head(data):
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_answering():
                self._hear_no_more()  # whatever was said now would be taken for the answer to what came before
            elif self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._vain_upgrade():
                self._parse_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse("this is not HTTP, or not a version of it that is spoken here")
            return
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > REQUEST_HEAD_BYTES_MAX:
                self._refuse(f"the request's head is larger than {REQUEST_HEAD_BYTES_MAX} bytes")

    def _refuse(self, why: str) -> None:
        """Refuse what is coming in; what came before it is answered first."""
        cycle = self.cycle
        if self._is_answering():
            if self.pipeline or not cycle.more_body:
                self._hear_no_more()
                return
            if cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True  # it is this one whose body goes wrong
            cycle.message_event.set()
        elif not self._is_in_head and not self._is_between_requests:
            self.transport.close()  # it has its answer already: another would be taken for that of the next
            return
        self.send_400_response(why)

    def _hear_no_more(self) -> None:
        self._is_deaf = True
        self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        self._is_deaf = True
        status, body = _problem(InvalidRequest(msg))
        head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        self._leave()
        self._unparsed = b""  # sent before the handshake was answered, which no client may
        self.flow.has_unparsed = False
        self.flow.resume_reading()
        super().handle_websocket_upgrade()

    def _look_after_client(self) -> None:
        """Give the client up if it is as late with the same thing as it was at the last look."""
        self._look = self.loop.call_later(LOOK_S, self._look_after_client)
        late = self._what_is_late()
        if not late or late != self._stuck:
            self._stuck = late
        elif late != "the request":
            self.transport.abort()
        elif self._is_between_requests:
            self.transport.close()
        else:
            self._refuse(f"the request was not complete within {LOOK_S} seconds")

    def _what_is_late(self) -> str:
        if self.transport.is_closing():
            return "taking the last answer"
        if self.flow.write_paused:
            return "reading"
        return "" if self._is_answering() and not self.cycle.more_body else "the request"

    def _leave(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def on_headers_complete(self) -> None:
        if self.url == EXECUTE_URL and self._may_take_the_fast_lane():
            self.cycle = cast("Any", _Cycle(self.parser.should_keep_alive()))
            self._is_in_head = False
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}
        if not self._vain_upgrade():
            super().on_headers_complete()
        self._is_in_head = False  # if nothing was wrong with it

    def on_message_complete(self) -> None:
        self._is_between_requests = True
        self._stuck = ""
        cycle = cast("object", self.cycle)
        if isinstance(cycle, _Cycle) and cycle.more_body:
            cycle.more_body = False
            self._learn_head(cycle)
            self._begin_answer(cycle, self.headers)
        elif not self._vain_upgrade():
            super().on_message_complete()

    def _answer_known_head(self, data: bytes) -> bool:
        """Answer a whole request whose head has come before, byte for byte: it need not be parsed again."""
        body_at = data.find(HEAD_END) + len(HEAD_END)
        head = self._application.known_heads.get(data[:body_at])
        if head is None or len(data) - body_at != head.body_bytes or self._is_answering() or self.flow.write_paused:
            return False
        cycle = _Cycle(head.keep_alive)
        cycle.body += data[body_at:]
        cycle.more_body = False
        self.cycle = cast("Any", cycle)
        self._begin_answer(cycle, head.headers)
        return True

    def _learn_head(self, cycle: _Cycle) -> None:
        """Keep the head of a request that came in one piece and alone."""
        head, end, body = self._piece.partition(HEAD_END)
        heads = self._application.known_heads
        if end and body == cycle.body and len(head) <= HEAD_BYTES_MAX:
            if len(heads) >= HEADS_MAX:
                heads.clear()
            heads[head + end] = Head(self.headers, cycle.keep_alive, len(body))

    def _begin_answer(self, cycle: _Cycle, headers: list[tuple[bytes, bytes]]) -> None:
        self._stuck = ""
        task = self.loop.create_task(self._answer(cycle, headers))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _may_take_the_fast_lane(self) -> bool:
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return False
        if self._is_answering() or self.flow.write_paused:
            return False
        length = None
        for name, value in self.headers:
            if name in OUT_OF_THE_ORDINARY or (name == b"accept" and EVENT_STREAM.encode() in value):
                return False
            if name == b"content-length":
                length = value
        return (
            length is not None
            and length.isdigit()
            and len(length) < 10
            and 0 < int(length) <= self._application.fast_lane_max_bytes
        )

    async def _answer(self, cycle: _Cycle, request_headers: list[tuple[bytes, bytes]]) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": bytes(cycle.body)}

        scope = {"headers": request_headers, "scheme": self.scheme, "client": self.client}
        status, headers, body = await self._application.answer(scope, receive)
        if cycle.disconnected:
            return
        lines = [STATUS_LINE[status]]
        for name, value in headers:
            lines += [name, b": ", value, b"\r\n"]
        lines += [b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body]
        self.transport.write(b"".join(lines))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    @property
    def _application(self) -> HasFastLane:
        return cast("HasFastLane", self.app)

    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _vain_upgrade(self) -> bool:
        asks = any(
            name == b"upgrade" for name, _ in self.headers
        )  # CONNECT looks like an upgrade, too, but asks for none
        return asks and self.parser.should_upgrade() and not self._should_upgrade()

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Read the request again, without the header at which the parser stops."""
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"\r\n".join([*lines, b"", b""]) + rest)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    is_waiting = False
    _unparsed = b""
    _was_closing = False
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.conn.reject = _rejection  # type: ignore[method-assign] # its own is plain text
        self._look = self.loop.call_later(LOOK_S, self._look_after_close)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated and not self.handshake_complete:
            return  # sent before the handshake was answered, which no client may
        if (len(data) <= PIECE_BYTES and not self._unparsed) or not self.handshake_initiated:
            self._parse(data)
            return
        self._unparsed += data
        self._parse_on()

    def _parse_on(self) -> None:
        """Have the rest parsed, unless the application has first to take what was in the last piece."""
        if self._unparsed and not self.transport.is_closing():
            self.transport.pause_reading()
            if not self.read_paused:
                cast("HasFastLane", self.app).unparsed.add(self)

    def parse_piece(self) -> None:
        piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
        if self.transport.is_closing():
            return
        self._parse(piece)
        if self._unparsed:
            self.is_waiting = not self.read_paused
        elif not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def receive(self) -> Any:
        message = await super().receive()
        self._parse_on()
        return message

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.close_sent:  # it could not even be read
            self.close_sent = self.handshake_complete = True
            answer = b"".join(self.conn.data_to_send())
            self.transport.write(answer or _rejection(400, "this WebSocket handshake cannot be read").serialize())
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:  # a client's fault, and no reason to log a trace
                self.frames = []
                self.conn.fail(1007, "text must be UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # dropped: answers that nobody reads would pile up for ever

    def _look_after_close(self) -> None:
        """Drop a client that has not taken what was left to say."""
        if self._was_closing:
            self.transport.abort()
            return
        self._was_closing = self.transport.is_closing()
        self._look = self.loop.call_later(LOOK_S, self._look_after_close)

    async def send(self, message: Any) -> None:
        if self.close_sent and self.handshake_complete:
            raise ClientDisconnected
        if not self.handshake_complete and self.transport.is_closing():
            raise ClientDisconnected  # it has just hung up: uvicorn would neither answer the handshake nor say why
        if message["type"] == "websocket.close" and self.handshake_complete and not self.transport.is_closing():
            self.writable.set()
            self.loop.call_later(LINGER_S, self.transport.abort)
        await super().send(message)
        self._parse_on()
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # refused, and said so: nothing is missing


def _rejection(status: int, text: str) -> Response:
    """Return the answer to a WebSocket handshake that is refused before the application has heard of it."""
    kind = InternalError if status >= 500 else NotReady if status == 403 else InvalidRequest
    status, body = _problem(kind(text.strip() or "the stream has ended before it began; try again"))
    headers = [
        ("Connection", "close"),
        ("Content-Length", str(len(body))),
        ("Content-Type", "application/problem+json"),
    ]
    return Response(status, STATUS_LINE[status].split(b" ", 2)[2].decode().strip(), Headers(headers), body)


def _problem(error: FillwrightError) -> tuple[int, bytes]:
    status, problem = wire.problem(error)
    return status, wire.encode(problem)
