"""Token accounts and mints, of SPL Token and of Token-2022.

Layouts: `Account` and `Mint` of the SPL Token program. Token-2022 uses the same and appends extensions: a mint is
padded to 165 bytes, byte 165 says what the account is, and from 166 on come entries of type u16, length u16, value.

A mint's extensions decide whether amounts can be computed at all. Those in `HARMLESS` do not change what arrives;
`TransferFeeConfig` does so by a known rule. Every other one, known or not, is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from fillwright.core.accounts import Account, Address, format_address
from fillwright.core.errors import InvalidPool, MissingAccount, NotTradable, UnknownLayout, UnsupportedToken
from fillwright.core.programs import SPL_TOKEN, TOKEN_2022
from fillwright.core.units import BPS, BaseUnits

MINT_BYTES: Final = 82
KIND_AT: Final = 165
EXTENSIONS_AT: Final = 166
IS_MINT: Final = 1

TRANSFER_FEE_CONFIG: Final = 1
TRANSFER_HOOK: Final = 14
HARMLESS: Final = {
    3: "MintCloseAuthority",
    10: "InterestBearingConfig",
    18: "MetadataPointer",
    19: "TokenMetadata",
    20: "GroupPointer",
    21: "TokenGroup",
    22: "GroupMemberPointer",
    23: "TokenGroupMember",
    25: "ScaledUiAmount",
}

_TOKEN_ACCOUNT: Final = struct.Struct("<32s32xQ36xB56x")  # mint, amount, state (1 initialised, 2 frozen)
_MINT: Final = struct.Struct("<36xQBB36x")  # supply, decimals, is initialised
_ENTRY: Final = struct.Struct("<HH")
ENTRY_BYTES: Final = 4
_TRANSFER_FEE: Final = struct.Struct("<72xQQHQQH")  # older epoch, maximum, bps; newer epoch, maximum, bps


class TransferFee(msgspec.Struct, frozen=True):
    """What a mint withholds of each transfer: one rule before `epoch`, another from then on."""

    older_bps: int
    older_max: BaseUnits
    epoch: int
    newer_bps: int
    newer_max: BaseUnits

    def of(self, amount: BaseUnits, epoch: int) -> BaseUnits:
        """Return what is withheld of `amount`, rounded up. Source: `TransferFeeConfig` of Token-2022."""
        bps, most = (self.newer_bps, self.newer_max) if epoch >= self.epoch else (self.older_bps, self.older_max)
        withheld = (amount * bps + BPS - 1) // BPS
        return withheld if withheld < most else most


class MintInfo(msgspec.Struct, frozen=True):
    decimals: int
    program: Address
    transfer_fee: TransferFee | None


def need(accounts: Mapping[Address, Account], address: Address, what: str) -> Account:
    """Return the account. Raise MissingAccount, which says `what` it is, if it was not read."""
    account = accounts.get(address)
    if account is None:
        raise MissingAccount(f"{what} {format_address(address)} is missing: read the pool anew, with all its accounts")
    return account


def balance(accounts: Mapping[Address, Account], vault: Address, mint: Address, program: Address) -> BaseUnits:
    """Return what a token account of the mint holds. Raise UnknownLayout, MissingAccount or NotTradable."""
    try:
        account = accounts[vault]
        held_mint, amount, state = _TOKEN_ACCOUNT.unpack_from(account.data)
    except (KeyError, struct.error):
        need(accounts, vault, "the vault")
        raise _no_token_account(vault) from None
    if account.owner != program:
        raise _no_token_account(vault)
    if held_mint != mint:
        raise InvalidPool(f"the vault {format_address(vault)} holds another mint than the pool says")
    if state != 1:
        raise NotTradable(f"the vault {format_address(vault)} is frozen: take another pool")
    return amount  # type: ignore[no-any-return]  # struct knows no types


def _no_token_account(vault: Address) -> UnknownLayout:
    return UnknownLayout(f"the vault {format_address(vault)} is not a token account of the mint's program")


def read_mint(accounts: Mapping[Address, Account], mint: Address) -> MintInfo:
    """Return what the mint's account says. Raise MissingAccount, UnknownLayout or UnsupportedToken."""
    account = need(accounts, mint, "the mint")
    return parse_mint(mint, account.owner, account.data)


@lru_cache(maxsize=256)
def parse_mint(mint: Address, owner: Address, data: bytes) -> MintInfo:
    """Return what a mint says. Remembered, as few change from one read to the next. Raise as `read_mint` does."""
    if owner not in (SPL_TOKEN, TOKEN_2022):
        raise UnknownLayout(f"{format_address(mint)} is no mint: it belongs to the program {format_address(owner)}")
    is_plain = len(data) == MINT_BYTES
    if not is_plain and not (owner == TOKEN_2022 and len(data) >= EXTENSIONS_AT and data[KIND_AT] == IS_MINT):
        raise UnknownLayout(f"{format_address(mint)} is no mint: its account has {len(data)} bytes")
    _, decimals, is_initialised = _MINT.unpack_from(data)
    if is_initialised != 1:
        raise UnknownLayout(f"the mint {format_address(mint)} is not initialised")
    return MintInfo(decimals, owner, None if is_plain else _transfer_fee(data, mint))


def supply(accounts: Mapping[Address, Account], mint: Address) -> BaseUnits:
    """Return how much of a mint of SPL Token there is. Raise MissingAccount or UnknownLayout."""
    try:
        account = accounts[mint]
        amount, _, is_initialised = _MINT.unpack(account.data)
    except (KeyError, struct.error):
        need(accounts, mint, "the mint")
        raise _no_mint(mint) from None
    if account.owner != SPL_TOKEN:
        raise _no_mint(mint)
    if is_initialised != 1:
        raise UnknownLayout(f"the mint {format_address(mint)} is not initialised")
    return amount  # type: ignore[no-any-return]  # struct knows no types


def _no_mint(mint: Address) -> UnknownLayout:
    return UnknownLayout(f"{format_address(mint)} is no mint of SPL Token")


def transfer_fee(accounts: Mapping[Address, Account], mint: Address, program: Address) -> TransferFee | None:
    """Return what a mint of `program` withholds, None if nothing. Raise UnsupportedToken if that cannot be known.

    A mint of SPL Token withholds nothing, and is not asked for.
    """
    if program == SPL_TOKEN:
        return None
    if program != TOKEN_2022:
        raise UnsupportedToken(f"{format_address(program)} is no token program that is known: take another pool")
    info = read_mint(accounts, mint)
    if info.program != program:
        raise InvalidPool(f"the mint {format_address(mint)} belongs to another token program than the pool says")
    return info.transfer_fee


def _transfer_fee(data: bytes, mint: Address) -> TransferFee | None:
    found, at, end = None, EXTENSIONS_AT, len(data)
    while at + ENTRY_BYTES <= end:
        kind, length = _ENTRY.unpack_from(data, at)
        at += ENTRY_BYTES
        if kind == 0:
            break
        if at + length > end:
            raise UnknownLayout(f"the mint {format_address(mint)} ends in the middle of extension {kind}")
        if kind == TRANSFER_FEE_CONFIG:
            if length != _TRANSFER_FEE.size:
                raise UnknownLayout(f"the mint {format_address(mint)} has a TransferFeeConfig of {length} bytes")
            _, older_max, older_bps, newer_epoch, newer_max, newer_bps = _TRANSFER_FEE.unpack_from(data, at)
            if older_bps > BPS or newer_bps > BPS:
                raise UnsupportedToken(f"the mint {format_address(mint)} withholds more than all")
            found = TransferFee(older_bps, older_max, newer_epoch, newer_bps, newer_max)
        elif kind == TRANSFER_HOOK:
            if length != 64 or any(data[at + 32 : at + 64]):
                raise UnsupportedToken(
                    f"the mint {format_address(mint)} calls a transfer hook: what arrives cannot be known"
                )
        elif kind not in HARMLESS:
            raise UnsupportedToken(
                f"the mint {format_address(mint)} has extension {kind}, whose effect on a transfer is not modelled"
            )
        at += length
    return found
