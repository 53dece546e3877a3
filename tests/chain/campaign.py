"""Orders on a local chain where everything goes wrong, and a judge that asks the chain itself what happened.

Transactions are dropped, land late or past their time, replies are lost, views lag, the nodes go dark for ten minutes,
and the engine's process dies at every step and is started again. `python -m tests.chain.campaign --orders 1000` runs
it; with `--planted`, each mistake that engines of this kind make must be caught by it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fillwright.backends import open_store
from fillwright.backends.memory import MemoryBus
from fillwright.chain.hints import Hints
from fillwright.chain.rpc import Rpc
from fillwright.chain.solana import SolanaChain, SolanaSettings
from fillwright.chain.wallet import open_wallet
from fillwright.core.errors import ChainUnavailable, TransactionExpired, VenueUnavailable
from fillwright.core.lifecycle import TERMINAL, Accepted, Event, TransactionSigned
from fillwright.core.order import Fill, Order, OrderStatus, SignedTransaction, Terms
from fillwright.core.ports import Finalized
from fillwright.core.retry import RetryPolicy
from fillwright.core.tokens import WELL_KNOWN
from fillwright.execution.executor import Executor, ExecutorSettings
from fillwright.execution.gate import Gate
from fillwright.execution.risk import Risk
from fillwright.execution.worker import Worker, WorkerSettings
from fillwright.localnet.faults import ALL, CAMPAIGN, Fault, LandingMix, Rates
from fillwright.settings import Settings
from fillwright.solana import connect
from tests.builders import some_id
from tests.chain.trading import all_of_them, ticking, trading_settings
from tests.faults.test_crashes import CrashingStore, Fuse, Life
from tests.localnet.local import Local, a_local_chain
from tests.virtual import EPOCH_MS, run

SOL, USDC = WELL_KNOWN[:2]
LEASE_MS = 5_000
CONCURRENCY = 20
GIVE_UP_MS = 6 * 3_600_000


class CrashingChain:
    """The real chain, with a moment before and after every signing and every send."""

    def __init__(self, chain: SolanaChain, fuse: Fuse) -> None:
        self._chain, self._fuse = chain, fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def sign(self, *args: Any) -> SignedTransaction:
        await self._fuse.moment()
        signed = await self._chain.sign(*args)
        await self._fuse.moment()
        return signed

    async def send(self, transaction: SignedTransaction) -> None:
        await self._fuse.moment()
        await self._chain.send(transaction)
        await self._fuse.moment()


class SignsAnewAfter30s(Executor):
    """Planted: what has not landed within half a minute is taken for dead."""

    async def _land(self, order: Order) -> Event:
        try:
            async with asyncio.timeout(30):
                return await super()._land(order)
        except TimeoutError:
            return self._end_of_attempt(order, TransactionExpired("nothing was heard of it for 30 s"))


class JudgesByTheTip(Executor):
    """Planted: past its height by the newest confirmed block, a transaction is dead, without a last look."""

    async def _look(self, transaction: SignedTransaction) -> tuple[Finalized, Any]:
        rpc: Rpc = self._chain._rpc  # type: ignore[attr-defined]  # it is what this mistake would ask
        outcome = await self._chain.outcome(transaction, Finalized(0, 0))
        blockhash = await rpc.latest_blockhash()
        return Finalized(blockhash.last_valid_block_height - 150, blockhash.slot), outcome


class RecordsAfterSending(Executor):
    """Planted: the signature is written down once the bytes are on their way."""

    async def _sign(self, order: Order) -> Event:
        event = await super()._sign(order)
        assert isinstance(event, TransactionSigned)
        await self._send(order, event.transaction)
        return event


@dataclass(frozen=True)
class Mix:
    """What goes wrong besides lost calls.

    After how many blocks transactions land, the share of the statuses that is told up to 25 blocks late, within how
    many dangerous moments the process dies, and for how long no node can be reached.
    """

    landing: LandingMix = CAMPAIGN
    hidden_rate: float = 0.2
    moments_max: int = 400
    dark_ms: int = 600_000


USUAL = Mix()
SLOW = Mix(((0.94, (80, 120)), (0.06, (1, 5))), moments_max=4_000, dark_ms=0)
"""Most sendings land after half a minute or more, and the process lives to see it."""
LATE = Mix(((1.0, (138, 147)),), hidden_rate=0.8, dark_ms=0)
"""What lands does so in the last blocks that it can, and most statuses are told late."""
DEADLY = Mix(moments_max=50, dark_ms=0)
"""The process dies again and again while orders are signed and sent."""

PLANTED: dict[str, tuple[type[Executor], Mix]] = {
    "signs anew after 30 s": (SignsAnewAfter30s, SLOW),
    "judges by the tip, without a last look": (JudgesByTheTip, LATE),
    "records after sending": (RecordsAfterSending, DEADLY),
}
AS_IT_IS: dict[str, tuple[type[Executor], Mix]] = {
    "as it is": (Executor, USUAL),
    "as it is, slow": (Executor, SLOW),
    "as it is, late": (Executor, LATE),
    "as it is, deadly": (Executor, DEADLY),
}


@dataclass
class Verdict:
    orders: int = 0
    accepted: int = 0
    is_over: bool = False
    crashes: int = 0
    lives: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    misreported: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.misreported)


@contextlib.asynccontextmanager
async def a_life(
    folder: Path, local: Local, blows_at: int | None, chance: random.Random, executor: type[Executor]
) -> AsyncIterator[Life]:
    """Run an engine's process until it dies."""
    settings = Settings(
        database_url=f"sqlite:///{folder}/orders.db", **trading_settings(local, all_of_them(local), folder)
    )
    bus, fuse, clock = MemoryBus(), Fuse(blows_at), local.clock
    store = await open_store(
        settings.database_url,
        clock=clock,
        committed=bus.publish,
        capacity=100_000,
        lease_ms=LEASE_MS,
        starts_per_minute=0,
        threaded=False,
    )
    async with connect(settings, clock) as solana:
        wallet = open_wallet(settings.wallet, {})
        hints = Hints("", 800)
        chain = SolanaChain(solana.rpc, wallet, solana.pools, clock, SolanaSettings(), solana.genesis_hash, hints)
        venues, prices, _ = solana.market
        gate = Gate(store, clock)
        await gate.open()
        risk = Risk(gate, store, venues, prices, clock, 5_000)
        made = executor(
            venues, CrashingChain(chain, fuse), clock, RetryPolicy(50), risk, ExecutorSettings(), chance.random
        )
        worker_settings = WorkerSettings("w", concurrency=CONCURRENCY, lease_ms=LEASE_MS)
        worker = Worker(CrashingStore(store, fuse), made, bus, clock, gate, worker_settings)
        running = asyncio.create_task(worker.run())
        try:
            yield Life(store, chain, fuse, worker)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await gate.close()
            await store.close()


async def campaign(seed: int, orders: int, executor: type[Executor] = Executor, mix: Mix = USUAL) -> Verdict:
    """Swap orders under every fault, until all are over, and compare them with the chain."""
    chance, verdict = random.Random(seed), Verdict(orders)
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with a_local_chain(seed) as local, ticking(local):
            disturb(local, mix)
            began_ms = local.clock.now_ms()
            while not verdict.is_over:
                # Like a process that its supervisor starts again until the nodes can be reached.
                with contextlib.suppress(ChainUnavailable, VenueUnavailable):
                    async with a_life(folder, local, chance.randrange(5, mix.moments_max), chance, executor) as life:
                        await live(life, local, verdict, began_ms, mix.dark_ms)
                await local.clock.sleep(1_000)
            local.faults.clear()
            await local.clock.sleep(120_000)
            async with a_life(folder, local, None, chance, executor) as life:
                await judge(life, local, verdict)
            verdict.calls = sum(local.faults.calls.values())
    return verdict


async def live(life: Life, local: Local, verdict: Verdict, began_ms: int, dark_ms: int) -> None:
    """Bring orders, until the process dies or all are over."""
    verdict.lives += 1
    while not life.fuse.blown:
        while verdict.accepted < min(verdict.orders, verdict.lives * 100):
            terms = Terms("market", SOL, USDC, 10**7 + verdict.accepted, 500)
            await life.store.accept(some_id(verdict.accepted, EPOCH_MS), Accepted(terms))
            verdict.accepted += 1
        if verdict.accepted == verdict.orders and await life.settled():
            verdict.is_over = True
            return
        await local.clock.sleep(1_000)
        if dark_ms and not local.faults.dark_until_ms and local.clock.now_ms() - began_ms > 60_000:
            local.faults.dark_until_ms = {ALL: local.clock.now_ms() + dark_ms}
        assert local.clock.now_ms() - began_ms < GIVE_UP_MS, "not settled after hours"
    verdict.crashes += 1


def disturb(local: Local, mix: Mix) -> None:
    local.faults.landing = mix.landing
    local.faults.hidden_rate = mix.hidden_rate
    lost = {Fault.LOST: 0.01, Fault.RESET: 0.02, Fault.TOO_MANY: 0.01, Fault.GATEWAY_TIMEOUT: 0.01}
    local.faults.rates = {ALL: Rates(before=lost, after=lost, slow=0.02)}


async def judge(life: Life, local: Local, verdict: Verdict) -> None:
    """Compare every order with what the chain itself holds of its memo; share no code with the engine's own look."""
    swaps: dict[str, list[tuple[str, int]]] = {}
    for signature in local.chain.signatures_of(local.wallet.pubkey()):
        landed = local.chain.landed(signature)
        if landed is None or landed.execution.error is not None:
            continue
        for log in landed.execution.logs:
            if "fillwright:" in log:
                order_id = log.partition("fillwright:")[2].split(":")[0]
                swaps.setdefault(order_id, []).append((str(signature), landed.block.slot))
    async for order in life.store.scan():
        verdict.statuses[order.status] += 1
        found = swaps.pop(order.id, [])
        if len(found) > 1:
            verdict.doubled.append(f"{order.id}: {len(found)} swaps")
        if order.status not in TERMINAL:
            verdict.lost.append(f"{order.id} is {order.status}")
        elif (order.status is OrderStatus.CONFIRMED) != bool(found):
            verdict.misreported.append(f"{order.id} is {order.status}, with {len(found)} swaps on chain")
        elif found and (order.live is None or (order.live.signature, order.fill and order.fill.slot) not in found):
            verdict.misreported.append(f"{order.id} names another swap than the one on chain")
        elif isinstance(order.fill, Fill) and order.fill.in_amount != order.terms.in_amount:
            verdict.misreported.append(f"{order.id} reports {order.fill.in_amount} sold")
    verdict.lost += [f"{order_id} is on chain and unknown" for order_id in swaps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=20_261_128)
    parser.add_argument("--planted", action="store_true", help="catch each planted mistake instead")
    chosen = parser.parse_args()
    failed = False
    for name, (executor, mix) in (PLANTED if chosen.planted else AS_IT_IS).items():
        verdict = run(campaign(chosen.seed, chosen.orders, executor, mix))
        print(
            f"{name}: {verdict.orders} orders, {verdict.lives} lives, {verdict.crashes} crashes, {verdict.calls} calls,"
            f" {dict(verdict.statuses)}; {len(verdict.lost)} lost, {len(verdict.doubled)} doubled,"
            f" {len(verdict.misreported)} misreported"
        )
        for finding in (*verdict.lost, *verdict.doubled, *verdict.misreported)[:10]:
            print("  ", finding)
        failed |= verdict.is_clean is chosen.planted
    sys.exit(failed)


if __name__ == "__main__":
    main()
