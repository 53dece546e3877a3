"""How much of an order to swap in which pool.

A pool pays less for each further unit. So the best split is found as water finds its level: pour the order out in
parts, each into the pool that pays most for it, then let every two of the pools find their level by transfers of powers
of two, until none moves.

**Of two pools, no other split pays more by six times what rounding hides, and of three by eleven times.** What a pool
pays is taken for a curve that bends downwards, less what rounding hides: part of a unit of what comes out, and what a
unit more of the fee, which is rounded up, would have bought. A transfer is judged by four readings of which two count
against it, so that one which was not seen to gain gains less than twice what is hidden.

- A better split is reached by as many transfers as there are pools, less one. As curves bend, these gain no more
  together than each alone from here. One that gains, gains at least half of it at the greatest power of two within it.
  So it is enough that no transfer of a power of two gains: then the curves promise less than four times what is hidden
  for each transfer, and what is paid here hides once more in each pool.
- The gain of a transfer bends downwards as well, and starts from nothing. So if one loses for sure, which is if it was
  seen to lose at least twice what is hidden, then all larger ones do.
- For the same reason, if one was seen to lose no more than that, those the other way of half its size and less gain
  less than twice what is hidden.

So two pools that are level show it at the one size where a transfer begins to lose. Pools of many bins or ticks round
once in each that they pass, and transfer fees have an upper limit; with them the bound is wider, by as much.
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
    if min(most, len(curves)) < 2:
        return
    everything = range(len(curves))
    poured = _poured(total, curves, everything)
    best = max(everything, key=lambda index: (curves[index](total), -index))
    little = -(-total // FIRST_PARTS**2)  # those that got nothing may pay well for less than was poured at a time
    ranked = sorted(everything, key=lambda index: (index != best, -poured.get(index, 0), -curves[index](little)))
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
    """Return the parts once every two pools are level. Those that are not known to be are `uneven`."""
    unit = -(-total // FIRST_PARTS)
    hidden = 1 + max(-(-curves[index](unit) // unit) for index in parts)
    unsure = 2 * hidden
    every = list(combinations(parts, 2))
    uneven, step, is_rising = every, 1 << unit.bit_length() - 1, True
    while step and uneven:
        ways = [way for pair in uneven for way in (pair, pair[::-1])]
        gains = {way: gain for way in ways if (gain := _transfer(parts, curves, *way, step)) is not None}
        way = max(gains, key=gains.__getitem__, default=None)
        if way is not None and gains[way] > 0:
            giver, taker = way
            parts[giver] -= step
            parts[taker] += step
            uneven, step, is_rising = every, 2 * step, True
        elif way is not None and is_rising and gains[way] > -unsure:
            step *= 2
        else:
            uneven = [pair for pair in uneven if not _are_smaller_ruled_out(pair, parts, gains, unsure)]
            step, is_rising = step // 2, False
    return {index: part for index, part in parts.items() if part}


def _transfer(
    parts: Mapping[int, BaseUnits], curves: Sequence[Curve], giver: int, taker: int, step: BaseUnits
) -> int | None:
    """Return what a transfer was seen to gain, None if it cannot be made."""
    held, other = parts[giver], parts[taker]
    if held < step:
        return None
    less, more = curves[giver](held - step), curves[taker](other + step)
    return None if NEVER in (less, more) else less - curves[giver](held) + more - curves[taker](other)


def _are_smaller_ruled_out(
    pair: tuple[int, int], parts: Mapping[int, BaseUnits], gains: Mapping[tuple[int, int], int], unsure: int
) -> bool:
    """Return whether smaller transfers between two pools gain too little to be made, either way."""
    return all(parts[way[0]] == 0 or gains.get(way[::-1], -unsure - 1) >= -unsure for way in (pair, pair[::-1]))


def _poured(total: BaseUnits, curves: Sequence[Curve], among: Sequence[int]) -> dict[int, BaseUnits]:
    """Give the whole out step by step, each to the pool that pays most for it. Empty if they do not take it all."""
    parts = dict.fromkeys(among, 0)
    step = -(-total // FIRST_PARTS)
    for left in range(total, 0, -step):
        if left == total or left < step:
            step = min(step, left)
            gains = {index: _gain(curves[index], held, step) for index, held in parts.items()}
        taker, gain = max(gains.items(), key=lambda each: (each[1] is not None, each[1] or 0, -each[0]))
        if gain is None:
            return {}
        parts[taker] += step
        gains[taker] = _gain(curves[taker], parts[taker], step)
    return parts


def _gain(curve: Curve, held: BaseUnits, step: BaseUnits) -> BaseUnits | None:
    """Return what a pool pays for a step more, None if it does not take so much."""
    paid = curve(held + step)
    return None if paid == NEVER else paid - curve(held)


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
