"""DAMM v1: its instruction, its vaults over time, its stable curve, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime, PoolAccounts, Trader, format_address
from fillwright.core.errors import (
    AmountOverflow,
    AmountTooSmall,
    InsufficientLiquidity,
    InvalidPool,
    MissingAccount,
    NotTradable,
    NotYetOpen,
    QuoteRefused,
    StableCurveUnsupported,
    UnknownLayout,
    UnsupportedMode,
    UnsupportedToken,
)
from fillwright.core.programs import METEORA_DAMM_V1, METEORA_VAULT, SPL_TOKEN, TOKEN_2022
from fillwright.core.units import U64_MAX
from fillwright.venues.meteora.damm_v1 import stable_invariant, stable_other
from fillwright.venues.pool import PoolQuote
from fillwright.venues.pool_types import identify
from fillwright.venues.recordings import Recording
from tests.venues.damm_v1 import (
    FEE_ACCOUNTS,
    MINTS,
    POOL,
    SHARE_ACCOUNTS,
    SHARE_MINTS,
    STAKE,
    TYPE,
    VAULT_ACCOUNTS,
    VAULTS,
    a_vault,
    world,
)
from tests.venues.model import NOW, POLICY, a_mint, address, patched, token_account
from tests.venues.test_recordings import recordings

AMOUNT = 1_000_000
TRADER = Trader(address("wallet"), address("in account"), address("out account"))
MSOL = (1_000, 1, 1, 1_198_483)
NO_FEES = (0, 1, 0, 1)


def quote(world: PoolAccounts, amount: int = AMOUNT, a_to_b: bool = True, at: ChainTime = NOW) -> PoolQuote:
    return TYPE.decode(world.address, world.accounts, POLICY).quote(amount, a_to_b, at)


def refusal(world: PoolAccounts, kind: type[QuoteRefused], amount: int = AMOUNT, at: ChainTime = NOW) -> str:
    with pytest.raises(QuoteRefused) as raised:
        quote(world, amount, True, at)
    assert type(raised.value) is kind
    return str(raised.value)


def later(seconds: int) -> ChainTime:
    return replace(NOW, unix_time_s=NOW.unix_time_s + seconds)


def even(amount: int = 10**9, **more: int) -> dict[str, int]:
    """Return a vault of which the pool owns all, with a share for each unit."""
    return a_vault(amount, supply_bps=10_000, shares_bps=10_000, **more)


def recorded(*, is_stable: bool) -> list[Recording]:
    return [
        each
        for each in recordings()
        if each.type == "damm_v1" and each.pool.accounts[each.pool.address].data[874] == is_stable
    ]


@pytest.mark.parametrize("a_to_b", [True, False])
@pytest.mark.parametrize("stable", [None, MSOL])
def test_the_instruction_is_swap_with_its_accounts_in_order(
    a_to_b: bool, stable: tuple[int, int, int, int] | None
) -> None:
    pool = TYPE.decode(POOL, world(stable=stable).accounts, POLICY)
    instruction = pool.swap(pool.quote(AMOUNT, a_to_b, NOW), 77, TRADER)
    assert instruction.program == METEORA_DAMM_V1
    assert instruction.data == bytes.fromhex("f8c69e91e17587c8") + pack("<QQ", AMOUNT, 77)
    written = (
        *(POOL, TRADER.in_account, TRADER.out_account),
        *(*VAULTS, *VAULT_ACCOUNTS, *SHARE_MINTS, *SHARE_ACCOUNTS, FEE_ACCOUNTS[0 if a_to_b else 1]),
    )
    assert instruction.accounts == (
        *(AccountMeta(each, is_writable=True) for each in written),
        AccountMeta(TRADER.wallet, is_signer=True),
        AccountMeta(METEORA_VAULT),
        AccountMeta(SPL_TOKEN),
        *([AccountMeta(STAKE)] if stable else []),
    )


def test_the_accounts_of_the_vaults_are_asked_for_once_the_vaults_are_known() -> None:
    accounts = world().accounts
    first = TYPE.wanted(POOL, {POOL: accounts[POOL]})
    assert first == (POOL, *VAULTS, *SHARE_ACCOUNTS)
    second = TYPE.wanted(POOL, {each: accounts[each] for each in first})
    assert set(second) == {*first, *VAULT_ACCOUNTS, *SHARE_MINTS}
    assert TYPE.wanted(POOL, {each: accounts[each] for each in second}) == second
    assert set(TYPE.decode(POOL, accounts, POLICY).accounts) == set(second)
    one = {POOL: accounts[POOL], VAULTS[1]: accounts[VAULTS[1]]}
    assert set(TYPE.wanted(POOL, one)) == {*first, VAULT_ACCOUNTS[1], SHARE_MINTS[1]}


def test_a_pool_is_told_apart_whatever_follows_its_curve() -> None:
    data = world().accounts[POOL].data
    for length in (875, 925, 1387):
        assert identify(Account(METEORA_DAMM_V1, data[:length])) is TYPE
    assert identify(Account(METEORA_DAMM_V1, data[:874])) is None


def test_every_fee_is_one_unit_at_least_and_none_if_the_rate_is_zero() -> None:
    assert quote(world(even(), even()), 399).fee_amount == 1  # 2,500 millionths would be less than one unit
    assert quote(world(even(), even()), 800).fee_amount == 2
    assert quote(world(even(), even(), fees=NO_FEES), 800).fee_amount == 0
    assert quote(world(even(), even(), fees=NO_FEES), 800).out_amount == 799
    assert quote(world(even(), even()), 800).out_amount == 797


def test_profit_is_released_second_by_second_until_all_of_it_is() -> None:
    release = 10**12 // 100
    locked = even(2 * 10**9, locked_bps=5_000, age_s=0, release=release)
    locked |= {"supply": 10**9, "shares": 10**9, "held": 2 * 10**9}
    pool = world(even(), locked, fees=NO_FEES)
    paid = [quote(pool, AMOUNT, True, later(seconds)).out_amount for seconds in (0, 1, 50, 99, 100, 101, 10**6)]
    assert paid == [999_000, 1_008_990, 1_498_500, 1_988_010, 1_998_000, 1_998_000, 1_998_000]


def test_a_pool_that_was_changed_after_the_clock_was_read_is_refused() -> None:
    vault = a_vault(age_s=0)
    assert quote(world(vault, vault)).out_amount > 0
    assert "clock" in refusal(world(vault, vault), InvalidPool, at=later(-1))


def test_the_vault_that_takes_in_must_take_deposits_and_the_other_need_not() -> None:
    closed = patched(world(), VAULTS[0], {8: b"\0"})
    assert "deposits" in refusal(closed, NotTradable)
    assert quote(closed, AMOUNT, False) == quote(world(), AMOUNT, False)


def test_a_vault_pays_less_than_it_has_not_lent() -> None:
    received = quote(world()).out_amount
    for held, is_paid in ((received + 1, True), (received, False)):
        pool = world(None, a_vault() | {"held": held})
        if is_paid:
            assert quote(pool).out_amount == received
        else:
            assert "lent" in refusal(pool, InsufficientLiquidity)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_pool_opens_at_its_activation_point_and_not_before(kind: int) -> None:
    now = NOW.unix_time_s if kind else NOW.slot
    for point in (now, now + 1):
        pool = patched(world(), POOL, {403: pack("<Q", point), 475: bytes([kind])})
        if point == now:
            assert quote(pool) == quote(world())
        else:
            assert str(point) in refusal(pool, NotYetOpen)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({233: b"\0"}, NotTradable),
        ({233: b"\2"}, NotTradable),
        ({362: b"\2"}, UnsupportedMode),
        ({475: b"\2"}, UnsupportedMode),
        ({874: b"\2"}, UnsupportedMode),
        ({874: b"\1"}, StableCurveUnsupported),
        ({338: pack("<Q", 0)}, InvalidPool),
        ({354: pack("<Q", 0)}, InvalidPool),
        ({330: pack("<QQ", 0, 0)}, InvalidPool),
        ({338: pack("<Q", 2_499)}, InvalidPool),
        ({354: pack("<Q", 199_999)}, InvalidPool),
        ({136: VAULTS[0]}, InvalidPool),
        ({72: MINTS[0]}, InvalidPool),
        ({72: address("another mint")}, InvalidPool),
        ({168: SHARE_ACCOUNTS[1]}, InvalidPool),
        ({104: address("another vault")}, MissingAccount),
        ({104: POOL}, UnknownLayout),
    ],
)
def test_what_is_not_modelled_or_contradicts_itself_is_refused_by_name(
    changes: dict[int, bytes], kind: type[QuoteRefused]
) -> None:
    refusal(patched(world(), POOL, changes), kind)


@pytest.mark.parametrize(
    ("vault", "kind"),
    [
        ({"supply": 0}, InvalidPool),
        ({"supply": 0, "shares": 0}, InsufficientLiquidity),
        ({"shares": 0}, InsufficientLiquidity),
        ({"total": 0}, InsufficientLiquidity),
        ({"total": 10**6, "locked": 10**6, "release": 0}, InsufficientLiquidity),
        ({"total": 10**6, "locked": 10**6 + 1, "release": 0}, InvalidPool),
        ({"total": 1}, InsufficientLiquidity),
        ({"held": U64_MAX}, AmountOverflow),
        ({"total": U64_MAX, "supply": U64_MAX}, AmountOverflow),
        ({"total": 10**5, "supply": U64_MAX, "shares": U64_MAX}, AmountOverflow),
    ],
)
def test_a_vault_that_is_empty_or_full_or_contradicts_itself_is_refused(
    vault: dict[str, int], kind: type[QuoteRefused]
) -> None:
    refusal(world(a_vault() | vault), kind)


def test_amounts_that_are_nothing_or_too_large_are_refused() -> None:
    refusal(world(), AmountTooSmall, 0)
    assert "fee" in refusal(world(even(), even(), fees=(1, 10, 0, 1)), AmountTooSmall, 1)
    assert "share" in refusal(world(even(), even(), fees=(1, 10, 1, 10)), AmountTooSmall, 1)
    assert "share" in refusal(world(a_vault(supply_bps=1)), AmountTooSmall, 9_999)
    assert "nothing" in refusal(world(even(10**12), even(10**6)), AmountTooSmall, 10**5)
    refusal(world(), AmountOverflow, U64_MAX + 1)


def test_accounts_of_another_shape_are_refused() -> None:
    good = world().accounts

    def without(name: Address, account: Account) -> dict[Address, Account]:
        return {**good, name: account}

    pool, vault = good[POOL].data, good[VAULTS[0]].data
    for accounts in (
        without(POOL, Account(METEORA_VAULT, pool)),
        without(POOL, Account(METEORA_DAMM_V1, pool[:874])),
        without(POOL, Account(METEORA_DAMM_V1, b"\0" + pool[1:])),
        without(POOL, Account(METEORA_DAMM_V1, pool[:874] + b"\1" + bytes(49))),
        without(VAULTS[0], Account(METEORA_DAMM_V1, vault)),
        without(VAULTS[0], Account(METEORA_VAULT, vault[:1226])),
        without(VAULTS[0], Account(METEORA_VAULT, b"\0" + vault[1:])),
        without(SHARE_MINTS[0], Account(METEORA_VAULT, a_mint().data)),
        without(SHARE_MINTS[0], Account(SPL_TOKEN, bytes(82))),
        without(SHARE_MINTS[0], Account(SPL_TOKEN, bytes(81))),
        without(SHARE_ACCOUNTS[0], Account(TOKEN_2022, good[SHARE_ACCOUNTS[0]].data)),
    ):
        with pytest.raises(UnknownLayout):
            TYPE.decode(POOL, accounts, POLICY)
    for missing in (POOL, *VAULTS, *VAULT_ACCOUNTS, *SHARE_MINTS, *SHARE_ACCOUNTS):
        with pytest.raises(MissingAccount):
            TYPE.decode(POOL, {each: good[each] for each in good if each != missing}, POLICY)
    with pytest.raises(UnsupportedToken):
        TYPE.decode(POOL, without(VAULT_ACCOUNTS[0], token_account(MINTS[0], 1, TOKEN_2022)), POLICY)
    with pytest.raises(NotTradable):
        TYPE.decode(POOL, without(VAULT_ACCOUNTS[0], token_account(MINTS[0], 1, state=2)), POLICY)


def test_the_bytes_of_a_vault_behind_its_numbers_do_not_matter() -> None:
    for each in VAULTS:
        pool = world()
        short = Account(METEORA_VAULT, pool.accounts[each].data[:1227])
        assert quote(replace(pool, accounts={**pool.accounts, each: short})) == quote(world())


def test_the_stable_curve_with_the_price_of_marinade_pays_about_that_price() -> None:
    vaults = even(10**13), even(10**13 * 10**6 // 1_198_483)
    there, back = (quote(world(*vaults, fees=NO_FEES, stable=MSOL), 10**9, a_to_b) for a_to_b in (True, False))
    assert there.out_amount == pytest.approx(10**9 * 10**6 // 1_198_483, rel=1e-6)
    assert back.out_amount == pytest.approx(10**9 * 1_198_483 // 10**6, rel=1e-6)
    assert there.price_impact_bps == back.price_impact_bps == 1


def test_the_price_impact_on_the_stable_curve_is_measured_from_its_own_price() -> None:
    # So far out of balance, B is dear: little is paid for A, and yet next to nothing of that is due to the amount.
    vaults = even(10**13), even(10**10)
    for a_to_b in (True, False):
        taken = quote(world(*vaults, fees=NO_FEES, stable=MSOL), 10**7, a_to_b)
        assert abs(taken.out_amount * 1_198_483 - 10**13) > 10**12 or not a_to_b
        assert taken.price_impact_bps <= 20


def test_the_price_of_marinade_is_good_for_ten_minutes() -> None:
    pool = world(stable=MSOL, price_age_s=600)
    assert quote(pool).out_amount > 0
    assert "Marinade" in refusal(pool, StableCurveUnsupported, at=later(1))
    assert "clock" in refusal(world(stable=MSOL, price_age_s=0), InvalidPool, at=later(-1))


@pytest.mark.parametrize("depeg", [0, 2, 3, 255])
def test_every_other_stable_curve_is_refused_by_name(depeg: int) -> None:
    pool = patched(world(stable=MSOL), POOL, {916: bytes([depeg])})
    assert format_address(POOL) in refusal(pool, StableCurveUnsupported)


@pytest.mark.parametrize("at", [875, 883, 891, 900])
def test_a_stable_curve_that_multiplies_by_zero_is_refused(at: int) -> None:
    refusal(patched(world(stable=MSOL), POOL, {at: bytes(8)}), InvalidPool)


def test_a_stable_curve_whose_numbers_are_wider_than_the_programs_is_refused() -> None:
    for at, value in ((883, 2**63), (891, 2**63), (900, 2**63)):
        refusal(patched(world(stable=MSOL), POOL, {at: pack("<Q", value)}), AmountOverflow)


def test_a_swap_that_would_leave_nothing_on_the_stable_curve_is_refused() -> None:
    assert "emptied" in refusal(world(even(1), even(1), stable=(1, 1, 1, 10**6)), InsufficientLiquidity, 10**13)


def test_newtons_steps_end_beside_the_solution_of_the_invariant() -> None:
    for x, y, ann in ((10**9, 10**9, 2), (10**22, 3 * 10**21, 2_000), (10**12, 10**18, 200)):
        d = stable_invariant(x, y, ann)
        assert d is not None
        distance = [ann * (x + y) * 4 * x * y + near * 4 * x * y - ann * near * 4 * x * y - near**3
                    for near in (d + 2 + d // min(x, y), d - 2 - d // min(x, y))]  # fmt: skip
        assert distance[0] < 0 < distance[1]
        other = stable_other(x, d, ann)
        assert other is not None
        assert abs(other - y) <= 2 + d // min(x, y)


def test_newtons_steps_are_bounded_whatever_the_numbers() -> None:
    assert stable_invariant(1, 2**95, 2) is None
    assert stable_invariant(2**96, 2**96, 2) is None
    assert stable_other(1, 2**95, 2) is None


def test_recorded_swaps_through_the_stable_curve_are_refused_where_it_is_not_marinades() -> None:
    stable = recorded(is_stable=True)
    assert len(stable) == 6
    for each in stable:
        pool = patched(each.pool, each.pool.address, {916: b"\0"})
        refusal(pool, StableCurveUnsupported, each.amount)


def test_a_recorded_pool_that_is_switched_off_is_refused() -> None:
    for each in recorded(is_stable=False):
        refusal(patched(each.pool, each.pool.address, {233: b"\0"}), NotTradable, each.amount)
