"""A line between a client and a server that can be cut at the worst moments."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit


class Relay:
    """Passes bytes on. `url` is the server's, by way of here."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._loses_replies_to: bytes | None = None
        self._refuses = False
        self._moving = asyncio.Event()
        self._moving.set()
        self._lines: set[asyncio.StreamWriter] = set()
        self.lost = 0
        self.url = ""

    def lose_the_reply_to(self, words: bytes) -> None:
        """Let the next request with these words through, and cut the line when the server has answered it."""
        self._loses_replies_to = words

    def stand_still(self) -> None:
        """Keep the lines, and pass nothing on any more."""
        self._moving.clear()

    def aim(self, url: str) -> None:
        """Lead new lines to another server."""
        self._target = urlsplit(url)

    def refuse(self, *, refusing: bool = True) -> None:
        """Cut every line, and take no new one for the time being."""
        self._refuses = refusing
        for line in self._lines:
            line.transport.abort()

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        host = self._target.netloc.rpartition(":")[0]
        self.url = urlunsplit(self._target._replace(netloc=f"{host}:{port}"))
        return server

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        assert self._target.hostname is not None
        try:
            far_reader, far_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        except ConnectionError:
            writer.transport.abort()
            return
        self._lines |= {writer, far_writer}
        cutting = asyncio.Event()

        async def pass_on() -> None:
            while data := await reader.read(65_536):
                if self._loses_replies_to is not None and self._loses_replies_to in data:
                    self._loses_replies_to = None
                    cutting.set()
                await self._moving.wait()
                far_writer.write(data)

        async def pass_back() -> None:
            while data := await far_reader.read(65_536):
                if cutting.is_set():
                    self.lost += 1
                    return
                await self._moving.wait()
                writer.write(data)

        directions = [asyncio.create_task(pass_on()), asyncio.create_task(pass_back())]
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        self._lines -= {writer, far_writer}
        writer.transport.abort()
        far_writer.close()


@contextlib.asynccontextmanager
async def a_relay(url: str) -> AsyncIterator[Relay]:
    relay = Relay(url)
    server = await relay.serve()
    try:
        yield relay
    finally:
        server.close()
        relay.refuse()
