"""`fillwright pools ...`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import structlog

from fillwright.cli.exits import EXIT_CODES, Misused, Refused, settings_or_fail
from fillwright.cli.screen import open_screen, table
from fillwright.core.accounts import Address, format_address, parse_address
from fillwright.core.errors import (
    ChainUnavailable,
    InvalidRecording,
    InvalidSnapshot,
    MixedChains,
    UnknownLayout,
    UnknownToken,
    WrongNetwork,
)
from fillwright.core.tokens import WELL_KNOWN
from fillwright.venues.market import Listed, decode
from fillwright.venues.pool import Policy
from fillwright.venues.pool_types import misshapen
from fillwright.venues.recordings import Tally, read_recordings, replay
from fillwright.venues.snapshots import Snapshot, pair_of, pools_of, read_snapshots, write_snapshots

SHOWN_MAX: Final = 20
SYMBOLS: Final = {token.mint: token.symbol for token in WELL_KNOWN}
FILES: Final = click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
TARGET: Final = click.option(
    "--to",
    "target",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Compressed if it ends with .gz.",
)
AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group(epilog=EXIT_CODES)
def command() -> None:
    """Take snapshots of real pools, and verify quotes against recorded swaps."""


@command.command(epilog=EXIT_CODES)
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@TARGET
@AS_JSON
def fetch(addresses: tuple[str, ...], target: Path, as_json: bool) -> None:
    """Read pools from nodes, and write them to a snapshot.

    The nodes are those of FILLWRIGHT_RPC_URLS. Each pool comes with all accounts that its quotes depend on, read at one
    slot.
    """
    from fillwright.clock import SystemClock
    from fillwright.solana import fetch as read  # what asks nodes is not loaded for the other commands

    settings = settings_or_fail(os.environ)
    if not settings.rpc_urls:
        raise _misused("invalid_settings", "there is no node to ask: set FILLWRIGHT_RPC_URLS", as_json)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # errors say it all
    pools = [_pool_address(each, as_json) for each in dict.fromkeys(addresses)]
    try:
        snapshots = asyncio.run(read(settings, pools, SystemClock()))
    except (InvalidSnapshot, MixedChains, WrongNetwork) as error:
        raise _misused(error.code, str(error), as_json) from error
    except ChainUnavailable as error:
        refused = Refused(str(error), error.code)
        refused.as_json = as_json
        raise refused from error
    _write(target, snapshots, as_json)


@command.command("import", epilog=EXIT_CODES)
@FILES
@TARGET
@AS_JSON
def import_(paths: tuple[Path, ...], target: Path, as_json: bool) -> None:
    """Gather the pools of files in one snapshot, and say which can be quoted.

    Takes snapshots of this program, what `solana account ADDRESS --output json` prints, and replies of a node's
    getProgramAccounts. Set FILLWRIGHT_POOLS to the file, and the engine quotes its pools.
    """
    try:
        snapshots = [snapshot for path in paths for snapshot in read_snapshots(path)]
    except InvalidSnapshot as error:
        raise _misused(error.code, str(error), as_json) from error
    _write(target, snapshots, as_json)


def _write(target: Path, snapshots: Sequence[Snapshot], as_json: bool) -> None:
    """Write the snapshots, and say of each pool whether it can be quoted."""
    found = [pool for snapshot in snapshots for pool in _pool_views(snapshot)]
    usable = sum("code" not in pool for pool in found)
    if not found:
        raise _misused("invalid_snapshot", "there is no pool of a type that is known; see docs/venues.md", as_json)
    try:
        write_snapshots(target, snapshots)
    except OSError as error:
        raise _misused("invalid_snapshot", f"{target} cannot be written: {error.strerror}", as_json) from error
    if as_json:
        click.echo(json.dumps({"written": str(target), "pools": found}, separators=(",", ":")))
        return
    grid = table("Venue", "Type", "Pool", "Pair", "Slot", "Can be quoted")
    for pool in found:
        pair, why = " / ".join(pool["pair"]), pool.get("reason", "yes")
        grid.add_row(pool["venue"], pool["type"], pool["pool"], pair, str(pool["slot"]), why)
    screen = open_screen()
    screen.print(grid)
    screen.print(f"{usable} of {len(found)} {'pool' if len(found) == 1 else 'pools'} can be quoted: {target}")


@command.command(epilog=EXIT_CODES)
@FILES
@AS_JSON
def verify(paths: tuple[Path, ...], as_json: bool) -> None:
    """Compare quotes with what programs on the chain paid. Exits with 1 on a mismatch.

    docs/venues.md describes the format of a recording.
    """
    try:
        tallies = replay(recording for path in paths for recording in read_recordings(path))
    except InvalidRecording as error:
        raise _misused(error.code, str(error), as_json) from error
    mismatched = sum(len(tally.mismatched) for tally in tallies.values())
    if as_json:
        types = {name: _tally_view(tally) for name, tally in sorted(tallies.items())}
        click.echo(json.dumps({"mismatched": mismatched, "types": types}, separators=(",", ":")))
    else:
        _show(tallies)
    sys.exit(1 if mismatched else 0)


def _show(tallies: Mapping[str, Tally]) -> None:
    grid = table("Type", "Cases", "Equal", "Refused", "Mismatched", "Why refused")
    for name, tally in sorted(tallies.items()):
        refused = sum(count for count, _ in tally.refused.values())
        why = "\n".join(f"{count} {code}: {message}" for code, (count, message) in sorted(tally.refused.items()))
        grid.add_row(name, str(tally.cases), str(tally.equal), str(refused), str(len(tally.mismatched)), why)
    screen = open_screen()
    screen.print(grid)
    for name, tally in sorted(tallies.items()):
        for recording, quoted in tally.mismatched[:SHOWN_MAX]:
            direction = "A to B" if recording.a_to_b else "B to A"
            where = f"{name}, {recording.source}" + (f" ({recording.note})" if recording.note else "")
            screen.print(f"{where}: {recording.amount} {direction} paid {recording.paid}, quoted {quoted}")
        if len(tally.mismatched) > SHOWN_MAX:
            screen.print(f"{name}: and {len(tally.mismatched) - SHOWN_MAX} more, which --json lists")


def _tally_view(tally: Tally) -> dict[str, Any]:
    return {
        "cases": tally.cases,
        "equal": tally.equal,
        "refused": sum(count for count, _ in tally.refused.values()),
        "mismatched": len(tally.mismatched),
        "reasons": {code: {"count": count, "message": message} for code, (count, message) in tally.refused.items()},
        "mismatches": [
            {
                "case": recording.source,
                "pool": format_address(recording.pool.address),
                "note": recording.note,
                "amount": str(recording.amount),
                "aToB": recording.a_to_b,
                "paid": str(recording.paid),
                "quoted": str(quoted),
            }
            for recording, quoted in tally.mismatched
        ],
    }


def _pool_views(snapshot: Snapshot) -> list[dict[str, Any]]:
    views = list[dict[str, Any]]()
    for address, account in snapshot.accounts.items():
        unknown = misshapen(account)
        if unknown is not None:
            views.append(
                {
                    "venue": unknown.venue,
                    "type": unknown.name,
                    "pool": format_address(address),
                    "pair": [],
                    "slot": snapshot.slot,
                    "code": UnknownLayout.code,
                    "reason": str(unknown.layout.refusal(account, address)),
                }
            )
    for pool_type, pool in pools_of(snapshot):
        view: dict[str, Any] = {
            "venue": pool_type.venue,
            "type": pool_type.name,
            "pool": format_address(pool.address),
            "pair": sorted(SYMBOLS.get(mint, mint) for mint in pair_of(pool_type, pool.accounts[pool.address])),
            "slot": pool.slot,
        }
        decoded = decode(pool, Policy())
        if not isinstance(decoded, Listed):
            view |= {"code": decoded.error.code, "reason": str(decoded.error)}
        views.append(view)
    return views


def _pool_address(text: str, as_json: bool) -> Address:
    try:
        return parse_address(text)
    except UnknownToken as error:
        raise _misused("invalid_snapshot", f"{text!r} is not the address of an account, in base58", as_json) from error


def _misused(code: str, message: str, as_json: bool) -> Misused:
    failed = Misused(message, code)
    failed.as_json = as_json
    return failed
