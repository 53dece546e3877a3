"""On paper: real pools, read through nodes, and nothing that is signed or sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fillwright.localnet.chain import LocalChain
from fillwright.localnet.rpc import Rpc
from fillwright.localnet.world import SOL, USDC, place_cpmm
from tests.chain.trading import only, trading
from tests.localnet.local import Local
from tests.world import Json, World


class Falling(Rpc):
    """A node behind which the price of SOL falls each time that accounts are read, by so many basis points."""

    def __init__(self, chain: LocalChain, fall_bps: int) -> None:
        super().__init__(chain)
        self.called = set[str]()
        self._fall_bps = fall_bps
        self._usdc = 3_000_000 * USDC

    def call(self, method: str, params: Sequence[Any]) -> Any:
        self.called.add(method)
        if method == "getMultipleAccounts":
            self._usdc -= self._usdc * self._fall_bps // 10_000
            place_cpmm(self.chain, 20_000 * SOL, self._usdc)
            self.chain.tick()
        return super().call(method, params)


def behind(local: Local, fall_bps: int) -> Falling:
    local.endpoint.rpc = falling = Falling(local.chain, fall_bps)
    return falling


async def order_of(world: World, **terms: Any) -> Json:
    order_id = await world.submit(amount="1.5", **terms)
    await world.follow(order_id)
    return (await world.get(f"/api/orders/{order_id}"))[1]


async def test_an_order_on_paper_is_filled_with_what_the_pools_pay_by_then_and_nothing_is_sent(tmp_path: Path) -> None:
    async with trading(tmp_path, only("cpmm"), mode="paper") as (world, local):
        node = behind(local, 10)
        order = await order_of(world, slippage=0.05)
        (quote,) = [quote for quote in order["quotes"] if quote["selected"]]
        assert order["status"] == "confirmed"
        assert float(quote["outAmount"]) * 0.99 < float(order["fill"]["outAmount"]) < float(quote["outAmount"])
        assert node.called <= {"getMultipleAccounts", "getGenesisHash"}


async def test_an_order_on_paper_fails_where_the_pools_pay_less_than_its_limit_by_then(tmp_path: Path) -> None:
    async with trading(tmp_path, only("cpmm"), mode="paper", attempts_max=1) as (world, local):
        behind(local, 300)
        order = await order_of(world, slippage=0.01)
        assert (order["status"], order["error"]["code"]) == ("failed", "slippage_exceeded")
