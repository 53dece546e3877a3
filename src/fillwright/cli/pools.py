"""`fillwright pools ...`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from fillwright.cli.exits import EXIT_CODES, Misused
from fillwright.cli.screen import open_screen, table
from fillwright.core.accounts import format_address
from fillwright.core.errors import InvalidRecording, InvalidSnapshot
from fillwright.core.tokens import WELL_KNOWN
from fillwright.venues.market import Listed, decode
from fillwright.venues.pool import Policy
from fillwright.venues.recordings import Tally, read_recordings, replay
from fillwright.venues.snapshots import Snapshot, pair_of, pools_of, read_snapshots, write_snapshots

SHOWN_MAX: Final = 20
SYMBOLS: Final = {token.mint: token.symbol for token in WELL_KNOWN}
FILES: Final = click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group(epilog=EXIT_CODES)
def command() -> None:
    """Import snapshots of real pools, and verify quotes against recorded swaps."""


@command.command("import", epilog=EXIT_CODES)
@FILES
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), help="Compressed if it ends with .gz.")
@AS_JSON
def import_(paths: tuple[Path, ...], target: Path, as_json: bool) -> None:
    """Gather the pools of files and folders in one snapshot, and say of each whether it can be quoted.

    Takes snapshots of this program, what `solana account ADDRESS --output json` prints, and replies of a node's
    getProgramAccounts. Set FILLWRIGHT_POOLS to the file, and the engine quotes its pools.
    """
    try:
        snapshots = [snapshot for path in paths for snapshot in read_snapshots(path)]
        pools = [_pool_view(snapshot) for snapshot in snapshots]
        found = [pool for listed in pools for pool in listed]
        if not found:
            raise InvalidSnapshot("there is no pool of a type that is known; see docs/venues.md")
        write_snapshots(target, snapshots)
    except InvalidSnapshot as error:
        raise _misused(error.code, str(error), as_json) from error
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
    usable = sum("code" not in pool for pool in found)
    screen.print(f"{len(found)} pools, {usable} of which can be quoted, written to {target}")


@command.command(epilog=EXIT_CODES)
@FILES
@AS_JSON
def verify(paths: tuple[Path, ...], as_json: bool) -> None:
    """Quote recorded swaps, and compare with what the programs on the chain paid. Exits with 1 on a mismatch.

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
            pool, direction = format_address(recording.pool.address), "A to B" if recording.a_to_b else "B to A"
            screen.print(f"{name} {pool}: {recording.amount} {direction} paid {recording.paid}, quoted {quoted}")


def _tally_view(tally: Tally) -> dict[str, Any]:
    return {
        "cases": tally.cases,
        "equal": tally.equal,
        "refused": sum(count for count, _ in tally.refused.values()),
        "mismatched": len(tally.mismatched),
        "reasons": {code: {"count": count, "message": message} for code, (count, message) in tally.refused.items()},
        "mismatches": [
            {
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


def _pool_view(snapshot: Snapshot) -> list[dict[str, Any]]:
    views = list[dict[str, Any]]()
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


def _misused(code: str, message: str, as_json: bool) -> Misused:
    failed = Misused(message, code)
    failed.as_json = as_json
    return failed
