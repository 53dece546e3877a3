"""Raydium AMM v4, as the tests know it."""

from __future__ import annotations

from fractions import Fraction
from struct import pack_into

from hypothesis import strategies as st

from fillwright.core.accounts import Account, ChainTime, PoolAccounts
from fillwright.venues.pool import PoolQuote, PoolType
from fillwright.venues.programs import RAYDIUM_AMM_V4
from fillwright.venues.raydium.amm_v4 import AMM_V4, AmmV4Pool
from tests.venues.model import NOW, SLOT, a_mint, address, moved, token_account, u64s

TYPE: PoolType = AMM_V4
POOL, VAULT_A, VAULT_B, MINT_A, MINT_B = (address(name) for name in ("pool", "vault a", "vault b", "mint a", "mint b"))


def world(
    reserve_a: int = 10**12,
    reserve_b: int = 5 * 10**10,
    *,
    status: int = 6,
    fee: tuple[int, int] = (25, 10_000),
    owed: tuple[int, int] = (0, 0),
    open_time_s: int = 0,
) -> PoolAccounts:
    """Return a pool. `owed` is what need_take_pnl says of each side."""
    pool = bytearray(752)
    pack_into("<QQ", pool, 0, status, 254)
    pack_into("<QQQQ", pool, 176, *fee, *owed)
    pack_into("<Q", pool, 224, open_time_s)
    pack_into("<32s32s32s32s", pool, 336, VAULT_A, VAULT_B, MINT_A, MINT_B)
    accounts = {
        POOL: Account(RAYDIUM_AMM_V4, bytes(pool)),
        VAULT_A: token_account(MINT_A, reserve_a + owed[0]),
        VAULT_B: token_account(MINT_B, reserve_b + owed[1]),
        MINT_A: a_mint(),
        MINT_B: a_mint(),
    }
    return PoolAccounts(POOL, SLOT, NOW, accounts)


def worlds() -> st.SearchStrategy[PoolAccounts]:
    fees = st.integers(1, 2**40).flatmap(lambda most: st.tuples(st.integers(0, most), st.just(most)))
    owed = st.tuples(st.integers(0, 10**9), st.integers(0, 10**9))
    return st.builds(world, u64s, u64s, fee=fees, owed=owed, status=st.sampled_from([6, 7]))


def exact_out(pool: AmmV4Pool, amount: int, a_to_b: bool, at: ChainTime) -> Fraction:
    reserve_in, reserve_out = (pool.reserve_a, pool.reserve_b) if a_to_b else (pool.reserve_b, pool.reserve_a)
    swapped = Fraction(amount * (pool.fee_denominator - pool.fee_numerator), pool.fee_denominator)
    return swapped * reserve_out / (reserve_in + swapped) if swapped else Fraction(0)


def after(world: PoolAccounts, quote: PoolQuote) -> PoolAccounts:
    vault_in, vault_out = (VAULT_A, VAULT_B) if quote.a_to_b else (VAULT_B, VAULT_A)
    return moved(moved(world, vault_in, quote.in_amount), vault_out, -quote.out_amount)
