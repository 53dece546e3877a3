"""`fillwright doctor`: finds what is not in order, changes nothing, and shows no secret."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import fillwright
from tests.cli.terminal import Ended, Json, Terminal

SOURCE = str(Path(fillwright.__file__).parent.parent)
NO_POOL = "So11111111111111111111111111111111111111112"
NOBODY = "http://127.0.0.1:9"


def a_terminal(folder: Path, **settings: str) -> Terminal:
    return Terminal(folder, PYTHONPATH=SOURCE, PYTHONDONTWRITEBYTECODE="1", **settings)


def with_settings(terminal: Terminal, **settings: str) -> Terminal:
    return Terminal(terminal.folder, **{**terminal.settings, **settings})


def findings(ended: Ended, check: str) -> list[Json]:
    return [each for each in ended.json["findings"] if each["check"].startswith(check)]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, without what SQLite keeps for those who read."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm"))}


@contextlib.contextmanager
def a_chain(folder: Path, **settings: str) -> Iterator[Terminal]:
    """Run a local chain. Yield a terminal that is set for it."""
    with a_terminal(folder).start("localnet --port 0") as chain:
        url = chain.out.until("RPC").split()[1]
        pools = [chain.out.until("SOL / USDC").split()[-1] for _ in range(3)]
        yield a_terminal(
            folder,
            FILLWRIGHT_MODE="localnet",
            FILLWRIGHT_RPC_URLS=url,
            FILLWRIGHT_RPC_REQUESTS_PER_SECOND="0",
            FILLWRIGHT_POOLS=",".join(pools),
            FILLWRIGHT_WALLET="file:localnet-wallet.json",
            **settings,
        )


def test_a_folder_without_anything_has_no_problem_and_stays_as_it_is(tmp_path: Path) -> None:
    ended = a_terminal(tmp_path).run("doctor --json")
    assert (ended.code, ended.err, ended.json["problem"]) == (0, "", 0)
    assert findings(ended, "database")[0]["verdict"] == "warning"
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_is_wrong_is_a_problem(tmp_path: Path) -> None:
    ended = a_terminal(tmp_path, FILLWRIGHT_MODE="mainnnet").run("doctor --json")
    assert ended.code == 1
    assert "FILLWRIGHT_MODE" in findings(ended, "settings")[0]["says"]


def test_a_file_that_is_no_engines_database_is_a_problem_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "orders.db").write_bytes(b"")
    ended = a_terminal(tmp_path).run("doctor --json")
    assert ended.code == 1
    assert findings(ended, "database")[0]["verdict"] == "problem"
    assert contents(tmp_path) == {"orders.db": b""}


def test_a_halt_is_told_with_its_reason_and_the_database_stays_as_it_is(tmp_path: Path) -> None:
    with a_terminal(tmp_path).serve() as (terminal, engine):
        terminal.run("order submit SOL USDC 1.5 --watch")
        terminal.run("halt --reason 'strange fills'")
        engine.end(signal.SIGTERM)
    before = contents(tmp_path)
    ended = a_terminal(tmp_path).run("doctor --json")
    (halt,) = findings(ended, "halt")
    assert halt["verdict"] == "warning"
    assert "strange fills" in halt["says"]
    assert "fillwright resume" in halt["fix"]
    assert "1 orders, 0 of them open" in findings(ended, "database")[0]["says"]
    assert contents(tmp_path) == before


def test_what_trades_on_a_chain_is_looked_at_and_no_secret_is_shown(tmp_path: Path) -> None:
    with a_chain(tmp_path) as terminal:
        urls, pools = (terminal.settings[f"FILLWRIGHT_{name}"] for name in ("RPC_URLS", "POOLS"))
        ended = with_settings(
            terminal,
            FILLWRIGHT_RPC_URLS=f"{urls},{NOBODY}/key-of-mine",
            FILLWRIGHT_POOLS=f"{pools},{NO_POOL}",
            REDIS_URL="redis://me:word-of-mine@127.0.0.1:9/0",
        ).run("doctor --json")
        shown = terminal.run("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert [each["verdict"] for each in findings(ended, "node")] == ["ok", "warning"]
    assert [each["verdict"] for each in findings(ended, "pool")] == ["ok", "ok", "ok", "warning"]
    assert "1000 SOL, 100000 USDC" in findings(ended, "wallet")[0]["says"]
    assert findings(ended, "redis")[0]["verdict"] == "warning"
    assert "of-mine" not in ended.out
    assert (shown.code, "0 problems" in shown.out) == (0, True)
    assert all(each["fix"] for each in ended.json["findings"] if each["verdict"] != "ok")


def test_nodes_of_another_chain_and_missing_caps_are_problems_on_mainnet(tmp_path: Path) -> None:
    with a_chain(tmp_path) as terminal:
        ended = with_settings(terminal, FILLWRIGHT_MODE="mainnet").run("doctor --json")
        terminal.run("migrate")
        assert terminal.run("limits set --order-usd 20 --day-usd 100").code == 0
        capped = with_settings(terminal, FILLWRIGHT_MODE="mainnet").run("doctor --json")
    assert ended.code == 1
    assert "are of another chain" in findings(ended, "chain")[0]["says"]
    assert findings(ended, "limits")[0]["verdict"] == "problem"
    assert findings(capped, "limits")[0]["verdict"] == "ok"


def test_nodes_that_do_not_answer_leave_what_they_would_tell_unknown(tmp_path: Path) -> None:
    with a_chain(tmp_path) as terminal:
        pass
    ended = with_settings(terminal, FILLWRIGHT_RPC_URLS=NOBODY).run("doctor --json")
    assert ended.code == 1
    assert findings(ended, "node")[0]["verdict"] == "problem"
    assert "not known" in findings(ended, "wallet")[0]["says"]


@pytest.mark.parametrize("chain_answers", [True, False])
def test_a_transaction_that_an_engine_left_behind_is_told_with_what_the_chain_says(
    tmp_path: Path, chain_answers: bool
) -> None:
    with a_chain(tmp_path, FILLWRIGHT_COMMITMENT="finalized") as terminal:  # so that it stays open for some seconds
        with terminal.serve() as (client, engine), client.start("order submit SOL USDC 1.5 --watch --json") as watching:
            watching.out.until('"submitted"')
            engine.end(signal.SIGKILL)
        nodes = {} if chain_answers else {"FILLWRIGHT_RPC_URLS": NOBODY}
        ended = with_settings(terminal, **nodes).run("doctor --json")
    (attempt,) = findings(ended, "attempts")
    assert attempt["verdict"] == "warning"
    if chain_answers:
        assert "attempt 1" in attempt["says"]
        assert "may land" in attempt["says"] or "succeeded in slot" in attempt["says"]
    else:
        assert "not known" in attempt["says"]


def test_a_database_whose_orders_are_on_another_chain_is_a_problem_before_the_engine_refuses_it(tmp_path: Path) -> None:
    with a_chain(tmp_path) as terminal:
        with terminal.serve():
            pass
        same, paper = (
            with_settings(terminal, FILLWRIGHT_MODE=mode).run("doctor --json") for mode in ("localnet", "paper")
        )
    simulated = a_terminal(tmp_path).run("doctor --json")
    with a_chain(tmp_path) as terminal:
        another = terminal.run("doctor --json")
    assert (same.code, paper.code, simulated.code, another.code) == (0, 1, 1, 1)
    for ended in (paper, simulated, another):
        (problem,) = [each for each in findings(ended, "database") if each["verdict"] == "problem"]
        assert "which is another: the engine does not start" in problem["says"]
