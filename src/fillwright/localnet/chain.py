"""A chain with one node, which keeps the rules that a trader's transactions live and die by.

- Time is slots. Some of them are skipped: the slot moves on, the block height does not. Heights are far below slots, so
  that whoever takes one for the other finds out at once.
- A block's hash can be signed against for 150 blocks. A transaction lands in one of them, or never; nobody is told
  which. Once landed, whether it failed or not, its signature never lands again.
- What is to be seen depends on the commitment asked for: the newest block, the second before it, the 32nd before it.
  Accounts are shown as they stood at that block. An endpoint's `View` may be behind by some more blocks.
- Instructions of exchanges are emulated (see `emulation`), all others are executed by their real programs.

There are no other leaders and no dishonest nodes, and no forks but those that `fork` makes.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias

from solders.account import Account
from solders.clock import Clock as VmClock
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import (
    FailedTransactionMetadata,
    SimulatedTransactionInfo,
    TransactionMetadata,
)

from fillwright.core.accounts import Account as PlainAccount
from fillwright.core.accounts import Address, ChainTime
from fillwright.core.ports import Clock
from fillwright.localnet.emulation import Resolved, Rewritten, error_of_original, resolve, rewrite
from fillwright.localnet.program import State

Json: TypeAlias = Any
Commitment: TypeAlias = Literal["processed", "confirmed", "finalized"]

SLOT_MS: Final = 400
SKIPPED_RATE: Final = 0.05
FIRST_SLOT: Final = 435_888_000
SLOTS_ABOVE_HEIGHT: Final = 20_000_000
SLOTS_PER_EPOCH: Final = 432_000
BLOCKHASH_BLOCKS: Final = 150
LAG_BLOCKS: Final[Mapping[Commitment, int]] = {"processed": 0, "confirmed": 2, "finalized": 32}
BLOCKS_KEPT: Final = 400
BLOCKS_AT_START: Final = 250  # what the views that are furthest behind have to look at
LANDED_KEPT: Final = 200_000
PENDING_MAX: Final = 50_000
STATUS_SLOTS: Final = 300  # how far back a signature's status is known without a search of the history
LAMPORTS_PER_SIGNATURE: Final = 5_000
TOKEN_PROGRAMS: Final = (
    Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"),
    Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"),
)
CLOCK: Final = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
TOKEN_ACCOUNT_BYTES: Final = 165
TOKEN_ACCOUNT_TYPE: Final = 2


@dataclass(frozen=True, slots=True)
class Block:
    slot: int
    parent_slot: int
    height: int
    blockhash: Hash
    time_s: int


@dataclass(frozen=True, slots=True)
class TokenBalance:
    index: int
    mint: Pubkey
    owner: Pubkey
    program: Pubkey
    amount: int
    decimals: int


@dataclass(frozen=True, slots=True)
class Execution:
    """What came of a transaction. `error` is None, or the error in the RPC's form.

    `accounts` are those that it could write, after it; None for one that does not exist (any more). `charged` says
    whether it paid its fee: if not, no block takes it.
    """

    error: Json
    logs: tuple[str, ...]
    compute_units: int
    fee_lamports: int
    charged: bool
    accounts: Mapping[Pubkey, Account | None]
    returned: tuple[Pubkey, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction in a block. `hidden_until` is the height at which its status begins to be told."""

    signature: Signature
    transaction: VersionedTransaction
    resolved: Resolved
    block: Block
    execution: Execution
    lamports_before: tuple[int, ...]
    lamports_after: tuple[int, ...]
    tokens_before: tuple[TokenBalance, ...]
    tokens_after: tuple[TokenBalance, ...]
    hidden_until: int


@dataclass(frozen=True, slots=True)
class _Pending:
    due_height: int
    transaction: VersionedTransaction


def next_block(_: VersionedTransaction) -> int | None:
    return 1


def at_once(_: Signature) -> int:
    return 0


@dataclass(slots=True)
class _History:
    """An account's earlier states: the slot of each change, and what the account was before."""

    changes: deque[tuple[int, Account | None]] = field(default_factory=deque)


class LocalChain:
    """One chain. It stands still until somebody calls `tick`, or `run` does so by a clock.

    `landing` says after how many blocks a sent transaction is taken into one, None: never. `status_lag` says for how
    many blocks a landed signature's status is kept back. `first_slot` is where its record begins.
    """

    def __init__(self, *, seed: int = 0, unix_time_s: int = 1_780_000_000) -> None:
        self.landing: Callable[[VersionedTransaction], int | None] = next_block
        self.status_lag: Callable[[Signature], int] = at_once
        self.on_block: list[Callable[[], None]] = []
        self.first_slot = 0
        self._random = random.Random(f"chain {seed}")
        self._vm = (
            LiteSVM()
            .with_sigverify(False)  # checked on the original bytes: what is executed may be a rewritten transaction
            .with_blockhash_check(False)  # the machine knows the latest hash only
            .with_transaction_history(0)
        )
        # Another start is another chain: what was signed for one is worth nothing on the next.
        self.genesis_hash = Hash(sha256(f"fillwright localnet {seed} {unix_time_s}".encode()).digest())
        self._slot = FIRST_SLOT
        self._time_s = unix_time_s
        self._blocks = deque[Block](maxlen=BLOCKS_KEPT)
        self._heights = dict[Hash, int]()
        self._pending: list[_Pending] = []
        self._landed = dict[Signature, Landed]()
        self._by_key = dict[Pubkey, list[Signature]]()
        self._history = dict[Pubkey, _History]()
        while len(self._blocks) < BLOCKS_AT_START:
            self.tick()

    # Time

    async def run(self, clock: Clock, *, speed: float = 1.0) -> None:
        """Make slots by the clock, `speed` times as fast as the real chain, until cancelled."""
        due_ms = float(clock.now_ms())
        while True:
            due_ms = max(due_ms + SLOT_MS / speed, clock.now_ms() - 10 * SLOT_MS)
            await clock.sleep(max(0, round(due_ms) - clock.now_ms()))
            self.tick()

    def tick(self, slots: int = 1) -> None:
        """Let slots pass."""
        for _ in range(slots):
            self._slot += 1
            if self._blocks and self._random.random() < SKIPPED_RATE:
                continue
            self._make_block()

    def tick_blocks(self, blocks: int) -> None:
        """Let slots pass until there are so many more blocks."""
        goal = self.tip.height + blocks
        while self.tip.height < goal:
            self.tick()

    def move_clock(self, seconds: int) -> None:
        """Let the chain's own clock jump, as it may between two blocks."""
        self._time_s += seconds

    def _make_block(self) -> None:
        parent = self._blocks[-1] if self._blocks else None
        block = Block(
            self._slot,
            parent.slot if parent else self._slot - 1,
            parent.height + 1 if parent else self._slot - SLOTS_ABOVE_HEIGHT,
            Hash(sha256(bytes(self.genesis_hash) + self._slot.to_bytes(8, "little")).digest()),
            self._time_s + (self._slot - FIRST_SLOT) * SLOT_MS // 1000,
        )
        epoch = block.slot // SLOTS_PER_EPOCH
        clock_before = self._existing(CLOCK)
        self._vm.set_clock(VmClock(block.slot, block.time_s, epoch, epoch + 1, block.time_s))
        if len(self._blocks) == BLOCKS_KEPT:
            self._heights.pop(self._blocks[0].blockhash, None)
        self._blocks.append(block)
        self._heights[block.blockhash] = block.height
        self._note_change(CLOCK, clock_before, block.slot)
        due = [each for each in self._pending if each.due_height <= block.height]
        self._pending = [each for each in self._pending if each.due_height > block.height]
        for each in due:
            self._land(each.transaction, block)
        for listener in self.on_block:
            listener()

    def fork(self, blocks: int) -> None:
        """Let a fork without the newest blocks' transactions win: what they did is undone, and they may land again."""
        slot = self.block_behind(blocks).slot
        for key, history in self._history.items():
            undone = [before for changed_at, before in history.changes if changed_at > slot]
            if undone and key != CLOCK:
                self._put({key: undone[0]})
                history.changes = deque(each for each in history.changes if each[0] <= slot)
        for landed in [each for each in self._landed.values() if each.block.slot > slot]:
            self._forget(landed)

    def purge(self, slot: int) -> None:
        """Throw away the record of all slots before one, as nodes do with the oldest part of their ledger."""
        self.first_slot = slot
        for landed in [each for each in self._landed.values() if each.block.slot < slot]:
            self._forget(landed)

    # What is there

    @property
    def tip(self) -> Block:
        return self._blocks[-1]

    @property
    def transaction_count(self) -> int:
        return len(self._landed)

    def block_behind(self, blocks: int) -> Block:
        """Return the block so many before the newest, or the oldest that is known."""
        return self._blocks[max(0, len(self._blocks) - 1 - blocks)]

    def height_of(self, blockhash: Hash) -> int | None:
        """Return the height of the block with that hash, for some time after it has expired, too."""
        return self._heights.get(blockhash)

    def account(self, key: Pubkey, slot: int | None = None) -> Account | None:
        """Return the account as it is now, or as it was after a slot within the blocks that are kept."""
        history = self._history.get(key)
        if slot is not None and history is not None:
            for changed_at, before in history.changes:
                if changed_at > slot:
                    return before
        return self._existing(key)

    def set_account(self, key: Pubkey, account: Account) -> None:
        """Put an account there, bypassing every rule: for what is to exist from the beginning."""
        self._vm.set_account(key, account)
        self._history.pop(key, None)

    def keys_of(self, program: Pubkey) -> list[Pubkey]:
        """Return which accounts belong to a program now, or did so within the blocks that are kept."""
        now = [key for key, _ in self._vm.get_program_accounts(program)]
        earlier = [
            key
            for key, history in self._history.items()
            if any(before is not None and before.owner == program for _, before in history.changes)
        ]
        return sorted({*now, *earlier}, key=bytes)

    def rent_exempt_lamports(self, size: int) -> int:
        return self._vm.minimum_balance_for_rent_exemption(size)

    def landed(self, signature: Signature) -> Landed | None:
        return self._landed.get(signature)

    def signatures_of(self, key: Pubkey) -> Sequence[Signature]:
        """Return the signatures of landed transactions that name an account, oldest first."""
        return self._by_key.get(key, ())

    def recent(self) -> Iterable[Landed]:
        """Yield landed transactions, newest first."""
        return reversed(self._landed.values())

    @property
    def time(self) -> ChainTime:
        return _time_of(self.tip)

    def _existing(self, key: Pubkey) -> Account | None:
        account = self._vm.get_account(key)
        return account if account is not None and account.lamports > 0 else None

    # Transactions

    def send(self, transaction: VersionedTransaction) -> Signature:
        """Take a transaction in, which lands when `landing` says, if it still can. Sent again, it has another chance.

        One whose signatures are wrong is taken and never lands, as on a cluster.
        """
        delay = self.landing(transaction) if is_signed(transaction) else None
        if delay is not None and len(self._pending) < PENDING_MAX:
            self._pending.append(_Pending(self.tip.height + delay, transaction))
        return transaction.signatures[0]

    def is_known(self, blockhash: Hash) -> bool:
        """Whether the next block may hold a transaction that is signed against this hash."""
        created = self._heights.get(blockhash)
        return created is not None and self.tip.height < created + BLOCKHASH_BLOCKS

    def simulate(self, transaction: VersionedTransaction, block: Block) -> Execution:
        """Return what would have come of a transaction after a block. Signatures and blockhash are not looked at."""
        resolved = resolve(transaction.message, self._data)
        if resolved is None:
            return Execution("AddressLookupTableNotFound", (), 0, 0, False, {})
        now = {key: self._existing(key) for key in resolved.keys if key != CLOCK}
        then = {key: self.account(key, block.slot) for key in now}
        changed = [key for key in now if now[key] != then[key]]
        self._put({key: then[key] for key in changed})
        try:
            return self._execute(transaction, resolved, block, keep=False)
        finally:
            self._put({key: now[key] for key in changed})

    def _land(self, transaction: VersionedTransaction, block: Block) -> None:
        signature, created = transaction.signatures[0], self._heights.get(transaction.message.recent_blockhash)
        if signature in self._landed or created is None or block.height > created + BLOCKHASH_BLOCKS:
            return
        resolved = resolve(transaction.message, self._data)
        if resolved is None:
            return
        before = {key: self._existing(key) for key in resolved.keys}
        tokens_before = self._tokens(resolved, before)
        execution = self._execute(transaction, resolved, block, keep=True)
        if not execution.charged:
            return
        after = {key: self._existing(key) for key in resolved.keys}
        for key, writable in zip(resolved.keys, resolved.writable, strict=True):
            if writable:
                self._note_change(key, before[key], block.slot)
        landed = Landed(
            signature,
            transaction,
            resolved,
            block,
            execution,
            tuple(_lamports(before[key]) for key in resolved.keys),
            tuple(_lamports(after[key]) for key in resolved.keys),
            tokens_before,
            self._tokens(resolved, after),
            block.height + self.status_lag(signature),
        )
        if len(self._landed) >= LANDED_KEPT:
            self._forget(next(iter(self._landed.values())))
        self._landed[signature] = landed
        for key in dict.fromkeys(resolved.keys):
            self._by_key.setdefault(key, []).append(signature)

    def _execute(self, transaction: VersionedTransaction, resolved: Resolved, block: Block, *, keep: bool) -> Execution:
        """Execute at a block's time, with emulated programs; keep what it changes, or change nothing."""
        rewritten = rewrite(transaction, resolved, State(_time_of(block), self._plain))
        executed = rewritten.transaction if rewritten else transaction
        payer = resolved.keys[0]
        payer_before = self._existing(payer)
        writable = [key for key, is_writable in zip(resolved.keys, resolved.writable, strict=True) if is_writable]
        surcharge = rewritten.signers_added * LAMPORTS_PER_SIGNATURE if rewritten else 0
        if surcharge and payer_before is not None:
            self._vm.set_account(payer, _with_lamports(payer_before, payer_before.lamports + surcharge))
        before = {key: self._existing(key) for key in writable}
        result = self._vm.send_transaction(executed) if keep else self._vm.simulate_transaction(executed)
        error, meta = _result(result)
        accounts = before | dict(_post_accounts(result))
        charged = error is None or (keep and self._existing(payer) != before[payer])
        if keep and surcharge and not charged and payer_before is not None:
            self._vm.set_account(payer, payer_before)
        if not keep and surcharge and payer_before is not None:
            self._vm.set_account(payer, payer_before)
        fee = meta.fee() - surcharge
        units = meta.compute_units_consumed()
        logs = tuple(meta.logs())
        if rewritten is not None:
            if error is not None:
                logs = _logs_of_original(logs, error, rewritten)
                error = error_of_original(error, rewritten, resolved)
            else:
                units += rewritten.compute_units
                if units > rewritten.unit_limit:
                    units = rewritten.unit_limit
                    error = {"InstructionError": [rewritten.last_call, "ProgramFailedToComplete"]}
                    logs = (*logs, "exceeded CUs meter at BPF instruction")
                    if keep:
                        self._roll_back(before, payer, payer_before, fee)
                else:
                    accounts |= self._write(rewritten.writes, keep=keep)
        returned = meta.return_data()
        data = returned.data
        return Execution(
            error, logs, units, fee, charged, accounts, (returned.program_id, data) if data and not error else None
        )

    def _write(self, writes: Mapping[Address, bytes], *, keep: bool) -> dict[Pubkey, Account | None]:
        written = dict[Pubkey, Account | None]()
        for address, data in writes.items():
            key = Pubkey.from_bytes(address)
            old = self._existing(key)
            assert old is not None
            new = Account(old.lamports, data, old.owner, old.executable, old.rent_epoch)
            written[key] = new
            if keep:
                self._vm.set_account(key, new)
        return written

    def _roll_back(
        self, before: Mapping[Pubkey, Account | None], payer: Pubkey, payer_before: Account | None, fee: int
    ) -> None:
        self._put(before)
        assert payer_before is not None
        self._vm.set_account(payer, _with_lamports(payer_before, payer_before.lamports - fee))

    def _put(self, accounts: Mapping[Pubkey, Account | None]) -> None:
        for key, account in accounts.items():
            self._vm.set_account(key, account or Account(0, b"", Pubkey.default()))

    def _note_change(self, key: Pubkey, before: Account | None, slot: int) -> None:
        changes = self._history.setdefault(key, _History()).changes
        if not changes or changes[-1][0] < slot:  # of several changes in one block the state before the first counts
            changes.append((slot, before))
        while changes and changes[0][0] < self._blocks[0].slot:
            changes.popleft()

    def _forget(self, landed: Landed) -> None:
        del self._landed[landed.signature]
        for key in dict.fromkeys(landed.resolved.keys):
            self._by_key[key].remove(landed.signature)

    def _data(self, key: Pubkey) -> bytes | None:
        account = self._existing(key)
        return account.data if account else None

    def _plain(self, address: Address) -> PlainAccount | None:
        account = self._existing(Pubkey.from_bytes(address))
        return PlainAccount(Address(bytes(account.owner)), account.data) if account else None

    def _tokens(self, resolved: Resolved, accounts: Mapping[Pubkey, Account | None]) -> tuple[TokenBalance, ...]:
        found = []
        for index, key in enumerate(resolved.keys):
            balance = self.token_balance(accounts[key])
            if balance is not None:
                mint, owner, program, amount, decimals = balance
                found.append(TokenBalance(index, mint, owner, program, amount, decimals))
        return tuple(found)

    def token_balance(self, account: Account | None) -> tuple[Pubkey, Pubkey, Pubkey, int, int] | None:
        """Return mint, owner, program, amount and decimals of a token account, None if it is none."""
        if account is None or account.owner not in TOKEN_PROGRAMS:
            return None
        data = account.data
        if len(data) < TOKEN_ACCOUNT_BYTES or data[108] == 0:
            return None
        if len(data) > TOKEN_ACCOUNT_BYTES and data[TOKEN_ACCOUNT_BYTES] != TOKEN_ACCOUNT_TYPE:
            return None
        mint = Pubkey.from_bytes(data[:32])
        mint_account = self._vm.get_account(mint)
        decimals = mint_account.data[44] if mint_account and len(mint_account.data) > 44 else 0
        amount = int.from_bytes(data[64:72], "little")
        return mint, Pubkey.from_bytes(data[32:64]), account.owner, amount, decimals


@dataclass(frozen=True, slots=True)
class View:
    """The chain as one endpoint sees it: `lag_blocks` behind the newest block."""

    chain: LocalChain
    lag_blocks: int = 0

    def block(self, commitment: Commitment) -> Block:
        return self.chain.block_behind(self.lag_blocks + LAG_BLOCKS[commitment])

    def account(self, key: Pubkey, commitment: Commitment) -> Account | None:
        return self.chain.account(key, self.block(commitment).slot)

    def landed(self, signature: Signature, commitment: Commitment = "processed") -> Landed | None:
        """Return a transaction that has the commitment in this view, unless its status is kept back."""
        landed, tip = self.chain.landed(signature), self.block("processed")
        if landed is None or landed.block.height > self.block(commitment).height or landed.hidden_until > tip.height:
            return None
        return landed

    def commitment(self, landed: Landed) -> Commitment:
        age = self.block("processed").height - landed.block.height
        if age >= LAG_BLOCKS["finalized"]:
            return "finalized"
        return "confirmed" if age >= LAG_BLOCKS["confirmed"] else "processed"


def is_signed(transaction: VersionedTransaction) -> bool:
    """Whether a transaction bears the signatures that it needs, and they are right."""
    message, signatures = transaction.message, transaction.signatures
    return len(signatures) == message.header.num_required_signatures and all(transaction.verify_with_results())


def _time_of(block: Block) -> ChainTime:
    return ChainTime(block.slot, block.slot // SLOTS_PER_EPOCH, block.time_s)


def _lamports(account: Account | None) -> int:
    return account.lamports if account else 0


def _with_lamports(account: Account, lamports: int) -> Account:
    return Account(lamports, account.data, account.owner, account.executable, account.rent_epoch)


def _result(
    result: TransactionMetadata | FailedTransactionMetadata | SimulatedTransactionInfo,
) -> tuple[Json, TransactionMetadata]:
    if isinstance(result, FailedTransactionMetadata):
        return json.loads(result.to_json())["err"], result.meta()
    return None, result if isinstance(result, TransactionMetadata) else result.meta()


def _post_accounts(
    result: TransactionMetadata | FailedTransactionMetadata | SimulatedTransactionInfo,
) -> Iterable[tuple[Pubkey, Account | None]]:
    if isinstance(result, SimulatedTransactionInfo):
        for key, account in result.post_accounts():
            yield key, account if account.lamports > 0 else None


def _logs_of_original(logs: tuple[str, ...], error: Json, rewritten: Rewritten) -> tuple[str, ...]:
    """Return the log with the emulated program's refusal in place of the instruction that was bound to fail."""
    refusal = rewritten.refusal
    failed_at = error["InstructionError"][0] if isinstance(error, dict) and "InstructionError" in error else None
    if refusal is None or failed_at != len(rewritten.origins) - 1:
        return logs
    _, program, why = refusal
    starts = [i for i, line in enumerate(logs) if line.endswith(" invoke [1]")]
    kept = logs[: starts[-1]] if starts else logs
    return (*kept, f"Program {program} invoke [1]", f"Program log: {why.log}", f"Program {program} failed: {why.log}")
