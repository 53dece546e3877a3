"""The BullMQ bridge as its users see it: a Node service adds jobs with the real `bullmq`, and hears their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from redis.asyncio import Redis

from fillwright.api.bullmq import Bridge, BridgeSettings
from fillwright.api.job_queue import JobQueue
from fillwright.app import open_engine
from fillwright.clock import SystemClock
from fillwright.core.errors import StoreUnavailable
from fillwright.core.order import Order
from fillwright.core.ports import Intake, OrderRequest, QuotePreview
from fillwright.core.units import OrderId
from fillwright.settings import Settings
from tests import servers
from tests.api.test_metrics import parsed
from tests.node.producer import Json, Producer, a_producer, installed
from tests.process import EngineProcess, an_engine, environment, free_port, in_real_time, reconciled
from tests.world import SWAP

ROOT: Final = Path(__file__).parents[2]
FAST: Final = {"fillwright_sim_speed": 0.05, "fillwright_poll_ms": 50, "queue_concurrency": 50}
LOCK_MS: Final = 500
STATUSES: Final = ["pending", "routing", "building", "submitted", "confirmed"]


class BridgeProcess:
    """A running `fillwright bullmq`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def a_bridge(folder: Path, redis_url: str, **settings: object) -> AsyncIterator[BridgeProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fillwright", "bullmq"),
        cwd=folder,
        env=environment(folder, **{**FAST, "redis_url": redis_url, "fillwright_bullmq_lock_ms": LOCK_MS, **settings}),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = []
    async for line in process.stderr:
        said.append(line.decode())
        if '"bridge.taking"' in line.decode():
            break
    else:
        raise AssertionError(f"the bridge did not start: {said}")
    draining = asyncio.create_task(process.stderr.read())
    try:
        yield BridgeProcess(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        draining.cancel()


@contextlib.asynccontextmanager
async def an_exchange(
    folder: Path, redis_url: str, **settings: object
) -> AsyncIterator[tuple[EngineProcess, Producer]]:
    """An engine, a bridge and a producer."""
    async with (
        an_engine(folder, **{**FAST, **settings}) as engine,
        a_bridge(folder, redis_url, **settings),
        a_producer(redis_url) as producer,
    ):
        yield engine, producer


async def get(engine: EngineProcess, path: str) -> Json:
    async with engine.http.get(path) as response:
        body: Json = await response.json()
        return body


async def orders_in(engine: EngineProcess) -> int:
    return int((await get(engine, "/api/orders/stats"))["queue"]["total"])


async def completed(producer: Producer, jobs: list[str]) -> list[Json]:
    ends = await asyncio.gather(*(producer.end(job) for job in jobs))
    assert [end for end in ends if end["event"] != "completed"] == []
    return [end["returnvalue"] for end in ends]


async def assert_one_order_each(folder: Path, jobs: list[str], **settings: object) -> None:
    result = await reconciled(folder, **settings)
    assert (result["orders"], result["confirmed"], result["findings"]) == (len(jobs), len(jobs), [])


def test_a_job_s_order_is_executed_and_its_life_told(tmp_path: Path, redis_url: str) -> None:
    async def executed() -> None:
        async with an_exchange(tmp_path, redis_url) as (engine, producer):
            every_option: list[Json] = [{}, {"attempts": 3, "backoff": 1_000}, {"priority": 5}, {"delay": 200}]
            for options in every_option:
                job = await producer.add(SWAP, **options)
                [fill] = await completed(producer, [job])
                order = await get(engine, f"/api/orders/{fill['orderId']}")
                assert {name: order[name] for name in fill} == fill
                assert (fill["status"], fill["fill"]["inAmount"]) == ("confirmed", "1.5")
                told = producer.progress(job)
                assert [step["status"] for step in told] == STATUSES
                assert {step["orderId"] for step in told} == {fill["orderId"]}
                shown = await producer.look(job)
                assert (shown["state"], shown["attemptsMade"], shown["progress"]) == ("completed", 1, told[-1])
                assert [line.split()[1] for line in shown["logs"]] == STATUSES

    in_real_time(executed())


def test_the_example_in_the_documents_works(tmp_path: Path, redis_url: str) -> None:
    async def shown() -> str:
        text = (ROOT / "docs" / "bullmq.md").read_text(encoding="utf-8")
        example = text.partition("```js\n")[2].partition("```")[0]
        program = example.replace("6379", redis_url.rpartition(":")[2].partition("/")[0]) + "process.exit(0);"
        async with an_engine(tmp_path, **FAST), a_bridge(tmp_path, redis_url):
            node = await asyncio.create_subprocess_exec(
                *("node", "--input-type=module"),
                cwd=await asyncio.to_thread(installed),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await node.communicate(program.encode())
        assert node.returncode == 0
        return out.decode()

    said = in_real_time(shown())
    told = [line.split()[1] for line in said.splitlines() if line.startswith("payment-7 ")]
    assert told == STATUSES[-len(told) :], "it may begin to listen when the order has already begun"
    assert float(said.splitlines()[-1].split()[0]) > 0


def test_an_order_that_is_refused_fails_its_job_at_once_with_its_code(tmp_path: Path, redis_url: str) -> None:
    async def refused() -> None:
        async with an_exchange(tmp_path, redis_url) as (engine, producer):
            for order, code in (
                ({**SWAP, "amount": "-1"}, "invalid_amount"),
                ({**SWAP, "tokenOut": "SOL"}, "same_token"),
                ({**SWAP, "amuont": 1}, "invalid_request"),
                (None, "invalid_request"),
                (json.loads("[" * 900 + "]" * 900), "invalid_request"),
            ):
                job = await producer.add(order, attempts=3)
                end = await producer.end(job)
                assert (end["event"], end["failedReason"].partition(": ")[0]) == ("failed", code)
                shown = await producer.look(job)
                assert (shown["state"], shown["attemptsMade"]) == ("failed", 1)
            assert await orders_in(engine) == 0

    in_real_time(refused())


def test_an_order_that_fails_fails_its_job_for_good_and_a_retry_tells_it_again(tmp_path: Path, redis_url: str) -> None:
    async def failed() -> None:
        hopeless = {"fillwright_sim_reverted_rate": 1, "fillwright_retry_delay_ms": 50}
        async with an_exchange(tmp_path, redis_url, **hopeless) as (engine, producer):
            job = await producer.add(SWAP, attempts=5)
            first = await producer.end(job)
            assert first["failedReason"].startswith("transaction_reverted: ")
            statuses = [progress["status"] for progress in producer.progress(job)]
            assert (statuses.count("submitted"), statuses[-1]) == (3, "failed")
            assert (await producer.look(job))["attemptsMade"] == 1
            await producer.ask("retry", jobId=job)
            assert (await producer.end(job, after=1))["failedReason"] == first["failedReason"]
            assert await orders_in(engine) == 1

    in_real_time(failed())


def test_an_order_that_is_cancelled_fails_its_job(tmp_path: Path, redis_url: str) -> None:
    async def cancelled() -> None:
        async with an_exchange(tmp_path, redis_url, queue_rate_limit=1) as (engine, producer):
            await completed(producer, [await producer.add(SWAP)])
            job = await producer.add(SWAP)
            order_id = (await producer.event(job, "progress"))["data"]["orderId"]
            async with engine.http.delete(f"/api/orders/{order_id}") as response:
                assert response.status == 200
            assert (await producer.end(job))["failedReason"].startswith("cancelled: ")

    in_real_time(cancelled())


def test_an_amount_is_taken_as_it_is_written(tmp_path: Path, redis_url: str) -> None:
    """Not every service writes its numbers as Node does; a float would make 123456789.12345679 of the longest."""

    async def taken() -> None:
        async with a_producer(redis_url) as producer, Redis.from_url(redis_url) as redis:
            written = ["9007.199254741", '"9007.199254741"', "123456789.123456789", "1.50"]
            jobs = await producer.add_all([SWAP] * len(written))
            for job, digits in zip(jobs, written, strict=True):
                data = f'{{"order": {{"tokenIn": "SOL", "tokenOut": "USDC", "amount": {digits}}}}}'
                await redis.hset(f"bull:order-queue:{job}", "data", data)
            async with a_bridge(tmp_path, redis_url):  # no worker runs, so no market has to bear these
                amounts = [(await producer.event(job, "progress"))["data"]["data"]["amount"] for job in jobs]
                assert amounts == ["9007.199254741", "9007.199254741", "123456789.123456789", "1.5"]

    in_real_time(taken())


def test_a_name_of_the_producer_s_own_is_the_order_s_for_ever(tmp_path: Path, redis_url: str) -> None:
    async def again() -> None:
        async with an_exchange(tmp_path, redis_url) as (engine, producer):
            job = await producer.add(SWAP, jobId="payment-7")
            [first] = await completed(producer, [job])
            assert (job, first["clientOrderId"]) == ("payment-7", "bull:order-queue:payment-7")

            await producer.add(SWAP, jobId="payment-7")
            assert producer.events(job, "active") == 1, "BullMQ ignores a job that it still has"

            await producer.ask("remove", jobId=job)
            await producer.add(SWAP, jobId="payment-7")
            assert (await producer.end(job, after=1))["returnvalue"] == first

            await producer.ask("remove", jobId=job)
            await producer.add({**SWAP, "amount": 2}, jobId="payment-7")
            end = await producer.end(job, after=2)
            assert end["failedReason"].startswith("idempotency_mismatch: ")
            assert first["orderId"] in end["failedReason"]
            assert await orders_in(engine) == 1

    in_real_time(again())


def test_a_number_that_bullmq_counts_out_anew_is_a_new_order(tmp_path: Path, redis_url: str) -> None:
    async def anew() -> None:
        async with an_exchange(tmp_path, redis_url) as (engine, producer):
            [first] = await completed(producer, [await producer.add(SWAP)])
            await producer.ask("empty")
            job = await producer.add(SWAP)
            assert job == "1"
            assert (await producer.end(job, after=1))["returnvalue"]["orderId"] != first["orderId"]
            assert await orders_in(engine) == 2

    in_real_time(anew())


def test_an_order_that_brings_a_client_order_id_keeps_it(tmp_path: Path, redis_url: str) -> None:
    async def kept() -> None:
        async with an_exchange(tmp_path, redis_url) as (engine, producer):
            async with engine.http.post("/api/orders/execute", json={**SWAP, "clientOrderId": "mine"}) as response:
                over_http = await response.json()
            [by_job] = await completed(producer, [await producer.add({**SWAP, "clientOrderId": "mine"})])
            assert (by_job["orderId"], by_job["clientOrderId"]) == (over_http["orderId"], "mine")

    in_real_time(kept())


def test_any_job_id_will_do(tmp_path: Path, redis_url: str) -> None:
    async def done() -> None:
        async with an_exchange(tmp_path, redis_url) as (_, producer):
            ids = ["spaced and ünïcödé", "x" * 300, "x" * 299, "%", "%25"]
            assert [await producer.add(SWAP, jobId=job_id) for job_id in ids] == ids
            assert len({order["orderId"] for order in await completed(producer, ids)}) == len(ids)

    in_real_time(done())


def test_a_job_scheduler_makes_an_order_each_time(tmp_path: Path, redis_url: str) -> None:
    async def each_time() -> None:
        async with an_exchange(tmp_path, redis_url) as (engine, producer):
            await producer.ask("repeat", id="daily", every=200, limit=3, data={"order": SWAP})
            ends = await producer.ends(3)
            assert len({end["returnvalue"]["orderId"] for end in ends}) == await orders_in(engine) == 3

    in_real_time(each_time())


def test_jobs_wait_for_room_in_a_full_queue(tmp_path: Path, redis_url: str) -> None:
    async def wait() -> None:
        async with an_exchange(tmp_path, redis_url, fillwright_queue_capacity=2) as (engine, producer):
            jobs = await producer.add_all([SWAP] * 10, attempts=1)
            await completed(producer, jobs)
            assert await orders_in(engine) == 10

    in_real_time(wait())


def test_a_bridge_tells_its_metrics(tmp_path: Path, redis_url: str) -> None:
    async def told() -> None:
        port = free_port()
        async with (
            a_bridge(tmp_path, redis_url, fillwright_metrics_port=port),
            aiohttp.request("GET", f"http://127.0.0.1:{port}/metrics") as response,
        ):
            found = parsed(await response.text())
        assert (found["fillwright_store_up",], found["fillwright_stream_backlog",]) == (1, 0)

    in_real_time(told())


def test_no_more_jobs_are_in_hand_than_set_and_a_bridge_is_seen_at_work(tmp_path: Path, redis_url: str) -> None:
    async def bounded() -> None:
        async with an_exchange(tmp_path, redis_url, fillwright_bullmq_concurrency=3, queue_rate_limit=1) as (
            _,
            producer,
        ):
            jobs = await producer.add_all([SWAP] * 10)
            for job in jobs[:4]:  # one is executed, and three wait for their turn
                await producer.event(job, "progress")
            counts = await producer.ask("counts")
            assert (counts["active"], counts["waiting"]) == (3, 6)
            assert await producer.ask("workers") == 1

    in_real_time(bounded())


class LosesAnswers(Intake):
    """A door behind which the database goes away, right after it took the order, or before."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.calls = 0

    async def submit(self, request: OrderRequest, account: str = "", key_id: str = "") -> tuple[Order, bool]:
        self.calls += 1
        if self.calls % 3 == 0:
            return await self._intake.submit(request, account, key_id)
        if self.calls % 3 == 2:
            await self._intake.submit(request, account, key_id)
        raise StoreUnavailable("the database went away")

    async def cancel(self, order_id: OrderId, actor: str, account: str = "") -> Order:
        return await self._intake.cancel(order_id, actor, account)

    async def quote(self, request: OrderRequest, account: str = "", key_id: str = "") -> QuotePreview:
        return await self._intake.quote(request, account, key_id)


def test_a_database_that_goes_away_costs_time_and_no_job(tmp_path: Path, redis_url: str) -> None:
    async def away() -> None:
        ledger = f"{tmp_path}/chain.db"
        settings = Settings(
            database_url=f"sqlite:///{tmp_path}/orders.db",
            sim_ledger=ledger,
            sim_speed=0.05,
            queue_rate_limit=0,
            poll_ms=50,
        )
        clock = SystemClock()
        jobs = JobQueue(redis_url, "order-queue", "bull", LOCK_MS, clock)
        async with open_engine(settings) as engine, a_producer(redis_url) as producer:
            intake = LosesAnswers(engine.intake)
            limits = BridgeSettings(concurrency=10, lock_ms=LOCK_MS, stop_ms=5_000)
            bridge = Bridge(intake, engine.streams, engine.store, jobs, clock, limits)
            work = [asyncio.create_task(engine.worker.run()), asyncio.create_task(bridge.run())]
            added = await producer.add_all([SWAP] * 5, attempts=1)
            await completed(producer, added)
            bridge.stop()
            engine.worker.stop()
            await asyncio.gather(*work)
            await jobs.close()
            assert intake.calls > len(added)
        await assert_one_order_each(tmp_path, added, fillwright_sim_ledger=ledger)

    in_real_time(away())


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_bridges_that_are_killed_leave_no_job_undone_and_no_order_doubled(
    tmp_path: Path, redis_url: str, store: str, request: pytest.FixtureRequest
) -> None:
    async def killed(database: Json) -> None:
        slow = {**FAST, **database, "fillwright_sim_speed": 0.3}
        async with an_engine(tmp_path, **slow) as engine, a_producer(redis_url) as producer:
            jobs = await producer.add_all([SWAP] * 60, attempts=1)
            for job in (jobs[0], jobs[30]):
                async with a_bridge(tmp_path, redis_url, **database) as bridge:
                    await producer.event(job, "progress")
                    await bridge.kill()
            async with a_bridge(tmp_path, redis_url, **database):
                await completed(producer, jobs)
            assert any(producer.events(job, "stalled") for job in jobs), "nothing was in hand when they died"
            assert await orders_in(engine) == len(jobs)
        await assert_one_order_each(tmp_path, jobs, **database)

    in_real_time(killed({"database_url": request.getfixturevalue("postgres_url")} if store == "postgres" else {}))


def test_two_bridges_share_a_queue_and_one_that_was_frozen_does_no_harm(tmp_path: Path, redis_url: str) -> None:
    async def frozen() -> None:
        slow = {**FAST, "fillwright_sim_speed": 0.3}
        async with (
            an_engine(tmp_path, **slow),
            a_producer(redis_url) as producer,
            a_bridge(tmp_path, redis_url, fillwright_bullmq_concurrency=10) as sleeper,
            a_bridge(tmp_path, redis_url, fillwright_bullmq_concurrency=10),
        ):
            jobs = await producer.add_all([SWAP] * 20, attempts=1)
            for job in jobs:
                await producer.event(job, "progress")
            sleeper.freeze()
            ends = await completed(producer, jobs)
            sleeper.thaw()
            late = await producer.add(SWAP)
            await completed(producer, [late])
            assert await sleeper.stop() == 0
            assert [job for job in jobs if producer.events(job, "completed") != 1] == []
            assert len({end["orderId"] for end in ends}) == len(jobs)
        await assert_one_order_each(tmp_path, [*jobs, late])

    in_real_time(frozen())


def test_a_bridge_that_is_told_to_stop_gives_its_jobs_back_and_ends_well(tmp_path: Path, redis_url: str) -> None:
    async def stopped() -> None:
        async with a_producer(redis_url) as producer:
            async with a_bridge(tmp_path, redis_url, fillwright_bullmq_lock_ms=60_000) as bridge:
                jobs = await producer.add_all([SWAP] * 10)  # no worker runs: the orders wait
                for job in jobs:
                    await producer.event(job, "progress")
                began = asyncio.get_running_loop().time()
                assert await bridge.stop() == 0
                assert asyncio.get_running_loop().time() - began < 5
            counts = await producer.ask("counts")
            assert (counts["active"], counts["waiting"] + counts["delayed"]) == (0, 10)
            async with an_engine(tmp_path, **FAST), a_bridge(tmp_path, redis_url, fillwright_bullmq_lock_ms=60_000):
                await completed(producer, jobs)
            assert (await producer.look(jobs[0]))["attemptsMade"] == 1
            for job in jobs:
                seqs = [progress["seq"] for progress in producer.progress(job)]
                assert seqs == list(range(1, 6)), "what was told is not told again"
        await assert_one_order_each(tmp_path, jobs)

    in_real_time(stopped())


def test_orders_go_on_while_redis_is_away_and_their_jobs_end_when_it_is_back(tmp_path: Path) -> None:
    async def away(redis: servers.RedisServer) -> None:
        async with (
            an_engine(tmp_path, **FAST) as engine,
            a_producer(redis.url) as producer,
            a_bridge(tmp_path, redis.url) as bridge,
        ):
            jobs = await producer.add_all([SWAP] * 30, attempts=1)
            await producer.end(jobs[0])
            await asyncio.to_thread(redis.kill)
            orders = (await get(engine, "/api/orders?limit=100"))["orders"]
            outcomes = await asyncio.gather(*(engine.outcome(order["orderId"]) for order in orders))
            assert set(outcomes) == {"confirmed"}
            await asyncio.to_thread(redis.start)
            await completed(producer, jobs)
            assert await bridge.stop() == 0
        await assert_one_order_each(tmp_path, jobs)

    with servers.redis(appendfsync="always") as redis:
        in_real_time(away(redis))


@pytest.mark.parametrize("failed", [True, False], ids=["failed already", "about to fail"])
def test_a_job_that_another_worker_gave_up_ends_as_its_order_does(tmp_path: Path, redis_url: str, failed: bool) -> None:
    async def put_right() -> None:
        async with a_producer(redis_url) as producer:
            async with a_bridge(tmp_path, redis_url) as bridge:
                job = await producer.add(SWAP)
                await producer.event(job, "progress")
                await bridge.kill()
            await producer.ask("giveUp", take=failed)
            if failed:
                await producer.event(job, "failed")
            async with an_engine(tmp_path, **FAST), a_bridge(tmp_path, redis_url):
                await producer.event(job, "completed")
        await assert_one_order_each(tmp_path, [job])

    in_real_time(put_right())


def test_a_job_that_another_worker_gave_up_and_we_never_had_is_failed(tmp_path: Path, redis_url: str) -> None:
    async def failed() -> None:
        async with a_producer(redis_url) as producer:
            job = await producer.add(SWAP)
            await producer.ask("takeAndDie")
            await producer.ask("giveUp", take=False)
            async with an_engine(tmp_path, **FAST) as engine, a_bridge(tmp_path, redis_url):
                assert (await producer.end(job))["failedReason"] == "job stalled more than allowable limit"
                assert await orders_in(engine) == 0

    in_real_time(failed())


@pytest.mark.parametrize(
    ("settings", "exit_code", "words"),
    [
        ({}, 2, "set REDIS_URL"),
        ({"redis_url": "redis://127.0.0.1:1/0", "fillwright_bullmq_queue": "a:b"}, 2, "no colon"),
        (
            {"redis_url": "redis://user:secret@127.0.0.1:1/0"},
            3,
            "there is no queue at redis://user:***@127.0.0.1:1/0: ",
        ),
        ({"redis_url": "redis://127.0.0.1:1/0", "database_url": "memory://"}, 2, "set DATABASE_URL"),
    ],
    ids=["none", "colon", "unreachable", "memory"],
)
def test_a_bridge_that_cannot_work_says_why(tmp_path: Path, settings: Json, exit_code: int, words: str) -> None:
    async def says() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fillwright", "bullmq"),
            cwd=tmp_path,
            env=environment(tmp_path, **settings),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert (process.returncode, words in said.decode()) == (exit_code, True), said

    in_real_time(says())
