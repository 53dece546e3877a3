"""Followers whose connections are cut, a Redis that comes and goes or stands still, and clients that never read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp

from tests.campaign.cluster import Engine
from tests.campaign.site import Site, a_site
from tests.proof.report import Report
from tests.proof.verdict import STATUS, Told, Witness, judge

ORDER: Final = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1", "slippage": "0.05"}
TERMINAL: Final = frozenset({"confirmed", "failed", "cancelled", "expired"})
UNANSWERED: Final = (aiohttp.ClientError, TimeoutError, ConnectionError)
ORDERS_A_SECOND: Final = 40
FOLLOWED_AT_ONCE: Final = 200
MEMORY_MIB: Final = 64
LATE_S: Final = 2.0
READS_NOTHING_BYTES: Final = 2_048


class Cuts:
    """How often connections are still to be cut."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.made = 0

    def take(self, chance: Random) -> int | None:
        """Return after how many messages to cut, None: not at all."""
        if self.left <= 0 or chance.random() < 0.5:
            return None
        self.left -= 1
        self.made += 1
        return chance.randrange(1, 5)


async def run_streams(orders: int, cuts: int, restarts: int, silent: int, seed: int) -> Report:
    """Follow `orders` over WebSocket and SSE, with cuts and restarts of Redis; then see what a standing Redis costs."""
    report = Report("streams", "postgres", seed)
    async with a_site("postgres", seed) as site:
        witnesses: list[Witness] = []
        left = Cuts(cuts)
        everything = [asyncio.create_task(_hear_all(site, api)) for api in site.cluster.apis]
        await asyncio.sleep(1)  # until both hear: what is told before is not for them
        restarting = asyncio.create_task(_restart_redis(site, restarts, orders / ORDERS_A_SECOND))
        places = asyncio.Semaphore(FOLLOWED_AT_ONCE)

        async def follow(number: int) -> None:
            async with places:
                await _submit_and_follow(site, number, left, witnesses, seed)

        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
            for number in range(orders):
                group.create_task(follow(number))
                await asyncio.sleep(1 / ORDERS_A_SECOND)
        await restarting
        await asyncio.sleep(6)  # as long as news of all orders may be late
        heard = []
        for task in everything:
            task.cancel()
            heard.append(await task)
        late_s = await _standing_redis(site)
        memory = await _silent_clients(site, silent, report)
        logs = await site.logs()
        report.take(judge(logs, await site.swaps(), witnesses))
        followed = {witness.answered[0] for witness in witnesses}
        for api, told in zip(site.cluster.apis, heard, strict=True):
            turns: dict[str, int] = {}
            for order_id, seq in told:  # in the order in which each was told first
                if seq < turns.get(order_id, 0):
                    report.failures.append(f"{api.name} told event {seq} of {order_id} after {turns[order_id]}")
                turns[order_id] = seq
            true = {
                (order_id, record.seq): STATUS[type(record.event).__name__]
                for order_id, log in logs.items()
                if order_id in followed
                for record in log
            }
            missing = [key for key in true if told[key] != 1]
            if missing:
                report.gaps += len(missing)
                report.failures.append(f"{api.name} told {len(missing)} of {len(true)} events not once: {missing[:3]}")
        if late_s > LATE_S:
            report.failures.append(f"with Redis standing still, news was {late_s:.1f} s late")
        report.faults = left.made + restarts + 1 + silent
        report.more = {
            "cuts": left.made,
            "redis_restarts": restarts,
            "late_s_while_redis_stands": round(late_s, 2),
            "silent_clients": silent,
            "memory_mib_for_silent_clients": memory,
        }
        if not report.passed:
            site.show_logs()
    return report


async def _submit_and_follow(site: Site, number: int, cuts: Cuts, witnesses: list[Witness], seed: int) -> None:
    chance = Random(f"{seed}/{number}")
    witness = Witness(f"key-{number}")
    headers = {"Idempotency-Key": witness.key}
    while not witness.answered:
        with contextlib.suppress(*UNANSWERED):
            async with site.http.post(
                f"{chance.choice(site.cluster.apis).url}/api/orders/execute", json=ORDER, headers=headers
            ) as response:
                if response.status in (200, 201):
                    witness.answered.append((await response.json())["orderId"])
    witnesses.append(witness)
    told: list[Told] = []
    listen = _websocket if number % 2 else _server_sent_events
    while not told or told[-1].status not in TERMINAL:
        api, cut = chance.choice(site.cluster.apis), cuts.take(chance)
        with contextlib.suppress(*UNANSWERED):
            async with asyncio.timeout(30):
                async for update in listen(site.http, api, witness.answered[0], told[-1].seq if told else 0, cut):
                    told.append(update)  # noqa: PERF401 - what was told before a cut counts
    witness.followed.append(told)


async def _websocket(
    http: aiohttp.ClientSession, api: Engine, order_id: str, after: int, cut: int | None
) -> AsyncIterator[Told]:
    async with http.ws_connect(f"{api.url}/api/orders/{order_id}/stream?after={after}") as stream:
        async for message in stream:
            update = json.loads(message.data)
            if update["event"] == "order:update":
                yield _told(update)
                if cut is not None and (cut := cut - 1) == 0:
                    _reset(stream)
                    return


async def _server_sent_events(
    http: aiohttp.ClientSession, api: Engine, order_id: str, after: int, cut: int | None
) -> AsyncIterator[Told]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    async with http.get(f"{api.url}/api/orders/{order_id}/stream", headers=headers) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                yield _told(json.loads(line[6:]))
                if cut is not None and (cut := cut - 1) == 0:
                    if response.connection is not None and response.connection.transport is not None:
                        response.connection.transport.abort()
                    return


def _reset(stream: aiohttp.ClientWebSocketResponse) -> None:
    """Drop a connection without a goodbye."""
    transport = stream.get_extra_info("socket")
    if transport is not None:
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _told(update: dict[str, Any]) -> Told:
    return Told(update["seq"], update["status"], round(datetime.fromisoformat(update["timestamp"]).timestamp() * 1000))


async def _hear_all(site: Site, api: Engine) -> Counter[tuple[str, int]]:
    """Count what the stream of all orders tells, until cancelled."""
    told: Counter[tuple[str, int]] = Counter()
    with contextlib.suppress(asyncio.CancelledError):
        async with site.http.ws_connect(f"{api.url}/api/stream") as stream:
            async for message in stream:
                update = json.loads(message.data)
                if update["event"] == "order:update":
                    told[update["orderId"], update["seq"]] += 1
    return told


async def _restart_redis(site: Site, restarts: int, within_s: float) -> None:
    assert site.redis is not None
    for _ in range(restarts):
        await asyncio.sleep(max(0.1, within_s / restarts - 0.3))
        await asyncio.to_thread(site.redis.kill)
        await asyncio.to_thread(site.redis.start)


async def _standing_redis(site: Site) -> float:
    """Return how late an API heard at most of what the others did while Redis stood still."""
    assert site.redis is not None
    site.redis.pause()
    late: list[float] = []
    try:
        first, second = site.cluster.apis

        async def follow() -> None:
            async with site.http.post(f"{first.url}/api/orders/execute", json=ORDER) as response:
                order_id = (await response.json())["orderId"]
            async with site.http.ws_connect(f"{second.url}/api/orders/{order_id}/stream") as stream:
                async for message in stream:
                    update = json.loads(message.data)
                    if update["event"] == "order:update":
                        late.append(time.time() - datetime.fromisoformat(update["timestamp"]).timestamp())

        await asyncio.gather(*(follow() for _ in range(20)))
    finally:
        site.redis.resume()
    return max(late)


async def _silent_clients(site: Site, count: int, report: Report) -> int:
    """Let clients that never read open streams, make news, and return what the API's memory grew by, in MiB."""
    api = site.cluster.apis[0]
    before = _memory_mib(api.pid)
    silent = [await _open_silently(api.port) for _ in range(count)]
    most = before
    waits = []
    for _ in range(40):
        ids = []
        for _ in range(25):
            async with site.http.post(f"{api.url}/api/orders/execute", json=ORDER) as response:
                ids.append((await response.json())["orderId"])
        began = time.monotonic()
        async with site.http.ws_connect(f"{api.url}/api/orders/{ids[0]}/stream") as stream:
            await stream.receive()
        waits.append(time.monotonic() - began)
        most = max(most, _memory_mib(api.pid))
    await site.all_over()
    async with asyncio.timeout(60):
        while await _streams(site, api) > 0:  # each is given up once its backlog is full or it does not drain
            async with site.http.post(f"{api.url}/api/orders/execute", json=ORDER):
                most = max(most, _memory_mib(api.pid))
            await asyncio.sleep(0.02)
    for one in silent:
        one.close()
    if most - before > MEMORY_MIB:
        report.failures.append(f"{count} clients that never read cost {most - before} MiB")
    if max(waits) > 2:
        report.failures.append(f"beside clients that never read, others waited {max(waits):.1f} s")
    return most - before


async def _open_silently(port: int) -> socket.socket:
    """Open the stream of all orders with a small buffer, and never read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READS_NOTHING_BYTES)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    head = [
        "GET /api/stream HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    await loop.sock_sendall(raw, "\r\n".join([*head, "", ""]).encode())
    return raw


async def _streams(site: Site, api: Engine) -> int:
    async with site.http.get(f"{api.url}/api/orders/stats") as response:
        return int((await response.json())["websocket"]["connections"])


def _memory_mib(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 // 2**20
