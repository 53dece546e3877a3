"""What is written can be read back by whoever knows the alphabet: order ids, base58, amounts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.errors import UnknownToken
from fillwright.core.units import BASE58, base58, format_amount, order_id, parse_mint

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def number_of(text: str, alphabet: str) -> int:
    value = 0
    for letter in text:
        value = value * len(alphabet) + alphabet.index(letter)
    return value


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1))
def test_an_order_id_holds_48_bits_of_time_and_80_of_entropy(now_ms: int, entropy: int) -> None:
    text = order_id(now_ms, entropy)
    assert text.startswith("ord_")
    assert number_of(text.removeprefix("ord_"), CROCKFORD) == now_ms << 80 | entropy


def test_every_bit_of_time_and_entropy_has_its_place_in_an_order_id() -> None:
    for bit in range(128):
        text = order_id((1 << bit) >> 80, (1 << bit) % 2**80)
        assert number_of(text.removeprefix("ord_"), CROCKFORD) == 1 << bit


def holds(text: str, data: bytes) -> bool:
    zeros = len(text) - len(text.lstrip("1"))
    return zeros == len(data) - len(data.lstrip(b"\0")) and number_of(text, BASE58) == int.from_bytes(data)


@given(st.binary(max_size=80))
def test_base58_holds_the_number_and_a_1_for_each_leading_zero(data: bytes) -> None:
    assert holds(base58(data), data)


def test_any_letter_of_base58_may_lead() -> None:
    assert all(holds(base58(value.to_bytes(2)), value.to_bytes(2)) for value in range(58**2))


def test_a_mint_address_is_32_bytes_not_one_more_or_less() -> None:
    for data in (b"\xff" * 32, b"\1" + b"\0" * 31, b"\0" + b"\xff" * 31, b"\0" * 31 + b"\1"):
        assert parse_mint(base58(data)) == base58(data)
    for data in (b"\1" + b"\0" * 32, b"\xff" * 31, b"\0" * 33, b"\0" + b"\xff" * 30):
        with pytest.raises(UnknownToken):
            parse_mint(base58(data))


@given(st.integers(0, 2**64 - 1), st.integers(0, 18))
def test_an_amount_is_written_without_zeros_that_say_nothing(amount: int, decimals: int) -> None:
    text = format_amount(amount, decimals)
    whole, point, fraction = text.partition(".")
    assert not (point and (not fraction or fraction.endswith("0")))
    assert whole == "0" or not whole.startswith("0")
    assert int(whole + fraction) * 10 ** (decimals - len(fraction)) == amount
