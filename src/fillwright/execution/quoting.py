"""Ask every venue at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from fillwright.core.errors import ExecutionError, InternalError, VenueUnavailable
from fillwright.core.ports import Venue
from fillwright.core.routing import Quote, QuoteRequest
from fillwright.core.units import Millis


async def ask_all(
    venues: Sequence[Venue], request: QuoteRequest, deadline_ms: Millis
) -> dict[str, Quote | ExecutionError]:
    """Return each venue's quote, or why it gave none: one slow or broken venue must not cost the others' quotes."""
    loop = asyncio.get_running_loop()
    tasks = {venue.name: loop.create_task(_ask(venue, request)) for venue in venues}
    all_done: asyncio.Future[None] = loop.create_future()
    open_tasks = len(tasks)

    def ended(_: asyncio.Task[Quote | ExecutionError]) -> None:
        nonlocal open_tasks
        open_tasks -= 1
        if open_tasks == 0:
            go_on()

    def go_on() -> None:
        if not all_done.done():
            all_done.set_result(None)

    for task in tasks.values():
        task.add_done_callback(ended)
    deadline = loop.call_later(deadline_ms / 1000, go_on)
    try:
        await all_done
        late = VenueUnavailable(f"no quote within {deadline_ms} ms")
        return {name: task.result() if task.done() else late for name, task in tasks.items()}
    finally:
        deadline.cancel()
        for task in tasks.values():
            task.cancel()


async def _ask(venue: Venue, request: QuoteRequest) -> Quote | ExecutionError:
    try:
        return await venue.quote(request)
    except ExecutionError as error:
        return error
    except Exception as error:
        structlog.get_logger().exception("venue.fault", venue=venue.name)
        return InternalError(f"{type(error).__name__}: {error}")
