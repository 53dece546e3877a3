"""Who comes in, and what they see: with keys, without keys, and with those of somebody else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest

from fillwright.api.openapi import operations
from fillwright.core.control import KeyRevoked, Scope, new_key
from tests.virtual import until
from tests.world import SWAP, World, a_world

ALL: Final = frozenset(Scope)
SOON_MS: Final = 1_000


class Keys:
    """A world with keys: `full` and `reader` of one account, `stranger` of another, and one that is `revoked`."""

    def __init__(self, world: World, texts: dict[str, str], orders: dict[str, str]) -> None:
        self.world = world
        self.texts = texts
        self.orders = orders

    def headers(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.texts[who]}"} if who != "nobody" else {}

    def key_id(self, who: str) -> str:
        return self.texts[who].split("_")[1]

    async def ask(self, who: str, method: str, path: str, **request: Any) -> int:
        headers = {**self.headers(who), **request.pop("headers", {})}
        async with self.world.http.request(method, path, headers=headers, **request) as response:
            body = await response.json()
            assert response.status < 400 or body["code"]
            return response.status

    async def add_webhook(self, who: str) -> str:
        body = BODIES["/api/webhooks"]
        async with self.world.http.post("/api/webhooks", json=body, headers=self.headers(who)) as response:
            return str((await response.json())["webhookId"])

    async def open(self, who: str, path: str) -> int:
        try:
            async with self.world.http.ws_connect(path, headers=self.headers(who)) as websocket:
                message = await websocket.receive_json()
                assert message["event"] == "connection:established"
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


@asynccontextmanager
async def keys(**settings: Any) -> AsyncIterator[Keys]:
    async with a_world(**settings) as world:
        texts, gate = {}, world.gate
        for number, (who, account, scopes) in enumerate(
            [
                ("full", "desk", ALL),
                ("reader", "desk", frozenset({Scope.READ})),
                ("trader", "desk", frozenset({Scope.TRADE})),
                ("stranger", "other", ALL),
                ("operator", "ops", frozenset({Scope.ADMIN})),
                ("revoked", "desk", ALL),
            ]
        ):
            created, texts[who] = new_key(account, who, scopes, bytes([number + 1]) * 40)
            await gate.change("test", created)
            if who == "revoked":
                await gate.change("test", KeyRevoked(created.key_id))
        keys = Keys(world, texts, {})
        for who in ("full", "stranger"):
            async with world.http.post(
                "/api/orders/execute", json={**SWAP, "clientOrderId": "mine"}, headers=keys.headers(who)
            ) as response:
                assert response.status == 201
                keys.orders[who] = (await response.json())["orderId"]
        yield keys


OK_, UNKNOWN, UNPROVEN, NOT_ALLOWED = 200, 404, 401, 403
# What each may do: the order is that of the account `desk`.
MATRIX: Final = {
    ("GET", "/api/orders/{order}"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": UNKNOWN},
    ("GET", "/api/orders/{order}/events"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": UNKNOWN},
    ("GET", "/api/orders/{order}/explain"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": UNKNOWN},
    ("DELETE", "/api/orders/{order}"): {"reader": NOT_ALLOWED, "trader": 409, "stranger": UNKNOWN, "full": 409},
    ("GET", "/api/orders"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": OK_},
    ("GET", "/api/orders/stats"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": OK_},
    ("POST", "/api/quotes"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": OK_},
    ("POST", "/api/orders/execute"): {"full": 201, "reader": NOT_ALLOWED, "trader": 201, "stranger": 201},
    ("GET", "/api/mode"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": OK_},
    ("PUT", "/api/mode"): {"reader": NOT_ALLOWED, "trader": NOT_ALLOWED, "full": OK_, "stranger": OK_},
    ("GET", "/api/limits"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": OK_, "operator": OK_},
    ("PUT", "/api/limits"): {"reader": NOT_ALLOWED, "trader": NOT_ALLOWED, "full": OK_, "stranger": OK_},
    ("GET", "/api/keys"): {"full": OK_, "reader": NOT_ALLOWED, "trader": NOT_ALLOWED, "stranger": OK_, "operator": OK_},
    ("POST", "/api/keys"): {
        "reader": NOT_ALLOWED,
        "trader": NOT_ALLOWED,
        "operator": NOT_ALLOWED,  # it lacks what it would give
        "full": 201,
        "stranger": 201,
    },
    ("DELETE", "/api/keys/{key}"): {"reader": NOT_ALLOWED, "trader": NOT_ALLOWED, "stranger": OK_, "operator": OK_},
    ("GET", "/api/webhooks"): {"full": OK_, "reader": OK_, "trader": NOT_ALLOWED, "stranger": OK_, "operator": OK_},
    ("POST", "/api/webhooks"): {"full": 201, "reader": NOT_ALLOWED, "trader": NOT_ALLOWED, "stranger": 201},
    ("DELETE", "/api/webhooks/{webhook}"): {
        "reader": NOT_ALLOWED,
        "trader": NOT_ALLOWED,
        "full": OK_,
        "stranger": UNKNOWN,
    },
    ("GET", "/api/webhooks/{webhook}/deliveries"): {
        "full": OK_,
        "reader": OK_,
        "trader": NOT_ALLOWED,
        "stranger": OK_,
        "operator": OK_,
    },
    ("POST", "/api/webhooks/{webhook}/replay"): {
        "full": OK_,
        "reader": NOT_ALLOWED,
        "trader": NOT_ALLOWED,
        "stranger": OK_,
        "operator": OK_,
    },
    ("POST", "/api/tickets"): {"full": 201, "reader": 201, "trader": 201, "stranger": 201},
    ("GET", "/api/audit"): {"full": OK_, "reader": NOT_ALLOWED, "trader": NOT_ALLOWED, "stranger": OK_},
}
STREAMS: Final = {
    "/api/orders/{order}/stream": {"full": 101, "reader": 101, "trader": NOT_ALLOWED, "stranger": UNKNOWN},
    "/api/orders/execute?orderId={order}": {"full": 101, "reader": 101, "trader": NOT_ALLOWED, "stranger": UNKNOWN},
    "/api/orders/execute": {"full": 101, "reader": NOT_ALLOWED, "trader": 101, "stranger": 101},
    "/api/stream": {"full": 101, "reader": 101, "trader": NOT_ALLOWED, "stranger": 101},
}
NOBODY: Final = {"nobody": UNPROVEN, "revoked": UNPROVEN}


BODIES: Final = {
    "/api/mode": {"mode": "active"},
    "/api/limits": {"of": "everybody", "limits": {}},
    "/api/keys": {"name": "bot", "scopes": ["read"]},
    "/api/webhooks": {"url": "https://desk.example.com/fills"},
}


def test_the_matrix_has_every_endpoint_that_asks_for_a_key() -> None:
    asked = {(method, path) for path, method in operations() if path.startswith("/api/")}
    told = {(method, re.sub(r"\{(\w+)\}", r"{\1Id}", path)) for method, path in MATRIX}
    streams = {("GET", path.partition("?")[0].replace("{order}", "{orderId}")) for path in STREAMS}
    assert asked == told | streams


@pytest.mark.parametrize(("method", "path"), MATRIX)
async def test_each_key_may_do_what_its_scopes_say_and_no_more(method: str, path: str) -> None:
    async with keys(webhook_secret="of thirty-two characters or more.") as all_:
        await until(lambda: True)
        body = None if method == "GET" else BODIES.get(path, SWAP)
        webhook_id = "" if "{webhook}" not in path else await all_.add_webhook("full")
        for who, expected in {**NOBODY, **MATRIX[method, path]}.items():
            if expected == 409:
                await all_.world.finished(all_.orders["full"], all_.headers("full"))
            named = {"order": all_.orders["full"], "webhook": webhook_id, "key": all_.key_id("revoked")}
            found = await all_.ask(who, method, path.format(**named), json=body)
            assert found == expected, who


@pytest.mark.parametrize("path", STREAMS)
async def test_each_key_may_follow_what_its_scopes_say_and_no_more(path: str) -> None:
    async with keys(working=False) as all_:
        for who, expected in {**NOBODY, **STREAMS[path]}.items():
            assert await all_.open(who, path.format(order=all_.orders["full"])) == expected, who


async def test_an_account_s_client_order_ids_are_its_own() -> None:
    async with keys(working=False) as all_:
        assert all_.orders["full"] != all_.orders["stranger"]
        repeated = {**SWAP, "clientOrderId": "mine"}
        async with all_.world.http.post(
            "/api/orders/execute", json=repeated, headers=all_.headers("trader")
        ) as response:
            assert (response.status, (await response.json())["orderId"]) == (200, all_.orders["full"])


async def test_lists_and_streams_show_an_account_its_own_orders_only() -> None:
    async with keys(working=False) as all_:
        world = all_.world
        async with world.http.get("/api/orders", headers=all_.headers("stranger")) as response:
            assert [order["orderId"] for order in (await response.json())["orders"]] == [all_.orders["stranger"]]
        async with world.http.ws_connect("/api/stream", headers=all_.headers("stranger")) as stream:
            assert (await stream.receive_json())["event"] == "connection:established"
            await all_.ask("full", "POST", "/api/orders/execute", json=SWAP)
            await all_.ask("stranger", "POST", "/api/orders/execute", json={**SWAP, "amount": "2"})
            told = await stream.receive_json()
            assert told["data"]["amount"] == "2"


async def test_an_order_of_another_account_is_answered_as_one_that_does_not_exist() -> None:
    async with keys(working=False) as all_:
        answers = []
        unknown = all_.orders["full"][:-1] + ("0" if all_.orders["full"][-1] != "0" else "1")
        for order_id in (all_.orders["full"], unknown):
            async with all_.world.http.get(f"/api/orders/{order_id}", headers=all_.headers("stranger")) as response:
                answers.append((response.status, (await response.text()).replace(order_id, "ID")))
        assert answers[0] == answers[1]


async def test_a_revoked_key_opens_nothing_within_a_second() -> None:
    async with keys(working=False) as all_:
        assert await all_.ask("full", "GET", "/api/orders") == 200
        await all_.world.gate.change("test", KeyRevoked(all_.texts["full"].split("_")[1]))
        await all_.world.clock.sleep(SOON_MS)
        assert await all_.ask("full", "GET", "/api/orders") == 401


@pytest.mark.parametrize("path", ["/api/stream", "/api/orders/{order}/stream", "/api/orders/execute"])
async def test_a_stream_of_a_revoked_key_is_closed_before_it_tells_or_takes_anything_more(path: str) -> None:
    async with keys(working=False) as all_:
        url = path.format(order=all_.orders["full"])
        async with all_.world.http.ws_connect(url, headers=all_.headers("full")) as stream:
            while (await stream.receive_json())["event"] == "connection:established" and "{order}" in path:
                pass
            await all_.world.gate.change("test", KeyRevoked(all_.texts["full"].split("_")[1]))
            await all_.world.clock.sleep(SOON_MS)
            if path.endswith("execute"):
                await stream.send_json(SWAP)
            else:
                await all_.ask("trader", "POST", "/api/orders/execute", json=SWAP)
            message = await stream.receive()
            assert (message.type, stream.close_code) == (aiohttp.WSMsgType.CLOSE, 1008)
        async with all_.world.http.get("/api/orders", headers=all_.headers("reader")) as response:
            assert len((await response.json())["orders"]) == (1 if path.endswith("execute") else 2)


async def test_orders_over_a_socket_count_as_requests_of_the_key() -> None:
    async with (
        keys(working=False, key_requests_per_minute=3) as all_,
        all_.world.http.ws_connect("/api/orders/execute", headers=all_.headers("trader")) as stream,
    ):
        told: list[str] = []
        for _ in range(4):
            await stream.send_json(SWAP)
        while told.count("order:accepted") + told.count("error") < 4:
            told.append((await stream.receive_json())["event"])
        assert (told.count("order:accepted"), told.count("error")) == (2, 2)


@pytest.mark.parametrize("text", ["fw_x_y", "fw__", "fw_", "", "Bearer", "fw_\xff_\xff", "x" * 10_000])
async def test_what_is_no_key_is_refused_with_a_code(text: str) -> None:
    async with keys(working=False) as all_:
        all_.texts["full"] = text
        assert await all_.ask("full", "GET", "/api/orders") == 401


async def test_a_ticket_opens_one_stream_and_no_second_one() -> None:
    async with keys(working=False) as all_:
        async with all_.world.http.post("/api/tickets", headers=all_.headers("reader")) as response:
            assert response.status == 201
            ticket = (await response.json())["ticket"]
        path = f"/api/orders/{all_.orders['full']}/stream?ticket={ticket}"
        assert [await all_.open("nobody", path), await all_.open("nobody", path)] == [101, 401]


async def test_a_ticket_that_was_not_used_in_time_opens_nothing() -> None:
    async with keys(working=False) as all_:
        async with all_.world.http.post("/api/tickets", headers=all_.headers("reader")) as response:
            ticket = (await response.json())["ticket"]
        await all_.world.clock.sleep(30_001)
        assert await all_.open("nobody", f"/api/stream?ticket={ticket}") == 401


async def test_a_key_that_asks_too_often_is_told_when_to_go_on_and_others_are_served() -> None:
    async with keys(working=False, key_requests_per_minute=3) as all_:
        for left in ("1", "0"):  # the first was the order
            async with all_.world.http.get("/api/orders", headers=all_.headers("full")) as response:
                assert (response.status, response.headers["RateLimit"].split(";")[1]) == (200, f"r={left}")
                assert response.headers["RateLimit-Policy"] == '"key";q=3;w=60'
        async with all_.world.http.get("/api/orders", headers=all_.headers("full")) as response:
            assert (response.status, (await response.json())["code"]) == (429, "too_many_requests")
            wait_s = int(response.headers["Retry-After"])
        assert await all_.ask("reader", "GET", "/api/orders") == 200
        await all_.world.clock.sleep(wait_s * 1000)
        assert await all_.ask("full", "GET", "/api/orders") == 200


async def test_without_keys_a_web_page_of_somebody_else_cannot_use_the_engine() -> None:
    async with a_world() as world:
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            async with world.http.post("/api/orders/execute", json=SWAP, headers=headers) as response:
                assert (response.status, (await response.json())["code"]) == (403, "forbidden")


async def test_a_halt_by_api_stops_new_orders_and_is_told_and_audited() -> None:
    async with keys(working=False) as all_:
        halt = {"mode": "halted", "reason": "the venue acts up"}
        assert await all_.ask("full", "PUT", "/api/mode", json=halt) == 200
        async with all_.world.http.post("/api/orders/execute", json=SWAP, headers=all_.headers("full")) as response:
            body = await response.json()
            assert (response.status, body["code"]) == (503, "halted")
            assert "the venue acts up" in body["message"]
        async with all_.world.http.get("/health") as response:
            assert (await response.json())["mode"] == "halted"
        async with all_.world.http.get("/api/audit", headers=all_.headers("full")) as response:
            last = (await response.json())["entries"][-1]
            assert (last["actor"], last["action"]) == (all_.texts["full"].split("_")[1], "ModeSet")
