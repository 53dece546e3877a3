"""The JSON-RPC client for Solana nodes.

Nodes fail, lag, throttle, forget and disagree, so there are several. A call goes to the one that looks best and, if
that gives no answer that counts, to the next, each at most once, until the deadline. When none answered the call
raises ChainUnavailable: **unknown**, never an outcome. A result that does not fit its type is no answer.

Who says that something is *absent* must be shown to have seen enough. `getSignatureStatuses` takes no minContextSlot,
so the slot that its reply bears is compared; and since that slot is of the node's newest block, which may be on a fork
that dies, the node must have finalized the demanded slot itself before it was asked. `getTransaction` bears no slot at
all: what it does not find is absent only if the same node's signature status says so, too. A URL behind which several
nodes take turns blurs the second half of this; the slot of the reply holds there as well.
"""

from __future__ import annotations

import asyncio
import random
from binascii import b2a_base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypeVar

import aiohttp
import msgspec
import structlog
from solders.transaction import VersionedTransaction

from fillwright.chain.answers import (
    SIGNATURES_MAX,
    Commitment,
    LandedTransaction,
    PriorityFee,
    RecentBlockhash,
    SignatureInfo,
    SignatureStatuses,
    Simulation,
    read_accounts,
    read_balance,
    read_blockhash,
    read_fees,
    read_finalized,
    read_number,
    read_signatures,
    read_simulation,
    read_statuses,
    read_text,
    read_token_accounts,
    read_transaction,
)
from fillwright.chain.endpoint import Endpoint, Listener, Unanswered, label_of
from fillwright.core.accounts import Account, Address, format_address, parse_address
from fillwright.core.errors import ChainUnavailable, MixedChains, PreflightFailed
from fillwright.core.ports import Finalized
from fillwright.core.units import Millis, Signature

T = TypeVar("T")

CONFIRMED: Final = "confirmed"
ACCOUNTS_MAX: Final = 100  # of one getMultipleAccounts
STATUSES_MAX: Final = 256  # of one getSignatureStatuses
BLOCKHASH_BLOCKS: Final = 150  # a blockhash can be signed against for so many blocks after its own
SLOTS_PER_BLOCK_MAX: Final = 2  # over many blocks: a slot in twenty or so is skipped
WITNESSES: Final = 2  # nodes that must say that a transaction is dead
TICK_S: Final = 0.001  # a wait that is shorter would not move every clock
CONNECTIONS_MAX: Final = 64  # to each node


@dataclass(frozen=True, slots=True)
class RpcSettings:
    """`urls` are asked; `send_urls` are sent transactions besides those, and asked nothing.

    `timeout_ms` is for one answer of one node, `deadline_ms` for a call. A node that is more than `lag_slots_max`
    behind the best is asked after the others. `requests_per_second` is for each node; 0: no limit.
    """

    urls: tuple[str, ...] = field(repr=False)
    send_urls: tuple[str, ...] = field(default=(), repr=False)
    requests_per_second: int = 0
    timeout_ms: Millis = 3_000
    deadline_ms: Millis = 8_000
    lag_slots_max: int = 20


def unheard(endpoint: str, method: str, outcome: str, took_s: float) -> None:
    pass


class Rpc:
    """Every method may raise ChainUnavailable, which means "unknown", and its InvalidCall, a fault of the engine's.

    With `min_slot` only a view at least that recent counts. `heard` is told of each exchange with a node.
    """

    def __init__(
        self, settings: RpcSettings, heard: Listener = unheard, chance: Callable[[], float] = random.random
    ) -> None:
        if not settings.urls:
            raise ValueError("there is no node to ask: set FILLWRIGHT_RPC_URLS")
        self._settings = settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=None),  # each exchange has its own
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        urls = tuple(dict.fromkeys((*settings.urls, *settings.send_urls)))
        rate = settings.requests_per_second
        endpoints = [
            Endpoint(url, label, self._session, rate, heard, chance)
            for url, label in zip(urls, labels(urls), strict=True)
        ]
        self._readers = endpoints[: len(set(settings.urls))]
        self._senders = endpoints
        self._newest_slots: dict[Commitment, int] = {}
        self._final = Finalized(0, 0)
        self._genesis: str | None = None
        self._sending = set[asyncio.Task[Signature]]()
        self._log = structlog.get_logger()

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return self._senders

    async def close(self) -> None:
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._session.close()

    # ---- accounts

    async def read(self, addresses: Sequence[Address]) -> tuple[int, list[Account | None]]:
        """Return the slot and what up to 100 accounts held then, confirmed. None: the account does not exist."""
        if len(addresses) > ACCOUNTS_MAX:
            raise ValueError(f"{len(addresses)} accounts in one call; at most {ACCOUNTS_MAX}")
        params = [[format_address(address) for address in addresses], _config(encoding="base64")]
        read = partial(read_accounts, asked=len(addresses))
        return await self._in_context("getMultipleAccounts", params, read)

    async def balance(self, address: Address) -> tuple[int, int]:
        """Return the slot and the account's lamports."""
        params = [format_address(address), _config()]
        return await self._in_context("getBalance", params, read_balance)

    async def token_accounts(self, owner: Address, mint: Address) -> tuple[int, dict[Address, Account]]:
        """Return the slot and the accounts in which a wallet holds a token."""
        params = [format_address(owner), {"mint": format_address(mint)}, _config(encoding="base64")]
        return await self._in_context("getTokenAccountsByOwner", params, read_token_accounts)

    # ---- blocks

    async def latest_blockhash(self) -> RecentBlockhash:
        """Return a blockhash to sign against.

        Its last height decides when a transaction counts as dead, so it is compared with the newest block that
        `finalized` has told of: too low, and what can still land would be signed anew; too high, and it never ends.
        """

        async def attempt(endpoint: Endpoint, until_s: float) -> RecentBlockhash:
            def read(result: msgspec.Raw) -> RecentBlockhash:
                recent = read_blockhash(result)
                self._saw(endpoint, recent.slot, CONFIRMED, None)
                least = self._final.block_height + BLOCKHASH_BLOCKS
                most = least + recent.slot - self._final.slot  # there are no more blocks than slots
                if not least <= recent.last_valid_block_height <= most:
                    words = f"a blockhash of slot {recent.slot} that is valid up to block"
                    words += f" {recent.last_valid_block_height}, not from {least} to {most}"
                    raise Unanswered("old_view", words, rests=False)
                return recent

            return await self._exchange(endpoint, until_s, "getLatestBlockhash", [_config()], read)

        return await self._first("getLatestBlockhash", attempt)

    async def finalized(self) -> Finalized:
        """Return height and slot of the newest finalized block, of one answer, so that they are of one block."""
        self._final = await self._first("getEpochInfo", self._finalized_of)
        return self._final

    # ---- transactions

    async def signature_statuses(
        self, signatures: Sequence[Signature], min_slot: int | None = None
    ) -> SignatureStatuses:
        """Return what one node knows of up to 256 signatures, in its whole history, and as of which slot.

        `min_slot` is a finalized slot. With it None means absent: the node that says so had finalized that slot before
        it was asked, and its reply is of a view no older. Without it None says nothing.
        """
        if len(signatures) > STATUSES_MAX:
            raise ValueError(f"{len(signatures)} signatures in one call; at most {STATUSES_MAX}")

        async def attempt(endpoint: Endpoint, until_s: float) -> SignatureStatuses:
            return await self._statuses_from(endpoint, until_s, signatures, min_slot)

        return await self._first("getSignatureStatuses", attempt, min_slot or 0)

    async def check_expired(self, signature: Signature, last_valid_block_height: int) -> None:
        """Return if a transaction has not landed and no longer can: two nodes must say so, where there are two.

        Each has finalized a block past the last valid one, and after that does not know the signature, in a history
        that reaches back to before it can have been signed: nodes throw away the oldest part of theirs. Raise
        ChainUnavailable if not enough of them can say it, or one knows the signature.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.deadline_ms / 1000
        wanted, told = min(WITNESSES, len(self._readers)), list[str]()
        for endpoint in self._readers:
            try:
                if wait_s := endpoint.wait_s(loop.time()):
                    raise Unanswered("rate_limited", f"left alone for {wait_s:.1f} s", rests=False)
                await self._check_chain(endpoint, until_s)
                final = await self._finalized_of(endpoint, until_s)
                blocks = final.block_height - last_valid_block_height
                if blocks <= 0:
                    raise Unanswered("old_view", f"it has finalized block {final.block_height}", rests=False)
                known = await self._statuses_from(endpoint, until_s, [signature], final.slot)
                if known.statuses[0] is not None:
                    raise ChainUnavailable(f"{endpoint.label} knows {signature}, which another node did not")
                since_slot = final.slot - (blocks + BLOCKHASH_BLOCKS) * SLOTS_PER_BLOCK_MAX
                await self._check_history(endpoint, until_s, max(0, since_slot))
            except Unanswered as fault:
                told.append(f"{endpoint.label}: {fault}")
            else:
                wanted -= 1
                if not wanted:
                    return
        raise ChainUnavailable(f"too few nodes can say that {signature} never landed: {'; '.join(told)}")

    async def transaction(
        self, signature: Signature, commitment: Literal["confirmed", "finalized"] = "finalized", *, min_slot: int | None
    ) -> LandedTransaction | None:
        """Return a transaction that has landed, or None if a node does not know it.

        With `min_slot`, a finalized slot, None means absent, as in `signature_statuses`; the same node says it. Without
        it None says nothing.
        """

        async def attempt(endpoint: Endpoint, until_s: float) -> LandedTransaction | None:
            read = partial(read_transaction, signature=signature)
            config = _config(commitment, encoding="base64", maxSupportedTransactionVersion=0)
            landed = await self._exchange(endpoint, until_s, "getTransaction", [signature, config], read)
            if landed is None and min_slot is not None:
                known = await self._statuses_from(endpoint, until_s, [signature], min_slot)
                if known.statuses[0] is not None:
                    raise Unanswered("old_view", f"it knows the signature, but no {commitment} record", rests=False)
            return landed

        return await self._first("getTransaction", attempt, min_slot or 0)

    async def simulate(
        self, raw: bytes, accounts: Sequence[Address] = (), *, min_slot: int | None = None
    ) -> Simulation:
        """Return what a transaction that is not yet signed would do, with a blockhash of the node's own."""
        keys = [format_address(address) for address in accounts]
        config = _config(
            minContextSlot=min_slot,
            encoding="base64",
            sigVerify=False,
            replaceRecentBlockhash=True,
            accounts={"encoding": "base64", "addresses": keys} if keys else None,
        )
        params, read = [_base64(raw), config], partial(read_simulation, accounts=len(keys))
        return (await self._in_context("simulateTransaction", params, read, min_slot))[1]

    async def send(self, raw: bytes) -> Signature:
        """Hand a signed transaction to all nodes at once; return its signature when the first has taken it.

        The others are given their time. Raise PreflightFailed if a node expects it to fail and none took it: no
        outcome, either. Nodes do not send it again by themselves.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.deadline_ms / 1000
        signature = Signature(str(VersionedTransaction.from_bytes(raw).signatures[0]))

        def read(result: msgspec.Raw) -> Signature:
            if read_text(result) != signature:
                raise ValueError("the signature of another transaction")
            return signature

        params = [_base64(raw), {"encoding": "base64", "skipPreflight": True, "maxRetries": 0}]
        tasks = {
            asyncio.create_task(self._exchange(endpoint, until_s, "sendTransaction", params, read)): endpoint.label
            for endpoint in await self._ready_to_send(until_s)
        }
        self._sending |= tasks.keys()
        for task in tasks:
            task.add_done_callback(self._sent)
        told, preflight, waiting = list[str](), list[PreflightFailed](), set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                match task.exception():
                    case None:
                        return signature
                    case PreflightFailed() as error:
                        preflight.append(error)
                    case error:
                        told.append(f"{tasks[task]}: {error}")
        if preflight:
            raise preflight[0]
        raise ChainUnavailable(f"no node took the transaction: {'; '.join(sorted(told))}")

    async def prioritization_fees(self, addresses: Sequence[Address] = ()) -> list[PriorityFee]:
        """Return what it took lately to land a transaction that writes all of up to 128 accounts."""
        keys = [format_address(address) for address in addresses]
        return await self._plain("getRecentPrioritizationFees", [keys], read_fees)

    async def signatures_for_address(
        self,
        address: Address,
        *,
        before: Signature | None = None,
        commitment: Literal["confirmed", "finalized"] = "finalized",
    ) -> list[SignatureInfo]:
        """Return transactions that name an address, newest first: up to 1,000, older than `before`."""
        config = _config(commitment, before=before, limit=SIGNATURES_MAX)
        return await self._plain("getSignaturesForAddress", [format_address(address), config], read_signatures)

    # ---- nodes

    async def genesis_hash(self) -> str:
        """Return the name of the chain, having asked all nodes. Raise MixedChains if they do not agree.

        From then on a node that has not said so is asked before it is believed, and one of another chain never is.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.deadline_ms / 1000
        answers = await asyncio.gather(
            *(self._genesis_of(endpoint, until_s) for endpoint in self._readers), return_exceptions=True
        )
        said, told = dict[str, list[str]](), list[str]()
        for endpoint, answer in zip(self._readers, answers, strict=True):
            if isinstance(answer, str):
                said.setdefault(answer, []).append(endpoint.label)
            elif isinstance(answer, Unanswered | ChainUnavailable):
                told.append(f"{endpoint.label}: {answer}")
            else:
                raise answer
        if len(said) > 1:
            sides = "; ".join(f"{', '.join(who)}: {genesis}" for genesis, who in said.items())
            raise MixedChains(f"the nodes in FILLWRIGHT_RPC_URLS belong to different chains: {sides}")
        if not said:
            raise ChainUnavailable(f"no node answered getGenesisHash: {'; '.join(told)}")
        (self._genesis,) = said
        return self._genesis

    async def history_from(self) -> int:
        """Return the slot from which every node that answers has all blocks. Raise ChainUnavailable if none does."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.deadline_ms / 1000
        answers = await asyncio.gather(
            *(self._first_block_of(endpoint, until_s) for endpoint in self._readers), return_exceptions=True
        )
        first, told = list[int](), list[str]()
        for answer in answers:
            if isinstance(answer, int):
                first.append(answer)
            elif isinstance(answer, Unanswered | ChainUnavailable):
                told.append(str(answer))
            else:
                raise answer
        if not first:
            raise ChainUnavailable(f"no node says since when it has all blocks: {'; '.join(told)}")
        return max(first)

    # ---- how a call finds its answer

    async def _plain(self, method: str, params: Sequence[object], read: Callable[[msgspec.Raw], T]) -> T:
        return await self._first(
            method, lambda endpoint, until_s: self._exchange(endpoint, until_s, method, params, read)
        )

    async def _in_context(
        self,
        method: str,
        params: Sequence[object],
        read: Callable[[msgspec.Raw], tuple[int, T]],
        min_slot: int | None = None,
    ) -> tuple[int, T]:
        """Return the slot that the answer is of, and the answer."""

        async def attempt(endpoint: Endpoint, until_s: float) -> tuple[int, T]:
            def read_view(result: msgspec.Raw) -> tuple[int, T]:
                slot, answer = read(result)
                self._saw(endpoint, slot, CONFIRMED, min_slot)
                return slot, answer

            return await self._exchange(endpoint, until_s, method, params, read_view)

        return await self._first(method, attempt)

    async def _first(self, method: str, attempt: Callable[[Endpoint, float], Awaitable[T]], final_slot: int = 0) -> T:
        """Return the first answer, asking each node at most once, one after the other, those that look best first."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.deadline_ms / 1000
        left, told = list(self._readers), list[str]()
        while left and (now_s := loop.time()) < until_s:
            ready = [endpoint for endpoint in left if not endpoint.wait_s(now_s)]
            if not ready:
                wait_s = min(endpoint.wait_s(now_s) for endpoint in left)
                if now_s + wait_s >= until_s:
                    break
                await asyncio.sleep(max(wait_s, TICK_S))
                continue
            lag_slots_max = self._settings.lag_slots_max
            endpoint = min(ready, key=lambda each: each.rank(now_s, lag_slots_max, final_slot))
            left.remove(endpoint)
            try:
                await self._check_chain(endpoint, until_s)
                return await attempt(endpoint, until_s)
            except Unanswered as fault:
                told.append(f"{endpoint.label}: {fault}")
        told += [f"{endpoint.label}: left alone for {endpoint.wait_s(loop.time()):.1f} s" for endpoint in left]
        raise ChainUnavailable(f"no node answered {method}: {'; '.join(told)}")

    async def _exchange(
        self,
        endpoint: Endpoint,
        until_s: float,
        method: str,
        params: Sequence[object],
        read: Callable[[msgspec.Raw], T],
    ) -> T:
        left_s = until_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise Unanswered("timeout", f"no time left for {method}", rests=False)
        return await endpoint.exchange(method, params, read, min(left_s, self._settings.timeout_ms / 1000))

    async def _statuses_from(
        self, endpoint: Endpoint, until_s: float, signatures: Sequence[Signature], min_slot: int | None
    ) -> SignatureStatuses:
        if min_slot is not None and endpoint.finalized_slot < min_slot:

            def read_slot(result: msgspec.Raw) -> None:
                self._saw(endpoint, read_number(result), "finalized", min_slot)

            config = _config("finalized", minContextSlot=min_slot)
            await self._exchange(endpoint, until_s, "getSlot", [config], read_slot)

        def read(result: msgspec.Raw) -> SignatureStatuses:
            answer = read_statuses(result, len(signatures))
            self._saw(endpoint, answer.slot, "processed", min_slot)
            return answer

        params = [list(signatures), {"searchTransactionHistory": True}]
        return await self._exchange(endpoint, until_s, "getSignatureStatuses", params, read)

    async def _finalized_of(self, endpoint: Endpoint, until_s: float) -> Finalized:
        def read(result: msgspec.Raw) -> Finalized:
            final = read_finalized(result)
            self._saw(endpoint, final.slot, "finalized", None)
            return final

        return await self._exchange(endpoint, until_s, "getEpochInfo", [_config("finalized")], read)

    async def _check_history(self, endpoint: Endpoint, until_s: float, since_slot: int) -> None:
        """Return if a node has all blocks since a slot. Raise Unanswered if not."""
        first = await self._first_block_of(endpoint, until_s)
        if first > since_slot:
            words = f"its history begins at slot {first}, and what is asked for may stand from slot {since_slot} on"
            raise Unanswered("old_view", words, rests=False)

    async def _first_block_of(self, endpoint: Endpoint, until_s: float) -> int:
        await self._check_chain(endpoint, until_s)
        return await self._exchange(endpoint, until_s, "getFirstAvailableBlock", [], read_number)

    def _saw(self, endpoint: Endpoint, slot: int, commitment: Commitment, min_slot: int | None) -> None:
        """Note how far a node is. Raise Unanswered if that is not far enough."""
        newest = self._newest_slots[commitment] = max(slot, self._newest_slots.get(commitment, 0))
        endpoint.lag_slots = newest - slot
        if commitment == "finalized":
            endpoint.finalized_slot = max(endpoint.finalized_slot, slot)
        if min_slot is not None and slot < min_slot:
            raise Unanswered("old_view", f"its view is of slot {slot}, older than {min_slot}", rests=False)

    async def _check_chain(self, endpoint: Endpoint, until_s: float) -> None:
        """Return if the node is of our chain, as far as we know which that is. Raise Unanswered if not."""
        if self._genesis is None or endpoint.genesis == self._genesis:
            return
        if endpoint.genesis is None and await self._genesis_of(endpoint, until_s) != self._genesis:
            self._log.error("rpc.other_chain", endpoint=endpoint.label, genesis=endpoint.genesis, ours=self._genesis)
        if endpoint.genesis != self._genesis:
            raise Unanswered("other_chain", "it belongs to another chain; see FILLWRIGHT_RPC_URLS", rests=False)

    async def _genesis_of(self, endpoint: Endpoint, until_s: float) -> str:
        def read(result: msgspec.Raw) -> str:
            return format_address(parse_address(read_text(result)))

        endpoint.genesis = await self._exchange(endpoint, until_s, "getGenesisHash", [], read)
        return endpoint.genesis

    async def _ready_to_send(self, until_s: float) -> list[Endpoint]:
        """Return all that can be sent to now; if there are none, wait for the first that can."""
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            if ready := [endpoint for endpoint in self._senders if not endpoint.wait_s(now_s)]:
                return ready
            wait_s = min(endpoint.wait_s(now_s) for endpoint in self._senders)
            if now_s + wait_s >= until_s:
                raise ChainUnavailable(f"the transaction was not sent: all nodes are left alone for {wait_s:.1f} s")
            await asyncio.sleep(max(wait_s, TICK_S))

    def _sent(self, task: asyncio.Task[Signature]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()  # has been told to whoever still waited


def labels(urls: Sequence[str]) -> list[str]:
    """Return what each URL's node is called, numbered where several have the same host."""
    taken, names = dict[str, int](), list[str]()
    for url in urls:
        host = label_of(url)
        taken[host] = taken.get(host, 0) + 1
        names.append(host if taken[host] == 1 else f"{host}#{taken[host]}")
    return names


def _config(commitment: Commitment = CONFIRMED, **more: Any) -> dict[str, Any]:
    given = {"commitment": commitment, **more}
    return {name: value for name, value in given.items() if value is not None}


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()
