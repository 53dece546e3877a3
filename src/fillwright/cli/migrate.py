"""`fillwright migrate`."""

from __future__ import annotations

import asyncio
import os

import click

from fillwright.backends import migrate_store
from fillwright.cli.exits import EXIT_CODES, Refused, settings_or_fail
from fillwright.core.errors import StoreUnavailable


@click.command(epilog=EXIT_CODES)
@click.option("--check", is_flag=True, help="Change nothing; end with exit code 1 if there is something to do.")
def command(check: bool) -> None:
    """Bring the schema of the database that DATABASE_URL names up to date.

    Every start does the same. Done beforehand, it shows what fails while the version before still runs: that goes on
    working, for a migration only adds.
    """
    settings = settings_or_fail(os.environ)
    try:
        before, after = asyncio.run(migrate_store(settings.database_url, change=not check))
    except StoreUnavailable as error:
        raise Refused(str(error), error.code) from error
    if before == after:
        click.echo(f"The schema is up to date: version {after}.")
    elif check:
        raise Refused(f"the database has schema {before}, this version needs {after}: run fillwright migrate")
    else:
        click.echo(f"The schema was brought from version {before} to {after}.")
