"""Whatever is sent, the engine refuses it with a code, does nothing by it, and serves the next one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fillwright.api.protocol import LOOK_S
from tests.hostile.attacks import attack_all
from tests.hostile.corpus import CHUNKED, CHUNKS, CORPUS, EXECUTE, JSON, ORDER, UPGRADE, get, post, request
from tests.hostile.raw import Answers, exchange
from tests.hostile.target import a_target
from tests.process import in_real_time
from tests.virtual import until
from tests.world import a_world


@pytest.mark.parametrize("lane", ["on", "off"])
def test_every_hostile_request_is_refused_or_served_and_leaves_no_trace(lane: str, tmp_path: Path) -> None:
    async def attacked() -> None:
        async with a_target(tmp_path, fillwright_fast_lane=lane) as target:
            tally = await attack_all(target, CORPUS)
        assert tally.failures == []
        assert tally.requests == len(CORPUS)

    in_real_time(attacked(), within_s=240)


def test_what_reaches_a_postgresql_is_refused_as_it_is_elsewhere(postgres_url: str, tmp_path: Path) -> None:
    reaching = [attack for attack in CORPUS if attack.group in ("types", "ids", "queries", "JSON")]

    async def attacked() -> None:
        ledger = tmp_path / "chain.db"
        async with a_target(tmp_path, database_url=postgres_url, fillwright_sim_ledger=ledger) as target:
            tally = await attack_all(target, reaching)
        assert tally.failures == []

    in_real_time(attacked(), within_s=120)


def test_the_corpus_names_each_attack_once_and_has_at_least_300() -> None:
    names = [(attack.group, attack.name) for attack in CORPUS]
    assert len(set(names)) == len(names) >= 300


@pytest.mark.parametrize("lane", ["on", "off"])
async def test_a_body_that_goes_wrong_is_refused_and_what_came_before_it_is_answered(lane: str) -> None:
    async with a_world(working=False, fast_lane=lane) as world:
        wrong = request("POST", EXECUTE, JSON, CHUNKED, body=b"zz\r\n", length=False)
        came = await exchange(world.port, [post(ORDER) + wrong], answers=2)
        assert [answer.status for answer in came.answers] == [201] or came.answers[1].code == "invalid_request"
        came = await exchange(world.port, [post(ORDER), wrong], answers=2)
        assert came.answers[0].status == 201
        came = await exchange(world.port, [post(ORDER) + b"\x16\x03\x01"], answers=2)
        assert [answer.status for answer in came.answers] == [201], "an order that is accepted is acknowledged"
        assert (await world.get("/api/orders/stats"))[1]["queue"]["total"] == 3


async def test_a_request_that_was_refused_early_and_then_goes_wrong_has_one_answer() -> None:
    async with a_world(working=False) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        came = Answers()
        writer.write(request("POST", EXECUTE, JSON, CHUNKED) + b"5000\r\n" + b" " * 0x5000 + b"\r\n")
        while not came.whole:
            came.feed(await reader.read(1 << 16))
        writer.write(b"zz\r\n")
        came.feed(await reader.read())
        assert ([answer.status for answer in came.whole], bytes(came.rest)) == ([413], b"")
        writer.close()


async def test_what_trails_a_body_is_not_taken_for_a_header() -> None:
    async with a_world(working=False) as world:
        body = CHUNKS[:-2] + b"Idempotency-Key: smuggled\r\n\r\n"
        came = await exchange(world.port, [request("POST", EXECUTE, JSON, CHUNKED, body=body, length=False)])
        assert (came.answers[0].status, json.loads(came.answers[0].body)["clientOrderId"]) == (201, None)


async def test_a_head_that_does_not_end_is_refused_before_it_fills_the_memory() -> None:
    async with a_world(working=False) as world:
        came = await exchange(world.port, [b"GET / HTTP/1.1\r\nX: ", *[b"y" * 50_000] * 200], answers=2)
        assert came.closed
        assert [answer.code for answer in came.answers] in (["invalid_request"], [])


async def test_a_request_that_takes_too_long_to_come_is_told_so() -> None:
    async with a_world(working=False) as world:
        for begun in (b"GET /health HTTP/1.1\r\n", request("POST", EXECUTE, JSON, "Content-Length: 9")):
            started = world.clock.now_ms()
            came = await exchange(world.port, [begun], patience_s=100)
            assert [answer.code for answer in came.answers] == ["invalid_request"]
            assert LOOK_S * 1000 <= world.clock.now_ms() - started <= 2 * LOOK_S * 1000 + 1_000


async def test_requests_that_pile_up_are_dropped_with_their_client() -> None:
    async with a_world(working=False) as world:
        for asked in (get("/docs"), post(ORDER)):
            _, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(asked * 50)
            await asyncio.sleep(0.001)
            writer.transport.abort()
            await until(lambda: True)
        assert (await world.get("/health"))[0] == 200


@pytest.mark.parametrize(
    "lines",
    [("Sec-WebSocket-Key: x",), ("X: " + "y" * 9_000,), tuple(f"X{number}: y" for number in range(200))],
    ids=["a second key", "a long header", "200 headers"],
)
async def test_a_handshake_that_is_refused_is_a_problem_document(lines: tuple[str, ...]) -> None:
    async with a_world(working=False) as world:
        came = await exchange(world.port, [get("/api/stream", *UPGRADE, *lines)], answers=2)
        assert came.closed
        assert [answer.code for answer in came.answers] == ["invalid_request"]


async def test_no_stream_where_there_is_none_however_it_is_asked_for() -> None:
    async with a_world(working=False) as world:
        for target in ("/nowhere", "http://engine/api/stream", "*"):
            came = await exchange(world.port, [get(target, *UPGRADE)])
            assert [(answer.status, answer.code) for answer in came.answers] == [(404, "not_found")]


async def test_orders_are_not_looked_for_by_what_cannot_be_a_client_order_id() -> None:
    async with a_world(working=False) as world:
        for text in ("%00", "", "a%20b", "%ED%A0%80", "x" * 129):
            status, problem = await world.get(f"/api/orders?clientOrderId={text}")
            assert (status, problem["code"], problem["field"]) == (400, "invalid_order", "clientOrderId")


async def test_what_cannot_be_cancelled_by_its_nature_says_so() -> None:
    async with a_world(working=False) as world, world.http.delete("/api/orders/stats") as response:
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
