"""A small market of real pools for the tests: SOL, USDC and a token of its own, as files and as a chain to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import pack

from fillwright.core.accounts import Account, Address, PoolAccounts, format_address, parse_address
from fillwright.core.errors import ChainUnavailable
from fillwright.core.programs import CLOCK, SOL_MINT, SYSVAR_OWNER
from fillwright.core.units import Mint, Token
from fillwright.venues.snapshots import Snapshot
from tests.venues import amm_v4, cpmm
from tests.venues.model import NOW, SLOT, address

USDC_MINT = parse_address("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")
TOKEN_MINT = address("a token of its own")
OWN = Token(format_address(TOKEN_MINT), Mint(format_address(TOKEN_MINT)), 6)
SOL_USDC = (SOL_MINT, USDC_MINT)
LAMPORTS, MICROS = 10**9, 10**6


def the_clock() -> Account:
    return Account(SYSVAR_OWNER, pack("<QqQQq", NOW.slot, 0, NOW.epoch, 0, NOW.unix_time_s))


def sol_usdc(name: str = "deep ", sol: int = 100_000, price: int = 150, **more: int) -> PoolAccounts:
    """Return a pool that holds so many SOL, and as many dollars as make the price."""
    return cpmm.world(sol * LAMPORTS, sol * price * MICROS, name=name, mints=SOL_USDC, decimals=(9, 6), **more)  # type: ignore[arg-type]  # rates


def old_sol_usdc(name: str = "old ", sol: int = 100_000, price: int = 150) -> PoolAccounts:
    return amm_v4.world(sol * LAMPORTS, sol * price * MICROS, name=name, mints=SOL_USDC, decimals=(9, 6))


def own_usdc(name: str = "own ", tokens: int = 1_000_000, price: int = 2) -> PoolAccounts:
    mints = (TOKEN_MINT, USDC_MINT)
    return cpmm.world(tokens * 10**6, tokens * price * MICROS, name=name, mints=mints, decimals=(6, 6))


def a_snapshot(pools: Iterable[PoolAccounts], slot: int = SLOT) -> Snapshot:
    accounts: dict[Address, Account] = {CLOCK: the_clock()}
    for pool in pools:
        accounts |= pool.accounts
    return Snapshot(slot, NOW, accounts)


class FakeReader:
    """A node that holds a snapshot. It counts what it is asked, and can be silent, or ahead by some slots."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.accounts = dict(snapshot.accounts)
        self.slot = snapshot.slot
        self.calls: list[int] = []
        self.is_silent = False

    async def read(self, addresses: Sequence[Address]) -> tuple[int, list[Account | None]]:
        if self.is_silent:
            raise ChainUnavailable("the node does not answer")
        assert len(addresses) <= 100
        assert len(set(addresses)) == len(addresses)
        self.calls.append(len(addresses))
        return self.slot, [self.accounts.get(each) for each in addresses]
