"""`fillwright localnet`: a chain with pools and money, until it is told to stop."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

from tests.cli.terminal import Terminal


def test_the_local_chain_answers_as_a_node_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with Terminal(tmp_path).start("localnet --port 0 --seed 7 --speed 20") as localnet:
        url = localnet.out.until("RPC").split()[1]
        wallet = localnet.out.until("Wallet").split()[1]
        localnet.out.until("Ctrl-C ends it.")
        body = {"jsonrpc": "2.0", "id": 1, "method": "getBalance", "params": [wallet]}
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["result"]["value"] == 1_000 * 10**9
        ended = localnet.end(signal.SIGINT)
    assert (ended.code, ended.err) == (0, "")
    assert all(name in ended.out for name in ("cpmm", "damm_v2", "amm_v4"))
    assert (tmp_path / "localnet-wallet.json").stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_taken_or_a_file_that_is_no_key_pair_ends_it_at_once(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    with terminal.start("localnet --port 0") as localnet:
        port = localnet.out.until("RPC").strip().rpartition(":")[2]
        taken = terminal.run(f"localnet --port {port}")
        localnet.end(signal.SIGTERM)
    assert taken.code == 1
    assert f"cannot listen on port {port}" in taken.err
    (tmp_path / "wallet.json").write_text("{}")
    wrong = terminal.run("localnet --wallet wallet.json")
    assert wrong.code == 2
    assert "(invalid_wallet)" in wrong.err
