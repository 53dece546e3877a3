"""A secret is found nowhere but where it was put: not in a log, an event, an error, an answer or a table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg

from fillwright.api.openapi import operations
from tests import servers
from tests.process import environment, in_real_time
from tests.world import SWAP

CANARY: Final = "CanaryThatMustNotSing"
FROM_OUTSIDE: Final = f"{CANARY}FromOutside"


class Everything:
    """All that an engine has said, to anybody."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []

    def hear(self, where: str, what: bytes | str) -> None:
        self.said.append((where, what.encode() if isinstance(what, str) else what))

    def where(self, secret: str) -> list[str]:
        return [where for where, what in self.said if secret.encode() in what]


@contextlib.asynccontextmanager
async def engine(folder: Path, everything: Everything, command: str, **settings: Any) -> Any:
    """Run a part of the engine, and hear all that it writes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", *command.split()),
        cwd=folder,
        env=environment(folder, **settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            everything.hear(f"the log of {command}", line)
            if not ready.done() and (b'"engine.listening"' in line or b'"worker.started"' in line):
                ready.set_result(json.loads(line).get("url", ""))
        if not ready.done():
            ready.set_result("")

    assert process.stdout is not None
    assert process.stderr is not None
    listening = asyncio.gather(listen(process.stdout), listen(process.stderr))
    try:
        yield await ready
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await listening


async def command(folder: Path, everything: Everything, line: str, **settings: Any) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", *line.split()),
        cwd=folder,
        env=environment(folder, **settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if "keys create" not in line and "webhooks add" not in line:  # what those print is the secret
        everything.hear(line, out)
    everything.hear(line, err)
    return out


async def ask_everything(url: str, everything: Everything, key: str) -> str:
    """Ask every endpoint in every way that carries a secret: right, wrong, and where none belongs.

    Return a key that was made on the way.
    """
    mine = {"Authorization": f"Bearer {key}"}
    stranger = {"Authorization": f"Bearer fw_{FROM_OUTSIDE}_{FROM_OUTSIDE}"}
    ways: list[tuple[dict[str, str], str]] = [
        (mine, ""),
        (stranger, ""),
        ({"Authorization": f"Basic {FROM_OUTSIDE}"}, ""),
        ({"Authorization": FROM_OUTSIDE}, ""),
        ({"Cookie": f"key={FROM_OUTSIDE}"}, f"?key={FROM_OUTSIDE}"),
        ({}, f"?ticket={FROM_OUTSIDE}"),
        ({**mine, "Origin": "https://elsewhere.example"}, ""),
    ]
    async with aiohttp.ClientSession(url) as http:
        async with http.post("/api/orders/execute", json=SWAP, headers=mine) as response:
            order_id = (await response.json())["orderId"]
        async with http.post("/api/tickets", headers=mine) as response:
            ticket = (await response.json())["ticket"]
        async with http.ws_connect(f"/api/orders/{order_id}/stream?ticket={ticket}") as websocket:
            async for message in websocket:
                everything.hear("a stream", message.data)
        for _ in range(2):  # a ticket that was used is still nobody's business
            with contextlib.suppress(aiohttp.WSServerHandshakeError):
                await http.ws_connect(f"/api/stream?ticket={ticket}")
        for path, method in operations():
            for headers, query in ways:
                named = {"orderId": order_id, "webhookId": "wh_none", "keyId": f"fw_x_{FROM_OUTSIDE}"}
                target = path.format(**named) + query
                body = {"url": f"https://user:{FROM_OUTSIDE}@example.com/"} if "webhooks" in path else SWAP
                async with http.request(method, target, headers=headers, json=body) as response:
                    everything.hear(f"{method} {path}", repr(response.raw_headers).encode() + await response.read())
        async with http.post("/api/keys", json={"name": "made", "scopes": ["read"]}, headers=mine) as response:
            made = (await response.json())["key"]
        for path in ("/api/keys", "/api/audit"):
            async with http.get(path, headers=mine) as response:
                everything.hear(path, await response.read())
        async with http.get("/api/orders", headers={"Authorization": f"Bearer {made}"}) as response:
            assert response.status == 200
            everything.hear("what the key that was made is told", await response.read())
        everything.hear("the ticket's text", "")
        assert everything.where(ticket) == []
        return str(made)


async def tables(url: str, everything: Everything) -> None:
    connection = await asyncpg.connect(url)
    names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'fillwright'")
    for (name,) in names:
        everything.hear(f"the table {name}", repr(await connection.fetch(f"SELECT * FROM fillwright.{name}")))
    await connection.close()


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user, host = parts.username or "postgres", f"{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))


def test_a_secret_is_found_in_no_log_event_error_answer_or_table(tmp_path: Path) -> None:
    async def sing() -> Everything:
        everything = Everything()
        with servers.postgres() as postgres, servers.redis() as redis:
            database = postgres.new_database()
            port = urlsplit(redis.url).port
            settings = {
                "database_url": with_password(database, f"{CANARY}Database"),
                "redis_url": f"redis://:{CANARY}Redis@127.0.0.1:{port}/0",
                "fillwright_webhook_secret": f"{CANARY}Webhook{'x' * 32}",
                "fillwright_api_key": f"fw_{CANARY}_{CANARY}ApiKey",
                "fillwright_sim_speed": 0.1,
                "fillwright_webhook_private": "on",
                "log_level": "debug",
            }
            await command(tmp_path, everything, "migrate", **settings)
            made = json.loads(
                await command(tmp_path, everything, "keys create canary --scopes read,trade,admin --json", **settings)
            )
            key = made["key"]
            hook = await command(
                tmp_path, everything, f"webhooks add http://127.0.0.1:1/ --key {made['keyId']} --json", **settings
            )
            async with (
                engine(tmp_path, everything, "serve --api-only", **settings) as url,
                engine(tmp_path, everything, "worker", **settings),
            ):
                made_by_key = await ask_everything(url, everything, key)
                for line in (
                    "keys list",
                    "audit list --json",
                    "audit verify",
                    "limits show",
                    "webhooks list",
                    "webhooks dead",
                    "stats",
                ):
                    await command(tmp_path, everything, line, **settings)
                await command(tmp_path, everything, f"keys revoke {key}", **settings)
                await tables(database, everything)
                postgres.kill()
                async with aiohttp.ClientSession(url) as http, http.get("/health") as response:
                    everything.hear("GET /health", await response.read())
            for wrong in (
                {**settings, "database_url": f"postgresql://user:{CANARY}Closed@127.0.0.1:1/orders"},
                {**settings, "database_url": f"postgresql://user:{CANARY}@{CANARY}@:x/orders"},
                {**settings, "database_url": f"oracle://user:{CANARY}Scheme@127.0.0.1/orders"},
                {**settings, "redis_url": f"redis://:{CANARY}@127.0.0.1:x/0", "database_url": "sqlite:///a.db"},
                {**settings, "fillwright_webhook_secret": f"{CANARY}"},
            ):
                await command(tmp_path, everything, "serve --api-only", **wrong)
            everything.hear("the chain's file", b"".join(path.read_bytes() for path in tmp_path.glob("*chain*")))
        assert len(everything.said) > 100
        assert everything.where(made["keyId"]), "what is heard is what there is to hear"
        assert everything.where(key.split("_")[2]) == []
        assert everything.where(made_by_key.split("_")[1])
        assert everything.where(made_by_key.split("_")[2]) == []
        assert everything.where(json.loads(hook)["secret"]) == []
        return everything

    everything = in_real_time(sing(), within_s=120)
    assert everything.where(FROM_OUTSIDE) == []
    assert everything.where(CANARY) == []
