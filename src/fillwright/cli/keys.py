"""`fillwright keys ...`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import click

from fillwright.cli.exits import EXIT_CODES, Misused, Refused
from fillwright.cli.operating import id_in, operate, operator, where
from fillwright.cli.screen import open_screen, table
from fillwright.core.control import KEY_BYTES, Key, Scope, asked_scopes, key_revoked, new_key
from fillwright.core.errors import Denied
from fillwright.core.limits import LOCAL
from fillwright.core.ports import Store
from fillwright.execution.gate import Gate

NAMES = ", ".join(Scope)


@click.group(epilog=EXIT_CODES)
def command() -> None:
    """Create, list and revoke API keys.

    Once there is a key, nobody comes in without one. Works on the database that DATABASE_URL names, whether or not an
    engine runs; a running one knows within a second.
    """


@command.command(epilog=EXIT_CODES)
@click.argument("name")
@click.option(
    "--account", default="", help=f"Whose orders it sees: the name's if not given, {LOCAL!r}: those from before."
)
@click.option("--scopes", default="read,trade", show_default=True, help=f"Any of {NAMES}, with commas.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def create(name: str, account: str, scopes: str, as_json: bool) -> None:
    """Make a key, and print it. It is not kept, and cannot be shown again."""
    try:
        chosen = asked_scopes(account, name, [scope.strip() for scope in scopes.split(",")])
    except Denied as error:
        raise Misused(str(error), error.code) from error
    created, text = new_key(account, name, chosen, os.urandom(KEY_BYTES))

    async def work(gate: Gate, _: Store) -> bool:
        is_first = not gate.known.keys
        await gate.change(operator(), created)
        return is_first

    is_first = operate(work, may_create=True)
    if as_json:
        view = {"keyId": created.key_id, "account": created.account, "scopes": created.scopes, "key": text}
        click.echo(json.dumps(view, separators=(",", ":")))
    else:
        click.echo(text)
        click.echo(
            f"Key {created.key_id} of account {created.account or LOCAL} may {', '.join(created.scopes)}, in {where()}."
            " Keep it now: it cannot be shown again. Send it as `Authorization: Bearer ...`; the command line sends"
            " what FILLWRIGHT_API_KEY is set to.",
            err=True,
        )
        if is_first:
            click.echo(
                "From now on nobody comes in without a key. Orders from before are those of the account `local`.",
                err=True,
            )


@command.command("list", epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs.")
def list_(as_json: bool) -> None:
    """Show the keys; not their secrets, which nobody has but their holders."""

    async def keys(gate: Gate, _: Store) -> list[Key]:
        return list(gate.known.keys.values())

    grid = table("Key", "Name", "Account", "Scopes", "Created", "Revoked")
    for key in operate(keys):
        scopes = sorted(key.scopes)
        created, revoked = _time(key.created_at_ms), _time(key.revoked_at_ms)
        if as_json:
            view = {"keyId": key.key_id, "name": key.name, "account": key.account, "scopes": scopes}
            click.echo(json.dumps({**view, "created": created, "revoked": revoked}, separators=(",", ":")))
        grid.add_row(key.key_id, key.name, key.account, ", ".join(scopes), created, revoked or "-")
    if not as_json:
        open_screen().print(grid)


@command.command(epilog=EXIT_CODES)
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Let a key open nothing any more, in every process within a second. Give its id, or the key itself."""
    key_id = id_in(key_id)

    async def work(gate: Gate, _: Store) -> None:
        await gate.change(operator(), lambda known: key_revoked(known, key_id))

    try:
        operate(work)
    except Denied as error:
        raise Refused(f"{error}; see fillwright keys list", error.code) from error
    click.echo(f"Key {key_id} is revoked. ({where()})")


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
