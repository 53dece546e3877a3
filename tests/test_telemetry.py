"""What happens to orders is in the log, one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import aiohttp

from tests.process import environment, in_real_time
from tests.world import SWAP


def test_the_log_tells_the_routing_decision_with_the_losing_quote_and_the_end(tmp_path: Path) -> None:
    async def log_of_one_order() -> list[dict[str, object]]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fillwright", "serve"),
            cwd=tmp_path,
            env=environment(tmp_path, fillwright_sim_speed=0),
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        lines = []
        async for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "engine.listening":
                async with aiohttp.request("POST", f"{lines[-1]['url']}/api/orders/execute", json=SWAP) as response:
                    assert response.status == 201
            if lines[-1]["event"] == "order.confirmed":
                process.terminate()
        await process.wait()
        return lines

    lines = {str(line["event"]): line for line in in_real_time(log_of_one_order())}
    routed = lines["order.routed"]
    assert routed["venue"] in ("raydium", "meteora")
    assert "after fees" in str(routed["why"])
    assert "less than" in str(routed["passed_over"])
    assert lines["order.confirmed"]["order"] == routed["order"]
    assert all("timestamp" in line and "level" in line for line in lines.values())
