"""The limits that operators have set, applied: before an order is accepted, and again before it is signed.

In between, days may pass and limits may change. What many orders share needs no second look as long as no limit has
changed since: the room was taken in the transaction that accepted the order, and is the order's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fillwright.core.control import Control
from fillwright.core.errors import OverLimit
from fillwright.core.limits import Bounds, Cap, Limits, day_of, refusal
from fillwright.core.order import Charge, Order, Terms
from fillwright.core.ports import Clock, Gate, Prices, Store, Venue
from fillwright.core.routing import Answer, NoQuote, Quote, QuoteRequest
from fillwright.core.units import MicroUsd, Millis
from fillwright.execution.quoting import ask_all

BOUNDS_MAX: Final = 4_096


class Risk:
    def __init__(
        self,
        gate: Gate,
        store: Store,
        venues: Sequence[Venue],
        prices: Prices,
        clock: Clock,
        quote_deadline_ms: Millis,
    ) -> None:
        self._gate = gate
        self._store = store
        self._venues = venues
        self._prices = prices
        self._clock = clock
        self._quote_deadline_ms = quote_deadline_ms
        self._limits: Mapping[str, Limits] = {}
        self._bounds_by_key: dict[tuple[str, str], Bounds] = {}

    async def admit(
        self, control: Control, terms: Terms, account: str, key_id: str
    ) -> tuple[Charge, Sequence[Cap], OverLimit | None]:
        """Return what such an order counts for, the caps for the store to check, and why it is not taken, if it is not.

        If a limit asks what the market would do, and the market does not answer now, that alone refuses nothing: it is
        asked again when the order is routed.
        """
        usd = self._prices.usd(terms.token_in, terms.in_amount)
        charge = Charge(day_of(self._clock.now_ms()), usd, key_id, control.seq)
        bounds = self._bounds(control, account, key_id)
        if not bounds:
            return charge, (), None
        try:
            bounds.check(terms, usd)
            caps = bounds.caps(terms, usd)
            if bounds.ask_the_market:
                request = QuoteRequest(terms.token_in, terms.token_out, terms.in_amount, self._clock.now_ms())
                if not self._has_one_at_hand(bounds, terms, request):
                    answers = await ask_all(self._venues, request, self._quote_deadline_ms)
                    self._allowed(bounds, terms, answers)
        except OverLimit as error:
            return charge, (), error
        return charge, caps, None

    def _has_one_at_hand(self, bounds: Bounds, terms: Terms, request: QuoteRequest) -> bool:
        """Return whether a venue that answers at once has a quote that may be taken: then no other need be asked."""
        usd = self._prices.usd(terms.token_in, terms.in_amount)
        for venue in self._venues:
            try:
                answer = venue.quote(request)
            except Exception:  # whatever it is, `ask_all` tells of it
                return False
            if not isinstance(answer, Quote):
                answer.close()
                return False
            try:
                bounds.check_quote(terms, answer, usd, self._prices.usd(terms.token_out, answer.out_amount))
            except OverLimit:
                continue
            if answer.out_amount > 0:
                return True
        return False

    def allowed(
        self,
        control: Control,
        terms: Terms,
        account: str,
        key_id: str,
        answers: Sequence[Answer],
    ) -> Sequence[Answer]:
        """Return the answers, with the reason in the place of each quote that such an order may not take.

        Raise OverLimit if it is not allowed at all, or there are quotes and it may take none of them.
        """
        bounds = self._bounds(control, account, key_id)
        if not bounds:
            return answers
        bounds.check(terms, self._prices.usd(terms.token_in, terms.in_amount))
        return self._allowed(bounds, terms, answers) if bounds.ask_the_market else answers

    async def allowed_quotes(self, order: Order, answers: Sequence[Answer]) -> Sequence[Answer]:
        """Do the same for an order that was accepted. What it is worth is what it was worth then."""
        bounds = await self._bounds_of(order)
        if not bounds:
            return answers
        bounds.check(order.terms, self._worth(order))
        return self._allowed(bounds, order.terms, answers) if bounds.ask_the_market else answers

    async def check_again(self, order: Order) -> None:
        """Return if an order may be signed. Raise OverLimit if not."""
        bounds = await self._bounds_of(order)
        if not bounds:
            return
        terms = order.terms
        usd = self._worth(order)
        bounds.check(terms, usd)
        if order.route is not None and bounds.ask_the_market:
            quote = order.route.quote
            out = self._prices.usd(terms.token_out, quote.out_amount)
            bounds.check_quote(terms, quote, self._prices.usd(terms.token_in, quote.in_amount), out)
        control = await self._control()
        if order.charge is not None and control.limits_seq > order.charge.control_seq:
            caps = bounds.caps_of_the_day(terms, usd)
            used = await self._store.usage(order.charge.day, [cap.of for cap in caps]) if caps else {}
            if (over := refusal(caps, used, terms)) is not None:
                raise over

    def _worth(self, order: Order) -> MicroUsd | None:
        """Return what an order was worth when it was accepted: that the price has moved since breaks no limit."""
        if order.charge is not None and order.charge.usd is not None:
            return order.charge.usd
        return self._prices.usd(order.terms.token_in, order.terms.in_amount)

    async def _bounds_of(self, order: Order) -> Bounds:
        key_id = order.charge.key_id if order.charge is not None else ""
        return self._bounds(await self._control(), order.account, key_id)

    def _bounds(self, control: Control, account: str, key_id: str) -> Bounds:
        if control.limits is not self._limits or len(self._bounds_by_key) >= BOUNDS_MAX:
            self._limits = control.limits
            self._bounds_by_key.clear()
        bounds = self._bounds_by_key.get((account, key_id))
        if bounds is None:
            bounds = self._bounds_by_key[account, key_id] = Bounds(control.limits, account, key_id)
        return bounds

    async def _control(self) -> Control:
        return self._gate.current or await self._gate.control()

    def _allowed(self, bounds: Bounds, terms: Terms, answers: Sequence[Answer]) -> Sequence[Answer]:
        allowed, refused = list[Answer](), list[tuple[int, OverLimit]]()
        usd = self._prices.usd(terms.token_in, terms.in_amount)
        for answer in answers:
            if isinstance(answer, Quote) and answer.out_amount > 0:
                try:
                    bounds.check_quote(terms, answer, usd, self._prices.usd(terms.token_out, answer.out_amount))
                except OverLimit as error:
                    allowed.append(NoQuote(answer.venue, error, answer.pool, answer))
                    refused.append((answer.net_amount, error))
                    continue
            allowed.append(answer)
        if refused and not any(isinstance(answer, Quote) for answer in allowed):
            raise max(refused, key=lambda each: each[0])[1]
        return allowed
