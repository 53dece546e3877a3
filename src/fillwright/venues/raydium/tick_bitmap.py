"""Which tick arrays of a pool hold an initialised tick: one bit each, on one line of numbers.

An array holds 60 ticks, `tick_spacing` apart; number n begins at tick n · 60 · tick_spacing. The pool's account has the
bits of the arrays −512…511. Pools with narrow ticks have one account more, the bitmap extension, with 14 rows of 512
bits for the arrays above and 14 for those below. Read in the order of their arrays, all rows make a single integer, in
which the nearest array with a tick is the nearest bit that is set.

Source: the field `tick_array_bitmap` of `PoolState`, and `TickArrayBitmapExtension`.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from fillwright.venues.bitmap import set_bits

ROWS: Final = 14
SIDE_BYTES: Final = ROWS * 64
DEFAULT_BYTES: Final = 128
NUMBER_MAX: Final = 511  # the last array in the pool's own bitmap; the first is −512
_FIRST: Final = -512 * (ROWS + 1)  # the array of bit 0
_ROWS: Final = Struct("64s" * ROWS)
_NO_ROWS: Final = bytes(SIDE_BYTES)


def bits_of(default: bytes, positive: bytes = _NO_ROWS, negative: bytes = _NO_ROWS) -> int:
    """Return the bits of all arrays. Row 0 of `negative` is next to the pool's own bits, so the last of its side."""
    below = reversed(_ROWS.unpack(negative))
    return int.from_bytes(b"".join((*below, default, positive)), "little")


def arrays_from(bits: int, number: int, downwards: bool) -> Iterator[int]:
    """Return the numbers of the arrays that hold an initialised tick, nearest first, beginning with `number` itself."""
    return (bit + _FIRST for bit in set_bits(bits, number - _FIRST, downwards))
