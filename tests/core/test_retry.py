"""What follows a failed attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fillwright.core.errors import ExecutionError, Failure, NoRoute, PairNotListed, TransactionReverted
from fillwright.core.lifecycle import AttemptFailed, Failed
from fillwright.core.retry import RetryPolicy
from tests.builders import some_order


def after(attempt: int, error: ExecutionError, policy: RetryPolicy, chance: float = 0.0) -> AttemptFailed | Failed:
    return policy.after(replace(some_order(), attempt=attempt), error, 10_000, chance)


@pytest.mark.parametrize(("attempt", "delay_ms"), [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000), (7, 60_000)])
def test_the_delay_doubles_from_attempt_to_attempt_up_to_its_bound(attempt: int, delay_ms: int) -> None:
    event = after(attempt, NoRoute("nobody"), RetryPolicy(attempts_max=10))
    assert isinstance(event, AttemptFailed)
    assert event.retry_at_ms == 10_000 + delay_ms


def test_jitter_only_adds_and_is_bounded() -> None:
    event = after(1, NoRoute("nobody"), RetryPolicy(), chance=0.999999)
    assert isinstance(event, AttemptFailed)
    assert 11_000 <= event.retry_at_ms <= 11_100


def test_jitter_is_that_share_of_the_delay_which_chance_draws() -> None:
    event = after(2, NoRoute("nobody"), RetryPolicy(jitter_pct=50), chance=0.5)
    assert event == AttemptFailed(2, Failure("no_route", "nobody"), 10_000 + 2_000 + 500)


def test_the_last_attempt_fails_the_order_at_once_with_its_reason() -> None:
    event = after(3, TransactionReverted("custom error 6000"), RetryPolicy(attempts_max=3))
    assert isinstance(event, Failed)
    assert (event.attempt, event.failure.code, event.failure.message) == (
        3,
        "transaction_reverted",
        "custom error 6000",
    )


def test_there_are_three_attempts_unless_told_otherwise() -> None:
    assert isinstance(after(2, NoRoute("nobody"), RetryPolicy()), AttemptFailed)
    assert isinstance(after(3, NoRoute("nobody"), RetryPolicy()), Failed)


def test_an_error_that_another_attempt_cannot_mend_fails_the_order_at_once() -> None:
    assert isinstance(after(1, PairNotListed("no pool"), RetryPolicy()), Failed)
