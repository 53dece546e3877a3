"""The engine under attack: a process of its own, with a probe that notes what holds up its event loop.

A stall is CPU time that the loop's thread spent between two ticks of a short timer. CPU time, because the wall clock
also counts what the machine gave to others, the attacker among them: a stall of the engine's own making is work.
Both processes read the same monotonic clock, by which a stall is laid at the door of whoever was attacking.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fillwright.cli.running import run
from fillwright.processes import listen, serve
from fillwright.settings import read_settings
from fillwright.telemetry import configure_logs

ROOT: Final = Path(__file__).parent.parent.parent
TICK_S: Final = 0.002
NOTED_S: Final = 0.005
STALL_MS_MAX: Final = 50.0
FAULTS: Final = ('"level":"error"', '"level": "error"', "Traceback", "never retrieved", "Fatal error")


@dataclass(frozen=True, slots=True)
class Stall:
    """The loop's thread worked for `cpu_ms` from `began_s` to `ended_s` without coming back to its timers."""

    began_s: float
    ended_s: float
    cpu_ms: float


class Target:
    """An engine that is running, as its attacker sees it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.port = port
        self.said: list[str] = []
        self._process = process
        assert process.stderr is not None
        self._listening = asyncio.create_task(self._listen(process.stderr))

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def faults(self) -> list[str]:
        """Return the lines in which the engine owned up to a fault."""
        return [line for line in self.said if any(sign in line for sign in FAULTS)]

    async def stalls(self) -> list[Stall]:
        """Return what the probe has noted since it was asked last."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"?\n")
        return [Stall(*stall) for stall in json.loads(await self._process.stdout.readline())]

    async def memory_bytes(self) -> int:
        """Return how much memory the engine's process holds."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._listening

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            self.said.append(line.decode(errors="replace").rstrip())


@contextlib.asynccontextmanager
async def a_target(folder: Path, **settings: object) -> AsyncIterator[Target]:
    """Run an engine whose market and chain answer at once, and yield it once it serves."""
    chosen = {
        "PATH": os.environ["PATH"],
        "PORT": "0",
        "DATABASE_URL": f"sqlite:///{folder}/orders.db",
        "QUEUE_RATE_LIMIT": "0",
        "LOG_LEVEL": "warning",
        "FILLWRIGHT_SIM_SPEED": "0",
        "FILLWRIGHT_SIM_QUOTE_DELAY_MS": "0",
        "FILLWRIGHT_WEBHOOK_SECRET": "what nobody would guess, 32 letters",
        "FILLWRIGHT_WEBHOOK_DELIVERY": "off",  # to whatever addresses the attackers have thought of
        **{name.upper(): str(value) for name, value in settings.items()},
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.hostile.target"), cwd=ROOT, env=chosen, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    said = await process.stdout.readline()
    if not said and process.stderr is not None:
        raise AssertionError(f"the engine did not start: {(await process.stderr.read()).decode()}")
    target = Target(process, int(said))
    try:
        yield target
    finally:
        await target.end()


class Probe:
    """Ticks on the running loop. `NOTED_S` of work between two ticks is worth a note."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._noted: list[Stall] = []
        self._at_s, self._cpu_s = time.monotonic(), time.thread_time()
        self._loop.call_later(TICK_S, self._tick)
        self._loop.add_reader(sys.stdin.fileno(), self._answer)

    def _tick(self) -> None:
        at_s, cpu_s = time.monotonic(), time.thread_time()
        if cpu_s - self._cpu_s > NOTED_S:
            self._noted.append(Stall(self._at_s, at_s, (cpu_s - self._cpu_s) * 1000))
        self._at_s, self._cpu_s = at_s, cpu_s
        self._loop.call_later(TICK_S, self._tick)

    def _answer(self) -> None:
        if not os.read(sys.stdin.fileno(), 1_024):  # the attacker is gone
            self._loop.remove_reader(sys.stdin.fileno())
            os.kill(os.getpid(), signal.SIGTERM)
            return
        noted, self._noted = self._noted, []
        _say(json.dumps([(stall.began_s, stall.ended_s, stall.cpu_ms) for stall in noted]))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    settings = read_settings(os.environ, Path(os.devnull))
    configure_logs(settings.log_level, "json")
    with listen("127.0.0.1", 0) as listener:

        def listening(port: int) -> None:
            Probe()
            _say(str(port))

        run(lambda _: serve(settings, listener, listening=listening))


if __name__ == "__main__":
    main()
