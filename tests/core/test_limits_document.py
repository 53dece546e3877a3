"""Limits as people write them: read exactly, written back as they were, and refused by the field at fault."""

from __future__ import annotations

from typing import Any, Final

import pytest

from fillwright.core.errors import InvalidRequest
from fillwright.core.limits import EVERYBODY, NONE, OPEN, USD, Limits, TokenLimit
from fillwright.core.limits_document import from_document, limits_in_words, to_document, used_document
from fillwright.core.tokens import TokenRegistry
from fillwright.core.units import Mint
from tests.builders import BONK, SOL, USDC

TOKENS: Final = TokenRegistry()
ALL: Final = {
    "orderUsd": "1000.5", "dayUsd": "20000", "orderAmount": {"SOL": "5"}, "dayAmount": {"BONK": "0.00001", "SOL": "50"},
    "tokens": ["USDC", "SOL"], "slippage": "0.01", "priceImpact": "0.0001", "priceDeviation": "1", "openOrders": 20,
}  # fmt: skip
READ: Final = Limits(
    order_usd=1_000_500_000,
    day_usd=20_000_000_000,
    amounts=tuple(
        sorted(
            [TokenLimit(BONK.mint, None, 1), TokenLimit(SOL.mint, 5 * 10**9, 50 * 10**9)], key=lambda each: each.mint
        )
    ),
    tokens=tuple(sorted([SOL.mint, USDC.mint])),
    slippage_bps=100,
    price_impact_bps=1,
    price_deviation_bps=10_000,
    open_orders=20,
)


def refused(**document: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as error:
        from_document(document, TOKENS)
    return error.value.field, str(error.value)


def test_what_is_written_is_read_and_what_is_read_is_written() -> None:
    assert from_document(ALL, TOKENS) == READ
    written = to_document(READ, TOKENS)
    assert {**written, "tokens": sorted(written["tokens"])} == {**ALL, "tokens": ["SOL", "USDC"]}
    assert list(written) == list(ALL)


def test_nothing_is_no_limit() -> None:
    assert from_document({}, TOKENS) == from_document(dict.fromkeys(ALL), TOKENS) == NONE
    assert to_document(NONE, TOKENS) == {}


def test_tokens_are_named_by_symbol_in_any_case_or_by_mint() -> None:
    assert from_document({"tokens": ["sol", SOL.mint]}, TOKENS).tokens == (SOL.mint,)
    assert from_document({"dayAmount": {SOL.mint: 1}}, TOKENS).amounts == (TokenLimit(SOL.mint, None, 10**9),)


def test_whole_numbers_need_no_quotes() -> None:
    assert from_document({"orderUsd": 5, "openOrders": "7"}, TOKENS) == Limits(order_usd=5_000_000, open_orders=7)


def test_a_token_that_another_version_knew_is_shown_by_its_mint_in_base_units() -> None:
    strange = Mint("1" * 32)
    limits = Limits(amounts=(TokenLimit(strange, 12, 34),), tokens=(strange,))
    assert to_document(limits, TOKENS) == {
        "orderAmount": {strange: "12"},
        "dayAmount": {strange: "34"},
        "tokens": [strange],
    }


@pytest.mark.parametrize("document", [[], "x", None, 5])
def test_what_is_no_document_is_refused(document: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^limits must be an object of names and values$") as error:
        from_document(document, TOKENS)
    assert error.value.field == "limits"


def test_a_name_that_is_no_limit_s_is_refused_with_those_that_are() -> None:
    field, message = refused(orderUSD="5")
    assert field == "limits"
    assert message == f"there is no limit 'orderUSD'; there are {', '.join(ALL)}"
    assert f"'{'x' * 64}'" in refused(**{"x" * 65: 1})[1]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("orderUsd", "0", "amount must be greater than zero"),
        ("orderUsd", "1e3", "amount must be a positive decimal number"),
        ("orderUsd", True, "give a decimal number"),
        ("orderUsd", 1.5, "give a decimal number"),
        ("dayUsd", "0.0000001", "amount has more than 6 decimals, which is all that USD has"),
        ("orderAmount", [], "give an amount for each token, such as SOL and 5"),
        ("orderAmount", {"NOPE": 1}, "token: 'NOPE' is neither a known symbol nor a mint address"),
        ("dayAmount", {"SOL": None}, "give a decimal number"),
        ("dayAmount", {"BONK": "0.000001"}, "amount has more than 5 decimals"),
        ("tokens", [], "give a list of tokens, one at least"),
        ("tokens", "SOL", "give a list of tokens, one at least"),
        ("tokens", 5, "give a list of tokens, one at least"),
        ("tokens", ["NOPE"], "token: 'NOPE' is neither"),
        ("slippage", "1.0001", "slippage must be at most 1, which is 100 %"),
        ("slippage", "-1", "slippage must be a decimal fraction from 0 to 1"),
        ("priceImpact", "0.00001", "priceImpact is finer than 0.0001, one basis point"),
        ("priceDeviation", "x", "priceDeviation must be a decimal fraction from 0 to 1"),
        ("openOrders", 0, "give a whole number from 1 to 1000000"),
        ("openOrders", 1_000_001, "give a whole number from 1 to 1000000"),
        ("openOrders", "10000000", "give a whole number from 1 to 1000000"),
        ("openOrders", "١", "give a whole number from 1 to 1000000"),
        ("openOrders", "1.0", "give a whole number from 1 to 1000000"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(name: str, value: Any, why: str) -> None:
    field, message = refused(**{name: value})
    assert field == name
    assert message.startswith(f"{name}: {why}")


def test_one_open_order_may_be_the_limit() -> None:
    assert from_document({"openOrders": 1}, TOKENS).open_orders == 1


def test_a_limit_may_be_as_high_as_can_be_written() -> None:
    limits = from_document({"slippage": "1", "openOrders": "1000000", "priceImpact": 0}, TOKENS)
    assert (limits.slippage_bps, limits.open_orders, limits.price_impact_bps) == (10_000, 1_000_000, 0)


def test_limits_in_words_are_a_line_each() -> None:
    assert limits_in_words(ALL) == {
        "orderUsd": "1000.5", "dayUsd": "20000", "orderAmount SOL": "5", "dayAmount BONK": "0.00001",
        "dayAmount SOL": "50", "tokens": "USDC,SOL", "slippage": "0.01", "priceImpact": "0.0001",
        "priceDeviation": "1", "openOrders": "20",
    }  # fmt: skip


def test_what_is_used_is_told_in_whole_tokens_and_dollars() -> None:
    used = {
        (EVERYBODY, USD): 1_500_000,
        (EVERYBODY, SOL.mint): 2_500_000_000,
        (EVERYBODY, USDC.mint): 0,
        (EVERYBODY, OPEN): 3,
        ("account desk", BONK.mint): 5,
    }
    assert used_document(used, EVERYBODY, TOKENS) == {"usd": "1.5", "amounts": {"SOL": "2.5"}, "openOrders": 3}
    assert used_document({}, EVERYBODY, TOKENS) == {"usd": "0", "amounts": {}, "openOrders": 0}
