"""The Postman collection names every endpoint, and passes against a running engine, again and again."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from fillwright.api.openapi import operations
from tests.node.packages import installed
from tests.process import an_engine, environment, in_real_time

Json = dict[str, Any]

HERE: Final = Path(__file__).parent
COLLECTION: Final = HERE.parents[1] / "postman" / "collection.json"
# Quotes take long enough for an order to be cancelled before it is signed, on a slow machine too.
SETTINGS: Final = {
    "fillwright_sim_quote_delay_ms": 1_000,
    "fillwright_sim_execution_min_ms": 10,
    "fillwright_sim_execution_max_ms": 20,
    "fillwright_poll_ms": 50,
}
SECRET: Final = {"fillwright_webhook_secret": "0123456789abcdef" * 4}
# Requests for what is not there, on purpose.
BESIDE: Final = {("/api/nothing", "GET"), ("/api/orders/execute", "PATCH")}


def requests() -> Iterator[Json]:
    for folder in json.loads(COLLECTION.read_text())["item"]:
        yield from folder["item"]


def operation(item: Json) -> tuple[str, str]:
    """Return path and method of a request, with the path as the table of endpoints writes it."""
    path = "/" + "/".join(item["request"]["url"]["path"])
    path = re.sub(r"(?<=/api/orders/)\{\{\w+\}\}", "{orderId}", path)
    path = re.sub(r"(?<=/api/keys/)[^/]+", "{keyId}", path)
    return re.sub(r"(?<=/api/webhooks/)[^/]+", "{webhookId}", path), item["request"]["method"]


def test_every_endpoint_is_in_the_collection_and_no_other() -> None:
    assert {operation(item) for item in requests()} == set(operations()) | BESIDE


def test_every_request_has_a_name_of_its_own_and_a_test() -> None:
    names = [item["name"] for item in requests()]
    assert len(set(names)) == len(names)
    tested = {item["name"] for item in requests() for event in item["event"] if "pm.test(" in str(event)}
    assert tested == set(names)


async def passed(url: str, folder: Path, api_key: str = "") -> dict[str, int]:
    """Run the collection, and return the status that each request was answered with. Fail with what newman says."""
    newman = await asyncio.to_thread(installed, "newman", [HERE / "package.json"])
    report = folder / "newman.json"
    process = await asyncio.create_subprocess_exec(
        *(newman / "node_modules/.bin/newman", "run", COLLECTION),
        *("--env-var", f"baseUrl={url}", "--env-var", f"apiKey={api_key}"),
        *("--reporters", "cli,json", "--reporter-json-export", report, "--color", "off"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    done = json.loads(await asyncio.to_thread(report.read_bytes))["run"]["executions"]
    return {each["item"]["name"]: each["response"]["code"] for each in done}


def test_the_collection_passes_twice_against_the_same_engine(tmp_path: Path) -> None:
    async def passes() -> None:
        async with an_engine(tmp_path, **SETTINGS, **SECRET) as engine:
            url = str(engine.http._base_url).rstrip("/")
            for _ in range(2):
                statuses = await passed(url, tmp_path)
                assert list(statuses) == [item["name"] for item in requests()]
                assert (statuses["Cancel it"], statuses["Add a webhook"]) == (200, 201)

    in_real_time(passes(), within_s=400)  # npm may have to install first


@pytest.mark.parametrize("settings", [{}, SECRET], ids=["webhooks off", "webhooks on"])
def test_the_collection_passes_with_a_key(tmp_path: Path, settings: dict[str, str]) -> None:
    async def passes() -> None:
        async with an_engine(tmp_path, **SETTINGS, **settings) as engine:
            url = str(engine.http._base_url).rstrip("/")
            key = await a_key(tmp_path, scopes="read,trade,admin")
            statuses = await passed(url, tmp_path, key)
            assert (statuses["A key that is none"], statuses["Make a key"]) == (401, 201)
            assert statuses["Add a webhook"] == (201 if settings else 503)

    in_real_time(passes(), within_s=400)


async def a_key(folder: Path, scopes: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", "keys", "create", "postman", "--scopes", scopes),
        cwd=folder,
        env=environment(folder),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().strip()
