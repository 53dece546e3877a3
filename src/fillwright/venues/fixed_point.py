"""Powers of fixed-point numbers, as Meteora's programs compute them.

A Q64 number is an integer that stands for itself divided by 2^64. A power is built by squaring, and every product is
rounded down; so its last digits depend on the order of the steps, and a quote that is to be exact to the unit has to
take the same ones. A base above 1 is inverted first, and the result at the end, which keeps all steps within 128 bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from fillwright.core.errors import InvalidPool

ONE: Final = 2**64
U128_MAX: Final = 2**128 - 1
EXPONENT_BITS: Final = 19


@lru_cache(maxsize=4096)
def pow_q64(base: int, exponent: int) -> int:
    """Return a Q64 number's power, in Q64. Raise InvalidPool if it is too large or too small to be expressed.

    Source: the function `pow` of the DLMM and DAMM v2 programs, which fail in the same cases. `base` is a u128.
    """
    if exponent == 0:
        return ONE
    is_inverted, bits, square = exponent < 0, abs(exponent), base
    if bits >> EXPONENT_BITS:
        raise InvalidPool(f"a price or fee to the power of {exponent} is out of the program's range")
    if base >= ONE:
        square = U128_MAX // base
        is_inverted = not is_inverted
    power = ONE
    while bits and power:
        if bits & 1:
            power = power * square >> 64
        square = square * square >> 64
        bits >>= 1
    if power == 0:
        raise InvalidPool(f"a price or fee to the power of {exponent} is out of the program's range")
    return U128_MAX // power if is_inverted else power
