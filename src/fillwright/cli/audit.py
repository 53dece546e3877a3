"""`fillwright audit ...`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from fillwright.cli.exits import EXIT_CODES, Misused
from fillwright.cli.operating import operate
from fillwright.cli.screen import open_screen, table
from fillwright.core.control import Action, Entry, LimitsSet
from fillwright.core.limits_document import limits_in_words, to_document
from fillwright.core.tokens import TokenRegistry


@click.group(epilog=EXIT_CODES)
def command() -> None:
    """Show or verify who did what: keys, limits, webhooks, modes."""


@command.command("list", epilog=EXIT_CODES)
@click.option("--after", type=click.IntRange(min=0), default=0, help="Begin behind this entry.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs.")
def list_(after: int, as_json: bool) -> None:
    """Show the audit log, oldest first."""
    entries = operate(lambda gate, _: gate.entries(after), in_any_state=True)
    if as_json:
        for entry in entries:
            click.echo(json.dumps(_view(entry), separators=(",", ":")))
        return
    grid = table("#", "Time", "Who", "Did", "What")
    for entry in entries:
        view = _view(entry)
        grid.add_row(str(entry.seq), view["at"], entry.actor, view["action"], _in_words(view["data"]))
    open_screen().print(grid)


@command.command(epilog=EXIT_CODES)
@click.option("--head", help="A hash that was written down earlier: it must still be in the log.")
def verify(head: str | None) -> None:
    """Check that the log is what was written: nothing edited, dropped or moved.

    Prints the last entry's hash. Keep it elsewhere and pass it as --head later: without it, an end that was cut off
    cannot be told from a log that was never longer.
    """
    if head == "":
        raise Misused("--head is empty: name the hash that must be in the log", "invalid_request")
    click.echo(operate(lambda gate, _: gate.verify(head or "")))


def _view(entry: Entry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "at": datetime.fromtimestamp(entry.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "actor": entry.actor,
        "action": type(entry.action).__name__,
        "data": _data(entry.action),
        "hash": entry.hash,
    }


def _data(action: Action) -> dict[str, Any]:
    if isinstance(action, LimitsSet):
        return {"of": action.of, "limits": to_document(action.limits, TokenRegistry())}
    return {name: value for name, value in dataclasses.asdict(action).items() if name != "digest"}


def _in_words(data: Mapping[str, Any]) -> str:
    told = {name: " ".join(value) if isinstance(value, tuple) else value for name, value in data.items()}
    if isinstance(limits := told.get("limits"), dict):
        told = {"of": told["of"], **limits_in_words(limits)} if limits else {"of": told["of"], "limits": "none"}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items() if value != "")
