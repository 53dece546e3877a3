"""What a client reads when it is refused: the field at fault and the limit, in the names that it used itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from fillwright.core.errors import (
    Denied,
    InvalidAmount,
    InvalidOrder,
    InvalidSlippage,
    SameToken,
    UnknownOrderKind,
    UnknownToken,
)
from fillwright.core.order import KINDS, Terms, check_terms
from fillwright.core.tokens import WELL_KNOWN, TokenRegistry
from fillwright.core.units import Mint, base58, parse_amount, parse_client_order_id, parse_mint, parse_slippage
from tests.builders import BONK, SOL, some_terms

REGISTRY = TokenRegistry()
STRANGER = base58(b"\x07" * 32)
LONG = "0" * 200  # no base58 letter
LONG_MINT = "1" * 200
EVERY_SYMBOL = ", ".join(token.symbol for token in WELL_KNOWN)


@dataclass(frozen=True)
class Refusal:
    """`begins` and `names` are parts of the message: who is at fault, and the limit or the value."""

    attempt: Callable[[], object]
    error: type[Denied]
    begins: str
    names: str
    field: str | None = None


def of_kind(kind: str) -> Terms:
    return replace(some_terms(), kind=kind)


REFUSALS = {
    "no number": Refusal(
        lambda: parse_amount("1e3", SOL),
        InvalidAmount,
        "amount must be",
        'such as 1.5, without sign or exponent; send a very small one as a string: "0.0000001"',
    ),
    "nothing": Refusal(lambda: parse_amount("0", SOL), InvalidAmount, "amount must be", "greater than zero"),
    "too fine": Refusal(
        lambda: parse_amount("0.000001", BONK), InvalidAmount, "amount has", "5 decimals, which is all"
    ),
    "too much": Refusal(
        lambda: parse_amount("18446744074", SOL), InvalidAmount, "amount is larger", "(2^64 - 1 base units)"
    ),
    "no share": Refusal(
        lambda: parse_slippage("1 %"), InvalidSlippage, "slippage must be", "from 0 to 0.1, such as 0.01 for 1 %"
    ),
    "too fine a share": Refusal(
        lambda: parse_slippage("0.00001"), InvalidSlippage, "slippage is finer", "than 0.0001, one basis point"
    ),
    "too great a share": Refusal(
        lambda: parse_slippage("0.1001"), InvalidSlippage, "slippage must be", "at most 0.1, which is 10 %"
    ),
    "no client order id": Refusal(
        lambda: parse_client_order_id(""),
        InvalidOrder,
        "clientOrderId must be",
        "1 to 128 visible ASCII characters",
        "clientOrderId",
    ),
    "no token": Refusal(
        lambda: REGISTRY.resolve("DOGE", "tokenIn"),
        UnknownToken,
        "tokenIn: 'DOGE' is neither a known symbol nor a mint address",
        f"; known: {EVERY_SYMBOL}",
        "tokenIn",
    ),
    "no known mint": Refusal(
        lambda: REGISTRY.resolve(STRANGER, "tokenOut"), UnknownToken, "tokenOut: no token", STRANGER, "tokenOut"
    ),
    "no base58": Refusal(lambda: parse_mint(LONG), UnknownToken, f"'{LONG[:64]}'", "mint address"),
    "too long a mint": Refusal(lambda: parse_mint(LONG_MINT), UnknownToken, f"'{LONG_MINT[:64]}'", "mint address"),
    "both the same": Refusal(
        lambda: check_terms(some_terms(token_in=SOL, token_out=SOL)),
        SameToken,
        "tokenIn and tokenOut",
        "the same token",
        "tokenOut",
    ),
    "no such kind": Refusal(
        lambda: check_terms(of_kind(LONG)),
        UnknownOrderKind,
        f"orderType '{LONG[:64]}' is not known",
        f"; known: {', '.join(KINDS)}",
        "orderType",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_names_the_field_and_the_limit_or_the_value(refusal: Refusal) -> None:
    with pytest.raises(refusal.error) as refused:
        refusal.attempt()
    message = str(refused.value)
    assert message.startswith(refusal.begins)
    assert refusal.names in message
    assert refused.value.field == refusal.field


def test_a_market_order_between_two_tokens_can_be_meant() -> None:
    terms = some_terms()
    assert check_terms(terms) is terms


def test_tokens_are_told_apart_by_their_mints_whatever_they_are_called() -> None:
    check_terms(some_terms(token_in=SOL, token_out=replace(SOL, mint=Mint(STRANGER))))
    with pytest.raises(SameToken):
        check_terms(some_terms(token_in=SOL, token_out=replace(SOL, symbol="WSOL")))


@pytest.mark.parametrize("text", ["x", "x" * 128, "order-1", "!~", "a/b:c"])
def test_a_client_order_id_is_1_to_128_visible_ascii_characters(text: str) -> None:
    assert parse_client_order_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 129, " ", "a b", "a\tb", "a\n", "\x7f", "\x00", "é", "a\u00a0b"])
def test_what_cannot_serve_as_a_client_order_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidOrder):
        parse_client_order_id(text)
