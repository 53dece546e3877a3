"""Which accounts of a pool hold anything, as a program writes it down: one bit each, on one line."""

from __future__ import annotations

from collections.abc import Iterator


def set_bits(bits: int, at: int, downwards: bool) -> Iterator[int]:
    """Yield the numbers of the bits that are set, nearest first, beginning with bit `at` itself."""
    if downwards:
        bits &= (2 << at) - 1
        while bits:
            at = bits.bit_length() - 1
            yield at
            bits ^= 1 << at
    else:
        bits >>= at
        while bits:
            ahead = (bits & -bits).bit_length()  # 1 for the bit at hand
            at += ahead
            yield at - 1
            bits >>= ahead
