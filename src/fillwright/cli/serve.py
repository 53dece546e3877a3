"""`fillwright serve`."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable

import click

from fillwright import app
from fillwright.cli.exits import EXIT_CODES, Refused, settings_or_fail
from fillwright.core.errors import ChainUnavailable, StoreUnavailable
from fillwright.settings import Settings, env_name
from fillwright.telemetry import configure_logs


@click.command(epilog=EXIT_CODES)
@click.option("--host", metavar="ADDRESS", help="Address to listen on. Overrides HOST; 127.0.0.1 if neither is set.")
@click.option("--port", metavar="PORT", help="Port to listen on, 0 for any. Overrides PORT; 3000 if neither is set.")
@click.option(
    "--database-url",
    metavar="URL",
    help="Where orders are kept. Overrides DATABASE_URL; sqlite:///fillwright.db if neither is set.",
)
def command(**options: str | None) -> None:
    """Run the engine until it is told to stop.

    Settings are read from the environment and from .env in the working directory. Logs go to standard error, as
    JSON unless that is a terminal.
    """
    given = {env_name(name): value for name, value in options.items() if value is not None}
    settings = settings_or_fail({**os.environ, **given})
    configure_logs(settings.log_level, settings.log_format)
    listening = False

    def heard(_: int) -> None:
        nonlocal listening
        listening = True

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(app.serve(settings, heard))
    except (StoreUnavailable, ChainUnavailable) as error:
        if listening:
            raise
        raise Refused(str(error), error.code) from error
    except (OSError, sqlite3.Error) as error:
        if listening:
            raise
        raise Refused(_why_not(error, settings)) from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop


def _why_not(error: Exception, settings: Settings) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return f"port {settings.port} is already in use; set PORT or --port"
        case errno.EACCES if settings.port < 1024:
            return f"port {settings.port} may not be opened by this user; set PORT or --port"
        case _ if isinstance(error, OSError) and error.filename is None:
            return f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}; set HOST or --host"
        case _:
            return f"the engine cannot start: {error}"
