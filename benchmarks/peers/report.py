"""What was measured, beside each other: on the terminal, as Markdown, as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Final

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from benchmarks.engine import rounded
from benchmarks.peers.crashes import API_KILLS
from benchmarks.peers.engines import ENGINES, FILLWRIGHT, LAYOUTS, NODE
from benchmarks.peers.measuring import POST_RATES, STREAM_RATE, Plan, Values, in_hand_suffix, rate_suffix

CLIENTS: Final = "64 connections"
QUIET_CORES: Final = 0.15


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. `at_least` and `at_most` hold for the ratio of ours to the peer's, `limit` for ours.

    `over` makes one figure of those of all repeats.
    """

    name: str
    unit: str
    meaning: str
    at_least: float | None = None
    aim: float | None = None
    at_most: float | None = None
    limit: float | None = None
    over: Callable[[Sequence[float]], float] = statistics.median

    def target(self) -> str:
        if self.limit is not None:
            return f"<= {self.limit:g} {self.unit}".rstrip()
        if self.at_least is not None:
            return f">= {self.at_least:g}x" + (f" (aim {self.aim:g}x)" if self.aim is not None else "")
        return "" if self.at_most is None else f"<= {self.at_most:g}x"

    def verdict(self, ours: float | None, ratio: float | None) -> str:
        if self.limit is not None:
            return "" if ours is None else met(ours <= self.limit)
        if ratio is None or not self.target():
            return ""
        return met(ratio >= self.at_least if self.at_least is not None else ratio <= (self.at_most or 0))


def met(holds: bool) -> str:
    return "met" if holds else "MISSED"


def rows(plan: Plan) -> Iterator[Row]:
    for concurrency in sorted(plan.concurrency, reverse=True):
        suffix = in_hand_suffix(plan, concurrency)
        hand = f"{concurrency} in hand"
        yield Row(f"orders_per_s{suffix}", "1/s", f"orders confirmed, all durable; {hand}", at_least=8, aim=10)
        yield Row(f"cpu_ms_per_order{suffix}", "ms", "CPU of the engine's processes per order", at_most=0.25)
        yield Row(f"cpu_all_ms_per_order{suffix}", "ms", "the same with PostgreSQL and Redis", at_most=0.25)
    yield Row("post_per_s", "1/s", f"POSTs answered while the worker works, {CLIENTS}", at_least=3)
    for rate in POST_RATES:
        suffix = rate_suffix(rate)
        yield Row(f"post_p50_ms{suffix}", "ms", f"POST to its answer, {rate}/s, from when it was due")
        yield Row(f"post_p99_ms{suffix}", "ms", "the same, slowest of a hundred", at_most=0.5)
    yield Row("stream_p50_ms", "ms", f"event to a client with a WebSocket per order, {STREAM_RATE} orders/s")
    yield Row("stream_p99_ms", "ms", "the same, slowest of a hundred")
    yield Row("order_p50_ms", "ms", "POST until its WebSocket says confirmed, in the same run")
    yield Row("order_p99_ms", "ms", "the same, slowest of a hundred")
    yield Row(
        "firehose_per_s", "1/s", f"events that reached 10 sockets following all orders, {CLIENTS} post", at_least=1
    )
    yield Row("firehose_p50_ms", "ms", "event to the first of these sockets", at_most=1)
    yield Row("firehose_p99_ms", "ms", "the same, slowest of a hundred", at_most=1)
    yield Row("rss_idle_mb", "MB", "memory of all processes before the first order", at_most=1)
    yield Row("rss_max_mb", "MB", "the most memory of all processes while confirming the orders", at_most=1, over=max)
    yield Row("kill_recovery_s", "s", "kill -9 of the worker until all it had in hand is over", limit=6, over=max)
    yield Row("kill_doubled", "", "swaps made twice by then, all repeats", limit=0, over=sum)
    yield Row("kill_lost", "", "accepted orders that are gone, all repeats", limit=0, over=sum)
    yield Row("kill_stuck", "", "orders never over, all repeats", limit=0, over=sum)
    yield Row("kill_failed", "", "orders that failed for it, all repeats", limit=0, over=sum)
    yield Row(
        "kill_api_doubled",
        "",
        f"{API_KILLS} times kill -9 of the API while posting: swaps made twice, all repeats",
        limit=0,
        over=sum,
    )
    yield Row("kill_api_lost", "", "accepted orders that are gone, all repeats", limit=0, over=sum)
    yield Row("kill_api_stuck", "", "orders never over, all repeats", limit=0, over=sum)


@dataclass(slots=True)
class Results:
    """By engine and layout: `repeats`, then by the names of `rows`; `cores`, then by measurement."""

    repeats: dict[tuple[str, str], dict[str, list[float | None]]] = field(default_factory=dict)
    cores: dict[tuple[str, str], dict[str, list[Values]]] = field(default_factory=dict)

    def add(self, engine: str, layout: str, measurement: str, values: Values, cores: Values) -> None:
        repeats = self.repeats.setdefault((engine, layout), {})
        for name, value in values.items():
            repeats.setdefault(name, []).append(value)
        if cores:
            self.cores.setdefault((engine, layout), {}).setdefault(measurement, []).append(cores)

    def value(self, engine: str, layout: str, row: Row) -> float | None:
        known = [value for value in self.repeats.get((engine, layout), {}).get(row.name, []) if value is not None]
        return row.over(known) if known else None

    def best_layout(self, engine: str) -> str:
        """Return the layout that confirms most orders."""
        speed = Row("orders_per_s", "1/s", "")
        layouts = [layout for layout in LAYOUTS if (engine, layout) in self.repeats]
        return max(layouts, key=lambda layout: self.value(engine, layout, speed) or 0, default=LAYOUTS[0])

    def figures(self, plan: Plan, engine: str, layout: str) -> dict[str, float]:
        """Return the engine's figures in a layout. Kills are measured in one layout, and count for each."""
        figures: dict[str, float] = {}
        for row in rows(plan):
            sources = LAYOUTS if row.name.startswith("kill") else (layout,)
            known = [value for source in sources if (value := self.value(engine, source, row)) is not None]
            if known:
                figures[row.name] = known[0]
        return figures


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours in one layout beside the peer in one."""

    plan: Plan
    results: Results
    layouts: dict[str, str]

    @classmethod
    def of_the_best(cls, plan: Plan, results: Results) -> Comparison:
        return cls(plan, results, {engine.name: results.best_layout(engine.name) for engine in ENGINES})

    @classmethod
    def like_with_like(cls, plan: Plan, results: Results) -> Iterator[Comparison]:
        for layout in LAYOUTS:
            if all((engine.name, layout) in results.repeats for engine in ENGINES):
                yield cls(plan, results, {engine.name: layout for engine in ENGINES})

    def figures(self, engine: str) -> dict[str, float]:
        return self.results.figures(self.plan, engine, self.layouts[engine])

    def ratios(self) -> dict[str, float]:
        ours, peers = self.figures(FILLWRIGHT.name), self.figures(NODE.name)
        return {name: ours[name] / peers[name] for name in ours if peers.get(name)}

    def lines(self) -> Iterator[Line]:
        ours, peers, ratios = self.figures(FILLWRIGHT.name), self.figures(NODE.name), self.ratios()
        for row in rows(self.plan):
            if row.name in ours or row.name in peers:
                yield Line(row, ours.get(row.name), peers.get(row.name), ratios.get(row.name))

    def title(self) -> str:
        return " beside ".join(f"{name} in {processes(layout)}" for name, layout in self.layouts.items())

    def document(self) -> dict[str, object]:
        figures = {engine.name: rounded_all(self.figures(engine.name)) for engine in ENGINES}
        return {**figures, "ratio": rounded_all(self.ratios()), "layouts": self.layouts}


@dataclass(frozen=True, slots=True)
class Line:
    row: Row
    ours: float | None
    peers: float | None
    ratio: float | None

    def cells(self) -> tuple[str, ...]:
        """Return name, unit, ours, the peer's, ratio, target, verdict, meaning."""
        row = self.row
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}x"
        values = written(self.ours), written(self.peers), ratio
        return row.name, row.unit, *values, row.target(), row.verdict(self.ours, self.ratio), row.meaning


HEADINGS: Final = ("measured", "unit", FILLWRIGHT.name, NODE.name, "ratio", "target", "", "what it is")
NUMBERS: Final = frozenset(HEADINGS[2:5])


def processes(layout: str) -> str:
    return f"{layout} process{'es' if layout == 'two' else ''}"


def written(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.{3 if value < 1 else 2 if value < 100 else 0}f}"


def rounded_all(values: dict[str, float]) -> dict[str, float | None]:
    return {name: rounded(value) for name, value in values.items()}


# The terminal


def show(plan: Plan, results: Results) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)  # a log does not wrap
    best = Comparison.of_the_best(plan, results)
    for comparison in (best, *Comparison.like_with_like(plan, results)):
        if comparison is not best and comparison.layouts == best.layouts:
            continue
        table = Table(title=comparison.title(), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in HEADINGS:
            justify: JustifyMethod = "right" if heading in NUMBERS else "left"
            table.add_column(heading, justify=justify, no_wrap=heading != "what it is")
        for line in comparison.lines():
            table.add_row(*(Text(cell, style=VERDICTS.get(cell, "")) for cell in line.cells()))
        console.print(table)
    for subject, measured in busy_cores(results):
        console.print(f"cores busy, {subject}: {measured}")
    for warning in disturbance(results):
        console.print(warning, style="bold red")


VERDICTS: Final = {"met": "green", "MISSED": "bold red"}


def busy_cores(results: Results) -> Iterator[tuple[str, str]]:
    """Yield engine and layout, and who took how many cores in each measurement."""
    for (engine, layout), measurements in results.cores.items():
        for measurement, repeats in measurements.items():
            means = {name: mean([cores[name] for cores in repeats]) for name in repeats[0]}
            shares = ", ".join(f"{name} {'?' if share is None else f'{share:.2f}'}" for name, share in means.items())
            yield f"{engine} ({processes(layout)}), {measurement}", shares


def disturbance(results: Results) -> Iterator[str]:
    """Yield a sentence if others than the engines and their client were at work, too."""
    means = {
        f"{measurement}, {engine}": mean([cores["elsewhere"] for cores in repeats])
        for (engine, _), measurements in results.cores.items()
        for measurement, repeats in measurements.items()
    }
    where, most = max(((where, share or 0) for where, share in means.items()), key=itemgetter(1), default=("", 0))
    if most > QUIET_CORES:
        yield f"The machine was not quiet: others took {most:.2f} cores ({where}). The figures are too low, and uneven."


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


# Markdown


HOW: Final = """\
Both engines ran in turn in one run, on the same PostgreSQL (`synchronous_commit` and `fsync` on) and the same Redis
(append-only file, synced every second), each measurement on an empty database and an empty Redis, with processes of
its own. Medians of {repeats}; memory and recovery are the worst, and losses are added up. Quotes and swaps take no
time and the rate limit is off, except under `kill -9` of a worker.

- The load client is the same, takes 15 to 40 us of CPU per POST, and runs on the same cores: the last table says
  how much of a core it took.
- `orders_per_s` ends when the database says that all orders are confirmed. The client looks when half of the estimated
  rest is over, so that a run takes a few dozen looks, whatever a look costs an engine. Fillwright has then five events
  per order in its log, and the reference a row, updated four times; its events are not kept.
- CPU is that of all processes of an engine, PostgreSQL with its backends (also those that ended), and Redis.
- An event's age is from the time that it bears. Fillwright's bears the time at which it was decided, in milliseconds,
  cut, so it includes the commit and up to a millisecond too much; the reference's bears the time, in microseconds, at
  which it is published, after the commit. `order_p50_ms` depends on neither.
- The simulated chain of Fillwright writes a record to a file. The reference's swap does so only under `kill -9`.
"""


def markdown(plan: Plan, results: Results, machine: dict[str, object]) -> str:
    best = Comparison.of_the_best(plan, results)
    parts = [
        "# Fillwright beside Node",
        HOW.format(repeats=plan.repeats),
        "Machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
        *disturbance(results),
        f"## The better layout of each: {best.title()}",
        markdown_table(HEADINGS, (line.cells() for line in best.lines())),
    ]
    for comparison in Comparison.like_with_like(plan, results):
        parts.append(f"## Like with like: {comparison.title()}")
        parts.append(markdown_table(HEADINGS, (line.cells() for line in comparison.lines())))
    parts.append("## Cores busy")
    parts.append(markdown_table(("engine and measurement", "cores"), busy_cores(results)))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def markdown_table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    under = ["---:" if heading in NUMBERS else "---" for heading in headings]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, under, *lines))


# JSON


def document(plan: Plan, results: Results, machine: dict[str, object]) -> dict[str, object]:
    """Return what is written as JSON: each engine's figures by name in its better layout, and what they came from."""
    return {
        **Comparison.of_the_best(plan, results).document(),
        "like_with_like": {
            comparison.layouts[NODE.name]: comparison.document()
            for comparison in Comparison.like_with_like(plan, results)
        },
        "repeats": {" ".join(subject): values for subject, values in results.repeats.items()},
        "cores": {" ".join(subject): values for subject, values in results.cores.items()},
        "plan": asdict(plan),
        "machine": machine,
    }


def machine(node: str, postgres: str, redis: str) -> dict[str, object]:
    return {
        "cpu_count": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "node": node,
        "postgres": postgres,
        "redis": redis,
    }
