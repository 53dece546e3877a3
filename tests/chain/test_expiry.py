"""A transaction is dead only by the word of two nodes, where there are two: one that is wrong must double nothing."""

from __future__ import annotations

import pytest

from fillwright.core.errors import ChainUnavailable
from fillwright.core.units import Signature
from tests.chain.node import SKIPPED, Node, drop, status_json
from tests.chain.test_rpc import ABSENT, FINAL, SLOT, an_rpc

HEIGHT = FINAL - SKIPPED
EXPIRED = HEIGHT - 1


async def test_what_two_nodes_do_not_know_past_its_last_block_is_dead() -> None:
    nodes = Node(), Node(), Node()
    async with an_rpc(*nodes) as rpc:
        await rpc.check_expired(ABSENT, EXPIRED)
    asked = ["getEpochInfo", "getSignatureStatuses", "getFirstAvailableBlock"]
    assert [node.methods for node in nodes] == [asked, asked, []]


async def test_one_node_that_is_ahead_of_the_truth_kills_nothing() -> None:
    ahead, good = Node(SLOT + 10_000), Node()
    async with an_rpc(ahead, good) as rpc:
        with pytest.raises(ChainUnavailable, match=f"it has finalized block {HEIGHT}"):
            await rpc.check_expired(ABSENT, HEIGHT)


@pytest.mark.parametrize("knows", [0, 1])
async def test_a_node_that_knows_the_signature_outweighs_one_that_does_not(knows: int) -> None:
    nodes = Node(), Node()
    nodes[knows].statuses[ABSENT] = status_json(FINAL)
    async with an_rpc(*nodes) as rpc:
        with pytest.raises(ChainUnavailable, match=f"knows {ABSENT}"):
            await rpc.check_expired(ABSENT, EXPIRED)


async def test_while_only_one_of_two_answers_nothing_is_dead_and_of_three_two_are_enough() -> None:
    silent, good, other = Node(), Node(), Node()
    silent.always = drop
    async with an_rpc(silent, good) as rpc:
        with pytest.raises(ChainUnavailable, match="too few nodes"):
            await rpc.check_expired(ABSENT, EXPIRED)
    async with an_rpc(silent, good, other) as rpc:
        await rpc.check_expired(ABSENT, EXPIRED)


async def test_where_there_is_one_node_its_word_is_all_there_is() -> None:
    async with an_rpc(Node()) as rpc:
        await rpc.check_expired(ABSENT, EXPIRED)
        with pytest.raises(ChainUnavailable):
            await rpc.check_expired(ABSENT, HEIGHT)


@pytest.mark.parametrize(("first", "is_enough"), [(FINAL - 302, True), (FINAL - 301, False)])
async def test_a_history_that_begins_after_the_signing_proves_nothing(first: int, is_enough: bool) -> None:
    node = Node()
    node.results["getFirstAvailableBlock"] = first
    async with an_rpc(node) as rpc:
        if is_enough:
            await rpc.check_expired(Signature(ABSENT), EXPIRED)
            return
        with pytest.raises(ChainUnavailable, match=f"its history begins at slot {first}"):
            await rpc.check_expired(Signature(ABSENT), EXPIRED)
