"""The price of a tick, and what a range of prices holds.

A tick is a price: number t stands for 1.0001^t of token 1 for one of token 0. The program keeps the square root of a
price, times 2^64 ("X64"), since along a range of constant liquidity L both tokens are then simple: between the square
roots lo and hi lie L·(hi − lo) of token 1 and L·(1/lo − 1/hi) of token 0.

Source: `get_sqrt_price_at_tick` of the program's `tick_math`, `get_delta_amount_0_unsigned`,
`get_delta_amount_1_unsigned` and `get_next_sqrt_price_from_input`; every rounding is theirs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from fillwright.core.units import BaseUnits
from fillwright.venues.pool import up

Q64: Final = 2**64
TICK_MAX: Final = 443_636  # and the least is its negative
SQRT_PRICE_MIN: Final = 4_295_048_016
SQRT_PRICE_MAX: Final = 79_226_673_521_066_979_257_578_248_091

# 1.0001^(−2^k / 2) as X64, for k = 0…18: one factor for each bit of a tick.
_FACTORS: Final = (
    0xFFFCB933BD6FB800, 0xFFF97272373D4000, 0xFFF2E50F5F657000, 0xFFE5CACA7E10F000, 0xFFCB9843D60F7000,
    0xFF973B41FA98E800, 0xFF2EA16466C9B000, 0xFE5DEE046A9A3800, 0xFCBE86C7900BB000, 0xF987A7253AC65800,
    0xF3392B0822BB6000, 0xE7159475A2CAF000, 0xD097F3BDFD2F2000, 0xA9F746462D9F8000, 0x70D869A156F31C00,
    0x31BE135F97ED3200, 0x9AA508B5B85A500, 0x5D6AF8DEDC582C, 0x2216E584F5FA,
)  # fmt: skip


@lru_cache(maxsize=65_536)
def sqrt_price_at(tick: int) -> int:
    """Return the square root of the tick's price, X64. `tick` is within ±TICK_MAX."""
    ratio, bits = Q64, abs(tick)
    for factor in _FACTORS:
        if bits & 1:
            ratio = ratio * factor >> 64
        bits >>= 1
    return (2**128 - 1) // ratio if tick > 0 else ratio


def amount_in(sqrt_price: int, target: int, liquidity: int) -> BaseUnits:
    """Return what moves the price to `target`, rounded up: token 0 if that lies below, token 1 if above."""
    if target < sqrt_price:
        return up(liquidity * (sqrt_price - target) << 64, sqrt_price * target)
    return (liquidity * (target - sqrt_price) + Q64 - 1) >> 64


def amount_out(sqrt_price: int, target: int, liquidity: int) -> BaseUnits:
    """Return what is paid while the price moves to `target`, rounded down: token 1 if that lies below, else token 0."""
    if target < sqrt_price:
        return liquidity * (sqrt_price - target) >> 64
    return (liquidity * (target - sqrt_price) << 64) // (target * sqrt_price)


def sqrt_price_after(sqrt_price: int, liquidity: int, amount: BaseUnits, a_to_b: bool) -> int:
    """Return the price's square root after `amount` came in, rounded so that less is paid. `liquidity` is not 0."""
    if a_to_b:
        scaled = liquidity << 64
        return up(scaled * sqrt_price, scaled + amount * sqrt_price)
    return sqrt_price + (amount << 64) // liquidity
