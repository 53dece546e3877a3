"""What tokens are worth where there is no simulated market to ask."""

from __future__ import annotations

from typing import Final

from fillwright.core.accounts import format_address
from fillwright.core.programs import USDC_MINT, USDT_MINT
from fillwright.core.units import USD_DECIMALS, BaseUnits, MicroUsd, Token

DOLLARS: Final = frozenset(format_address(mint) for mint in (USDC_MINT, USDT_MINT))
"""USDC and USDT, which are redeemed for a dollar."""


class DollarPrices:
    """Knows what dollars in tokens are worth, and of nothing else: what pools say could be made to say something else.

    A limit on worth then refuses what it cannot value.
    """

    def usd(self, token: Token, amount: BaseUnits) -> MicroUsd | None:
        if token.mint not in DOLLARS:
            return None
        return -(-amount * int(10**USD_DECIMALS) // int(10**token.decimals))
