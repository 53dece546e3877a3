"""DAMM v2: its instruction, its fees over time, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest

from fillwright.core.accounts import (
    Account,
    AccountMeta,
    ChainTime,
    PoolAccounts,
    Trader,
    format_address,
    parse_address,
)
from fillwright.core.errors import (
    AmountOverflow,
    AmountTooSmall,
    InsufficientLiquidity,
    InvalidPool,
    MissingAccount,
    NotTradable,
    NotYetOpen,
    QuoteRefused,
    UnknownLayout,
    UnsupportedMode,
    UnsupportedToken,
)
from fillwright.core.programs import METEORA_DAMM_V2, SPL_TOKEN, TOKEN_2022
from fillwright.core.units import U64_MAX
from fillwright.venues.pool import PoolQuote
from tests.venues.damm_v2 import (
    DYNAMIC,
    MINT_A,
    MINT_B,
    ONE,
    POOL,
    TYPE,
    VAULT_A,
    VAULT_B,
    after,
    compounding,
    get,
    having,
    withholding,
    world,
)
from tests.venues.model import NOW, POLICY, address, an_extended_mint

AMOUNT = 1_000_000
TRADER = Trader(address("wallet"), address("in account"), address("out account"))


def quote(world: PoolAccounts, amount: int = AMOUNT, a_to_b: bool = True, at: ChainTime = NOW) -> PoolQuote:
    return TYPE.decode(POOL, world.accounts, POLICY).quote(amount, a_to_b, at)


def refusal(world: PoolAccounts, kind: type[QuoteRefused], amount: int = AMOUNT, a_to_b: bool = True) -> str:
    with pytest.raises(QuoteRefused) as raised:
        quote(world, amount, a_to_b)
    assert type(raised.value) is kind
    return str(raised.value)


def fee_after(seconds: int, **numbers: int) -> int:
    """Return the fee of a swap of 10^9 of B, so long after the pool was opened."""
    opened = {"activation_point": NOW.unix_time_s, "collect_fee_mode": 1}
    at = replace(NOW, unix_time_s=NOW.unix_time_s + seconds)
    return quote(world(**(opened | numbers)), 10**9, False, at).fee_amount


@pytest.mark.parametrize("a_to_b", [True, False])
def test_the_instruction_is_swap2_with_its_fourteen_accounts_in_order(a_to_b: bool) -> None:
    pool = TYPE.decode(POOL, withholding(world(), None, (0, 0)).accounts, POLICY)
    instruction = pool.swap(pool.quote(AMOUNT, a_to_b, NOW), 77, TRADER)
    assert instruction.program == METEORA_DAMM_V2
    assert instruction.data == bytes.fromhex("414b3f4ceb5b5b88") + pack("<QQB", AMOUNT, 77, 0)
    assert instruction.accounts == (
        AccountMeta(parse_address("HLnpSz9h2S4hiLQ43rnSD9XkcUThA7B8hQMKmDaiTLcC")),
        AccountMeta(POOL, is_writable=True),
        AccountMeta(TRADER.in_account, is_writable=True),
        AccountMeta(TRADER.out_account, is_writable=True),
        AccountMeta(VAULT_A, is_writable=True),
        AccountMeta(VAULT_B, is_writable=True),
        AccountMeta(MINT_A),
        AccountMeta(MINT_B),
        AccountMeta(TRADER.wallet, is_signer=True),
        AccountMeta(SPL_TOKEN),
        AccountMeta(TOKEN_2022),
        AccountMeta(METEORA_DAMM_V2),
        AccountMeta(parse_address("3rmHSu74h1ZcmAisVcWerTCiRDQbUrBKmcwptYGjHfet")),
        AccountMeta(METEORA_DAMM_V2),
    )


def test_only_mints_of_token_2022_are_asked_for() -> None:
    for fees, named in (
        ((None, None), (POOL,)),
        (((10, 10), None), (POOL, MINT_A)),
        ((None, (10, 10)), (POOL, MINT_B)),
        (((10, 10), (10, 10)), (POOL, MINT_A, MINT_B)),
    ):
        accounts = withholding(world(), *fees).accounts
        assert TYPE.wanted(POOL, accounts) == TYPE.decode(POOL, accounts, POLICY).accounts == named


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("a_to_b", [True, False])
def test_the_fee_is_taken_of_what_comes_out_but_of_b_going_in_where_only_b_is_taken(mode: int, a_to_b: bool) -> None:
    pool = compounding(10**12, 10**12) if mode == 2 else world(collect_fee_mode=mode)
    taken = quote(pool, 10**9, a_to_b)
    assert taken.is_fee_on_input == (mode > 0 and not a_to_b)
    assert taken.fee_amount == pytest.approx(2_500_000, rel=0.002)
    assert taken.out_amount == pytest.approx(997_500_000, rel=0.002)


def test_the_fee_is_rounded_up() -> None:
    assert quote(world(collect_fee_mode=1), 1_001, False).fee_amount == 3
    assert quote(world(collect_fee_mode=1, cliff_fee=1), 1_000, False).fee_amount == 1
    assert quote(world(collect_fee_mode=1, cliff_fee=0), 1_000, False).fee_amount == 0


def test_a_linear_base_fee_falls_at_the_end_of_each_period_and_then_stays() -> None:
    schedule = {"cliff_fee": 40_000_000, "period_length": 60, "period_count": 10, "reduction": 3_000_000}
    fees = {second: fee_after(second, **schedule) for second in (0, 59, 60, 119, 120, 599, 600, 10**6)}
    assert fees == {
        0: 40_000_000, 59: 40_000_000, 60: 37_000_000, 119: 37_000_000, 120: 34_000_000,
        599: 13_000_000, 600: 10_000_000, 10**6: 10_000_000,
    }  # fmt: skip


def test_an_exponential_base_fee_falls_by_a_share_of_itself_and_is_rounded_down() -> None:
    schedule = {
        "cliff_fee": 400_000_000, "base_fee_mode": 1, "period_length": 30, "period_count": 100, "reduction": 1_000,
    }  # fmt: skip
    assert fee_after(29, **schedule) == 400_000_000
    assert fee_after(30, **schedule) == 360_000_000
    assert fee_after(60, **schedule) == 324_000_000
    assert fee_after(120, **(schedule | {"cliff_fee": 400_000_001})) == 262_440_000  # and 0.6561 more
    assert fee_after(3_000, **schedule) == fee_after(10**6, **schedule) == 400_000_000 * 9**100 // 10**100


def test_a_schedule_without_periods_or_reduction_keeps_the_first_fee() -> None:
    for mode in (0, 1):
        assert fee_after(10**6, base_fee_mode=mode, period_count=9, reduction=U64_MAX) == 2_500_000
        assert fee_after(10**6, base_fee_mode=mode, period_count=9, period_length=1) == 2_500_000


def test_a_pool_that_counts_slots_looks_at_no_seconds() -> None:
    schedule = {
        "cliff_fee": 40_000_000, "period_length": 60, "period_count": 10, "reduction": 3_000_000,
        "activation_type": 0, "activation_point": NOW.slot, "collect_fee_mode": 1,
    }  # fmt: skip
    for slots, fee in ((0, 40_000_000), (59, 40_000_000), (60, 37_000_000)):
        at = ChainTime(NOW.slot + slots, 0, 0)
        assert quote(world(**schedule), 10**9, False, at).fee_amount == fee


def test_the_variable_fee_follows_from_the_stored_volatility_whatever_the_time() -> None:
    dynamic = DYNAMIC | {"bin_step": 10, "volatility": 100_000, "variable_fee_control": 7_000, "last_update": 1}
    variable = 7_000_000_000_000_000 // 10**11  # (100,000 times 10) squared times 7,000, over 10^11
    assert fee_after(0, **dynamic) == fee_after(10**6, **dynamic) == 2_500_000 + variable
    assert fee_after(0, **(dynamic | {"variable_fee_control": 1, "volatility": 1})) == 2_500_001
    assert fee_after(0, **(dynamic | {"is_dynamic": 0})) == 2_500_000


@pytest.mark.parametrize(("version", "most"), [(0, 500_000_000), (1, 990_000_000)])
def test_base_and_variable_fee_together_stay_below_the_cap_of_the_fee_version(version: int, most: int) -> None:
    for numbers in (
        {"cliff_fee": most + 1},
        {"cliff_fee": U64_MAX},
        DYNAMIC | {"cliff_fee": most - 1, "volatility": 14_460_000, "variable_fee_control": 10**6},
    ):
        assert fee_after(0, fee_version=version, **numbers) == most


def test_a_compounding_pool_swaps_along_what_it_holds_and_not_along_its_price() -> None:
    pool = compounding(10**6, 10**6, cliff_fee=0)
    assert quote(pool, 10**6).out_amount == 500_000
    assert quote(having(pool, sqrt_price=1), 10**6) == quote(pool, 10**6)
    assert quote(pool, 10**6).price_impact_bps == 5_000


def test_a_swap_may_end_at_the_border_of_the_range_but_not_beyond() -> None:
    low, high = ONE * 9 // 10, ONE * 11 // 10
    pool = world(10**9 * ONE, ONE, sqrt_price_min=low, sqrt_price_max=high)
    # What moves the price down to the border is 10^9 (1/0.9 - 1) of A, and up to it 10^9 (1.1 - 1) of B.
    for a_to_b, most in ((True, 111_111_111), (False, 100_000_000)):
        largest = next(n for n in range(most + 2, most - 3, -1) if _is_quoted(pool, n, a_to_b))
        assert abs(largest - most) <= 1
        assert "swap less" in refusal(pool, InsufficientLiquidity, largest + 1, a_to_b)


def _is_quoted(world: PoolAccounts, amount: int, a_to_b: bool) -> bool:
    try:
        return quote(world, amount, a_to_b).out_amount > 0
    except InsufficientLiquidity:
        return False


def test_the_price_impact_leaves_fees_aside() -> None:
    cheap, dear = world(10**9 * ONE, cliff_fee=0), world(10**9 * ONE, cliff_fee=500_000_000)
    assert quote(cheap, 10**7).price_impact_bps == quote(dear, 10**7).price_impact_bps == 100
    assert quote(cheap, 10**7, False).price_impact_bps == 100


def test_a_pool_opens_at_its_activation_point_and_not_before() -> None:
    for kind, now in ((0, NOW.slot), (1, NOW.unix_time_s)):
        assert quote(world(activation_type=kind, activation_point=now)).out_amount > 0
        message = refusal(world(activation_type=kind, activation_point=now + 1), NotYetOpen)
        assert str(now + 1) in message


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ({"status": 1}, NotTradable),
        ({"base_fee_mode": 2}, UnsupportedMode),
        ({"base_fee_mode": 3}, UnsupportedMode),
        ({"base_fee_mode": 4}, UnsupportedMode),
        ({"collect_fee_mode": 3}, UnsupportedMode),
        ({"collect_fee_mode": 2, "layout_version": 0}, UnsupportedMode),
        ({"layout_version": 2}, UnsupportedMode),
        ({"fee_version": 2}, UnsupportedMode),
        ({"activation_type": 2}, UnsupportedMode),
        ({"flag_a": 2}, UnsupportedToken),
        ({"flag_b": 2}, UnsupportedToken),
        ({"protocol_fee_percent": 101}, InvalidPool),
        ({"collect_fee_mode": 2, "compounding_fee_bps": 10_001}, InvalidPool),
        ({"reduction": 250_001, "period_count": 10, "period_length": 1}, InvalidPool),
        ({"base_fee_mode": 1, "reduction": 10_001, "period_length": 1}, InvalidPool),
        ({"base_fee_mode": 1, "reduction": 10_000, "period_length": 1, "period_count": 1}, InvalidPool),
        (DYNAMIC | {"bin_step_q64": 0}, InvalidPool),
        (DYNAMIC | {"volatility": 2**80}, InvalidPool),
        ({"sqrt_price_min": 0}, InvalidPool),
        ({"sqrt_price_min": ONE + 1}, InvalidPool),
        ({"sqrt_price_max": ONE - 1}, InvalidPool),
        ({"collect_fee_mode": 2, "sqrt_price": 0}, InvalidPool),
        ({"liquidity": 0}, InsufficientLiquidity),
        ({"collect_fee_mode": 2, "reserve_a": 0}, InsufficientLiquidity),
        ({"collect_fee_mode": 2, "reserve_b": 0}, InsufficientLiquidity),
        ({"reserve_b": AMOUNT // 2}, InsufficientLiquidity),
        ({"reserve_a": U64_MAX - AMOUNT + 1}, AmountOverflow),
        ({"protocol_fee_b": U64_MAX - 400}, AmountOverflow),
        ({"total_protocol_fee_b": U64_MAX - 400}, AmountOverflow),
    ],
)
def test_what_is_not_modelled_or_contradicts_itself_is_refused_by_name(
    numbers: dict[str, int], kind: type[QuoteRefused]
) -> None:
    assert format_address(POOL) in refusal(having(world(), **numbers), kind)


def test_reserves_that_an_older_program_did_not_keep_are_not_looked_at() -> None:
    assert quote(world(layout_version=0, reserve_a=0, reserve_b=0)) == quote(world())


def test_amounts_that_are_nothing_or_too_large_are_refused() -> None:
    refusal(world(), AmountTooSmall, 0)
    refusal(world(), AmountTooSmall, 1)
    refusal(world(), AmountOverflow, U64_MAX + 1)
    refusal(withholding(world(), (10_000, U64_MAX), None), AmountTooSmall)
    refusal(withholding(world(), None, (10_000, U64_MAX)), AmountTooSmall)
    # A pool whose price is so high that the smallest amount of A is worth more of B than an account can hold.
    refusal(world(2**127, 2**95, layout_version=0), AmountOverflow)


def test_accounts_of_another_shape_are_refused() -> None:
    good = world()
    data = good.accounts[POOL].data
    for account in (
        Account(SPL_TOKEN, data),
        Account(METEORA_DAMM_V2, data[:-1]),
        Account(METEORA_DAMM_V2, data + b"\0"),
        Account(METEORA_DAMM_V2, b"\0" + data[1:]),
    ):
        with pytest.raises(UnknownLayout):
            TYPE.wanted(POOL, {POOL: account})
        with pytest.raises(UnknownLayout):
            TYPE.decode(POOL, {POOL: account}, POLICY)
    with pytest.raises(MissingAccount):
        TYPE.decode(POOL, {}, POLICY)
    with pytest.raises(MissingAccount):
        TYPE.decode(POOL, {POOL: withholding(world(), (1, 1), None).accounts[POOL]}, POLICY)


def test_a_token_with_a_rule_that_is_not_modelled_is_refused() -> None:
    pool = withholding(world(), (0, 0), None)
    hooked = {**pool.accounts, MINT_A: an_extended_mint((14, bytes(32) + b"\1" * 32))}
    with pytest.raises(UnsupportedToken):
        TYPE.decode(POOL, hooked, POLICY)
    named = {**pool.accounts, MINT_A: an_extended_mint((18, bytes(64)))}
    assert TYPE.decode(POOL, named, POLICY).quote(AMOUNT, True, NOW).out_amount == quote(world()).out_amount


def test_the_volatility_of_a_swap_decides_on_the_fee_of_the_next_one() -> None:
    pool = world(10**9 * ONE, **(DYNAMIC | {"volatility_max": 10**9, "variable_fee_control": 10**5}))
    first = quote(pool, 10**7)
    moved = after(pool, first)
    assert get(moved, "volatility") > 0
    assert get(moved, "last_update") == NOW.unix_time_s
    assert quote(moved, 10**7).fee_amount > first.fee_amount
