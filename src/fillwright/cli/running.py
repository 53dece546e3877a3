"""How a command runs a part of the engine until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fillwright import processes
from fillwright.cli.exits import Misused, Refused
from fillwright.core.errors import (
    ChainUnavailable,
    Exposed,
    InvalidSnapshot,
    InvalidWallet,
    MissingExtra,
    MixedChains,
    StoreError,
    Uncapped,
    VenueUnavailable,
    WrongNetwork,
)
from fillwright.settings import Settings

PARENT_S: Final = 0.5
NO_START: Final = (
    StoreError,
    ChainUnavailable,
    VenueUnavailable,
    Exposed,
    InvalidSnapshot,
    InvalidWallet,
    MissingExtra,
    MixedChains,
    Uncapped,
    WrongNetwork,
)
"""Why an engine does not start, each with a sentence that says what to do."""


def run(part: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]) -> None:
    """Run a part to its end; it calls what it is given once it works. Raise Refused if it cannot start."""
    started = False

    def heard() -> None:
        nonlocal started
        started = True

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(part(heard))
    except NO_START as error:
        if started:
            raise
        raise Refused(str(error), error.code) from error
    except (OSError, sqlite3.Error) as error:
        if started:
            raise
        why = (isinstance(error, OSError) and error.strerror) or error
        raise Refused(f"the engine cannot start: {why}") from error


def shareable_or_fail(settings: Settings) -> None:
    """Raise Misused if the database is one that no other process can open."""
    if settings.database_url.startswith("memory://") or settings.ledger_path == ":memory:":
        raise Misused("several processes need a database that they can share: set DATABASE_URL", "invalid_settings")


def end_with(parent: int) -> None:
    """Stop this process when its parent is gone, which cannot tell it any more."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def address_or_fail(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens where the settings say. Raise Refused if it cannot be had."""
    try:
        return processes.listen(settings.host, settings.port, shared=shared)
    except OSError as error:
        raise Refused(_why_not(error, settings)) from error


def _why_not(error: OSError, settings: Settings) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {settings.port} is already in use; set PORT or --port"
        case errno.EACCES if settings.port < 1024:
            return f"port {settings.port} may not be opened by this user; set PORT or --port"
        case _:
            return f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}; set HOST or --host"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop
