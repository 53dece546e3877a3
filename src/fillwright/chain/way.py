"""What a route comes to when it is taken: its swaps as the pools stand then, and the least that each has to pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fillwright.core.errors import SlippageExceeded, Unroutable
from fillwright.core.order import Order
from fillwright.core.ports import PreparedSwap, Swaps
from fillwright.core.routing import Route
from fillwright.core.units import BPS, BaseUnits, format_amount

HOP_SLACK_BPS: Final = 10
"""What a second swap leaves of what the first one pays: should that be a little less, the second still goes through."""


@dataclass(frozen=True, slots=True)
class Way:
    """The swaps of a route, made ready: with their least amounts, and what they pay at the last one."""

    prepared: Sequence[tuple[PreparedSwap, BaseUnits]]
    out_amount: BaseUnits
    slot: int


async def way_of(swaps: Swaps, order: Order, route: Route, min_out_amount: BaseUnits, min_slot: int = 0) -> Way:
    """Return the route's swaps as the pools stand now.

    Raise SlippageExceeded if they pay less than the least, Unroutable, a QuoteRefused or VenueUnavailable.
    """
    check_real(route)
    if route.quote.type == "two_hops":
        first_leg, second_leg = route.quote.legs
        first = await swaps.prepare(first_leg, first_leg.in_amount, min_slot=min_slot)
        between = first.out_amount * (BPS - HOP_SLACK_BPS) // BPS
        second = await swaps.prepare(second_leg, between, min_slot=min_slot)
        _check_least(order, second.out_amount, min_out_amount)
        prepared = [(first, between), (second, min_out_amount)]
        return Way(prepared, second.out_amount, min(first.slot, second.slot))
    ready = [await swaps.prepare(leg, leg.in_amount, min_slot=min_slot) for leg in route.quote.legs]
    total = sum(swap.out_amount for swap in ready)
    _check_least(order, total, min_out_amount)
    # What may be lost on the way is shared as the amounts are, rounded down: the leasts add up to no less.
    spare = total - min_out_amount
    prepared = [(swap, swap.out_amount - spare * swap.out_amount // total) for swap in ready]
    return Way(prepared, total, min(swap.slot for swap in ready))


def check_real(route: Route) -> None:
    """Return if a route goes through pools that exist. Raise Unroutable: it may be of when the mode was another."""
    if not route.quote.legs:
        raise Unroutable("the route is of the simulated market: it names no pool that exists")


def _check_least(order: Order, paid: BaseUnits, least: BaseUnits) -> None:
    if paid < least:
        token = order.terms.token_out
        told, limit = (format_amount(amount, token.decimals) for amount in (paid, least))
        raise SlippageExceeded(f"the pools pay {told} {token.symbol} now, below the order's limit of {limit}")
