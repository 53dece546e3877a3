"""What Solana nodes answer: the JSON as it comes, and what it means.

Each `read_*` takes the result of one method, and raises what `Endpoint.exchange` takes for garbage if it does not fit.
A plain answer of a method that tells of a view comes with the view's slot.

Methods and shapes: https://solana.com/docs/rpc/http, with the types of Agave's `rpc-client-api` and
`transaction-status-client-types`.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec
from solders.hash import Hash
from solders.signature import Signature as SignatureBytes
from solders.transaction import VersionedTransaction

from fillwright.chain.endpoint import FaultJson, read_fault
from fillwright.core.accounts import Account, Address, parse_address
from fillwright.core.errors import TransactionFault
from fillwright.core.ports import Finalized
from fillwright.core.units import U64_MAX, BaseUnits, Signature

V = TypeVar("V")

Commitment: TypeAlias = Literal["processed", "confirmed", "finalized"]

SIGNATURES_MAX: Final = 1_000  # of one getSignaturesForAddress


@dataclass(frozen=True, slots=True)
class RecentBlockhash:
    """What a transaction is signed against. It can land in blocks up to `last_valid_block_height`."""

    blockhash: Hash
    last_valid_block_height: int
    slot: int


@dataclass(frozen=True, slots=True)
class SignatureStatus:
    """What a node knows of a signature. `fault` None: it succeeded. `commitment` None: the node does not say."""

    slot: int
    fault: TransactionFault | None
    commitment: Commitment | None


@dataclass(frozen=True, slots=True)
class SignatureStatuses:
    """The statuses in the order asked, as of `slot`. None: the node does not know the signature."""

    slot: int
    statuses: tuple[SignatureStatus | None, ...]


@dataclass(frozen=True, slots=True)
class TokenBalance:
    """A token account's amount before or after a transaction. `owner` is the wallet it belongs to."""

    mint: Address
    owner: Address | None
    amount: BaseUnits


@dataclass(frozen=True, slots=True)
class LandedTransaction:
    """A transaction as it landed, successful or not.

    `keys` are the message's own followed by the loaded ones, and `pre_lamports` and `post_lamports` go with them. In
    `pre_tokens` and `post_tokens` an account is missing if it was no token account then.
    """

    transaction: VersionedTransaction
    slot: int
    fault: TransactionFault | None
    fee_lamports: int
    keys: tuple[Address, ...]
    pre_lamports: tuple[int, ...]
    post_lamports: tuple[int, ...]
    pre_tokens: Mapping[Address, TokenBalance]
    post_tokens: Mapping[Address, TokenBalance]
    logs: tuple[str, ...]
    block_time_s: int | None


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do at `slot`. `accounts` are those that were asked for, afterwards; none if it fails."""

    slot: int
    fault: TransactionFault | None
    logs: tuple[str, ...]
    compute_units: int | None
    accounts: tuple[Account | None, ...]


@dataclass(frozen=True, slots=True)
class PriorityFee:
    """The least that a transaction paid for each compute unit to land in a block of `slot`."""

    slot: int
    micro_lamports: int


@dataclass(frozen=True, slots=True)
class SignatureInfo:
    """A transaction that names an address."""

    signature: Signature
    slot: int
    fault: TransactionFault | None
    memo: str | None
    block_time_s: int | None
    commitment: Commitment | None


_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # slots, heights and lamports stay far below
_Base64 = tuple[str, Literal["base64"]]


class _Context(msgspec.Struct):
    slot: _Natural


class _InContext(msgspec.Struct, Generic[V]):
    context: _Context
    value: V


class _Account(msgspec.Struct):
    lamports: _Natural
    owner: str
    data: _Base64
    executable: bool
    space: _Natural | None = None


class _Blockhash(msgspec.Struct):
    blockhash: str
    last_valid_block_height: _Natural = msgspec.field(name="lastValidBlockHeight")


class _Epoch(msgspec.Struct, rename="camel"):
    absolute_slot: _Natural
    block_height: _Natural


class _Status(msgspec.Struct, rename="camel"):
    slot: _Natural
    err: FaultJson | None
    confirmation_status: Commitment | None = None


class _TokenAmount(msgspec.Struct):
    amount: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,20}$")]


class _TokenBalance(msgspec.Struct, rename="camel"):
    account_index: _Natural
    mint: str
    ui_token_amount: _TokenAmount
    owner: str | None = None


class _Loaded(msgspec.Struct):
    writable: list[str]
    readonly: list[str]


class _Meta(msgspec.Struct, rename="camel"):
    err: FaultJson | None
    fee: _Natural
    pre_balances: list[_Natural]
    post_balances: list[_Natural]
    pre_token_balances: list[_TokenBalance]
    post_token_balances: list[_TokenBalance]
    log_messages: list[str] | None = None
    loaded_addresses: _Loaded | None = None


class _Transaction(msgspec.Struct, rename="camel"):
    slot: _Natural
    transaction: _Base64
    meta: _Meta
    block_time: int | None = None


class _Simulation(msgspec.Struct, rename="camel"):
    err: FaultJson | None
    logs: list[str] | None = None
    units_consumed: _Natural | None = None
    accounts: list[_Account | None] | None = None


class _KeyedAccount(msgspec.Struct):
    pubkey: str
    account: _Account


class _Fee(msgspec.Struct, rename="camel"):
    slot: _Natural
    prioritization_fee: _Natural


class _SignatureInfo(msgspec.Struct, rename="camel"):
    signature: str
    slot: _Natural
    err: FaultJson | None
    memo: str | None = None
    block_time: int | None = None
    confirmation_status: Commitment | None = None


_natural: Final = msgspec.json.Decoder(_Natural)
_text: Final = msgspec.json.Decoder(str)
_accounts: Final = msgspec.json.Decoder(_InContext[list[_Account | None]])
_blockhashes: Final = msgspec.json.Decoder(_InContext[_Blockhash])
_epochs: Final = msgspec.json.Decoder(_Epoch)
_statuses: Final = msgspec.json.Decoder(_InContext[list[_Status | None]])
_transactions: Final = msgspec.json.Decoder(_Transaction | None)
_simulations: Final = msgspec.json.Decoder(_InContext[_Simulation])
_balances: Final = msgspec.json.Decoder(_InContext[_Natural])
_keyed_accounts: Final = msgspec.json.Decoder(_InContext[list[_KeyedAccount]])
_fees: Final = msgspec.json.Decoder(list[_Fee])
_signature_infos: Final = msgspec.json.Decoder(list[_SignatureInfo])


def read_text(result: msgspec.Raw) -> str:
    return _text.decode(result)


def read_number(result: msgspec.Raw) -> int:
    """Read a slot, a height or lamports."""
    return _natural.decode(result)


def read_accounts(result: msgspec.Raw, asked: int) -> tuple[int, list[Account | None]]:
    reply = _accounts.decode(result)
    _check_length(reply.value, asked)
    return reply.context.slot, [_account(each) for each in reply.value]


def read_balance(result: msgspec.Raw) -> tuple[int, int]:
    reply = _balances.decode(result)
    return reply.context.slot, reply.value


def read_token_accounts(result: msgspec.Raw) -> tuple[int, dict[Address, Account]]:
    reply = _keyed_accounts.decode(result)
    return reply.context.slot, {parse_address(each.pubkey): _existing(each.account) for each in reply.value}


def read_blockhash(result: msgspec.Raw) -> RecentBlockhash:
    reply = _blockhashes.decode(result)
    blockhash = Hash(parse_address(reply.value.blockhash))
    return RecentBlockhash(blockhash, reply.value.last_valid_block_height, reply.context.slot)


def read_finalized(result: msgspec.Raw) -> Finalized:
    epoch = _epochs.decode(result)
    if epoch.block_height > epoch.absolute_slot:
        raise ValueError("more blocks than slots")
    return Finalized(epoch.block_height, epoch.absolute_slot)


def read_statuses(result: msgspec.Raw, asked: int) -> SignatureStatuses:
    reply = _statuses.decode(result)
    _check_length(reply.value, asked)
    return SignatureStatuses(reply.context.slot, tuple(_status(status) for status in reply.value))


def read_transaction(result: msgspec.Raw, signature: Signature) -> LandedTransaction | None:
    wire = _transactions.decode(result)
    return None if wire is None else _landed(wire, signature)


def read_simulation(result: msgspec.Raw, accounts: int) -> tuple[int, Simulation]:
    reply = _simulations.decode(result)
    wire, slot = reply.value, reply.context.slot
    fault, after = _fault(wire.err), wire.accounts or []
    if fault is None:
        _check_length(after, accounts)
    held = () if fault else tuple(_account(account) for account in after)
    return slot, Simulation(slot, fault, tuple(wire.logs or ()), wire.units_consumed, held)


def read_fees(result: msgspec.Raw) -> list[PriorityFee]:
    return [PriorityFee(fee.slot, fee.prioritization_fee) for fee in _fees.decode(result)]


def read_signatures(result: msgspec.Raw) -> list[SignatureInfo]:
    found = _signature_infos.decode(result)
    if len(found) > SIGNATURES_MAX:
        raise ValueError(f"{len(found)} signatures instead of at most {SIGNATURES_MAX}")
    return [
        SignatureInfo(
            Signature(str(SignatureBytes.from_string(each.signature))),
            each.slot,
            _fault(each.err),
            each.memo,
            each.block_time,
            each.confirmation_status,
        )
        for each in found
    ]


def _check_length(value: Sequence[object], asked: int) -> None:
    if len(value) != asked:
        raise ValueError(f"{len(value)} answers to {asked} questions")


def _bytes(data: _Base64) -> bytes:
    return a2b_base64(data[0], strict_mode=True)


def _existing(wire: _Account) -> Account:
    data = _bytes(wire.data)
    if wire.space not in (None, len(data)):
        raise ValueError(f"{len(data)} bytes of an account of {wire.space}")
    return Account(parse_address(wire.owner), data)


def _account(wire: _Account | None) -> Account | None:
    return None if wire is None else _existing(wire)


def _fault(wire: FaultJson | None) -> TransactionFault | None:
    return None if wire is None else read_fault(wire)


def _status(wire: _Status | None) -> SignatureStatus | None:
    return None if wire is None else SignatureStatus(wire.slot, _fault(wire.err), wire.confirmation_status)


def _landed(wire: _Transaction, signature: Signature) -> LandedTransaction:
    raw, meta = _bytes(wire.transaction), wire.meta
    transaction = VersionedTransaction.from_bytes(raw)
    if str(transaction.signatures[0]) != signature or bytes(transaction) != raw:
        raise ValueError("another transaction than was asked for")
    message = transaction.message
    loaded = meta.loaded_addresses or _Loaded([], [])
    lookups = getattr(message, "address_table_lookups", ())  # of version 0 messages
    if (len(loaded.writable), len(loaded.readonly)) != (
        sum(len(lookup.writable_indexes) for lookup in lookups),
        sum(len(lookup.readonly_indexes) for lookup in lookups),
    ):
        raise ValueError("the loaded addresses are not those that the message names")
    keys = (
        *(Address(bytes(key)) for key in message.account_keys),
        *(parse_address(key) for key in (*loaded.writable, *loaded.readonly)),
    )
    _check_length(meta.pre_balances, len(keys))
    _check_length(meta.post_balances, len(keys))
    return LandedTransaction(
        transaction,
        wire.slot,
        _fault(meta.err),
        meta.fee,
        keys,
        tuple(meta.pre_balances),
        tuple(meta.post_balances),
        _token_balances(meta.pre_token_balances, keys),
        _token_balances(meta.post_token_balances, keys),
        tuple(meta.log_messages or ()),
        wire.block_time,
    )


def _token_balances(wire: Sequence[_TokenBalance], keys: Sequence[Address]) -> dict[Address, TokenBalance]:
    balances = dict[Address, TokenBalance]()
    for each in wire:
        amount = int(each.ui_token_amount.amount)
        if each.account_index >= len(keys) or amount > U64_MAX or keys[each.account_index] in balances:
            raise ValueError("a token balance that cannot be")
        owner = None if each.owner is None else parse_address(each.owner)
        balances[keys[each.account_index]] = TokenBalance(parse_address(each.mint), owner, amount)
    return balances
