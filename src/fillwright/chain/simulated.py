"""A chain in a file. It behaves like Solana where that matters for not losing and not doubling an order.

- A transaction is signed against a recent block and may land until the block height passes 150 more.
- Sending decides at once when, and how, the transaction will land; nobody sees it before that moment. Its row in the
  ledger is written then, so a process that dies a moment later finds the swap done when it comes back.
- The signature is the ledger's primary key: whoever sends it, and however often, it lands once.
- Replies can be lost, sends dropped, landings late: by rates, drawn from a seeded generator.

The ledger is a database of its own, never the engine's, and several processes may share it.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import shake_128
from typing import Any, Final
from uuid import uuid4

import msgspec

from fillwright.core.errors import ChainUnavailable, ExecutionError, SlippageExceeded, TransactionReverted
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Clock, Finalized, LandedSwap
from fillwright.core.routing import Route
from fillwright.core.units import BASE58, BaseUnits, Millis, OrderId, Signature, format_amount

BLOCK_MS: Final = 400
BLOCK_MS_MIN: Final = 40  # at speed 0 blocks still take time, or nothing signed could land before it expires
BLOCKHASH_BLOCKS: Final = 150
FINALIZED_BLOCKS: Final = 32
FIRST_HEIGHT: Final = 250_000_000
SIGNATURE_DIGITS: Final = 87  # of base 58: what 64 bytes take
FEE_LAMPORTS: Final = 5_000
PACE_MS: Final = 100  # how long after another process has changed the pace of the blocks we may learn of it
LOCK_S: Final = 0.5  # the ledger is asked on the event loop: better no answer than a long wait

# Amounts are text: a u64 does not fit SQLite's signed integer.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (height INTEGER NOT NULL, at_ms INTEGER NOT NULL, block_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS transactions (
    signature TEXT PRIMARY KEY, order_id TEXT NOT NULL, attempt INTEGER NOT NULL, lands_at_ms INTEGER NOT NULL,
    slot INTEGER NOT NULL, in_amount TEXT NOT NULL, out_amount TEXT, error TEXT
) WITHOUT ROWID;
"""


_PACE = "SELECT height, at_ms, block_ms FROM blocks ORDER BY rowid DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """Delays are multiplied by `speed` (0: none). Rates are shares of the occasions, from 0 to 1."""

    seed: int = 0
    speed: float = 1.0
    execution_ms_min: Millis = 2_000
    execution_ms_max: Millis = 3_000
    slippage_exceeded_rate: float = 0.0
    reverted_rate: float = 0.0
    dropped_rate: float = 0.0
    late_rate: float = 0.0
    reply_lost_rate: float = 0.0
    fills_as_quoted: bool = False


class Memo(msgspec.Struct, frozen=True):
    """What a transaction says of itself. `limit` is `min_out` in words."""

    order: OrderId
    attempt: int
    pool: str
    in_amount: BaseUnits
    quoted_out: BaseUnits
    min_out: BaseUnits
    limit: str
    last_valid: int


_TO_BASE58: Final = bytes(ord(BASE58[byte % 58]) for byte in range(256))
_memos: Final = msgspec.json.Decoder(Memo)


class Ledger:
    """The chain's own record, in the file at `path` (":memory:" for one that ends with this object).

    `speed` sets the pace of its blocks; None leaves it as it is, for those who only read.
    """

    def __init__(self, path: str, clock: Clock, speed: float | None = 1.0) -> None:
        try:
            self._database = sqlite3.connect(path, timeout=LOCK_S, isolation_level=None)
            # A chain does not forget when our machine loses power. This one may: it need only outlive a process.
            self._database.execute("PRAGMA synchronous = OFF")
            with contextlib.suppress(sqlite3.OperationalError):  # another process is about to do the same
                self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ChainUnavailable(f"cannot open the chain's record at {path}: {error}") from error
        self._clock = clock
        self._version = self._ask("PRAGMA data_version")[0][0]
        self._looked_ms = clock.now_ms()
        pace = None if speed is None else max(BLOCK_MS_MIN, int(BLOCK_MS * speed))
        self._height, self._at_ms, self._block_ms = self._open_blocks(pace)
        self.identity = self._name()

    def height(self, at_ms: Millis) -> int:
        now_ms = self._clock.now_ms()
        if abs(now_ms - self._looked_ms) >= PACE_MS:
            self._looked_ms = now_ms
            version = self._ask("PRAGMA data_version")[0][0]
            if version != self._version:  # another process has written: perhaps it changed the pace
                self._version = version
                self._height, self._at_ms, self._block_ms = self._ask(_PACE)[0]
        return self._height + max(0, at_ms - self._at_ms) // self._block_ms

    def span_ms(self, blocks: int) -> Millis:
        return blocks * self._block_ms

    def enter(self, signature: Signature, memo: Memo, lands_at_ms: Millis, result: int | str) -> None:
        """Write down how a transaction lands: the out amount or an error. The first to do so decides."""
        out_amount, error = (str(result), None) if isinstance(result, int) else (None, result)
        self._ask(
            "INSERT OR IGNORE INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            signature,
            memo.order,
            memo.attempt,
            lands_at_ms,
            slot(self.height(lands_at_ms)),
            str(memo.in_amount),
            out_amount,
            error,
        )

    def entry(self, signature: Signature, until_ms: Millis) -> Fill | str | None:
        """Return the fill or the error of a transaction that landed by `until_ms`."""
        rows = self._ask(
            "SELECT in_amount, out_amount, error, slot FROM transactions WHERE signature = ? AND lands_at_ms <= ?",
            signature,
            until_ms,
        )
        if not rows:
            return None
        in_amount, out_amount, error, at_slot = rows[0]
        return str(error) if error is not None else Fill(int(in_amount), int(out_amount), FEE_LAMPORTS, at_slot)

    def swaps(self) -> list[LandedSwap]:
        """Return every swap that has landed or is bound to."""
        rows = self._ask(
            "SELECT order_id, attempt, signature, in_amount, out_amount, slot FROM transactions"
            " WHERE error IS NULL ORDER BY lands_at_ms, signature"
        )
        return [
            LandedSwap(OrderId(order), attempt, Signature(key), Fill(int(in_amount), int(out), FEE_LAMPORTS, at_slot))
            for order, attempt, key, in_amount, out, at_slot in rows
        ]

    def close(self) -> None:
        self._database.close()

    def _open_blocks(self, block_ms: Millis | None) -> tuple[int, Millis, Millis]:
        """Go on counting where the ledger stands, at the pace that is set now: heights never run backwards.

        What is bound to land does so at the same height as before.
        """
        now_ms = self._clock.now_ms()
        self._ask("BEGIN IMMEDIATE")
        rows = self._ask(_PACE)
        height, at_ms, pace = rows[0] if rows else (FIRST_HEIGHT, now_ms, block_ms or BLOCK_MS)
        if rows and block_ms not in (None, pace):
            passed = max(0, now_ms - at_ms) // pace
            self._ask(
                "UPDATE transactions SET lands_at_ms = ? + ((lands_at_ms - ?) / ? - ?) * ?"
                " WHERE (lands_at_ms - ?) / ? > ?",
                *(now_ms, at_ms, pace, passed, block_ms, at_ms, pace, passed),
            )
            height, at_ms, pace = height + passed, now_ms, block_ms
        if not rows or at_ms == now_ms:
            self._ask("INSERT INTO blocks VALUES (?, ?, ?)", height, at_ms, pace)
        self._ask("COMMIT")
        return height, at_ms, pace

    def _name(self) -> str:
        """Return the name that this chain was given when it began."""
        self._ask("INSERT INTO identity SELECT ? WHERE NOT EXISTS (SELECT 1 FROM identity)", f"simulated-{uuid4()}")
        return str(self._ask("SELECT name FROM identity")[0][0])

    def _ask(self, sql: str, *values: Any) -> list[Any]:
        try:
            return self._database.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise ChainUnavailable(f"the chain's record does not answer: {error}") from error


class SimulatedChain:
    """Signs and sends against a ledger."""

    def __init__(self, ledger: Ledger, settings: ChainSettings, clock: Clock) -> None:
        self.identity = ledger.identity
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._random = random.Random(f"{settings.seed}/chain")

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        token_out = order.terms.token_out
        last_valid = self._ledger.height(self._clock.now_ms()) + BLOCKHASH_BLOCKS
        message = msgspec.json.encode(
            Memo(
                order.id,
                order.attempt,
                route.quote.pool,
                route.quote.in_amount,
                route.quote.out_amount,
                min_out_amount,
                f"{format_amount(min_out_amount, token_out.decimals)} {token_out.symbol}",
                last_valid,
            )
        )
        seal = shake_128(b"simulated wallet" + message).digest(SIGNATURE_DIGITS)
        return SignedTransaction(Signature(seal.translate(_TO_BASE58).decode()), seal + message, last_valid)

    async def send(self, transaction: SignedTransaction) -> None:
        self._land(transaction)
        self._lose_reply("send")

    async def finalized(self) -> Finalized:
        self._lose_reply("finalized")
        height = self._ledger.height(self._clock.now_ms()) - FINALIZED_BLOCKS
        return Finalized(height, slot(height))

    async def outcome(self, transaction: SignedTransaction, finalized: Finalized) -> Fill | ExecutionError | None:
        self._lose_reply("outcome")
        now_ms = self._clock.now_ms()
        if slot(self._ledger.height(now_ms)) < finalized.slot:
            raise ChainUnavailable(f"the chain's view is behind slot {finalized.slot}")
        entry = self._ledger.entry(transaction.signature, now_ms)
        if not isinstance(entry, str):
            return entry
        return SlippageExceeded(entry) if entry.startswith("slippage") else TransactionReverted(entry)

    async def wait(self, signature: Signature, span_ms: Millis) -> None:  # noqa: ARG002 - every one takes as long
        await self._clock.sleep(span_ms)

    async def landed_swaps(self) -> AsyncIterator[LandedSwap]:
        for swap in self._ledger.swaps():
            yield swap

    def _land(self, transaction: SignedTransaction) -> None:
        settings, chance = self._settings, self._random.random
        if chance() < settings.dropped_rate:
            return
        memo = _memos.decode(transaction.raw[SIGNATURE_DIGITS:])
        delay_ms = int(self._random.uniform(settings.execution_ms_min, settings.execution_ms_max) * settings.speed)
        if chance() < settings.late_rate:  # around the end of its time: some of these come too late
            delay_ms = self._ledger.span_ms(self._random.randrange(120, 170))
        lands_at_ms = self._clock.now_ms() + delay_ms
        if self._ledger.height(lands_at_ms) > transaction.last_valid_block_height:
            return
        quoted, least = memo.quoted_out, memo.min_out
        result: int | str = quoted if settings.fills_as_quoted else quoted - int((quoted - least) * chance())
        if chance() < settings.reverted_rate:
            result = "the program returned custom error 6000"
        elif chance() < settings.slippage_exceeded_rate:
            result = f"slippage limit exceeded: the swap would have paid less than {memo.limit}"
        self._ledger.enter(transaction.signature, memo, lands_at_ms, result)

    def _lose_reply(self, method: str) -> None:
        if self._settings.reply_lost_rate and self._random.random() < self._settings.reply_lost_rate:
            raise ChainUnavailable(f"no reply to {method}")


def slot(height: int) -> int:
    """Return the slot of a block: one slot in twenty has no block."""
    return height + height // 19
