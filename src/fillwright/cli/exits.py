"""How a command ends: its exit code, and one line that says why.

CommandFailed   exit code
├── Refused     1   the engine, or what was asked of it, said no
├── Misused     2   the command or a setting is wrong
└── Unreachable 3   there is no engine to ask
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import click

from fillwright.settings import Settings, SettingsError, read_settings

INTERRUPTED: Final = 130

EXIT_CODES: Final = """\b
Exit codes:
  0  done
  1  refused or failed: the order did not end confirmed, or orders and chain differ
  2  the command or a setting is wrong
  3  no engine can be reached"""


class CommandFailed(click.ClickException):
    """Ends the command with `error: message (code)` on standard error, or, if `as_json`, with the problem as JSON.

    `problem` is the API's own, where there is one.
    """

    def __init__(self, message: str, code: str = "", problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.problem = problem or {"code": code, "message": message}
        self.as_json = False

    def show(self, file: IO[Any] | None = None) -> None:
        if self.as_json:
            line = json.dumps(self.problem, separators=(",", ":"))
        else:
            line = f"error: {self.message}" + (f" ({self.code})" if self.code else "")
        click.echo(line, file=file, err=file is None)


class Refused(CommandFailed):
    exit_code = 1


class Misused(CommandFailed):
    exit_code = 2


class Unreachable(CommandFailed):
    exit_code = 3


def settings_or_fail(environ: Mapping[str, str], env_file: Path = Path(".env")) -> Settings:
    """Return the settings. Raise Misused if they do not make sense."""
    try:
        return read_settings(environ, env_file)
    except SettingsError as error:
        raise Misused(str(error), "invalid_settings") from error
