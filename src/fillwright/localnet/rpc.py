"""The JSON-RPC methods of a Solana node, on a local chain. `endpoint` serves them.

Shapes and error codes are those of Agave's RPC documentation and of the replies that solders parses. What a node would
answer in a form that is not made here (an encoding, a method) is refused as invalid: no other form is given silently.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from struct import unpack_from
from typing import Any, Final, TypeAlias

from solders.account import Account
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from fillwright.core.units import base58
from fillwright.localnet.chain import (
    BLOCKHASH_BLOCKS,
    LAG_BLOCKS,
    SLOTS_PER_EPOCH,
    STATUS_SLOTS,
    TOKEN_PROGRAMS,
    Block,
    Commitment,
    Execution,
    Json,
    Landed,
    LocalChain,
    TokenBalance,
    View,
    is_signed,
)
from fillwright.localnet.emulation import COMPUTE_BUDGET

Params: TypeAlias = Sequence[Any]
Config: TypeAlias = Mapping[str, Any]

TRANSACTION_BYTES_MAX: Final = 1_232
ACCOUNTS_MAX: Final = 100
STATUSES_MAX: Final = 256
SIGNATURES_MAX: Final = 1_000
FEES_MAX: Final = 150
BASE58_BYTES_MAX: Final = 128
AIRDROP_LAMPORTS_MAX: Final = 10_000 * 10**9
FAUCET_LAMPORTS: Final = 10**17
RENT_EPOCH: Final = 2**64 - 1
API_VERSION: Final = "3.0.0"
SET_UNIT_PRICE: Final = 3
MEMO_PROGRAMS: Final = (
    Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"),
    Pubkey.from_string("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo"),
)

METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INVALID_REQUEST: Final = -32600
PREFLIGHT_FAILED: Final = -32002
SIGNATURE_WRONG: Final = -32003
NODE_UNHEALTHY: Final = -32005
UNSUPPORTED_VERSION: Final = -32015
MIN_CONTEXT_SLOT: Final = -32016


class RpcError(Exception):
    """What the answer's `error` says."""

    def __init__(self, code: int, message: str, data: Json = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def to_json(self) -> Json:
        error = {"code": self.code, "message": str(self)}
        return error | {"data": self.data} if self.data is not None else error


def unhealthy(slots_behind: int) -> RpcError:
    return RpcError(NODE_UNHEALTHY, f"Node is behind by {slots_behind} slots", {"numSlotsBehind": slots_behind})


class Rpc:
    """The methods, as one endpoint answers them."""

    def __init__(self, chain: LocalChain, lag_blocks: int = 0) -> None:
        self.chain = chain
        self.view = View(chain, lag_blocks)
        self._faucet = Keypair.from_seed(bytes(chain.genesis_hash))
        self._airdrops = 0
        if chain.account(self._faucet.pubkey()) is None:
            chain.set_account(self._faucet.pubkey(), Account(FAUCET_LAMPORTS, b"", Pubkey.default()))
        self._methods: Mapping[str, Callable[[Params, Config], Json]] = {
            "getHealth": lambda _, __: "ok",
            "getVersion": lambda _, __: {"solana-core": API_VERSION, "feature-set": 0},
            "getGenesisHash": lambda _, __: str(chain.genesis_hash),
            "getSlot": lambda _, config: self._block(config).slot,
            "getFirstAvailableBlock": lambda _, __: chain.first_slot,
            "getBlockHeight": lambda _, config: self._block(config).height,
            "getEpochInfo": self._epoch_info,
            "getLatestBlockhash": self._latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            "getAccountInfo": self._account_info,
            "getMultipleAccounts": self._multiple_accounts,
            "getBalance": self._balance,
            "getTokenAccountBalance": self._token_account_balance,
            "getTokenAccountsByOwner": self._token_accounts_by_owner,
            "getMinimumBalanceForRentExemption": lambda params, _: chain.rent_exempt_lamports(integer_at(params, 0)),
            "getRecentPrioritizationFees": self._prioritization_fees,
            "getSignatureStatuses": self._signature_statuses,
            "getSignaturesForAddress": self._signatures_for_address,
            "getTransaction": self._transaction,
            "simulateTransaction": self._simulate,
            "sendTransaction": self._send,
            "requestAirdrop": self._airdrop,
        }

    def call(self, method: str, params: Params) -> Json:
        """Return the result. Raise RpcError."""
        answer = self._methods.get(method)
        if answer is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found")
        config = params[-1] if params and isinstance(params[-1], dict) else {}
        return answer(params, config)

    # The chain

    def _block(self, config: Config, default: Commitment = "finalized") -> Block:
        """Return the newest block of the commitment that is asked for. Raise RpcError if that is not new enough."""
        block = self.view.block(commitment_of(config, default))
        least = config.get("minContextSlot")
        if isinstance(least, int) and block.slot < least:
            raise RpcError(MIN_CONTEXT_SLOT, "Minimum context slot has not been reached", {"contextSlot": block.slot})
        return block

    def _epoch_info(self, _: Params, config: Config) -> Json:
        block = self._block(config)
        epoch, index = divmod(block.slot, SLOTS_PER_EPOCH)
        return {
            "absoluteSlot": block.slot,
            "blockHeight": block.height,
            "epoch": epoch,
            "slotIndex": index,
            "slotsInEpoch": SLOTS_PER_EPOCH,
            "transactionCount": self.chain.transaction_count,
        }

    def _latest_blockhash(self, _: Params, config: Config) -> Json:
        block = self._block(config)
        last_valid = block.height + BLOCKHASH_BLOCKS
        return in_context(block, {"blockhash": str(block.blockhash), "lastValidBlockHeight": last_valid})

    def _is_blockhash_valid(self, params: Params, config: Config) -> Json:
        block = self._block(config)
        return in_context(block, self._is_valid(hash_at(params, 0), block))

    def _is_valid(self, blockhash: Hash, at: Block) -> bool:
        created = self.chain.height_of(blockhash)
        return created is not None and created <= at.height < created + BLOCKHASH_BLOCKS

    def _prioritization_fees(self, params: Params, _: Config) -> Json:
        keys = {key_at([each], 0) for each in params[0]} if params and isinstance(params[0], list) else set[Pubkey]()
        blocks = [self.chain.block_behind(self.view.lag_blocks + back) for back in range(FEES_MAX)]
        least = dict[int, int]()
        for landed in self.chain.recent():
            if landed.block.height < blocks[-1].height:
                break
            resolved = landed.resolved
            locked = {key for key, writable in zip(resolved.keys, resolved.writable, strict=True) if writable}
            if keys <= locked:
                slot, price = landed.block.slot, unit_price(landed)
                least[slot] = min(least.get(slot, price), price)
        slots = sorted({block.slot for block in blocks})
        return [{"slot": slot, "prioritizationFee": least.get(slot, 0)} for slot in slots]

    # Accounts

    def _account_info(self, params: Params, config: Config) -> Json:
        block = self._block(config)
        return in_context(block, account_json(self.chain.account(key_at(params, 0), block.slot), config))

    def _multiple_accounts(self, params: Params, config: Config) -> Json:
        keys = params[0] if params else None
        if not isinstance(keys, list) or len(keys) > ACCOUNTS_MAX:
            raise RpcError(INVALID_PARAMS, f"Too many inputs provided; max {ACCOUNTS_MAX}")
        block = self._block(config)
        return in_context(
            block, [account_json(self.chain.account(key_at([key], 0), block.slot), config) for key in keys]
        )

    def _balance(self, params: Params, config: Config) -> Json:
        block = self._block(config)
        account = self.chain.account(key_at(params, 0), block.slot)
        return in_context(block, account.lamports if account else 0)

    def _token_account_balance(self, params: Params, config: Config) -> Json:
        block = self._block(config)
        balance = self.chain.token_balance(self.chain.account(key_at(params, 0), block.slot))
        if balance is None:
            raise RpcError(INVALID_PARAMS, "Invalid param: could not find account")
        *_, amount, decimals = balance
        return in_context(block, ui_amount(amount, decimals))

    def _token_accounts_by_owner(self, params: Params, config: Config) -> Json:
        owner, block = key_at(params, 0), self._block(config)
        wanted = params[1] if len(params) > 1 and isinstance(params[1], dict) else {}
        if not wanted.keys() & {"mint", "programId"}:
            raise RpcError(INVALID_PARAMS, "Invalid param: say a mint or a programId")
        mint = key_at([wanted["mint"]], 0) if "mint" in wanted else None
        programs = (key_at([wanted["programId"]], 0),) if "programId" in wanted else TOKEN_PROGRAMS
        if len(params) < 3:
            config = {}
        found = []
        for program in programs:
            for key in self.chain.keys_of(program):
                account = self.chain.account(key, block.slot)
                balance = self.chain.token_balance(account)
                if balance and balance[1] == owner and mint in (None, balance[0]) and balance[2] == program:
                    found.append({"pubkey": str(key), "account": account_json(account, config)})
        return in_context(block, found)

    # Transactions

    def _send(self, params: Params, config: Config) -> Json:
        transaction = decode_transaction(params, config)
        signature = transaction.signatures[0]
        if config.get("skipPreflight") is not True and self.chain.landed(signature) is None:
            self._preflight(transaction, config)
        return str(self.chain.send(transaction))

    def _preflight(self, transaction: VersionedTransaction, config: Config) -> None:
        if not is_signed(transaction):
            raise RpcError(SIGNATURE_WRONG, "Transaction signature verification failure")
        asked = {"commitment": config.get("preflightCommitment"), "minContextSlot": config.get("minContextSlot")}
        block = self._block({key: value for key, value in asked.items() if value is not None})
        if self._is_valid(transaction.message.recent_blockhash, block):
            execution = self.chain.simulate(transaction, block)
        else:
            execution = _refused("BlockhashNotFound")
        if execution.error is not None:
            raise RpcError(
                PREFLIGHT_FAILED,
                f"Transaction simulation failed: {error_text(execution.error)}",
                {
                    "err": execution.error,
                    "logs": list(execution.logs),
                    "accounts": None,
                    "unitsConsumed": execution.compute_units,
                    "returnData": None,
                },
            )

    def _simulate(self, params: Params, config: Config) -> Json:
        transaction = decode_transaction(params, config)
        replaces, verifies = config.get("replaceRecentBlockhash") is True, config.get("sigVerify") is True
        if replaces and verifies:
            raise RpcError(INVALID_PARAMS, "sigVerify may not be used with replaceRecentBlockhash")
        if verifies and not is_signed(transaction):
            raise RpcError(SIGNATURE_WRONG, "Transaction signature verification failure")
        block = self._block(config)
        if not replaces and not self._is_valid(transaction.message.recent_blockhash, block):
            execution = _refused("BlockhashNotFound")
        elif not replaces and self.chain.landed(transaction.signatures[0]) is not None:
            execution = _refused("AlreadyProcessed")
        else:
            execution = self.chain.simulate(transaction, block)
        value = {
            "err": execution.error,
            "logs": list(execution.logs),
            "accounts": self._accounts_after(execution, config),
            "unitsConsumed": execution.compute_units,
            "returnData": return_data(execution),
            "innerInstructions": None,
        }
        if replaces:
            last_valid = block.height + BLOCKHASH_BLOCKS
            value["replacementBlockhash"] = {
                "blockhash": str(block.blockhash),
                "lastValidBlockHeight": last_valid,
            }
        return in_context(block, value)

    def _accounts_after(self, execution: Execution, config: Config) -> Json:
        asked = config.get("accounts")
        if not isinstance(asked, dict):
            return None
        keys = [key_at([each], 0) for each in asked.get("addresses") or []]
        encoding = {"encoding": asked.get("encoding") or "base64"}
        after = [execution.accounts[key] if key in execution.accounts else self.chain.account(key) for key in keys]
        shown = [account_json(each, encoding) for each in after]
        return None if execution.error is not None else shown

    def _airdrop(self, params: Params, _: Config) -> Json:
        key, lamports = key_at(params, 0), integer_at(params, 1)
        if lamports > AIRDROP_LAMPORTS_MAX:
            raise RpcError(INVALID_PARAMS, f"at most {AIRDROP_LAMPORTS_MAX} lamports at once")
        self._airdrops += 1
        faucet = self._faucet.pubkey()
        # So that two equal airdrops on one blockhash are two transactions.
        distinct = transfer(TransferParams(from_pubkey=faucet, to_pubkey=faucet, lamports=self._airdrops))
        gift = transfer(TransferParams(from_pubkey=faucet, to_pubkey=key, lamports=lamports))
        message = MessageV0.try_compile(faucet, [gift, distinct], [], self.chain.tip.blockhash)
        return str(self.chain.send(VersionedTransaction(message, [self._faucet])))

    # What has landed

    def _signature_statuses(self, params: Params, config: Config) -> Json:
        signatures = params[0] if params else None
        if not isinstance(signatures, list) or len(signatures) > STATUSES_MAX:
            raise RpcError(INVALID_PARAMS, f"Too many inputs provided; max {STATUSES_MAX}")
        tip = self.view.block("processed")
        searches = config.get("searchTransactionHistory") is True
        return in_context(tip, [self._status(signature_at([each], 0), tip, searches) for each in signatures])

    def _status(self, signature: Signature, tip: Block, searches: bool) -> Json:
        landed = self.view.landed(signature)
        if landed is None or (not searches and tip.slot - landed.block.slot > STATUS_SLOTS):
            return None
        commitment, error = self.view.commitment(landed), landed.execution.error
        return {
            "slot": landed.block.slot,
            "confirmations": None if commitment == "finalized" else tip.height - landed.block.height,
            "err": error,
            "status": {"Ok": None} if error is None else {"Err": error},
            "confirmationStatus": commitment,
        }

    def _signatures_for_address(self, params: Params, config: Config) -> Json:
        commitment = self._settled(config)
        limit = config.get("limit", SIGNATURES_MAX)
        if not isinstance(limit, int) or not 1 <= limit <= SIGNATURES_MAX:
            raise RpcError(INVALID_PARAMS, f"Invalid limit; max {SIGNATURES_MAX}")
        before, until = (
            signature_at([config[name]], 0) if config.get(name) is not None else None for name in ("before", "until")
        )
        found = list[Json]()
        is_reached = before is None
        for signature in reversed(self.chain.signatures_of(key_at(params, 0))):
            if signature == until or len(found) == limit:
                break
            landed = self.view.landed(signature, commitment)
            if is_reached and landed is not None:
                found.append(
                    {
                        "signature": str(signature),
                        "slot": landed.block.slot,
                        "err": landed.execution.error,
                        "memo": memo_of(landed),
                        "blockTime": landed.block.time_s,
                        "confirmationStatus": self.view.commitment(landed),
                    }
                )
            is_reached = is_reached or signature == before
        return found

    def _transaction(self, params: Params, config: Config) -> Json:
        commitment = self._settled(config)
        encoding = config.get("encoding", "json")
        if encoding not in ("json", "base64", "base58"):
            raise RpcError(INVALID_PARAMS, f"the local chain does not encode transactions as {encoding}")
        landed = self.view.landed(signature_at(params, 0), commitment)
        if landed is None:
            return None
        transaction = landed.transaction
        is_v0 = isinstance(transaction.message, MessageV0)
        if is_v0 and config.get("maxSupportedTransactionVersion") is None:
            raise RpcError(
                UNSUPPORTED_VERSION,
                "Transaction version (0) is not supported by the requesting client. Please try the request again with"
                ' the following configuration parameter: "maxSupportedTransactionVersion": 0',
            )
        if encoding == "json":
            body: Json = transaction_json(transaction)
        else:
            body = [encoded(bytes(transaction), encoding), encoding]
        result = {
            "slot": landed.block.slot,
            "blockTime": landed.block.time_s,
            "transaction": body,
            "meta": meta_json(landed),
        }
        if config.get("maxSupportedTransactionVersion") is not None:
            result["version"] = 0 if is_v0 else "legacy"
        return result

    def _settled(self, config: Config) -> Commitment:
        commitment = commitment_of(config)
        if commitment == "processed":
            raise RpcError(INVALID_PARAMS, "Method does not support commitment below `confirmed`")
        return commitment


# Shapes


def in_context(block: Block, value: Json) -> Json:
    return {"context": {"slot": block.slot, "apiVersion": API_VERSION}, "value": value}


def account_json(account: Account | None, config: Config) -> Json:
    """Return an account as the RPC shows it. Raise RpcError for an encoding that is not made here."""
    encoding = config.get("encoding") or "base58"
    if encoding not in ("base64", "base58"):
        raise RpcError(INVALID_PARAMS, f"the local chain does not encode accounts as {encoding}: ask for base64")
    if account is None:
        return None
    data, part = account.data, config.get("dataSlice")
    if isinstance(part, dict):
        try:
            offset, length = int(part["offset"]), int(part["length"])
        except (KeyError, TypeError, ValueError) as error:
            raise RpcError(INVALID_PARAMS, "dataSlice takes an offset and a length") from error
        data = data[offset : offset + length]
    return {
        "lamports": account.lamports,
        "owner": str(account.owner),
        "data": [encoded(data, encoding), encoding],
        "executable": account.executable,
        "rentEpoch": RENT_EPOCH,
        "space": len(account.data),
    }


def encoded(data: bytes, encoding: str) -> str:
    if encoding == "base64":
        return base64.b64encode(data).decode()
    if len(data) > BASE58_BYTES_MAX:
        raise RpcError(
            INVALID_REQUEST, "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding."
        )
    return base58(data)


def ui_amount(amount: int, decimals: int) -> Json:
    digits = str(amount).rjust(decimals + 1, "0")
    whole, part = digits[: len(digits) - decimals], digits[len(digits) - decimals :].rstrip("0")
    return {
        "amount": str(amount),
        "decimals": decimals,
        "uiAmount": amount / 10**decimals,
        "uiAmountString": f"{whole}.{part}" if part else whole,
    }


def meta_json(landed: Landed) -> Json:
    execution, resolved = landed.execution, landed.resolved
    return {
        "err": execution.error,
        "status": {"Ok": None} if execution.error is None else {"Err": execution.error},
        "fee": execution.fee_lamports,
        "preBalances": list(landed.lamports_before),
        "postBalances": list(landed.lamports_after),
        "innerInstructions": None,
        "logMessages": list(execution.logs),
        "preTokenBalances": [_token_balance_json(each) for each in landed.tokens_before],
        "postTokenBalances": [_token_balance_json(each) for each in landed.tokens_after],
        "rewards": [],
        "loadedAddresses": {
            "writable": [str(key) for key in resolved.loaded_writable],
            "readonly": [str(key) for key in resolved.loaded_readonly],
        },
        "returnData": return_data(execution),
        "computeUnitsConsumed": execution.compute_units,
    }


def transaction_json(transaction: VersionedTransaction) -> Json:
    message, header = transaction.message, transaction.message.header
    shown: dict[str, Json] = {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": [str(key) for key in message.account_keys],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            {
                "programIdIndex": each.program_id_index,
                "accounts": list(each.accounts),
                "data": base58(bytes(each.data)),
                "stackHeight": None,
            }
            for each in message.instructions
        ],
    }
    if isinstance(message, MessageV0):
        shown["addressTableLookups"] = [
            {
                "accountKey": str(each.account_key),
                "writableIndexes": list(each.writable_indexes),
                "readonlyIndexes": list(each.readonly_indexes),
            }
            for each in message.address_table_lookups
        ]
    return {"signatures": [str(each) for each in transaction.signatures], "message": shown}


def return_data(execution: Execution) -> Json:
    if execution.returned is None:
        return None
    program, data = execution.returned
    return {"programId": str(program), "data": [encoded(data, "base64"), "base64"]}


def error_text(error: Json) -> str:
    """Say an error in the words of a node."""
    if isinstance(error, dict) and "InstructionError" in error:
        index, why = error["InstructionError"]
        if isinstance(why, dict) and "Custom" in why:
            why = f"custom program error: {why['Custom']:#x}"
        return f"Error processing Instruction {index}: {why}"
    return "Blockhash not found" if error == "BlockhashNotFound" else str(error)


def memo_of(landed: Landed) -> str | None:
    """Return a transaction's memos, in the form in which nodes list them."""
    message = landed.transaction.message
    memos = [
        bytes(each.data).decode(errors="replace")
        for each in message.instructions
        if landed.resolved.keys[each.program_id_index] in MEMO_PROGRAMS
    ]
    return "; ".join(f"[{len(memo.encode())}] {memo}" for memo in memos) or None


def unit_price(landed: Landed) -> int:
    """Return what a transaction offers for a compute unit, in millionths of a lamport."""
    for each in landed.transaction.message.instructions:
        data = bytes(each.data)
        if landed.resolved.keys[each.program_id_index] == COMPUTE_BUDGET and data[:1] == bytes([SET_UNIT_PRICE]):
            return int(unpack_from("<Q", data.ljust(9, b"\0"), 1)[0])
    return 0


def commitment_of(config: Config, default: Commitment = "finalized") -> Commitment:
    named = config.get("commitment") or default
    for commitment in LAG_BLOCKS:
        if named == commitment:
            return commitment
    raise RpcError(INVALID_PARAMS, f"unknown variant `{named}`, expected one of {', '.join(LAG_BLOCKS)}")


def decode_transaction(params: Params, config: Config) -> VersionedTransaction:
    """Return the transaction that is the first parameter. Raise RpcError if it is none that fits a packet."""
    text, encoding = params[0] if params else None, config.get("encoding") or "base58"
    if not isinstance(text, str):
        raise RpcError(INVALID_PARAMS, "invalid type: expected a string")
    try:
        if encoding == "base64":
            data = base64.b64decode(text, validate=True)
        elif encoding == "base58":
            data = _unbase58(text)
        else:
            raise RpcError(INVALID_PARAMS, f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
    except (binascii.Error, ValueError) as error:
        raise RpcError(INVALID_PARAMS, f"invalid {encoding} encoding: {error}") from error
    if len(data) > TRANSACTION_BYTES_MAX:
        raise RpcError(
            INVALID_PARAMS,
            f"decoded VersionedTransaction too large: {len(data)} bytes (max: {TRANSACTION_BYTES_MAX} bytes)",
        )
    try:
        transaction = VersionedTransaction.from_bytes(data)
        transaction.sanitize()
    except Exception as error:  # solders raises several kinds
        raise RpcError(INVALID_PARAMS, f"failed to deserialize a VersionedTransaction: {error}") from error
    return transaction


def _token_balance_json(balance: TokenBalance) -> Json:
    return {
        "accountIndex": balance.index,
        "mint": str(balance.mint),
        "owner": str(balance.owner),
        "programId": str(balance.program),
        "uiTokenAmount": ui_amount(balance.amount, balance.decimals),
    }


def _refused(error: str) -> Execution:
    return Execution(error, (), 0, 0, False, {})


def _unbase58(text: str) -> bytes:
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = 0
    for digit in text:
        number = number * 58 + digits.index(digit)
    return bytes(len(text) - len(text.lstrip("1"))) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def key_at(params: Params, index: int) -> Pubkey:
    try:
        return Pubkey.from_string(params[index])
    except (IndexError, TypeError, ValueError) as error:
        raise RpcError(INVALID_PARAMS, "Invalid param: Invalid") from error


def hash_at(params: Params, index: int) -> Hash:
    try:
        return Hash.from_string(params[index])
    except Exception as error:  # solders raises its own kind
        raise RpcError(INVALID_PARAMS, "Invalid param: Invalid") from error


def signature_at(params: Params, index: int) -> Signature:
    try:
        return Signature.from_string(params[index])
    except (IndexError, TypeError, ValueError) as error:
        raise RpcError(INVALID_PARAMS, "Invalid param: Invalid") from error


def integer_at(params: Params, index: int) -> int:
    value = params[index] if index < len(params) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RpcError(INVALID_PARAMS, f"invalid type: expected u64 at position {index}")
    return value
