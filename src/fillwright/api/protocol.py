"""What uvicorn's protocol classes do not do by themselves.

- Only a GET can become a WebSocket (RFC 6455, 4.1); a POST that asks for an upgrade is answered as a plain POST.
- Closing does not wait for a client that does not read: the close frame follows what is already buffered, and the
  connection is dropped if the client has not taken it in time.
"""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINGER_S: Final = 10


class HttpProtocol(HttpToolsProtocol):
    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close" and self.handshake_complete and not self.transport.is_closing():
            self.writable.set()
            self.loop.call_later(LINGER_S, self.transport.abort)
        await super().send(message)
