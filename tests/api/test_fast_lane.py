"""What a client sends in one piece, in many, or several at a time: the answers are the same by either way in."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final

import pytest

from tests.virtual import until
from tests.world import SWAP, World, a_world

BODY: Final = json.dumps(SWAP).encode()
PLAIN: Final = "Content-Type: application/json"


def a_post(body: bytes = BODY, *headers: str, length: int | None = None) -> bytes:
    lines = ["POST /api/orders/execute HTTP/1.1", "Host: localhost", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def exchange(world: World, *pieces: bytes, answers: int = 1) -> list[tuple[str, dict[str, str], bytes]]:
    """Send the pieces one by one over one connection, and return that many answers: status line, headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.001)
    got = []
    for _ in range(answers):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        got.append((status, headers, await reader.readexactly(int(headers["content-length"]))))
    writer.close()
    return got


REQUESTS: Final = {
    "an order": a_post(BODY, PLAIN),
    "with a charset": a_post(BODY, "content-type: Application/JSON; charset=utf-8"),
    "with a key": a_post(BODY, PLAIN, "Idempotency-Key: mine"),
    "with two keys": a_post(BODY, PLAIN, "Idempotency-Key: a", "Idempotency-Key: b"),
    "not JSON": a_post(b"{", PLAIN),
    "no content type": a_post(),
    "an empty body": a_post(b"", PLAIN),
    "an order that cannot be meant": a_post(b'{"tokenIn":"SOL","tokenOut":"SOL","amount":1}', PLAIN),
    "to be closed": a_post(BODY, PLAIN, "Connection: close"),
    "by way of a proxy": a_post(BODY, PLAIN, "X-Forwarded-Proto: https", "X-Forwarded-Host: example.com"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_both_ways_in_give_the_same_answer(request_: bytes) -> None:
    answers = []
    for lane in ("on", "off"):
        async with a_world(working=False, fast_lane=lane) as world:
            (answer,) = await exchange(world, request_)
            status, headers, body = answer
            told = re.sub(r"ord_[0-9A-Z]{26}|20\d\d-[0-9T:.-]+Z", "...", f"{headers}{body.decode()}")
            answers.append((status, told))
    assert answers[0] == answers[1]


async def test_an_order_that_comes_byte_by_byte_is_taken_once() -> None:
    async with a_world() as world:
        request = a_post(BODY, PLAIN)
        ((status, _, body),) = await exchange(world, *(request[at : at + 1] for at in range(len(request))))
        assert status == "HTTP/1.1 201 Created"
        assert len((await world.get("/api/orders"))[1]["orders"]) == 1
        assert (await world.statuses(json.loads(body)["orderId"]))[-1] == "confirmed"


async def test_requests_that_come_at_once_are_answered_in_their_order() -> None:
    async with a_world() as world:
        keys = [f"key-{number}" for number in range(8)]
        posts = [a_post(BODY, PLAIN, f"Idempotency-Key: {key}") for key in keys]
        health = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        together = b"".join([*posts[:4], health, *posts[4:]])
        answers = await exchange(world, together, answers=9)
        told = [json.loads(body).get("clientOrderId") for _, _, body in answers]
        assert told == [*keys[:4], None, *keys[4:]]


async def test_a_connection_serves_one_order_after_another_and_whatever_else() -> None:
    async with a_world() as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        for number in range(20):
            health = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
            writer.write(health if number % 3 == 2 else a_post(BODY, PLAIN))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            await reader.readexactly(int(head.lower().partition("content-length: ")[2].split("\r\n")[0]))
            assert head.startswith("HTTP/1.1 20")
        writer.close()


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async with a_world(body_max_bytes=1_000) as world:
        ((status, _, body),) = await exchange(world, a_post(b" " * 2_000, PLAIN, length=10_000_000))
        assert status.startswith("HTTP/1.1 413")
        assert json.loads(body)["code"] == "payload_too_large"


async def test_an_order_in_chunks_is_taken() -> None:
    async with a_world() as world:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:5], BODY[5:])) + b"0\r\n\r\n"
        head = f"POST /api/orders/execute HTTP/1.1\r\nHost: localhost\r\n{PLAIN}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ((status, _, _),) = await exchange(world, head.encode() + chunks)
        assert status == "HTTP/1.1 201 Created"


async def test_a_client_that_leaves_before_the_answer_leaves_an_order_that_is_executed_once() -> None:
    async with a_world() as world:
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(a_post(BODY, PLAIN, "Idempotency-Key: mine"))
        writer.transport.abort()
        await until(lambda: True)
        order_id = await world.submit(clientOrderId="theirs")
        assert (await world.statuses(order_id))[-1] == "confirmed"
        found = (await world.get("/api/orders?clientOrderId=mine"))[1]["orders"]
        assert len(found) <= 1
        for order in found:
            assert (await world.statuses(order["orderId"]))[-1] == "confirmed"
        assert (await world.reconcile()).findings == []


async def test_whatever_follows_an_order_that_is_not_answered_yet_is_not_taken_for_its_answer() -> None:
    upgrade = b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    for follows in (upgrade, b"what? \r\n\r\n"):
        async with a_world(working=False) as world:
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(a_post(BODY, PLAIN) + follows)
            assert (await reader.read()).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 201 Created")
            writer.close()


async def test_a_long_body_is_taken_where_it_is_allowed() -> None:
    async with a_world(body_max_bytes=200_000, working=False) as world:
        body = BODY + b" " * 150_000
        request = a_post(body, PLAIN)
        ((status, _, _),) = await exchange(world, *(request[at : at + 30_000] for at in range(0, len(request), 30_000)))
        assert status == "HTTP/1.1 201 Created"
