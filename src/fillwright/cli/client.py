"""A running engine, as the commands reach it: over HTTP and WebSocket, by its URL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from fillwright.cli.exits import Refused, Unreachable
from fillwright.core.lifecycle import TERMINAL

Json = dict[str, Any]

CONNECT_S: Final = 5
ANSWER_S: Final = 30
HEARTBEAT_S: Final = 20
RECONNECT_S: Final = 60
RECONNECT_DELAY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine said: as it was sent, and as it is read."""

    text: str
    body: Json
    status: int = 200


class RemoteEngine:
    """Every method raises Unreachable if the engine does not answer, and Refused if it says no."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/")
        self._session = session

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        return await self._ask("GET", path, query=query)

    async def post(self, path: str, body: Json) -> Answer:
        return await self._ask("POST", path, body=body)

    async def delete(self, path: str) -> Answer:
        return await self._ask("DELETE", path)

    async def follow(
        self, order_id: str, after: int = 0, *, websocket: str = "", cut: Callable[[], None] = lambda: None
    ) -> AsyncIterator[Answer]:
        """Yield the messages of an order's stream, those of events above `after`, and end after the last event.

        `websocket` is the stream's URL, where the engine has named it. A connection that is cut is taken up again
        after the last event seen; `cut` is called each time that happens. Raise Unreachable if it takes too long.
        """
        stream = URL(websocket or f"{self.url}/api/orders/{order_id}/stream")
        lost_at = 0.0
        while True:
            try:
                async with self._session.ws_connect(
                    stream.update_query(after=str(after)), heartbeat=HEARTBEAT_S
                ) as socket:
                    message = Answer("", {})
                    async for frame in socket:
                        if frame.type is aiohttp.WSMsgType.TEXT:
                            message = Answer(frame.data, json.loads(frame.data))
                            after = message.body.get("seq", after)
                            yield message
                if _is_over(message, socket.close_code):
                    return
                lost_at = time.monotonic()
                cut()
            except aiohttp.WSServerHandshakeError as error:
                await self.get(f"/api/orders/{order_id}")  # the answer to a handshake does not say why; this one may
                raise self._unreachable(f"it refuses the stream with HTTP {error.status}") from error
            except (aiohttp.ClientError, TimeoutError) as error:
                if not lost_at:
                    raise self._unreachable(_why(error)) from error
            if time.monotonic() - lost_at > RECONNECT_S:
                raise self._unreachable(f"it did not come back within {RECONNECT_S} s")
            await asyncio.sleep(RECONNECT_DELAY_S)

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Answer:
        try:
            async with self._session.request(method, self.url + path, params=query, json=body) as response:
                text = await response.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(_why(error)) from error
        return self._read(text, response.status)

    def _read(self, text: str, status: int) -> Answer:
        try:
            answer = Answer(text, json.loads(text), status)
            if status >= 400:
                raise Refused(answer.body["message"], answer.body["code"], answer.body)
        except (ValueError, TypeError, KeyError):
            raise self._unreachable(f"something else answers there, with HTTP {status}") from None
        return answer

    def _unreachable(self, why: str) -> Unreachable:
        hint = "start one with `fillwright serve`, or name another with --url"
        return Unreachable(f"no engine at {self.url}: {why}; {hint}", "unreachable")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_S} s"
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno:
        return os.strerror(error.errno).lower() if error.errno > 0 else "the name of the host is not known"
    return str(error)


def _is_over(last: Answer, close_code: int | None) -> bool:
    """Tell whether the order is over. A terminal status in the greeting alone may have its events still to come."""
    over = last.body.get("status") in TERMINAL
    return over and ("seq" in last.body or close_code == aiohttp.WSCloseCode.OK)


@contextlib.asynccontextmanager
async def connect(url: str, key: str = "") -> AsyncIterator[RemoteEngine]:
    """Yield the engine at `url`. Nothing is sent before it is asked something."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
    connector = aiohttp.TCPConnector(limit=0)  # every stream that is followed holds one
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session:
        yield RemoteEngine(url, session)
