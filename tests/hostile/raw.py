"""A client that sends exactly the bytes it is given, and reads whatever comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

PATIENCE_S: Final = 20.0
HAS_NO_BODY: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """Return the code of a problem document, None if this is none."""
        if not self.headers.get("content-type", "").startswith("application/problem+json"):
            return None
        problem: dict[str, Any] = json.loads(self.body)
        return str(problem["code"]) if problem.get("status") == self.status else None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back. `rest` is what is not a whole answer; `closed` tells that the server ended the connection."""

    answers: list[Answer]
    rest: bytes
    closed: bool
    began_s: float


async def exchange(
    port: int, pieces: Iterable[bytes], *, answers: int = 1, head_only: bool = False, patience_s: float = PATIENCE_S
) -> Exchange:
    """Send the pieces, wait for that many answers, a close or the end of patience, then hang up and read the rest."""
    began_s, came, closed = time.monotonic(), Answers(head_only), False
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.create_task(_send(writer, pieces))
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while len(came.whole) < answers and not closed:
                    piece = await _read(reader)
                    came.feed(piece)
                    closed = not piece
        if not closed:
            await asyncio.wait({sending}, timeout=PATIENCE_S)
            with contextlib.suppress(OSError, TimeoutError):
                writer.write_eof()
                async with asyncio.timeout(PATIENCE_S):
                    while piece := await _read(reader):
                        came.feed(piece)
    finally:
        sending.cancel()
        writer.transport.abort()
    return Exchange(came.whole, bytes(came.rest), closed, began_s)


async def _send(writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    with contextlib.suppress(OSError):  # the server may have heard enough
        for piece in pieces:
            writer.write(piece)
            await writer.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except OSError:
        return b""


class Answers:
    """Reads answers as they come. Interim ones (100) are passed over; after 101 nothing more is HTTP."""

    def __init__(self, head_only: bool = False) -> None:
        self.whole: list[Answer] = []
        self.rest = bytearray()
        self._head_only = head_only

    def feed(self, data: bytes) -> None:
        self.rest += data
        while not (self.whole and self.whole[-1].status == 101) and self._take():
            pass

    def _take(self) -> bool:
        head_end = self.rest.find(b"\r\n\r\n")
        if head_end < 0 or not self.rest.startswith(b"HTTP/1.1 "):
            return False
        first, *lines = self.rest[:head_end].decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body, end = b"", head_end + 4
        if not (self._head_only or status < 200 or status in HAS_NO_BODY):
            if headers.get("transfer-encoding") == "chunked":
                body, end = self._chunks(end)
            else:
                length = int(headers.get("content-length", 0))
                body, end = bytes(self.rest[end : end + length]), end + length
            if not head_end < end <= len(self.rest):
                return False
        del self.rest[:end]
        if status != 100:
            self.whole.append(Answer(status, headers, body))
        return True

    def _chunks(self, at: int) -> tuple[bytes, int]:
        """Return the body and where it ends, or 0 if it has not come yet."""
        body = b""
        while (line_end := self.rest.find(b"\r\n", at)) >= 0:
            length, at = int(self.rest[at:line_end], 16), line_end + 2
            body += self.rest[at : at + length]
            at += length + 2
            if not length:
                return body, at
        return b"", 0
