"""What the commands of an operator have in common: they work on the database, whether or not an engine runs."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from fillwright.backends import open_store
from fillwright.cli.exits import Misused, Refused, settings_or_fail
from fillwright.clock import SystemClock
from fillwright.core.errors import AuditBroken, StoreError
from fillwright.core.ports import Store
from fillwright.execution.gate import Gate
from fillwright.settings import Settings, sqlite_path, without_password

T = TypeVar("T")


def operate(work: Callable[[Gate, Store], Awaitable[T]], *, may_create: bool = False, in_any_state: bool = False) -> T:
    """Return what `work` makes of the database that is set, and of its gate. Raise Refused if it cannot be had.

    A database that is not there is made only if it `may_create` one: a halt of an empty one would halt nothing. Work
    that must be possible `in_any_state` of the audit log begins at its last entry, where it cannot be read as a whole.
    """

    async def run(settings: Settings) -> T:
        async with open_database(settings) as store:
            gate = Gate(store, SystemClock())
            try:
                await gate.look()
            except AuditBroken:
                if not in_any_state:
                    raise
                await gate.begin_at_the_end()
            return await work(gate, store)

    settings = settings_or_fail(os.environ)
    if settings.database_url.startswith("memory://"):
        raise Misused("memory:// ends with its engine: set DATABASE_URL to a database that is kept", "invalid_settings")
    if settings.database_url.startswith("sqlite:") and not may_create:
        database = Path(sqlite_path(settings.database_url))
        if not database.is_file():
            raise Refused(
                f"there is no database at {database.absolute()}; set DATABASE_URL to the engine's", "no_database"
            )
    try:
        return asyncio.run(run(settings))
    except StoreError as error:
        raise Refused(str(error), error.code) from error


@contextlib.asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Store]:
    store = await open_store(
        settings.database_url,
        clock=SystemClock(),
        committed=lambda _: None,
        capacity=settings.queue_capacity,
        lease_ms=settings.lease_ms,
        starts_per_minute=settings.queue_rate_limit,
    )
    try:
        yield store
    finally:
        await store.close()


def where() -> str:
    """Return which database a command works on, as it may be shown."""
    return without_password(settings_or_fail(os.environ).database_url)


def operator() -> str:
    """Return who runs this command, as the audit log names them."""
    return f"command line, {getpass.getuser()}"


def id_in(key: str) -> str:
    """Return a key's id, also where somebody gives the key itself: it must not be repeated."""
    return key.split("_")[1] if key.count("_") == 2 else key
