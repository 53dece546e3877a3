"""Bad input gets a clear error with a code; repeated input gets the same order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from multidict import CIMultiDict

from tests.world import SWAP, a_world

MINT = "So11111111111111111111111111111111111111112"


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"tokenIn": None}, "invalid_request", "tokenIn"),
        ({"amount": -1}, "invalid_amount", "amount"),
        ({"amount": 0}, "invalid_amount", "amount"),
        ({"amount": "0.0000000001"}, "invalid_amount", "amount"),
        ({"amount": "1e5"}, "invalid_amount", "amount"),
        ({"amount": 1e300}, "invalid_amount", "amount"),
        ({"amount": "99999999999999999999"}, "invalid_amount", "amount"),
        ({"amount": True}, "invalid_request", "amount"),
        ({"amount": [1]}, "invalid_request", "amount"),
        ({"amount": None}, "invalid_request", "amount"),
        ({"slippage": 0.11}, "invalid_slippage", "slippage"),
        ({"slippage": -0.01}, "invalid_slippage", "slippage"),
        ({"slippage": 0.00001}, "invalid_slippage", "slippage"),
        ({"slippage": "NaN"}, "invalid_slippage", "slippage"),
        ({"tokenOut": "SOL"}, "same_token", "tokenOut"),
        ({"tokenOut": MINT}, "same_token", "tokenOut"),
        ({"tokenOut": "DOGE"}, "unknown_token", "tokenOut"),
        ({"tokenIn": "\u0000"}, "unknown_token", "tokenIn"),
        ({"tokenIn": "x" * 10_000}, "unknown_token", "tokenIn"),
        ({"orderType": "limit"}, "unknown_order_kind", "orderType"),
        ({"slipage": 0.05}, "invalid_request", "slipage"),
        ({"clientOrderId": ""}, "invalid_order", "clientOrderId"),
        ({"clientOrderId": "x" * 129}, "invalid_order", "clientOrderId"),
        ({"clientOrderId": "two words"}, "invalid_order", "clientOrderId"),
        ({"expiresAt": "tomorrow"}, "invalid_expiry", "expiresAt"),
        ({"expiresAt": "2027-01-01T00:00:00"}, "invalid_expiry", "expiresAt"),
        ({"expiresAt": "2001-01-01T00:00:00Z"}, "invalid_expiry", "expiresAt"),
        ({"expiresAt": "0001-01-01T00:00:00+23:59"}, "invalid_expiry", "expiresAt"),
        ({"expiresAt": "9999-12-31T23:59:59-23:59"}, "invalid_expiry", "expiresAt"),
    ],
)
async def test_an_order_that_cannot_be_meant_is_refused_with_code_and_field(
    changes: dict[str, Any], code: str, field: str
) -> None:
    async with a_world() as world:
        for path in ("/api/orders/execute", "/api/quotes"):
            if path == "/api/quotes" and set(changes) & {"clientOrderId", "expiresAt"}:
                continue
            status, body = await world.post(path, json={**SWAP, **changes})
            assert (status, body["code"], body["field"]) == (400, code, field), body
            assert body["error"]
            assert body["message"]
        _, stats = await world.get("/api/orders/stats")
        assert stats["queue"]["total"] == 0


@pytest.mark.parametrize("missing", ["tokenIn", "tokenOut", "amount"])
async def test_a_missing_field_is_named(missing: str) -> None:
    async with a_world() as world:
        status, body = await world.post(json={key: value for key, value in SWAP.items() if key != missing})
        assert (status, body["field"]) == (400, missing)
        assert missing in body["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"tokenIn":"\xed\xa0\x80"}',
        b"[" * 5_000,
        b"[" * 16_000,
        b'{"amount":"\xff"}',
    ],
)
async def test_a_body_that_is_not_an_order_is_refused(body: bytes) -> None:
    async with a_world() as world:
        status, problem = await world.post(data=body, headers={"content-type": "application/json"})
        assert (status, problem["code"]) == (400, "invalid_request")


async def test_an_error_is_a_problem_document() -> None:
    async with a_world() as world, world.http.post("/api/orders/execute", json={}) as response:
        assert response.content_type == "application/problem+json"
        body = await response.json()
        assert set(body) >= {"type", "title", "status", "detail", "code", "error", "message"}
        assert body["status"] == response.status


async def test_a_body_that_is_not_json_or_too_large_is_refused() -> None:
    async with a_world(body_max_bytes=1_000) as world:
        status, body = await world.post(data="amount=1")
        assert (status, body["code"]) == (415, "unsupported_media_type")
        status, body = await world.post(json={**SWAP, "tokenIn": "x" * 1_000})
        assert (status, body["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/orders/ord_01M829SA5JKJF0H5TA5WE28N6K", 404, "order_not_found"),
        ("/api/orders/nonsense", 404, "order_not_found"),
        ("/api/orders/nonsense/events", 404, "order_not_found"),
        ("/api/orders/nonsense/explain", 404, "order_not_found"),
        ("/api/orders?status=done", 400, "invalid_request"),
        ("/api/orders?limit=0", 400, "invalid_request"),
        ("/api/orders?limit=-1", 400, "invalid_request"),
        ("/api/orders?limit=9999999999999999999999", 400, "invalid_request"),
        ("/api/orders?cursor=x", 400, "invalid_request"),
        ("/api/orders?token=DOGE", 400, "unknown_token"),
        ("/api/orders?from=yesterday", 400, "invalid_request"),
        ("/api/orders?from=1960-01-01T00:00:00Z", 400, "invalid_request"),
        ("/api/orders?page=2", 400, "invalid_request"),
        ("/nothing/here", 404, "not_found"),
        ("/api/quotes", 405, "method_not_allowed"),
        ("/api/orders/execute", 400, "invalid_request"),
    ],
)
async def test_what_is_not_there_or_cannot_be_read_is_said_with_a_code(path: str, status: int, code: str) -> None:
    async with a_world() as world:
        answered, body = await world.get(path)
        assert (answered, body["code"]) == (status, code), body


async def test_amounts_may_be_numbers_or_strings_and_are_never_rounded() -> None:
    async with a_world() as world:
        for amount, shown in (("1.123456789", "1.123456789"), (2, "2"), (0.1, "0.1"), ("18446744073.709551615", None)):
            order_id = await world.submit(amount=amount)
            _, order = await world.get(f"/api/orders/{order_id}")
            assert order["amount"] == (shown or amount)


async def test_slippage_is_one_percent_unless_it_is_given() -> None:
    async with a_world() as world:
        request = {key: value for key, value in SWAP.items() if key != "slippage"}
        _, body = await world.post(json=request)
        _, order = await world.get(f"/api/orders/{body['orderId']}")
        assert order["slippageBps"] == 100


@pytest.mark.parametrize("by", ["header", "field"])
async def test_the_same_key_and_body_give_the_same_order_and_another_body_is_refused(by: str) -> None:
    async with a_world() as world:

        async def send(**changes: Any) -> tuple[int, dict[str, Any]]:
            body = {**SWAP, **changes, **({"clientOrderId": "k-1"} if by == "field" else {})}
            return await world.post(json=body, headers={"Idempotency-Key": "k-1"} if by == "header" else {})

        status, first = await send()
        assert status == 201
        assert (await send())[0] == 200
        assert (await send(amount="1.50"))[1]["orderId"] == first["orderId"], "the same amount, written otherwise"
        status, problem = await send(amount=2)
        assert (status, problem["code"]) == (422, "idempotency_mismatch")
        _, stats = await world.get("/api/orders/stats")
        assert stats["queue"]["total"] == 1


@pytest.mark.parametrize("keys", [("",), ("a", "b"), ("two words",)])
async def test_a_key_that_cannot_be_one_is_refused_rather_than_ignored(keys: tuple[str, ...]) -> None:
    async with a_world() as world:
        status, _ = await world.post(json=SWAP, headers=CIMultiDict(("Idempotency-Key", key) for key in keys))
        assert status == 400
        assert (await world.get("/api/orders/stats"))[1]["queue"]["total"] == 0


async def test_a_header_and_a_field_that_differ_are_refused() -> None:
    async with a_world() as world:
        status, body = await world.post(json={**SWAP, "clientOrderId": "a"}, headers={"Idempotency-Key": "b"})
        assert (status, body["code"]) == (400, "invalid_request")


async def test_a_hundred_posts_with_one_key_make_one_order() -> None:
    async with a_world() as world:
        posts = (world.post(json=SWAP, headers={"Idempotency-Key": "once"}) for _ in range(100))
        answers = await asyncio.gather(*posts)
        assert sorted({status for status, _ in answers}) == [200, 201]
        assert len({body["orderId"] for _, body in answers}) == 1
        assert [status for status, _ in answers].count(201) == 1


async def test_a_repeated_request_finds_its_order_also_after_its_expiry() -> None:
    async with a_world() as world:
        request = {**SWAP, "clientOrderId": "k", "expiresAt": "2027-01-15T08:00:05Z"}
        _, first = await world.post(json=request)
        await world.clock.sleep(10_000)
        status, again = await world.post(json=request)
        assert (status, again["orderId"]) == (200, first["orderId"])
        status, problem = await world.post(json={**request, "amount": 9})
        assert (status, problem["code"]) == (422, "idempotency_mismatch")


async def test_a_full_queue_refuses_with_429_and_keeps_nothing() -> None:
    async with a_world(working=False, queue_capacity=3) as world:
        for _ in range(3):
            await world.submit()
        async with world.http.post("/api/orders/execute", json=SWAP) as response:
            assert response.status == 429
            assert int(response.headers["retry-after"]) > 0
            assert (await response.json())["code"] == "queue_full"
        _, stats = await world.get("/api/orders/stats")
        assert stats["queue"]["total"] == 3


async def test_forwarded_headers_are_believed_from_a_trusted_proxy_only() -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "engine.example"}
    async with a_world() as world:
        _, body = await world.post(json=SWAP, headers=forwarded)
        assert body["websocket"].startswith(f"ws://127.0.0.1:{world.port}/")
    async with a_world(trusted_proxies="127.0.0.1") as world:
        _, body = await world.post(json=SWAP, headers=forwarded)
        assert body["websocket"].startswith("wss://engine.example/api/orders/execute?orderId=")
    async with a_world(public_url="https://engine.example") as world:
        _, body = await world.post(json=SWAP)
        assert body["websocket"].startswith("wss://engine.example/api/")


async def test_quotes_fail_with_a_reason_when_no_venue_answers() -> None:
    async with a_world(sim_venue_down_rate=1.0) as world:
        status, body = await world.post("/api/quotes", json=SWAP)
        assert (status, body["code"]) == (503, "no_route")
        assert "raydium is down" in body["message"]
        assert "meteora is down" in body["message"]


async def test_a_request_s_id_comes_back_and_stands_in_the_log_beside_the_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with a_world(working=False) as world:
        for body, event in ((SWAP, "order.accepted"), ({**SWAP, "amount": 0}, "order.refused")):
            headers = {"X-Request-Id": f"trace-{event}"}
            async with world.http.post("/api/orders/execute", json=body, headers=headers) as response:
                assert response.headers["X-Request-Id"] == f"trace-{event}"
            told = [line for line in capsys.readouterr().out.splitlines() if event in line]
            assert [f"trace-{event}" in line for line in told] == [True]
        async with world.http.get("/api/orders/stats", headers={"X-Request-Id": "read"}) as response:
            assert response.headers["X-Request-Id"] == "read"
        for strange in ("x" * 129, "\t", "é"):
            async with world.http.get("/api/mode", headers={"X-Request-Id": strange}) as response:
                assert "X-Request-Id" not in response.headers
