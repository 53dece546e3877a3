"""The Python client while real engines are stopped, killed and cut off: benchmarks.client_restarts in short."""

from __future__ import annotations

from pathlib import Path

from benchmarks.client_restarts import run

from tests.process import in_real_time


def test_every_event_of_every_order_is_told_once_over_restarts_and_cuts(tmp_path: Path) -> None:
    outcome = in_real_time(run(tmp_path, orders=100, restarts=5), within_s=180)
    assert (outcome.orders, outcome.faults) == (100, ())
    assert (outcome.restarts, outcome.cuts) == (5, 5)
    assert outcome.hit > 0
