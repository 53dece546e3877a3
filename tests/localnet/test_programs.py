"""What the emulated programs write is what the quotes' tests say that a swap leaves behind."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.accounts import Account, PoolAccounts, Trader
from fillwright.core.errors import QuoteRefused
from fillwright.core.programs import SPL_TOKEN
from fillwright.localnet.emulation import PROGRAMS
from fillwright.localnet.program import Call, State
from fillwright.venues.pool import PoolQuote
from fillwright.venues.pool_types import BY_NAME
from tests.venues.model import POLICY, address, amount_of, decode, token_account, u64s
from tests.venues.models import MODELS

WHO: Final = Trader(address("wallet"), address("in"), address("out"))


@pytest.mark.parametrize("name", BY_NAME)
def test_a_swap_pays_its_quote_and_leaves_the_pool_as_the_model_says(name: str) -> None:
    model = MODELS[name]

    @given(model.worlds(), u64s, st.booleans())
    def check(world: PoolAccounts, amount: int, a_to_b: bool) -> None:
        quote = quoted(world, amount, a_to_b, name)
        if quote is None:
            return
        paid, after = swapped(world, quote, name)
        assert paid == quote.out_amount
        expected = model.after(world, quote)
        try:
            pool = decode(model, expected)
        except QuoteRefused:
            return
        assert decode(model, after) == pool

    check()


def quoted(world: PoolAccounts, amount: int, a_to_b: bool, name: str) -> PoolQuote | None:
    with suppress(QuoteRefused):
        pool = BY_NAME[name].decode(world.address, world.accounts, POLICY)
        return pool.quote(amount, a_to_b, world.time)
    return None


def swapped(world: PoolAccounts, quote: PoolQuote, name: str) -> tuple[int, PoolAccounts]:
    """Return what the emulated program pays, and the pool's accounts after it."""
    pool = BY_NAME[name].decode(world.address, world.accounts, POLICY)
    mint_in, mint_out = (pool.mint_a, pool.mint_b) if quote.a_to_b else (pool.mint_b, pool.mint_a)
    accounts = dict(world.accounts)
    for account, mint in ((WHO.in_account, mint_in), (WHO.out_account, mint_out)):
        known = world.accounts.get(mint)
        accounts[account] = token_account(mint, 0, known.owner if known else SPL_TOKEN)
    state = State(world.time, accounts.get)
    swap = pool.swap(quote, quote.out_amount, WHO)
    effect = PROGRAMS[swap.program](Call(swap.program, swap.accounts, swap.data, state))
    state.apply(effect)
    received = state.account(WHO.out_account)
    assert received is not None
    after = {each: state.account(each) or Account(account.owner, b"") for each, account in world.accounts.items()}
    return amount_of(received), replace(world, accounts=after)
