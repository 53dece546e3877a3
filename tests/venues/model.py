"""What tests know of a pool type apart from its module: worlds to quote in, an upper bound, what a swap changes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from struct import pack
from typing import Any, Protocol

from hypothesis import strategies as st

from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts
from fillwright.core.programs import SPL_TOKEN, TOKEN_2022
from fillwright.venues.pool import Policy, Pool, PoolQuote, PoolType

POLICY = Policy(unproven_transfer_fees=True)
NOW = ChainTime(slot=435_888_000, epoch=1_009, unix_time_s=1_780_000_000)
SLOT = 435_888_123

u64s = st.one_of(st.integers(1, 1_000), st.integers(10**6, 10**13), st.integers(1, 2**63))


class Model(Protocol):
    """One module of this package for each pool type."""

    TYPE: PoolType

    def worlds(self) -> st.SearchStrategy[PoolAccounts]:
        """Return pools of this type with all their accounts."""

    def exact_out(self, pool: Any, amount: int, a_to_b: bool, at: ChainTime) -> Fraction:
        """Return what the formula pays where nothing is ever rounded: no quote may be above."""

    def after(self, world: PoolAccounts, quote: PoolQuote) -> PoolAccounts:
        """Return the accounts as a swap leaves them."""


def decode(model: Model, world: PoolAccounts) -> Pool:
    return model.TYPE.decode(world.address, world.accounts, POLICY)


def address(name: str) -> Address:
    return Address(name.encode().ljust(32, b"."))


def token_account(mint: Address, amount: int, program: Address = SPL_TOKEN, *, state: int = 1) -> Account:
    return Account(program, pack("<32s32xQ36xB56x", mint, amount, state))


def amount_of(account: Account) -> int:
    return int.from_bytes(account.data[64:72], "little")


def a_mint(decimals: int = 6, supply: int = 0) -> Account:
    return Account(SPL_TOKEN, pack("<36xQBB36x", supply, decimals, 1))


def a_fee_mint(bps: int, most: int, *, newer_bps: int | None = None, epoch: int = 0, decimals: int = 6) -> Account:
    """Return a mint of Token-2022 that withholds `bps` of a transfer, and from `epoch` on `newer_bps`."""
    newer = bps if newer_bps is None else newer_bps
    config = pack("<72xQQHQQH", 0, most, bps, epoch, most, newer)
    return an_extended_mint((1, config), decimals=decimals)


def an_extended_mint(*extensions: tuple[int, bytes], decimals: int = 6) -> Account:
    entries = b"".join(pack("<HH", kind, len(value)) + value for kind, value in extensions)
    return Account(TOKEN_2022, pack("<36xQBB36x", 0, decimals, 1).ljust(165, b"\0") + b"\1" + entries)


def patched(world: PoolAccounts, of: Address, changes: dict[int, bytes]) -> PoolAccounts:
    """Return the world with some bytes of one account changed."""
    data = bytearray(world.accounts[of].data)
    for at, value in changes.items():
        data[at : at + len(value)] = value
    return replace(world, accounts={**world.accounts, of: Account(world.accounts[of].owner, bytes(data))})


def moved(world: PoolAccounts, vault: Address, by: int) -> PoolAccounts:
    """Return the world with more or less in a token account."""
    return patched(world, vault, {64: pack("<Q", amount_of(world.accounts[vault]) + by)})
