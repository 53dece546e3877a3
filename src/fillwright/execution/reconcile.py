"""The operator's proof: every order against the chain's own record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from fillwright.core.lifecycle import TERMINAL
from fillwright.core.order import Order, OrderStatus
from fillwright.core.ports import Chain, LandedSwap, Store
from fillwright.core.units import OrderId


@dataclass(slots=True)
class Reconciliation:
    """`lost`: money moved for an order that the store does not know. `doubled`: for one order more than once.

    `misreported`: the order says something else than the chain: confirmed without that very fill, or over without a
    fill although there is one. `unknown`: confirmed before the chain's record begins, which then says nothing of it.
    An open order is none of these; `findings` tells each case in a sentence.
    """

    orders: int = 0
    confirmed: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    open: int = 0
    lost: int = 0
    doubled: int = 0
    misreported: int = 0
    unknown: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.misreported)


async def reconcile(store: Store, chain: Chain, record_from_slot: int = 0) -> Reconciliation:
    """Compare every order with the chain, whose record is complete from a slot on.

    Works beside a running engine, whose open orders are counted as such.
    The orders are read first: whatever lands in the meantime belongs to an order that was seen as open, or is new.
    """
    result = Reconciliation()
    known: set[OrderId] = set()
    orders = [order async for order in store.scan()]
    swaps: defaultdict[OrderId, list[LandedSwap]] = defaultdict(list)
    async for swap in chain.landed_swaps():
        swaps[swap.order_id].append(swap)
    for order in orders:
        known.add(order.id)
        _judge(order, swaps.get(order.id, ()), result, record_from_slot)
    for order_id in swaps.keys() - known:
        if not await store.history(order_id):
            result.lost += 1
            result.findings.append(f"lost: the chain has a swap for {order_id}, and the store has no such order")
    return result


def _judge(order: Order, swaps: Sequence[LandedSwap], result: Reconciliation, record_from_slot: int) -> None:
    result.orders += 1
    if len(swaps) > 1:
        result.doubled += 1
        result.findings.append(f"doubled: {order.id} was swapped {len(swaps)} times")
    if order.status not in TERMINAL:
        result.open += 1
        return
    match order.status:
        case OrderStatus.CONFIRMED:
            result.confirmed += 1
        case OrderStatus.FAILED:
            result.failed += 1
        case OrderStatus.CANCELLED:
            result.cancelled += 1
        case _:
            result.expired += 1
    if order.status is OrderStatus.CONFIRMED:
        signature = order.live.signature if order.live else None
        if not swaps and order.fill is not None and order.fill.slot < record_from_slot:
            result.unknown += 1
            result.findings.append(
                f"unknown: {order.id} was filled in slot {order.fill.slot}, and the record begins at {record_from_slot}"
            )
        elif not any(swap.signature == signature and swap.fill == order.fill for swap in swaps):
            result.misreported += 1
            result.findings.append(f"misreported: {order.id} is confirmed, but the chain has no such fill")
    elif swaps:
        result.misreported += 1
        result.findings.append(f"misreported: {order.id} is {order.status}, but the chain has its fill")
