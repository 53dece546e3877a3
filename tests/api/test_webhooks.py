"""Webhooks: a client's own address is told every event of its account's orders, whatever it makes of them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiohttp import web

from fillwright.api.outbound import Outbound
from fillwright.api.webhooks import Undelivered
from fillwright.core.control import KeyRevoked, Scope, WebhookAdded, new_key
from tests.virtual import until
from tests.world import SWAP, Json, World, a_world

SECRET: Final = "of thirty-two characters or more."
LIFE: Final = ["pending", "routing", "building", "submitted", "confirmed"]


async def never() -> int:
    await asyncio.Event().wait()
    return 0


class Receiver:
    """An address that keeps what it was told, and answers what `status` says."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.taken: defaultdict[str, list[int]] = defaultdict(list)
        self.status: Callable[[Json], int | Awaitable[int]] = lambda _: 200
        self.url = ""

    async def hear(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.told.append(({name.lower(): value for name, value in request.headers.items()}, body))
        message = json.loads(body)
        status = self.status(message)
        if not isinstance(status, int):
            status = await status
        if status == 200:
            self.taken[message["orderId"]].append(message["seq"])
        return web.Response(status=status, headers={"location": self.url} if status == 302 else {})

    def statuses(self, order_id: str) -> list[str]:
        messages = [json.loads(body) for _, body in self.told]
        return [message["status"] for message in messages if message["orderId"] == order_id]


@asynccontextmanager
async def a_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/told", receiver.hear)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"http://127.0.0.1:{port}/told"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def hooked(**settings: Any) -> AsyncIterator[tuple[World, Receiver, Json]]:
    """A world, and an address that is told of it."""
    chosen = {"webhook_secret": SECRET, "webhook_private": "on", **settings}
    async with a_receiver() as receiver, a_world(**chosen) as world:
        yield world, receiver, await add(world, receiver.url)


async def add(world: World, url: str, headers: dict[str, str] | None = None, **more: str) -> Json:
    status, body = await world.post("/api/webhooks", json={"url": url, **more}, headers=headers or {})
    assert status == 201, body
    return body


async def an_operator(world: World) -> dict[str, str]:
    created, text = new_key("ops", "ops", frozenset(Scope), bytes([7]) * 40)
    await world.gate.change("test", created)
    return {"Authorization": f"Bearer {text}"}


async def test_an_address_is_told_every_event_of_an_order_in_order() -> None:
    async with hooked() as (world, receiver, _):
        ids = [await world.submit() for _ in range(20)]
        await until(lambda: all(len(receiver.taken[order_id]) == 5 for order_id in ids))
        for order_id in ids:
            assert receiver.taken[order_id] == [1, 2, 3, 4, 5]
            assert receiver.statuses(order_id) == LIFE
        _, stream = await world.get(f"/api/orders/{ids[0]}/events")
        told = [json.loads(body) for _, body in receiver.told if json.loads(body)["orderId"] == ids[0]]
        assert [message["data"] for message in told] == [event["data"] for event in stream["events"]]
        assert {message["event"] for message in told} == {"order:update"}


async def test_what_an_address_is_told_is_signed_as_standard_webhooks_says() -> None:
    async with hooked() as (world, receiver, webhook):
        order_id = await world.submit()
        await until(lambda: len(receiver.taken[order_id]) == 5)
        secret = base64.b64decode(webhook["secret"].removeprefix("whsec_"))
        for headers, body in receiver.told:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{expected}"
            assert abs(int(headers["webhook-timestamp"]) - world.clock.now_ms() / 1000) < 60
            assert headers["content-type"] == "application/json"
        ids = [headers["webhook-id"] for headers, _ in receiver.told]
        assert ids == [f"{order_id}.{seq}" for seq in range(1, 6)]


@pytest.mark.parametrize("failure", [500, 302, 404, "silence"])
async def test_what_is_not_taken_comes_again_and_what_follows_waits_for_it(failure: int | str) -> None:
    async with hooked(webhook_timeout_ms=500) as (world, receiver, _):
        refused = list[str]()

        def status(message: Json) -> int | Awaitable[int]:
            if message["seq"] == 3 and len(refused) < 4:
                refused.append(message["orderId"])
                return failure if isinstance(failure, int) else never()
            return 200

        receiver.status = status
        begun_ms = world.clock.now_ms()
        order_id = await world.submit()
        await until(lambda: len(receiver.taken[order_id]) == 5)
        assert receiver.taken[order_id] == [1, 2, 3, 4, 5]
        assert refused == [order_id] * 4
        assert world.clock.now_ms() - begun_ms > 1_000 + 2_000 + 4_000 + 8_000  # later each time
        ids = [headers["webhook-id"] for headers, _ in receiver.told]
        assert ids.count(f"{order_id}.3") == 5


async def test_what_is_never_taken_is_given_up_and_can_be_had_once_more() -> None:
    async with hooked(webhook_attempts_max=3) as (world, receiver, webhook):
        receiver.status = lambda message: 200 if message["seq"] < 4 else 500
        order_id = await world.submit()
        store = world.engine.store
        await until(lambda: receiver.statuses(order_id).count("submitted") == 3)
        await world.clock.sleep(20_000)
        (dead,) = await store.failed_deliveries([webhook["webhookId"]], 10)
        assert (dead.order_id, dead.sent, dead.tries, dead.error) == (order_id, 3, 3, "the answer was 500")
        assert receiver.statuses(order_id).count("submitted") == 3
        receiver.status = lambda _: 200
        assert await store.revive_deliveries([webhook["webhookId"]]) == 1
        await until(lambda: len(receiver.taken[order_id]) == 5)
        assert receiver.taken[order_id] == [1, 2, 3, 4, 5]


async def test_what_was_given_up_is_shown_and_tried_again_over_http() -> None:
    async with hooked(webhook_attempts_max=2) as (world, receiver, webhook):
        path = f"/api/webhooks/{webhook['webhookId']}"
        receiver.status = lambda message: 200 if message["seq"] < 3 else 500
        ids = sorted([await world.submit(), await world.submit()])
        for order_id in ids:
            await world.finished(order_id, {})
        await world.clock.sleep(20_000)
        _, body = await world.get(f"{path}/deliveries")
        assert sorted(each["orderId"] for each in body["deliveries"]) == ids
        for each in body["deliveries"]:
            assert (each["seq"], each["tries"], each["error"]) == (3, 2, "the answer was 500")
            assert (each["nextTryAt"], bool(each["givenUpAt"])) == (None, True)
        receiver.status = lambda _: 200
        assert (await world.post(f"{path}/replay?orderId={ids[0]}"))[1]["replayed"] == 1
        await until(lambda: len(receiver.taken[ids[0]]) == 5)
        assert len(receiver.taken[ids[1]]) == 2
        assert (await world.post(f"{path}/replay"))[1]["replayed"] == 1
        await until(lambda: len(receiver.taken[ids[1]]) == 5)
        assert (await world.get(f"{path}/deliveries"))[1]["deliveries"] == []


async def test_the_deliveries_of_another_account_are_answered_as_those_of_a_webhook_that_there_is_not() -> None:
    chosen: dict[str, Any] = {"webhook_secret": SECRET, "webhook_private": "on"}
    async with a_receiver() as receiver, a_world(**chosen) as world:
        operator, created = await an_operator(world), new_key("", "them", frozenset(Scope), bytes([3]) * 40)[0]
        await world.gate.change("test", created)
        reader, text = new_key("", "me", frozenset({Scope.READ}), bytes([4]) * 40)
        await world.gate.change("test", reader)
        theirs = await add(world, receiver.url, operator, keyId=created.key_id)
        answers = []
        for webhook_id in (theirs["webhookId"], "wh_none"):
            path, headers = f"/api/webhooks/{webhook_id}/deliveries", {"Authorization": f"Bearer {text}"}
            async with world.http.get(path, headers=headers) as response:
                answers.append((response.status, (await response.text()).replace(webhook_id, "ID")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


async def test_what_was_given_up_a_month_ago_is_forgotten_while_the_engine_runs() -> None:
    async with hooked() as (world, receiver, webhook):
        receiver.status = lambda _: 410
        await world.submit()
        await world.clock.sleep(5_000)
        store, ids = world.engine.store, [webhook["webhookId"]]
        assert len(await store.failed_deliveries(ids, 10)) == 1
        world.clock.skew_ms = 31 * 86_400_000
        await world.clock.sleep(5_000)
        assert await store.failed_deliveries(ids, 10) == []


async def test_an_address_that_says_it_is_gone_is_given_up_at_once() -> None:
    async with hooked() as (world, receiver, webhook):
        receiver.status = lambda _: 410
        await world.submit()
        await world.clock.sleep(10_000)
        assert len(receiver.told) == 1
        assert len(await world.engine.store.failed_deliveries([webhook["webhookId"]], 10)) == 1


async def test_an_address_that_never_answers_holds_up_neither_orders_nor_other_addresses() -> None:
    async with hooked() as (world, receiver, _), a_receiver() as slow:
        slow.status = lambda _: never()
        await add(world, slow.url)
        begun_ms = world.clock.now_ms()
        ids = [await world.submit() for _ in range(50)]
        for order_id in ids:
            assert (await world.statuses(order_id))[-1] == "confirmed"
        await until(lambda: all(len(receiver.taken[order_id]) == 5 for order_id in ids))
        assert world.clock.now_ms() - begun_ms < 30_000
        assert len(slow.told) <= 8 * 3, "more at a time than one address may have"


async def test_an_address_is_told_of_its_own_account_only_and_not_once_its_key_is_gone() -> None:
    chosen: dict[str, Any] = {"webhook_secret": SECRET, "webhook_private": "on"}
    async with a_receiver() as mine, a_receiver() as theirs, a_world(**chosen) as world:
        headers, ids = dict[str, dict[str, str]](), dict[str, str]()
        for number, who in enumerate(["me", "them"]):
            created, text = new_key("", who, frozenset({Scope.TRADE, Scope.READ}), bytes([number + 1]) * 40)
            await world.gate.change("test", created)
            headers[who], ids[who] = {"Authorization": f"Bearer {text}"}, created.key_id
        operator = await an_operator(world)
        await add(world, mine.url, operator, keyId=ids["me"])
        await add(world, theirs.url, operator, keyId=ids["them"])
        _, body = await world.post(json=SWAP, headers=headers["me"])
        await until(lambda: len(mine.taken[body["orderId"]]) == 5)
        assert theirs.told == []
        async with world.http.get("/api/webhooks", headers=headers["me"]) as response:
            assert [each["url"] for each in (await response.json())["webhooks"]] == [mine.url]
        await world.gate.change("test", KeyRevoked(ids["them"]))
        created, text = new_key("them", "again", frozenset(Scope), bytes([9]) * 40)
        await world.gate.change("test", created)
        headers["them"] = {"Authorization": f"Bearer {text}"}
        _, body = await world.post(json=SWAP, headers=headers["them"])
        await world.finished(body["orderId"], headers["them"])
        await world.clock.sleep(10_000)
        assert theirs.told == []


async def test_an_address_that_was_removed_is_told_nothing_any_more() -> None:
    async with hooked() as (world, receiver, webhook):
        async with world.http.delete(f"/api/webhooks/{webhook['webhookId']}") as response:
            assert response.status == 200
        order_id = await world.submit()
        assert (await world.statuses(order_id))[-1] == "confirmed"
        await world.clock.sleep(10_000)
        assert receiver.told == []
        assert (await world.get("/api/webhooks"))[1]["webhooks"] == []
        async with world.http.delete(f"/api/webhooks/{webhook['webhookId']}") as response:
            assert response.status == 404


async def test_an_account_has_so_many_webhooks_and_no_more() -> None:
    async with hooked() as (world, receiver, _):
        asked = [world.post("/api/webhooks", json={"url": f"{receiver.url}/{number}"}) for number in range(20)]
        answers = await asyncio.gather(*asked)
        assert sorted(status for status, _ in answers) == [201] * 9 + [400] * 11
        assert {body.get("code") for _, body in answers} == {None, "too_many_webhooks"}
        assert len(world.gate.known.webhooks) == 10


@pytest.mark.parametrize("key", ["unknown", "revoked"])
async def test_a_webhook_needs_a_key_whose_it_is(key: str) -> None:
    async with hooked() as (world, receiver, _):
        operator = await an_operator(world)
        created, _text = new_key("", "revoked", frozenset(Scope), bytes([3]) * 40)
        await world.gate.change("test", created)
        await world.gate.change("test", KeyRevoked(created.key_id))
        body = {"url": receiver.url, "keyId": created.key_id if key == "revoked" else key}
        status, answer = await world.post("/api/webhooks", json=body, headers=operator)
        assert (status, answer["code"]) == (400, "invalid_webhook")


async def test_a_process_with_another_secret_than_the_webhook_s_signs_nothing() -> None:
    async with hooked() as (world, receiver, _):
        await world.gate.change("test", WebhookAdded("wh_other", "", "", f"{receiver.url}?other", "of another secret"))
        order_id = await world.submit()
        await until(lambda: len(receiver.taken[order_id]) == 5)
        await world.clock.sleep(5_000)
        assert "wh_other" not in {headers["fillwright-webhook"] for headers, _ in receiver.told}


async def test_without_a_secret_of_the_engine_s_there_are_no_webhooks() -> None:
    async with a_world() as world:
        status, body = await world.post("/api/webhooks", json={"url": "https://example.com/told"})
        assert (status, body["code"]) == (503, "webhooks_off")
        assert world.gate.known.webhooks == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "rebound.example.com"])
async def test_no_connection_is_made_to_the_engine_s_own_network_whatever_a_name_means_by_then(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def rebound(name: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if name == "rebound.example.com" else name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    async with a_receiver() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        outbound = Outbound(5, private=False)
        with pytest.raises(Undelivered, match=r"private|cannot connect|not a canonical"):
            await outbound.post(f"http://{host}:{port}/told", b"{}", {})
        await outbound.close()
        assert receiver.told == []
