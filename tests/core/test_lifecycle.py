"""The law: every pair of status and event is either in the table or refused."""

from __future__ import annotations

import itertools

import pytest

from fillwright.core.errors import Failure
from fillwright.core.lifecycle import (
    CANCELLABLE,
    STATUS_AFTER,
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
    accepted,
    apply,
    begin,
    rebuild,
    replay,
)
from fillwright.core.order import Charge, Fill, Order, OrderStatus
from tests.builders import a_route, a_transaction, some_id, some_order, some_terms

FAILURE = Failure("no_route", "nobody answers")
FILL = Fill(1_000_000_000, 149_000_000, 5_000, 77)
PATHS: dict[OrderStatus, list[Event]] = {
    OrderStatus.PENDING: [],
    OrderStatus.ROUTING: [RoutingStarted(1)],
    OrderStatus.BUILDING: [RoutingStarted(1), RouteSelected(a_route(), 148)],
    OrderStatus.SUBMITTED: [RoutingStarted(1), RouteSelected(a_route(), 148), TransactionSigned(a_transaction())],
}
PATHS |= {
    OrderStatus.CONFIRMED: [*PATHS[OrderStatus.SUBMITTED], Confirmed(FILL)],
    OrderStatus.FAILED: [*PATHS[OrderStatus.SUBMITTED], Failed(1, FAILURE)],
    OrderStatus.CANCELLED: [Cancelled()],
    OrderStatus.EXPIRED: [Expired()],
}
ONE_OF_EACH: list[Event] = [
    Accepted(some_terms()),
    RoutingStarted(1),
    RouteSelected(a_route(), 148),
    TransactionSigned(a_transaction("another")),
    Confirmed(FILL),
    AttemptFailed(1, FAILURE, 5_000),
    Failed(1, FAILURE),
    Cancelled(),
    Expired(),
]


def an_order_in(status: OrderStatus) -> Order:
    order = some_order()
    for event in PATHS[status]:
        order = apply(order, event, 2_000)
    return order


@pytest.mark.parametrize(
    ("status", "event"),
    list(itertools.product(OrderStatus, ONE_OF_EACH)),
    ids=lambda it: getattr(it, "value", None) or type(it).__name__,
)
def test_an_event_leads_where_the_table_says_or_is_refused(status: OrderStatus, event: Event) -> None:
    order = an_order_in(status)
    expected = TRANSITIONS[status].get(type(event))
    if expected is None:
        with pytest.raises(IllegalTransition):
            apply(order, event, 3_000)
        return
    after = apply(order, event, 3_000)
    assert after.status is expected
    assert after.version == order.version + 1
    assert after.updated_at_ms == 3_000


def test_the_table_is_the_design_s() -> None:
    drawn = {
        (status.value, event.__name__, after.value)
        for status, row in TRANSITIONS.items()
        for event, after in row.items()
    }
    assert drawn == {
        ("pending", "RoutingStarted", "routing"),
        ("pending", "Cancelled", "cancelled"),
        ("pending", "Expired", "expired"),
        ("routing", "RouteSelected", "building"),
        ("routing", "AttemptFailed", "pending"),
        ("routing", "Failed", "failed"),
        ("routing", "Cancelled", "cancelled"),
        ("routing", "Expired", "expired"),
        ("building", "Expired", "expired"),
        ("building", "TransactionSigned", "submitted"),
        ("building", "AttemptFailed", "pending"),
        ("building", "Failed", "failed"),
        ("building", "Cancelled", "cancelled"),
        ("submitted", "Confirmed", "confirmed"),
        ("submitted", "AttemptFailed", "pending"),
        ("submitted", "Failed", "failed"),
    }


def test_what_is_over_stays_over() -> None:
    assert {OrderStatus.CONFIRMED, OrderStatus.FAILED, OrderStatus.CANCELLED, OrderStatus.EXPIRED} == TERMINAL
    assert all(an_order_in(status).due_at_ms is None for status in TERMINAL)


def test_an_order_can_be_cancelled_only_while_nothing_is_signed() -> None:
    assert {status for status in OrderStatus if status in CANCELLABLE} == {
        status for status in OrderStatus if status not in TERMINAL and an_order_in(status).live is None
    }


def test_each_event_leads_to_one_status_wherever_it_stands() -> None:
    for row in TRANSITIONS.values():
        for event, status in row.items():
            assert STATUS_AFTER[event] is status


def test_the_minimum_is_pinned_by_the_first_route() -> None:
    order = apply(an_order_in(OrderStatus.BUILDING), AttemptFailed(1, FAILURE, 5_000), 3_000)
    again = apply(order, RoutingStarted(2), 5_000)
    with pytest.raises(IllegalTransition):
        apply(again, RouteSelected(a_route(), 147), 5_000)
    assert apply(again, RouteSelected(a_route(), 148), 5_000).min_out_amount == 148


def test_attempts_are_counted_one_by_one() -> None:
    with pytest.raises(IllegalTransition):
        apply(some_order(), RoutingStarted(2), 2_000)


def test_a_fault_names_the_order_and_what_cannot_follow() -> None:
    order = apply(an_order_in(OrderStatus.BUILDING), AttemptFailed(1, FAILURE, 5_000), 3_000)
    again = apply(order, RoutingStarted(2), 5_000)
    cases: list[tuple[Order, Event, str]] = [
        (some_order(), Confirmed(FILL), "Confirmed cannot follow in status pending"),
        (some_order(), RoutingStarted(2), "attempt 2 cannot follow attempt 0"),
        (again, RouteSelected(a_route(), 147), "min out is pinned at 148"),
    ]
    for before, event, words in cases:
        with pytest.raises(IllegalTransition, match=f"^{before.id}: {words}$"):
            apply(before, event, 6_000)


def test_an_accepted_order_is_due_at_once_and_as_it_was_asked_for() -> None:
    terms = some_terms()
    assert accepted(some_id(7), Accepted(terms, "mine", "acme"), 1_234) == Order(
        id=some_id(7),
        terms=terms,
        client_order_id="mine",
        status=OrderStatus.PENDING,
        version=1,
        created_at_ms=1_234,
        updated_at_ms=1_234,
        due_at_ms=1_234,
        account="acme",
    )


def test_what_an_order_counts_for_stays_with_it() -> None:
    charge = Charge(7, 150, "K1", 3)
    order = accepted(some_id(), Accepted(some_terms(), charge=charge), 1_000)
    assert order.charge == charge
    assert apply(order, RoutingStarted(1), 2_000).charge == charge


def test_a_client_order_id_is_its_account_s_own() -> None:
    keys = [
        accepted(some_id(), Accepted(some_terms(), client_order_id, account), 1_000).client_key
        for account in ("", "acme", "other")
        for client_order_id in ("a", "b", None)
    ]
    assert keys == ["a", "b", None, "acme a", "acme b", None, "other a", "other b", None]


def test_a_dead_attempt_leaves_no_live_transaction() -> None:
    order = apply(an_order_in(OrderStatus.SUBMITTED), AttemptFailed(1, FAILURE, 5_000), 3_000)
    assert order.live is None
    assert order.due_at_ms == 5_000


def test_an_order_is_what_its_log_tells_and_a_gap_is_refused() -> None:
    order = an_order_in(OrderStatus.CONFIRMED)
    events: list[Event] = [Accepted(some_terms()), *PATHS[OrderStatus.CONFIRMED]]
    log = [Recorded(order.id, seq, 1_000 if seq == 1 else 2_000, event) for seq, event in enumerate(events, 1)]
    assert rebuild(log) == order
    assert [update.record.status for update in replay(log)] == [
        "pending",
        "routing",
        "building",
        "submitted",
        "confirmed",
    ]
    with pytest.raises(IllegalTransition):
        rebuild([*log[:2], *log[3:]])
    with pytest.raises(IllegalTransition):
        rebuild(log[1:])


def test_an_order_past_its_expiry_begins_nothing() -> None:
    order = some_order(expires_at_ms=2_000)
    assert begin(order, 1_999) == RoutingStarted(1)
    assert begin(order, 2_000) == Expired()


def test_an_order_that_expires_before_its_retry_is_due_at_its_expiry() -> None:
    order = apply(some_order(expires_at_ms=4_000), RoutingStarted(1), 2_000)
    assert apply(order, AttemptFailed(1, FAILURE, 5_000), 3_000).due_at_ms == 4_000
    assert apply(order, AttemptFailed(1, FAILURE, 3_500), 3_000).due_at_ms == 3_500
