"""Try every mutant of core/: `python -m tests.mutation [--json FILE]`.

Ends with 1 if fewer than 90 % are killed or one survives for which `survivors.toml` gives no reason.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.mutation.mutants import SCORE_MIN, BrokenRun, MutationResult, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Try every mutant of core/.")
    parser.add_argument("--json", type=Path, help="write the result to this file, too")
    parser.add_argument("--children", type=int, default=2, help="how many mutants are tried at a time")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        result = run(options.children)
    except BrokenRun as broken:
        sys.exit(str(broken))
    screen = Console(markup=False, highlight=False, soft_wrap=True)
    show(result, screen)
    screen.print(f"{time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(result.as_json(), indent=1) + "\n")
    sys.exit(0 if result.passed else 1)


def show(result: MutationResult, screen: Console) -> None:
    for survivor in result.listed:
        screen.print(f"{survivor.change}\n  looked at: {survivor.reason}\n")
    for survivor in result.unlisted:
        screen.print(f"{survivor.change}\n  NOT LOOKED AT ({survivor.status})\n")
    for change in result.stale:
        screen.print(f"{change}\n  listed, but it did not survive: take it off the list\n")
    screen.print(
        f"{result.killed} of {result.mutants} mutants killed, {result.score} % (at least {SCORE_MIN:.0f} %);"
        f" {result.survived} survived, {result.timeout} ran out of time, {len(result.unlisted)} not looked at"
    )


if __name__ == "__main__":
    main()
