"""Where orders are kept and news travels: the scheme of a URL picks the class."""

from __future__ import annotations

from fillwright.backends.memory import MemoryBus, MemoryStore
from fillwright.backends.schema import read_scripts
from fillwright.backends.sqlite import SqliteStore, migrate_sqlite
from fillwright.core.errors import StoreUnavailable
from fillwright.core.ports import Bus, Clock, Listener, Store
from fillwright.core.units import Millis


async def open_store(
    url: str,
    *,
    clock: Clock,
    committed: Listener,
    capacity: int,
    lease_ms: Millis,
    starts_per_minute: int,
    threaded: bool = True,
    writers: int = 2,
    readers: int = 2,
    timeout_ms: Millis = 5_000,
    patience_ms: Millis = 5_000,
) -> Store:
    """Open the store that `url` names. Raise StoreUnavailable if it cannot be opened or the scheme is unknown.

    `threaded` is for SQLite; `writers`, `readers` (connections), `timeout_ms` and `patience_ms` are for PostgreSQL.
    """
    scheme, _, rest = url.partition("://")
    match scheme:
        case "sqlite":
            return SqliteStore(
                rest.removeprefix("/") or ":memory:",
                clock=clock,
                committed=committed,
                capacity=capacity,
                lease_ms=lease_ms,
                starts_per_minute=starts_per_minute,
                threaded=threaded,
            )
        case "memory":
            return MemoryStore(
                clock=clock,
                committed=committed,
                capacity=capacity,
                lease_ms=lease_ms,
                starts_per_minute=starts_per_minute,
            )
        case "postgresql" | "postgres":
            # Imported when it is asked for: who runs on SQLite does not carry the driver.
            from fillwright.backends.postgres import open_postgres
            from fillwright.backends.postgres_link import PostgresSettings

            return await open_postgres(
                url,
                clock=clock,
                committed=committed,
                capacity=capacity,
                lease_ms=lease_ms,
                starts_per_minute=starts_per_minute,
                settings=PostgresSettings(writers, readers, timeout_ms, patience_ms),
            )
        case _:
            raise StoreUnavailable(
                f"no store for {scheme!r}: DATABASE_URL must begin with sqlite:///, postgresql:// or memory://"
            )


async def migrate_store(url: str, *, change: bool) -> tuple[int, int]:
    """Bring the database's schema up to date if `change`. Return its version, and the one that it has or needs.

    Raise StoreUnavailable if the database cannot be had or changed, or its schema is newer than this version.
    """
    scheme, _, rest = url.partition("://")
    match scheme:
        case "postgresql" | "postgres":
            from fillwright.backends import postgres_schema
            from fillwright.backends.postgres_link import PostgresSettings

            if change:
                return await postgres_schema.migrate(url, PostgresSettings())
            return await postgres_schema.version(url, PostgresSettings()), len(read_scripts("postgres"))
        case "sqlite":
            return migrate_sqlite(rest.removeprefix("/"), change=change)
        case _:
            raise StoreUnavailable(f"there is nothing to migrate in {scheme}://")


def open_bus(url: str, local: MemoryBus, name: str) -> Bus:
    """Return the bus that joins this process, whose own news is on `local`, with all others of the same `name`.

    Without a `url` there are no others. Raise StoreUnavailable if the URL cannot be read.
    """
    if not url:
        return local
    from fillwright.backends.redis import RedisBus

    return RedisBus(url, local, name)
