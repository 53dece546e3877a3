"""What the command line says, and how it ends, where something cannot be done."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.cli.terminal import Ended, Terminal


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Of an engine that begins one order a minute, and finds no route for it."""
    settings = {"QUEUE_RATE_LIMIT": "1", "FILLWRIGHT_SIM_QUOTE_ERROR_RATE": "1", "FILLWRIGHT_ATTEMPTS_MAX": "1"}
    with Terminal(tmp_path_factory.mktemp("engine"), **settings).serve() as (terminal, _):
        yield terminal


@pytest.fixture(scope="module")
def failed(terminal: Terminal) -> Ended:
    """The one order that is begun."""
    return terminal.run("order submit SOL USDC 1 --watch")


@pytest.fixture
def waiting_id(terminal: Terminal, failed: Ended) -> str:
    return str(terminal.run("order submit SOL USDC 1 --json").json["orderId"])


def id_of(ended: Ended) -> str:
    return ended.out.split()[1]


def test_an_order_that_fails_ends_its_watch_with_1_and_the_reason(failed: Ended) -> None:
    assert failed.code == 1
    assert failed.err == f"error: order {id_of(failed)} ended failed (no_route)\n"
    _, accepted, routing, reason = failed.out.splitlines()
    assert "pending    accepted: 1 SOL -> USDC, slippage 1 %" in accepted
    assert "routing    attempt 1: asking every venue" in routing
    assert "failed     meteora: meteora answered with an error; raydium: " in reason
    assert "\x1b" not in failed.out


def test_an_order_is_cancelled_and_whoever_watches_it_is_told(terminal: Terminal, waiting_id: str) -> None:
    with terminal.start(f"order watch {waiting_id} --json") as watch:
        watch.out.until('"seq":1')
        cancelled = terminal.run(f"order cancel {waiting_id}")
        watched = watch.end()
    assert (cancelled.code, cancelled.err) == (0, "")
    assert cancelled.out == f"order {waiting_id} is cancelled; nothing was signed for it\n"
    assert (watched.code, watched.lines[-1]["status"]) == (1, "cancelled")
    assert json.loads(watched.err)["code"] == "order_cancelled"


def test_a_refusal_is_one_line_with_its_code_and_ends_with_1(terminal: Terminal, failed: Ended) -> None:
    codes = {
        "order submit SOL SOL 1": "same_token",
        f"order get ord_{'0' * 26}": "order_not_found",
        'order get ""': "order_not_found",
        "order get stats": "order_not_found",
        "order watch x?y": "order_not_found",
        f"order cancel {id_of(failed)}": "not_cancellable",
        "quote SOL USDC 1": "no_route",
    }
    *ended, for_programs = terminal.run_all(*codes, "order submit SOL USDC 1e3 --json")
    for refused, code in zip(ended, codes.values(), strict=True):
        assert (refused.code, refused.out) == (1, "")
        assert re.fullmatch(rf"error: .+ \({code}\)\n", refused.err)
    problem = json.loads(for_programs.err)
    assert (for_programs.code, for_programs.out) == (1, "")
    assert (problem["status"], problem["code"]) == (400, "invalid_amount")


def test_a_command_that_cannot_be_meant_ends_with_2(terminal: Terminal) -> None:
    lines = ["nope", "order submit SOL"]
    for line, misused in zip(lines, terminal.run_all(*lines), strict=True):
        assert (misused.code, misused.out) == (2, ""), line
        assert "\nError: " in misused.err, line


def test_where_no_engine_answers_a_command_ends_with_3(terminal: Terminal) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # taken, so that nobody else listens there, and not listening
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        told, for_programs = terminal.run_all(f"stats --url {url}", f"order submit SOL USDC 1 --json --url {url}")
    assert [(ended.code, ended.out) for ended in (told, for_programs)] == [(3, ""), (3, "")]
    assert told.err.startswith(f"error: no engine at {url}: connection refused; ")
    assert told.err.endswith("(unreachable)\n")
    assert json.loads(for_programs.err)["code"] == "unreachable"
