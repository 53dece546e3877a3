"""`fillwright limits ...`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click
from rich.text import Text

from fillwright.cli.exits import EXIT_CODES, Misused
from fillwright.cli.operating import id_in, operate, operator, where
from fillwright.cli.screen import open_screen, table
from fillwright.core.control import Control, LimitsSet, limits_set
from fillwright.core.errors import Denied, InvalidRequest
from fillwright.core.limits import EVERYBODY, LOCAL, NONE, day_of, of_account, of_key
from fillwright.core.limits_document import Document, from_document, limits_in_words, to_document, used_document
from fillwright.core.ports import Store
from fillwright.core.tokens import TokenRegistry
from fillwright.execution.gate import Gate

TOKENS: Final = TokenRegistry()
OFF: Final = "none"

Command = TypeVar("Command", bound=Callable[..., Any])


def whose_options(command: Command) -> Command:
    account = click.option("--account", help="The limits of an account, whichever key it uses.")
    key = click.option("--key", "key_id", help="The limits of a key, by its id.")
    return account(key(command))


@click.group(epilog=EXIT_CODES)
def command() -> None:
    """Show and set how far orders may go.

    There are limits of everybody together, of an account and of a key; an order must be within all of them. They hold
    before an order is accepted and again before it is signed, in every process within a second.
    """


@command.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs.")
def show(as_json: bool) -> None:
    """Show all limits, and what is used of them today (UTC)."""

    async def work(gate: Gate, store: Store) -> list[tuple[str, Document, Document]]:
        limits = gate.known.limits
        used = await store.usage(day_of(time.time_ns() // 1_000_000), list(limits))
        return [(of, to_document(limits[of], TOKENS), used_document(used, of, TOKENS)) for of in sorted(limits)]

    rows = operate(work)
    if as_json:
        for of, document, used in rows:
            click.echo(json.dumps({"of": of, "limits": document, "used": used}, separators=(",", ":")))
        return
    if not rows:
        click.echo(f"There are no limits. ({where()})")
        return
    grid = table("Of", "Limit", "At most", "Used today")
    for of, document, used in rows:
        for name, most in limits_in_words(document).items():
            grid.add_row(Text(of), name, Text(most), _used(name, used))
    open_screen().print(grid)


@command.command("set", epilog=EXIT_CODES)
@whose_options
@click.option("--order-usd", "orderUsd", metavar="USD", help="What one order may be worth.")
@click.option("--day-usd", "dayUsd", metavar="USD", help="What the orders of a day (UTC) may be worth.")
@click.option("--order-amount", "orderAmount", metavar="TOKEN=AMOUNT", multiple=True, help="What one order may sell.")
@click.option("--day-amount", "dayAmount", metavar="TOKEN=AMOUNT", multiple=True, help="What a day's orders may sell.")
@click.option("--tokens", metavar="TOKEN,...", help="The only tokens that may be sold and bought.")
@click.option("--slippage", metavar="SHARE", help="The slippage that an order may ask for; 0.01 is 1 %.")
@click.option("--price-impact", "priceImpact", metavar="SHARE", help="How far an order may move the price.")
@click.option(
    "--price-deviation", "priceDeviation", metavar="SHARE", help="How far a quote may be from the reference price."
)
@click.option("--open-orders", "openOrders", metavar="COUNT", help="How many orders may be open at the same time.")
def set_(account: str | None, key_id: str | None, **given: Any) -> None:
    """Set limits; those that are not named stay as they are. `none` takes one away, as TOKEN=none does an amount.

    Without --account or --key, they are the limits of everybody together.
    """
    changes = {name: value for name, value in given.items() if value not in (None, ())}
    if not changes:
        raise Misused("name a limit to set; see fillwright limits set --help", "invalid_request")

    async def work(gate: Gate, _: Store) -> tuple[str, Document]:
        of = _whose(account, key_id)

        def change(known: Control) -> LimitsSet:
            document = to_document(known.limits.get(of, NONE), TOKENS)
            return limits_set(known, of, from_document(_changed(document, changes), TOKENS))

        await gate.change(operator(), change)
        return of, to_document(gate.known.limits.get(of, NONE), TOKENS)

    try:
        of, document = operate(work)
    except Denied as error:
        raise Misused(str(error), error.code) from error
    told = ", ".join(f"{name} {most}" for name, most in limits_in_words(document).items()) or "none"
    click.echo(f"Limits of {of}: {told}. ({where()})")


@command.command(epilog=EXIT_CODES)
@whose_options
def clear(account: str | None, key_id: str | None) -> None:
    """Take all limits away: those of everybody together, or of an account or a key."""

    async def work(gate: Gate, _: Store) -> str:
        of = _whose(account, key_id)
        await gate.change(operator(), lambda known: limits_set(known, of, NONE))
        return of

    try:
        of = operate(work)
    except Denied as error:
        raise Misused(str(error), error.code) from error
    click.echo(f"Limits of {of}: none. ({where()})")


def _whose(account: str | None, key_id: str | None) -> str:
    if account is not None and key_id is not None:
        raise Misused("name an account or a key, not both", "invalid_request")
    if account == "" or key_id == "":
        raise Misused("the name is empty: of which account or key?", "invalid_request")
    if account is not None:
        return of_account("" if account == LOCAL else account)
    return EVERYBODY if key_id is None else of_key(id_in(key_id))


def _changed(document: Document, changes: Mapping[str, Any]) -> Document:
    """Return a document after the changes that the command line names."""
    changed = dict(document)
    for name, value in changes.items():
        if isinstance(value, tuple):
            amounts = dict(changed.get(name, {}))
            for each in value:
                symbol, separator, amount = each.partition("=")
                if not separator:
                    raise InvalidRequest(f"{name}: write TOKEN=AMOUNT, such as SOL=5, not {each[:64]!r}")
                token = TOKENS.resolve(symbol, name).symbol
                amounts[token] = amount
                if amount == OFF:
                    del amounts[token]
            changed[name] = amounts or None
        elif value == OFF:
            changed[name] = None
        else:
            changed[name] = [each.strip() for each in value.split(",")] if name == "tokens" else value
    return changed


def _used(name: str, used: Document) -> str:
    """Return how much of a limit is used today, empty if that is nothing that adds up."""
    limit, _, token = name.partition(" ")
    if limit == "dayAmount":
        return str(used["amounts"].get(token, "0"))
    return str(used[{"dayUsd": "usd", "openOrders": "openOrders"}[limit]]) if limit in ("dayUsd", "openOrders") else ""
