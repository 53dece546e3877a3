"""What Prometheus is told of a process: counted here, written out when it asks.

Whatever happens to orders is heard on the bus, of this process's own commits alone: the sum over all processes is what
happened, each event once. Counting costs a few additions; the library makes the text, and is loaded when it is first
asked for. What is true of the engine as a whole (the queue, the orders in the database) every process reads there.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from fillwright import __version__
from fillwright.core.errors import StoreError
from fillwright.core.lifecycle import (
    AttemptFailed,
    Cancelled,
    Confirmed,
    Expired,
    Failed,
    RouteSelected,
    RoutingStarted,
    TransactionSigned,
    Update,
)
from fillwright.core.ports import Clock, Gate, QueueCounts, Store
from fillwright.core.units import Millis, OrderId, difference_bps

if TYPE_CHECKING:
    from prometheus_client.core import Metric

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
BPS_BOUNDS: Final = (-500.0, -100.0, -50.0, -20.0, -10.0, -5.0, -1.0, 0.0, 1.0, 5.0, 10.0, 50.0)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
LOOK_S: Final = 0.25  # between two looks at how late the event loop is
IN_HAND_MAX: Final = 10_000


class Distribution:
    """How many values were at most each of some bounds, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return what Prometheus wants: each bound with how many values were up to it, and the sum of all."""
        so_far, buckets = 0, list[tuple[str, float]]()
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        return buckets, self._sum


class Metrics:
    """`watch` is for what the parts of a process know of themselves."""

    def __init__(self, store: Store, gate: Gate, clock: Clock) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._events: Counter[type] = Counter()
        self._attempts_failed: Counter[str] = Counter()
        self._orders_failed: Counter[str] = Counter()
        self._routes: Counter[str] = Counter()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._phases = {
            phase: Distribution(SECONDS) for phase in ("pending", "routing", "building", "submitted", "whole")
        }
        self._quote_seconds: dict[str, Distribution] = {}
        self._quote_to_fill = Distribution(BPS_BOUNDS)
        self._commits = Distribution(SIZES)
        self._lag = Distribution(LAG_S)
        self._in_phase: dict[OrderId, tuple[str, Millis]] = {}  # the orders in hand: their phase, and since when
        self._node_calls: Counter[tuple[str, str, str]] = Counter()
        self._node_seconds: dict[str, Distribution] = {}
        self._watched: list[tuple[str, str, str, Callable[[], float]]] = []

    def watch(self, name: str, meaning: str, read: Callable[[], float], *, counts: bool = False) -> None:
        """Tell what `read` returns under a name: what there is now, or, if it `counts`, all that there ever was."""
        self._watched.append(("counter" if counts else "gauge", name, meaning, read))

    def hear_node(self, endpoint: str, method: str, outcome: str, took_s: float) -> None:
        """Count an exchange with a node of the chain."""
        self._node_calls[endpoint, method, outcome] += 1
        self._node_seconds.setdefault(method, Distribution(SECONDS)).add(took_s)

    def hear(self, updates: Sequence[Update]) -> None:
        """Count one commit of this process."""
        self._commits.add(len(updates))
        for update in updates:
            record, order = update.record, update.order
            event, at_ms = record.event, record.at_ms
            self._events[type(event)] += 1
            match event:
                case RoutingStarted(attempt):
                    if attempt == 1:
                        self._phases["pending"].add((at_ms - order.created_at_ms) / 1000)
                    if len(self._in_phase) < IN_HAND_MAX:
                        self._in_phase[order.id] = "routing", at_ms
                case RouteSelected(route):
                    asked_at_ms = self._passed(order.id, at_ms, "building")
                    self._routes[route.quote.venue] += 1
                    self._answers[route.quote.venue, "selected"] += 1
                    for passed in route.passed_over:
                        self._answers[passed.venue, passed.code] += 1
                    if asked_at_ms is not None:
                        for quote in (route.quote, *(passed.quote for passed in route.passed_over)):
                            if quote is not None:
                                took_ms = max(0, quote.quoted_at_ms - asked_at_ms)
                                self._quotes_of(quote.venue).add(took_ms / 1000)
                case TransactionSigned():
                    self._passed(order.id, at_ms, "submitted")
                case Confirmed(fill):
                    self._passed(order.id, at_ms)
                    self._phases["whole"].add((at_ms - order.created_at_ms) / 1000)
                    if order.route is not None:
                        self._quote_to_fill.add(difference_bps(fill.out_amount, order.route.quote.out_amount))
                case AttemptFailed(_, failure):
                    self._passed(order.id, at_ms)
                    self._attempts_failed[failure.code] += 1
                case Failed(_, failure):
                    self._passed(order.id, at_ms)
                    self._attempts_failed[failure.code] += 1
                    self._orders_failed[failure.code] += 1
                case Cancelled() | Expired():
                    self._passed(order.id, at_ms)
                case _:
                    pass

    @asynccontextmanager
    async def watching_the_loop(self) -> AsyncIterator[None]:
        """Note again and again how late the event loop is with what is due."""

        async def look() -> None:
            loop = asyncio.get_running_loop()
            while True:
                due = loop.time() + LOOK_S
                await asyncio.sleep(LOOK_S)
                self._lag.add(max(0.0, loop.time() - due))

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def text(self) -> tuple[bytes, str]:
        """Return everything as Prometheus reads it, and its media type; without the database's part if that is away."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector

        try:
            counts: QueueCounts | None = await self._store.counts()
            mode = str((await self._gate.control()).mode)
        except StoreError:
            counts, mode = None, "unknown"
        families = [*self._families(), *self._of_the_engine(counts, mode)]

        class Once(Collector):
            def collect(self) -> Iterator[Metric]:
                yield from families

        registry = CollectorRegistry()
        registry.register(Once())
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def _passed(self, order_id: OrderId, at_ms: Millis, into: str = "") -> Millis | None:
        """Note that an order has left its phase; return when it came into that, None if that was elsewhere."""
        phase, since_ms = self._in_phase.pop(order_id, ("", None))
        if since_ms is None:
            return None
        self._phases[phase].add((at_ms - since_ms) / 1000)
        if into:
            self._in_phase[order_id] = into, at_ms
        return since_ms

    def _quotes_of(self, venue: str) -> Distribution:
        return self._quote_seconds.setdefault(venue, Distribution(SECONDS))

    def _families(self) -> Iterator[Metric]:
        """Yield what this process has counted."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def counter(name: str, meaning: str, label: str, counts: dict[str, int]) -> Metric:
            family = CounterMetricFamily(f"fillwright_{name}", meaning, labels=[label])
            for value, count in sorted(counts.items()):
                family.add_metric([value], count)
            return family

        def histogram(name: str, meaning: str, label: str, values: dict[str, Distribution]) -> Metric:
            family = HistogramMetricFamily(f"fillwright_{name}", meaning, labels=[label] if label else [])
            for value, distribution in values.items():
                family.add_metric([value] if label else [], *distribution.buckets())
            return family

        info = GaugeMetricFamily("fillwright_info", "The version that runs.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        events = {event.__name__: count for event, count in self._events.items()}
        yield counter("events", "Events that this process has committed.", "event", events)
        yield counter("attempts_failed", "Attempts that failed, by why.", "code", self._attempts_failed)
        yield counter("orders_failed", "Orders that failed, by why.", "code", self._orders_failed)
        yield counter("routes", "Orders routed, by the venue that got them.", "venue", self._routes)
        answers = CounterMetricFamily("fillwright_venue_answers", "What became of quotes.", labels=["venue", "code"])
        for (venue, code), count in sorted(self._answers.items()):
            answers.add_metric([venue, code], count)
        yield answers
        calls = CounterMetricFamily(
            "fillwright_node_calls", "Calls to nodes of the chain.", labels=["node", "method", "outcome"]
        )
        for of, count in sorted(self._node_calls.items()):
            calls.add_metric(of, count)
        yield calls
        yield histogram("node_call_seconds", "How long nodes took to answer.", "method", self._node_seconds)
        yield histogram("phase_seconds", "How long orders were in each phase.", "phase", self._phases)
        yield histogram("venue_quote_seconds", "How long venues took to quote.", "venue", self._quote_seconds)
        yield histogram("quote_to_fill_bps", "How much more than quoted was received.", "", {"": self._quote_to_fill})
        yield histogram("commit_events", "Events in one commit.", "", {"": self._commits})
        yield histogram("loop_lag_seconds", "How late the event loop was.", "", {"": self._lag})
        for kind, name, meaning, read in self._watched:
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            yield family(f"fillwright_{name}", meaning, value=read())

    def _of_the_engine(self, counts: QueueCounts | None, mode: str) -> Iterator[Metric]:
        """Yield what is true of the engine as a whole, whichever process is asked."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily("fillwright_store_up", "Whether the database answers.", value=counts is not None)
        yield up
        modes = GaugeMetricFamily("fillwright_mode", "The mode that is in force.", labels=["mode"])
        modes.add_metric([mode], 1)
        yield modes
        if counts is None:
            return
        queue = GaugeMetricFamily("fillwright_queue_orders", "Open orders, by what they wait for.", labels=["state"])
        for state, orders in (("waiting", counts.waiting), ("active", counts.active), ("delayed", counts.delayed)):
            queue.add_metric([state], orders)
        yield queue
        age_s = 0.0 if counts.oldest_due_ms is None else max(0, self._clock.now_ms() - counts.oldest_due_ms) / 1000
        yield GaugeMetricFamily(
            "fillwright_queue_oldest_due_seconds", "How long the oldest order that is due has waited.", value=age_s
        )
        stored = GaugeMetricFamily("fillwright_store_orders", "Orders in the database.", labels=["status"])
        for status, orders in (("all", counts.total), ("confirmed", counts.confirmed), ("failed", counts.failed)):
            stored.add_metric([status], orders)
        yield stored
