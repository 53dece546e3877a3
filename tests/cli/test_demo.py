"""`fillwright demo`: shows everything, and leaves nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cli.terminal import Running, Terminal


def assert_nothing_is_left(demo: Running, folder: Path) -> None:
    assert list(folder.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.pid, 0)


def test_the_demo_confirms_five_orders_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with Terminal(tmp_path, TMPDIR=str(tmp_path)).start("demo --speed 0") as demo:
        shown = demo.end()
        assert_nothing_is_left(demo, tmp_path)
    assert (shown.code, shown.err) == (0, "")
    assert "5 of 5 orders confirmed, 0 failed" in shown.out
    assert "none lost, none swapped twice" in shown.out
    assert "\x1b" not in shown.out


def test_a_demo_that_is_interrupted_leaves_nothing_behind_either(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, TMPDIR=str(tmp_path), FILLWRIGHT_STOP_MS="0")
    with terminal.start("demo --speed 5") as one, terminal.start("demo --speed 5") as other:
        for demo in (one, other):
            demo.out.until("routing")
        os.killpg(one.pid, signal.SIGINT)  # as Ctrl-C does: demo and engine are told
        os.kill(other.pid, signal.SIGTERM)
        assert [one.end().code, other.end().code] == [130, 130]
        assert_nothing_is_left(one, tmp_path)
        assert_nothing_is_left(other, tmp_path)
