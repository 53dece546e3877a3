"""Which venue gets the order: the one whose quote pays the user most, after every fee."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fillwright.core.errors import ExecutionError, NoRoute, Unroutable, reason_of
from fillwright.core.units import BaseUnits, Bps, Millis, Token, difference_bps, format_amount


@dataclass(frozen=True, slots=True)
class QuoteRequest:
    """What every venue is asked: the out amount for exactly `in_amount`, as of `asked_at_ms`."""

    token_in: Token
    token_out: Token
    in_amount: BaseUnits
    asked_at_ms: Millis


@dataclass(frozen=True, slots=True)
class Quote:
    """A venue's offer: `out_amount` is what the user receives, net of the venue's fee."""

    venue: str
    pool: str
    in_amount: BaseUnits
    out_amount: BaseUnits
    fee_bps: Bps
    price_impact_bps: Bps
    quoted_at_ms: Millis


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A venue that did not get the order: its quote if it gave one, and why not."""

    venue: str
    code: str
    reason: str
    quote: Quote | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """The decision: the quote taken, and every venue passed over, best first."""

    quote: Quote
    passed_over: tuple[PassedOver, ...]
    reason: str


def best_route(request: QuoteRequest, answers: Mapping[str, Quote | ExecutionError]) -> Route:
    """Return the route that pays most. `answers` holds each venue's quote or the error it gave instead.

    Equal quotes go to the venue whose name sorts first, so that the same answers always give the same route.
    If there is no quote that pays anything, raise NoRoute, or Unroutable where asking again cannot change that; both
    name each venue's reason.
    """
    quotes = sorted(
        (answer for answer in answers.values() if isinstance(answer, Quote) and answer.out_amount > 0),
        key=lambda quote: (-quote.out_amount, quote.venue),
    )
    failed = [
        PassedOver(venue, answer.code, reason_of(answer))
        if isinstance(answer, ExecutionError)
        else PassedOver(venue, "too_small", "the amount is too small to receive anything", answer)
        for venue, answer in sorted(answers.items())
        if isinstance(answer, ExecutionError) or answer.out_amount <= 0
    ]
    if not quotes:
        reasons = "; ".join(f"{venue.venue}: {venue.reason}" for venue in failed)
        worth_another = any(isinstance(answer, ExecutionError) and answer.retryable for answer in answers.values())
        raise NoRoute(reasons) if worth_another else Unroutable(reasons)
    best, *others = quotes
    outbid = [PassedOver(quote.venue, "outbid", _shortfall(request, quote, best), quote) for quote in others]
    out = f"{format_amount(best.out_amount, request.token_out.decimals)} {request.token_out.symbol}"
    if others:
        lead = difference_bps(best.out_amount, others[0].out_amount)
        reason = f"{best.venue} pays {out} after fees, {lead} bps more than {others[0].venue}"
    else:
        reason = f"{best.venue} pays {out} after fees; no other venue gave a usable quote"
    return Route(best, (*outbid, *failed), reason)


def _shortfall(request: QuoteRequest, quote: Quote, best: Quote) -> str:
    short = format_amount(best.out_amount - quote.out_amount, request.token_out.decimals)
    if quote.out_amount == best.out_amount:
        return f"pays the same as {best.venue}, which sorts first"
    return f"pays {short} {request.token_out.symbol} less than {best.venue}"
