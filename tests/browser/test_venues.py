"""The venues beside each other: figures from the orders' own event logs, and what they would pay now."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median_low
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Page, expect

from fillwright.venues.snapshots import write_snapshots
from tests.browser.pages import NARROW, WIDE, a_page, url
from tests.browser.test_dashboard import FAST, WITHIN_S, Json, get, post
from tests.process import EngineProcess, an_engine, in_real_time
from tests.venues.snapshot import a_snapshot, old_sol_usdc, sol_usdc

ORDERS: Final = 24
UNEVEN: Final[Json] = {**FAST, "fillwright_sim_quote_error_rate": "0.2", "fillwright_sim_reverted_rate": "0.2"}

NO_ROUTE: Final = "the server responded with a status of 503"  # now and then both venues fail


async def some_orders(engine: EngineProcess) -> None:
    for order_id in [await post(engine, tokenOut=("USDC", "JUP")[at % 2]) for at in range(ORDERS)]:
        await engine.outcome(order_id)


async def figures(page: Page) -> dict[str, list[str]]:
    """Return what the page says: figure -> what it is for each venue, without the notes."""
    await expect(page.get_by_text(re.compile(f"event logs of {ORDERS} of the last {ORDERS} orders"))).to_be_visible()
    rows = page.get_by_role("region", name="Venues beside each other").locator("tr")
    told: list[list[str]] = await rows.evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.firstChild?.textContent ?? ''))"
    )
    return {name: values for name, *values in told}


def is_the_median(told: str, values: list[float]) -> bool:
    """Return if a cell tells the median of these basis points: for a while one venue may win everything."""
    if not values:
        return told == "unknown"
    return float(told.split()[0].replace("\N{MINUS SIGN}", "-")) == pytest.approx(median_low(values), abs=0.06)


def test_the_figures_of_each_venue_are_those_of_the_orders_event_logs(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **UNEVEN) as engine:
            await some_orders(engine)
            orders = (await get(engine, "/api/orders?limit=200"))["orders"]
            why = [await get(engine, f"/api/orders/{order['orderId']}/explain") for order in orders]
            decisions = [decision["quotes"] for each in why for decision in each["decisions"]]
            async with a_page(engine, "/dashboard#/venues", complaints=[NO_ROUTE]) as page:
                told = await figures(page)
                venues = told[""]
                assert venues == sorted({quote["dex"] for quotes in decisions for quote in quotes})
                for at, venue in enumerate(venues):
                    codes = [quote["code"] for quotes in decisions for quote in quotes if quote["dex"] == venue]
                    won, outbid = codes.count("selected"), codes.count("outbid")
                    refused = len(codes) - won - outbid
                    assert told["Win rate"][at] == f"{round(100 * won / len(codes), 1):g} %"
                    assert told["Quotes given"][at] == str(won + outbid)
                    assert told["Quotes refused"][at] == str(refused)
                    assert told["Outbid"][at] == str(outbid)
                    behind = [
                        10_000 * (1 - float(quote["outAmount"]) / float(quotes[0]["outAmount"]))
                        for quotes in decisions
                        for quote in quotes
                        if quote["dex"] == venue and quote["code"] == "outbid"
                    ]
                    assert is_the_median(told["Outbid by, p50"][at], behind)
                    filled = [
                        each
                        for order, each in zip(orders, why, strict=True)
                        if order["status"] == "confirmed" and order["selectedDex"] == venue
                    ]
                    assert told["Fills"][at] == str(len(filled))
                    against = [
                        10_000 * (float(each["filledOutAmount"]) / float(each["quotedOutAmount"]) - 1)
                        for each in filled
                    ]
                    assert is_the_median(told["Fill against quote, p50"][at], against)

    in_real_time(test(), WITHIN_S)


def test_the_codes_of_what_a_venue_refused_lead_to_what_they_mean(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **UNEVEN) as engine:
            await some_orders(engine)
            async with a_page(engine, "/dashboard#/venues", complaints=[NO_ROUTE]) as page:
                code = page.get_by_role("row", name="Quotes refused").get_by_role("link").first
                await expect(code).to_have_text("venue_unavailable")
                await expect(code).to_have_attribute("href", "/docs#venue_unavailable")

    in_real_time(test(), WITHIN_S)


def test_quotes_for_a_pair_and_an_amount_are_compared_as_they_are_typed_and_nothing_is_executed(tmp_path: Path) -> None:
    async def test() -> None:
        refused = "the server responded with a status of 400"
        async with (
            an_engine(tmp_path, **FAST) as engine,
            a_page(engine, "/dashboard#/venues", complaints=[refused]) as page,
        ):
            rows = page.get_by_role("region", name="Quotes").locator("tbody tr")
            await expect(rows).to_have_count(2)
            await page.get_by_label("Token out").fill("JUP")
            await page.get_by_label("Amount in").fill("2.5")
            await expect(rows.first).to_contain_text("JUP")
            await expect(rows.first).to_contain_text("best")
            await expect(rows.last).to_contain_text("bps")
            await page.get_by_label("Amount in").fill("nothing")
            await expect(page.locator("#amount-wrong")).to_contain_text("amount must be")
            await expect(rows).to_have_count(0)
            await page.get_by_label("Amount in").fill("1")
            await expect(rows).to_have_count(2)
            await expect(page.locator("#amount-wrong")).to_be_empty()
            assert (await get(engine, "/api/orders"))["orders"] == []

    in_real_time(test(), WITHIN_S)


def test_every_quote_has_a_row_with_its_pool_however_many_a_venue_gives(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **FAST) as engine, a_page(engine, "/dashboard#/orders") as page:

            async def with_more(route: Any) -> None:
                answer = await (await route.fetch()).json()
                other = {**answer["quotes"][0], "selected": False, "code": "outbid", "reason": "pays less"}
                answer["quotes"] += [{**other, "pool": "AnotherPool"}, {**other, "dex": "orca", "pool": "ThirdPool"}]
                await route.fulfill(json=answer)

            await page.route("**/api/quotes", with_more)
            await page.get_by_role("link", name="Venues").click()
            table = page.get_by_role("region", name="Quotes")
            await expect(table.locator("tbody tr")).to_have_count(4)
            for pool in ("AnotherPool", "ThirdPool"):
                await expect(table.get_by_text(pool)).to_be_visible()

    in_real_time(test(), WITHIN_S)


def test_where_several_pools_of_a_venue_compete_it_is_outbid_only_if_all_of_them_are(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **FAST) as engine:
            await engine.outcome(await post(engine))
            async with a_page(engine, "/dashboard#/orders") as page:

                async def with_another_pool(route: Any) -> None:
                    answer = await (await route.fetch()).json()
                    for event in answer["events"]:
                        if event["event"] == "RouteSelected":
                            first = event["data"]["quotes"][0]
                            less = str(float(first["outAmount"]) * 0.999)
                            other = {**first, "pool": "AnotherPool", "selected": False, "code": "outbid"}
                            event["data"]["quotes"].append({**other, "outAmount": less})
                    await route.fulfill(body=json.dumps(answer), content_type="application/json")

                await page.route("**/api/orders/*/events", with_another_pool)
                await page.get_by_role("link", name="Venues").click()
                winner = (await get(engine, "/api/orders"))["orders"][0]["selectedDex"]
                table = page.get_by_role("region", name="Venues beside each other")
                await expect(table.get_by_text("1 of 1")).to_be_visible()
                names = await table.locator("thead th").all_text_contents()
                at = names.index(winner) - 1
                for name, value in (("Win rate", "100 %"), ("Quotes given", "2"), ("Outbid", "0")):
                    row = table.get_by_role("row", name=re.compile(f"^{name}(?! by)"))
                    await expect(row.locator("td").nth(at)).to_contain_text(value)
                await expect(page.get_by_role("region", name="Pools").locator("tbody tr")).to_have_count(3)

    in_real_time(test(), WITHIN_S)


def test_a_swap_over_several_pools_names_each_and_each_counts_as_chosen(tmp_path: Path) -> None:
    async def test() -> None:
        pools = tmp_path / "pools.json.gz"
        write_snapshots(pools, [a_snapshot([sol_usdc(), old_sol_usdc()])])
        async with an_engine(tmp_path, **FAST, fillwright_pools=str(pools)) as engine:
            order_id = await post(engine, amount="5000")
            await engine.outcome(order_id)
            best = (await get(engine, f"/api/orders/{order_id}"))["quotes"][0]
            assert best["type"] == "split"
            async with a_page(engine, f"/dashboard#/orders/{order_id}") as page:
                chosen = page.get_by_role("region", name="Quotes").locator("tr.chosen")
                for leg in best["legs"]:
                    told = f"{leg['inAmount']} SOL to {leg['outAmount']} USDC: raydium {leg['type']} pool"
                    await expect(chosen.get_by_text(told)).to_be_visible()
                    await expect(chosen.get_by_title(leg["pool"])).to_be_visible()
                await page.get_by_role("link", name="Venues").click()
                rows = page.get_by_role("region", name="Pools").locator("tbody tr")
                await expect(rows).to_have_count(2)
                for leg in best["legs"]:
                    row = rows.filter(has=page.get_by_title(leg["pool"]))
                    await expect(row.locator("td")).to_have_text(["1", "1", "100 %"])

    in_real_time(test(), WITHIN_S)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_is_not_wider_than_the_screen(tmp_path: Path, width: int, scheme: Literal["light", "dark"]) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **UNEVEN) as engine:
            await some_orders(engine)
            async with a_page(engine, "/", width=width, scheme=scheme, complaints=[NO_ROUTE]) as page:
                await page.goto(f"{url(engine)}/#/venues")
                await figures(page)
                await expect(page.get_by_role("region", name="Quotes")).to_be_visible()
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    in_real_time(test(), WITHIN_S)
