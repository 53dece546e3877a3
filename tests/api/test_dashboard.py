"""How the dashboard is served. What it does in a browser: tests/browser."""

from __future__ import annotations

import re

import pytest

from fillwright.api import dashboard
from fillwright.core.tokens import WELL_KNOWN
from tests.world import a_world

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


async def test_every_file_of_the_dashboard_is_served_under_a_policy_that_lets_in_nothing_else() -> None:
    async with a_world() as world:
        for path in ("/dashboard", *(f"/dashboard/{name}" for name in dashboard.files())):
            async with world.http.get(path) as response:
                assert response.status == 200
                policy = dict(
                    part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";")
                )
                assert (policy["default-src"], policy["script-src"], policy["style-src"]) == (
                    "'none'",
                    "'self'",
                    "'self'",
                )
                assert (policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'")
                assert "unsafe" not in response.headers["content-security-policy"]
                assert response.headers["x-content-type-options"] == "nosniff"
                assert response.headers["cache-control"] == "no-cache"


async def test_a_browser_that_has_a_file_is_not_sent_it_again() -> None:
    async with a_world() as world:
        async with world.http.get("/dashboard/app.js") as response:
            tag, body = response.headers["etag"], await response.read()
        assert body
        for known in (tag, f"W/{tag}", f'"other", {tag}'):
            async with world.http.get("/dashboard/app.js", headers={"If-None-Match": known}) as response:
                assert (response.status, await response.read()) == (304, b"")
                assert response.headers["etag"] == tag
        async with world.http.get("/dashboard/app.js", headers={"If-None-Match": '"other"'}) as response:
            assert (response.status, await response.read()) == (200, body)


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/*", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0.5, */*", False),
        ("text/html;q=0, application/json;q=0", False),
        ("text/html;q=nonsense", False),
    ],
)
async def test_the_index_is_the_dashboard_for_those_who_prefer_html_and_json_for_all_others(
    accept: str, is_page: bool
) -> None:
    async with a_world() as world, world.http.get("/", headers={"Accept": accept}) as response:
        assert response.content_type == ("text/html" if is_page else "application/json")
        assert response.headers["vary"] == "accept"


@pytest.mark.parametrize("name", ["none.js", "__init__.py", "..%2fhttp.py", "%2e%2e%2fhttp.py", "app.js%00", ""])
async def test_nothing_else_of_the_package_can_be_had(name: str) -> None:
    async with a_world() as world, world.http.get(f"/dashboard/{name}", allow_redirects=False) as response:
        assert response.status in (404, 307)
        assert b"import" not in await response.read()


def test_the_page_needs_nothing_from_elsewhere_and_every_file_that_is_named_is_there() -> None:
    found = dashboard.files()
    for name, file in found.items():
        text = file.body.decode()
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), name
        for named in re.findall(r'/dashboard/([\w.]+)"|from "\./([\w.]+)"', text):
            assert "".join(named) in found
    page = found["index.html"].body.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_the_form_suggests_every_token_that_is_known_by_symbol() -> None:
    text = dashboard.files()["new.js"].body.decode()
    listed = re.search(r"const TOKENS = \[(.*?)\]", text)
    assert listed is not None
    assert re.findall(r'"(\w+)"', listed[1]) == [token.symbol for token in WELL_KNOWN]
