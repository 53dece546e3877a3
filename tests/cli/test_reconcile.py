"""`fillwright reconcile`: finds what an engine left in order, and everything that is not."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Final

import pytest

from fillwright.cli.reconcile import meaning
from fillwright.execution.reconcile import Reconciliation
from tests.cli.terminal import Json, Terminal, run_all

LEFT: Final[Json] = {
    "orders": 3,
    "confirmed": 1,
    "failed": 0,
    "cancelled": 1,
    "expired": 0,
    "open": 1,
    "lost": 0,
    "doubled": 0,
    "misreported": 0,
    "unknown": 0,
    "findings": [],
}
# What the chain's record could say instead, and what reconciling must find then.
COPY: Final = (
    "INSERT INTO transactions SELECT 'another', {order_id}, attempt, lands_at_ms, slot, in_amount, out_amount, error"
    " FROM transactions"
)
CANCELLED: Final = "(SELECT id FROM engine.orders WHERE outcome = 'cancelled')"
OTHER_STORIES: Final = {
    COPY.format(order_id="order_id"): ("doubled", "was swapped 2 times"),
    COPY.format(order_id="'ord_nobody_s'"): ("lost", "the chain has a swap for ord_nobody_s"),
    COPY.format(order_id=CANCELLED): ("misreported", "is cancelled, but the chain has its fill"),
    "DELETE FROM transactions": ("misreported", "is confirmed, but the chain has no such fill"),
    "UPDATE transactions SET out_amount = '1'": ("misreported", "the chain has no such fill"),
}


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an engine that begins one order a minute left behind."""
    folder = tmp_path_factory.mktemp("settled")
    with Terminal(folder, QUEUE_RATE_LIMIT="1").serve() as (terminal, engine):
        terminal.run("order submit SOL USDC 1.5 --watch")
        order, _ = terminal.run_all(*["order submit SOL USDC 1.5 --json"] * 2)
        terminal.run(f"order cancel {order.json['orderId']}")
        engine.end(signal.SIGTERM)
    return folder


@pytest.fixture
def folder(settled: Path, tmp_path: Path) -> Path:
    return copy(settled, tmp_path)


def copy(settled: Path, tmp_path: Path, number: int = 0) -> Path:
    return shutil.copytree(settled, tmp_path / f"copy-{number}")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tamper(folder: Path, statement: str) -> None:
    """Change one row of the chain's record."""
    with contextlib.closing(sqlite3.connect(folder / "orders.db.chain.db")) as chain, chain:
        chain.execute("ATTACH ? AS engine", (str(folder / "orders.db"),))
        assert chain.execute(statement).rowcount == 1


def test_what_an_engine_left_is_in_order_and_reading_it_changes_nothing(folder: Path) -> None:
    before = contents(folder)
    at_another_pace = Terminal(folder, FILLWRIGHT_SIM_SPEED="1")
    for_programs, for_people = at_another_pace.run_all("reconcile --json", "reconcile")
    assert (for_programs.code, for_people.code) == (0, 0)
    assert for_programs.json == LEFT
    assert "none lost, none swapped twice; 1 still open" in for_people.out
    assert contents(folder) == before


def test_a_chain_that_tells_another_story_is_found_out(settled: Path, tmp_path: Path) -> None:
    terminals = [Terminal(copy(settled, tmp_path, number)) for number in range(len(OTHER_STORIES))]
    for terminal, statement in zip(terminals, OTHER_STORIES, strict=True):
        tamper(terminal.folder, statement)
    ended = run_all((terminal, "reconcile --json") for terminal in terminals)
    for reconciled, (count, finding) in zip(ended, OTHER_STORIES.values(), strict=True):
        (told,) = reconciled.json["findings"]
        assert told.startswith(f"{count}: ")
        assert finding in told
        assert reconciled.json == {**LEFT, count: 1, "findings": [told]}
        assert reconciled.code == 1, told


def test_people_are_told_each_finding_and_what_it_means(folder: Path) -> None:
    tamper(folder, "DELETE FROM transactions")
    reconciled = Terminal(folder).run("reconcile")
    _, _, finding, meaning = reconciled.out.splitlines()
    assert (reconciled.code, reconciled.err) == (1, "")
    assert finding.startswith("misreported: ord_")
    assert meaning.startswith("Orders and chain differ")


def test_where_there_is_nothing_to_read_nothing_is_judged_and_nothing_made(folder: Path, tmp_path: Path) -> None:
    (folder / "orders.db.chain.db").unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    no_database, no_chain = run_all([(Terminal(empty), "reconcile"), (Terminal(folder), "reconcile --json")])
    assert (no_database.code, no_database.out) == (1, "")
    assert no_database.err.startswith("error: there is no database at orders.db; set DATABASE_URL ")
    assert list(empty.iterdir()) == []
    assert (no_chain.code, no_chain.out) == (1, "")
    assert json.loads(no_chain.err)["code"] == "no_chain_record"
    assert [path.name for path in folder.iterdir()] == ["orders.db"]


def test_what_cannot_be_compared_is_not_said_to_agree() -> None:
    said = meaning(Reconciliation(orders=3, confirmed=3, unknown=1))
    assert said.startswith("1 of 3 orders cannot be compared")
    assert "Every order" not in said
