"""Nodes that are wrong, strangers who name the wallet, and settings that change: none of it doubles or misreports."""

from __future__ import annotations

from pathlib import Path

import pytest
from solders.account import Account
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM
from solders.system_program import TransferParams, transfer
from structlog.testing import capture_logs

from fillwright.core.accounts import format_address
from fillwright.core.errors import ChainUnavailable
from fillwright.core.programs import MEMO, USDC_MINT
from fillwright.localnet import rpc as local_rpc
from fillwright.localnet.chain import at_once
from fillwright.localnet.world import SOL, USDC, associated, place_cpmm
from tests.chain.node import BLOCKHASH, SKIPPED, Node, in_context
from tests.chain.test_rpc import FINAL, SLOT, an_rpc
from tests.chain.test_trading import FINAL_MS, Held, ended, held, rollbacks, sends, swapped, units
from tests.chain.trading import SLOT_MS, all_of_them, only, ticking, trading, trading_settings
from tests.localnet.local import a_local_chain, transaction_of
from tests.venues.model import address
from tests.virtual import until
from tests.world import Json, a_world


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


async def test_an_order_whose_fill_the_nodes_have_thrown_away_is_not_swapped_again(tmp_path: Path) -> None:
    async with a_local_chain() as local, ticking(local):
        chosen = trading_settings(local, all_of_them(local), tmp_path)
        chosen["database_url"] = f"sqlite:///{tmp_path}/orders.db"
        local.chain.status_lag = lambda _: 10**9
        before = held(local)
        async with a_world(clock=local.clock, **chosen) as world:
            order_id = await world.submit(amount="1.5")
            await until(lambda: held(local).usdc > before.usdc)
        after = held(local)
        await local.clock.sleep(400 * SLOT_MS)
        local.chain.purge(local.chain.tip.slot - 100)
        local.chain.status_lag = at_once
        with capture_logs() as logs:
            async with a_world(clock=local.clock, **chosen) as world:
                await local.clock.sleep(300_000)
                assert (await world.get(f"/api/orders/{order_id}"))[1]["status"] == "submitted"
        assert held(local) == after
        (told,) = {log["event"] for log in logs if "its history begins at slot" in log.get("reason", "")}
        assert told == "order.outcome_unknown"


async def test_what_has_expired_counts_as_dead_where_the_history_reaches_back_far_enough(tmp_path: Path) -> None:
    async with trading(tmp_path, attempts_max=1) as (world, local):
        local.chain.landing = lambda _: None
        order_id = await world.submit(amount="1.5")
        await local.clock.sleep(10_000)
        local.chain.purge(local.chain.tip.slot - 200)
        await world.follow(order_id)
        _, order = await world.get(f"/api/orders/{order_id}")
        assert (order["status"], order["error"]["code"]) == ("failed", "transaction_expired")


async def test_a_stranger_who_copies_an_order_s_memo_does_not_disturb_the_reconciliation(tmp_path: Path) -> None:
    async with trading(tmp_path) as (world, local):
        order = await swapped(world, local, amount="1.5")
        stranger = Keypair.from_seed(address("stranger"))
        local.chain.set_account(stranger.pubkey(), Account(SOL, b"", SYSTEM))
        gift = transfer(TransferParams(from_pubkey=stranger.pubkey(), to_pubkey=local.wallet.pubkey(), lamports=1))
        memo = Instruction(Pubkey.from_bytes(MEMO), f"fillwright:{order['orderId']}:2".encode(), [])
        blockhash = str(local.chain.tip.blockhash)
        signature = await local.send(transaction_of(stranger, [gift, memo], blockhash))
        await until(lambda: local.chain.landed(Signature.from_string(signature)) is not None)
        await local.clock.sleep(FINAL_MS + SLOT_MS)
        assert (await world.reconcile()).findings == []


async def test_a_stranger_who_sends_lamports_to_a_token_account_that_is_yet_to_be_made_stops_no_order(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as (world, local):
        usdc = Pubkey.from_bytes(associated(local.owner, USDC_MINT))
        local.chain.set_account(usdc, Account(890_880, b"", SYSTEM))
        order = await swapped(world, local, amount="1.5")
        assert held(local).usdc == units(order["fill"]["outAmount"], 6)
        assert (await world.reconcile()).findings == []


@pytest.mark.parametrize("token_in", ["SOL", "USDC"])
async def test_a_tip_is_no_part_of_a_fill_after_the_settings_have_changed_either(tmp_path: Path, token_in: str) -> None:
    tip_account = address("tips")
    async with a_local_chain() as local, ticking(local):
        local.chain.set_account(Pubkey.from_bytes(tip_account), Account(SOL, b"", SYSTEM))
        chosen = trading_settings(local, all_of_them(local), tmp_path)
        chosen["database_url"] = f"sqlite:///{tmp_path}/orders.db"
        tip: Json = {"tip_account": format_address(tip_account), "tip_lamports": 12_345}
        async with a_world(clock=local.clock, **chosen, **tip) as world:
            await swapped(world, local, tokenIn=token_in, tokenOut="USDC" if token_in == "SOL" else "SOL", amount="1.5")
            assert (await world.reconcile()).findings == []
        async with a_world(clock=local.clock, **chosen) as world:
            assert (await world.reconcile()).findings == []


async def test_where_the_chain_is_dear_the_fee_stays_within_what_is_set_and_the_order_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dear = [{"slot": 1, "prioritizationFee": 900_000}]
    monkeypatch.setattr(local_rpc.Rpc, "_prioritization_fees", lambda *_: dear)
    async with trading(tmp_path, fee_lamports_max=20_000) as (world, local):
        order = await swapped(world, local, amount="1.5")
        assert 19_000 < order["fill"]["feeLamports"] <= 20_000


async def test_a_confirmed_swap_that_lands_again_and_pays_another_amount_is_told(tmp_path: Path) -> None:
    async with trading(tmp_path, only("cpmm")) as (world, local):
        order = await swapped(world, local, amount="1.5")
        signature = Signature.from_string(order["txHash"])
        local.chain.fork(20)
        place_cpmm(local.chain, 20_000 * SOL, 3_010_000 * USDC)
        await until(lambda: local.chain.landed(signature) is not None, within_ms=30_000)
        await local.clock.sleep(2 * FINAL_MS)
        assert await rollbacks(world) == 1
        assert len((await world.reconcile()).findings) == 1


async def test_orders_of_one_wallet_that_run_at_once_add_up_and_leave_no_sol_wrapped(tmp_path: Path) -> None:
    async with trading(tmp_path, attempts_max=10) as (world, local):
        before = held(local)
        bought = {"tokenIn": "USDC", "tokenOut": "SOL", "amount": "150"}
        ids = [await world.submit(**({"amount": "1"} if index % 2 else bought), slippage=0.05) for index in range(20)]
        orders = list[Json]()
        for order_id in ids:
            await world.follow(order_id)
            orders.append((await world.get(f"/api/orders/{order_id}"))[1])
        assert {order["status"] for order in orders} == {"confirmed"}
        assert {order["fill"]["inAmount"] for order in orders} == {"1", "150"}
        signatures = local.chain.signatures_of(local.wallet.pubkey())
        landed = [each for signature in signatures if (each := local.chain.landed(signature)) is not None]
        sold, got = (
            [units(order["fill"]["outAmount"], decimals) for order in orders if order["tokenIn"] == token_in]
            for token_in, decimals in (("SOL", 6), ("USDC", 9))
        )
        fees = sum(each.execution.fee_lamports for each in landed)
        usdc = before.usdc + sum(sold) - 150 * USDC * len(got)
        assert held(local) == Held(before.lamports + sum(got) - SOL * len(sold) - fees, None, usdc)
        assert (await world.reconcile()).findings == []
