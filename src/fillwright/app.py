"""Where the parts meet: settings in, a running engine out. Nothing else builds anything."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from fillwright.api.access import Access, AccessSettings
from fillwright.api.feed import Streams
from fillwright.api.http import HttpApi, HttpSettings, application
from fillwright.api.protocol import HttpProtocol, WebSocketProtocol
from fillwright.api.stream import StreamApi, StreamSettings
from fillwright.api.webhooks import Webhooks, WebhookSettings
from fillwright.api.wire import Json, preview_view
from fillwright.backends import open_bus, open_store
from fillwright.backends.memory import MemoryBus
from fillwright.chain.simulated import ChainSettings, Ledger, SimulatedChain
from fillwright.clock import SystemClock
from fillwright.core.control import LOCAL_ACCOUNT
from fillwright.core.errors import Exposed, MissingExtra, WrongChain
from fillwright.core.ports import Bus, Chain, Clock, OrderRequest, Prices, Store, Venue
from fillwright.core.retry import RetryPolicy
from fillwright.core.tokens import TokenRegistry
from fillwright.execution.executor import Executor, ExecutorSettings
from fillwright.execution.gate import Gate
from fillwright.execution.intake import Intake
from fillwright.execution.risk import Risk
from fillwright.execution.worker import Worker, WorkerSettings
from fillwright.metrics import Metrics
from fillwright.settings import Settings, without_password
from fillwright.telemetry import log_orders
from fillwright.venues import VENUES
from fillwright.venues.simulated import Market, MarketSettings, SimulatedPrices

if TYPE_CHECKING:
    from fillwright.solana import Solana

BACKLOG: Final = 2048
GC_THRESHOLD: Final = 10_000


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
        yield open_chain(settings, ledger, parts.clock)
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


@contextlib.asynccontextmanager
async def telling(metrics: Metrics, settings: Settings) -> AsyncIterator[None]:
    """Watch the event loop, and tell Prometheus of this process at a port of its own, if there is one."""
    if settings.metrics == "off":
        yield
        return

    async def answer(scope: Scope, _: Receive, send: Send) -> None:
        status, body, media_type = 200, b"", "text/plain"
        match scope["path"]:
            case "/metrics":
                body, media_type = await metrics.text()
            case "/health/live":
                body = b"ok"
            case _:
                status = 404
        headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with metrics.watching_the_loop():
        if not settings.metrics_port:
            yield
            return
        with _listen_for_metrics(settings) as listener:
            config = uvicorn.Config(
                answer, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False, workers=1
            )
            server = Quiet(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = True
                await asyncio.gather(serving, return_exceptions=True)


def _listen_for_metrics(settings: Settings) -> socket.socket:
    try:
        return listen(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        where = f"{settings.metrics_host}, port {settings.metrics_port}"
        why = f"cannot tell metrics on {where}: {error.strerror}; set FILLWRIGHT_METRICS_PORT to another"
        raise OSError(error.errno, why) from error


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


async def check_exposure(gate: Gate, listener: socket.socket) -> None:
    """Raise Exposed if others than this machine's users reach `listener`, and nothing asks them for a key."""
    address, control = listener.getsockname()[0], await gate.control()
    if not ip_address(address).is_loopback and not control.demands_keys:
        raise Exposed(
            f"listening on {address} without keys would let anybody on the network trade: make a key first, with"
            " `fillwright keys create NAME`, or set HOST to 127.0.0.1"
        )


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
    return SimulatedChain(
        ledger,
        ChainSettings(
            seed=settings.sim_seed,
            speed=settings.sim_speed,
            execution_ms_min=settings.sim_execution_min_ms,
            execution_ms_max=settings.sim_execution_max_ms,
            slippage_exceeded_rate=settings.sim_slippage_exceeded_rate,
            reverted_rate=settings.sim_reverted_rate,
            dropped_rate=settings.sim_dropped_rate,
            late_rate=settings.sim_late_rate,
            reply_lost_rate=settings.sim_reply_lost_rate,
            fills_as_quoted=settings.mode == "paper",
        ),
        clock,
    )


class Quiet(uvicorn.Server):
    """Uvicorn, which leaves signals alone: whoever runs it hears them, and has work to finish after it has gone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server(Quiet):
    """Uvicorn, which tells worker and streams to end before it waits for its connections to."""

    def __init__(self, api: Api | Engine, worker: Worker | None, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                api.asgi,
                host=settings.host,
                port=settings.port,
                http=HttpProtocol,
                ws=WebSocketProtocol,
                interface="asgi3",
                ws_max_size=settings.body_max_bytes,
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._streams = api.streams
        self._worker = worker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._worker is not None:
            self._worker.stop()
        self._streams.close()
        await super().shutdown(sockets)


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a listening socket. Raise OSError if the address cannot be had.

    `shared` lets others listen on the same port, as long as they say so, too; the system spreads the connections.
    Its protocol is named: asyncio turns Nagle's delay off only on sockets that say they are TCP.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


async def serve(
    settings: Settings,
    listener: socket.socket,
    *,
    works: bool = True,
    listening: Callable[[int], None] = lambda _: None,
) -> None:
    """Run the API on `listener`, and a worker if `works`, until the process is told to stop.

    `listening` is called with the port once requests are answered.
    """
    log = structlog.get_logger()
    async with contextlib.AsyncExitStack() as opened:
        parts = await opened.enter_async_context(open_parts(settings))
        await check_exposure(parts.gate, listener)
        await opened.enter_async_context(telling(parts.metrics, settings))
        await opened.enter_async_context(tracing(parts))
        api, worker, working = open_api(parts), None, None
        if works:
            worker, _ = await opened.enter_async_context(open_worker(parts))
            await opened.enter_async_context(webhooks(parts))
        server = Server(api, worker, settings)
        parts.bus.start()
        if worker is not None:
            working = asyncio.create_task(worker.run())
            working.add_done_callback(lambda _: server.handle_exit(signal.SIGTERM, None))  # no engine without it
        _on_stop(lambda number: server.handle_exit(number, None))
        _settle_memory()
        port = listener.getsockname()[1]
        try:
            log.info(
                "engine.listening",
                url=f"http://{settings.host}:{port}",
                database=without_password(settings.database_url),
                worker=works,
            )
            listening(port)
            await server.serve(sockets=[listener])
        finally:
            if worker is not None and working is not None:
                worker.stop()
                await working
            log.info("engine.stopped")


async def work(settings: Settings, working: Callable[[], None] = lambda: None) -> None:
    """Run a worker until the process is told to stop. `working` is called once it works."""
    log = structlog.get_logger()
    async with (
        open_parts(settings) as parts,
        tracing(parts),
        open_worker(parts) as (worker, _),
        webhooks(parts),
        telling(parts.metrics, settings),
    ):
        parts.bus.start()
        _on_stop(lambda _: worker.stop())
        _settle_memory()
        log.info(
            "worker.started",
            database=without_password(settings.database_url),
            concurrency=settings.queue_concurrency,
        )
        working()
        await worker.run()
        log.info("worker.stopped")


async def bridge(settings: Settings, taking: Callable[[], None] = lambda: None) -> None:
    """Work a BullMQ queue off until the process is told to stop; `taking` is called once jobs are taken.

    Raise ConnectionError if Redis does not answer.
    """
    # Here, so that `serve` does not carry what only the bridge needs.
    from fillwright.api.bullmq import Bridge, BridgeSettings
    from fillwright.api.job_queue import JobQueue

    async with open_parts(settings) as parts, telling(parts.metrics, settings):
        jobs = JobQueue(
            settings.redis_url, settings.bullmq_queue, settings.bullmq_prefix, settings.bullmq_lock_ms, parts.clock
        )
        limits = BridgeSettings(settings.bullmq_concurrency, settings.bullmq_lock_ms, settings.stop_ms)
        bridge = Bridge(parts.intake, open_streams(parts), parts.store, jobs, parts.clock, limits)
        parts.bus.start()
        _on_stop(lambda _: bridge.stop())
        _settle_memory()
        try:
            await bridge.run(taking)
        finally:
            await jobs.close()


def _on_stop(stop: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)


def _settle_memory() -> None:
    """What is there now stays: no need to look through it for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
