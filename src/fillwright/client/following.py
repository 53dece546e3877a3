"""Updates, each once and in turn, however often the connection is cut and the engine restarted.

An order's events are numbered, so one order is simply asked for from behind the last number seen. The stream of all
orders has no memory: it tells what happens from now on. After a cut, what it did not tell is read from the logs of the
orders that were open and of those that are new; the stream is opened first, so that nothing falls in between, and what
comes twice is known by its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import aiohttp

from fillwright.client.connection import ANSWER_S, CONNECT_S, GATEWAY, LOST, Connection, order_path, pause_s
from fillwright.client.errors import ClientError, Unreachable
from fillwright.client.model import Status, Update

SILENCE_S: Final = 30.0  # the engine says "still here" every second or so
HEARTBEAT_S: Final = 20.0
EVENT_STREAM: Final = "text/event-stream"
NO_CONTENT: Final = 204
# How late the stream of all orders may tell of something, beside what it tells of other orders.
LATE: Final = timedelta(seconds=30)
OVER_MAX: Final = 100_000
READ_AT_ONCE: Final = 16


class Patience:
    """How long the engine has been away, and how often it was looked for since."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lost_at: float | None = None
        self._tries = 0

    def heard(self) -> None:
        self._lost_at, self._tries = None, 0

    async def wait(self, error: ClientError) -> None:
        """Wait a moment before the next try. Raise `error` if it does not pass, or has not for too long."""
        now = asyncio.get_running_loop().time()
        self._lost_at = now if self._lost_at is None else self._lost_at
        wait_s = pause_s(self._tries, error)
        if not error.is_passing or now + wait_s - self._lost_at > self._connection.patience_s:
            raise error
        self._tries += 1
        await asyncio.sleep(wait_s)


async def follow_order(connection: Connection, order_id: str, after: int) -> AsyncGenerator[Update, None]:
    """Yield the updates of an order above `after`, old and new, and end with its last."""
    patience = Patience(connection)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    while True:
        headers = {"Accept": EVENT_STREAM, "Last-Event-ID": str(after)}
        path = f"{connection.url}{order_path(order_id)}/stream"
        try:
            async with connection.session.get(path, headers=headers, timeout=timeout, allow_redirects=False) as answer:
                if answer.status == NO_CONTENT:
                    return
                if answer.status != 200 or answer.content_type != EVENT_STREAM:
                    raise connection.refusal(answer.status, await answer.text(errors="replace"), answer.headers)
                async for line in answer.content:
                    patience.heard()
                    if not (line.startswith(b"data: ") and line.endswith(b"\n")):  # the last one may be half a line
                        continue
                    update = Update.read(json.loads(line.removeprefix(b"data: "), parse_float=Decimal))
                    if update.seq <= after:
                        continue
                    after = update.seq
                    yield update
                    if update.is_last:
                        return
            error: ClientError = Unreachable(f"the engine at {connection.url} has ended the stream")
        except ClientError as refusal:
            error = refusal
        except LOST as fault:
            error = connection.lost(fault)
        await patience.wait(error)


async def follow_all(connection: Connection) -> AsyncGenerator[Update, None]:
    """Yield the updates of all orders from now on, without an end."""
    patience, ledger = Patience(connection), Told()
    while True:
        try:
            if ledger.began_at is None:
                ledger.open = await _open_orders(connection)
            async with _stream(connection) as socket:
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        continue
                    body = json.loads(message.data, parse_float=Decimal)
                    patience.heard()
                    if body["event"] == "order:update":
                        for update in await ledger.due(connection, Update.read(body)):
                            yield update
                    elif ledger.began_at is None:
                        ledger.began_at = ledger.heard_at = datetime.fromisoformat(body["timestamp"])
                    else:
                        async for update in ledger.missed(connection):
                            yield update
            error: ClientError = Unreachable(f"the engine at {connection.url} has ended the stream")
        except ClientError as refusal:
            error = refusal
        except LOST as fault:
            error = connection.lost(fault)
        await patience.wait(error)


class Told:
    """What has been told of which order, since `began_at`.

    `open` are orders from before then, of which nothing has been told yet.
    """

    def __init__(self) -> None:
        self.began_at: datetime | None = None
        self.heard_at: datetime | None = None
        self.open: set[str] = set()
        self._seqs: dict[str, int] = {}
        self._over: dict[str, None] = {}

    async def due(self, connection: Connection, heard: Update) -> list[Update]:
        """Return what is to be told, now that the stream has told `heard`."""
        told = self._seqs.get(heard.order_id, 0)
        if heard.order_id in self._over or heard.seq <= told:
            return []
        if heard.seq == told + 1:
            return self._take([heard])
        events = [each for each in await connection.events(heard.order_id, told) if each.seq < heard.seq]
        return self._take([*self._since_beginning(events), heard])

    async def missed(self, connection: Connection) -> AsyncIterator[Update]:
        """Yield what happened while nobody told of it."""
        assert self.heard_at is not None
        since = self.heard_at - LATE
        known = {order.order_id: order.seq async for order in connection.orders({"from": since.isoformat()})}
        candidates = [
            order_id
            for order_id in sorted({*known, *self._seqs, *self.open})
            if order_id not in self._over
            and known.get(order_id, self._seqs.get(order_id, 0) + 1) > self._told(order_id)
        ]
        for start in range(0, len(candidates), READ_AT_ONCE):
            some = candidates[start : start + READ_AT_ONCE]
            logs = await asyncio.gather(*(connection.events(each, self._told(each)) for each in some))
            for order_id, events in zip(some, logs, strict=True):
                for update in self._take(self._since_beginning(events)):
                    yield update
                if events and events[-1].is_last:
                    self._end(order_id)

    def _told(self, order_id: str) -> int:
        return self._seqs.get(order_id, 0)

    def _since_beginning(self, events: Iterable[Update]) -> list[Update]:
        """Return those events that are not from before the following began, of an order that was there already."""
        assert self.began_at is not None
        return [each for each in events if each.order_id in self._seqs or each.at >= self.began_at]

    def _take(self, updates: list[Update]) -> list[Update]:
        for update in updates:
            assert self.heard_at is not None
            self._seqs[update.order_id] = update.seq
            self.heard_at = max(self.heard_at, update.at)
            self.open.discard(update.order_id)
            if update.is_last:
                self._end(update.order_id)
        return updates

    def _end(self, order_id: str) -> None:
        self._seqs.pop(order_id, None)
        self.open.discard(order_id)
        self._over[order_id] = None
        if len(self._over) > OVER_MAX:
            del self._over[next(iter(self._over))]


async def _open_orders(connection: Connection) -> set[str]:
    # Orders go on while they are looked for; `pending` twice, since a failed attempt leads back to it.
    statuses = [*(status for status in Status if not status.is_over), Status.PENDING]
    return {order.order_id for status in statuses async for order in connection.orders({"status": status})}


@contextlib.asynccontextmanager
async def _stream(connection: Connection) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    try:
        async with asyncio.timeout(ANSWER_S):
            socket = await connection.session.ws_connect(f"{connection.url}/api/stream", heartbeat=HEARTBEAT_S)
    except aiohttp.WSServerHandshakeError as error:
        # The answer to a handshake does not say why; this one may.
        await connection.ask("GET", "/api/orders", {"limit": "1"})
        why = f"the engine at {connection.url} refuses the stream with HTTP {error.status}"
        raise Unreachable(why, is_passing=error.status in (429, *GATEWAY)) from error
    async with socket:
        yield socket
