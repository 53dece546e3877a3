"""The past, then the present, in one numbering.

A follower subscribes first and reads the log second, so that nothing falls between the two; `seq` tells what it has
seen. News is only a hint: whatever does not follow on from the last `seq`, or does not come at all within the poll
interval, is read from the log. So a lost message, another process or a restarted bus costs time and never an event.

Whoever follows all orders is told of each in its own order, too: what comes out of turn, from a process that was faster
than the one before it or past a message that was lost, waits until it is its turn.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from fillwright.api import wire
from fillwright.core.errors import StoreUnavailable
from fillwright.core.lifecycle import TERMINAL, Update, replay
from fillwright.core.ports import Bus, Clock, Store
from fillwright.core.units import Millis, OrderId

# News can be lost without anybody noticing: whoever had it died with it. So what came for all orders is counted against
# the log, over the last few seconds but for the very last moment, which is still being written.
WINDOW_MS: Final = 5_000
KEPT_MS: Final = 15_000  # old news may still come, from a Redis that stood still
MOMENT_MS: Final = 250
PAUSE_MS: Final = 10
ORDERS_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class Message:
    """An update, encoded once for all who listen."""

    order_id: OrderId
    seq: int
    is_last: bool
    text: str


class Feed:
    """One listener's backlog, bounded: past `backlog_max` messages it fails `overrun` rather than fill the memory."""

    def __init__(self, backlog_max: int, overrun: asyncio.Future[None], account: str = "") -> None:
        self.account = account
        self._backlog_max = backlog_max
        self._overrun = overrun
        self._messages: list[Message] = []
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False

    def offer(self, message: Message) -> None:
        if len(self._messages) < self._backlog_max:
            self._messages.append(message)
        elif not self._overrun.done():
            self._overrun.set_result(None)
        self._wake()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_behind(self) -> bool:
        return len(self._messages) > self._backlog_max // 2

    def close(self) -> None:
        self.closed = True
        self._wake()

    async def next(self, timeout_ms: Millis) -> list[Message]:
        """Return what has gathered; nothing after `timeout_ms` or once closed."""
        if not self._messages and not self.closed:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            alarm = loop.call_later(timeout_ms / 1000, self._wake)
            try:
                await self._waiter
            finally:
                alarm.cancel()
                self._waiter = None
        messages, self._messages = self._messages, []
        return messages

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Turns:
    """The news of all orders, each order's events once and in turn, for those who follow everything from `begun_ms` on.

    `heard` counts the events by their times. What is `early` waits for those before it; they come, or are in the log.
    """

    def __init__(self, begun_ms: Millis) -> None:
        self.begun_ms = begun_ms
        self.heard: defaultdict[Millis, int] = defaultdict(int)
        self.early: defaultdict[OrderId, dict[int, Update]] = defaultdict(dict)
        self._told: dict[OrderId, int] = {}
        self._over: defaultdict[Millis, list[OrderId]] = defaultdict(list)

    def hear(self, update: Update) -> list[Update]:
        """Return the updates whose turn it is, now that this one is known."""
        record = update.record
        early = self.early.get(record.order_id, ())
        if record.seq <= self._told.get(record.order_id, 0) or record.seq in early:
            return []
        self.heard[record.at_ms] += 1
        self.early[record.order_id][record.seq] = update
        return self._take(record.order_id)

    def read(self, order_id: OrderId, updates: Sequence[Update]) -> list[Update]:
        """Return the updates whose turn it is, now that an order's log is known."""
        due: list[Update] = []
        if order_id not in self._told:  # what was there before anybody followed is not told, unless it is news
            before = sum(update.record.at_ms < self.begun_ms for update in updates)
            self._told[order_id] = min(before, min(self.early[order_id]) - 1)
            due = self._take(order_id)
        return due + [told for update in updates for told in self.hear(update)]

    def _take(self, order_id: OrderId) -> list[Update]:
        early, told, due = self.early[order_id], self._told.get(order_id, 0), list[Update]()
        while (update := early.pop(told + 1, None)) is not None:
            due.append(update)
            told += 1
        if not early:
            del self.early[order_id]
        if due:
            self._told[order_id] = told
            if due[-1].record.status in TERMINAL:
                self._over[due[-1].record.at_ms].append(order_id)
        return due

    def forget(self, before_ms: Millis) -> None:
        """Let go of what is so old that nobody will bring it again."""
        for at_ms in [at_ms for at_ms in self.heard if at_ms < before_ms]:
            del self.heard[at_ms]
        for at_ms in [at_ms for at_ms in self._over if at_ms < before_ms]:
            for order_id in self._over.pop(at_ms):
                self._told.pop(order_id, None)


class Streams:
    """Hands the news of the bus to whoever follows an order, or all of them."""

    def __init__(self, store: Store, bus: Bus, clock: Clock, *, backlog_max: int, poll_ms: Millis) -> None:
        self._store = store
        self._clock = clock
        self._backlog_max = backlog_max
        self._poll_ms = poll_ms
        self._by_order: defaultdict[OrderId, set[Feed]] = defaultdict(set)
        self._everything: set[Feed] = set()
        self._turns: Turns | None = None  # while somebody follows everything, in a log that others write, too
        self._watching: asyncio.Task[None] | None = None
        self._filling: asyncio.Task[None] | None = None
        self._encoded: tuple[Update, Message] | None = None  # the last one: it may go to followers of both kinds
        self.stopped = asyncio.Event()
        self.connections = 0
        bus.subscribe(self._hear, self._wants)

    async def follow(
        self, order_id: OrderId, after: int, overrun: asyncio.Future[None]
    ) -> AsyncIterator[list[Message]]:
        """Yield the order's messages with a `seq` above `after`, old and new, and end after its last one.

        Yield an empty list where nothing happened for the poll interval. `overrun` is done once the follower is given
        up because it does not read.
        """
        feed = self._open(self._by_order[order_id], overrun)
        try:
            known = 0
            messages = await self._past(order_id, known)
            while True:
                known = messages[-1].seq if messages else known
                yield [message for message in messages if message.seq > after]
                if feed.closed or (messages and messages[-1].is_last):
                    return
                messages = [message for message in await feed.next(self._poll_ms) if message.seq > known]
                if [message.seq for message in messages] != list(range(known + 1, known + 1 + (len(messages) or 1))):
                    messages = await self._past(order_id, known)
        finally:
            feeds = self._by_order[order_id]
            feeds.discard(feed)
            if not feeds:
                del self._by_order[order_id]

    async def follow_all(self, overrun: asyncio.Future[None], account: str) -> AsyncIterator[list[Message]]:
        """Yield the messages of every order of an account from now on.

        Yield an empty list at first, and where nothing happened for a while.
        """
        feed = self._open(self._everything, overrun, account)
        if self._turns is None and self._store.is_shared:
            self._turns = Turns(self._clock.now_ms())
            self._watching = asyncio.create_task(self._watch(self._turns))
        try:
            yield []
            while not feed.closed:
                yield await feed.next(self._poll_ms)
        finally:
            self._everything.discard(feed)
            if not self._everything:
                for task in (self._watching, self._filling):
                    if task is not None:
                        task.cancel()
                self._turns = self._watching = self._filling = None

    def backlogs(self) -> Iterator[int]:
        """Yield how many messages wait for each follower, behind those that it is being sent."""
        return (len(feed) for feed in self._feeds())

    def _feeds(self) -> Iterator[Feed]:
        yield from self._everything
        for feeds in self._by_order.values():
            yield from feeds

    def close(self) -> None:
        """End every stream: the process is going down."""
        self.stopped.set()
        for feed in [*self._feeds()]:
            feed.close()

    def _open(self, feeds: set[Feed], overrun: asyncio.Future[None], account: str = "") -> Feed:
        feed = Feed(self._backlog_max, overrun, account)
        feeds.add(feed)
        if self.stopped.is_set():
            feed.close()
        return feed

    async def _past(self, order_id: OrderId, after: int) -> list[Message]:
        if after and not await self._store.history(order_id, after):
            return []
        records = await self._store.history(order_id)
        return [_message(update) for update in replay(records) if update.record.seq > after] if records else []

    async def _watch(self, turns: Turns) -> None:
        """Look for news that did not come."""
        looked_ms = turns.begun_ms
        while True:
            await self._clock.sleep(self._poll_ms)
            now_ms = self._clock.now_ms()
            # From before the last look that worked: what was being written then may have been written since.
            from_ms = max(turns.begun_ms, min(now_ms, looked_ms) - max(WINDOW_MS, 3 * self._poll_ms))
            to_ms = now_ms - MOMENT_MS
            turns.forget(min(from_ms, now_ms - KEPT_MS))
            try:
                there = await self._store.count_events(from_ms, to_ms)
                if there > sum(count for at_ms, count in turns.heard.items() if from_ms <= at_ms < to_ms):
                    for update in await self._store.changed(from_ms, ORDERS_MAX):
                        self._tell_all(turns.hear(update))
                        await self._let_read()
                    self._fill_later(turns)
                looked_ms = now_ms
            except StoreUnavailable as error:
                structlog.get_logger().error("stream.look_failed", reason=str(error))

    def _fill_later(self, turns: Turns) -> None:
        if turns.early and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill(turns))

    async def _fill(self, turns: Turns) -> None:
        """Read what is missing before the events that came early, unless it comes within a moment."""
        while turns.early:
            await self._clock.sleep(MOMENT_MS)
            for order_id in list(turns.early):
                if order_id not in turns.early:
                    continue  # what was missing has come
                try:
                    self._tell_all(turns.read(order_id, replay(await self._store.history(order_id))))
                except StoreUnavailable as error:
                    structlog.get_logger().error("stream.look_failed", reason=str(error))
                    await self._clock.sleep(self._poll_ms)
                    break
                except Exception:  # one order's fault must not cost the others their news
                    structlog.get_logger().exception("stream.fault", order=order_id)
                    turns.early.pop(order_id, None)
                await self._let_read()

    def _wants(self, order_id: OrderId) -> bool:
        return bool(self._everything) or order_id in self._by_order

    def _hear(self, updates: Sequence[Update]) -> None:
        for update in updates:
            self._tell(update, self._by_order.get(update.record.order_id))
            if self._everything:
                self._tell_all([update] if self._turns is None else self._turns.hear(update))
        if self._turns is not None:
            self._fill_later(self._turns)

    def _tell_all(self, updates: Sequence[Update]) -> None:
        for update in updates:
            self._tell(update, [feed for feed in self._everything if feed.account == update.order.account])

    async def _let_read(self) -> None:
        """Give those who follow everything a moment to take what was read for them: it is more than news is."""
        for _ in range(MOMENT_MS // PAUSE_MS):
            if not any(feed.is_behind for feed in self._everything):
                return
            await self._clock.sleep(PAUSE_MS)

    def _tell(self, update: Update, feeds: Collection[Feed] | None) -> None:
        if not feeds:
            return
        try:
            if self._encoded is None or self._encoded[0] is not update:
                self._encoded = update, _message(update)
        except Exception:  # one order's fault must not cost the others their news
            structlog.get_logger().exception("stream.fault", order=update.record.order_id)
            return
        for feed in feeds:
            feed.offer(self._encoded[1])


def _message(update: Update) -> Message:
    record = update.record
    text = wire.encode(wire.update_message(update)).decode()
    return Message(record.order_id, record.seq, record.status in TERMINAL, text)
