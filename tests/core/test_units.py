"""Text to integers and back, without a float on the way."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.accounts import Address, format_address, parse_address
from fillwright.core.errors import InvalidAmount, InvalidSlippage, UnknownToken
from fillwright.core.tokens import WELL_KNOWN, TokenRegistry
from fillwright.core.units import (
    U64_MAX,
    Token,
    base58,
    difference_bps,
    format_amount,
    is_order_id,
    min_out,
    order_id,
    order_id_floor,
    parse_amount,
    parse_mint,
    parse_slippage,
)
from tests.builders import BONK, SOL, USDC


@pytest.mark.parametrize(
    ("text", "token", "amount"),
    [("1.5", SOL, 1_500_000_000), ("0.000001", USDC, 1), ("1", USDC, 1_000_000), ("1.50", USDC, 1_500_000)],
)
def test_amounts_are_exact(text: str, token: Token, amount: int) -> None:
    assert parse_amount(text, token) == amount


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.0", "-1", "+1", "1e3", "1E3", "NaN", "Infinity", ".5", "5.", "01", "1,5", " 1", "1 ", "1_0", "０", "٣",
     "1\n", "0x10", "1e1000000", "9" * 19, "1." + "1" * 19, "null", "true"],
)  # fmt: skip
def test_what_is_not_a_plain_positive_decimal_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmount):
        parse_amount(text, SOL)


def test_more_decimals_than_the_token_has_are_refused_not_rounded() -> None:
    with pytest.raises(InvalidAmount, match="more than 5 decimals"):
        parse_amount("0.000001", BONK)
    assert parse_amount("0.00001000", BONK) == 1


def test_more_than_an_account_can_hold_is_refused() -> None:
    assert parse_amount("18446744073.709551615", SOL) == U64_MAX
    with pytest.raises(InvalidAmount, match="2\\^64"):
        parse_amount("18446744073.709551616", SOL)


@given(st.integers(1, U64_MAX), st.sampled_from(WELL_KNOWN))
def test_an_amount_survives_being_written_and_read(amount: int, token: Token) -> None:
    text = format_amount(amount, token.decimals)
    assert Decimal(text) == Decimal(amount).scaleb(-token.decimals)
    if len(text.partition(".")[0]) <= 18:
        assert parse_amount(text, token) == amount


@pytest.mark.parametrize(
    ("text", "bps"), [("0", 0), ("0.01", 100), ("0.1", 1_000), ("0.0001", 1), ("0.10000", 1_000), ("0.005", 50)]
)
def test_slippage_is_exact(text: str, bps: int) -> None:
    assert parse_slippage(text) == bps


@pytest.mark.parametrize("text", ["0.1001", "0.11", "1", "-0.01", "0.00001", "1e-2", "NaN", "", "1 %"])
def test_slippage_outside_0_to_10_percent_in_basis_points_is_refused(text: str) -> None:
    with pytest.raises(InvalidSlippage):
        parse_slippage(text)


def test_what_is_no_slippage_is_refused_with_what_would_be_one() -> None:
    with pytest.raises(InvalidSlippage) as error:
        parse_slippage("1e-2")
    assert str(error.value) == (
        "slippage must be a decimal fraction from 0 to 0.1, such as 0.01 for 1 %, without sign or exponent"
    )


@given(st.integers(1, U64_MAX), st.integers(0, 1_000))
def test_the_minimum_is_never_below_what_the_slippage_allows(out_amount: int, slippage_bps: int) -> None:
    least = min_out(out_amount, slippage_bps)
    assert least * 10_000 >= out_amount * (10_000 - slippage_bps)
    assert (least - 1) * 10_000 < out_amount * (10_000 - slippage_bps)


def test_differences_are_truncated_towards_zero() -> None:
    assert difference_bps(99_999, 100_000) == 0
    assert difference_bps(99_989, 100_000) == -1
    assert difference_bps(100_019, 100_000) == 1
    assert difference_bps(1, 0) == 0


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1), st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1))
def test_order_ids_sort_by_age(first_ms: int, first: int, second_ms: int, second: int) -> None:
    older, newer = order_id(first_ms, first), order_id(second_ms, second)
    assert is_order_id(older)
    assert (older < newer) == ((first_ms, first) < (second_ms, second))
    assert order_id_floor(first_ms) <= older


@pytest.mark.parametrize(
    "text", ["", "ord_", "ord_" + "0" * 25, "ord_" + "0" * 27, "ord_8" + "0" * 25, "ord_" + "I" * 26, "x"]
)
def test_what_is_not_an_order_id_is_told_apart(text: str) -> None:
    assert not is_order_id(text)


@given(st.binary(min_size=32, max_size=32))
def test_the_base58_form_of_32_bytes_is_a_mint_address(data: bytes) -> None:
    assert parse_mint(base58(data)) == base58(data) == format_address(Address(data))
    assert parse_address(base58(data)) == data


@pytest.mark.parametrize(
    "text", ["", "0" * 44, "1" * 31, "1" * 33, "z" * 44, "So1111111111111111111111111111111111111111", "l" * 43]
)
def test_what_is_not_the_base58_form_of_32_bytes_is_refused(text: str) -> None:
    with pytest.raises(UnknownToken):
        parse_mint(text)


def test_tokens_are_known_by_symbol_in_any_case_and_by_mint() -> None:
    registry = TokenRegistry()
    for token in WELL_KNOWN:
        assert parse_mint(token.mint)
        for name in (token.symbol, token.symbol.lower(), token.symbol.upper(), token.mint):
            assert registry.resolve(name, "tokenIn") is token
    with pytest.raises(UnknownToken, match="tokenIn: 'DOGE' is neither"):
        registry.resolve("DOGE", "tokenIn")
    with pytest.raises(UnknownToken, match="no token is registered"):
        registry.resolve(base58(b"\x07" * 32), "tokenOut")
