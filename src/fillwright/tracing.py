"""Traces of orders, for those who have installed `fillwright[traces]`.

An order's log says when each thing happened, whichever process did it. So a trace needs no context that is handed from
process to process: whoever commits an order's last event reads its log and makes one trace of it, whose id follows from
the order's. Spans: the order, each of its attempts, and the phases of each attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import structlog

from fillwright import __version__
from fillwright.core.errors import StoreError
from fillwright.core.lifecycle import (
    TERMINAL,
    AttemptFailed,
    Failed,
    Recorded,
    RouteSelected,
    RoutingStarted,
    TransactionSigned,
    Update,
    rebuild,
)
from fillwright.core.order import Order
from fillwright.core.ports import Bus, Store
from fillwright.core.units import Millis, OrderId

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

WAITING_MAX: Final = 10_000
AT_ONCE: Final = 100
PAUSE_S: Final = 1.0
SEND_S: Final = 10
NANOS: Final = 1_000_000


class Tracing:
    """Sends the traces of orders that ended in this process to an OTLP collector at `url`.

    What cannot be sent is given up: traces are for looking at, and must not pile up.
    """

    def __init__(self, store: Store, bus: Bus, url: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        self._store = store
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=SEND_S)
        self._leave = bus.subscribe(self._hear)
        self._ended: list[OrderId] = []
        self._given_up = 0
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Send every second, until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            await self._send_all()

    async def close(self) -> None:
        """Send what is left, and end."""
        self._leave()
        await self._send_all()
        await asyncio.to_thread(self._exporter.shutdown)

    def _hear(self, updates: Sequence[Update]) -> None:
        for update in updates:
            if update.order.status in TERMINAL:
                if len(self._ended) < WAITING_MAX:
                    self._ended.append(update.order.id)
                else:
                    self._given_up += 1

    async def _send_all(self) -> None:
        while self._ended:
            ids, self._ended = self._ended[:AT_ONCE], self._ended[AT_ONCE:]
            try:
                spans = [span for order_id in ids for span in spans_of(await self._store.history(order_id))]
                result = await asyncio.to_thread(self._exporter.export, spans)
            except StoreError as error:
                self._log.warning("traces.not_read", orders=len(ids), reason=str(error))
            except Exception:
                # And go on: one order's unreadable log, or the exporter's fault, must not end all tracing in silence.
                self._log.exception("traces.fault", orders=len(ids))
            else:
                if result.value:
                    self._given_up += len(ids)
                    self._log.warning("traces.not_taken", orders=len(ids), given_up=self._given_up)


def spans_of(log: Sequence[Recorded]) -> list[ReadableSpan]:
    """Return the spans of an order that is over."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, TraceFlags
    from opentelemetry.trace.status import Status, StatusCode

    order = rebuild(log)
    resource = Resource.create({"service.name": "fillwright", "service.version": __version__})
    trace_id = int.from_bytes(sha256(order.id.encode()).digest()[:16])

    def context(name: str) -> SpanContext:
        span_id = int.from_bytes(sha256(f"{order.id}/{name}".encode()).digest()[:8])
        return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    spans = []
    for key, parent, name, begun_ms, ended_ms, attributes, failure in _parts(order, log):
        status = Status(StatusCode.ERROR, failure) if failure else Status(StatusCode.OK)
        spans.append(
            ReadableSpan(
                name,
                context(key),
                context(parent) if parent else None,
                resource,
                {name: value for name, value in attributes.items() if value is not None},
                start_time=begun_ms * NANOS,
                end_time=ended_ms * NANOS,
                status=status,
            )
        )
    return spans


Part = tuple[str, str, str, Millis, Millis, dict[str, Any], str]
"""Its key, its parent's, its name, begin, end, attributes, and why it failed (empty: it did not)."""


def _parts(order: Order, log: Sequence[Recorded]) -> Iterator[Part]:
    first, last, terms = log[0], log[-1], order.terms
    failure = f"{order.failure.code}: {order.failure.message}" if order.failure else ""
    swap = {
        "order.id": order.id,
        "order.client_order_id": order.client_order_id,
        "order.status": str(order.status),
        "order.token_in": terms.token_in.symbol,
        "order.token_out": terms.token_out.symbol,
        "order.in_amount": str(terms.in_amount),
        "order.attempts": order.attempt,
        "order.out_amount": str(order.fill.out_amount) if order.fill else None,
    }
    yield "order", "", "order", first.at_ms, last.at_ms, swap, failure
    attempt, is_open, phase, begun_ms, phase_ms = 0, False, "pending", first.at_ms, first.at_ms
    attributes: dict[str, Any] = {}
    for record in log[1:]:
        event = record.event
        parent = f"attempt {attempt}" if is_open else "order"
        yield f"{phase} up to {record.seq}", parent, phase, phase_ms, record.at_ms, {}, ""
        match event:
            case RoutingStarted(number):
                attempt, is_open, begun_ms, attributes = number, True, record.at_ms, {"attempt": number}
            case RouteSelected(route):
                attributes |= {"venue": route.quote.venue, "pool": route.quote.pool, "reason": route.reason}
            case TransactionSigned(transaction):
                attributes["signature"] = transaction.signature
            case _:
                pass
        if is_open and (isinstance(event, AttemptFailed) or record is last):
            is_open = False
            ended = event.failure if isinstance(event, AttemptFailed | Failed) else None
            why = f"{ended.code}: {ended.message}" if ended else ""
            key = f"attempt {attempt}"
            yield key, "order", key, begun_ms, record.at_ms, attributes, why
        phase, phase_ms = str(record.status), record.at_ms
