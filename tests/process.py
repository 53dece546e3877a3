"""The engine as an operator runs it: a real process, on real time, on real files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

T = TypeVar("T")


def in_real_time(test: Coroutine[Any, Any, T], within_s: float = 60) -> T:
    """Run a coroutine on an ordinary loop; fail if it takes too long."""
    return asyncio.run(asyncio.wait_for(test, within_s))


class EngineProcess:
    """A running `fillwright serve`, a client of it, and the means to end it."""

    def __init__(self, process: asyncio.subprocess.Process, http: aiohttp.ClientSession) -> None:
        self.process = process
        self.http = http

    async def kill(self) -> None:
        """End it as a power cut would: at once and in the middle of everything."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def outcome(self, order_id: str) -> str:
        """Follow an order to its end and return its last status."""
        status = ""
        async with self.http.ws_connect(f"/api/orders/{order_id}/stream") as websocket:
            async for message in websocket:
                status = json.loads(message.data).get("status", status)
        return status


@contextlib.asynccontextmanager
async def an_engine(folder: Path, **settings: object) -> AsyncIterator[EngineProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", "serve"),
        cwd=folder,
        env=environment(folder, **settings),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    url = ""
    async for line in process.stderr:
        if b'"engine.listening"' in line:
            url = json.loads(line)["url"]
            break
    assert url, f"the engine did not start: exit code {await process.wait()}"
    draining = asyncio.create_task(_drain(process.stderr))
    try:
        async with aiohttp.ClientSession(url) as http:
            yield EngineProcess(process, http)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        draining.cancel()


async def reconciled(folder: Path, **settings: object) -> dict[str, Any]:
    """Return what `fillwright reconcile --json` says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", "reconcile", "--json"),
        cwd=folder,
        env=environment(folder, **settings),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    result: dict[str, Any] = json.loads(out)
    return result


def environment(folder: Path, **settings: object) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PORT": "0",
        "DATABASE_URL": f"sqlite:///{folder}/orders.db",
        "QUEUE_RATE_LIMIT": "0",
        **{name.upper(): str(value) for name, value in settings.items()},
    }


async def _drain(stream: asyncio.StreamReader) -> None:
    async for _ in stream:
        pass
