"""Requests that the engine makes itself, to addresses that its users name.

Whoever may name an address must not reach through the engine what only the engine can reach: the machine itself, the
network that it stands in, the host that hands out cloud credentials. What a name means is looked at when the connection
is made, for that very connection: a name cannot mean one thing when it is checked and another when it is used.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import aiohttp

from fillwright.api.webhooks import Undelivered
from fillwright.core.webhooks import is_private


class _Private(OSError):
    pass


class Outbound:
    """Posts to the addresses of others. `private` admits every address, and plain HTTP: for receivers next door."""

    def __init__(self, timeout_s: float, *, private: bool) -> None:
        self._private = private
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, socket_factory=self._socket),
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
