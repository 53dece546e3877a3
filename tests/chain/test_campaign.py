"""The campaign on the local chain, in short: clean as the engine is, and fatal to every mistake that it is to catch."""

from __future__ import annotations

from typing import Final

import pytest

from tests.chain.campaign import LATE, PLANTED, campaign

SEED = 20_261_128
ORDERS = 40
TO_CATCH = {"signs anew after 30 s": 8, "judges by the tip, without a last look": 10, "records after sending": 20}
"""So many orders show a mistake, under the faults that suit it."""
TRIES: Final = 4
"""Chance decides whether one lot of orders meets the moment that a mistake needs: real sockets keep no seed."""


async def test_under_every_fault_no_order_is_lost_doubled_or_misreported() -> None:
    verdict = await campaign(SEED, ORDERS)
    print(verdict)
    assert verdict.is_clean
    assert sum(verdict.statuses.values()) == ORDERS
    assert verdict.crashes > 2


async def test_what_lands_in_its_last_blocks_and_is_told_late_is_not_swapped_twice() -> None:
    verdict = await campaign(SEED, 10, mix=LATE)
    print(verdict)
    assert verdict.is_clean


@pytest.mark.parametrize(("name", "orders"), TO_CATCH.items())
async def test_a_planted_mistake_is_caught(name: str, orders: int) -> None:
    executor, mix = PLANTED[name]
    for seed in range(SEED, SEED + TRIES):
        verdict = await campaign(seed, orders, executor, mix)
        print(verdict)
        if verdict.doubled:
            return
    pytest.fail(f"not caught in {TRIES} times {orders} orders")
