"""Swaps on the local chain pay what the pools' quotes say, and fail as the real programs do."""

from __future__ import annotations

import random
from collections import Counter
from struct import pack

import pytest
from solders.account import Account as SoldersAccount
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.instruction import Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from fillwright.core import accounts as plain
from fillwright.core.accounts import AccountMeta, Address, ChainTime, Trader, format_address
from fillwright.core.errors import QuoteRefused
from fillwright.core.programs import SOL_MINT, SPL_TOKEN, USDC_MINT
from fillwright.localnet.emulation import PROGRAMS
from fillwright.localnet.program import Call, Effect, ProgramFailed, State
from fillwright.localnet.world import SOL, USDC, associated, place_tokens
from fillwright.venues.pool import Pool, PoolType
from fillwright.venues.pool_types import BY_NAME
from fillwright.venues.recordings import Recording
from tests.localnet.local import (
    COMPUTE_BUDGET,
    Local,
    Refusal,
    a_local_chain,
    create_associated,
    local_test,
    solders_instruction,
    trader,
    unwrap,
    wrap,
)
from tests.localnet.pools import PLACED
from tests.venues.model import address, amount_of, token_account
from tests.venues.test_recordings import CASES, recordings

TYPES = ("cpmm", "damm_v2", "amm_v4")
SWAPS = 200
SLIPPAGE = {"cpmm": 6005, "damm_v2": 6002, "amm_v4": 30, "clmm": 6022, "dlmm": 6003, "damm_v1": 6004}


def pool_of(local: Local, name: str) -> tuple[PoolType, Address]:
    return next((pool_type, address) for pool_type, address in local.market.pools if pool_type.name == name)


def mints_of(pool: Pool, a_to_b: bool) -> tuple[Address, Address]:
    return (pool.mint_a, pool.mint_b) if a_to_b else (pool.mint_b, pool.mint_a)


@pytest.mark.parametrize("name", TYPES)
@local_test
async def test_wrapped_swapped_and_unwrapped_sol_pays_exactly_what_the_quote_says(local: Local, name: str) -> None:
    pool, time = await local.pool(*pool_of(local, name))
    quote = pool.quote(3 * SOL, True, time)
    swap = pool.swap(quote, quote.out_amount, trader(local, SOL_MINT, USDC_MINT))
    usdc = associated(local.owner, USDC_MINT)
    before = await local.held(usdc)
    done = await local.land(*wrap(local, 3 * SOL), solders_instruction(swap), unwrap(local))
    assert done["meta"]["err"] is None
    assert await local.held(usdc) - before == quote.out_amount
    paid = done["meta"]["preBalances"][0] - done["meta"]["postBalances"][0]
    assert paid == 3 * SOL + done["meta"]["fee"]
    assert done["meta"]["computeUnitsConsumed"] > 20_000


@pytest.mark.parametrize("name", TYPES)
@local_test
async def test_a_swap_for_usdc_shows_in_the_balances_of_the_transaction(local: Local, name: str) -> None:
    pool, time = await local.pool(*pool_of(local, name))
    quote = pool.quote(450 * USDC, False, time)
    swap = pool.swap(quote, quote.out_amount, trader(local, USDC_MINT, SOL_MINT))
    done = await local.land(*wrap(local, 0)[:1], solders_instruction(swap))
    meta = done["meta"]
    before = {each["accountIndex"]: each for each in meta["preTokenBalances"]}
    mine = [each for each in meta["postTokenBalances"] if each["owner"] == str(local.wallet.pubkey())]
    changes = {
        each["mint"]: int(each["uiTokenAmount"]["amount"])
        - int(before[each["accountIndex"]]["uiTokenAmount"]["amount"] if each["accountIndex"] in before else 0)
        for each in mine
    }
    assert sorted(changes.values()) == [-450 * USDC, quote.out_amount]


@pytest.mark.parametrize("name", TYPES)
@local_test
async def test_too_high_a_minimum_fails_with_the_programs_code_and_still_costs_the_fee(local: Local, name: str) -> None:
    pool, time = await local.pool(*pool_of(local, name))
    quote = pool.quote(SOL, True, time)
    swap = solders_instruction(pool.swap(quote, quote.out_amount + 1, trader(local, SOL_MINT, USDC_MINT)))
    with pytest.raises(Refusal) as refused:
        await local.land(*wrap(local, SOL), swap, unwrap(local))
    error = {"InstructionError": [4, {"Custom": SLIPPAGE[name]}]}
    assert refused.value.code == -32002
    assert refused.value.data["err"] == error
    done = await local.land(*wrap(local, SOL), swap, unwrap(local), skipPreflight=True)
    assert done["meta"]["err"] == error
    assert done["meta"]["postTokenBalances"] == done["meta"]["preTokenBalances"]
    assert done["meta"]["preBalances"][0] - done["meta"]["postBalances"][0] == done["meta"]["fee"] > 5_000
    assert any(f"failed: custom program error: {SLIPPAGE[name]:#x}" in line for line in done["meta"]["logMessages"])


@pytest.mark.parametrize("name", TYPES)
@local_test
async def test_what_comes_before_the_swap_fails_first_and_what_the_wallet_lacks_fails_in_it(
    local: Local, name: str
) -> None:
    pool, time = await local.pool(*pool_of(local, name))
    quote = pool.quote(SOL, True, time)
    bad = solders_instruction(pool.swap(quote, quote.out_amount + 1, trader(local, SOL_MINT, USDC_MINT)))
    with pytest.raises(Refusal) as refused:
        await local.land(*wrap(local, 10**6 * SOL), bad)
    assert refused.value.data["err"] == {"InstructionError": [2, {"Custom": 1}]}
    good = solders_instruction(pool.swap(quote, 1, trader(local, SOL_MINT, USDC_MINT)))
    with pytest.raises(Refusal) as refused:
        await local.land(*wrap(local, SOL - 1), good)
    assert refused.value.data["err"] == {"InstructionError": [4, {"Custom": 1}]}


@pytest.mark.parametrize("name", TYPES)
@local_test
async def test_two_swaps_of_one_transaction_see_each_other(local: Local, name: str) -> None:
    pool_type, address = pool_of(local, name)
    pool, time = await local.pool(pool_type, address)
    quote = pool.quote(100 * SOL, True, time)
    swap = solders_instruction(pool.swap(quote, 0, trader(local, SOL_MINT, USDC_MINT)))
    usdc = associated(local.owner, USDC_MINT)
    before = await local.held(usdc)
    done = await local.land(*wrap(local, 200 * SOL), swap, swap)
    assert done["meta"]["err"] is None
    together = await local.held(usdc) - before
    async with a_local_chain() as other:
        for _ in range(2):
            await other.land(*wrap(other, 100 * SOL), swap)
        assert await other.held(usdc) - before == together < 2 * quote.out_amount


@pytest.mark.parametrize("name", BY_NAME)
@local_test
async def test_swaps_at_random_pay_exactly_what_the_quotes_say(local: Local, name: str) -> None:
    draw = random.Random(f"swaps {name}")
    give(local)
    if name in PLACED:
        pool_type, address = BY_NAME[name], PLACED[name](local.chain, local.owner)
    else:
        pool_type, address = pool_of(local, name)
    outcomes = Counter[str]()
    while outcomes["paid"] < SWAPS:
        pool, time = await local.pool(pool_type, address)
        a_to_b, amount = draw.random() < 0.5, round(10 ** draw.uniform(0, 11 if name in PLACED else 13))
        mint_in, mint_out = mints_of(pool, a_to_b)
        who = trader(local, mint_in, mint_out)
        try:
            quote = pool.quote(amount, a_to_b, time)
        except QuoteRefused:
            continue
        before = await local.held(who.in_account), await local.held(who.out_account)
        least = quote.out_amount + (draw.random() < 0.1)
        limit = Instruction(COMPUTE_BUDGET, pack("<BI", 2, 1_400_000), [])
        done = await local.land(limit, solders_instruction(pool.swap(quote, least, who)), skipPreflight=True)
        after = await local.held(who.in_account), await local.held(who.out_account)
        # Some pools pay by the clock: what the quote says for the moment when the transaction landed.
        executed = ChainTime(done["slot"], time.epoch, done["blockTime"])
        expected = pool.quote(amount, a_to_b, executed).out_amount
        if expected < least:
            assert done["meta"]["err"] == {"InstructionError": [2, {"Custom": SLIPPAGE[name]}]}
            assert after == before
        else:
            assert done["meta"]["err"] is None
            assert (before[0] - after[0], after[1] - before[1]) == (amount, expected)
        outcomes["failed" if expected < least else "paid"] += 1
    print(dict(outcomes))
    assert outcomes["failed"] > SWAPS // 20


@local_test
async def test_a_swap_that_takes_more_compute_than_its_limit_changes_nothing_and_costs_the_fee(local: Local) -> None:
    give(local)
    pool, time = await local.pool(*pool_of(local, "cpmm"))
    quote = pool.quote(SOL, True, time)
    who = trader(local, SOL_MINT, USDC_MINT)
    limit = Instruction(COMPUTE_BUDGET, pack("<BI", 2, 20_000), [])
    swap = solders_instruction(pool.swap(quote, 0, who))
    before = await local.held(who.in_account), await local.held(who.out_account)
    done = await local.land(limit, swap, skipPreflight=True)
    assert done["meta"]["err"] == {"InstructionError": [2, "ProgramFailedToComplete"]}
    assert (await local.held(who.in_account), await local.held(who.out_account)) == before
    assert done["meta"]["preBalances"][0] - done["meta"]["postBalances"][0] == done["meta"]["fee"]


@pytest.mark.parametrize("name", TYPES)
@local_test
async def test_a_wallet_without_token_accounts_can_make_them_in_the_transaction_that_swaps(
    local: Local, name: str
) -> None:
    usdc = Pubkey.from_bytes(associated(local.owner, USDC_MINT))
    local.chain.set_account(usdc, SoldersAccount(0, b"", Pubkey.default()))
    pool, time = await local.pool(*pool_of(local, name))
    quote = pool.quote(SOL, True, time)
    swap = solders_instruction(pool.swap(quote, quote.out_amount, trader(local, SOL_MINT, USDC_MINT)))
    await local.land(create_associated(local, USDC_MINT), *wrap(local, SOL), swap, unwrap(local))
    assert await local.held(associated(local.owner, USDC_MINT)) == quote.out_amount


@local_test
async def test_a_pools_authority_signs_for_nothing_but_its_own_transfers(local: Local) -> None:
    give(local)
    pool, time = await local.pool(*pool_of(local, "cpmm"))
    swap = pool.swap(pool.quote(SOL, True, time), 0, trader(local, SOL_MINT, USDC_MINT))
    authority, vault = swap.accounts[1].address, swap.accounts[7].address
    accounts = (AccountMeta(vault, is_writable=True), AccountMeta(swap.accounts[5].address, is_writable=True))
    theft = plain.Instruction(SPL_TOKEN, (*accounts, AccountMeta(authority)), pack("<BQ", 3, USDC))
    before = await local.held(vault)
    for order in ((swap, theft), (theft, swap)):
        done = await local.land(*(solders_instruction(each) for each in order), skipPreflight=True)
        assert done["meta"]["err"]["InstructionError"][0] == 1 + order.index(theft)
        assert await local.held(vault) == before


@local_test
async def test_a_swap_may_take_its_accounts_from_a_lookup_table(local: Local) -> None:
    give(local)
    pool, time = await local.pool(*pool_of(local, "cpmm"))
    quote = pool.quote(SOL, True, time)
    swap = solders_instruction(pool.swap(quote, quote.out_amount, trader(local, SOL_MINT, USDC_MINT)))
    keys = [meta.pubkey for meta in swap.accounts if not meta.is_signer]
    table = Pubkey.from_bytes(b"lookup table".ljust(32))
    data = pack("<IQQBB32s2x", 1, 2**64 - 1, 0, 0, 0, bytes(32)) + b"".join(bytes(key) for key in keys)
    program = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
    local.chain.set_account(table, SoldersAccount(10**9, data, program))
    lookup = AddressLookupTableAccount(table, keys)
    message = MessageV0.try_compile(local.wallet.pubkey(), [swap], [lookup], local.chain.tip.blockhash)
    usdc = associated(local.owner, USDC_MINT)
    before = await local.held(usdc)
    sent = await local.send(VersionedTransaction(message, [local.wallet]))
    local.chain.tick_blocks(3)
    done = await local.transaction(sent)
    assert done["meta"]["err"] is None
    assert await local.held(usdc) - before == quote.out_amount
    loaded = done["meta"]["loadedAddresses"]
    assert len(loaded["writable"]) == 6
    assert len(done["meta"]["preBalances"]) == len(message.account_keys) + sum(map(len, loaded.values()))
    assert {each["mint"] for each in done["meta"]["postTokenBalances"]} == {
        format_address(mint) for mint in (SOL_MINT, USDC_MINT)
    }


@pytest.mark.parametrize("name", BY_NAME)
def test_the_emulated_programs_pay_what_the_real_ones_paid(name: str) -> None:
    compared = 0
    for recording in recordings():
        if recording.type == name:
            paid, _ = emulated(recording, recording.paid)
            assert paid == recording.paid, recording.note
            with pytest.raises(ProgramFailed) as failed:
                emulated(recording, recording.paid + 1)
            assert failed.value.error == {"Custom": SLIPPAGE[name]}
            compared += 1
    assert compared == CASES[name]


def emulated(recording: Recording, least: int) -> tuple[int, Effect]:
    """Return what an emulated program pays for a recorded swap, and all that it does."""
    pool_type, world = BY_NAME[recording.type], recording.pool
    pool = pool_type.decode(world.address, world.accounts, recording.policy)
    quote = pool.quote(recording.amount, recording.a_to_b, world.time)
    mint_in, mint_out = mints_of(pool, recording.a_to_b)
    who = Trader(address("wallet"), address("in"), address("out"))
    instruction = pool.swap(quote, least, who)
    if recording.policy.amm_v4_fee == "legacy" and recording.type == "amm_v4":
        instruction = with_an_order_book(instruction)
    accounts = dict(world.accounts)
    for account, mint in ((who.in_account, mint_in), (who.out_account, mint_out)):
        known = world.accounts.get(mint)
        accounts[account] = token_account(mint, 0, known.owner if known else SPL_TOKEN)
    state = State(world.time, accounts.get)
    effect = PROGRAMS[pool_type.layout.owner](Call(instruction.program, instruction.accounts, instruction.data, state))
    state.apply(effect)
    received = state.account(who.out_account)
    assert received is not None
    return amount_of(received), effect


def with_an_order_book(swap: plain.Instruction) -> plain.Instruction:
    """Return AMM v4's swap in its older form, which lists the accounts of a market."""
    token, pool, authority, vault_a, vault_b, *rest = swap.accounts
    market = (AccountMeta(address("market"), is_writable=True),) * 8
    accounts = (token, pool, authority, market[0], vault_a, vault_b, *market[:8], *rest)
    return plain.Instruction(swap.program, accounts, b"\x09" + swap.data[1:])


def give(local: Local) -> None:
    """Let the wallet hold more of both tokens than it can spend."""
    place_tokens(local.chain, associated(local.owner, SOL_MINT), SOL_MINT, local.owner, 10**16)
    place_tokens(local.chain, associated(local.owner, USDC_MINT), USDC_MINT, local.owner, 10**16)
