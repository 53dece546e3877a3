"""Raydium CPMM, as the tests know it."""

from __future__ import annotations

from fractions import Fraction
from struct import pack, unpack_from

from hypothesis import strategies as st

from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts
from fillwright.core.programs import RAYDIUM_CPMM, SPL_TOKEN, TOKEN_2022
from fillwright.venues.pool import PoolQuote, PoolType
from fillwright.venues.raydium.cpmm import CPMM, CpmmPool
from tests.venues.model import NOW, POLICY, SLOT, a_fee_mint, a_mint, address, moved, patched, token_account, u64s

TYPE: PoolType = CPMM
OBSERVATION = address("observation")
MINTS = (address("mint a"), address("mint b"))


def world(
    reserve_a: int = 10**12,
    reserve_b: int = 5 * 10**10,
    *,
    rate: int = 2_500,
    owed: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0),
    transfer_fees: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None),
    name: str = "",
    mints: tuple[Address, Address] = MINTS,
    decimals: tuple[int, int] = (6, 6),
) -> PoolAccounts:
    """Return a pool. `owed` is to protocol, fund and creator, of each side; `transfer_fees` are bps and maximum."""
    pool_address, config_address, vault_a, vault_b = (
        address(f"{name}{what}") for what in ("pool", "config", "vault a", "vault b")
    )
    mint_accounts = [
        a_mint(places) if fee is None else a_fee_mint(*fee, decimals=places)
        for fee, places in zip(transfer_fees, decimals, strict=True)
    ]
    programs = [SPL_TOKEN if fee is None else TOKEN_2022 for fee in transfer_fees]
    protocol_a, protocol_b, fund_a, fund_b, creator_a, creator_b = owed
    pool = b"".join(
        (
            bytes.fromhex("f7ede3f5d7c3de46"), config_address, bytes(32), vault_a, vault_b, bytes(32),
            *mints, *programs, OBSERVATION, bytes([255, 0, 9, *decimals]),
            pack("<QQQQQQQ", 10**9, protocol_a, protocol_b, fund_a, fund_b, 1, 0),
            bytes(8), pack("<QQ", creator_a, creator_b), bytes(224),
        )
    )  # fmt: skip
    config = bytes.fromhex("daf42168cbcb2b6f") + pack("<4xQQQ", rate, 120_000, 40_000) + bytes(200)
    accounts = {
        pool_address: Account(RAYDIUM_CPMM, pool),
        config_address: Account(RAYDIUM_CPMM, config),
        vault_a: token_account(mints[0], reserve_a + protocol_a + fund_a + creator_a, programs[0]),
        vault_b: token_account(mints[1], reserve_b + protocol_b + fund_b + creator_b, programs[1]),
        mints[0]: mint_accounts[0],
        mints[1]: mint_accounts[1],
    }
    return PoolAccounts(pool_address, SLOT, NOW, accounts)


def worlds() -> st.SearchStrategy[PoolAccounts]:
    fees = st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 10**9))
    return st.builds(
        world,
        u64s,
        u64s,
        rate=st.integers(0, 1_000_000),
        owed=st.tuples(*[st.integers(0, 10**9)] * 6),
        transfer_fees=st.tuples(fees, fees),
    )


def exact_out(pool: CpmmPool, amount: int, a_to_b: bool, at: ChainTime) -> Fraction:
    reserve_in, reserve_out = (pool.reserve_a, pool.reserve_b) if a_to_b else (pool.reserve_b, pool.reserve_a)
    swapped = Fraction(amount * (1_000_000 - pool.trade_fee), 1_000_000)
    return swapped * reserve_out / (reserve_in + swapped) if swapped else Fraction(0)


def after(world: PoolAccounts, quote: PoolQuote) -> PoolAccounts:
    pool = CPMM.decode(world.address, world.accounts, POLICY)
    assert isinstance(pool, CpmmPool)
    if quote.a_to_b:
        transfer_fee, vault_in, vault_out, side = pool.transfer_fee_a, pool.vault_a, pool.vault_b, 0
        reserve_in, reserve_out = pool.reserve_a, pool.reserve_b
    else:
        transfer_fee, vault_in, vault_out, side = pool.transfer_fee_b, pool.vault_b, pool.vault_a, 8
        reserve_in, reserve_out = pool.reserve_b, pool.reserve_a
    arriving = quote.in_amount - (transfer_fee.of(quote.in_amount, world.time.epoch) if transfer_fee else 0)
    swapped = arriving - quote.fee_amount
    leaving = swapped * reserve_out // (reserve_in + swapped)
    protocol_rate, fund_rate = unpack_from("<QQ", world.accounts[pool.config].data, 20)
    owed = {}
    for at, rate in ((341 + side, protocol_rate), (357 + side, fund_rate)):
        (before,) = unpack_from("<Q", world.accounts[world.address].data, at)
        owed[at] = pack("<Q", before + quote.fee_amount * rate // 1_000_000)
    return moved(moved(patched(world, world.address, owed), vault_in, arriving), vault_out, -leaving)
