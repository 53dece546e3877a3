"""A load client: posts orders to any engine by its URL, and prints what it measured as one line of JSON.

It is a process of its own, so that its CPU is not the engine's, and it is cheap, because on a small machine every cycle
that it takes is one that the engine does not get: the request is bytes made once, an answer is read as far as its
status and length, and nothing is allocated per request but the latency.

    count      post a number of orders, wait until all are confirmed: what the engine does from end to end
    saturate   closed loop: each connection posts again as soon as it is answered: how many POSTs fit into a second
    rate       open loop: POSTs at fixed times, however long the answers take: how long a client waits for its answer
    stream     follow all orders over one WebSocket and post at a fixed rate: how old an event is when it arrives

A closed loop slows down together with the engine and so hides the waits that it causes. That is why latency is only
taken from the open loop, and counted from when a request was due, not from when it could be sent.

Whatever the mode, every POST must be answered with 201 and every order be confirmed, or the run fails: a fast engine
that drops orders is not a fast engine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any, Final, NoReturn, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

T = TypeVar("T")

BODY: Final = '{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5,"slippage":0.01}'
CREATED: Final = 201
STALL_S: Final = 20  # as long as nothing at all may happen before the run counts as failed
TERMINAL: Final = frozenset({"confirmed", "failed", "cancelled", "expired"})


class LoadFailed(Exception):
    """What was measured is not worth a number; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """`seconds` is from the first POST until the last order was seen confirmed, `posting_s` until the last answer."""

    orders: int
    seconds: float
    posting_s: float
    orders_per_s: float
    client_cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturated:
    """`unconfirmed` is how many orders the workers were behind when the posting ended."""

    orders: int
    seconds: float
    post_per_s: float
    unconfirmed: int
    client_cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """`lag_p99_ms` is how late this client was itself; the latencies contain it."""

    orders: int
    seconds: float
    post_p50_ms: float
    post_p99_ms: float
    post_max_ms: float
    lag_p99_ms: float
    client_cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """Ages at arrival. Timestamps are cut to whole milliseconds, so that each age is up to 1 ms too great."""

    orders: int
    events: int
    seconds: float
    stream_p50_ms: float
    stream_p99_ms: float
    stream_max_ms: float
    lag_p99_ms: float
    client_cpu: float


Report: TypeAlias = Counted | Saturated | Rated | Streamed


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    url: str
    connections: int
    orders: int
    seconds: float
    warm_up_s: float
    rate: float
    events: int
    path: str
    stats_path: str
    stream_path: str
    body: str
    key: str = ""

    def host_port(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        if parts.scheme != "http" or parts.hostname is None:
            raise LoadFailed(f"{self.url}: the engine's URL must begin with http:// and name a host")
        return parts.hostname, parts.port or 80

    def request(self, method: str, path: str, body: str = "") -> bytes:
        host, port = self.host_port()
        content = f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n" if body else ""
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        return f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{key}{content}\r\n{body}".encode()


async def count(client: Client, options: Options) -> Counted:
    """Measure orders, end to end."""
    before = await client.stats()
    watch = Watch()
    orders = await post_closed(client, lambda posted: posted < options.orders)
    posting_s = watch.seconds()
    await client.until_confirmed(before.completed + orders)
    seconds = watch.seconds()
    return Counted(
        orders=orders,
        seconds=seconds,
        posting_s=posting_s,
        orders_per_s=orders / seconds,
        client_cpu=watch.cpu(),
    )


async def saturate(client: Client, options: Options) -> Saturated:
    """Measure how many POSTs are answered in a second while the workers work."""
    before = await client.stats()
    watch = Watch()
    orders = await post_closed(client, lambda _: watch.seconds() < options.seconds)
    seconds, cpu = watch.seconds(), watch.cpu()
    goal = before.completed + orders
    unconfirmed = goal - (await client.stats()).completed
    await client.until_confirmed(goal)
    return Saturated(
        orders=orders,
        seconds=seconds,
        post_per_s=orders / seconds,
        unconfirmed=unconfirmed,
        client_cpu=cpu,
    )


async def rate(client: Client, options: Options) -> Rated:
    """Measure how long a client waits for the answer to its POST."""
    before = await client.stats()
    watch = Watch()
    posted = await post_open(client, options)
    seconds, cpu = watch.seconds(), watch.cpu()
    await client.until_confirmed(before.completed + posted.count)
    return Rated(
        orders=posted.count,
        seconds=seconds,
        post_p50_ms=percentile(posted.latencies, 50) * 1000,
        post_p99_ms=percentile(posted.latencies, 99) * 1000,
        post_max_ms=max(posted.latencies) * 1000,
        lag_p99_ms=percentile(posted.lags, 99) * 1000,
        client_cpu=cpu,
    )


async def stream(client: Client, options: Options) -> Streamed:
    """Measure how old an event is when the follower of all orders has it, and that none is missing or twice."""
    seen = Seen(client, order_count(options))
    follower = await Follower.open(client, seen.take)
    watch = Watch()
    seen.warm_at = time.time() + options.warm_up_s
    posted = await post_open(client, options)
    await client.until(seen.everything, lambda: f"{seen.missing} orders were not confirmed on the stream")
    seconds, cpu = watch.seconds(), watch.cpu()
    follower.close()
    check_gapless(seen.seqs, posted.order_ids, options.events)
    return Streamed(
        orders=posted.count,
        events=sum(map(len, seen.seqs.values())),
        seconds=seconds,
        stream_p50_ms=percentile(seen.ages, 50) * 1000,
        stream_p99_ms=percentile(seen.ages, 99) * 1000,
        stream_max_ms=max(seen.ages) * 1000,
        lag_p99_ms=percentile(posted.lags, 99) * 1000,
        client_cpu=cpu,
    )


def check_gapless(seqs: dict[str, list[int]], order_ids: Sequence[str], events: int) -> None:
    """Raise LoadFailed unless each order's events arrived as 1, 2, 3, ... and no others did."""
    expected = list(range(1, events + 1))
    broken = {order_id: seqs.get(order_id, []) for order_id in order_ids if seqs.get(order_id) != expected}
    if broken:
        order_id, arrived = next(iter(broken.items()))
        raise LoadFailed(f"{len(broken)} orders have gaps on the stream, such as {order_id}: {arrived}, not {expected}")
    if strangers := seqs.keys() - set(order_ids):
        raise LoadFailed(f"the stream tells of {len(strangers)} orders that nobody posted, such as {strangers.pop()}")


# Posting


async def post_closed(client: Client, more: Callable[[int], bool]) -> int:
    """Post on every connection, again at each answer, while `more(posted)`. Return how many were posted."""
    over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    posted = in_flight = 0

    def post(connection: Connection) -> None:
        nonlocal posted, in_flight
        if more(posted):
            posted += 1
            in_flight += 1
            connection.send(client.order, answered)
        elif in_flight == 0 and not over.done():
            over.set_result(posted)

    def answered(connection: Connection, status: int, body: bytes) -> None:
        nonlocal in_flight
        in_flight -= 1
        if client.is_created(status, body):
            post(connection)

    for connection in client.connections:
        post(connection)
    return await client.until(over, lambda: f"{in_flight} POSTs were not answered")


@dataclass(slots=True)
class Posted:
    """`lags` is how late the client came to each order; it is part of the latency."""

    count: int = 0
    latencies: array[float] = field(default_factory=lambda: array("d"))
    lags: array[float] = field(default_factory=lambda: array("d"))
    order_ids: list[str] = field(default_factory=list)


async def post_open(client: Client, options: Options) -> Posted:
    """Post at a fixed rate, whatever the answers take. Latencies count from when each order was due.

    A thread keeps the time, since an event loop's timers are as coarse as a millisecond, which is what we measure.
    """
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    posted = Posted()
    goal, warm = order_count(options), round(options.warm_up_s * options.rate)
    idle, waiting = deque(client.connections), deque[int]()
    start = time.perf_counter() + 0.05

    def come_due(number: int) -> None:
        posted.lags.append(time.perf_counter() - start - number / options.rate)
        if idle:
            post(idle.popleft(), number)
        else:
            waiting.append(number)

    def post(connection: Connection, number: int) -> None:
        connection.number = number
        connection.send(client.order, answered)

    def answered(connection: Connection, status: int, body: bytes) -> None:
        latency = time.perf_counter() - start - connection.number / options.rate
        if not client.is_created(status, body):
            return
        posted.count += 1
        posted.order_ids.append(created_decoder.decode(body).order_id)
        if connection.number >= warm:
            posted.latencies.append(latency)
        if waiting:
            post(connection, waiting.popleft())
        else:
            idle.append(connection)
        if posted.count == goal:
            over.set_result(None)

    def keep_time() -> None:
        for number in range(goal):
            wait_s = start + number / options.rate - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            if client.failure.done():
                return
            loop.call_soon_threadsafe(come_due, number)

    threading.Thread(target=keep_time, name="schedule", daemon=True).start()
    await client.until(over, lambda: f"{goal - posted.count} POSTs were not answered")
    return posted


def order_count(options: Options) -> int:
    return round((options.warm_up_s + options.seconds) * options.rate)


# HTTP


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight at most."""

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
        self._transport: asyncio.Transport | None = None
        self._kept = b""
        self._answered: Answered | None = None
        self.number = 0

    def send(self, request: bytes, answered: Answered) -> None:
        if self._transport is None or self._answered is not None:
            self._fail("a connection is closed or busy that should be idle")
            return
        self._answered = answered
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        if self._kept:
            data = self._kept + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0:
            self._kept = data
            return
        at = data.find(b"content-length:", 0, head_end)
        if at < 0:
            at = data[:head_end].lower().find(b"content-length:")
        if at < 0 or self._answered is None:
            self._fail(f"not an answer that this client reads: {data[:200]!r}")
            return
        end = head_end + 4 + int(data[at + 15 : data.find(b"\r\n", at)])
        if len(data) < end:
            self._kept = data
            return
        self._kept = b""
        answered, self._answered = self._answered, None
        answered(self, int(data[9:12]), data[head_end + 4 : end])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answered is not None:
            self._fail(f"the engine closed a connection instead of answering: {exc or 'end of file'}")


Answered: TypeAlias = Callable[[Connection, int, bytes], None]


class Client:
    """The connections to one engine, and the first thing that went wrong with any of them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.order = options.request("POST", options.path, options.body)
        self.connections: list[Connection] = []
        self.failure: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self.progress = 0
        self._ask_stats = options.request("GET", options.stats_path)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.fail(f"{context['message']}: {context.get('exception')!r}"))
        for _ in range(self.options.connections):
            _, connection = await loop.create_connection(lambda: Connection(self.fail), *self.options.host_port())
            self.connections.append(connection)

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def fail(self, message: str) -> None:
        if not self.failure.done():
            self.failure.set_exception(LoadFailed(message))

    def is_created(self, status: int, body: bytes) -> bool:
        self.progress += 1
        if status != CREATED:
            self.fail(f"a POST was answered with {status}, not {CREATED}: {body[:300].decode(errors='replace')}")
        return status == CREATED

    async def until(self, over: asyncio.Future[T], missing: Callable[[], str]) -> T:
        """Return what `over` brings. Raise LoadFailed at a failure, or once nothing happens any more."""
        while True:
            if self.failure.done():
                self.failure.result()
            if over.done():
                return over.result()
            progress = self.progress
            either: set[asyncio.Future[Any]] = {over, self.failure}
            done, _ = await asyncio.wait(either, timeout=STALL_S, return_when=asyncio.FIRST_COMPLETED)
            if not done and self.progress == progress:
                raise LoadFailed(f"{missing()}, and nothing happened for {STALL_S} s")

    async def stats(self) -> Queue:
        over: asyncio.Future[Queue] = asyncio.get_running_loop().create_future()

        def answered(_: Connection, status: int, body: bytes) -> None:
            if status == 200:
                over.set_result(stats_decoder.decode(body).queue)
            else:
                self.fail(f"GET {self.options.stats_path} was answered with {status}: {body[:300]!r}")

        self.connections[0].send(self._ask_stats, answered)
        return await self.until(over, lambda: f"GET {self.options.stats_path} was not answered")

    async def until_confirmed(self, goal: int) -> None:
        """Poll until that many orders are confirmed, more seldom the longer it takes: the answers cost CPU, too."""
        watch = Watch()
        completed, changed_s = -1, 0.0
        while (queue := await self.stats()).completed < goal:
            if queue.failed:
                raise LoadFailed(f"{queue.failed} orders failed")
            if queue.completed != completed:
                completed, changed_s = queue.completed, watch.seconds()
            elif watch.seconds() - changed_s > STALL_S:
                raise LoadFailed(f"{goal - completed} orders are not confirmed, and nothing happened for {STALL_S} s")
            await asyncio.sleep(max(0.01, watch.seconds() / 100))
        if queue.completed > goal:
            raise LoadFailed(f"{queue.completed} orders are confirmed where {goal} were posted: who else is posting?")


class Queue(msgspec.Struct):
    completed: int
    failed: int


class Stats(msgspec.Struct):
    queue: Queue


class Created(msgspec.Struct, rename="camel"):
    order_id: str


stats_decoder: Final = msgspec.json.Decoder(Stats)
created_decoder: Final = msgspec.json.Decoder(Created)


# The stream


class Message(msgspec.Struct, rename="camel"):
    event: str
    timestamp: str
    order_id: str = ""
    seq: int = 0
    status: str = ""


class Seen:
    """What the follower saw; `everything` is done once all the orders are over. Before `warm_at`, ages do not count."""

    def __init__(self, client: Client, orders: int) -> None:
        self._client = client
        self._decoder = msgspec.json.Decoder(Message)
        self.missing = orders
        self.everything: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.warm_at = 0.0
        self.ages = array("d")
        self.seqs: dict[str, list[int]] = {}

    def take(self, at: float, data: bytes) -> None:
        message = self._decoder.decode(data)
        if message.event != "order:update":
            return
        self._client.progress += 1
        self.seqs.setdefault(message.order_id, []).append(message.seq)
        if at >= self.warm_at:
            self.ages.append(at - datetime.fromisoformat(message.timestamp).timestamp())
        if message.status not in TERMINAL:
            return
        if message.status != "confirmed":
            self._client.fail(f"{message.order_id} is {message.status}")
        self.missing -= 1
        if self.missing == 0:
            self.everything.set_result(None)


class Follower(asyncio.Protocol):
    """A WebSocket that only listens. A message's arrival is when its bytes were read, before they are parsed."""

    def __init__(self, url: str, fail: Callable[[str], None], take: Callable[[float, bytes], None]) -> None:
        self._fail = fail
        self._take = take
        self._websocket = ClientProtocol(parse_uri(url))
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, client: Client, take: Callable[[float, bytes], None]) -> Follower:
        """Return a follower that has had its first message, which says that it is following."""
        options = client.options
        follower = cls(f"ws{options.url.removeprefix('http')}{options.stream_path}", client.fail, take)
        await asyncio.get_running_loop().create_connection(lambda: follower, *options.host_port())
        await client.until(follower.established, lambda: "the WebSocket was not established")
        return follower

    def close(self) -> None:
        self._closing = True
        self._websocket.send_close()
        self._flush()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._websocket.send_request(self._websocket.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        at = time.time()
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT and event.fin:
                self._take(at, bytes(event.data))
                if not self.established.done():
                    self.established.set_result(None)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            websocket = self._websocket
            websocket.receive_eof()
            reason = websocket.handshake_exc or (websocket.close_exc if websocket.state is State.CLOSED else exc)
            self._fail(f"the WebSocket ended: {reason}")

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._websocket.data_to_send():
            if data:
                self._transport.write(data)


# The command


class Watch:
    """How long something took, and how much of a core this process used meanwhile."""

    def __init__(self) -> None:
        self._at = time.perf_counter()
        self._cpu = time.process_time()

    def seconds(self) -> float:
        return time.perf_counter() - self._at

    def cpu(self) -> float:
        return (time.process_time() - self._cpu) / self.seconds()


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that at least `percent` of them do not exceed."""
    return sorted(values)[ceil(len(values) * percent / 100) - 1]


MODES: Final[dict[str, Callable[[Client, Options], Awaitable[Report]]]] = {
    "count": count,
    "saturate": saturate,
    "rate": rate,
    "stream": stream,
}


async def run(mode: str, options: Options) -> Report:
    client = Client(options)
    try:
        await client.open()
        return await MODES[mode](client, options)
    finally:
        client.close()


def read_options(arguments: Sequence[str] | None) -> tuple[str, Options]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Post orders; print what it took.")
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--url", required=True, help="such as http://127.0.0.1:3000")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--orders", type=int, default=20_000, help="count: how many to post")
    parser.add_argument("--seconds", type=float, default=15, help="the other modes: how long to measure")
    parser.add_argument("--warm-up-s", type=float, default=2, help="rate, stream: posted before, not measured")
    parser.add_argument("--rate", type=float, default=300, help="rate, stream: orders per second")
    parser.add_argument("--events", type=int, default=5, help="stream: how many each order has")
    parser.add_argument("--path", default="/api/orders/execute")
    parser.add_argument("--stats-path", default="/api/orders/stats")
    parser.add_argument("--stream-path", default="/api/stream")
    parser.add_argument("--body", default=BODY)
    parser.add_argument("--key", default="", help="the API key to show")
    values = vars(parser.parse_args(arguments))
    return values.pop("mode"), Options(**values)


def main(arguments: Sequence[str] | None = None) -> int:
    mode, options = read_options(arguments)
    gc.freeze()
    gc.disable()  # a pause of ours would be measured as the engine's
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            report = runner.run(run(mode, options))
    except (LoadFailed, OSError, msgspec.MsgspecError) as error:
        print(f"{mode}: {error}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(report).decode())
    return 0


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    sys.exit(main())
