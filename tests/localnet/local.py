"""A local chain behind its real endpoint, and a client that speaks JSON-RPC to it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import wraps
from inspect import signature
from itertools import count
from struct import pack, unpack_from
from typing import Any, TypeAlias

import aiohttp
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from fillwright.core import accounts as plain
from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts, Trader, format_address, parse_address
from fillwright.core.programs import CLOCK, SOL_MINT, SPL_TOKEN
from fillwright.localnet.chain import LocalChain
from fillwright.localnet.endpoint import Endpoint
from fillwright.localnet.faults import Faults
from fillwright.localnet.world import Market, associated, key_of, open_market
from fillwright.venues.pool import Policy, Pool, PoolType
from tests.virtual import VirtualClock, run

Json: TypeAlias = Any
POLICY = Policy(unproven_transfer_fees=True)
COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
ASSOCIATED_TOKEN = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
_prices = count(1)


class Refusal(Exception):
    """The endpoint answered with an error."""

    def __init__(self, error: Json) -> None:
        super().__init__(error["message"])
        self.code, self.data = error["code"], error.get("data")


class Local:
    http: aiohttp.ClientSession

    def __init__(
        self, chain: LocalChain, market: Market, endpoint: Endpoint, faults: Faults, clock: VirtualClock
    ) -> None:
        self.chain, self.market, self.endpoint, self.faults, self.clock = chain, market, endpoint, faults, clock
        self.wallet = market.wallet

    @property
    def owner(self) -> Address:
        return Address(bytes(self.wallet.pubkey()))

    async def post(self, body: Json, url: str | None = None) -> Json:
        async with self.http.post(url or self.endpoint.url, json=body) as response:
            response.raise_for_status()
            return await response.json()

    async def call(self, method: str, *params: Json, url: str | None = None) -> Json:
        """Return the result. Raise Refusal."""
        answer = await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}, url)
        if "error" in answer:
            raise Refusal(answer["error"])
        return answer["result"]

    async def signed(
        self, *instructions: Instruction, signers: Sequence[Keypair] = (), blockhash: str = ""
    ) -> VersionedTransaction:
        """Return a transaction unlike any other, of the wallet's, on the newest blockhash."""
        if not blockhash:
            latest = await self.call("getLatestBlockhash", {"commitment": "processed"})
            blockhash = latest["value"]["blockhash"]
        return transaction_of(self.wallet, instructions, blockhash)

    async def send(self, transaction: VersionedTransaction, **config: Json) -> str:
        encoded = base64.b64encode(bytes(transaction)).decode()
        usual = {"encoding": "base64", "preflightCommitment": "processed"}
        sent: str = await self.call("sendTransaction", encoded, usual | config)
        return sent

    async def land(self, *instructions: Instruction, **config: Json) -> Json:
        """Send a transaction of the wallet's, let it land, and return what getTransaction says once it is confirmed."""
        signature = await self.send(await self.signed(*instructions), **config)
        self.chain.tick_blocks(3)
        return await self.transaction(signature)

    async def transaction(self, signature: str) -> Json:
        config = {"encoding": "base64", "commitment": "confirmed", "maxSupportedTransactionVersion": 0}
        return await self.call("getTransaction", signature, config)

    async def status(self, signature: str, *, url: str | None = None) -> Json:
        answer = await self.call("getSignatureStatuses", [signature], {"searchTransactionHistory": True}, url=url)
        return answer["value"][0]

    async def accounts(self, addresses: Sequence[Address]) -> tuple[int, dict[Address, Account]]:
        config = {"encoding": "base64", "commitment": "processed"}
        answer = await self.call("getMultipleAccounts", [format_address(each) for each in addresses], config)
        found = {
            address: Account(parse_address(each["owner"]), base64.b64decode(each["data"][0]))
            for address, each in zip(addresses, answer["value"], strict=True)
            if each is not None
        }
        return answer["context"]["slot"], found

    async def pool(self, pool_type: PoolType, address: Address) -> tuple[Pool, ChainTime]:
        """Read a pool over JSON-RPC, and decode it as the engine does."""
        known = dict[Address, Account]()
        asked = {address}
        slot, found = await self.accounts([address, CLOCK])
        known |= found
        while new := [each for each in pool_type.wanted(address, known) if each not in asked]:
            asked |= set(new)
            known |= (await self.accounts(new))[1]
        clock = known[CLOCK].data
        time = ChainTime(slot, unpack_from("<Q", clock, 16)[0], unpack_from("<q", clock, 32)[0])
        world = PoolAccounts(address, slot, time, known)
        return pool_type.decode(address, world.accounts, POLICY), time

    async def held(self, account: Address) -> int:
        _, found = await self.accounts([account])
        return int.from_bytes(found[account].data[64:72], "little")


def local_test(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on virtual time with a local chain, which is its first argument."""

    @wraps(test)
    def running(*args: Any, **kwargs: Any) -> None:
        async def body() -> None:
            async with a_local_chain() as local:
                await test(local, *args, **kwargs)

        run(body())

    # What pytest passes: all but the chain.
    kept = signature(test)
    running.__signature__ = kept.replace(parameters=list(kept.parameters.values())[1:])  # type: ignore[attr-defined]
    return running


@contextlib.asynccontextmanager
async def a_local_chain(seed: int = 20_261_128) -> AsyncIterator[Local]:
    print(f"seed {seed}")
    clock, faults = VirtualClock(), Faults(seed)
    chain = LocalChain(seed=seed)
    chain.landing, chain.status_lag = faults.landing_delay, faults.status_lag
    market = open_market(chain, key_of(seed, "wallet"), seed=seed)
    endpoint = Endpoint(chain, clock, faults)
    await endpoint.start()
    local = Local(chain, market, endpoint, faults, clock)
    try:
        async with aiohttp.ClientSession() as local.http:
            yield local
    finally:
        await endpoint.close()


def transaction_of(payer: Keypair, instructions: Sequence[Instruction], blockhash: str) -> VersionedTransaction:
    """Return a transaction that is unlike any other: it bids a price of its own for 1 unit in a million."""
    price = Instruction(COMPUTE_BUDGET, pack("<BQ", 3, next(_prices)), [])
    message = MessageV0.try_compile(payer.pubkey(), [price, *instructions], [], Hash.from_string(blockhash))
    return VersionedTransaction(message, [payer])


def pay(local: Local, to: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=local.wallet.pubkey(), to_pubkey=to, lamports=lamports))


def solders_instruction(instruction: plain.Instruction) -> Instruction:
    metas = [
        AccountMeta(Pubkey.from_bytes(each.address), each.is_signer, each.is_writable) for each in instruction.accounts
    ]
    return Instruction(Pubkey.from_bytes(instruction.program), instruction.data, metas)


def create_associated(local: Local, mint: Address) -> Instruction:
    keys = (associated(local.owner, mint), local.owner, mint, bytes(32), SPL_TOKEN)
    metas = [AccountMeta(Pubkey.from_bytes(each), False, index == 0) for index, each in enumerate(keys)]
    return Instruction(ASSOCIATED_TOKEN, b"\x01", [AccountMeta(local.wallet.pubkey(), True, True), *metas])


def wrap(local: Local, lamports: int) -> list[Instruction]:
    account = Pubkey.from_bytes(associated(local.owner, SOL_MINT))
    sync = Instruction(Pubkey.from_bytes(SPL_TOKEN), b"\x11", [AccountMeta(account, False, True)])
    return [create_associated(local, SOL_MINT), pay(local, account, lamports), sync]


def unwrap(local: Local) -> Instruction:
    account, owner = Pubkey.from_bytes(associated(local.owner, SOL_MINT)), local.wallet.pubkey()
    metas = [AccountMeta(account, False, True), AccountMeta(owner, False, True), AccountMeta(owner, True, False)]
    return Instruction(Pubkey.from_bytes(SPL_TOKEN), b"\x09", metas)


def trader(local: Local, mint_in: Address, mint_out: Address) -> Trader:
    return Trader(local.owner, associated(local.owner, mint_in), associated(local.owner, mint_out))
