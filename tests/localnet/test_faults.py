"""Each fault does what it says, and nothing goes wrong that was not switched on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from fillwright.localnet.endpoint import LOST_MS, Endpoint
from fillwright.localnet.faults import ALL, CAMPAIGN, Fault, Faults, NewsRates, Rates
from fillwright.localnet.world import SOL
from tests.localnet.local import Json, Local, Refusal, local_test, pay

SOMEBODY = Pubkey.from_bytes(b"somebody".ljust(32))


def always(fault: Fault) -> dict[Fault, float]:
    return {fault: 1.0}


async def sent_under(local: Local, rates: Rates) -> tuple[str, BaseException | None]:
    """Send a transfer while a fault is switched on; return its signature and what the caller is told."""
    transaction = await local.signed(pay(local, SOMEBODY, SOL))
    local.faults.rates = {"sendTransaction": rates}
    told: BaseException | None = None
    try:
        async with asyncio.timeout(30):  # virtual seconds
            await local.send(transaction)
    except (aiohttp.ClientError, TimeoutError, Refusal) as error:
        told = error
    local.faults.clear()
    local.chain.tick_blocks(3)
    return str(transaction.signatures[0]), told


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault.LOST, TimeoutError),
        (Fault.RESET, aiohttp.ClientConnectionError),
        (Fault.TOO_MANY, aiohttp.ClientResponseError),
        (Fault.GATEWAY_TIMEOUT, aiohttp.ClientResponseError),
    ],
)
@local_test
async def test_a_fault_before_executes_nothing_and_one_after_everything(
    local: Local, fault: Fault, told: type[BaseException]
) -> None:
    signature, error = await sent_under(local, Rates(before=always(fault)))
    assert isinstance(error, told)
    assert await local.status(signature) is None
    signature, error = await sent_under(local, Rates(after=always(fault)))
    assert isinstance(error, told)
    assert (await local.status(signature))["err"] is None
    if isinstance(error, aiohttp.ClientResponseError):
        assert error.status == (429 if fault is Fault.TOO_MANY else 504)


@local_test
async def test_a_lost_call_waits_for_long_and_then_breaks(local: Local) -> None:
    local.faults.rates = {ALL: Rates(before=always(Fault.LOST))}
    start = local.clock.now_ms()
    with pytest.raises(aiohttp.ClientConnectionError):
        async with local.http.post(
            local.endpoint.url,
            json={"jsonrpc": "2.0", "id": 1, "method": "getSlot"},
            timeout=aiohttp.ClientTimeout(total=None),
        ):
            pass
    assert local.clock.now_ms() - start >= LOST_MS


@local_test
async def test_a_node_says_that_it_is_behind(local: Local) -> None:
    local.faults.rates = {"getHealth": Rates(before=always(Fault.UNHEALTHY))}
    with pytest.raises(Refusal) as refused:
        await local.call("getHealth")
    assert (refused.value.code, refused.value.data) == (-32005, {"numSlotsBehind": 150})
    assert await local.call("getSlot") > 0


@local_test
async def test_a_slow_answer_arrives_late_by_the_clock(local: Local) -> None:
    local.faults.rates = {"getSlot": Rates(slow=1.0, slow_ms_min=700, slow_ms_max=900)}
    start = local.clock.now_ms()
    await local.call("getSlot")
    assert 700 <= local.clock.now_ms() - start < 1_500


@local_test
async def test_rates_are_shares_of_the_calls_and_a_seed_repeats_them(local: Local) -> None:
    rates = {ALL: Rates(before={Fault.TOO_MANY: 0.2, Fault.GATEWAY_TIMEOUT: 0.1})}

    async def statuses() -> list[int]:
        told = []
        for _ in range(300):
            body = {"jsonrpc": "2.0", "id": 1, "method": "getSlot"}
            async with local.http.post(local.endpoint.url, json=body) as response:
                told.append(response.status)
        return told

    local.faults.rates = rates
    first = await statuses()
    drawn = Faults(local.faults.seed)
    drawn.rates = rates
    meaning = {None: 200, Fault.TOO_MANY: 429, Fault.GATEWAY_TIMEOUT: 504}
    expected = []
    for _ in range(300):
        fault = drawn.before("getSlot")
        expected.append(meaning[fault])
        if fault is None:
            drawn.after("getSlot")
    assert first == expected
    assert 40 < Counter(first)[429] < 80
    assert local.faults.calls["getSlot"] == 300


@local_test
async def test_transactions_land_as_the_mix_says(local: Local) -> None:
    local.faults.landing = CAMPAIGN
    start = local.chain.tip.height
    sent = [await local.signed(pay(local, SOMEBODY, SOL // 1000)) for _ in range(400)]
    for each in sent:
        local.chain.send(each)
    local.chain.tick_blocks(220)
    heights = [_height(local, each) for each in sent]
    waited = [height - start for height in heights if height is not None]
    assert max(waited) <= 150
    assert 0.18 < waited.count(1) / 400 < 0.32
    assert 0.25 < heights.count(None) / 400 < 0.48
    assert sum(1 for each in waited if each > 1) / 400 > 0.3


def _height(local: Local, transaction: VersionedTransaction) -> int | None:
    landed = local.chain.landed(transaction.signatures[0])
    return landed.block.height if landed else None


@local_test
async def test_a_status_that_lags_is_unknown_for_some_blocks_and_then_as_old_as_it_is(local: Local) -> None:
    local.faults.hidden_rate, local.faults.hidden_blocks = 1.0, (10, 10)
    signature = await local.send(await local.signed(pay(local, SOMEBODY, SOL)))
    local.chain.tick_blocks(10)
    assert await local.status(signature) is None
    assert local.chain.landed(Signature.from_string(signature)) is not None
    local.chain.tick_blocks(1)
    assert (await local.status(signature))["confirmations"] == 10


@contextlib.asynccontextmanager
async def a_second_endpoint(local: Local, lag_blocks: int) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(local.chain, local.clock, local.faults, name="second", lag_blocks=lag_blocks)
    await endpoint.start()
    try:
        yield endpoint
    finally:
        await endpoint.close()


@local_test
async def test_two_endpoints_of_one_chain_may_disagree(local: Local) -> None:
    async with a_second_endpoint(local, 40) as behind:
        signature = await local.send(await local.signed(pay(local, SOMEBODY, SOL)))
        local.chain.tick_blocks(35)
        assert (await local.status(signature))["confirmationStatus"] == "finalized"
        assert await local.status(signature, url=behind.url) is None
        account = ("getBalance", str(SOMEBODY))
        assert (await local.call(*account))["value"] == SOL
        assert (await local.call(*account, url=behind.url))["value"] == 0
        heights = [await local.call("getBlockHeight", url=each.url) for each in (local.endpoint, behind)]
        assert heights[0] - heights[1] == 40
        slot = await local.call("getSlot")
        with pytest.raises(Refusal) as refused:
            await local.call("getBalance", str(SOMEBODY), {"minContextSlot": slot}, url=behind.url)
        assert refused.value.code == -32016
        assert refused.value.data["contextSlot"] < slot
        local.chain.tick_blocks(40)
        assert (await local.call(*account, url=behind.url))["value"] == SOL


@local_test
async def test_an_endpoint_that_is_dark_cannot_be_reached_until_it_is_over(local: Local) -> None:
    async with a_second_endpoint(local, 0) as second:
        local.faults.dark_until_ms["main"] = local.clock.now_ms() + 180_000
        with pytest.raises(aiohttp.ClientConnectionError):
            await local.call("getSlot")
        await local.call("getSlot", url=second.url)
        local.faults.dark_until_ms[ALL] = local.clock.now_ms() + 60_000
        with pytest.raises(aiohttp.ClientConnectionError):
            await local.call("getSlot", url=second.url)
        await local.clock.sleep(60_001)
        await local.call("getSlot", url=second.url)
        with pytest.raises(aiohttp.ClientConnectionError):
            await local.call("getSlot")
        await local.clock.sleep(120_000)
        await local.call("getSlot")


class Listening:
    """A WebSocket client that keeps all it hears."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def subscribe(self, method: str, *params: Json) -> int:
        await self.socket.send_json({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        return int((await self.socket.receive_json())["result"])

    async def heard(self, within_s: float = 1.0) -> list[Json]:
        found = []
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(within_s):
                    found.append(json.loads((await self.socket.receive()).data)["params"]["result"])
        return found


@local_test
async def test_subscribers_hear_of_slots_changes_and_signatures(local: Local) -> None:
    async with local.http.ws_connect(local.endpoint.websocket_url) as socket:
        listening = Listening(socket)
        transaction = await local.signed(pay(local, SOMEBODY, SOL))
        config = {"commitment": "confirmed", "encoding": "base64"}
        await listening.subscribe("accountSubscribe", str(SOMEBODY), config)
        await listening.subscribe("signatureSubscribe", str(transaction.signatures[0]), {"commitment": "confirmed"})
        await local.send(transaction)
        local.chain.tick_blocks(2)
        assert await listening.heard() == []
        local.chain.tick_blocks(3)
        account, signature = await listening.heard()
        assert account["value"]["lamports"] == SOL
        assert signature["value"] == {"err": None}
        number = await listening.subscribe("slotSubscribe")
        local.chain.tick_blocks(2)
        slots = await listening.heard()
        assert [each["slot"] for each in slots] == [local.chain.block_behind(back).slot for back in (1, 0)]
        await socket.send_json({"jsonrpc": "2.0", "id": 2, "method": "slotUnsubscribe", "params": [number]})
        assert (await socket.receive_json())["result"] is True
        local.chain.tick_blocks(2)
        assert await listening.heard() == []
        await local.endpoint.drop_sockets()
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING)


@local_test
async def test_news_may_be_lost_late_or_repeated(local: Local) -> None:
    async with local.http.ws_connect(local.endpoint.websocket_url) as socket:
        listening = Listening(socket)
        await listening.subscribe("slotSubscribe")
        local.faults.news = NewsRates(lost=1.0)
        local.chain.tick_blocks(3)
        assert await listening.heard() == []
        local.faults.news = NewsRates(repeated=1.0)
        local.chain.tick_blocks(1)
        assert len(await listening.heard()) == 2
        local.faults.news = NewsRates(late=1.0, late_ms_max=5_000)
        start = local.clock.now_ms()
        local.chain.tick_blocks(1)
        assert len(await listening.heard(6)) == 1
        assert local.clock.now_ms() > start
