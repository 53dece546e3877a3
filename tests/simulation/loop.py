"""An event loop that never waits, and whose choices are drawn from a seed.

Time jumps to the next timer when nothing can run. Of the tasks that could take a step, which one does so first is
drawn; plain callbacks keep their order, as asyncio promises it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Nothing can run and nothing ever will."""


class _NoSelector(selectors.SelectSelector):
    """Passes the time that the loop would have slept, and hears nobody."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck
        self.now += max(0.0, timeout)
        return []


_SteppedTask: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined] # whose steps can be told from other callbacks


class SeededLoop(asyncio.SelectorEventLoop):
    """`born` is called with every new task and the context that it runs in."""

    def __init__(self, seed: int, born: Callable[[asyncio.Task[Any], Context], None]) -> None:
        self._selector_of_time = _NoSelector()
        super().__init__(self._selector_of_time)
        self._chance = Random(f"{seed}/loop")
        self._born = born
        self._tasks = 0
        self.set_task_factory(self._make_task)  # type: ignore[arg-type] # it takes a coroutine, as ours do

    def time(self) -> float:
        return self._selector_of_time.now

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]:
        self._tasks += 1
        context = context or copy_context()
        task: asyncio.Task[T] = _SteppedTask(coroutine, loop=loop, context=context, name=f"{self._tasks:06}")
        self._born(task, context)
        return task

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined] # the loop's own queue
        if len(ready) > 1:
            handles = list(ready)
            places = [place for place, handle in enumerate(handles) if _is_step(handle)]
            if len(places) > 1:
                # In the order of their birth first: the order in which sets were gone through is not ours to know.
                steps = sorted((handles[place] for place in places), key=_name)
                self._chance.shuffle(steps)
                for place, step in zip(places, steps, strict=True):
                    handles[place] = step
                ready.clear()
                ready.extend(handles)
        super()._run_once()  # type: ignore[misc] # of BaseEventLoop


def _task(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """Return the task whose next step a handle is."""
    callback = handle._callback  # type: ignore[attr-defined] # what it will call
    owner = getattr(callback, "__self__", None)
    return owner if isinstance(owner, _SteppedTask) else None


def _is_step(handle: asyncio.Handle) -> bool:
    return _task(handle) is not None


def _name(handle: asyncio.Handle) -> str:
    task = _task(handle)
    assert task is not None
    return task.get_name()
