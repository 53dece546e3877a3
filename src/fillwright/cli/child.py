"""An engine of one's own: `fillwright serve` as a child process, on a free port, over a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final

from fillwright.cli.exits import Refused

START_S: Final = 20
STOP_S: Final = 12
LOG_LINES_KEPT: Final = 5


class Child:
    """A running engine. `url` is where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: deque[str]) -> None:
        self._process = process
        self._log = log
        self.url = url

    async def ended(self) -> None:
        """Wait until the engine ends by itself, which it should not, and raise Refused with what it said last."""
        await self._process.wait()
        raise _ended(self._process.returncode, self._log)


@contextlib.asynccontextmanager
async def start_engine(folder: str, environ: Mapping[str, str]) -> AsyncIterator[Child]:
    """Yield an engine that runs in `folder`, and end it. Raise Refused with its own words if it does not start."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", "serve"),
        cwd=folder,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
    reading: asyncio.Task[None] | None = None
    try:
        url = await _started(process, process.stderr, log)
        reading = asyncio.create_task(_keep_reading(process.stderr, log))
        yield Child(process, url, log)
    finally:
        await _end(process)
        if reading is not None:
            reading.cancel()


async def _started(process: asyncio.subprocess.Process, stderr: asyncio.StreamReader, log: deque[str]) -> str:
    try:
        async with asyncio.timeout(START_S):
            url = await _listening(stderr, log)
            if url is None:
                raise _ended(await process.wait(), log)
            return url
    except TimeoutError:
        raise Refused(f"the engine did not start within {START_S} s: {_last(log)}", "engine_ended") from None


async def _listening(stderr: asyncio.StreamReader, log: deque[str]) -> str | None:
    """Read the log up to the line that says where the engine listens; None if it ends before."""
    async for line in stderr:
        log.append(line.decode(errors="replace").strip())
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("event") == "engine.listening":
                return str(entry["url"])
    return None


async def _keep_reading(stderr: asyncio.StreamReader, log: deque[str]) -> None:
    async for line in stderr:
        log.append(line.decode(errors="replace").strip())


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the process to stop, and make it if it does not."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _ended(code: int | None, log: deque[str]) -> Refused:
    return Refused(f"the engine ended with exit code {code}: {_last(log)}", "engine_ended")


def _last(log: deque[str]) -> str:
    return log[-1].removeprefix("error: ") if log else "it said nothing"
