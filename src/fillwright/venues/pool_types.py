"""The pool types, one line each. A new one is a module like the others, and a line here."""

from __future__ import annotations

from typing import Final

from fillwright.core.accounts import Account
from fillwright.venues.meteora.damm_v1 import DAMM_V1
from fillwright.venues.meteora.damm_v2 import DAMM_V2
from fillwright.venues.meteora.dlmm import DLMM
from fillwright.venues.pool import PoolType
from fillwright.venues.raydium.amm_v4 import AMM_V4
from fillwright.venues.raydium.clmm import CLMM
from fillwright.venues.raydium.cpmm import CPMM

POOL_TYPES: Final = (CPMM, AMM_V4, CLMM, DAMM_V2, DLMM, DAMM_V1)
BY_NAME: Final = {each.name: each for each in POOL_TYPES}


def misshapen(account: Account) -> PoolType | None:
    """Return of which type a pool's account would be if it had the length that is known; None if of none."""
    for each in POOL_TYPES:
        if each.layout.resembles(account):
            return each
    return None


def identify(account: Account) -> PoolType | None:
    """Return of which type a pool's account is; None if it is no pool that is known."""
    for each in POOL_TYPES:
        if each.layout.fits(account):
            return each
    return None
