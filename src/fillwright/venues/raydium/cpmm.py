"""Raydium CPMM: a constant product over what two vaults hold.

Source of layouts, formula and accounts: the program's published account structs (`PoolState`, `AmmConfig`) and its
instruction `swap_base_input`, compared with swaps that the program itself made (docs/venues.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

import msgspec

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime, Instruction, Trader, format_address
from fillwright.core.errors import InvalidPool, NotTradable, NotYetOpen, UnsupportedMode
from fillwright.core.programs import RAYDIUM_CPMM, SPL_TOKEN
from fillwright.core.units import U64_MAX, BaseUnits
from fillwright.venues.addresses import derive
from fillwright.venues.mints import TransferFee, balance, transfer_fee
from fillwright.venues.pool import (
    Layout,
    Policy,
    PoolQuote,
    PoolType,
    impact_bps,
    no_room,
    unpayable,
    unswappable,
)

RATE: Final = 1_000_000  # fee rates are millionths
SWAPS_OFF: Final = 0b100
COMPUTE_UNITS: Final = 34_000

# PoolState: config, vaults, mints, token programs, observation; status, what the vaults owe, open time, creator fee.
POOL_LAYOUT: Final = Layout(
    "CPMM pool",
    RAYDIUM_CPMM,
    bytes.fromhex("f7ede3f5d7c3de46"),
    "32s32x32s32s32x32s32s32s32s32s xB11x QQQQQ 8xBB6xQQ 224x",
)

# AmmConfig: trade fee rate, creator fee rate.
CONFIG_LAYOUT: Final = Layout("CPMM config", RAYDIUM_CPMM, bytes.fromhex("daf42168cbcb2b6f"), "4xQ88xQ120x")
CONFIG_REST: Final = slice(116, 236)  # nothing, when this was written; newer builds keep a creator fee there, too

SWAP_BASE_INPUT: Final = bytes.fromhex("8fbe5adac41e33de")
_ARGUMENTS: Final = Struct("<8sQQ")
AUTHORITY: Final = derive(RAYDIUM_CPMM, b"vault_and_lp_mint_auth_seed")


class CpmmPool(msgspec.Struct, frozen=True):
    """The reserves are what the vaults hold, less what is owed to others. `trade_fee` is in millionths."""

    address: Address
    config: Address
    vault_a: Address
    vault_b: Address
    mint_a: Address
    mint_b: Address
    program_a: Address
    program_b: Address
    observation: Address
    held_a: BaseUnits
    held_b: BaseUnits
    reserve_a: BaseUnits
    reserve_b: BaseUnits
    trade_fee: int
    is_on: bool
    open_time_s: int
    transfer_fee_a: TransferFee | None
    transfer_fee_b: TransferFee | None

    @property
    def accounts(self) -> tuple[Address, ...]:
        mints = (self.mint_a, self.mint_b) if self.transfer_fee_a or self.transfer_fee_b else ()
        return (self.address, self.config, self.vault_a, self.vault_b, *mints)

    def quote(self, amount: BaseUnits, a_to_b: bool, at: ChainTime) -> PoolQuote:
        """Return what a swap of `amount` pays. Raise NotTradable, NotYetOpen, AmountTooSmall or AmountOverflow."""
        if not 0 < amount <= U64_MAX:
            raise unswappable(amount)
        if not self.is_on:
            raise NotTradable(f"swaps are switched off in the pool {format_address(self.address)}: take another pool")
        if at.unix_time_s < self.open_time_s:
            raise NotYetOpen(f"the pool {format_address(self.address)} opens at Unix time {self.open_time_s}")
        if a_to_b:
            held_in, reserve_in, reserve_out = self.held_a, self.reserve_a, self.reserve_b
            fee_in, fee_out = self.transfer_fee_a, self.transfer_fee_b
        else:
            held_in, reserve_in, reserve_out = self.held_b, self.reserve_b, self.reserve_a
            fee_in, fee_out = self.transfer_fee_b, self.transfer_fee_a
        arriving = amount if fee_in is None else amount - fee_in.of(amount, at.epoch)
        if held_in + arriving > U64_MAX:
            raise no_room(self.address)
        trade_fee = (arriving * self.trade_fee + RATE - 1) // RATE
        swapped = arriving - trade_fee
        gross = swapped * reserve_out // (reserve_in + swapped) if swapped > 0 else 0
        received = gross if fee_out is None else gross - fee_out.of(gross, at.epoch)
        if not 0 < received <= U64_MAX:
            raise unpayable(received, self.address)
        return PoolQuote(
            amount,
            received,
            a_to_b,
            trade_fee,
            True,
            impact_bps(swapped, gross, reserve_in, reserve_out),
            COMPUTE_UNITS,
        )

    def swap(self, quote: PoolQuote, min_out_amount: BaseUnits, trader: Trader) -> Instruction:
        """Return `swap_base_input` for the quote."""
        a = (self.vault_a, self.program_a, self.mint_a)
        b = (self.vault_b, self.program_b, self.mint_b)
        (vault_in, program_in, mint_in), (vault_out, program_out, mint_out) = (a, b) if quote.a_to_b else (b, a)
        return Instruction(
            RAYDIUM_CPMM,
            (
                AccountMeta(trader.wallet, is_signer=True),
                AccountMeta(AUTHORITY),
                AccountMeta(self.config),
                AccountMeta(self.address, is_writable=True),
                AccountMeta(trader.in_account, is_writable=True),
                AccountMeta(trader.out_account, is_writable=True),
                AccountMeta(vault_in, is_writable=True),
                AccountMeta(vault_out, is_writable=True),
                AccountMeta(program_in),
                AccountMeta(program_out),
                AccountMeta(mint_in),
                AccountMeta(mint_out),
                AccountMeta(self.observation, is_writable=True),
            ),
            _ARGUMENTS.pack(SWAP_BASE_INPUT, quote.in_amount, min_out_amount),
        )


def wanted(address: Address, accounts: Mapping[Address, Account]) -> tuple[Address, ...]:
    """Return the accounts that a quote depends on: config, vaults, mints."""
    _, *keys = POOL_LAYOUT.unpack(accounts, address)[:6]
    return (address, *keys)


def decode(address: Address, accounts: Mapping[Address, Account], policy: Policy) -> CpmmPool:  # noqa: ARG001  # as every pool type
    """Return the pool. Raise UnknownLayout, InvalidPool, UnsupportedMode, UnsupportedToken or MissingAccount."""
    (
        _, config, vault_a, vault_b, mint_a, mint_b, program_a, program_b, observation,
        status, protocol_fees_a, protocol_fees_b, fund_fees_a, fund_fees_b, open_time_s,
        creator_fee_on, enable_creator_fee, creator_fees_a, creator_fees_b,
    ) = POOL_LAYOUT.unpack(accounts, address)  # fmt: skip
    _, trade_fee, creator_fee = CONFIG_LAYOUT.unpack(accounts, config)
    if enable_creator_fee > 1 or creator_fee_on > 2:
        raise UnsupportedMode(f"the pool {format_address(address)} takes a creator fee in a way that is not known")
    if enable_creator_fee and (creator_fee or any(accounts[config].data[CONFIG_REST])):
        raise UnsupportedMode(f"the pool {format_address(address)} takes a creator fee, which is not modelled")
    if trade_fee > RATE:
        raise InvalidPool(f"the pool {format_address(address)} takes more than all as its fee")
    held_a = balance(accounts, vault_a, mint_a, program_a)
    held_b = balance(accounts, vault_b, mint_b, program_b)
    reserve_a = held_a - protocol_fees_a - fund_fees_a - creator_fees_a
    reserve_b = held_b - protocol_fees_b - fund_fees_b - creator_fees_b
    if reserve_a < 0 or reserve_b < 0:
        raise InvalidPool(f"the pool {format_address(address)} owes more than its vaults hold")
    # Most tokens are of SPL Token, and cost no call.
    return CpmmPool(
        address, config, vault_a, vault_b, mint_a, mint_b, program_a, program_b, observation,
        held_a, held_b, reserve_a, reserve_b, trade_fee, not status & SWAPS_OFF, open_time_s,
        None if program_a == SPL_TOKEN else transfer_fee(accounts, mint_a, program_a),
        None if program_b == SPL_TOKEN else transfer_fee(accounts, mint_b, program_b),
    )  # fmt: skip


CPMM: Final = PoolType("cpmm", "raydium", POOL_LAYOUT, mints_at=(168, 200), wanted=wanted, decode=decode)
