"""How much of an order to swap in which pool.

A pool pays less for each further unit. So the best split is found as water finds its level: pour the order out in
parts, each into the pool that pays most for it, then move parts of every size from pool to pool for as long as that
pays. Where curves bend one way, of two splits the better one lies downhill all the way from the other, so that a move
of some power of two goes at least half that way. What no such move improves is then the best split but for rounding: a
pool pays whole units, less than one below its curve, and what that can hide is three units for each pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Final, TypeAlias

from fillwright.core.units import BaseUnits

Curve: TypeAlias = Callable[[BaseUnits], BaseUnits]
"""What a pool pays for an amount: 0 for 0, and also 0 where it refuses so little; -1 where it refuses so much."""

FIRST_PARTS: Final = 32
NEVER: Final = -1


def split(total: BaseUnits, curves: Sequence[Curve], most: int) -> Mapping[int, BaseUnits]:
    """Return how much to give to which curve, at most `most` of them, so that they pay most together.

    Empty if no way was found in which all of it can be swapped. Curves are asked for the same amounts again and again,
    also from one `most` to the next: give `remembering` ones.
    """
    everything = range(len(curves))
    poured = _poured(total, curves, everything)
    best = max(everything, key=lambda index: (curves[index](total), -index))
    chosen = sorted(everything, key=lambda index: (index != best, -poured.get(index, 0)))[:most]
    parts = _poured(total, curves, chosen)
    if not parts or _together(parts, curves) < curves[best](total):
        parts = dict.fromkeys(chosen, 0) | {best: total}
    if _together(parts, curves) < 0:
        return {}
    while True:
        before = dict(parts)
        for power in reversed(range(total.bit_length())):
            _move(parts, 1 << power, curves)
        if parts == before:
            return {index: part for index, part in parts.items() if part}


def _poured(total: BaseUnits, paid: Sequence[Curve], among: Sequence[int]) -> dict[int, BaseUnits]:
    """Give the whole out step by step, each to the pool that pays most for it. Empty if they do not take it all."""
    parts = dict.fromkeys(among, 0)
    left, step = total, max(1, total // FIRST_PARTS)
    while left:
        part = min(step, left)
        gains = {
            index: paid[index](held + part) - paid[index](held)
            for index, held in parts.items()
            if paid[index](held + part) != NEVER
        }
        if not gains:
            return {}
        parts[max(gains, key=lambda index: (gains[index], -index))] += part
        left -= part
    return parts


def _move(parts: dict[int, BaseUnits], step: BaseUnits, paid: Sequence[Curve]) -> None:
    """Move steps from one pool to another for as long as that pays."""
    for giver, taker in permutations(parts, 2):
        while parts[giver] >= step:
            less, more = paid[giver](parts[giver] - step), paid[taker](parts[taker] + step)
            now = paid[giver](parts[giver]) + paid[taker](parts[taker])
            if NEVER in (less, more) or less + more <= now:
                break
            parts[giver] -= step
            parts[taker] += step


def _together(parts: Mapping[int, BaseUnits], paid: Sequence[Curve]) -> BaseUnits:
    return sum(paid[index](part) for index, part in parts.items())


def remembering(curve: Curve) -> Curve:
    """Return the curve, asked only once for each amount."""
    known: dict[BaseUnits, BaseUnits] = {0: 0}

    def paid(amount: BaseUnits) -> BaseUnits:
        out = known.get(amount)
        if out is None:
            out = known[amount] = curve(amount)
        return out

    return paid
