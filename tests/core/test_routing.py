"""The better quote wins, and every other one is kept with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.errors import NoRoute, PairNotListed, Unroutable, VenueUnavailable
from fillwright.core.routing import Answer, NoQuote, best_route
from tests.builders import a_quote, a_request


def test_the_quote_that_pays_most_after_fees_wins() -> None:
    answers = [a_quote(150_000_000, "raydium"), a_quote(150_000_001, "meteora")]
    route = best_route(a_request(), answers)
    assert route.quote.venue == "meteora"
    assert [(venue.venue, venue.code) for venue in route.passed_over] == [("raydium", "outbid")]
    assert route.passed_over[0].reason == "pays 0.000001 USDC less than meteora"


def test_a_venue_that_fails_is_kept_with_its_reason() -> None:
    answers: list[Answer] = [a_quote(venue="raydium"), NoQuote("meteora", VenueUnavailable("meteora is down"))]
    route = best_route(a_request(), answers)
    assert route.quote.venue == "raydium"
    assert route.passed_over[0].code == "venue_unavailable"
    assert route.passed_over[0].reason == "meteora is down"
    assert route.passed_over[0].quote is None


def test_a_pool_that_is_passed_over_is_kept_with_its_address_and_with_what_it_offered() -> None:
    outbid, nothing = replace(a_quote(1, "meteora"), pool="outbid"), replace(a_quote(0, "meteora"), pool="nothing")
    untaken = NoQuote("meteora", VenueUnavailable("not now"), "untaken", a_quote(10, "meteora"))
    route = best_route(a_request(), [a_quote(), outbid, nothing, untaken])
    assert [(each.pool, each.quote) for each in route.passed_over] == [
        ("outbid", outbid),
        ("nothing", nothing),
        ("untaken", untaken.quote),
    ]


def test_what_pays_most_after_costs_wins_and_what_would_have_paid_more_before_them_says_so() -> None:
    dear = replace(a_quote(150_000_010, "meteora"), cost_amount=20)
    route = best_route(a_request(), [dear, a_quote()])
    assert (route.quote.venue, route.passed_over[0].reason) == (
        "raydium",
        "pays 0.00001 USDC less after costs than raydium",
    )


def test_a_quote_that_pays_one_base_unit_is_a_quote_and_one_that_pays_nothing_is_kept_as_too_small() -> None:
    least, nothing = a_quote(1, "raydium"), a_quote(0, "meteora")
    route = best_route(a_request(), [least, nothing])
    assert route.quote == least
    assert [(venue.venue, venue.code, venue.quote) for venue in route.passed_over] == [
        ("meteora", "too_small", nothing)
    ]


def test_the_route_says_what_it_pays_and_by_how_much_it_leads() -> None:
    route = best_route(a_request(), [a_quote(151_500_000, "raydium"), a_quote(venue="meteora")])
    assert route.reason == "raydium pays 151.5 USDC after fees, 100 bps more than meteora"
    alone = best_route(a_request(), [a_quote(venue="raydium"), NoQuote("meteora", VenueUnavailable("down"))])
    assert alone.reason == "raydium pays 150 USDC after fees; no other venue gave a usable quote"


def test_without_a_usable_quote_there_is_no_route_and_every_reason_is_named() -> None:
    answers: list[Answer] = [NoQuote("raydium", VenueUnavailable("raydium is down")), a_quote(0, "meteora")]
    with pytest.raises(NoRoute) as refused:
        best_route(a_request(), answers)
    assert str(refused.value) == "meteora: the amount is too small to receive anything; raydium: raydium is down"


def test_what_no_venue_can_ever_fill_is_not_worth_another_attempt() -> None:
    with pytest.raises(Unroutable) as refused:
        best_route(a_request(), [NoQuote("raydium", PairNotListed("no pool")), a_quote(0, "meteora")])
    assert not refused.value.retryable
    assert "raydium: no pool" in str(refused.value)
    with pytest.raises(Unroutable, match=r"^no venue has a pool for the pair$"):
        best_route(a_request(), [])


def test_equal_quotes_always_give_the_same_route() -> None:
    first, second = a_quote(venue="raydium"), a_quote(venue="meteora")
    forwards = best_route(a_request(), [first, second])
    backwards = best_route(a_request(), [second, first])
    assert forwards == backwards
    assert forwards.quote.venue == "meteora"
    assert forwards.passed_over[0].reason == "pays the same as meteora, which sorts first"


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 2**64 - 1), min_size=1, max_size=6))
def test_no_other_quote_pays_more_and_none_is_forgotten_or_told_twice(amounts: dict[str, int]) -> None:
    answers = [a_quote(amount, venue) for venue, amount in amounts.items()]
    if not any(amounts.values()):
        with pytest.raises(Unroutable):
            best_route(a_request(), answers)
        return
    route = best_route(a_request(), answers)
    assert route.quote.out_amount == max(amounts.values())
    kept = [route.quote, *(venue.quote for venue in route.passed_over)]
    assert [quote.out_amount for quote in kept if quote] == sorted(amounts.values(), reverse=True)
    assert sorted(quote.venue for quote in kept if quote) == sorted(amounts)
