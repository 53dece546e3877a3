"""Bursts over the bound, stops in the middle of work, and twenty who ask at once under one key."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter, defaultdict
from typing import Any, Final

import aiohttp

from tests.campaign.site import Site, a_site
from tests.pressure.streams import ORDER, UNANSWERED
from tests.proof.report import Report
from tests.proof.verdict import judge

REFUSALS: Final = frozenset({429, 503})
POSTS_AT_ONCE: Final = 200
STOP_S: Final = 10.0


async def run_burst(store: str, orders: int, capacity: int, seed: int) -> Report:
    """Post far more than the queue may hold, as fast as it goes."""
    report = Report("burst", store, seed)
    async with a_site(store, seed, queue_capacity=capacity) as site:
        accepted: set[str] = set()
        answers: Counter[int] = Counter()
        places = asyncio.Semaphore(POSTS_AT_ONCE)

        async def post(number: int) -> None:
            api = site.cluster.apis[number % 2]
            async with places, site.http.post(f"{api.url}/api/orders/execute", json=ORDER) as response:
                body = await response.json()
                answers[response.status] += 1
                if response.status == 201:
                    accepted.add(body["orderId"])
                elif response.status not in REFUSALS or "Retry-After" not in response.headers or not body.get("code"):
                    report.failures.append(f"refused with {response.status} {body}")

        await asyncio.gather(*(post(number) for number in range(orders)))
        most = await site.open_orders()
        await site.all_over()
        logs = await site.logs()
        report.take(judge(logs, await site.swaps()))
        if set(logs) != accepted:
            left, missing = len(set(logs) - accepted), len(accepted - set(logs))
            report.lost += missing
            report.failures.append(f"{left} refused orders left rows, {missing} accepted ones did not")
        if not answers.keys() & REFUSALS:
            report.failures.append("nothing was refused: there was no overload")
        report.more = {
            "posts": orders,
            "capacity": capacity,
            "open_after_the_burst": most,
            "answers": {str(status): count for status, count in sorted(answers.items())},
        }
        if not report.passed:
            site.show_logs()
    return report


async def run_stops(store: str, stops: int, seed: int) -> Report:
    """Ask one process after another to stop while it works; each ends by itself, and nothing is lost."""
    report = Report("stops", store, seed)
    async with a_site(store, seed) as site:
        accepted: dict[str, str] = {}
        stopping = asyncio.Event()

        async def trade(number: int) -> None:
            turn = 0
            while not stopping.is_set():
                turn += 1
                key = f"key-{number}-{turn}"
                while key not in accepted:
                    turn += 1
                    api = site.cluster.apis[(number + turn) % 2]
                    with contextlib.suppress(*UNANSWERED):
                        headers = {"Idempotency-Key": key}
                        async with site.http.post(
                            f"{api.url}/api/orders/execute", json=ORDER, headers=headers
                        ) as response:
                            if response.status in (200, 201):
                                accepted[key] = (await response.json())["orderId"]
                            elif response.status not in REFUSALS:
                                report.failures.append(f"{response.status} {await response.text()}")
                                return
                    await asyncio.sleep(0.02)

        trading = [asyncio.create_task(trade(number)) for number in range(10)]
        slowest = 0.0
        loop = asyncio.get_running_loop()
        for number in range(stops):
            engine = site.cluster.engines[number % len(site.cluster.engines)]
            before, began = engine.starts, loop.time()
            engine.send(signal.SIGTERM)
            async with asyncio.timeout(30):
                while engine.starts == before:
                    await asyncio.sleep(0.005)
            slowest = max(slowest, loop.time() - began)
            await asyncio.sleep(0.3)
        stopping.set()
        await asyncio.gather(*trading)
        await site.all_over()
        logs = await site.logs()
        report.take(judge(logs, await site.swaps()))
        report.faults = stops
        bad = [code for code in site.cluster.exits if code != 0]
        if bad:
            report.failures.append(f"asked to stop, {len(bad)} of {stops} ended with {sorted(set(bad))}")
        if slowest > STOP_S:
            report.failures.append(f"a stop took {slowest:.1f} s")
        lost = set(accepted.values()) - set(logs)
        report.lost += len(lost)
        report.more = {"stops": stops, "slowest_s": round(slowest, 2), "accepted": len(accepted)}
        if not report.passed:
            site.show_logs()
    return report


async def run_keys(store: str, keys: int, at_once: int, seed: int) -> Report:
    """Post each key many times at once, at two processes: one order, and one 201."""
    report = Report("keys", store, seed)
    async with a_site(store, seed) as site:
        answers: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        places = asyncio.Semaphore(POSTS_AT_ONCE)

        async def post(key: str, number: int) -> None:
            headers = {"Idempotency-Key": key}
            while True:
                api = site.cluster.apis[number % 2]
                async with places, _asked(site, f"{api.url}/api/orders/execute", headers, ORDER) as (status, body):
                    if status not in REFUSALS:
                        answers[key].append((status, body.get("orderId", body.get("code"))))
                        return
                await asyncio.sleep(0.05)

        for first in range(0, keys, 20):
            some = [f"key-{number}" for number in range(first, min(keys, first + 20))]
            await asyncio.gather(*(post(key, number) for key in some for number in range(at_once)))
        others = 0
        for key in list(answers)[:50]:
            other = {**ORDER, "amount": "2"}
            async with _asked(
                site, f"{site.cluster.apis[0].url}/api/orders/execute", {"Idempotency-Key": key}, other
            ) as (status, body):
                others += 1
                if (status, body.get("code")) != (422, "idempotency_mismatch"):
                    report.failures.append(f"another order under {key} was answered with {status} {body}")
        for key, given in answers.items():
            statuses = Counter(status for status, _ in given)
            if statuses != Counter({201: 1, 200: at_once - 1}) or len({order_id for _, order_id in given}) != 1:
                report.doubled += 1
                report.failures.append(f"{key} was answered with {given[:5]}")
        await site.all_over()
        logs = await site.logs()
        report.take(judge(logs, await site.swaps()))
        if len(logs) != keys:
            report.failures.append(f"{len(logs)} orders for {keys} keys")
        report.more = {"keys": keys, "posts": keys * at_once, "others": others}
    return report


@contextlib.asynccontextmanager
async def _asked(site: Site, url: str, headers: dict[str, str], order: dict[str, Any]) -> Any:
    async with site.http.post(url, json=order, headers=headers) as response:
        assert isinstance(response, aiohttp.ClientResponse)
        yield response.status, await response.json()
