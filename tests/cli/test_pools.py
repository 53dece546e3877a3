"""Pools at the command line: import, quote, verify."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fillwright.core.accounts import format_address
from fillwright.venues.snapshots import write_snapshots
from tests.cli.terminal import Terminal
from tests.venues.model import patched
from tests.venues.snapshot import OWN, a_snapshot, old_sol_usdc, own_usdc, sol_usdc
from tests.venues.test_recordings import CASES, FOLDER


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    off = patched(sol_usdc("off "), sol_usdc("off ").address, {329: b"\x04"})
    write_snapshots(tmp_path / "pools.json", [a_snapshot([sol_usdc(), old_sol_usdc(), own_usdc(), off])])
    return Terminal(tmp_path)


def test_pools_are_compared_without_an_engine(terminal: Terminal) -> None:
    shown = terminal.run("quote SOL USDC 10000 --pools pools.json")
    assert shown.code == 0, shown.err
    assert "split" in shown.out
    assert "swaps are switched off in the pool" in shown.out
    quote = terminal.run("quote SOL USDC 10000 --pools pools.json --json").json
    chosen, *others = quote["quotes"]
    assert chosen["type"] == "split"
    assert [leg["type"] for leg in chosen["legs"]] == ["cpmm", "amm_v4"]
    assert {each["code"] for each in others} == {"outbid", "not_tradable"}


def test_a_token_that_has_no_name_here_is_known_by_its_mint(terminal: Terminal) -> None:
    quote = terminal.run(f"quote SOL {OWN.mint} 1 --pools pools.json --json").json
    assert [leg["tokenOut"] for leg in quote["quotes"][0]["legs"]] == ["USDC", OWN.mint]


def test_pools_are_imported_and_it_is_said_which_of_them_can_be_quoted(terminal: Terminal, tmp_path: Path) -> None:
    imported = terminal.run("pools import pools.json --to all.json.gz --json").json
    off = format_address(sol_usdc("off ").address)
    assert [pool["pool"] for pool in imported["pools"] if "code" not in pool] != []
    assert [(pool["pool"], pool["code"]) for pool in imported["pools"] if "code" in pool] == []
    assert off in {pool["pool"] for pool in imported["pools"]}
    again = terminal.run("quote SOL USDC 1 --pools all.json.gz --json").json
    before = terminal.run("quote SOL USDC 1 --pools pools.json --json").json
    assert without_time(again) == without_time(before)
    assert "4 pools, 4 of which can be quoted" in terminal.run("pools import pools.json --to b.json").out


def without_time(quote: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name != "timestamp"} for each in quote["quotes"]]


def test_recordings_are_replayed_and_all_are_quoted_to_the_last_unit(terminal: Terminal) -> None:
    files = " ".join(str(path) for path in sorted(FOLDER.glob("*.gz")))
    told = terminal.run(f"pools verify {files} --json")
    assert told.code == 0
    types = told.json["types"]
    assert {name: (tally["cases"], tally["equal"]) for name, tally in types.items()} == {
        name: (count, count) for name, count in CASES.items()
    }
    assert told.json["mismatched"] == 0


def test_a_recording_that_paid_something_else_ends_the_command_with_1(terminal: Terminal, tmp_path: Path) -> None:
    cases = json.loads(gzip.decompress((FOLDER / "swaps.json.gz").read_bytes()))
    wrong, fine = cases["cpmm"][:2]
    wrong["onchain"] = str(int(wrong["onchain"]) + 1)
    refused = {**cases["ammv4"][0], "amount": "0", "type": "ammv4"}
    (tmp_path / "wrong.json").write_text(json.dumps([{**wrong, "type": "cpmm"}, {**fine, "type": "cpmm"}, refused]))
    told = terminal.run("pools verify wrong.json --json")
    assert told.code == 1
    cpmm, amm_v4 = told.json["types"]["cpmm"], told.json["types"]["amm_v4"]
    assert (cpmm["cases"], cpmm["equal"], cpmm["mismatched"]) == (2, 1, 1)
    assert (amm_v4["refused"], list(amm_v4["reasons"])) == (1, ["amount_too_small"])
    (mismatch,) = cpmm["mismatches"]
    assert int(mismatch["paid"]) == int(mismatch["quoted"]) + 1
    shown = terminal.run("pools verify wrong.json")
    assert (shown.code, f"paid {mismatch['paid']}, quoted {mismatch['quoted']}" in shown.out) == (1, True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{}x", "cannot be read"),
        ('"text"', "neither an object of lists nor a list"),
        ('[{"type": "orca"}]', "the type 'orca'"),
        ('{"cpmm": [{"pool": "%"}]}', "case 0 (cpmm)"),
        ('{"cpmm": [1]}', "case 0"),
        ('{"dammv1": [{"pool": "AAAA"}]}', "case 0 (dammv1)"),
    ],
)
def test_a_file_that_holds_no_recordings_says_where_it_is_wrong(
    terminal: Terminal, tmp_path: Path, content: str, why: str
) -> None:
    (tmp_path / "odd.json").write_text(content)
    told = terminal.run("pools verify odd.json")
    assert (told.code, told.out) == (2, "")
    assert why in told.err
    assert "(invalid_recording)" in told.err


def test_a_file_that_holds_no_pools_says_so(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"slot": 1, "accounts": {}}')
    for command in (
        "pools import none.json --to all.json",
        "pools import nowhere --to all.json",
        "quote SOL USDC 1 --pools none.json",
    ):
        told = terminal.run(command)
        assert (told.code, "(invalid_snapshot)" in told.err) == (2, True)
    assert terminal.run("pools import pools.json --to no/such/folder.json").code == 2
