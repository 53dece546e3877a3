"""An event loop on virtual time, so that an hour of retries takes a moment and no test ever sleeps.

`loop.time()` stands still while anything is ready to run and jumps to the next timer when nothing is. Sockets on the
loopback interface work as usual: before each jump the loop gives the kernel a moment to deliver what was written. So a
test can talk to the real server through real connections while its clock is ours.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from fillwright.core.units import Millis

T = TypeVar("T")

EPOCH_MS: Final = 1_800_000_000_000
DELIVERY_S: Final = 0.001
STUCK_S: Final = 20.0


class _Selector(selectors.DefaultSelector):
    """Passes the time that the loop would have slept."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        ready = super().select(DELIVERY_S if timeout is not None else STUCK_S)
        if not ready:
            if timeout is None:
                raise RuntimeError("nothing is ready, no timer is set and nobody writes: the test is stuck")
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


class VirtualClock:
    """The Clock port on a virtual loop. `skew_ms` moves the wall clock without moving the timers."""

    def __init__(self) -> None:
        self.skew_ms = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def now_ms(self) -> Millis:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # kept for the store's threads, which have none
        return EPOCH_MS + round(self._loop.time() * 1000) + self.skew_ms

    async def sleep(self, span_ms: Millis) -> None:
        await asyncio.sleep(span_ms / 1000)


class HandClock:
    """The Clock port where the world outside answers in real time: it stands still until somebody sleeps by it."""

    def __init__(self) -> None:
        self.skew_ms = 0
        self._slept_ms = 0

    def now_ms(self) -> Millis:
        return EPOCH_MS + self._slept_ms + self.skew_ms

    async def sleep(self, span_ms: Millis) -> None:
        self._slept_ms += span_ms
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a new virtual loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(test)


async def until(condition: Callable[[], bool], within_ms: Millis = 600_000) -> None:
    """Return once `condition` holds, looking every 50 virtual milliseconds; fail after `within_ms`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_ms / 1000
    while not condition():
        assert loop.time() < end, f"still not so after {within_ms} virtual ms"
        await asyncio.sleep(0.05)
