"""How much of an order to swap in which pool.

A pool pays less for each further unit. So the best split is found as water finds its level: give each part of the
order to the pool that pays most for it, in ever smaller parts. With curves that bend one way, a split that no move of
one unit from one pool to another improves is the best of all (a separable concave allocation: local is global). Real
curves are rounded down to whole units, which can hide the last unit or two; the search moves on in halves down to one
unit, so that nothing larger stays hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from fillwright.core.units import BaseUnits

Curve: TypeAlias = Callable[[BaseUnits], BaseUnits]
"""What a pool pays for an amount: 0 for 0, and also 0 where it refuses so little; -1 where it refuses so much."""

FIRST_PARTS: Final = 32
NEVER: Final = -1


def split(total: BaseUnits, curves: Sequence[Curve], most: int) -> Mapping[int, BaseUnits]:
    """Return how much to give to which curve, at most `most` of them, so that they pay most together.

    Empty if no way was found in which all of it can be swapped.
    """
    paid = [_remembering(curve) for curve in curves]
    step = max(1, total // FIRST_PARTS)
    parts = _poured(total, step, paid, range(len(paid)))
    chosen = sorted((index for index in parts if parts[index]), key=lambda index: -parts[index])[:most]
    if len(chosen) < len([part for part in parts.values() if part]):
        parts = _poured(total, step, paid, chosen)
    if not parts:
        return {}
    while True:
        _levelled(parts, step, paid)
        if step == 1:
            return {index: part for index, part in parts.items() if part}
        step //= 2


def _poured(total: BaseUnits, step: BaseUnits, paid: Sequence[Curve], among: Sequence[int]) -> dict[int, BaseUnits]:
    """Give the whole out step by step, each to the pool that pays most for it."""
    parts = dict.fromkeys(among, 0)
    left = total
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


def _levelled(parts: dict[int, BaseUnits], step: BaseUnits, paid: Sequence[Curve]) -> None:
    """Move steps from one pool to another for as long as that pays."""
    moving = True
    while moving:
        moving = False
        for giver in parts:
            for taker in parts:
                if giver == taker or parts[giver] < step:
                    continue
                less, more = paid[giver](parts[giver] - step), paid[taker](parts[taker] + step)
                now = paid[giver](parts[giver]) + paid[taker](parts[taker])
                if less != NEVER and more != NEVER and less + more > now:
                    parts[giver] -= step
                    parts[taker] += step
                    moving = True


def _remembering(curve: Curve) -> Curve:
    known: dict[BaseUnits, BaseUnits] = {0: 0}

    def paid(amount: BaseUnits) -> BaseUnits:
        if amount not in known:
            known[amount] = curve(amount)
        return known[amount]

    return paid
