"""Raydium CLMM: ticks and bitmaps, what is refused and why, and the instruction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from itertools import pairwise
from struct import pack
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime, PoolAccounts, Trader, format_address
from fillwright.core.errors import (
    AmountOverflow,
    AmountTooSmall,
    InsufficientLiquidity,
    InvalidPool,
    MissingAccount,
    MissingTickArray,
    NotTradable,
    NotYetOpen,
    QuoteRefused,
    UnknownLayout,
    UnsupportedMode,
    UnsupportedToken,
)
from fillwright.core.programs import MEMO, RAYDIUM_CLMM, SPL_TOKEN, TOKEN_2022
from fillwright.core.units import U64_MAX
from fillwright.venues.pool import Policy, PoolQuote, up
from fillwright.venues.raydium.clmm import CLMM, TICK_ARRAYS_WANTED, ClmmPool
from fillwright.venues.raydium.tick_bitmap import arrays_from, bits_of
from fillwright.venues.raydium.tick_math import SQRT_PRICE_MAX, SQRT_PRICE_MIN, TICK_MAX, amount_in, sqrt_price_at
from tests.venues.clmm import (
    CONFIG,
    MINT_A,
    MINT_B,
    OBSERVATION,
    PARTS,
    POOL,
    VAULT_A,
    VAULT_B,
    Position,
    after,
    array_at,
    bitmaps,
    extension_of,
    tick_at,
    u128,
    world,
)
from tests.venues.model import NOW, POLICY, address, an_extended_mint, patched
from tests.venues.test_recordings import recordings

EXTENSION: Final = extension_of(POOL)
SPAN: Final = 600  # ticks of an array at the spacing of `world`
TRADER: Final = Trader(address("wallet"), address("in account"), address("out account"))
FIRST_TICK: Final = 44  # of an array: -1200 and 1200 are the first of theirs


def decoded(pool: PoolAccounts, policy: Policy = POLICY) -> ClmmPool:
    found = CLMM.decode(pool.address, pool.accounts, policy)
    assert isinstance(found, ClmmPool)
    return found


def quoted(pool: PoolAccounts, amount: int = 10**6, a_to_b: bool = True, policy: Policy = POLICY) -> PoolQuote:
    return decoded(pool, policy).quote(amount, a_to_b, pool.time)


def without(pool: PoolAccounts, *lost: Address) -> PoolAccounts:
    return replace(pool, accounts={each: account for each, account in pool.accounts.items() if each not in lost})


def with_account(pool: PoolAccounts, at: Address, account: Account) -> PoolAccounts:
    return replace(pool, accounts={**pool.accounts, at: account})


# Ticks and prices


def test_the_outermost_ticks_are_the_ends_of_the_range_of_prices() -> None:
    assert sqrt_price_at(-TICK_MAX) == SQRT_PRICE_MIN
    assert sqrt_price_at(TICK_MAX) == SQRT_PRICE_MAX
    assert sqrt_price_at(0) == 2**64


@given(st.integers(-TICK_MAX, TICK_MAX))
def test_a_tick_stands_for_a_power_of_1_0001(tick: int) -> None:
    with localcontext(prec=60):
        exact = Decimal("1.0001") ** (Decimal(tick) / 2) * 2**64
        # The program's factors have 64 bits, and their errors add up to less than this.
        assert abs(sqrt_price_at(tick) / exact - 1) < Decimal(2) ** -31


def test_prices_rise_from_tick_to_tick() -> None:
    for low, high in ((-TICK_MAX, -TICK_MAX + 2_000), (-1_000, 1_000), (TICK_MAX - 2_000, TICK_MAX)):
        assert all(one < next_one for one, next_one in pairwise(map(sqrt_price_at, range(low, high + 1))))


# Bitmaps


@given(st.sampled_from((1, 2, 14)), st.data())
def test_arrays_are_found_nearest_first_on_both_sides_of_every_border(spacing: int, data: st.DataObject) -> None:
    span, last = 60 * spacing, TICK_MAX // (60 * spacing)
    borders = [
        each for each in (-1_024, -513, -512, -511, 0, 511, 512, 1_024, last, -last - 1) if abs(each) <= last + 1
    ]
    near = st.builds(
        lambda border, by: max(-last - 1, min(last, border + by)), st.sampled_from(borders), st.integers(-3, 3)
    )
    numbers = data.draw(st.sets(near, max_size=12))
    here = data.draw(near)
    bits = bits_of(*bitmaps({number * span for number in numbers}, span))
    assert list(arrays_from(bits, here, downwards=True)) == sorted({n for n in numbers if n <= here}, reverse=True)
    assert list(arrays_from(bits, here, downwards=False)) == sorted(n for n in numbers if n >= here)


def test_the_pool_names_the_nearest_arrays_and_no_more_than_a_bounded_number() -> None:
    positions = [(at * SPAN, at * SPAN + 10, 10**12) for at in range(-100, 100, 2)]
    many = world(positions, tick=5)
    named = CLMM.wanted(POOL, many.accounts)
    assert named[:5] == (POOL, CONFIG, MINT_A, MINT_B, EXTENSION)
    down = [array_at(-at * SPAN) for at in range(0, 2 * TICK_ARRAYS_WANTED, 2)]
    up = [array_at(at * SPAN) for at in range(2, 2 * TICK_ARRAYS_WANTED, 2)]
    assert list(named[5:]) == [*down, *up]


def test_arrays_beyond_the_pool_s_own_bitmap_are_named_once_the_extension_is_at_hand() -> None:
    far = world([(-60_000, -59_990, 10**12), (-30_000, 30_000, 10**12)], spacing=1)
    assert array_at(-60_000) not in CLMM.wanted(POOL, without(far, EXTENSION).accounts)
    assert array_at(-60_000) in CLMM.wanted(POOL, far.accounts)


# The walk


def test_the_model_s_own_walk_pays_what_was_recorded_and_leaves_a_pool_that_can_be_read() -> None:
    for each in recordings():
        if each.type == "clmm":
            quote = quoted(each.pool, each.amount, each.a_to_b, each.policy)
            assert quote.out_amount == each.paid
            left = decoded(after(each.pool, quote))
            assert left.tick in (tick_at(left.sqrt_price), tick_at(left.sqrt_price) - 1)


def test_walking_down_begins_with_the_tick_at_the_price_and_walking_up_with_the_one_above() -> None:
    at_its_tick = world([(0, 1_200, 10**12), (-1_200, 0, 5 * 10**11)], tick=0, part=0)
    below = world([(0, 1_200, 10**12), (-1_200, 0, 5 * 10**11)], tick=-1, part=PARTS)
    assert decoded(at_its_tick).sqrt_price == decoded(below).sqrt_price
    assert quoted(at_its_tick).out_amount == quoted(below).out_amount
    assert quoted(at_its_tick, a_to_b=False).out_amount == quoted(below, a_to_b=False).out_amount


def test_a_gap_without_liquidity_is_walked_for_nothing() -> None:
    gap = world([(-3_000, -1_200, 10**12), (1_200, 3_000, 10**12)])
    quote = quoted(gap)
    assert quote.path == (array_at(-1_200), array_at(-3_000))
    assert quote.out_amount < 10**6 * 0.9
    assert quoted(gap, a_to_b=False).path == (array_at(1_200), array_at(3_000))


def test_the_path_begins_with_the_array_at_the_price_even_if_its_ticks_lie_behind() -> None:
    behind = world([(10, 1_200, 10**12), (-1_200, 1_200, 10**12)], tick=5)
    assert quoted(behind).path == (array_at(0), array_at(-1_200))
    assert quoted(behind, a_to_b=False).path == (array_at(0),)


def test_each_crossed_tick_is_counted_in_the_compute_units() -> None:
    steps = world([(low, 1_200, 10**9) for low in range(-600, 0, 10)])
    one, many = quoted(steps, 10**7), quoted(steps, 5 * 10**8)
    assert many.compute_units > one.compute_units
    assert (many.compute_units - one.compute_units) % 18_600 == 0


def test_an_amount_that_just_reaches_a_tick_crosses_it() -> None:
    pool = world(tick=-1, part=PARTS, rates=(0, 0, 0))
    to_the_tick = amount_in(sqrt_price_at(0), sqrt_price_at(-1_200), 10**12)
    reaching, short = quoted(pool, to_the_tick), quoted(pool, to_the_tick - 1)
    assert reaching.compute_units - short.compute_units == 18_600
    assert decoded(after(pool, reaching)).tick == -1_201
    assert decoded(after(pool, short)).tick == -1_200
    with pytest.raises(InsufficientLiquidity):
        quoted(pool, to_the_tick + 1)


def test_the_fee_is_taken_of_what_comes_in_and_rounded_up() -> None:
    free, dear = world(rates=(0, 0, 0)), world(rates=(10_000, 0, 0))
    assert quoted(free).fee_amount == 0
    assert quoted(dear, 1_000_001).fee_amount == 10_001
    assert quoted(dear, 1_000_000).out_amount == quoted(free, 990_000).out_amount


def test_the_price_impact_leaves_the_fee_aside_and_grows_with_the_amount() -> None:
    assert quoted(world(rates=(500_000, 0, 0)), 10**7).price_impact_bps == 1
    half = quoted(world(rates=(0, 0, 0)), 5 * 10**10)
    assert 470 < half.price_impact_bps < 490  # 1 − 1 / (1 + x/L), x/L = 0.05


def test_transfer_fees_are_withheld_before_the_pool_and_after_it() -> None:
    plain = quoted(world(), 990_000)
    both = quoted(world(transfer_fees=((100, 10**9), (200, 10**9))), 1_000_000)
    assert both.out_amount == plain.out_amount - up(plain.out_amount * 200, 10_000)
    capped = quoted(world(transfer_fees=((100, 7), None)), 990_007)
    assert capped.out_amount == plain.out_amount


def test_harmless_extensions_of_a_mint_need_no_permission() -> None:
    extended = with_account(world(), MINT_A, an_extended_mint((18, bytes(64)), (10, bytes(52))))
    assert quoted(extended, policy=Policy()) == quoted(world(), policy=Policy())


def test_a_pool_opens_after_its_time_and_not_at_it() -> None:
    pool = patched(world(), POOL, {1080: pack("<Q", NOW.unix_time_s)})
    with pytest.raises(NotYetOpen, match=str(NOW.unix_time_s)):
        quoted(pool)
    later = ChainTime(NOW.slot, NOW.epoch, NOW.unix_time_s + 1)
    assert decoded(pool).quote(10**6, True, later) == quoted(world())


def test_other_bits_of_the_status_do_not_switch_swaps_off() -> None:
    assert quoted(patched(world(), POOL, {389: b"\xef"})) == quoted(world())


def test_a_pool_without_a_bitmap_extension_is_quoted_within_its_own_bitmap() -> None:
    assert quoted(world(has_extension=False)) == quoted(world())


# Refusals


@dataclass(frozen=True)
class Refusal:
    """`says` is part of the message, which always names the pool or the account at fault."""

    pool: PoolAccounts
    error: type[QuoteRefused]
    says: str
    amount: int = 10**6
    a_to_b: bool = True
    policy: Policy = POLICY


def at_the_end(positions: list[Position], tick: int) -> PoolAccounts:
    return world(positions, tick=tick, spacing=1, rates=(0, 0, 0))


WORLD: Final = world()
ARRAY: Final = array_at(-1_200)
REFUSALS: Final = {
    "pool of another program": Refusal(
        with_account(WORLD, POOL, Account(SPL_TOKEN, WORLD.accounts[POOL].data)), UnknownLayout, "its owner is"
    ),
    "pool too short": Refusal(
        with_account(WORLD, POOL, Account(RAYDIUM_CLMM, WORLD.accounts[POOL].data[:-1])), UnknownLayout, "1543 bytes"
    ),
    "pool of another kind": Refusal(patched(WORLD, POOL, {0: b"\0"}), UnknownLayout, "begins with"),
    "config of another kind": Refusal(patched(WORLD, CONFIG, {0: b"\0"}), UnknownLayout, "CLMM config"),
    "extension of another kind": Refusal(patched(WORLD, EXTENSION, {0: b"\0"}), UnknownLayout, "bitmap extension"),
    "array of another kind": Refusal(patched(WORLD, ARRAY, {0: b"\0"}), UnknownLayout, "tick array"),
    "extension of another pool": Refusal(patched(WORLD, EXTENSION, {8: b"\0"}), InvalidPool, "another pool"),
    "array of another pool": Refusal(patched(WORLD, ARRAY, {8: b"\0"}), InvalidPool, "belongs elsewhere"),
    "array from elsewhere": Refusal(patched(WORLD, ARRAY, {40: pack("<i", -600)}), InvalidPool, "belongs elsewhere"),
    "swaps off": Refusal(patched(WORLD, POOL, {389: b"\x10"}), NotTradable, "switched off"),
    "fee of token 0": Refusal(patched(WORLD, POOL, {390: b"\1"}), UnsupportedMode, "takes its fee"),
    "fee of token 1": Refusal(patched(WORLD, POOL, {390: b"\2"}), UnsupportedMode, "takes its fee"),
    "dynamic fee, first byte": Refusal(patched(WORLD, POOL, {1096: b"\1"}), UnsupportedMode, "takes its fee"),
    "dynamic fee, last byte": Refusal(patched(WORLD, POOL, {1175: b"\1"}), UnsupportedMode, "takes its fee"),
    "limit order": Refusal(patched(WORLD, ARRAY, {FIRST_TICK + 124: b"\1"}), UnsupportedMode, "limit orders"),
    "limit order, filled in part": Refusal(
        patched(WORLD, ARRAY, {FIRST_TICK + 132: b"\1"}), UnsupportedMode, "limit orders"
    ),
    "limit order where no position ends": Refusal(
        patched(WORLD, ARRAY, {FIRST_TICK + 168 * 9 + 124: b"\1"}), UnsupportedMode, "limit orders"
    ),
    "config of another spacing": Refusal(patched(WORLD, CONFIG, {51: b"\1\0"}), InvalidPool, "tick spacing"),
    "no spacing": Refusal(patched(WORLD, POOL, {235: b"\0\0"}), InvalidPool, "does not exist"),
    "all is fee": Refusal(world(rates=(1_000_000, 0, 0)), InvalidPool, "more than all"),
    "more than the fee is shared out": Refusal(world(rates=(1, 960_001, 40_000)), InvalidPool, "more than all"),
    "price above its tick": Refusal(
        patched(WORLD, POOL, {253: u128(sqrt_price_at(1) + 1)}), InvalidPool, "not at its tick"
    ),
    "price below its tick": Refusal(
        patched(WORLD, POOL, {253: u128(sqrt_price_at(0) - 1)}), InvalidPool, "not at its tick"
    ),
    "price at the lower end": Refusal(
        patched(WORLD, POOL, {253: u128(SQRT_PRICE_MIN), 269: pack("<i", -TICK_MAX)}), InvalidPool, "not at its tick"
    ),
    "tick beyond the range": Refusal(
        patched(WORLD, POOL, {269: pack("<i", TICK_MAX)}), InvalidPool, "at a tick that does not exist"
    ),
    "tick in another's place": Refusal(
        patched(WORLD, ARRAY, {FIRST_TICK: pack("<i", -1_190)}), InvalidPool, "where it cannot be"
    ),
    "array without a tick": Refusal(
        patched(WORLD, ARRAY, {FIRST_TICK + 20: bytes(16)}), InvalidPool, "has no tick"
    ),
    "bitmap beyond all ticks": Refusal(
        patched(WORLD, EXTENSION, {40 + 64: b"\xff"}), InvalidPool, "ticks that do not exist", 10**12, False
    ),
    "more liquidity taken away than there is": Refusal(
        patched(WORLD, ARRAY, {FIRST_TICK + 4: u128(2 * 10**12)}), InvalidPool, "than there is", 10**12
    ),
    "config missing": Refusal(without(WORLD, CONFIG), MissingAccount, "config"),
    "mint missing": Refusal(without(WORLD, MINT_B), MissingAccount, "the mint"),
    "array missing": Refusal(without(WORLD, ARRAY), MissingTickArray, "from tick -1200 on"),
    "next array missing": Refusal(
        without(world([(-1_200, 1_200, 10**12), (-2_400, 0, 10**12)]), array_at(-2_400)),
        MissingTickArray,
        "from tick -2400 on",
        15 * 10**10,
    ),
    "price beyond the bitmap, extension missing": Refusal(
        without(world([(40_000, 41_000, 10**12)], tick=40_500, spacing=1), EXTENSION), MissingAccount, "read the pool"
    ),
    "walk beyond the bitmap, extension missing": Refusal(
        without(world([(30_000, 31_000, 10**12)], tick=30_500, spacing=1), EXTENSION),
        MissingAccount,
        "to the end of its own bitmap",
        a_to_b=False,
    ),
    "no tick left below": Refusal(WORLD, InsufficientLiquidity, "no tick is left below", 10**12),
    "no tick left above": Refusal(WORLD, InsufficientLiquidity, "no tick is left above", 10**12, False),
    "no tick left, pool that has no extension": Refusal(
        world([(-1_200, 1_200, 10**6)], spacing=60, has_extension=False),
        InsufficientLiquidity,
        "no tick is left",
        10**12,
    ),
    "more arrays than a transaction names": Refusal(
        world([(at * SPAN, at * SPAN + 10, 10**9) for at in range(-20, 1)]),
        InsufficientLiquidity,
        "16 tick arrays",
        10**12,
    ),
    "lower end of the prices": Refusal(
        at_the_end([(-TICK_MAX, -TICK_MAX + 50, 10**6)], -TICK_MAX + 20),
        InsufficientLiquidity,
        "end of its prices",
        10**18,
    ),
    "upper end of the prices": Refusal(
        at_the_end([(TICK_MAX - 50, TICK_MAX, 10**6)], TICK_MAX - 20),
        InsufficientLiquidity,
        "end of its prices",
        10**18,
        False,
    ),
    "next tick out of reach": Refusal(
        world([(-443_630, 443_630, 10**12)]), UnsupportedMode, "builds of the program differ"
    ),
    "nothing": Refusal(WORLD, AmountTooSmall, "nothing is to be swapped", 0),
    "too little": Refusal(WORLD, AmountTooSmall, "would pay nothing", 1),
    "all is withheld on the way in": Refusal(
        world(transfer_fees=((10_000, U64_MAX), None)), AmountTooSmall, "leaves nothing"
    ),
    "all is withheld on the way out": Refusal(
        world(transfer_fees=(None, (10_000, U64_MAX))), AmountTooSmall, "would pay nothing"
    ),
    "more than an account holds": Refusal(WORLD, AmountOverflow, "larger than any account", U64_MAX + 1),
    "more paid than an account holds": Refusal(
        world([(380_000, 403_000, 10**12)], tick=401_000), AmountOverflow, "would pay more", 10**3
    ),
    "more fees than are counted": Refusal(
        world(owed=(U64_MAX, 0, 0, 0)), AmountOverflow, "cannot count so much in fees"
    ),
    "more fees per liquidity than are counted": Refusal(
        world(growths=(2**128 - 1, 0)), AmountOverflow, "cannot count so much in fees"
    ),
    "transfer fee not allowed": Refusal(
        world(transfer_fees=(None, (0, 0))), UnsupportedToken, "unproven_transfer_fees", policy=Policy()
    ),
    "transfer hook": Refusal(
        with_account(WORLD, MINT_B, an_extended_mint((14, b"\1" * 64))), UnsupportedToken, "transfer hook"
    ),
    "mint of no token program": Refusal(
        with_account(WORLD, MINT_A, Account(RAYDIUM_CLMM, bytes(82))), UnknownLayout, "is no mint"
    ),
}  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_what_is_not_modelled_or_cannot_be_is_refused_by_name(refusal: Refusal) -> None:
    with pytest.raises(QuoteRefused) as refused:
        quoted(refusal.pool, refusal.amount, refusal.a_to_b, refusal.policy)
    assert type(refused.value) is refusal.error
    message = str(refused.value)
    assert refusal.says in message
    if 0 < refusal.amount <= U64_MAX:
        assert any(
            format_address(each) in message for each in (*WORLD.accounts, *refusal.pool.accounts, array_at(-2_400))
        )


@pytest.mark.parametrize("name", ["no spacing", "tick beyond the range", "extension of another pool"])
def test_a_pool_that_cannot_be_right_names_no_arrays_and_leaves_it_to_decode_to_say_why(name: str) -> None:
    assert CLMM.wanted(POOL, REFUSALS[name].pool.accounts) == (POOL, CONFIG, MINT_A, MINT_B, EXTENSION)


# The instruction


@pytest.mark.parametrize("a_to_b", [True, False])
def test_the_instruction_has_the_program_s_accounts_in_order_and_its_arguments(a_to_b: bool) -> None:
    pool = world([(-1_200, 1_200, 10**12), (-1_800, 1_800, 10**12), (0, 1_200, 5)])
    quote = quoted(pool, 15 * 10**10, a_to_b)
    instruction = decoded(pool).swap(quote, quote.out_amount - 1, TRADER)
    a, b = (VAULT_A, MINT_A), (VAULT_B, MINT_B)
    (vault_in, mint_in), (vault_out, mint_out) = (a, b) if a_to_b else (b, a)
    starts = (0, -1_200, -1_800) if a_to_b else (0, 1_200, 1_800)
    assert instruction.program == RAYDIUM_CLMM
    assert instruction.accounts == (
        AccountMeta(TRADER.wallet, is_signer=True),
        AccountMeta(CONFIG),
        AccountMeta(POOL, is_writable=True),
        AccountMeta(TRADER.in_account, is_writable=True),
        AccountMeta(TRADER.out_account, is_writable=True),
        AccountMeta(vault_in, is_writable=True),
        AccountMeta(vault_out, is_writable=True),
        AccountMeta(OBSERVATION, is_writable=True),
        AccountMeta(SPL_TOKEN),
        AccountMeta(TOKEN_2022),
        AccountMeta(MEMO),
        AccountMeta(mint_in),
        AccountMeta(mint_out),
        AccountMeta(EXTENSION, is_writable=True),
        *(AccountMeta(array_at(start), is_writable=True) for start in starts),
    )
    assert instruction.data == b"".join(
        (
            bytes.fromhex("2b04ed0b1ac91e62"),
            pack("<QQ", 15 * 10**10, quote.out_amount - 1),
            bytes(16),
            b"\1",
        )
    )


def test_the_instruction_names_no_bitmap_extension_that_does_not_exist() -> None:
    pool = world(has_extension=False)
    quote = quoted(pool)
    named = [meta.address for meta in decoded(pool).swap(quote, 1, TRADER).accounts]
    assert named[13:] == [array_at(-1_200)]
