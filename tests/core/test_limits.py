"""How far orders may go: each limit at its edge, whose it is, and what an order counts for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from fillwright.core.errors import OverLimit
from fillwright.core.limits import (
    DAY_MS,
    EVERYBODY,
    OPEN,
    USD,
    Bounds,
    Cap,
    Limits,
    TokenLimit,
    counted,
    day_of,
    of_account,
    of_key,
    owner,
    refusal,
    whose,
)
from fillwright.core.order import Charge
from fillwright.core.routing import Quote
from tests.builders import BONK, ONE_SOL, SOL, USDC, a_quote, some_order, some_terms

DESK, KEY = "account desk", "key K1"
CHARGE: Final = Charge(7, 150_000_000, "K1", 3)
TERMS: Final = some_terms()  # one SOL for USDC, slippage 1 %
WORTH: Final = 150_000_000  # micro-dollars


def bounds(account: str = "desk", key_id: str = "K1", **limits: Limits) -> Bounds:
    """Return the bounds of an order under limits `of` everybody, the account desk and the key K1."""
    names = {"everybody": EVERYBODY, "desk": DESK, "key": KEY, "other": "account other", "local": "account local"}
    return Bounds({names[name]: each for name, each in limits.items()}, account, key_id)


def told(error: OverLimit | None) -> tuple[str, str, str, str | None, str]:
    assert error is not None
    return error.code, error.limit, error.of, error.field, str(error)


def refused(limits: Limits, usd: int | None = WORTH, **terms: Any) -> tuple[str, str, str, str | None, str]:
    with pytest.raises(OverLimit) as error:
        bounds(desk=limits).check(some_terms(**terms), usd)
    return told(error.value)


def test_limits_are_those_of_everybody_the_account_and_the_key() -> None:
    assert whose("desk", "K1") == (EVERYBODY, DESK, KEY)
    assert whose("desk", "") == (EVERYBODY, DESK)
    assert whose("", "") == ("everybody", "account local")
    assert (of_account("desk"), of_account(""), of_key("K1")) == (DESK, "account local", KEY)
    assert [owner(of) for of in (EVERYBODY, DESK, "account local", KEY)] == [
        (None, None),
        ("desk", None),
        ("", None),
        (None, "K1"),
    ]
    assert owner("account of two words") == ("of two words", None)


def test_a_day_is_utc_s() -> None:
    assert [day_of(at_ms) for at_ms in (0, DAY_MS - 1, DAY_MS)] == [0, 0, 1]
    assert DAY_MS == 24 * 60 * 60 * 1000


def test_an_order_counts_for_its_amount_and_its_worth_by_everybody_account_and_key() -> None:
    order = replace(some_order(), account="desk", charge=CHARGE)
    expected = [each for of in (EVERYBODY, DESK, KEY) for each in ((7, of, SOL.mint, ONE_SOL), (7, of, "usd", WORTH))]
    assert list(counted(order)) == expected
    unpriced = replace(order, charge=replace(CHARGE, usd=None, key_id=""))
    assert list(counted(unpriced)) == [(7, of, SOL.mint, ONE_SOL) for of in (EVERYBODY, DESK)]
    assert list(counted(some_order())) == []


def test_an_order_under_no_limit_is_not_bound() -> None:
    free = bounds(other=Limits(order_usd=1, price_impact_bps=1))
    assert not free
    assert not free.ask_the_market
    free.check(TERMS, None)
    assert free.caps(TERMS, None) == []
    assert bounds(desk=Limits())


@pytest.mark.parametrize(
    ("limits", "asks"),
    [
        (Limits(price_impact_bps=0), True),
        (Limits(price_deviation_bps=0), True),
        (Limits(order_usd=1, day_usd=1, slippage_bps=1, open_orders=1, tokens=(SOL.mint,)), False),
    ],
)
def test_the_market_is_asked_only_for_what_it_alone_can_tell(limits: Limits, asks: bool) -> None:
    assert bounds(everybody=Limits(), key=limits).ask_the_market is asks


def test_one_order_is_bound_by_its_worth() -> None:
    bounds(desk=Limits(order_usd=WORTH)).check(TERMS, WORTH)
    message = "the order is worth 150 USD; the limit of account desk for one order is 149.999999 USD"
    assert refused(Limits(order_usd=WORTH - 1)) == ("amount_too_large", "orderUsd", DESK, "amount", message)


def test_one_order_is_bound_by_what_it_sells() -> None:
    limits = Limits(amounts=(TokenLimit(BONK.mint, 1), TokenLimit(SOL.mint, None, 1), TokenLimit(SOL.mint, ONE_SOL)))
    bounds(desk=limits).check(TERMS, None)
    message = "one order may sell 1 SOL at most, by the limit of account desk"
    assert refused(limits, None, in_amount=ONE_SOL + 1) == (
        "amount_too_large",
        "orderAmount SOL",
        DESK,
        "amount",
        message,
    )


@pytest.mark.parametrize(
    ("tokens", "field", "symbol"), [((USDC.mint,), "tokenIn", "SOL"), ((SOL.mint,), "tokenOut", "USDC")]
)
def test_both_tokens_must_be_among_those_that_are_allowed(tokens: Any, field: str, symbol: str) -> None:
    bounds(desk=Limits(tokens=(SOL.mint, USDC.mint))).check(TERMS, None)
    message = f"{symbol} is not among the tokens of account desk"
    assert refused(Limits(tokens=tokens)) == ("token_not_allowed", "tokens", DESK, field, message)


def test_an_order_is_bound_in_its_slippage() -> None:
    bounds(desk=Limits(slippage_bps=100)).check(TERMS, None)
    message = "slippage 0.01 is over the limit of account desk, 0.0099"
    assert refused(Limits(slippage_bps=99)) == ("slippage_too_high", "slippage", DESK, "slippage", message)


def test_what_a_limit_in_dollars_is_asked_of_what_has_no_price_is_a_refusal() -> None:
    code, limit, of, field, message = refused(Limits(order_usd=10**18), None)
    assert (code, limit, of, field) == ("price_unknown", "orderUsd", DESK, None)
    assert message == (
        "the limit orderUsd of account desk asks what the order is worth, and there is no reference price for SOL and"
        " USDC now"
    )
    with pytest.raises(OverLimit) as day:
        bounds(key=Limits(day_usd=1)).caps(TERMS, None)
    assert told(day.value)[:3] == ("price_unknown", "dayUsd", KEY)


def test_an_order_is_under_the_limits_of_all_whose_it_is() -> None:
    for name, of in (("everybody", EVERYBODY), ("desk", DESK), ("key", KEY)):
        some: dict[str, Any] = {"everybody": Limits(), name: Limits(slippage_bps=0)}
        with pytest.raises(OverLimit) as error:
            bounds(**some).check(TERMS, None)
        assert error.value.of == of


STRICTER: Any = [
    ("slippage_bps", 50, 40),
    ("order_usd", WORTH - 1, WORTH - 2),
    ("amounts", (TokenLimit(SOL.mint, 5),), (TokenLimit(SOL.mint, 4),)),
    ("tokens", (USDC.mint,), (BONK.mint,)),
]


@pytest.mark.parametrize(("name", "lax", "strict"), STRICTER)
def test_of_several_limits_the_strictest_decides_and_of_the_same_that_of_everybody(
    name: str, lax: Any, strict: Any
) -> None:
    def whose_hit(**limits: Any) -> str:
        some: dict[str, Any] = {of: Limits(**{name: value}) for of, value in limits.items()}
        with pytest.raises(OverLimit) as error:
            bounds(**some).check(TERMS, WORTH)
        return error.value.of

    assert whose_hit(everybody=strict, desk=strict, key=strict) == EVERYBODY
    if name != "tokens":  # there, no set is stricter than another
        assert whose_hit(everybody=lax, desk=strict, key=lax) == DESK
        assert whose_hit(everybody=lax, desk=lax, key=strict) == KEY
    assert whose_hit(desk=lax) == DESK


def test_limits_on_other_tokens_do_not_count() -> None:
    limits = Limits(amounts=(TokenLimit(BONK.mint, 1), TokenLimit(USDC.mint, 1)))
    bounds(everybody=limits, desk=Limits(amounts=(TokenLimit(SOL.mint, ONE_SOL),))).check(TERMS, WORTH)


def test_shared_amounts_are_caps_and_so_is_the_number_of_open_orders() -> None:
    both = bounds(
        everybody=Limits(day_usd=5, open_orders=9),
        key=Limits(amounts=(TokenLimit(BONK.mint, None, 1), TokenLimit(SOL.mint, 1), TokenLimit(SOL.mint, None, 7))),
    )
    caps = [Cap(EVERYBODY, USD, 5, WORTH), Cap(EVERYBODY, OPEN, 9, 1), Cap(KEY, SOL.mint, 7, ONE_SOL)]
    assert both.caps(TERMS, WORTH) == caps
    assert both.caps_of_the_day(TERMS, WORTH) == [Cap(EVERYBODY, USD, 5, 0), Cap(KEY, SOL.mint, 7, 0)]


def of_refusal(cap: Cap, used: Mapping[tuple[str, str], int]) -> tuple[str, str, str, str | None, str]:
    return told(refusal([Cap(EVERYBODY, OPEN, 1, 1), cap], used, TERMS))


def test_a_cap_has_room_up_to_its_maximum() -> None:
    caps = [Cap(DESK, USD, 10, 4), Cap(DESK, OPEN, 2, 1)]
    assert refusal([], {}, TERMS) is None
    assert refusal(caps, {(DESK, USD): 6, (DESK, OPEN): 1, (KEY, USD): 99}, TERMS) is None
    assert of_refusal(Cap(DESK, USD, 10_500_000, 4_000_001), {(DESK, USD): 6_500_000}) == (
        "daily_limit_reached",
        "dayUsd",
        DESK,
        "amount",
        "with this order, the day (UTC) would be over the limit of account desk, 10.5 USD",
    )
    assert of_refusal(Cap(KEY, SOL.mint, 10 * ONE_SOL, 1), {(KEY, SOL.mint): 10 * ONE_SOL}) == (
        "daily_limit_reached",
        "dayAmount SOL",
        KEY,
        "amount",
        "with this order, the day (UTC) would be over the limit of key K1, 10 SOL",
    )
    assert of_refusal(Cap(DESK, OPEN, 2, 1), {(DESK, OPEN): 2}) == (
        "too_many_open_orders",
        "openOrders",
        DESK,
        None,
        "2 orders may be open at the same time, by the limit of account desk",
    )


def quote_refused(limits: Limits, quote: Quote, *usd: int | None) -> tuple[str, str, str, str | None, str]:
    with pytest.raises(OverLimit) as error:
        bounds(everybody=Limits(), desk=limits).check_quote(TERMS, quote, *usd)
    return told(error.value)


def test_a_quote_is_bound_in_how_far_it_moves_the_price() -> None:
    quote = replace(a_quote(), price_impact_bps=50)
    bounds(desk=Limits(price_impact_bps=50)).check_quote(TERMS, quote, None, None)
    assert quote_refused(Limits(price_impact_bps=49), quote, None, None) == (
        "price_impact_too_high",
        "priceImpact",
        DESK,
        None,
        "raydium would move the price by 0.005, over the limit of account desk, 0.0049",
    )


@pytest.mark.parametrize(("paid", "got"), [(10_000, 9_900), (10_000, 10_100), (1, 1), (9_999, 9_900)])
def test_a_quote_may_be_so_far_from_the_reference_price(paid: int, got: int) -> None:
    bounds(desk=Limits(price_deviation_bps=100)).check_quote(TERMS, a_quote(), paid, got)


@pytest.mark.parametrize(
    ("paid", "got"), [(10_000, 9_899), (10_000, 10_101), (100_000, 98_999), (100_000, 101_001), (0, 0), (0, 1)]
)
def test_a_quote_may_not_be_further_from_the_reference_price(paid: int, got: int) -> None:
    found = quote_refused(Limits(price_deviation_bps=100), a_quote(), paid, got)
    assert found[:4] == ("price_deviation_too_high", "priceDeviation", DESK, None)


def test_the_words_of_a_refused_quote_say_what_is_paid_for_what() -> None:
    *_, words = quote_refused(Limits(price_deviation_bps=100), a_quote(), 150_000_000, 140_000_000)
    assert words == (
        "raydium pays 140 USD for 150 USD by the reference prices; the limit of account desk is 0.01 less or more"
    )


@pytest.mark.parametrize("usd", [(None, 1), (1, None)])
def test_a_quote_without_a_reference_price_is_within_no_limit_on_the_distance_from_it(usd: Any) -> None:
    assert quote_refused(Limits(price_deviation_bps=10_000), a_quote(), *usd)[:3] == (
        "price_unknown",
        "priceDeviation",
        DESK,
    )
