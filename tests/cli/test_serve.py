"""How an engine starts, refuses to start, and stops."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import Final

from tests.cli.terminal import Terminal, run_all

A_SECOND: Final = {"FILLWRIGHT_SIM_SPEED": "0.3"}  # is about what an order takes
STOP_S: Final = 5


def test_an_engine_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refusals = {
            ("QUEUE_CONCURRENCY", "0"): (2, "QUEUE_CONCURRENCY='0': Expected `int` >= 1 (invalid_settings)"),
            ("FILLWRIGHT_QQQQ", "1"): (2, "unknown setting: FILLWRIGHT_QQQQ; see .env.example"),
            ("FILLWRIGHT_METRICS_PORT", port): (
                1,
                f"the engine cannot start: cannot tell metrics on 127.0.0.1, port {port}: ",
            ),
            ("PORT", port): (1, f"port {port} is already in use; set PORT or --port"),
            ("DATABASE_URL", "sqlite:////dev/null/o.db"): (1, "cannot open the database at /dev/null/o.db: "),
        }
        ended = run_all((Terminal(tmp_path, **{name: value}), "serve") for name, value in refusals)
    for refused, (code, error) in zip(ended, refusals.values(), strict=True):
        assert re.fullmatch(f"error: {re.escape(error)}.*\n", refused.err)
        assert (refused.code, refused.out) == (code, "")


def test_options_go_before_the_environment(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, PORT="none", DATABASE_URL="nosuch://o")
    with terminal.serve("--port 0 --database-url sqlite:///mine.db"):
        assert (tmp_path / "mine.db").is_file()


def test_an_engine_that_is_told_to_stop_finishes_the_order_in_hand(tmp_path: Path) -> None:
    with Terminal(tmp_path, **A_SECOND).serve() as (terminal, engine):
        with terminal.start("order submit SOL USDC 1.5 --watch") as watch:
            watch.out.until("submitted")
            stopped = engine.end(signal.SIGTERM, STOP_S)
        reconciled = terminal.run("reconcile --json")
    assert stopped.code == 0
    assert "engine.stopped" in stopped.err.splitlines()[-1]
    assert reconciled.code == 0
    assert (reconciled.json["confirmed"], reconciled.json["open"]) == (1, 0)


def test_an_order_that_is_handed_back_goes_on_with_the_next_engine_and_so_does_its_watch(tmp_path: Path) -> None:
    settings = {"FILLWRIGHT_STOP_MS": "0", "FILLWRIGHT_LEASE_MS": "600000"}  # nothing goes on by waiting for a lease
    impatient = Terminal(tmp_path, **A_SECOND, **settings)
    with impatient.serve() as (terminal, engine), terminal.start("order submit SOL USDC 1.5 --watch --json") as watch:
        watch.out.until('"status":"submitted"')
        stopped = engine.end(signal.SIGINT, STOP_S)
        with terminal.serve():
            watched = watch.end()
        after = terminal.run("reconcile --json")
    assert stopped.code == 0
    assert "worker.handed_back" in stopped.err
    assert after.code == 0
    assert (after.json["confirmed"], after.json["open"]) == (1, 0)
    assert (watched.code, watched.err) == (0, "the connection was cut; trying to take it up again\n")
    assert [message["seq"] for message in watched.lines if "seq" in message] == [1, 2, 3, 4, 5]
