"""`fillwright halt`."""

from __future__ import annotations

import click

from fillwright.cli.exits import EXIT_CODES
from fillwright.cli.operating import operate, operator
from fillwright.core.control import Mode, mode_set


@click.command(epilog=EXIT_CODES)
@click.option("--reduce", is_flag=True, help="Take nothing new, but finish the orders that are open.")
@click.option("--reason", default="", help="Shown to whoever is refused, and kept in the audit log.")
def command(reduce: bool, reason: str) -> None:
    """Stop at once: within a second, no process takes a new order or signs anything.

    What is signed already may still land, and is followed to its end. `fillwright resume` goes on. Works on the
    database that DATABASE_URL names, whether or not an engine can be reached.
    """
    mode = Mode.REDUCE if reduce else Mode.HALTED
    operate(lambda gate: gate.change(operator(), mode_set(mode, reason)))
    click.echo(
        "Reduced: no new orders are taken; open ones are finished."
        if reduce
        else "Halted: no new orders are taken and nothing is signed. What was signed before may still land."
    )
