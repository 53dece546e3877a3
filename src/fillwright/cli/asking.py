"""What the commands that ask a running engine have in common: `--url`, `--json` and the key."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import click
from dotenv import dotenv_values
from yarl import URL

from fillwright.cli.client import connect
from fillwright.cli.exits import EXIT_CODES, CommandFailed
from fillwright.settings import env_name

PORT_DEFAULT: Final = "3000"
KEY: Final = env_name("api_key")


def engine_command(ask: Callable[..., Awaitable[None]]) -> click.Command:
    """Make a command of `ask(engine, as_json, **options)`; its docstring is the help, its name the command's."""

    @functools.wraps(ask)
    def command(url: str, as_json: bool, **options: Any) -> None:
        async def run() -> None:
            async with connect(url, key()) as engine:
                await ask(engine, as_json, **options)

        try:
            asyncio.run(run())
        except CommandFailed as error:
            error.as_json = as_json
            raise

    made = click.command(name=ask.__name__, epilog=EXIT_CODES)(command)
    made.params += [
        click.Option(["--json", "as_json"], is_flag=True, help="Print the engine's own JSON, for programs."),
        url_option(),
    ]
    return made


def url_option() -> click.Option:
    return click.Option(
        ["--url"],
        metavar="URL",
        default=url_default,
        callback=_check_url,
        help="The engine; http://localhost:$PORT, or port 3000, if not given.",
    )


def key() -> str:
    """Return the key that is set, if one is. Not an option: what is typed is seen by others and kept in histories."""
    return os.environ.get(KEY) or dotenv_values(".env").get(KEY) or ""


def url_default() -> str:
    """Where `fillwright serve` would listen, started in the same place."""
    port = os.environ.get("PORT") or dotenv_values(".env").get("PORT") or PORT_DEFAULT
    return f"http://localhost:{port}"


def _check_url(_context: click.Context, _parameter: click.Parameter, url: str) -> str:
    try:
        parsed = URL(url)
    except ValueError as error:
        raise click.BadParameter(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise click.BadParameter(f"{url!r} must be like http://localhost:3000")
    return url
