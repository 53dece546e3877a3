"""An order's life through the front door."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from fillwright.core.errors import WrongChain
from fillwright.core.units import is_order_id
from tests.world import SWAP, a_world

LIFE = ["pending", "routing", "building", "submitted", "confirmed"]


async def test_an_order_is_confirmed_and_every_step_is_told() -> None:
    async with a_world() as world:
        order_id = await world.submit()
        assert await world.statuses(order_id) == LIFE
        status, order = await world.get(f"/api/orders/{order_id}")
        assert (status, order["status"]) == (200, "confirmed")
        assert (order["tokenIn"], order["tokenOut"], order["amount"], order["slippage"]) == ("SOL", "USDC", "1.5", 0.01)
        assert order["selectedDex"] in ("raydium", "meteora")
        assert order["txHash"]
        assert [attempt["status"] for attempt in order["attempts"]] == ["confirmed"]
        assert (await world.reconcile()).confirmed == 1


async def test_the_answer_to_an_order_names_its_id_its_status_and_its_websocket() -> None:
    async with a_world() as world:
        status, body = await world.post(json=SWAP)
        assert status == 201
        assert is_order_id(body["orderId"])
        assert body["status"] == "pending"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
        assert body["message"]
        assert body["websocket"] == f"ws://127.0.0.1:{world.port}/api/orders/execute?orderId={body['orderId']}"
        async with world.http.ws_connect(body["websocket"]) as websocket:
            assert (await websocket.receive_json())["event"] == "connection:established"


async def test_the_fill_is_within_the_slippage_and_the_price_is_read_from_it() -> None:
    async with a_world() as world:
        order_id = await world.submit()
        updates = await world.follow(order_id)
        building, confirmed = updates[2]["data"], updates[4]["data"]
        quoted = next(quote for quote in building["quotes"] if quote["selected"])
        assert float(building["minOutAmount"]) <= float(confirmed["outAmount"]) <= float(quoted["outAmount"])
        assert abs(confirmed["executedPrice"] - float(confirmed["outAmount"]) / 1.5) < 1e-9


async def test_the_better_venue_after_fees_wins_and_the_other_quote_is_kept_with_the_reason() -> None:
    async with a_world() as world:
        for token_out in ("USDC", "JUP", "BONK", "RAY"):
            order_id = await world.submit(tokenOut=token_out)
            (_, _, building, _, _) = await world.follow(order_id)
            quotes = building["data"]["quotes"]
            assert {quote["dex"]: quote["fee"] for quote in quotes} == {"raydium": 0.003, "meteora": 0.002}
            winner, loser = quotes
            assert (winner["selected"], loser["selected"]) == (True, False)
            assert float(winner["outAmount"]) > float(loser["outAmount"])
            assert loser["code"] == "outbid"
            assert winner["dex"] in loser["reason"]
            low, high = sorted(quote["price"] for quote in quotes)
            assert 1.9 <= (high / low - 1) * 100 <= 5.1


async def test_an_order_takes_the_seed_s_time() -> None:
    async with a_world() as world:
        loop_started = world.clock.now_ms()
        await world.statuses(await world.submit())
        assert 2_200 <= world.clock.now_ms() - loop_started <= 3_600


async def test_explain_tells_every_quote_the_reason_and_how_the_fill_compares() -> None:
    async with a_world() as world:
        order_id = await world.submit()
        await world.follow(order_id)
        status, explained = await world.get(f"/api/orders/{order_id}/explain")
        assert status == 200
        (decision,) = explained["decisions"]
        assert len(decision["quotes"]) == 2
        assert decision["selectedDex"] in decision["reason"]
        assert -100 <= explained["quoteToFillBps"] <= 0


async def test_the_event_log_can_be_read_from_any_point() -> None:
    async with a_world() as world:
        order_id = await world.submit()
        await world.follow(order_id)
        _, log = await world.get(f"/api/orders/{order_id}/events")
        assert [event["seq"] for event in log["events"]] == [1, 2, 3, 4, 5]
        assert [event["event"] for event in log["events"]][:2] == ["Accepted", "RoutingStarted"]
        _, rest = await world.get(f"/api/orders/{order_id}/events?after=3")
        assert rest["events"] == log["events"][3:]


async def test_a_quote_tells_the_route_and_executes_nothing() -> None:
    async with a_world() as world:
        status, quote = await world.post("/api/quotes", json=SWAP)
        assert status == 200
        assert len(quote["quotes"]) == 2
        assert float(quote["minOutAmount"]) < float(quote["outAmount"])
        _, stats = await world.get("/api/orders/stats")
        assert stats["queue"]["total"] == 0


async def test_orders_are_listed_newest_first_filtered_and_in_pages() -> None:
    async with a_world(sim_speed=0.0) as world:
        ids = [await world.submit(tokenOut=token) for token in ("USDC", "JUP", "USDC", "USDC")]
        for order_id in ids:
            await world.follow(order_id)

        async def listed(query: str) -> list[str]:
            status, page = await world.get(f"/api/orders?{query}")
            assert status == 200, page
            return [order["orderId"] for order in page["orders"]]

        assert sorted(await listed("")) == sorted(ids)
        assert await listed("") == sorted(await listed(""), reverse=True)
        assert await listed("token=JUP") == [ids[1]]
        assert sorted(await listed("status=confirmed")) == sorted(ids)
        assert await listed("status=failed") == []
        _, page = await world.get("/api/orders?limit=3")
        rest = await listed(f"limit=3&cursor={page['nextCursor']}")
        assert sorted([*(order["orderId"] for order in page["orders"]), *rest]) == sorted(ids)


async def test_an_order_can_be_cancelled_until_it_is_signed() -> None:
    async with a_world(queue_concurrency=1) as world:
        first, second = await world.submit(), await world.submit()
        async with world.http.delete(f"/api/orders/{second}") as response:
            assert (response.status, (await response.json())["status"]) == (200, "cancelled")
        assert await world.statuses(second) == ["pending", "cancelled"]
        assert (await world.statuses(first))[-1] == "confirmed"
        async with world.http.delete(f"/api/orders/{first}") as response:
            assert response.status == 409
            assert (await response.json())["code"] == "not_cancellable"
        async with world.http.delete(f"/api/orders/{second}") as response:
            assert response.status == 200, "to cancel again is to be told the same"


async def test_an_order_cancelled_while_it_is_routed_is_never_sent() -> None:
    async with a_world() as world:
        order_id = await world.submit()
        async with world.http.ws_connect(f"/api/orders/{order_id}/stream") as websocket:
            while (await websocket.receive_json()).get("status") != "routing":
                pass
            async with world.http.delete(f"/api/orders/{order_id}") as response:
                assert response.status == 200
        assert await world.statuses(order_id) == ["pending", "routing", "cancelled"]
        await world.clock.sleep(10_000)
        result = await world.reconcile()
        assert (result.cancelled, result.clean) == (1, True)


async def test_an_order_that_cannot_begin_before_its_expiry_expires() -> None:
    async with a_world(queue_concurrency=1) as world:
        await world.submit()
        expiring = await world.submit(expiresAt="2027-01-15T08:00:01Z")
        assert await world.statuses(expiring) == ["pending", "expired"]


async def test_an_order_whose_expiry_passes_while_it_is_routed_is_never_signed() -> None:
    async with a_world(sim_quote_delay_ms=1_500) as world:
        order_id = await world.submit(expiresAt="2027-01-15T08:00:01Z")
        assert await world.statuses(order_id) == ["pending", "routing", "expired"]
        await world.clock.sleep(10_000)
        result = await world.reconcile()
        assert (result.expired, result.clean) == (1, True)


async def test_an_order_that_cannot_be_read_does_not_stand_in_the_way_of_the_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    async with a_world(database_url=url, working=False) as world:
        unreadable, broken, healthy = [await world.submit() for _ in range(3)]
    with contextlib.closing(sqlite3.connect(tmp_path / "orders.db")) as database, database:
        database.execute("UPDATE events SET type = 'FromTheFuture' WHERE order_id = ?", (unreadable,))
        database.execute("UPDATE events SET seq = 7 WHERE order_id = ?", (broken,))
    async with a_world(database_url=url) as world:
        assert (await world.statuses(healthy))[-1] == "confirmed"
        assert (await world.statuses(await world.submit()))[-1] == "confirmed"
        _, page = await world.get("/api/orders")
        assert healthy in [order["orderId"] for order in page["orders"]]
        status, problem = await world.get(f"/api/orders/{unreadable}")
        assert (status, problem["code"]) == (503, "store_unavailable")
        assert "FromTheFuture" in problem["message"]


async def test_a_repeated_order_that_cannot_be_read_does_not_cost_its_neighbours(tmp_path: Path) -> None:
    async with a_world(database_url=f"sqlite:///{tmp_path}/orders.db", working=False) as world:
        await world.submit(clientOrderId="mine")
        with contextlib.closing(sqlite3.connect(tmp_path / "orders.db")) as database, database:
            database.execute("UPDATE events SET type = 'FromTheFuture'")
        posts = [world.post(json={**SWAP, **({"clientOrderId": "mine"} if n == 0 else {})}) for n in range(20)]
        assert sorted(status for status, _ in await asyncio.gather(*posts)) == [201] * 19 + [503]


async def test_a_database_is_refused_on_another_chain_than_its_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    async with a_world(database_url=url) as world:
        await world.statuses(await world.submit())
    with pytest.raises(WrongChain):
        async with a_world(database_url=url, sim_ledger=str(tmp_path / "another.db")):
            pass


async def test_stats_count_what_waits_runs_and_is_done() -> None:
    async with a_world(queue_concurrency=2) as world:
        ids = [await world.submit() for _ in range(5)]
        _, stats = await world.get("/api/orders/stats")
        assert (stats["queue"]["waiting"], stats["queue"]["active"]) == (3, 2)
        for order_id in ids:
            await world.follow(order_id)
        _, stats = await world.get("/api/orders/stats")
        assert stats["queue"] == {"waiting": 0, "active": 0, "completed": 5, "failed": 0, "delayed": 0, "total": 5}
        assert set(stats) == {"queue", "websocket", "timestamp"}


async def test_health_says_ok_since_when_and_at_what_time() -> None:
    async with a_world() as world:
        for path in ("/health", "/health/live", "/health/ready"):
            status, health = await world.get(path)
            assert status == 200
            assert health["status"] == "ok"
            assert set(health) - {"mode"} == {"status", "timestamp", "uptime"}
            assert path == "/health/live" or health["mode"] == "active"


async def test_the_index_the_document_and_its_page_name_every_endpoint() -> None:
    async with a_world() as world:
        _, index = await world.get("/")
        assert index["name"] == "fillwright"
        _, document = await world.get("/openapi.json")
        documented = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
        assert set(index["endpoints"]) == documented
        async with world.http.get("/docs") as response:
            page = await response.text()
        assert all(path in page for path in document["paths"])


async def test_every_documented_endpoint_is_there() -> None:
    async with a_world(working=False) as world:
        order_id = await world.submit()
        _, document = await world.get("/openapi.json")
        for path, item in document["paths"].items():
            for method, operation in item.items():
                path = path.replace("{orderId}", order_id)
                if "101" in operation["responses"]:
                    async with world.http.ws_connect(path) as websocket:
                        assert (await websocket.receive_json())["event"] == "connection:established"
                else:
                    async with world.http.request(method, path) as response:
                        if response.status == 404:
                            assert (await response.json())["code"] in ("key_not_found", "webhook_not_found")
                        assert response.status not in (405, 500), f"{method} {path}"


async def test_the_history_outlives_the_engine(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    async with a_world(database_url=url) as world:
        order_id = await world.submit()
        before = await world.follow(order_id)
    async with a_world(database_url=url) as world:
        assert await world.follow(order_id) == before
