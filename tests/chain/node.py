"""A Solana node of the tests: a real server on the loopback interface, which fails as it is told to."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from aiohttp import web
from solders.transaction import VersionedTransaction

from fillwright.core.accounts import Account, format_address

Json: TypeAlias = Any
Fault: TypeAlias = Callable[[web.Request, Json], Awaitable[web.StreamResponse]]

FINALIZED_BLOCKS: Final = 32
SKIPPED: Final = 20_000_000  # slots without a block: who mixes slots and heights fails at once
GENESIS: Final = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
OTHER_GENESIS: Final = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG"
BLOCKHASH: Final = "9sHcv6xwn9YkB8nxTUGKDwPwNnmqVp5oAXxU8Fdkm4J6"


class RpcError(Exception):
    def __init__(self, code: int, message: str, data: Json = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, **({} if data is None else {"data": data})}


class Node:
    """`faults` are used up first, one for each request; `results` stand in for what a method would answer."""

    def __init__(self, slot: int = 300_000_000) -> None:
        self.slot = slot
        self.url = ""
        self.genesis = GENESIS
        self.calls: list[tuple[str, Json]] = []
        self.faults: deque[Fault | None] = deque()
        self.always: Fault | None = None
        self.results: dict[str, Json] = {}
        self.accounts: dict[str, Account] = {}
        self.statuses: dict[str, Json] = {}
        self.transactions: dict[str, Json] = {}
        self.taken: list[bytes] = []

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        call = json.loads(await request.read())
        self.calls.append((call["method"], call["params"]))
        reply: Json = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            reply["result"] = self._result(call["method"], call["params"])
        except RpcError as error:
            reply["error"] = error.error
        fault = self.faults.popleft() if self.faults else self.always
        return web.json_response(reply) if fault is None else await fault(request, reply)

    def at(self, commitment: str) -> int:
        return self.slot - {"processed": 0, "confirmed": 2, "finalized": FINALIZED_BLOCKS}[commitment]

    def _result(self, method: str, params: list[Json]) -> Json:
        config = params[-1] if params and isinstance(params[-1], dict) else {}
        slot = self.at(config.get("commitment", "finalized"))
        if config.get("minContextSlot", 0) > slot:
            raise RpcError(-32016, "Minimum context slot has not been reached", {"contextSlot": slot})
        if method in self.results:
            result = self.results[method]
            if isinstance(result, RpcError):
                raise result
            return result
        match method:
            case "getMultipleAccounts":
                return in_context(slot, [account_json(self.accounts.get(key)) for key in params[0]])
            case "getBalance":
                return in_context(slot, 5)
            case "getTokenAccountsByOwner":
                held = [{"pubkey": key, "account": account_json(account)} for key, account in self.accounts.items()]
                return in_context(slot, held)
            case "getLatestBlockhash":
                last_valid = slot - SKIPPED + 150
                return in_context(slot, {"blockhash": BLOCKHASH, "lastValidBlockHeight": last_valid})
            case "getEpochInfo":
                return {"absoluteSlot": slot, "blockHeight": slot - SKIPPED, "epoch": 700, "slotIndex": 5}
            case "getSlot":
                return slot
            case "getFirstAvailableBlock":
                return 0
            case "getSignatureStatuses":
                return in_context(self.slot, [self.statuses.get(each) for each in params[0]])
            case "getTransaction":
                return self.transactions.get(params[0])
            case "sendTransaction":
                raw = b64decode(params[0])
                self.taken.append(raw)
                return str(VersionedTransaction.from_bytes(raw).signatures[0])
            case "simulateTransaction":
                asked = config.get("accounts", {}).get("addresses", [])
                after = [account_json(self.accounts.get(key)) for key in asked] if asked else None
                return in_context(slot, {"err": None, "logs": ["ok"], "unitsConsumed": 450, "accounts": after})
            case "getRecentPrioritizationFees":
                return [{"slot": slot, "prioritizationFee": 7}]
            case "getSignaturesForAddress":
                return []
            case "getGenesisHash":
                return self.genesis
        raise RpcError(-32601, "Method not found")


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Serve each node at a port of its own, under a path that holds its key."""
    runners = list[web.AppRunner]()
    try:
        for node in nodes:
            application = web.Application()
            application.router.add_post("/{path:.*}", node.answer)
            runner = web.AppRunner(application, shutdown_timeout=0, handler_cancellation=True, access_log=None)
            await runner.setup()
            runners.append(runner)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            node.url = f"http://{host}:{port}"
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


def in_context(slot: Json, value: Json) -> Json:
    return {"context": {"slot": slot, "apiVersion": "3.0.0"}, "value": value}


def account_json(account: Account | None) -> Json:
    if account is None:
        return None
    return {
        "lamports": 2_039_280,
        "owner": format_address(account.owner),
        "data": [b64encode(account.data).decode(), "base64"],
        "executable": False,
        "rentEpoch": 2**64 - 1,
        "space": len(account.data),
    }


def status_json(slot: int, err: Json = None, commitment: str = "finalized") -> Json:
    told = {"Ok": None} if err is None else {"Err": err}
    return {"slot": slot, "confirmations": None, "err": err, "status": told, "confirmationStatus": commitment}


# ---- what goes wrong


async def drop(request: web.Request, reply: Json) -> web.StreamResponse:
    """Carry the call out and never answer."""
    await asyncio.sleep(3_600)
    raise AssertionError


async def reset(request: web.Request, reply: Json) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_short(request: web.Request, reply: Json) -> web.StreamResponse:
    """Announce more than is sent before the connection ends."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"jsonrpc": "2.0", ')
    assert request.transport is not None
    request.transport.close()
    return response


async def truncated(request: web.Request, reply: Json) -> web.StreamResponse:
    return web.Response(body=json.dumps(reply)[:-5].encode(), content_type="application/json")


async def a_page(request: web.Request, reply: Json) -> web.StreamResponse:
    return web.Response(text="<html>Service temporarily unavailable</html>", content_type="text/html")


async def binary(request: web.Request, reply: Json) -> web.StreamResponse:
    return web.Response(body=b'{"jsonrpc":"2.0","id":1,"result":"\xff\xfe"}', content_type="application/json")


async def nested(request: web.Request, reply: Json) -> web.StreamResponse:
    deep = b"[" * 100_000 + b"]" * 100_000
    return web.Response(body=b'{"jsonrpc":"2.0","id":1,"result":' + deep + b"}", content_type="application/json")


async def a_batch(request: web.Request, reply: Json) -> web.StreamResponse:
    return web.json_response([reply])


async def nothing(request: web.Request, reply: Json) -> web.StreamResponse:
    return web.Response()


def changed(**fields: Json) -> Fault:
    """Answer with some fields of the reply replaced; what is replaced by `...` is left out."""

    async def fault(request: web.Request, reply: Json) -> web.StreamResponse:
        return web.json_response({name: value for name, value in {**reply, **fields}.items() if value is not ...})

    return fault


def another_id(request: web.Request, reply: Json) -> Awaitable[web.StreamResponse]:
    return changed(id=reply["id"] + 1)(request, reply)


def http(status: int, **headers: str) -> Fault:
    async def fault(request: web.Request, reply: Json) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(reply, status=status, headers=named)

    return fault


def error(code: int, message: str = "", data: Json = None) -> Fault:
    return changed(result=..., error=RpcError(code, message, data).error)


def slow(seconds: float) -> Fault:
    async def fault(request: web.Request, reply: Json) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(reply)

    return fault


FAULTS: Final[dict[str, Fault]] = {
    "no answer": drop,
    "connection reset": reset,
    "cut short": cut_short,
    "429": http(429),
    "500": http(500),
    "504": http(504),
    "403": http(403),
    "redirected": http(307, Location="http://127.0.0.1:9/"),
    "truncated JSON": truncated,
    "a page": a_page,
    "binary": binary,
    "nested without end": nested,
    "a batch": a_batch,
    "nothing": nothing,
    "another's id": another_id,
    "no id": changed(id=None),
    "an id that is text": changed(id="1"),
    "another protocol": changed(jsonrpc="1.0"),
    "neither result nor error": changed(result=...),
    "both result and error": changed(error={"code": -32000, "message": "?"}),
    "an error without code": changed(result=..., error={"message": "?"}),
    "a result that is text": changed(result="?"),
    "a result that is true": changed(result=True),
    "a result that is a fraction": changed(result=0.5),
    "an empty list": changed(result=[]),
    "an empty object": changed(result={}),
    "internal error": error(-32603, "internal"),
    "rate limit in JSON": error(429, "slow down"),
    "an unknown error": error(-32099, "?"),
    "behind": error(-32005, "Node is behind by 42 slots", {"numSlotsBehind": 42}),
    "old view": error(-32016, "Minimum context slot has not been reached", {"contextSlot": 1}),
    "no history": error(-32011, "Transaction history is not available from this node"),
    "preflight without the error": error(-32002, "Transaction simulation failed"),
}
