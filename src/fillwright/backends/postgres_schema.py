"""The schema of the PostgreSQL store: numbered files, each applied once, in a transaction of its own.

Processes of the version before go on while a file is applied, so a file only adds, and waits for no long lock. A
version that finds a schema newer than its own does not start.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from fillwright.backends.postgres_link import (
    ANSWER_S,
    NOT_NOW,
    SCHEMA,
    UNKNOWN,
    Connection,
    PostgresSettings,
    connect,
    place,
    reason,
)
from fillwright.backends.schema import read_scripts
from fillwright.core.errors import StoreUnavailable

UNREADABLE: Final = (
    "DATABASE_URL cannot be read: write postgresql://user:password@host:port/database,"
    " with %40 for @, %2F for / and %23 for # in the password"
)
WAIT_MS: Final = 60_000  # for another process that migrates
LOCK_MS: Final = 5_000  # an ALTER TABLE that waits keeps everybody else waiting behind it: better to try again later


async def migrate(url: str, settings: PostgresSettings) -> tuple[int, int]:
    """Bring the schema up to date. Return its version before and after.

    Raise StoreUnavailable if the database cannot be had or changed, or its schema is newer than this version.
    """
    known = read_scripts("postgres")
    connection = await _open(url, settings, patiently=True)
    try:
        before = await _version(connection)
        if before < len(known):
            await _apply(connection, known)
        after = await _version(connection)
    except (asyncpg.PostgresError, *UNKNOWN, *NOT_NOW) as error:
        raise StoreUnavailable(f"cannot bring the database up to date: {reason(error)}") from error
    finally:
        await _close(connection)
    if after > len(known):
        raise StoreUnavailable(
            f"the database has schema {after}, but this version knows only {len(known)}: upgrade fillwright"
        )
    return before, after


async def version(url: str, settings: PostgresSettings) -> int:
    """Return the schema's version, 0 if there is none. Raise StoreUnavailable if the database cannot be had."""
    connection = await _open(url, settings, patiently=False)
    try:
        return await _version(connection)
    except (asyncpg.PostgresError, *UNKNOWN, *NOT_NOW) as error:
        raise StoreUnavailable(f"cannot read the database: {reason(error)}") from error
    finally:
        await _close(connection)


async def _open(url: str, settings: PostgresSettings, *, patiently: bool) -> Connection:
    try:
        return await connect(url, settings, patiently=patiently)
    except ValueError:  # its message may quote the password
        raise StoreUnavailable(UNREADABLE) from None
    except (asyncpg.PostgresError, *UNKNOWN, *NOT_NOW) as error:
        raise StoreUnavailable(f"cannot open the database {place(url)}: {reason(error)}") from error


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=ANSWER_S)
    except (asyncpg.PostgresError, *UNKNOWN):
        connection.terminate()


async def _apply(connection: Connection, known: list[str]) -> None:
    # Of processes that start together one migrates, the others wait and find it done: in transactions that begin after
    # the wait, for one that began before it may still hold that the tables are not there.
    await connection.execute(f"SET lock_timeout = {WAIT_MS}")
    await connection.execute("SELECT pg_advisory_lock(hashtext('fillwright.schema'))")
    for number in range(1, len(known) + 1):
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
            if await _version(connection) != number - 1:
                continue
            if number == 1:
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                await connection.execute("CREATE TABLE schema_version (version integer NOT NULL)")
                await connection.execute("INSERT INTO schema_version VALUES (0)")
            await connection.execute(known[number - 1])
            await connection.execute("UPDATE schema_version SET version = $1", number)


async def _version(connection: Connection) -> int:
    if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.schema_version") is None:
        return 0
    return int(await connection.fetchval("SELECT version FROM schema_version"))
