"""Clients that take their time, hundreds at once: each must be ended by the server, and others served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from typing import Final

from fillwright.api.protocol import LOOK_S
from tests.hostile.bystander import a_bystander
from tests.hostile.corpus import CHUNKED, EXECUTE, JSON, ORDER, QUOTES, UPGRADE, get, post, request

DRIBBLE_S: Final = 2.0
BOUND_S: Final = 2 * LOOK_S + 5.0
BYSTANDER_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Slow:
    """Says `opening` at once and `dribble` every now and then; may hang up its side, and may not read."""

    opening: bytes = b""
    dribble: bytes = b""
    hangs_up: bool = False
    reads: bool = True


def _begun(*headers: str, path: str = EXECUTE) -> bytes:
    return request("POST", path, JSON, *headers)


ANNOUNCED: Final = "Content-Length: 9000"
KINDS: Final = {
    "says nothing": Slow(),
    "sends empty lines": Slow(dribble=b"\r\n"),
    "sends a path letter by letter": Slow(b"GET /", b"a"),
    "sends a head line by line": Slow(b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
    "stops in a head": Slow(b"POST /api/orders/execute HTTP/1.1\r\nHost: local"),
    "stops before a body": Slow(_begun(ANNOUNCED)),
    "sends a body byte by byte": Slow(_begun(ANNOUNCED) + b"{", b" "),
    "sends a quote's body byte by byte": Slow(_begun(ANNOUNCED, path=QUOTES) + b"{", b" "),
    "sends a body chunk by chunk": Slow(_begun(CHUNKED), b"1\r\n \r\n"),
    "sends a chunk's extension": Slow(_begun(CHUNKED) + b"1;", b"x"),
    "sends trailers": Slow(_begun(CHUNKED) + b"1\r\n \r\n0\r\n", b"X: y\r\n"),
    "waits after 100 Continue": Slow(_begun(ANNOUNCED, "Expect: 100-continue")),
    "streams a body that nobody reads": Slow(request("GET", "/health", "Content-Length: 999999"), b" "),
    "stops in a handshake": Slow(get("/api/stream", *UPGRADE)[:-2]),
    "is idle after an answer": Slow(get("/health/live")),
    "is idle after an order": Slow(post(ORDER)),
    "sends empty lines after an answer": Slow(get("/health/live"), b"\r\n"),
    "stops in its second request": Slow(post(ORDER) + b"GET /health HT"),
    "hangs up in a head": Slow(b"GET /health HTTP/1.1\r\n", hangs_up=True),
    "hangs up in a body": Slow(_begun(ANNOUNCED) + ORDER, hangs_up=True),
    "does not read its answers": Slow(get("/openapi.json") * 2_000, reads=False),
    "does not read, and goes on asking": Slow(get("/docs") * 2_000, get("/docs") * 50, reads=False),
}


@dataclass(slots=True)
class Patience:
    """How it went: `longest_s` is how long the most tenacious client was borne with."""

    clients: int = 0
    longest_s: float = 0.0
    bystander_worst_ms: float = 0.0
    failures: list[str] = field(default_factory=list)


async def be_slow(port: int, each: int) -> Patience:
    """Have `each` clients of every kind at once, and return when the server has ended them all."""
    patience = Patience()

    async def one(name: str, slow: Slow) -> None:
        patience.clients += 1
        lasted_s = await _outlast(port, slow)
        if lasted_s is None:
            patience.failures.append(f"a client that {name} is still there after {BOUND_S:.0f} s")
        else:
            patience.longest_s = max(patience.longest_s, round(lasted_s, 1))

    async with a_bystander(port, BYSTANDER_S) as bystander:
        await asyncio.gather(*(one(name, slow) for name, slow in KINDS.items() for _ in range(each)))
    patience.bystander_worst_ms = bystander.worst_ms
    patience.failures += bystander.complaints
    return patience


async def _outlast(port: int, slow: Slow) -> float | None:
    """Return after how long the server ended the connection, None if it did not in time."""
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if not slow.reads:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.setblocking(False)
    await loop.sock_connect(connection, ("127.0.0.1", port))
    began_s = loop.time()
    reader, writer = await asyncio.open_connection(sock=connection, limit=4_096)
    writer.write(slow.opening)
    if slow.hangs_up:
        writer.write_eof()
    dribbling = asyncio.create_task(_dribble(writer, slow.dribble)) if slow.dribble else None
    try:
        if not slow.reads:
            await asyncio.sleep(BOUND_S)  # a close that has not been read for cannot be seen
        async with asyncio.timeout(DRIBBLE_S if not slow.reads else BOUND_S):
            with contextlib.suppress(OSError):
                while await reader.read(1 << 16):
                    pass
        return loop.time() - began_s if slow.reads else 0.0
    except TimeoutError:
        return None
    finally:
        if dribbling is not None:
            dribbling.cancel()
        writer.transport.abort()


async def _dribble(writer: asyncio.StreamWriter, dribble: bytes) -> None:
    with contextlib.suppress(OSError):
        while not writer.transport.is_closing():
            await asyncio.sleep(DRIBBLE_S)
            writer.write(dribble)
