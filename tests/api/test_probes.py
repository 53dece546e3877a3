"""Whoever guesses the ids of others' orders learns nothing: not by what is answered, and not by how long it takes."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp

from tests.api.test_access import Keys, keys
from tests.builders import some_id
from tests.virtual import EPOCH_MS
from tests.world import SWAP

FOREIGN: Final = 72
PROBES: Final = [
    ("GET", "/api/orders/{}"),
    ("DELETE", "/api/orders/{}"),
    ("GET", "/api/orders/{}/events"),
    ("GET", "/api/orders/{}/events?after=2"),
    ("GET", "/api/orders/{}/explain"),
    ("SSE", "/api/orders/{}/stream"),
    ("WS", "/api/orders/{}/stream"),
    ("WS", "/api/orders/execute?orderId={}"),
]


async def probe(all_: Keys, method: str, path: str, order_id: str) -> tuple[Any, ...]:
    """Return all that an answer tells: how long it took, what it is, and what it says but for the id itself."""
    loop, http, headers = asyncio.get_running_loop(), all_.world.http, all_.headers("stranger")
    begun = loop.time()
    if method == "WS":
        try:
            async with http.ws_connect(path.format(order_id), headers=headers):
                return ("open",)
        except aiohttp.WSServerHandshakeError as error:
            told: tuple[Any, ...] = (error.status, sorted(error.headers or {}))
    else:
        if method == "SSE":
            method, headers = "GET", {**headers, "Accept": "text/event-stream"}
        async with http.request(method, path.format(order_id), headers=headers) as response:
            body = (await response.text()).replace(order_id, "ID")
            told = (response.status, body, sorted(response.headers.items()))
    return (*told, round(loop.time() - begun, 4))


async def test_a_thousand_probes_of_others_orders_are_answered_as_those_of_orders_that_there_are_not() -> None:
    async with keys() as all_:
        theirs = []
        for _ in range(FOREIGN):
            async with all_.world.http.post("/api/orders/execute", json=SWAP, headers=all_.headers("full")) as response:
                theirs.append((await response.json())["orderId"])
        await all_.world.finished(theirs[-1], all_.headers("full"))
        nobody_s = [str(some_id(number, EPOCH_MS)) for number in range(FOREIGN)]
        count = 0
        for method, path in PROBES:
            for foreign, unknown in zip(theirs, nobody_s, strict=True):
                answer = await probe(all_, method, path, foreign)
                assert answer == await probe(all_, method, path, unknown)
                assert answer[0] in (403, 404), "a WebSocket that is refused, or no such order"
                count += 2
        assert count >= 1_000
