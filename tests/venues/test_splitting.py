"""A split that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from functools import partial
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.venues.splitting import NEVER, Curve, remembering, splits


def split(total: int, curves: Sequence[Curve], most: int) -> Mapping[int, int]:
    """Return the split over as many pools as may be and pay."""
    return max(splits(total, curves, most), key=lambda parts: together(parts, curves), default={})


def pays(reserve_in: int, reserve_out: int, amount: int) -> int:
    return amount * reserve_out // (reserve_in + amount)


def together(parts: Mapping[int, int], curves: Sequence[Curve]) -> int:
    return sum(curves[index](part) for index, part in parts.items())


def may_be_missing(pools: int, total: int, curves: Sequence[Curve]) -> int:
    """Return what rounding may hide of the best split: units of what comes out, and what units of what goes in buy."""
    part = -(-total // 32)
    return (6 if pools == 2 else 11) * (1 + max(-(-curve(part) // part) for curve in curves))


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
    assert best - may_be_missing(len(pools), total, curves) <= paid <= best


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
    curves = [pool.pays for pool in pools]
    parts = dict(split(total, curves, 3))
    paid = together(parts, curves)
    with localcontext(prec=60):
        assert paid >= no_split_pays_more_than(total, pools) - may_be_missing(len(pools), total, curves)


class Asked:
    """Pools that may have a limit each, and how often they were asked for a new amount."""

    def __init__(self, pools: Sequence[Charging], limits: Sequence[int]) -> None:
        self.count = 0
        self.curves = [remembering(partial(self._pays, *each)) for each in zip(pools, limits, strict=True)]

    def _pays(self, pool: Charging, limit: int, amount: int) -> int:
        self.count += 1
        return pool.pays(amount) if amount <= limit else NEVER


UNLIMITED = 2**64


@pytest.mark.parametrize(
    ("total", "pools", "limits"),
    [
        (10**11, [Charging(10**13, 1_500 * 10**9, 2_500), Charging(3 * 10**12, 450 * 10**9, 2_500)], [UNLIMITED] * 2),
        (
            134_161_978_806,
            [
                Charging(206_014_389_862, 30_855_006_305, 400),
                Charging(63_998_712_439_224, 9_593_797_611_084, 100),
                Charging(559_147_448_224, 84_118_229_856, 400),
            ],
            [UNLIMITED] * 3,
        ),
        (
            384_863_327_501_458,
            [
                Charging(42_849_231_815_709, 255_734_065_573, 2_500),
                Charging(676_231_961_966_523, 187_066_338_869, 2_500),
                Charging(5_201_676_119, 51_995_503, 10_000),
            ],
            [1_804_869_228_956, UNLIMITED, UNLIMITED],
        ),
    ],
    ids=["two pools", "three pools", "one with a limit"],
)
def test_the_best_split_is_found_with_few_questions(total: int, pools: list[Charging], limits: list[int]) -> None:
    asked = Asked(pools, limits)
    assert split(total, asked.curves, 3)
    assert asked.count < 1_000


about_sol = st.builds(
    lambda depth, off, fee: Charging(depth, depth * 150 * (1_000 + off) // 1_000_000, fee),
    st.integers(10**10, 10**15),
    st.integers(-10, 10),
    st.sampled_from([100, 400, 2_500, 10_000]),
)
limited = st.lists(
    st.tuples(about_sol, st.one_of(st.just(UNLIMITED), st.integers(10**9, 10**13))), min_size=2, max_size=4
)


@given(limited, st.integers(10**6, 10**14))
def test_no_amount_takes_many_questions_whatever_the_pools_are(pools: list[tuple[Charging, int]], total: int) -> None:
    asked = Asked(*zip(*pools, strict=True))
    split(total, asked.curves, 3)
    assert asked.count < 3_000


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
