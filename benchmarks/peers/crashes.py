"""What `kill -9` in mid-run leaves behind. The process is started again at once, as a supervisor would.

lost        an order that was accepted, and that the database does not know
doubled     an order whose swap was sent twice (the reference's own record), or landed twice (the simulated chain's)
stuck       an order that is not over OVER_S after the kill, or once nothing has happened for a long time
failed      an order that ended as failed, though no swap fails here
recovery    from the kill until every order that was in the worker's hands is over
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Final

import asyncpg

from benchmarks.engine import BenchFailed
from benchmarks.peers.engines import FILLWRIGHT, NODE, SWAP_LOG, Conditions, Run
from benchmarks.peers.measuring import Measurement, Plan, Take, Values
from benchmarks.peers.node import CLIENT

API: Final = 0
API_KILLS: Final = 3
WORKER: Final = -1
OVER_S: Final = 150
STILL_S: Final = 45  # no worker died: an order that does not move for so long is one that nobody knows of
LOOK_S: Final = 0.05
IDS: Final = "accepted"

# Short delays, so that the kill finds orders in every state.
DELAYED: Final = Conditions(quote_ms=15, swap_ms_min=20, swap_ms_max=50, recorded=True)


def measurements() -> Iterator[Measurement]:
    yield Measurement("kill", "kill -9 of the worker", DELAYED, in_a_loop(kill_worker), layouts=("two",))
    yield Measurement("kill", "kill -9 of the API", Conditions(recorded=True), in_a_loop(kill_api), layouts=("two",))


async def kill_worker(run: Run, plan: Plan, database: Database) -> Values:
    """Kill the worker while it is at work and many orders wait."""
    with posting(run, plan.kill_orders) as client:
        await until(partial(database.count, "confirmed"), plan.kill_orders // 3)
        run.kill(WORKER)
        killed = time.monotonic()
        in_hand = await database.ids(run.engine.in_hand_sql)
        if not in_hand:
            raise BenchFailed("the kill came when the worker had nothing in hand")
        run.start_again(WORKER)
        recovery_s = await database.until_over(killed, OVER_S, in_hand)
        accepted = accepted_ids(client, run)
        await database.until_over(killed, OVER_S)
    return {
        "kill_recovery_s": recovery_s,
        "kill_lost": len(accepted - await database.ids(run.engine.all_sql)),
        "kill_doubled": DOUBLED[run.engine.name](run),
        "kill_stuck": len(await database.ids(run.engine.open_sql)),
        "kill_failed": await database.count("failed"),
    }


async def kill_api(run: Run, plan: Plan, database: Database) -> Values:
    """Kill the API API_KILLS times while 64 connections post. They come again, and post on."""
    with posting(run, plan.kill_orders * 2 * (API_KILLS + 1)) as client:
        for number in range(1, API_KILLS + 1):
            await until(database.count_posted, plan.kill_orders * 2 * number)
            run.kill(API)
            killed = time.monotonic()
            run.start_again(API)
        accepted = accepted_ids(client, run)
        await database.until_over(killed, STILL_S)
    return {
        "kill_api_lost": len(accepted - await database.ids(run.engine.all_sql)),
        "kill_api_doubled": DOUBLED[run.engine.name](run),
        "kill_api_stuck": len(await database.ids(run.engine.open_sql)),
    }


class Database:
    """An engine's database, as an onlooker sees it."""

    def __init__(self, connection: asyncpg.Connection, run: Run) -> None:
        self._connection = connection
        self._run = run

    async def ids(self, sql: str) -> set[str]:
        return {row[0] for row in await self._connection.fetch(sql)}

    async def count(self, status: str) -> int:
        found: int = await self._connection.fetchval(self._run.engine.count_sql.format(status=status))
        return found

    async def count_posted(self) -> int:
        found: int = await self._connection.fetchval(f"SELECT count(*) FROM ({self._run.engine.all_sql}) AS every")
        return found

    async def until_over(self, killed: float, still_s: float, wanted: set[str] | None = None) -> float:
        """Wait until these orders, or all, are over; return how long that took from the kill.

        Give up after OVER_S, and once no order has moved for `still_s`.
        """
        before, moved = set[str](), time.monotonic()
        while True:
            left, now = await self.ids(self._run.engine.open_sql), time.monotonic()
            if left != before:
                before, moved = left, now
            over = not (left if wanted is None else left & wanted)
            if over or now > killed + OVER_S or now > moved + still_s:
                return now - killed
            await asyncio.sleep(LOOK_S)


async def until(count: Callable[[], Awaitable[int]], orders: int) -> None:
    end = time.monotonic() + OVER_S
    while await count() < orders:
        if time.monotonic() > end:
            raise BenchFailed(f"it did not come to {orders} orders in {OVER_S} s")
        await asyncio.sleep(LOOK_S)


def in_a_loop(crash: Callable[[Run, Plan, Database], Coroutine[object, object, Values]]) -> Take:
    """Make a measurement of a crash, which looks at the database meanwhile."""

    async def look(run: Run, plan: Plan) -> Values:
        connection = await asyncpg.connect(run.database_url)
        try:
            return await crash(run, plan, Database(connection, run))
        finally:
            await connection.close()

    return lambda run, plan: (asyncio.run(look(run, plan)), {})


# The client


@contextlib.contextmanager
def posting(run: Run, orders: int) -> Iterator[subprocess.Popen[str]]:
    """Post until so many orders are accepted, whatever happens to the engine."""
    command = ["node", str(CLIENT), "submit", "--url", run.url, "--orders", str(orders)]
    command += ["--ids", str(run.folder / IDS), "--timeout-s", str(OVER_S)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as client:
        try:
            yield client
        finally:
            client.kill()


def accepted_ids(client: subprocess.Popen[str], run: Run) -> set[str]:
    """Return the ids of all orders that were accepted, once that many were."""
    _, complaint = client.communicate()
    if client.returncode != 0:
        raise BenchFailed(complaint.strip() or f"the load client ended with status {client.returncode}")
    return set((run.folder / IDS).read_text().split())


# Whose swap was made twice


def landed_twice(run: Run) -> int:
    """Return how many orders `fillwright reconcile` finds with two swaps, or with another story than the chain's."""
    command = [sys.executable, "-m", "fillwright", "reconcile", "--json"]
    answer = subprocess.run(command, cwd=run.folder, env=run.environment, capture_output=True, text=True, check=False)
    try:
        found = json.loads(answer.stdout)
        return int(found["doubled"] + found["misreported"] + found["lost"])
    except (ValueError, KeyError) as error:
        raise BenchFailed(f"fillwright reconcile failed: {answer.stdout}{answer.stderr}") from error


def sent_twice(run: Run) -> int:
    """Return how many orders the reference has sent a swap for more than once."""
    lines = (run.folder / SWAP_LOG).read_text().splitlines()
    sent = Counter(line.split()[1] for line in lines if line.startswith("S "))
    return sum(times > 1 for times in sent.values())


DOUBLED: Final = {FILLWRIGHT.name: landed_twice, NODE.name: sent_twice}
