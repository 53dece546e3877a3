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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, cast

import httptools
from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINGER_S: Final = 10
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

    async def answer(self, scope: Scope, receive: Receive) -> Answer: ...


class _Cycle:
    """A request in the fast lane, as far as uvicorn looks at it."""

    __slots__ = ("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete")

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


class HttpProtocol(HttpToolsProtocol):
    _is_between_requests = True
    _piece = b""  # what came last, if a request begins with it

    def on_message_begin(self) -> None:
        self._is_between_requests = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._piece = data if self._is_between_requests else b""
        if self._piece.startswith(REQUEST_LINE) and self._answer_known_head(data):
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_answering():
                self.transport.close()  # whatever was said now would be taken for the answer to what came before
            elif self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._vain_upgrade():
                self._parse_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._is_answering():
                self.transport.close()
                return
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        if self.url == EXECUTE_URL and self._may_take_the_fast_lane():
            self.cycle = cast("Any", _Cycle(self.parser.should_keep_alive()))
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}
        if not self._vain_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_between_requests = True
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
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close" and self.handshake_complete and not self.transport.is_closing():
            self.writable.set()
            self.loop.call_later(LINGER_S, self.transport.abort)
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # refused, and said so: nothing is missing
