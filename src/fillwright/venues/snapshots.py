"""Pools from files: what accounts held at one slot, written down.

A snapshot is JSON, `{"slot": 1, "accounts": {"<address>": {"owner": "<program>", "data": "<base64>"}}}`, or several of
them as `{"snapshots": [...]}`; compressed with gzip it is read, too. What `solana account --output json` prints, and
the reply of `getProgramAccounts`, can be imported as they are: those of one folder or file are one snapshot, of the
slot that its Clock tells. None of them says when it was read; `fillwright pools fetch` reads a pool at one slot.

A pool is taken with all its accounts from the newest snapshot that has it, and never put together from several: its
quote would be that of no moment. The Clock must be among the accounts, since fees and opening times depend on it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final

from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts, format_address, parse_address
from fillwright.core.errors import InvalidSnapshot, QuoteRefused, UnknownToken
from fillwright.core.programs import CLOCK
from fillwright.core.units import Mint, Token
from fillwright.venues.mints import read_mint
from fillwright.venues.pool import PoolType
from fillwright.venues.pool_types import identify

ROUNDS_MAX: Final = 6
_CLOCK: Final = Struct("<Q8xQ8xq")  # Clock sysvar, 40 bytes: slot, epoch, unix timestamp


@dataclass(frozen=True, slots=True)
class Snapshot:
    slot: int
    time: ChainTime
    accounts: Mapping[Address, Account]


class SnapshotPools:
    """The pools of some snapshots, as a PoolSource."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._by_pair: dict[frozenset[Mint], list[PoolAccounts]] = {}
        self._slot = max((snapshot.slot for snapshot in snapshots), default=0)
        taken = set[Address]()
        for snapshot in sorted(snapshots, key=lambda each: -each.slot):
            for pool_type, pool in pools_of(snapshot):
                if pool.address not in taken:
                    taken.add(pool.address)
                    self._by_pair.setdefault(pair_of(pool_type, pool.accounts[pool.address]), []).append(pool)

    @property
    def newest_slot(self) -> int:
        return self._slot

    async def pools(self, mint_a: Mint, mint_b: Mint, *, min_slot: int = 0) -> Sequence[PoolAccounts]:
        del min_slot  # files do not change
        return self._by_pair.get(frozenset((mint_a, mint_b)), ())


def read_time(accounts: Mapping[Address, Account]) -> ChainTime | None:
    """Return what the Clock among the accounts says."""
    clock = accounts.get(CLOCK)
    return ChainTime(*_CLOCK.unpack(clock.data)) if clock is not None and len(clock.data) == _CLOCK.size else None


def pair_of(pool_type: PoolType, account: Account) -> frozenset[Mint]:
    return frozenset(Mint(format_address(mint)) for mint in mints_of(pool_type, account))


def mints_of(pool_type: PoolType, account: Account) -> tuple[Address, ...]:
    return tuple(Address(account.data[at : at + 32]) for at in pool_type.mints_at)


def needed(pool_type: PoolType, address: Address, known: Mapping[Address, Account]) -> tuple[Address, ...]:
    """Return the accounts that a pool's quotes depend on, as far as they follow from those known, and its two mints."""
    mints = mints_of(pool_type, known[address])
    return tuple(dict.fromkeys((address, *mints, *pool_type.wanted(address, known))))


def pools_of(snapshot: Snapshot) -> Iterator[tuple[PoolType, PoolAccounts]]:
    """Yield each pool with those accounts of the snapshot that it needs."""
    for address, account in snapshot.accounts.items():
        pool_type = identify(account)
        if pool_type is not None:
            known = {address: account}
            for _ in range(ROUNDS_MAX):
                wanted = needed(pool_type, address, known)
                new = {each: snapshot.accounts[each] for each in wanted if each in snapshot.accounts} | known
                if len(new) == len(known):
                    break
                known = new
            yield pool_type, PoolAccounts(address, snapshot.slot, snapshot.time, known)


def tokens_of(snapshots: Sequence[Snapshot]) -> Iterator[Token]:
    """Yield the tokens of the pools' mints. Their symbols are their mints: anybody can make up a name."""
    found = set[Mint]()
    for snapshot in snapshots:
        for pool_type, pool in pools_of(snapshot):
            for mint in pair_of(pool_type, pool.accounts[pool.address]) - found:
                token = token_of(mint, pool.accounts)
                if token is not None:
                    found.add(mint)
                    yield token


def token_of(mint: Mint, accounts: Mapping[Address, Account]) -> Token | None:
    """Return what a mint's account tells of it, None if that is missing or is none."""
    try:
        return Token(mint, mint, read_mint(accounts, parse_address(mint)).decimals)
    except QuoteRefused:
        return None


def snapshots_of(pools: Iterable[PoolAccounts]) -> list[Snapshot]:
    """Return pools that were read with their Clock as snapshots, one for each slot."""
    by_slot: dict[int, Snapshot] = {}
    for pool in pools:
        others = by_slot[pool.slot].accounts if pool.slot in by_slot else {}
        by_slot[pool.slot] = Snapshot(pool.slot, pool.time, {**others, **pool.accounts})
    return [by_slot[slot] for slot in sorted(by_slot)]


def read_snapshots(path: Path) -> list[Snapshot]:
    """Return what a file holds, or all files of a folder. Raise InvalidSnapshot, which says where it is wrong."""
    if not path.exists():
        raise InvalidSnapshot(f"{path}: there is no such file or folder")
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    snapshots, single = list[Snapshot](), dict[Address, Account]()
    for file in files:
        content = _load(file)
        try:
            if isinstance(content, dict) and ("accounts" in content or "snapshots" in content):
                snapshots += (_snapshot(each, file) for each in content.get("snapshots", [content]))
            else:
                single |= dict(_single(content))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, UnknownToken) as error:
            raise InvalidSnapshot(
                f"{file} holds no accounts as a snapshot, `solana account --output json` or getProgramAccounts write"
                f" them: {error!r}"
            ) from error
    if single:
        time = _time(single, path)
        snapshots.append(Snapshot(time.slot, time, single))
    return snapshots


def write_snapshots(path: Path, snapshots: Sequence[Snapshot]) -> None:
    """Write the snapshots with what their pools need, compressed if the file's name ends with `.gz`."""
    documents = []
    for snapshot in snapshots:
        needed = {CLOCK: snapshot.accounts[CLOCK]}
        for _, pool in pools_of(snapshot):
            needed |= pool.accounts
        accounts = {
            format_address(address): {"owner": format_address(each.owner), "data": b64encode(each.data).decode()}
            for address, each in needed.items()
        }
        documents.append({"slot": snapshot.slot, "accounts": accounts})
    text = json.dumps({"snapshots": documents}).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _load(file: Path) -> Any:
    try:
        packed = file.read_bytes()
        return json.loads(gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise InvalidSnapshot(f"{file} cannot be read: {error}") from error


def _snapshot(document: Any, file: Path) -> Snapshot:
    accounts = {
        parse_address(address): Account(parse_address(each["owner"]), b64decode(each["data"], validate=True))
        for address, each in document["accounts"].items()
    }
    slot = int(document["slot"])
    if slot < 0:
        raise ValueError(f"slot {slot}")
    return Snapshot(slot, _time(accounts, file), accounts)


def _single(content: Any) -> Iterator[tuple[Address, Account]]:
    """Yield accounts as nodes and Solana's own command line write them."""
    if isinstance(content, dict) and "error" in content:
        raise ValueError(f"the node refused: {content['error']}")
    for around in ("result", "value"):
        if isinstance(content, dict) and around in content:
            content = content[around]
    for each in content if isinstance(content, list) else [content]:
        data, encoding = each["account"]["data"]
        if encoding != "base64":
            raise ValueError(f"the data is in {encoding!r}, not base64")
        account = Account(parse_address(each["account"]["owner"]), b64decode(data, validate=True))
        yield parse_address(each["pubkey"]), account


def _time(accounts: Mapping[Address, Account], path: Path) -> ChainTime:
    time = read_time(accounts)
    if time is None:
        raise InvalidSnapshot(
            f"{path} lacks the Clock, on which fees and opening times depend: add the account {format_address(CLOCK)}"
        )
    return time
