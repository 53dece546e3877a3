"""What keys and limits cost: the same orders through the same engine, without them and with them, in turns.

    python -m benchmarks.guarded [--orders N] [--repeats N]

Without: nobody is asked for a key, and there are no limits. With: every POST bears a key, and everybody, the account
and the key each have limits on the worth and amount of an order and of a day, on tokens, slippage and open orders. With
the market: on price impact and price deviation, too, for which each order is also quoted before it is accepted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.engine import ROOT, BenchFailed, Plan, engine, run_load, say
from benchmarks.load import Counted

LIMITS: Final = (
    *(
        "--order-usd",
        "1000000",
        "--day-usd",
        "1000000000",
        "--order-amount",
        "SOL=10000",
        "--day-amount",
        "SOL=10000000",
    ),
    *("--tokens", "SOL,USDC,RAY", "--slippage", "0.05", "--open-orders", "100000"),
)
MARKET: Final = ("--price-impact", "0.5", "--price-deviation", "0.5")
WAYS: Final = {"without": None, "with": LIMITS, "with the market": (*LIMITS, *MARKET)}


def guard(environment: Mapping[str, str], folder: str, limits: Sequence[str]) -> str:
    """Make a key, and set the limits of everybody, its account and itself. Return the key."""

    def fillwright(*arguments: str) -> str:
        command = [sys.executable, "-m", "fillwright", *arguments]
        done = subprocess.run(command, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchFailed(f"fillwright {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    made = json.loads(fillwright("keys", "create", "bench", "--scopes", "read,trade,admin", "--json"))
    for whose in ((), ("--account", made["account"]), ("--key", made["keyId"])):
        fillwright("limits", "set", *whose, *limits)
    return str(made["key"])


def measure(plan: Plan) -> dict[str, list[float]]:
    """Return the orders per second of each way, one value for each turn."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(plan.repeats):
        for name, limits in WAYS.items():
            key = ""

            def prepare(environment: dict[str, str], folder: str, limits: Sequence[str] | None = limits) -> None:
                nonlocal key
                key = guard(environment, folder, limits) if limits else ""

            with engine(plan, prepare) as server:
                load, _, _ = run_load(server, "count", Counted, plan, *(["--key", key] if key else []))
            rates[name].append(load.orders_per_s)
    return rates


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guarded", description="Measure what guards cost.")
    parser.add_argument("--orders", type=int, default=10_000, help="how many to confirm in each turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-guarded.json", help="where the JSON goes")
    given = parser.parse_args(arguments)
    plan = Plan(orders=given.orders, repeats=given.repeats, seconds=0, warm_up_s=0, concurrency=100)
    try:
        rates = measure(plan)
    except BenchFailed as error:
        say(f"the measurement failed: {error}")
        return 1
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{name:16} {median:7,.0f} orders/s  {median / medians['without']:.3f} of without")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"medians": medians, "rates": rates}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
