"""Real pools side by side: which one gets the order, what is split, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fillwright.core.accounts import PoolAccounts, format_address
from fillwright.core.errors import NoRoute, PairNotListed, Unroutable
from fillwright.core.routing import NoQuote, Quote, QuoteRequest, Route, best_route
from fillwright.core.tokens import WELL_KNOWN
from fillwright.execution.quoting import ask_all
from fillwright.venues.market import MarketRules, PoolVenue
from fillwright.venues.pool import Policy
from fillwright.venues.snapshots import SnapshotPools
from tests.venues.model import SLOT, address, patched
from tests.venues.snapshot import LAMPORTS, OWN, a_snapshot, old_sol_usdc, own_usdc, sol_usdc

SOL, USDC = WELL_KNOWN[:2]
RULES = MarketRules(quote_slots_max=150, priority_fee_micro_lamports=10_000, policy=Policy())


def a_request(sol: int = 10, **more: object) -> QuoteRequest:
    return replace(QuoteRequest(SOL, USDC, sol * LAMPORTS, asked_at_ms=1_000), **more)  # type: ignore[arg-type]


def venue(*pools: PoolAccounts, rules: MarketRules = RULES) -> PoolVenue:
    return PoolVenue(SnapshotPools([a_snapshot(pools)]), rules)


async def route(request: QuoteRequest, *pools: PoolAccounts) -> Route:
    return best_route(request, await ask_all([venue(*pools)], request, 1_000))


def quotes_of(route: Route) -> Sequence[Quote]:
    return [route.quote, *(passed.quote for passed in route.passed_over if passed.quote)]


async def test_the_pool_that_pays_most_wins_and_every_other_one_is_kept_with_its_reason() -> None:
    small, off = sol_usdc("small ", sol=500), sol_usdc("off ")
    off = patched(off, off.address, {329: b"\x04"})
    taken = await route(a_request(in_amount=LAMPORTS // 100), sol_usdc(), small, off)
    assert taken.quote.pool == format_address(sol_usdc().address)
    assert taken.quote.venue == "raydium"
    assert [leg.pool_type for leg in taken.quote.legs] == ["cpmm"]
    reasons = {passed.pool: (passed.venue, passed.code) for passed in taken.passed_over}
    assert reasons[format_address(small.address)] == ("raydium", "outbid")
    assert reasons[format_address(off.address)] == ("raydium", "not_tradable")
    assert taken.quote.legs[0].slot == SLOT


async def test_a_large_order_is_split_where_that_pays_more_and_the_legs_add_up() -> None:
    request = a_request(10_000)
    taken = await route(request, sol_usdc("first "), old_sol_usdc("second "))
    assert taken.quote.type == "split"
    assert sum(leg.in_amount for leg in taken.quote.legs) == request.in_amount
    assert sum(leg.out_amount for leg in taken.quote.legs) == taken.quote.out_amount
    single = max(quote.out_amount for quote in quotes_of(taken) if quote.type != "split")
    assert taken.quote.net_amount > single
    assert "+".join(leg.pool for leg in taken.quote.legs) == taken.quote.pool


async def test_a_small_order_is_not_split_since_the_second_swap_costs_more_than_it_gains() -> None:
    costly = replace(RULES, priority_fee_micro_lamports=1_000_000)
    pools = sol_usdc("first "), old_sol_usdc("second ")
    cheap = await venue(*pools).quote(a_request(1))
    dear = await venue(*pools, rules=costly).quote(a_request(1))
    assert [answer.type for answer in cheap if isinstance(answer, Quote)] == ["cpmm", "amm_v4", "split"]
    assert [answer.type for answer in dear if isinstance(answer, Quote)] == ["cpmm", "amm_v4"]


async def test_without_a_pool_of_both_tokens_the_order_goes_through_one_in_between() -> None:
    request = QuoteRequest(SOL, OWN, 10 * LAMPORTS, 1_000)
    taken = await route(request, sol_usdc(), own_usdc())
    first, second = taken.quote.legs
    assert (taken.quote.type, first.mint_out, second.mint_in) == ("two_hops", USDC.mint, USDC.mint)
    assert (first.in_amount, first.out_amount) == (request.in_amount, second.in_amount)
    assert taken.quote.out_amount == second.out_amount
    assert taken.quote.fee_bps == 50


async def test_what_sending_costs_counts_in_the_comparison_and_not_in_what_is_received() -> None:
    taken = await route(a_request(), sol_usdc())
    # One signature, 45,000 + 34,000 units at 0.01 lamports each: 5,790 lamports, at 150 dollars.
    assert taken.quote.cost_amount == pytest.approx(869, abs=5)
    assert taken.quote.net_amount == taken.quote.out_amount - taken.quote.cost_amount
    request = QuoteRequest(USDC, SOL, 1_500_000_000, 1_000)
    assert (await route(request, sol_usdc())).quote.cost_amount == 5_790
    costly = replace(RULES, priority_fee_micro_lamports=1_000_000)
    answers = await venue(sol_usdc(), rules=costly).quote(request)
    assert [answer.cost_amount for answer in answers if isinstance(answer, Quote)] == [84_000]


async def test_a_pool_that_was_read_too_long_ago_is_not_quoted() -> None:
    source = SnapshotPools([a_snapshot([sol_usdc("new ")]), a_snapshot([sol_usdc("stale ")], slot=SLOT - 151)])
    answers = await PoolVenue(source, RULES).quote(a_request())
    refused = [answer for answer in answers if isinstance(answer, NoQuote)]
    assert [(answer.pool, answer.error.code) for answer in refused] == [
        (format_address(sol_usdc("stale ").address), "stale_quote")
    ]
    just = SnapshotPools([a_snapshot([sol_usdc("new ")]), a_snapshot([sol_usdc("stale ")], slot=SLOT - 150)])
    assert all(isinstance(answer, Quote) for answer in await PoolVenue(just, RULES).quote(a_request()))


async def test_a_pair_without_pools_or_with_none_that_can_fill_it_says_so() -> None:
    with pytest.raises(PairNotListed):
        await venue(sol_usdc()).quote(QuoteRequest(SOL, OWN, 1, 1_000))
    off = patched(sol_usdc(), sol_usdc().address, {329: b"\x04"})
    with pytest.raises(Unroutable, match="switched off"):
        await route(a_request(), off)
    no_config = replace(
        sol_usdc(), accounts={key: each for key, each in sol_usdc().accounts.items() if key != address("deep config")}
    )
    with pytest.raises(NoRoute, match="missing"):
        await route(a_request(), no_config)
