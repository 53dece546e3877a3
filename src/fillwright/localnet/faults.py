"""What goes wrong between a client and the chain, on purpose.

All of it is drawn from one generator, so that a run can be repeated from its seed. Nothing goes wrong until it is
switched on; a test, or whoever rehearses, changes the fields at any time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from solders.signature import Signature
from solders.transaction import VersionedTransaction

from fillwright.core.units import Millis

ALL: Final = "*"


class Fault(Enum):
    """What happens to one call."""

    LOST = "lost"  # no answer ever comes
    RESET = "reset"  # the connection breaks
    TOO_MANY = "429"
    GATEWAY_TIMEOUT = "504"
    UNHEALTHY = "unhealthy"  # the node says that it is behind


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the calls of a method, from 0 to 1: the sum of those `before`, and of those `after`, is at most 1.

    A fault before means that nothing was executed, one after that it was. `slow` is the share of answers that take from
    `slow_ms_min` to `slow_ms_max` longer.
    """

    before: Mapping[Fault, float] = field(default_factory=dict)
    after: Mapping[Fault, float] = field(default_factory=dict)
    slow: float = 0.0
    slow_ms_min: Millis = 500
    slow_ms_max: Millis = 5_000


@dataclass(frozen=True, slots=True)
class NewsRates:
    """Shares of the notifications over WebSocket that are lost, come late, or come twice."""

    lost: float = 0.0
    late: float = 0.0
    repeated: float = 0.0
    late_ms_max: Millis = 5_000


LandingMix = Sequence[tuple[float, tuple[int, int] | None]]

CAMPAIGN: Final[LandingMix] = (
    (0.25, None),
    (0.25, (1, 1)),
    (0.35, (2, 149)),
    (0.15, (140, 209)),  # near or past the end of the blockhash: the chain decides
)
"""Shares of transactions, and after how many blocks they land; None: never."""


class Faults:
    """The switches. Rates are by method, or by `ALL` for every method that has none of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.rates: dict[str, Rates] = {}
        self.news = NewsRates()
        self.landing: LandingMix = ()
        self.hidden_rate = 0.0
        self.hidden_blocks: tuple[int, int] = (1, 25)
        self.dark_until_ms: dict[str, Millis] = {}
        self.calls: Counter[str] = Counter()
        self._random = random.Random(f"faults {seed}")

    def clear(self) -> None:
        """Switch everything off. The generator goes on where it is."""
        self.rates, self.news, self.landing = {}, NewsRates(), ()
        self.hidden_rate = 0.0
        self.dark_until_ms = {}

    def is_dark(self, endpoint: str, now_ms: Millis) -> bool:
        """Whether an endpoint, or all of them, cannot be reached for now."""
        return now_ms < max(self.dark_until_ms.get(endpoint, 0), self.dark_until_ms.get(ALL, 0))

    def before(self, method: str) -> Fault | None:
        """Count a call, and return what keeps it from being executed."""
        self.calls[method] += 1
        return self._draw(self._rates(method).before)

    def after(self, method: str) -> Fault | None:
        """Return what keeps the answer from arriving."""
        return self._draw(self._rates(method).after)

    def delay_ms(self, method: str) -> Millis:
        rates = self._rates(method)
        if not rates.slow or self._random.random() >= rates.slow:
            return 0
        return self._random.randint(rates.slow_ms_min, rates.slow_ms_max)

    def landing_delay(self, _: VersionedTransaction) -> int | None:
        """Return after how many blocks a transaction lands: the chain's `landing`."""
        if not self.landing:
            return 1
        (span,) = self._random.choices([span for _, span in self.landing], [share for share, _ in self.landing])
        return self._random.randint(*span) if span else None

    def status_lag(self, _: Signature) -> int:
        """Return for how many blocks a landed signature stays unknown: the chain's `status_lag`."""
        if not self.hidden_rate or self._random.random() >= self.hidden_rate:
            return 0
        return self._random.randint(*self.hidden_blocks)

    def deliveries_ms(self) -> list[Millis]:
        """Return after how long each copy of a notification goes out; empty if it is lost."""
        if self.news == NewsRates():
            return [0]
        if self._random.random() < self.news.lost:
            return []
        first = self._random.randint(1, self.news.late_ms_max) if self._random.random() < self.news.late else 0
        return [first, first] if self._random.random() < self.news.repeated else [first]

    def _rates(self, method: str) -> Rates:
        return self.rates.get(method) or self.rates.get(ALL) or Rates()

    def _draw(self, shares: Mapping[Fault, float]) -> Fault | None:
        if not shares:
            return None
        at = self._random.random()
        for fault, share in shares.items():
            if at < share:
                return fault
            at -= share
        return None
