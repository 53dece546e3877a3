"""A split that no other one beats."""

from __future__ import annotations

from functools import partial
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from fillwright.venues.splitting import NEVER, Curve, split


def pays(reserve_in: int, reserve_out: int, amount: int) -> int:
    return amount * reserve_out // (reserve_in + amount)


def together(parts: dict[int, int], curves: list[Curve]) -> int:
    return sum(curves[index](part) for index, part in parts.items())


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
    assert best - 3 * len(pools) <= together(parts, curves) <= best


@given(st.lists(reserves, min_size=1, max_size=6), st.integers(1, 10**9), st.integers(1, 3))
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
    assert together(dict(split(total, curves, 3)), curves) >= single - 3 * len(pools)


def test_two_pools_that_are_alike_get_half_each() -> None:
    curve = partial(pays, 10**12, 10**12)
    assert split(2**30, [curve, curve], 3) == {0: 2**29, 1: 2**29}


def test_a_pool_that_refuses_so_much_gets_no_more_than_it_takes() -> None:
    def small(amount: int) -> int:
        return 2 * amount if amount <= 100 else NEVER

    parts = split(1_000, [small, partial(pays, 10**6, 10**6)], 3)
    assert parts == {0: 100, 1: 900}
    assert split(1_000, [small], 3) == {}
