"""Measure decoding and quoting of real pools beside the official JavaScript SDKs, on the same recorded swaps.

    python -m benchmarks.pools [--quick]

Rounds of ours and of theirs alternate; what counts is the median of the rounds after a warm-up, which V8 needs. Ours
quotes 20 times more often in a round, so that both run for about as long: the processor's caches are cold after the
other's turn. Ours remembers addresses, mints and powers from quote to quote, as it does in the engine; what it takes
when it forgets them before every pass over the swaps stands beside it. All figures are CPU time, of all threads of the
process: other work on the machine then takes little away from either. The table is Markdown, and the figures with what
they came from also go to `build/bench-pools.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.engine import ROOT, BenchFailed, say
from benchmarks.pools import sdks
from benchmarks.pools.comparing import WAYS, compare, forget
from benchmarks.pools.vectors import Case, cases
from fillwright.venues.pool_types import BY_NAME

TIMES_FASTER: Final = 20
OUR_TURNS: Final = 20  # how much more often ours quotes in a round, so that both run for about as long
QUOTE_US_MAX: Final = 5
COMPARE_US_MAX: Final = 2_000
QUOTED_ALONE: Final = ("cpmm", "damm_v2")


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    quotes: int
    comparisons: int

    def passes(self, case: Case) -> int:
        """Return how often all swaps of a case are quoted in one round."""
        return -(-self.quotes // len(case.recordings))


@dataclass(slots=True)
class Timing:
    """One figure of ours by round, in microseconds for one of what is measured."""

    cpu_us: list[float] = field(default_factory=list)
    wall_us: list[float] = field(default_factory=list)

    def add(self, took: tuple[float, float], count: int) -> None:
        self.cpu_us.append(took[0] * 1e6 / count)
        self.wall_us.append(took[1] * 1e6 / count)

    @property
    def median_us(self) -> float:
        return statistics.median(self.cpu_us)


@dataclass(slots=True)
class Beside:
    """A case, ours and theirs. `sdk_differs`: what the SDK says where that is not what was paid."""

    swaps: int
    differs: int
    sdk_differs: dict[str, str]
    ours: Timing = field(default_factory=Timing)
    forgetful: Timing = field(default_factory=Timing)
    sdk: Timing = field(default_factory=Timing)

    @property
    def ratio(self) -> float:
        return self.sdk.median_us / self.ours.median_us


@dataclass(slots=True)
class Results:
    """By name. `missing` says why an SDK gave no figure."""

    beside: dict[str, Beside] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    alone: dict[str, Timing] = field(default_factory=dict)


def measure(plan: Plan, every: Sequence[Case], peer: sdks.Sdks) -> Results:
    results = Results()
    for case in every:
        try:
            results.beside[case.name] = compared(case, peer.amounts(case.name))
        except BenchFailed as error:
            results.missing[case.name] = str(error)
    measured = [case for case in every if case.name in results.beside]
    results.alone = {f"{case.name}: quote alone": Timing() for case in measured if case.name in QUOTED_ALONE}
    results.alone |= {way.name: Timing() for way in WAYS}
    for number in range(-1, plan.rounds):
        say("warm-up ..." if number < 0 else f"round {number + 1} of {plan.rounds} ...")
        taken = (
            results
            if number >= 0
            else Results(
                {name: Beside(0, 0, {}) for name in results.beside}, {}, {name: Timing() for name in results.alone}
            )
        )
        take_round(plan, measured, peer, taken)
    return results


def take_round(plan: Plan, measured: Sequence[Case], peer: sdks.Sdks, results: Results) -> None:
    for case in measured:
        passes, beside = plan.passes(case), results.beside[case.name]
        count = passes * len(case.recordings)
        run = decode_and_quote(case)
        beside.ours.add(timed(run, OUR_TURNS * passes), OUR_TURNS * count)
        beside.forgetful.add(timed(forgetting(run), OUR_TURNS * passes), OUR_TURNS * count)
        beside.sdk.add(peer.timed(case.name, passes), count)
        if case.name in QUOTED_ALONE:
            alone = timed(quote_alone(case), OUR_TURNS * passes)
            results.alone[f"{case.name}: quote alone"].add(alone, OUR_TURNS * count)
    for way in WAYS:
        results.alone[way.name].add(asyncio.run(compare(way, plan.comparisons)), plan.comparisons)


def compared(case: Case, amounts: Sequence[str]) -> Beside:
    """Return how the amounts of both sides differ from what was paid."""
    differs = sum(case.quote(each) != each.paid for each in case.recordings)
    sdk_differs = {
        f"{number} {each.note}".strip(): f"{amount}, paid were {each.paid}"
        for number, (each, amount) in enumerate(zip(case.recordings, amounts, strict=True))
        if amount != str(each.paid)
    }
    return Beside(len(case.recordings), differs, sdk_differs)


def decode_and_quote(case: Case) -> Callable[[], None]:
    decode = BY_NAME[case.type].decode
    swaps = [
        (each.pool.address, each.pool.accounts, each.policy, each.amount, each.a_to_b, each.pool.time)
        for each in case.recordings
    ]

    def run() -> None:
        for address, accounts, policy, amount, a_to_b, at in swaps:
            decode(address, accounts, policy).quote(amount, a_to_b, at)

    return run


def forgetting(run: Callable[[], None]) -> Callable[[], None]:
    def forget_and_run() -> None:
        forget()
        run()

    return forget_and_run


def quote_alone(case: Case) -> Callable[[], None]:
    decode = BY_NAME[case.type].decode
    swaps = [
        (decode(each.pool.address, each.pool.accounts, each.policy), each.amount, each.a_to_b, each.pool.time)
        for each in case.recordings
    ]

    def run() -> None:
        for pool, amount, a_to_b, at in swaps:
            pool.quote(amount, a_to_b, at)

    return run


def timed(run: Callable[[], None], passes: int) -> tuple[float, float]:
    """Return the CPU time and the wall time in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(passes):
        run()
    return time.process_time() - cpu, time.perf_counter() - wall


# The report


def table(results: Results) -> Iterator[str]:
    yield (
        "| decode + quote of | swaps | ours, µs | nothing remembered | SDK, µs | ratio | target |"
        " | SDK's amount differs | ours differs |"
    )
    yield "|---|---:|---:|---:|---:|---:|---|---|---:|---:|"
    for name, each in results.beside.items():
        ours, theirs, ratio = each.ours.median_us, each.sdk.median_us, each.ratio
        yield (
            f"| {name} | {each.swaps} | {ours:.1f} | {each.forgetful.median_us:.1f} | {theirs:.1f} | {ratio:.1f} |"
            f" >= {TIMES_FASTER} |"
            f" {met(ratio >= TIMES_FASTER)} | {len(each.sdk_differs)} | {each.differs} |"
        )
    for name, why in results.missing.items():
        yield f"| {name} | | | | {why} | | | | | |"
    for name, timing in results.alone.items():
        limit = QUOTE_US_MAX if name.endswith("alone") else COMPARE_US_MAX
        yield f"| *{name}* | | {timing.median_us:.1f} | | | | < {limit:,} | {met(timing.median_us < limit)} | | |"


def met(holds: bool) -> str:
    return "met" if holds else "MISSED"


def document(plan: Plan, results: Results, node: str) -> dict[str, object]:
    """Return what is written as JSON: the medians by name, and beside them what they came from."""
    return {
        "ratio": {name: round(each.ratio, 2) for name, each in results.beside.items()},
        "ours_us": {name: round(each.ours.median_us, 3) for name, each in results.beside.items()},
        "forgetful_us": {name: round(each.forgetful.median_us, 3) for name, each in results.beside.items()},
        "sdk_us": {name: round(each.sdk.median_us, 3) for name, each in results.beside.items()},
        "alone_us": {name: round(timing.median_us, 3) for name, timing in results.alone.items()},
        "missing": results.missing,
        "rounds": {
            "beside": {name: asdict(each) for name, each in results.beside.items()},
            "alone": {name: asdict(timing) for name, timing in results.alone.items()},
        },
        "plan": {**asdict(plan), "our_turns": OUR_TURNS},
        "machine": {
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
            "node": node,
            "system": f"{platform.system()} {platform.machine()}",
            **sdks.versions(),
        },
    }


# The command


def read_arguments(arguments: Sequence[str] | None) -> tuple[Plan, Path]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pools", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="how often all is measured after the warm-up (5)")
    parser.add_argument("--quotes", type=int, help="how many of each kind the SDK quotes in a round, at least (2,000)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-pools.json", help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="one round of 200: whether it works at all")
    given = parser.parse_args(arguments)
    plan = Plan(
        rounds=given.rounds or (1 if given.quick else 5),
        quotes=given.quotes or (200 if given.quick else 2_000),
        comparisons=10 if given.quick else 200,
    )
    return plan, given.out


def main(arguments: Sequence[str] | None = None) -> int:
    plan, out = read_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that Node is ended, too
    try:
        node = sdks.install()
        every = cases()
        with sdks.running({case.name: case.document() for case in every}) as peer:
            results = measure(plan, every, peer)
    except BenchFailed as error:
        say(f"the measurement failed: {error}")
        return 1
    print("\n".join(table(results)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(document(plan, results, node)), indent=2) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
