"""Measure the engine as its user starts it: `python -m fillwright serve` on SQLite, with a simulated market.

    python -m benchmarks.engine [--quick]

Each measurement has an engine of its own with an empty data folder, and a load client (`load.py`) in a third process.
The market answers at once and the rate limit is off, so that what remains is the engine: HTTP, the durable log, the
worker, the streams. The commits are real: the data folder is on a disk, and SQLite waits for it.

Engine and client share the machine, as they would on a small one, so read the figures together with the line below
the table: how much of a core the client took, and how much went to anything else. If that is not near zero, the
figures are too low.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import platform
import resource
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from benchmarks.load import Counted, Rated, Report, Saturated, Streamed

R = TypeVar("R", bound=Report)

ROOT: Final = Path(__file__).resolve().parent.parent
START_S_MAX: Final = 20
STOP_S_MAX: Final = 20
IDLE_S: Final = 2  # after so long without an order, the engine counts as idle
OURS: Final = ("FILLWRIGHT_", "HOST", "PORT", "DATABASE_URL", "QUEUE_", "LOG_LEVEL")


class BenchFailed(Exception):
    """A measurement did not come about; the message says why."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table. `limit` is the target: at least so much of a rate (1/s), less than it of all else."""

    name: str
    unit: str
    meaning: str
    limit: float | None = None
    aim: float | None = None

    def target(self) -> str:
        if self.limit is None:
            return ""
        aim = f" (aim {self.aim:g})" if self.aim is not None else ""
        return f"{'>=' if self.unit == '1/s' else '<'} {self.limit:g}{aim}"

    def verdict(self, value: float | None) -> str:
        if self.limit is None or value is None:
            return ""
        return "met" if (value >= self.limit if self.unit == "1/s" else value < self.limit) else "MISSED"


MEASURES: Final = (
    Measure("orders_per_s", "1/s", "orders posted, executed and confirmed, 64 connections", 2000, aim=3000),
    Measure("post_per_s", "1/s", "POSTs answered while the workers work, 64 connections"),
    Measure("post_p50_ms", "ms", "POST to its answer, 300/s, from when it was due"),
    Measure("post_p99_ms", "ms", "the same, slowest of a hundred", 15),
    Measure("stream_p50_ms", "ms", "event to its arrival on a WebSocket, 100 orders/s"),
    Measure("stream_p99_ms", "ms", "the same, slowest of a hundred", 10),
    Measure("cpu_ms_per_order", "ms", "the engine's CPU for one confirmed order"),
    Measure("rss_idle_mb", "MB", f"memory {IDLE_S} s after the start", 99),
    Measure("rss_max_mb", "MB", "the most memory while confirming the orders"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    orders: int
    repeats: int
    seconds: float
    warm_up_s: float
    concurrency: int


@dataclass(slots=True)
class Results:
    """`values` and `repeats` are by the names in MEASURES; a value that this system cannot tell is None.

    `cpu` tells how many cores the client, the engine and everything else took, by what was being measured.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    repeats: dict[str, list[float | None]] = field(default_factory=dict)
    cpu: dict[str, Cores] = field(default_factory=dict)
    loads: dict[str, Report] = field(default_factory=dict)


def measure(plan: Plan) -> Results:
    """Take every measurement in turn. Raise BenchFailed where one fails."""
    results = Results()
    measure_orders(plan, results)
    with engine(plan) as server:
        saturated, results.cpu["post_per_s"], _ = run_load(server, "saturate", Saturated, plan)
        results.values["post_per_s"] = saturated.post_per_s
    with engine(plan) as server:
        rated, results.cpu["post_ms"], _ = run_load(server, "rate", Rated, plan, "--rate", "300")
        results.values |= {"post_p50_ms": rated.post_p50_ms, "post_p99_ms": rated.post_p99_ms}
    with engine(plan) as server:
        streamed, results.cpu["stream_ms"], _ = run_load(server, "stream", Streamed, plan, "--rate", "100")
        results.values |= {"stream_p50_ms": streamed.stream_p50_ms, "stream_p99_ms": streamed.stream_p99_ms}
    results.loads |= {"post_per_s": saturated, "post_ms": rated, "stream_ms": streamed}
    return results


def measure_orders(plan: Plan, results: Results) -> None:
    """Run the same number of orders through an empty engine, several times; the medians count.

    The engine's CPU and memory are those of these runs: a fixed amount of work from an empty start.
    """
    runs: list[dict[str, float | None]] = []
    cores: list[Cores] = []
    for number in range(plan.repeats):
        with engine(plan) as server:
            if number == 0:
                time.sleep(max(0.0, server.started + IDLE_S - time.monotonic()))
                results.values["rss_idle_mb"] = server.memory_mb("VmRSS")
            load, used, cpu_s = run_load(server, "count", Counted, plan)
            rss_max_mb = server.memory_mb("VmHWM")
        cpu_s = cpu_s if cpu_s is not None else server.lifetime_cpu_s
        cpu_ms = cpu_s * 1000 / load.orders
        runs.append({"orders_per_s": load.orders_per_s, "cpu_ms_per_order": cpu_ms, "rss_max_mb": rss_max_mb})
        cores.append(used)
    for name in runs[0]:
        values = results.repeats[name] = [run[name] for run in runs]
        known = [value for value in values if value is not None]
        results.values[name] = (max(known) if name == "rss_max_mb" else statistics.median(known)) if known else None
    results.cpu["orders_per_s"] = Cores.mean(cores)


# The engine under measurement


@dataclass(slots=True)
class Server:
    """A running engine. `lifetime_cpu_s`, its start included, is known once it has ended, on every system."""

    process: subprocess.Popen[bytes]
    url: str
    started: float
    lifetime_cpu_s: float = 0.0

    def cpu_s(self) -> float | None:
        """Return the CPU time used so far, None where there is no /proc."""
        text = read_proc(f"{self.process.pid}/stat")
        if text is None:
            return None
        fields = text.rpartition(")")[2].split()  # the second field is the command and may contain spaces
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, name: str) -> float | None:
        """Return a line of /proc/<pid>/status in megabytes, None where there is no /proc."""
        text = read_proc(f"{self.process.pid}/status")
        if text is None:
            return None
        kilobytes = text.partition(f"{name}:")[2].split(maxsplit=1)[0]
        return int(kilobytes) / 1024


@contextlib.contextmanager
def engine(plan: Plan, prepare: Callable[[dict[str, str], str], None] = lambda *_: None) -> Iterator[Server]:
    """Start an engine on a free port with an empty data folder; end it and remove the folder.

    `prepare` is called before the start, with the engine's environment, which it may change, and folder.
    It starts in that folder, so that it reads no `.env` of ours. What it logs, warnings and worse, is shown.
    """
    with tempfile.TemporaryDirectory(prefix="fillwright-bench-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment |= {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DATABASE_URL": f"sqlite:///{folder}/bench.db",
            "QUEUE_RATE_LIMIT": "0",
            "QUEUE_CONCURRENCY": str(plan.concurrency),
            "FILLWRIGHT_SIM_SPEED": "0",
            "LOG_LEVEL": "warning",
        }
        prepare(environment, folder)
        log = Path(folder, "engine.log")
        with log.open("wb") as output:
            started = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "fillwright", "serve"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = Server(process, f"http://127.0.0.1:{port}", started)
        try:
            wait_until_healthy(server)
            yield server
            if process.poll() is not None:
                raise BenchFailed(f"the engine ended by itself with status {process.returncode}")
        finally:
            server.lifetime_cpu_s = stop(process)
            show_log(log.read_text(errors="replace"))


def wait_until_healthy(server: Server) -> None:
    while server.process.poll() is None and time.monotonic() < server.started + START_S_MAX:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=1)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass  # not yet listening
        finally:
            connection.close()
        time.sleep(0.02)
    raise BenchFailed(f"the engine did not become healthy; its exit status is {server.process.poll()}")


def stop(process: subprocess.Popen[bytes]) -> float:
    """End the process. Return its CPU time: that of the only child which ends meanwhile."""
    before = children_cpu_s()
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        say(f"the engine did not stop within {STOP_S_MAX} s and was killed")
        process.kill()
        process.wait()
    return children_cpu_s() - before


def show_log(text: str) -> None:
    lines = [line for line in text.splitlines() if '"level":"info"' not in line]
    if lines:
        say(f"the engine logged {len(lines)} lines at warning or above:")
        for line in lines[:40]:
            say(f"  {line}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# The load and what it costs


@dataclass(frozen=True, slots=True)
class Cores:
    """How many cores were busy: with the client, the engine, anything else."""

    client: float
    engine: float | None
    elsewhere: float | None

    @classmethod
    def mean(cls, all_of_them: Sequence[Cores]) -> Cores:
        def mean(values: Sequence[float | None]) -> float | None:
            known = [value for value in values if value is not None]
            return statistics.fmean(known) if known else None

        return cls(
            statistics.fmean(cores.client for cores in all_of_them),
            mean([cores.engine for cores in all_of_them]),
            mean([cores.elsewhere for cores in all_of_them]),
        )


def run_load(server: Server, mode: str, kind: type[R], plan: Plan, *arguments: str) -> tuple[R, Cores, float | None]:
    """Run the load client. Return its report, who used the CPU, and the engine's CPU seconds."""
    say(f"{mode} ...", end=" ")
    command = [sys.executable, "-m", "benchmarks.load", mode, "--url", server.url]
    command += ["--orders", str(plan.orders), "--seconds", str(plan.seconds), "--warm-up-s", str(plan.warm_up_s)]
    start, engine_before = time.monotonic(), server.cpu_s()
    client_before, all_before = children_cpu_s(), machine_cpu_s()
    client = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - start
    if client.returncode != 0:
        say("failed")
        raise BenchFailed(client.stderr.strip() or f"the load client ended with status {client.returncode}")
    report = msgspec.json.decode(client.stdout, type=kind)
    say(", ".join(f"{name} {value:.6g}" for name, value in asdict(report).items()))
    engine_after, all_after = server.cpu_s(), machine_cpu_s()
    engine_s = None if engine_before is None or engine_after is None else engine_after - engine_before
    elsewhere_s = None
    if engine_s is not None and all_before is not None and all_after is not None:
        elsewhere_s = max(0.0, all_after - all_before - engine_s - (children_cpu_s() - client_before))
    cores = Cores(
        report.client_cpu,
        None if engine_s is None else engine_s / wall_s,
        None if elsewhere_s is None else elsewhere_s / wall_s,
    )
    return report, cores, engine_s


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def machine_cpu_s() -> float | None:
    """Return how long the machine's cores were busy, added up, None where there is no /proc."""
    text = read_proc("stat")
    if text is None:
        return None
    user, nice, system, _idle, _iowait, *interrupts = (int(ticks) for ticks in text.splitlines()[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def read_proc(name: str) -> str | None:
    try:
        return Path("/proc", name).read_text()
    except OSError:
        return None


# The report


def show(results: Results) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)  # a log does not wrap
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for heading in ("measured", "value", "unit", "target", "", "what it is"):
        justify: JustifyMethod = "right" if heading == "value" else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "what it is")
    for row in MEASURES:
        value = results.values[row.name]
        text = "unknown" if value is None else f"{value:,.{2 if value < 100 else 0}f}"
        verdict = Text(row.verdict(value))
        verdict.stylize("bold red" if verdict.plain == "MISSED" else "green")
        table.add_row(row.name, text, row.unit, row.target(), verdict, row.meaning)
    console.print(table)
    console.print("cores busy (client / engine / elsewhere): " + "; ".join(map(" ".join, cpu_shares(results))))


def cpu_shares(results: Results) -> Iterator[tuple[str, str]]:
    for name, cores in results.cpu.items():
        shares = (cores.client, cores.engine, cores.elsewhere)
        yield name, " / ".join("?" if share is None else f"{share:.2f}" for share in shares)


def document(plan: Plan, results: Results) -> dict[str, object]:
    """Return what is written as JSON: the values by name, and beside them what they came from."""
    return {
        **{row.name: rounded(results.values[row.name]) for row in MEASURES},
        "repeats": {name: [rounded(value) for value in values] for name, values in results.repeats.items()},
        "loads": {name: rounded_all(asdict(load)) for name, load in results.loads.items()},
        "cores": {name: rounded_all(asdict(cores)) for name, cores in results.cpu.items()},
        "plan": asdict(plan),
        "machine": {
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def rounded(value: float | None) -> float | None:
    return round(value, 3) if isinstance(value, float) else value


def rounded_all(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: rounded(value) for name, value in values.items()}


# The command


def say(text: str, end: str = "\n") -> None:
    """Tell how it is going, beside the report."""
    print(text, end=end, file=sys.stderr, flush=True)


def read_arguments(arguments: Sequence[str] | None) -> tuple[Plan, Path]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description="Measure the engine.")
    parser.add_argument("--orders", type=int, help="how many to confirm (20,000)")
    parser.add_argument("--seconds", type=float, help="how long each of the other measurements takes (15)")
    parser.add_argument("--concurrency", type=int, default=100, help="how many orders the worker has in hand (100)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json", help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="2,000 orders once, 3 seconds: whether it works at all")
    given = parser.parse_args(arguments)
    plan = Plan(
        orders=given.orders or (2_000 if given.quick else 20_000),
        repeats=1 if given.quick else 3,
        seconds=given.seconds or (3 if given.quick else 15),
        warm_up_s=1 if given.quick else 2,
        concurrency=given.concurrency,
    )
    return plan, given.out


def main(arguments: Sequence[str] | None = None) -> int:
    plan, out = read_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that the engine is ended, too
    try:
        results = measure(plan)
    except BenchFailed as error:
        say(f"the measurement failed: {error}")
        return 1
    show(results)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(document(plan, results)), indent=2) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
