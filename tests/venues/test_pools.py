"""What holds for every pool type, whatever the pool."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.accounts import PoolAccounts, Trader
from fillwright.core.errors import QuoteRefused
from fillwright.core.units import U64_MAX
from fillwright.venues.meteora.damm_v1 import DammV1Pool
from fillwright.venues.pool import Pool, PoolQuote
from tests.venues import damm_v1
from tests.venues.model import POLICY, Model, address, decode
from tests.venues.models import MODELS

EVERY = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
amounts = st.one_of(st.integers(1, 300), st.integers(1, 10**12), st.integers(1, U64_MAX))
TRADER = Trader(address("wallet"), address("in account"), address("out account"))


def quoted(pool: Pool, world: PoolAccounts, amount: int, a_to_b: bool) -> PoolQuote | None:
    try:
        return pool.quote(amount, a_to_b, world.time)
    except QuoteRefused:
        return None


@EVERY
@given(st.data())
def test_a_quote_never_promises_more_than_exact_arithmetic_allows(model: Model, data: st.DataObject) -> None:
    world, amount, a_to_b = data.draw(model.worlds()), data.draw(amounts), data.draw(st.booleans())
    pool = decode(model, world)
    quote = quoted(pool, world, amount, a_to_b)
    if quote is not None:
        assert 0 < quote.out_amount <= model.exact_out(pool, amount, a_to_b, world.time)
        assert quote.out_amount <= U64_MAX
        assert 0 <= quote.price_impact_bps <= 10_000
        assert (quote.in_amount, quote.a_to_b) == (amount, a_to_b)
        assert all(type(value) is int for value in (quote.out_amount, quote.fee_amount, quote.compute_units))


@EVERY
@given(st.data())
def test_a_larger_amount_never_pays_less(model: Model, data: st.DataObject) -> None:
    world, amount, a_to_b = data.draw(model.worlds()), data.draw(amounts), data.draw(st.booleans())
    pool = decode(model, world)
    step = damm_v1.step(pool, a_to_b, world.time) if isinstance(pool, DammV1Pool) else 1
    more = amount + data.draw(st.one_of(st.integers(step, step + 10), st.integers(step, step + 10**9)))
    less, larger = quoted(pool, world, amount, a_to_b), quoted(pool, world, more, a_to_b)
    if less is not None and larger is not None:
        assert larger.out_amount >= less.out_amount


@EVERY
@given(st.data())
def test_there_and_back_never_gains(model: Model, data: st.DataObject) -> None:
    world, amount, a_to_b = data.draw(model.worlds()), data.draw(amounts), data.draw(st.booleans())
    there = quoted(decode(model, world), world, amount, a_to_b)
    if there is None:
        return
    left = model.after(world, there)
    back = quoted(decode(model, left), left, there.out_amount, not a_to_b)
    if back is not None:
        assert back.out_amount <= amount


@EVERY
@given(st.data())
def test_the_same_accounts_always_give_the_same_quote_and_its_instruction(model: Model, data: st.DataObject) -> None:
    world, amount, a_to_b = data.draw(model.worlds()), data.draw(amounts), data.draw(st.booleans())
    pool, again = decode(model, world), decode(model, replace(world))
    quote = quoted(pool, world, amount, a_to_b)
    assert quote == quoted(again, world, amount, a_to_b)
    if quote is not None:
        instruction = pool.swap(quote, quote.out_amount, TRADER)
        assert instruction == again.swap(quote, quote.out_amount, TRADER)
        named = [meta.address for meta in instruction.accounts]
        assert {TRADER.in_account, TRADER.out_account, world.address} <= {
            meta.address for meta in instruction.accounts if meta.is_writable
        }
        assert [meta.address for meta in instruction.accounts if meta.is_signer] == [TRADER.wallet]
        assert set(quote.path) <= set(named)
        assert instruction.program == model.TYPE.layout.owner
        assert amount.to_bytes(8, "little") in instruction.data
        assert quote.out_amount.to_bytes(8, "little") in instruction.data


@EVERY
@given(st.data())
def test_a_quote_depends_on_no_account_that_it_does_not_name(model: Model, data: st.DataObject) -> None:
    world, amount, a_to_b = data.draw(model.worlds()), data.draw(amounts), data.draw(st.booleans())
    pool = decode(model, world)
    quote = quoted(pool, world, amount, a_to_b)
    if quote is not None:
        named = {*pool.accounts, *quote.path}
        only = {each: account for each, account in world.accounts.items() if each in named}
        assert model.TYPE.decode(world.address, only, POLICY).quote(amount, a_to_b, world.time) == quote
