"""`fillwright demo`: shows everything, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import Running, Terminal


def test_the_demo_confirms_five_orders_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with a_demo(tmp_path, speed=0) as demo:
        shown = demo.end()
    assert (shown.code, shown.err) == (0, "")
    assert "5 of 5 orders confirmed, 0 failed" in shown.out
    assert "none lost, none swapped twice" in shown.out
    assert "\x1b" not in shown.out


def test_a_demo_that_is_interrupted_leaves_nothing_behind_either(tmp_path: Path) -> None:
    with a_demo(tmp_path, speed=5) as demo:
        demo.out.until("routing")
        assert demo.end(signal.SIGTERM).code == 130


def test_the_demo_on_a_local_chain_swaps_by_transactions_and_reconciles_with_the_chain(tmp_path: Path) -> None:
    with a_demo(tmp_path, speed=0, more="--chain") as demo:
        shown = demo.end()
    assert (shown.code, shown.err) == (0, "")
    assert "5 of 5 orders confirmed, 0 failed" in shown.out
    assert "What landed on the chain:" in shown.out
    assert "5 orders, 5 confirmed, 0 failed" in shown.out
    assert "none lost, none swapped twice" in shown.out


@contextlib.contextmanager
def a_demo(folder: Path, speed: int, more: str = "") -> Iterator[Running]:
    """Start a demo whose temporary files go into `folder`. At the end of the block it must be gone without a trace."""
    with Terminal(folder, TMPDIR=str(folder), FILLWRIGHT_STOP_MS="0").start(f"demo --speed {speed} {more}") as demo:
        yield demo
        assert list(folder.iterdir()) == []
        with pytest.raises(ProcessLookupError):
            os.killpg(demo.pid, 0)
