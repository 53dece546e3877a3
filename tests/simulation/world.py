"""One scenario from its seed: processes that die and freeze, clients that ask twice and follow, and a judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, Final, cast

from fillwright.api.feed import Message, Streams
from fillwright.backends.memory import MemoryBus, MemoryStore
from fillwright.backends.sqlite import SqliteStore
from fillwright.chain.simulated import ChainSettings, Ledger, SimulatedChain
from fillwright.core.control import Mode, ModeSet, replay
from fillwright.core.errors import FillwrightError
from fillwright.core.lifecycle import Recorded, RoutingStarted, Update
from fillwright.core.ports import START_WINDOW_MS, Chain, Clock, OrderRequest, Store
from fillwright.core.retry import RetryPolicy
from fillwright.core.tokens import TokenRegistry
from fillwright.core.units import Millis, OrderId
from fillwright.execution.executor import ExecutorSettings
from fillwright.execution.gate import Gate
from fillwright.execution.intake import Intake
from fillwright.execution.reconcile import reconcile
from fillwright.execution.risk import Risk
from fillwright.execution.worker import Worker, WorkerSettings
from fillwright.venues import VENUES
from fillwright.venues.simulated import Market, MarketSettings, SimulatedPrices
from tests.proof.verdict import Told, Witness, judge
from tests.simulation.faults import (
    FaultyChain,
    FaultyStore,
    FaultyTransactions,
    FaultyVenue,
    Journal,
    Odds,
    Process,
    Weather,
    born,
)
from tests.simulation.loop import SeededLoop
from tests.simulation.planted import NOTHING, Planted
from tests.virtual import EPOCH_MS

FAULTS_MS: Final = 20_000
DRAIN_MS: Final = 300_000
LEASE_MS: Final = 2_000
ANSWER_S: Final = 5.0
STOP_S: Final = 3.0
EFFECTIVE_MS: Final = 1_000
TERMINAL: Final = frozenset({"confirmed", "failed", "cancelled", "expired"})
NODES_BEHIND_MS: Final = (0, 700, 4_000)
EVERY_FAULT: Final = Odds(
    crash=0.006,
    freeze=0.004,
    crash_in_commit=0.004,
    commit_error=0.01,
    store_error=0.01,
    slow=0.05,
    silent=0.01,
    dark=0.002,
    lost_news=0.2,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is drawn from a seed before anything happens."""

    seed: int
    store: str
    orders: int
    processes: int
    starts_per_minute: int
    clocks_jump: bool
    is_halted_at_times: bool
    chain: ChainSettings

    @classmethod
    def draw(cls, seed: int, store: str) -> Scenario:
        chance = Random(f"{seed}/scenario")
        limited = chance.random() < 0.1
        return cls(
            seed=seed,
            store=store,
            orders=chance.randrange(4, 9),
            processes=chance.choice((1, 2, 2)),
            starts_per_minute=4 if limited else 0,
            clocks_jump=not limited and chance.random() < 0.3,
            is_halted_at_times=chance.random() < 0.2,
            chain=ChainSettings(
                speed=0.1,
                dropped_rate=chance.choice((0.0, 0.2, 0.5)),
                late_rate=chance.choice((0.0, 0.2, 0.5)),
                reverted_rate=chance.choice((0.0, 0.1)),
                slippage_exceeded_rate=chance.choice((0.0, 0.1)),
                reply_lost_rate=chance.choice((0.0, 0.1, 0.3)),
            ),
        )


@dataclass(slots=True)
class Outcome:
    seed: int
    store: str
    digest: str
    orders: int
    faults: Counter[str]
    findings: list[str]
    story: list[str] = field(default_factory=list)


class LoopClock:
    """The Clock port on the loop's time. `skew_ms` sets it ahead or back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, behind_ms: Millis = 0) -> None:
        self.skew_ms = -behind_ms
        self._loop = loop

    def now_ms(self) -> Millis:
        return EPOCH_MS + round(self._loop.time() * 1000) + self.skew_ms

    async def sleep(self, span_ms: Millis) -> None:
        await asyncio.sleep(span_ms / 1000)


@dataclass(slots=True)
class Running:
    """A process and what a client reaches of it."""

    process: Process
    clock: LoopClock
    store: Store
    intake: Intake
    streams: Streams
    worker: Worker
    working: asyncio.Task[None]
    gate: Gate


class World:
    def __init__(self, scenario: Scenario, planted: Planted, loop: asyncio.AbstractEventLoop) -> None:
        self.scenario = scenario
        self.journal = Journal(loop.time)
        self.breaches: list[str] = []
        self._planted = planted
        self._loop = loop
        self._chance = Random(f"{scenario.seed}/world")
        self._clock = LoopClock(loop)
        self._weather = Weather(self._clock)
        self._ledger = Ledger(":memory:", self._clock, scenario.chain.speed)
        self._market = Market(MarketSettings(fee_bps={"raydium": 30, "meteora": 20}, seed=scenario.seed, speed=0))
        self._disk = self._new_disk()
        self._leases: dict[OrderId, int] = {}
        self._keys: dict[str, OrderId] = {}
        self._started = 0
        self._running: list[Running | None] = [None] * scenario.processes
        self._halts: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Let it all happen: faults, then none, until everything is over or should be."""
        keepers = [asyncio.create_task(self._keep_running(slot)) for slot in range(self.scenario.processes)]
        if self.scenario.clocks_jump:
            keepers.append(asyncio.create_task(self._jump()))
        if self.scenario.is_halted_at_times:
            keepers.append(asyncio.create_task(self._halt()))
        self.witnesses = [Witness(f"key-{number}") for number in range(self.scenario.orders)]
        clients = [asyncio.create_task(self._client(number, witness)) for number, witness in enumerate(self.witnesses)]
        await self._clock.sleep(FAULTS_MS)
        for task in keepers:
            task.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        self.journal.note("DRAIN")
        running = self._start(0, Odds())
        self._running = [running]
        await running.process.spawn(running.gate.change("drain", ModeSet(Mode.ACTIVE, "")))
        try:
            async with asyncio.timeout(DRAIN_MS / 1000):
                await asyncio.gather(*clients)
                while not self._over():
                    await self._clock.sleep(500)
        except TimeoutError:
            self.journal.note("NOT DRAINED")
        for client in clients:
            client.cancel()

    async def findings(self) -> list[str]:
        (running,) = self._running
        assert running is not None
        chain = self._nodes(ChainSettings(speed=self.scenario.chain.speed))[0]
        logs = {order_id: await running.store.history(order_id) for order_id in self._ids()}
        verdict = judge(logs, [swap async for swap in chain.landed_swaps()], self.witnesses)
        findings = verdict.findings + [f"misreported: {breach}" for breach in self.breaches]
        findings += self._over_the_limit(logs) + self._signed_while_halted()
        if not findings:
            ours = await reconcile(running.store, chain)
            findings += [f"reconcile does not agree: {finding}" for finding in ours.findings]
        return findings

    def stop(self) -> None:
        for running in self._running:
            if running is not None:
                running.process.die("at the end")

    # ---- processes

    async def _keep_running(self, slot: int) -> None:
        """Start a process; when it dies, start another one a little later."""
        while True:
            running = self._running[slot] = self._start(slot, EVERY_FAULT)
            try:
                if self._chance.random() < 0.3:
                    await self._stop_within(self._chance.randrange(500, 10_000), running)
                else:
                    await running.process.died.wait()
            finally:
                running.process.die("for the drain")
            self._running[slot] = None
            await self._clock.sleep(self._chance.randrange(50, 1_500))

    async def _stop_within(self, span_ms: Millis, running: Running) -> None:
        """Stop a process in good order, if it has not died by then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(span_ms / 1000):
                await running.process.died.wait()
                return
        self.journal.fault("stop", running.process.name)
        running.worker.stop()
        await asyncio.wait([running.working], timeout=STOP_S)

    def _start(self, slot: int, odds: Odds) -> Running:
        self._started += 1
        name = f"p{self._started}"
        self.journal.note(f"START {name}")
        clock = LoopClock(self._loop)
        chance = Random(f"{self.scenario.seed}/{name}")
        process = Process(name, chance, odds, self.journal, clock, LEASE_MS)
        bus = MemoryBus()

        def committed(updates: list[Update]) -> None:
            if process.dead:
                return
            if process.happens(odds.lost_news):
                self.journal.fault("lost_news", name)
                return
            bus.publish(updates)

        real = self._planted.store(self._open_store(process, clock, committed), self._keys)
        store: Any = FaultyStore(real, process, self._leases, self.breaches)
        calm = odds == Odds()
        settings = ChainSettings(speed=self.scenario.chain.speed) if calm else self.scenario.chain
        nodes = self._nodes(settings)[:1] if calm else self._nodes(settings)
        chain: Any = FaultyChain(nodes, process, self._weather)
        venues = [FaultyVenue(make(venue, self._market, clock), process) for venue, make in VENUES.items()]
        gate = Gate(store, clock)
        risk = Risk(gate, store, venues, SimulatedPrices(self._market, clock), clock, 800)
        executor = self._planted.executor(
            venues,
            self._planted.chain(chain),
            clock,
            RetryPolicy(delay_ms=300),
            risk,
            ExecutorSettings(quote_deadline_ms=800, outcome_poll_ms=400, resend_ms=1_500, chain_deadline_ms=4_000),
            chance.random,
        )
        worker = Worker(
            store,
            executor,
            bus,
            clock,
            gate,
            WorkerSettings(name, concurrency=3, lease_ms=LEASE_MS, poll_ms=1_000, stop_ms=500),
        )
        intake = Intake(store, venues, TokenRegistry(), clock, 800, gate, risk, chance.randbytes)
        streams = self._planted.streams(store, bus, clock, backlog_max=100, poll_ms=1_000)
        return Running(process, clock, store, intake, streams, worker, process.spawn(worker.run()), gate)

    def _nodes(self, settings: ChainSettings) -> list[Chain]:
        return [SimulatedChain(self._ledger, settings, LoopClock(self._loop, behind)) for behind in NODES_BEHIND_MS]

    def _new_disk(self) -> Any:
        options: dict[str, Any] = {"clock": self._clock, "committed": lambda _: None, "capacity": 100, "lease_ms": 1}
        return MemoryStore(**options) if self.scenario.store == "memory" else _sqlite(**options)

    def _open_store(self, process: Process, clock: Clock, committed: Any) -> Store:
        """Open a store of the process's own on what all processes share: the disk."""
        options: dict[str, Any] = {
            "clock": clock,
            "committed": committed,
            "capacity": 100,
            "lease_ms": LEASE_MS,
            "starts_per_minute": self.scenario.starts_per_minute,
        }
        if isinstance(self._disk, MemoryStore):
            memory = MemoryStore(**options)
            for kept in (
                "_rows",
                "_by_client_key",
                "_signatures",
                "_pins",
                "_audit",
                "_tickets",
                "_usage",
                "_deliveries",
            ):
                setattr(memory, kept, getattr(self._disk, kept))
            return memory
        sqlite = _sqlite(**options, connection=self._disk._writer)
        group = sqlite._group
        group._transactions = self._planted.transactions(FaultyTransactions(group._transactions, process), committed)
        return sqlite

    def _ids(self) -> list[OrderId]:
        if isinstance(self._disk, MemoryStore):
            return sorted(self._disk._rows)
        return [row[0] for row in self._disk._writer.execute("SELECT id FROM orders ORDER BY id")]

    def _over(self) -> bool:
        if isinstance(self._disk, MemoryStore):
            return all(row.order.status in TERMINAL for row in self._disk._rows.values())
        return not self._disk._writer.execute("SELECT 1 FROM orders WHERE outcome IS NULL LIMIT 1").fetchall()

    async def _jump(self) -> None:
        while True:
            await self._clock.sleep(self._chance.randrange(1_000, 5_000))
            running = self._pick()
            if running is not None:
                running.clock.skew_ms = self._chance.randrange(-15_000, 15_000)
                self.journal.fault("clock_jump", f"{running.process.name} {running.clock.skew_ms} ms")

    async def _halt(self) -> None:
        """Halt and resume. What is signed in between, but for the first second, is a breach."""
        while True:
            await self._clock.sleep(self._chance.randrange(1_000, 6_000))
            self.journal.fault("halt")
            halted_at_ms = await self._change(ModeSet(Mode.HALTED, "drill"))
            await self._clock.sleep(self._chance.randrange(1_000, 6_000))
            if halted_at_ms is not None:
                self._halts.append((halted_at_ms + EFFECTIVE_MS, self._clock.now_ms()))
            await self._change(ModeSet(Mode.ACTIVE, ""))

    async def _change(self, change: ModeSet) -> Millis | None:
        """Change the mode, and return when that was durable; None if that is not known."""
        await self._call(lambda running: running.gate.change("operator", change), patient=False)
        control = replay(await self._disk.audit_log())
        self.journal.note(f"MODE {control.mode}")
        return self._clock.now_ms() if control.mode is change.mode else None

    def _signed_while_halted(self) -> list[str]:
        return [
            f"misreported: {about} was signed while everything was halted"
            for at_s, what, about in self.journal.lines
            if what.endswith(" TransactionSigned")
            and any(since < EPOCH_MS + at_s * 1000 < until for since, until in self._halts)
        ]

    def _over_the_limit(self, logs: dict[OrderId, list[Recorded]]) -> list[str]:
        limit = self.scenario.starts_per_minute
        starts = sorted(record.at_ms for log in logs.values() for record in log if record.event == RoutingStarted(1))
        if not limit or self.scenario.clocks_jump:
            return []
        return [
            f"misreported: {limit + 1} orders begun within {starts[at + limit] - start} ms"
            for at, start in enumerate(starts[:-limit])
            if starts[at + limit] - start <= START_WINDOW_MS
        ]

    # ---- clients

    def _pick(self) -> Running | None:
        return self._chance.choice(self._running)

    async def _client(self, number: int, witness: Witness) -> None:
        chance = Random(f"{self.scenario.seed}/client/{number}")
        await self._clock.sleep(chance.randrange(0, FAULTS_MS * 2 // 3))
        request = OrderRequest(
            "SOL",
            chance.choice(("USDC", "BONK")),
            str(chance.randrange(1, 50)),
            chance.choice(("0.01", "0.05", None)),
            client_order_id=witness.key,
            expires_at_ms=self._clock.now_ms() + 30_000 if chance.random() < 0.1 else None,
        )
        others = [asyncio.create_task(self._submit(request, witness)) for _ in range(chance.choice((0, 0, 1, 2)))]
        order_id = await self._submit(request, witness)
        if chance.random() < 0.15:
            await self._clock.sleep(chance.randrange(0, 1_000))
            await self._call(lambda running: running.intake.cancel(order_id, "client"), patient=False)
        followers = [self._follow(order_id, chance, witness) for _ in range(chance.choice((0, 1, 2)))]
        await asyncio.gather(*others, *followers)

    async def _submit(self, request: OrderRequest, witness: Witness) -> OrderId:
        """Ask until there is an answer."""
        answer = await self._call(lambda running: running.intake.submit(request))
        assert answer is not None
        order, _ = answer
        witness.answered.append(order.id)
        return OrderId(order.id)

    async def _call(self, ask: Any, *, patient: bool = True) -> Any:
        """Call a process that runs; one that dies or does not answer is as a connection that breaks."""
        while True:
            running = self._pick()
            if running is not None:
                task = running.process.spawn(ask(running))
                await asyncio.wait([task], timeout=ANSWER_S)
                task.cancel()
                with contextlib.suppress(FillwrightError, asyncio.CancelledError):
                    if task.done():
                        return task.result()
            if not patient:
                return None
            await self._clock.sleep(self._chance.randrange(50, 500))

    async def _follow(self, order_id: OrderId, chance: Random, witness: Witness) -> None:
        """Follow an order to its end, over as many connections as it takes."""
        told: list[Told] = []
        while not told or told[-1].status not in TERMINAL:
            running = self._pick()
            if running is not None:
                cut = chance.choice((1, 2, 3, 100))
                task = running.process.spawn(_listen(running.streams, order_id, told, cut))
                await asyncio.wait([task], timeout=chance.choice((0.5, 5.0, 60.0)))
                task.cancel()
                await asyncio.wait([task])
            await self._clock.sleep(chance.randrange(10, 800))
        witness.followed.append(told)


async def _listen(streams: Streams, order_id: OrderId, told: list[Told], cut: int) -> None:
    """Read from a stream behind what was told already; hang up after `cut` messages."""
    overrun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream = cast("AsyncGenerator[list[Message]]", streams.follow(order_id, told[-1].seq if told else 0, overrun))
    async with contextlib.aclosing(stream):
        async for messages in stream:
            for message in messages:
                update = json.loads(message.text)
                at_ms = round(datetime.fromisoformat(update["timestamp"]).timestamp() * 1000)
                told.append(Told(message.seq, update["status"], at_ms))
                cut -= 1
                if not cut:
                    return


def _sqlite(connection: Any = None, **options: Any) -> SqliteStore:
    """Return a store in memory, on the given connection if there is one: what was committed over it is the disk."""
    store = SqliteStore(":memory:", threaded=False, **options)
    if connection is not None:
        store._writer.close()
        store._writer = connection
        for part in (store._transactions, store._lookups, store._searches):
            part._connection = connection
    return store


def simulate(seed: int, store: str, planted: Planted = NOTHING) -> Outcome:
    """Run the scenario of a seed, and return what the judge found."""
    scenario = Scenario.draw(seed, store)
    loop = SeededLoop(seed, born)
    world = World(scenario, planted, loop)
    try:
        loop.run_until_complete(world.run())
        findings = loop.run_until_complete(world.findings())
        world.stop()
        loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
    finally:
        loop.close()
    journal = world.journal
    outcome = Outcome(seed, store, journal.digest, scenario.orders, journal.faults, findings)
    if findings:
        outcome.story = [f"{at:9.3f} s  {what}  {about}" for at, what, about in journal.lines]
    return outcome
