"""The dashboard: static files that ask the public endpoints, as any client does.

There is no build step and nothing from elsewhere: what is in this folder is what the browser gets. The policy allows no
script and no style but these files, so that no text from an order or a venue can become one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from fillwright.core.errors import NotFound

PAGE: Final = "index.html"
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # Kept, but asked for every time: after an upgrade no browser runs the old page against the new engine.
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    media_type: str
    etag: str


@cache
def files() -> dict[str, File]:
    """Return the files by name."""
    found = {}
    for entry in resources.files(__package__).iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in MEDIA_TYPES:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[entry.name] = File(body, MEDIA_TYPES[suffix], etag)
    return found


async def file(request: Request) -> Response:
    """Answer with the file that the path names; with the page, where it names none. Raise NotFound."""
    name = request.path_params.get("file", PAGE)
    found = files().get(name)
    if found is None:
        raise NotFound(f"the dashboard has no file {name[:64]!r}")
    headers = {**HEADERS, "etag": found.etag, "vary": "accept"}
    if found.etag in (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type=found.media_type)


def prefers_page(accept: str) -> bool:
    """Return whether a client would rather have HTML than JSON, by its Accept header. Without a preference: JSON."""
    return _quality(accept, "text", "html") > _quality(accept, "application", "json")


def _quality(accept: str, kind: str, subkind: str) -> float:
    """Return how much a media type is wanted: what names it most exactly decides."""
    found = {"*/*": 0.0}
    for part in accept.lower().split(","):
        name, *parameters = (text.strip() for text in part.split(";"))
        weights = [text.partition("=")[2] for text in parameters if text.startswith("q=")]
        try:
            found[name] = float(weights[0]) if weights else 1.0
        except ValueError:
            found[name] = 0.0
    names = (f"{kind}/{subkind}", f"{kind}/*", "*/*")
    return next(found[name] for name in names if name in found)
