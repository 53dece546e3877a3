"""What can go wrong around a process, and a process that can die or freeze at any moment.

The ports of a process are wrapped. Before and after each call there is a moment at which the process may die (then it
does nothing more, ever: what it still tries to do is refused) or freeze, and a delay. What happens is drawn from the
seed and noted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any, TypeVar

from fillwright.backends.group_commit import Outcome, Transactions
from fillwright.core.errors import ChainUnavailable, ExecutionError, StoreUnavailable
from fillwright.core.lifecycle import Accepted, Event, Update
from fillwright.core.limits import Cap
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Chain, Claims, Clock, Finalized, Store, Venue
from fillwright.core.routing import Answer, Quote, QuoteRequest, Route
from fillwright.core.units import BaseUnits, Millis, OrderId, Signature

T = TypeVar("T")

LIVING: ContextVar[Process | None] = ContextVar("LIVING", default=None)


def born(task: asyncio.Task[Any], context: Context) -> None:
    """Note whose task it is: it dies with its process."""
    process = context.get(LIVING)
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(lambda task: process.tasks.pop(task, None))


class Journal:
    """Everything that happened, in order. Its digest tells whether two runs were the same."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.faults: Counter[str] = Counter()
        self.lines: list[tuple[float, str, str]] = []
        self._time = time
        self._hash = blake2b(digest_size=16)

    def note(self, what: str, about: str = "") -> None:
        at = round(self._time(), 4)
        self.lines.append((at, what, about))
        self._hash.update(f"{at} {what} {about}\n".encode())

    def fault(self, kind: str, about: str = "") -> None:
        self.faults[kind] += 1
        self.note(f"FAULT {kind}", about)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Odds:
    """How likely each thing is at each occasion; all 0 in the drain."""

    crash: float = 0.0
    freeze: float = 0.0
    crash_in_commit: float = 0.0
    commit_error: float = 0.0
    store_error: float = 0.0
    slow: float = 0.0
    silent: float = 0.0
    dark: float = 0.0
    lost_news: float = 0.0
    jump: float = 0.0


@dataclass
class Process:
    """One run of the engine, from its start to its death."""

    name: str
    chance: Random
    odds: Odds
    journal: Journal
    clock: Clock
    lease_ms: Millis
    dead: bool = False
    thaws_at_ms: Millis = 0
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def die(self, where: str) -> None:
        if not self.dead:
            self.dead = True
            self.journal.fault("crash", f"{self.name} {where}")
            self.died.set()
            for task in list(self.tasks):
                task.cancel()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a part of this process."""
        context = copy_context()
        context.run(LIVING.set, self)
        return asyncio.create_task(coroutine, context=context)

    def happens(self, odds: float) -> bool:
        return odds > 0 and self.chance.random() < odds

    async def moment(self, where: str) -> None:
        """Pass a moment at which the process may die or freeze."""
        self.check()
        if self.happens(self.odds.crash):
            self.die(where)
        elif self.happens(self.odds.freeze):
            span_ms = int(self.lease_ms * self.chance.uniform(1.1, 3))
            self.thaws_at_ms = self.clock.now_ms() + span_ms
            self.journal.fault("freeze", f"{self.name} {where} for {span_ms} ms")
        self.check()
        while (left_ms := self.thaws_at_ms - self.clock.now_ms()) > 0:
            await self.clock.sleep(left_ms)
            self.check()

    def check(self) -> None:
        if self.dead:
            raise asyncio.CancelledError

    async def around(self, where: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        await self.moment(f"before {where}")
        result = await call()
        await self.moment(f"after {where}")
        return result


class FaultyStore:
    """The real store, as a process reaches it. Every append is held against the newest lease that was given out."""

    def __init__(self, store: Store, process: Process, leases: dict[OrderId, int], breaches: list[str]) -> None:
        self._store, self._process = store, process
        self._leases, self._breaches = leases, breaches

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        async def call(*args: Any, **options: Any) -> Any:
            self._process.check()
            self._fail(name)
            result = await value(*args, **options)
            self._process.check()
            return result

        return call

    @property
    def is_shared(self) -> bool:
        return self._store.is_shared

    async def accept(
        self, order_id: OrderId, event: Accepted, caps: Sequence[Cap] = (), webhooks: Sequence[str] = ()
    ) -> Order:
        async def call() -> Order:
            order = await self._store.accept(order_id, event, caps, webhooks)
            self._process.journal.note("accept", order.id)
            return order

        return await self._process.around("accept", call)

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        async def call() -> Order:
            self._fail("append")
            newest = self._leases.get(order.id, 0)  # as of now: while the event is written, it may be followed
            after = await self._store.append(order, event, lease)
            self._process.journal.note(f"{self._process.name} {type(event).__name__}", order.id)
            if lease is not None and lease < newest:
                self._breaches.append(f"{order.id}: {type(event).__name__} under lease {lease} after {newest}")
            return after

        return await self._process.around(f"append {type(event).__name__}", call)

    async def claim(self, worker: str, limit: int, *, begun_only: bool = False) -> Claims:
        await self._process.moment("before claim")
        self._fail("claim")
        claims = await self._store.claim(worker, limit, begun_only=begun_only)
        for claim in claims.taken:
            self._leases[claim.order.id] = max(claim.lease, self._leases.get(claim.order.id, 0))
            self._process.journal.note(f"{self._process.name} claim {claim.lease}", claim.order.id)
        if claims.taken:
            await self._process.moment("after claim")
        return claims

    def _fail(self, what: str) -> None:
        if self._process.happens(self._process.odds.store_error):
            self._process.journal.fault("store_error", f"{self._process.name} {what}")
            raise StoreUnavailable("the database does not answer")


class FaultyTransactions:
    """A commit that fails, or at which the process dies, before it or after it: then nobody is told of it."""

    def __init__(self, real: Transactions, process: Process) -> None:
        self._real, self._process = real, process

    def begin(self) -> None:
        if self._process.dead:
            raise StoreUnavailable("dead")
        self._real.begin()

    def write(self, writes: Sequence[Any]) -> tuple[list[Outcome], Sequence[Update]]:
        return self._real.write(writes)

    def commit(self) -> None:
        if self._process.happens(self._process.odds.commit_error):
            self._process.journal.fault("commit_error", self._process.name)
            raise StoreUnavailable("the disk is full")
        if self._process.happens(self._process.odds.crash_in_commit):
            if self._process.chance.random() < 0.5:
                self._real.rollback()
                self._process.die("before a commit")
                raise StoreUnavailable("dead")
            self._real.commit()
            self._process.die("between a commit and its news")
            raise StoreUnavailable("dead")
        self._real.commit()

    def rollback(self) -> None:
        self._real.rollback()


class Weather:
    """Darkness over all nodes of the chain, until a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_ms: Millis = 0

    def darken(self, span_ms: Millis) -> None:
        self._until_ms = self._clock.now_ms() + span_ms

    @property
    def is_dark(self) -> bool:
        return self._clock.now_ms() < self._until_ms


class FaultyChain:
    """Several nodes of one chain, each of which sees as much of it as it does. Any of them answers, late or never."""

    def __init__(self, nodes: Sequence[Chain], process: Process, weather: Weather) -> None:
        self._nodes, self._process, self._weather = nodes, process, weather

    @property
    def identity(self) -> str:
        return self._nodes[0].identity

    @property
    def node(self) -> Chain:
        return self._nodes[0] if len(self._nodes) == 1 else self._process.chance.choice(self._nodes)

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        return await self._ask("sign", order.id, lambda: self._nodes[0].sign(order, route, min_out_amount))

    async def send(self, transaction: SignedTransaction) -> None:
        async def call() -> None:
            self._process.journal.note(f"{self._process.name} send", transaction.signature[:12])
            await self._nodes[0].send(transaction)

        await self._process.moment("before send")
        await self._ask("send", transaction.signature[:12], call)
        await self._process.moment("after send")

    async def finalized(self) -> Finalized:
        node = self.node
        return await self._ask("finalized", "", node.finalized)

    async def outcome(self, transaction: SignedTransaction, finalized: Finalized) -> Fill | ExecutionError | None:
        node = self.node
        return await self._ask("outcome", transaction.signature[:12], lambda: node.outcome(transaction, finalized))

    async def wait(self, signature: Signature, span_ms: int) -> None:
        await self._process.clock.sleep(span_ms)

    async def _ask(self, what: str, about: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        process = self._process
        process.check()
        if process.happens(process.odds.dark):
            span_ms = process.chance.randrange(1_000, 30_000)
            self._weather.darken(span_ms)
            process.journal.fault("dark", f"{span_ms} ms")
        if self._weather.is_dark and what != "sign":
            await process.clock.sleep(200)
            raise ChainUnavailable("no node answers")
        if process.happens(process.odds.silent):
            process.journal.fault("silent", f"{what} {about}")
            await asyncio.Event().wait()
        await self._dawdle(f"to {what} {about}")
        answer = await call()
        await self._dawdle(f"from {what} {about}")
        process.check()
        return answer

    async def _dawdle(self, where: str) -> None:
        process = self._process
        if process.happens(process.odds.slow):
            span_ms = process.chance.choice((20, 300, 2_500))
            process.journal.fault("slow", f"{where} {span_ms} ms")
            await process.clock.sleep(span_ms)


class FaultyVenue:
    def __init__(self, venue: Venue, process: Process) -> None:
        self.name = venue.name
        self._venue, self._process = venue, process

    def quote(self, request: QuoteRequest) -> Coroutine[Any, Any, Quote | Sequence[Answer]]:
        return self._quote(request)

    async def _quote(self, request: QuoteRequest) -> Quote | Sequence[Answer]:
        self._process.check()
        if self._process.happens(self._process.odds.silent):
            self._process.journal.fault("silent", f"quote {self.name}")
            await asyncio.Event().wait()
        if self._process.happens(self._process.odds.slow):
            await self._process.clock.sleep(self._process.chance.randrange(1, 900))
        answer = self._venue.quote(request)
        return answer if isinstance(answer, Quote) else await answer
