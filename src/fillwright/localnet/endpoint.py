"""One endpoint of a local chain: JSON-RPC over HTTP and subscriptions over WebSocket, on one port of this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from fillwright.core.ports import Clock
from fillwright.core.units import Millis
from fillwright.localnet.chain import Commitment, Json, LocalChain
from fillwright.localnet.faults import Fault, Faults
from fillwright.localnet.rpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    Config,
    Rpc,
    RpcError,
    account_json,
    commitment_of,
    in_context,
    key_at,
    signature_at,
    unhealthy,
)

HOST: Final = "127.0.0.1"
BODY_BYTES_MAX: Final = 4 * 2**20
BATCH_MAX: Final = 100
SUBSCRIPTIONS_MAX: Final = 1_000
SOCKETS_MAX: Final = 100
LOST_MS: Final[Millis] = 600_000  # how long a lost call keeps its caller waiting, unless that one gives up
PARSE_ERROR: Final = -32700
UNHEALTHY_SLOTS: Final = 150


EMPTY_ACCOUNT: Final[Json] = {  # what a node tells of an account that has ceased to exist
    "lamports": 0,
    "owner": "11111111111111111111111111111111",
    "data": ["", "base64"],
    "executable": False,
    "rentEpoch": 0,
    "space": 0,
}


class _Disturbed(Exception):
    """A fault that takes the whole exchange with it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class _Subscription:
    """`news` returns the results to be told after a new block, and whether the subscription is over with them."""

    number: int
    notification: str
    news: Callable[[], tuple[list[Json], bool]]


class Endpoint:
    """Serves a chain to clients on this machine, `lag_blocks` behind its tip, with the faults that are switched on."""

    def __init__(
        self, chain: LocalChain, clock: Clock, faults: Faults, *, name: str = "main", lag_blocks: int = 0
    ) -> None:
        self.name = name
        self.rpc = Rpc(chain, lag_blocks)
        self.port = 0
        self._clock, self._faults = clock, faults
        self._runner: web.AppRunner | None = None
        self._sockets = set[_Socket]()
        chain.on_block.append(self._tell)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://{HOST}:{self.port}"

    async def start(self, port: int = 0) -> None:
        """Listen, on a free port if none is given. Raise OSError if the port is taken."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/", self._post)
        app.router.add_get("/", self._get)
        # A caller who gives up ends the wait for an answer that never comes.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, port)
        try:
            await site.start()
        except OSError:
            await self.close()
            raise
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        self.rpc.chain.on_block[:] = [each for each in self.rpc.chain.on_block if each != self._tell]
        for socket in list(self._sockets):
            await socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def drop_sockets(self) -> None:
        """Close every WebSocket, as a node does that is restarted."""
        for socket in list(self._sockets):
            await socket.close()

    def _tell(self) -> None:
        for socket in list(self._sockets):
            socket.tell()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if self._faults.is_dark(self.name, self._clock.now_ms()):
            return _reset(request)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=405, text="Used HTTP Method is not allowed. POST is required")
        if len(self._sockets) >= SOCKETS_MAX:
            return web.Response(status=503, text="too many connections")
        socket = _Socket(self.rpc, self._clock, self._faults)
        self._sockets.add(socket)
        try:
            return await socket.serve(request)
        finally:
            self._sockets.discard(socket)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        if self._faults.is_dark(self.name, self._clock.now_ms()):
            return _reset(request)
        try:
            body = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            return _json_response(_answer(None, error=RpcError(PARSE_ERROR, "Parse error")))
        try:
            answer = await self._answer(body)
        except _Disturbed as disturbed:
            return await self._disturb(request, disturbed.fault)
        return _json_response(answer)

    async def _answer(self, body: Json) -> Json:
        if not isinstance(body, list):
            return await self._answer_one(body)
        if not body or len(body) > BATCH_MAX:
            return _answer(None, error=RpcError(INVALID_REQUEST, f"a batch has 1 to {BATCH_MAX} calls"))
        return [await self._answer_one(each) for each in body]

    async def _answer_one(self, call: Json) -> Json:
        try:
            number, method, params = _read_call(call)
        except RpcError as error:
            return _answer(call.get("id") if isinstance(call, dict) else None, error=error)
        fault = self._faults.before(method)
        if fault is Fault.UNHEALTHY:
            return _answer(number, error=unhealthy(UNHEALTHY_SLOTS))
        if fault is not None:
            raise _Disturbed(fault)
        delay_ms = self._faults.delay_ms(method)
        if delay_ms:
            await self._clock.sleep(delay_ms)
        try:
            answer = _answer(number, self.rpc.call(method, params))
        except RpcError as error:
            answer = _answer(number, error=error)
        fault = self._faults.after(method)
        if fault is not None:
            raise _Disturbed(fault)
        return answer

    async def _disturb(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault is Fault.TOO_MANY:
            return web.Response(status=429, headers={"Retry-After": "1"}, text="Too many requests")
        if fault is Fault.GATEWAY_TIMEOUT:
            return web.Response(status=504, text="Gateway Timeout")
        if fault is Fault.LOST:
            await self._clock.sleep(LOST_MS)
        return _reset(request)


class _Socket:
    """One WebSocket and its subscriptions."""

    def __init__(self, rpc: Rpc, clock: Clock, faults: Faults) -> None:
        self._rpc, self._clock, self._faults = rpc, clock, faults
        self._subscriptions = dict[int, _Subscription]()
        self._numbers = 0
        self._response = web.WebSocketResponse(compress=False)
        self._sending = set[asyncio.Task[None]]()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        await self._response.prepare(request)
        async for message in self._response:
            if message.type is WSMsgType.TEXT:
                await self._response.send_str(orjson.dumps(self._answer(message.data)).decode())
        for task in self._sending:
            task.cancel()
        return self._response

    async def close(self) -> None:
        await self._response.close(code=WSCloseCode.GOING_AWAY)

    def tell(self) -> None:
        """Tell of a new block."""
        for subscription in list(self._subscriptions.values()):
            results, is_over = subscription.news()
            for result in results:
                self._notify(subscription, result)
            if is_over:
                del self._subscriptions[subscription.number]

    def _notify(self, subscription: _Subscription, result: Json) -> None:
        message = {
            "jsonrpc": "2.0",
            "method": subscription.notification,
            "params": {"subscription": subscription.number, "result": result},
        }
        text = orjson.dumps(message).decode()
        for delay_ms in self._faults.deliveries_ms():
            task = asyncio.get_running_loop().create_task(self._send(text, delay_ms))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, text: str, delay_ms: Millis) -> None:
        if delay_ms:
            await self._clock.sleep(delay_ms)
        with contextlib.suppress(ConnectionError):  # a client who has gone has no use for the news
            await self._response.send_str(text)

    def _answer(self, text: str) -> Json:
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            return _answer(None, error=RpcError(PARSE_ERROR, "Parse error"))
        return [self._answer_one(each) for each in body] if isinstance(body, list) else self._answer_one(body)

    def _answer_one(self, call: Json) -> Json:
        number = call.get("id") if isinstance(call, dict) else None
        try:
            number, method, params = _read_call(call)
            self._faults.calls[method] += 1
            if method.endswith("Unsubscribe"):
                subscription = params[0] if params else None
                if not isinstance(subscription, int) or self._subscriptions.pop(subscription, None) is None:
                    raise RpcError(INVALID_PARAMS, "Invalid subscription id.")
                return _answer(number, True)
            return _answer(number, self._subscribe(method, params))
        except RpcError as error:
            return _answer(number, error=error)

    def _subscribe(self, method: str, params: list[Json]) -> int:
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise RpcError(INVALID_PARAMS, f"at most {SUBSCRIPTIONS_MAX} subscriptions")
        config: Config = params[-1] if params and isinstance(params[-1], dict) else {}
        if method == "slotSubscribe":
            news = self._slots()
        elif method == "accountSubscribe":
            news = self._account(params, config)
        elif method == "signatureSubscribe":
            news = self._signature(params, commitment_of(config))
        else:
            self._rpc.call(method, params)  # refuses what is unknown
            raise RpcError(INVALID_PARAMS, f"{method} is answered over HTTP")
        self._numbers += 1
        name = method.removesuffix("Subscribe") + "Notification"
        self._subscriptions[self._numbers] = _Subscription(self._numbers, name, news)
        return self._numbers

    def _slots(self) -> Callable[[], tuple[list[Json], bool]]:
        view = self._rpc.view

        def news() -> tuple[list[Json], bool]:
            block, root = view.block("processed"), view.block("finalized")
            return [{"slot": block.slot, "parent": block.parent_slot, "root": root.slot}], False

        return news

    def _account(self, params: list[Json], config: Config) -> Callable[[], tuple[list[Json], bool]]:
        view, commitment = self._rpc.view, commitment_of(config)
        key, shape = key_at(params, 0), config
        told = view.account(key, commitment)
        account_json(told, shape)  # refuses an encoding that is not made here

        def news() -> tuple[list[Json], bool]:
            nonlocal told
            account = view.account(key, commitment)
            if account == told:
                return [], False
            told = account
            shown = account_json(account, shape) if account else EMPTY_ACCOUNT
            return [in_context(view.block(commitment), shown)], False

        return news

    def _signature(self, params: list[Json], commitment: Commitment) -> Callable[[], tuple[list[Json], bool]]:
        view = self._rpc.view
        signature = signature_at(params, 0)

        def news() -> tuple[list[Json], bool]:
            landed = view.landed(signature, commitment)
            if landed is None:
                return [], False
            return [in_context(view.block(commitment), {"err": landed.execution.error})], True

        return news


def _read_call(call: Json) -> tuple[Json, str, list[Json]]:
    """Return id, method and parameters of a call. Raise RpcError if it is none."""
    if not isinstance(call, dict) or call.get("jsonrpc") != "2.0" or not isinstance(call.get("method"), str):
        raise RpcError(INVALID_REQUEST, "Invalid request")
    params = call.get("params") or []
    if not isinstance(params, list):
        raise RpcError(INVALID_PARAMS, "Invalid params: they are a list")
    return call.get("id"), call["method"], params


def _answer(number: Json, result: Json = None, error: RpcError | None = None) -> Json:
    rest = {"result": result} if error is None else {"error": error.to_json()}
    return {"jsonrpc": "2.0", **rest, "id": number}


def _json_response(answer: Json) -> web.Response:
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


def _reset(request: web.Request) -> web.Response:
    """Break the connection. What is returned does not arrive any more."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
