"""Wrong versions of the engine, each with one mistake. A proof that does not find them proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fillwright.api.feed import Message, Streams
from fillwright.backends.group_commit import Outcome, Transactions
from fillwright.core.errors import ChainUnavailable, ExecutionError, StoreError, TransactionExpired
from fillwright.core.lifecycle import Accepted, AttemptFailed, Event, Failed, Update, rebuild
from fillwright.core.limits import Cap
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Chain, Finalized, Listener, Store
from fillwright.core.routing import Route
from fillwright.core.units import BaseUnits, OrderId
from fillwright.execution.executor import Executor

LOOKS_BEFORE_GIVING_UP: Final = 3
LIVES_IN_THE_TIP: Final = 32  # blocks between the newest and the newest finalized one


class SendsBeforeRecord:
    """Sends what it signs before the signature is in the log."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        transaction = await self._chain.sign(order, route, min_out_amount)
        await self._chain.send(transaction)
        return transaction


class TakesTimeOutForDead(Executor):
    """An unanswered look at the chain ends the attempt."""

    async def _look(self, transaction: SignedTransaction) -> tuple[Finalized, Fill | ExecutionError | None]:
        try:
            return await super()._look(transaction)
        except ChainUnavailable as error:
            finalized = Finalized(transaction.last_valid_block_height, 0)
            return finalized, TransactionExpired(f"no answer: {error}")


ANY_VIEW: Final = Finalized(0, 0)


class AsksOutcomeBeforeHeight(Executor):
    async def _look(self, transaction: SignedTransaction) -> tuple[Finalized, Fill | ExecutionError | None]:
        outcome = await self._chain.outcome(transaction, ANY_VIEW)
        return await self._chain.finalized(), outcome


class TakesHeightFromAnotherView(Executor):
    """The height is the tip's, and whichever node answers for the outcome may be behind it."""

    async def _look(self, transaction: SignedTransaction) -> tuple[Finalized, Fill | ExecutionError | None]:
        finalized = await self._chain.finalized()
        tip = replace(finalized, block_height=finalized.block_height + LIVES_IN_THE_TIP)
        return tip, await self._chain.outcome(transaction, ANY_VIEW)


class DerivesMinOutAnew(Executor):
    async def _route(self, order: Order) -> Event:
        return await super()._route(replace(order, min_out_amount=None))


class CountsUnknownAsFailed(Executor):
    """After a few looks that told nothing, the order has failed."""

    async def _land(self, order: Order) -> Event:
        transaction = order.live
        assert transaction is not None
        await self._send(order, transaction)
        for _ in range(LOOKS_BEFORE_GIVING_UP):
            try:
                _, outcome = await self._in_time(self._look(transaction))
            except ChainUnavailable:
                outcome = None
            if isinstance(outcome, Fill):
                return await super()._land(order)
            await self._clock.sleep(self._settings.outcome_poll_ms)
        error = TransactionExpired("not on chain after three looks")
        end: AttemptFailed | Failed = self._end_of_attempt(order, error)
        return end


class AppendsWithoutFence:
    """Writes an event behind whatever is there, whatever its writer has seen."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        try:
            return await self._store.append(order, event, lease)
        except StoreError:
            there = await self._store.history(order.id)
            return await self._store.append(replace(order, version=len(there)), event, None)


class NeverChecksTheLease:
    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        return await self._store.append(order, event, None)


class ChecksKeysOutsideTheTransaction:
    """Looks whether the key is known, and then writes."""

    def __init__(self, store: Store, known: dict[str, OrderId]) -> None:
        self._store, self._known = store, known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def accept(
        self, order_id: OrderId, event: Accepted, caps: Sequence[Cap] = (), webhooks: Sequence[str] = ()
    ) -> Order:
        key = event.client_order_id
        if key is None or key not in self._known:
            await asyncio.sleep(0.01)
            order = await self._store.accept(order_id, replace(event, client_order_id=None), caps, webhooks)
            if key is not None:
                self._known[key] = order.id
            return order
        return rebuild(await self._store.history(self._known[key]))


class PublishesBeforeCommit:
    """Tells of what it is about to commit."""

    def __init__(self, real: Transactions, committed: Listener) -> None:
        self._real, self._committed = real, committed

    def begin(self) -> None:
        self._real.begin()

    def write(self, writes: Sequence[Any]) -> tuple[list[Outcome], Sequence[Update]]:
        outcomes, updates = self._real.write(writes)
        if updates:
            self._committed(updates)
        return outcomes, []

    def commit(self) -> None:
        self._real.commit()

    def rollback(self) -> None:
        self._real.rollback()


class ReplaysOffByOne(Streams):
    def follow(self, order_id: OrderId, after: int, overrun: asyncio.Future[None]) -> AsyncIterator[list[Message]]:
        return super().follow(order_id, max(0, after - 1), overrun)


@dataclass(frozen=True, slots=True)
class Planted:
    """A mistake, as what it puts in the place of the engine's own part."""

    executor: type[Executor] = Executor
    streams: type[Streams] = Streams
    chain: Callable[[Chain], Any] = lambda chain: chain
    store: Callable[[Store, dict[str, OrderId]], Any] = lambda store, _: store
    transactions: Callable[[Transactions, Listener], Transactions] = lambda transactions, _: transactions
    needs_sql: bool = False


NOTHING: Final = Planted()
PLANTED: Final[Mapping[str, Planted]] = {
    "record_after_send": Planted(chain=SendsBeforeRecord),
    "time_out_means_dead": Planted(executor=TakesTimeOutForDead),
    "outcome_before_height": Planted(executor=AsksOutcomeBeforeHeight),
    "height_from_another_view": Planted(executor=TakesHeightFromAnotherView),
    "no_fence_on_append": Planted(store=lambda store, _: AppendsWithoutFence(store)),
    "lease_never_checked": Planted(store=lambda store, _: NeverChecksTheLease(store)),
    "min_out_derived_anew": Planted(executor=DerivesMinOutAnew),
    "unknown_counts_as_failed": Planted(executor=CountsUnknownAsFailed),
    "published_before_commit": Planted(transactions=PublishesBeforeCommit, needs_sql=True),
    "replay_off_by_one": Planted(streams=ReplaysOffByOne),
    "keys_checked_outside_the_transaction": Planted(store=ChecksKeysOutsideTheTransaction),
}
