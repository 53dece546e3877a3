"""The Python client of programs without an event loop, over an engine as an operator runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest

from fillwright.client import Fillwright, Refused, Status, Update
from tests.cli.terminal import Running, Terminal

LIFE = ["pending", "routing", "building", "submitted", "confirmed"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Terminal(tmp_path_factory.mktemp("engine"), QUEUE_RATE_LIMIT="0").serve() as (terminal, _):
        yield f"http://127.0.0.1:{terminal.settings['PORT']}"


def test_every_operation_works_without_an_event_loop(url: str) -> None:
    with Fillwright(url) as client:
        route = client.quote("SOL", "USDC", "1.5")
        accepted = client.submit("SOL", "USDC", Decimal("1.5"), client_order_id="mine")
        assert [update.status for update in client.follow(accepted.order_id)] == LIFE
        order = client.wait(accepted.order_id)
        assert (order.status, order.terms) == (Status.CONFIRMED, route.terms)
        assert client.get(accepted.order_id) == order
        assert [event.seq for event in client.events(accepted.order_id, after=3)] == [4, 5]
        assert client.explain(accepted.order_id).decisions[0].quotes == order.quotes
        assert [each.order_id for each in client.list(client_order_id="mine")] == [accepted.order_id]
        assert client.stats().confirmed >= 1
        assert client.submit("SOL", "USDC", "1.50", client_order_id="mine").order_id == accepted.order_id
        with pytest.raises(Refused) as refused:
            client.cancel(accepted.order_id)
    assert refused.value.code == "not_cancellable"


def test_all_orders_are_followed_by_one_thread_while_another_submits(url: str) -> None:
    seen: list[Update] = []
    with Fillwright(url) as client:

        def follow() -> None:
            for update in client.follow_all():
                seen.append(update)
                if update.is_last:
                    return

        following = threading.Thread(target=follow)
        streams = client.stats().streams
        following.start()
        while client.stats().streams == streams:
            pass
        order_id = client.submit("SOL", "USDC", "1").order_id
        following.join(20)
        assert not following.is_alive()
    assert [(update.order_id, update.seq) for update in seen] == [(order_id, seq) for seq in range(1, 6)]


def test_closing_is_final_and_may_be_repeated(url: str) -> None:
    client = Fillwright(url)
    updates = client.follow_all()

    def follow() -> None:
        with pytest.raises(RuntimeError, match="closed"):
            next(updates)

    following = threading.Thread(target=follow)
    before = client.stats().streams
    following.start()
    while client.stats().streams == before:
        pass
    client.close()
    client.close()
    following.join(20)
    assert not following.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        client.stats()


def test_ctrl_c_ends_what_is_waited_for_and_nothing_else(url: str) -> None:
    script = f"""
from fillwright.client import Fillwright
with Fillwright("{url}") as client:
    order_id = client.submit("SOL", "USDC", "1").order_id
    try:
        for update in client.follow_all():
            print("told", flush=True)
    except KeyboardInterrupt:
        print(client.wait(order_id).status, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    running = Running(process)
    try:
        with Fillwright(url) as client:
            while not client.stats().streams:
                pass
            client.submit("SOL", "USDC", "1")
        running.out.until("told")
        ended = running.end(signal.SIGINT)
    finally:
        running.clean_up()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("confirmed\n")
