"""Powers in fixed point: near the true power, never above it, and refused where the programs refuse."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fillwright.core.errors import InvalidPool
from fillwright.venues.fixed_point import EXPONENT_BITS, ONE, U128_MAX, pow_q64


def test_the_power_of_zero_is_one_whatever_the_base() -> None:
    assert [pow_q64(base, 0) for base in (0, 1, ONE, U128_MAX)] == [ONE] * 4


@settings(deadline=None)
@given(st.integers(ONE // 10 * 9, ONE - 1), st.integers(1, 100))
def test_a_power_of_a_share_is_rounded_down_and_by_less_than_one_in_a_billion(base: int, exponent: int) -> None:
    true = Fraction(base, ONE) ** exponent * ONE
    assert true * (1 - Fraction(1, 10**9)) - 1 <= pow_q64(base, exponent) <= true


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(-500, 500))
def test_a_power_of_a_bin_step_is_the_true_price_within_one_in_a_billion(bin_step: int, exponent: int) -> None:
    true = (1 + Fraction(bin_step, 10_000)) ** exponent * ONE
    assert abs(pow_q64(ONE + bin_step * ONE // 10_000, exponent) - true) <= true / 10**9 + 1


@pytest.mark.parametrize("exponent", [2**EXPONENT_BITS, -(2**EXPONENT_BITS), 10**30])
def test_an_exponent_of_more_bits_than_the_programs_read_is_refused(exponent: int) -> None:
    with pytest.raises(InvalidPool):
        pow_q64(ONE + 1, exponent)


@pytest.mark.parametrize(("base", "exponent"), [(0, 1), (0, -1), (ONE // 2, 65), (ONE * 3, 100), (ONE * 3, -100)])
def test_a_power_that_vanishes_is_refused(base: int, exponent: int) -> None:
    with pytest.raises(InvalidPool):
        pow_q64(base, exponent)
