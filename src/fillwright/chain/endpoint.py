"""One Solana node as the engine sees it: an exchange with it, and what the exchanges have taught.

What is learnt here decides whom to ask next, and nothing else. A node that failed rests, twice as long each time; one
that was slow or behind is asked after the others, until that is so long ago that it is worth a look. Whatever an
exchange ends with is either an answer of the type that was asked for, or `Unanswered`, which says nothing of the chain.

The URL holds the key to the node: it is in no error, log line, label or `repr`, and what the node or the library says
in words is let out only where it cannot contain it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Annotated, Final, Literal, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
import msgspec
import structlog

from fillwright.core.errors import ChainUnavailable, InvalidCall, PreflightFailed, TransactionFault, UnknownToken

T = TypeVar("T")

REST_MIN_S: Final = 0.25
REST_MAX_S: Final = 30.0
RETRY_AFTER_MAX_S: Final = 300.0  # a node that asks for more is asked again all the same
SMOOTHING: Final = 0.2  # the weight of the newest latency in the average
LEARNT_S: Final = 30.0  # how long what was learnt of a node's speed and lag decides
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
WORDS_MAX: Final = 300
SECRET_MIN: Final = 6  # shorter parts of a path are words such as "v2"

# The codes of Agave, rpc-client-api/src/custom_error.rs, and of JSON-RPC itself.
PREFLIGHT: Final = -32002
BEHIND: Final = -32005
OLD_VIEW: Final = -32016
INTERNAL: Final = -32603
RATE_LIMITED: Final = frozenset({429, -32429})  # what some providers answer with HTTP 200
OURS: Final = {
    -32700: "the node cannot parse the call",
    -32600: "the node does not take this for a call",
    -32601: "the node does not know the method",
    -32602: "the node does not take the parameters",
    -32003: "a signature of the transaction is not valid",
    -32013: "a signature has the wrong length",
    -32015: "the transaction's version is newer than was asked for",
}

Kind = Literal["timeout", "connection", "http", "rate_limited", "garbage", "behind", "old_view", "error", "other_chain"]


class Unanswered(Exception):
    """A node gave no answer that counts. `rests` says whether it is to be left alone for a while, `rest_s` how long."""

    def __init__(self, kind: Kind, words: str, *, rests: bool = True, rest_s: float = 0.0) -> None:
        super().__init__(words)
        self.kind = kind
        self.rests = rests
        self.rest_s = rest_s


class Listener(Protocol):
    def __call__(self, endpoint: str, method: str, outcome: str, took_s: float) -> None:
        """Hear of an exchange that is over: `answered`, the kind of failure, the code of an error, or `abandoned`."""


class _Error(msgspec.Struct):
    code: int
    message: str
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Reply(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    id: int | None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


FaultJson = str | dict[str, msgspec.Raw]
"""A transaction's error on the wire: `"BlockhashNotFound"`, `{"InstructionError": [2, {"Custom": 6005}]}`."""


class _Preflight(msgspec.Struct):
    err: FaultJson | None
    logs: list[str] | None = None


_replies: Final = msgspec.json.Decoder(_Reply)
_preflights: Final = msgspec.json.Decoder(_Preflight)
_instructions: Final = msgspec.json.Decoder(tuple[Annotated[int, msgspec.Meta(ge=0)], str | dict[str, msgspec.Raw]])
_numbers: Final = msgspec.json.Decoder(int)


class Endpoint:
    """A node. `label` is how logs and metrics call it; `latency_s` is an average, `lag_slots` as of its last answer."""

    def __init__(
        self,
        url: str,
        label: str,
        session: aiohttp.ClientSession,
        requests_per_second: int,
        heard: Listener,
        chance: Callable[[], float],
    ) -> None:
        self.label = label
        self.genesis: str | None = None
        self.finalized_slot = 0
        self.lag_slots = 0
        self.latency_s = 0.0
        self.failures = 0
        self.in_flight = 0
        self._url = url
        self._secrets = _secrets(url)
        self._session = session
        self._rate = requests_per_second
        self._heard = heard
        self._chance = chance
        self._ids = itertools.count(1)
        self._tokens = float(requests_per_second)
        self._counted_s = self._rest_began_s = self._rest_until_s = self._learnt_s = float("-inf")
        self._log = structlog.get_logger()

    def __repr__(self) -> str:
        return f"Endpoint({self.label})"

    def wait_s(self, now_s: float) -> float:
        """Return how long to leave the node alone, for its rest or for our budget; 0 if it can be asked now."""
        return max(0.0, self._rest_until_s - now_s, self._wait_for_budget_s(now_s))

    def rank(self, now_s: float, lag_slots_max: int, final_slot: int) -> tuple[bool, bool, bool, float]:
        """Return what to sort by: the least is asked first.

        After a rest one call is sent ahead. Then those who keep up with the chain, those who are known to have
        finalized `final_slot`, those of whom nothing is known, and the fastest go first.
        """
        is_on_trial = self.failures > 0 and self.in_flight > 0
        is_known = now_s - self._learnt_s < LEARNT_S
        is_lagging = is_known and self.lag_slots > lag_slots_max
        return is_on_trial, is_lagging, self.finalized_slot < final_slot, self.latency_s if is_known else -1.0

    async def exchange(
        self, method: str, params: Sequence[object], read: Callable[[msgspec.Raw], T], timeout_s: float
    ) -> T:
        """Ask once and return what `read` makes of the result.

        Raise Unanswered, PreflightFailed or InvalidCall. A ValueError of `read` means that the result is garbage.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._wait_for_budget_s(began_s)
        self._tokens -= 1
        self.in_flight += 1
        outcome = "abandoned"
        try:
            value = self._read(read, await self._result(method, params, timeout_s))
            outcome = "answered"
        except Unanswered as fault:
            outcome = fault.kind
            self._failed(fault, began_s, loop.time())
            raise
        except ChainUnavailable as answer:
            outcome = answer.code
            self._answered(began_s, loop.time() - began_s)
            raise
        finally:
            self.in_flight -= 1
            self._heard(self.label, method, outcome, loop.time() - began_s)
        self._answered(began_s, loop.time() - began_s)
        return value

    def _wait_for_budget_s(self, now_s: float) -> float:
        """Fill the bucket up to now, and return how long until it holds a request."""
        if not self._rate:
            return 0.0
        self._tokens = min(self._rate, self._tokens + (now_s - max(self._counted_s, 0.0)) * self._rate)
        self._counted_s = now_s
        return max(0.0, (1 - self._tokens) / self._rate)

    async def _result(self, method: str, params: Sequence[object], timeout_s: float) -> msgspec.Raw:
        number = next(self._ids)
        call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        status, body, rest_s = await self._post(msgspec.json.encode(call), timeout_s)
        if status != 200:
            raise Unanswered("rate_limited" if status == 429 else "http", f"HTTP {status}", rest_s=rest_s)
        try:
            reply = _replies.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unanswered("garbage", f"not a JSON-RPC reply: {self._shown(str(error))}") from None
        if reply.error is not None:
            if reply.id not in (number, None) or reply.result is not msgspec.UNSET:
                raise Unanswered("garbage", "an error that does not belong to the call")
            raise self._as_exception(method, reply.error)
        if reply.id != number:
            raise Unanswered("garbage", "the answer to another call")
        if reply.result is msgspec.UNSET:
            raise Unanswered("garbage", "neither a result nor an error")
        return reply.result

    def _read(self, read: Callable[[msgspec.Raw], T], result: msgspec.Raw) -> T:
        try:
            return read(result)
        except (msgspec.DecodeError, ValueError, UnknownToken, RecursionError) as error:
            raise Unanswered("garbage", f"a result that does not fit: {self._shown(str(error))}") from None

    async def _post(self, body: bytes, timeout_s: float) -> tuple[int, bytes, float]:
        """Return the status, the body, and how long the node asks to be left alone."""
        # What the library raises may hold the URL: it is told by class, and does not become the cause of anything.
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.post(
                    self._url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
                ) as response,
            ):
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > ANSWER_BYTES_MAX:
                        fault = Unanswered("garbage", f"an answer of more than {ANSWER_BYTES_MAX:,} bytes")
                        break
                else:
                    asked = _retry_after_s(response.headers.get("Retry-After", ""), response.headers.get("Date", ""))
                    return response.status, bytes(content), asked
        except TimeoutError:
            fault = Unanswered("timeout", f"no answer within {timeout_s * 1000:.0f} ms")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            system = error.strerror if isinstance(error, OSError) else None
            fault = Unanswered("connection", f"{type(error).__name__}{f': {system}' if system else ''}")
        raise fault

    def _as_exception(self, method: str, error: _Error) -> Exception:
        words = self._shown(error.message)
        if error.code in OURS:
            why = f"{self.label} refuses {method}: {OURS[error.code]} ({error.code}, {words})"
            self._log.error("rpc.call_refused", endpoint=self.label, method=method, code=error.code, reason=words)
            return InvalidCall(why)
        if error.code == PREFLIGHT:
            return self._preflight(error, words)
        if error.code in RATE_LIMITED:
            return Unanswered("rate_limited", f"too many requests ({error.code})")
        if error.code == BEHIND:
            return Unanswered("behind", f"the node is behind: {words}")
        if error.code == OLD_VIEW:
            return Unanswered("old_view", "its view is older than was asked for", rests=False)
        return Unanswered("error", f"error {error.code}: {words}", rests=error.code == INTERNAL)

    def _preflight(self, error: _Error, words: str) -> Exception:
        try:
            data = _preflights.decode(error.data)
            if data.err is None:
                raise ValueError("no error in it")
            fault = read_fault(data.err)
            fault = replace(fault, name=self._shown(fault.name), detail=self._shown(fault.detail))
        except (msgspec.DecodeError, ValueError, RecursionError):
            return Unanswered("error", f"error {error.code} without the transaction's error: {words}", rests=False)
        logs = tuple(self._shown(line) for line in data.logs or ())
        return PreflightFailed(f"{self.label} expects the transaction to fail: {fault}", fault, logs)

    def _shown(self, words: str) -> str:
        """Return what the node said, shortened, and without what only our URL should hold."""
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return " ".join(words[:WORDS_MAX].split())

    def _answered(self, began_s: float, took_s: float) -> None:
        now_s = began_s + took_s
        self.latency_s = took_s if now_s - self._learnt_s > LEARNT_S else self._average(took_s)
        self._learnt_s = now_s
        if self.failures and began_s > self._rest_began_s:
            self.failures = 0
            self._log.info("rpc.endpoint_answers", endpoint=self.label)

    def _average(self, took_s: float) -> float:
        return self.latency_s + SMOOTHING * (took_s - self.latency_s)

    def _failed(self, fault: Unanswered, began_s: float, now_s: float) -> None:
        self._rest_until_s = max(self._rest_until_s, now_s + fault.rest_s)
        if not fault.rests or began_s <= self._rest_began_s:  # sent before it was known that the node fails: no news
            return
        self.failures += 1
        if self.failures == 1:
            self._log.warning("rpc.endpoint_fails", endpoint=self.label, kind=fault.kind, reason=str(fault))
        rest_s = min(REST_MAX_S, REST_MIN_S * 2.0 ** min(self.failures - 1, 10)) * (1 + self._chance() / 10)
        self._rest_began_s = now_s
        self._rest_until_s = max(self._rest_until_s, now_s + rest_s)


def label_of(url: str) -> str:
    """Return what a URL's node is called: its host, and its port if it names one. Neither is a key."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def read_fault(fault: FaultJson) -> TransactionFault:
    """Return a transaction's error. Raise ValueError if it has none of the shapes that errors have."""
    if isinstance(fault, str):
        return TransactionFault(fault[:WORDS_MAX])
    ((name, data),) = fault.items()
    if name != "InstructionError":
        return TransactionFault(name[:WORDS_MAX], detail=_text(data))
    instruction, error = _instructions.decode(data)
    if isinstance(error, str):
        return TransactionFault(name, instruction, error[:WORDS_MAX])
    ((kind, value),) = error.items()
    if kind == "Custom":
        return TransactionFault(name, instruction, kind, _numbers.decode(value))
    return TransactionFault(name, instruction, f"{kind[:WORDS_MAX]} {_text(value)}")


def _text(data: msgspec.Raw) -> str:
    return bytes(data)[:WORDS_MAX].decode("utf-8", "replace")


def _retry_after_s(text: str, date: str) -> float:
    """Return what a Retry-After header asks for: seconds, or a date, which counts from the date of the answer."""
    if text.isdecimal():
        return min(float(text[:10]), RETRY_AFTER_MAX_S)
    try:
        span_s = (parsedate_to_datetime(text) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return min(max(span_s, 0.0), RETRY_AFTER_MAX_S)


def _secrets(url: str) -> tuple[str, ...]:
    """Return the parts of a URL that may be keys, as they stand there and decoded, the longest first."""
    parts = urlsplit(url)
    given = {parts.username or "", parts.password or "", *(value for _, value in parse_qsl(parts.query))}
    given |= {part for part in parts.path.split("/") if len(part) >= SECRET_MIN}
    return tuple(sorted({*given, *map(unquote, given)} - {""}, key=len, reverse=True))
