"""Those who trade: they ask until they are answered, sometimes twice at once, cancel, and follow over many cuts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import aiohttp

from tests.campaign.cluster import Cluster
from tests.campaign.guards import CAPPED_SHARE, Guards
from tests.proof.verdict import Told, Witness

TERMINAL: Final = frozenset({"confirmed", "failed", "cancelled", "expired"})
UNANSWERED: Final = (aiohttp.ClientError, TimeoutError, ConnectionError)


class Clients:
    def __init__(self, cluster: Cluster, http: aiohttp.ClientSession, guards: Guards, seed: int) -> None:
        self.witnesses: list[Witness] = []
        self.answers: Counter[int] = Counter()
        self.strange: list[str] = []
        self._cluster = cluster
        self._http = http
        self._guards = guards
        self.denied = 0
        self._seed = seed

    async def trade(self, number: int) -> None:
        """Submit one order, and be its witness."""
        chance = Random(f"{self._seed}/client/{number}")
        witness = Witness(f"key-{number}")
        self.witnesses.append(witness)
        order: dict[str, Any] = {
            "tokenIn": "SOL",
            "tokenOut": chance.choice(("USDC", "BONK")),
            "amount": str(chance.randrange(1, 100)),
            "slippage": "0.05",
        }
        if chance.random() < 0.05:
            expires_at = datetime.fromtimestamp(time.time() + chance.uniform(1, 6), UTC)
            order["expiresAt"] = expires_at.isoformat()
        account = "capped" if Random(f"{self._seed}/account/{number}").random() < CAPPED_SHARE else "desk"
        key = self._guards.headers[account]
        submits = [self._submit(order, witness, chance, key)]
        if chance.random() < 0.2:
            submits.append(self._submit(order, witness, Random(f"{self._seed}/again/{number}"), key))
        ids = [order_id for order_id in await asyncio.gather(*submits) if order_id]
        if not ids:
            return
        if chance.random() < 0.1:
            await self._cancel(ids[0], chance, key)
        if chance.random() < 0.2:
            await self._follow(ids[0], witness, chance, key)

    async def _submit(
        self, order: dict[str, Any], witness: Witness, chance: Random, key: Mapping[str, str]
    ) -> str | None:
        """Ask until there is an answer.

        That an order has expired in the meantime, or is more than may be sold in a day, is an answer, too.
        """
        while True:
            api = chance.choice(self._cluster.apis)
            with contextlib.suppress(*UNANSWERED):
                async with self._http.post(
                    f"{api.url}/api/orders/execute", json=order, headers={"Idempotency-Key": witness.key, **key}
                ) as response:
                    body = await response.json()
                    self.answers[response.status] += 1
                    if response.status in (200, 201):
                        witness.answered.append(body["orderId"])
                        return str(body["orderId"])
                    if response.status == 400 and body["code"] == "invalid_expiry":
                        return None
                    if response.status == 403 and body["code"] == "daily_limit_reached":
                        self.denied += 1
                        return None
                    if response.status not in (429, 503):
                        self.strange.append(f"{response.status} {body}")
            await asyncio.sleep(chance.uniform(0.05, 0.3))

    async def _cancel(self, order_id: str, chance: Random, key: Mapping[str, str]) -> None:
        await asyncio.sleep(chance.uniform(0, 0.3))
        with contextlib.suppress(*UNANSWERED):
            url = f"{chance.choice(self._cluster.apis).url}/api/orders/{order_id}"
            async with self._http.delete(url, headers=key) as response:
                self.answers[response.status] += 1
                if response.status not in (200, 409, 503):
                    self.strange.append(f"cancel: {response.status} {await response.text()}")

    async def _follow(self, order_id: str, witness: Witness, chance: Random, key: Mapping[str, str]) -> None:
        """Follow an order to its end, over as many connections as it takes."""
        told: list[Told] = []
        while not told or told[-1].status not in TERMINAL:
            api, cut = chance.choice(self._cluster.apis), chance.choice((1, 2, 3, 99))
            after = told[-1].seq if told else 0
            with contextlib.suppress(*UNANSWERED):
                async with (
                    asyncio.timeout(chance.choice((1, 5, 20))),
                    self._http.ws_connect(
                        f"{api.url}/api/orders/{order_id}/stream?after={after}", headers=key
                    ) as stream,
                ):
                    async for message in stream:
                        update = json.loads(message.data)
                        if update["event"] != "order:update":
                            continue
                        at_ms = round(datetime.fromisoformat(update["timestamp"]).timestamp() * 1000)
                        told.append(Told(update["seq"], update["status"], at_ms))
                        cut -= 1
                        if not cut:
                            break
            await asyncio.sleep(chance.uniform(0.02, 0.3))
        witness.followed.append(told)
