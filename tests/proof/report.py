"""What a campaign reports: the figures that go into build/proof.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.proof.verdict import Verdict

Json = dict[str, Any]


@dataclass(slots=True)
class Report:
    """One campaign against one store. `more` are figures of that campaign alone; `failures` say what went wrong."""

    campaign: str
    store: str
    seed: int
    orders: int = 0
    faults: int = 0
    lost: int = 0
    doubled: int = 0
    misreported: int = 0
    gaps: int = 0
    drain_s: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def take(self, verdict: Verdict) -> None:
        """Take over what the judge found."""
        self.orders, self.lost, self.doubled = verdict.orders, verdict.lost, verdict.doubled
        self.misreported, self.gaps = verdict.misreported, verdict.gaps
        self.failures += verdict.findings

    @property
    def passed(self) -> bool:
        return not (self.failures or self.lost or self.doubled or self.misreported or self.gaps)

    def as_json(self) -> Json:
        return {**asdict(self), "passed": self.passed}
