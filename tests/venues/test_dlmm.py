"""Meteora DLMM: its instruction, its fees, its walk through bins and arrays, and everything that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
    MissingBinArray,
    NotTradable,
    NotYetOpen,
    QuoteRefused,
    UnknownLayout,
    UnsupportedMode,
    UnsupportedToken,
)
from fillwright.core.programs import METEORA_DLMM, SPL_TOKEN, TOKEN_2022
from fillwright.core.units import U64_MAX
from fillwright.venues.meteora.dlmm import ARRAYS_MAX, BINS_MAX, DLMM, DlmmPool
from fillwright.venues.pool import Policy, PoolQuote
from tests.venues.dlmm import (
    EXTENSION,
    ID_MAX,
    MINT_A,
    MINT_B,
    ORACLE,
    POOL,
    RESERVE_A,
    RESERVE_B,
    Bin,
    Fees,
    after,
    array_address,
    price_of,
    world,
    worlds,
)
from tests.venues.model import NOW, POLICY, address, an_extended_mint, patched
from tests.venues.test_recordings import recordings

TRADER: Final = Trader(address("wallet"), address("in account"), address("out account"))
EVENT_AUTHORITY: Final = "D1ZN9Wj1fRSUQfCjhvnu1hqDMT7hzjzBBpi12nVniYD6"
MEMO: Final = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
FREE: Final = Fees(base_factor=0, variable=0)
PLENTY: Final = 10**9
MANY: Final = 10**12


def decode(world: PoolAccounts, policy: Policy = POLICY) -> DlmmPool:
    pool = DLMM.decode(world.address, world.accounts, policy)
    assert isinstance(pool, DlmmPool)
    return pool


def quote(world: PoolAccounts, amount: int = 1_000_000, a_to_b: bool = True, at: ChainTime = NOW) -> PoolQuote:
    return decode(world).quote(amount, a_to_b, at)


def a_world() -> PoolAccounts:
    return world({-1: Bin(b=PLENTY), 0: Bin(PLENTY, PLENTY), 1: Bin(a=PLENTY)})


def shown(meta: AccountMeta) -> tuple[str, str]:
    flags = ("S" if meta.is_signer else "") + ("W" if meta.is_writable else "")
    return format_address(meta.address), flags


# The instruction


@pytest.mark.parametrize("a_to_b", [True, False])
def test_the_instruction_is_swap2_with_the_accounts_in_the_programs_order(a_to_b: bool) -> None:
    pool = decode(a_world())
    instruction = pool.swap(pool.quote(1_500_000_000, a_to_b, NOW), 77, TRADER)
    program, spl = format_address(METEORA_DLMM), format_address(SPL_TOKEN)
    assert instruction.program == METEORA_DLMM
    assert instruction.data == bytes.fromhex("414b3f4ceb5b5b88") + pack("<QQ", 1_500_000_000, 77) + bytes(4)
    assert [shown(meta) for meta in instruction.accounts] == [
        (format_address(POOL), "W"),
        (program, ""),
        (format_address(RESERVE_A), "W"),
        (format_address(RESERVE_B), "W"),
        (format_address(TRADER.in_account), "W"),
        (format_address(TRADER.out_account), "W"),
        (format_address(MINT_A), ""),
        (format_address(MINT_B), ""),
        (format_address(ORACLE), "W"),
        (program, ""),
        (format_address(TRADER.wallet), "S"),
        (spl, ""),
        (spl, ""),
        (MEMO, ""),
        (EVENT_AUTHORITY, ""),
        (program, ""),
        (format_address(array_address(0)), "W"),
        *([(format_address(array_address(-1)), "W")] if a_to_b else []),
    ]


def test_the_bitmap_extension_is_given_writable_where_it_exists_and_each_mint_with_its_own_program() -> None:
    far = world({600 * 70: Bin(PLENTY, PLENTY)}, 600 * 70, 1, transfer_fees=(None, (0, 0)))
    accounts = (pool := decode(far)).swap(pool.quote(1_000, True, NOW), 1, TRADER).accounts
    assert accounts[1] == AccountMeta(EXTENSION, is_writable=True)
    assert [accounts[at].address for at in (11, 12)] == [SPL_TOKEN, TOKEN_2022]


# Bins, arrays and the bitmap


def test_a_swap_takes_the_active_bin_first_and_then_lower_bins_for_a_and_higher_ones_for_b() -> None:
    bins = world({-2: Bin(b=99), -1: Bin(b=99), 0: Bin(100, 100), 1: Bin(a=100)}, bin_step=100, fees=FREE)
    down, rising = quote(bins, 250), quote(bins, 150, a_to_b=False)
    # 100 cost 100, 99 at 1/1.01 cost 100, and 50 buy floor(50 / 1.0201); upwards, 50 buy floor(50 / 1.01)
    assert (down.out_amount, down.path) == (100 + 99 + 49, (array_address(0), array_address(-1)))
    assert (rising.out_amount, rising.path) == (100 + 49, (array_address(0),))


def test_a_bin_whose_price_is_not_stored_yet_trades_at_the_price_that_the_program_will_store() -> None:
    for active_id in (-5_000, -1, 0, 1, 5_000):
        stored = world({active_id: Bin(PLENTY, PLENTY)}, active_id, 10)
        unstored = world({active_id: Bin(PLENTY, PLENTY, is_priced=False)}, active_id, 10)
        assert quote(stored) == quote(unstored)


def test_every_price_that_the_program_itself_has_stored_is_the_one_computed_for_its_bin() -> None:
    compared = 0
    for recording in recordings():
        if recording.type == "dlmm" and recording.note != "bitmap extension":  # those were moved to other bins
            pool = DLMM.decode(recording.pool.address, recording.pool.accounts, POLICY)
            assert isinstance(pool, DlmmPool)
            for index in (*pool.arrays_walked(a_to_b=True), *pool.arrays_walked(a_to_b=False)):
                array = pool.held.get(array_address(index, pool.address))
                for place in range(70 if array else 0):
                    at = 56 + 144 * place + 16
                    stored = int.from_bytes((array.data if array else b"")[at : at + 16], "little")
                    assert stored in (0, price_of(70 * index + place, pool.bin_step))
                    compared += stored > 0
    assert compared > 3_000


def test_a_gap_in_the_bitmap_is_jumped_over_and_its_width_counts_as_volatility() -> None:
    fees = Fees(base_factor=0, variable=1_000, volatility_max=2**31)
    near = quote(world({0: Bin(b=10), -1: Bin(b=PLENTY)}, bin_step=1, fees=fees))
    far = quote(world({0: Bin(b=10), -211: Bin(b=PLENTY)}, bin_step=1, fees=fees))
    assert far.path == (array_address(0), array_address(-4))
    # 1,000 * (bins * 10,000 * 1)^2 / 10^11: 1 billionth of about a million at a distance of 1, 44,521 at 211
    assert (near.fee_amount, far.fee_amount) == (1, 45)


def test_an_active_bin_without_an_array_begins_at_the_near_edge_of_the_next_one() -> None:
    bins = {-71: Bin(b=PLENTY), -140: Bin(b=PLENTY), 70: Bin(a=PLENTY), 139: Bin(a=PLENTY)}
    pool = decode(world(bins, 7, 100, FREE))
    assert pool.quote(1_000, True, NOW).out_amount == 1_000 * price_of(-71, 100) >> 64
    assert pool.quote(1_000, False, NOW).out_amount == (1_000 << 64) // price_of(70, 100)
    assert pool.quote(1_000, True, NOW).price_impact_bps > 5_000


@pytest.mark.parametrize(
    "index", [0, -1, 511, 512, 513, 1_023, 1_024, 3_000, 6_337, -512, -513, -514, -1_024, -1_025, -3_000, -6_338]
)
def test_an_array_is_found_from_both_sides_wherever_the_bitmap_holds_it(index: int) -> None:
    middle = max(-ID_MAX, min(ID_MAX, index * 70 + 35))
    assert middle // 70 == index
    inside = decode(world({middle: Bin(1, 1, is_priced=False)}, middle, 1))
    assert list(inside.arrays_walked(a_to_b=True)) == list(inside.arrays_walked(a_to_b=False)) == [index]
    below = decode(world({middle: Bin(1, 1, is_priced=False)}, -ID_MAX, 1))
    above = decode(world({middle: Bin(1, 1, is_priced=False)}, ID_MAX, 1))
    assert list(below.arrays_walked(a_to_b=False)) == list(above.arrays_walked(a_to_b=True)) == [index]


@pytest.mark.parametrize("border", [512 * 70, -512 * 70])
def test_a_swap_goes_over_the_border_between_bitmap_and_extension_in_both_directions(border: int) -> None:
    bins = {border - 1: Bin(1_000, 1_000), border: Bin(1_000, 1_000)}
    down, rising = world(bins, border, 1, FREE), world(bins, border - 1, 1, FREE)
    both = (array_address(border // 70), array_address(border // 70 - 1))
    amount_a, amount_b = (40, 54_000) if border > 0 else (54_000, 40)  # the price is 36, or a 36th
    assert quote(down, amount_a).path == both
    assert quote(rising, amount_b, a_to_b=False).path == both[::-1]


def test_a_pair_asks_for_no_more_than_the_nearest_arrays_and_names_those_of_the_extension_in_a_second_round() -> None:
    bins = {70 * index: Bin(1, 1, is_priced=False) for index in range(480, 560)}
    dense = world(bins, 70 * 509, 1)
    first = DLMM.wanted(POOL, {POOL: dense.accounts[POOL]})
    second = DLMM.wanted(POOL, dense.accounts)
    assert first[:4] == (POOL, MINT_A, MINT_B, EXTENSION)
    assert set(first[4:]) == {array_address(index) for index in range(502, 512)}
    assert set(second[4:]) == {array_address(index) for index in range(502, 517)}
    assert len(second) == 4 + 2 * ARRAYS_MAX - 1


# Fees


@pytest.mark.parametrize(
    ("quiet_s", "fee"), [(-5, 36_000), (0, 36_000), (29, 36_000), (30, 2_250), (599, 2_250), (600, 0), (10**6, 0)]
)
def test_volatility_is_kept_until_the_filter_period_reduced_until_the_decay_period_and_then_forgotten(
    quiet_s: int, fee: int
) -> None:
    fees = Fees(base_factor=0, variable=100_000, before=(30_000, 20_000, 4), quiet_s=quiet_s)
    # 100,000 * (volatility * 100)^2 / 10^11 billionths of a million, at 20,000 + 4 * 10,000, 30,000 / 2 and 0
    assert quote(world({0: Bin(PLENTY, PLENTY)}, bin_step=100, fees=fees)).fee_amount == fee


@pytest.mark.parametrize(
    ("fees", "fee"),
    [
        (Fees(base_factor=2_000, variable=0), 500),
        (Fees(base_factor=2_000, power=1, variable=0), 5_000),
        (Fees(base_factor=65_535, power=4, variable=0), 100_000),
        (Fees(base_factor=0, variable=10**6, volatility_max=20_000, before=(0, 10**6, 0)), 2_500),
        (Fees(base_factor=0, variable=0, before=(0, 10**6, 0)), 0),
        (Fees(base_factor=0, variable=1, before=(0, 1, 0)), 1),
        (FREE, 0),
    ],
    ids=["base", "power", "at most a tenth", "at most the greatest volatility", "no control", "rounded up", "none"],
)
def test_the_fee_is_the_base_fee_and_what_volatility_adds(fees: Fees, fee: int) -> None:
    assert quote(world({0: Bin(PLENTY, PLENTY)}, bin_step=25, fees=fees)).fee_amount == fee


def test_a_fee_in_b_is_taken_of_what_each_bin_pays_and_rounded_up_there() -> None:
    bins = world({-1: Bin(b=50), 0: Bin(100, 50)}, bin_step=100, fees=Fees(variable=0, on_b=True))
    down, rising = quote(bins, 101), quote(bins, 100, a_to_b=False)
    assert (down.out_amount, down.fee_amount, down.is_fee_on_input) == (98, 2, False)
    assert (rising.out_amount, rising.fee_amount, rising.is_fee_on_input) == (99, 1, True)


def test_the_price_impact_leaves_fees_aside_and_is_measured_from_the_active_bin() -> None:
    bins = {0: Bin(0, MANY), -3: Bin(b=MANY)}
    costly = Fees(base_factor=65_535, power=4)
    assert quote(world(bins, 0, 100, costly)).price_impact_bps == 0
    assert quote(world({-3: bins[-3]}, 0, 100, costly)).price_impact_bps == 295  # 1 - 1.01^-3 = 2.941 %, in whole units


# Limit orders


@pytest.mark.parametrize(
    ("function_type", "is_rewarded", "count"),
    [(0, False, True), (0, True, False), (1, False, False), (1, True, False), (2, False, True), (2, True, True)],
)
def test_limit_orders_count_by_function_type_or_where_nothing_is_rewarded(
    function_type: int, is_rewarded: bool, count: bool
) -> None:
    orders = world(
        {0: Bin(opened=PLENTY), 1: Bin(a=PLENTY)}, fees=FREE, function_type=function_type, is_rewarded=is_rewarded
    )
    if count:
        assert quote(orders).out_amount == 1_000_000
    else:
        with pytest.raises(InsufficientLiquidity):
            quote(orders)


@pytest.mark.parametrize("is_ask", [False, True])
def test_a_bid_pays_only_b_and_an_ask_only_a(is_ask: bool) -> None:
    orders = world({0: Bin(opened=PLENTY, is_ask=is_ask)}, fees=FREE)
    assert quote(orders, a_to_b=not is_ask).out_amount == 1_000_000
    with pytest.raises(InsufficientLiquidity):
        quote(orders, a_to_b=is_ask)


def test_limit_orders_are_filled_after_the_bins_own_and_those_in_process_first_each_rounded_for_itself() -> None:
    orders = world({-1: Bin(b=10, opened=10, in_process=10)}, -1, 100, FREE)
    assert quote(orders, 33).out_amount == 30  # thrice 10, for ceil(10.1) each
    assert quote(orders, 32).out_amount == 29
    with pytest.raises(InsufficientLiquidity):
        quote(orders, 34)
    uneven = world({-1: Bin(b=1, opened=50, in_process=10)}, -1, 100, FREE)
    assert quote(uneven, 2 + 11 + 1).out_amount == 1 + 10


# When a pair trades


@pytest.mark.parametrize("pair_type", [0, 3])
@pytest.mark.parametrize("activation_type", [0, 1, 9])
def test_pairs_that_anybody_may_open_do_not_wait_for_an_activation_point(pair_type: int, activation_type: int) -> None:
    bins = {0: Bin(PLENTY, PLENTY)}
    assert quote(world(bins, pair_type=pair_type, activation=(activation_type, U64_MAX))).out_amount


@pytest.mark.parametrize("pair_type", [1, 2])
@pytest.mark.parametrize(("activation_type", "point"), [(0, NOW.slot), (1, NOW.unix_time_s)])
def test_other_pairs_open_at_their_slot_or_second_and_not_one_earlier(
    pair_type: int, activation_type: int, point: int
) -> None:
    bins = {0: Bin(PLENTY, PLENTY)}
    assert quote(world(bins, pair_type=pair_type, activation=(activation_type, point))).out_amount
    with pytest.raises(NotYetOpen, match=str(point + 1)):
        quote(world(bins, pair_type=pair_type, activation=(activation_type, point + 1)))


# Tokens


def test_a_transfer_fee_is_withheld_of_what_goes_in_and_of_what_comes_out() -> None:
    bins = {0: Bin(PLENTY, PLENTY)}
    both = world(bins, fees=FREE, transfer_fees=((100, 10**9), (200, 10**9)))
    assert quote(both).out_amount == 970_200  # 1 % of a million, then 2 % of 990,000
    assert quote(both, a_to_b=False).out_amount == 970_200
    capped = world(bins, fees=FREE, transfer_fees=((100, 7), None))
    assert quote(capped).out_amount == 999_993


def test_a_transfer_fee_is_refused_unless_operators_allow_what_is_unproven() -> None:
    fees = world({0: Bin(PLENTY, PLENTY)}, transfer_fees=(None, (0, 0)))
    with pytest.raises(UnsupportedToken, match="allow unproven transfer fees"):
        decode(fees, Policy())
    assert decode(fees, Policy(unproven_transfer_fees=True)).quote(1_000, True, NOW).out_amount


def test_a_token_2022_mint_without_a_transfer_fee_is_accepted_and_named_as_an_account_of_the_quote() -> None:
    plain = world({0: Bin(PLENTY, PLENTY)}, transfer_fees=((0, 0), None))
    plain = replace(plain, accounts={**plain.accounts, MINT_A: an_extended_mint((18, bytes(64)))})
    assert decode(plain, Policy()).accounts == (POOL, MINT_A)


# What a swap leaves behind


@given(worlds(), st.integers(1, 2**61), st.booleans())
def test_what_the_bins_lose_is_what_is_paid_and_what_is_kept_or_withheld_of_it(
    world: PoolAccounts, amount: int, a_to_b: bool
) -> None:
    pool = decode(world)
    try:
        quote = pool.quote(amount, a_to_b, NOW)
    except QuoteRefused:
        return
    left = decode(after(world, quote))
    paid = payable(pool, a_to_b) - payable(left, a_to_b) - (0 if quote.is_fee_on_input else quote.fee_amount)
    transfer_fee = pool.transfer_fee_b if a_to_b else pool.transfer_fee_a
    assert quote.out_amount == paid - (transfer_fee.of(paid, NOW.epoch) if transfer_fee else 0)
    assert pool.active_id >= left.active_id if a_to_b else pool.active_id <= left.active_id


def payable(pool: DlmmPool, a_to_b: bool) -> int:
    total = 0
    for index in pool.arrays_walked(a_to_b):
        data = pool.held[array_address(index, pool.address)].data
        for at in range(56, 56 + 70 * 144, 144):
            own_at = at + 8 * a_to_b
            total += int.from_bytes(data[own_at : own_at + 8], "little")
            if pool.has_limit_orders and bool(data[at + 140]) != a_to_b:
                total += sum(int.from_bytes(data[at + of : at + of + 8], "little") for of in (112, 128))
    return total


# Refusals


def pair(changes: dict[int, bytes], base: PoolAccounts | None = None) -> PoolAccounts:
    return patched(base or a_world(), POOL, changes)


def far(changes: dict[int, bytes]) -> PoolAccounts:
    there = 600 * 70
    return patched(world({there: Bin(PLENTY, PLENTY)}, there, 1), EXTENSION, changes)


def swapped(base: PoolAccounts, of: Address, change: Callable[[Account], Account]) -> PoolAccounts:
    return replace(base, accounts={**base.accounts, of: change(base.accounts[of])})


def without(base: PoolAccounts, of: Address) -> PoolAccounts:
    return replace(base, accounts={each: account for each, account in base.accounts.items() if each != of})


def longer(account: Account) -> Account:
    return replace(account, data=account.data + b"\0")


def shorter(account: Account) -> Account:
    return replace(account, data=account.data[:40])


def foreign(account: Account) -> Account:
    return replace(account, owner=SPL_TOKEN)


ACTIVE = array_address(0)
REFUSALS: Final[dict[str, tuple[PoolAccounts, type[QuoteRefused], Address]]] = {
    "no pair": (without(a_world(), POOL), MissingAccount, POOL),
    "a pair that is too long": (swapped(a_world(), POOL, longer), UnknownLayout, POOL),
    "a pair that is too short": (swapped(a_world(), POOL, shorter), UnknownLayout, POOL),
    "a pair of another program": (swapped(a_world(), POOL, foreign), UnknownLayout, POOL),
    "a pair of another kind": (pair({0: b"\0"}), UnknownLayout, POOL),
    "an array that is too long": (swapped(a_world(), ACTIVE, longer), UnknownLayout, ACTIVE),
    "an array that is too short": (swapped(a_world(), ACTIVE, shorter), UnknownLayout, ACTIVE),
    "an array of another program": (swapped(a_world(), ACTIVE, foreign), UnknownLayout, ACTIVE),
    "an array of another kind": (patched(a_world(), ACTIVE, {0: b"\0"}), UnknownLayout, ACTIVE),
    "an array of another index": (patched(a_world(), ACTIVE, {8: b"\1"}), InvalidPool, ACTIVE),
    "an array of another pair": (patched(a_world(), ACTIVE, {24: b"\1"}), InvalidPool, ACTIVE),
    "an extension that is too long": (swapped(far({}), EXTENSION, longer), UnknownLayout, EXTENSION),
    "an extension that is too short": (swapped(far({}), EXTENSION, shorter), UnknownLayout, EXTENSION),
    "an extension of another program": (swapped(far({}), EXTENSION, foreign), UnknownLayout, EXTENSION),
    "an extension of another kind": (far({0: b"\0"}), UnknownLayout, EXTENSION),
    "an extension of another pair": (far({8: b"\1"}), InvalidPool, EXTENSION),
    "no active array": (without(a_world(), ACTIVE), MissingBinArray, ACTIVE),
    "no array on the path": (without(a_world(), array_address(-1)), MissingBinArray, array_address(-1)),
    "no extension": (without(far({}), EXTENSION), InsufficientLiquidity, POOL),
    "switched off": (pair({82: b"\1"}), NotTradable, POOL),
    "pair type": (pair({75: b"\4"}), UnsupportedMode, POOL),
    "function type": (pair({35: b"\3"}), UnsupportedMode, POOL),
    "collect fee mode": (pair({36: b"\2"}), UnsupportedMode, POOL),
    "activation type": (pair({75: b"\1", 86: b"\2"}), UnsupportedMode, POOL),
    "token program of A": (pair({880: b"\2"}), UnsupportedToken, POOL),
    "token program of B": (pair({881: b"\2"}), UnsupportedToken, POOL),
    "a mint of SPL Token said to be of Token-2022": (pair({881: b"\1"}), InvalidPool, MINT_B),
    "bin step 0": (pair({80: bytes(2)}), InvalidPool, POOL),
    "bin step above 100 %": (pair({80: pack("<H", 10_001)}), InvalidPool, POOL),
    "reduction above all": (pair({14: pack("<H", 10_001)}), InvalidPool, POOL),
    "protocol share above all": (pair({32: pack("<H", 10_001)}), InvalidPool, POOL),
    "base fee beyond 128 bits": (pair({34: b"\xff"}), InvalidPool, POOL),
    "updated before 1970": (pair({56: pack("<q", -1)}), InvalidPool, POOL),
    "index reference too low": (pair({48: pack("<i", -ID_MAX - 1)}), InvalidPool, POOL),
    "index reference too high": (pair({48: pack("<i", ID_MAX + 1)}), InvalidPool, POOL),
    "active bin below the least": (pair({24: pack("<i", 1)}), InvalidPool, POOL),
    "active bin above the greatest": (pair({28: pack("<i", -1)}), InvalidPool, POOL),
    "active bin below all": (pair({24: pack("<i", -(2**31)), 76: pack("<i", -ID_MAX - 1)}), InvalidPool, POOL),
    "active bin above all": (pair({28: pack("<i", 2**31 - 1), 76: pack("<i", ID_MAX + 1)}), InvalidPool, POOL),
    "a price out of range": (world({-ID_MAX: Bin(0, 9, is_priced=False)}, -ID_MAX, 400), InvalidPool, POOL),
    "a bin below the least": (
        world({0: Bin(0, 1), -1: Bin(b=1), -2: Bin(b=MANY)}, bounds=(-1, 1)), InsufficientLiquidity, POOL,
    ),
    "more than the bins hold": (world({0: Bin(PLENTY, 9)}), InsufficientLiquidity, POOL),
    "nothing in any array": (world({}), InsufficientLiquidity, POOL),
    "more bins than a transaction can": (
        world({-each: Bin(b=1) for each in range(BINS_MAX + 1)}, bin_step=1), InsufficientLiquidity, POOL,
    ),
    "more arrays than are looked at": (
        world({-70 * each: Bin(b=1) for each in range(ARRAYS_MAX)} | {-70 * ARRAYS_MAX: Bin(b=MANY)}, bin_step=1),
        InsufficientLiquidity, POOL,
    ),
    "a bin worth more than 64 bits": (world({-10_000: Bin(0, 2**63)}, -10_000), AmountOverflow, POOL),
    "a bin that would hold more than 64 bits": (world({0: Bin(U64_MAX, PLENTY)}), AmountOverflow, POOL),
    "too little to receive anything": (world({-8_000: Bin(0, 1_000)}, -8_000), AmountTooSmall, POOL),
    "all withheld on the way in": (
        world({0: Bin(PLENTY, PLENTY)}, transfer_fees=((10_000, U64_MAX), None)), AmountTooSmall, POOL,
    ),
    "all withheld on the way out": (
        world({0: Bin(PLENTY, PLENTY)}, transfer_fees=(None, (10_000, U64_MAX))), AmountTooSmall, POOL,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_known_is_refused_with_its_reason_and_the_account_at_fault(case: str) -> None:
    world, error, at_fault = REFUSALS[case]
    amount = 2 * PLENTY if case == "no array on the path" else 1_000_000
    with pytest.raises(error, match=format_address(at_fault)) as raised:
        quote(world, amount)
    assert type(raised.value) is error


@pytest.mark.parametrize(("amount", "error"), [(0, AmountTooSmall), (-1, AmountTooSmall), (2**64, AmountOverflow)])
def test_an_amount_that_no_account_can_hold_is_refused(amount: int, error: type[QuoteRefused]) -> None:
    with pytest.raises(error):
        quote(a_world(), amount)


def test_the_smallest_amount_is_all_fee_and_pays_nothing() -> None:
    with pytest.raises(AmountTooSmall):
        quote(a_world(), 1)
    assert quote(a_world(), 2).out_amount == 1


def test_an_array_that_is_missing_behind_the_active_bin_does_not_matter() -> None:
    assert quote(without(a_world(), array_address(-1)), a_to_b=False) == quote(a_world(), a_to_b=False)


def test_as_many_bins_as_a_transaction_can_are_quoted() -> None:
    most = quote(world({-each: Bin(b=10) for each in range(BINS_MAX)}, bin_step=1, fees=FREE), 10 * BINS_MAX + 20)
    assert most.compute_units <= 1_400_000
