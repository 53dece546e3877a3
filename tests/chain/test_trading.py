"""Orders that are swapped on a chain: real transactions, over real JSON-RPC, to a local one."""

from __future__ import annotations

from pathlib import Path

from tests.chain.trading import trading


async def test_an_order_is_swapped_and_the_fill_is_what_the_chain_says(tmp_path: Path) -> None:
    async with trading(tmp_path) as (world, _):
        order_id = await world.submit(amount="1.5")
        updates = await world.follow(order_id)
        assert [update["status"] for update in updates][-1] == "confirmed", updates[-1]
        _, order = await world.get(f"/api/orders/{order_id}")
        assert order["fill"]["inAmount"] == "1.5"
        print(order["fill"], order["txHash"])
