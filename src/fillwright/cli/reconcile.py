"""`fillwright reconcile`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

import click

from fillwright.app import check_chain, open_chain, open_ledger, open_solana
from fillwright.cli.exits import EXIT_CODES, CommandFailed, Refused, settings_or_fail
from fillwright.cli.operating import open_database
from fillwright.cli.running import NO_START
from fillwright.cli.screen import open_screen, table
from fillwright.clock import SystemClock
from fillwright.core.errors import ChainUnavailable
from fillwright.execution.reconcile import Reconciliation, reconcile
from fillwright.settings import Settings, sqlite_path

COUNTS = ("orders", "confirmed", "failed", "cancelled", "expired", "open", "lost", "doubled", "misreported", "unknown")


@click.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print the counts and findings as JSON, for programs.")
def command(as_json: bool) -> None:
    """Compare every order with the chain's own record.

    Opens the database and the chain that the settings name: no engine needs to run, and one that does is not
    disturbed. Ends with exit code 1 if an order was lost, doubled or misreported.
    """
    try:
        result = judge(settings_or_fail(os.environ))
    except CommandFailed as error:
        error.as_json = as_json
        raise
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), separators=(",", ":")))
    else:
        show(result)
    if not result.clean:
        raise SystemExit(Refused.exit_code)


def judge(settings: Settings) -> Reconciliation:
    """Return how the orders compare with the chain. Raise Refused if there is no such database, or it is unreadable."""
    _check_database(settings)
    is_simulated = settings.mode in ("simulated", "paper")
    if is_simulated:
        _check_ledger(settings)
    try:
        return asyncio.run(_judge(settings) if is_simulated else judge_by_nodes(settings))
    except NO_START as error:
        raise Refused(str(error), error.code) from error
    except (OSError, sqlite3.Error) as error:
        raise Refused(f"cannot read {settings.ledger_path}: {error}", ChainUnavailable.code) from error


def show(result: Reconciliation) -> None:
    grid = table(*(name.capitalize() for name in COUNTS))
    grid.add_row(*(str(getattr(result, name)) for name in COUNTS))
    screen = open_screen()
    screen.print(grid)
    for finding in result.findings:
        screen.print(finding, style="red", soft_wrap=True)
    screen.print(meaning(result))


def counts(result: Reconciliation) -> str:
    """Return the counts on one line."""
    return ", ".join(f"{getattr(result, name)} {name}" for name in COUNTS)


def meaning(result: Reconciliation) -> str:
    """Return the result in a sentence."""
    if not result.clean:
        return "Orders and chain differ: see the findings above. This must not happen; please report it."
    if not result.orders:
        return "There are no orders, and the chain has no swap of this engine."
    still = f"; {result.open} still open" if result.open else ""
    if result.unknown:
        return (
            f"{result.unknown} of {result.orders} orders cannot be compared: they were filled before the nodes' record"
            " begins. Ask a node that keeps it longer (FILLWRIGHT_RPC_URLS). The others say what the chain says"
            f"{still}."
        )
    return f"Every order says what the chain says: none lost, none swapped twice{still}."


async def _judge(settings: Settings) -> Reconciliation:
    check_schema(settings)
    clock = SystemClock()
    async with open_database(settings) as store:
        ledger = open_ledger(settings, clock, read_only=True)
        try:
            chain = open_chain(settings, ledger, clock)
            await check_chain(store, chain, settings)
            return await reconcile(store, chain)
        finally:
            ledger.close()


async def judge_by_nodes(settings: Settings) -> Reconciliation:
    """Return how the orders compare with what nodes tell of the wallet's swaps."""
    check_schema(settings)
    clock = SystemClock()
    async with open_database(settings) as store, open_solana(settings, clock) as solana:
        chain = await solana.open_chain(settings, clock)
        await check_chain(store, chain, settings)
        return await reconcile(store, chain, await solana.rpc.history_from())


def _check_database(settings: Settings) -> None:
    """Opening what is not there would make it, and find an empty world in order."""
    scheme = settings.database_url.partition("://")[0]
    if scheme == "sqlite":
        database = Path(sqlite_path(settings.database_url))
        if not database.is_file():
            raise Refused(f"there is no database at {database}; set DATABASE_URL to the engine's", "no_database")
    elif scheme == "memory":
        raise Refused("memory:// ends with its engine: there is nothing to read", "no_database")


def _check_ledger(settings: Settings) -> None:
    if not Path(settings.ledger_path).is_file():
        raise Refused(
            f"there is no chain record at {settings.ledger_path}; set FILLWRIGHT_SIM_LEDGER to the engine's",
            "no_chain_record",
        )


def check_schema(settings: Settings) -> None:
    """Opening another program's database as a store would write our tables into it."""
    if not settings.database_url.startswith("sqlite://"):
        return
    database = sqlite_path(settings.database_url)
    with contextlib.closing(sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True)) as reading:
        try:
            reading.execute("SELECT 1 FROM pins")
        except sqlite3.OperationalError as error:
            raise Refused(f"{database} is not an engine's database: {error}", "no_database") from error
