"""Reconciliation finds what must never be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from fillwright.backends.memory import MemoryStore
from fillwright.core.errors import Failure
from fillwright.core.lifecycle import Accepted, Confirmed, Failed, RouteSelected, TransactionSigned
from fillwright.core.order import Fill
from fillwright.core.ports import LandedSwap
from fillwright.core.units import Signature
from fillwright.execution.reconcile import Reconciliation, reconcile
from tests.builders import a_route, a_transaction, some_id, some_terms
from tests.virtual import VirtualClock

FILL = Fill(1_000_000_000, 149_000_000, 5_000, 77)


class Record:
    """A chain's record, written by hand: reconciliation asks a chain for nothing else."""

    def __init__(self, *swaps: LandedSwap) -> None:
        self._swaps = swaps

    async def landed_swaps(self) -> AsyncIterator[LandedSwap]:
        for swap in self._swaps:
            yield swap


def a_swap(number: int = 1, signature: str = "first", fill: Fill = FILL) -> LandedSwap:
    return LandedSwap(some_id(number), 1, Signature(signature), fill)


async def judged(ending: Confirmed | Failed | None, *swaps: LandedSwap, record_from_slot: int = 0) -> Reconciliation:
    """Reconcile one order, ended so, with a chain that has these swaps."""
    store = MemoryStore(clock=VirtualClock(), committed=lambda _: None, capacity=10, lease_ms=5_000)
    order = await store.accept(some_id(), Accepted(some_terms()))
    (claim,) = (await store.claim("w", 1)).taken
    order = claim.order
    for event in (RouteSelected(a_route(), 148_500_000), TransactionSigned(a_transaction("first")), ending):
        if event is not None:
            order = await store.append(order, event, claim.lease)
    record = Record(*swaps)
    return await reconcile(store, record, record_from_slot)  # type: ignore[arg-type]  # the rest of a chain is not asked


async def test_a_confirmed_order_with_its_fill_on_chain_is_clean() -> None:
    result = await judged(Confirmed(FILL), a_swap())
    assert (result.confirmed, result.clean) == (1, True)


async def test_an_open_order_is_neither_lost_nor_misreported_whatever_has_landed() -> None:
    assert (await judged(None)).clean
    assert (await judged(None, a_swap())).clean


async def test_what_was_filled_before_the_record_begins_is_unknown_and_not_misreported() -> None:
    result = await judged(Confirmed(FILL), record_from_slot=FILL.slot + 1)
    assert (result.unknown, result.misreported, result.clean) == (1, 0, True)
    assert "filled in slot 77, and the record begins at 78" in result.findings[0]
    result = await judged(Confirmed(FILL), record_from_slot=FILL.slot)
    assert (result.unknown, result.misreported, result.clean) == (0, 1, False)


async def test_two_swaps_for_one_order_are_doubled() -> None:
    result = await judged(Confirmed(FILL), a_swap(), a_swap(signature="second"))
    assert (result.doubled, result.misreported, result.clean) == (1, 0, False)


async def test_a_confirmed_order_without_its_fill_on_chain_is_misreported() -> None:
    assert (await judged(Confirmed(FILL))).misreported == 1
    assert (await judged(Confirmed(FILL), a_swap(signature="another"))).misreported == 1
    assert (await judged(Confirmed(FILL), a_swap(fill=replace(FILL, out_amount=1)))).misreported == 1


async def test_a_failed_order_with_a_fill_on_chain_is_misreported() -> None:
    failed = Failed(1, Failure("transaction_expired", "too late"))
    assert (await judged(failed)).clean
    assert (await judged(failed, a_swap())).misreported == 1


async def test_a_swap_for_an_order_that_nobody_knows_is_lost() -> None:
    result = await judged(Confirmed(FILL), a_swap(), a_swap(number=2, signature="second"))
    assert (result.lost, result.clean) == (1, False)
