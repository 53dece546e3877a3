"""The dashboard as people use it: a real browser, a real engine."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Page, expect

from tests.browser.pages import NARROW, PATIENCE_MS, WIDE, a_page, url
from tests.process import EngineProcess, a_process, an_engine, environment, in_real_time
from tests.world import SWAP

Json = dict[str, Any]

expect.set_options(timeout=PATIENCE_MS)
FAST: Final[Json] = {"fillwright_sim_speed": "0.1"}
WITHIN_S: Final = 120
MANY: Final = 600
AT_ONCE: Final = 50
ROWS: Final = 50


async def post(engine: EngineProcess, **changes: Any) -> str:
    async with engine.http.post("/api/orders/execute", json={**SWAP, **changes}) as response:
        body = await response.json()
        assert response.status == 201, body
        return str(body["orderId"])


async def get(engine: EngineProcess, path: str, key: str = "") -> Json:
    async with engine.http.get(path, headers={"Authorization": f"Bearer {key}"} if key else {}) as response:
        body: Json = await response.json()
        assert response.status == 200, body
        return body


async def fillwright(folder: Path, *arguments: str) -> str:
    """Run a command of the command line, and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", *arguments),
        cwd=folder,
        env=environment(folder),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


def order_of(page: Page) -> str:
    return page.url.rpartition("/")[2]


def test_an_order_submitted_in_the_form_is_watched_until_it_is_confirmed(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **FAST) as engine, a_page(engine, "/dashboard#/new") as page:
            await page.get_by_label("Amount in").fill("0.25")
            await page.get_by_label("Slippage, %").fill("0.5")
            await expect(page.get_by_text("Would receive")).to_be_visible()
            await page.get_by_role("button", name="Submit order").click()
            await expect(page.locator("#order-status")).to_have_text("confirmed")
            order = await get(engine, f"/api/orders/{order_of(page)}")
            assert (order["amount"], order["slippageBps"], order["status"]) == ("0.25", 50, "confirmed")
            await expect(page.get_by_text(f"{order['fill']['outAmount']} USDC").first).to_be_visible()
            await expect(page.locator(".timeline li")).to_have_count(order["seq"])
            compared = page.get_by_role("region", name="Quotes")
            for quote in order["quotes"]:
                await expect(compared.get_by_text(f"{quote['outAmount']} USDC").first).to_be_visible()

    in_real_time(test(), WITHIN_S)


def test_what_is_wrong_with_an_order_is_said_at_its_field_and_nothing_is_submitted(tmp_path: Path) -> None:
    async def test() -> None:
        refused = "the server responded with a status of 400"
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/new", complaints=[refused]) as page:
            token = page.get_by_label("Token out")
            await token.fill("NOSUCH")
            await expect(page.get_by_role("alert")).to_contain_text("unknown_token")
            await expect(token).to_have_attribute("aria-invalid", "true")
            await page.get_by_role("button", name="Submit order").click()
            await expect(page.locator("form").get_by_role("alert")).to_contain_text("unknown_token")
            assert (await get(engine, "/api/orders"))["orders"] == []

    in_real_time(test(), WITHIN_S)


def test_an_order_submitted_again_because_its_answer_was_lost_is_the_same_order(tmp_path: Path) -> None:
    async def test() -> None:
        lost = "net::ERR_FAILED"
        async with (
            a_process(tmp_path, "serve", "--api-only") as engine,
            a_page(engine, "/dashboard#/new", complaints=[lost]) as page,
        ):
            losses = 0

            async def lose_the_answer(route: Any) -> None:
                nonlocal losses
                losses += 1
                await route.fetch()
                await route.abort()

            await page.route("**/api/orders/execute", lose_the_answer, times=1)
            send = page.get_by_role("button", name="Submit order")
            await send.click()
            await expect(page.get_by_role("alert")).to_contain_text("does not answer")
            await send.click()
            await expect(page.locator("#order-status")).to_have_text("pending")
            (order,) = (await get(engine, "/api/orders"))["orders"]
            assert (order["orderId"], losses) == (order_of(page), 1)

    in_real_time(test(), WITHIN_S)


def test_an_order_that_waits_is_cancelled_by_its_button(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_process(tmp_path, "serve", "--api-only") as engine:
            order_id = await post(engine)
            async with a_page(engine, f"/dashboard#/orders/{order_id}") as page:
                cancel = page.get_by_role("button", name="Cancel order")
                await cancel.click()
                await expect(page.locator("#order-status")).to_have_text("cancelled")
                await expect(cancel).to_have_count(0)
            assert (await get(engine, f"/api/orders/{order_id}"))["status"] == "cancelled"

    in_real_time(test(), WITHIN_S)


def test_an_operator_halts_the_engine_and_resumes_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/risk") as page:
            await page.get_by_label("Reason").fill("prices look odd")
            await page.get_by_role("button", name="Halt").click()
            for shown in ("#current", "#mode"):
                await expect(page.locator(shown)).to_have_text("halted")
            assert await get(engine, "/api/mode") == {"mode": "halted", "reason": "prices look odd"}
            await page.get_by_role("link", name="New order").click()
            await expect(page.get_by_text("it takes no new orders")).to_be_visible()
            await page.get_by_role("link", name="Audit").click()
            await expect(page.get_by_text("mode: halted, reason: prices look odd")).to_be_visible()
            await page.get_by_role("link", name="Risk", exact=True).click()
            await page.get_by_role("button", name="Resume").click()
            for shown in ("#current", "#mode"):
                await expect(page.locator(shown)).to_have_text("active")
            assert (await get(engine, "/api/mode"))["mode"] == "active"

    in_real_time(test(), WITHIN_S)


def test_orders_of_others_appear_and_move_while_the_list_is_open(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **FAST) as engine, a_page(engine, "/dashboard#/orders") as page:
            await expect(page.get_by_text("live", exact=True)).to_be_visible()
            await expect(page.get_by_text("There are no orders yet")).to_be_visible()
            order_id = await post(engine)
            row = page.locator(f'tr[data-key="{order_id}"]')
            await expect(row).to_contain_text("confirmed")
            order = await get(engine, f"/api/orders/{order_id}")
            await expect(row).to_contain_text(f"{order['fill']['outAmount']} USDC")
            await row.get_by_role("link").click()
            await expect(page.get_by_role("heading", name="1.5 SOL")).to_be_visible()

    in_real_time(test(), WITHIN_S)


def test_orders_are_filtered_by_status_and_token_and_found_by_either_id(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_process(tmp_path, "serve", "--api-only") as engine:
            plain = await post(engine, clientOrderId="desk-1")
            other = await post(engine, tokenIn="JUP", amount="20")
            gone = await post(engine)
            async with engine.http.delete(f"/api/orders/{gone}"):
                pass
            async with a_page(engine, "/dashboard#/orders") as page:
                rows = page.locator("tbody tr")
                await expect(rows).to_have_count(3)
                await page.get_by_label("Status").select_option("cancelled")
                await expect(rows).to_have_count(1)
                await expect(rows).to_have_attribute("data-key", gone)
                await page.get_by_label("Status").select_option("")
                await page.get_by_label("Token").fill("JUP")
                await page.keyboard.press("Enter")
                await expect(rows).to_have_count(1)
                await expect(rows).to_have_attribute("data-key", other)
                await page.get_by_label("Token").fill("")
                await page.get_by_label("Find").fill("desk-1")
                await page.keyboard.press("Enter")
                await expect(rows).to_have_count(1)
                await expect(rows).to_have_attribute("data-key", plain)
                await page.get_by_label("Find").fill("desk-2")
                await page.keyboard.press("Enter")
                await expect(page.get_by_text("There is no order with the client order id")).to_be_visible()
                await page.get_by_label("Find").fill(gone)
                await page.keyboard.press("Enter")
                await expect(page.locator("#order-status")).to_have_text("cancelled")

    in_real_time(test(), WITHIN_S)


def test_of_many_orders_only_a_page_is_in_the_document_and_every_page_can_be_reached(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_process(tmp_path, "serve", "--api-only") as engine:
            orders: list[str] = []
            while len(orders) < MANY:
                orders += await asyncio.gather(*(post(engine) for _ in range(AT_ONCE)))
            seen: set[str] = set()
            async with a_page(engine, "/dashboard#/orders") as page:
                rows = page.locator("tbody tr")
                for first in range(1, MANY, ROWS):
                    await expect(page.get_by_text(f"{first} to {first + ROWS - 1}", exact=True)).to_be_visible()
                    assert await rows.count() == ROWS
                    seen |= set(await rows.evaluate_all("rows => rows.map((row) => row.dataset.key)"))
                    await page.get_by_role("button", name="Older").click()
                assert seen == set(orders)

    in_real_time(test(), WITHIN_S)


def test_where_there_are_keys_one_is_asked_for_and_stays_in_the_tab(tmp_path: Path) -> None:
    async def test() -> None:
        key = json.loads(await fillwright(tmp_path, "keys", "create", "desk", "--scopes", "read,trade", "--json"))
        secret = key["key"]
        refused = ["the server responded with a status of 401", "the server responded with a status of 403"]
        async with (
            an_engine(tmp_path, **FAST) as engine,
            a_page(engine, "/dashboard#/orders", complaints=refused) as page,
        ):
            field = page.get_by_label("API key")
            await field.fill("fw_not_a_key")
            await page.keyboard.press("Enter")
            await expect(page.get_by_text("This key is not valid")).to_be_visible()
            assert await page.evaluate("sessionStorage.length") == 0
            await field.fill(secret)
            await page.keyboard.press("Enter")
            await expect(page.get_by_text("live", exact=True)).to_be_visible()  # by a ticket: a socket sends no key
            stores = "[JSON.stringify(sessionStorage), localStorage.length + document.cookie.length]"
            kept, elsewhere = await page.evaluate(stores)
            assert (secret in kept, elsewhere) == (True, 0)
            assert secret not in page.url + await page.content()

            await page.get_by_role("link", name="New order").click()
            await page.get_by_role("button", name="Submit order").click()
            await expect(page.locator("#order-status")).to_have_text("confirmed")
            await page.get_by_role("link", name="Audit").click()
            await expect(page.get_by_role("alert")).to_contain_text("lacks the scope admin")

            await fillwright(tmp_path, "keys", "revoke", key["keyId"])
            await page.get_by_role("link", name="Overview").click()
            await expect(page.get_by_text("This key is not valid, or no longer")).to_be_visible()
            assert await page.evaluate("sessionStorage.length") == 0

    in_real_time(test(), WITHIN_S)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_page_complains_or_is_wider_than_the_screen(
    tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **FAST, fillwright_sim_reverted_rate="0.5") as engine:
            orders = [await post(engine) for _ in range(8)]
            for order_id in orders:
                await engine.outcome(order_id)
            limits = {
                "of": "everybody",
                "limits": {"dayUsd": "5000", "dayAmount": {"SOL": "20"}, "tokens": ["SOL", "USDC"]},
            }
            async with engine.http.put("/api/limits", json=limits) as response:
                assert response.status == 200
            async with a_page(engine, "/", width=width, scheme=scheme) as page:
                for path, said in (
                    ("/overview", "Time in each phase"),
                    ("/orders", "live"),
                    (f"/orders/{orders[0]}", "Quotes compared"),
                    ("/new", "Would receive"),
                    ("/risk", "SOL in a day"),
                    ("/audit", "Limits set"),
                    ("/nowhere", "Not found"),
                ):
                    await page.goto(f"{url(engine)}/#{path}")
                    await expect(page.get_by_text(said, exact=True).first).to_be_visible()
                    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
                    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                    lightness = sum(int(part) for part in re.findall(r"\d+", ground)[:3]) / 3
                    assert (lightness > 128) == (scheme == "light")

    in_real_time(test(), WITHIN_S)


def test_the_figures_of_the_overview_are_those_of_the_orders(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **FAST, fillwright_sim_reverted_rate="0.5") as engine:
            for order_id in [await post(engine) for _ in range(20)]:
                await engine.outcome(order_id)
            orders = (await get(engine, "/api/orders"))["orders"]
            confirmed = [order for order in orders if order["status"] == "confirmed"]
            fills = {name: sum(order["selectedDex"] == name for order in confirmed) for name in ("raydium", "meteora")}
            why = [await get(engine, f"/api/orders/{order['orderId']}/explain") for order in confirmed]
            exact = [float(each["filledOutAmount"]) / float(each["quotedOutAmount"]) for each in why]
            middle = sorted((each - 1) * 10_000 for each in exact)[(len(exact) + 1) // 2 - 1]
            async with a_page(engine, "/dashboard#/overview") as page:
                # The orders are drawn at once, what their event logs tell when those have been read.
                await expect(page.get_by_text(f"event logs of {len(orders)} orders")).to_be_visible()
                tiles = dict(
                    await page.locator(".tile", has_text="attempts")
                    .locator("xpath=..")
                    .locator(".tile")
                    .evaluate_all(
                        "tiles => tiles.map((tile) => [...tile.children].slice(0, 2).map((part) => part.textContent))"
                    )
                )
                assert float(tiles["Success rate"].split()[0]) == round(100 * len(confirmed) / len(orders), 1)
                told = float(tiles["Fill against quote, p50"].split()[0].replace("\N{MINUS SIGN}", "-"))
                assert told == pytest.approx(middle, abs=0.11)
                table = page.get_by_role("region", name="Venues that filled")
                for name, number in fills.items():
                    if number:
                        row = table.get_by_role("row", name=re.compile(f"^{name} {number} "))
                        await expect(row).to_be_visible()

    in_real_time(test(), WITHIN_S)


def test_reading_for_the_overview_leaves_a_limited_key_enough_requests_to_halt(tmp_path: Path) -> None:
    async def test() -> None:
        quota = 60
        limited = {**FAST, "fillwright_sim_speed": "0", "fillwright_key_requests_per_minute": quota}
        async with an_engine(tmp_path, **limited) as engine:
            orders = await asyncio.gather(*(post(engine) for _ in range(2 * quota)))
            for order_id in orders:
                await engine.outcome(order_id)
            arguments = ("keys", "create", "desk", "--scopes", "read,admin", "--account", "local", "--json")
            key = json.loads(await fillwright(tmp_path, *arguments))["key"]
            async with a_page(engine, "/dashboard#/overview", complaints=["status of 401"]) as page:
                await page.get_by_label("API key").fill(key)
                await page.keyboard.press("Enter")
                await expect(page.get_by_text(re.compile(r"event logs of [1-9]\d* orders"))).to_be_visible()
                await page.get_by_role("link", name="Risk", exact=True).click()
                await page.get_by_role("button", name="Halt").click()
                await expect(page.locator("#current")).to_have_text("halted")

    in_real_time(test(), WITHIN_S)


def test_a_name_that_looks_like_markup_stays_text(tmp_path: Path) -> None:
    async def test() -> None:
        name = "<img/src=x/onerror=document.title='owned'>"
        async with a_process(tmp_path, "serve", "--api-only") as engine:
            order_id = await post(engine, clientOrderId=name)
            for path in ("/orders", f"/orders/{order_id}"):
                async with a_page(engine, f"/dashboard#{path}") as page:
                    await expect(page.get_by_text(name, exact=True).first).to_be_visible()
                    assert await page.locator("main img").count() == 0

    in_real_time(test(), WITHIN_S)


def test_an_order_can_be_submitted_and_opened_by_the_keyboard_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path, **FAST) as engine, a_page(engine, "/dashboard#/orders") as page:
            focused = page.locator(":focus")
            await expect(page.get_by_text("There are no orders yet")).to_be_visible()
            for name in (
                "Audit",
                "Keys",
                "Webhooks",
                "Risk",
                "New order",
            ):  # backwards from the heading, where a page begins
                await page.keyboard.press("Shift+Tab")
                await expect(focused).to_have_text(name)
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("heading", name="New order")).to_be_focused()
            await page.keyboard.press("Tab")
            await expect(page.get_by_label("Amount in")).to_be_focused()
            await page.keyboard.type("2")  # what is there is selected
            await page.keyboard.press("Enter")
            await expect(page.locator("#order-status")).to_have_text("confirmed")
            assert (await get(engine, f"/api/orders/{order_of(page)}"))["amount"] == "2"

    in_real_time(test(), WITHIN_S)
