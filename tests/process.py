"""The engine as an operator runs it: a real process, on real time, on real files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
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
    """A running part of an engine, a client of its API where it has one, and the means to end it."""

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


def an_engine(folder: Path, **settings: object) -> contextlib.AbstractAsyncContextManager[EngineProcess]:
    """Run `fillwright serve`: API and worker in one process."""
    return a_process(folder, "serve", **settings)


@contextlib.asynccontextmanager
async def a_process(folder: Path, *command: str, **settings: object) -> AsyncIterator[EngineProcess]:
    """Run a command of `fillwright` that serves, and yield it once it does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", *command),
        cwd=folder,
        env=environment(folder, **settings),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    started: dict[str, Any] = {}
    said: list[bytes] = []
    async for line in process.stderr:
        said.append(line)
        if any(event in line for event in (b'"engine.listening"', b'"worker.started"', b'"all.started"')):
            started = json.loads(line)
            break
    assert started, f"it did not start: exit code {await process.wait()}: {b''.join(said).decode()}"
    draining = asyncio.create_task(_drain(process.stderr))
    url = started.get("url") or f"http://127.0.0.1:{started.get('port', 1)}"
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
        "FILLWRIGHT_SIM_LEDGER": f"{folder}/chain.db",
        "QUEUE_RATE_LIMIT": "0",
        **{name.upper(): str(value) for name, value in settings.items()},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _drain(stream: asyncio.StreamReader) -> None:
    async for _ in stream:
        pass
