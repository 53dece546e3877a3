"""Raydium AMM v4: a constant product over what two vaults hold, with no order book behind it.

Source of layout, formula and accounts: the program's published `AmmInfo` and its instruction `swap_base_in`, compared
with swaps that the program itself made (docs/venues.md). It is no Anchor program: its accounts bear no discriminator.

Pools that still share an order book (status 1 and 5) are refused: part of their reserves lies in open orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final, Literal

import msgspec

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime, Instruction, Trader, format_address
from fillwright.core.errors import InvalidPool, NotTradable, NotYetOpen, OrderBookPool
from fillwright.core.programs import RAYDIUM_AMM_V4, SPL_TOKEN
from fillwright.core.units import U64_MAX, BaseUnits
from fillwright.venues.addresses import derive
from fillwright.venues.mints import balance
from fillwright.venues.pool import (
    Layout,
    Policy,
    PoolQuote,
    PoolType,
    impact_bps,
    no_room,
    unpayable,
    unswappable,
    up,
)

SWAP_ONLY: Final = 6
WAITING: Final = 7
WITH_ORDER_BOOK: Final = (1, 5)
COMPUTE_UNITS: Final = 23_000

# AmmInfo: status, nonce; swap fee; what is owed of the vaults; open time; vaults and mints.
POOL_LAYOUT: Final = Layout("AMM v4 pool", RAYDIUM_AMM_V4, b"", "QQ160x QQQQ16xQ 104x32s32s32s32s 288x")

# Who owns the vaults of every pool: the program's address with this bump, which each pool keeps as its nonce.
AUTHORITY: Final = derive(RAYDIUM_AMM_V4, b"amm authority")
AUTHORITY_NONCE: Final = 254

SWAP_BASE_IN_V2: Final = b"\x10"
_ARGUMENTS: Final = Struct("<cQQ")


class AmmV4Pool(msgspec.Struct, frozen=True):
    """The reserves are what the vaults hold, less what is owed. Side A is the coin, side B what it is priced in."""

    address: Address
    vault_a: Address
    vault_b: Address
    mint_a: Address
    mint_b: Address
    held_a: BaseUnits
    held_b: BaseUnits
    reserve_a: BaseUnits
    reserve_b: BaseUnits
    fee_numerator: int
    fee_denominator: int
    fee_rule: Literal["current", "legacy"]
    status: int
    open_time_s: int

    @property
    def accounts(self) -> tuple[Address, ...]:
        return (self.address, self.vault_a, self.vault_b)

    def quote(self, amount: BaseUnits, a_to_b: bool, at: ChainTime) -> PoolQuote:
        """Return what a swap of `amount` pays. Raise NotTradable, NotYetOpen, AmountTooSmall or AmountOverflow."""
        if not 0 < amount <= U64_MAX:
            raise unswappable(amount)
        if self.status == WAITING:
            if at.unix_time_s < self.open_time_s:
                raise NotYetOpen(f"the pool {format_address(self.address)} opens at Unix time {self.open_time_s}")
        elif self.status != SWAP_ONLY:
            raise NotTradable(f"swaps are switched off in the pool {format_address(self.address)}: take another pool")
        reserve_in, reserve_out = (self.reserve_a, self.reserve_b) if a_to_b else (self.reserve_b, self.reserve_a)
        if (self.held_a if a_to_b else self.held_b) + amount > U64_MAX:
            raise no_room(self.address)
        fee = self._fee(amount)
        swapped = amount - fee
        received = swapped * reserve_out // (reserve_in + swapped) if swapped > 0 else 0
        if not 0 < received <= U64_MAX:
            raise unpayable(received, self.address)
        return PoolQuote(
            amount,
            received,
            a_to_b,
            fee,
            True,
            impact_bps(swapped, received, reserve_in, reserve_out),
            COMPUTE_UNITS,
        )

    def _fee(self, amount: BaseUnits) -> BaseUnits:
        """Return the fee, rounded up, except that older builds round what is less than one unit to the nearest."""
        owed = amount * self.fee_numerator
        if self.fee_rule == "legacy" and owed < self.fee_denominator:
            return int(2 * owed >= self.fee_denominator)
        return up(owed, self.fee_denominator)

    def swap(self, quote: PoolQuote, min_out_amount: BaseUnits, trader: Trader) -> Instruction:
        """Return `swap_base_in_v2` for the quote: the form without an order book's accounts."""
        return Instruction(
            RAYDIUM_AMM_V4,
            (
                AccountMeta(SPL_TOKEN),
                AccountMeta(self.address, is_writable=True),
                AccountMeta(AUTHORITY),
                AccountMeta(self.vault_a, is_writable=True),
                AccountMeta(self.vault_b, is_writable=True),
                AccountMeta(trader.in_account, is_writable=True),
                AccountMeta(trader.out_account, is_writable=True),
                AccountMeta(trader.wallet, is_signer=True),
            ),
            _ARGUMENTS.pack(SWAP_BASE_IN_V2, quote.in_amount, min_out_amount),
        )


def wanted(address: Address, accounts: Mapping[Address, Account]) -> tuple[Address, ...]:
    """Return the accounts that a quote depends on: vaults; and the mints, which say how many decimals they have."""
    *_, vault_a, vault_b, mint_a, mint_b = POOL_LAYOUT.unpack(accounts, address)
    return (address, vault_a, vault_b, mint_a, mint_b)


def decode(address: Address, accounts: Mapping[Address, Account], policy: Policy) -> AmmV4Pool:
    """Return the pool. Raise UnknownLayout, InvalidPool, OrderBookPool, NotTradable or MissingAccount."""
    (
        _, status, nonce, fee_numerator, fee_denominator, owed_a, owed_b, open_time_s,
        vault_a, vault_b, mint_a, mint_b,
    ) = POOL_LAYOUT.unpack(accounts, address)  # fmt: skip
    if status in WITH_ORDER_BOOK:
        raise OrderBookPool(
            f"part of what the pool {format_address(address)} holds lies in an order book, which is not modelled:"
            " take another pool"
        )
    if nonce != AUTHORITY_NONCE:
        raise InvalidPool(
            f"the vaults of the pool {format_address(address)} belong to another authority than all others'"
        )
    if fee_denominator == 0 or fee_numerator > fee_denominator:
        raise InvalidPool(f"the pool {format_address(address)} takes more than all as its fee")
    # The program serves SPL Token alone: a vault of Token-2022 is refused there.
    held_a = balance(accounts, vault_a, mint_a, SPL_TOKEN)
    held_b = balance(accounts, vault_b, mint_b, SPL_TOKEN)
    reserve_a, reserve_b = held_a - owed_a, held_b - owed_b
    if reserve_a < 0 or reserve_b < 0:
        raise InvalidPool(f"the pool {format_address(address)} owes more than its vaults hold")
    return AmmV4Pool(
        address, vault_a, vault_b, mint_a, mint_b, held_a, held_b, reserve_a, reserve_b,
        fee_numerator, fee_denominator, policy.amm_v4_fee, status, open_time_s,
    )  # fmt: skip


AMM_V4: Final = PoolType("amm_v4", "raydium", POOL_LAYOUT, mints_at=(400, 432), wanted=wanted, decode=decode)
