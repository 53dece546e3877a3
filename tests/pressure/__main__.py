"""`python -m tests.pressure [--short] [--only streams burst stops keys] [--seed S]`"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

from tests.pressure.overload import run_burst, run_keys, run_stops
from tests.pressure.streams import run_streams
from tests.proof.report import Report

NAMES: Final = ("streams", "burst", "stops", "keys")


def parts(short: bool, seed: int) -> Iterator[tuple[str, str, Coroutine[Any, Any, Report]]]:
    """Yield each part: its name, its store and the run."""
    if short:
        yield "streams", "postgres", run_streams(orders=150, cuts=40, restarts=3, silent=20, seed=seed)
    else:
        yield "streams", "postgres", run_streams(orders=1_000, cuts=200, restarts=20, silent=100, seed=seed)
    for store in ("sqlite", "postgres"):
        yield "burst", store, run_burst(store, *((2_000, 300) if short else (10_000, 2_000)), seed)
        yield "stops", store, run_stops(store, 6 if short else 50, seed)
        yield "keys", store, run_keys(store, 50 if short else 1_000 if store == "postgres" else 250, 20, seed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.pressure", description="More than the engine can take.")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--store", choices=["sqlite", "postgres"])
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--json", type=Path, help="where the reports go, too")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    reports = []
    for name, store, run in parts(options.short, options.seed):
        if name not in options.only or options.store not in (None, store):
            run.close()
            continue
        report = asyncio.run(run)
        reports.append(report)
        print(f"{name} on {store}: {'passed' if report.passed else 'FAILED'} {json.dumps(report.more)}", flush=True)
        for failure in report.failures[:10]:
            print(f"  {failure[:300]}")
    if options.json is not None:
        options.json.write_text(json.dumps([report.as_json() for report in reports]))
    sys.exit(0 if all(report.passed for report in reports) else 1)


if __name__ == "__main__":
    main()
