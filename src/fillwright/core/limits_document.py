"""Limits as people write and read them: a document of names and text, the same on the wire and on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from fillwright.core.errors import FillwrightError, InvalidRequest, UnknownToken
from fillwright.core.limits import OPEN, USD, Limits, TokenLimit
from fillwright.core.tokens import TokenRegistry
from fillwright.core.units import (
    USD_DECIMALS,
    BaseUnits,
    Bps,
    Mint,
    Token,
    format_amount,
    format_share,
    format_usd,
    parse_amount,
    parse_share,
)

T = TypeVar("T")
Document = dict[str, Any]

DOLLAR: Final = Token("USD", Mint(""), USD_DECIMALS)
OPEN_ORDERS_MAX: Final = 1_000_000
NAMES: Final = (
    "orderUsd",
    "dayUsd",
    "orderAmount",
    "dayAmount",
    "tokens",
    "slippage",
    "priceImpact",
    "priceDeviation",
    "openOrders",
)


def to_document(limits: Limits, registry: TokenRegistry) -> Document:
    """Return the limits that there are; amounts in whole tokens, shares as fractions."""
    order_amount, day_amount = Document(), Document()
    for each in limits.amounts:
        token = _token(each.mint, registry)
        if each.order_max is not None:
            order_amount[token.symbol] = format_amount(each.order_max, token.decimals)
        if each.day_max is not None:
            day_amount[token.symbol] = format_amount(each.day_max, token.decimals)
    document = {
        "orderUsd": _given(format_usd, limits.order_usd),
        "dayUsd": _given(format_usd, limits.day_usd),
        "orderAmount": order_amount or None,
        "dayAmount": day_amount or None,
        "tokens": None if limits.tokens is None else [_token(mint, registry).symbol for mint in limits.tokens],
        "slippage": _given(format_share, limits.slippage_bps),
        "priceImpact": _given(format_share, limits.price_impact_bps),
        "priceDeviation": _given(format_share, limits.price_deviation_bps),
        "openOrders": limits.open_orders,
    }
    return {name: value for name, value in document.items() if value is not None}


def from_document(document: object, registry: TokenRegistry) -> Limits:
    """Return the limits that a document says. Raise InvalidRequest, naming the field at fault."""
    if not isinstance(document, Mapping):
        raise InvalidRequest("limits must be an object of names and values", field="limits")
    if unknown := sorted(set(document) - set(NAMES)):
        raise InvalidRequest(
            f"there is no limit {str(unknown[0])[:64]!r}; there are {', '.join(NAMES)}", field="limits"
        )

    def read(name: str, parse: Callable[[Any], T]) -> T | None:
        value = document.get(name)
        if value is None:
            return None
        try:
            return parse(value)
        except FillwrightError as error:
            raise InvalidRequest(f"{name}: {error}", field=name) from error

    def amounts(value: object) -> dict[Mint, BaseUnits]:
        if not isinstance(value, Mapping):
            raise InvalidRequest("give an amount for each token, such as SOL and 5")
        tokens = {registry.resolve(str(symbol), "token"): _text(amount) for symbol, amount in value.items()}
        return {token.mint: parse_amount(amount, token) for token, amount in tokens.items()}

    order_amount, day_amount = read("orderAmount", amounts) or {}, read("dayAmount", amounts) or {}
    return Limits(
        order_usd=read("orderUsd", _usd),
        day_usd=read("dayUsd", _usd),
        amounts=tuple(
            TokenLimit(mint, order_amount.get(mint), day_amount.get(mint))
            for mint in sorted({*order_amount, *day_amount})
        ),
        tokens=read("tokens", lambda value: _tokens(value, registry)),
        slippage_bps=read("slippage", lambda value: _share(value, "slippage")),
        price_impact_bps=read("priceImpact", lambda value: _share(value, "priceImpact")),
        price_deviation_bps=read("priceDeviation", lambda value: _share(value, "priceDeviation")),
        open_orders=read("openOrders", _count),
    )


def limits_in_words(document: Document) -> dict[str, str]:
    """Return the limits of a document, a line of text for each."""
    words: dict[str, str] = {}
    for name, most in document.items():
        if isinstance(most, Mapping):
            words |= {f"{name} {symbol}": str(each) for symbol, each in most.items()}
        else:
            words[name] = ",".join(most) if isinstance(most, list) else str(most)
    return words


def used_document(used: Mapping[tuple[str, str], int], of: str, registry: TokenRegistry) -> Document:
    """Return what somebody's orders count for."""
    amounts = {}
    for (each, what), amount in used.items():
        if each == of and what not in (USD, OPEN) and amount:
            token = _token(Mint(what), registry)
            amounts[token.symbol] = format_amount(amount, token.decimals)
    return {
        "usd": format_usd(used.get((of, USD), 0)),
        "amounts": amounts,
        "openOrders": used.get((of, OPEN), 0),
    }


def _given(write: Callable[[int], str], value: int | None) -> str | None:
    return None if value is None else write(value)


def _token(mint: Mint, registry: TokenRegistry) -> Token:
    try:
        return registry.resolve(mint, "token")
    except UnknownToken:  # another version knew it
        return Token(mint, mint, 0)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequest("give a decimal number")
    return str(value)


def _usd(value: object) -> BaseUnits:
    return parse_amount(_text(value), DOLLAR)


def _share(value: object, name: str) -> Bps:
    return parse_share(_text(value), name)


def _tokens(value: object, registry: TokenRegistry) -> tuple[Mint, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InvalidRequest("give a list of tokens, one at least")
    return tuple(sorted({registry.resolve(str(each), "token").mint for each in value}))


def _count(value: object) -> int:
    text = _text(value)
    if not (text.isascii() and text.isdecimal() and len(text) <= 7 and 1 <= int(text) <= OPEN_ORDERS_MAX):
        raise InvalidRequest(f"give a whole number from 1 to {OPEN_ORDERS_MAX}")
    return int(text)
