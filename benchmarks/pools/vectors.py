"""The recorded swaps, as both sides are given them.

Ours gets every account of a recording. An SDK wants tick and bin arrays decoded before it can quote, so somebody has
to choose them: in one case they are those that the SDK would fetch by itself, in the other only those that the swap
then walks. Nobody can know those beforehand, so that case is the least that a quote by the SDK can cost.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from tests.venues.clmm import array_at
from tests.venues.dlmm import array_address as bin_array

from benchmarks.engine import ROOT
from fillwright.core.accounts import Account, Address, format_address
from fillwright.venues.meteora.damm_v1 import DammV1Pool
from fillwright.venues.meteora.dlmm import DlmmPool
from fillwright.venues.pool import Pool
from fillwright.venues.pool_types import BY_NAME
from fillwright.venues.raydium.amm_v4 import AmmV4Pool
from fillwright.venues.raydium.clmm import TICKS, ClmmPool
from fillwright.venues.raydium.cpmm import CpmmPool
from fillwright.venues.raydium.tick_bitmap import arrays_from
from fillwright.venues.recordings import Recording, read_recordings

RECORDINGS: Final = ROOT / "tests" / "venues" / "recordings"
TICK_ARRAYS_FETCHED: Final = 7  # in each direction: `PoolUtils.fetchMultiplePoolTickArrays`
BIN_ARRAYS_FETCHED: Final = 4  # in the swap's direction: `getBinArrayForSwap`
WITH_ARRAYS: Final = ("clmm", "dlmm")
NOT_READ: Final = Account(Address(bytes(32)), b"")  # the pools of AMM v4 were recorded without their mints


@dataclass(frozen=True, slots=True)
class Case:
    """Swaps of one pool type. `is_least`: the SDK is given only the arrays that each swap walks."""

    type: str
    recordings: Sequence[Recording]
    is_least: bool = False

    @property
    def name(self) -> str:
        return f"{self.type}, arrays walked" if self.is_least else self.type

    def quote(self, recording: Recording) -> int:
        pool = recording.pool
        decoded = BY_NAME[self.type].decode(pool.address, pool.accounts, recording.policy)
        return decoded.quote(recording.amount, recording.a_to_b, pool.time).out_amount

    def document(self) -> dict[str, object]:
        """Return what the SDK's side reads."""
        return {"type": self.type, "vectors": [_vector(each, self.is_least) for each in self.recordings]}


def cases() -> list[Case]:
    every = [each for path in sorted(RECORDINGS.glob("*.json.gz")) for each in read_recordings(path)]
    found = list[Case]()
    for name in BY_NAME:
        mine = [each for each in every if each.type == name]
        found.append(Case(name, mine))
        if name in WITH_ARRAYS:
            found.append(Case(name, mine, is_least=True))
    return found


def _vector(recording: Recording, is_least: bool) -> Mapping[str, Any]:
    accounts, time = recording.pool.accounts, recording.pool.time
    pool = BY_NAME[recording.type].decode(recording.pool.address, accounts, recording.policy)
    quote = pool.quote(recording.amount, recording.a_to_b, time)
    arrays = quote.path if is_least else tuple(_fetched(pool, recording))
    return {
        "amount": str(recording.amount),
        "aToB": recording.a_to_b,
        "slot": str(time.slot),
        "epoch": str(time.epoch),
        "now": str(time.unix_time_s),
        "accounts": {name: _account(accounts, address) for name, address in _named(pool)},
        "arrays": [_account(accounts, address) for address in arrays],
    }


def _fetched(pool: Pool, recording: Recording) -> Iterator[Address]:
    """Yield the arrays that the pool's SDK would fetch, as far as they were recorded."""
    if isinstance(pool, DlmmPool):
        for index in islice(pool.arrays_walked(recording.a_to_b), BIN_ARRAYS_FETCHED):
            address = bin_array(index, pool.address)
            if address in pool.held:
                yield address
    if isinstance(pool, ClmmPool):
        span = TICKS * pool.tick_spacing
        both = (
            islice(arrays_from(pool.arrays, pool.tick // span, down), TICK_ARRAYS_FETCHED) for down in (True, False)
        )
        for start in dict.fromkeys(number * span for numbers in both for number in numbers):
            address = array_at(start, pool.address)
            if address in pool.held:
                yield address


def _named(pool: Pool) -> Iterator[tuple[str, Address]]:
    """Yield the pool's accounts by the names that the SDK's side knows them by."""
    yield from (("pool", pool.address), ("mintA", pool.mint_a), ("mintB", pool.mint_b))
    if isinstance(pool, CpmmPool | AmmV4Pool):
        yield from (("vaultA", pool.vault_a), ("vaultB", pool.vault_b))
    if isinstance(pool, CpmmPool | ClmmPool):
        yield "config", pool.config
    if isinstance(pool, ClmmPool | DlmmPool) and pool.extension is not None:
        yield "extension", pool.extension
    if isinstance(pool, DammV1Pool):
        for name, side in (("A", pool.a), ("B", pool.b)):
            yield f"vault{name}", side.vault
            yield f"shares{name}", side.share_account
            yield f"supply{name}", side.share_mint
            yield f"held{name}", side.vault_account


def _account(accounts: Mapping[Address, Account], address: Address) -> Mapping[str, str]:
    account = accounts.get(address, NOT_READ)
    return {
        "address": format_address(address),
        "owner": format_address(account.owner),
        "data": b64encode(account.data).decode(),
    }
