"""A database that lost the end of its audit log: what was in force holds until it is known what is."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from fillwright.backends.sqlite import SqliteStore
from fillwright.core.control import Mode, ModeSet, Scope, new_key
from fillwright.core.ports import Clock
from fillwright.execution.gate import Gate
from tests.virtual import VirtualClock


class WatchedStore(SqliteStore):
    """Notes what a gate holds to be in force while it reads."""

    def watch(self, gate: Gate) -> None:
        self.seen: list[bool] = []
        self._gate = gate

    async def audit_log(self, after: int = 0, limit: int | None = None) -> list[Any]:
        if hasattr(self, "_gate"):
            self.seen.append(self._gate.known.demands_keys)
        return await super().audit_log(after, limit)


def a_store(path: Path, clock: Clock) -> WatchedStore:
    return WatchedStore(str(path), clock=clock, committed=lambda _: None, capacity=1, lease_ms=1_000, threaded=False)


async def test_a_lost_end_of_the_log_is_noticed_and_opens_no_gate_meanwhile(
    tmp_path: Path, clock: VirtualClock
) -> None:
    path = tmp_path / "orders.db"
    store = a_store(path, clock)
    gate = Gate(store, clock)
    key, _ = new_key("", "bot", frozenset({Scope.READ}), bytes(40))
    await gate.change("test", key)
    await gate.change("test", ModeSet(Mode.ACTIVE, "of this nobody will know"))
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM audit WHERE seq = 2")
    database.close()
    await Gate(store, clock).change("test", ModeSet(Mode.HALTED, ""))
    store.watch(gate)
    await gate.look(verify=False)
    assert (gate.known.mode, gate.known.demands_keys) == (Mode.HALTED, True)
    assert store.seen == [True, True]
    await store.close()
