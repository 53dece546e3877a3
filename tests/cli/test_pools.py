"""Pools at the command line: import, quote, verify."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from fillwright.core.accounts import format_address
from fillwright.venues.snapshots import write_snapshots
from tests.cli.terminal import Terminal
from tests.venues.model import patched
from tests.venues.snapshot import OWN, a_snapshot, old_sol_usdc, own_usdc, sol_usdc
from tests.venues.test_recordings import CASES, FOLDER

NO_POOL = "So11111111111111111111111111111111111111112"


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
    assert "4 of 4 pools can be quoted: b.json" in terminal.run("pools import pools.json --to b.json").out


def test_pools_are_read_from_a_node_and_quoted_from_the_snapshot(tmp_path: Path) -> None:
    with Terminal(tmp_path).start("localnet --port 0") as chain:
        url = chain.out.until("RPC").split()[1]
        pools = [chain.out.until("SOL / USDC").split()[-1] for _ in range(3)]
        terminal = Terminal(tmp_path, FILLWRIGHT_RPC_URLS=url, FILLWRIGHT_POOLS="pools.json.gz")
        fetched = terminal.run(f"pools fetch {' '.join(pools)} --to pools.json.gz --json")
        assert (fetched.code, fetched.err) == (0, "")
        assert [(each["pool"], "code" in each) for each in fetched.json["pools"]] == [(each, False) for each in pools]
        unknown = terminal.run(f"pools fetch {pools[0]} {NO_POOL} --to other.json")
        assert (unknown.code, NO_POOL in unknown.err) == (2, True)
    quoted = terminal.run("quote SOL USDC 1.5 --pools pools.json.gz --json").json["quotes"]
    assert {leg["pool"] for each in quoted for leg in each["legs"]} == set(pools)
    assert "7 ok" in terminal.run("doctor").out

    nobody = terminal.run(f"pools fetch {pools[0]} --to other.json")
    assert (nobody.code, "(chain_unavailable)" in nobody.err) == (1, True)
    assert Terminal(tmp_path).run(f"pools fetch {pools[0]} --to other.json").code == 2
    assert terminal.run("pools fetch 12 --to other.json").code == 2
    assert not (tmp_path / "other.json").exists()


def test_pools_are_never_read_from_nodes_of_different_chains_nor_of_another_than_is_meant(tmp_path: Path) -> None:
    with (
        Terminal(tmp_path).start("localnet --port 0") as ours,
        Terminal(tmp_path).start("localnet --port 0 --seed 7 --wallet theirs.json") as theirs,
    ):
        urls = [chain.out.until("RPC").split()[1] for chain in (ours, theirs)]
        pool = ours.out.until("SOL / USDC").split()[-1]
        mixed = Terminal(tmp_path, FILLWRIGHT_RPC_URLS=",".join(urls)).run(f"pools fetch {pool} --to pools.json")
        settings = {"FILLWRIGHT_RPC_URLS": urls[0], "FILLWRIGHT_MODE": "mainnet", "FILLWRIGHT_POOLS": pool}
        wrong = Terminal(tmp_path, **settings).run(f"pools fetch {pool} --to pools.json")
    assert (mixed.code, "(mixed_chains)" in mixed.err) == (2, True)
    assert (wrong.code, "(wrong_network)" in wrong.err) == (2, True)
    assert not (tmp_path / "pools.json").exists()


def test_replies_of_a_node_are_imported_and_one_that_cannot_be_says_what_is_wanted(
    terminal: Terminal, tmp_path: Path
) -> None:
    accounts = json.loads((tmp_path / "pools.json").read_text())["snapshots"][0]["accounts"]
    listed = [
        {"pubkey": address, "account": {"owner": each["owner"], "data": [each["data"], "base64"]}}
        for address, each in accounts.items()
    ]
    taken: list[Any] = [listed, {"result": listed}, {"result": {"context": {"slot": 1}, "value": listed}}]
    for reply in taken:
        (tmp_path / "reply.json").write_text(json.dumps(reply))
        assert len(terminal.run("pools import reply.json --to all.json --json").json["pools"]) == 4
    refused: list[Any] = [{"error": {"code": -32601}}, {"result": {"value": [{"data": ["", "base64"]}]}}]
    for reply in refused:
        (tmp_path / "reply.json").write_text(json.dumps(reply))
        told = terminal.run("pools import reply.json --to all.json")
        assert (told.code, "getProgramAccounts" in told.err) == (2, True)
    wrong = {"slot": -3, "accounts": accounts}
    (tmp_path / "reply.json").write_text(json.dumps(wrong))
    assert "slot -3" in terminal.run("pools import reply.json --to all.json").err


def test_a_pool_whose_account_has_another_length_is_shown_as_one_that_is_not_known(
    terminal: Terminal, tmp_path: Path
) -> None:
    content = json.loads((tmp_path / "pools.json").read_text())
    accounts = content["snapshots"][0]["accounts"]
    pool = format_address(sol_usdc().address)
    accounts[pool]["data"] = b64encode(b64decode(accounts[pool]["data"]) + b"!").decode()
    (tmp_path / "newer.json").write_text(json.dumps(content))
    imported = terminal.run("pools import newer.json --to all.json --json").json["pools"]
    assert [(each["pool"], each["code"]) for each in imported if "code" in each] == [(pool, "unknown_layout")]
    shown = terminal.run("pools import newer.json --to all.json").out
    assert "638 bytes, not 637" in " ".join(shown.split())
    assert "3 of 4 pools can be quoted" in shown


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
    assert mismatch["case"] == "wrong.json, case 0"
    shown = terminal.run("pools verify wrong.json")
    assert (shown.code, f"paid {mismatch['paid']}, quoted {mismatch['quoted']}" in shown.out) == (1, True)
    assert "cpmm, wrong.json, case 0" in shown.out


def test_recordings_are_read_from_a_folder_and_by_the_names_that_the_program_shows(
    terminal: Terminal, tmp_path: Path
) -> None:
    cases = json.loads(gzip.decompress((FOLDER / "swaps.json.gz").read_bytes()))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "README.md").write_text("taken by hand")
    for given, name in (("ammv4", "amm_v4"), ("dammv2", "damm_v2")):
        (tmp_path / "taken" / f"{name}.json").write_text(json.dumps({name: cases[given][:2]}))
    types = terminal.run("pools verify taken --json").json["types"]
    assert {name: tally["equal"] for name, tally in types.items()} == {"amm_v4": 2, "damm_v2": 2}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{}x", "cannot be read"),
        ('"text"', "neither an object of lists nor a list"),
        ('[{"type": "orca"}]', "the type 'orca'"),
        ('{"cpmm": [{"pool": "%"}]}', "case 0 (cpmm)"),
        ('{"cpmm": [1]}', "case 0"),
        ('{"dammv1": [{"pool": "AAAA"}]}', "case 0 (dammv1)"),
        ('{"cpmm": [{"cfg": "AAAA"}]}', "lacks 'pool'"),
        ('{"cpmm": true}', "neither an object of lists nor a list"),
        ('{"cpmm": null}', "holds no recorded swap"),
        ("[]", "holds no recorded swap"),
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
    for command in ("serve --port 0", "doctor"):
        for pools in ("none.json", "nowhere"):
            told = Terminal(tmp_path, FILLWRIGHT_POOLS=pools).run(command)
            assert (told.code, pools in told.out + told.err) == (1, True)
    assert terminal.run("pools import pools.json --to no/such/folder.json").code == 2
