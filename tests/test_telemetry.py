"""What happens to orders is in the log, one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import subprocess
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


FULL_DISK = """
import resource, signal, structlog
from fillwright.telemetry import configure_logs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
configure_logs("info", "json")
log = structlog.get_logger()
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
for number in range(300):
    log.error("there is no room for this", number=number, padding="x" * 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
log.info("there is room again")
"""


def test_a_log_that_cannot_be_written_stops_nobody_and_goes_on_when_it_can(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", FULL_DISK], stderr=log, check=True)
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "there is room again"
