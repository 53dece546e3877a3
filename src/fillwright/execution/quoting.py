"""Ask every venue at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import structlog

from fillwright.core.errors import ExecutionError, InternalError, VenueUnavailable
from fillwright.core.ports import Venue
from fillwright.core.routing import Quote, QuoteRequest
from fillwright.core.units import Millis


async def ask_all(
    venues: Sequence[Venue], request: QuoteRequest, deadline_ms: Millis
) -> dict[str, Quote | ExecutionError]:
    """Return each venue's quote, or why it gave none: one slow or broken venue must not cost the others' quotes."""
    answers: dict[str, Quote | ExecutionError] = {}
    asked: dict[str, Coroutine[Any, Any, Quote]] = {}
    for venue in venues:
        try:
            answer = venue.quote(request)
        except Exception as error:
            answers[venue.name] = _why_none(venue.name, error)
            continue
        if isinstance(answer, Quote):
            answers[venue.name] = answer
        else:
            asked[venue.name] = answer
    return {**answers, **await _wait_for(asked, deadline_ms)} if asked else answers


async def _wait_for(
    asked: Mapping[str, Coroutine[Any, Any, Quote]], deadline_ms: Millis
) -> dict[str, Quote | ExecutionError]:
    tasks = {name: asyncio.create_task(coroutine) for name, coroutine in asked.items()}
    try:
        await asyncio.wait(tasks.values(), timeout=deadline_ms / 1000)
        answers: dict[str, Quote | ExecutionError] = {}
        for name, task in tasks.items():
            if not task.done():
                answers[name] = VenueUnavailable(f"no quote within {deadline_ms} ms")
            elif (error := task.exception()) is not None:
                answers[name] = _why_none(name, error)
            else:
                answers[name] = task.result()
        return answers
    finally:
        for task in tasks.values():
            task.cancel()


def _why_none(venue: str, error: BaseException) -> ExecutionError:
    if isinstance(error, ExecutionError):
        return error
    structlog.get_logger().error("venue.fault", venue=venue, exc_info=error)
    return InternalError(f"{type(error).__name__}: {error}")
