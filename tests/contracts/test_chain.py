"""What every Chain keeps, shown on the simulated one and on a local Solana chain behind its nodes' door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from fillwright.chain.hints import Hints
from fillwright.chain.simulated import ChainSettings, Ledger, SimulatedChain
from fillwright.chain.solana import SolanaChain, SolanaSettings
from fillwright.chain.wallet import open_wallet
from fillwright.core.errors import ChainUnavailable, NotFinal, SlippageExceeded, TransactionReverted
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Chain, Finalized
from fillwright.core.routing import QuoteRequest, Route, best_route
from fillwright.core.units import BaseUnits, min_out
from fillwright.localnet.faults import Fault, Rates
from fillwright.localnet.world import SOL, USDC, place_cpmm
from fillwright.settings import Settings
from fillwright.solana import connect
from tests.builders import a_route, some_order
from tests.chain.trading import SLOT_MS, ticking, trading_settings
from tests.localnet.local import Local, a_local_chain
from tests.virtual import VirtualClock

QUOTED = 150_000_000
LEAST = min_out(QUOTED, 100)


@dataclass(frozen=True)
class Subject:
    """A chain with something wrong, a route over it, and the same chain for another process, with nothing wrong."""

    chain: Chain
    route: Route
    least: BaseUnits
    clock: VirtualClock
    reopened: Callable[[], AbstractAsyncContextManager[Chain]]

    async def sign(self, order: Order | None = None) -> SignedTransaction:
        return await self.chain.sign(order or attempt(), self.route, self.least)

    async def settled(self, transaction: SignedTransaction) -> object:
        """Return the outcome once there is one that no fork can undo."""
        while True:
            try:
                return await outcome(self.chain, transaction)
            except NotFinal:
                await self.clock.sleep(SLOT_MS)

    async def expire(self, transaction: SignedTransaction) -> None:
        """Return once the chain is final past the transaction's last valid height."""
        while (await self.chain.finalized()).block_height <= transaction.last_valid_block_height:
            await self.clock.sleep(SLOT_MS)

    async def swaps(self) -> list[Any]:
        return [swap async for swap in self.chain.landed_swaps()]


Opened: TypeAlias = Callable[..., AbstractAsyncContextManager[Subject]]

SIMULATED: Final = {
    "": {},
    "dropped": {"dropped_rate": 1.0},
    "late": {"late_rate": 1.0},
    "reverted": {"reverted_rate": 1.0},
    "slippage": {"slippage_exceeded_rate": 1.0},
    "reply lost": {"reply_lost_rate": 1.0},
}


@asynccontextmanager
async def a_simulated_chain(
    clock: VirtualClock, path: str = ":memory:", **settings: Any
) -> AsyncIterator[SimulatedChain]:
    ledger = Ledger(path, clock)
    try:
        yield SimulatedChain(ledger, ChainSettings(**settings), clock)
    finally:
        ledger.close()


@asynccontextmanager
async def simulated(folder: Path, trouble: str = "", seed: int = 0) -> AsyncIterator[Subject]:
    clock, path = VirtualClock(), str(folder / f"chain {seed}.db")
    async with a_simulated_chain(clock, path, seed=seed, **SIMULATED[trouble]) as chain:
        yield Subject(chain, a_route(QUOTED), LEAST, clock, lambda: a_simulated_chain(clock, path))


@asynccontextmanager
async def on_solana(folder: Path, trouble: str = "", seed: int = 0) -> AsyncIterator[Subject]:
    async with a_local_chain(seed) as local, ticking(local):
        (pool,) = (address for pool_type, address in local.market.pools if pool_type.name == "cpmm")
        settings = Settings(**trading_settings(local, [pool], folder))
        terms = attempt().terms

        @asynccontextmanager
        async def opened() -> AsyncIterator[SolanaChain]:
            async with connect(settings, local.clock) as solana:
                wallet = open_wallet(settings.wallet, {})
                hints, rules = Hints("", 800), SolanaSettings()
                yield SolanaChain(solana.rpc, wallet, solana.pools, local.clock, rules, solana.genesis_hash, hints)

        @asynccontextmanager
        async def reopened() -> AsyncIterator[SolanaChain]:
            local.faults.clear()
            async with opened() as chain:
                yield chain

        async with connect(settings, local.clock) as solana, opened() as chain:
            request = QuoteRequest(terms.token_in, terms.token_out, terms.in_amount, local.clock.now_ms())
            route = best_route(request, await solana.pools.quote(request))
            trouble_solana(local, trouble)
            yield Subject(chain, route, min_out(route.quote.out_amount, 100), local.clock, reopened)


def trouble_solana(local: Local, trouble: str) -> None:
    def robbed(_: VersionedTransaction) -> int:
        local.chain.set_account(local.wallet.pubkey(), Account(SOL // 2, b"", Pubkey.default()))
        return 1

    def outrun(_: VersionedTransaction) -> int:
        place_cpmm(local.chain, 20_000 * SOL, 2_900_000 * USDC)
        return 1

    match trouble:
        case "dropped":
            local.faults.landing = ((1.0, None),)
        case "late":
            local.faults.landing = ((1.0, (140, 160)),)
        case "reverted":
            local.chain.landing = robbed
        case "slippage":
            local.chain.landing = outrun
        case "reply lost":
            local.faults.rates = {"sendTransaction": Rates(after={Fault.LOST: 1.0})}


@pytest.fixture(params=[simulated, on_solana], ids=["simulated", "solana"])
def a_chain(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    def opened(trouble: str = "", seed: int = 0) -> AbstractAsyncContextManager[Subject]:
        subject: AbstractAsyncContextManager[Subject] = request.param(tmp_path, trouble, seed)
        return subject

    return opened


def attempt(number: int = 1, order: int = 1) -> Order:
    return replace(some_order(order), attempt=number)


async def outcome(chain: Chain, transaction: SignedTransaction) -> object:
    finalized = await chain.finalized()
    return await chain.outcome(transaction, finalized)


async def test_signing_sends_nothing(a_chain: Opened) -> None:
    async with a_chain() as subject:
        transaction = await subject.sign()
        await subject.clock.sleep(120_000)
        assert await outcome(subject.chain, transaction) is None
        assert await subject.swaps() == []


async def test_a_sent_transaction_lands_with_a_fill_within_the_limit(a_chain: Opened) -> None:
    async with a_chain() as subject:
        transaction = await subject.sign()
        await subject.chain.send(transaction)
        assert await outcome(subject.chain, transaction) is None
        await subject.clock.sleep(3_000)
        fill = await outcome(subject.chain, transaction)
        assert isinstance(fill, Fill)
        assert fill.in_amount == attempt().terms.in_amount
        assert subject.least <= fill.out_amount <= subject.route.quote.out_amount


async def test_a_transaction_lands_once_however_often_it_is_sent(a_chain: Opened) -> None:
    async with a_chain() as subject:
        transaction = await subject.sign()
        for _ in range(20):
            await subject.chain.send(transaction)
            await subject.clock.sleep(500)
        assert len(await subject.swaps()) == 1


async def test_two_attempts_of_an_order_have_two_signatures(a_chain: Opened) -> None:
    async with a_chain() as subject:
        first, second = await subject.sign(attempt(1)), await subject.sign(attempt(2))
        assert first.signature != second.signature


async def test_the_chain_s_record_names_order_attempt_and_the_fill_that_was_told(a_chain: Opened) -> None:
    async with a_chain() as subject:
        transaction = await subject.sign(attempt(2))
        await subject.chain.send(transaction)
        await subject.clock.sleep(3_000)
        fill = await outcome(subject.chain, transaction)
        (swap,) = await subject.swaps()
        assert (swap.order_id, swap.attempt, swap.signature, swap.fill) == (
            attempt().id,
            2,
            transaction.signature,
            fill,
        )


async def test_what_is_not_known_past_the_last_valid_height_can_never_land(a_chain: Opened) -> None:
    async with a_chain("dropped") as subject:
        transaction = await subject.sign()
        while (await subject.chain.finalized()).block_height <= transaction.last_valid_block_height:
            await subject.chain.send(transaction)
            await subject.clock.sleep(1_000)
        async with subject.reopened() as chain:
            assert await outcome(chain, transaction) is None
            await chain.send(transaction)
            await subject.clock.sleep(60_000)
            assert await outcome(chain, transaction) is None


@pytest.mark.parametrize("seed", range(8))
async def test_a_late_transaction_lands_before_its_last_valid_height_or_never(a_chain: Opened, seed: int) -> None:
    async with a_chain("late", seed) as subject:
        transaction = await subject.sign()
        await subject.chain.send(transaction)
        await subject.expire(transaction)
        decided = await outcome(subject.chain, transaction)
        await subject.clock.sleep(120_000)
        assert await outcome(subject.chain, transaction) == decided


async def test_a_reverted_transaction_moves_nothing(a_chain: Opened) -> None:
    async with a_chain("reverted") as subject:
        transaction = await subject.sign()
        await subject.chain.send(transaction)
        await subject.clock.sleep(3_000)
        assert isinstance(await subject.settled(transaction), TransactionReverted)
        assert await subject.swaps() == []


async def test_slippage_beyond_the_limit_reverts(a_chain: Opened) -> None:
    async with a_chain("slippage") as subject:
        transaction = await subject.sign()
        await subject.chain.send(transaction)
        await subject.clock.sleep(3_000)
        assert isinstance(await subject.settled(transaction), SlippageExceeded)
        assert await subject.swaps() == []


async def test_a_lost_reply_does_not_undo_the_send(a_chain: Opened) -> None:
    async with a_chain("reply lost") as subject:
        transaction = await subject.sign()
        with pytest.raises(ChainUnavailable):
            await subject.chain.send(transaction)
        await subject.clock.sleep(3_000)
        assert len(await subject.swaps()) == 1


async def test_a_view_that_is_too_old_is_refused(a_chain: Opened) -> None:
    async with a_chain() as subject:
        transaction = await subject.sign()
        with pytest.raises(ChainUnavailable):
            await subject.chain.outcome(transaction, Finalized(0, 2**40))


async def test_what_was_sent_outlives_the_process_that_sent_it(a_chain: Opened) -> None:
    async with a_chain() as subject:
        transaction = await subject.sign()
        await subject.chain.send(transaction)
        await subject.clock.sleep(3_000)
        async with subject.reopened() as chain:
            assert isinstance(await outcome(chain, transaction), Fill)


async def test_the_same_chain_has_one_name_and_another_has_another(a_chain: Opened) -> None:
    async with a_chain() as one, one.reopened() as again, a_chain(seed=1) as another:
        assert one.chain.identity == again.identity != another.chain.identity


# Of the simulated chain alone.


async def test_what_is_bound_to_land_does_so_within_its_blocks_also_at_another_pace(
    clock: VirtualClock, tmp_path: Path
) -> None:
    path, late = str(tmp_path / "chain.db"), {"execution_ms_min": 40_000, "execution_ms_max": 40_000}
    async with a_simulated_chain(clock, path, **late) as chain:
        transaction = await chain.sign(attempt(), a_route(QUOTED), LEAST)
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
    async with a_simulated_chain(clock, path, **late) as chain:
        transaction = await chain.sign(attempt(), a_route(QUOTED), LEAST)
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
