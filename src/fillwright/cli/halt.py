"""`fillwright halt`."""

from __future__ import annotations

import click

from fillwright.cli.exits import EXIT_CODES, Refused
from fillwright.cli.operating import operate, operator, where
from fillwright.core.control import Control, Mode, ModeSet, mode_set
from fillwright.core.ports import Store
from fillwright.execution.gate import Gate


@click.command(epilog=EXIT_CODES)
@click.option("--reduce", is_flag=True, help="Take nothing new, but finish the orders that are open.")
@click.option("--reason", default="", help="Shown to whoever is refused, and kept in the audit log.")
def command(reduce: bool, reason: str) -> None:
    """Stop at once: within a second, no process takes a new order or signs anything.

    What is signed already may still land, and is followed to its end. `fillwright resume` goes on. Works on the
    database that DATABASE_URL names, whether or not an engine can be reached.
    """

    def change(known: Control) -> ModeSet:
        if reduce and known.mode is Mode.HALTED:
            raise Refused(
                "the engine is halted, which stops more; resume first if open orders may be finished", "halted"
            )
        why = reason or (known.mode_reason if known.mode is not Mode.ACTIVE else "")
        return mode_set(Mode.REDUCE if reduce else Mode.HALTED, why)

    async def work(gate: Gate, _: Store) -> None:
        await gate.change(operator(), change)

    operate(work, in_any_state=True)
    click.echo(
        f"Reduced: no new orders are taken; open ones are finished. ({where()})"
        if reduce
        else f"Halted: no new orders are taken and nothing is signed. What was signed may still land. ({where()})"
    )
