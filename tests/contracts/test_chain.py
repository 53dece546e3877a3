"""What every Chain keeps, shown on the simulated one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fillwright.chain.simulated import ChainSettings, Ledger, SimulatedChain
from fillwright.core.errors import ChainUnavailable, SlippageExceeded, TransactionReverted
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.units import min_out
from tests.builders import a_route, some_order
from tests.virtual import VirtualClock

QUOTED = 150_000_000
LEAST = min_out(QUOTED, 100)


@asynccontextmanager
async def a_chain(clock: VirtualClock, path: str = ":memory:", **settings: Any) -> AsyncIterator[SimulatedChain]:
    ledger = Ledger(path, clock)
    try:
        yield SimulatedChain(ledger, ChainSettings(**settings), clock)
    finally:
        ledger.close()


def attempt(number: int = 1, order: int = 1) -> Order:
    return replace(some_order(order), attempt=number)


async def sign(chain: SimulatedChain, order: Order | None = None) -> SignedTransaction:
    return await chain.sign(order or attempt(), a_route(QUOTED), LEAST)


async def outcome(chain: SimulatedChain, transaction: SignedTransaction) -> object:
    finalized = await chain.finalized()
    return await chain.outcome(transaction.signature, min_slot=finalized.slot)


async def test_signing_sends_nothing(clock: VirtualClock) -> None:
    async with a_chain(clock) as chain:
        transaction = await sign(chain)
        await clock.sleep(600_000)
        assert await outcome(chain, transaction) is None


async def test_a_sent_transaction_lands_with_a_fill_within_the_limit(clock: VirtualClock) -> None:
    async with a_chain(clock) as chain:
        transaction = await sign(chain)
        await chain.send(transaction)
        assert await outcome(chain, transaction) is None
        await clock.sleep(3_000)
        fill = await outcome(chain, transaction)
        assert isinstance(fill, Fill)
        assert LEAST <= fill.out_amount <= QUOTED


async def test_a_transaction_lands_once_however_often_it_is_sent(clock: VirtualClock) -> None:
    async with a_chain(clock) as chain:
        transaction = await sign(chain)
        for _ in range(20):
            await chain.send(transaction)
            await clock.sleep(500)
        assert len([swap async for swap in chain.landed_swaps()]) == 1


async def test_two_attempts_of_an_order_have_two_signatures(clock: VirtualClock) -> None:
    async with a_chain(clock) as chain:
        first, second = await sign(chain, attempt(1)), await sign(chain, attempt(2))
        assert first.signature != second.signature


async def test_the_chain_s_record_names_order_and_attempt(clock: VirtualClock) -> None:
    async with a_chain(clock) as chain:
        transaction = await sign(chain, attempt(2))
        await chain.send(transaction)
        await clock.sleep(3_000)
        (swap,) = [swap async for swap in chain.landed_swaps()]
        assert (swap.order_id, swap.attempt, swap.signature) == (attempt().id, 2, transaction.signature)


async def test_what_is_not_known_past_the_last_valid_height_can_never_land(clock: VirtualClock, tmp_path: Path) -> None:
    path = str(tmp_path / "chain.db")
    async with a_chain(clock, path, dropped_rate=1.0) as chain:
        transaction = await sign(chain)
        while (await chain.finalized()).block_height <= transaction.last_valid_block_height:
            await chain.send(transaction)
            await clock.sleep(1_000)
    async with a_chain(clock, path) as chain:
        assert await outcome(chain, transaction) is None
        await chain.send(transaction)
        await clock.sleep(60_000)
        assert await outcome(chain, transaction) is None


@pytest.mark.parametrize("seed", range(20))
async def test_a_late_transaction_lands_before_its_last_valid_height_or_never(clock: VirtualClock, seed: int) -> None:
    async with a_chain(clock, late_rate=1.0, seed=seed) as chain:
        transaction = await sign(chain)
        await chain.send(transaction)
        while (await chain.finalized()).block_height <= transaction.last_valid_block_height:
            await clock.sleep(400)
        decided = await outcome(chain, transaction)
        await clock.sleep(600_000)
        assert await outcome(chain, transaction) == decided


async def test_a_reverted_transaction_moves_nothing(clock: VirtualClock) -> None:
    async with a_chain(clock, reverted_rate=1.0) as chain:
        transaction = await sign(chain)
        await chain.send(transaction)
        await clock.sleep(3_000)
        assert isinstance(await outcome(chain, transaction), TransactionReverted)
        assert [swap async for swap in chain.landed_swaps()] == []


async def test_slippage_beyond_the_limit_reverts(clock: VirtualClock) -> None:
    async with a_chain(clock, slippage_exceeded_rate=1.0) as chain:
        transaction = await sign(chain)
        await chain.send(transaction)
        await clock.sleep(3_000)
        assert isinstance(await outcome(chain, transaction), SlippageExceeded)


async def test_a_lost_reply_does_not_undo_the_send(clock: VirtualClock) -> None:
    async with a_chain(clock, reply_lost_rate=1.0) as chain:
        transaction = await sign(chain)
        with pytest.raises(ChainUnavailable):
            await chain.send(transaction)
        await clock.sleep(3_000)
        assert len([swap async for swap in chain.landed_swaps()]) == 1


async def test_a_view_that_is_too_old_is_refused(clock: VirtualClock) -> None:
    async with a_chain(clock) as chain:
        transaction = await sign(chain)
        with pytest.raises(ChainUnavailable):
            await chain.outcome(transaction.signature, min_slot=2**40)


async def test_the_ledger_outlives_the_process_that_sent(clock: VirtualClock, tmp_path: Path) -> None:
    path = str(tmp_path / "chain.db")
    async with a_chain(clock, path) as chain:
        transaction = await sign(chain)
        await chain.send(transaction)
    await clock.sleep(3_000)
    async with a_chain(clock, path) as chain:
        assert isinstance(await outcome(chain, transaction), Fill)


async def test_what_is_bound_to_land_does_so_within_its_blocks_also_at_another_pace(
    clock: VirtualClock, tmp_path: Path
) -> None:
    path, late = str(tmp_path / "chain.db"), {"execution_ms_min": 40_000, "execution_ms_max": 40_000}
    async with a_chain(clock, path, **late) as chain:
        transaction = await sign(chain)
        await chain.send(transaction)
    ledger = Ledger(path, clock, speed=0)
    quick = SimulatedChain(ledger, ChainSettings(), clock)
    while (await quick.finalized()).block_height <= transaction.last_valid_block_height:
        await clock.sleep(100)
    decided = await outcome(quick, transaction)
    assert isinstance(decided, Fill)
    ledger.close()


async def test_a_change_of_pace_counts_once_also_after_the_clock_was_set_back(
    clock: VirtualClock, tmp_path: Path
) -> None:
    path, late = str(tmp_path / "chain.db"), {"execution_ms_min": 20_000, "execution_ms_max": 20_000}
    async with a_chain(clock, path, **late) as chain:
        transaction = await sign(chain)
        await chain.send(transaction)
    clock.skew_ms = -60_000
    for _ in range(3):
        Ledger(path, clock, speed=0.1).close()
    ledger = Ledger(path, clock, speed=0.1)
    quick = SimulatedChain(ledger, ChainSettings(), clock)
    while (await quick.finalized()).block_height <= transaction.last_valid_block_height:
        await clock.sleep(100)
    decided = await outcome(quick, transaction)
    await clock.sleep(600_000)
    assert await outcome(quick, transaction) == decided
    ledger.close()


async def test_the_same_ledger_is_the_same_chain_and_another_is_another(clock: VirtualClock, tmp_path: Path) -> None:
    names = []
    for name in ("one", "one", "another"):
        async with a_chain(clock, str(tmp_path / name)) as chain:
            names.append(chain.identity)
    assert names[0] == names[1] != names[2]


async def test_block_heights_go_on_where_they_were_also_at_another_speed(clock: VirtualClock, tmp_path: Path) -> None:
    path, heights = str(tmp_path / "chain.db"), list[int]()
    for speed in (0, 1.0, 0.5):
        ledger = Ledger(path, clock, speed)
        heights.append(ledger.height(clock.now_ms()))
        await clock.sleep(10_000)
        heights.append(ledger.height(clock.now_ms()))
        ledger.close()
    assert heights == sorted(heights)
    assert heights[1] - heights[0] == 250
    assert heights[3] - heights[2] == 25
