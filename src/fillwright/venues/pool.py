"""What every pool type has in common, and how to think about them.

A pool type is three pure parts in one module. `decode` turns the bytes of the pool and the accounts that it names into
a frozen pool; `quote` says what a swap of an exact in amount would pay, to the unit; `swap` writes the instruction.
There is no I/O in them and no float, and every division says which way it rounds, as the program on the chain does.

The rule of the house is to **refuse, never guess**: what a module does not model raises a `QuoteRefused` that says so.

A pool has two sides, here called A and B whatever the program calls them (0 and 1, coin and pc, X and Y). Amounts are
base units. What `quote` returns as `out_amount` is what arrives in the trader's account, after every fee.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, Literal, Protocol

import msgspec

from fillwright.core.accounts import Account, Address, ChainTime, Instruction, Trader, format_address
from fillwright.core.errors import AmountOverflow, AmountTooSmall, MissingAccount, UnknownLayout
from fillwright.core.units import BPS, BaseUnits, Bps

Q64: Final = 2**64


class PoolQuote(msgspec.Struct, frozen=True):
    """What a pool pays for exactly `in_amount`.

    `fee_amount` is what the pool itself keeps, in the in token if `is_fee_on_input`, else in the out token.
    `price_impact_bps` is how far below the pool's price of the moment the swap is made, fees aside, rounded up.
    `path` are the tick or bin arrays that the swap walks, in order. `compute_units` is an estimate.
    """

    in_amount: BaseUnits
    out_amount: BaseUnits
    a_to_b: bool
    fee_amount: BaseUnits
    is_fee_on_input: bool
    price_impact_bps: Bps
    compute_units: int
    path: tuple[Address, ...] = ()


class Policy(msgspec.Struct, frozen=True):
    """What operators decide about pools.

    `amm_v4_fee`: programs deployed since August 2025 round the fee of a swap up (`current`); older builds charge
    nothing where it is less than half a unit (`legacy`). `current` never quotes more than `legacy` does.
    `unproven_transfer_fees`: quote pools of types for which transfer fees are known from documentation alone.
    """

    amm_v4_fee: Literal["current", "legacy"] = "current"
    unproven_transfer_fees: bool = False


class Pool(Protocol):
    """A decoded pool. `accounts` are those that every quote of it depends on, whatever the amount."""

    @property
    def address(self) -> Address: ...
    @property
    def mint_a(self) -> Address: ...
    @property
    def mint_b(self) -> Address: ...
    @property
    def accounts(self) -> tuple[Address, ...]: ...

    def quote(self, amount: BaseUnits, a_to_b: bool, at: ChainTime) -> PoolQuote:
        """Return what a swap of `amount` pays. Raise QuoteRefused."""

    def swap(self, quote: PoolQuote, min_out_amount: BaseUnits, trader: Trader) -> Instruction:
        """Return the instruction that makes the quoted swap, or fails if it would pay less than `min_out_amount`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How accounts of one kind are told from all others, and what is in them.

    `fields` are those behind the discriminator, in the format of `struct`; parts of a large account that are read by
    themselves are only counted (`x`). They cover the account: nothing may follow unless `is_open_ended`.
    """

    what: str
    owner: Address
    discriminator: bytes
    fields: str
    _: KW_ONLY
    is_open_ended: bool = False
    length: int = field(init=False)
    _unpack: Callable[[bytes], tuple[Any, ...]] = field(init=False)

    def __post_init__(self) -> None:
        layout = struct.Struct(f"<{len(self.discriminator)}s{self.fields}")
        object.__setattr__(self, "length", layout.size)
        object.__setattr__(self, "_unpack", layout.unpack_from if self.is_open_ended else layout.unpack)

    def fits(self, account: Account) -> bool:
        data = account.data
        return (
            account.owner == self.owner
            and data.startswith(self.discriminator)
            and (len(data) == self.length or (self.is_open_ended and len(data) > self.length))
        )

    def resembles(self, account: Account) -> bool:
        """Return whether an account was meant to be of this kind, and is not: its length is another."""
        is_named = account.owner == self.owner and self.discriminator and account.data.startswith(self.discriminator)
        return bool(is_named) and not self.fits(account)

    def read(self, accounts: Mapping[Address, Account], address: Address) -> bytes:
        """Return the data of an account that is of this kind. Raise MissingAccount or UnknownLayout."""
        account = accounts.get(address)
        if account is None or not self.fits(account):
            raise self.refusal(account, address)
        return account.data

    def unpack(self, accounts: Mapping[Address, Account], address: Address) -> tuple[Any, ...]:
        """Return the discriminator and the fields of an account of this kind. Raise MissingAccount or UnknownLayout."""
        try:
            account = accounts[address]
            fields = self._unpack(account.data)
        except (KeyError, struct.error):
            raise self.refusal(accounts.get(address), address) from None
        if fields[0] != self.discriminator or account.owner != self.owner:
            raise self.refusal(account, address)
        return fields

    def refusal(self, account: Account | None, address: Address) -> MissingAccount | UnknownLayout:
        """Return why an account is not of this kind."""
        name = format_address(address)
        if account is None:
            return MissingAccount(f"the {self.what} {name} is missing: read the pool anew, with all its accounts")
        data = account.data
        if account.owner != self.owner:
            why = f"its owner is {format_address(account.owner)}"
        elif not data.startswith(self.discriminator):
            why = f"it begins with {data[:8].hex()}"
        else:
            why = f"it has {len(data)} bytes, not {'at least ' if self.is_open_ended else ''}{self.length}"
        return UnknownLayout(
            f"{name} is no {self.what} as this version knows it: {why}; the program may have been upgraded"
        )


@dataclass(frozen=True, slots=True)
class PoolType:
    """How the accounts of a pool type are told apart, and what makes a pool of them.

    `wanted` names the accounts that a pool's quotes depend on, as far as they follow from those at hand: it is asked
    again with those, until it names no new one. `mints_at` is where the pool's account holds its two mints.
    """

    name: str
    venue: str
    layout: Layout
    mints_at: tuple[int, int]
    wanted: Callable[[Address, Mapping[Address, Account]], tuple[Address, ...]]
    decode: Callable[[Address, Mapping[Address, Account], Policy], Pool]


def up(numerator: int, denominator: int) -> int:
    """Return the quotient, rounded up. Written out where a quote is so short that the call would be seen."""
    return (numerator + denominator - 1) // denominator


def unswappable(amount: BaseUnits) -> AmountTooSmall | AmountOverflow:
    """Return why nobody can swap an amount: it is not positive, or no u64."""
    if amount <= 0:
        return AmountTooSmall("nothing is to be swapped: ask for at least one base unit")
    return AmountOverflow("the amount is larger than any account can hold (2^64 - 1 base units)")


def unpayable(amount: BaseUnits, pool: Address) -> AmountTooSmall | AmountOverflow:
    """Return why a pool cannot pay an amount: it is not positive, or no u64."""
    if amount <= 0:
        return AmountTooSmall(f"the pool {format_address(pool)} would pay nothing for so little: swap more")
    return AmountOverflow(f"the pool {format_address(pool)} would pay more than an account can hold: swap less")


def no_room(pool: Address) -> AmountOverflow:
    """Return why a pool cannot take an amount: an account or counter of it would be no u64 any more."""
    return AmountOverflow(f"the pool {format_address(pool)} cannot hold so much: swap less")


def impact_bps(in_net: BaseUnits, out_gross: BaseUnits, price_in: int, price_out: int) -> Bps:
    """Return how far a swap falls short of the price of the moment, `price_out` for `price_in`, rounded up.

    `in_net` is what reaches the curve and `out_gross` what leaves it, so that fees do not count.
    """
    fair = in_net * price_out
    short = BPS - BPS * out_gross * price_in // fair if fair else 0
    return short if short > 0 else 0
