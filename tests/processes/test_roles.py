"""Processes with different parts in one engine: what each does, and how they hear of each other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fillwright.backends.schema import read_scripts
from tests import servers
from tests.cli.terminal import Terminal
from tests.process import EngineProcess, a_process, in_real_time
from tests.world import SWAP, Json

LIFE = ["pending", "routing", "building", "submitted", "confirmed"]


@pytest.fixture
def redis() -> Iterator[servers.RedisServer]:
    with servers.redis() as server:
        yield server


async def submit(api: EngineProcess) -> str:
    async with api.http.post("/api/orders/execute", json=SWAP) as response:
        assert response.status == 201
        return str((await response.json())["orderId"])


async def get(api: EngineProcess, path: str) -> Json:
    async with api.http.get(path) as response:
        body: Json = await response.json()
        return body


async def updates(api: EngineProcess, path: str, count: int) -> list[Json]:
    heard: list[Json] = []
    async with api.http.ws_connect(path) as websocket:
        while len(heard) < count:
            message = await websocket.receive_json()
            if message["event"] == "order:update":
                heard.append(message)
    return heard


def test_an_api_process_takes_orders_that_a_worker_process_executes(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    settings = {"database_url": postgres_url, "redis_url": redis_url, "fillwright_sim_speed": 0.1}

    async def work() -> None:
        async with a_process(tmp_path, "serve", "--api-only", **settings) as api:
            order_id = await submit(api)
            assert (await get(api, "/api/orders/stats"))["queue"]["waiting"] == 1
            async with a_process(tmp_path, "worker", **settings):
                heard = await updates(api, f"/api/orders/{order_id}/stream", 5)
                assert [(u["seq"], u["status"]) for u in heard] == list(enumerate(LIFE, 1))
                everything = asyncio.create_task(updates(api, "/api/stream", 10))
                while (await get(api, "/api/orders/stats"))["websocket"]["connections"] == 0:
                    await asyncio.sleep(0.01)
                ids = {await submit(api) for _ in range(2)}
                news = await everything
                assert {(u["orderId"], u["seq"]) for u in news} == {(i, seq) for i in ids for seq in range(1, 6)}

    in_real_time(work())


def test_with_redis_gone_or_stopped_news_still_comes_within_two_seconds_and_health_says_so(
    tmp_path: Path, postgres_url: str, redis: servers.RedisServer
) -> None:
    settings = {"database_url": postgres_url, "redis_url": redis.url, "fillwright_sim_speed": 0}

    async def timely(api: EngineProcess) -> None:
        """An order is seen through on its own stream and on that of all orders, no update later than 2 s."""
        everything = asyncio.create_task(updates(api, "/api/stream", 5))
        while (await get(api, "/api/orders/stats"))["websocket"]["connections"] == 0:
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        order_id = await submit(api)
        own = await updates(api, f"/api/orders/{order_id}/stream", 5)
        assert [u["status"] for u in own] == LIFE
        assert loop.time() - begun < 2 + 2, "taken by the worker within 2 s, told within 2 s"
        assert [(u["orderId"], u["seq"]) for u in await everything] == [(order_id, seq) for seq in range(1, 6)]
        assert loop.time() - begun < 2 + 2

    async def health(api: EngineProcess, status: str) -> None:
        while (body := await get(api, "/health"))["status"] != status:
            await asyncio.sleep(0.05)
        if status == "degraded":
            assert body["code"] == "redis_unavailable"

    async def work() -> None:
        async with (
            a_process(tmp_path, "serve", "--api-only", **settings) as api,
            a_process(tmp_path, "worker", **settings),
        ):
            await health(api, "ok")
            await timely(api)
            redis.pause()
            await timely(api)  # also before anybody has noticed
            await health(api, "degraded")
            await timely(api)
            redis.resume()
            await health(api, "ok")
            await asyncio.to_thread(redis.kill)
            await health(api, "degraded")
            await timely(api)
            await asyncio.to_thread(redis.start)
            await health(api, "ok")
            await timely(api)

    in_real_time(work())


def test_orders_of_a_killed_worker_go_on_within_six_seconds(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    settings: dict[str, Any] = {
        "database_url": postgres_url,
        "redis_url": redis_url,
        "fillwright_sim_quote_delay_ms": 0,
        "fillwright_sim_execution_min_ms": 300,
        "fillwright_sim_execution_max_ms": 400,
    }

    async def work() -> None:
        async with a_process(tmp_path, "serve", "--api-only", **settings) as api:
            async with a_process(tmp_path, "worker", **settings) as worker:
                ids = [await submit(api) for _ in range(10)]
                while (await get(api, "/api/orders/stats"))["queue"]["active"] < 10:
                    await asyncio.sleep(0.001)
                await worker.kill()
            loop = asyncio.get_running_loop()
            killed = loop.time()
            async with a_process(tmp_path, "worker", **settings):
                assert {await api.outcome(order_id) for order_id in ids} == {"confirmed"}
                assert loop.time() - killed < 6

    in_real_time(work())


def test_all_runs_several_processes_on_one_port_and_starts_anew_what_dies(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    settings = {"database_url": postgres_url, "redis_url": redis_url, "fillwright_sim_speed": 0.1}

    async def work() -> None:
        async with a_process(tmp_path, "all", "--apis", "2", "--workers", "2", **settings) as all_of_them:
            parent = all_of_them.process.pid
            order_id = await submit_to_any(all_of_them)
            first = children(parent)
            assert len(first) == 4
            for pid in first:
                os.kill(pid, signal.SIGKILL)
            while len(set(children(parent)) - set(first)) < 4:
                await asyncio.sleep(0.05)
            assert await all_of_them.outcome(order_id) == "confirmed"
            assert await all_of_them.outcome(await submit_to_any(all_of_them)) == "confirmed"
            last = children(parent)
            assert await all_of_them.stop() == 0
            assert not [pid for pid in last if Path(f"/proc/{pid}").exists()]

    in_real_time(work())


async def submit_to_any(processes: EngineProcess) -> str:
    """Submit over a new connection, which may wait for a process that is just starting."""
    async with (
        aiohttp.ClientSession(processes.http._base_url) as http,
        http.post("/api/orders/execute", json=SWAP) as answer,
    ):
        return str((await answer.json())["orderId"])


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_processes_share_a_port_only_if_each_says_so(tmp_path: Path, postgres_url: str) -> None:
    settings = {"database_url": postgres_url}

    async def work() -> None:
        async with a_process(tmp_path, "serve", "--reuse-port", **settings) as first:
            port = str(first.http._base_url.port) if first.http._base_url else ""
            async with a_process(tmp_path, "serve", "--reuse-port", "--port", port, **settings):
                assert (await get(first, "/health"))["status"] == "ok"
            refused = Terminal(tmp_path, DATABASE_URL=postgres_url).run(f"serve --port {port}")
            assert refused.code == 1
            assert f"port {port} is already in use" in refused.err

    in_real_time(work())


def test_migrate_says_what_it_did_and_check_only_looks(tmp_path: Path, postgres_url: str) -> None:
    terminal = Terminal(tmp_path, DATABASE_URL=postgres_url)
    looked = terminal.run("migrate --check")
    assert (looked.code, looked.out) == (1, "")
    newest = len(read_scripts("postgres"))
    assert f"the database has schema 0, this version needs {newest}: run fillwright migrate" in looked.err
    assert terminal.run("migrate").out == f"The schema was brought from version 0 to {newest}.\n"
    assert terminal.run("migrate").out == f"The schema is up to date: version {newest}.\n"
    assert terminal.run("migrate --check").code == 0


def test_a_password_is_shown_nowhere(tmp_path: Path, postgres_url: str) -> None:
    secret = "s3cret"
    url = postgres_url.replace("postgres@", f"postgres:{secret}@")
    with Terminal(tmp_path, DATABASE_URL=url, LOG_LEVEL="debug").start("worker") as worker:
        started = json.loads(worker.err.until("worker.started"))
        ended = worker.end(signal.SIGTERM)
    assert started["database"].endswith(url.rpartition("@")[2])
    assert secret not in ended.err + ended.out
    assert ended.code == 0


def test_what_cannot_be_shared_is_not_run_in_parts(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, DATABASE_URL="memory://")
    for ended in terminal.run_all("worker", "serve --api-only", "all"):
        assert ended.code == 2
        assert "several processes need a database that they can share" in ended.err


def test_a_chain_s_record_of_another_folder_is_refused_by_name(tmp_path: Path, postgres_url: str) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    with Terminal(here, DATABASE_URL=postgres_url).start("worker") as worker:
        worker.err.until("worker.started")
        assert Terminal(here, DATABASE_URL=postgres_url).run("reconcile").code == 0
        refused = Terminal(elsewhere, DATABASE_URL=postgres_url).run("worker")
        assert (refused.code, str(elsewhere) in refused.err) == (1, True)
        assert "wrong_chain" in refused.err
        judged = Terminal(elsewhere, DATABASE_URL=postgres_url).run("reconcile")
        assert (judged.code, judged.out) == (1, "")
        assert "wrong_chain" in judged.err
        assert worker.end(signal.SIGTERM).code == 0


def test_a_database_that_cannot_be_had_is_named_without_its_password(tmp_path: Path) -> None:
    for url, reason in (
        ("postgresql://user:s3cret@127.0.0.1:1/orders", "orders at 127.0.0.1:1: the connection was refused"),
        ("postgresql://user:s3/cret@127.0.0.1/orders", "DATABASE_URL cannot be read"),
    ):
        ended = Terminal(tmp_path, DATABASE_URL=url).run("migrate --check")
        assert ended.code == 1
        assert reason in ended.err
        assert "s3" not in ended.err + ended.out
