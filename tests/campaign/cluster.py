"""The engine's processes, by name: whoever dies is started again, with the next place to die at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import signal
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp

from fillwright.core.lifecycle import AttemptFailed, Cancelled, Confirmed, Failed, RouteSelected
from fillwright.core.lifecycle import TransactionSigned as Signed
from tests.process import free_port

ROOT: Final = Path(__file__).resolve().parent.parent.parent
START_S: Final = 30
RARE: Final = frozenset({"Cancelled", "Failed", "release", "renew"})

_APPENDED: Final = [kind.__name__ for kind in (RouteSelected, Signed, Confirmed, AttemptFailed, Failed)]
WORKER_PLACES: Final = [
    *(f"{side} {what}" for what in (*_APPENDED, "send", "renew", "release") for side in ("before", "after")),
    "after claim",
]
API_PLACES: Final = [
    *(f"{side} {what}" for what in ("accept", Cancelled.__name__) for side in ("before", "after")),
    "between commit and news",
]
PLACES: Final = [*WORKER_PLACES, *API_PLACES]
ROLES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "postgres": (("a1", "api"), ("a2", "api"), ("w1", "worker"), ("w2", "worker")),
    "sqlite": (("s1", "serve"), ("s2", "serve")),
}


class Engine:
    """One of the engine's processes, as it runs now."""

    def __init__(self, name: str, role: str, port: int, skew: Path) -> None:
        self.name, self.role, self.port = name, role, port
        self.url = f"http://127.0.0.1:{port}"
        self.pid = 0
        self.code: int | None = None
        self.starts = 0
        self.place = ""
        self.ended = asyncio.Event()
        skew.write_bytes(bytes(8))
        with skew.open("r+b") as file:
            self._skew = mmap.mmap(file.fileno(), 8)
        self.skew_path = skew

    def set_clock(self, skew_ms: int) -> None:
        self._skew[:8] = struct.pack("<q", skew_ms)

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.pid and not self.ended.is_set():
                os.kill(self.pid, number)


class Cluster:
    def __init__(self, folder: Path, store: str, settings: dict[str, Any], chain: str, planted: str, seed: int) -> None:
        self.engines = [Engine(name, role, free_port(), folder / f"{name}.skew") for name, role in ROLES[store]]
        self.faults: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.exits: list[int] = []
        self.dooms = True
        self._folder = folder
        self._settings = settings
        self._chain = chain
        self._planted = planted
        self._chance = Random(f"{seed}/cluster")
        self._chosen: Counter[str] = Counter()
        self._launcher: asyncio.subprocess.Process | None = None
        self._by_pid: dict[int, Engine] = {}
        self._begun: dict[str, asyncio.Future[None]] = {}
        self._restarting = True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._launcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.campaign.engine"),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        hearing = asyncio.create_task(self._hear())
        keeping = [asyncio.create_task(self._keep(engine)) for engine in self.engines]
        try:
            yield
        finally:
            self._restarting = False
            for engine in self.engines:
                engine.send(signal.SIGCONT)
                engine.send(signal.SIGKILL)
            for task in keeping:
                task.cancel()
            assert self._launcher.stdin is not None
            self._launcher.stdin.close()
            await self._launcher.wait()
            hearing.cancel()
            await asyncio.gather(*keeping, hearing, return_exceptions=True)

    @property
    def apis(self) -> list[Engine]:
        return [engine for engine in self.engines if engine.role != "worker"]

    @property
    def workers(self) -> list[Engine]:
        return [engine for engine in self.engines if engine.role != "api"]

    def count_hits(self) -> None:
        """Take over what the processes wrote before they killed themselves."""
        notes = self._folder / "hits"
        self.hits = Counter(notes.read_text().splitlines() if notes.exists() else ())

    async def stop(self) -> list[int]:
        """Ask all to stop, and return how they ended."""
        self._restarting = False
        for engine in self.engines:
            engine.send(signal.SIGTERM)
        async with asyncio.timeout(30):
            await asyncio.gather(*(engine.ended.wait() for engine in self.engines))
        return [engine.code or 0 for engine in self.engines]

    async def answering(self) -> None:
        """Return once every API answers."""
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as http:
            for engine in self.apis:
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with http.get(engine.url + "/health") as response:
                            if response.status == 200:
                                break
                    await asyncio.sleep(0.05)

    async def _keep(self, engine: Engine) -> None:
        while self._restarting:
            engine.ended.clear()
            await self._start(engine)
            await engine.ended.wait()
            self.exits.append(engine.code or 0)

    async def _start(self, engine: Engine) -> None:
        engine.starts += 1
        place, passes = self._next_place(engine.role) if self.dooms else ("", 0)
        engine.place = place
        order = {
            "name": engine.name,
            "role": engine.role,
            "settings": {**self._settings, "port": engine.port},
            "place": place,
            "passes": passes,
            "note": str(self._folder / "hits"),
            "chain": self._chain,
            "planted": self._planted,
            "skew": str(engine.skew_path),
            "log": str(self._folder / f"{engine.name}.log"),
        }
        assert self._launcher is not None
        assert self._launcher.stdin is not None
        begun = self._begun[engine.name] = asyncio.get_running_loop().create_future()
        self._launcher.stdin.write(json.dumps(order).encode() + b"\n")
        await begun

    def _next_place(self, role: str) -> tuple[str, int]:
        """Choose the place that was chosen least often, and how often it is passed before."""
        places = {"api": API_PLACES, "worker": WORKER_PLACES, "serve": PLACES}[role]
        self.count_hits()
        fewest = min(self.hits[place] * 3 + self._chosen[place] for place in places)
        place = self._chance.choice([place for place in places if self.hits[place] * 3 + self._chosen[place] == fewest])
        self._chosen[place] += 1
        rare = place.partition(" ")[2] in RARE
        return place, 1 if rare else self._chance.randrange(1, 10)

    async def _hear(self) -> None:
        assert self._launcher is not None
        assert self._launcher.stdout is not None
        names = {engine.name: engine for engine in self.engines}
        async for line in self._launcher.stdout:
            said = json.loads(line)
            if "began" in said:
                engine = names[said["name"]]
                engine.pid, engine.code = said["began"], None
                self._by_pid[engine.pid] = engine
                self._begun.pop(engine.name).set_result(None)
            else:
                engine = self._by_pid.pop(said["ended"])
                engine.code = said["code"]
                engine.ended.set()
