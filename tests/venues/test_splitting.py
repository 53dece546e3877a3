"""A split that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from functools import partial
from itertools import product
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from fillwright.venues.splitting import NEVER, Curve, splits


def split(total: int, curves: Sequence[Curve], most: int) -> Mapping[int, int]:
    """Return the split over as many pools as may be and pay."""
    return max(splits(total, curves, most), key=lambda parts: together(parts, curves), default={})


def pays(reserve_in: int, reserve_out: int, amount: int) -> int:
    return amount * reserve_out // (reserve_in + amount)


def together(parts: Mapping[int, int], curves: Sequence[Curve]) -> int:
    return sum(curves[index](part) for index, part in parts.items())


def may_be_missing(pools: int, total: int, paid: int) -> int:
    """Return what rounding may hide of the best split: units of what comes out, and what units of what goes in buy."""
    return (4 if pools == 2 else 8) * (1 + -(-paid // total))


reserves = st.tuples(st.integers(1, 10**6), st.integers(1, 10**6))


@given(st.lists(reserves, min_size=2, max_size=3), st.integers(1, 40))
def test_a_split_pays_what_the_best_of_all_splits_pays_but_for_what_rounding_hides(
    pools: list[tuple[int, int]], total: int
) -> None:
    curves: list[Curve] = [partial(pays, *pool) for pool in pools]
    parts = dict(split(total, curves, 3))
    assert sum(parts.values()) == total
    ways = (way for way in product(range(total + 1), repeat=len(pools)) if sum(way) == total)
    best = max(together(dict(enumerate(way)), curves) for way in ways)
    paid = together(parts, curves)
    assert best - may_be_missing(len(pools), total, paid) <= paid <= best


class Charging(NamedTuple):
    """A pool of a constant product that keeps millionths of what goes in, rounded up."""

    reserve_in: int
    reserve_out: int
    fee: int

    def pays(self, amount: int) -> int:
        return pays(self.reserve_in, self.reserve_out, amount + -amount * self.fee // 1_000_000)

    def most_at(self, price: Decimal) -> Decimal:
        """Return the most that a swap of any size pays in excess of the price of what goes in."""
        kept = 1 - Decimal(self.fee) / 1_000_000
        excess = Decimal(self.reserve_out).sqrt() - (price * self.reserve_in / kept).sqrt()
        return max(excess, Decimal(0)) ** 2


def no_split_pays_more_than(total: int, pools: Sequence[Charging]) -> Decimal:
    """Return a bound by duality: at whatever price, each pool takes what pays most in excess of it."""

    def bound(price: Decimal) -> Decimal:
        return sum((pool.most_at(price) for pool in pools), start=price * total)

    low, high = Decimal(0), max(Decimal(pool.reserve_out) / pool.reserve_in for pool in pools)
    for _ in range(200):  # the bound is convex in the price
        third = (high - low) / 3
        low, high = (low, high - third) if bound(low + third) <= bound(high - third) else (low + third, high)
    return bound(low)


charging = st.builds(Charging, st.integers(10**6, 10**15), st.integers(10**6, 10**15), st.integers(0, 30_000))


@given(st.lists(charging, min_size=2, max_size=3), st.integers(10**3, 10**13))
def test_no_split_of_a_large_amount_pays_more_than_rounding_hides(pools: list[Charging], total: int) -> None:
    parts = dict(split(total, [pool.pays for pool in pools], 3))
    paid = together(parts, [pool.pays for pool in pools])
    with localcontext(prec=60):
        assert paid >= no_split_pays_more_than(total, pools) - may_be_missing(len(pools), total, paid)


def test_pools_that_are_level_are_found_to_be_so_with_few_questions() -> None:
    pools = [Charging(10**13, 1_500 * 10**9, 2_500), Charging(3 * 10**12, 450 * 10**9, 2_500)]
    asked: set[tuple[int, int]] = set()

    def asking(index: int) -> Curve:
        def curve(amount: int) -> int:
            asked.add((index, amount))
            return pools[index].pays(amount)

        return curve

    parts = split(10**11, [asking(0), asking(1)], 2)
    assert abs(parts[0] * 3 - parts[1] * 10) < 10**8
    assert len(asked) < 120


@given(st.lists(reserves, min_size=2, max_size=6), st.integers(1, 10**9), st.integers(2, 3))
def test_all_of_the_amount_goes_somewhere_and_to_no_more_pools_than_allowed(
    pools: list[tuple[int, int]], total: int, most: int
) -> None:
    curves: list[Curve] = [partial(pays, *pool) for pool in pools]
    parts = split(total, curves, most)
    assert sum(parts.values()) == total
    assert len(parts) <= most
    assert all(part > 0 for part in parts.values())


@given(st.lists(reserves, min_size=2, max_size=4), st.integers(32, 10**9))
def test_a_split_is_never_worse_than_the_best_single_pool(pools: list[tuple[int, int]], total: int) -> None:
    curves: list[Curve] = [partial(pays, *pool) for pool in pools]
    single = max(curve(total) for curve in curves)
    assert together(dict(split(total, curves, 3)), curves) >= single


def test_two_pools_that_are_alike_get_half_each() -> None:
    curve = partial(pays, 10**12, 10**12)
    assert split(2**30, [curve, curve], 3) == {0: 2**29, 1: 2**29}


def test_a_pool_that_refuses_so_much_gets_no_more_than_it_takes() -> None:
    def small(amount: int) -> int:
        return 2 * amount if amount <= 100 else NEVER

    parts = split(1_000, [small, partial(pays, 10**6, 10**6)], 3)
    assert parts == {0: 100, 1: 900}
    assert split(1_000, [small], 3) == {}
