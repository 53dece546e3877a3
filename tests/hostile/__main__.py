"""Attack an engine with everything there is.

    python -m tests.hostile [--short] [--examples N] [--frames N] [--seed S] [--json FILE]

The long form takes ten minutes, nearly all of them to think the examples up; the short one takes one. A failure names
the request; the same seed makes the same examples and frames.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tests.hostile.campaign import run


def main() -> int:
    """Run the campaign, print its table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description="Attack an engine over its API.")
    parser.add_argument("--short", action="store_true", help="a few hundred examples, a thousand frames")
    parser.add_argument("--examples", type=int, help="requests of schemathesis, about (20,000)")
    parser.add_argument("--frames", type=int, help="WebSocket frames (10,000)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="any number; drawn if not given")
    parser.add_argument("--json", type=Path, help="also write the report here")
    chosen = parser.parse_args()
    examples = chosen.examples or (400 if chosen.short else 20_000)
    frames = chosen.frames or (1_000 if chosen.short else 10_000)
    console = Console()
    console.print(f"seed {chosen.seed}")
    report = asyncio.run(run(examples, frames, chosen.seed))
    table = Table("hostile input", "", box=box.SIMPLE)
    for name, figure in report.more.items():
        table.add_row(name.replace("_", " "), f"{figure:,}" if isinstance(figure, (int, float)) else str(figure))
    table.add_row("failures", f"{len(report.failures):,}")
    console.print(table)
    for failure in report.failures[:50]:
        console.print(failure, markup=False, highlight=False)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    if not report.passed:
        console.print(f"again: python -m tests.hostile --examples {examples} --frames {frames} --seed {chosen.seed}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
