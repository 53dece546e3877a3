"""`fillwright resume`."""

from __future__ import annotations

import click

from fillwright.cli.exits import EXIT_CODES
from fillwright.cli.operating import operate, operator, where
from fillwright.core.control import Mode, mode_set


@click.command(epilog=EXIT_CODES)
@click.option("--reason", default="", help="Kept in the audit log.")
def command(reason: str) -> None:
    """Go on after `fillwright halt`: orders are taken and signed again."""
    operate(lambda gate, _: gate.change(operator(), mode_set(Mode.ACTIVE, reason)))
    click.echo(f"Active: orders are taken and signed again. ({where()})")
