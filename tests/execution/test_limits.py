"""How far orders may go: a limit refuses before an order is accepted, and again before it is signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from fillwright.core.control import Control, LimitsSet, Scope, new_key
from fillwright.core.limits import EVERYBODY, NONE, Limits, of_account, of_key
from fillwright.core.limits_document import from_document
from fillwright.core.tokens import TokenRegistry
from fillwright.core.units import Bps
from fillwright.execution.gate import Gate
from tests.virtual import until
from tests.world import Json, World, a_world

TOKENS: Final = TokenRegistry()
DAY_MS: Final = 86_400_000
BUY: Final = {"tokenIn": "USDC", "tokenOut": "SOL", "amount": "100", "slippage": 0.01}  # worth 100 USD to the cent


def limits(**document: Any) -> Limits:
    return from_document(document, TOKENS)


async def put(world: World, of: str = EVERYBODY, **document: Any) -> None:
    await world.gate.change("test", LimitsSet(of, limits(**document)))


async def buy(world: World, headers: dict[str, str] | None = None, **changes: Any) -> tuple[int, Json]:
    return await world.post(json={**BUY, **changes}, headers=headers or {})


@asynccontextmanager
async def held_back(**settings: Any) -> AsyncIterator[World]:
    """A world whose worker has not begun: `release` lets it."""
    async with a_world(working=False, **settings) as world:
        yield world


@asynccontextmanager
async def at_work(world: World) -> AsyncIterator[None]:
    working = asyncio.create_task(world.engine.worker.run())
    try:
        yield
    finally:
        world.engine.worker.stop()
        await working


REFUSALS: Final = [
    ({"orderUsd": "99.999999"}, {}, "amount_too_large", "orderUsd"),
    ({"orderAmount": {"USDC": "99.5"}}, {}, "amount_too_large", "orderAmount USDC"),
    ({"dayUsd": "99"}, {}, "daily_limit_reached", "dayUsd"),
    ({"dayAmount": {"USDC": "99"}}, {}, "daily_limit_reached", "dayAmount USDC"),
    ({"tokens": ["USDC", "BONK"]}, {}, "token_not_allowed", "tokens"),
    ({"slippage": "0.005"}, {}, "slippage_too_high", "slippage"),
    ({"priceImpact": "0"}, {"amount": "1000000"}, "price_impact_too_high", "priceImpact"),
    ({"priceDeviation": "0.0001"}, {}, "price_deviation_too_high", "priceDeviation"),
]


@pytest.mark.parametrize(("document", "changes", "code", "limit"), REFUSALS)
async def test_a_limit_refuses_with_its_code_and_its_name_and_nothing_is_written(
    document: Json, changes: Json, code: str, limit: str
) -> None:
    async with a_world() as world:
        await put(world, **document)
        status, body = await buy(world, **changes)
        name, _, token = limit.partition(" ")
        named = {"name": name, "of": EVERYBODY, **({"token": token} if token else {})}
        assert (status, body["code"], body["limit"]) == (403, code, named)
        if not name.startswith("day"):
            status, body = await world.post("/api/quotes", json={**BUY, **changes})
            assert (status, body["code"], body["limit"]) == (403, code, named), "a quote is of what an order may do"
        assert (await world.get("/api/orders"))[1]["orders"] == []


@pytest.mark.parametrize(("document", "changes", "code", "limit"), REFUSALS)
async def test_an_order_that_is_exactly_at_its_limit_is_taken(
    document: Json, changes: Json, code: str, limit: str
) -> None:
    at: Json = {
        "orderUsd": "100", "orderAmount": {"USDC": "100"}, "dayUsd": "100", "dayAmount": {"USDC": "100"},
        "tokens": ["USDC", "SOL"], "slippage": "0.01", "priceImpact": "0.2", "priceDeviation": "0.2",
    }  # fmt: skip
    async with a_world() as world:
        await put(world, **{name: at[name] for name in document})
        status, body = await buy(world, **changes)
        assert status == 201, (code, limit)
        assert (await world.statuses(body["orderId"]))[-1] == "confirmed"


@pytest.mark.parametrize(("document", "changes", "code", "limit"), REFUSALS)
async def test_what_is_forbidden_after_it_was_accepted_is_not_signed(
    document: Json, changes: Json, code: str, limit: str
) -> None:
    async with held_back(attempts_max=2, retry_delay_ms=10) as world:
        _, body = await buy(world, **changes)
        await put(world, **document)
        async with at_work(world):
            updates = await world.follow(body["orderId"])
        assert "submitted" not in [update["status"] for update in updates]
        assert (updates[-1]["status"], updates[-1]["data"]["error"]["code"]) == ("failed", code), limit


async def test_orders_of_a_day_share_its_amount_and_the_next_day_has_its_own() -> None:
    async with a_world() as world:
        await put(world, dayUsd="250")
        answers = await asyncio.gather(*(buy(world) for _ in range(20)))
        assert sorted(status for status, _ in answers) == [201] * 2 + [403] * 18
        assert (await buy(world, amount="50"))[0] == 201
        assert (await buy(world, amount="0.000001"))[0] == 403
        world.clock.skew_ms = DAY_MS
        await until(lambda: world.gate.current is not None)
        assert (await buy(world))[0] == 201


async def test_what_ends_without_a_fill_leaves_its_room_to_others() -> None:
    async with held_back() as world:
        await put(world, dayUsd="100", openOrders=1)
        _, body = await buy(world)
        assert (await buy(world))[0] == 403
        async with world.http.delete(f"/api/orders/{body['orderId']}") as response:
            assert response.status == 200
        assert (await buy(world))[0] == 201


async def test_lowering_a_day_s_amount_stops_what_was_taken_under_the_higher_one() -> None:
    async with held_back() as world:
        ids = [(await buy(world))[1]["orderId"] for _ in range(3)]
        await put(world, dayUsd="299")
        async with at_work(world):
            endings = [(await world.statuses(order_id))[-1] for order_id in ids]
        assert endings.count("confirmed") <= 2
        assert endings.count("failed") >= 1


async def test_a_repeated_request_finds_its_order_though_the_day_is_full() -> None:
    async with a_world() as world:
        await put(world, dayUsd="100", orderUsd="100")
        _, first = await buy(world, clientOrderId="mine")
        status, again = await buy(world, clientOrderId="mine")
        assert (status, again["orderId"]) == (200, first["orderId"])
        await put(world, orderUsd="50")
        assert (await buy(world, clientOrderId="mine"))[0] == 200


async def test_a_key_is_under_its_own_limits_its_account_s_and_everybody_s() -> None:
    async with a_world() as world:
        headers, ids = dict[str, dict[str, str]](), dict[str, str]()
        for number, (name, account) in enumerate([("one", "desk"), ("two", "desk"), ("other", "other")]):
            created, text = new_key(account, name, frozenset({Scope.TRADE, Scope.READ}), bytes([number + 1]) * 40)
            await world.gate.change("test", created)
            headers[name], ids[name] = {"Authorization": f"Bearer {text}"}, created.key_id
        await put(world, of_key(ids["one"]), dayUsd="100")
        await put(world, of_account("desk"), dayUsd="250")
        await put(world, dayUsd="400")

        async def refused(who: str, amount: str) -> str | None:
            status, body = await buy(world, headers[who], amount=amount)
            return None if status == 201 else str(body["limit"]["of"])

        assert await refused("one", "100") is None
        assert await refused("one", "1") == of_key(ids["one"])
        assert await refused("two", "150") is None
        assert await refused("two", "1") == of_account("desk")
        assert await refused("other", "150") is None
        assert await refused("other", "1") == EVERYBODY
        async with world.http.get("/api/limits", headers=headers["one"]) as response:
            told = {each["of"]: each for each in (await response.json())["limits"]}
        assert told[of_account("desk")]["used"]["usd"] == "250"
        assert told[of_key(ids["one"])] == {
            "of": of_key(ids["one"]),
            "limits": {"dayUsd": "100"},
            "used": {
                "usd": "100",
                "amounts": {"USDC": "100"},
                "openOrders": told[of_key(ids["one"])]["used"]["openOrders"],
            },
        }
        assert told[EVERYBODY]["used"] is None
        assert set(told) == {EVERYBODY, of_account("desk"), of_key(ids["one"])}


async def test_a_quote_too_far_from_the_reference_price_is_passed_over_for_one_that_is_not() -> None:
    async with a_world() as world:
        await put(world, priceDeviation="0.01")  # the venue that is behind is 2 % behind at least
        _, body = await buy(world)
        assert (await world.statuses(body["orderId"]))[-1] == "confirmed"
        _, told = await world.get(f"/api/orders/{body['orderId']}/explain")
        assert [quote["code"] for quote in told["decisions"][0]["quotes"]] == ["selected", "price_deviation_too_high"]


async def test_limits_can_be_read_and_set_over_http_and_taken_away() -> None:
    async with a_world() as world:
        document = {"orderUsd": "50.5", "dayAmount": {"SOL": "1.5"}, "tokens": ["SOL", "USDC"], "openOrders": 3}

        async def change(**body: Any) -> tuple[int, Json]:
            async with world.http.put("/api/limits", json=body) as response:
                return response.status, await response.json()

        status, body = await change(of=EVERYBODY, limits={**document, "slippage": 0.005})
        assert (status, body["limits"][1]["of"]) == (200, EVERYBODY)
        told = body["limits"][1]["limits"]
        assert {**told, "tokens": sorted(told["tokens"])} == {**document, "slippage": "0.005"}
        assert (await buy(world))[0] == 403
        assert (await change(of=EVERYBODY, limits={}))[0] == 200
        assert (await buy(world))[0] == 201
        for of, wrong in [
            ("nobody", {}),
            ("key unknown", {}),
            ("account", {}),
            ("account nobody", {}),
            (EVERYBODY, {"unheardOf": 1}),
            (EVERYBODY, {"orderUsd": 1.0000001}),
            (EVERYBODY, {"orderUsd": True}),
            (EVERYBODY, {"orderUsd": "1e3"}),
            (EVERYBODY, {"dayAmount": {"NOPE": 1}}),
            (EVERYBODY, {"dayAmount": 5}),
            (EVERYBODY, {"tokens": []}),
            (EVERYBODY, {"slippage": 2}),
            (EVERYBODY, {"openOrders": 0}),
        ]:
            status, body = await change(of=of, limits=wrong)
            assert (status, body["code"]) == (400, "invalid_request"), wrong
        assert world.gate.known.limits == {}


async def test_of_limits_that_are_changed_at_once_none_is_lost() -> None:
    async with a_world() as world:

        def adding(number: int) -> Callable[[Control], LimitsSet]:
            def change(known: Control) -> LimitsSet:
                kept = known.limits.get(EVERYBODY, NONE)
                return LimitsSet(EVERYBODY, replace(kept, open_orders=(kept.open_orders or 0) + number))

            return change

        gates = {"one": world.gate, "other": Gate(world.engine.store, world.clock)}
        await asyncio.gather(
            *(gate.change(who, adding(number)) for who, gate in gates.items() for number in range(1, 11))
        )
        await world.gate.look()
        assert world.gate.known.limits[EVERYBODY].open_orders == 2 * sum(range(1, 11))


async def test_a_limit_in_dollars_refuses_what_has_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    from fillwright.venues import simulated

    monkeypatch.delitem(simulated.PRICES_PICO_USD, "BONK")
    async with a_world() as world:
        await put(world, orderUsd="1000000")
        status, body = await buy(world, tokenIn="BONK", amount="1")
        assert (status, body["code"]) == (403, "price_unknown")
        await put(world)
        assert (await buy(world, tokenIn="BONK", amount="1"))[0] == 201


def test_limits_that_say_nothing_are_none_at_all() -> None:
    assert limits() == NONE
    assert limits(slippage="0.01").slippage_bps == Bps(100)
