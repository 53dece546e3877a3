"""The past, then the present, in one numbering.

A follower subscribes first and reads the log second, so that nothing falls between the two; `seq` tells what it has
seen. News is only a hint: whatever does not follow on from the last `seq`, or does not come at all within the poll
interval, is read from the log. So a lost message, another process or a restarted bus costs time and never an event.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from fillwright.api import wire
from fillwright.core.errors import StoreUnavailable
from fillwright.core.lifecycle import TERMINAL, Recorded, Update, replay
from fillwright.core.ports import Bus, Clock, Store
from fillwright.core.units import Millis, OrderId

# News can be lost without anybody noticing: whoever had it died with it. So what came for all orders is counted against
# the log, over the last few seconds but for the very last moment, which is still being written.
WINDOW_MS: Final = 5_000
KEPT_MS: Final = 15_000  # old news may still come, from a Redis that stood still
MOMENT_MS: Final = 250
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


class Streams:
    """Hands the news of the bus to whoever follows an order, or all of them."""

    def __init__(self, store: Store, bus: Bus, clock: Clock, *, backlog_max: int, poll_ms: Millis) -> None:
        self._store = store
        self._clock = clock
        self._backlog_max = backlog_max
        self._poll_ms = poll_ms
        self._by_order: defaultdict[OrderId, set[Feed]] = defaultdict(set)
        self._everything: set[Feed] = set()
        self._heard: defaultdict[Millis, set[tuple[OrderId, int]]] = defaultdict(
            set
        )  # while somebody follows everything
        self._watching: asyncio.Task[None] | None = None
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
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield []
            while not feed.closed:
                yield await feed.next(self._poll_ms)
        finally:
            self._everything.discard(feed)
            if not self._everything and self._watching is not None:
                self._watching.cancel()
                self._watching = None
                self._heard.clear()

    def close(self) -> None:
        """End every stream: the process is going down."""
        self.stopped.set()
        for feed in [*self._everything, *(feed for feeds in self._by_order.values() for feed in feeds)]:
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

    async def _watch(self) -> None:
        """Look for news that did not come; in what nobody else writes there is none."""
        begun_ms = self._clock.now_ms()  # whoever follows everything does so from now on
        while self._store.is_shared:
            await self._clock.sleep(self._poll_ms)
            now_ms = self._clock.now_ms()
            from_ms, to_ms = max(begun_ms, now_ms - max(WINDOW_MS, 3 * self._poll_ms)), now_ms - MOMENT_MS
            for at_ms in [at_ms for at_ms in self._heard if at_ms < min(from_ms, now_ms - KEPT_MS)]:
                del self._heard[at_ms]
            try:
                there = await self._store.count_events(from_ms, to_ms)
                if there > sum(len(heard) for at_ms, heard in self._heard.items() if from_ms <= at_ms < to_ms):
                    self._hear(await self._store.changed(from_ms, ORDERS_MAX))
            except StoreUnavailable as error:
                structlog.get_logger().error("stream.look_failed", reason=str(error))

    def _wants(self, order_id: OrderId) -> bool:
        return bool(self._everything) or order_id in self._by_order

    def _hear(self, updates: Sequence[Update]) -> None:
        for update in updates:
            record = update.record
            everything = self._everything if self._everything and self._is_new(record) else ()
            feeds = self._by_order.get(record.order_id)
            if not feeds and not everything:
                continue
            try:
                message = _message(update)
            except Exception:  # one order's fault must not cost the others their news
                structlog.get_logger().exception("stream.fault", order=record.order_id)
                continue
            account = update.order.account
            for feed in (*(feeds or ()), *(feed for feed in everything if feed.account == account)):
                feed.offer(message)

    def _is_new(self, record: Recorded) -> bool:
        """Note what those who follow everything have been told, and return whether it is not told again."""
        if not self._store.is_shared:
            return True
        heard, key = self._heard[record.at_ms], (record.order_id, record.seq)
        if key in heard:
            return False
        heard.add(key)
        return True


def _message(update: Update) -> Message:
    record = update.record
    text = wire.encode(wire.update_message(update)).decode()
    return Message(record.order_id, record.seq, record.status in TERMINAL, text)
