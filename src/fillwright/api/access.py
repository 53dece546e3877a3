"""Who comes in, and what they may do.

Without keys, the engine listens on the loopback interface only, and whoever reaches it may do everything: that is the
machine's own user. What a browser on that machine sends for a web page is refused, by its `Origin` and its `Host`.
With keys, a request proves itself by one, and sees what belongs to its account. A browser cannot send a key when it
opens a WebSocket; it takes a ticket first, which opens one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection
from starlette.types import Scope as Connection

from fillwright.core.control import LOCAL_ACCOUNT, Control, Key, Scope, digest_of, find_key, new_ticket
from fillwright.core.errors import Forbidden, StoreError, TooManyRequests, Unauthorized
from fillwright.core.ports import Clock, Gate, Store
from fillwright.core.units import Millis

CALLER: Final = "fillwright.caller"  # in a request's scope
LOCAL_CALLER: Final = "local"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
CALLERS_MAX: Final = 1_024
TICKET_BYTES: Final = 32
TICKET_MS: Final[Millis] = 30_000
WINDOW_S: Final = 60


@dataclass(slots=True)
class Caller:
    """Whoever makes requests. `name` is how the audit log calls them."""

    name: str
    account: str
    scopes: frozenset[Scope]
    window: int = 0
    requests: int = 0

    @property
    def key_id(self) -> str:
        """The caller's key; empty while there are none."""
        return "" if self.name == LOCAL_CALLER else self.name

    def check(self, *needs: Scope) -> None:
        """Raise Forbidden if the caller has none of the scopes."""
        if not self.scopes.intersection(needs):
            raise Forbidden(f"this key may not do that: it lacks the scope {' or '.join(needs)}")


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """`origins` are those whose pages may open streams. `requests_per_minute` is for each key; 0 means no limit."""

    origins: frozenset[str] = frozenset()
    requests_per_minute: int = 0


class Access:
    def __init__(self, gate: Gate, store: Store, clock: Clock, settings: AccessSettings) -> None:
        self._gate = gate
        self._store = store
        self._clock = clock
        self._settings = settings
        self._hosts = frozenset(origin.partition("://")[2] for origin in settings.origins)
        self._local = Caller(LOCAL_CALLER, LOCAL_ACCOUNT, frozenset(Scope))
        self._control = Control()
        self._by_key: dict[str, Caller] = {}
        self._by_credentials: dict[bytes, Caller] = {}

    async def caller(self, connection: Connection, need: Scope | None) -> Caller:
        """Return who makes the request. Raise Unauthorized, Forbidden or TooManyRequests."""
        control = self._gate.current or await self._gate.control()
        if control is not self._control:
            self._control = control
            self._by_credentials.clear()
        credentials, origin, host = b"", b"", b""
        for name, value in connection["headers"]:
            if name == b"authorization":
                credentials = value
            elif name == b"origin":
                origin = value
            elif name == b"host":
                host = value
        if origin:
            self._check_origin(origin.decode("latin-1"), host.decode("latin-1"))
        if not control.demands_keys:
            self._check_host(host.decode("latin-1"))
            return self._local
        caller = self._by_credentials.get(credentials)
        if caller is None and not credentials and connection.get("type") == "websocket":
            caller = await self._with_ticket(connection["query_string"], control)
        elif caller is None:
            caller = self._with_key(credentials, control)
        self.count(caller)
        if need is not None:
            caller.check(need)
        return caller

    async def recheck(self, caller: Caller) -> None:
        """Return if a caller whose connection stays open may still use it. Raise Unauthorized if not."""
        try:
            control = self._gate.current or await self._gate.control()
        except StoreError:
            return  # while the database is away there is nothing to tell or take
        if caller is self._local:
            gone = control.demands_keys
        else:
            key = control.keys.get(caller.name)
            gone = key is None or key.is_revoked
        if gone:
            raise Unauthorized("the key was revoked")

    def count(self, caller: Caller) -> None:
        """Count one more request. Raise TooManyRequests."""
        if self._settings.requests_per_minute and caller is not self._local:
            self._count(caller)

    async def ticket(self, caller: Caller) -> tuple[str, Millis]:
        """Return what opens one stream for the caller, and until when."""
        text, digest = new_ticket(os.urandom(TICKET_BYTES))
        expires_at_ms = self._clock.now_ms() + TICKET_MS
        await self._store.add_ticket(digest, caller.name, expires_at_ms)
        return text, expires_at_ms

    def limits(self, caller: Caller) -> list[tuple[bytes, bytes]]:
        """Return the headers that tell a caller how many requests it has left."""
        quota = self._settings.requests_per_minute
        if not quota or caller is self._local:
            return []
        left, until = max(0, quota - caller.requests), WINDOW_S - self._clock.now_ms() // 1000 % WINDOW_S
        return [
            (b"ratelimit-policy", f'"key";q={quota};w={WINDOW_S}'.encode()),
            (b"ratelimit", f'"key";r={left};t={until}'.encode()),
        ]

    def _with_key(self, credentials: bytes, control: Control) -> Caller:
        scheme, _, text = credentials.decode("latin-1").partition(" ")
        key = find_key(control, text.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise Unauthorized("send a key that is valid, as Authorization: Bearer fw_...")
        if len(self._by_credentials) >= CALLERS_MAX:
            self._by_credentials.clear()
        caller = self._by_credentials[credentials] = self._of(key)
        return caller

    async def _with_ticket(self, query: bytes, control: Control) -> Caller:
        tickets = parse_qs(query.decode("latin-1")).get("ticket", [])
        key_id = await self._store.take_ticket(digest_of(tickets[0])) if len(tickets) == 1 else None
        key = control.keys.get(key_id) if key_id else None
        if key is None or key.is_revoked:
            raise Unauthorized("send a key as Authorization: Bearer fw_..., or a ticket that was not used, as ?ticket=")
        return self._of(key)

    def _of(self, key: Key) -> Caller:
        return self._by_key.setdefault(key.key_id, Caller(key.key_id, key.account, key.scopes))

    def _count(self, caller: Caller) -> None:
        now_s = self._clock.now_ms() // 1000
        if caller.window != now_s // WINDOW_S:
            caller.window, caller.requests = now_s // WINDOW_S, 0
        if caller.requests >= self._settings.requests_per_minute:
            wait_s = WINDOW_S - now_s % WINDOW_S
            raise TooManyRequests(
                f"this key may make {self._settings.requests_per_minute} requests a minute; go on in {wait_s} s",
                retry_after_s=wait_s,
            )
        caller.requests += 1

    def _check_origin(self, origin: str, host: str) -> None:
        """Refuse what a browser sends for a page of somebody else's: it may have been made to."""
        if origin.partition("://")[2] != host and origin not in self._settings.origins:
            raise Forbidden(f"pages of {origin[:100]!r} may not use this engine; see FILLWRIGHT_ORIGINS")

    def _check_host(self, host: str) -> None:
        """Refuse a name that is not this machine's own: a page can make its own name mean this machine."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name and name not in LOOPBACK and host not in self._hosts:
            raise Forbidden(f"without keys, this engine answers to localhost only, not to {name[:100]!r}")


def caller_of(connection: HTTPConnection) -> Caller:
    """Return who made a request that came through `Access`."""
    caller = connection.scope[CALLER]
    assert isinstance(caller, Caller)
    return caller
