"""`python -m tests.simulation [--seeds N] [--seed0 S] [--store memory|sqlite|both] [--planted NAME|all]`"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tests.simulation.planted import PLANTED
from tests.simulation.runs import STORES, Caught, catch, run_seeds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulate the engine by seeds.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many (1,000)")
    parser.add_argument("--seed0", type=int, default=0, help="the first (0)")
    parser.add_argument("--store", choices=[*STORES, "both"], default="both", help="both: by turns")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")
    parser.add_argument("--planted", choices=[*PLANTED, "all"], help="look for a planted mistake instead")
    parser.add_argument("--json", type=Path, help="where the report goes, too")
    options = parser.parse_args()
    if options.planted is not None:
        names = list(PLANTED) if options.planted == "all" else [options.planted]
        caught = {name: catch(name, options.seed0) for name in names}
        for name, found in caught.items():
            print(f"{name:40} {_told(found)}")
        _write(options.json, {name: found is not None for name, found in caught.items()})
        sys.exit(0 if all(caught.values()) else 1)
    result = run_seeds(range(options.seed0, options.seed0 + options.seeds), options.store, options.workers)
    for outcome in result.failed[:5]:
        print("\n".join(outcome.story))
        print(*outcome.findings, sep="\n")
        print(f"again: python -m tests.simulation --seeds 1 --seed0 {outcome.seed} --store {outcome.store}\n")
    faults = ", ".join(f"{count:,} {kind}" for kind, count in result.faults.most_common())
    print(f"{result.seeds:,} seeds, {len(result.failed)} failed; {result.orders:,} orders, faults: {faults}")
    print(f"trace {result.digest}")
    _write(
        options.json,
        {
            "seeds": result.seeds,
            "seed0": options.seed0,
            "failed": len(result.failed),
            "orders": result.orders,
            "faults": dict(result.faults),
            "trace": result.digest,
        },
    )
    sys.exit(1 if result.failed else 0)


def _told(found: Caught | None) -> str:
    return "MISSED" if found is None else f"caught by seed {found.seed} ({found.store}): {found.finding[:120]}"


def _write(path: Path | None, report: object) -> None:
    if path is not None:
        path.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
