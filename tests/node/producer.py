"""A Node service with the real `bullmq`, as a test sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.node import packages

Json = dict[str, Any]

HERE: Final = Path(__file__).parent
SOURCES: Final = ("package.json", "producer.mjs")


class Producer:
    """Adds jobs, and hears what becomes of them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self._numbers = count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._events: defaultdict[str, list[Json]] = defaultdict(list)
        self._heard = asyncio.Condition()

    async def add(self, order: Any, *, data: Json | None = None, **options: Any) -> str:
        """Add an order to the queue, and return its job's id."""
        return (await self.add_all([order], data=data, **options))[0]

    async def add_all(self, orders: list[Any], *, data: Json | None = None, **options: Any) -> list[str]:
        jobs = [
            {"name": "execute-order", "data": {"orderId": "ours", "order": order, **(data or {})}, "opts": options}
            for order in orders
        ]
        ids: list[str] = await self.ask("add", jobs=jobs)
        return ids

    async def ask(self, command: str, **given: Any) -> Any:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._in.write(json.dumps({"number": number, "command": command, **given}).encode() + b"\n")
        return await self._answers[number]

    async def look(self, job_id: str) -> Json:
        """Return what Bull Board shows of a job."""
        job: Json = await self.ask("look", jobId=job_id)
        return job

    async def event(self, job_id: str, *names: str, after: int = 0) -> Json:
        """Return a job's first event of these names, once it is there; `after` skips as many."""

        def found() -> list[Json]:
            return [event for event in self._events[job_id] if event["event"] in names][after:]

        async with self._heard:
            await self._heard.wait_for(found)
            return found()[0]

    async def end(self, job_id: str, after: int = 0) -> Json:
        return await self.event(job_id, "completed", "failed", after=after)

    async def ends(self, number: int) -> list[Json]:
        """Return the first ends of jobs, whichever they are, once there are so many."""

        def found() -> list[Json]:
            every = (event for events in self._events.values() for event in events)
            return [event for event in every if event["event"] in ("completed", "failed")]

        async with self._heard:
            await self._heard.wait_for(lambda: len(found()) >= number)
            return found()[:number]

    def progress(self, job_id: str) -> list[Json]:
        return [event["data"] for event in self._events[job_id] if event["event"] == "progress"]

    def events(self, job_id: str, name: str) -> int:
        """Return how many events of a name a job had."""
        return sum(event["event"] == name for event in self._events[job_id])

    async def listen(self) -> None:
        async for line in self._out:
            said = json.loads(line)
            if "event" in said:
                async with self._heard:
                    self._events[said["jobId"]].append(said)
                    self._heard.notify_all()
            elif "number" in said and "error" in said:
                self._answers.pop(said["number"]).set_exception(RuntimeError(said["error"]))
            elif "number" in said:
                self._answers.pop(said["number"]).set_result(said.get("answer"))


@contextlib.asynccontextmanager
async def a_producer(redis_url: str, queue: str = "order-queue", prefix: str = "bull") -> AsyncIterator[Producer]:
    folder = await asyncio.to_thread(installed)
    process = await asyncio.create_subprocess_exec(
        *("node", str(folder / "producer.mjs"), redis_url, queue, prefix),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    assert await process.stdout.readline(), f"the producer did not start: exit code {await process.wait()}"
    producer = Producer(process)
    listening = asyncio.create_task(producer.listen())
    try:
        yield producer
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        listening.cancel()


def installed() -> Path:
    """Return a folder with the producer and what it needs."""
    return packages.installed("bullmq", [HERE / name for name in SOURCES])
