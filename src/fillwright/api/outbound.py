"""Requests that the engine makes itself, to addresses that its users name.

Whoever may name an address must not reach through the engine what only the engine can reach: the machine itself, the
network that it stands in, the host that hands out cloud credentials. What a name means is looked at when the connection
is made, for that very connection: a name cannot mean one thing when it is checked and another when it is used.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from fillwright.api.webhooks import Undelivered
from fillwright.core.webhooks import is_private

LOOKUPS: Final = 16


class _Private(OSError):
    pass


class _Resolver(AbstractResolver):
    """Looks names up on threads of its own: where one takes for ever, the engine's own look-ups do not wait for it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Outbound:
    """Posts to the addresses of others. `private` admits every address, and plain HTTP: for receivers next door."""

    def __init__(self, timeout_s: float, *, private: bool) -> None:
        self._private = private
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=self._socket, resolver=_Resolver()),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Return once somebody has taken the body, with a status from 200 to 299. Raise Undelivered if nobody did."""
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except TimeoutError as error:
            raise Undelivered("no answer in time") from error
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or str(error.os_error)
            raise Undelivered(f"cannot connect: {reason}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Undelivered(f"{type(error).__name__}: {str(error)[:200]}") from error
        if not 200 <= status < 300:
            raise Undelivered(f"the answer was {status}", is_final=status == 410)

    async def close(self) -> None:
        await self._session.close()

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._private and is_private(str(address[0])):
            raise _Private(f"{address[0]} is a private address; see FILLWRIGHT_WEBHOOK_PRIVATE")
        return socket.socket(family, kind, protocol)
