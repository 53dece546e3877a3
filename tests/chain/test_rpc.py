"""The client of Solana nodes, against real servers that fail, lag, throttle, forget and disagree."""

from __future__ import annotations

import asyncio
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final

import pytest
import structlog
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN_PROGRAM
from solders.transaction import VersionedTransaction

from fillwright.chain.answers import SignatureStatus, TokenBalance
from fillwright.chain.rpc import Rpc, RpcSettings, labels, unheard
from fillwright.core.accounts import Account, Address, format_address
from fillwright.core.errors import (
    ChainUnavailable,
    InvalidCall,
    MixedChains,
    PreflightFailed,
    TransactionFault,
)
from fillwright.core.ports import AccountReader, Finalized
from fillwright.core.units import Signature
from tests.chain.node import (
    BLOCKHASH,
    FAULTS,
    FINALIZED_BLOCKS,
    GENESIS,
    OTHER_GENESIS,
    SKIPPED,
    Fault,
    Node,
    account_json,
    drop,
    error,
    http,
    in_context,
    reset,
    running,
    slow,
    status_json,
    truncated,
)
from tests.process import in_real_time

KEY: Final = "CanaryKeyThatMustNotSing"
SLOT: Final = 300_000_000
FINAL: Final = SLOT - FINALIZED_BLOCKS
WALLET: Final = Keypair.from_seed(bytes([7] * 32))
ADDRESS: Final = Address(bytes([1] * 32))
MINT: Final = Address(bytes([2] * 32))
ABSENT: Final = Signature("1" * 64)


class Heard:
    """What metrics would be told."""

    def __init__(self) -> None:
        self.exchanges: list[tuple[str, str, str, float]] = []

    def __call__(self, endpoint: str, method: str, outcome: str, took_s: float) -> None:
        self.exchanges.append((endpoint, method, outcome, took_s))

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, _, outcome, _ in self.exchanges]


@asynccontextmanager
async def an_rpc(
    *nodes: Node, send_only: Sequence[Node] = (), heard: Any = unheard, **settings: int
) -> AsyncIterator[Rpc]:
    async with running(*nodes, *send_only):
        urls, send_urls = ([f"{node.url}/{KEY}?api-key={KEY}2" for node in some] for some in (nodes, send_only))
        rpc = Rpc(RpcSettings(tuple(urls), tuple(send_urls), **settings), heard, chance=lambda: 0.0)
        try:
            yield rpc
        finally:
            await rpc.close()


def now_s() -> float:
    return asyncio.get_running_loop().time()


def a_transaction(memo: bytes = b"x", tables: Sequence[AddressLookupTableAccount] = ()) -> VersionedTransaction:
    loaded = [AccountMeta(key, False, True) for table in tables for key in table.addresses]
    instruction = Instruction(Pubkey(bytes([9] * 32)), memo, [AccountMeta(WALLET.pubkey(), True, True), *loaded])
    message = MessageV0.try_compile(WALLET.pubkey(), [instruction], list(tables), Hash(bytes([3] * 32)))
    return VersionedTransaction(message, [WALLET])


def signature_of(transaction: VersionedTransaction) -> Signature:
    return Signature(str(transaction.signatures[0]))


def landed_json(transaction: VersionedTransaction, slot: int = FINAL, **meta: Any) -> dict[str, Any]:
    keys = len(transaction.message.account_keys) + len(meta.get("loadedAddresses", {}).get("writable", []))
    return {
        "slot": slot,
        "blockTime": 1_800_000_000,
        "transaction": [b64encode(bytes(transaction)).decode(), "base64"],
        "version": 0,
        "meta": {
            "err": None,
            "status": {"Ok": None},
            "fee": 5_000,
            "preBalances": [1_000_000] * keys,
            "postBalances": [995_000] * keys,
            "preTokenBalances": [],
            "postTokenBalances": [],
            "loadedAddresses": {"writable": [], "readonly": []},
            "logMessages": ["Program log"],
            **meta,
        },
    }


def token_json(index: int, amount: str) -> dict[str, Any]:
    return {
        "accountIndex": index,
        "mint": format_address(MINT),
        "owner": str(WALLET.pubkey()),
        "programId": str(TOKEN_PROGRAM),
        "uiTokenAmount": {"amount": amount, "decimals": 6, "uiAmount": 0.1, "uiAmountString": "0.1"},
    }


# ---- one answer that counts, or unknown


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_one_node_fails_to_answer_the_next_one_is_asked_once(fault: Fault) -> None:
    bad, good = Node(), Node()
    bad.always = fault
    good.statuses[ABSENT] = status_json(FINAL)
    async with an_rpc(bad, good) as rpc:
        answer = await rpc.signature_statuses([ABSENT])
    assert answer.statuses == (SignatureStatus(FINAL, None, "finalized"),)
    assert (bad.methods, good.methods) == (["getSignatureStatuses"], ["getSignatureStatuses"])


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_where_no_node_answers_an_outcome_is_unknown_and_never_absent(fault: Fault) -> None:
    nodes = Node(), Node()
    for node in nodes:
        node.always = fault
    async with an_rpc(*nodes) as rpc:
        began_s = now_s()
        with pytest.raises(ChainUnavailable, match="no node answered getSignatureStatuses"):
            await rpc.signature_statuses([ABSENT])
        assert now_s() - began_s <= 8
    assert [node.methods for node in nodes] == [["getSignatureStatuses"]] * 2


async def test_a_node_that_cannot_be_reached_at_all_is_as_unknown_as_one_that_is_silent() -> None:
    async with running(gone := Node()):
        url = gone.url
    rpc = Rpc(RpcSettings((f"{url}/{KEY}",)))
    with pytest.raises(ChainUnavailable, match=r"127\.0\.0\.1:\d+: ClientConnectorError"):
        await rpc.finalized()
    await rpc.close()


def test_on_real_time_a_slow_node_is_given_up_in_time_and_the_next_one_answers() -> None:
    async def test() -> None:
        silent, good = Node(), Node()
        silent.always = drop
        async with an_rpc(silent, good, timeout_ms=100) as rpc:
            began_s = now_s()
            assert await rpc.finalized() == Finalized(FINAL - SKIPPED, FINAL)
            assert 0.09 < now_s() - began_s < 5

    in_real_time(test())


async def test_an_answer_that_comes_after_the_deadline_is_no_answer() -> None:
    late = Node()
    late.always = slow(5)
    async with an_rpc(late, timeout_ms=60_000, deadline_ms=4_000) as rpc:
        began_s = now_s()
        with pytest.raises(ChainUnavailable, match="no answer within 4000 ms"):
            await rpc.finalized()
        assert now_s() - began_s == pytest.approx(4, abs=0.1)


EVERY_CALL: Final[dict[str, Callable[[Rpc], Awaitable[object]]]] = {
    "getMultipleAccounts": lambda rpc: rpc.read([ADDRESS]),
    "getBalance": lambda rpc: rpc.balance(ADDRESS),
    "getTokenAccountsByOwner": lambda rpc: rpc.token_accounts(ADDRESS, MINT),
    "getLatestBlockhash": lambda rpc: rpc.latest_blockhash(),
    "getEpochInfo": lambda rpc: rpc.finalized(),
    "getSignatureStatuses": lambda rpc: rpc.signature_statuses([ABSENT]),
    "getTransaction": lambda rpc: rpc.transaction(ABSENT, min_slot=None),
    "simulateTransaction": lambda rpc: rpc.simulate(bytes(a_transaction())),
    "sendTransaction": lambda rpc: rpc.send(bytes(a_transaction())),
    "getRecentPrioritizationFees": lambda rpc: rpc.prioritization_fees([ADDRESS]),
    "getSignaturesForAddress": lambda rpc: rpc.signatures_for_address(ADDRESS),
    "getGenesisHash": lambda rpc: rpc.genesis_hash(),
}
NONSENSE: Final = [
    None, True, -1, 0.5, 10**30, "", "?", [], [None], ["x"], [[]], {}, {"slot": 1}, {"value": None},
    in_context(SLOT, None), in_context(SLOT, []), in_context(SLOT, {}), in_context(SLOT, "1"), in_context(SLOT, -1),
    in_context(SLOT, [None, None]), in_context(-1, [None]), in_context("1", [None]), in_context(SLOT, [{}]),
    {"context": {}, "value": [None]}, {"context": None, "value": [None]},
]  # fmt: skip
SENSE: Final[dict[str, list[Any]]] = {  # some of it is an answer to some calls
    "getTransaction": [None],
    "getRecentPrioritizationFees": [[]],
    "getSignaturesForAddress": [[]],
    "getTokenAccountsByOwner": [in_context(SLOT, [])],
}


@pytest.mark.parametrize("method", EVERY_CALL)
async def test_whatever_does_not_fit_the_type_of_an_answer_is_no_answer(method: str) -> None:
    node = Node()
    async with an_rpc(node, deadline_ms=60_000) as rpc:
        await EVERY_CALL[method](rpc)
        for nonsense in NONSENSE:
            if nonsense in SENSE.get(method, []):
                continue
            node.results[method] = nonsense
            with pytest.raises(ChainUnavailable, match="a result that does not fit"):
                await EVERY_CALL[method](rpc)


async def test_every_exchange_is_told_with_the_node_the_method_and_how_it_ended() -> None:
    bad, good, heard = Node(), Node(), Heard()
    bad.faults.extend([http(504), truncated, drop])
    async with an_rpc(bad, good, heard=heard, deadline_ms=20_000) as rpc:
        hosts = [endpoint.label for endpoint in rpc.endpoints]
        for _ in range(3):
            await rpc.finalized()
            await asyncio.sleep(60)
    told = [(hosts.index(host), method, outcome) for host, method, outcome, _ in heard.exchanges]
    assert [each for each in told if each[0] == 0] == [
        (0, "getEpochInfo", kind) for kind in ("http", "garbage", "timeout")
    ]
    assert [each for each in told if each[0] == 1] == [(1, "getEpochInfo", "answered")] * 3
    assert [took_s for _, _, outcome, took_s in heard.exchanges if outcome == "timeout"] == [pytest.approx(3)]


# ---- whom to ask


async def test_a_node_that_fails_rests_twice_as_long_each_time() -> None:
    node = Node()
    node.always = http(500)
    asked_s = list[float]()

    async def note(*_: Any) -> Any:
        asked_s.append(now_s())
        return await http(500)(*_)

    node.always = note
    async with an_rpc(node, deadline_ms=60_000) as rpc:
        for _ in range(9):
            with pytest.raises(ChainUnavailable):
                await rpc.finalized()
    rests_s = [after - before for before, after in pairwise(asked_s)]
    assert rests_s == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 16, 30], rel=0.05)


async def test_calls_that_fail_together_count_as_one_failure() -> None:
    node = Node()
    node.always = http(500)
    async with an_rpc(node) as rpc:
        await asyncio.gather(*(rpc.finalized() for _ in range(20)), return_exceptions=True)
        assert rpc.endpoints[0].failures == 1


async def test_a_node_that_rests_longer_than_the_deadline_is_not_waited_for() -> None:
    node = Node()
    node.always = http(429, Retry_After="60")
    async with an_rpc(node) as rpc:
        for _ in range(2):
            with pytest.raises(ChainUnavailable):
                await rpc.finalized()
        began_s = now_s()
        with pytest.raises(ChainUnavailable, match=r"left alone for (60|59)\.\d s"):
            await rpc.finalized()
        assert now_s() == began_s
    assert len(node.calls) == 1


@pytest.mark.parametrize("date", [False, True])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_node_that_says_when_to_come_back_is_left_alone_until_then(status: int, date: bool) -> None:
    node = Node()
    headers = {"Retry_After": "5"}
    if date:
        headers = {"Retry_After": "Fri, 15 Jan 2027 08:00:05 GMT", "Date": "Fri, 15 Jan 2027 08:00:00 GMT"}
    node.faults.append(http(status, **headers))
    async with an_rpc(node) as rpc:
        began_s = now_s()
        with pytest.raises(ChainUnavailable):
            await rpc.finalized()
        await rpc.finalized()
        assert now_s() - began_s == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("text", ["soon", "-1", "1e9", "9" * 400, "Fri, 15 Jan 2999 08:00:05 GMT", "²"])
async def test_no_answer_can_put_a_node_away_for_ever(text: str) -> None:
    node = Node()
    node.faults.append(http(429, Retry_After=text))
    async with an_rpc(node) as rpc:
        with pytest.raises(ChainUnavailable):
            await rpc.finalized()
        assert 0 < rpc.endpoints[0].wait_s(now_s()) <= 300


async def test_a_node_that_works_again_is_asked_again() -> None:
    first, second = Node(), Node()
    first.faults.append(http(500))
    second.always = slow(0.5)
    async with an_rpc(first, second) as rpc:
        await rpc.finalized()
        assert second.methods == ["getEpochInfo"]
        await rpc.finalized()
        assert len(first.calls) == 2
        assert rpc.endpoints[0].failures == 0


async def test_after_a_rest_one_call_goes_ahead_and_the_others_do_not_wait_for_it() -> None:
    silent, good = Node(), Node()
    silent.always = drop
    async with an_rpc(silent, good) as rpc:
        await rpc.finalized()
        await asyncio.sleep(60)
        calls = len(silent.calls)
        began_s, took_s = now_s(), list[float]()

        async def ask() -> None:
            await rpc.finalized()
            took_s.append(now_s() - began_s)

        await asyncio.gather(*(ask() for _ in range(10)))
    assert len(silent.calls) == calls + 1
    assert sum(took > 1 for took in took_s) == 1


async def test_the_fastest_node_is_asked_and_a_slow_one_gets_another_chance_later() -> None:
    slow_one, fast_one = Node(), Node()
    slow_one.always, fast_one.always = slow(0.5), slow(0.05)
    async with an_rpc(slow_one, fast_one) as rpc:
        for _ in range(10):
            await rpc.finalized()
        assert (len(slow_one.calls), len(fast_one.calls)) == (1, 9)
        await asyncio.sleep(31)
        for _ in range(10):
            await rpc.finalized()
        assert (len(slow_one.calls), len(fast_one.calls)) == (2, 18)


async def test_a_node_that_lags_is_asked_after_the_others_however_fast_it_is() -> None:
    lagging, good = Node(SLOT - 100), Node()
    good.always = slow(0.2)
    async with an_rpc(lagging, good) as rpc:
        for _ in range(13):
            await rpc.finalized()
        assert [endpoint.lag_slots for endpoint in rpc.endpoints] == [100, 0]
        assert (len(lagging.calls), len(good.calls)) == (2, 11)
        good.always = drop
        assert (await rpc.finalized()).slot == FINAL - 100


async def test_no_node_is_asked_more_often_than_its_budget_allows() -> None:
    nodes = Node(), Node()
    async with an_rpc(*nodes, requests_per_second=5, deadline_ms=60_000) as rpc:
        began_s = now_s()
        await asyncio.gather(*(rpc.finalized() for _ in range(60)))
        took_s = now_s() - began_s
    # Each bucket holds one second's requests at the start.
    assert took_s == pytest.approx((60 - 2 * 5) / (2 * 5), abs=0.5)


async def test_a_call_that_the_budget_leaves_no_time_for_is_unknown() -> None:
    async with an_rpc(Node(), requests_per_second=1, deadline_ms=5_000) as rpc:
        answers = await asyncio.gather(*(rpc.finalized() for _ in range(20)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Finalized, ChainUnavailable}
    assert sum(isinstance(answer, Finalized) for answer in answers) <= 6


# ---- absent


async def test_an_absent_signature_counts_only_from_a_view_at_least_as_recent_as_asked() -> None:
    node = Node()
    async with an_rpc(node) as rpc:
        min_slot = (await rpc.finalized()).slot
        for slot, counts in ((min_slot - 1, False), (min_slot, True)):
            node.results["getSignatureStatuses"] = in_context(slot, [None])
            if counts:
                answer = await rpc.signature_statuses([ABSENT], min_slot)
                assert (answer.slot, answer.statuses) == (min_slot, (None,))
            else:
                with pytest.raises(ChainUnavailable, match=f"its view is of slot {slot}, older than {min_slot}"):
                    await rpc.signature_statuses([ABSENT], min_slot)


async def test_of_two_nodes_that_disagree_the_one_that_lags_is_not_believed() -> None:
    lagging, good = Node(SLOT - 100), Node()
    good.statuses[ABSENT] = status_json(FINAL)
    async with an_rpc(lagging, good) as rpc:
        answer = await rpc.signature_statuses([ABSENT], FINAL)
        assert answer.statuses[0] is not None
        good.always = reset
        with pytest.raises(ChainUnavailable):
            await rpc.signature_statuses([ABSENT], FINAL)


async def test_a_node_on_a_fork_that_is_ahead_but_has_not_finalized_the_slot_is_not_believed() -> None:
    forked, good = Node(SLOT + 50), Node()
    forked.results["getSlot"] = FINAL - 1
    good.statuses[ABSENT] = status_json(FINAL)
    async with an_rpc(forked, good) as rpc:
        answer = await rpc.signature_statuses([ABSENT], FINAL)
        assert answer.statuses[0] is not None
        assert forked.methods == ["getSlot"]
        good.always = drop
        with pytest.raises(ChainUnavailable):
            await rpc.signature_statuses([ABSENT], FINAL)


async def test_a_node_is_asked_what_it_has_finalized_before_it_is_asked_what_it_knows() -> None:
    node = Node()
    async with an_rpc(node) as rpc:
        await rpc.signature_statuses([ABSENT], FINAL)
        assert node.methods == ["getSlot", "getSignatureStatuses"]
        await rpc.signature_statuses([ABSENT], FINAL)
        assert node.methods[2:] == ["getSignatureStatuses"]
        assert node.calls[-1] == ("getSignatureStatuses", [[ABSENT], {"searchTransactionHistory": True}])


async def test_the_node_that_told_the_height_is_asked_for_the_outcome_and_pays_no_further_call() -> None:
    nodes = Node(), Node()
    async with an_rpc(*nodes) as rpc:
        final = await rpc.finalized()
        await rpc.signature_statuses([ABSENT], final.slot)
    assert [node.methods for node in nodes] == [["getEpochInfo", "getSignatureStatuses"], []]


async def test_a_status_without_its_error_is_no_success() -> None:
    node = Node()
    node.results["getSignatureStatuses"] = in_context(SLOT, [{"slot": FINAL, "confirmationStatus": "finalized"}])
    async with an_rpc(node) as rpc:
        with pytest.raises(ChainUnavailable, match="missing required field `err`"):
            await rpc.signature_statuses([ABSENT])


async def test_each_signature_gets_its_own_status_in_the_order_asked() -> None:
    node = Node()
    node.statuses = {
        "a": status_json(1, {"InstructionError": [2, {"Custom": 6005}]}, "confirmed"),
        "c": {**status_json(3), "confirmationStatus": None},
    }
    async with an_rpc(node) as rpc:
        answer = await rpc.signature_statuses([Signature(each) for each in "abc"])
    assert answer.slot == SLOT
    assert answer.statuses == (
        SignatureStatus(1, TransactionFault("InstructionError", 2, "Custom", 6005), "confirmed"),
        None,
        SignatureStatus(3, None, None),
    )


@pytest.mark.parametrize(
    ("err", "fault", "words"),
    [
        ("BlockhashNotFound", TransactionFault("BlockhashNotFound"), "BlockhashNotFound"),
        (
            {"InstructionError": [0, {"Custom": 1}]},
            TransactionFault("InstructionError", 0, "Custom", 1),
            "InstructionError in instruction 0: custom error 1",
        ),
        (
            {"InstructionError": [3, "InvalidAccountData"]},
            TransactionFault("InstructionError", 3, "InvalidAccountData"),
            "InstructionError in instruction 3: InvalidAccountData",
        ),
        (
            {"InstructionError": [3, {"BorshIoError": "Unknown"}]},
            TransactionFault("InstructionError", 3, 'BorshIoError "Unknown"'),
            'InstructionError in instruction 3: BorshIoError "Unknown"',
        ),
        (
            {"InsufficientFundsForRent": {"account_index": 4}},
            TransactionFault("InsufficientFundsForRent", detail='{"account_index": 4}'),
            'InsufficientFundsForRent: {"account_index": 4}',
        ),
    ],
)
async def test_the_error_of_a_transaction_keeps_its_instruction_and_its_number(
    err: Any, fault: TransactionFault, words: str
) -> None:
    node = Node()
    node.statuses[ABSENT] = status_json(FINAL, err)
    async with an_rpc(node) as rpc:
        (status,) = (await rpc.signature_statuses([ABSENT])).statuses
    assert status is not None
    assert (status.fault, str(status.fault)) == (fault, words)


@pytest.mark.parametrize(
    "err",
    [{}, {"a": 1, "b": 2}, 0, False, [], {"InstructionError": []}, {"InstructionError": [0, {}]},
     {"InstructionError": ["0", "x"]}, {"InstructionError": [-1, "x"]}, {"InstructionError": [0, {"Custom": "1"}]}],
)  # fmt: skip
async def test_an_error_of_no_known_shape_is_no_answer_rather_than_no_error(err: Any) -> None:
    node = Node()
    node.statuses[ABSENT] = status_json(FINAL, err)
    async with an_rpc(node) as rpc:
        with pytest.raises(ChainUnavailable, match="a result that does not fit"):
            await rpc.signature_statuses([ABSENT])


# ---- transactions


async def test_a_landed_transaction_comes_with_what_it_moved() -> None:
    table = AddressLookupTableAccount(Pubkey(bytes([5] * 32)), [Pubkey(bytes([6] * 32))])
    transaction, node = a_transaction(tables=[table]), Node()
    node.transactions[signature_of(transaction)] = landed_json(
        transaction,
        loadedAddresses={"writable": [str(table.addresses[0])], "readonly": []},
        preTokenBalances=[token_json(2, "18446744073709551615")],
        postTokenBalances=[token_json(0, "1"), token_json(2, "0")],
    )
    async with an_rpc(node) as rpc:
        landed = await rpc.transaction(signature_of(transaction), min_slot=FINAL)
    assert landed is not None
    wallet, loaded = Address(bytes(WALLET.pubkey())), Address(bytes([6] * 32))
    assert (landed.slot, landed.fault, landed.fee_lamports, landed.transaction) == (FINAL, None, 5_000, transaction)
    assert landed.keys == (wallet, Address(bytes([9] * 32)), loaded)
    assert (landed.pre_lamports, landed.post_lamports) == ((1_000_000,) * 3, (995_000,) * 3)
    assert landed.pre_tokens == {loaded: TokenBalance(MINT, wallet, 2**64 - 1)}
    assert landed.post_tokens == {wallet: TokenBalance(MINT, wallet, 1), loaded: TokenBalance(MINT, wallet, 0)}
    config = {"commitment": "finalized", "encoding": "base64", "maxSupportedTransactionVersion": 0}
    assert node.calls == [("getTransaction", [signature_of(transaction), config])]


async def test_a_failed_transaction_is_told_with_its_error() -> None:
    transaction, node = a_transaction(), Node()
    err = {"InstructionError": [0, {"Custom": 6}]}
    node.transactions[signature_of(transaction)] = landed_json(transaction, err=err)
    async with an_rpc(node) as rpc:
        landed = await rpc.transaction(signature_of(transaction), min_slot=None)
    assert landed is not None
    assert landed.fault == TransactionFault("InstructionError", 0, "Custom", 6)


TORN: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "another transaction": lambda landed: landed.update(landed_json(a_transaction(b"another"))),
    "a cut transaction": lambda landed: landed.update(transaction=[landed["transaction"][0][:-8], "base64"]),
    "more than the transaction": lambda landed: landed.update(
        transaction=[landed["transaction"][0] + "AAAA", "base64"]
    ),
    "no base64": lambda landed: landed.update(transaction=["*" + landed["transaction"][0], "base64"]),
    "another encoding": lambda landed: landed.update(transaction=[landed["transaction"][0], "base58"]),
    "no meta": lambda landed: landed.update(meta=None),
    "no error": lambda landed: landed["meta"].pop("err"),
    "no fee": lambda landed: landed["meta"].pop("fee"),
    "no token balances": lambda landed: landed["meta"].update(postTokenBalances=None),
    "a balance too few": lambda landed: landed["meta"]["postBalances"].pop(),
    "an account too many": lambda landed: landed["meta"]["loadedAddresses"]["readonly"].append(BLOCKHASH),
    "a token of nobody": lambda landed: landed["meta"].update(postTokenBalances=[token_json(9, "1")]),
    "a token twice": lambda landed: landed["meta"].update(postTokenBalances=[token_json(0, "1")] * 2),
    "too many tokens": lambda landed: landed["meta"].update(postTokenBalances=[token_json(0, str(2**64))]),
    "a fraction of a token": lambda landed: landed["meta"].update(postTokenBalances=[token_json(0, "1.5")]),
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN)
async def test_a_transaction_that_does_not_add_up_is_no_answer(tear: Callable[[dict[str, Any]], Any]) -> None:
    transaction, bad, good = a_transaction(), Node(), Node()
    signature = signature_of(transaction)
    for node in (bad, good):
        node.transactions[signature] = landed_json(transaction)
    tear(bad.transactions[signature])
    async with an_rpc(bad, good) as rpc:
        landed = await rpc.transaction(signature, min_slot=None)
    assert landed is not None
    assert landed.transaction == transaction
    assert (len(bad.calls), len(good.calls)) == (1, 1)


async def test_an_absent_transaction_is_absent_only_if_the_same_node_does_not_know_its_signature_either() -> None:
    node = Node()
    async with an_rpc(node) as rpc:
        assert await rpc.transaction(ABSENT, min_slot=FINAL) is None
        assert node.methods == ["getTransaction", "getSlot", "getSignatureStatuses"]
        node.statuses[ABSENT] = status_json(SLOT, commitment="confirmed")
        with pytest.raises(ChainUnavailable, match="it knows the signature, but no finalized record"):
            await rpc.transaction(ABSENT, min_slot=FINAL)
        node.statuses.clear()
        node.slot -= 100
        node.results["getSignatureStatuses"] = in_context(FINAL - 1, [None])
        with pytest.raises(ChainUnavailable, match="older than"):
            await rpc.transaction(ABSENT, min_slot=FINAL)


async def test_a_transaction_that_one_node_has_not_seen_is_found_at_the_next() -> None:
    transaction, lagging, good = a_transaction(), Node(SLOT - 100), Node()
    good.transactions[signature_of(transaction)] = landed_json(transaction)
    async with an_rpc(lagging, good) as rpc:
        assert await rpc.transaction(signature_of(transaction), min_slot=FINAL) is not None


async def test_height_and_slot_come_from_one_answer() -> None:
    node = Node()
    async with an_rpc(node) as rpc:
        assert await rpc.finalized() == Finalized(FINAL - SKIPPED, FINAL)
        node.results["getEpochInfo"] = {"absoluteSlot": 5, "blockHeight": 6}
        with pytest.raises(ChainUnavailable, match="more blocks than slots"):
            await rpc.finalized()
    assert set(node.methods) == {"getEpochInfo"}


async def test_a_blockhash_comes_with_its_last_height_and_one_that_has_expired_is_no_answer() -> None:
    node = Node()
    async with an_rpc(node) as rpc:
        recent = await rpc.latest_blockhash()
        assert (str(recent.blockhash), recent.last_valid_block_height, recent.slot) == (
            BLOCKHASH,
            SLOT - 2 - SKIPPED + 150,
            SLOT - 2,
        )
        await rpc.finalized()
        node.slot -= 1_000
        with pytest.raises(ChainUnavailable, match="a blockhash of slot"):
            await rpc.latest_blockhash()


async def test_an_old_view_is_no_answer_even_if_the_node_does_not_say_so_itself() -> None:
    node = Node()
    async with an_rpc(node) as rpc:
        with pytest.raises(ChainUnavailable, match="older than was asked for"):
            await rpc.simulate(b"", min_slot=SLOT)
        assert node.calls[-1][1][1]["minContextSlot"] == SLOT
        node.slot += 2
        node.results["simulateTransaction"] = in_context(SLOT - 1, {"err": None})
        with pytest.raises(ChainUnavailable, match=f"its view is of slot {SLOT - 1}, older than {SLOT}"):
            await rpc.simulate(b"", min_slot=SLOT)


# ---- accounts


async def test_accounts_are_read_in_the_order_asked_at_one_slot() -> None:
    node, held = Node(), Account(MINT, b"\x00\xff" * 500)
    node.accounts[format_address(ADDRESS)] = held
    async with an_rpc(node) as rpc:
        reader: AccountReader = rpc
        assert await reader.read([MINT, ADDRESS]) == (SLOT - 2, [None, held])
        assert await rpc.balance(ADDRESS) == (SLOT - 2, 5)
        assert await rpc.token_accounts(ADDRESS, MINT) == (SLOT - 2, {ADDRESS: held})
        with pytest.raises(ValueError, match="101 accounts"):
            await rpc.read([ADDRESS] * 101)
        for torn in ({"space": 999}, {"data": ["AA==", "base64"]}, {"owner": "0"}, {"data": "AA=="}):
            node.results["getMultipleAccounts"] = in_context(SLOT, [{**account_json(held), **torn}])
            with pytest.raises(ChainUnavailable):
                await rpc.read([ADDRESS])


async def test_what_else_a_node_knows_is_read_as_it_says() -> None:
    node, transaction = Node(), a_transaction()
    node.results["getSignaturesForAddress"] = [
        {"signature": signature_of(transaction), "slot": 5, "err": None, "memo": "[1] x", "blockTime": None,
         "confirmationStatus": "finalized"}
    ]  # fmt: skip
    async with an_rpc(node) as rpc:
        (info,) = await rpc.signatures_for_address(ADDRESS, before=ABSENT)
        assert (info.signature, info.slot, info.fault, info.memo) == (signature_of(transaction), 5, None, "[1] x")
        config = {"commitment": "finalized", "before": ABSENT, "limit": 1_000}
        assert node.calls[-1] == ("getSignaturesForAddress", [format_address(ADDRESS), config])
        assert [fee.micro_lamports for fee in await rpc.prioritization_fees()] == [7]


async def test_a_simulation_tells_what_would_be_and_why_not() -> None:
    node, raw = Node(), bytes(a_transaction())
    node.accounts[format_address(ADDRESS)] = Account(MINT, b"x")
    async with an_rpc(node) as rpc:
        good = await rpc.simulate(raw, [ADDRESS, MINT])
        assert (good.slot, good.fault, good.compute_units) == (SLOT - 2, None, 450)
        assert good.accounts == (Account(MINT, b"x"), None)
        config = node.calls[-1][1][1]
        assert (config["sigVerify"], config["replaceRecentBlockhash"]) == (False, True)
        failed = {"err": {"InstructionError": [0, {"Custom": 1}]}, "logs": ["no"], "accounts": None}
        node.results["simulateTransaction"] = in_context(SLOT, failed)
        bad = await rpc.simulate(raw, [ADDRESS])
        assert (bad.fault, bad.logs, bad.accounts) == (
            TransactionFault("InstructionError", 0, "Custom", 1),
            ("no",),
            (),
        )
        none_of_it: list[dict[str, Any]] = [{"logs": []}, {"err": None}, {"err": None, "accounts": [None, None]}]
        for torn in none_of_it:
            node.results["simulateTransaction"] = in_context(SLOT, torn)
            with pytest.raises(ChainUnavailable):
                await rpc.simulate(raw, [ADDRESS])


# ---- sending


async def test_a_transaction_goes_to_every_node_and_the_first_that_takes_it_is_enough() -> None:
    nodes, transaction = [Node() for _ in range(4)], a_transaction()
    nodes[0].always, nodes[1].always, nodes[2].always = drop, http(500), slow(2)
    async with an_rpc(*nodes[:2], send_only=nodes[2:]) as rpc:
        began_s = now_s()
        assert await rpc.send(bytes(transaction)) == signature_of(transaction)
        assert now_s() - began_s < 1
        await asyncio.sleep(5)
    assert [node.taken for node in nodes] == [[bytes(transaction)]] * 4
    config = {"encoding": "base64", "skipPreflight": True, "maxRetries": 0}
    assert nodes[3].calls == [("sendTransaction", [b64encode(bytes(transaction)).decode(), config])]


async def test_those_who_are_only_sent_transactions_are_asked_nothing() -> None:
    node, sender = Node(), Node()
    node.always = http(500)
    async with an_rpc(node, send_only=[sender]) as rpc:
        with pytest.raises(ChainUnavailable):
            await rpc.finalized()
    assert sender.calls == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_where_nobody_has_taken_a_transaction_for_certain_it_is_unknown(fault: Fault) -> None:
    nodes = Node(), Node()
    for node in nodes:
        node.always = fault
    async with an_rpc(nodes[0], send_only=[nodes[1]]) as rpc:
        with pytest.raises(ChainUnavailable, match="no node took the transaction"):
            await rpc.send(bytes(a_transaction()))
    assert [len(node.calls) for node in nodes] == [1, 1]


async def test_the_signature_of_another_transaction_is_no_answer_to_sending() -> None:
    node = Node()
    node.results["sendTransaction"] = signature_of(a_transaction(b"another"))
    async with an_rpc(node) as rpc:
        with pytest.raises(ChainUnavailable, match="the signature of another transaction"):
            await rpc.send(bytes(a_transaction()))


PREFLIGHT: Final = error(
    -32002,
    "Transaction simulation failed: Error processing Instruction 2: custom program error: 0x1775",
    {"err": {"InstructionError": [2, {"Custom": 6005}]}, "logs": ["Program failed"], "accounts": None},
)


async def test_what_a_node_expects_of_a_transaction_is_told_with_its_error_and_is_no_outcome() -> None:
    doubtful, silent, good = Node(), Node(), Node()
    doubtful.always, silent.always = PREFLIGHT, drop
    transaction = bytes(a_transaction())
    async with an_rpc(doubtful, silent) as rpc:
        with pytest.raises(PreflightFailed) as told:
            await rpc.send(transaction)
        assert told.value.fault == TransactionFault("InstructionError", 2, "Custom", 6005)
        assert told.value.logs == ("Program failed",)
        assert isinstance(told.value, ChainUnavailable)
    async with an_rpc(doubtful, good) as rpc:
        assert await rpc.send(transaction)


async def test_a_caller_that_gives_up_does_not_take_back_what_is_under_way() -> None:
    node = Node()
    node.always = slow(1)
    async with an_rpc(node) as rpc:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rpc.send(bytes(a_transaction())), 0.5)
        await asyncio.sleep(1)
        assert rpc.endpoints[0].failures == 0
    assert len(node.taken) == 1


# ---- whose fault


@pytest.mark.parametrize("code", [-32700, -32600, -32601, -32602, -32003, -32013, -32015])
async def test_a_call_that_a_node_does_not_take_is_our_fault_and_loud(code: int) -> None:
    node, other = Node(), Node()
    node.always = error(code, "Invalid param: WrongSize")
    with structlog.testing.capture_logs() as logs:
        async with an_rpc(node, other) as rpc:
            with pytest.raises(InvalidCall, match=r"refuses getEpochInfo: .*WrongSize"):
                await rpc.finalized()
            assert rpc.endpoints[0].failures == 0
    assert other.calls == []
    assert [(log["event"], log["log_level"], log["code"]) for log in logs] == [("rpc.call_refused", "error", code)]


async def test_a_node_that_is_a_little_behind_is_passed_over_but_not_put_to_rest() -> None:
    behind, good = Node(SLOT - 5), Node()
    async with an_rpc(behind, good) as rpc:
        assert (await rpc.signature_statuses([ABSENT], FINAL)).slot == SLOT
        assert not rpc.endpoints[0].wait_s(now_s())
    assert (behind.methods, good.methods) == (["getSlot"], ["getSlot", "getSignatureStatuses"])


# ---- one chain


async def test_nodes_of_different_chains_are_not_taken_for_one() -> None:
    ours, theirs = Node(), Node()
    theirs.genesis = OTHER_GENESIS
    async with an_rpc(ours, theirs) as rpc:
        with pytest.raises(MixedChains, match=f"127.*: {GENESIS}; 127.*: {OTHER_GENESIS}"):
            await rpc.genesis_hash()


async def test_a_node_that_was_away_at_the_start_is_asked_for_its_chain_before_it_is_believed() -> None:
    ours, theirs = Node(), Node()
    theirs.genesis, theirs.always = OTHER_GENESIS, http(500)
    async with an_rpc(ours, theirs) as rpc:
        assert await rpc.genesis_hash() == GENESIS
        theirs.always, ours.always = None, drop
        await asyncio.sleep(31)
        for _ in range(3):
            with pytest.raises(ChainUnavailable, match="another chain"):
                await rpc.signature_statuses([ABSENT])
    assert theirs.methods == ["getGenesisHash", "getGenesisHash"]


async def test_history_begins_where_the_last_node_of_our_chain_has_it() -> None:
    long, short, theirs = Node(), Node(), Node()
    theirs.genesis, theirs.always = OTHER_GENESIS, http(500)
    for node, first in ((long, 0), (short, 100), (theirs, 10_000)):
        node.results["getFirstAvailableBlock"] = first
    async with an_rpc(long, short, theirs) as rpc:
        await rpc.genesis_hash()
        theirs.always = None
        assert await rpc.history_from() == 100
        long.always = short.always = drop
        with pytest.raises(ChainUnavailable, match="another chain"):
            await rpc.history_from()


async def test_where_no_node_names_the_chain_it_is_unknown() -> None:
    node = Node()
    node.always = reset
    async with an_rpc(node) as rpc:
        with pytest.raises(ChainUnavailable, match="getGenesisHash"):
            await rpc.genesis_hash()


# ---- secrets


SINGING: Final[dict[str, Fault]] = {
    **FAULTS,
    "our fault, in its words": error(-32602, f"Invalid request to /{KEY}?api-key={KEY}2"),
    "an error, in its words": error(-32099, f"Invalid request to /{KEY}?api-key={KEY}2"),
    "logs with it": error(-32002, KEY, {"err": f"{KEY}2", "logs": [f"https://host/{KEY}"]}),
    "a value with it": error(-32099, KEY, KEY),
}


@pytest.mark.parametrize("fault", SINGING.values(), ids=SINGING)
async def test_the_key_of_a_node_is_in_no_error_log_metric_or_label(fault: Fault) -> None:
    node, heard, said = Node(), Heard(), list[str]()
    node.always = fault
    with structlog.testing.capture_logs() as logs:
        async with an_rpc(node, heard=heard) as rpc:
            for call in (rpc.finalized, lambda: rpc.send(bytes(a_transaction())), rpc.genesis_hash):
                try:
                    await call()
                except ChainUnavailable as error:
                    said += traceback.format_exception(error)
                    cause: BaseException | None = error
                    while cause is not None:
                        said.append(f"{cause!r} {vars(cause)}")
                        cause = cause.__cause__ or cause.__context__
                await asyncio.sleep(60)
            said += [repr(rpc.endpoints), repr(heard.exchanges), repr(logs)]
    assert said
    assert [words for words in said if KEY in words] == []


def test_settings_do_not_show_the_urls() -> None:
    assert KEY not in repr(RpcSettings((f"https://node/{KEY}",), (f"https://sender/{KEY}",)))


def test_a_node_is_called_by_its_host_and_two_on_one_host_are_told_apart() -> None:
    urls = [f"https://user:{KEY}@a.example/{KEY}", f"https://a.example/?key={KEY}", "http://10.0.0.1:8899"]
    assert labels(urls) == ["a.example", "a.example#2", "10.0.0.1:8899"]


def test_without_a_node_there_is_no_client() -> None:
    with pytest.raises(ValueError, match="FILLWRIGHT_RPC_URLS"):
        Rpc(RpcSettings(()))


async def test_a_call_does_not_follow_a_node_elsewhere() -> None:
    node, elsewhere = Node(), Node()
    async with an_rpc(node) as rpc, running(elsewhere):
        node.always = http(307, Location=f"{elsewhere.url}/{KEY}")
        with pytest.raises(ChainUnavailable, match="HTTP 307"):
            await rpc.finalized()
    assert elsewhere.calls == []


@pytest.mark.parametrize("url", [f"http://no host/{KEY}", f"http://\u2603.\u2024/{KEY}", f"ftp://host/{KEY}"])
async def test_what_cannot_be_a_url_is_unknown_and_not_shown(url: str) -> None:
    rpc = Rpc(RpcSettings((url,)))
    with pytest.raises(ChainUnavailable) as told:
        await rpc.finalized()
    assert KEY not in "".join(traceback.format_exception(told.value))
    await rpc.close()
