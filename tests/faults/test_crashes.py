"""Crash before and after every append and every call to the chain, start again, and look at the chain.

A crash is simulated at a port: the wrapped store or chain raises `Crash` just before or just after the real thing and
never answers again, as if the process were gone. What comes after is a new engine on the same files.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fillwright.app import open_chain, open_ledger
from fillwright.backends import open_store
from fillwright.backends.memory import MemoryBus
from fillwright.core.errors import ExecutionError
from fillwright.core.lifecycle import TERMINAL, Accepted, Event
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Chain, Claims, Finalized, Store
from fillwright.core.retry import RetryPolicy
from fillwright.core.units import OrderId
from fillwright.execution.executor import Executor, ExecutorSettings
from fillwright.execution.gate import Gate
from fillwright.execution.reconcile import Reconciliation, reconcile
from fillwright.execution.risk import Risk
from fillwright.execution.worker import Worker, WorkerSettings
from fillwright.settings import Settings
from fillwright.venues import VENUES
from fillwright.venues.simulated import Market, MarketSettings, SimulatedPrices
from tests.builders import some_id, some_terms
from tests.virtual import EPOCH_MS, VirtualClock, until

LEASE_MS = 5_000


class Fuse:
    """Counts the dangerous moments and blows at one of them."""

    def __init__(self, blows_at: int | None) -> None:
        self.passed = 0
        self.blown = False
        self._blows_at = blows_at

    async def moment(self) -> None:
        """Pass a moment at which the process may die; never return if it does, or has."""
        if not self.blown:
            self.blown = self.passed == self._blows_at
            self.passed += 1
        if self.blown:
            await asyncio.Event().wait()


class CrashingStore:
    """The real store, with a moment before and after every write."""

    def __init__(self, store: Store, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        await self._fuse.moment()
        after = await self._store.append(order, event, lease)
        await self._fuse.moment()
        return after

    async def claim(self, worker: str, limit: int, *, begun_only: bool = False) -> Claims:
        if self._fuse.blown:
            await self._fuse.moment()
        claims = await self._store.claim(worker, limit, begun_only=begun_only)
        if claims.taken:
            await self._fuse.moment()
        return claims

    async def renew(self, claims: Sequence[tuple[OrderId, int]]) -> None:
        if not self._fuse.blown:
            await self._store.renew(claims)


class CrashingChain:
    """The real chain, with a moment before and after every send."""

    def __init__(self, chain: Chain, fuse: Fuse) -> None:
        self._chain, self._fuse = chain, fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def send(self, transaction: SignedTransaction) -> None:
        await self._fuse.moment()
        await self._chain.send(transaction)
        await self._fuse.moment()


class Life:
    """One run of an engine's process: its store, its worker, and its death."""

    def __init__(self, store: Store, chain: Chain, fuse: Fuse, worker: Worker) -> None:
        self.store, self.chain, self.fuse, self.worker = store, chain, fuse, worker

    async def settled(self) -> bool:
        return not [order async for order in self.store.scan() if order.status not in TERMINAL]


@asynccontextmanager
async def a_life(folder: Path, clock: VirtualClock, blows_at: int | None, **chain: Any) -> AsyncIterator[Life]:
    settings = Settings(database_url=f"sqlite:///{folder}/orders.db", **chain)
    bus, fuse = MemoryBus(), Fuse(blows_at)
    store = await open_store(
        settings.database_url,
        clock=clock,
        committed=bus.publish,
        capacity=100,
        lease_ms=LEASE_MS,
        starts_per_minute=0,
        threaded=False,
    )
    ledger = open_ledger(settings, clock)
    real_chain = open_chain(settings, ledger, clock)
    market = Market(MarketSettings(fee_bps={"raydium": 30, "meteora": 20}))
    venues = [make(name, market, clock) for name, make in VENUES.items()]
    gate = Gate(store, clock)
    executor = Executor(
        venues,
        CrashingChain(real_chain, fuse),
        clock,
        RetryPolicy(),
        Risk(gate, store, venues, SimulatedPrices(market, clock), clock, 2_000),
        ExecutorSettings(),
        random.Random(0).random,
    )
    await gate.open()
    worker = Worker(
        CrashingStore(store, fuse),
        executor,
        bus,
        clock,
        gate,
        WorkerSettings("w", concurrency=10, lease_ms=LEASE_MS),
    )
    running = asyncio.create_task(worker.run())
    try:
        yield Life(store, real_chain, fuse, worker)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await gate.close()
        await store.close()
        ledger.close()


async def live_through(folder: Path, clock: VirtualClock, crash_at: int, orders: int, **chain: Any) -> Reconciliation:
    """Accept orders, crash at the given moment, start again, and wait for the end."""
    async with a_life(folder, clock, crash_at, **chain) as life:
        for number in range(orders):
            await life.store.accept(some_id(number, EPOCH_MS), Accepted(some_terms()))
        await until(lambda: life.fuse.blown)
    async with a_life(folder, clock, None, **chain) as life:
        started = clock.now_ms()
        while not await life.settled():
            await clock.sleep(250)
            assert clock.now_ms() - started < 600_000, "not settled after ten minutes"
        result = await reconcile(life.store, life.chain)
        if not chain:
            assert clock.now_ms() - started < LEASE_MS + 4_000, "settled soon after the lease ran out"
    return result


MOMENTS_OF_ONE_ORDER = [
    "after the claim",
    "before RouteSelected",
    "after RouteSelected",
    "before TransactionSigned",
    "after TransactionSigned",
    "before the send",
    "after the send",
    "before the bytes are sent again",
    "after the bytes are sent again",
    "before Confirmed",
    "after Confirmed",
]


@pytest.mark.parametrize("moment", range(len(MOMENTS_OF_ONE_ORDER)), ids=MOMENTS_OF_ONE_ORDER)
async def test_an_order_survives_a_crash_and_is_swapped_once(tmp_path: Path, moment: int) -> None:
    clock = VirtualClock()
    result = await live_through(tmp_path, clock, moment, orders=1)
    assert (result.confirmed, result.findings) == (1, [])


async def test_the_moments_above_are_all_that_there_are(tmp_path: Path) -> None:
    async with a_life(tmp_path, VirtualClock(), None) as life:
        await life.store.accept(some_id(), Accepted(some_terms()))
        await asyncio.sleep(10)
        assert await life.settled()
        assert life.fuse.passed == len(MOMENTS_OF_ONE_ORDER)


@pytest.mark.parametrize("seed", range(25))
async def test_ten_orders_survive_a_crash_anywhere_on_a_chain_that_loses_and_delays(tmp_path: Path, seed: int) -> None:
    moment = random.Random(seed).randrange(60)
    result = await live_through(
        tmp_path,
        VirtualClock(),
        moment,
        orders=10,
        sim_seed=seed,
        sim_dropped_rate=0.3,
        sim_late_rate=0.3,
        sim_reverted_rate=0.1,
        sim_reply_lost_rate=0.3,
    )
    assert (result.orders, result.open, result.findings) == (10, 0, [])


async def test_a_worker_that_wakes_up_after_its_lease_ran_out_changes_nothing(tmp_path: Path) -> None:
    """Two workers on one store: the first freezes with an order in hand, the second finishes it, the first wakes."""
    clock = VirtualClock()
    async with a_life(tmp_path, clock, 3) as frozen:
        await frozen.store.accept(some_id(), Accepted(some_terms()))
        await until(lambda: frozen.fuse.blown)
        (held,) = [order async for order in frozen.store.scan()]
        async with a_life(tmp_path, clock, None) as other:
            while not await other.settled():
                await clock.sleep(250)
            log = await other.store.history(held.id)
        with pytest.raises(Exception, match="lease 1 was followed by 2"):
            await frozen.store.append(held, log[3].event, 1)
        assert await frozen.store.history(held.id) == log
        assert (await reconcile(frozen.store, frozen.chain)).findings == []


class SilentChain:
    """The real chain, which never answers the first few calls of each kind."""

    def __init__(self, chain: Chain, silences: int) -> None:
        self._chain = chain
        self._left = dict.fromkeys(("finalized", "outcome", "send"), silences)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def _or_silence(self, name: str) -> None:
        self._left[name] -= 1
        if self._left[name] >= 0:
            await asyncio.Event().wait()

    async def send(self, transaction: SignedTransaction) -> None:
        await self._chain.send(transaction)
        await self._or_silence("send")

    async def finalized(self) -> Finalized:
        await self._or_silence("finalized")
        return await self._chain.finalized()

    async def outcome(self, transaction: SignedTransaction, finalized: Finalized) -> Fill | ExecutionError | None:
        await self._or_silence("outcome")
        return await self._chain.outcome(transaction, finalized)


async def test_a_send_that_is_never_answered_does_not_keep_the_outcome_from_being_seen(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with a_life(tmp_path, clock, None) as life:
        chain = SilentChain(life.chain, silences=0)
        chain._left["send"] = 1_000
        life.worker._executor._chain = chain
        await life.store.accept(some_id(), Accepted(some_terms()))
        await asyncio.sleep(30)
        assert await life.settled()
        assert (await reconcile(life.store, life.chain)).confirmed == 1


async def test_a_chain_that_never_answers_is_asked_again_and_holds_nobody_for_ever(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with a_life(tmp_path, clock, None) as life:
        life.worker._executor._chain = SilentChain(life.chain, silences=3)
        await life.store.accept(some_id(), Accepted(some_terms()))
        started = clock.now_ms()
        while not await life.settled():
            await clock.sleep(250)
            assert clock.now_ms() - started < 200_000
        result = await reconcile(life.store, life.chain)
        assert (result.confirmed, result.findings) == (1, [])
