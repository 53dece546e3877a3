"""Transactions that call emulated programs, rewritten into ones that the virtual machine can execute.

A swap becomes the transfers that its program would make, with the pool's authority as one more signer; all else in the
transaction stays and runs for real. The machine checks no signatures, as the chain has checked the original's. Where a
program refuses, the rewritten transaction ends with an instruction that is bound to fail, so that what comes before has
its say first and the fee is charged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import pack, unpack_from
from typing import Any, Final, TypeAlias

from solders.instruction import AccountMeta as SoldersMeta
from solders.instruction import Instruction
from solders.message import Message, MessageV0, MessageV1
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from fillwright.core.accounts import AccountMeta, Address
from fillwright.core.programs import (
    METEORA_DAMM_V1,
    METEORA_DAMM_V2,
    METEORA_DLMM,
    RAYDIUM_AMM_V4,
    RAYDIUM_CLMM,
    RAYDIUM_CPMM,
    SPL_TOKEN,
)
from fillwright.localnet.program import Call, Minting, Movement, NotEmulated, Program, ProgramFailed, State
from fillwright.localnet.programs import amm_v4, clmm, cpmm, damm_v1, damm_v2, dlmm

Json: TypeAlias = Any
Resolve: TypeAlias = Callable[[Pubkey], "bytes | None"]

PROGRAMS: Final[Mapping[Address, Program]] = {
    RAYDIUM_CPMM: cpmm.swap,
    RAYDIUM_AMM_V4: amm_v4.swap,
    RAYDIUM_CLMM: clmm.swap,
    METEORA_DAMM_V2: damm_v2.swap,
    METEORA_DLMM: dlmm.swap,
    METEORA_DAMM_V1: damm_v1.swap,
}

COMPUTE_BUDGET: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
SYSTEM: Final = Pubkey.default()
UNITS_PER_INSTRUCTION: Final = 200_000
UNITS_PER_BUILTIN: Final = 3_000
UNITS_MAX: Final = 1_400_000
SET_UNIT_LIMIT: Final = 2
TABLE_HEADER_BYTES: Final = 56
DECIMALS_AT: Final = 44

_TRANSFER, _TRANSFER_CHECKED, _MINT_TO, _BURN = 3, 12, 7, 8
_BOUND_TO_FAIL: Final = Instruction(Pubkey.from_bytes(SPL_TOKEN), b"\xff", [])


@dataclass(frozen=True, slots=True)
class Resolved:
    """A transaction's accounts in the order of their indexes, with those that it takes from lookup tables."""

    keys: tuple[Pubkey, ...]
    signers: int
    writable: tuple[bool, ...]
    loaded_writable: tuple[Pubkey, ...] = ()
    loaded_readonly: tuple[Pubkey, ...] = ()

    def metas(self, indexes: bytes) -> list[SoldersMeta]:
        return [SoldersMeta(self.keys[i], i < self.signers, self.writable[i]) for i in indexes]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What the machine executes in a transaction's stead.

    `origins` says for each of its instructions which one of the original it comes from. `refusal` is why a program
    refused, with that instruction's index. `writes` are the programs' own accounts after it, `compute_units` what the
    programs would have taken, and `signers_added` by how many signatures it costs more.
    """

    transaction: VersionedTransaction
    origins: tuple[int, ...]
    refusal: tuple[int, Pubkey, ProgramFailed] | None
    writes: Mapping[Address, bytes]
    compute_units: int
    unit_limit: int
    last_call: int
    signers_added: int


def resolve(message: Message | MessageV0 | MessageV1, read: Resolve) -> Resolved | None:
    """Return the accounts of a message. None if a lookup table does not exist or is too short, or for version 1."""
    if isinstance(message, MessageV1):  # no cluster takes them yet
        return None
    header, keys = message.header, list(message.account_keys)
    signers = header.num_required_signatures
    writable = [
        i < signers - header.num_readonly_signed_accounts
        if i < signers
        else i < len(keys) - header.num_readonly_unsigned_accounts
        for i in range(len(keys))
    ]
    loaded: tuple[list[Pubkey], list[Pubkey]] = ([], [])
    for lookup in message.address_table_lookups if isinstance(message, MessageV0) else ():
        data = read(lookup.account_key)
        if data is None:
            return None
        table = [data[at : at + 32] for at in range(TABLE_HEADER_BYTES, len(data) - 31, 32)]
        for indexes, into in zip((lookup.writable_indexes, lookup.readonly_indexes), loaded, strict=True):
            if any(i >= len(table) for i in indexes):
                return None
            into.extend(Pubkey.from_bytes(table[i]) for i in indexes)
    return Resolved(
        (*keys, *loaded[0], *loaded[1]),
        signers,
        (*writable, *[True] * len(loaded[0]), *[False] * len(loaded[1])),
        tuple(loaded[0]),
        tuple(loaded[1]),
    )


def rewrite(transaction: VersionedTransaction, resolved: Resolved, state: State) -> Rewritten | None:
    """Return what to execute instead, None if the transaction calls no emulated program."""
    compiled = transaction.message.instructions
    programs = [resolved.keys[each.program_id_index] for each in compiled]
    if not any(bytes(program) in PROGRAMS for program in programs):
        return None
    instructions = list[Instruction]()
    origins = list[int]()
    writes = dict[Address, bytes]()
    authorities = set[Address]()
    units, last_call, refusal = 0, 0, None
    for index, (each, program) in enumerate(zip(compiled, programs, strict=True)):
        metas = resolved.metas(each.accounts)
        emulated = PROGRAMS.get(Address(bytes(program)))
        if emulated is None:
            made = [Instruction(program, each.data, metas)]
        else:
            last_call = index
            try:
                effect = emulated(_call(program, metas, each.data, state))
                made = [_token_instruction(move, state) for move in effect.movements]
            except ProgramFailed as error:
                refusal = (index, program, error)
                instructions.append(_BOUND_TO_FAIL)
                origins.append(index)
                break
            state.apply(effect)
            authorities |= {move.authority for move in effect.movements}
            units += effect.compute_units
            writes.update(effect.writes)
        instructions += made
        origins += [index] * len(made)
    # A pool's authority signs for its own transfers; no other instruction may make use of that.
    borrowed = {Pubkey.from_bytes(each) for each in authorities} - set(resolved.keys[: resolved.signers])
    for index, (each, program) in enumerate(zip(compiled, programs, strict=True)):
        if bytes(program) not in PROGRAMS and borrowed & {meta.pubkey for meta in resolved.metas(each.accounts)}:
            refusal = (index, program, NotEmulated("instructions of others that name a pool's authority"))
            instructions, origins, writes, units = [_BOUND_TO_FAIL], [index], {}, 0
            break
    limit, is_said = unit_limit(programs, [each.data for each in compiled])
    if not is_said:  # it would follow from the number of instructions, which is another one now
        instructions.insert(0, Instruction(COMPUTE_BUDGET, pack("<BI", SET_UNIT_LIMIT, limit), []))
        origins.insert(0, 0)
    message = MessageV0.try_compile(resolved.keys[0], instructions, [], transaction.message.recent_blockhash)
    signers = message.header.num_required_signatures
    return Rewritten(
        VersionedTransaction.populate(message, [Signature.default()] * signers),
        tuple(origins),
        refusal,
        writes,
        units,
        limit,
        last_call,
        signers - resolved.signers,
    )


def unit_limit(programs: Sequence[Pubkey], data: Sequence[bytes]) -> tuple[int, bool]:
    """Return how many compute units a transaction may take, and whether it says so itself."""
    for program, each in zip(programs, data, strict=True):
        if program == COMPUTE_BUDGET and len(each) >= 5 and each[0] == SET_UNIT_LIMIT:
            return min(unpack_from("<I", each, 1)[0], UNITS_MAX), True
    usual = sum(UNITS_PER_BUILTIN if each in (COMPUTE_BUDGET, SYSTEM) else UNITS_PER_INSTRUCTION for each in programs)
    return min(usual, UNITS_MAX), False


def error_of_original(error: Json, rewritten: Rewritten, original: Resolved) -> Json:
    """Return an error of the rewritten transaction as the original's, with its indexes and reasons."""
    if not isinstance(error, dict):
        return error
    if "InstructionError" in error:
        at, why = error["InstructionError"]
        refusal = rewritten.refusal
        if refusal is not None and at == len(rewritten.origins) - 1:
            why = refusal[2].error
        return {"InstructionError": [rewritten.origins[at], why]}
    for name, about in error.items():
        if isinstance(about, dict) and "account_index" in about:
            key = rewritten.transaction.message.account_keys[about["account_index"]]
            if key in original.keys:
                return {name: {"account_index": original.keys.index(key)}}
    return error


def _call(program: Pubkey, metas: Sequence[SoldersMeta], data: bytes, state: State) -> Call:
    accounts = tuple(AccountMeta(Address(bytes(each.pubkey)), each.is_signer, each.is_writable) for each in metas)
    return Call(Address(bytes(program)), accounts, bytes(data), state)


def _token_instruction(move: Movement, state: State) -> Instruction:
    if isinstance(move, Minting):
        data = pack("<BQ", _MINT_TO if move.amount > 0 else _BURN, abs(move.amount))
        pair = (move.mint, move.account) if move.amount > 0 else (move.account, move.mint)
        return Instruction(
            _key(SPL_TOKEN), data, [*(_meta(each, writable=True) for each in pair), _signer(move.authority)]
        )
    if move.program == SPL_TOKEN:
        accounts = [_meta(move.source, writable=True), _meta(move.destination, writable=True)]
        return Instruction(_key(SPL_TOKEN), pack("<BQ", _TRANSFER, move.amount), [*accounts, _signer(move.authority)])
    mint = state.account(move.mint)
    if mint is None:
        raise ProgramFailed("InvalidAccountData")
    accounts = [_meta(move.source, writable=True), _meta(move.mint), _meta(move.destination, writable=True)]
    data = pack("<BQB", _TRANSFER_CHECKED, move.amount, mint.data[DECIMALS_AT])
    return Instruction(_key(move.program), data, [*accounts, _signer(move.authority)])


def _key(address: Address) -> Pubkey:
    return Pubkey.from_bytes(address)


def _meta(address: Address, *, writable: bool = False) -> SoldersMeta:
    return SoldersMeta(_key(address), is_signer=False, is_writable=writable)


def _signer(address: Address) -> SoldersMeta:
    return SoldersMeta(_key(address), is_signer=True, is_writable=False)
