"""Requests to one engine, asked again while that makes sense.

Everything the client asks may be asked twice: orders carry a client order id, and a cancelled order can be cancelled
again. So whenever an answer is lost, or is "not now", the request is repeated until the deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from fillwright.client.errors import ClientError, Refused, Unreachable
from fillwright.client.model import Json, Order, Update

KEY: Final = "FILLWRIGHT_API_KEY"
CONNECT_S: Final = 5.0
ANSWER_S: Final = 10.0
PAUSE_S: Final = 0.1
PAUSE_S_MAX: Final = 5.0
PAGE_SIZE: Final = 200
GATEWAY: Final = (502, 503, 504)  # a proxy that does not reach the engine just now
LOST: Final = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """`timeout_s` bounds a request with all its repetitions; `patience_s` is how long a followed engine may be away."""

    url: str
    api_key: str | None = field(repr=False)
    timeout_s: float
    patience_s: float


class Connection:
    """Every method raises Refused, or Unreachable."""

    def __init__(self, settings: ClientSettings) -> None:
        url = URL(settings.url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"{settings.url!r} must be like http://localhost:3000")
        self.url = settings.url.rstrip("/")
        self.patience_s = settings.patience_s
        self._timeout_s = settings.timeout_s
        key = os.environ.get(KEY, "") if settings.api_key is None else settings.api_key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, opened when it is first used: it belongs to the loop that runs then."""
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)  # every order that is followed holds one
            self._session = aiohttp.ClientSession(headers=self._headers, connector=connector)
        return self._session

    async def close(self) -> None:
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> tuple[int, Json]:
        """Return the status and body of the answer, asked for again while refusals pass and the deadline allows."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        for tries in count():
            try:
                return await self._ask_once(method, path, query, body, min(ANSWER_S, deadline - loop.time()))
            except ClientError as error:
                wait_s = pause_s(tries, error)
                if not error.is_passing or loop.time() + wait_s >= deadline:
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError

    async def orders(self, query: Mapping[str, str]) -> AsyncGenerator[Order, None]:
        """Yield the orders that fit, newest first, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            page = {"limit": str(PAGE_SIZE), **query, **({"cursor": cursor} if cursor else {})}
            _, body = await self.ask("GET", "/api/orders", page)
            for each in body["orders"]:
                yield Order.read(each)
            cursor = body["nextCursor"]

    async def events(self, order_id: str, after: int) -> tuple[Update, ...]:
        _, body = await self.ask("GET", f"{order_path(order_id)}/events", {"after": str(after)})
        return tuple(Update.read(each) for each in body["events"])

    def lost(self, error: Exception) -> Unreachable:
        """Return what it means that a request ended with a fault of the connection."""
        if isinstance(error, TimeoutError):
            why = "no answer in time"
        elif isinstance(error, OSError) and error.errno and error.errno > 0:
            why = os.strerror(error.errno).lower()
        else:
            why = str(error) or type(error).__name__
        return Unreachable(f"no engine at {self.url}: {why}")

    def refusal(self, status: int, text: str, headers: Mapping[str, str]) -> ClientError:
        """Return what an answer means that is not the one hoped for."""
        try:
            problem: Json = json.loads(text)
            wait = headers.get("Retry-After", "")
            wait_s = float(wait) if wait.isascii() and wait.isdecimal() else None
            return Refused(status, problem["code"], problem["detail"], problem.get("field"), wait_s)
        except (ValueError, TypeError, KeyError):
            why = f"no engine at {self.url}: something else answers there, with HTTP {status}"
            return Unreachable(why, is_passing=status in GATEWAY)

    async def _ask_once(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None, within_s: float
    ) -> tuple[int, Json]:
        timeout = aiohttp.ClientTimeout(total=within_s, sock_connect=CONNECT_S)
        try:
            async with self.session.request(
                method, self.url + path, params=query, json=body, timeout=timeout, allow_redirects=False
            ) as response:
                status, headers, text = response.status, response.headers, await response.text(errors="replace")
        except LOST as error:
            raise self.lost(error) from error
        if status >= 400:
            raise self.refusal(status, text, headers)
        try:
            return status, json.loads(text, parse_float=Decimal)
        except ValueError:
            raise self.refusal(status, text, headers) from None


def order_path(order_id: str) -> str:
    return f"/api/orders/{quote(order_id, safe='')}"


def pause_s(tries: int, error: ClientError | None = None) -> float:
    """Return how long to wait before the next try: as long as the engine asks, else twice as long each time."""
    if isinstance(error, Refused) and error.retry_after_s is not None:
        return error.retry_after_s * random.uniform(1, 1.2)
    return min(PAUSE_S_MAX, PAUSE_S * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1)
