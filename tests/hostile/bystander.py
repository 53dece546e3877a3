"""A client that means well, while others do not: it must be served all the time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

LATE_S: Final = 3.0
ALIVE: Final = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Bystander:
    def __init__(self, port: int, pause_s: float) -> None:
        self.waits_s: list[float] = []
        self.complaints: list[str] = []
        self._port = port
        self._pause_s = pause_s

    @property
    def worst_ms(self) -> float:
        return round(max(self.waits_s, default=0.0) * 1000, 1)

    async def ask_on(self) -> None:
        """Ask on a new connection again and again. An answer that takes `LATE_S` is a complaint."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                async with asyncio.timeout(LATE_S):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    with contextlib.closing(writer):  # also when nobody asks any more
                        writer.write(ALIVE)
                        answer = await reader.read()
                if not answer.startswith(b"HTTP/1.1 200 "):
                    self.complaints.append(f"the bystander was answered with {answer[:80]!r}")
            except (OSError, TimeoutError) as error:
                self.complaints.append(f"the bystander was not served: {error!r}")
            self.waits_s.append(loop.time() - began_s)
            await asyncio.sleep(self._pause_s)


@contextlib.asynccontextmanager
async def a_bystander(port: int, pause_s: float = 0.02) -> AsyncIterator[Bystander]:
    bystander = Bystander(port, pause_s)
    asking = asyncio.create_task(bystander.ask_on())
    try:
        yield bystander
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        if not bystander.waits_s:
            bystander.complaints.append("the bystander was never served")
