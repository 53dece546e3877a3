"""`fillwright bullmq`."""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from fillwright import processes
from fillwright.cli.exits import EXIT_CODES, Misused, Unreachable, settings_or_fail
from fillwright.cli.running import run
from fillwright.settings import Settings, without_password
from fillwright.telemetry import configure_logs


@click.command(epilog=EXIT_CODES)
def command() -> None:
    """Take orders from a BullMQ queue until told to stop.

    The order of every job is submitted, told as the job's progress, and ends it: completed with the fill, or failed
    with the reason. Runs beside `fillwright serve` or `fillwright worker`, on the same DATABASE_URL. The queue is
    FILLWRIGHT_BULLMQ_QUEUE at REDIS_URL.
    """
    settings = settings_or_fail(os.environ)
    if not settings.redis_url:
        raise Misused("set REDIS_URL to the Redis that the queue is in", "invalid_settings")
    if not settings.bullmq_queue or ":" in settings.bullmq_queue:
        raise Misused("FILLWRIGHT_BULLMQ_QUEUE must name a queue; its name has no colon", "invalid_settings")
    if settings.database_url.startswith("memory://"):
        raise Misused("several processes need a database that they can share: set DATABASE_URL", "invalid_settings")
    configure_logs(settings.log_level, settings.log_format)
    run(lambda taking: _bridge(settings, taking))


async def _bridge(settings: Settings, taking: Callable[[], None]) -> None:
    try:
        await processes.bridge(settings, taking)
    except ConnectionError as error:
        at = without_password(settings.redis_url)
        raise Unreachable(f"there is no queue at {at}: {error}", "queue_unreachable") from error
