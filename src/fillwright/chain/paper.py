"""Trading on paper: real pools, and a simulated chain on which nothing of anybody's moves."""

from __future__ import annotations

from dataclasses import replace

from fillwright.chain.simulated import ChainSettings, Ledger, SimulatedChain
from fillwright.chain.way import way_of
from fillwright.core.order import Order, SignedTransaction
from fillwright.core.ports import Clock, Swaps
from fillwright.core.routing import Route
from fillwright.core.units import BaseUnits


class PaperChain(SimulatedChain):
    """Fills orders with what the pools of their routes pay, read anew when a transaction is signed."""

    def __init__(self, ledger: Ledger, settings: ChainSettings, clock: Clock, swaps: Swaps) -> None:
        super().__init__(ledger, replace(settings, fills_as_quoted=True), clock)
        self._swaps = swaps

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        """Raise SlippageExceeded if the pools pay less than the least by now, a QuoteRefused or VenueUnavailable."""
        newer = 1 + max((leg.slot for leg in route.quote.legs), default=0)
        way = await way_of(self._swaps, order, route, min_out_amount, newer)
        now = replace(route, quote=replace(route.quote, out_amount=way.out_amount))
        return await super().sign(order, now, min_out_amount)
