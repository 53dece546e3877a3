"""The campaign: traders, processes that kill themselves, faults from outside, a drain, and the judge."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

from fillwright.execution.reconcile import reconcile
from tests.campaign.clients import UNANSWERED, Clients
from tests.campaign.cluster import PLACES, Engine
from tests.campaign.engine import FULL_DISK
from tests.campaign.guards import Guards, judge_sums, set_up
from tests.campaign.site import LEASE_MS, Site, a_site
from tests.proof.report import Report
from tests.proof.verdict import judge

DRAIN_S_MAX: Final = 60
IN_HAND_MAX: Final = 600  # orders of clients at the same time: some are followed for long, where a clock has jumped
SECONDS_PER_FAULT: Final = 0.55
SPANS_MAX: Final = 3  # how much longer than planned it may take on a busy machine
LONG_FORM: Final = 500  # faults, from which on every place must have been died at so often:
HITS_IN_THE_LONG_FORM: Final = 10
Fault = Callable[[], Awaitable[None]]


class Campaign:
    """`faults` is how many there should be at least, those that the processes make themselves included."""

    def __init__(self, store: str, orders: int, faults: int, seed: int, planted: str = "") -> None:
        self.report = Report("kill", store, seed)
        self._store = store
        self._orders = orders
        self._faults = faults
        self._seed = seed
        self._planted = planted
        self._chance = Random(f"{seed}/campaign")
        self._frozen = 0
        self._submitted = 0
        self._span_s = faults * SECONDS_PER_FAULT

    async def run(self) -> Report:
        async with a_site(self._store, self._seed, planted=self._planted, dooms=True) as site:
            guards = await set_up(site.reader, self._orders)
            await asyncio.gather(*(_asks_for_a_key(site, api) for api in site.cluster.apis))
            clients = Clients(site.cluster, site.http, guards, self._seed)
            trading = asyncio.create_task(self._trade(clients))
            await self._make_faults(site)
            await self._drain(site, trading)
            codes = await site.cluster.stop()
            if any(codes):
                self.report.failures.append(f"asked to stop, the processes ended with {codes}")
            await self._judge(site, clients, guards)
            if not self.report.passed:
                site.show_logs()
        return self.report

    async def _trade(self, clients: Clients) -> None:
        """Spread the orders over the time of the faults."""
        places = asyncio.Semaphore(IN_HAND_MAX)
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def trade(number: int) -> None:
            try:
                await clients.trade(number)
            finally:
                places.release()

        async with asyncio.TaskGroup() as group:
            for number in range(self._orders):
                await places.acquire()
                due = began + self._span_s * number / self._orders
                await asyncio.sleep(max(0.0, due - loop.time()))
                self._submitted += 1
                group.create_task(trade(number))

    async def _make_faults(self, site: Site) -> None:
        cluster, chain, postgres, redis = site.cluster, site.chain, site.postgres, site.redis
        freezing: set[asyncio.Task[None]] = set()

        def kill() -> None:
            self._chance.choice(cluster.engines).send(signal.SIGKILL)

        def stop() -> None:
            """Ask one to stop: one that will die while it gives its orders back, if there is one."""
            doomed = [engine for engine in cluster.engines if engine.place.endswith("release")]
            self._chance.choice(doomed or cluster.engines).send(signal.SIGTERM)

        def jump() -> None:
            self._chance.choice(cluster.engines).set_clock(self._chance.randrange(-30_000, 30_000))

        async def freeze() -> None:
            engine = self._chance.choice(cluster.workers)
            task = asyncio.create_task(self._freeze(engine, site))
            freezing.add(task)
            task.add_done_callback(freezing.discard)

        async def crash_postgres() -> None:
            assert postgres is not None
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)

        async def crash_redis() -> None:
            assert redis is not None
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(self._chance.uniform(0, 1))
            await asyncio.to_thread(redis.start)

        async def empty_redis() -> None:
            assert redis is not None
            await asyncio.to_thread(_flush, redis.url)

        async def pause_redis() -> None:
            assert redis is not None
            redis.pause()
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))
            redis.resume()

        kinds: dict[str, tuple[int, Callable[[], Any]]] = {
            "frozen": (30, freeze),
            "killed": (8, kill),
            "stopped": (14, stop),
            "clock jump": (8, jump),
            "chain dark": (4, lambda: chain.ask("dark", self._chance.uniform(0.3, 2.5))),
        }
        if postgres is not None:
            kinds |= {
                "PostgreSQL crashed": (4, crash_postgres),
                "Redis crashed": (3, crash_redis),
                "Redis emptied": (4, empty_redis),
                "Redis paused": (3, pause_redis),
            }
        else:
            kinds["disk full"] = (8, lambda: self._chance.choice(cluster.engines).send(FULL_DISK))
        loop = asyncio.get_running_loop()
        began = loop.time()
        weights = [weight for weight, _ in kinds.values()]
        while self._submitted < self._orders and loop.time() - began < SPANS_MAX * self._span_s:
            (name,) = self._chance.choices(list(kinds), weights)
            made = kinds[name][1]()
            if asyncio.iscoroutine(made):
                await made
            cluster.faults[name] += 1
            await asyncio.sleep(self._chance.uniform(0.4, 1.4))
        await asyncio.gather(*freezing)

    async def _freeze(self, engine: Engine, site: Site) -> None:
        """Freeze a worker for longer than its lease, then let it go on with what it had in hand."""
        pid = engine.pid
        engine.send(signal.SIGSTOP)
        try:
            with contextlib.suppress(Exception):  # the database may be down
                self._frozen += await site.holds_orders(pid)
            await asyncio.sleep(LEASE_MS / 1000 * self._chance.uniform(1.2, 2.5))
        finally:
            if engine.pid == pid:
                engine.send(signal.SIGCONT)

    async def _drain(self, site: Site, trading: asyncio.Task[None]) -> None:
        """Let everything be well, and wait until every order is over."""
        cluster = site.cluster
        cluster.dooms = False
        for engine in cluster.engines:
            engine.set_clock(0)
            engine.send(signal.SIGCONT)
            engine.send(signal.SIGKILL)
            cluster.faults["killed"] += 1
        await site.chain.ask("calm")
        began = time.monotonic()
        try:
            async with asyncio.timeout(DRAIN_S_MAX + 30):
                await trading
                await site.all_over()
        except TimeoutError:
            self.report.failures.append("not drained")
            await site.show_open()
            trading.cancel()
        self.report.drain_s = round(time.monotonic() - began, 1)
        if self.report.drain_s > DRAIN_S_MAX:
            self.report.failures.append(f"drained only after {self.report.drain_s} s")

    async def _judge(self, site: Site, clients: Clients, guards: Guards) -> None:
        report, cluster = self.report, site.cluster
        cluster.count_hits()
        logs = await site.logs()
        verdict = judge(logs, await site.swaps(), clients.witnesses)
        report.take(verdict)
        report.failures += clients.strange[:20]
        report.failures += await judge_sums(guards, site.reader, logs)
        if not clients.denied:
            report.failures.append("nobody was over a limit")
        report.faults = cluster.faults.total() + cluster.hits.total()
        if report.faults < self._faults:
            report.failures.append(f"only {report.faults} faults")
        wanted = HITS_IN_THE_LONG_FORM if self._faults >= LONG_FORM else 0
        report.failures += [f"died only {cluster.hits[x]} times {x}" for x in PLACES if cluster.hits[x] < wanted]
        if verdict.clean and (found := (await reconcile(site.reader, site.chain)).findings):
            report.failures.append(f"reconcile does not agree: {found[:3]}")
        report.more = {
            "confirmed": verdict.confirmed,
            "failed": verdict.failed,
            "cancelled": verdict.cancelled,
            "expired": verdict.expired,
            "attempts": sum(sum(type(e.event).__name__ == "RoutingStarted" for e in log) for log in logs.values()),
            "followed": sum(len(witness.followed) for witness in clients.witnesses),
            "over_the_limit": clients.denied,
            "frozen_with_orders": self._frozen,
            "starts": sum(engine.starts for engine in cluster.engines),
            "answers": {str(status): count for status, count in sorted(clients.answers.items())},
            "faults": dict(cluster.faults.most_common()),
            "places": {place: cluster.hits[place] for place in PLACES},
        }


async def _asks_for_a_key(site: Site, api: Engine) -> None:
    """Return once a process lets nobody in without a key: what it took before would be the local account's."""
    while True:
        with contextlib.suppress(*UNANSWERED):
            async with site.http.get(f"{api.url}/api/mode") as response:
                if response.status == 401:
                    return
        await asyncio.sleep(0.05)


def _flush(url: str) -> None:
    import redis

    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url, socket_timeout=2) as client:
        client.flushall()


async def run(store: str, orders: int, faults: int, seed: int, planted: str = "") -> Report:
    return await Campaign(store, orders, faults, seed, planted).run()
