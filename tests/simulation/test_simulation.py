"""Hundreds of simulated lives, and every planted mistake. The long form is `make prove`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest
import structlog

from tests.simulation.planted import PLANTED
from tests.simulation.runs import catch, run_seeds

SEEDS: Final = 500
PARTS: Final = 4
SEED0: Final = int.from_bytes(os.urandom(3)) * 1_000


@pytest.fixture(autouse=True)
def _logs_as_before() -> object:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_nothing_is_lost_doubled_or_misreported(part: int) -> None:
    first = SEED0 + part * SEEDS // PARTS
    result = run_seeds(range(first, first + SEEDS // PARTS))
    assert {f"--seed0 {outcome.seed} --store {outcome.store}": outcome.findings for outcome in result.failed} == {}
    assert result.faults["crash"] > 100
    assert result.faults["freeze"] > 50


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found(name: str) -> None:
    assert catch(name) is not None


def test_the_same_seed_gives_the_same_trace_whatever_the_order_of_sets() -> None:
    program = "from tests.simulation.runs import run_seeds; print(run_seeds(range(20)).digest)"
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(traces) == 1
