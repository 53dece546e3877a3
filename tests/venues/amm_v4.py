"""Raydium AMM v4, as the tests know it."""

from __future__ import annotations

from fractions import Fraction
from struct import pack, pack_into

from hypothesis import strategies as st

from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts
from fillwright.core.programs import RAYDIUM_AMM_V4
from fillwright.venues.pool import PoolQuote, PoolType
from fillwright.venues.raydium.amm_v4 import AMM_V4, SWAP_ONLY, AmmV4Pool
from tests.venues.model import NOW, POLICY, SLOT, a_mint, address, moved, patched, token_account, u64s

TYPE: PoolType = AMM_V4
MINTS = (address("mint a"), address("mint b"))


def world(
    reserve_a: int = 10**12,
    reserve_b: int = 5 * 10**10,
    *,
    status: int = 6,
    fee: tuple[int, int] = (25, 10_000),
    owed: tuple[int, int] = (0, 0),
    open_time_s: int = 0,
    name: str = "",
    mints: tuple[Address, Address] = MINTS,
    decimals: tuple[int, int] = (6, 6),
) -> PoolAccounts:
    """Return a pool. `owed` is what need_take_pnl says of each side."""
    pool_address, vault_a, vault_b = (address(f"{name}{what}") for what in ("pool", "vault a", "vault b"))
    pool = bytearray(752)
    pack_into("<QQ", pool, 0, status, 254)
    pack_into("<QQQQ", pool, 176, *fee, *owed)
    pack_into("<Q", pool, 224, open_time_s)
    pack_into("<32s32s32s32s", pool, 336, vault_a, vault_b, *mints)
    accounts = {
        pool_address: Account(RAYDIUM_AMM_V4, bytes(pool)),
        vault_a: token_account(mints[0], reserve_a + owed[0]),
        vault_b: token_account(mints[1], reserve_b + owed[1]),
        mints[0]: a_mint(decimals[0]),
        mints[1]: a_mint(decimals[1]),
    }
    return PoolAccounts(pool_address, SLOT, NOW, accounts)


def worlds() -> st.SearchStrategy[PoolAccounts]:
    fees = st.integers(1, 2**40).flatmap(lambda most: st.tuples(st.integers(0, most), st.just(most)))
    owed = st.tuples(st.integers(0, 10**9), st.integers(0, 10**9))
    return st.builds(world, u64s, u64s, fee=fees, owed=owed, status=st.sampled_from([6, 7]))


def exact_out(pool: AmmV4Pool, amount: int, a_to_b: bool, at: ChainTime) -> Fraction:
    reserve_in, reserve_out = (pool.reserve_a, pool.reserve_b) if a_to_b else (pool.reserve_b, pool.reserve_a)
    swapped = Fraction(amount * (pool.fee_denominator - pool.fee_numerator), pool.fee_denominator)
    return swapped * reserve_out / (reserve_in + swapped) if swapped else Fraction(0)


def after(world: PoolAccounts, quote: PoolQuote) -> PoolAccounts:
    pool = AMM_V4.decode(world.address, world.accounts, POLICY)
    assert isinstance(pool, AmmV4Pool)
    vault_in, vault_out = (pool.vault_a, pool.vault_b) if quote.a_to_b else (pool.vault_b, pool.vault_a)
    opened = patched(world, world.address, {0: pack("<Q", SWAP_ONLY)})
    return moved(moved(opened, vault_in, quote.in_amount), vault_out, -quote.out_amount)
