"""Where the parts meet: settings in, a running engine out. Nothing else builds anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from starlette.types import ASGIApp

from fillwright.api.access import Access, AccessSettings
from fillwright.api.feed import Streams
from fillwright.api.http import HttpApi, HttpSettings, application
from fillwright.api.stream import StreamApi, StreamSettings
from fillwright.api.webhooks import Webhooks, WebhookSettings
from fillwright.api.wire import Json, preview_view
from fillwright.backends import open_bus, open_store
from fillwright.backends.memory import MemoryBus
from fillwright.chain.paper import PaperChain
from fillwright.chain.simulated import ChainSettings, Ledger, SimulatedChain
from fillwright.clock import SystemClock
from fillwright.core.control import LOCAL_ACCOUNT
from fillwright.core.errors import MissingExtra, WrongChain
from fillwright.core.ports import Bus, Chain, Clock, OrderRequest, Prices, Store, Venue
from fillwright.core.retry import RetryPolicy
from fillwright.core.tokens import TokenRegistry
from fillwright.execution.executor import Executor, ExecutorSettings
from fillwright.execution.gate import Gate
from fillwright.execution.intake import Intake
from fillwright.execution.risk import Risk
from fillwright.execution.worker import Worker, WorkerSettings
from fillwright.metrics import Metrics
from fillwright.settings import Settings
from fillwright.telemetry import log_orders
from fillwright.venues import VENUES
from fillwright.venues.simulated import Market, MarketSettings, SimulatedPrices

if TYPE_CHECKING:
    from fillwright.solana import Solana


@dataclass(frozen=True, slots=True)
class Parts:
    """What every process of an engine has, whatever it does. `here` carries the news of this process alone."""

    settings: Settings
    clock: Clock
    store: Store
    bus: Bus
    here: Bus
    metrics: Metrics
    venues: Sequence[Venue]
    tokens: TokenRegistry
    gate: Gate
    risk: Risk
    intake: Intake
    solana: Solana | None = None


@dataclass(frozen=True, slots=True)
class Api:
    """The way in: the ASGI application and the streams behind it."""

    streams: Streams
    asgi: ASGIApp


@dataclass(frozen=True, slots=True)
class Engine:
    """A whole engine in one process, for those who drive its parts themselves."""

    store: Store
    bus: Bus
    intake: Intake
    gate: Gate
    chain: Chain
    worker: Worker
    streams: Streams
    asgi: ASGIApp


@contextlib.asynccontextmanager
async def open_parts(settings: Settings, clock: Clock | None = None, *, threaded: bool = True) -> AsyncIterator[Parts]:
    """Open store and bus. Whoever has built all that listens calls `bus.start()`."""
    clock = clock or SystemClock()
    async with contextlib.AsyncExitStack() as opened:
        here = MemoryBus()
        log_orders(here)
        store = await open_store(
            settings.database_url,
            clock=clock,
            committed=here.publish,
            capacity=settings.queue_capacity,
            lease_ms=settings.lease_ms,
            starts_per_minute=settings.queue_rate_limit,
            threaded=threaded,
            writers=settings.postgres_writers,
            readers=settings.postgres_readers,
            timeout_ms=settings.postgres_timeout_ms,
            patience_ms=settings.postgres_patience_ms,
        )
        opened.push_async_callback(store.close)
        # Engines that share a Redis must not hear each other: what joins processes is their database.
        bus = open_bus(settings.redis_url, here, await store.pin("bus", uuid4().hex))
        opened.push_async_callback(bus.close)
        gate = Gate(store, clock)
        await gate.open()
        opened.push_async_callback(gate.close)
        metrics = Metrics(store, gate, clock)
        if settings.metrics == "on":
            here.subscribe(metrics.hear)
            metrics.watch(
                "bus_fault", "Whether news between processes comes by polling.", lambda: bus.fault is not None
            )
        solana: Solana | None = None
        if settings.mode != "simulated":
            solana = await opened.enter_async_context(open_solana(settings, clock, metrics))
        venues, prices, tokens = open_market(settings, clock) if solana is None else solana.market
        risk = Risk(gate, store, venues, prices, clock, settings.quote_deadline_ms)
        intake = Intake(store, venues, tokens, clock, settings.quote_deadline_ms, gate, risk)
        yield Parts(settings, clock, store, bus, here, metrics, venues, tokens, gate, risk, intake, solana)


@contextlib.asynccontextmanager
async def open_worker(
    parts: Parts, *, name: str = "", chance: Callable[[], float] = random.random
) -> AsyncIterator[tuple[Worker, Chain]]:
    """Build a worker and the chain that it works on; it is not yet running."""
    settings, clock = parts.settings, parts.clock
    async with open_chain_of(parts) as chain:
        await check_chain(parts.store, chain, settings)
        if parts.solana is not None:
            await parts.solana.watch_again(chain, parts.store, clock)
        executor = Executor(
            parts.venues,
            chain,
            clock,
            RetryPolicy(settings.attempts_max, settings.retry_delay_ms, settings.retry_delay_max_ms),
            parts.risk,
            ExecutorSettings(
                quote_deadline_ms=settings.quote_deadline_ms,
                outcome_poll_ms=settings.outcome_poll_ms,
                resend_ms=settings.resend_ms,
                chain_deadline_ms=settings.chain_deadline_ms,
            ),
            chance,
        )
        worker_settings = WorkerSettings(
            name=name or f"{socket.gethostname()}-{os.getpid()}",
            concurrency=settings.queue_concurrency,
            lease_ms=settings.lease_ms,
            poll_ms=settings.poll_ms,
            stop_ms=settings.stop_ms,
        )
        worker = Worker(parts.store, executor, parts.bus, clock, parts.gate, worker_settings)
        parts.metrics.watch("worker_orders", "Orders that this worker holds.", lambda: worker.in_hand)
        parts.metrics.watch(
            "leases_run_out",
            "Leases that ran out before their orders rested.",
            lambda: worker.leases_run_out,
            counts=True,
        )
        yield worker, chain


@contextlib.asynccontextmanager
async def open_chain_of(parts: Parts) -> AsyncIterator[Chain]:
    """Open the chain that the settings name, with the wallet if it is one that is signed for."""
    settings, solana = parts.settings, parts.solana
    if solana is not None and settings.mode != "paper":
        async with solana.trading(settings, parts.clock, await parts.gate.control(), parts.metrics) as chain:
            yield chain
        return
    ledger = open_ledger(settings, parts.clock)
    try:
        if solana is None:
            yield open_chain(settings, ledger, parts.clock)
        else:
            structlog.get_logger().info("chain.paper", what="quotes real pools, and signs and sends nothing")
            yield PaperChain(ledger, chain_settings(settings), parts.clock, solana.pools)
    finally:
        ledger.close()


def webhook_settings(settings: Settings) -> WebhookSettings:
    return WebhookSettings(
        settings.webhook_secret,
        settings.webhook_attempts_max,
        settings.webhook_timeout_ms,
        settings.webhook_private == "on",
    )


@contextlib.asynccontextmanager
async def webhooks(parts: Parts) -> AsyncIterator[None]:
    """Deliver to webhooks, if this process is to."""
    if parts.settings.webhook_delivery == "off":
        yield
        return
    deliverer = Webhooks(parts.store, parts.gate, parts.here, parts.clock, webhook_settings(parts.settings))
    deliveries = parts.metrics
    deliveries.watch("webhook_deliveries", "Events that webhooks took.", lambda: deliverer.delivered, counts=True)
    deliveries.watch("webhook_failures", "Deliveries that were not taken.", lambda: deliverer.failed, counts=True)
    delivering = asyncio.create_task(deliverer.run())
    try:
        yield
    finally:
        deliverer.stop()
        await asyncio.gather(delivering, return_exceptions=True)


@contextlib.asynccontextmanager
async def tracing(parts: Parts) -> AsyncIterator[None]:
    """Send traces of orders, if they are asked for. Raise MissingExtra if what makes them is not installed."""
    if not parts.settings.traces_url:
        yield
        return
    from fillwright.tracing import Tracing

    try:
        traces = Tracing(parts.store, parts.here, parts.settings.traces_url)
    except ImportError as error:
        raise MissingExtra("FILLWRIGHT_TRACES_URL is set: traces need pip install 'fillwright[traces]'") from error
    sending = asyncio.create_task(traces.run())
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await traces.close()


def open_streams(parts: Parts) -> Streams:
    settings, watch = parts.settings, parts.metrics.watch
    streams = Streams(
        parts.store, parts.bus, parts.clock, backlog_max=settings.stream_backlog_max, poll_ms=settings.poll_ms
    )
    watch("stream_backlog", "Messages that wait until streams take them.", lambda: sum(streams.backlogs()))
    watch("stream_backlog_largest", "The most that one stream has waiting.", lambda: max(streams.backlogs(), default=0))
    return streams


def open_api(parts: Parts) -> Api:
    settings, streams = parts.settings, open_streams(parts)
    stream_api = StreamApi(streams, parts.intake, parts.clock, StreamSettings(settings.stream_connections_max))
    origins = _listed(settings.origins) | ({settings.public_url.rstrip("/")} if settings.public_url else set())
    access_settings = AccessSettings(origins, settings.key_requests_per_minute)
    http_settings = HttpSettings(
        settings.body_max_bytes,
        settings.public_url,
        _listed(settings.trusted_proxies),
        settings.fast_lane == "on",
    )
    http = HttpApi(
        parts.store,
        parts.bus,
        parts.intake,
        streams,
        stream_api,
        Access(parts.gate, parts.store, parts.clock, access_settings),
        parts.gate,
        parts.tokens,
        parts.clock,
        webhook_settings(settings),
        parts.metrics if settings.metrics == "on" else None,
        http_settings,
    )
    parts.metrics.watch("streams", "Streams that are open.", lambda: streams.connections)
    parts.metrics.watch(
        "streams_overrun", "Streams closed because their backlog was full.", lambda: stream_api.overruns, counts=True
    )
    return Api(streams, application(http))


@contextlib.asynccontextmanager
async def open_engine(
    settings: Settings,
    clock: Clock | None = None,
    *,
    threaded: bool = True,
    worker_name: str = "",
    chance: Callable[[], float] = random.random,
) -> AsyncIterator[Engine]:
    """Build a whole engine; its worker is not yet running. Closes what it opened."""
    async with (
        open_parts(settings, clock, threaded=threaded) as parts,
        open_worker(parts, name=worker_name, chance=chance) as (worker, chain),
        webhooks(parts),
    ):
        api = open_api(parts)
        parts.bus.start()
        yield Engine(parts.store, parts.bus, parts.intake, parts.gate, chain, worker, api.streams, api.asgi)


def _listed(text: str) -> frozenset[str]:
    return frozenset(item.strip() for item in text.split(",") if item.strip())


async def check_chain(store: Store, chain: Chain, settings: Settings) -> None:
    """Raise WrongChain if the store's orders are on another chain: what this one does not know may be on that one."""
    pinned = await store.pin("chain", chain.identity)
    if pinned != chain.identity:
        raise _wrong_chain(pinned, chain.identity, Path(settings.ledger_path))


def _wrong_chain(pinned: str, found: str, ledger: Path) -> WrongChain:
    if found.startswith("solana:"):
        return WrongChain(
            f"the orders in this database are on the chain {pinned}, and nodes and wallet are those of {found}: set"
            " DATABASE_URL to a database of this chain and wallet, a new one if there is none"
        )
    return WrongChain(
        f"the orders in this database are on the chain {pinned}, and the record at {ledger.absolute()} is that of"
        f" {found}; set FILLWRIGHT_SIM_LEDGER to the file that the database's other processes use, or DATABASE_URL to"
        " the database that belongs to this one"
    )


def open_market(settings: Settings, clock: Clock) -> tuple[list[Venue], Prices, TokenRegistry]:
    """Return what is asked for quotes, what tokens are worth, and which tokens there are.

    Raise InvalidSnapshot if pools are to be read from files that cannot be.
    """
    if settings.pools:
        from fillwright.solana import open_snapshots  # nor is this, without pools

        return open_snapshots(settings)
    market = Market(
        MarketSettings(
            fee_bps={"raydium": settings.sim_raydium_fee_bps, "meteora": settings.sim_meteora_fee_bps},
            seed=settings.sim_seed,
            speed=settings.sim_speed,
            quote_delay_ms=settings.sim_quote_delay_ms,
            difference_bps_min=settings.sim_difference_min_bps,
            difference_bps_max=settings.sim_difference_max_bps,
            quote_error_rate=settings.sim_quote_error_rate,
            venue_down_rate=settings.sim_venue_down_rate,
        )
    )
    venues = [make(name, market, clock) for name, make in VENUES.items()]
    return venues, SimulatedPrices(market, clock), TokenRegistry()


@contextlib.asynccontextmanager
async def open_solana(settings: Settings, clock: Clock, metrics: Metrics | None = None) -> AsyncIterator[Solana]:
    """Reach the chain that the settings name. Raise what `connect` does."""
    from fillwright.solana import connect  # what only real chains need is not loaded for the simulated one

    async with connect(settings, clock, metrics) as solana:
        yield solana


async def preview(settings: Settings, request: OrderRequest) -> Json:
    """Return what the API would of the route that an order would take now. Raise Denied or ExecutionError."""
    async with open_parts(settings) as parts:
        return preview_view(await parts.intake.quote(request, LOCAL_ACCOUNT))


def open_ledger(settings: Settings, clock: Clock, *, read_only: bool = False) -> Ledger:
    """Open the simulated chain's record; `read_only` leaves the pace of its blocks as it is."""
    return Ledger(settings.ledger_path, clock, None if read_only else settings.sim_speed)


def open_chain(settings: Settings, ledger: Ledger, clock: Clock) -> SimulatedChain:
    return SimulatedChain(ledger, chain_settings(settings), clock)


def chain_settings(settings: Settings) -> ChainSettings:
    return ChainSettings(
        seed=settings.sim_seed,
        speed=settings.sim_speed,
        execution_ms_min=settings.sim_execution_min_ms,
        execution_ms_max=settings.sim_execution_max_ms,
        slippage_exceeded_rate=settings.sim_slippage_exceeded_rate,
        reverted_rate=settings.sim_reverted_rate,
        dropped_rate=settings.sim_dropped_rate,
        late_rate=settings.sim_late_rate,
        reply_lost_rate=settings.sim_reply_lost_rate,
    )
