"""Ask every venue at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import structlog

from fillwright.core.errors import ExecutionError, InternalError, VenueUnavailable
from fillwright.core.ports import Venue
from fillwright.core.routing import Answer, NoQuote, Quote, QuoteRequest
from fillwright.core.units import Millis


async def ask_all(venues: Sequence[Venue], request: QuoteRequest, deadline_ms: Millis) -> list[Answer]:
    """Return each venue's quotes, or why it gave none: one slow or broken venue must not cost the others' quotes."""
    answers: list[Answer] = []
    asked: dict[str, Coroutine[Any, Any, Quote | Sequence[Answer]]] = {}
    for venue in venues:
        try:
            answer = venue.quote(request)
        except Exception as error:
            answers.append(_why_none(venue.name, error))
            continue
        if isinstance(answer, Quote):
            answers.append(answer)
        else:
            asked[venue.name] = answer
    return [*answers, *await _wait_for(asked, deadline_ms)] if asked else answers


async def _wait_for(
    asked: Mapping[str, Coroutine[Any, Any, Quote | Sequence[Answer]]], deadline_ms: Millis
) -> list[Answer]:
    tasks = {name: asyncio.create_task(coroutine) for name, coroutine in asked.items()}
    try:
        await asyncio.wait(tasks.values(), timeout=deadline_ms / 1000)
        answers: list[Answer] = []
        for name, task in tasks.items():
            if not task.done():
                answers.append(NoQuote(name, VenueUnavailable(f"no quote within {deadline_ms} ms")))
            elif (error := task.exception()) is not None:
                answers.append(_why_none(name, error))
            elif isinstance(answer := task.result(), Quote):
                answers.append(answer)
            else:
                answers += answer
        return answers
    finally:
        for task in tasks.values():
            task.cancel()


def _why_none(venue: str, error: BaseException) -> NoQuote:
    if isinstance(error, ExecutionError):
        return NoQuote(venue, error)
    structlog.get_logger().error("venue.fault", venue=venue, exc_info=error)
    return NoQuote(venue, InternalError(f"{type(error).__name__}: {error}"))
