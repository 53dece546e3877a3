"""What a Solana node is asked, and what it answers. `rpc.py` asks over the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from fillwright.core.accounts import Account, Address
from fillwright.core.ports import Finalized
from fillwright.core.units import BaseUnits, Signature

Commitment: TypeAlias = Literal["processed", "confirmed", "finalized"]
TransactionError: TypeAlias = Any
"""As nodes write it: `{"InstructionError": [index, {"Custom": code}]}`, or a name."""


@dataclass(frozen=True, slots=True)
class Blockhash:
    text: str
    last_valid_block_height: int
    slot: int


@dataclass(frozen=True, slots=True)
class Status:
    """Where a transaction stands: it landed in `slot`; `error` is why it failed there, None if it did not."""

    slot: int
    error: TransactionError | None
    commitment: Commitment


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do as of `slot`. `accounts` are those that were asked for, afterwards."""

    slot: int
    error: TransactionError | None
    units: int
    accounts: Sequence[Account | None]


@dataclass(frozen=True, slots=True)
class TokenBalance:
    """What a token account held; `index` is its place among the transaction's accounts."""

    index: int
    mint: Address
    owner: Address
    amount: BaseUnits


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction that is on chain, and what it changed. `keys` are all its accounts, looked-up ones included."""

    slot: int
    error: TransactionError | None
    fee_lamports: int
    raw: bytes
    keys: Sequence[Address]
    lamports_before: Sequence[int]
    lamports_after: Sequence[int]
    tokens_before: Sequence[TokenBalance]
    tokens_after: Sequence[TokenBalance]


@dataclass(frozen=True, slots=True)
class Mention:
    """A transaction that names an address, as the node's index lists it."""

    signature: Signature
    slot: int
    error: TransactionError | None
    memo: str | None


class Node(Protocol):
    """Every method may raise ChainUnavailable: it is not known then."""

    async def genesis_hash(self) -> str: ...

    async def latest_blockhash(self, commitment: Commitment = "confirmed") -> Blockhash: ...

    async def finalized(self) -> Finalized:
        """Return block height and slot of the newest finalized block, both of one answer."""

    async def status(self, signature: Signature, *, min_slot: int) -> Status | None:
        """Return where a transaction stands, by a view at least as recent as `min_slot`, its history included."""

    async def transaction(self, signature: Signature, commitment: Commitment = "confirmed") -> Landed | None: ...

    async def simulate(self, raw: bytes, watched: Sequence[Address], *, min_slot: int = 0) -> Simulation:
        """Run an unsigned transaction without sending it."""

    async def send(self, raw: bytes) -> None:
        """Hand a transaction to every sender, unchecked and without repeats of theirs. One that took it is enough."""

    async def read(self, addresses: Sequence[Address]) -> tuple[int, list[Account | None]]: ...

    async def balance(self, address: Address) -> int:
        """Return an account's lamports."""

    async def priority_fees(self, addresses: Sequence[Address]) -> list[int]:
        """Return what transactions that write these accounts paid lately, in micro-lamports for each compute unit."""

    async def mentions(self, address: Address, before: Signature | None = None, limit: int = 1_000) -> list[Mention]:
        """Return the finalized transactions that name an address, the newest first."""
