"""Hints save asking and carry no truth: whatever becomes of them changes nothing but time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import structlog
from aiohttp import WSMsgType, web

from fillwright.chain.hints import Hints
from fillwright.core.units import Signature
from tests import virtual
from tests.process import in_real_time

KEY: Final = "CanaryKeyThatMustNotSing"
POLL_MS: Final = 200
SPAN_MS: Final = 5_000
ONE, OTHER = Signature("1" * 64), Signature("2" * 64)


class Sockets:
    """A node's WebSocket door: it notes what is subscribed to, and says what the test wants."""

    def __init__(self) -> None:
        self.url = ""
        self.is_open = True
        self.answers = True
        self.connections = 0
        self.calls: list[tuple[str, Any]] = []
        self.subscriptions: dict[str, int] = {}
        self.sockets: list[web.WebSocketResponse] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        if not self.is_open:
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            assert message.type is WSMsgType.TEXT
            call = json.loads(message.data)
            self.calls.append((call["method"], call["params"]))
            if not self.answers:
                continue
            number = len(self.calls) + 100
            if call["method"] == "signatureSubscribe":
                self.subscriptions[call["params"][0]] = number
            await socket.send_json({"jsonrpc": "2.0", "result": number, "id": call["id"]})
        return socket

    async def say(self, message: Any) -> None:
        await self.sockets[-1].send_str(message if isinstance(message, str) else json.dumps(message))

    async def notify(self, signature: str) -> None:
        result = {"context": {"slot": 5}, "value": {"err": None}}
        params = {"result": result, "subscription": self.subscriptions[signature]}
        await self.say({"jsonrpc": "2.0", "method": "signatureNotification", "params": params})

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]


@asynccontextmanager
async def listening(sockets: Sockets, *, connected: bool = True, watched_max: int = 1_000) -> AsyncIterator[Hints]:
    application = web.Application()
    application.router.add_get("/{path:.*}", sockets.serve)
    runner = web.AppRunner(application, shutdown_timeout=0, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    hints = Hints(f"ws://{host}:{port}/{KEY}?api-key={KEY}", POLL_MS, watched_max, chance=lambda: 0.0)
    running = asyncio.create_task(hints.run())
    try:
        if connected:
            await virtual.until(lambda: hints.is_connected)
        yield hints
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await runner.cleanup()


async def took_ms(hints: Hints, signature: Signature = ONE, span_ms: int = SPAN_MS) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await hints.wait(signature, span_ms)
    return (loop.time() - began_s) * 1000


def about(span_ms: float) -> Any:
    return pytest.approx(span_ms, abs=60)


async def test_who_waits_for_a_signature_looks_as_soon_as_there_is_news_of_it() -> None:
    sockets = Sockets()
    async with listening(sockets) as hints:
        waiting = [asyncio.create_task(took_ms(hints, each)) for each in (ONE, ONE, OTHER)]
        await asyncio.sleep(1)
        await sockets.notify(ONE)
        assert await asyncio.gather(*waiting) == [about(1_000), about(1_000), about(SPAN_MS)]
    assert sockets.calls[:2] == [
        ("slotSubscribe", []),
        ("signatureSubscribe", [ONE, {"commitment": "finalized"}]),
    ]
    assert sockets.methods.count("signatureSubscribe") == 2


def test_on_real_time_news_is_passed_on_at_once() -> None:
    async def test() -> None:
        sockets = Sockets()
        async with listening(sockets) as hints:
            waiting = asyncio.create_task(took_ms(hints, span_ms=30_000))
            await virtual.until(lambda: ONE in sockets.subscriptions)
            await sockets.notify(ONE)
            assert await waiting < 5_000

    in_real_time(test())


async def test_news_that_is_lost_costs_the_span_and_no_more() -> None:
    sockets = Sockets()
    async with listening(sockets) as hints:
        assert [await took_ms(hints) for _ in range(3)] == [about(SPAN_MS)] * 3
    assert sockets.methods == ["slotSubscribe", "signatureSubscribe"]


async def test_news_that_comes_while_nobody_waits_does_not_keep_the_next_one_waiting() -> None:
    sockets = Sockets()
    async with listening(sockets) as hints:
        await took_ms(hints)
        await sockets.notify(ONE)
        await asyncio.sleep(0.1)
        assert await took_ms(hints) == about(POLL_MS)


async def test_news_that_comes_twice_does_not_make_anybody_ask_without_a_pause() -> None:
    sockets = Sockets()
    async with listening(sockets) as hints:
        waiting = asyncio.create_task(took_ms(hints))
        await asyncio.sleep(0.1)
        for _ in range(3):
            await sockets.notify(ONE)
        await waiting
        assert [await took_ms(hints) for _ in range(3)] == [about(POLL_MS)] * 3


async def test_a_connection_that_closes_sends_everybody_to_look_for_themselves() -> None:
    sockets = Sockets()
    async with listening(sockets) as hints:
        waiting = [asyncio.create_task(took_ms(hints, each)) for each in (ONE, OTHER)]
        await asyncio.sleep(1)
        await sockets.sockets[-1].close()
        assert await asyncio.gather(*waiting) == [about(1_000)] * 2
        assert await took_ms(hints) == about(POLL_MS)
        await virtual.until(lambda: hints.is_connected)
        waiting = [asyncio.create_task(took_ms(hints))]
        await asyncio.sleep(0.1)
        await sockets.notify(ONE)
        assert await waiting[0] == about(100)


async def test_without_a_connection_the_chain_is_asked_at_the_usual_pace() -> None:
    off = Hints("", POLL_MS)
    await off.run()
    assert await took_ms(off) == about(POLL_MS)
    assert await took_ms(off, span_ms=50) == about(50)
    closed = Sockets()
    closed.is_open = False
    async with listening(closed, connected=False) as hints:
        assert [await took_ms(hints) for _ in range(10)] == [about(POLL_MS)] * 10


async def test_a_node_that_cannot_be_reached_is_tried_ever_less_often() -> None:
    closed = Sockets()
    closed.is_open = False
    async with listening(closed, connected=False) as hints:
        await asyncio.sleep(600)
        assert 20 < closed.connections < 30
        closed.is_open = True
        await virtual.until(lambda: hints.is_connected, within_ms=31_000)


async def test_a_connection_on_which_nothing_is_heard_is_made_anew() -> None:
    sockets = Sockets()
    sockets.answers = False
    async with listening(sockets):
        await asyncio.sleep(120)
        assert sockets.connections in (3, 4)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "?",
        "[]",
        "null",
        pytest.param('{"x":' + "[" * 100_000 + "]" * 100_000 + "}", id="nested without end"),
        '{"id": "1"}',
        {"id": 2, "error": {"code": -32602, "message": "Invalid params"}},
        {"id": 2, "result": True},
        {"id": 99, "result": 5},
        {"method": "signatureNotification"},
        {"method": "signatureNotification", "params": {"subscription": 99, "result": {}}},
        {"method": "signatureNotification", "params": {"subscription": "x"}},
        {"method": "slotNotification", "params": {"subscription": 1, "result": {"slot": 1, "parent": 0, "root": 0}}},
        {"method": "anotherNotification", "params": {"subscription": 102, "result": {}}},
    ],
)
async def test_whatever_else_a_node_says_changes_nothing(message: Any) -> None:
    sockets = Sockets()
    sockets.answers = False
    async with listening(sockets) as hints:
        waiting = asyncio.create_task(took_ms(hints))
        await asyncio.sleep(1)
        await sockets.say(message)
        assert await waiting == about(SPAN_MS)
        assert hints.is_connected


async def test_of_signatures_that_nobody_waits_for_any_more_the_oldest_make_room() -> None:
    sockets = Sockets()
    async with listening(sockets, watched_max=2) as hints:
        for signature in (ONE, OTHER, ONE, Signature("3" * 64)):
            await took_ms(hints, signature, span_ms=100)
        assert sockets.methods[-2:] == ["signatureUnsubscribe", "signatureSubscribe"]
        assert sockets.calls[-2][1] == [sockets.subscriptions[OTHER]]
        waiting = [asyncio.create_task(took_ms(hints, each)) for each in (ONE, Signature("3" * 64))]
        await asyncio.sleep(0.1)
        assert await took_ms(hints, OTHER) == about(POLL_MS)  # no room: all are waited for
        assert await asyncio.gather(*waiting) == [about(SPAN_MS)] * 2


async def test_the_key_of_a_node_is_in_no_log() -> None:
    sockets = Sockets()
    with structlog.testing.capture_logs() as logs:
        async with listening(sockets) as hints:
            await sockets.sockets[-1].close()
            sockets.is_open = False
            await asyncio.sleep(60)
            assert not hints.is_connected
    assert {log["event"] for log in logs} == {"hints.connected", "hints.disconnected"}
    assert KEY not in repr(logs)
