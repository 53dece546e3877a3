"""Whatever an order lives through, it is what its log tells: any lawful life, any gap in it."""

from __future__ import annotations

from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.errors import Failure
from fillwright.core.lifecycle import (
    TERMINAL,
    TRANSITIONS,
    Accepted,
    AttemptFailed,
    Cancelled,
    Confirmed,
    Event,
    Expired,
    Failed,
    IllegalTransition,
    Recorded,
    RouteSelected,
    RoutingStarted,
    TransactionSigned,
    rebuild,
    replay,
)
from fillwright.core.order import Fill, OrderStatus
from tests.builders import a_route, a_transaction, some_id, some_terms

E = TypeVar("E")
ID = some_id()
MIN_OUT = 148


@st.composite
def lives(draw: st.DrawFn, events_max: int = 14) -> list[Recorded]:
    """Draw the log of an order: any way through the table, with its own facts in each event."""
    terms = some_terms(expires_at_ms=draw(st.sampled_from([None, 50_000])))
    first = Accepted(terms, draw(st.sampled_from([None, "mine"])), draw(st.sampled_from(["", "acme"])))
    log = [Recorded(ID, 1, 1_000, first)]
    status, attempt = OrderStatus.PENDING, 0
    length = draw(st.integers(1, events_max))
    while len(log) < length and status not in TERMINAL:
        # Only the newest event may be an end: drawn at each step, most lives would be over before they have begun.
        row = TRANSITIONS[status]
        kind = draw(st.sampled_from([it for it in row if len(log) == length - 1 or row[it] not in TERMINAL]))
        seq = len(log) + 1
        attempt += kind is RoutingStarted
        facts: dict[type[Event], Event] = {
            RoutingStarted: RoutingStarted(attempt),
            RouteSelected: RouteSelected(a_route(MIN_OUT + seq), MIN_OUT),
            TransactionSigned: TransactionSigned(a_transaction(f"transaction {seq}")),
            Confirmed: Confirmed(Fill(1, 2, 3, seq)),
            AttemptFailed: AttemptFailed(attempt, Failure("no_route", f"failure {seq}"), draw(st.integers(1, 99_999))),
            Failed: Failed(attempt, Failure("no_route", f"failure {seq}")),
            Cancelled: Cancelled(),
            Expired: Expired(),
        }
        log.append(Recorded(ID, seq, log[-1].at_ms + draw(st.integers(0, 5_000)), facts[kind]))
        status = TRANSITIONS[status][kind]
    return log


def last(log: list[Recorded], kind: type[E]) -> E | None:
    return next((record.event for record in reversed(log) if isinstance(record.event, kind)), None)


def since_begun(log: list[Recorded]) -> list[Recorded]:
    """Return the events of the newest attempt, with the one that begins it."""
    starts = [at for at, record in enumerate(log) if isinstance(record.event, RoutingStarted)]
    return log[starts[-1] :] if starts else []


@given(lives())
def test_what_an_order_is_never_changes_and_every_event_counts(log: list[Recorded]) -> None:
    order = rebuild(log)
    first = log[0].event
    assert isinstance(first, Accepted)
    assert (order.id, order.terms) == (ID, first.terms)
    assert (order.client_order_id, order.account) == (first.client_order_id, first.account)
    assert (order.created_at_ms, order.updated_at_ms) == (1_000, log[-1].at_ms)
    assert order.version == len(log)
    assert order.attempt == sum(isinstance(record.event, RoutingStarted) for record in log)


@given(lives())
def test_an_order_shows_its_newest_attempt_and_nothing_of_those_before(log: list[Recorded]) -> None:
    order, attempt = rebuild(log), since_begun(log)
    routed, signed, confirmed = last(attempt, RouteSelected), last(attempt, TransactionSigned), last(log, Confirmed)
    failed = last(attempt, AttemptFailed) or last(attempt, Failed)
    assert order.route == (routed.route if routed else None)
    assert order.live == (signed.transaction if signed and not failed else None)
    assert order.fill == (confirmed.fill if confirmed else None)
    assert order.failure == (failed.failure if failed else None)
    assert order.min_out_amount == (MIN_OUT if last(log, RouteSelected) else None)


@given(lives())
def test_an_order_is_due_until_it_is_over_and_never_after_its_expiry(log: list[Recorded]) -> None:
    order, newest = rebuild(log), log[-1].event
    assert (order.due_at_ms is None) == (order.status in TERMINAL)
    if isinstance(newest, AttemptFailed):
        ends = order.terms.expires_at_ms
        assert order.due_at_ms == (newest.retry_at_ms if ends is None else min(newest.retry_at_ms, ends))


@given(lives())
def test_every_step_of_a_log_tells_of_the_order_as_it_stood(log: list[Recorded]) -> None:
    updates = replay(log)
    assert [update.record for update in updates] == log
    assert [update.order for update in updates] == [rebuild(log[:seq]) for seq in range(1, len(log) + 1)]
    assert [update.order.status for update in updates] == [record.status for record in log]


@given(lives(), st.data())
def test_a_log_that_lacks_an_event_is_refused_and_the_missing_one_named(
    log: list[Recorded], data: st.DataObject
) -> None:
    if len(log) == 1:
        return
    gap = data.draw(st.integers(1, len(log) - 1))
    with pytest.raises(IllegalTransition) as refused:
        rebuild([*log[: gap - 1], *log[gap:]])
    assert str(refused.value).startswith(f"{ID}: ")
    assert ("the log begins with event 2, " if gap == 1 else f"event {gap} is missing") in str(refused.value)


@given(lives())
def test_a_log_that_does_not_begin_with_its_first_event_is_refused(log: list[Recorded]) -> None:
    for event, seq in ((log[0].event, 2), (RoutingStarted(1), 1)):
        with pytest.raises(IllegalTransition, match=f"begins with event {seq}, {type(event).__name__}"):
            rebuild([Recorded(ID, seq, 1_000, event)])
