"""Solana as a Chain: builds and signs a route's transaction, sends it, and says what became of it.

Signing comes last, after everything that could show that the transaction should not be: the pools are quoted anew, the
transaction is simulated and must pay what they say, and `policy` reads the very bytes that are to be signed.

What became of a transaction is told in the order that the executor asks for it: first how far the chain is final,
then the outcome, from a view at least that recent. An error on chain is an outcome only once it is final, since a fork
could undo the failure and land the same bytes again. A success is one from `commitment` on: where that is less than
final, it is watched until it is, and sent again should a fork drop it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from solders.hash import Hash

from fillwright.chain.answers import SIGNATURES_MAX, LandedTransaction, RecentBlockhash, SignatureStatus
from fillwright.chain.building import (
    Plan,
    Tables,
    Tip,
    TokenAccount,
    associated_account,
    instructions,
    message,
    signed,
    unsigned,
)
from fillwright.chain.hints import Hints
from fillwright.chain.policy import SWAP_PROGRAMS, SigningRules, check
from fillwright.chain.rpc import STATUSES_MAX, Rpc
from fillwright.chain.wallet import Wallet
from fillwright.chain.way import Way, check_real, way_of
from fillwright.core.accounts import Account, Address, Trader, format_address, parse_address
from fillwright.core.errors import (
    ChainUnavailable,
    ExecutionError,
    InsufficientFunds,
    NotFinal,
    SimulationFailed,
    SlippageExceeded,
    TransactionFault,
    TransactionReverted,
    Unroutable,
)
from fillwright.core.order import Fill, Order, SignedTransaction
from fillwright.core.ports import Clock, Finalized, LandedSwap, Swaps
from fillwright.core.programs import (
    ASSOCIATED_TOKEN,
    COMPUTE_BUDGET,
    COMPUTE_UNITS_MAX,
    MEMO,
    METEORA_DAMM_V1,
    METEORA_DAMM_V2,
    METEORA_DLMM,
    RAYDIUM_AMM_V4,
    RAYDIUM_CLMM,
    RAYDIUM_CPMM,
    SIGNATURE_LAMPORTS,
    SOL_MINT,
    SPL_TOKEN,
    SYSTEM,
    TOKEN_2022,
    TOKEN_ACCOUNT_RENT_LAMPORTS,
)
from fillwright.core.routing import Route
from fillwright.core.units import BaseUnits, Millis, OrderId, Signature, base58, format_amount

ROUNDS_MAX: Final = 3
RECENT_MS: Final = 2_000  # for how long a blockhash and what others pay are taken for recent
UNITS_SPARE: Final = 300
UNWRAP_UNITS: Final = 5_000  # closing the account of wrapped SOL, which is not simulated
WATCH_MS: Final = 2_000
ASKED_MS: Final = 2_000  # how often nodes are asked for an outcome where news can come
FEE_ACCOUNTS_MAX: Final = 128  # what getRecentPrioritizationFees takes

AROUND: Final = frozenset((SYSTEM, SPL_TOKEN, TOKEN_2022, ASSOCIATED_TOKEN, MEMO, COMPUTE_BUDGET))
"""The programs of a transaction that are not swaps."""

# The error by which each program says that a swap would pay less than the least. Source: the programs' error lists.
SLIPPAGE_ERRORS: Final[Mapping[Address, frozenset[int]]] = {
    RAYDIUM_CPMM: frozenset((6005,)),
    RAYDIUM_AMM_V4: frozenset((30,)),
    RAYDIUM_CLMM: frozenset((6022, 6018)),
    METEORA_DAMM_V2: frozenset((6002,)),
    METEORA_DLMM: frozenset((6003,)),
    METEORA_DAMM_V1: frozenset((6004,)),
}
_MEMO_TEXT: Final = re.compile(r"fillwright:(ord_[0-9A-Z]{26}):([1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolanaSettings:
    """`commitment` is when a success counts. Fees are in micro-lamports for each compute unit, tips in lamports."""

    commitment: Literal["confirmed", "finalized"] = "confirmed"
    priority_fee_micro_lamports_max: int = 1_000_000
    fee_lamports_max: int = 2_000_000
    tip: Tip | None = None
    tables: Tables = ()


@dataclass(slots=True)
class SolanaCounts:
    """For metrics: transactions that a fork dropped after they had counted, and signings that were refused."""

    rolled_back: int = 0
    requoted: int = 0


@dataclass(frozen=True, slots=True)
class _Holdings:
    """The wallet's token accounts on the way of a route, that of the in token first, and what each of them `held`."""

    accounts: Sequence[TokenAccount]
    held: Sequence[BaseUnits]
    slot: int


class SolanaChain:
    """Signs for one wallet."""

    def __init__(
        self,
        rpc: Rpc,
        wallet: Wallet,
        swaps: Swaps,
        clock: Clock,
        settings: SolanaSettings,
        genesis_hash: str,
        hints: Hints,
    ) -> None:
        self.identity = chain_identity(genesis_hash, wallet.address)
        self.counts = SolanaCounts()
        self._rpc = rpc
        self._hints = hints
        self._wallet = wallet
        self._swaps = swaps
        self._clock = clock
        self._settings = settings
        self._programs: dict[Address, Address] = {}  # of mints
        self._recent: tuple[Millis, RecentBlockhash] | None = None
        self._usual: dict[tuple[Address, ...], tuple[Millis, int]] = {}  # by what is written to
        self._watched: dict[Signature, tuple[SignedTransaction, Fill]] = {}
        self._log = structlog.get_logger()

    @property
    def wallet(self) -> Address:
        return self._wallet.address

    @property
    def confirms_what_is_final(self) -> bool:
        return self._settings.commitment == "finalized"

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        """Build, simulate, check and sign. Nothing is sent.

        Raise SlippageExceeded, SimulationFailed, InsufficientFunds, TransactionTooLarge, SigningRefused, a QuoteRefused
        or ChainUnavailable.
        """
        check_real(route)
        legs = route.quote.legs
        named = [parse_address(legs[0].mint_in), *(parse_address(leg.mint_out) for leg in legs)]
        mints = list(dict.fromkeys(named))

        async def look(min_slot: int) -> tuple[_Holdings, Way]:
            return await asyncio.gather(
                self._holdings(mints), way_of(self._swaps, order, route, min_out_amount, min_slot)
            )

        (holdings, way), (_, lamports), blockhash = await asyncio.gather(
            look(0), self._rpc.balance(self._wallet.address), self._blockhash()
        )
        self._check_funds(order, holdings, lamports)
        for left in reversed(range(ROUNDS_MAX)):
            plan = self._plan(order, route, holdings.accounts, way)
            (units, paid, slot), usual_price = await asyncio.gather(
                self._simulate(plan, holdings, blockhash.blockhash, way), self._usual_price(plan)
            )
            if paid == way.out_amount:
                break
            self.counts.requoted += 1
            if not left:
                raise SimulationFailed(
                    f"the pools pay {paid} and were quoted at {way.out_amount} base units: their programs may have been"
                    " upgraded, or they move faster than they can be read"
                )
            holdings, way = await look(slot)
        raw = message(
            instructions(plan, units, self._price(usual_price, units)),
            self._wallet.address,
            blockhash.blockhash,
            self._settings.tables,
        )
        check(raw, self._rules(order, route, min_out_amount), dict(self._settings.tables))
        signature = await self._wallet.sign(raw)
        return SignedTransaction(
            Signature(base58(signature)), signed(raw, signature), blockhash.last_valid_block_height
        )

    async def send(self, transaction: SignedTransaction) -> None:
        await self._rpc.send(transaction.raw)

    async def finalized(self) -> Finalized:
        return await self._rpc.finalized()

    async def outcome(self, transaction: SignedTransaction, finalized: Finalized) -> Fill | ExecutionError | None:
        signature = transaction.signature
        status = await self._status(transaction, finalized)
        if status is None:
            return None
        if status.fault is not None:
            if status.commitment != "finalized":
                raise NotFinal(f"{signature} failed in slot {status.slot}, which is not final yet")
            return await self._failure(signature, status.fault)
        if status.commitment not in ("finalized", self._settings.commitment):
            raise NotFinal(f"{signature} landed in slot {status.slot}, which is not {self._settings.commitment} yet")
        fill = self._fill(await self._landed(signature, status))
        if status.commitment != "finalized":
            self._watched[signature] = transaction, fill
        return fill

    async def wait(self, signature: Signature, span_ms: Millis) -> None:
        """Wait for news of a signature; without any, ask again after a while that nodes can live with."""
        await self._hints.wait(signature, max(span_ms, ASKED_MS))

    async def landed_swaps(self) -> AsyncIterator[LandedSwap]:
        """Yield the wallet's swaps from the chain's own record, oldest first: those with a memo of ours.

        Those that count as orders' fills do here, too, as soon as they do.
        """
        commitment = self._settings.commitment
        found = list[tuple[Signature, OrderId, int]]()
        before: Signature | None = None
        while True:
            page = await self._rpc.signatures_for_address(self._wallet.address, before=before, commitment=commitment)
            for each in page:
                match = _MEMO_TEXT.search(each.memo or "")
                if match is not None and each.fault is None:
                    found.append((each.signature, OrderId(match[1]), int(match[2])))
            if len(page) < SIGNATURES_MAX:
                break
            before = page[-1].signature
        for signature, order_id, attempt in reversed(found):
            landed = await self._rpc.transaction(signature, commitment, min_slot=None)
            if landed is None:
                raise ChainUnavailable(f"a node lists {signature}, and none shows it")
            if landed.keys[0] != self._wallet.address:
                continue  # anybody may name the wallet, and copy a memo: what it did not pay for, it did not sign
            yield LandedSwap(order_id, attempt, signature, self._fill(landed))

    def watch_again(self, orders: Iterable[Order]) -> None:
        """Look after orders that were confirmed before, and may have counted before they were final."""
        for order in orders:
            if order.live is not None and order.fill is not None:
                self._watched[order.live.signature] = order.live, order.fill

    async def watch(self) -> None:
        """Look after what counted before it was final, until it is. Runs for ever."""
        while True:
            await self._clock.sleep(WATCH_MS)
            watched = list(self._watched)
            for start in range(0, len(watched), STATUSES_MAX):
                signatures = watched[start : start + STATUSES_MAX]
                try:
                    finalized = await self._rpc.finalized()
                    known = await self._rpc.signature_statuses(signatures, finalized.slot)
                except ChainUnavailable as error:
                    self._log.warning("chain.watch_unanswered", signatures=len(signatures), reason=str(error))
                    continue
                except Exception:  # and go on: nobody else watches
                    self._log.exception("chain.watch_fault", signatures=len(signatures))
                    continue
                for signature, status in zip(signatures, known.statuses, strict=True):
                    try:
                        await self._look_after(signature, status, finalized)
                    except ChainUnavailable as error:
                        self._log.warning("chain.watch_unanswered", signature=signature, reason=str(error))
                    except Exception:  # and go on: the others need it, too
                        self._log.exception("chain.watch_fault", signature=signature)

    async def _look_after(self, signature: Signature, status: SignatureStatus | None, finalized: Finalized) -> None:
        transaction, fill = self._watched[signature]
        if status is not None and status.commitment == "finalized":
            if status.fault is not None:
                self._rolled_back(signature, "it landed again, and failed")
            elif status.slot != fill.slot:
                final = self._fill(await self._landed(signature, status))
                if (final.in_amount, final.out_amount) != (fill.in_amount, fill.out_amount):
                    self._rolled_back(signature, "it landed again, and paid another amount")
            del self._watched[signature]
        elif status is None and finalized.block_height > transaction.last_valid_block_height:
            await self._rpc.check_expired(signature, transaction.last_valid_block_height)
            del self._watched[signature]
            self._rolled_back(signature, "it can no longer land")
        elif status is None:
            await self._rpc.send(transaction.raw)

    async def _status(self, transaction: SignedTransaction, finalized: Finalized) -> SignatureStatus | None:
        """Return where a transaction stands. None past its last block is more than one node's word: it is dead."""
        (status,) = (await self._rpc.signature_statuses([transaction.signature], finalized.slot)).statuses
        if status is None and finalized.block_height > transaction.last_valid_block_height:
            await self._rpc.check_expired(transaction.signature, transaction.last_valid_block_height)
        return status

    def _rolled_back(self, signature: Signature, why: str) -> None:
        self.counts.rolled_back += 1
        self._log.critical(
            "chain.rolled_back",
            signature=signature,
            reason=f"a fork dropped a transaction that had been reported as confirmed, and {why}",
            what_to_do="run `fillwright reconcile`, and set FILLWRIGHT_COMMITMENT=finalized where this must not happen",
        )

    # ---- building

    async def _blockhash(self) -> RecentBlockhash:
        """Return a blockhash that is no older than RECENT_MS: one serves for many transactions."""
        now_ms = self._clock.now_ms()
        if self._recent is None or abs(now_ms - self._recent[0]) >= RECENT_MS:
            await self._rpc.finalized()  # what the blockhash's last height is compared with
            self._recent = now_ms, await self._rpc.latest_blockhash()
        return self._recent[1]

    async def _holdings(self, mints: Sequence[Address]) -> _Holdings:
        """Return the wallet's account of each mint."""
        unknown = [mint for mint in mints if mint not in self._programs]
        if unknown:
            _, found = await self._rpc.read(unknown)
            for mint, account in zip(unknown, found, strict=True):
                if account is None or account.owner not in (SPL_TOKEN, TOKEN_2022):
                    raise Unroutable(f"{format_address(mint)} is no mint of a token program that is known")
                self._programs[mint] = account.owner
        addresses = [associated_account(self._wallet.address, mint, self._programs[mint]) for mint in mints]
        slot, found = await self._rpc.read(addresses)
        accounts = [
            # Anybody may send lamports to the address: that makes no token account of it.
            TokenAccount(
                mint, self._programs[mint], address, account is not None and account.owner == self._programs[mint]
            )
            for mint, address, account in zip(mints, addresses, found, strict=True)
        ]
        return _Holdings(accounts, [self._held(account) for account in found], slot)

    def _check_funds(self, order: Order, holdings: _Holdings, lamports: int) -> None:
        """Raise InsufficientFunds if the wallet cannot pay what is sold, fee and tip, and the rent of new accounts."""
        terms, tip = order.terms, self._settings.tip
        needed = self._settings.fee_lamports_max + (tip.lamports if tip else 0)
        needed += TOKEN_ACCOUNT_RENT_LAMPORTS * sum(not each.exists for each in holdings.accounts)
        if holdings.accounts[0].mint == SOL_MINT:
            needed += terms.in_amount
        elif holdings.held[0] < terms.in_amount:
            amount = format_amount(terms.in_amount, terms.token_in.decimals)
            raise InsufficientFunds(
                f"the wallet {format_address(self._wallet.address)} holds less than {amount} {terms.token_in.symbol}"
            )
        if lamports < needed:
            raise InsufficientFunds(
                f"the wallet {format_address(self._wallet.address)} holds {format_amount(lamports, 9)} SOL, and"
                f" {format_amount(needed, 9)} may be needed for amount, fee, tip and rent"
            )

    def _plan(self, order: Order, route: Route, accounts: Sequence[TokenAccount], way: Way) -> Plan:
        by_mint = {each.mint: each.address for each in accounts}
        swaps = []
        for leg, (prepared, least) in zip(route.quote.legs, way.prepared, strict=True):
            trader = Trader(
                self._wallet.address, by_mint[parse_address(leg.mint_in)], by_mint[parse_address(leg.mint_out)]
            )
            swaps.append(prepared.instruction(least, trader))
        wrapped = order.terms.in_amount if accounts[0].mint == SOL_MINT else 0
        return Plan(self._wallet.address, memo(order), accounts, wrapped, swaps, self._settings.tip)

    async def _simulate(self, plan: Plan, holdings: _Holdings, blockhash: Hash, way: Way) -> tuple[int, BaseUnits, int]:
        """Return the compute units to ask for, what would be received, and the slot of that.

        Raise what the transaction would fail with.
        """
        made = instructions(plan, COMPUTE_UNITS_MAX, 0, unwraps=False)
        raw = unsigned(message(made, self._wallet.address, blockhash, self._settings.tables))
        out = holdings.accounts[-1].address
        simulation = await self._rpc.simulate(raw, [out], min_slot=max(holdings.slot, way.slot))
        if simulation.fault is not None:
            raise _named(simulation.fault, [each.program for each in made], SimulationFailed)
        used = simulation.compute_units or COMPUTE_UNITS_MAX
        units = min(COMPUTE_UNITS_MAX, (used + UNWRAP_UNITS) * 11 // 10 + UNITS_SPARE)
        return units, self._held(simulation.accounts[0]) - holdings.held[-1], simulation.slot

    async def _usual_price(self, plan: Plan) -> int:
        """Return what three in four paid lately for each compute unit of a transaction that writes to the pools."""
        written = tuple(
            dict.fromkeys(meta.address for swap in plan.swaps for meta in swap.accounts if meta.is_writable)
        )
        now_ms = self._clock.now_ms()
        self._usual = {key: each for key, each in self._usual.items() if abs(now_ms - each[0]) < RECENT_MS}
        if written not in self._usual:
            fees = await self._rpc.prioritization_fees(written[:FEE_ACCOUNTS_MAX])
            paid = sorted(fee.micro_lamports for fee in fees)
            self._usual[written] = now_ms, paid[len(paid) * 3 // 4] if paid else 0
        return self._usual[written][1]

    def _price(self, usual: int, units: int) -> int:
        """Return what to pay for each compute unit, at most what is set for it, and for the fee as a whole."""
        spare_lamports = max(0, self._settings.fee_lamports_max - SIGNATURE_LAMPORTS)
        return min(usual, self._settings.priority_fee_micro_lamports_max, spare_lamports * 1_000_000 // units)

    def _rules(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SigningRules:
        tip = self._settings.tip
        return SigningRules(
            wallet=self._wallet.address,
            order_id=order.id,
            attempt=order.attempt,
            mint_in=parse_address(order.terms.token_in.mint),
            mint_out=parse_address(order.terms.token_out.mint),
            mints=tuple({parse_address(mint) for leg in route.quote.legs for mint in (leg.mint_in, leg.mint_out)}),
            in_amount_max=order.terms.in_amount,
            min_out_amount=min_out_amount,
            pools=tuple(parse_address(leg.pool) for leg in route.quote.legs),
            programs=SWAP_PROGRAMS,
            fee_lamports_max=self._settings.fee_lamports_max,
            tip_lamports_max=tip.lamports if tip else 0,
            tip_accounts=(tip.account,) if tip else (),
        )

    # ---- what became of it

    async def _landed(self, signature: Signature, status: SignatureStatus) -> LandedTransaction:
        landed = await self._rpc.transaction(signature, "confirmed", min_slot=None)
        if landed is None or landed.slot != status.slot:
            raise ChainUnavailable(f"{signature} landed in slot {status.slot}, and no node shows it yet")
        return landed

    async def _failure(self, signature: Signature, fault: TransactionFault) -> ExecutionError:
        landed = await self._rpc.transaction(signature, min_slot=None)
        if landed is None:
            raise ChainUnavailable(f"{signature} failed, and no node shows it yet")
        compiled = landed.transaction.message.instructions
        return _named(fault, [landed.keys[each.program_id_index] for each in compiled], TransactionReverted)

    def _fill(self, landed: LandedTransaction) -> Fill:
        """Return what a swap did, from what the wallet's accounts held before and after.

        SOL is what all of the wallet's accounts together gained or lost in lamports, fee and tip aside: rent that is
        paid into an account of its own is no loss. Which tip that was, the transaction itself says.
        """
        wallet = self._wallet.address
        mints = {associated_account(wallet, SOL_MINT, SPL_TOKEN): SOL_MINT}
        changes: Counter[Address] = Counter()
        for sign, balances in ((-1, landed.pre_tokens), (1, landed.post_tokens)):
            for account, each in balances.items():
                if each.owner == wallet:
                    mints[account] = each.mint
                    changes[each.mint] += sign * each.amount
        counted = {wallet, *mints, *_paid_outright(landed)}
        changes[SOL_MINT] = landed.fee_lamports + sum(
            after - before
            for key, before, after in zip(landed.keys, landed.pre_lamports, landed.post_lamports, strict=True)
            if key in counted
        )
        mint_in, mint_out = _mints_swapped(landed, mints, changes)
        return Fill(-changes[mint_in], changes[mint_out], landed.fee_lamports, landed.slot)

    @staticmethod
    def _held(account: Account | None) -> BaseUnits:
        """Return what a token account holds; nothing where there is none."""
        return 0 if account is None else int.from_bytes(account.data[64:72], "little")


def chain_identity(genesis_hash: str, wallet: Address) -> str:
    """Return what a store keeps of where its orders are: what another wallet has signed is unknown to this one."""
    return f"solana:{genesis_hash}:{format_address(wallet)}"


def memo(order: Order) -> str:
    """Return what a transaction says of itself, so that it can be found again, and no two are the same."""
    return f"fillwright:{order.id}:{order.attempt}"


def _paid_outright(landed: LandedTransaction) -> set[Address]:
    """Return who was sent SOL by plain transfers: the account of wrapped SOL, and that of a tip."""
    return {
        landed.keys[each.accounts[1]]
        for each in landed.transaction.message.instructions
        if landed.keys[each.program_id_index] == SYSTEM
    }


def _mints_swapped(
    landed: LandedTransaction, mints: Mapping[Address, Address], changes: Mapping[Address, int]
) -> tuple[Address, Address]:
    """Return what the first swap took and what the last one gave, by the wallet's accounts that they name."""
    named = [
        {mints[landed.keys[at]] for at in each.accounts if landed.keys[at] in mints}
        for each in landed.transaction.message.instructions
        if landed.keys[each.program_id_index] not in AROUND
    ]
    if not named:
        raise ChainUnavailable("the transaction on chain holds no swap")
    first, last = named[0], named[-1]
    if first != last:
        (mint_in,), (mint_out,) = first - last, last - first
        return mint_in, mint_out
    (mint_in,) = (mint for mint in first if changes[mint] < 0)
    (mint_out,) = (mint for mint in first if changes[mint] > 0)
    return mint_in, mint_out


def _named(fault: TransactionFault, programs: Sequence[Address], other: type[ExecutionError]) -> ExecutionError:
    """Return a node's word for a failure as an error of ours: too little out is named, the rest is `other`."""
    if fault.instruction is None or fault.instruction >= len(programs):
        return other(f"the transaction fails: {fault}")
    program = programs[fault.instruction]
    name = format_address(program)
    if fault.custom in SLIPPAGE_ERRORS.get(program, ()):
        return SlippageExceeded(f"the swap would pay less than the order's limit (error {fault.custom} of {name})")
    return other(f"the transaction fails: {fault}, which is of the program {name}")
