"""What uvicorn's protocol classes do not do by themselves.

- Only a GET can become a WebSocket (RFC 6455, 4.1). A request that asks for an upgrade which it cannot have is answered
  as if it had not asked (RFC 9110, 7.8): a POST is a POST, body and all.
- Closing does not wait for a client that does not read: the close frame follows what is already buffered, and the
  connection is dropped if the client has not taken it in time. A plain HTTP response can be dropped likewise.
"""

from __future__ import annotations

from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINGER_S: Final = 10
ABORT: Final = "fillwright.abort"  # in a request's scope: drops its connection, whatever is still unsent


class HttpProtocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._vain_upgrade():
                self._parse_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        if not self._vain_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._vain_upgrade():
            super().on_message_complete()

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
