"""Powers in Q64 (2^64 stands for 1), rounded as Meteora's programs round them: written a second time, see `program`."""

from __future__ import annotations

from typing import Final

ONE: Final = 2**64
_LARGEST: Final = 2**128 - 1


def power(base: int, exponent: int) -> int:
    """Return the power of a Q64 number, for exponents within 19 bits."""
    inverted = exponent < 0
    if exponent == 0:
        return ONE
    if base >= ONE:
        base, inverted = _LARGEST // base, not inverted
    result = ONE
    for bit in bin(abs(exponent))[:1:-1]:
        if bit == "1":
            result = result * base // ONE
        base = base * base // ONE
    return _LARGEST // result if inverted else result
