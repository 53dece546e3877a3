"""An engine that quotes real pools: the same doors, the same record."""

from __future__ import annotations

from pathlib import Path

from fillwright.venues.snapshots import write_snapshots
from tests.venues.snapshot import OWN, a_snapshot, old_sol_usdc, own_usdc, sol_usdc
from tests.world import a_world


def a_file(folder: Path) -> str:
    path = folder / "pools.json.gz"
    write_snapshots(path, [a_snapshot([sol_usdc(), old_sol_usdc(), own_usdc()])])
    return str(path)


async def test_an_order_takes_the_route_that_was_quoted_and_its_record_shows_every_leg(tmp_path: Path) -> None:
    async with a_world(pools=a_file(tmp_path)) as world:
        order = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "5000"}
        status, quote = await world.post("/api/quotes", json=order)
        assert (status, quote["quotes"][0]["type"]) == (200, "split")
        order_id = await world.submit(**order)
        assert (await world.statuses(order_id))[-1] == "confirmed"
        _, why = await world.get(f"/api/orders/{order_id}/explain")
        (decision,) = why["decisions"]
        assert decision["selectedDex"] == quote["selectedDex"] == "raydium"
        assert [leg["inAmount"] for leg in decision["quotes"][0]["legs"]] == [
            leg["inAmount"] for leg in quote["quotes"][0]["legs"]
        ]
        assert {each["type"] for each in decision["quotes"]} == {"split", "cpmm", "amm_v4"}
        assert all(each["code"] in ("selected", "outbid") for each in decision["quotes"])
        assert not (await world.reconcile()).findings


async def test_an_order_passes_through_a_token_in_between(tmp_path: Path) -> None:
    async with a_world(pools=a_file(tmp_path)) as world:
        order_id = await world.submit(tokenIn="SOL", tokenOut=OWN.mint, amount="1")
        assert (await world.statuses(order_id))[-1] == "confirmed"
        _, order = await world.get(f"/api/orders/{order_id}")
        assert [leg["tokenOut"] for leg in order["quotes"][0]["legs"]] == ["USDC", OWN.mint]


async def test_a_pair_that_no_pool_has_fails_with_the_reason(tmp_path: Path) -> None:
    async with a_world(pools=a_file(tmp_path)) as world:
        status, problem = await world.post("/api/quotes", json={"tokenIn": "SOL", "tokenOut": "JUP", "amount": "1"})
        assert (status, problem["code"]) == (422, "unroutable")
        assert "no pool is known for SOL and JUP" in problem["detail"]
