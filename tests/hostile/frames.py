"""WebSocket frames that no client library would send, after a handshake that is as it should be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from tests.hostile.attacks import CODES, Tally
from tests.hostile.bystander import a_bystander
from tests.hostile.corpus import BODIES, EXECUTE, NUMBERS, ODD_BODIES, ORDER, UPGRADE, VALUES, get, order_text
from tests.hostile.target import Target

PATHS: Final = (EXECUTE, "/api/stream")
AT_ONCE: Final = 8
PER_CONNECTION: Final = 12
PATIENCE_S: Final = 20.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PROPER_CODES: Final = frozenset({1000, 1002, 1003, 1007, 1008, 1009, 1012, 1013})
"""What the server may close with: 1011, a fault of its own, is not among them."""


def frame(opcode: int, data: bytes, *, fin: bool = True, reserved: int = 0, length: bytes | None = None) -> bytes:
    """Return a masked frame; `length` are the bytes that stand for its length."""
    if length is None:
        size = len(data)
        length = (
            bytes([size])
            if size < 126
            else b"\x7e" + size.to_bytes(2)
            if size < 1 << 16
            else b"\x7f" + size.to_bytes(8)
        )
    first = bytes([fin << 7 | reserved << 4 | opcode, length[0] | 0x80])
    mask = b"\x37\xfa\x21\x3d"
    masked = bytes(byte ^ mask[at & 3] for at, byte in enumerate(data))
    return first + length[1:] + mask + masked


def _text(dice: random.Random) -> bytes:
    """Return what is sent as an order: an order, or something that is not quite one."""
    match dice.randrange(4):
        case 0:
            field = dice.choice(["tokenIn", "amount", "slippage", "clientOrderId", "expiresAt", "orderType"])
            return order_text(**{field: dice.choice(VALUES + NUMBERS)})
        case 1:
            return dice.choice([body for body in (BODIES | ODD_BODIES).values() if len(body) < 10_000])
        case 2:
            return dice.choice([ORDER, order_text(clientOrderId=f'"k{dice.randrange(50)}"')])
        case _:
            spoiled = bytearray(ORDER)
            spoiled[dice.randrange(len(spoiled))] = dice.randrange(128)
            return bytes(spoiled)


def _spoiled(dice: random.Random) -> bytes:
    spoiled = bytearray(frame(TEXT, ORDER))
    for _ in range(dice.randint(1, 4)):
        spoiled[dice.randrange(len(spoiled))] = dice.randrange(256)
    return bytes(spoiled)


def _closing(dice: random.Random) -> bytes:
    code = dice.choice([0, 1, 999, 1000, 1001, 1004, 1005, 1006, 1015, 1016, 2_999, 3_000, 4_999, 5_000, 65_535])
    return frame(CLOSE, code.to_bytes(2) + dice.choice([b"", b"bye", b"\xff\xfe", b"x" * 123]))


MESSAGES: Final[Mapping[str, Callable[[random.Random], bytes]]] = {
    "JSON, or nearly": lambda dice: frame(TEXT, _text(dice)),
    "JSON in pieces": lambda _: frame(TEXT, ORDER[:20], fin=False) + frame(PING, b"") + frame(0, ORDER[20:]),
    "binary": lambda dice: frame(BINARY, dice.randbytes(dice.randrange(2_000))),
    "an empty text": lambda _: frame(TEXT, b""),
    "200 empty pieces": lambda _: frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) * 200 + frame(0, b"x"),
}
"""Each is owed an answer where orders are taken."""
KINDS: Final[Mapping[str, Callable[[random.Random], bytes]]] = {
    **MESSAGES,
    "a ping": lambda dice: frame(PING, dice.randbytes(dice.randrange(126))),
    "a pong that nobody asked for": lambda dice: frame(PONG, dice.randbytes(dice.randrange(126))),
    "an unknown opcode": lambda dice: frame(dice.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), b"x"),
    "reserved bits": lambda dice: frame(dice.choice([TEXT, BINARY, PING, CLOSE]), b"xx", reserved=dice.randint(1, 7)),
    "no mask": lambda dice: bytes([0x80 | dice.choice([TEXT, BINARY, PING]), 5]) + b"abcde",
    "a continuation of nothing": lambda _: frame(0, b"x"),
    "a message in a message": lambda _: frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
    "a control frame in pieces": lambda dice: frame(dice.choice([PING, CLOSE]), b"xx", fin=False),
    "a control frame too long": lambda dice: frame(dice.choice([PING, PONG, CLOSE]), b"x" * dice.randint(126, 5_000)),
    "text that is not UTF-8": lambda dice: frame(TEXT, dice.choice([b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"{\x80}"])),
    "half a character": lambda _: frame(TEXT, b"\xe2\x82", fin=False) + frame(0, b"\x28"),
    "a close": _closing,
    "a close of one byte": lambda _: frame(CLOSE, b"\x03"),
    "a length longer than need be": lambda _: frame(TEXT, b"abc", length=b"\x7e\x00\x03"),
    "a length of 2^63": lambda _: frame(TEXT, b"abc", length=b"\x7f" + b"\x80" + bytes(7)),
    "a length of 2^62": lambda _: frame(TEXT, b"abc", length=b"\x7f" + b"\x40" + bytes(7)),
    "a message too long": lambda dice: frame(TEXT, b" " * dice.choice([16_385, 70_000])),
    "a message too long in pieces": lambda _: frame(TEXT, b" " * 9_000, fin=False) + frame(0, b" " * 9_000),
    "less than announced": lambda dice: frame(dice.choice([TEXT, PING]), b"abc", length=b"\x7d"),
    "spoiled": _spoiled,
    "noise": lambda dice: dice.randbytes(dice.choice([1, 2, 10, 300])),
}
FLOODS: Final = {
    "pings": (frame(PING, b""), 40_000),
    "empty texts": (frame(TEXT, b""), 10_000),
    "empty orders": (frame(TEXT, b"{}"), 10_000),
}
HARMLESS: Final = len(MESSAGES) + 2  # the first of them end no connection
ANSWERS: Final = (b'"event":"error"', b'"event":"order:accepted"')


async def send_frames(target: Target, frames: int, seed: int) -> Tally:
    """Send that many, some connections at a time, while a bystander follows a stream of its own."""
    tally, timeline = Tally(), list[tuple[float, str]]()
    kinds = list(KINDS)
    await target.stalls()

    async def attacker() -> None:
        while tally.requests < frames:
            number = len(timeline)
            dice = random.Random(f"{seed}/{number}")
            path, patient = dice.choice(PATHS), dice.random() < 0.5
            sent = dice.choices(kinds[:HARMLESS] if patient else kinds, k=min(PER_CONNECTION, frames - tally.requests))
            tally.requests += len(sent)
            owed = sum(kind in MESSAGES for kind in sent) if patient and path == EXECUTE else 0
            name = f"frames to {path}, connection {number} of seed {seed}: {', '.join(sent)}"
            timeline.append((time.monotonic(), name))
            wrong = await _connection(target.port, path, [KINDS[kind](dice) for kind in sent], owed)
            tally.failures += [f"{name}: {what}" for what in wrong]

    async with a_bystander(target.port) as bystander:
        await asyncio.gather(*(attacker() for _ in range(AT_ONCE)))
    tally.failures += bystander.complaints
    tally.blame(await target.stalls(), timeline)
    tally.failures += [f"the engine says: {fault}" for fault in target.faults]
    return tally


async def send_floods(target: Target) -> Tally:
    """Send as many of the smallest frames as one read of a socket brings, again and again."""
    tally, timeline = Tally(), list[tuple[float, str]]()
    await target.stalls()
    async with a_bystander(target.port) as bystander:
        for path in PATHS:
            for kind, (tiny, count) in FLOODS.items():
                timeline.append((time.monotonic(), f"{count:,} {kind} to {path}"))
                tally.requests += count
                wrong = await _connection(target.port, path, [tiny] * count, owed=0)
                tally.failures += [f"{timeline[-1][1]}: {what}" for what in wrong]
    tally.failures += bystander.complaints
    tally.blame(await target.stalls(), timeline)
    tally.failures += [f"the engine says: {fault}" for fault in target.faults]
    return tally


async def _connection(port: int, path: str, frames: list[bytes], owed: int) -> list[str]:
    """Shake hands, send the frames, hang up once all answers have come, and return what is wrong with what came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(get(path, *UPGRADE))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                return [f"a good handshake was answered with {head[:60]!r}"]
            with contextlib.suppress(OSError):  # it may have heard enough
                writer.write(b"".join(frames))
                await writer.drain()
            came = b""
            with contextlib.suppress(OSError):
                while sum(map(came.count, ANSWERS)) < owed and (piece := await reader.read(1 << 16)):
                    came += piece
                writer.write_eof()
                while piece := await reader.read(1 << 16):
                    came += piece
            return judge(came)
    except TimeoutError:
        return ["neither answered nor closed"]
    finally:
        writer.transport.abort()


def judge(came: bytes) -> list[str]:
    """Return what is wrong with the server's frames."""
    wrong = list[str]()
    while len(came) >= 2:
        opcode, size, at = came[0] & 15, came[1], 2
        if size == 126:
            size, at = int.from_bytes(came[2:4]), 4
        data, rest = came[at : at + size], came[at + size :]
        if len(data) < size:
            break  # cut off by our hanging up
        if came[0] & 0xF0 != 0x80 or came[1] & 0x80 or opcode not in (TEXT, CLOSE, PING, PONG):
            return [*wrong, f"not a frame: {came[:20]!r}"]
        if opcode == TEXT:
            message = json.loads(data)
            if message["event"] == "error" and message["code"] not in CODES:
                wrong.append(f"an error without a code: {message}")
        if opcode == CLOSE and data and int.from_bytes(data[:2]) not in PROPER_CODES | {code_sent(data)}:
            wrong.append(f"closed with {int.from_bytes(data[:2])}: {data[2:]!r}")
        came = rest
    return wrong


def code_sent(data: bytes) -> int:
    """Return a close's code if it is one that only a client's own close, said back to it, can have brought about."""
    code = int.from_bytes(data[:2])
    return code if code in (1001, 1016, 2_999) or 3_000 <= code < 5_000 else 0
