"""Amounts, identifiers and the conversions between what people write and what the engine computes with.

Money is an `int` in base units (lamports for SOL, millionths for USDC); a share is an `int` in basis points. Every
rounding is spelled out where it happens. Text becomes a number here and nowhere else, by a pattern that admits plain
ASCII decimals only: no exponent, no sign, no NaN, so no input can cost more than its own length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NewType, TypeAlias

from fillwright.core.errors import InvalidAmount, InvalidOrder, InvalidSlippage, UnknownToken

BaseUnits: TypeAlias = int
Bps: TypeAlias = int
MicroUsd: TypeAlias = int  # millionths of a US dollar
Millis: TypeAlias = int  # since the Unix epoch, or a span, in milliseconds

Mint = NewType("Mint", str)
Signature = NewType("Signature", str)
OrderId = NewType("OrderId", str)

BPS: Final = 10_000
U64_MAX: Final = 2**64 - 1
SLIPPAGE_BPS_MAX: Final = 1_000
SLIPPAGE_BPS_DEFAULT: Final = 100
USD_DECIMALS: Final = 6

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,17})(?:\.([0-9]{1,18}))?", re.ASCII)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CROCKFORD_PAIRS = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_PAIR_SHIFTS = (70, 60, 50, 40, 30, 20, 10, 0)
_ORDER_ID = re.compile(rf"ord_[0-7][{_CROCKFORD}]{{25}}", re.ASCII)
BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_PAIRS = [a + b for a in BASE58 for b in BASE58]
_BASE58_VALUE = {letter: value for value, letter in enumerate(BASE58)}


@dataclass(frozen=True, slots=True)
class Token:
    """A token: `mint` is its identity, `symbol` what people call it, `decimals` the base units' power of ten."""

    symbol: str
    mint: Mint
    decimals: int


def parse_amount(text: str, token: Token) -> BaseUnits:
    """Return `text`, a decimal number of whole tokens, in base units, exactly.

    Raise InvalidAmount if it is not a plain positive decimal, has more digits than the token, or exceeds a u64.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise InvalidAmount(
            "amount must be a positive decimal number such as 1.5, without sign or exponent;"
            ' send a very small one as a string: "0.0000001"'
        )
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    if len(fraction) > token.decimals:
        raise InvalidAmount(f"amount has more than {token.decimals} decimals, which is all that {token.symbol} has")
    amount = int(whole + fraction.ljust(token.decimals, "0"))
    if amount == 0:
        raise InvalidAmount("amount must be greater than zero")
    if amount > U64_MAX:
        raise InvalidAmount("amount is larger than any account on the chain can hold (2^64 - 1 base units)")
    return amount


def format_amount(amount: BaseUnits, decimals: int) -> str:
    """Return an amount in whole tokens as an exact decimal string, without trailing zeros."""
    whole, fraction = divmod(amount, 10**decimals)
    return f"{whole}.{fraction:0{decimals}d}".rstrip("0") if fraction else str(whole)


def parse_slippage(text: str) -> Bps:
    """Return `text`, a fraction such as 0.01 for 1 %, in basis points, exactly.

    Raise InvalidSlippage if it is not a plain decimal from 0 to 0.1 in steps of 0.0001.
    """
    return parse_share(text, "slippage", SLIPPAGE_BPS_MAX)


def parse_share(text: str, name: str, most: Bps = BPS) -> Bps:
    """Return `text`, a fraction such as 0.01 for 1 %, in basis points, exactly.

    Raise InvalidSlippage, which calls it `name`, if it is not a plain decimal from 0 to `most` in steps of 0.0001.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise InvalidSlippage(
            f"{name} must be a decimal fraction from 0 to {format_share(most)}, such as 0.01 for 1 %, without sign or"
            " exponent"
        )
    fraction = (match[2] or "").rstrip("0")
    if len(fraction) > 4:
        raise InvalidSlippage(f"{name} is finer than 0.0001, one basis point")
    share_bps = int(match[1]) * BPS + int(fraction.ljust(4, "0"))
    if share_bps > most:
        raise InvalidSlippage(f"{name} must be at most {format_share(most)}, which is {most / 100:g} %")
    return share_bps


def format_share(share_bps: Bps) -> str:
    """Return basis points as a fraction, exactly: 100 is 0.01."""
    return format_amount(share_bps, 4)


def format_usd(amount: MicroUsd) -> str:
    return format_amount(amount, USD_DECIMALS)


def min_out(out_amount: BaseUnits, slippage_bps: Bps) -> BaseUnits:
    """Return the least acceptable out amount for a quoted one. Rounded up, in favour of the one who trades."""
    return -(-out_amount * (BPS - slippage_bps) // BPS)


def difference_bps(amount: BaseUnits, reference: BaseUnits) -> Bps:
    """Return how much more (positive) or less `amount` is than `reference`, truncated towards zero."""
    if not reference:
        return 0
    difference = (amount - reference) * BPS
    return difference // reference if difference >= 0 else -(-difference // reference)


def order_id(now_ms: Millis, entropy: int) -> OrderId:
    """Return a new order id: `ord_` and a ULID (48 bits of time, 80 of `entropy`), so that ids sort by age."""
    return OrderId(_order_id_time(now_ms) + "".join([_CROCKFORD_PAIRS[entropy >> at & 1023] for at in _PAIR_SHIFTS]))


@lru_cache(maxsize=16)
def _order_id_time(now_ms: Millis) -> str:
    """Return the part that ids of one millisecond share."""
    return "ord_" + "".join([_CROCKFORD_PAIRS[now_ms >> at & 1023] for at in (40, 30, 20, 10, 0)])


def order_id_floor(at_ms: Millis) -> OrderId:
    """Return the smallest order id that an order created at `at_ms` can have."""
    return order_id(at_ms, 0)


def is_order_id(text: str) -> bool:
    return _ORDER_ID.fullmatch(text) is not None


def base58(data: bytes) -> str:
    """Return `data` in base58 with Bitcoin's alphabet, as Solana writes keys and signatures."""
    value, pairs = int.from_bytes(data), list[str]()
    while value:  # ten digits at a time: most of the work is then on numbers that fit a machine word
        value, part = divmod(value, 58**10)
        for _ in range(5):
            part, pair = divmod(part, 3364)
            pairs.append(_BASE58_PAIRS[pair])
    digits = "".join(reversed(pairs)).lstrip("1")
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def parse_mint(text: str) -> Mint:
    """Return `text` as a mint address. Raise UnknownToken if it is not the base58 form of 32 bytes."""
    address_bytes(text)
    return Mint(text)


@lru_cache(maxsize=4096)
def address_bytes(text: str) -> bytes:
    """Return the 32 bytes that base58 text stands for. Raise UnknownToken if it is not the base58 form of 32 bytes."""
    value = 0
    for letter in text[:45]:
        if letter not in _BASE58_VALUE:
            raise UnknownToken(f"{text[:64]!r} is neither a known symbol nor a mint address")
        value = value * 58 + _BASE58_VALUE[letter]
    leading = len(text) - len(text.lstrip("1"))
    length = (value.bit_length() + 7) // 8
    if len(text) > 44 or leading + length != 32:
        raise UnknownToken(f"{text[:64]!r} is neither a known symbol nor a mint address")
    return value.to_bytes(32)


def parse_client_order_id(text: str) -> str:
    """Return `text` if it can serve as a client order id: 1 to 128 visible ASCII characters."""
    if not (0 < len(text) <= 128 and text.isascii() and text.isprintable() and " " not in text):
        raise InvalidOrder("clientOrderId must be 1 to 128 visible ASCII characters", field="clientOrderId")
    return text
