"""Measure Fillwright beside the Node reference, in turn, on the same PostgreSQL and Redis.

    python -m benchmarks.peers [--quick]

Both engines, both layouts (API and worker in two processes, or all in one), all measurements, three times: half an
hour. The tables also go to `build/bench-peers.md`, and the figures with what they came from to
`build/bench-peers.json`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from tests.servers import ServerMissingError, StartFailedError, postgres, redis

from benchmarks.engine import ROOT, BenchFailed, say
from benchmarks.peers import crashes, measuring, node
from benchmarks.peers.engines import ENGINES, LAYOUTS, Backing, running
from benchmarks.peers.measuring import Measurement, Plan
from benchmarks.peers.report import Results, document, machine, markdown, show

GROUPS: Final = ("orders", "post", "stream", "kill")


@dataclass(frozen=True, slots=True)
class Choice:
    """What to measure: which groups of measurements, and each engine in which layouts."""

    groups: frozenset[str]
    layouts: dict[str, tuple[str, ...]]

    def measurements(self, plan: Plan) -> list[Measurement]:
        every = (*measuring.measurements(plan), *crashes.measurements())
        return [measurement for measurement in every if measurement.group in self.groups]


def measure(plan: Plan, choice: Choice, backing: Backing, results: Results) -> None:
    """Take every measurement of both engines, one right after the other, as often as planned."""
    for repeat in range(plan.repeats):
        for measurement in choice.measurements(plan):
            for layout in measurement.layouts:
                for engine in ENGINES:
                    if layout not in choice.layouts[engine.name]:
                        continue
                    say(f"{repeat + 1}/{plan.repeats} {measurement.name}, {engine.name} ({layout}) ...", end=" ")
                    with running(engine, layout, measurement.conditions, backing) as run:
                        values, cores = measurement.take(run, plan)
                    say(", ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None))
                    results.add(engine.name, layout, measurement.name, values, cores)


def read_arguments(arguments: Sequence[str] | None) -> tuple[Plan, Choice, Path]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="all in small and once: whether it works at all")
    parser.add_argument("--only", type=names(GROUPS), default=GROUPS, help=f"which of {','.join(GROUPS)}")
    parser.add_argument("--orders", type=int, help="how many to confirm (20,000)")
    parser.add_argument("--seconds", type=float, help="how long each of the other measurements takes (10)")
    parser.add_argument("--repeats", type=int, help="how often all is measured (3)")
    parser.add_argument("--concurrency", type=numbers, default=(10, 100), help="orders in hand at a time (10,100)")
    for engine in ENGINES:
        parser.add_argument(f"--{engine.name}", type=names(LAYOUTS), help=f"{engine.name}'s layouts (two,one)")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="the folder for bench-peers.md and .json")
    given = parser.parse_args(arguments)
    quick = given.quick
    plan = Plan(
        orders=given.orders or (2_000 if quick else 20_000),
        seconds=given.seconds or (3 if quick else 10),
        warm_up_s=1 if quick else 2,
        repeats=given.repeats or (1 if quick else 3),
        concurrency=given.concurrency,
        kill_orders=300 if quick else 1_000,
    )
    layouts = ("two",) if quick else LAYOUTS
    by_engine = {engine.name: getattr(given, engine.name) or layouts for engine in ENGINES}
    return plan, Choice(frozenset(given.only), by_engine), given.out


def names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return given

    return read


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    plan, choice, out = read_arguments(arguments)
    results = Results()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that what was started is ended, too
    try:
        node_version = node.install()
        # No checkpoint falls into one run and not into another: there is one before each, and none by itself.
        with postgres(checkpoint_timeout="1h", max_wal_size="16GB") as postgres_server, redis() as redis_server:
            backing = Backing(postgres_server, redis_server)
            about = machine(node_version, **backing.versions())
            measure(plan, choice, backing, results)
    except (BenchFailed, ServerMissingError, StartFailedError) as error:
        say(f"\nthe measurement failed: {error}")
        if results.repeats:
            show(plan, results)
        return 1
    show(plan, results)
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench-peers.md").write_text(markdown(plan, results, about))
    figures = msgspec.json.encode(document(plan, results, about))
    (out / "bench-peers.json").write_bytes(msgspec.json.format(figures, indent=2) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
