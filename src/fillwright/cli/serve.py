"""`fillwright serve`."""

from __future__ import annotations

import os
import socket

import click

from fillwright import processes
from fillwright.cli.exits import EXIT_CODES, settings_or_fail
from fillwright.cli.running import address_or_fail, end_with, run, shareable_or_fail
from fillwright.settings import env_name
from fillwright.telemetry import configure_logs


@click.command(epilog=EXIT_CODES)
@click.option("--host", metavar="ADDRESS", help="Address to listen on. Overrides HOST; 127.0.0.1 if neither is set.")
@click.option("--port", metavar="PORT", help="Port to listen on, 0 for any. Overrides PORT; 3000 if neither is set.")
@click.option(
    "--database-url",
    metavar="URL",
    help="Where orders are kept. Overrides DATABASE_URL; sqlite:///fillwright.db if neither is set.",
)
@click.option("--api-only", is_flag=True, help="Take orders, but leave their execution to `fillwright worker`.")
@click.option("--reuse-port", is_flag=True, help="Share the port with other processes that are started likewise.")
@click.option("--listener", type=int, hidden=True, help="The number of a listening socket that is already open.")
@click.option("--parent", type=int, hidden=True, help="The process to end with.")
def command(api_only: bool, reuse_port: bool, listener: int | None, parent: int | None, **options: str | None) -> None:
    """Run the engine until it is told to stop: the API, and a worker that executes orders.

    Settings are read from the environment and from .env in the working directory. Logs go to standard error, as
    JSON unless that is a terminal.
    """
    given = {env_name(name): value for name, value in options.items() if value is not None}
    settings = settings_or_fail({**os.environ, **given})
    configure_logs(settings.log_level, settings.log_format)
    if api_only:
        shareable_or_fail(settings)
    if parent is not None:
        end_with(parent)
    # The port first: a start that fails because another engine has it must leave that engine's files alone.
    with address_or_fail(settings, shared=reuse_port) if listener is None else socket.socket(fileno=listener) as open_:
        run(lambda listening: processes.serve(settings, open_, works=not api_only, listening=lambda _: listening()))
