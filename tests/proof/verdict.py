"""The judge of every campaign: what the chain did, what the log says and what the clients were told, side by side.

It is written anew and asks neither `core.lifecycle.apply` nor `execution.reconcile`, which are among the accused.
It judges after the drain, when every order should be over.

    lost          accepted but not in the log, or not over; or the chain swapped for an order that nobody knows
    doubled       more than one swap for an order, or more than one order for a client's key
    misreported   a status, a fill or an update that the chain or the log contradicts
    gaps          a log, or what a follower was told, that is not 1, 2, 3, ... up to one last event
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from fillwright.core.lifecycle import (
    Accepted,
    Cancelled,
    Confirmed,
    Expired,
    Failed,
    Recorded,
    RouteSelected,
    TransactionSigned,
)
from fillwright.core.ports import LandedSwap
from fillwright.core.units import Millis, OrderId

LAST: Final[Mapping[type, str]] = {
    Confirmed: "confirmed",
    Failed: "failed",
    Cancelled: "cancelled",
    Expired: "expired",
}
STATUS: Final[Mapping[str, str]] = {
    "Accepted": "pending",
    "RoutingStarted": "routing",
    "RouteSelected": "building",
    "TransactionSigned": "submitted",
    "AttemptFailed": "pending",
    **{event.__name__: status for event, status in LAST.items()},
}


@dataclass(frozen=True, slots=True)
class Told:
    """One update as a follower received it; with its time, if that was noted."""

    seq: int
    status: str
    at_ms: Millis | None = None


@dataclass(slots=True)
class Witness:
    """What one client knows of one order that it asked for under `key`.

    `answered` has every order id that it was given; `followed` one list for each follower that went on to the end,
    across all of its reconnections.
    """

    key: str
    answered: list[OrderId] = field(default_factory=list)
    followed: list[list[Told]] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    orders: int = 0
    confirmed: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    lost: int = 0
    doubled: int = 0
    misreported: int = 0
    gaps: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.findings

    def _find(self, kind: str, what: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.findings.append(f"{kind}: {what}")


def judge(
    logs: Mapping[OrderId, Sequence[Recorded]], swaps: Iterable[LandedSwap], witnesses: Iterable[Witness] = ()
) -> Verdict:
    """Compare all logs with the chain's record and with what the witnesses were told."""
    verdict = Verdict(orders=len(logs))
    landed: defaultdict[OrderId, list[LandedSwap]] = defaultdict(list)
    for swap in swaps:
        landed[swap.order_id].append(swap)
    for order_id in landed.keys() - logs.keys():
        verdict._find("lost", f"the chain swapped for {order_id}, which is not in the log")
    keys: dict[str, OrderId] = {}
    for order_id, log in logs.items():
        _judge_order(order_id, log, landed.get(order_id, []), verdict)
        first = log[0].event if log else None
        key = first.client_order_id if isinstance(first, Accepted) else None
        if key is not None and keys.setdefault(key, order_id) != order_id:
            verdict._find("doubled", f"the key {key!r} has two orders, {keys[key]} and {order_id}")
    for witness in witnesses:
        _hear(witness, logs, verdict)
    return verdict


def _judge_order(order_id: OrderId, log: Sequence[Recorded], swaps: Sequence[LandedSwap], verdict: Verdict) -> None:
    if [record.seq for record in log] != list(range(1, len(log) + 1)):
        verdict._find("gaps", f"{order_id} has the events {[record.seq for record in log]}")
    if len(swaps) > 1:
        verdict._find("doubled", f"{order_id} was swapped {len(swaps)} times")
    events = [record.event for record in log]
    ends = [number for number, event in enumerate(events) if type(event) in LAST]
    if ends and ends != [len(events) - 1]:
        verdict._find("gaps", f"{order_id} goes on after its end: {_story(log)}")
    signed = {event.transaction.signature for event in events if isinstance(event, TransactionSigned)}
    for swap in swaps:
        if swap.signature not in signed:
            verdict._find("misreported", f"{order_id} was swapped by a transaction that is not in its log")
    limits = {event.min_out_amount for event in events if isinstance(event, RouteSelected)}
    if len(limits) > 1:
        verdict._find("misreported", f"{order_id} had more than one limit: {sorted(limits)}")
    if not ends:
        verdict._find("lost", f"{order_id} is not over: {_story(log)}")
        return
    last = events[-1]
    status = LAST.get(type(last), "")
    if status:
        setattr(verdict, status, getattr(verdict, status) + 1)
    if isinstance(last, Confirmed):
        if not any(swap.fill == last.fill for swap in swaps):
            verdict._find("misreported", f"{order_id} is confirmed with a fill that the chain does not have")
        if limits and last.fill.out_amount < max(limits):
            verdict._find("misreported", f"{order_id} was filled below its limit")
    elif swaps:
        verdict._find("misreported", f"{order_id} is {status}, but the chain swapped for it")


def _hear(witness: Witness, logs: Mapping[OrderId, Sequence[Recorded]], verdict: Verdict) -> None:
    if len(set(witness.answered)) > 1:
        verdict._find("doubled", f"the key {witness.key!r} was answered with {sorted(set(witness.answered))}")
    if not witness.answered:
        return
    order_id = witness.answered[0]
    log = logs.get(order_id)
    if log is None:
        verdict._find("lost", f"{order_id} was accepted and is not in the log")
        return
    true = [Told(record.seq, STATUS[type(record.event).__name__], record.at_ms) for record in log]
    for told in witness.followed:
        if [update.seq for update in told] != [update.seq for update in true]:
            verdict._find("gaps", f"a follower of {order_id} was told {[update.seq for update in told]} of {len(true)}")
            continue
        for update, event in zip(told, true, strict=True):
            if update not in (event, replace(event, at_ms=None)):
                verdict._find("misreported", f"a follower of {order_id} was told {update}, and the log has {event}")
                break


def _story(log: Sequence[Recorded]) -> str:
    return " -> ".join(type(record.event).__name__ for record in log)
