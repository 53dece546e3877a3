"""What every pool type has in common, and how to think about them.

A pool type is three pure parts in one module. `decode` turns the bytes of the pool and the accounts that it names into
a frozen pool; `quote` says what a swap of an exact in amount would pay, to the unit; `swap` writes the instruction.
There is no I/O in them and no float, and every division says which way it rounds, as the program on the chain does.

The rule of the house is to **refuse, never guess**: what a module does not model raises a `QuoteRefused` that says so.

A pool has two sides, here called A and B whatever the program calls them (0 and 1, coin and pc, X and Y). Amounts are
base units. What `quote` returns as `out_amount` is what arrives in the trader's account, after every fee.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from fillwright.core.accounts import Account, Address, ChainTime, Instruction, Trader, format_address
from fillwright.core.errors import AmountOverflow, AmountTooSmall, MissingAccount, UnknownLayout
from fillwright.core.units import BPS, U64_MAX, BaseUnits, Bps

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
    """How accounts of one kind are told from all others. `length` is in bytes: exactly, or at least `is_length_min`."""

    what: str
    owner: Address
    length: int
    discriminator: bytes
    is_length_min: bool = False

    def fits(self, account: Account) -> bool:
        data = account.data
        return (
            account.owner == self.owner
            and data.startswith(self.discriminator)
            and (len(data) == self.length or (self.is_length_min and len(data) > self.length))
        )

    def read(self, accounts: Mapping[Address, Account], address: Address) -> bytes:
        """Return the data of an account that is of this kind. Raise MissingAccount or UnknownLayout."""
        account = accounts.get(address)
        if account is not None and self.fits(account):
            return account.data
        if account is not None:
            raise self._unknown(account, address)
        raise MissingAccount(
            f"the {self.what} {format_address(address)} is missing: read the pool anew, with all its accounts"
        )

    def _unknown(self, account: Account, address: Address) -> UnknownLayout:
        data = account.data
        if account.owner != self.owner:
            why = f"its owner is {format_address(account.owner)}"
        elif not data.startswith(self.discriminator):
            why = f"it begins with {data[:8].hex()}"
        else:
            why = f"it has {len(data)} bytes, not {'at least ' if self.is_length_min else ''}{self.length}"
        return UnknownLayout(
            f"{format_address(address)} is no {self.what} as this version knows it: {why}; the program may have been"
            " upgraded"
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
    """Return the quotient, rounded up."""
    return -(-numerator // denominator)


def check_amount(amount: BaseUnits) -> None:
    """Return if an amount can be swapped. Raise AmountTooSmall or AmountOverflow."""
    if amount <= 0:
        raise AmountTooSmall("nothing is to be swapped: ask for at least one base unit")
    if amount > U64_MAX:
        raise AmountOverflow("the amount is larger than any account can hold (2^64 - 1 base units)")


def check_room(held: BaseUnits, arriving: BaseUnits, pool: Address) -> None:
    """Return if an account that holds `held` can take more. Raise AmountOverflow if not."""
    if held + arriving > U64_MAX:
        raise AmountOverflow(f"the pool {format_address(pool)} cannot hold so much: swap less")


def check_received(amount: BaseUnits, pool: Address) -> BaseUnits:
    """Return what is received, if that is something and fits an account."""
    if amount <= 0:
        raise AmountTooSmall(f"the pool {format_address(pool)} would pay nothing for so little: swap more")
    if amount > U64_MAX:
        raise AmountOverflow(f"the pool {format_address(pool)} would pay more than an account can hold: swap less")
    return amount


def impact_bps(in_net: BaseUnits, out_gross: BaseUnits, price_in: int, price_out: int) -> Bps:
    """Return how far a swap falls short of the price of the moment, `price_out` for `price_in`, rounded up.

    `in_net` is what reaches the curve and `out_gross` what leaves it, so that fees do not count.
    """
    fair = in_net * price_out
    missing = fair - out_gross * price_in
    return -(-BPS * missing // fair) if missing > 0 else 0
