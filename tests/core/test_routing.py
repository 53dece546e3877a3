"""The better quote wins, and every other one is kept with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.errors import ExecutionError, NoRoute, PairNotListed, Unroutable, VenueUnavailable
from fillwright.core.routing import Quote, best_route
from tests.builders import a_quote, a_request


def test_the_quote_that_pays_most_after_fees_wins() -> None:
    answers = {"raydium": a_quote(150_000_000, "raydium"), "meteora": a_quote(150_000_001, "meteora")}
    route = best_route(a_request(), answers)
    assert route.quote.venue == "meteora"
    assert [(venue.venue, venue.code) for venue in route.passed_over] == [("raydium", "outbid")]
    assert "0.000001 USDC less than meteora" in route.passed_over[0].reason


def test_a_venue_that_fails_is_kept_with_its_reason() -> None:
    answers: dict[str, Quote | ExecutionError] = {
        "raydium": a_quote(venue="raydium"),
        "meteora": VenueUnavailable("meteora is down"),
    }
    route = best_route(a_request(), answers)
    assert route.quote.venue == "raydium"
    assert route.passed_over[0].code == "venue_unavailable"
    assert route.passed_over[0].reason == "meteora is down"


def test_without_a_usable_quote_there_is_no_route_and_every_reason_is_named() -> None:
    answers: dict[str, Quote | ExecutionError] = {
        "raydium": VenueUnavailable("raydium is down"),
        "meteora": a_quote(0, "meteora"),
    }
    with pytest.raises(NoRoute, match=r"meteora: the amount is too small.*raydium: raydium is down"):
        best_route(a_request(), answers)


def test_what_no_venue_can_ever_fill_is_not_worth_another_attempt() -> None:
    with pytest.raises(Unroutable) as refused:
        best_route(a_request(), {"raydium": PairNotListed("no pool"), "meteora": a_quote(0, "meteora")})
    assert not refused.value.retryable


def test_equal_quotes_always_give_the_same_route() -> None:
    first, second = a_quote(venue="raydium"), a_quote(venue="meteora")
    forwards = best_route(a_request(), {"raydium": first, "meteora": second})
    backwards = best_route(a_request(), {"meteora": second, "raydium": first})
    assert forwards == backwards
    assert forwards.quote.venue == "meteora"


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 2**64 - 1), min_size=1, max_size=6))
def test_no_other_quote_pays_more_and_none_is_forgotten(amounts: dict[str, int]) -> None:
    route = best_route(a_request(), {venue: a_quote(amount, venue) for venue, amount in amounts.items()})
    assert route.quote.out_amount == max(amounts.values())
    assert {route.quote.venue, *(venue.venue for venue in route.passed_over)} == set(amounts)
