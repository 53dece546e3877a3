"""Meteora DAMM v1, as the tests know it."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, isqrt
from struct import pack_into

from hypothesis import strategies as st

from fillwright.core.accounts import Account, ChainTime, PoolAccounts
from fillwright.core.programs import METEORA_DAMM_V1, METEORA_VAULT
from fillwright.core.units import U64_MAX
from fillwright.venues.meteora.damm_v1 import DAMM_V1, DammV1Pool, Side, StableCurve
from fillwright.venues.pool import PoolQuote, PoolType
from tests.venues.model import NOW, POLICY, SLOT, a_mint, address, moved, patched, token_account, u64s

TYPE: PoolType = DAMM_V1
POOL, STAKE = address("pool"), address("stake")
MINTS, VAULTS, VAULT_ACCOUNTS, SHARE_MINTS, SHARE_ACCOUNTS, FEE_ACCOUNTS = (
    (address(f"{name} a"), address(f"{name} b"))
    for name in ("mint", "vault", "vault account", "share mint", "share account", "fee account")
)
ALL_PROFIT = 10**12


def a_vault(
    total: int = 10**13,
    *,
    supply_bps: int = 9_500,
    shares_bps: int = 5_000,
    held_bps: int = 10_000,
    locked_bps: int = 0,
    age_s: int = 3_600,
    release: int = 46_296_296,
) -> dict[str, int]:
    """Return the numbers of a vault of `total`; its shares are worth one unit or more, as vaults lose nothing."""
    locked = total * locked_bps // 10_000
    unlocked = total - locked * max(0, ALL_PROFIT - age_s * release) // ALL_PROFIT
    supply = max(1, unlocked * supply_bps // 10_000)
    return {
        "total": total,
        "supply": supply,
        "shares": max(1, supply * shares_bps // 10_000),
        "held": total * held_bps // 10_000,
        "locked": locked,
        "reported_s": NOW.unix_time_s - age_s,
        "release": release,
    }


def world(
    vault_a: dict[str, int] | None = None,
    vault_b: dict[str, int] | None = None,
    *,
    fees: tuple[int, int, int, int] = (2_500, 1_000_000, 200_000, 1_000_000),
    stable: tuple[int, int, int, int] | None = None,
    price_age_s: int = 60,
) -> PoolAccounts:
    """Return a pool. `stable`: amplification, multipliers and Marinade's price in millionths."""
    pool = bytearray(1387)
    pack_into(
        "<8s32x32s32s32s32s32s32s", pool, 0,
        bytes.fromhex("f19a6d0411b16dbc"), *MINTS, *VAULTS, *SHARE_ACCOUNTS,
    )  # fmt: skip
    pack_into("<xB32s32s32xQQQQB32s", pool, 232, 1, *FEE_ACCOUNTS, *fees, 1, STAKE)
    if stable is not None:
        pack_into("<BQQQBQQB", pool, 874, 1, *stable[:3], 9, stable[3], NOW.unix_time_s - price_age_s, 1)
    accounts = {POOL: Account(METEORA_DAMM_V1, bytes(pool))}
    for side, numbers in enumerate((vault_a or a_vault(), vault_b or a_vault())):
        data = bytearray(10_240)
        pack_into("<8sB2xQ32s", data, 0, bytes.fromhex("d308e82b02987577"), 1, numbers["total"], VAULT_ACCOUNTS[side])
        pack_into("<32s32s", data, 83, MINTS[side], SHARE_MINTS[side])
        pack_into("<QQQ", data, 1203, numbers["locked"], numbers["reported_s"], numbers["release"])
        accounts[VAULTS[side]] = Account(METEORA_VAULT, bytes(data))
        accounts[VAULT_ACCOUNTS[side]] = token_account(MINTS[side], numbers["held"])
        accounts[SHARE_MINTS[side]] = a_mint(supply=numbers["supply"])
        accounts[SHARE_ACCOUNTS[side]] = token_account(SHARE_MINTS[side], numbers["shares"])
    return PoolAccounts(POOL, SLOT, NOW, accounts)


@st.composite
def worlds(draw: st.DrawFn) -> PoolAccounts:
    is_stable = draw(st.booleans())
    total_a = draw(st.integers(10**6, 10**13) if is_stable else u64s)
    total_b = min(U64_MAX, total_a * draw(st.integers(1, 100)) // draw(st.integers(1, 100)) + 1)
    fee_of = draw(st.integers(1, 2**40))
    fees = (draw(st.integers(0, fee_of // draw(st.integers(1, 1_000)))), fee_of, draw(st.integers(0, 10**6)), 10**6)
    multipliers = draw(st.sampled_from([(1, 1), (1, 1_000), (1_000, 1)]))
    if is_stable:
        total_a, total_b = total_a * multipliers[1], total_b * multipliers[0]
    return world(
        draw(_vaults(total_a)),
        draw(_vaults(total_b if is_stable else draw(u64s))),
        fees=fees,
        stable=(draw(st.integers(1, 10_000)), *multipliers, draw(st.integers(500_000, 2_000_000)))
        if is_stable
        else None,
        price_age_s=draw(st.sampled_from([0, 1, 600])),
    )


def _vaults(total: int) -> st.SearchStrategy[dict[str, int]]:
    shares = st.integers(2_000, 10_000)
    return st.builds(
        a_vault,
        st.just(total),
        supply_bps=st.integers(1, 10_000) | st.just(10_000),
        shares_bps=shares,
        held_bps=shares,
        locked_bps=st.integers(0, 9_000),
        age_s=st.sampled_from([0, 1, 3_600, 21_599, 21_600, 21_601, 10**6]),
        release=st.sampled_from([0, 1, 46_296_296, ALL_PROFIT]),
    )


def exact_out(pool: DammV1Pool, amount: int, a_to_b: bool, at: ChainTime) -> Fraction:
    """Return what the curve pays for what the vault may count as one unit more than was paid in.

    The program rounds the trade fee down, and the value of its shares before and after: in its favour or not.
    """
    given, taken = (pool.a, pool.b) if a_to_b else (pool.b, pool.a)
    held_in, held_out = (side.shares * worth(side, at) // side.supply for side in (given, taken))
    swapped = amount + 1 - max(Fraction(amount * pool.trade_fee, pool.trade_fee_of) - 1, Fraction(0))
    if pool.curve is None:
        return held_out * swapped / (held_in + swapped)
    scale_in, scale_out = (
        (pool.curve.scale_a, pool.curve.scale_b) if a_to_b else (pool.curve.scale_b, pool.curve.scale_a)
    )
    return _stable_out(pool.curve, held_in * scale_in, held_out * scale_out, swapped * scale_in) / scale_out


def step(pool: DammV1Pool, a_to_b: bool, at: ChainTime) -> int:
    """Return by how much an amount must be larger, at least, to be sure to pay no less.

    A deposit is rounded down to whole shares of the vault, and is then worth up to one and a half shares less than what
    was paid in: there are two shares after it, if not more, and so one that is missing lets the others be worth half
    more. What the pool had and has of the vault, and the trade fee, are rounded down to whole units.
    """
    given = pool.a if a_to_b else pool.b
    kept = 1 - Fraction(pool.trade_fee, pool.trade_fee_of)
    return ceil((Fraction(3 * worth(given, at), 2 * given.supply) + 3) / kept) if kept else U64_MAX


def worth(side: Side, at: ChainTime) -> int:
    """Return what a vault owns, less the profit that is still locked."""
    released = min(ALL_PROFIT, (at.unix_time_s - side.reported_s) * side.release)
    return side.total - side.locked_profit * (ALL_PROFIT - released) // ALL_PROFIT


def _stable_out(curve: StableCurve, x: int, y: int, swapped: Fraction) -> Fraction:
    """Return the stable curve's answer in scaled amounts, too high by as much as Newton's steps can end too low."""
    ann = 2 * curve.amplification
    low, high = 0, x + y
    while low < high:  # D grows with the amounts, so the last whole number that is not too large is found by halving
        middle = (low + high + 1) // 2
        if middle**3 + 4 * x * y * (ann - 1) * middle <= 4 * x * y * ann * (x + y):
            low = middle
        else:
            high = middle - 1
    d = low - 10 - low // min(x, y)
    x_after = x + swapped
    b, c = d / Fraction(ann) + x_after - d, d**3 / (4 * x_after * ann)
    left = (-b + isqrt(int(b * b + 4 * c))) / 2
    return y - left + 10 + d // max(1, int(left))


def after(world: PoolAccounts, quote: PoolQuote) -> PoolAccounts:
    pool = DAMM_V1.decode(POOL, world.accounts, POLICY)
    assert isinstance(pool, DammV1Pool)
    sides = (pool.a, pool.b) if quote.a_to_b else (pool.b, pool.a)
    (given, owned_in), (taken, owned_out) = ((side, worth(side, world.time)) for side in sides)
    protocol = 0
    if pool.protocol_fee and quote.fee_amount:
        protocol = max(1, quote.fee_amount * pool.protocol_fee // pool.protocol_fee_of)
    deposit = quote.in_amount - protocol
    minted = deposit * given.supply // owned_in
    # One share is worth one unit or more, so no other number of shares is worth what was paid.
    burned = -(-quote.out_amount * taken.supply // owned_out)
    world = _exchanged(world, given, deposit, minted)
    return _exchanged(world, taken, -quote.out_amount, -burned)


def _exchanged(world: PoolAccounts, side: Side, amount: int, shares: int) -> PoolAccounts:
    world = patched(world, side.vault, {11: (side.total + amount).to_bytes(8, "little")})
    world = patched(world, side.share_mint, {36: (side.supply + shares).to_bytes(8, "little")})
    return moved(moved(world, side.vault_account, amount), side.share_account, shares)
