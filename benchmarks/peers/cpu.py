"""Who used how much CPU time, from /proc: None where there is none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine import machine_cpu_s, read_proc
from benchmarks.peers.engines import Run, added_up


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds up to a moment, or, as a difference of two moments, between them. `machine` is all there was."""

    engine: float | None
    postgres: float | None
    redis: float | None
    machine: float | None

    @classmethod
    def until_now(cls, run: Run) -> Used:
        postgres, redis = tree_cpu_s(run.backing.postgres.pid), tree_cpu_s(run.backing.redis.pid)
        return cls(run.cpu_s(), postgres, redis, machine_cpu_s())

    def since(self, before: Used) -> Used:
        return Used(
            difference(self.engine, before.engine),
            difference(self.postgres, before.postgres),
            difference(self.redis, before.redis),
            difference(self.machine, before.machine),
        )

    def in_all(self) -> float | None:
        return added_up([self.engine, self.postgres, self.redis])


def tree_cpu_s(pid: int) -> float | None:
    """Return what a process, its children and its ended children have used.

    A backend that ends moves from the children to the ended children; reading again until nobody came or went makes
    sure that it is counted once.
    """
    if read_proc("stat") is None:
        return None
    while True:
        before = family(pid)
        ticks = [ticks_of(member) for member in before]
        if before == family(pid) and None not in ticks:
            return sum(filter(None, ticks)) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return the process and its children: neither PostgreSQL nor Redis has grandchildren."""
    processes = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid, *sorted(process for process in processes if (fields := stat(process)) and int(fields[1]) == pid)]


def ticks_of(pid: int) -> int | None:
    """Return a process's own time and that of its children that have ended."""
    fields = stat(pid)
    return None if fields is None else sum(map(int, fields[11:15]))


def stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat from the third on; the second may contain spaces."""
    text = read_proc(f"{pid}/stat")
    return None if text is None else text.rpartition(")")[2].split()


def difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
