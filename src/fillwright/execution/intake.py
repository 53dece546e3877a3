"""The one door. Whoever brings an order, over HTTP, over a WebSocket or from another queue, brings it here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from fillwright.core.control import LOCAL_ACCOUNT, Control, Mode
from fillwright.core.errors import (
    Denied,
    Halted,
    IdempotencyMismatch,
    InvalidAmount,
    InvalidExpiry,
    InvalidSlippage,
    NotCancellable,
    OrderNotFound,
    VersionConflict,
)
from fillwright.core.lifecycle import CANCELLABLE, Accepted, Cancelled, rebuild
from fillwright.core.order import Order, OrderStatus, Terms, check_terms
from fillwright.core.ports import Clock, Gate, OrderFilter, OrderRequest, QuotePreview, Store, Venue
from fillwright.core.routing import QuoteRequest, best_route
from fillwright.core.tokens import TokenRegistry
from fillwright.core.units import (
    SLIPPAGE_BPS_DEFAULT,
    Millis,
    OrderId,
    min_out,
    order_id,
    parse_amount,
    parse_client_order_id,
    parse_slippage,
)
from fillwright.execution.quoting import ask_all
from fillwright.execution.risk import Risk

ENTROPY_BYTES: Final = 10


class Intake:
    """`entropy` gives that many random bytes: what makes order ids unique."""

    def __init__(
        self,
        store: Store,
        venues: Sequence[Venue],
        tokens: TokenRegistry,
        clock: Clock,
        quote_deadline_ms: Millis,
        gate: Gate,
        risk: Risk,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._venues = venues
        self._tokens = tokens
        self._clock = clock
        self._quote_deadline_ms = quote_deadline_ms
        self._gate = gate
        self._risk = risk
        self._entropy = entropy
        self._pool = memoryview(b"")
        self._webhooks: dict[str, Sequence[str]] = {}  # by account, as of the audit log's entry `_webhooks_seq`
        self._webhooks_seq = 0

    async def submit(self, request: OrderRequest, account: str = LOCAL_ACCOUNT, key_id: str = "") -> tuple[Order, bool]:
        terms = self._terms(request)
        key = None if request.client_order_id is None else parse_client_order_id(request.client_order_id)
        new_id = self._new_id()
        control = self._gate.current or await self._gate.control()
        refusal: Denied | None = self._refusal(terms, control)
        if refusal is None:
            charge, caps, refusal = await self._risk.admit(control, terms, account, key_id)
        if refusal is None:
            webhooks = self._webhooks_of(control, account) if control.webhooks else ()
            order = await self._store.accept(new_id, Accepted(terms, key, account, charge), caps, webhooks)
        else:  # not as a new order, but a repeated request still finds its own
            known = await self._store.find(OrderFilter(account, client_order_id=key, limit=1)) if key else []
            if not known:
                raise refusal
            order = known[0]
        if order.terms != terms:
            raise IdempotencyMismatch(
                f"client order id {key!r} belongs to {order.id}, which asks for something else", field="clientOrderId"
            )
        return order, order.id == new_id

    def _webhooks_of(self, control: Control, account: str) -> Sequence[str]:
        if control.seq != self._webhooks_seq:
            self._webhooks_seq = control.seq
            self._webhooks.clear()
        webhooks = self._webhooks.get(account)
        if webhooks is None:
            webhooks = self._webhooks[account] = [each.webhook_id for each in control.webhooks_of(account)]
        return webhooks

    def _refusal(self, terms: Terms, control: Control) -> Denied | None:
        """Return why no such order is taken now."""
        if control.mode is not Mode.ACTIVE:
            why = f": {control.mode_reason}" if control.mode_reason else ""
            return Halted(f"an operator has stopped new orders (mode {control.mode}){why}")
        if terms.expires_at_ms is not None and terms.expires_at_ms <= self._clock.now_ms():
            return InvalidExpiry("expiresAt is in the past", field="expiresAt")
        return None

    async def cancel(self, order_id: OrderId, actor: str, account: str = LOCAL_ACCOUNT) -> Order:
        while True:
            records = await self._store.history(order_id)
            order = rebuild(records) if records else None
            if order is None or order.account != account:
                raise OrderNotFound(f"there is no order {order_id}")
            if order.status is OrderStatus.CANCELLED:
                return order
            if order.status not in CANCELLABLE:
                state = "its transaction may be on its way" if order.status is OrderStatus.SUBMITTED else "it is over"
                raise NotCancellable(f"{order_id} is {order.status}: {state}")
            try:
                return await self._store.append(order, Cancelled(actor))
            except VersionConflict:
                continue  # the order moved on in between: look again

    async def quote(self, request: OrderRequest, account: str = LOCAL_ACCOUNT, key_id: str = "") -> QuotePreview:
        terms = self._terms(request)
        asked = QuoteRequest(terms.token_in, terms.token_out, terms.in_amount, self._clock.now_ms())
        answers = await ask_all(self._venues, asked, self._quote_deadline_ms)
        control = self._gate.current or await self._gate.control()
        route = best_route(asked, self._risk.allowed(control, terms, account, key_id, answers))
        return QuotePreview(route, asked, terms.slippage_bps, min_out(route.quote.out_amount, terms.slippage_bps))

    def _terms(self, request: OrderRequest) -> Terms:
        token_in = self._tokens.resolve(request.token_in, "tokenIn")
        token_out = self._tokens.resolve(request.token_out, "tokenOut")
        try:
            amount = parse_amount(request.amount, token_in)
        except InvalidAmount as error:
            raise InvalidAmount(str(error), field="amount") from None
        try:
            slippage_bps = SLIPPAGE_BPS_DEFAULT if request.slippage is None else parse_slippage(request.slippage)
        except InvalidSlippage as error:
            raise InvalidSlippage(str(error), field="slippage") from None
        return check_terms(Terms(request.kind, token_in, token_out, amount, slippage_bps, request.expires_at_ms))

    def _new_id(self) -> OrderId:
        """Draw from pooled entropy: one system call serves many orders."""
        if len(self._pool) < ENTROPY_BYTES:
            self._pool = memoryview(self._entropy(ENTROPY_BYTES * 128))
        drawn, self._pool = self._pool[:ENTROPY_BYTES], self._pool[ENTROPY_BYTES:]
        return order_id(self._clock.now_ms(), int.from_bytes(drawn))
