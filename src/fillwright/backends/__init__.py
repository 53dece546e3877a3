"""Where orders are kept and news travels: the scheme of a URL picks the class."""

from __future__ import annotations

from fillwright.backends.memory import MemoryBus, MemoryStore
from fillwright.backends.sqlite import SqliteStore
from fillwright.core.errors import StoreUnavailable
from fillwright.core.ports import Bus, Clock, Listener, Store
from fillwright.core.units import Millis


def open_store(
    url: str,
    *,
    clock: Clock,
    committed: Listener,
    capacity: int,
    lease_ms: Millis,
    starts_per_minute: int,
    threaded: bool = True,
) -> Store:
    """Open the store that `url` names. Raise StoreUnavailable if it cannot be opened or the scheme is unknown."""
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
        case _:
            raise StoreUnavailable(f"no store for {scheme!r}: DATABASE_URL must begin with sqlite:/// or memory://")


def open_bus() -> Bus:
    """Return the bus that joins the parts of one process."""
    return MemoryBus()
