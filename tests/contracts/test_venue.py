"""What every Venue keeps, shown on the simulated ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.errors import PairNotListed, VenueUnavailable
from fillwright.core.ports import Venue
from fillwright.core.routing import Quote, QuoteRequest
from fillwright.core.tokens import WELL_KNOWN
from fillwright.core.units import Mint, Token
from fillwright.venues import VENUES
from fillwright.venues.simulated import Market, MarketSettings
from tests import virtual
from tests.builders import SOL, USDC, a_request

SEED_FEES = {"raydium": 30, "meteora": 20}


async def ask(venue: Venue, request: QuoteRequest) -> Quote:
    """Return the quote, whether the venue has it at hand or not."""
    answer = venue.quote(request)
    quote = answer if isinstance(answer, Quote) else await answer
    assert isinstance(quote, Quote)
    return quote


def the_venues(clock: virtual.VirtualClock, **settings: Any) -> list[Venue]:
    market = Market(MarketSettings(**{"fee_bps": SEED_FEES, **settings}))
    return [make(name, market, clock) for name, make in VENUES.items()]


async def test_a_quote_is_for_the_amount_asked_and_takes_the_seed_s_delay(clock: virtual.VirtualClock) -> None:
    for venue in the_venues(clock):
        started = clock.now_ms()
        quote = await ask(venue, a_request())
        assert (quote.venue, quote.in_amount) == (venue.name, a_request().in_amount)
        assert quote.out_amount > 0
        assert clock.now_ms() - started == 200


async def test_the_same_seed_and_time_give_the_same_market_and_another_seed_another(
    clock: virtual.VirtualClock,
) -> None:
    async def out_amounts(seed: int) -> list[int]:
        return [(await ask(venue, a_request())).out_amount for venue in the_venues(clock, seed=seed)]

    assert await out_amounts(1) == await out_amounts(1)
    assert await out_amounts(1) != await out_amounts(2)


async def test_prices_drift_and_the_venues_take_turns_in_the_lead(clock: virtual.VirtualClock) -> None:
    leaders, amounts = set(), set()
    for second in range(60):
        request = replace(a_request(), asked_at_ms=second * 1_000)
        quotes = [await ask(venue, request) for venue in the_venues(clock, speed=0.0)]
        best = max(quotes, key=lambda quote: quote.out_amount)
        leaders.add(best.venue)
        amounts.add(best.out_amount)
    assert leaders == {"raydium", "meteora"}
    assert len(amounts) > 30


async def test_the_venues_prices_before_fees_differ_by_2_to_5_percent(clock: virtual.VirtualClock) -> None:
    for second in range(100):
        request = replace(a_request(), asked_at_ms=second * 1_000)
        quotes = [await ask(venue, request) for venue in the_venues(clock, speed=0.0)]
        low, high = sorted(quote.out_amount / (1 - quote.fee_bps / 10_000) for quote in quotes)
        assert 0.0199 <= high / low - 1 <= 0.0501


async def test_a_token_that_no_pool_holds_is_refused_with_a_code(clock: virtual.VirtualClock) -> None:
    unknown = Token("XYZ", Mint("7" * 32), 6)
    for venue in the_venues(clock):
        with pytest.raises(PairNotListed):
            await ask(venue, replace(a_request(), token_out=unknown))


async def test_a_venue_that_is_down_or_errs_says_so(clock: virtual.VirtualClock) -> None:
    for rates in ({"venue_down_rate": 1.0}, {"quote_error_rate": 1.0}):
        for venue in the_venues(clock, **rates):
            with pytest.raises(VenueUnavailable):
                await ask(venue, a_request())


@given(
    st.sampled_from(WELL_KNOWN),
    st.sampled_from(WELL_KNOWN),
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**41),
)
def test_a_round_trip_never_gains_and_more_in_never_pays_less(
    token: Token, other: Token, amount: int, at_ms: int
) -> None:
    async def trade() -> None:
        clock = virtual.VirtualClock()
        settings = {"speed": 0.0, "difference_bps_min": 0, "difference_bps_max": 0}
        venue, _ = the_venues(clock, **settings)
        there = await ask(venue, QuoteRequest(token, other, amount, at_ms))
        back = await ask(venue, QuoteRequest(other, token, there.out_amount, at_ms))
        assert back.out_amount <= amount
        more = await ask(venue, QuoteRequest(token, other, amount + amount // 3 + 1, at_ms))
        assert more.out_amount >= there.out_amount

    virtual.run(trade())


async def test_fees_are_the_seed_s(clock: virtual.VirtualClock) -> None:
    settings = {"difference_bps_min": 0, "difference_bps_max": 0}
    request = QuoteRequest(SOL, USDC, 1_000_000_000, 1_000)
    free = [await ask(venue, request) for venue in the_venues(clock, fee_bps=dict.fromkeys(SEED_FEES, 0), **settings)]
    paid = [await ask(venue, request) for venue in the_venues(clock, **settings)]
    for without, quote in zip(free, paid, strict=True):
        assert quote.out_amount == without.out_amount * (10_000 - SEED_FEES[quote.venue]) // 10_000
