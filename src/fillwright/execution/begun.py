"""A coroutine that has been run up to where it first waits, if it waits at all.

What answers from memory is done then, and needs neither a deadline nor a turn of the loop. The rest is awaited in the
same task, which is why this may wrap anything that a plain `await` may.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Begun(Generic[T]):
    """Raises at once what the coroutine raises before it first waits."""

    __slots__ = ("_coroutine", "_waits_for", "is_done", "value")

    value: T

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self.is_done = False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration as end:
            self.value = end.value
            self.is_done = True

    def __await__(self) -> Generator[Any, Any, T]:
        if self.is_done:
            return self.value
        waits_for = self._waits_for
        while True:
            advance: Callable[[Any], Any]
            try:
                sent = yield waits_for
            except BaseException as error:
                advance, sent = self._coroutine.throw, error
            else:
                advance = self._coroutine.send
            try:
                waits_for = advance(sent)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return] # StopIteration does not tell its type
