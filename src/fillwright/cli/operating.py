"""What the commands of an operator have in common: they work on the database, whether or not an engine runs."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from fillwright.backends import open_store
from fillwright.cli.exits import Misused, Refused, settings_or_fail
from fillwright.clock import SystemClock
from fillwright.core.errors import AuditBroken, StoreUnavailable
from fillwright.core.ports import Store
from fillwright.execution.gate import Gate
from fillwright.settings import Settings

T = TypeVar("T")


def operate(work: Callable[[Gate], Awaitable[T]]) -> T:
    """Return what `work` makes of the gate of the database that is set. Raise Refused if it cannot be had."""

    async def run(settings: Settings) -> T:
        async with open_database(settings) as store:
            gate = Gate(store, SystemClock())
            await gate.look()
            return await work(gate)

    settings = settings_or_fail(os.environ)
    if settings.database_url.startswith("memory://"):
        raise Misused("memory:// ends with its engine: set DATABASE_URL to a database that is kept", "invalid_settings")
    try:
        return asyncio.run(run(settings))
    except (AuditBroken, StoreUnavailable) as error:
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


def operator() -> str:
    """Return who runs this command, as the audit log names them."""
    return f"command line, {getpass.getuser()}"
