"""A day's amount, shared by two API processes one of which is killed: never exceeded, and used to the last dollar."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests import servers
from tests.process import in_real_time, reconciled
from tests.processes.test_halt import run
from tests.processes.test_kill import Cluster, a_cluster
from tests.world import Json

ORDERS: Final = 200
WITHIN: Final = 50  # of 100 dollars each, under a limit of 5,000
BUY: Final = {"tokenIn": "USDC", "tokenOut": "SOL", "amount": "100"}


async def answer_to(cluster: Cluster, number: int) -> Json | None:
    """Return the order that became of a request, None if it was refused, asking until one or the other is known."""
    for turn in count(number):
        api = cluster.apis[turn % 2]
        with contextlib.suppress(aiohttp.ClientError, KeyError):
            headers = {"Idempotency-Key": f"key-{number}"}
            async with api.http.post("/api/orders/execute", json=BUY, headers=headers) as response:
                body: Json = await response.json()
                if response.status in (200, 201):
                    return body
                if body["code"] == "daily_limit_reached":
                    return None
        await asyncio.sleep(0.05)
    raise AssertionError


async def with_limits_in_force(cluster: Cluster) -> None:
    for api in cluster.apis:
        while True:
            async with api.http.get("/api/limits") as response:
                if any(each["limits"] for each in (await response.json())["limits"]):
                    break
            await asyncio.sleep(0.05)


def test_a_day_s_amount_is_never_exceeded_by_200_orders_at_two_apis_and_a_kill(tmp_path: Path) -> None:
    async def spend(cluster: Cluster, settings: dict[str, Any]) -> None:
        await run(tmp_path, settings, "limits", "set", "--day-usd", "5000", "--day-amount", "USDC=7000")
        await with_limits_in_force(cluster)
        asking = [asyncio.create_task(answer_to(cluster, number)) for number in range(ORDERS)]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        await cluster.kill("api 2")
        answers = await asyncio.gather(*asking)
        accepted = {answer["orderId"] for answer in answers if answer is not None}
        assert len(accepted) == sum(answer is not None for answer in answers) == WITHIN
        outcomes = await asyncio.gather(*(cluster.apis[0].outcome(order_id) for order_id in accepted))
        assert set(outcomes) == {"confirmed"}
        async with cluster.apis[0].http.get("/api/limits") as response:
            everybody = [each for each in (await response.json())["limits"] if each["of"] == "everybody"]
        assert everybody[0]["used"] == {"usd": "5000", "amounts": {"USDC": "5000"}, "openOrders": 0}
        result = await reconciled(tmp_path, **settings)
        assert (result["orders"], result["confirmed"]) == (WITHIN, WITHIN)
        assert (result["lost"], result["doubled"], result["misreported"]) == (0, 0, 0)

    async def test() -> None:
        with servers.postgres() as postgres, servers.redis() as redis:
            async with a_cluster(tmp_path, postgres, redis) as cluster:
                await spend(cluster, cluster._settings)

    in_real_time(test(), within_s=90)
