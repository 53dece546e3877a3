"""The campaign on the local chain, in short: clean as the engine is, and fatal to every mistake that it is to catch."""

from __future__ import annotations

import pytest

from tests.chain.campaign import LATE, PLANTED, campaign

SEED = 20_261_128
ORDERS = 40
FEW = 20


async def test_under_every_fault_no_order_is_lost_doubled_or_misreported() -> None:
    verdict = await campaign(SEED, ORDERS)
    print(verdict)
    assert verdict.is_clean
    assert sum(verdict.statuses.values()) == ORDERS
    assert verdict.crashes > 2


async def test_what_lands_in_its_last_blocks_and_is_told_late_is_not_swapped_twice() -> None:
    verdict = await campaign(SEED, FEW // 2, mix=LATE)
    print(verdict)
    assert verdict.is_clean


@pytest.mark.parametrize("name", PLANTED)
async def test_a_planted_mistake_is_caught(name: str) -> None:
    executor, mix = PLANTED[name]
    verdict = await campaign(SEED, FEW, executor, mix)
    print(verdict)
    assert verdict.doubled
