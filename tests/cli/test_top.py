"""`fillwright top`: one frame for pipes, and a live view that follows the engine and ends when told."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.cli.terminal import Terminal

PATIENCE_S: Final = 20
WIDE: Final = (50, 120)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("engine")
    with Terminal(folder, QUEUE_RATE_LIMIT="0").serve() as (terminal, _):
        yield terminal


@dataclass(frozen=True, slots=True)
class Screen:
    """A command in a terminal of its own, where keys can be pressed and the screen read."""

    process: subprocess.Popen[bytes]
    keyboard: int

    def until(self, text: str) -> str:
        """Return everything that was written, once `text` is among it."""
        written, end = b"", time.monotonic() + PATIENCE_S
        while text.encode() not in written:
            ready, _, _ = select.select([self.keyboard], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} within {PATIENCE_S} s: {written.decode(errors='replace')}"
            written += os.read(self.keyboard, 65_536)
        return written.decode(errors="replace")

    def press(self, key: str) -> None:
        os.write(self.keyboard, key.encode())


@contextlib.contextmanager
def a_screen(terminal: Terminal, line: str) -> Iterator[tuple[Screen, int]]:
    keyboard, screen = pty.openpty()
    termios.tcsetwinsize(screen, WIDE)
    process = subprocess.Popen(
        [sys.executable, "-m", "fillwright", *line.split()],
        cwd=terminal.folder,
        env=terminal.settings,
        stdin=screen,
        stdout=screen,
        stderr=screen,
    )
    try:
        yield Screen(process, keyboard), screen
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        os.close(keyboard)
        with contextlib.suppress(OSError):
            os.close(screen)


def test_once_prints_counts_orders_venues_and_errors(terminal: Terminal) -> None:
    terminal.run("order submit SOL USDC 1.5 --watch")
    order_id = terminal.run("order list --json").json["orders"][0]["orderId"]
    seen = terminal.run("top --once")
    assert (seen.code, seen.err) == (0, "")
    assert "\x1b" not in seen.out
    words = [terminal.settings["PORT"], "Rates", "accepted 0.", "waiting 0", "confirmed 1", " 100 %", "(of the last 1 "]
    assert [word for word in words if word not in seen.out] == []
    (row,) = [line for line in seen.out.splitlines() if order_id in line]
    assert "confirmed" in row
    assert "1.5 SOL -> USDC" in row


def test_an_error_is_shown_with_its_order(tmp_path: Path) -> None:
    settings = {"QUEUE_RATE_LIMIT": "0", "FILLWRIGHT_ATTEMPTS_MAX": "1", "FILLWRIGHT_SIM_QUOTE_ERROR_RATE": "1"}
    with Terminal(tmp_path, **settings).serve() as (terminal, _):
        failed = terminal.run("order submit SOL USDC 1 --watch --json")
        order_id, code = failed.lines[0]["orderId"], failed.lines[-1]["data"]["error"]["code"]
        seen = terminal.run("top --once").out
    assert "failed 1" in seen
    _, _, errors = seen.partition("Newest errors")
    assert order_id in errors
    assert f"({code})" in errors


def test_a_live_view_shows_what_happens_and_ends_with_q(terminal: Terminal) -> None:
    with a_screen(terminal, "top") as (screen, tty):
        before = termios.tcgetattr(tty)
        screen.until("Queue")
        order_id = terminal.run("order submit USDC JUP 7 --watch --json").lines[0]["orderId"]
        screen.until(order_id)
        screen.press("x")
        screen.press("q")
        assert screen.process.wait(PATIENCE_S) == 0
        assert termios.tcgetattr(tty) == before


def test_a_live_view_ends_in_good_order_with_ctrl_c(terminal: Terminal) -> None:
    with a_screen(terminal, "top") as (screen, _):
        screen.until("Queue")
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait(PATIENCE_S) == 0


def test_a_live_view_says_when_the_engine_is_away(tmp_path: Path) -> None:
    with Terminal(tmp_path).serve() as (terminal, engine), a_screen(terminal, "top") as (screen, _):
        screen.until("Queue")
        engine.end(signal.SIGTERM)
        screen.until("no engine at")
        screen.press("q")
        assert screen.process.wait(PATIENCE_S) == 0


def test_without_an_engine_or_a_terminal_it_says_so(tmp_path: Path) -> None:
    nothing, piped = Terminal(tmp_path).run_all("top --once --url http://127.0.0.1:1", "top")
    assert (nothing.code, piped.code) == (3, 2)
    assert "no engine at http://127.0.0.1:1" in nothing.err
    assert "--once" in piped.err
