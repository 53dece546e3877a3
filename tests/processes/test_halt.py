"""A halt by the command line, while two API processes and two workers are busy on one PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests import servers
from tests.process import EngineProcess, environment, in_real_time, reconciled
from tests.processes.test_kill import Cluster, a_cluster, post, some_work
from tests.world import SWAP

EFFECTIVE_S = 1.0


async def run(folder: Path, settings: dict[str, Any], *command: str) -> str:
    """Return what a command of the command line prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", *command),
        cwd=folder,
        env=environment(folder, **settings),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def refused_since(api: EngineProcess) -> float:
    """Return when an API first refused an order because of a halt."""
    while True:
        async with api.http.post("/api/orders/execute", json=SWAP) as response:
            body = await response.json()
            if body.get("code") == "halted":
                return time.time()
        await asyncio.sleep(0.01)


async def signed_at(api: EngineProcess) -> list[float]:
    """Return when each transaction of the orders of an engine was signed."""
    times: list[float] = []
    cursor = ""
    while True:
        async with api.http.get(f"/api/orders?limit=200{cursor}") as response:
            page = await response.json()
        for order in page["orders"]:
            async with api.http.get(f"/api/orders/{order['orderId']}/events") as response:
                events = (await response.json())["events"]
            times += [seconds(event["timestamp"]) for event in events if event["status"] == "submitted"]
        if page["nextCursor"] is None:
            return times
        cursor = f"&cursor={page['nextCursor']}"


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_halt_is_effective_in_every_process_within_a_second_and_loses_nothing(tmp_path: Path) -> None:
    async def halt(cluster: Cluster, settings: dict[str, Any]) -> None:
        ids = await asyncio.gather(*(post(cluster, number) for number in range(200)))
        await some_work(cluster)
        refusing = [asyncio.create_task(refused_since(api)) for api in cluster.apis]
        await run(tmp_path, settings, "halt", "--reason", "drill")
        audit = await run(tmp_path, settings, "audit", "list", "--json")
        halted_at = seconds(json.loads(audit.splitlines()[-1])["at"])
        assert max(await asyncio.gather(*refusing)) - halted_at < EFFECTIVE_S
        await asyncio.sleep(3)  # what is counted below are signatures in this time
        resumed_at = time.time()
        await run(tmp_path, settings, "resume")
        outcomes = await asyncio.gather(*(cluster.apis[0].outcome(order_id) for order_id in ids))
        assert set(outcomes) == {"confirmed"}
        late = [at for at in await signed_at(cluster.apis[0]) if halted_at + EFFECTIVE_S < at < resumed_at]
        assert late == []
        result = await reconciled(tmp_path, **settings)
        assert (result["lost"], result["doubled"], result["misreported"]) == (0, 0, 0)

    async def drill() -> None:
        with servers.postgres() as postgres, servers.redis() as redis:
            async with a_cluster(tmp_path, postgres, redis) as cluster:
                await halt(cluster, cluster._settings)

    in_real_time(drill(), within_s=120)
