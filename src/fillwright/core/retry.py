"""What follows a failed attempt: another one, later, or the end. A pure function; the waiting is a `due_at_ms`."""

from __future__ import annotations

from dataclasses import dataclass

from fillwright.core.errors import ExecutionError, Failure
from fillwright.core.lifecycle import AttemptFailed, Failed
from fillwright.core.order import Order
from fillwright.core.units import Millis


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts_max` attempts; before the n-th, `delay_ms` times 2^(n-2), at most `delay_ms_max`, plus jitter.

    Jitter only adds, up to `jitter_pct` percent of the delay: it spreads the retries of orders that failed together.
    """

    attempts_max: int = 3
    delay_ms: Millis = 1_000
    delay_ms_max: Millis = 60_000
    jitter_pct: int = 10

    def after(self, order: Order, error: ExecutionError, now_ms: Millis, chance: float) -> AttemptFailed | Failed:
        """Return the event for an attempt that is proven to have no effect. `chance`, in [0, 1), draws the jitter."""
        failure = Failure.of(error)
        if not error.retryable or order.attempt >= self.attempts_max:
            return Failed(order.attempt, failure)
        delay_ms = min(self.delay_ms_max, self.delay_ms * 2 ** (order.attempt - 1))
        jitter_ms = int(delay_ms * self.jitter_pct / 100 * chance)
        return AttemptFailed(order.attempt, failure, now_ms + delay_ms + jitter_ms)
