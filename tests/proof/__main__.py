"""Run the whole proof and print a table: `python -m tests.proof [--short] [--only NAME ...] [--seed N]`.

Each part is a command of its own, so that one that breaks breaks alone; two run at a time. What they report is in
build/proof.json. The process ends with 1 if any part did not pass.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

Json = dict[str, Any]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
KILL_S: Final = 1_500  # a part that takes longer hangs


@dataclass(frozen=True, slots=True)
class Part:
    """A command, in its long and its short form. `lane`: parts of one lane run one after another."""

    name: str
    module: str
    long: tuple[str, ...]
    short: tuple[str, ...] | None
    lane: int


PARTS: Final = (
    Part("sqlite", "tests.campaign", ("--store", "sqlite"), ("--store", "sqlite", "--short"), 0),
    Part("postgres", "tests.campaign", ("--store", "postgres"), ("--store", "postgres", "--short"), 0),
    Part("pressure", "tests.pressure", (), ("--short",), 0),
    Part("simulation", "tests.simulation", ("--seeds", "10000", "--workers", "1"), ("--seeds", "500"), 1),
    Part("planted", "tests.simulation", ("--planted", "all"), ("--planted", "all"), 1),
    Part("hostile", "tests.hostile", (), ("--short",), 1),
    Part("mutation", "tests.mutation", (), None, 0),
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a part ended: what it reports, what it printed, and its exit code."""

    part: Part
    report: Any
    said: str
    code: int
    seconds: float


async def run_part(part: Part, arguments: Sequence[str], seed: int) -> Ended:
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", part.module, *arguments, "--json", str(out)]
        if part.name != "mutation":
            command += ["--seed0" if part.module == "tests.simulation" else "--seed", str(seed)]
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), KILL_S)
        except TimeoutError:
            process.kill()
            said, _ = await process.communicate()
            said += f"\nended after {KILL_S} s: it hung\n".encode()
        report = json.loads(out.read_text()) if out.exists() else None
        assert process.returncode is not None
        return Ended(part, report, said.decode(errors="replace"), process.returncode, time.monotonic() - started)


async def run_all(parts: Sequence[Part], short: bool, seed: int, screen: Console) -> list[Ended]:
    ended: list[Ended] = []

    async def run_lane(lane: Sequence[Part]) -> None:
        for part in lane:
            arguments = part.short if short else part.long
            if arguments is None:
                continue
            done = await run_part(part, arguments, seed)
            verdict = "passed" if done.code == 0 and done.report is not None else "FAILED"
            screen.print(f"{part.name}: {verdict} in {done.seconds:.0f} s")
            if verdict == "FAILED":
                screen.print(done.said, soft_wrap=True)
            ended.append(done)

    lanes = sorted({part.lane for part in parts})
    await asyncio.gather(*(run_lane([part for part in parts if part.lane == lane]) for lane in lanes))
    return sorted(ended, key=lambda done: PARTS.index(done.part))


def gather(ended: Sequence[Ended], short: bool, seed: int) -> Json:
    """Return the report of the whole proof."""
    campaigns: list[Json] = []
    result: Json = {
        "passed": all(done.code == 0 and done.report is not None for done in ended),
        "form": "short" if short else "long",
        "seed": seed,
        "seconds": {done.part.name: round(done.seconds, 1) for done in ended},
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "campaigns": campaigns,
    }
    for done in ended:
        match done.part.name:
            case "simulation" | "planted" | "mutation":
                result[done.part.name] = done.report
            case _ if done.report is not None:
                campaigns += done.report if isinstance(done.report, list) else [done.report]
    return result


def show(result: Json, screen: Console) -> None:
    columns = ("orders", "faults", "lost", "doubled", "misreported", "gaps", "drain_s")
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("campaign")
    grid.add_column("store")
    for name in columns:
        grid.add_column(name, justify="right")
    for report in result["campaigns"]:
        cells = [f"{report[name]:.1f}" if name == "drain_s" else f"{report[name]:,}" for name in columns]
        grid.add_row(report["campaign"], report["store"], *cells, style="" if report["passed"] else "red")
    screen.print(grid)
    if simulation := result.get("simulation"):
        screen.print(f"Simulation: {simulation['seeds']:,} seeds, {simulation['failed']} failed.")
    if planted := result.get("planted"):
        missed = [name for name, caught in planted.items() if not caught]
        screen.print(f"Planted mistakes: {len(planted) - len(missed)} of {len(planted)} caught.", *missed)
    if mutation := result.get("mutation"):
        screen.print(f"Mutants of the core: {mutation['killed']} of {mutation['mutants']} killed.")
    screen.print("Everything passed." if result["passed"] else "NOT everything passed.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description="Run the whole proof.")
    parser.add_argument("--short", action="store_true", help="the form that `make test` runs")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="only these parts")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what faults are drawn from; printed")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "proof.json", help="where the report goes")
    options = parser.parse_args()
    screen = Console(highlight=False)
    screen.print(f"Seed {options.seed}.")
    parts = [part for part in PARTS if options.only is None or part.name in options.only]
    result = gather(asyncio.run(run_all(parts, options.short, options.seed, screen)), options.short, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    show(result, screen)
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
