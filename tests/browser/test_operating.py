"""What operators do in the dashboard: limits, keys and webhooks, each said in words before it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Page, expect

from tests.api.test_webhooks import Receiver, a_receiver
from tests.browser.pages import NARROW, WIDE, a_page, url
from tests.browser.test_dashboard import FAST, WITHIN_S, Json, fillwright, get, post
from tests.process import EngineProcess, an_engine, in_real_time

REFUSED: Final = "the server responded with a status of 4"
HOOKED: Final[Json] = {**FAST, "fillwright_webhook_secret": "x" * 32, "fillwright_webhook_private": "on"}


async def a_key(folder: Path, name: str, scopes: str) -> Json:
    arguments = ("keys", "create", name, "--account", "local", "--scopes", scopes, "--json")
    key: Json = json.loads(await fillwright(folder, *arguments))
    return key


async def enter(page: Page, key: str) -> None:
    await page.get_by_label("API key").fill(key)
    await page.keyboard.press("Enter")


async def set_limits(engine: EngineProcess, **limits: Any) -> None:
    async with engine.http.put("/api/limits", json={"of": "everybody", "limits": limits}) as response:
        assert response.status == 200, await response.text()


async def limits_of(engine: EngineProcess, of: str) -> Json:
    found: list[Json] = [each["limits"] for each in (await get(engine, "/api/limits"))["limits"] if each["of"] == of]
    return found[0]


# --- limits


def test_limits_are_set_and_removed_after_the_page_has_said_in_words_what_will_change(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path) as engine:
            await set_limits(engine, dayUsd="5000", slippage="0.02", tokens=["SOL", "USDC"])
            async with a_page(engine, "/dashboard#/risk") as page:
                await page.get_by_role("button", name="Change limits").click()
                dialog = page.get_by_role("dialog", name="Limits of everybody")
                await expect(dialog.get_by_label("Slippage, %")).to_have_value("2")
                await dialog.get_by_label("USD in a day").fill("7500")
                await dialog.get_by_label("Slippage, %").fill("")
                await dialog.get_by_label("Amounts in one order").fill("SOL=20, JUP = 1.5")
                await dialog.get_by_label("Price impact, %").fill("0.25")
                await dialog.get_by_role("button", name="Review").click()
                assert await dialog.get_by_role("listitem").all_text_contents() == [
                    "USD in a day: at most 7,500.00 instead of 5,000.00",
                    "Slippage: no limit any more (now at most 2 %)",
                    "SOL in one order: at most 20 (now no limit)",
                    "JUP in one order: at most 1.5 (now no limit)",
                    "Price impact: at most 0.25 % (now no limit)",
                ]
                assert (await limits_of(engine, "everybody"))["dayUsd"] == "5000", "nothing before it is confirmed"
                await dialog.get_by_role("button", name="Set these limits").click()
                await expect(dialog).to_have_count(0)
                await expect(page.get_by_text("Limits of everybody are set")).to_be_visible()
                await expect(page.get_by_role("row", name="SOL in one order 20")).to_be_visible()
                after = await limits_of(engine, "everybody")
                assert {**after, "tokens": set(after["tokens"])} == {
                    "dayUsd": "7500",
                    "orderAmount": {"SOL": "20", "JUP": "1.5"},
                    "priceImpact": "0.0025",
                    "tokens": {"SOL", "USDC"},
                }
                await page.get_by_role("link", name="Audit log").click()
                entry = page.get_by_role("row", name="Limits set").first
                await expect(entry).to_contain_text("of: everybody, limits: dayUsd 7500")

    in_real_time(test(), WITHIN_S)


def test_limits_of_an_account_or_a_key_are_set_without_touching_those_of_others(tmp_path: Path) -> None:
    async def test() -> None:
        key = await a_key(tmp_path, "desk", "read,admin")
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/risk", complaints=[REFUSED]) as page:
            await enter(page, key["key"])
            for of in ("account local", f"key {key['keyId']}"):
                await page.get_by_role("combobox", name="Limits of").select_option(of)
                await page.get_by_role("button", name="Change limits").click()
                await page.get_by_label("Open orders").fill("3")
                await page.get_by_role("button", name="Review").click()
                await page.get_by_role("button", name="Set these limits").click()
                await expect(page.get_by_text(f"Limits of {of} are set")).to_be_visible()
            told = (await get(engine, "/api/limits", key["key"]))["limits"]
            assert {each["of"]: each["limits"] for each in told} == {
                "everybody": {},
                "account local": {"openOrders": 3},
                f"key {key['keyId']}": {"openOrders": 3},
            }

    in_real_time(test(), WITHIN_S)


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("USD in one order", "a lot", "must be a positive decimal number"),
        ("Amounts in a day", "NOSUCH=5", "NOSUCH"),
        ("Amounts in a day", "SOL 5", "write TOKEN=AMOUNT"),
        ("Open orders", "0", "give a whole number"),
        ("Tokens", "SOL, NOSUCH", "NOSUCH"),
        ("Slippage, %", "101", "at most 1"),
        ("Slippage, %", "two", "write a percentage"),
    ],
)
def test_what_is_wrong_with_a_limit_is_said_beside_its_field_and_nothing_is_set(
    tmp_path: Path, label: str, text: str, said: str
) -> None:
    async def test() -> None:
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/risk", complaints=[REFUSED]) as page:
            await page.get_by_role("button", name="Change limits").click()
            field = page.get_by_label(label)
            await field.fill(text)
            await page.get_by_role("button", name="Review").click()
            confirm = page.get_by_role("button", name="Set these limits")
            if said[:5] != "write":  # what the page itself cannot read; the rest is for the engine to say
                await confirm.click()
            await expect(field).to_be_focused()
            await expect(field).to_have_attribute("aria-invalid", "true")
            await expect(page.locator(".field", has=field).locator(".wrong")).to_contain_text(said)
            await expect(field).to_have_value(text)
            assert await limits_of(engine, "everybody") == {}

    in_real_time(test(), WITHIN_S)


def test_what_somebody_else_has_changed_meanwhile_is_not_set_back_unseen(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/risk") as page:
            await page.get_by_role("button", name="Change limits").click()
            await page.get_by_label("Open orders").fill("3")
            await page.get_by_role("button", name="Review").click()
            await set_limits(engine, dayUsd="100")
            await page.get_by_role("button", name="Set these limits").click()
            await expect(page.get_by_role("alert")).to_contain_text("Somebody else has changed these limits")
            assert await limits_of(engine, "everybody") == {"dayUsd": "100"}

    in_real_time(test(), WITHIN_S)


def test_limits_are_changed_by_the_keyboard_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/risk") as page:
            await page.get_by_role("button", name="Change limits").focus()
            await page.keyboard.press("Enter")
            await expect(page.get_by_label("USD in one order")).to_be_focused()
            await page.keyboard.type("250")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("button", name="Back")).to_be_focused()
            await page.keyboard.press("Shift+Tab")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("row", name="USD in one order 250.00")).to_be_visible()
            await expect(page.get_by_role("button", name="Change limits")).to_be_focused()
            assert await limits_of(engine, "everybody") == {"orderUsd": "250"}

    in_real_time(test(), WITHIN_S)


def test_who_may_not_change_anything_is_offered_nothing_to_change(tmp_path: Path) -> None:
    async def test() -> None:
        key = await a_key(tmp_path, "viewer", "read")
        async with (
            an_engine(tmp_path, **HOOKED) as engine,
            a_page(engine, "/dashboard#/risk", complaints=[REFUSED]) as page,
        ):
            await enter(page, key["key"])
            await expect(page.get_by_text("A key with the scope admin can change them")).to_be_visible()
            await expect(page.get_by_role("button", name="Change limits")).to_have_count(0)
            await page.get_by_role("link", name="Webhooks").click()
            await expect(page.get_by_text("A key with the scope admin can add and remove them")).to_be_visible()
            await expect(page.get_by_role("button", name="Add webhook")).to_have_count(0)
            await page.get_by_role("link", name="Keys").click()
            await expect(page.get_by_role("alert")).to_contain_text("lacks the scope admin")
            await expect(page.get_by_role("button", name="Make key")).to_have_count(0)

    in_real_time(test(), WITHIN_S)


# --- keys


def test_a_key_made_in_the_page_is_shown_once_can_be_copied_and_is_kept_nowhere(tmp_path: Path) -> None:
    async def test() -> None:
        admin = await a_key(tmp_path, "desk", "read,trade,admin")
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/keys", complaints=[REFUSED]) as page:
            await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            await enter(page, admin["key"])
            await page.get_by_role("textbox", name="Name").fill("bot")
            await page.get_by_role("button", name="Make key").click()
            dialog = page.get_by_role("dialog", name="The key bot")
            await expect(dialog).to_contain_text("it will not be shown again")
            secret = await dialog.get_by_role("textbox").input_value()
            await dialog.get_by_role("button", name="Copy").click()
            await expect(dialog.get_by_text("Copied.")).to_be_visible()
            assert await page.evaluate("navigator.clipboard.readText()") == secret
            await dialog.get_by_role("button", name="I have kept it").click()
            await expect(dialog).to_have_count(0)
            await expect(page.get_by_role("row", name="bot")).to_contain_text("read, trade")
            everything = "document.documentElement.outerHTML + JSON.stringify([sessionStorage, localStorage])"
            fields = "[...document.querySelectorAll('input')].map((input) => input.value).join()"
            kept = page.url + await page.evaluate(f"{everything} + document.cookie + {fields}")
            assert secret.split("_")[2] not in kept
            assert (await get(engine, "/api/orders", secret))["orders"] == []
            made = (await get(engine, "/api/keys", admin["key"]))["keys"][-1]
            assert (made["name"], made["account"], made["scopes"]) == ("bot", "bot", ["read", "trade"])

    in_real_time(test(), WITHIN_S)


def test_a_key_is_revoked_once_that_is_confirmed_and_not_before(tmp_path: Path) -> None:
    async def test() -> None:
        admin, bot = [await a_key(tmp_path, *of) for of in (("desk", "admin"), ("bot", "read"))]
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/keys", complaints=[REFUSED]) as page:
            await enter(page, admin["key"])
            revoke = page.get_by_role("button", name="Revoke bot")
            await revoke.click()
            await expect(page.get_by_role("dialog")).to_contain_text(f"The key {bot['keyId']} of account local")
            await page.keyboard.press("Enter")  # where the focus is, nothing is done
            await expect(page.get_by_role("dialog")).to_have_count(0)
            assert (await get(engine, "/api/orders", bot["key"]))["orders"] == []
            await revoke.click()
            await page.get_by_role("button", name="Revoke key").click()
            await expect(page.get_by_role("row", name="bot")).to_contain_text("revoked")
            await expect(page.get_by_text("1 valid, 1 revoked")).to_be_visible()
            async with engine.http.get("/api/orders", headers={"Authorization": f"Bearer {bot['key']}"}) as response:
                assert response.status == 401

    in_real_time(test(), WITHIN_S)


def test_who_revokes_the_key_in_use_is_told_so_and_then_asked_for_another(tmp_path: Path) -> None:
    async def test() -> None:
        admin = await a_key(tmp_path, "desk", "admin")
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/keys", complaints=[REFUSED]) as page:
            await enter(page, admin["key"])
            await page.get_by_role("button", name="Revoke desk").click()
            dialog = page.get_by_role("dialog")
            await expect(dialog).to_contain_text("This is the key that this page uses")
            await expect(dialog).to_contain_text("No other key has the scope admin")
            await dialog.get_by_role("button", name="Revoke key").click()
            await expect(page.get_by_text("This key is not valid, or no longer")).to_be_visible()
            assert await page.evaluate("sessionStorage.length") == 0

    in_real_time(test(), WITHIN_S)


def test_what_is_wrong_with_a_key_is_said_beside_its_field_and_none_is_made(tmp_path: Path) -> None:
    async def test() -> None:
        admin = await a_key(tmp_path, "desk", "admin")
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/keys", complaints=[REFUSED]) as page:
            await enter(page, admin["key"])
            make = page.get_by_role("button", name="Make key")
            await make.click()
            await expect(page.locator("#name-wrong")).to_have_text("a key needs a name")
            await expect(page.get_by_role("textbox", name="Name")).to_be_focused()
            await page.get_by_role("textbox", name="Name").fill("bot")
            await make.click()
            await expect(page.locator("#scopes-wrong")).to_contain_text("may not give the scope read")
            await expect(page.locator("#name-wrong")).to_be_empty()
            assert len((await get(engine, "/api/keys", admin["key"]))["keys"]) == 1

    in_real_time(test(), WITHIN_S)


def test_without_keys_the_page_says_how_the_first_is_made_and_asks_for_it_once_it_is(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_engine(tmp_path) as engine, a_page(engine, "/dashboard#/keys", complaints=[REFUSED]) as page:
            await expect(page.get_by_text("fillwright keys create NAME")).to_be_visible()
            await expect(page.get_by_role("button", name="Make key")).to_have_count(0)
            first = await a_key(tmp_path, "first", "admin")
            await enter(page, first["key"])
            await expect(page.get_by_role("row", name="first")).to_contain_text("this one")

    in_real_time(test(), WITHIN_S)


# --- webhooks


def gone(receiver: Receiver) -> None:
    receiver.status = lambda _: 410  # which gives a delivery up at once


def test_a_webhook_is_added_in_the_page_what_it_did_not_take_is_shown_and_replayed_and_it_is_removed(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with (
            a_receiver() as receiver,
            an_engine(tmp_path, **HOOKED) as engine,
            a_page(engine, "/dashboard#/webhooks") as page,
        ):
            gone(receiver)
            await page.get_by_label("Address").fill(receiver.url)
            await page.get_by_role("button", name="Add webhook").click()
            await expect(page.get_by_role("dialog")).to_contain_text("it will not be shown again")
            secret = await page.get_by_role("textbox", name="The secret of this webhook").input_value()
            assert secret.startswith("whsec_")
            await page.get_by_role("button", name="I have kept it").click()
            card = page.get_by_role("region", name=receiver.url, exact=True)
            await expect(card).to_contain_text("Everything was taken.")
            ids = [await post(engine) for _ in range(3)]
            for order_id in ids:
                await engine.outcome(order_id)
            await expect(card).to_contain_text("3 given up")
            await expect(card).to_contain_text("event 1, 1 try")
            receiver.status = lambda _: 200
            await card.get_by_role("button", name=f"Try {ids[0]} again").click()
            await expect(page.get_by_text("1 delivery is tried again")).to_be_visible()
            await expect(card).to_contain_text("2 given up")
            await card.get_by_role("button", name="Try all again").click()
            await expect(page.get_by_text("2 deliveries are tried again")).to_be_visible()
            await expect(card).to_contain_text("Everything was taken.")
            for order_id in ids:
                events = (await get(engine, f"/api/orders/{order_id}/events"))["events"]
                assert receiver.taken[order_id] == [event["seq"] for event in events]
            await card.get_by_role("button", name="Remove").click()
            await expect(page.get_by_role("dialog")).to_contain_text("is told nothing any more")
            await page.get_by_role("button", name="Remove webhook").click()
            await expect(page.get_by_text("No address is told of orders")).to_be_visible()
            assert (await get(engine, "/api/webhooks"))["webhooks"] == []
            assert secret not in await page.content()

    in_real_time(test(), WITHIN_S)


def test_a_webhook_is_of_the_key_that_is_chosen(tmp_path: Path) -> None:
    async def test() -> None:
        admin = await a_key(tmp_path, "desk", "read,admin")
        bot = json.loads(await fillwright(tmp_path, "keys", "create", "bot", "--json"))
        async with (
            an_engine(tmp_path, **HOOKED) as engine,
            a_page(engine, "/dashboard#/webhooks", complaints=[REFUSED]) as page,
        ):
            await enter(page, admin["key"])
            await expect(page.get_by_role("combobox", name="Key")).to_have_value(admin["keyId"])
            await page.get_by_label("Address").fill("https://bot.example.com/fills")
            await page.get_by_role("combobox", name="Key").select_option(bot["keyId"])
            await page.get_by_role("button", name="Add webhook").click()
            await page.get_by_role("button", name="I have kept it").click()
            await expect(page.get_by_text(f"account bot, key {bot['keyId']}")).to_be_visible()

    in_real_time(test(), WITHIN_S)


def test_what_is_wrong_with_an_address_is_said_beside_it_and_nothing_is_added(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            an_engine(tmp_path, **{**HOOKED, "fillwright_webhook_private": "off"}) as engine,
            a_page(engine, "/dashboard#/webhooks", complaints=[REFUSED]) as page,
        ):
            address = page.get_by_label("Address")
            for text, said in (
                ("ftp://desk.example.com/", "must begin with https"),
                ("https://127.0.0.1/", "127.0.0.1"),
            ):
                await address.fill(text)
                await page.get_by_role("button", name="Add webhook").click()
                await expect(page.locator("#url-wrong")).to_contain_text(said)
                await expect(address).to_have_attribute("aria-invalid", "true")
            assert (await get(engine, "/api/webhooks"))["webhooks"] == []

    in_real_time(test(), WITHIN_S)


def test_where_webhooks_are_off_the_page_says_what_turns_them_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            an_engine(tmp_path) as engine,
            a_page(engine, "/dashboard#/webhooks", complaints=["the server responded with a status of 503"]) as page,
        ):
            await page.get_by_label("Address").fill("https://desk.example.com/fills")
            await page.get_by_role("button", name="Add webhook").click()
            await expect(page.get_by_role("alert")).to_contain_text("FILLWRIGHT_WEBHOOK_SECRET")

    in_real_time(test(), WITHIN_S)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_page_or_dialog_of_operators_is_wider_than_the_screen(
    tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    async def test() -> None:
        admin = await a_key(tmp_path, "a desk with a rather long name", "read,trade,admin")
        headers = {"Authorization": f"Bearer {admin['key']}"}
        async with (
            a_receiver() as receiver,
            an_engine(tmp_path, **HOOKED) as engine,
            a_page(engine, "/dashboard#/keys", width=width, scheme=scheme, complaints=[REFUSED]) as page,
        ):
            gone(receiver)
            body = {"url": f"{receiver.url}?{'long' * 30}"}
            async with engine.http.post("/api/webhooks", json=body, headers=headers) as response:
                assert response.status == 201

            async def fits() -> None:
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                dialogs = "[...document.querySelectorAll('dialog')]"
                assert await page.evaluate(f"{dialogs}.every((dialog) => dialog.scrollWidth <= dialog.clientWidth)")

            await enter(page, admin["key"])
            await page.get_by_role("textbox", name="Name").fill("bot" * 20)
            await page.get_by_role("button", name="Make key").click()
            await expect(page.get_by_text("it will not be shown again")).to_be_visible()
            await fits()
            await page.get_by_role("button", name="I have kept it").click()
            await page.get_by_role("button", name="Revoke a desk").click()
            await fits()
            await page.get_by_role("button", name="Cancel").click()
            await fits()
            await page.goto(f"{url(engine)}/dashboard#/risk")
            await page.get_by_role("button", name="Change limits").click()
            await expect(page.get_by_label("USD in one order")).to_be_visible()
            await fits()
            async with engine.http.post(
                "/api/orders/execute", json={"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1"}, headers=headers
            ) as response:
                assert response.status == 201
            await page.goto(f"{url(engine)}/dashboard#/webhooks")
            await expect(page.get_by_text("1 given up")).to_be_visible()
            await fits()

    in_real_time(test(), WITHIN_S)
