"""Many seeds, over several processes; and how many it takes to find a planted mistake."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import structlog

from tests.simulation.planted import PLANTED
from tests.simulation.world import Outcome, simulate

STORES: Final = ("memory", "sqlite")
SEEDS_TO_CATCH: Final = 100


@dataclass(slots=True)
class Result:
    """`digest` is that of every trace, in the order of the seeds."""

    seeds: int = 0
    orders: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Caught:
    """The first seed that showed a planted mistake, and as what."""

    seed: int
    store: str
    finding: str


def run_seeds(seeds: Sequence[int], store: str = "both", workers: int = 1) -> Result:
    """Run a scenario for each seed; with `both`, every other one on SQLite."""
    jobs = [(seed, STORES[seed % 2] if store == "both" else store) for seed in seeds]
    if workers == 1:
        _be_quiet()
        return _sum(map(_run, jobs))
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_be_quiet) as pool:
        return _sum(pool.imap(_run, jobs, chunksize=20))


def catch(name: str, seed0: int = 0) -> Caught | None:
    """Return how a planted mistake was found, None if it was not."""
    _be_quiet()
    planted = PLANTED[name]
    for seed in range(seed0, seed0 + SEEDS_TO_CATCH):
        store = "sqlite" if planted.needs_sql else STORES[seed % 2]
        outcome = simulate(seed, store, planted)
        if outcome.findings:
            return Caught(seed, store, outcome.findings[0])
    return None


def _run(job: tuple[int, str]) -> Outcome:
    return simulate(*job)


def _sum(outcomes: Iterable[Outcome]) -> Result:
    result, digest = Result(), blake2b(digest_size=16)
    for outcome in outcomes:
        result.seeds += 1
        result.orders += outcome.orders
        result.faults += outcome.faults
        digest.update(outcome.digest.encode())
        if outcome.findings:
            result.failed.append(outcome)
    result.digest = digest.hexdigest()
    return result


def _be_quiet() -> None:
    structlog.configure(processors=[_drop])


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent
