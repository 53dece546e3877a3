"""Bursts, stops, keys and followers, in their short form. The long one is `make prove`."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.pressure.__main__ import NAMES, parts
from tests.process import in_real_time

SEED: Final = int.from_bytes(os.urandom(3))
PARTS: Final = [(name, store) for name in NAMES for store in ("sqlite", "postgres")][1:]  # streams need PostgreSQL


@pytest.mark.parametrize(("name", "store"), PARTS)
def test_more_than_the_engine_can_take_costs_nobody_an_order(name: str, store: str) -> None:
    print(f"again: python -m tests.pressure --short --only {name} --store {store} --seed {SEED}")
    for part, where, run in parts(True, SEED):
        if (part, where) == (name, store):
            report = in_real_time(run, within_s=240)
            assert report.failures == []
            assert report.passed
        else:
            run.close()
