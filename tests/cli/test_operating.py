"""An operator at the command line: keys, halt, audit, with and without an engine that runs."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from tests.cli.terminal import Ended, Json, Terminal


def refused_soon(terminal: Terminal, line: str) -> Ended:
    """Return how a command is refused, which must come within a second; commands take some time themselves."""
    until = time.monotonic() + 5
    while (answer := terminal.run(line)).code == 0:
        assert time.monotonic() < until, "it goes on being answered"
    return answer


def problem(ended: Ended) -> Json:
    """Return what a command that was refused says of it."""
    said: Json = json.loads(ended.err)
    return said


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    terminal = Terminal(tmp_path)
    terminal.run("migrate")
    return terminal


def test_a_key_lets_its_holder_in_until_it_is_revoked(terminal: Terminal) -> None:
    with terminal.serve() as (here, _):
        assert here.run("stats").code == 0
        made = here.run("keys create bot --json").json
        assert problem(refused_soon(here, "stats --json"))["code"] == "unauthorized"
        holder = Terminal(here.folder, **{**here.settings, "FILLWRIGHT_API_KEY": made["key"]})
        assert holder.run("order submit SOL USDC 1 --watch").code == 0
        assert here.run(f"keys revoke {made['keyId']}").code == 0
        assert problem(refused_soon(holder, "stats --json"))["code"] == "unauthorized"


def test_a_key_s_secret_is_shown_once_and_kept_nowhere(terminal: Terminal) -> None:
    made = terminal.run("keys create bot --scopes read,trade,admin --account desk --json").json
    secret = made["key"].split("_")[2]
    listed = terminal.run("keys list --json").json
    assert (listed["keyId"], listed["account"], listed["scopes"]) == (made["keyId"], "desk", ["admin", "read", "trade"])
    assert secret not in terminal.run("keys list").out + terminal.run("audit list --json").out
    kept = b"".join(path.read_bytes() for path in terminal.folder.iterdir())
    assert made["keyId"].encode() in kept
    assert secret.encode() not in kept


def test_an_engine_that_others_can_reach_does_not_start_without_keys(terminal: Terminal) -> None:
    refused = terminal.run("serve --host 0.0.0.0")
    assert (refused.code, "(exposed)" in refused.err) == (1, True)
    assert "fillwright keys create" in refused.err
    terminal.run("keys create bot")
    with terminal.serve("--host 0.0.0.0") as (_, engine):
        assert engine.pid


def test_a_halt_is_told_to_whoever_asks_and_ends_with_resume(terminal: Terminal) -> None:
    with terminal.serve() as (here, _):
        assert here.run("halt --reason drill").code == 0
        refused = here.run("order submit SOL USDC 1 --json")
        assert (refused.code, problem(refused)["code"]) == (1, "halted")
        assert "drill" in problem(refused)["message"]
        assert here.run("resume").code == 0
        until = time.monotonic() + 5
        while here.run("order submit SOL USDC 1 --watch").code != 0:
            assert time.monotonic() < until, "it goes on being refused"


def test_who_did_what_can_be_read_and_verified(terminal: Terminal) -> None:
    terminal.run("halt --reason drill")
    terminal.run("resume")
    halted, resumed = terminal.run("audit list --json").lines
    assert (halted["action"], halted["data"]) == ("ModeSet", {"mode": "halted", "reason": "drill"})
    assert halted["actor"].startswith("command line, ")
    verified = terminal.run("audit verify")
    assert (verified.code, resumed["hash"] in verified.out) == (0, True)
    assert terminal.run(f"audit verify --head {halted['hash']}").code == 0


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audit SET data = replace(data, 'drill', 'other') WHERE seq = 1",
        "UPDATE audit SET actor = 'somebody else' WHERE seq = 2",
        "UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 3",
        "UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = 1) WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 1",
        "DELETE FROM audit WHERE seq = 2",
        "UPDATE audit SET seq = seq - 3 WHERE seq < 3; UPDATE audit SET seq = -seq WHERE seq < 0",
        "DELETE FROM audit WHERE seq = 3",
    ],
)
def test_what_was_edited_dropped_or_moved_in_the_audit_log_is_found(terminal: Terminal, tampering: str) -> None:
    terminal.run("halt --reason drill")
    terminal.run("resume")
    terminal.run("halt --reduce")
    head = terminal.run("audit list --json").lines[-1]["hash"]
    with sqlite3.connect(terminal.folder / "orders.db") as database:
        database.executescript(tampering)
    database.close()
    found = terminal.run(f"audit verify --head {head}")
    assert (found.code, "(audit_broken)" in found.err) == (1, True)


def test_where_there_is_no_database_nothing_is_halted_and_that_is_said(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    for command in ("halt", "halt --reduce", "resume", "keys list", "audit verify"):
        refused = terminal.run(command)
        assert (refused.code, "(no_database)" in refused.err) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_halt_is_not_loosened_by_one_that_stops_less_and_keeps_its_reason(terminal: Terminal) -> None:
    terminal.run("halt --reason drill")
    refused = terminal.run("halt --reduce")
    assert (refused.code, "(halted)" in refused.err) == (1, True)
    terminal.run("halt")
    assert terminal.run("audit list --json").lines[-1]["data"] == {"mode": "halted", "reason": "drill"}


def test_a_halt_works_even_on_an_audit_log_that_is_broken_and_the_log_can_be_read(terminal: Terminal) -> None:
    with terminal.serve() as (here, _):
        here.run("halt")
        here.run("resume")
        with sqlite3.connect(terminal.folder / "orders.db") as database:
            database.execute("UPDATE audit SET actor = 'somebody else' WHERE seq = 1")
        database.close()
        assert here.run("halt").code == 0
        assert len(here.run("audit list --json").lines) == 3
        refused = here.run("order submit SOL USDC 1 --json")
        assert problem(refused)["code"] in ("halted", "audit_broken")


def test_an_engine_does_not_start_on_an_audit_log_that_is_broken(terminal: Terminal) -> None:
    terminal.run("halt")
    terminal.run("resume")
    with sqlite3.connect(terminal.folder / "orders.db") as database:
        database.execute("DELETE FROM audit WHERE seq = 1")
    database.close()
    refused = terminal.run("serve")
    assert (refused.code, "(audit_broken)" in refused.err) == (1, True)


# ---- limits


def test_limits_are_set_shown_changed_one_by_one_and_taken_away(terminal: Terminal) -> None:
    assert "There are no limits." in terminal.run("limits show").out
    made = terminal.run("keys create bot --json").json
    said = terminal.run(
        "limits set --day-usd 5000 --order-amount SOL=5 --order-amount BONK=7 --tokens SOL,USDC,BONK"
    ).out
    assert said.startswith("Limits of everybody: dayUsd 5000, orderAmount ")
    terminal.run(f"limits set --key {made['keyId']} --slippage 0.01 --price-impact 0.02 --price-deviation 0.03")
    terminal.run("limits set --account bot --open-orders 3 --order-usd 10.5 --day-amount SOL=50")
    terminal.run("limits set --day-usd none --order-amount BONK=none --slippage 0.05")
    shown = {line["of"]: line["limits"] for line in terminal.run("limits show --json").lines}
    assert sorted(shown.pop("everybody").pop("tokens")) == ["BONK", "SOL", "USDC"]
    assert shown == {
        "account bot": {"orderUsd": "10.5", "dayAmount": {"SOL": "50"}, "openOrders": 3},
        f"key {made['keyId']}": {"slippage": "0.01", "priceImpact": "0.02", "priceDeviation": "0.03"},
    }
    assert "slippage" in terminal.run("limits show").out
    terminal.run(f"limits clear --key {made['key']}")
    terminal.run("limits clear --account bot")
    assert [line["of"] for line in terminal.run("limits show --json").lines] == ["everybody"]
    assert "of everybody, orderAmount SOL 5" in terminal.run("audit list").out.replace("\n", " ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("limits set", "name a limit to set"),
        ("limits set --day-usd -5", "dayUsd: amount must be a positive decimal number"),
        ("limits set --day-amount SOL", "dayAmount: write TOKEN=AMOUNT, such as SOL=5, not 'SOL'"),
        ("limits set --order-amount NOPE=1", "orderAmount: 'NOPE' is neither a known symbol"),
        ("limits set --tokens NOPE", "tokens: token: 'NOPE' is neither a known symbol"),
        ("limits set --open-orders 0", "openOrders: give a whole number from 1"),
        ("limits set --slippage 5", "slippage must be at most 1"),
        ("limits set --account '' --day-usd 5", "the name is empty"),
        ("limits set --account nobody --day-usd 5", "there is no 'account nobody'"),
        ("limits set --key fw_unknown_secret --day-usd 5", "there is no 'key unknown'"),
        ("limits set --key a --account b --day-usd 5", "name an account or a key, not both"),
        ("limits clear --key ''", "the name is empty"),
        ("audit verify --head ''", "--head is empty"),
        ("keys create ''", "a key needs a name"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words_and_changes_nothing(terminal: Terminal, line: str, said: str) -> None:
    refused = terminal.run(line)
    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert "secret" not in refused.err
    assert terminal.run("audit list --json").out == ""


# ---- webhooks

SECRET = {"FILLWRIGHT_WEBHOOK_SECRET": "of thirty-two characters or more", "FILLWRIGHT_WEBHOOK_PRIVATE": "on"}


def test_a_webhook_is_added_listed_and_what_it_never_took_is_shown_and_tried_again(terminal: Terminal) -> None:
    here = Terminal(terminal.folder, **{**terminal.settings, **SECRET, "FILLWRIGHT_WEBHOOK_ATTEMPTS_MAX": "1"})
    assert "There are no webhooks." in here.run("webhooks list").out
    made = here.run("webhooks add http://127.0.0.1:1/told --json").json
    assert made["secret"].startswith("whsec_")
    assert made["secret"] not in here.run("audit list --json").out + here.run("webhooks list --json").out
    assert "Nothing was given up." in here.run("webhooks dead").out
    with here.serve() as (engine, _):
        assert engine.run("order submit SOL USDC 1 --watch").code == 0
        until = time.monotonic() + 20
        while not (dead := here.run("webhooks dead --json").lines):
            assert time.monotonic() < until, "nothing was given up"
    (given_up,) = dead
    assert (given_up["webhookId"], given_up["seq"], given_up["tries"]) == (made["webhookId"], 1, 1)
    assert "cannot connect" in given_up["error"]
    (listed,) = here.run("webhooks list --json").lines
    assert (listed["account"], listed["givenUp"], listed["failing"]) == ("local", 1, 0)
    assert "0 deliveries are" in here.run("webhooks replay --order ord_none").out
    assert "1 delivery is tried again" in here.run(f"webhooks replay --webhook {made['webhookId']}").out
    assert here.run(f"webhooks remove {made['webhookId']}").code == 0
    assert here.run("webhooks list --json").out == ""


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("webhooks add https://desk.example.com/ --key nobody", "invalid_webhook"),
        ("webhooks add ftp://desk.example.com/", "invalid_webhook"),
        ("webhooks remove wh_none", "webhook_not_found"),
        ("webhooks dead --webhook wh_none", "webhook_not_found"),
        ("webhooks replay --webhook wh_none", "webhook_not_found"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused_in_words(terminal: Terminal, line: str, code: str) -> None:
    refused = Terminal(terminal.folder, **{**terminal.settings, **SECRET}).run(line)
    assert (refused.code, f"({code})" in refused.err) == (1, True), refused.err
    assert terminal.run("webhooks add https://desk.example.com/").err.endswith("(webhooks_off)\n")
