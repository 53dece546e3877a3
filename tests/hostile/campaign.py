"""All hostile input, one kind after another, each against an engine of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.hostile.attacks import Tally, attack_all
from tests.hostile.contract import try_examples
from tests.hostile.corpus import CORPUS
from tests.hostile.frames import send_floods, send_frames
from tests.hostile.slow import KINDS, be_slow
from tests.hostile.target import Target, a_target
from tests.proof.report import Report

LANES: Final = ("on", "off")
SLOW: Final = 550  # clients at once


async def run(examples: int, frames: int, seed: int, slow: int = SLOW) -> Report:
    """Attack, and report what came of it. The store is that of one machine: what is tried here ends before it."""
    report, sums, began_s = Report("hostile", "sqlite", seed), Tally(), time.monotonic()
    requests = 0
    for lane in LANES:
        async with _a_target(sums, "a request", fillwright_fast_lane=lane) as target:
            tally = await attack_all(target, CORPUS)
            requests += tally.requests
            _add(sums, tally)
    async with _a_target(sums, "an example of schemathesis") as target:
        found = await try_examples(target, examples, seed)
        sums.answers_5xx += found.answers_5xx
        sums.failures += found.failures
    async with _a_target(sums, "a frame") as target:
        sent = await send_frames(target, frames, seed)
        _add(sums, sent)
        flood = await send_floods(target)
        _add(sums, flood)
    async with _a_target(sums, "a slow client") as target:
        patience = await be_slow(target.port, max(1, slow // len(KINDS)))
        sums.failures += patience.failures
    report.failures = sums.failures
    report.more = {
        "requests": requests,
        "examples": found.examples,
        "frames": sent.requests,
        "flood": flood.requests,
        "slow": patience.clients,
        "answers_5xx": sums.answers_5xx,
        "without_code": sums.without_code,
        "worst_stall_ms": sums.worst_stall_ms,
        "worst_stall_by": sums.worst,
        "slow_longest_s": patience.longest_s,
        "slow_bystander_worst_ms": patience.bystander_worst_ms,
        "took_s": round(time.monotonic() - began_s),
    }
    return report


@asynccontextmanager
async def _a_target(sums: Tally, who: str, **settings: object) -> AsyncIterator[Target]:
    """Run a target; what it stalled for or complained of, and nobody has asked about by the end, goes to `sums`."""
    with tempfile.TemporaryDirectory() as folder:
        async with a_target(Path(folder), **settings) as target:
            await target.stalls()  # those of the start are nobody's fault
            yield target
            sums.blame(await target.stalls(), [(0.0, who)])
            sums.failures += [f"the engine says: {fault}" for fault in target.faults if fault not in str(sums.failures)]


def _add(sums: Tally, tally: Tally) -> None:
    sums.answers_5xx += tally.answers_5xx
    sums.without_code += tally.without_code
    sums.failures += tally.failures
    if tally.worst_stall_ms > sums.worst_stall_ms:
        sums.worst_stall_ms, sums.worst = tally.worst_stall_ms, tally.worst
