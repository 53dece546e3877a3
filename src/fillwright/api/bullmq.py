"""The bridge to BullMQ: a job's order in, the order's life as the job's progress, its end as the job's end.

BullMQ runs a job at least once. Here that becomes exactly once, and not by taking care in Redis: a job's order has a
client order id that follows from the job alone, so whoever takes a job again, after a crash, a lost lock or a lost
reply, is handed the order that is already there. Two rules are left to keep. What a job ends as is read from the order,
never from what went wrong on the way to Redis or the database. And while the outcome is not known, the job goes on: a
full queue or a database that does not answer is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import structlog

from fillwright.api import wire
from fillwright.api.feed import Message, Streams
from fillwright.api.job_queue import Job, JobGone, JobQueue, JobsUnavailable
from fillwright.core.errors import Denied, InvalidRequest, NotReady, QueueFull, StoreError, reason_of
from fillwright.core.lifecycle import TERMINAL, rebuild
from fillwright.core.order import Order, OrderStatus
from fillwright.core.ports import Clock, Intake, OrderFilter, OrderRequest, Store
from fillwright.core.units import Millis, OrderId

T = TypeVar("T")

WORTH_WAITING: Final = (QueueFull, NotReady, StoreError, JobsUnavailable)
PAUSE_MS_MIN: Final[Millis] = 100
PAUSE_MS_MAX: Final[Millis] = 5_000
TAKE_AGAIN_MS: Final[Millis] = 500
LOOK_AGAIN_MS: Final[Millis] = 1_000
END_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """`concurrency` is how many jobs are in hand at most, `lock_ms` how long one stays so without a sign of life."""

    concurrency: int
    lock_ms: Millis
    stop_ms: Millis


class JobData(msgspec.Struct, frozen=True):
    """What is read of a job's data. The order stays text: its amounts are nobody's floats."""

    order: msgspec.Raw


class GivenUp(Exception):
    """BullMQ gave the job up before it came to us."""


class Bridge:
    """Works the jobs of one queue off. Several may do so side by side."""

    def __init__(
        self, intake: Intake, streams: Streams, store: Store, jobs: JobQueue, clock: Clock, settings: BridgeSettings
    ) -> None:
        self._intake = intake
        self._streams = streams
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._settings = settings
        self._in_hand: dict[Job, asyncio.Task[None]] = {}
        self._settling: set[Job] = set()
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger()

    async def run(self, taking: Callable[[], None] = lambda: None) -> None:
        """Work until `stop`, then give back what is in hand. Raise JobsUnavailable if Redis does not answer.

        `taking` is called once jobs are taken.
        """
        await self._jobs.check()
        helpers = [
            asyncio.create_task(self._regularly(self._settings.lock_ms // 3, self._keep_locks)),
            asyncio.create_task(self._regularly(self._settings.lock_ms // 2, self._free_stalled)),
            asyncio.create_task(self._put_right()),
        ]
        work = asyncio.create_task(self._take())
        self._log.info("bridge.taking", queue=self._jobs.name)
        taking()
        try:
            await self._stopping.wait()
        finally:
            self.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.stop_ms / 1000):
                    await work
                    await self._let_go()
            await _cancel([work, *helpers, *self._in_hand.values()])
            self._log.info("bridge.stopped", queue=self._jobs.name)

    def stop(self) -> None:
        """Take no more jobs, and let `run` return."""
        self._stopping.set()

    async def _take(self) -> None:
        while not self._stopping.is_set():
            try:
                if len(self._in_hand) >= self._settings.concurrency:
                    self._room.clear()
                    await self._unless_stopping(self._room.wait())
                elif job := await self._jobs.take():
                    for known in [known for known in self._in_hand if known.id == job.id]:
                        self._let_fall(known)  # we had lost it and did not know
                    self._in_hand[job] = asyncio.create_task(self._work(job))
                else:
                    await self._unless_stopping(self._jobs.wait())
            except Exception as error:  # one job that cannot be read must not end the taking of others
                if not isinstance(error, JobsUnavailable):
                    self._log.exception("bridge.fault")
                await self._unless_stopping(self._clock.sleep(TAKE_AGAIN_MS))

    async def _work(self, job: Job) -> None:
        try:
            await self._see_through(job)
        except JobGone as gone:
            self._log.warning("bridge.jobs_lost", jobs=[job.id], reason=str(gone))
        except Exception:  # the lock runs out, and the job is taken anew
            self._log.exception("bridge.fault", job=job.id)
        finally:
            self._in_hand.pop(job, None)
            self._settling.discard(job)
            self._room.set()

    async def _see_through(self, job: Job) -> None:
        try:
            order = await self._patiently(job, partial(self._submit, job))
            order = await self._follow(job, order)
        except Denied as denied:
            end = partial(self._jobs.fail, job, f"{denied.code}: {reason_of(denied)}")
        except GivenUp as given_up:
            end = partial(self._jobs.fail, job, str(given_up))
        else:
            end = partial(self._end, job, order)
        self._settling.add(job)
        await self._patiently(job, end)

    async def _submit(self, job: Job) -> Order:
        request = order_request(job)
        if job.given_up is not None and not await self._is_known(request):
            raise GivenUp(job.given_up)
        order, _ = await self._intake.submit(request)
        return order

    async def _follow(self, job: Job, order: Order) -> Order:
        """Report every step of an order that was not reported yet, and return the order once it is over."""
        seen = _last_reported(job, order.id)
        while True:
            overrun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            try:
                async for messages in self._streams.follow(order.id, seen, overrun):
                    for message in messages:
                        await self._patiently(job, partial(self._report, job, message))
                        seen = message.seq
                order = rebuild(await self._store.history(order.id))
            except StoreError as error:
                self._log.warning("bridge.waiting", job=job.id, code=error.code, reason=reason_of(error))
            if order.status in TERMINAL:
                return order
            await self._clock.sleep(LOOK_AGAIN_MS)

    async def _report(self, job: Job, message: Message) -> None:
        progress = msgspec.json.decode(message.text)
        await self._jobs.report(job, progress, log_line(progress))

    async def _end(self, job: Job, order: Order) -> None:
        if order.status is OrderStatus.CONFIRMED:
            await self._jobs.complete(job, wire.order_view(order))
        else:
            await self._jobs.fail(job, why_not_filled(order))

    async def _patiently(self, job: Job, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step, again and again while all it wants for is room in the queue, the database or Redis."""
        pause_ms = PAUSE_MS_MIN
        while True:
            try:
                return await step()
            except WORTH_WAITING as error:
                if pause_ms == PAUSE_MS_MIN and not isinstance(error, JobsUnavailable):
                    self._log.warning("bridge.waiting", job=job.id, code=error.code, reason=reason_of(error))
            await self._clock.sleep(pause_ms)
            pause_ms = min(2 * pause_ms, PAUSE_MS_MAX)

    async def _keep_locks(self) -> None:
        held = self._followed()
        lost = [job for job in await self._jobs.renew(held) if job in self._followed()] if held else []
        for job in lost:
            self._let_fall(job)
        if lost:
            self._log.warning("bridge.jobs_lost", jobs=[job.id for job in lost], reason="their locks have run out")

    def _followed(self) -> list[Job]:
        """Return the jobs in hand but for those that are just being ended: an end gives the lock back."""
        return [job for job in self._in_hand if job not in self._settling]

    def _let_fall(self, job: Job) -> None:
        """Do no more for a job that is not ours any more."""
        self._in_hand.pop(job).cancel()

    async def _free_stalled(self) -> None:
        if ids := await self._jobs.free_stalled():
            self._log.warning("bridge.jobs_freed", jobs=ids)

    async def _put_right(self) -> None:
        """Run jobs again that BullMQ failed because their workers died, if we know their orders: these have an end."""
        while True:
            try:
                async for job in self._jobs.failed_for_stalling():
                    with contextlib.suppress(Denied, JobGone):
                        if await self._patiently(job, partial(self._is_known, order_request(job))):
                            await self._jobs.run_again(job)
                            self._log.info("bridge.job_put_right", job=job.id)
                return
            except JobsUnavailable:
                await self._clock.sleep(PAUSE_MS_MAX)
            except Exception:
                self._log.exception("bridge.fault")
                return

    async def _is_known(self, request: OrderRequest) -> bool:
        return bool(await self._store.find(OrderFilter(client_order_id=request.client_order_id, limit=1)))

    async def _regularly(self, every_ms: Millis, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except JobsUnavailable:
                pass
            except Exception:
                self._log.exception("bridge.fault")
            await self._clock.sleep(every_ms)

    async def _let_go(self) -> None:
        """Give back the jobs in hand; those that are just being ended have a moment to."""
        if ending := [task for job, task in self._in_hand.items() if job in self._settling]:
            await asyncio.wait(ending, timeout=END_S)
        jobs = list(self._in_hand)
        await _cancel(list(self._in_hand.values()))
        await asyncio.gather(*(self._jobs.give_back(job) for job in jobs), return_exceptions=True)

    async def _unless_stopping(self, waiting: Awaitable[object]) -> None:
        """Wait for something, or for the stop."""
        tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if tasks[0].done():
            tasks[0].result()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait for them, but not for ever: libraries have been seen to swallow a cancellation."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_S)


_data_decoder: Final = msgspec.json.Decoder(JobData)


def order_request(job: Job) -> OrderRequest:
    """Return the order in a job's data, under its own client order id or else the job's. Raise Denied."""
    try:
        data = _data_decoder.decode(job.data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"the job's data is not {{order: {{tokenIn, tokenOut, amount, slippage}}}}: {error}", field="order"
        ) from error
    request = wire.order_request(bytes(data.order))
    return request if request.client_order_id is not None else replace(request, client_order_id=job.client_order_id)


def why_not_filled(order: Order) -> str:
    """Return the end of an order that was not confirmed in one line: `code: message`."""
    if order.status is OrderStatus.FAILED and order.failure is not None:
        return f"{order.failure.code}: {order.failure.message}"
    reason = {OrderStatus.CANCELLED: "by request", OrderStatus.EXPIRED: "its time ran out"}[order.status]
    return f"{order.status}: {reason}"


def log_line(message: wire.Json) -> str:
    """Return an update as a line of a job's log."""
    data = message["data"]
    said = [str(data[name]) for name in ("selectedDex", "reason", "txHash", "outAmount") if data.get(name)]
    if error := data.get("error"):
        said.append(f"{error['code']}: {error['message']}")
    return f"{message['timestamp']} {message['status']}" + (f" ({', '.join(said)})" if said else "")


def _last_reported(job: Job, order_id: OrderId) -> int:
    """Return how far an earlier run of the job came."""
    progress: Any = job.progress
    if isinstance(progress, dict) and progress.get("orderId") == order_id and isinstance(progress.get("seq"), int):
        return int(progress["seq"])
    return 0
