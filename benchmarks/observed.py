"""What metrics and logs cost: the same orders through the same engine, with both off, and as they are by default.

    python -m benchmarks.observed [--orders N] [--repeats N]

In turns. With both on, the metrics are also scraped once a second; how long a scrape takes is told, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.engine import ROOT, BenchFailed, Plan, engine, run_load, say
from benchmarks.load import Counted

WAYS: Final = {
    "off": {"FILLWRIGHT_METRICS": "off", "LOG_LEVEL": "error"},
    "on": {"FILLWRIGHT_METRICS": "on", "LOG_LEVEL": "info"},
}


class Scraper(threading.Thread):
    """Asks for the metrics once a second, and notes how long each answer took."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.took_ms: list[float] = []
        self.last = ""
        self._url = f"{url}/metrics"
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(1):
            started = time.perf_counter()
            with urllib.request.urlopen(self._url) as answer:
                self.last = answer.read().decode()
            self.took_ms.append((time.perf_counter() - started) * 1000)

    def stop(self) -> None:
        self._done.set()
        self.join()


def most_lag_s(text: str) -> str:
    """Return the bound that the event loop's lag was never above, as the metrics tell it."""
    buckets = [line for line in text.splitlines() if line.startswith("fillwright_loop_lag_seconds_bucket")]
    most = buckets[-1].rpartition(" ")[2] if buckets else ""
    return next((line.partition('le="')[2].partition('"')[0] for line in buckets if line.endswith(f" {most}")), "?")


def measure(plan: Plan) -> tuple[dict[str, list[float]], list[float], list[str]]:
    """Return the orders per second of each way, how long scrapes took, and the most that the loop was late."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    took_ms, lags = list[float](), list[str]()
    for _ in range(plan.repeats):
        for name, chosen in WAYS.items():

            def prepare(environment: dict[str, str], _: str, chosen: dict[str, str] = chosen) -> None:
                environment.update(chosen)

            with engine(plan, prepare) as server:
                scraper = Scraper(server.url) if name == "on" else None
                if scraper is not None:
                    scraper.start()
                load, _, _ = run_load(server, "count", Counted, plan)
                if scraper is not None:
                    scraper.stop()
                    took_ms += scraper.took_ms
                    lags.append(most_lag_s(scraper.last))
            rates[name].append(load.orders_per_s)
    return rates, took_ms, lags


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observed", description="Measure what watching costs.")
    parser.add_argument("--orders", type=int, default=10_000, help="how many to confirm in each turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-observed.json", help="where the JSON goes")
    given = parser.parse_args(arguments)
    plan = Plan(orders=given.orders, repeats=given.repeats, seconds=0, warm_up_s=0, concurrency=100)
    try:
        rates, took_ms, lags = measure(plan)
    except BenchFailed as error:
        say(f"the measurement failed: {error}")
        return 1
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"metrics and logs {name:3} {median:7,.0f} orders/s  {median / medians['off']:.3f} of off")
    print(f"a scrape at full load: median {statistics.median(took_ms):.1f} ms, longest {max(took_ms):.1f} ms")
    print(f"the event loop was never late by more than (s): {', '.join(lags)}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    document = {"medians": medians, "rates": rates, "scrape_ms": took_ms, "lag_s": lags}
    given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
