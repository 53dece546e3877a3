"""Orders on the command line, for people and for programs."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cli.terminal import Ended, Terminal

AMOUNT: Final = "123456789.123456789"  # a float has fewer digits
LIFE: Final = ["pending", "routing", "building", "submitted", "confirmed"]


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("engine")
    with Terminal(folder, QUEUE_RATE_LIMIT="0").serve() as (terminal, _):
        yield terminal


@pytest.fixture(scope="module")
def confirmed(terminal: Terminal) -> Ended:
    return terminal.run(f"order submit SOL USDC {AMOUNT} --slippage 0.005 --client-order-id mine --watch --json")


@pytest.fixture(scope="module")
def order_id(confirmed: Ended) -> str:
    return str(confirmed.lines[0]["orderId"])


def fetch(terminal: Terminal, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{terminal.settings['PORT']}{path}") as response:
        return str(response.read().decode())


def test_an_order_that_is_submitted_and_watched_prints_its_answer_and_every_message(confirmed: Ended) -> None:
    answer, greeting, *updates = confirmed.lines
    assert (confirmed.code, confirmed.err) == (0, "")
    assert answer["websocket"]
    assert greeting["event"] == "connection:established"
    assert [update["status"] for update in updates] == LIFE
    assert {update["orderId"] for update in updates} == {answer["orderId"]}


def test_an_amount_goes_through_exactly_as_it_is_typed(terminal: Terminal, confirmed: Ended) -> None:
    _, _, accepted, *_, last = confirmed.lines
    assert (accepted["data"]["amount"], last["data"]["inAmount"]) == (AMOUNT, AMOUNT)
    assert accepted["data"]["slippageBps"] == 50
    assert terminal.run(f"quote SOL USDC {AMOUNT} --json").json["amount"] == AMOUNT


def test_what_to_type_next_leads_to_the_engine_that_has_the_order(terminal: Terminal) -> None:
    url = f"http://127.0.0.1:{terminal.settings['PORT']}"
    here, elsewhere = terminal.run_all("order submit SOL USDC 2", f"order submit SOL USDC 2 --url {url}")
    assert re.search(r"fillwright order watch ord_\w{26}$", here.out)
    assert (next_ := re.search(rf"fillwright (order watch ord_\w{{26}} --url {url})$", elsewhere.out))
    assert terminal.run(f"{next_[1]}").code == 0


def test_a_client_order_id_makes_an_order_once(terminal: Terminal, order_id: str) -> None:
    again, other = terminal.run_all(
        f"order submit SOL USDC {AMOUNT} --slippage 0.005 --client-order-id mine",
        "order submit SOL USDC 2 --client-order-id mine",
    )
    assert again.code == 0
    assert f"order {order_id}: it was accepted before, and is confirmed\n" in again.out
    assert (other.code, other.out) == (1, "")
    assert other.err.endswith("(idempotency_mismatch)\n")


def test_json_is_the_engine_s_own_to_the_byte(terminal: Terminal, order_id: str) -> None:
    paths = {
        f"order get {order_id}": f"/api/orders/{order_id}",
        f"order explain {order_id}": f"/api/orders/{order_id}/explain",
    }
    for (line, path), printed in zip(
        paths.items(), terminal.run_all(*(f"{line} --json" for line in paths)), strict=True
    ):
        assert (printed.code, printed.out) == (0, fetch(terminal, path) + "\n"), line


def test_what_people_see_is_plain_text_where_it_is_piped(terminal: Terminal, order_id: str) -> None:
    words = {
        f"order get {order_id}": [order_id, "confirmed", f"{AMOUNT} SOL -> USDC, slippage 0.5 %", "selected"],
        f"order explain {order_id}": ["Attempt 1: ", "raydium", "meteora", "Quoted ", "; received "],
        "order list": [order_id, "confirmed", f"{AMOUNT} SOL -> ", "USDC"],
        "quote SOL USDC 1.5": ["1.5 SOL -> USDC: ", "raydium", "meteora", "an order would receive at least "],
        "stats": ["Waiting", "Completed", "Total"],
    }
    for (line, expected), seen in zip(words.items(), terminal.run_all(*words), strict=True):
        assert (seen.code, seen.err) == (0, ""), line
        assert "\x1b" not in seen.out, line
        assert [word for word in expected if word not in seen.out] == [], f"{line}: {seen.out}"


def test_what_is_watched_counted_and_reconciled_beside_the_engine_agrees(terminal: Terminal, order_id: str) -> None:
    watched, counted, reconciled = terminal.run_all(
        f"order watch {order_id} --after 3 --json", "stats --json", "reconcile --json"
    )
    _, *updates = watched.lines
    assert [(update["seq"], update["status"]) for update in updates] == [(4, "submitted"), (5, "confirmed")]
    assert counted.json["queue"]["completed"] == reconciled.json["confirmed"] >= 1
    assert reconciled.code == 0


def test_a_list_says_how_to_go_on_where_it_ended(terminal: Terminal, order_id: str) -> None:
    terminal.run("order submit USDC JUP 5 --watch")
    heading, newest, hint = terminal.run("order list --limit 1").out.splitlines()
    (next_page,) = re.findall("--cursor .+", hint)
    (older, *_) = terminal.run(f"order list {next_page} --json").json["orders"]
    assert heading.startswith("Order ")
    assert newest.split()[0] > older["orderId"]
