"""What operators have decided, as every process knows it.

It is read from the audit log again and again, and changed by appending to that. A process that cannot read the log does
not know whether it has been halted: what it knows goes stale after `FRESH_MS`, and then nothing is signed and no order
is taken until the log has been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from fillwright.core.control import Action, Control, Entry, Mode, entry, replay
from fillwright.core.errors import AuditBroken, StoreError, StoreUnavailable
from fillwright.core.ports import Clock, Store
from fillwright.core.units import Millis

LOOK_MS: Final[Millis] = 250
FRESH_MS: Final[Millis] = 900
LOOKS: Final = 3
TRIES: Final = 20
VERIFY_ENTRIES: Final = 50
VERIFY_S: Final = 10.0  # between two readings of the whole log: what was changed in it is noticed


class Gate:
    def __init__(self, store: Store, clock: Clock) -> None:
        self.known = Control()
        self._store = store
        self._clock = clock
        self._time: Callable[[], float] | None = None  # of the loop: unlike the clock, nobody sets it back
        self._stale_at = 0.0
        self._verify_at = 0.0
        self._look: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._log = structlog.get_logger()

    async def open(self) -> None:
        """Read the whole log, and go on reading it until `close`. Where it is broken, the gate stays closed."""
        try:
            await self.look()
        except AuditBroken as error:
            self._log.error("gate.unreadable", reason=str(error))
        self._tell(Mode.ACTIVE)
        self._looking = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def change(self, actor: str, change: Action | Callable[[Control], Action]) -> Entry:
        async with self._changing:
            for _ in range(TRIES):
                await self.look(verify=False)
                action = change(self.known) if callable(change) else change
                new = entry(self.known, self._clock.now_ms(), actor, action)
                if await self._store.add_audit(new):
                    await self.look(verify=False)
                    return new
        raise StoreUnavailable("others write into the audit log all the time, or its end has been lost: look at it")

    async def begin_at_the_end(self) -> None:
        """Take the last entry for what it says it is: what a log that is broken allows is to add to it."""
        entries = await self._store.audit_log()
        self.known = Control(seq=entries[-1].seq, head=entries[-1].hash) if entries else Control()

    async def entries(self, after: int = 0) -> list[Entry]:
        return await self._store.audit_log(after)

    async def verify(self, head: str = "") -> str:
        """Check the whole log, and that `head` is the hash of one of its entries, if given. Say what was found.

        Raise AuditBroken if it is not what was written.
        """
        entries = await self._store.audit_log()
        control = replay(entries)
        if head and head not in {entry.hash for entry in entries}:
            raise AuditBroken(f"the log has {len(entries)} entries, and none of them has the hash {head[:64]}")
        if not entries:
            return "The log is empty: no key was made and nothing halted, or all of it is gone."
        return f"{len(entries)} entries, each as it was written; the last hash is {control.head}"

    @property
    def current(self) -> Control | None:
        return self.known if self._time is not None and self._time() < self._stale_at else None

    async def control(self) -> Control:
        for _ in range(LOOKS):
            if (known := self.current) is not None:
                return known
            if self._look is None or self._look.done():  # one look for all who ask
                self._look = asyncio.create_task(self.look())
            await asyncio.shield(self._look)
        raise StoreUnavailable("the database answers too slowly to know whether the engine is halted")

    async def look(self, *, verify: bool = True) -> None:
        """Read on in the log; now and then, if `verify`, read all of it again."""
        if self._time is None:
            self._time = asyncio.get_running_loop().time
        asked_at = self._time()
        known = self.known
        if verify and asked_at >= self._verify_at:
            self._verify_at = asked_at + VERIFY_S
            await self._replay_all()
        # From the last entry known on: if it is not there as it was, the database has lost the end of its log.
        entries = await self._store.audit_log(max(0, known.seq - 1))
        if not known.seq or (entries and entries[0].hash == known.head):
            control = replay(entries[1:] if known.seq else entries, known)
        else:
            self._log.error("gate.log_changed", entries=known.seq)
            self.known = replay(await self._store.audit_log())  # what was known holds until then: no gate stands open
            self._stale_at = asked_at + FRESH_MS / 1000
            return
        if control.seq < self.known.seq:  # another look, begun later, was faster
            return
        self.known, self._stale_at = control, asked_at + FRESH_MS / 1000

    async def _replay_all(self) -> None:
        """Read the whole log, a little at a time: it may be long, and others wait."""
        entries, control = await self._store.audit_log(), Control()
        for at in range(0, len(entries), VERIFY_ENTRIES):
            control = replay(entries[at : at + VERIFY_ENTRIES], control)
            await asyncio.sleep(0)

    def _tell(self, before: Mode) -> None:
        if self.known.mode is not before:
            self._log.warning("gate.mode", mode=self.known.mode, before=before, reason=self.known.mode_reason)

    async def _keep_looking(self) -> None:
        is_readable = True
        while True:
            before = self.known.mode
            await self._clock.sleep(LOOK_MS)
            try:
                await self.look()
                self._tell(before)
                is_readable = True
            except StoreError as error:
                if is_readable:
                    self._log.error("gate.unreadable", reason=str(error))
                is_readable = False
            except Exception:
                self._log.exception("gate.fault")  # and go on: what is stale opens no gate
