"""The local chain keeps the rules that transactions live and die by, seen over JSON-RPC."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from struct import pack

import pytest
from solders.account import Account as SoldersAccount
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.rpc.responses import (
    GetAccountInfoResp,
    GetLatestBlockhashResp,
    GetSignatureStatusesResp,
    GetTransactionResp,
    SendTransactionResp,
    SimulateTransactionResp,
)
from solders.signature import Signature
from solders.transaction import Transaction, VersionedTransaction

from fillwright.core.accounts import format_address
from fillwright.core.errors import InvalidWallet
from fillwright.core.programs import CLOCK, SOL_MINT, SPL_TOKEN, USDC_MINT
from fillwright.localnet.chain import FIRST_SLOT, LocalChain
from fillwright.localnet.world import SOL, associated, key_of, open_market, open_wallet
from tests.localnet.local import Local, Refusal, a_local_chain, local_test, pay, transaction_of, unwrap, wrap
from tests.virtual import run

SOMEBODY = Pubkey.from_bytes(b"somebody".ljust(32))
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")


async def balance(local: Local, commitment: str = "processed") -> int:
    answer = await local.call("getBalance", str(SOMEBODY), {"commitment": commitment})
    return int(answer["value"])


@local_test
async def test_a_transfer_lands_and_is_seen_as_late_as_the_commitment_says(local: Local) -> None:
    signature = await local.send(await local.signed(pay(local, SOMEBODY, SOL)))
    assert await local.status(signature) is None
    seen = []
    for _ in range(34):
        local.chain.tick_blocks(1)
        status = await local.status(signature)
        balances = [await balance(local, each) for each in ("processed", "confirmed", "finalized")]
        seen.append((status["confirmationStatus"], status["confirmations"], *(each // SOL for each in balances)))
    assert seen[0] == ("processed", 0, 1, 0, 0)
    assert seen[1] == ("processed", 1, 1, 0, 0)
    assert seen[2] == ("confirmed", 2, 1, 1, 0)
    assert seen[31] == ("confirmed", 31, 1, 1, 0)
    assert seen[32] == ("finalized", None, 1, 1, 1)


@local_test
async def test_slots_are_skipped_and_heights_are_far_below_them(local: Local) -> None:
    processed = {"commitment": "processed"}
    slot, height = await local.call("getSlot", processed), await local.call("getBlockHeight", processed)
    assert slot - height > 10_000_000
    local.chain.tick(1_000)
    slots = await local.call("getSlot", processed) - slot
    heights = await local.call("getBlockHeight", processed) - height
    assert 900 < heights < slots <= 1_000
    finalized = await local.call("getBlockHeight")
    assert await local.call("getBlockHeight", processed) - finalized == 32


@local_test
async def test_a_transaction_lands_up_to_the_last_valid_block_height_and_never_after(local: Local) -> None:
    latest = await local.call("getLatestBlockhash", {"commitment": "processed"})
    blockhash, last_valid = latest["value"]["blockhash"], latest["value"]["lastValidBlockHeight"]
    assert last_valid == local.chain.tip.height + 150
    in_time, late = [await local.signed(pay(local, SOMEBODY, SOL), blockhash=blockhash) for _ in range(2)]
    local.chain.landing = lambda each: 150 if each == in_time else 151
    for each in (in_time, late):
        await local.send(each)
    slot = local.chain.tip.slot
    local.chain.tick_blocks(160)
    assert local.chain.tip.slot - slot > 160
    landed = local.chain.landed(in_time.signatures[0])
    assert landed is not None
    assert landed.block.height == last_valid
    assert await local.status(str(late.signatures[0])) is None
    assert await balance(local) == SOL
    with pytest.raises(Refusal) as refused:
        await local.send(late)
    assert (refused.value.code, refused.value.data["err"]) == (-32002, "BlockhashNotFound")
    assert "Blockhash not found" in str(refused.value)


@local_test
async def test_what_is_sent_twice_lands_once_even_if_it_failed(local: Local) -> None:
    fine = await local.signed(pay(local, SOMEBODY, SOL))
    failing = await local.signed(pay(local, SOMEBODY, 10**6 * SOL))
    for each in (fine, failing):
        for _ in range(3):
            assert await local.send(each, skipPreflight=True) == str(each.signatures[0])
    before = local.chain.tip.height
    local.chain.tick_blocks(3)
    paid = await local.call("getBalance", str(local.wallet.pubkey()), {"commitment": "processed"})
    assert await balance(local) == SOL
    for each in (fine, failing):
        assert await local.send(each) == str(each.signatures[0])
    local.chain.tick_blocks(3)
    again = await local.call("getBalance", str(local.wallet.pubkey()), {"commitment": "processed"})
    assert paid["value"] == again["value"]
    status = await local.status(str(failing.signatures[0]))
    assert status["err"] == {"InstructionError": [1, {"Custom": 1}]}
    assert status["status"] == {"Err": status["err"]}
    landed = local.chain.landed(failing.signatures[0])
    assert landed is not None
    assert landed.block.height == before + 1


@local_test
async def test_preflight_refuses_what_would_fail_and_sends_nothing(local: Local) -> None:
    with pytest.raises(Refusal) as refused:
        await local.send(await local.signed(pay(local, SOMEBODY, 10**6 * SOL)))
    assert refused.value.code == -32002
    assert refused.value.data["err"] == {"InstructionError": [1, {"Custom": 1}]}
    assert str(refused.value) == (
        "Transaction simulation failed: Error processing Instruction 1: custom program error: 0x1"
    )
    stranger = Keypair()
    gift = pay(local, SOMEBODY, SOL)
    blockhash = str(local.chain.tip.blockhash)
    poor = transaction_of(stranger, [Instruction(MEMO, b"poor", [])], blockhash)
    with pytest.raises(Refusal) as refused:
        await local.send(poor)
    assert refused.value.data["err"] == "AccountNotFound"
    forged = VersionedTransaction.populate((await local.signed(gift)).message, [Signature.default()])
    with pytest.raises(Refusal) as refused:
        await local.send(forged)
    assert refused.value.code == -32003
    for each in (poor, forged):
        await local.send(each, skipPreflight=True)
    local.chain.tick_blocks(3)
    for each in (poor, forged):
        assert await local.status(str(each.signatures[0])) is None
    assert await balance(local) == 0


@local_test
async def test_a_transaction_larger_than_a_packet_is_refused(local: Local) -> None:
    fits = await local.signed(Instruction(MEMO, b"m" * 900, []))
    await local.send(fits)
    with pytest.raises(Refusal, match="too large") as refused:
        await local.send(await local.signed(Instruction(MEMO, b"m" * 1_100, [])))
    assert refused.value.code == -32602


@local_test
async def test_a_node_that_is_behind_does_not_know_a_new_blockhash(local: Local) -> None:
    fresh = await local.signed(pay(local, SOMEBODY, SOL))
    with pytest.raises(Refusal, match="Blockhash not found"):
        await local.send(fresh, preflightCommitment="finalized")
    blockhash = str(local.chain.tip.blockhash)
    valid = await local.call("isBlockhashValid", blockhash, {"commitment": "processed"})
    assert valid["value"]
    assert not (await local.call("isBlockhashValid", blockhash))["value"]


@local_test
async def test_balances_name_accounts_that_were_created_and_closed_in_the_transaction(local: Local) -> None:
    done = await local.land(*wrap(local, SOL))
    account = str(Pubkey.from_bytes(associated(local.owner, SOL_MINT)))
    keys = [
        str(key)
        for key in VersionedTransaction.from_bytes(base64.b64decode(done["transaction"][0])).message.account_keys
    ]
    after = {keys[each["accountIndex"]]: each for each in done["meta"]["postTokenBalances"]}
    assert done["meta"]["preTokenBalances"] == []
    assert after[account]["uiTokenAmount"] == {
        "amount": str(SOL), "decimals": 9, "uiAmount": 1.0, "uiAmountString": "1"
    }  # fmt: skip
    assert (after[account]["owner"], after[account]["mint"]) == (
        str(local.wallet.pubkey()), format_address(SOL_MINT)
    )  # fmt: skip
    closed = await local.land(unwrap(local))
    assert [each["uiTokenAmount"]["amount"] for each in closed["meta"]["preTokenBalances"]] == [str(SOL)]
    assert closed["meta"]["postTokenBalances"] == []
    both = await local.land(*wrap(local, SOL), unwrap(local))
    assert both["meta"]["preTokenBalances"] == both["meta"]["postTokenBalances"] == []
    assert both["meta"]["preBalances"][0] - both["meta"]["postBalances"][0] == both["meta"]["fee"]


@local_test
async def test_a_view_of_accounts_is_of_one_block_with_its_clock(local: Local) -> None:
    await local.land(pay(local, SOMEBODY, SOL))
    for commitment, lag in (("processed", 0), ("confirmed", 2), ("finalized", 32)):
        config = {"encoding": "base64", "commitment": commitment}
        answer = await local.call("getMultipleAccounts", [format_address(CLOCK), str(SOMEBODY)], config)
        clock, _ = answer["value"]
        slot = int.from_bytes(base64.b64decode(clock["data"][0])[:8], "little")
        assert slot == answer["context"]["slot"] == local.chain.block_behind(lag).slot


@local_test
async def test_the_signatures_of_an_account_are_listed_newest_first_with_their_memos(local: Local) -> None:
    done = []
    for index in range(5):
        memo = Instruction(MEMO, f"order {index}".encode(), [])
        done.append(await local.send(await local.signed(memo)))
        local.chain.tick_blocks(1)
    local.chain.tick_blocks(40)
    wallet = str(local.wallet.pubkey())
    listed = await local.call("getSignaturesForAddress", wallet, {"limit": 3})
    assert [each["signature"] for each in listed] == done[:1:-1]
    assert listed[0]["memo"] == "[7] order 4"
    rest = await local.call("getSignaturesForAddress", wallet, {"before": listed[-1]["signature"]})
    assert [each["signature"] for each in rest] == done[1::-1]
    newer = await local.call("getSignaturesForAddress", wallet, {"until": done[2]})
    assert [each["signature"] for each in newer] == done[:2:-1]


@local_test
async def test_simulation_says_what_would_happen_and_changes_nothing(local: Local) -> None:
    transaction = await local.signed(pay(local, SOMEBODY, SOL))
    text = base64.b64encode(bytes(transaction)).decode()
    asked = {"encoding": "base64", "addresses": [str(SOMEBODY)]}
    config = {"encoding": "base64", "commitment": "processed", "accounts": asked}
    answer = (await local.call("simulateTransaction", text, config))["value"]
    assert answer["err"] is None
    assert answer["accounts"][0]["lamports"] == SOL
    assert answer["unitsConsumed"] == 300
    assert await balance(local) == 0
    local.chain.tick_blocks(200)
    stale = (await local.call("simulateTransaction", text, config))["value"]
    assert (stale["err"], stale["accounts"]) == ("BlockhashNotFound", None)
    fresh = (await local.call("simulateTransaction", text, config | {"replaceRecentBlockhash": True}))["value"]
    assert fresh["err"] is None
    assert fresh["replacementBlockhash"]["blockhash"] == str(local.chain.tip.blockhash)
    with pytest.raises(Refusal) as refused:
        await local.call(
            "simulateTransaction", text, {"encoding": "base64", "sigVerify": True, "replaceRecentBlockhash": True}
        )
    assert refused.value.code == -32602


@local_test
async def test_solders_reads_every_answer(local: Local) -> None:
    transaction = await local.signed(pay(local, SOMEBODY, SOL))
    text = base64.b64encode(bytes(transaction)).decode()
    signature = transaction.signatures[0]
    processed, wallet = {"commitment": "processed", "encoding": "base64"}, str(local.wallet.pubkey())

    async def raw(method: str, *params: object) -> str:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        async with local.http.post(local.endpoint.url, json=body) as response:
            return await response.text()

    simulated = SimulateTransactionResp.from_json(await raw("simulateTransaction", text, processed))
    assert isinstance(simulated, SimulateTransactionResp)
    assert simulated.value.err is None
    sent = SendTransactionResp.from_json(
        await raw("sendTransaction", text, {"encoding": "base64", "preflightCommitment": "processed"})
    )
    assert isinstance(sent, SendTransactionResp)
    assert sent.value == signature
    local.chain.tick_blocks(3)
    statuses = GetSignatureStatusesResp.from_json(await raw("getSignatureStatuses", [str(signature)]))
    assert isinstance(statuses, GetSignatureStatusesResp)
    assert statuses.value[0] is not None
    for encoding in ("json", "base64"):
        config = {"commitment": "confirmed", "encoding": encoding, "maxSupportedTransactionVersion": 0}
        found = GetTransactionResp.from_json(await raw("getTransaction", str(signature), config))
        assert isinstance(found, GetTransactionResp)
        assert found.value is not None
        assert found.value.transaction.meta is not None
        assert found.value.transaction.meta.fee > 5_000 - 1
    account = GetAccountInfoResp.from_json(await raw("getAccountInfo", wallet, processed))
    assert isinstance(account, GetAccountInfoResp)
    assert account.value is not None
    latest = GetLatestBlockhashResp.from_json(await raw("getLatestBlockhash", processed))
    assert isinstance(latest, GetLatestBlockhashResp)


@local_test
async def test_legacy_transactions_land_too(local: Local) -> None:
    blockhash = local.chain.tip.blockhash
    message = Message.new_with_blockhash([pay(local, SOMEBODY, SOL)], local.wallet.pubkey(), blockhash)
    legacy = VersionedTransaction.from_legacy(Transaction([local.wallet], message, blockhash))
    await local.send(legacy)
    local.chain.tick_blocks(3)
    config = {"commitment": "confirmed", "encoding": "base64"}
    assert (await local.call("getTransaction", str(legacy.signatures[0]), config))["meta"]["err"] is None
    v0 = await local.send(await local.signed(pay(local, SOMEBODY, SOL)))
    local.chain.tick_blocks(3)
    with pytest.raises(Refusal) as refused:
        await local.call("getTransaction", v0, config)
    assert refused.value.code == -32015


@local_test
async def test_requests_that_make_no_sense_are_refused_by_the_right_code(local: Local) -> None:
    wallet, signature = str(local.wallet.pubkey()), str(Signature.default())
    for code, method, params in (
        (-32601, "getNothing", []),
        (-32602, "getAccountInfo", ["not a key"]),
        (-32602, "getAccountInfo", [wallet, {"encoding": "jsonParsed"}]),
        (-32602, "getMultipleAccounts", [[wallet] * 101]),
        (-32602, "getSignatureStatuses", [[signature] * 257]),
        (-32602, "getTransaction", [signature, {"commitment": "processed"}]),
        (-32602, "getTransaction", [signature, {"encoding": "jsonParsed"}]),
        (-32602, "getSlot", [{"commitment": "soon"}]),
        (-32602, "sendTransaction", ["!", {"encoding": "base64"}]),
        (-32602, "sendTransaction", ["AAAA", {"encoding": "base64"}]),
        (-32016, "getSlot", [{"minContextSlot": FIRST_SLOT + 10**9}]),
    ):
        with pytest.raises(Refusal) as refused:
            await local.call(method, *params)
        assert refused.value.code == code, method
    assert (await local.post({"jsonrpc": "2.0"}))["error"]["code"] == -32600
    assert (await local.post([]))["error"]["code"] == -32600


@local_test
async def test_a_batch_is_answered_in_order(local: Local) -> None:
    calls = [
        {"jsonrpc": "2.0", "id": index, "method": method} for index, method in enumerate(("getSlot", "x", "getHealth"))
    ]
    answers = await local.post(calls)
    assert [each["id"] for each in answers] == [0, 1, 2]
    assert answers[1]["error"]["code"] == -32601
    assert answers[2]["result"] == "ok"


@local_test
async def test_an_airdrop_and_the_accounts_of_an_owner_are_there_for_those_who_ask(local: Local) -> None:
    await local.call("requestAirdrop", str(SOMEBODY), 5 * SOL)
    await local.call("requestAirdrop", str(SOMEBODY), 5 * SOL)
    local.chain.tick_blocks(1)
    assert await balance(local) == 10 * SOL
    wallet, config = str(local.wallet.pubkey()), {"encoding": "base64", "commitment": "processed"}
    for wanted in ({"mint": format_address(USDC_MINT)}, {"programId": format_address(SPL_TOKEN)}):
        owned = (await local.call("getTokenAccountsByOwner", wallet, wanted, config))["value"]
        assert [each["pubkey"] for each in owned] == [format_address(associated(local.owner, USDC_MINT))]
    usdc = await local.call("getTokenAccountBalance", owned[0]["pubkey"])
    assert usdc["value"]["uiAmountString"] == "100000"
    assert await local.call("getMinimumBalanceForRentExemption", 165) == 2_039_280


@local_test
async def test_recent_fees_are_those_that_were_paid_for_the_accounts(local: Local) -> None:
    price = Instruction(Pubkey.from_string("ComputeBudget111111111111111111111111111111"), pack("<BQ", 3, 10**6), [])
    message = Message.new_with_blockhash(
        [price, pay(local, SOMEBODY, SOL)], local.wallet.pubkey(), Hash.from_string(str(local.chain.tip.blockhash))
    )
    await local.send(VersionedTransaction(message, [local.wallet]))
    local.chain.tick_blocks(2)
    fees = await local.call("getRecentPrioritizationFees", [str(SOMEBODY)])
    assert len(fees) == 150
    assert sorted(each["prioritizationFee"] for each in fees)[-2:] == [0, 10**6]


def test_a_seed_makes_the_same_chain_again_and_another_start_another_chain() -> None:
    one, same, other, later = (
        LocalChain(seed=seed, unix_time_s=start) for seed, start in ((1, 5), (1, 5), (2, 5), (1, 6))
    )
    for each in (one, same, other, later):
        each.tick(50)
    assert one.tip == same.tip
    assert one.genesis_hash == same.genesis_hash
    assert len({one.tip.blockhash, other.tip.blockhash, later.tip.blockhash}) == 3
    assert open_market(one, key_of(1, "wallet"), seed=1).pools == open_market(same, key_of(1, "wallet"), seed=1).pools


def test_the_chain_moves_by_its_clock() -> None:
    async def body() -> None:
        async with a_local_chain() as local:
            slot = local.chain.tip.slot
            running = asyncio.ensure_future(local.chain.run(local.clock, speed=2))
            await local.clock.sleep(60_000)  # virtual
            running.cancel()
            assert 290 <= local.chain.tip.slot - slot <= 301

    run(body())


def test_a_wallet_that_is_made_is_for_its_owners_eyes_only_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    wallet = open_wallet(path, seed=7)
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_wallet(path, seed=8) == wallet
    path.write_text("[1, 2]")
    with pytest.raises(InvalidWallet):
        open_wallet(path)


@local_test
async def test_an_account_below_the_rent_minimum_fails_the_transaction_that_makes_it(local: Local) -> None:
    done = await local.land(pay(local, SOMEBODY, 1), skipPreflight=True)
    assert done["meta"]["err"] == {"InsufficientFundsForRent": {"account_index": 1}}
    assert local.chain.account(SOMEBODY) is None
    local.chain.set_account(SOMEBODY, SoldersAccount(SOL, b"", Pubkey.default()))
    assert (await local.land(pay(local, SOMEBODY, 1)))["meta"]["err"] is None
