"""Transactions, built: the instructions around the swaps of a route, their order, and the message that is signed.

In this order: compute budget, memo, token accounts (created where they are missing), SOL wrapped, swaps, tip, SOL
unwrapped. All of it is one transaction, so that all of it happens or nothing does.

Layouts: instruction data of the compute budget, memo, associated token, token and system programs of Solana.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import pack
from typing import TypeAlias

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta as SoldersAccountMeta
from solders.instruction import Instruction as SoldersInstruction
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey

from fillwright.core.accounts import AccountMeta, Address, Instruction
from fillwright.core.errors import TransactionTooLarge
from fillwright.core.programs import (
    ASSOCIATED_TOKEN,
    COMPUTE_BUDGET,
    MEMO,
    PACKET_BYTES,
    SIGNATURE_LAMPORTS,
    SOL_MINT,
    SPL_TOKEN,
    SYSTEM,
)
from fillwright.core.units import BaseUnits

Tables: TypeAlias = Sequence[tuple[Address, Sequence[Address]]]
"""Address lookup tables, and what stands in them."""


@dataclass(frozen=True, slots=True)
class TokenAccount:
    """The wallet's account of a mint; `exists` says whether it is there already."""

    mint: Address
    program: Address
    address: Address
    exists: bool


@dataclass(frozen=True, slots=True)
class Tip:
    account: Address
    lamports: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a transaction is to do: `accounts` are the wallet's, of every mint on the way, that of the in token first.

    `wrapped` is how much SOL the swaps sell, 0 if none.
    """

    wallet: Address
    memo: str
    accounts: Sequence[TokenAccount]
    wrapped: BaseUnits
    swaps: Sequence[Instruction]
    tip: Tip | None = None


def instructions(plan: Plan, units: int, micro_lamports: int, *, unwraps: bool = True) -> list[Instruction]:
    """Return what the transaction does, in order, with so many compute units at that price.

    Without `unwraps`, SOL is left wrapped at the end: a simulation of that shows how much there is.
    """
    made = [
        Instruction(COMPUTE_BUDGET, (), b"\x02" + pack("<I", units)),
        Instruction(COMPUTE_BUDGET, (), b"\x03" + pack("<Q", micro_lamports)),
        Instruction(MEMO, (), plan.memo.encode()),
        *_opened(plan),
        *plan.swaps,
    ]
    if plan.tip is not None:
        made.append(_transfer(plan.wallet, plan.tip.account, plan.tip.lamports))
    if unwraps:
        # An account that was there before may hold more than this order's: it stays.
        made += (_closed(each, plan.wallet) for each in plan.accounts if each.mint == SOL_MINT and not each.exists)
    return made


def message(
    made: Sequence[Instruction],
    payer: Address,
    blockhash: Hash,
    tables: Sequence[tuple[Address, Sequence[Address]]] = (),
) -> bytes:
    """Return the serialized v0 message, made smaller by the lookup tables. Raise TransactionTooLarge if that fails."""
    compiled = MessageV0.try_compile(
        Pubkey.from_bytes(payer),
        [_of_solders(each) for each in made],
        [
            AddressLookupTableAccount(Pubkey.from_bytes(key), [Pubkey.from_bytes(each) for each in addresses])
            for key, addresses in tables
        ],
        blockhash,
    )
    raw = bytes(to_bytes_versioned(compiled))
    size = 1 + 64 + len(raw)
    if size > PACKET_BYTES:
        raise TransactionTooLarge(
            f"the transaction has {size} bytes, and {PACKET_BYTES} are the most: a route over fewer pools, or an"
            " address lookup table (FILLWRIGHT_LOOKUP_TABLES), makes it smaller"
        )
    return raw


def signed(raw_message: bytes, signature: bytes) -> bytes:
    """Return the transaction's bytes as they are sent: one signature, then the message."""
    return b"\x01" + signature + raw_message


def unsigned(raw_message: bytes) -> bytes:
    """Return a transaction to simulate, with a signature of zeros."""
    return signed(raw_message, bytes(64))


def associated_account(wallet: Address, mint: Address, program: Address) -> Address:
    """Return the address of the wallet's token account: derived from wallet, token program and mint."""
    seeds = [wallet, program, mint]
    return Address(bytes(Pubkey.find_program_address(seeds, Pubkey.from_bytes(ASSOCIATED_TOKEN))[0]))


def fee_lamports(units: int, micro_lamports: int) -> int:
    """Return what a transaction with one signature pays: the priority fee is for all units that it may use."""
    return SIGNATURE_LAMPORTS + -(-units * micro_lamports // 1_000_000)


def _opened(plan: Plan) -> Iterator[Instruction]:
    """Make sure that every token account is there, and put SOL that is sold into the one for wrapped SOL."""
    for each in plan.accounts:
        if not each.exists or each.mint == SOL_MINT:
            yield _created(each, plan.wallet)
    if plan.wrapped:
        (sol,) = (each for each in plan.accounts if each.mint == SOL_MINT)
        yield _transfer(plan.wallet, sol.address, plan.wrapped)
        yield Instruction(SPL_TOKEN, (AccountMeta(sol.address, is_writable=True),), b"\x11")  # SyncNative


def _created(account: TokenAccount, wallet: Address) -> Instruction:
    """CreateIdempotent of the associated token program."""
    return Instruction(
        ASSOCIATED_TOKEN,
        (
            AccountMeta(wallet, is_signer=True, is_writable=True),
            AccountMeta(account.address, is_writable=True),
            AccountMeta(wallet),
            AccountMeta(account.mint),
            AccountMeta(SYSTEM),
            AccountMeta(account.program),
        ),
        b"\x01",
    )


def _transfer(source: Address, target: Address, lamports: int) -> Instruction:
    metas = (AccountMeta(source, is_signer=True, is_writable=True), AccountMeta(target, is_writable=True))
    return Instruction(SYSTEM, metas, pack("<IQ", 2, lamports))


def _closed(account: TokenAccount, wallet: Address) -> Instruction:
    """CloseAccount: what it holds, and its rent, go to the wallet as SOL."""
    metas = (
        AccountMeta(account.address, is_writable=True),
        AccountMeta(wallet, is_writable=True),
        AccountMeta(wallet, is_signer=True),
    )
    return Instruction(SPL_TOKEN, metas, b"\x09")


def _of_solders(instruction: Instruction) -> SoldersInstruction:
    metas = [
        SoldersAccountMeta(Pubkey.from_bytes(each.address), each.is_signer, each.is_writable)
        for each in instruction.accounts
    ]
    return SoldersInstruction(Pubkey.from_bytes(instruction.program), instruction.data, metas)
