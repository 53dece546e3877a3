"""Fires the corpus at a target, one request after another, and judges what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from fillwright.api.openapi import error_catalogue
from tests.hostile.corpus import Attack, Fate
from tests.hostile.raw import PATIENCE_S, Answer, Exchange, exchange
from tests.hostile.target import STALL_MS_MAX, Stall, Target

CODES: Final = {code for code, *_ in error_catalogue()}
STATS: Final = b"GET /api/orders/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
WAIT_S: Final = 0.2


@dataclass(slots=True)
class Tally:
    """What a part of the campaign found. `worst` is the longest stall, and who caused it."""

    requests: int = 0
    answers_5xx: int = 0
    without_code: int = 0
    worst_stall_ms: float = 0.0
    worst: str = ""
    failures: list[str] = field(default_factory=list)

    def blame(self, stalls: Sequence[Stall], timeline: Sequence[tuple[float, str]]) -> None:
        """Lay each stall at the door of the last of the timeline that had begun before it ended."""
        for stall in stalls:
            name = next((name for began_s, name in reversed(timeline) if began_s < stall.ended_s), "the start")
            if stall.cpu_ms > self.worst_stall_ms:
                self.worst_stall_ms, self.worst = round(stall.cpu_ms, 1), name
            if stall.cpu_ms > STALL_MS_MAX:
                self.failures.append(f"{name}: the event loop stood still for {stall.cpu_ms:.0f} ms")


async def attack_all(target: Target, attacks: Iterable[Attack]) -> Tally:
    """Make every attack, and after each one a good request on a connection of its own."""
    tally, timeline = Tally(), list[tuple[float, str]]()
    orders = await count_orders(target)
    await target.stalls()
    for attack in attacks:
        name = f"{attack.group}: {attack.name}"
        patience_s = WAIT_S if attack.fate is Fate.WAITS else PATIENCE_S
        came = await exchange(
            target.port, attack.pieces, answers=attack.answers, head_only=attack.is_head, patience_s=patience_s
        )
        timeline.append((came.began_s, name))
        tally.requests += 1
        tally.answers_5xx += sum(answer.status >= 500 for answer in came.answers)
        tally.without_code += sum(has_no_code(answer) for answer in came.answers if not attack.is_head)
        tally.failures += [f"{name}: {wrong}" for wrong in judge(attack, came)]
        before, orders = orders, await count_orders(target)
        accepted = sum(answer.status == 201 for answer in came.answers)
        if orders - before != accepted:
            tally.failures.append(f"{name}: {orders - before} orders were made, and {accepted} were acknowledged")
    tally.blame(await target.stalls(), timeline)
    tally.failures += [f"the engine says: {fault}" for fault in target.faults]
    return tally


def judge(attack: Attack, came: Exchange) -> list[str]:
    """Return what is wrong with what came back."""
    statuses = [answer.status for answer in came.answers]
    wrong = [f"answered with {status}" for status in statuses if status >= 500]
    wrong += [
        f"{a.status} without a code: {a.body[:80]!r}" for a in came.answers if not attack.is_head and has_no_code(a)
    ]
    refused = [400 <= status < 500 for status in statuses]
    match attack.fate:
        case Fate.REFUSED if not all(refused) or not refused:
            wrong.append(f"not refused: {statuses}, closed: {came.closed}")
        case Fate.SERVED if any(refused) or len(statuses) != attack.answers:
            wrong.append(f"not served: {sorted(set(statuses))}, {len(statuses)} of {attack.answers} answers")
        case Fate.EITHER if not (statuses or came.closed):
            wrong.append("neither an answer nor a close")
        case Fate.CUT if not (statuses or came.closed):
            wrong.append("neither an answer nor a close")
        case Fate.WAITS if statuses or came.closed:
            wrong.append(f"answered before it was over: {statuses}")
        case _:
            pass
    return wrong


def has_no_code(answer: Answer) -> bool:
    return answer.status >= 400 and answer.code not in CODES


async def count_orders(target: Target) -> int:
    """Return how many orders there are: also the good request that must be served after every bad one."""
    came = await exchange(target.port, [STATS])
    if [answer.status for answer in came.answers] != [200]:
        raise AssertionError(f"a good request is not served any more: {came}; {target.said[-20:]}")
    return int(json.loads(came.answers[0].body)["queue"]["total"])
