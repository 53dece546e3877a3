"""What a Solana node tells unasked, over a WebSocket: that a signature has landed, and which slot it is.

A hint is a reason to look now instead of later, and nothing else: it may be lost, late, doubled or wrong, and the
connection may be gone. So `wait` returns nothing, and whoever waited asks the chain either way.

Methods and shapes: https://solana.com/docs/rpc/websocket (signatureSubscribe, slotSubscribe).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

import aiohttp
import msgspec
import structlog

from fillwright.chain.endpoint import label_of
from fillwright.core.units import Millis, Signature

BACKOFF_MIN_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0
CONNECT_S: Final = 10.0
SILENCE_S: Final = 30.0  # a slot takes 0.4 s: whoever says nothing for so long is gone
MESSAGE_BYTES_MAX: Final = 1024 * 1024
WATCHED_MAX: Final = 1_000
TOLD_MAX: Final = 10_000


class _Params(msgspec.Struct):
    subscription: int


class _Message(msgspec.Struct):
    """A notification, which has a method, or the answer to a call, which has an id."""

    id: int | None = None
    result: int | bool | None = None
    method: str = ""
    params: _Params | None = None


_messages: Final = msgspec.json.Decoder(_Message)


class Hints:
    """Listens at `url` while `run` runs; empty: not at all.

    `poll_ms` is the pace of those whom no news can reach. Up to `watched_max` signatures are listened for.
    """

    def __init__(
        self,
        url: str,
        poll_ms: Millis,
        watched_max: int = WATCHED_MAX,
        chance: Callable[[], float] = random.random,
        commitment: Literal["confirmed", "finalized"] = "finalized",
    ) -> None:
        self._url = url
        self._poll_ms = poll_ms
        self._commitment = commitment
        self._watched_max = watched_max
        self._chance = chance
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._ids = itertools.count(1)
        self._calls: dict[int, Signature] = {}  # not answered yet
        self._watched: OrderedDict[Signature, int | None] = OrderedDict()  # its subscription; None: not known yet
        self._subscriptions: dict[int, Signature] = {}
        self._waiting: dict[Signature, set[asyncio.Future[None]]] = {}
        self._told: OrderedDict[Signature, None] = OrderedDict()
        self._log = structlog.get_logger()

    @property
    def is_connected(self) -> bool:
        return self._socket is not None

    async def run(self) -> None:
        """Listen until cancelled, and connect again whenever the connection is lost."""
        if not self._url:
            return
        failures = 0
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
            while True:
                failures = 0 if await self._listen(session) else min(failures + 1, 10)
                backoff_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0**failures) * (1 + self._chance() / 10)
                await asyncio.sleep(backoff_s)

    async def wait(self, signature: Signature, span_ms: Millis) -> None:
        """Return when there is a reason to look at the chain: news of the signature, no more news, or the span is over.

        Where no news can come (there is no connection, or the news has come already) the span is `poll_ms` at most.
        """
        socket = self._socket
        has_room = len(self._watched) < self._watched_max or self._idle() is not None
        if socket is None or signature in self._told or not (has_room or signature in self._watched):
            await asyncio.sleep(min(span_ms, self._poll_ms) / 1000)
            return
        heard = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(signature, set()).add(heard)
        try:
            async with asyncio.timeout(span_ms / 1000):
                if signature not in self._watched:
                    await self._watch(socket, signature)
                self._watched.move_to_end(signature)
                await heard
        except TimeoutError:
            pass
        except (aiohttp.ClientError, OSError):
            self._lose()
        finally:
            waiting = self._waiting.get(signature, set())
            waiting.discard(heard)
            if not waiting:
                self._waiting.pop(signature, None)

    async def _listen(self, session: aiohttp.ClientSession) -> bool:
        """Connect, and hear what is told until that ends. Return whether anything was."""
        has_heard, reason = False, "closed"
        # What the library raises may hold the URL: it is told by class.
        try:
            async with asyncio.timeout(CONNECT_S):
                socket = await session.ws_connect(
                    self._url, max_msg_size=MESSAGE_BYTES_MAX, timeout=aiohttp.ClientWSTimeout(ws_close=1.0)
                )
            try:
                await socket.send_str(self._call("slotSubscribe", []))  # so that silence means something
                self._socket = socket
                self._log.info("hints.connected", endpoint=label_of(self._url))
                while (message := await socket.receive(SILENCE_S)).type is aiohttp.WSMsgType.TEXT:
                    has_heard = True
                    self._hear(message.data)
            finally:
                self._lose()
                await socket.close()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = type(error).__name__
        self._log.warning("hints.disconnected", endpoint=label_of(self._url), reason=reason)
        return has_heard

    def _hear(self, text: str) -> None:
        try:
            message = _messages.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return
        if message.method == "signatureNotification" and message.params is not None:
            signature = self._subscriptions.pop(message.params.subscription, None)
            if signature is not None:
                self._watched.pop(signature, None)
                self._told[signature] = None
                if len(self._told) > TOLD_MAX:
                    self._told.popitem(last=False)
                self._wake(signature)
        elif message.id is not None:
            signature = self._calls.pop(message.id, None)
            if signature is None or signature not in self._watched:
                return
            if type(message.result) is int:
                self._watched[signature] = message.result
                self._subscriptions[message.result] = signature
            else:  # refused: whoever waits next asks again
                del self._watched[signature]

    def _idle(self) -> Signature | None:
        """Return the signature that has not been waited for the longest, if there is one that nobody waits for."""
        return next((each for each in self._watched if each not in self._waiting), None)

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse, signature: Signature) -> None:
        """Subscribe to a signature, in place of an idle one if there are too many."""
        idle = self._idle() if len(self._watched) >= self._watched_max else None
        self._watched[signature] = None
        if idle is not None:
            subscription = self._watched.pop(idle)
            self._calls = {number: each for number, each in self._calls.items() if each != idle}
            if subscription is not None:
                self._subscriptions.pop(subscription, None)
                await socket.send_str(self._call("signatureUnsubscribe", [subscription]))
        call = self._call("signatureSubscribe", [signature, {"commitment": self._commitment}], signature)
        await socket.send_str(call)

    def _call(self, method: str, params: list[object], signature: Signature | None = None) -> str:
        number = next(self._ids)
        if signature is not None:
            self._calls[number] = signature
        return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).decode()

    def _lose(self) -> None:
        """Forget the connection, and let everybody who waits for it look for themselves."""
        self._socket = None
        self._calls.clear()
        self._watched.clear()
        self._subscriptions.clear()
        for signature in tuple(self._waiting):
            self._wake(signature)

    def _wake(self, signature: Signature) -> None:
        for heard in self._waiting.get(signature, ()):
            if not heard.done():
                heard.set_result(None)
