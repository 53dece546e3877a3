"""How much of an order to swap in which pool.

A pool pays less for each further unit. So the best split is found as water finds its level: pour the order out in
parts, each into the pool that pays most for it, then let every two of the pools find their level by transfers of powers
of two, until none moves.

**No other split among the same pools pays more by eight times what rounding hides, or by four times if they are two.**
What a pool pays is a curve that bends downwards, less what rounding hides: part of a unit of what comes out, and what a
unit more of the fee, which is rounded up, would have bought. A transfer is judged by four readings of which two count
against it, so that one which was not seen to gain gains less than twice what is hidden.

- A better split is reached by as many transfers as there are pools, less one. As curves bend, these gain no more
  together than each alone from here. One that gains, gains at least half of it at the greatest power of two within it.
  So it is enough that no transfer of a power of two gains.
- The gain of a transfer bends downwards as well, and starts from nothing. So if one loses for sure, which is if it was
  seen to lose at least twice what is hidden, then all larger ones do.
- For the same reason, if one was seen to lose no more than that, those the other way of half its size and less gain
  less than twice what is hidden.

So two pools that are level show it at the one size where a transfer begins to lose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, TypeAlias

from fillwright.core.units import BaseUnits

Curve: TypeAlias = Callable[[BaseUnits], BaseUnits]
"""What a pool pays for an amount: 0 for 0, and also 0 where it refuses so little; -1 where it refuses so much."""

FIRST_PARTS: Final = 32
NEVER: Final = -1


def splits(total: BaseUnits, curves: Sequence[Curve], most: int) -> Iterator[Mapping[int, BaseUnits]]:
    """Yield how much to give to which curve, at most two, three, ... of them, so that they pay most together.

    It ends where fewer are used than may be, or no way is found in which all of it can be swapped. Curves are asked for
    the same amounts again and again: give `remembering` ones.
    """
    everything = range(len(curves))
    poured = _poured(total, curves, everything)
    best = max(everything, key=lambda index: (curves[index](total), -index))
    ranked = sorted(everything, key=lambda index: (index != best, -poured.get(index, 0)))
    for count in range(2, min(most, len(curves)) + 1):
        chosen = ranked[:count]
        parts = dict(poured) if count == len(curves) else _poured(total, curves, chosen)
        if not parts or _together(parts, curves) < curves[best](total):
            parts = dict.fromkeys(chosen, 0) | {best: total}
        if _together(parts, curves) < 0:
            return
        found = _levelled(parts, curves, total)
        yield found
        if len(found) < count:
            return


def _levelled(parts: dict[int, BaseUnits], curves: Sequence[Curve], total: BaseUnits) -> Mapping[int, BaseUnits]:
    """Return the parts once every two pools are level."""
    hidden = 1 - -_together(parts, curves) // total
    pairs = [_Pair(each, parts, curves, hidden) for each in combinations(parts, 2)]
    while any(pair.level() for pair in pairs):
        pass
    return {index: part for index, part in parts.items() if part}


class _Pair:
    """Two pools that share what they were given. `hidden` is what rounding may hide of what one of them pays."""

    def __init__(
        self, pools: tuple[int, int], parts: dict[int, BaseUnits], curves: Sequence[Curve], hidden: BaseUnits
    ) -> None:
        self._ways = (pools, pools[::-1])
        self._parts = parts
        self._curves = curves
        self._unsure = 2 * hidden
        self._step = _power_within(sum(parts.values()) // FIRST_PARTS)

    def level(self) -> bool:
        """Transfer units from one to the other for as long as that gains. Return whether any were."""
        has_moved = are_larger_ruled_out = False
        step = self._step
        while step:
            gains = [self._gain(giver, taker, step) for giver, taker in self._ways]
            gain = max((each for each in gains if each is not None), default=None)
            if gain is not None and gain > 0:
                giver, taker = self._ways[gains.index(gain)]
                self._parts[giver] -= step
                self._parts[taker] += step
                has_moved, are_larger_ruled_out = True, False
            elif gain is not None and gain > -self._unsure and not are_larger_ruled_out:
                step *= 2
            elif self._are_smaller_ruled_out(gains):
                break
            else:
                are_larger_ruled_out = True
                step //= 2
        self._step = max(1, step)
        return has_moved

    def _gain(self, giver: int, taker: int, step: BaseUnits) -> int | None:
        """Return what a transfer was seen to gain, None if it cannot be made."""
        if self._parts[giver] < step:
            return None
        pays_less, pays_more = self._curves[giver], self._curves[taker]
        held, other = self._parts[giver], self._parts[taker]
        less, more = pays_less(held - step), pays_more(other + step)
        return None if NEVER in (less, more) else less - pays_less(held) + more - pays_more(other)

    def _are_smaller_ruled_out(self, gains: Sequence[int | None]) -> bool:
        return all(
            self._parts[giver] == 0 or (opposite is not None and opposite >= -self._unsure)
            for (giver, _), opposite in zip(self._ways, reversed(gains), strict=True)
        )


def _power_within(amount: int) -> int:
    return 1 << max(0, amount.bit_length() - 1)


def _poured(total: BaseUnits, curves: Sequence[Curve], among: Sequence[int]) -> dict[int, BaseUnits]:
    """Give the whole out step by step, each to the pool that pays most for it. Empty if they do not take it all."""
    parts = dict.fromkeys(among, 0)
    step = -(-total // FIRST_PARTS)
    for left in range(total, 0, -step):
        if left == total or left < step:
            step = min(step, left)
            gains = {index: _more(curves[index], held, step) for index, held in parts.items()}
        taker = max(gains, key=lambda index: (gains[index], -index))
        if gains[taker] == NEVER:
            return {}
        parts[taker] += step
        gains[taker] = _more(curves[taker], parts[taker], step)
    return parts


def _more(curve: Curve, held: BaseUnits, step: BaseUnits) -> BaseUnits:
    """Return what a pool pays for a step more, NEVER if it does not take so much."""
    paid = curve(held + step)
    return NEVER if paid == NEVER else paid - curve(held)


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
