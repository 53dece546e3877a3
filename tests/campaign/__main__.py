"""`python -m tests.campaign --store sqlite|postgres [--short] [--orders N] [--faults N] [--seed S]`"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Final

from tests.campaign.campaign import run
from tests.campaign.engine import CHAINS

LONG: Final = (10_800, 500)  # orders, of which a few expire before they are taken or are over a limit, and faults
SHORT: Final = (1_040, 60)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Kill real processes.")
    parser.add_argument("--store", choices=["sqlite", "postgres"], required=True)
    parser.add_argument("--short", action="store_true", help="1,000 orders and 60 faults")
    parser.add_argument("--orders", type=int, help="how many (10,000)")
    parser.add_argument("--faults", type=int, help="at least so many (500)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--planted", choices=[*CHAINS], default="", help="a mistake, which must be found")
    parser.add_argument("--json", type=Path, help="where the report goes, too")
    options = parser.parse_args()
    orders, faults = SHORT if options.short else LONG
    print(f"seed {options.seed}")
    report = asyncio.run(
        run(options.store, options.orders or orders, options.faults or faults, options.seed, options.planted)
    )
    for failure in report.failures[:20]:
        print(failure)
    print(json.dumps(report.as_json() | {"failures": len(report.failures)}, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json()))
    sys.exit(0 if report.passed else 1)


if __name__ == "__main__":
    main()
