"""A market in memory: prices that drift, two venues that disagree by a few percent, and the ways in which venues fail.

Prices are a function of the seed and the time, so every process that shares a seed sees the same market. Which venue
is ahead, and by how much, is drawn anew for every pair and second.
"""

from __future__ import annotations

import math
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any, Final

from fillwright.core.errors import PairNotListed, VenueUnavailable
from fillwright.core.ports import Clock
from fillwright.core.routing import Quote, QuoteRequest
from fillwright.core.units import BPS, BaseUnits, Bps, MicroUsd, Millis, Mint, Token, base58

PICO: Final = 10**12
POOL_DEPTH_PICO_USD: Final = 5_000_000 * PICO
OUTAGE_MS: Final = 10_000
STEP_MS: Final = 100

# What one whole token is worth to begin with, in 10^-12 US dollars: whole numbers even for the cheapest.
PRICES_PICO_USD: Final = {
    "SOL": 150 * PICO,
    "USDC": 1 * PICO,
    "USDT": 1 * PICO,
    "RAY": 2_300_000_000_000,
    "JUP": 480_000_000_000,
    "BONK": 18_500_000,
    "mSOL": 195 * PICO,
    "JitoSOL": 183 * PICO,
    "PYTH": 150_000_000_000,
    "ORCA": 2_100_000_000_000,
    "WIF": 790_000_000_000,
    "ETH": 3_100 * PICO,
}
STABLE: Final = frozenset({"USDC", "USDT"})


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """Delays are multiplied by `speed` (0: none). Rates are shares of the occasions, from 0 to 1."""

    fee_bps: Mapping[str, Bps]
    seed: int = 0
    speed: float = 1.0
    quote_delay_ms: Millis = 200
    difference_bps_min: Bps = 200
    difference_bps_max: Bps = 500
    quote_error_rate: float = 0.0
    venue_down_rate: float = 0.0


class Market:
    """What tokens are worth, and how far the venues are apart."""

    def __init__(self, settings: MarketSettings) -> None:
        self.settings = settings
        self._phase = cache(lambda mint: self._draw("phase", mint) * math.tau)
        self._behind_bps = lru_cache(maxsize=256)(self._draw_behind_bps)
        self._price = lru_cache(maxsize=256)(self._compute_price)

    def price_pico_usd(self, token: Token, at_ms: Millis) -> int:
        """Return the price of one whole token: a slow and a quick wave around the starting price, 2.5 % at most."""
        return self._price(token.symbol, token.mint, at_ms)

    def _compute_price(self, symbol: str, mint: Mint, at_ms: Millis) -> int:
        price = PRICES_PICO_USD.get(symbol)
        if price is None:
            raise PairNotListed(f"no pool holds {symbol}")
        if symbol in STABLE:
            return price
        phase = self._phase(mint)
        slow = math.sin(at_ms / 600_000 * math.tau + phase)
        quick = math.sin(at_ms / 47_000 * math.tau + phase * 3)
        return price * (1_000_000 + round(20_000 * slow + 5_000 * quick)) // 1_000_000

    def usd(self, token: Token, amount: BaseUnits, at_ms: Millis) -> MicroUsd | None:
        """Return the worth of an amount, rounded up; None for what has no price here."""
        try:
            price = self.price_pico_usd(token, at_ms)
        except PairNotListed:
            return None
        return -(-amount * price // int(10**token.decimals * (PICO // 1_000_000)))

    def behind_bps(self, venue: str, request: QuoteRequest) -> Bps:
        """Return how much more the leading venue's price is than that of `venue`; 0 for the leader itself."""
        return self._behind_bps(venue, request.token_in.mint, request.token_out.mint, request.asked_at_ms // 1000)

    def _draw_behind_bps(self, venue: str, *what: object) -> Bps:
        venues = sorted(self.settings.fee_bps)
        if venue == venues[int(self._draw("leader", *what) * len(venues))]:
            return 0
        low, high = self.settings.difference_bps_min, self.settings.difference_bps_max
        return low + int(self._draw("difference", venue, *what) * (high - low + 1))

    def down(self, venue: str, at_ms: Millis) -> bool:
        """Return whether `venue` is down in this stretch of ten seconds."""
        rate = self.settings.venue_down_rate
        return rate > 0 and self._draw("down", venue, at_ms // OUTAGE_MS) < rate

    def _draw(self, *what: object) -> float:
        digest = blake2b(repr((self.settings.seed, what)).encode(), digest_size=7).digest()
        return int.from_bytes(digest) / 2**56


class SimulatedVenue:
    """A place on the market, with its own fee and its own bad luck."""

    def __init__(self, name: str, market: Market, clock: Clock) -> None:
        self.name = name
        self._fee_bps = market.settings.fee_bps[name]
        self._market = market
        self._clock = clock
        self._random = random.Random(f"{market.settings.seed}/{name}")

    def quote(self, request: QuoteRequest) -> Quote | Coroutine[Any, Any, Quote]:
        settings = self._market.settings
        delay_ms = int(settings.quote_delay_ms * settings.speed)
        return self._quote_after(delay_ms, request) if delay_ms else self._quote(request)

    async def _quote_after(self, delay_ms: Millis, request: QuoteRequest) -> Quote:
        await self._clock.sleep(delay_ms)
        return self._quote(request)

    def _quote(self, request: QuoteRequest) -> Quote:
        settings = self._market.settings
        if self._market.down(self.name, request.asked_at_ms):
            raise VenueUnavailable(f"{self.name} is down")
        if settings.quote_error_rate and self._random.random() < settings.quote_error_rate:
            raise VenueUnavailable(f"{self.name} answered with an error")
        price_in = self._market.price_pico_usd(request.token_in, request.asked_at_ms)
        price_out = self._market.price_pico_usd(request.token_out, request.asked_at_ms)
        value = request.in_amount * price_in // 10**request.token_in.decimals
        behind_bps = self._market.behind_bps(self.name, request)
        # Every step rounds down, in the pool's favour, as pools do.
        out = request.in_amount * price_in * 10**request.token_out.decimals
        out = out // (price_out * 10**request.token_in.decimals)
        out = out * POOL_DEPTH_PICO_USD // (POOL_DEPTH_PICO_USD + value)
        out = out * BPS // (BPS + behind_bps)
        out = out * (BPS - self._fee_bps) // BPS
        return Quote(
            venue=self.name,
            pool=_pool(self.name, request.token_in, request.token_out),
            in_amount=request.in_amount,
            out_amount=out,
            fee_bps=self._fee_bps,
            price_impact_bps=value * BPS // (POOL_DEPTH_PICO_USD + value),
            quoted_at_ms=self._clock.now_ms(),
        )


class SimulatedPrices:
    """What the market's tokens are worth, without the venues' differences, as of the last tenth of a second."""

    def __init__(self, market: Market, clock: Clock) -> None:
        self._market = market
        self._clock = clock

    def usd(self, token: Token, amount: BaseUnits) -> MicroUsd | None:
        return self._market.usd(token, amount, self._clock.now_ms() // STEP_MS * STEP_MS)


@cache
def _pool(venue: str, token_in: Token, token_out: Token) -> str:
    """Return the address of the venue's pool for the pair, whichever way round."""
    mints = sorted((token_in.mint, token_out.mint))
    return base58(blake2b(repr((venue, mints)).encode(), digest_size=32).digest())
