"""Orders that are swapped on a chain: real transactions, over real JSON-RPC, to a local one.

What an order reports is compared with what the wallet holds before and after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from structlog.testing import capture_logs

from fillwright.app import open_api, open_engine, open_parts
from fillwright.chain import solana
from fillwright.chain.building import Plan, instructions
from fillwright.core.accounts import AccountMeta, Address, Instruction, format_address
from fillwright.core.control import Mode, ModeSet
from fillwright.core.errors import InvalidWallet, Uncapped, WrongNetwork
from fillwright.core.programs import RAYDIUM_CPMM, SOL_MINT, SYSTEM, USDC_MINT
from fillwright.localnet import emulation
from fillwright.localnet.chain import LocalChain
from fillwright.localnet.program import Call, Effect, Transfer
from fillwright.localnet.rpc import Rpc
from fillwright.localnet.world import SOL, USDC, associated, place_cpmm, place_tokens
from fillwright.settings import Settings
from fillwright.solana import GENESIS
from tests.chain.trading import SLOT_MS, all_of_them, only, ticking, trading, trading_settings
from tests.localnet.local import Local, a_local_chain
from tests.localnet.pools import PLACED, place_token_pool
from tests.venues import clmm, damm_v1, dlmm
from tests.venues.model import address
from tests.virtual import until
from tests.world import Json, World, a_world

RENT = 2_039_280
FINAL_MS = 32 * SLOT_MS
TOKEN = address("token")
TOKEN_NAME = format_address(TOKEN)
MINTS = {"clmm": clmm.MINTS, "dlmm": (dlmm.MINT_A, dlmm.MINT_B), "damm_v1": damm_v1.MINTS}


@dataclass(frozen=True)
class Held:
    """What the wallet has, of its own and in associated accounts; `wrapped` is None if there is no account for it."""

    lamports: int
    wrapped: int | None
    usdc: int


def held(local: Local) -> Held:
    own = local.chain.account(local.wallet.pubkey())
    assert own is not None
    return Held(own.lamports, amount_in(local, SOL_MINT), amount_in(local, USDC_MINT) or 0)


def amount_in(local: Local, mint: Address) -> int | None:
    account = local.chain.account(Pubkey.from_bytes(associated(local.owner, mint)))
    return None if account is None else int.from_bytes(account.data[64:72], "little")


def units(amount: str, decimals: int) -> int:
    scaled = Decimal(amount).scaleb(decimals)
    assert scaled == int(scaled)
    return int(scaled)


async def swapped(world: World, local: Local, **order: object) -> Json:
    """Return an order that was confirmed, and paid what it was quoted to the last unit."""
    done = await ended(world, **order)
    assert done["status"] == "confirmed", done["error"]
    assert [attempt["status"] for attempt in done["attempts"]] == ["confirmed"]
    (quote,) = [quote for quote in done["quotes"] if quote["selected"]]
    assert done["fill"]["inAmount"] == done["amount"]
    landed = local.chain.landed(Signature.from_string(done["txHash"]))
    assert landed is not None
    assert (done["fill"]["slot"], done["fill"]["feeLamports"]) == (landed.block.slot, landed.execution.fee_lamports)
    if quote["type"] != "two_hops":  # whose second swap takes a little less than the first one pays
        assert done["fill"]["outAmount"] == quote["outAmount"]
    return done


async def ended(world: World, **order: object) -> Json:
    order_id = await world.submit(**order)
    await world.follow(order_id)
    return (await world.get(f"/api/orders/{order_id}"))[1]


def sends(local: Local) -> int:
    return local.faults.calls["sendTransaction"]


async def test_sol_is_sold_for_what_the_wallet_gains(tmp_path: Path) -> None:
    async with trading(tmp_path) as (world, local):
        before = held(local)
        order = await swapped(world, local, amount="1.5")
        after, out = held(local), units(order["fill"]["outAmount"], 6)
        assert after == Held(before.lamports - 15 * SOL // 10 - order["fill"]["feeLamports"], None, before.usdc + out)
        assert (await world.reconcile()).findings == []


async def test_bought_sol_is_counted_without_the_fee(tmp_path: Path) -> None:
    async with trading(tmp_path) as (world, local):
        before = held(local)
        order = await swapped(world, local, tokenIn="USDC", tokenOut="SOL", amount="450")
        after, out = held(local), units(order["fill"]["outAmount"], 9)
        assert after == Held(before.lamports + out - order["fill"]["feeLamports"], None, before.usdc - 450 * USDC)
        assert (await world.reconcile()).findings == []


async def test_an_order_that_is_split_pays_the_sum_of_its_legs(tmp_path: Path) -> None:
    async with trading(tmp_path, only("cpmm", "amm_v4")) as (world, local):
        before = held(local)
        order = await swapped(world, local, amount="900", slippage=0.05)
        (quote,) = [quote for quote in order["quotes"] if quote["selected"]]
        assert quote["type"] == "split"
        assert len(quote["legs"]) == 2
        assert sum(units(leg["inAmount"], 9) for leg in quote["legs"]) == 900 * SOL
        assert sum(units(leg["outAmount"], 6) for leg in quote["legs"]) == units(order["fill"]["outAmount"], 6)
        assert held(local).usdc == before.usdc + units(order["fill"]["outAmount"], 6)
        assert (await world.reconcile()).findings == []


async def test_an_order_that_is_split_over_three_pools_fits_a_transaction(tmp_path: Path) -> None:
    async with trading(tmp_path) as (world, local):
        order = await swapped(world, local, amount="900", slippage=0.05)
        (quote,) = [quote for quote in order["quotes"] if quote["selected"]]
        print(len(quote["legs"]), "legs")
        assert quote["type"] == "split"


def with_a_token(local: Local) -> Sequence[Address]:
    """Place a pool of 10 million of a token and 2 million USDC."""
    return [*all_of_them(local), place_token_pool(local.chain, TOKEN, 10**13, 2 * 10**12)]


@pytest.mark.parametrize("has_account", [False, True])
async def test_an_order_passes_through_usdc_both_ways(tmp_path: Path, has_account: bool) -> None:
    async with trading(tmp_path, with_a_token) as (world, local):
        if has_account:
            place_tokens(local.chain, associated(local.owner, TOKEN), TOKEN, local.owner, 10**9)
        before, token_before = held(local), amount_in(local, TOKEN)
        order = await swapped(world, local, tokenOut=TOKEN_NAME, amount="2")
        (quote,) = [quote for quote in order["quotes"] if quote["selected"]]
        assert quote["type"] == "two_hops"
        got, token = units(order["fill"]["outAmount"], 6), amount_in(local, TOKEN)
        assert token is not None
        assert token == (token_before or 0) + got
        assert units(order["minOutAmount"], 6) <= got
        between = held(local)
        rent = 0 if has_account else RENT
        assert between.lamports == before.lamports - 2 * SOL - order["fill"]["feeLamports"] - rent
        assert 0 <= between.usdc - before.usdc < 301 * USDC // 1_000 + 1
        order = await swapped(world, local, tokenIn=TOKEN_NAME, tokenOut="SOL", amount="500")
        assert amount_in(local, TOKEN) == token - 500 * 10**6
        assert (
            held(local).lamports
            == between.lamports + units(order["fill"]["outAmount"], 9) - order["fill"]["feeLamports"]
        )
        assert (await world.reconcile()).findings == []


async def test_wrapped_sol_that_was_there_before_is_left_alone(tmp_path: Path) -> None:
    async with trading(tmp_path) as (world, local):
        place_tokens(local.chain, associated(local.owner, SOL_MINT), SOL_MINT, local.owner, 5 * SOL)
        before = held(local)
        sold = await swapped(world, local, amount="1.5")
        between = held(local)
        assert between.wrapped == 5 * SOL
        assert between.lamports == before.lamports - 15 * SOL // 10 - sold["fill"]["feeLamports"]
        bought = await swapped(world, local, tokenIn="USDC", tokenOut="SOL", amount="450")
        after = held(local)
        assert after.wrapped == 5 * SOL + units(bought["fill"]["outAmount"], 9)
        assert after.lamports == between.lamports - bought["fill"]["feeLamports"]
        assert (await world.reconcile()).findings == []


async def test_the_out_token_s_account_is_made_where_there_is_none_and_its_rent_is_no_part_of_the_fill(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path) as (world, local):
        usdc = Pubkey.from_bytes(associated(local.owner, USDC_MINT))
        local.chain.set_account(usdc, Account(0, b"", Pubkey.default()))
        before = held(local)
        assert before.usdc == 0
        order = await swapped(world, local, amount="1.5")
        paid = 15 * SOL // 10 + order["fill"]["feeLamports"] + RENT
        assert held(local) == Held(before.lamports - paid, None, units(order["fill"]["outAmount"], 6))
        assert (await world.reconcile()).findings == []


@pytest.mark.parametrize("order", [{"tokenIn": "USDC", "tokenOut": "SOL", "amount": "100001"}, {"amount": "1000"}])
async def test_what_the_wallet_does_not_hold_is_not_sold(tmp_path: Path, order: Json) -> None:
    async with trading(tmp_path) as (world, local):
        done = await ended(world, **order)
        assert (done["status"], done["error"]["code"]) == ("failed", "insufficient_funds")
        assert sends(local) == 0


async def test_a_price_that_moves_before_it_lands_fails_the_swap_and_the_limit_stays_when_it_is_retried(
    tmp_path: Path,
) -> None:
    signatures = list[Signature]()

    async with trading(tmp_path, only("cpmm"), retry_delay_ms=1_000) as (world, local):

        def landing(transaction: VersionedTransaction) -> int:
            """The price falls once the first transaction is on its way, and is back once that has failed."""
            if not signatures:
                place_cpmm(local.chain, 20_000 * SOL, 2_900_000 * USDC)
            if transaction.signatures[0] not in signatures:
                signatures.append(transaction.signatures[0])
            return 1

        def recover() -> None:
            if len(signatures) == 1 and local.chain.landed(signatures[0]) is not None:
                place_cpmm(local.chain, 20_000 * SOL, 2_998_000 * USDC)

        local.chain.landing = landing
        local.chain.on_block.append(recover)
        before, began_ms = held(local), local.clock.now_ms()
        order_id = await world.submit(amount="1.5")
        await world.follow(order_id)
        _, order = await world.get(f"/api/orders/{order_id}")
        assert order["status"] == "confirmed", order["error"]
        first, second = order["attempts"]
        assert first["error"]["code"] == "slippage_exceeded", first
        assert [first["txHash"], second["txHash"]] == [str(each) for each in signatures]
        failed = local.chain.landed(signatures[0])
        assert failed is not None
        assert failed.execution.error is not None
        routed = (await world.get(f"/api/orders/{order_id}/events"))[1]["events"]
        leasts = {event["data"]["minOutAmount"] for event in routed if "minOutAmount" in event.get("data", {})}
        assert leasts == {order["minOutAmount"]}
        out = units(order["fill"]["outAmount"], 6)
        assert out >= units(order["minOutAmount"], 6)
        fees = order["fill"]["feeLamports"] + failed.execution.fee_lamports
        assert held(local) == Held(before.lamports - 15 * SOL // 10 - fees, None, before.usdc + out)
        # The failure was believed when no fork could undo it any more, not before.
        assert local.clock.now_ms() - began_ms > FINAL_MS
        assert (await world.reconcile()).findings == []


async def test_a_failure_on_chain_is_not_told_before_it_is_final(tmp_path: Path) -> None:
    async with trading(tmp_path, only("cpmm"), attempts_max=1) as (world, local):

        def landing(_: VersionedTransaction) -> int:
            place_cpmm(local.chain, 20_000 * SOL, 2_900_000 * USDC)
            return 1

        local.chain.landing = landing
        order_id = await world.submit(amount="1.5")
        await until(lambda: bool(local.chain.signatures_of(local.wallet.pubkey())))
        (signature,) = local.chain.signatures_of(local.wallet.pubkey())
        failed = local.chain.landed(signature)
        assert failed is not None
        while local.chain.tip.height - failed.block.height < 32:
            _, order = await world.get(f"/api/orders/{order_id}")
            assert order["status"] == "submitted"
            await local.clock.sleep(SLOT_MS)
        await world.follow(order_id)
        _, order = await world.get(f"/api/orders/{order_id}")
        assert (order["status"], order["error"]["code"]) == ("failed", "slippage_exceeded")


async def test_nothing_is_signed_for_a_pool_whose_program_pays_otherwise_than_it_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = emulation.PROGRAMS[RAYDIUM_CPMM]

    def upgraded(call: Call) -> Effect:
        effect = program(call)
        *others, last = effect.movements
        assert isinstance(last, Transfer)
        return replace(effect, movements=(*others, replace(last, amount=last.amount - 1)))

    monkeypatch.setitem(emulation.PROGRAMS, RAYDIUM_CPMM, upgraded)
    async with trading(tmp_path, only("cpmm")) as (world, local):
        before = held(local)
        order = await ended(world, amount="1.5")
        assert (order["status"], order["error"]["code"]) == ("failed", "simulation_failed")
        assert (sends(local), held(local)) == (0, before)
        async with world.http.get("/metrics") as response:
            requotes = [line for line in (await response.text()).splitlines() if line.startswith("fillwright_requotes")]
        assert [float(line.split()[1]) for line in requotes] == [9.0]


async def test_the_policy_refuses_what_was_slipped_into_the_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampered(plan: Plan, units: int, micro_lamports: int, *, unwraps: bool = True) -> list[Instruction]:
        metas = (AccountMeta(plan.wallet, is_signer=True, is_writable=True), AccountMeta(TOKEN, is_writable=True))
        stolen = Instruction(SYSTEM, metas, b"\x02\0\0\0" + (10**8).to_bytes(8, "little"))
        return [*instructions(plan, units, micro_lamports, unwraps=unwraps), stolen]

    monkeypatch.setattr(solana, "instructions", tampered)
    async with trading(tmp_path) as (world, local):
        before = held(local)
        order = await ended(world, amount="1.5")
        assert (order["status"], order["error"]["code"]) == ("failed", "signing_refused")
        assert (sends(local), held(local)) == (0, before)


async def test_nothing_is_signed_while_everything_is_halted(tmp_path: Path) -> None:
    async with trading(tmp_path) as (world, local):
        order_id = await world.submit(amount="1.5")
        await world.gate.change("test", ModeSet(Mode.HALTED, "a test"))
        await local.clock.sleep(60_000)
        _, order = await world.get(f"/api/orders/{order_id}")
        if order["txHash"] is None:
            assert sends(local) == 0
        signed = sends(local)
        status, _ = await world.post(json={"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1})
        assert status == 503
        await local.clock.sleep(60_000)
        assert sends(local) == signed
        await world.gate.change("test", ModeSet(Mode.ACTIVE, ""))
        await world.follow(order_id)
        assert (await world.get(f"/api/orders/{order_id}"))[1]["status"] == "confirmed"


@pytest.mark.parametrize("name", ["cpmm", "damm_v2", "amm_v4", *PLACED])
async def test_every_type_of_pool_pays_what_it_is_quoted_to_the_last_unit(tmp_path: Path, name: str) -> None:
    pairs = list[tuple[str, str]]()

    def prepare(local: Local) -> Sequence[Address]:
        if name not in PLACED:
            pairs.append(("SOL", "USDC"))
            return [address for pool_type, address in local.market.pools if pool_type.name == name]
        place, mints = PLACED[name], MINTS[name]
        pairs.append((format_address(mints[0]), format_address(mints[1])))
        return [place(local.chain, local.owner)]

    async with trading(tmp_path, prepare) as (world, local):
        ((a, b),) = pairs
        for index in range(4):
            # Fees that a swap raises have fallen again, and profits that were held back are paid out: what a pool pays
            # does not change from one second to the next.
            local.chain.move_clock(30 * 86_400)
            await local.clock.sleep(10 * SLOT_MS)
            token_in, token_out = (a, b) if index % 2 else (b, a)
            amount = (
                ("0.75" if token_in == "SOL" else "12.345678") if index < 2 else ("3" if token_in == "SOL" else "77")
            )
            await swapped(world, local, tokenIn=token_in, tokenOut=token_out, amount=amount, slippage=0.05)
        assert (await world.reconcile()).findings == []


class Counting(Rpc):
    def __init__(self, chain: LocalChain) -> None:
        super().__init__(chain)
        self.calls = Counter[str]()

    def call(self, method: str, params: Sequence[Any]) -> Any:
        self.calls[method] += 1
        return super().call(method, params)


async def test_orders_that_come_soon_after_each_other_ask_once_for_what_they_share(tmp_path: Path) -> None:
    async with trading(tmp_path, only("cpmm")) as (world, local):
        local.endpoint.rpc = node = Counting(local.chain)
        shared = ("getLatestBlockhash", "getRecentPrioritizationFees")
        first = await world.submit(amount="1.5")
        await until(lambda: node.calls["sendTransaction"] == 1)
        second = await world.submit(amount="1.5")
        for order_id in (first, second):
            await world.follow(order_id)
        assert [node.calls[method] for method in shared] == [1, 1]
        await local.clock.sleep(2_000)
        await swapped(world, local, amount="1.5")
        assert [node.calls[method] for method in shared] == [2, 2]


async def test_where_only_what_is_final_counts_an_order_is_confirmed_when_its_block_is(tmp_path: Path) -> None:
    async with trading(tmp_path, commitment="finalized") as (world, local):
        order = await swapped(world, local, amount="1.5")
        landed = local.chain.landed(Signature.from_string(order["txHash"]))
        assert landed is not None
        assert local.chain.tip.height - landed.block.height >= 32


async def test_a_confirmed_swap_that_a_fork_drops_is_sent_again(tmp_path: Path) -> None:
    async with trading(tmp_path) as (world, local):
        before = held(local)
        order = await swapped(world, local, amount="1.5")
        signature = Signature.from_string(order["txHash"])
        local.chain.fork(20)
        assert held(local) == before
        await until(lambda: local.chain.landed(signature) is not None, within_ms=30_000)
        out, fee = units(order["fill"]["outAmount"], 6), order["fill"]["feeLamports"]
        assert held(local) == Held(before.lamports - 15 * SOL // 10 - fee, None, before.usdc + out)
        await local.clock.sleep(60_000)
        assert await rollbacks(world) == 0


async def test_a_confirmed_swap_that_a_fork_drops_for_good_is_told_loudly(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with trading(tmp_path) as (world, local):
            before = held(local)
            order = await swapped(world, local, amount="1.5")
            local.chain.fork(20)
            local.chain.landing = lambda _: None
            await local.clock.sleep(200 * SLOT_MS)
            assert await rollbacks(world) == 1
            assert held(local) == before
            assert len((await world.reconcile()).findings) == 1
    told = [log for log in logs if log["event"] == "chain.rolled_back"]
    assert [(log["signature"], log["log_level"]) for log in told] == [(order["txHash"], "critical")]


async def test_a_swap_that_a_fork_drops_is_told_of_by_an_engine_that_was_started_after_it_had_counted(
    tmp_path: Path,
) -> None:
    with capture_logs() as logs:
        async with a_local_chain() as local, ticking(local):
            chosen = trading_settings(local, all_of_them(local), tmp_path)
            chosen["database_url"] = f"sqlite:///{tmp_path}/orders.db"
            async with a_world(clock=local.clock, **chosen) as world:
                order = await swapped(world, local, amount="1.5")
            async with a_world(clock=local.clock, **chosen) as world:
                local.chain.fork(20)
                local.chain.landing = lambda _: None
                await local.clock.sleep(200 * SLOT_MS)
                assert await rollbacks(world) == 1
    assert [log["signature"] for log in logs if log["event"] == "chain.rolled_back"] == [order["txHash"]]


async def rollbacks(world: World) -> float:
    async with world.http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    (line,) = [line for line in lines if line.startswith("fillwright_rollbacks_total")]
    return float(line.split()[1])


async def test_an_engine_that_means_another_network_does_not_start(tmp_path: Path) -> None:
    async with a_local_chain() as local, ticking(local):
        for mode in ("mainnet", "devnet"):
            chosen = {**trading_settings(local, all_of_them(local), tmp_path), "mode": mode}
            with pytest.raises(WrongNetwork, match=f"FILLWRIGHT_MODE is {mode}, and the nodes .* are of another chain"):
                async with open_engine(Settings(database_url="sqlite://", **chosen), local.clock, threaded=False):
                    pass
        local.chain.genesis_hash = Hash.from_string(GENESIS["mainnet"])
        chosen = trading_settings(local, all_of_them(local), tmp_path)
        with pytest.raises(WrongNetwork, match=r"FILLWRIGHT_MODE is localnet, and the nodes .* are of mainnet"):
            async with open_engine(Settings(database_url="sqlite://", **chosen), local.clock, threaded=False):
                pass


async def test_an_engine_for_real_money_does_not_start_without_caps(tmp_path: Path) -> None:
    async with a_local_chain() as local, ticking(local):
        local.chain.genesis_hash = Hash.from_string(GENESIS["mainnet"])
        chosen = {**trading_settings(local, all_of_them(local), tmp_path), "mode": "mainnet"}
        with pytest.raises(Uncapped, match="fillwright limits set"):
            async with open_engine(Settings(database_url="sqlite://", **chosen), local.clock, threaded=False):
                pass
        assert sends(local) == 0


async def test_a_process_that_only_takes_orders_needs_no_wallet_and_opens_none(tmp_path: Path) -> None:
    async with a_local_chain() as local, ticking(local):
        for wallet in ("", "file:/nowhere/wallet.json"):
            chosen = {**trading_settings(local, all_of_them(local), tmp_path), "wallet": wallet}
            settings = Settings(database_url="sqlite://", **chosen)
            async with open_parts(settings, local.clock, threaded=False) as parts:
                open_api(parts)
            with pytest.raises(InvalidWallet):
                async with open_engine(settings, local.clock, threaded=False):
                    pass
