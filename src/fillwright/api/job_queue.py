"""A BullMQ queue, as one who works its jobs off sees it. All of BullMQ and of Redis that the engine knows is here.

What moves jobs are BullMQ's own scripts, as the `bullmq` package brings them. Its `Worker` class is not used: it reads
amounts as floats, fails a job whose completion Redis did not take, and asks Redis twice per slot and job
(docs/decisions/0013-the-bullmq-bridge.md).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import uuid4

import bullmq  # type: ignore[import-untyped]  # the package has no types
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fillwright.core.ports import Clock
from fillwright.core.units import Millis

T = TypeVar("T")

WAIT_MS: Final = 2_000
ANSWER_S: Final = 10.0  # longer than any wait above: redis-py's own 5 s may end before the wait it covers
CONNECTIONS_MAX: Final = 16
PAGE: Final = 200
NAME_LENGTH_MAX: Final = 128
STALLS_MAX: Final = 1_000_000_000
STALLED: Final = "job stalled more than allowable limit"
VISIBLE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


class JobsUnavailable(ConnectionError):
    """Redis does not answer, or refuses. What was asked of it may have happened all the same."""


class JobGone(Exception):
    """The job is not ours any more, or not there."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A job as BullMQ keeps it. `data` is still text, so that no float ever touches an amount.

    `client_order_id` names its order, and no other job's. `given_up` is why BullMQ wants it failed unseen, if it does.
    `token` is the key to its lock, where it is in hand. `record` is the package's own object: it has the options that
    say what becomes of the job at its end.
    """

    id: str
    client_order_id: str
    data: str
    progress: Any
    given_up: str | None
    token: str
    record: Any


class JobQueue:
    """One queue. Any method may raise JobsUnavailable; those that are about a job may raise JobGone."""

    def __init__(self, redis_url: str, name: str, prefix: str, lock_ms: Millis, clock: Clock) -> None:
        self.name = name
        self._prefix = prefix
        self._lock_ms = lock_ms
        self._clock = clock
        options: dict[str, Any] = {
            "decode_responses": True,
            "encoding_errors": "replace",
            "socket_timeout": ANSWER_S,
            "retry": Retry(NoBackoff(), 1),
        }
        pool = BlockingConnectionPool.from_url(redis_url, max_connections=CONNECTIONS_MAX, timeout=None, **options)
        self._redis: Any = Redis.from_pool(pool)
        # Bull Board counts a queue's workers by the names of their connections.
        worker_name = f"{prefix}:{base64.b64encode(name.encode()).decode()}:w:fillwright"
        self._waiting: Any = Redis.from_url(redis_url, client_name=worker_name, **options)
        self._queue = bullmq.Queue(name, {"connection": self._redis, "prefix": prefix})
        self._backend = self._queue.backend
        self._marker: str = self._queue.keys["marker"]
        self._tokens = uuid4().hex
        self._taken = 0
        self._limited_ms: Millis = 0
        self._due_at_ms: Millis = 0
        self._answers = True

    async def check(self) -> None:
        """Return if Redis answers."""
        await self._ask(self._redis.ping())

    async def take(self) -> Job | None:
        """Take the next job and lock it; None if there is none to take now."""
        self._taken += 1
        token = f"{self._tokens}:{self._taken}"
        fields, job_id, limited_ms, due_at_ms = await self._ask(
            self._backend.moveToActive(token, {"lockDuration": self._lock_ms})
        )
        self._limited_ms, self._due_at_ms = int(limited_ms or 0), int(due_at_ms or 0)
        if not fields:
            return None
        job = self._job(job_id, fields, token)
        if job.record.repeatJobKey:
            await self._schedule_next(job)
        return job

    async def wait(self) -> None:
        """Return when there may be a job to take. May be cancelled."""
        if self._limited_ms > 0:
            await self._clock.sleep(min(self._limited_ms, WAIT_MS))
            return
        until_due_ms = self._due_at_ms - self._clock.now_ms() if self._due_at_ms else WAIT_MS
        wait_ms = max(10, min(until_due_ms, WAIT_MS))  # before 7.0.8, Redis takes a wait of 1 ms for one without end
        await self._heed(self._waiting.bzpopmin(self._marker, wait_ms / 1000))

    async def renew(self, jobs: Sequence[Job]) -> list[Job]:
        """Lengthen the locks of these jobs, and return those whose lock was lost."""
        lost = await self._ask(
            self._backend.extendLocks([job.id for job in jobs], [job.token for job in jobs], self._lock_ms)
        )
        return [job for job in jobs if job.id in lost]

    async def report(self, job: Job, progress: Any, line: str) -> None:
        """Set a job's progress, and add a line to its log."""
        await self._ask(self._backend.updateProgress(job.id, progress))
        await self._ask(self._backend.addLog(job.id, line, job.record.opts.get("keepLogs", 0)))

    async def complete(self, job: Job, value: Any) -> None:
        removal = job.record.opts.get("removeOnComplete", False)
        await self._ask(self._backend.moveToCompleted(job.record, value, removal, job.token, fetch_next=False))

    async def fail(self, job: Job, reason: str) -> None:
        """Fail a job for good, whatever attempts it has left."""
        removal = job.record.opts.get("removeOnFail", False)
        await self._ask(self._backend.moveToFailed(job.record, reason, removal, job.token, fetch_next=False))

    async def give_back(self, job: Job) -> None:
        """Let go of a job in hand: it may be taken again at once, and no attempt is counted."""
        uncounted = {"skipAttempt": True}
        await self._ask(self._backend.moveToDelayed(job.id, self._clock.now_ms(), 0, job.token, uncounted))

    async def free_stalled(self) -> list[str]:
        """Let jobs be taken again whose worker is gone, and return their ids. Finds them at the second look."""
        ids: list[str] = await self._ask(self._backend.moveStalledJobsToWait(STALLS_MAX, self._lock_ms // 3))
        return ids

    async def failed_for_stalling(self) -> AsyncIterator[Job]:
        """Yield the failed jobs that BullMQ gave up because their workers died."""
        cursor = 0
        while True:
            cursor, page = await self._ask(self._redis.zscan(self._queue.keys["failed"], cursor, count=PAGE))
            for job_id, _ in page:
                if await self._ask(self._redis.hget(self._queue.toKey(job_id), "failedReason")) == STALLED:
                    fields = await self._ask(self._redis.hgetall(self._queue.toKey(job_id)))
                    if fields:
                        yield self._job(job_id, fields, "")
            if not cursor:
                return

    async def run_again(self, job: Job) -> None:
        """Put a failed job back into the queue."""
        await self._ask(job.record.retry("failed"))

    async def close(self) -> None:
        for connections in (self._waiting, self._redis):
            await connections.aclose()

    def _job(self, job_id: str, fields: dict[str, str], token: str) -> Job:
        record = bullmq.Job.fromJSON(self._queue, {**fields, "data": "null"}, job_id)
        return Job(
            job_id,
            client_order_id(self._prefix, self.name, job_id, record.timestamp),
            fields.get("data", ""),
            record.progress,
            record.deferredFailure,
            token,
            record,
        )

    async def _schedule_next(self, job: Job) -> None:
        """A job that a job scheduler made asks for the next one when it is taken, as with BullMQ's own workers."""
        record = job.record
        try:
            await self._queue.upsertJobScheduler(
                record.repeatJobKey, record.opts.get("repeat"), record.name, None, record.opts, False, record.id
            )
        except Exception:  # the job that was taken is not to blame
            structlog.get_logger().exception("bullmq.not_scheduled", job=job.id, scheduler=record.repeatJobKey)

    async def _ask(self, command: Awaitable[T]) -> T:
        """Have a command done, also if whoever asks is cancelled meanwhile.

        In redis-py, sending ends in `asyncio.wait_for`, and before Python 3.12 that one may swallow the cancellation.
        """
        return await self._heed(asyncio.shield(asyncio.ensure_future(command)))

    async def _heed(self, command: Awaitable[T]) -> T:
        """Return a command's answer, and note whether Redis answers."""
        log = structlog.get_logger()
        try:
            answer = await command
        except (RedisError, OSError) as error:
            if self._answers:
                self._answers = False
                log.warning("bullmq.unreachable", reason=str(error))
            raise JobsUnavailable(str(error)) from error
        except (TypeError, bullmq.UnrecoverableError) as error:  # what the package makes of a script's negative answer
            raise JobGone(str(error)) from error
        if not self._answers:
            self._answers = True
            log.info("bullmq.reachable")
        return answer


def client_order_id(prefix: str, queue: str, job_id: str, added_at_ms: Millis) -> str:
    """Return the name of a job's order: the job's own key in Redis.

    Numbers are BullMQ's own count, which begins anew when the queue is emptied: when the job was added tells its order
    from an earlier one. Producers cannot give numbers as ids, nor ids with one colon.
    """
    name = f"{job_id}:{added_at_ms}" if job_id.isascii() and job_id.isdecimal() else job_id
    key = quote(f"{prefix}:{queue}:{name}", safe=VISIBLE)
    return key if len(key) <= NAME_LENGTH_MAX else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
