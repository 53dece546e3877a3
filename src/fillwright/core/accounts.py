"""Accounts of the chain as they stand at one slot, raw as they were read, and instructions that change them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

from fillwright.core.units import address_bytes, base58

Address = NewType("Address", bytes)
"""The 32 bytes that name an account. Text is base58, for people and files."""


@dataclass(frozen=True, slots=True)
class Account:
    """What an account holds: `owner` is the program that wrote `data`."""

    owner: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class ChainTime:
    """What the chain's Clock says: what a program sees when it asks for the time."""

    slot: int
    epoch: int
    unix_time_s: int


@dataclass(frozen=True, slots=True)
class PoolAccounts:
    """A pool with all that its quote depends on, read at one `slot`; what does not exist on chain is left out."""

    address: Address
    slot: int
    time: ChainTime
    accounts: Mapping[Address, Account]


@dataclass(frozen=True, slots=True)
class AccountMeta:
    """An account that an instruction names, and what it may do with it."""

    address: Address
    is_signer: bool = False
    is_writable: bool = False


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a transaction asks one program to do."""

    program: Address
    accounts: tuple[AccountMeta, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Trader:
    """Who swaps: the wallet, and its token accounts for what goes in and what comes out."""

    wallet: Address
    in_account: Address
    out_account: Address


def parse_address(text: str) -> Address:
    """Return the account that base58 text names. Raise UnknownToken if it is not the base58 form of 32 bytes."""
    return Address(address_bytes(text))


@lru_cache(maxsize=4096)
def format_address(address: Address) -> str:
    return base58(address)
