"""`fillwright worker`."""

from __future__ import annotations

import os

import click

from fillwright import processes
from fillwright.cli.exits import EXIT_CODES, settings_or_fail
from fillwright.cli.running import end_with, run, shareable_or_fail
from fillwright.telemetry import configure_logs


@click.command(epilog=EXIT_CODES)
@click.option("--parent", type=int, hidden=True, help="The process to end with.")
def command(parent: int | None) -> None:
    """Execute orders that other processes take, until told to stop.

    Any number of workers may share a database. Each works on QUEUE_CONCURRENCY orders at the same time; the limit on
    orders begun in a minute, QUEUE_RATE_LIMIT, holds over all of them.
    """
    settings = settings_or_fail(os.environ)
    configure_logs(settings.log_level, settings.log_format)
    shareable_or_fail(settings)
    if parent is not None:
        end_with(parent)
    run(lambda working: processes.work(settings, working))
