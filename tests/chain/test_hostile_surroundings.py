"""Nodes that are wrong, strangers who name the wallet, and settings that change: none of it doubles or misreports."""

from __future__ import annotations

from pathlib import Path

import pytest

from fillwright.core.errors import ChainUnavailable
from fillwright.localnet import rpc as local_rpc
from tests.chain.node import BLOCKHASH, SKIPPED, Node, in_context
from tests.chain.test_rpc import FINAL, SLOT, an_rpc
from tests.chain.test_trading import ended, sends
from tests.chain.trading import trading


@pytest.mark.parametrize("off", [-40, 60, 10**12])
async def test_a_blockhash_whose_last_height_cannot_be_is_asked_of_another_node(off: int) -> None:
    wrong, good = Node(), Node()
    told = {"blockhash": BLOCKHASH, "lastValidBlockHeight": FINAL - SKIPPED + 150 + off}
    wrong.results["getLatestBlockhash"] = in_context(SLOT - 2, told)
    async with an_rpc(wrong, good) as rpc:
        await rpc.finalized()
        for _ in range(4):
            assert (await rpc.latest_blockhash()).last_valid_block_height == SLOT - 2 - SKIPPED + 150
    async with an_rpc(wrong) as rpc:
        await rpc.finalized()
        with pytest.raises(ChainUnavailable, match="a blockhash of slot"):
            await rpc.latest_blockhash()


async def test_nothing_is_signed_that_would_count_as_dead_while_it_can_still_land(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_rpc, "BLOCKHASH_BLOCKS", 20)
    async with trading(tmp_path) as (world, local):
        order = await ended(world, amount="1.5")
        assert (order["status"], order["error"]["code"]) == ("failed", "chain_unavailable")
        assert sends(local) == 0
