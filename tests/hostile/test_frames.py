"""No frame ends anything but its own connection, and no client's silence is held for ever."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from fillwright.api.protocol import LOOK_S
from tests.hostile.corpus import EXECUTE, UPGRADE, get
from tests.hostile.frames import CLOSE, PING, TEXT, frame, send_floods, send_frames
from tests.hostile.target import a_target
from tests.process import in_real_time
from tests.virtual import until
from tests.world import World, a_world

FRAMES = 1_000
SEED = 20_261_125


def test_a_thousand_fuzzed_frames_are_answered_or_end_their_connection_properly(tmp_path: Path) -> None:
    async def sent() -> None:
        async with a_target(tmp_path) as target:
            tally = await send_frames(target, FRAMES, SEED)
        assert tally.failures == []
        assert tally.requests == FRAMES

    in_real_time(sent())


def test_a_flood_of_tiny_frames_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    async def flooded() -> None:
        async with a_target(tmp_path) as target:
            assert (await send_floods(target)).failures == []

    in_real_time(flooded())


async def test_a_flood_of_orders_over_one_socket_is_answered_one_by_one() -> None:
    async with a_world(working=False) as world:
        reader, writer = await shake_hands(world, EXECUTE)
        order = json.dumps({"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1}).encode()
        writer.write(frame(TEXT, order) * 300)
        came = b""
        while came.count(b"order:accepted") < 300:
            came += await reader.read(1 << 16)
        assert (await world.get("/api/orders/stats"))[1]["queue"]["total"] == 300
        writer.close()


def test_pings_that_nobody_reads_the_answers_to_do_not_fill_the_memory(tmp_path: Path) -> None:
    async def flooded() -> None:
        async with a_target(tmp_path) as target:
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=1_024)
            writer.write(get("/api/stream", *UPGRADE))
            await reader.readuntil(b"\r\n\r\n")
            before = await target.memory_bytes()
            for _ in range(300):
                writer.write(frame(PING, b"x" * 125) * 1_000)
                await writer.drain()
            assert await target.memory_bytes() - before < 15_000_000
            assert target.faults == []
            writer.transport.abort()

    in_real_time(flooded())


async def shake_hands(world: World, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = socket.create_connection(("127.0.0.1", world.port))
    connection.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connection)
    writer.write(get(path, *UPGRADE))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xe2\x82", fin=False) + frame(0, b"\x28"), 1007),
        (frame(TEXT, b"\xff") + frame(CLOSE, b"\x03\xe8"), 1000),  # both were read before either was looked at
    ],
    ids=["at once", "in pieces", "and a close"],
)
async def test_text_that_is_not_utf8_is_closed_with_its_code(frames: bytes, code: int) -> None:
    async with a_world(working=False) as world:
        reader, writer = await shake_hands(world, EXECUTE)
        writer.write(frames)
        came = await reader.read()
        writer.close()
        assert int.from_bytes(came[came.rindex(b"\x88") + 2 :][:2]) == code


async def test_an_order_that_goes_on_after_its_socket_has_failed_is_no_fault_of_the_engine() -> None:
    async with a_world() as world:
        reader, writer = await shake_hands(world, EXECUTE)
        writer.write(frame(TEXT, json.dumps({"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1}).encode()))
        while b"order:accepted" not in await reader.read(1 << 16):
            pass
        writer.write(frame(3, b"no such opcode"))
        await reader.read()
        await until(lambda: world.engine.streams.connections == 0)
        assert (await world.get("/health"))[0] == 200
        writer.close()


async def test_a_client_that_does_not_take_the_close_is_dropped() -> None:
    async with a_world(working=False) as world:
        _, writer = await shake_hands(world, "/api/stream")
        writer.transport.pause_reading()  # type: ignore[attr-defined] # of the transport, which is one that reads
        started = world.clock.now_ms()
        await until(lambda: world.engine.streams.connections == 0)
        assert world.clock.now_ms() - started <= (20 + 20 + 2 * LOOK_S) * 1_000
        writer.transport.abort()
