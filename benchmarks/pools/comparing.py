"""An order of SOL for USDC, compared over six pools of two venues: one of each type, of about the same depth.

They are the tests' models, moved to the same pair. Every one is decoded anew for each comparison.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, log
from typing import Final
from unittest import mock

from tests.venues import clmm, damm_v1, damm_v2, dlmm
from tests.venues.model import address
from tests.venues.snapshot import LAMPORTS, MICROS, SOL_USDC, USDC_MINT, a_snapshot, old_sol_usdc, sol_usdc

from fillwright.core.accounts import Account, Address, PoolAccounts, format_address
from fillwright.core.programs import METEORA_DLMM, SOL_MINT
from fillwright.core.routing import Answer, Quote, QuoteRequest
from fillwright.core.tokens import WELL_KNOWN
from fillwright.core.units import address_bytes
from fillwright.venues import market
from fillwright.venues.addresses import derive
from fillwright.venues.fixed_point import pow_q64
from fillwright.venues.market import MarketRules, PoolVenue
from fillwright.venues.mints import parse_mint
from fillwright.venues.pool import Policy
from fillwright.venues.raydium.tick_math import sqrt_price_at
from fillwright.venues.snapshots import SnapshotPools

SOL, USDC = WELL_KNOWN[:2]
RULES: Final = MarketRules(quote_slots_max=150, priority_fee_micro_lamports=10_000, policy=Policy())
POOL_SOL: Final = 10_000
DOLLARS: Final = 150  # for one SOL
PRICE: Final = DOLLARS * MICROS / LAMPORTS
ORDER: Final = QuoteRequest(SOL, USDC, 100 * LAMPORTS, asked_at_ms=1_000)
POOLS: Final = 6


@dataclass(frozen=True, slots=True)
class Way:
    """How to compare: with the search for a split, and whether what is derived from addresses is known already."""

    name: str
    has_split: bool
    is_first: bool = False


WAYS: Final = (
    Way("compare 6 pools", has_split=False),
    Way("compare 6 pools and search for a split", has_split=True),
    Way("compare 6 pools and search for a split, the first time", has_split=True, is_first=True),
)


def six_pools() -> list[PoolAccounts]:
    lamports, micros = POOL_SOL * LAMPORTS, POOL_SOL * DOLLARS * MICROS
    tick = round(log(PRICE) / log(1.0001))
    liquidity = isqrt(lamports * micros)
    ranges = [(tick // 10 * 10 - 10 * reach, tick // 10 * 10 + 10 * reach) for reach in (2_000, 90, 30, 9)]
    active = round(log(PRICE) / log(1.0025))
    bins = {
        active + each: dlmm.Bin(*((0, micros // 60) if each < 0 else (lamports // 60, 0))) for each in range(-60, 60)
    }
    vaults = [damm_v1.a_vault(2 * amount) for amount in (lamports, micros)]
    return [
        sol_usdc("cpmm ", POOL_SOL, DOLLARS),
        old_sol_usdc("amm v4 ", POOL_SOL, DOLLARS),
        clmm.world([(low, high, liquidity) for low, high in ranges], tick=tick, name="clmm ", mints=SOL_USDC),
        moved(damm_v2.world(liquidity << 64, isqrt(2**128 * micros // lamports)), address("damm v2 pool")),
        moved(dlmm.world(bins, active), address("dlmm pool")),
        moved(damm_v1.world(*vaults), address("damm v1 pool")),
    ]


def moved(world: PoolAccounts, pool: Address) -> PoolAccounts:
    """Return a model's pool at another address, as one of SOL and USDC; its other accounts are moved along."""
    known = {world.address: pool, address("mint a"): SOL_MINT, address("mint b"): USDC_MINT}
    for index in range(-100, 100):
        seeds = (b"bin_array", index.to_bytes(8, "little", signed=True))
        known[derive(METEORA_DLMM, seeds[0], world.address, seeds[1])] = derive(METEORA_DLMM, seeds[0], pool, seeds[1])
    own = {each: Address(pool[:8] + each[:24]) for each in world.accounts if each not in known}
    names = known | own
    accounts = {
        names[each]: Account(account.owner, _named(account.data, names)) for each, account in world.accounts.items()
    }
    return PoolAccounts(pool, world.slot, world.time, accounts)


def _named(data: bytes, names: Mapping[Address, Address]) -> bytes:
    for old, new in names.items():
        data = data.replace(old, new)
    return data


async def compare(way: Way, times: int) -> tuple[float, float]:
    """Compare so often. Return the CPU time and the wall time in seconds. One pool at most is no split."""
    source = SnapshotPools([a_snapshot(six_pools())])
    split_max = market.SPLIT_MAX if way.has_split else 1
    with mock.patch.object(market, "SPLIT_MAX", split_max):
        _check(await PoolVenue(source, RULES).quote(ORDER), way)
        cpu = wall = 0.0
        for _ in range(times):
            if way.is_first:
                forget()
            cpu_before, wall_before = time.process_time(), time.perf_counter()
            await PoolVenue(source, RULES).quote(ORDER)
            cpu += time.process_time() - cpu_before
            wall += time.perf_counter() - wall_before
    return cpu, wall


def forget() -> None:
    """Forget everything that is remembered from one quote to the next."""
    for remembered in (derive, format_address, address_bytes, sqrt_price_at, pow_q64, parse_mint):
        remembered.cache_clear()


def _check(answers: Sequence[Answer], way: Way) -> None:
    """Stop if not every pool gives a quote, or no split is found where one is searched for."""
    quotes = [each for each in answers if isinstance(each, Quote)]
    assert len(quotes) == POOLS + way.has_split, answers
    assert any(each.type == "split" for each in quotes) is way.has_split
    assert len({leg.pool for each in quotes for leg in each.legs}) == POOLS
