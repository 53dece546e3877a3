"""The story of an order, one step at a time.

`next_event` looks at the order and returns the one event that comes next; the worker appends it and asks again. The
order of things is the guarantee:

    sign -> append -> send     The signature is durable before the first byte goes out, so whoever takes over after a
                               crash finds the transaction and goes on with it instead of making another one.
    height, then outcome       An attempt is dead when the finalized block height is past its last valid one *and then*
                               a view at least that recent does not know its signature. Asked the other way round, a
                               transaction that lands between the two answers looks dead, and the retry swaps twice.

An error, a time-out or a lost reply after signing proves nothing. The executor keeps the bytes going out and asks
again, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from fillwright.core.errors import (
    ChainUnavailable,
    ExecutionError,
    InternalError,
    NotFinal,
    SlippageExceeded,
    StoreError,
    TransactionExpired,
)
from fillwright.core.lifecycle import (
    AttemptFailed,
    Confirmed,
    Event,
    Expired,
    Failed,
    IllegalTransition,
    RouteSelected,
    TransactionSigned,
    is_expired,
)
from fillwright.core.order import Fill, Order, OrderStatus, SignedTransaction
from fillwright.core.ports import Chain, Clock, Finalized, Venue
from fillwright.core.retry import RetryPolicy
from fillwright.core.routing import QuoteRequest, best_route
from fillwright.core.units import Millis, format_amount, min_out
from fillwright.execution.begun import Begun
from fillwright.execution.quoting import ask_all
from fillwright.execution.risk import Risk

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    quote_deadline_ms: Millis = 2_000
    outcome_poll_ms: Millis = 200
    resend_ms: Millis = 2_000
    chain_deadline_ms: Millis = 10_000


class Executor:
    def __init__(
        self,
        venues: Sequence[Venue],
        chain: Chain,
        clock: Clock,
        retry: RetryPolicy,
        risk: Risk,
        settings: ExecutorSettings,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._venues = venues
        self._chain = chain
        self._risk = risk
        self._clock = clock
        self._retry = retry
        self._settings = settings
        self._chance = chance
        self._log = structlog.get_logger()

    async def next_event(self, order: Order) -> Event:
        """Return what happens next to an order that a worker holds.

        Raise whatever goes wrong after signing: nothing is known then, and the order must be looked at again later.
        """
        match order.status:
            case OrderStatus.ROUTING:
                return await self._before_signing(order, self._route)
            case OrderStatus.BUILDING:
                return await self._before_signing(order, self._sign)
            case OrderStatus.SUBMITTED:
                return await self._land(order)
            case _:
                raise IllegalTransition(f"{order.id}: there is no step to take in status {order.status}")

    async def _before_signing(self, order: Order, step: Callable[[Order], Awaitable[Event]]) -> Event:
        """Take a step that cannot move money: whatever goes wrong in it, the attempt is proven to have no effect."""
        try:
            event = Expired() if self._expired(order) else await step(order)
            return Expired() if self._expired(order) else event
        except ExecutionError as error:
            return self._end_of_attempt(order, error)
        except StoreError:
            raise  # what is in force cannot be known: the attempt has not ended, and whoever takes the order next asks
        except Exception as error:
            self._log.exception("order.step_failed", order=order.id, status=order.status)
            return self._end_of_attempt(order, InternalError(f"{type(error).__name__}: {error}"))

    async def _route(self, order: Order) -> Event:
        terms = order.terms
        request = QuoteRequest(terms.token_in, terms.token_out, terms.in_amount, self._clock.now_ms())
        answers = await ask_all(self._venues, request, self._settings.quote_deadline_ms)
        route = best_route(request, await self._risk.allowed_quotes(order, answers))
        out_amount = route.quote.out_amount
        # Pinned at the first route: taken anew from each retry's quote, the user's limit would slip with the market.
        min_out_amount = order.min_out_amount or min_out(out_amount, terms.slippage_bps)
        if out_amount < min_out_amount:
            best, least = (format_amount(amount, terms.token_out.decimals) for amount in (out_amount, min_out_amount))
            raise SlippageExceeded(
                f"the best quote is {best} {terms.token_out.symbol}, below the order's limit of {least}"
            )
        return RouteSelected(route, min_out_amount)

    async def _sign(self, order: Order) -> Event:
        assert order.route is not None
        assert order.min_out_amount is not None
        await self._risk.check_again(order)
        signing = self._chain.sign(order, order.route, order.min_out_amount)
        return TransactionSigned(await self._in_time(signing))

    async def _land(self, order: Order) -> Event:
        """Send the signed bytes, again and again, until the chain has decided."""
        transaction = order.live
        assert transaction is not None
        sent_at_ms: Millis | None = None
        while True:
            now_ms = self._clock.now_ms()
            # The distance counts, not the direction: clocks are set back, too.
            sending = sent_at_ms is None or abs(now_ms - sent_at_ms) >= self._settings.resend_ms
            try:
                if sending:
                    await self._send(order, transaction)
                finalized, outcome = await self._in_time(self._look(transaction))
            except NotFinal:
                pass  # seen on chain, but a fork could still undo it
            except ChainUnavailable as error:
                self._log.warning("order.outcome_unknown", order=order.id, reason=str(error))
            else:
                if isinstance(outcome, Fill):
                    return Confirmed(outcome)
                if isinstance(outcome, ExecutionError):
                    return self._end_of_attempt(order, outcome)
                if finalized.block_height > transaction.last_valid_block_height:
                    return self._end_of_attempt(
                        order,
                        TransactionExpired(
                            f"not on chain at finalized block {finalized.block_height}, and valid only up to"
                            f" {transaction.last_valid_block_height}"
                        ),
                    )
            if sending:
                sent_at_ms = now_ms
            await self._chain.wait(transaction.signature, self._settings.outcome_poll_ms)

    async def _send(self, order: Order, transaction: SignedTransaction) -> None:
        """Send the bytes. Whether that was answered says nothing: only a look at the chain does."""
        try:
            await self._in_time(self._chain.send(transaction))
        except ChainUnavailable as error:
            self._log.warning("order.send_unanswered", order=order.id, reason=str(error))

    async def _look(self, transaction: SignedTransaction) -> tuple[Finalized, Fill | ExecutionError | None]:
        """Look at the chain: the height first, the outcome second."""
        finalized = await self._chain.finalized()
        return finalized, await self._chain.outcome(transaction, finalized)

    async def _in_time(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the chain's answer; one that does not come in time is as unknown as one that is lost."""
        begun = Begun(call)
        if begun.is_done:
            return begun.value
        try:
            async with asyncio.timeout(self._settings.chain_deadline_ms / 1000):
                return await begun
        except TimeoutError:
            raise ChainUnavailable(f"no answer within {self._settings.chain_deadline_ms} ms") from None

    def _expired(self, order: Order) -> bool:
        return is_expired(order, self._clock.now_ms())

    def _end_of_attempt(self, order: Order, error: ExecutionError) -> AttemptFailed | Failed:
        return self._retry.after(order, error, self._clock.now_ms(), self._chance())
