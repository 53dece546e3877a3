"""A thousand orders, sixty faults, real processes. The long form is `make prove`."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.campaign.__main__ import SHORT
from tests.campaign.campaign import run
from tests.process import in_real_time

SEED: Final = int.from_bytes(os.urandom(3))


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_whatever_is_killed_frozen_or_set_back_nothing_is_lost_doubled_or_misreported(store: str) -> None:
    print(f"again: python -m tests.campaign --short --store {store} --seed {SEED}")
    report = in_real_time(run(store, *SHORT, SEED), within_s=240)
    assert report.failures == []
    assert report.passed
