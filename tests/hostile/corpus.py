"""The hostile requests: data only. Each is bytes as they go over the wire, and what may come of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

EXECUTE: Final = "/api/orders/execute"
QUOTES: Final = "/api/quotes"
NOBODY: Final = "ord_01M829SA5JKJF0H5TA5WE28N6K"
JSON: Final = "Content-Type: application/json"
FIELDS: Final = {
    "tokenIn": '"SOL"',
    "tokenOut": '"USDC"',
    "amount": "1.5",
    "slippage": "0.01",
    "orderType": '"market"',
    "clientOrderId": "null",
    "expiresAt": "null",
}
UPGRADE: Final = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


class Fate(Enum):
    """What may come of a request. Never an answer of 500 or above, never an order for one that is refused."""

    REFUSED = auto()  # every answer is a 4xx
    SERVED = auto()  # odd, but right: every answer is below 400
    EITHER = auto()  # a matter of taste
    CUT = auto()  # no answer is owed: a 4xx, or the connection ends
    WAITS = auto()  # not over yet: no answer may come before more bytes do


@dataclass(frozen=True, slots=True)
class Attack:
    group: str
    name: str
    pieces: tuple[bytes, ...]
    fate: Fate = Fate.REFUSED
    answers: int = 1

    @property
    def is_head(self) -> bool:
        return self.pieces[0].startswith(b"HEAD ")


def order_text(**changes: str) -> bytes:
    """Return an order as JSON text, whose values are given as JSON text, too."""
    fields = {**FIELDS, **changes}
    return (
        b"{"
        + b",".join(b'"%s":%s' % (n.encode(), v.encode("utf-8", "surrogatepass")) for n, v in fields.items())
        + b"}"
    )


def request(method: str, target: str | bytes, *headers: str | bytes, body: bytes = b"", length: bool = True) -> bytes:
    lines = [method.encode("latin-1") + b" " + _bytes(target) + b" HTTP/1.1", b"Host: localhost"]
    lines += map(_bytes, headers)
    if body and length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


def post(body: bytes, *headers: str | bytes, path: str = EXECUTE) -> bytes:
    return request("POST", path, *(headers or (JSON,)), body=body)


def get(target: str | bytes, *headers: str | bytes) -> bytes:
    return request("GET", target, *headers)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _short(text: str | bytes) -> str:
    if len(text) <= 40:
        return ascii(text)
    return f"{text[:30]!a} ... ({len(text)})"


ORDER: Final = order_text()
BIG: Final = b" " * 10_000_000

# --- amounts and slippages --------------------------------------------------------------------------------------------

NUMBERS: Final = (
    "1e1000000", "-1e1000000", "1e-1000000", "1E+999999999999", "1e308", "1e400", "1e309", "1.5e0", "1e1",
    "4.9e-324",
    "-0", "-0.0", "-1", "-1.5", "0", "0.0", "0e0", "NaN", "nan", "Infinity", "-Infinity", "inf", "1e", "--1", "+1",
    "0x10", "0b1", "01", "1.", ".5", "1_000", "1,5", "1/2", "9" * 400, "9" * 15_000, "0." + "0" * 5_000 + "1",
    "18446744073709551616", "340282366920938463463374607431768211456", "1.5 ", " 1.5", "1.5\\n",
    "1.5\\u0000", "\\u0031",
    "\uff11.\uff15", "\u0661.\u0665", "\u00b2", "\u2460", "\u096b", "1\u00a05", "1\u066b5", "\\ud800", "",
    "null", "true",
)  # fmt: skip
RIGHT: Final = {
    ("amount", '"\\u0031"'),
    ("slippage", "0"),
    ("slippage", "0.0"),
    ("slippage", '"0"'),
    ("slippage", '"0.0"'),
}
RAW_RIGHT: Final = {"1.5 ", " 1.5"}  # JSON allows space around a number


def numbers() -> Iterator[Attack]:
    for field in ("amount", "slippage"):
        for text in NUMBERS:
            for value in (text, f'"{text}"'):
                right = (field, value) in RIGHT or (field == "amount" and value in RAW_RIGHT)
                fate = Fate.SERVED if right else Fate.REFUSED
                name = f"{field} {_short(value)}"
                yield Attack("numbers", name, (post(order_text(**{field: value})),), fate)
                if value == text:
                    yield Attack("numbers", f"quote, {name}", (post(order_text(**{field: value}), path=QUOTES),), fate)


# --- types ------------------------------------------------------------------------------------------------------------

VALUES: Final = (
    "null", "true", "false", "0", "-1", "1e9", '""', '"\\u0000"', '"\\ud83d"', '"\\udc00\\ud800"', "[]",
    "{}", "[[]]",
    '["SOL"]', '{"$gt":0}', '"' + "x" * 10_000 + '"', '"\u202eLOS"', '"SOL\\n"', '"../../etc/passwd"',
    '"\U0001d7d9"',
    '"S\u00d3L"', '"\uff33\uff2f\uff2c"', '"sol\\u0000"', '"%00"', "\"' OR 1=1 --\"", '"2027-01-01T00:00:00+99:99"',
    '"0000-00-00T00:00:00Z"', '"9999-12-31T23:59:60Z"', '"2027-W01-1T00:00:00Z"', '"\uff12027-01-01T00:00:00Z"',
)  # fmt: skip


def types() -> Iterator[Attack]:
    for field in FIELDS:
        for value in VALUES:
            yield Attack("types", f"{field} = {_short(value)}", (post(order_text(**{field: value})),), Fate.EITHER)
    for field in ("tokenIn", "tokenOut", "amount"):
        rest = {name: value for name, value in FIELDS.items() if name != field}
        body = "{" + ",".join(f'"{name}":{value}' for name, value in rest.items()) + "}"
        yield Attack("types", f"no {field}", (post(body.encode()),))


# --- JSON -------------------------------------------------------------------------------------------------------------

INSIDE: Final = ORDER[1:-1]
BODIES: Final[dict[str, bytes]] = {
    "nothing": b" ",
    "null": b"null",
    "a number": b"1",
    "1e1000000 alone": b"1e1000000",
    "a string": b'"order"',
    "a list": b"[" + ORDER + b"]",
    "an empty object": b"{}",
    "100,000 open brackets": b"[" * 100_000,
    "16,000 open brackets": b"[" * 16_000,
    "8,000 brackets, balanced": b"[" * 8_000 + b"]" * 8_000,
    "3,000 objects, nested": b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    "brackets as an amount": order_text(amount="[" * 7_000 + "]" * 7_000),
    "brackets as an unknown field": b'{"x":' + b"[" * 7_000 + b"]" * 7_000 + b"," + INSIDE + b"}",
    "two orders": ORDER + ORDER,
    "an order and a bracket": ORDER + b"}",
    "an order and a NUL": ORDER + b"\0",
    "a BOM": b"\xef\xbb\xbf" + ORDER,
    "UTF-16": ORDER.decode().encode("utf-16"),
    "UTF-16, no BOM": ORDER.decode().encode("utf-16-le"),
    "UTF-32": ORDER.decode().encode("utf-32"),
    "Latin-1": '{"tokenIn":"S\u00d3L"}'.encode("latin-1"),
    "a raw surrogate": order_text(tokenIn='"\ud800"'),
    "a raw pair of surrogates": order_text(clientOrderId='"\ud83d\ude00"'),
    "a raw surrogate in a name": b'{"\xed\xa0\x80":1,' + INSIDE + b"}",
    "an escaped surrogate in a name": b'{"\\ud800":1,' + INSIDE + b"}",
    "an overlong slash": b'{"tokenIn":"\xc0\xaf"}',
    "beyond Unicode": b'{"tokenIn":"\xf4\x90\x80\x80"}',
    "a raw NUL in a string": b'{"tokenIn":"S\0L"}',
    "a raw newline in a string": b'{"tokenIn":"S\nL"}',
    "a wrong escape": b'{"tokenIn":"\\x"}',
    "half an escape": b'{"tokenIn":"\\u12',
    "single quotes": ORDER.replace(b'"', b"'"),
    "a comment": b"/* an order */" + ORDER,
    "a trailing comma": ORDER[:-1] + b",}",
    "no colon": b'{"tokenIn" "SOL"}',
    "no quotes": b"{tokenIn:SOL}",
    "__proto__": b'{"__proto__":{"admin":true},' + INSIDE + b"}",
    "1,500 unknown fields": b"{" + b"".join(b'"f%d":1,' % number for number in range(1_500)) + INSIDE + b"}",
    "a name of 15,000 letters": b'{"' + b"n" * 15_000 + b'":1}',
    "a name of NULs": b'{"' + b"\\u0000" * 2_000 + b'":1}',
    "a form": b"tokenIn=SOL&tokenOut=USDC&amount=1",
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "MessagePack": b"\x83\xa7tokenIn\xa3SOL",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\x02\x00",
    "10 MB of spaces": BIG,
    "one byte too many": ORDER + b" " * (16_385 - len(ORDER)),
}
ODD_BODIES: Final[dict[str, bytes]] = {
    "the largest that is allowed": ORDER + b" " * (16_384 - len(ORDER)),
    "the same field twice": ORDER[:-1] + b',"amount":2}',
    "the same field twice, once wrong": ORDER[:-1] + b',"amount":-1}',
    "the same key twice": ORDER[:-1] + b',"clientOrderId":"twice","clientOrderId":"twice-2"}',
    "escaped names": ORDER.replace(b"tokenIn", b"\\u0074okenIn"),
    "space everywhere": json.dumps(json.loads(ORDER), indent=9).encode(),
    "a thousand times the same field": b"{" + b'"amount":1,' * 1_000 + INSIDE + b"}",
}


def bodies() -> Iterator[Attack]:
    for name, body in BODIES.items():
        yield Attack("JSON", name, (post(body),))
        yield Attack("JSON", f"quote, {name}", (post(body, path=QUOTES),))
    for name, body in ODD_BODIES.items():
        yield Attack("JSON", name, (post(body),), Fate.EITHER)
    for end in range(1, len(ORDER), 7):
        yield Attack("JSON", f"cut off at {end}", (post(ORDER[:end]),))


# --- the length of the body -------------------------------------------------------------------------------------------


def _sized(*headers: str | bytes, body: bytes = ORDER) -> bytes:
    return request("POST", EXECUTE, JSON, *headers, body=body, length=False)


CHUNKED: Final = "Transfer-Encoding: chunked"
CHUNKS: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ORDER), ORDER)
LENGTH: Final = f"Content-Length: {len(ORDER)}"


def lengths() -> Iterator[Attack]:
    for text in ("-1", "+5", "1e3", "0x10", "99999999999999999999", "18446744073709551616", "5,5", "5 5", "\u00b2", ""):
        yield Attack("length", f"Content-Length: {text!a}", (_sized(f"Content-Length: {text}"),))
    yield Attack("length", "no length at all", (_sized(body=b""),))
    yield Attack("length", "zero", (_sized("Content-Length: 0", body=b""),))
    yield Attack("length", "twice the same", (_sized(LENGTH, LENGTH),))
    yield Attack("length", "two lengths", (_sized(LENGTH, "Content-Length: 5"),))
    yield Attack("length", "less than the body", (_sized("Content-Length: 5"),), answers=2)
    yield Attack("length", "more than the body", (_sized("Content-Length: 9999"),), Fate.WAITS)
    yield Attack("length", "10 MB announced, nothing sent", (_sized("Content-Length: 10000000", body=b""),), Fate.WAITS)
    yield Attack("length", "10 MB without Content-Length", (_sized(body=b""), BIG), Fate.CUT)
    yield Attack("chunks", "an order", (_sized(CHUNKED, body=CHUNKS),), Fate.SERVED)
    yield Attack("chunks", "10 MB", (_sized(CHUNKED, body=b"989680\r\n"), BIG, b"\r\n0\r\n\r\n"))
    yield Attack("chunks", "10 MB, byte by byte", (_sized(CHUNKED, body=b"1\r\n \r\n" * 1_666_666 + b"0\r\n\r\n"),))
    yield Attack("chunks", "never ending", (_sized(CHUNKED, body=b"5\r\nabcde\r\n"),), Fate.WAITS)
    for size in (b"zz", b"-1", b"+1", b"0x5", b"FFFFFFFFFFFFFFFFF", b" 5", b"", b"5;" + b"x" * 20_000, b"5\n", b"5 ;a"):
        body = size + b"\r\nabcde\r\n0\r\n\r\n"
        yield Attack("chunks", f"size {_short(size)}", (_sized(CHUNKED, body=body),), Fate.REFUSED)
    yield Attack("chunks", "too much in one", (_sized(CHUNKED, body=b"3\r\nabcdef\r\n0\r\n\r\n"),))
    yield Attack("chunks", "a trailer", (_sized(CHUNKED, body=CHUNKS[:-2] + b"X: y\r\n\r\n"),), Fate.EITHER)
    trailers = b"".join(b"X%d: y\r\n" % number for number in range(10_000))
    yield Attack("chunks", "10,000 trailers", (_sized(CHUNKED, body=CHUNKS[:-2] + trailers + b"\r\n"),), Fate.EITHER)
    smuggled = b"GET /api/orders HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield Attack("smuggling", "CL.TE", (_sized(f"Content-Length: {len(CHUNKS)}", CHUNKED, body=CHUNKS + smuggled),))
    yield Attack("smuggling", "TE.CL", (_sized(CHUNKED, "Content-Length: 4", body=CHUNKS + smuggled),))
    for coding in (
        *("identity", "chunked, identity", "identity, chunked", "gzip", "gzip, chunked", "xchunked", "chunked;q=1"),
        *("\x0bchunked", "cow", "chunked\tchunked", '"chunked"', ""),
    ):
        sized = _sized(LENGTH, f"Transfer-Encoding: {coding}", body=CHUNKS)
        yield Attack("smuggling", f"CL and TE: {coding!a}", (sized,), Fate.CUT)
    for line in (b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked", b"Transfer-Encoding:\n chunked"):
        yield Attack("smuggling", f"{_short(line)} and CL", (_sized(LENGTH, line),), Fate.CUT)
    yield Attack("smuggling", "TE twice", (_sized(CHUNKED, CHUNKED, body=CHUNKS),), Fate.CUT)
    yield Attack("smuggling", "TE in HTTP/1.0", (_sized(CHUNKED, body=CHUNKS).replace(b"/1.1", b"/1.0"),), Fate.CUT)
    yield Attack("smuggling", "a bare CR in a header", (_sized(LENGTH, b"X: a\rTransfer-Encoding: chunked"),), Fate.CUT)


# --- content types ----------------------------------------------------------------------------------------------------

NOT_JSON: Final = (
    "", "text/plain", "application/jsonp", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/problem+json", "application/vnd.api+json", "*/*", "json", "application/json, text/plain", ";",
    "application//json", "application/json/x", "text/json", "a" * 10_000, "\u00e4pplication/json",
    "application/\u017fson",
)  # fmt: skip
ODD_JSON: Final = (
    "application/json;charset=utf-16", 'application/json; charset="utf-8"', "application/json;charset=latin-1",
    "application/json;;;", "APPLICATION/JSON", "application/json\t; x=y", "application/json; charset=\u00ff",
    "application/json;" + "x" * 9_000, "application/json; charset=utf-7", "application/json; charset=rot13",
)  # fmt: skip


def content_types() -> Iterator[Attack]:
    for kind in NOT_JSON:
        line = f"Content-Type: {kind}".encode()
        yield Attack("content type", _short(kind), (post(ORDER, line),))
        yield Attack("content type", f"quote, {_short(kind)}", (post(ORDER, line, path=QUOTES),))
    for kind in ODD_JSON:
        line = f"Content-Type: {kind}".encode()
        yield Attack("content type", _short(kind), (post(ORDER, line),), Fate.EITHER)
    yield Attack("content type", "none", (post(ORDER, "X: y"),))
    yield Attack("content type", "two", (post(ORDER, JSON, "Content-Type: text/plain"),), Fate.EITHER)
    yield Attack("content type", "gzip announced", (post(ORDER, JSON, "Content-Encoding: gzip"),), Fate.EITHER)


# --- paths ------------------------------------------------------------------------------------------------------------

IDS: Final = (
    NOBODY.lower(), NOBODY.upper(), NOBODY + "0", NOBODY[:-1], "ord_" + "9" * 26, "ord_" + "I" * 26, "ord_", NOBODY,
    "ord_" + "%EF%BC%91" * 26, "ord_" + "%D9%A1" * 26, "%6Frd_01M829SA5JKJF0H5TA5WE28N6K", NOBODY + "%00",
    "%00", "%0A",
    NOBODY + "%0a", "..", "%2e%2e", "%252e%252e", "%2e%2e%2fstats", "..%5c..", "%ff%fe", "%ED%A0%80",
    "%C0%AF", "%", "%zz",
    "%u0041", "x" * 5_000, "%41" * 2_000, "a;b=c", "a,b", "'%20OR%201=1--", "%3Cscript%3E", "~root", "-1",
    "0", "null",
    "undefined", "[object%20Object]", "{orderId}", "*", "@", ":id", "con.txt", "stats%00", "execute%20",
)  # fmt: skip
TARGETS: Final = (
    "/api/orders/../../etc/passwd", "/../../../../etc/passwd", "//etc/passwd", "//", "///api//orders",
    "/api/./orders",
    "/%2e%2e/%2e%2e/etc/passwd", "/%00", "/api/orders%00", "/api%2Forders", "/API/ORDERS", "/api/orders/stats/x",
    "/" + "a" * 60_000, "/" + "a/" * 20_000, "/" + "%41" * 10_000, "/api/orders\\execute", "/;/",
    "/a?b#c", "/#", "/.git/config",
    "/favicon.ico", "/wp-admin", "/docs/", "/openapi.yaml", "/health/dead", "/api/stream", "/metrics",
)  # fmt: skip
ODD_TARGETS: Final = (
    "http://engine/health", "http://evil.example/health", "http://engine", "https://engine/",
    "ftp://engine/x", "http://",
    "http://[::1/health", "http://[/", "http://engine:99999/", "http://u:p@engine/health", "//[", "*",
    "engine:80", "health",
    "", "?", "?after=1", "\\", "/\\[", "http:///health", "file:///etc/passwd", "/?",
    "/health?x=" + "y" * 60_000, "//[/x", "/[",
)  # fmt: skip
RAW_TARGETS: Final = (
    b"/\xff\xfe", b"/\xc3\xa4", b"/\xed\xa0\x80", b"/a\0b", b"/a\tb", b"/a b", b"/a\x7fb", b"/\r", b"/\xe2\x80\xae",
    b"/api/orders?token=\xff", b"/api/orders?\xc3\xa4=1", b"/api/orders?token=\xf0\x9f\x92\xa9", b"\xff", b"/\x01",
)  # fmt: skip


def paths() -> Iterator[Attack]:
    for order_id in IDS:
        yield Attack("ids", _short(order_id), (get(f"/api/orders/{order_id}"),), Fate.EITHER)
        yield Attack("ids", f"{_short(order_id)}, cancelled", (request("DELETE", f"/api/orders/{order_id}"),))
        for page in ("events", "explain", "stream"):
            target = f"/api/orders/{order_id}/{page}"
            yield Attack("ids", f"{_short(order_id)}, its {page}", (get(target, "Accept: text/event-stream"),))
    for target in TARGETS:
        yield Attack("paths", _short(target), (get(target),), Fate.EITHER)
        yield Attack("paths", f"{_short(target)}, posted", (post(ORDER, path=target),), Fate.EITHER)
    for target in ODD_TARGETS:
        yield Attack("paths", _short(target), (get(target),), Fate.EITHER)
    for raw in RAW_TARGETS:
        yield Attack("paths", _short(raw), (get(raw),), Fate.EITHER)
    for method in (
        *(
            "FOO",
            "get",
            "Post",
            "PRI",
            "PROPFIND",
            "TRACE",
            "OPTIONS",
            "CONNECT",
            "QUERY",
            "M-SEARCH",
            "PUT",
            "PATCH",
            "HEAD",
        ),
        *("X" * 10_000, "G\u00cbT", "GET\t", "", " GET", "GE\0T", "DELETE"),
    ):
        for path in (EXECUTE, QUOTES):
            yield Attack("methods", f"{_short(method)} {path}", (request(method, path),))
    yield Attack("methods", "OPTIONS *", (request("OPTIONS", "*"),), Fate.EITHER)
    yield Attack("methods", "CONNECT an authority", (request("CONNECT", "engine:443"),))
    for path in ("/", "/health", "/api/orders", "/docs"):
        yield Attack("methods", f"HEAD {path}", (request("HEAD", path),), Fate.SERVED)


# --- queries ----------------------------------------------------------------------------------------------------------

AFTERS: Final = (
    "1e9", "-1", "1e1000000", "9" * 5_000, "NaN", "%EF%BC%91", "%C2%B2", "0x1", "%00", "", "+1", "%2B1",
    "1.0", "%F0%9D%9F%99",
    "1&after=2", "[]", "null", "%ff", "1%20", "2147483648", "9223372036854775808",
)  # fmt: skip
LISTINGS: Final = (
    "limit=0", "limit=1e6", "limit=1000000", "limit=-1", "limit=1e1000000", "limit=%EF%BC%91", "limit=", "limit=NaN",
    "limit=" + "9" * 5_000, "limit=201", "cursor=x", "cursor=", "cursor=%00", f"cursor={NOBODY.lower()}",
    "cursor=ord_%ff",
    "cursor=" + "A" * 50_000, "status=", "status=PENDING", "status=%00", "status=pending%00", "token=", "token=%00",
    "token=" + "x" * 50_000, "token=%ED%A0%80", "from=1e1000000", "from=now", "from=", "to=0",
    "to=9999-12-31T23:59:59-23:59",
    "from=0001-01-01T00:00:00%2B23:59", "from=-1", "from=2027-01-01", "from=2027-01-01T00:00:00",
    "from=%EF%BC%92027-01-01",
    "x=y", "__proto__[a]=b", "Limit=1", "limit[]=1", "%00=1", "=1", "limit=1%00", "to=" + "2" * 50_000,
    "token=SOL%00",
    "clientOrderId=%00", "clientOrderId=", "clientOrderId=" + "x" * 50_000, "clientOrderId=%ED%A0%80",
    "clientOrderId=a%20b",
)  # fmt: skip
ODD_LISTINGS: Final = (
    "limit=0&limit=1", "limit=1&limit=0", "status=failed&status=pending", "&&&", "&", "limit=1&" * 5_000,
    "?limit=1", "#",
    f"cursor={NOBODY}", "from=9999-12-31T23:59:59Z", "to=1970-01-01T00:00:00Z", "token=sol",
    "limit=1;status=x", "limit=0001",
    "&".join(f"clientOrderId=k{number}" for number in range(3_000)), "clientOrderId=%27%20OR%201%3D1",
    "clientOrderId=%25",
)  # fmt: skip


def queries() -> Iterator[Attack]:
    for after in AFTERS:
        query = f"after={after}"
        yield Attack("queries", f"events, {_short(query)}", (get(f"/api/orders/{NOBODY}/events?{query}"),))
        stream = get(f"/api/orders/{NOBODY}/stream?{query}", "Accept: text/event-stream")
        yield Attack("queries", f"stream, {_short(query)}", (stream,))
        follow = get(f"{EXECUTE}?orderId={NOBODY}&{query}", *UPGRADE)
        yield Attack("queries", f"WebSocket, {_short(query)}", (follow,))
    for query in LISTINGS:
        yield Attack("queries", _short(query), (get(f"/api/orders?{query}"),))
    for query in ODD_LISTINGS:
        yield Attack("queries", _short(query), (get(f"/api/orders?{query}"),), Fate.EITHER)


# --- headers ----------------------------------------------------------------------------------------------------------

KEYS: Final = ("", " ", "a b", "x" * 129, "x" * 50_000, "\u00e4", "a\tb", "a\x01b", "\u00a0", "\x7f")
EVENT_IDS: Final = ("-1", "1e1000000", "9" * 5_000, "NaN", "\u00b2", "", "1, 2", "x", "1.5", "\u00ff")
HOSTS: Final = (
    "[",
    "[::1",
    "",
    "\u00e4",
    "a b",
    "engine:99999999",
    "engine:x",
    "@",
    "http://x",
    "a/b",
    "x" * 50_000,
    "\\",
    "]",
)
WRONG_LINES: Final = (
    b"no colon", b": no name", b"N\0ame: x", b"Name\0: x", b"X: a\0b", b"X: a\x01b", b"X: a\nb",
    b" folded: first", b"\xff: x",
    b"X Y: z", b"X: a\r\n b", b"X: a\r\n\tb", b"(x): y", b"\x80\x81: x", b"\r: x", b"X:\r",
)  # fmt: skip
ODD_LINES: Final = (
    b"X:", b"X: \xff\xfe", b"X: \xed\xa0\x80", b"Expect: 100-continue", b"Expect: 200-maybe", b"Expect: ",
    b"Range: bytes=0-",
    b"Accept: " + b"*/*," * 5_000, b"Accept-Encoding: gzip;q=1e1000000", b"Connection: close, keep-alive",
    b"Keep-Alive: -1",
    b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"X-Forwarded-For: [", b"X-Forwarded-Host: [",
    b"X-Forwarded-Proto: javascript", b"Forwarded: for=[", b"Cookie: " + b"a=b;" * 10_000,
    b"Authorization: Basic \xff",
    b"If-None-Match: *", b"If-Modified-Since: never", b"Max-Forwards: -1", b"Trailer: Content-Length",
    b"TE: trailers",
    b"Content-MD5: x", b"X-HTTP-Method-Override: DELETE", b"Connection: Content-Length", b"Date: \xff",
    b"Via: 1.1 a" * 500,
)  # fmt: skip


def headers() -> Iterator[Attack]:
    for key in KEYS:
        line = b"Idempotency-Key: " + key.encode()
        yield Attack("headers", f"Idempotency-Key {_short(key)}", (post(ORDER, JSON, line),))
    yield Attack("headers", "two keys", (post(ORDER, JSON, "Idempotency-Key: a", "Idempotency-Key: b"),))
    differ = post(order_text(clientOrderId='"a"'), JSON, "Idempotency-Key: b")
    yield Attack("headers", "a key and another in the body", (differ,))
    for event_id in EVENT_IDS:
        line = b"Last-Event-ID: " + event_id.encode()
        stream = get(f"/api/orders/{NOBODY}/stream", "Accept: text/event-stream", line)
        yield Attack("headers", f"Last-Event-ID {_short(event_id)}", (stream,))
    for host in HOSTS:
        for name, good in (
            ("an order", post(ORDER)),
            ("a page", get("/health")),
            ("nothing there", get("/nothing")),
            ("a wrong method", request("PUT", QUOTES)),
            ("a slash too many", get("/health/")),
            ("a WebSocket", get("/nothing", *UPGRADE)),
        ):
            attack = good.replace(b"Host: localhost", b"Host: " + host.encode())
            yield Attack("hosts", f"{name}, Host {_short(host)}", (attack,), Fate.EITHER)
    yield Attack("hosts", "none", (post(ORDER).replace(b"Host: localhost\r\n", b""),), Fate.EITHER)
    yield Attack("hosts", "two", (post(ORDER, JSON, "Host: other"),), Fate.EITHER)
    for wrong in WRONG_LINES:
        yield Attack("headers", f"{_short(wrong)}", (post(ORDER, JSON, wrong),), Fate.CUT)
    for odd in ODD_LINES:
        yield Attack("headers", f"an order with {_short(odd)}", (post(ORDER, JSON, odd),), Fate.EITHER)
        yield Attack("headers", f"a page with {_short(odd)}", (get("/health", odd),), Fate.EITHER)
    for size in (20_000, 60_000, 100_000, 1_000_000):
        large = b"X: " + b"y" * size
        yield Attack("headers", f"one of {size:,} bytes", (post(ORDER, JSON, large),), Fate.EITHER)
    for count in (100, 1_000, 5_000, 50_000):
        many = [b"X%d: y" % number for number in range(count)]
        yield Attack("headers", f"{count:,} of them", (post(ORDER, JSON, *many),), Fate.EITHER)
    yield Attack("headers", "100,000 without a name", (post(ORDER, JSON, *[b":"] * 100_000),), Fate.CUT)
    yield Attack("headers", "10 MB and no end", (b"GET / HTTP/1.1\r\nX: ", BIG), Fate.CUT)
    yield Attack("headers", "a path of 10 MB", (b"GET /", b"a" * 10_000_000), Fate.CUT)


# --- upgrades ---------------------------------------------------------------------------------------------------------


def upgrades() -> Iterator[Attack]:
    connection, upgrade, version, key = UPGRADE
    wrong: dict[str, tuple[str | bytes, ...]] = {
        "no key": (connection, upgrade, version),
        "no version": (connection, upgrade, key),
        "two keys": (*UPGRADE, key),
        "a short key": (connection, upgrade, version, "Sec-WebSocket-Key: YQ=="),
        "a key that is not base64": (connection, upgrade, version, "Sec-WebSocket-Key: !!!"),
        "a key of 7,000 bytes": (connection, upgrade, version, "Sec-WebSocket-Key: " + "A" * 7_000),
        "a key that is not ASCII": (connection, upgrade, version, b"Sec-WebSocket-Key: \xff\xff"),
        "version 12": (connection, upgrade, "Sec-WebSocket-Version: 12", key),
        "version 1e1000000": (connection, upgrade, "Sec-WebSocket-Version: 1e1000000", key),
        "two versions": (*UPGRADE, "Sec-WebSocket-Version: 8"),
        "two origins": (*UPGRADE, "Origin: a", "Origin: b"),
        "two upgrades": (*UPGRADE, upgrade),
        "a broken Connection": ('Connection: Upgrade, "', upgrade, version, key),
    }
    odd: dict[str, tuple[str | bytes, ...]] = {
        "a list of upgrades": (connection, "Upgrade: websocket, h2c", version, key),
        "a broken Upgrade": (connection, "Upgrade: websocket/", version, key),
        "a broken extension": (*UPGRADE, "Sec-WebSocket-Extensions: ;;=,"),
        "permessage-deflate, absurd": (
            *UPGRADE,
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99",
        ),
        "a broken protocol": (*UPGRADE, "Sec-WebSocket-Protocol: ,,\x01"),
        "1,000 protocols": (*UPGRADE, "Sec-WebSocket-Protocol: " + ",".join(f"p{number}" for number in range(1_000))),
        "200 headers": (*UPGRADE, *(f"X{number}: y" for number in range(200))),
        "a header of 10,000 bytes": (*UPGRADE, "X: " + "y" * 10_000),
        "a header that is not ASCII": (*UPGRADE, b"X: \xff\xed\xa0\x80"),
        "a header with a control character": (*UPGRADE, b"X: a\x01b"),
        "an empty header": (*UPGRADE, "X:"),
        "a name that is a delimiter": (*UPGRADE, "X{}: y"),
        "an evil origin": (*UPGRADE, "Origin: null"),
        "a body": (*UPGRADE, "Content-Length: 5"),
        "a chunked body": (*UPGRADE, "Transfer-Encoding: chunked"),
        "another Connection": (*UPGRADE, "Connection: keep-alive"),
    }
    for name, lines in wrong.items():
        for path in (EXECUTE, "/api/stream"):
            yield Attack("upgrades", f"{name}, {path}", (get(path, *lines),), Fate.EITHER)
    for name, lines in odd.items():
        for path in (EXECUTE, "/api/stream"):
            yield Attack("upgrades", f"{name}, {path}", (get(path, *lines),), Fate.EITHER)
    for order_id in IDS:
        name = f"to follow {_short(order_id)}"
        yield Attack("upgrades", name, (get(f"{EXECUTE}?orderId={order_id}", *UPGRADE),), Fate.EITHER)
    for target in (
        *(
            "/api/stream?" + "x" * 9_000,
            "/" + "a" * 9_000,
            "/%00",
            "/%ff",
            "/nowhere",
            "/",
            "http://engine/api/stream",
            "*",
        ),
    ):
        yield Attack("upgrades", _short(target), (get(target, *UPGRADE),), Fate.EITHER)
    for raw in RAW_TARGETS:
        yield Attack("upgrades", _short(raw), (get(raw, *UPGRADE),), Fate.EITHER)
    for method in ("POST", "PUT", "HEAD", "CONNECT", "OPTIONS"):
        yield Attack("upgrades", f"by {method}", (request(method, "/api/stream", *UPGRADE),), Fate.EITHER)
    old = get("/api/stream", *UPGRADE).replace(b"/1.1", b"/1.0")
    yield Attack("upgrades", "in HTTP/1.0", (old,), Fate.EITHER)
    yield Attack(
        "upgrades", "with frames behind it", (get("/api/stream", *UPGRADE) + b"\x81\x85abcdabcde" * 100,), Fate.EITHER
    )


# --- not HTTP, or not quite -------------------------------------------------------------------------------------------

HELLO: Final = bytes.fromhex("1603010200010001fc0303") + bytes(range(256)) * 2
NOT_HTTP: Final[dict[str, tuple[bytes, ...]]] = {
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",),
    "a TLS hello": (HELLO,),
    "SSH": (b"SSH-2.0-OpenSSH_9.9\r\n",),
    "SOCKS 5": (b"\x05\x01\x00" * 5,),
    "SMTP": (b"EHLO engine\r\n",),
    "Redis": (b"*1\r\n$4\r\nPING\r\n",),
    "PostgreSQL": (b"\0\0\0\x08\x04\xd2\x16\x2f" * 4,),
    "a proxy's preface": (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + get("/health"),),
    "HTTP/0.9": (b"GET /\r\n\r\n",),
    "HTTP/3.7": (get("/health").replace(b"1.1", b"3.7"),),
    "HTTP/1.10": (get("/health").replace(b"1.1", b"1.10"),),
    "http/1.1": (get("/health").replace(b"HTTP", b"http"),),
    "an answer": (b"HTTP/1.1 200 OK\r\n\r\n",),
    "NULs": (b"\0" * 1_000,),
    "0xff": (b"\xff" * 1_000,),
    "a space first": (b" " + get("/health"),),
    "a tab for a space": (get("/health").replace(b" ", b"\t"),),
    "two spaces": (get("/health").replace(b" ", b"  "),),
    "bare CR": (get("/health").replace(b"\r\n", b"\r"),),
    "RTSP": (b"OPTIONS rtsp://engine/a RTSP/1.0\r\nCSeq: 1\r\n\r\n",),
    "ICE": (b"SOURCE /a ICE/1.0\r\n\r\n",),
}
NOT_QUITE: Final[dict[str, tuple[bytes, ...]]] = {
    "bare LF": (get("/health").replace(b"\r\n", b"\n"),),
    "empty lines first": (b"\r\n" * 100 + get("/health"),),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n",),
    "HTTP/1.0, kept alive": (b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",),
    "HTTP/1.0, an order": (post(ORDER).replace(b"/1.1", b"/1.0"),),
    "an order byte by byte": tuple(post(ORDER)[at : at + 1] for at in range(len(post(ORDER)))),
    "a page with a body": (request("GET", "/health", body=ORDER),),
    "a cancel with a body": (request("DELETE", f"/api/orders/{NOBODY}", body=ORDER),),
}
NOT_YET: Final[dict[str, tuple[bytes, ...]]] = {
    "nothing": (b"",),
    "empty lines": (b"\r\n" * 100,),
    "half a request line": (b"GET /hea",),
    "half a header": (b"GET /health HTTP/1.1\r\nHost: local",),
    "no empty line": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n",),
    "half a body": (post(ORDER)[:-10],),
}


def protocols() -> Iterator[Attack]:
    for name, pieces in NOT_HTTP.items():
        yield Attack("not HTTP", name, pieces, Fate.CUT)
    dice = random.Random(5)
    for number in range(30):
        noise = dice.randbytes(dice.choice([1, 10, 100, 1_000, 100_000])) + b"\r\n\r\n"
        yield Attack("not HTTP", f"noise {number}", (noise,), Fate.CUT)
    for number in range(60):
        spoiled = bytearray(dice.choice([post(ORDER), get("/health"), get("/api/stream", *UPGRADE)]))
        for _ in range(dice.randint(1, 8)):
            spoiled[dice.randrange(len(spoiled))] = dice.randrange(256)
        yield Attack("not HTTP", f"spoiled {number}", (bytes(spoiled), b"\r\n\r\n" * 200), Fate.EITHER)
    for name, pieces in NOT_QUITE.items():
        yield Attack("odd HTTP", name, pieces, Fate.EITHER)
    for name, pieces in NOT_YET.items():
        yield Attack("unfinished", name, pieces, Fate.WAITS)
    for count in (2, 10, 100):
        yield Attack("pipelining", f"{count} pages", (get("/health/live") * count,), Fate.SERVED, count)
        yield Attack("pipelining", f"{count} orders", (post(ORDER) * count,), Fate.SERVED, count)
    yield Attack("pipelining", "20,000 pages", (get("/health/live") * 20_000,), Fate.SERVED, 20_000)
    yield Attack("pipelining", "2,000 orders", (post(ORDER) * 2_000,), Fate.SERVED, 2_000)
    yield Attack("pipelining", "an order and noise", (post(ORDER) + HELLO,), Fate.EITHER)
    yield Attack("pipelining", "2,000 upgrades", (get("/health", *UPGRADE[:1], "Upgrade: h2c") * 2_000,), Fate.EITHER)
    yield Attack("pipelining", "10 MB of CRLF after a page", (get("/health"), b"\r\n" * 5_000_000), Fate.SERVED)


CORPUS: Final = (
    *numbers(),
    *types(),
    *bodies(),
    *lengths(),
    *content_types(),
    *paths(),
    *queries(),
    *headers(),
    *upgrades(),
    *protocols(),
)
