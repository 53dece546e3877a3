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
from fillwright.core.programs import RAYDIUM_CPMM
from fillwright.core.units import BaseUnits
from fillwright.venues.addresses import derive
from fillwright.venues.mints import TransferFee, balance, transfer_fee
from fillwright.venues.pool import (
    Layout,
    Policy,
    PoolQuote,
    PoolType,
    check_amount,
    check_received,
    check_room,
    impact_bps,
    up,
)

RATE: Final = 1_000_000  # fee rates are millionths
SWAPS_OFF: Final = 0b100
COMPUTE_UNITS: Final = 34_000

# PoolState, 637 bytes: config, vaults, mints, token programs; status, what the vaults owe, open time, creator fee.
POOL_BYTES: Final = 637
POOL_STATE: Final = bytes.fromhex("f7ede3f5d7c3de46")
POOL_LAYOUT: Final = Layout("CPMM pool", RAYDIUM_CPMM, POOL_BYTES, POOL_STATE)
_POOL: Final = Struct("<8x32s32x32s32s32x32s32s32s32s32sxB11xQQQQQ8xBB6xQQ")
_KEYS: Final = Struct("<8x32s32x32s32s32x32s32s")

# AmmConfig, 236 bytes: trade fee rate, creator fee rate.
CONFIG_BYTES: Final = 236
AMM_CONFIG: Final = bytes.fromhex("daf42168cbcb2b6f")
CONFIG_LAYOUT: Final = Layout("CPMM config", RAYDIUM_CPMM, CONFIG_BYTES, AMM_CONFIG)
_CONFIG: Final = Struct("<12xQ88xQ")
_CONFIG_TAIL: Final = slice(116, 236)

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
        check_amount(amount)
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
        check_room(held_in, arriving, self.address)
        trade_fee = up(arriving * self.trade_fee, RATE)
        swapped = arriving - trade_fee
        gross = swapped * reserve_out // (reserve_in + swapped) if swapped > 0 else 0
        received = gross if fee_out is None else gross - fee_out.of(gross, at.epoch)
        return PoolQuote(
            amount,
            check_received(received, self.address),
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
    return (address, *_KEYS.unpack_from(POOL_LAYOUT.read(accounts, address)))


def decode(address: Address, accounts: Mapping[Address, Account], policy: Policy) -> CpmmPool:  # noqa: ARG001  # as every pool type
    """Return the pool. Raise UnknownLayout, InvalidPool, UnsupportedMode, UnsupportedToken or MissingAccount."""
    (
        config, vault_a, vault_b, mint_a, mint_b, program_a, program_b, observation,
        status, protocol_fees_a, protocol_fees_b, fund_fees_a, fund_fees_b, open_time_s,
        creator_fee_on, enable_creator_fee, creator_fees_a, creator_fees_b,
    ) = _POOL.unpack_from(POOL_LAYOUT.read(accounts, address))  # fmt: skip
    settings = CONFIG_LAYOUT.read(accounts, config)
    trade_fee, creator_fee = _CONFIG.unpack_from(settings)
    if enable_creator_fee > 1 or creator_fee_on > 2:
        raise UnsupportedMode(f"the pool {format_address(address)} takes a creator fee in a way that is not known")
    if enable_creator_fee and (creator_fee or any(settings[_CONFIG_TAIL])):
        raise UnsupportedMode(f"the pool {format_address(address)} takes a creator fee, which is not modelled")
    if trade_fee > RATE:
        raise InvalidPool(f"the pool {format_address(address)} takes more than all as its fee")
    held_a = balance(accounts, vault_a, mint_a, program_a)
    held_b = balance(accounts, vault_b, mint_b, program_b)
    reserve_a = held_a - protocol_fees_a - fund_fees_a - creator_fees_a
    reserve_b = held_b - protocol_fees_b - fund_fees_b - creator_fees_b
    if reserve_a < 0 or reserve_b < 0:
        raise InvalidPool(f"the pool {format_address(address)} owes more than its vaults hold")
    return CpmmPool(
        address, config, vault_a, vault_b, mint_a, mint_b, program_a, program_b, observation,
        held_a, held_b, reserve_a, reserve_b, trade_fee, not status & SWAPS_OFF, open_time_s,
        transfer_fee(accounts, mint_a, program_a), transfer_fee(accounts, mint_b, program_b),
    )  # fmt: skip


CPMM: Final = PoolType("cpmm", "raydium", POOL_LAYOUT, mints_at=(168, 200), wanted=wanted, decode=decode)
