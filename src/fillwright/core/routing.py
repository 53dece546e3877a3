"""Which venue gets the order: the one whose quote pays the user most, after every fee and the cost of sending it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fillwright.core.errors import ExecutionError, NoRoute, Unroutable, reason_of
from fillwright.core.units import BaseUnits, Bps, Millis, Mint, Token, difference_bps, format_amount


@dataclass(frozen=True, slots=True)
class QuoteRequest:
    """What every venue is asked: the out amount for exactly `in_amount`, as of `asked_at_ms`."""

    token_in: Token
    token_out: Token
    in_amount: BaseUnits
    asked_at_ms: Millis


@dataclass(frozen=True, slots=True)
class Leg:
    """One swap in one pool, as of `slot`. Legs of the same mints share an amount, others follow one another."""

    venue: str
    pool: str
    pool_type: str
    slot: int
    mint_in: Mint
    mint_out: Mint
    in_amount: BaseUnits
    out_amount: BaseUnits
    fee_bps: Bps
    price_impact_bps: Bps


@dataclass(frozen=True, slots=True)
class Quote:
    """A venue's offer: `out_amount` is what the user receives, net of the venue's fee.

    Of a real pool, `legs` says which swaps it takes, and `cost_amount` what sending them costs, in the out token (0
    where no price is known). Costs are paid in SOL: they count in the comparison, and are no part of `out_amount`.
    """

    venue: str
    pool: str
    in_amount: BaseUnits
    out_amount: BaseUnits
    fee_bps: Bps
    price_impact_bps: Bps
    quoted_at_ms: Millis
    legs: tuple[Leg, ...] = ()
    cost_amount: BaseUnits = 0

    @property
    def net_amount(self) -> BaseUnits:
        return self.out_amount - self.cost_amount

    @property
    def type(self) -> str:
        """Return the pool's type, or how several go together; empty if there are no real ones."""
        if not self.legs:
            return ""
        first = self.legs[0]
        if len(self.legs) == 1:
            return first.pool_type
        return "split" if all(leg.mint_in == first.mint_in for leg in self.legs) else "two_hops"

    @property
    def label(self) -> str:
        """Name the offer where a venue makes several."""
        pools = [f"{leg.venue} {leg.pool_type} {leg.pool[:4]}..{leg.pool[-4:]}" for leg in self.legs]
        return (", then " if self.type == "two_hops" else " and ").join(pools) if pools else self.venue


@dataclass(frozen=True, slots=True)
class NoQuote:
    """A venue, or a pool of it, that cannot get the order. `quote` is what it offers if that may not be taken."""

    venue: str
    error: ExecutionError
    pool: str = ""
    quote: Quote | None = None


Answer: TypeAlias = Quote | NoQuote


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A venue, or a pool of it, that did not get the order: its quote if it gave one, and why not."""

    venue: str
    code: str
    reason: str
    quote: Quote | None = None
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """The decision: the quote taken, and every venue passed over, best first."""

    quote: Quote
    passed_over: tuple[PassedOver, ...]
    reason: str


def best_route(request: QuoteRequest, answers: Sequence[Answer]) -> Route:
    """Return the route that pays most after costs.

    Equal quotes go to the venue whose name sorts first, so that the same answers always give the same route.
    If there is no quote that pays anything, raise NoRoute, or Unroutable where asking again cannot change that; both
    name each venue's reason.
    """
    quotes = sorted(
        (answer for answer in answers if isinstance(answer, Quote) and answer.out_amount > 0),
        key=lambda quote: (-quote.net_amount, quote.venue, quote.pool),
    )
    failed = [_failed(answer) for answer in answers if isinstance(answer, NoQuote) or answer.out_amount <= 0]
    failed.sort(key=lambda passed: (passed.venue, passed.pool))
    if not quotes:
        reasons = (
            "; ".join(f"{passed.venue}: {passed.reason}" for passed in failed) or "no venue has a pool for the pair"
        )
        worth_another = any(isinstance(answer, NoQuote) and answer.error.retryable for answer in answers)
        raise NoRoute(reasons) if worth_another else Unroutable(reasons)
    best, *others = quotes
    outbid = [PassedOver(each.venue, "outbid", _shortfall(request, each, best), each, each.pool) for each in others]
    out = f"{format_amount(best.out_amount, request.token_out.decimals)} {request.token_out.symbol}"
    if others:
        lead = difference_bps(best.net_amount, others[0].net_amount)
        reason = f"{best.label} pays {out} after fees, {lead} bps more than {others[0].label}"
    else:
        reason = f"{best.label} pays {out} after fees; no other venue gave a usable quote"
    return Route(best, (*outbid, *failed), reason)


def _failed(answer: Answer) -> PassedOver:
    if isinstance(answer, NoQuote):
        return PassedOver(answer.venue, answer.error.code, reason_of(answer.error), answer.quote, answer.pool)
    reason = "the amount is too small to receive anything"
    return PassedOver(answer.venue, "too_small", reason, answer, answer.pool)


def _shortfall(request: QuoteRequest, quote: Quote, best: Quote) -> str:
    if quote.net_amount == best.net_amount:
        return f"pays the same as {best.label}, which sorts first"
    costs = " after costs" if quote.cost_amount != best.cost_amount else ""
    short = format_amount(best.net_amount - quote.net_amount, request.token_out.decimals)
    return f"pays {short} {request.token_out.symbol} less{costs} than {best.label}"
