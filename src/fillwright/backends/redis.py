"""News between processes, over Redis pub/sub. It holds no truth: it may lag, restart empty or be gone; nothing is lost.

What one process commits, the others hear in one envelope for each commit or for a few that follow each other closely.
The order after each event travels with it, packed; a receiver unpacks only what somebody in its process listens to.
Wake-ups for workers have a channel of their own, so that a process without streams need not hear everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from fillwright.backends import codec
from fillwright.backends.memory import MemoryBus, wakes
from fillwright.core.errors import StoreUnavailable
from fillwright.core.lifecycle import Recorded, Update
from fillwright.core.order import Order
from fillwright.core.ports import Listener, anything
from fillwright.core.units import Millis, OrderId

ENVELOPE_MAX: Final = 500
BACKLOG_MAX: Final = 20_000  # updates that wait to be sent; more are dropped, and the others read them from the log
ANSWER_S: Final = 1.5
COUNT_S: Final = 1.0
SILENCE_S: Final = 1.0  # after so long without a word from the server we ask whether it is still there
PAUSE_S: Final = 0.25
NOT_YET: Final = "not connected yet"


class Frame(msgspec.Struct, array_like=True, frozen=True):
    order_id: OrderId
    body: msgspec.Raw


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    sender: bytes
    frames: list[Frame]


class Body(msgspec.Struct, array_like=True, frozen=True):
    seq: int
    at_ms: Millis
    type: str
    data: str
    order: Order


_encoder: Final = msgspec.msgpack.Encoder()
_envelopes: Final = msgspec.msgpack.Decoder(Envelope)
_bodies: Final = msgspec.msgpack.Decoder(Body)


async def ask(url: str) -> None:
    """Return if a Redis answers there. Raise StoreUnavailable, which shows nothing of the URL."""
    try:
        async with Redis.from_url(url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S) as redis:
            await redis.ping()
    except (RedisError, OSError, ValueError) as error:  # what they say may quote the password
        raise StoreUnavailable(f"Redis does not answer: {type(error).__name__}") from None


class RedisBus:
    """Joins the news of this process, `local`, with that of all others that use the same `name`."""

    def __init__(self, url: str, local: MemoryBus, name: str) -> None:
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                # Once, and at once: a connection that lay idle may be one to a server that has been replaced since.
                retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),
            )
        except ValueError:  # its message may quote the password
            raise StoreUnavailable(
                "REDIS_URL cannot be read: it is not redis://user:password@host:port/number"
            ) from None
        self._local = local
        self._news_channel = f"fillwright:{name}:news"
        self._wake_channel = f"fillwright:{name}:wake"
        self._sender = os.urandom(8)
        self._listeners: list[tuple[Listener, Callable[[OrderId], bool]]] = []
        self._wake_listeners: list[Callable[[], None]] = []
        self._outgoing: list[Update] = []
        self._wake_others = False
        self._others: dict[str, bool] = {self._news_channel: True, self._wake_channel: True}
        self._counted_s = 0.0
        self._subscribed: frozenset[str] = frozenset()
        self._closing = False
        self._to_send = asyncio.Event()
        self._faults: dict[str, str] = {"sending": NOT_YET, "receiving": NOT_YET}
        self._tasks: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger()

    @property
    def fault(self) -> str | None:
        return next(iter(self._faults.values()), None)

    def start(self) -> None:
        self._local.subscribe(self._forward)
        self._tasks = [asyncio.create_task(self._keep_sending())]
        channels = [self._news_channel] if self._listeners else []
        channels += [self._wake_channel] if self._wake_listeners else []
        if channels:
            self._tasks.append(asyncio.create_task(self._keep_receiving(channels)))
        else:
            del self._faults["receiving"]

    async def close(self) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # bounded: `asyncio.wait_for`, which the client uses, can lose a cancellation on Python 3.11
            await asyncio.wait(self._tasks, timeout=ANSWER_S)
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    def publish(self, updates: Sequence[Update]) -> None:
        self._local.publish(updates)

    def subscribe(self, listener: Listener, wants: Callable[[OrderId], bool] = anything) -> Callable[[], None]:
        entry = (listener, wants)
        leave = self._local.subscribe(listener, wants)
        self._listeners.append(entry)

        def end() -> None:
            leave()
            self._listeners.remove(entry)

        return end

    def subscribe_wakes(self, listener: Callable[[], None]) -> Callable[[], None]:
        leave = self._local.subscribe_wakes(listener)
        self._wake_listeners.append(listener)

        def end() -> None:
            leave()
            self._wake_listeners.remove(listener)

        return end

    def _forward(self, updates: Sequence[Update]) -> None:
        if self._others[self._news_channel] and len(self._outgoing) < BACKLOG_MAX:
            self._outgoing.extend(updates)
        if self._others[self._wake_channel] and not self._wake_others:
            self._wake_others = wakes(updates)
        if self._outgoing or self._wake_others:
            self._to_send.set()

    async def _keep_sending(self) -> None:
        while not self._closing:
            try:
                while not self._closing:
                    await self._send()
                    self._well("sending")
            except Exception as error:  # whatever it is: a task that ends in silence would look like all is well
                self._ill("sending", error)
                self._outgoing.clear()  # by the time that it would arrive, everybody has read it from the log
                await asyncio.sleep(PAUSE_S)

    async def _send(self) -> None:
        """Send what has gathered; once a second, count who listens."""
        loop = asyncio.get_running_loop()
        if (wait_s := self._counted_s + COUNT_S - loop.time()) <= 0:
            await self._count_others()
            self._counted_s = loop.time()
        elif not self._to_send.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._to_send.wait()
        self._to_send.clear()
        updates, self._outgoing = self._outgoing, []
        wake_others, self._wake_others = self._wake_others, False
        pipeline = self._redis.pipeline(transaction=False)
        for at in range(0, len(updates), ENVELOPE_MAX):
            pipeline.publish(self._news_channel, self._pack(updates[at : at + ENVELOPE_MAX]))
        if wake_others:
            pipeline.publish(self._wake_channel, self._sender)
        if len(pipeline):
            await pipeline.execute()

    async def _count_others(self) -> None:
        """Learn whether anybody else listens: nobody need pack what nobody unpacks."""
        for channel, count in await self._redis.pubsub_numsub(self._news_channel, self._wake_channel):
            name = channel.decode() if isinstance(channel, bytes) else channel
            self._others[name] = count > (name in self._subscribed)

    def _pack(self, updates: Sequence[Update]) -> bytes:
        frames = []
        for update in updates:
            record = update.record
            name, data = codec.encode(record.event)
            body = _encoder.encode(Body(record.seq, record.at_ms, name, data, update.order))
            frames.append(Frame(record.order_id, msgspec.Raw(body)))
        return _encoder.encode(Envelope(self._sender, frames))

    async def _keep_receiving(self, channels: Sequence[str]) -> None:
        while not self._closing:
            pubsub = self._redis.pubsub()
            try:
                await pubsub.subscribe(*channels)
                self._subscribed = frozenset(channels)
                await self._receive(pubsub)
            except Exception as error:
                self._ill("receiving", error)
                await asyncio.sleep(PAUSE_S)
            finally:
                self._subscribed = frozenset()
                with contextlib.suppress(RedisError, OSError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call] # redis-py leaves it without types

    async def _receive(self, pubsub: PubSub) -> None:
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        while not self._closing:
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                silence_s = loop.time() - heard_s
                if silence_s > SILENCE_S + ANSWER_S:
                    raise TimeoutError(f"nothing heard for {silence_s:.1f} s")
                await pubsub.ping()
                continue
            heard_s = loop.time()
            self._well("receiving")
            if message["type"] == "message":
                self._hear(message["channel"].decode(), message["data"])

    def _hear(self, channel: str, data: bytes) -> None:
        if channel == self._wake_channel:
            if data != self._sender:
                for awake in tuple(self._wake_listeners):
                    awake()
            return
        try:
            envelope = _envelopes.decode(data)
            if envelope.sender == self._sender:
                return
            for listener, wants in tuple(self._listeners):
                wanted = [frame for frame in envelope.frames if wants(frame.order_id)]
                if wanted:
                    listener([_unpack(frame) for frame in wanted])
        except Exception:
            # From a newer version perhaps: those who wait for it find it in the log.
            self._log.exception("bus.unreadable")

    def _well(self, task: str) -> None:
        if self._faults.pop(task, None) is not None and not self._faults:
            self._log.info("bus.connected")

    def _ill(self, task: str, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if not self._faults or next(iter(self._faults.values())) == NOT_YET:
            effect = "news between processes comes by polling until Redis answers"
            self._log.warning("bus.unavailable", reason=reason, effect=effect)
        self._faults[task] = reason


def _unpack(frame: Frame) -> Update:
    body = _bodies.decode(frame.body)
    event = codec.decode(body.type, body.data)
    return Update(Recorded(frame.order_id, body.seq, body.at_ms, event), body.order)
