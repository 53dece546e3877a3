"""The API reference for people: the OpenAPI document as one page that needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any, Final

import msgspec

from fillwright import __version__
from fillwright.api import openapi

Json = dict[str, Any]

STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
code,pre{font:.875rem/1.5 ui-monospace,monospace}
pre{background:var(--soft);padding:.75rem;overflow-x:auto;border-radius:.4rem}
details{border-bottom:1px solid var(--line)}
summary{padding:.45rem 0;cursor:pointer;display:flex;gap:.75rem;flex-wrap:wrap}
summary b{min-width:4.5rem;font:600 .875rem/1.6 ui-monospace,monospace}
details>div{padding:0 0 1rem 1rem}
table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--soft)}
"""
MORE: Final = {
    "GET /api/orders/{orderId}/stream": "ws://localhost:3000/api/orders/ord_.../stream?after=0",
    "GET /api/stream": "ws://localhost:3000/api/stream",
}


@cache
def page() -> str:
    document = openapi.document()
    endpoints = "".join(
        _operation(method.upper(), path, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = document["components"]["schemas"]
    shapes = "".join(
        f'<details id="{escape(name)}"><summary><b>{escape(name)}</b></summary><div>{_pre(schema)}</div></details>'
        for name, schema in schemas.items()
    )
    errors = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{status or ""}</td><td>{escape(title)}</td></tr>'
        for code, status, _, title in openapi.error_catalogue()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Fillwright API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>Fillwright {__version__}</h1>"
        '<p>The same as a machine reads it: <a href="/openapi.json">/openapi.json</a>, and the streams:'
        ' <a href="/asyncapi.json">/asyncapi.json</a>. Every refusal is'
        ' <code>application/problem+json</code> with a <code>code</code> from the <a href="#errors">list below</a>.</p>'
        f"<h2>Endpoints</h2>{endpoints}<h2>Shapes</h2>{shapes}"
        '<h2 id="errors">Error codes</h2><table><tr><th>code</th><th>status</th><th>meaning</th></tr>'
        f"{errors}</table></html>"
    )


def _operation(method: str, path: str, operation: Json, document: Json) -> str:
    parts = "".join(_parts(method, path, operation, document))
    summary = f"<b>{method}</b><code>{escape(path)}</code><span>{escape(operation['summary'])}</span>"
    return f'<details id="{escape(operation["operationId"])}"><summary>{summary}</summary><div>{parts}</div></details>'


def _parts(method: str, path: str, operation: Json, document: Json) -> Iterator[str]:
    if parameters := operation["parameters"]:
        rows = "".join(
            f"<tr><td><code>{escape(each['name'])}</code></td><td>{each['in']}</td>"
            f"<td>{escape(each.get('description', ''))}</td></tr>"
            for each in parameters
        )
        yield f"<table><tr><th>parameter</th><th>in</th><th>meaning</th></tr>{rows}</table>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    yield f"<p>For example</p><pre>{escape(_curl(method, path, body['example'] if body else None))}</pre>"
    if body:
        yield f"<p>The body is {_link(body['schema'], document)}.</p>"
    rows = "".join(
        f"<tr><td>{status}</td><td>{escape(answer['description'])}</td><td>{_shapes(answer, document)}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
        if "description" in answer
    )
    refusals = ", ".join(status for status, answer in sorted(operation["responses"].items()) if "$ref" in answer)
    yield f"<table><tr><th>answer</th><th>meaning</th><th>shape</th></tr>{rows}</table><p>Refusals: {refusals}</p>"


def _curl(method: str, path: str, example: Json | None) -> str:
    """Return a command that asks for it; what takes a WebSocket only has its address."""
    address = MORE.get(f"{method} {path}")
    if address is not None:
        return address
    target = path.replace("{orderId}", "ord_01M82APHRDYJXS45D7A234R3HK").replace("{webhookId}", "wh_4x2P")
    command = f"curl -X {method} http://localhost:3000{target}"
    if example is not None:
        json = msgspec.json.encode(example).decode()
        command += f" \\\n  -H 'Content-Type: application/json' \\\n  -d '{json}'"
    return command


def _shapes(answer: Json, document: Json) -> str:
    return ", ".join(
        _link(content["schema"], document) if "$ref" in content["schema"] else f"<code>{escape(media_type)}</code>"
        for media_type, content in answer.get("content", {}).items()
    )


def _link(schema: Json, document: Json) -> str:
    name = schema["$ref"].rpartition("/")[2]
    assert name in document["components"]["schemas"]
    return f'<a href="#{escape(name)}">{escape(name)}</a>'


def _pre(schema: Json) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(schema), indent=2).decode())}</pre>"
