"""What an emulated program is given, and what it answers.

A program is a function of a `Call`: the accounts that a transaction hands it, with the rights that it gives them, and
the state as the calls before it in the same transaction left it. It answers with an `Effect`: tokens that
move, which the real token programs then do, and the new bytes of its own accounts. Or it raises ProgramFailed.

The arithmetic is written here a second time and shares nothing with the quotes in `fillwright.venues` but layouts: one
mistake made in both by calling the same function would never be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import calcsize, pack_into, unpack_from
from typing import Any, Final, TypeAlias

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime
from fillwright.core.errors import FillwrightError
from fillwright.core.programs import ASSOCIATED_TOKEN, SPL_TOKEN
from fillwright.venues.addresses import derive
from fillwright.venues.mints import TransferFee, transfer_fee
from fillwright.venues.pool import Layout

# Of the framework that most of these programs are built with.
CONSTRAINT_MUT: Final = 2000
CONSTRAINT_HAS_ONE: Final = 2001
REQUIRE_GT_VIOLATED: Final = 2505
ACCOUNT_NOT_ENOUGH_KEYS: Final = 3005
ACCOUNT_OWNED_BY_WRONG_PROGRAM: Final = 3007
ACCOUNT_NOT_SIGNER: Final = 3010
ACCOUNT_NOT_INITIALIZED: Final = 3012
INSTRUCTION_DID_NOT_DESERIALIZE: Final = 102
INSTRUCTION_FALLBACK_NOT_FOUND: Final = 101
CONSTRAINT_SEEDS: Final = 2006
CONSTRAINT_ADDRESS: Final = 2012
CONSTRAINT_TOKEN_MINT: Final = 2014
ACCOUNT_DISCRIMINATOR_MISMATCH: Final = 3002

U64_MAX: Final = 2**64 - 1
SUPPLY_AT: Final = 36
AMOUNT_AT: Final = 64


class ProgramFailed(Exception):
    """The program refuses. `error` is the second part of the RPC's `InstructionError`."""

    def __init__(self, error: int | str) -> None:
        self.error: dict[str, int] | str = {"Custom": error} if isinstance(error, int) else error
        super().__init__(str(self.error))

    @property
    def log(self) -> str:
        """What the runtime writes of it in the transaction's log."""
        return f"custom program error: {self.error['Custom']:#x}" if isinstance(self.error, dict) else self.error


class NotEmulated(ProgramFailed):
    """The real program might do it; this one does not know how, and says so in the transaction's log."""

    def __init__(self, what: str) -> None:
        super().__init__("UnsupportedProgramId")
        self.what = what

    @property
    def log(self) -> str:
        return f"the local chain does not emulate {self.what}"


@dataclass(frozen=True, slots=True)
class Transfer:
    """Tokens that move. The mint's program withholds its fee of what arrives."""

    mint: Address
    program: Address
    source: Address
    destination: Address
    authority: Address
    amount: int


@dataclass(frozen=True, slots=True)
class Minting:
    """Tokens of SPL Token that come to be (`amount` > 0) or are burned (< 0) in an account."""

    mint: Address
    account: Address
    authority: Address
    amount: int


Movement: TypeAlias = Transfer | Minting


@dataclass(frozen=True, slots=True)
class Effect:
    """`compute_units` is what the real program takes for such a call, with its transfers."""

    movements: tuple[Movement, ...]
    writes: Mapping[Address, bytes]
    compute_units: int


class State:
    """The chain's accounts at `time`, as the calls so far have left them."""

    def __init__(self, time: ChainTime, read: Callable[[Address], Account | None]) -> None:
        self.time = time
        self._read = read
        self._changed = dict[Address, Account]()

    def account(self, address: Address) -> Account | None:
        return self._changed.get(address) or self._read(address)

    def withheld(self, mint: Address, program: Address) -> TransferFee | None:
        """Return what the mint withholds of a transfer, None if nothing."""
        if program == SPL_TOKEN:
            return None
        account = self.account(mint)
        try:
            return transfer_fee({mint: account} if account else {}, mint, program)
        except FillwrightError as error:
            raise ProgramFailed("InvalidAccountData") from error

    def apply(self, effect: Effect) -> None:
        """Let later calls see what this one does."""
        for address, data in effect.writes.items():
            account = self.account(address)
            assert account is not None
            self._changed[address] = Account(account.owner, data)
        for move in effect.movements:
            if isinstance(move, Transfer):
                fee = self.withheld(move.mint, move.program)
                arriving = move.amount - (fee.of(move.amount, self.time.epoch) if fee else 0)
                self._add(move.source, AMOUNT_AT, -move.amount)
                self._add(move.destination, AMOUNT_AT, arriving)
            else:
                self._add(move.account, AMOUNT_AT, move.amount)
                self._add(move.mint, SUPPLY_AT, move.amount)

    def _add(self, address: Address, at: int, amount: int) -> None:
        account = self.account(address)
        if account is None or not account.data:
            return  # created earlier in this transaction: no program here asks what a trader has
        (held,) = unpack_from("<Q", account.data, at)
        data = bytearray(account.data)
        pack_into("<Q", data, at, min(max(held + amount, 0), U64_MAX))
        self._changed[address] = Account(account.owner, bytes(data))


@dataclass(frozen=True, slots=True)
class Call:
    """One instruction, with what the transaction lets its accounts do."""

    program: Address
    accounts: tuple[AccountMeta, ...]
    data: bytes
    state: State = field(repr=False)

    def key(self, index: int, *, writable: bool = False, signer: bool = False) -> Address:
        """Return an account's address. Raise ProgramFailed if the call does not have it, or not with that right."""
        if index >= len(self.accounts):
            raise ProgramFailed(ACCOUNT_NOT_ENOUGH_KEYS)
        meta = self.accounts[index]
        if writable and not meta.is_writable:
            raise ProgramFailed(CONSTRAINT_MUT)
        if signer and not meta.is_signer:
            raise ProgramFailed(ACCOUNT_NOT_SIGNER)
        return meta.address

    def own(self, index: int, layout: Layout, *, writable: bool = False) -> bytearray:
        """Return the data of an account that the call names. Raise ProgramFailed if it is of another kind."""
        return self.of(layout, self.key(index, writable=writable))

    def of(self, layout: Layout, address: Address) -> bytearray:
        """Return the data of an account of the kind, which may have more behind it. Raise ProgramFailed."""
        account = self.state.account(address)
        if account is None:
            raise ProgramFailed(ACCOUNT_NOT_INITIALIZED)
        if account.owner != layout.owner:
            raise ProgramFailed(ACCOUNT_OWNED_BY_WRONG_PROGRAM)
        if len(account.data) < layout.length or not account.data.startswith(layout.discriminator):
            raise ProgramFailed(ACCOUNT_DISCRIMINATOR_MISMATCH)
        return bytearray(account.data)

    def token_amount(self, address: Address) -> int:
        """Return what a token account holds. Raise ProgramFailed if it is none."""
        account = self.state.account(address)
        if account is None or len(account.data) < AMOUNT_AT + 8:
            raise ProgramFailed(ACCOUNT_NOT_INITIALIZED)
        return int.from_bytes(account.data[AMOUNT_AT : AMOUNT_AT + 8], "little")

    def arriving(self, mint: Address, program: Address, amount: int) -> int:
        """Return what is left of `amount` after a transfer."""
        fee = self.state.withheld(mint, program)
        return amount - fee.of(amount, self.state.time.epoch) if fee else amount

    def is_a_in(
        self,
        trader: Address,
        accounts: tuple[Address, Address],
        mints: tuple[Address, Address],
        programs: tuple[Address, Address],
        error: int = CONSTRAINT_TOKEN_MINT,
    ) -> bool:
        """Tell the direction of a swap from the trader's two token accounts: whether the first is of mint A.

        One that is created in this transaction is not there yet, and known by its address. Raise ProgramFailed with
        `error` if they are of other mints.
        """
        for is_a_in in (True, False):
            expected = list(zip(mints, programs, strict=True))[:: 1 if is_a_in else -1]
            if all(
                self._holds(account, trader, mint, program)
                for account, (mint, program) in zip(accounts, expected, strict=True)
            ):
                return is_a_in
        raise ProgramFailed(error)

    def _holds(self, account: Address, trader: Address, mint: Address, program: Address) -> bool:
        found = self.state.account(account)
        if found is None or not found.data:
            return account == derive(ASSOCIATED_TOKEN, trader, program, mint)
        return found.owner == program and found.data[:32] == mint

    def expect(self, index: int, address: Address, error: int = CONSTRAINT_ADDRESS, *, writable: bool = False) -> None:
        """Raise ProgramFailed if the account is not the one that it has to be."""
        if self.key(index, writable=writable) != address:
            raise ProgramFailed(error)

    def arguments(self, discriminator: bytes, layout: str) -> tuple[Any, ...]:
        """Return what follows the discriminator. Raise ProgramFailed for another instruction, or one too short."""
        if not self.data.startswith(discriminator):
            raise ProgramFailed(INSTRUCTION_FALLBACK_NOT_FOUND)
        if len(self.data) < len(discriminator) + calcsize(layout):
            raise ProgramFailed(INSTRUCTION_DID_NOT_DESERIALIZE)
        return unpack_from(layout, self.data, len(discriminator))


Program: TypeAlias = Callable[[Call], Effect]


def check_transferable(*amounts: int) -> None:
    """Raise ProgramFailed if a program would have to transfer what no account can hold."""
    if any(not 0 <= amount <= U64_MAX for amount in amounts):
        raise ProgramFailed("ProgramFailedToComplete")
