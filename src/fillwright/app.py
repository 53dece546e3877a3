"""Where the parts meet: settings in, a running engine out. Nothing else builds anything."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from fillwright.api.feed import Streams
from fillwright.api.http import HttpApi, HttpSettings, application
from fillwright.api.protocol import HttpProtocol, WebSocketProtocol
from fillwright.api.stream import StreamApi, StreamSettings
from fillwright.backends import open_bus, open_store
from fillwright.chain.simulated import ChainSettings, Ledger, SimulatedChain
from fillwright.clock import SystemClock
from fillwright.core.errors import WrongChain
from fillwright.core.ports import Bus, Chain, Clock, Store, Venue
from fillwright.core.retry import RetryPolicy
from fillwright.core.tokens import TokenRegistry
from fillwright.execution.executor import Executor, ExecutorSettings
from fillwright.execution.intake import Intake
from fillwright.execution.worker import Worker, WorkerSettings
from fillwright.settings import Settings
from fillwright.telemetry import log_orders
from fillwright.venues import VENUES
from fillwright.venues.simulated import Market, MarketSettings

BACKLOG: Final = 2048
GC_THRESHOLD: Final = 10_000


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts that others drive."""

    store: Store
    bus: Bus
    chain: Chain
    worker: Worker
    streams: Streams
    asgi: ASGIApp


@contextlib.asynccontextmanager
async def open_engine(
    settings: Settings,
    clock: Clock | None = None,
    *,
    threaded: bool = True,
    worker_name: str = "",
    chance: Callable[[], float] = random.random,
) -> AsyncIterator[Engine]:
    """Build an engine; its worker is not yet running. Closes what it opened."""
    clock = clock or SystemClock()
    bus = open_bus()
    async with contextlib.AsyncExitStack() as opened:
        store = open_store(
            settings.database_url,
            clock=clock,
            committed=bus.publish,
            capacity=settings.queue_capacity,
            lease_ms=settings.lease_ms,
            starts_per_minute=settings.queue_rate_limit,
            threaded=threaded,
        )
        opened.push_async_callback(store.close)
        log_orders(bus)
        ledger = open_ledger(settings, clock)
        opened.callback(ledger.close)
        chain = open_chain(settings, ledger, clock)
        await _check_chain(store, chain)
        venues = open_venues(settings, clock)
        executor = Executor(
            venues,
            chain,
            clock,
            RetryPolicy(settings.attempts_max, settings.retry_delay_ms, settings.retry_delay_max_ms),
            ExecutorSettings(
                quote_deadline_ms=settings.quote_deadline_ms,
                outcome_poll_ms=settings.outcome_poll_ms,
                resend_ms=settings.resend_ms,
                chain_deadline_ms=settings.chain_deadline_ms,
            ),
            chance,
        )
        worker_settings = WorkerSettings(
            name=worker_name or f"{socket.gethostname()}-{os.getpid()}",
            concurrency=settings.queue_concurrency,
            lease_ms=settings.lease_ms,
            poll_ms=settings.poll_ms,
            stop_ms=settings.stop_ms,
        )
        worker = Worker(store, executor, bus, clock, worker_settings)
        tokens = TokenRegistry()
        intake = Intake(store, venues, tokens, clock, settings.quote_deadline_ms)
        streams = Streams(store, bus, backlog_max=settings.stream_backlog_max, poll_ms=settings.poll_ms)
        stream_api = StreamApi(streams, intake, clock, StreamSettings(settings.stream_connections_max))
        http_settings = HttpSettings(
            settings.body_max_bytes,
            settings.public_url,
            frozenset(address.strip() for address in settings.trusted_proxies.split(",") if address.strip()),
        )
        http = HttpApi(store, intake, streams, stream_api, tokens, clock, http_settings)
        yield Engine(store, bus, chain, worker, streams, application(http))


async def _check_chain(store: Store, chain: Chain) -> None:
    """Raise WrongChain if the store's orders are on another chain: what this one does not know may be on that one."""
    pinned = await store.pin("chain", chain.identity)
    if pinned != chain.identity:
        raise WrongChain(
            f"the orders in this database are on the chain {pinned}, and the chain that is set is {chain.identity};"
            " set the database or the chain's record (FILLWRIGHT_SIM_LEDGER) that belongs to it"
        )


def open_venues(settings: Settings, clock: Clock) -> list[Venue]:
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
    return [make(name, market, clock) for name, make in VENUES.items()]


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
        ),
        clock,
    )


class Server(uvicorn.Server):
    """Uvicorn, which tells worker and streams to end before it waits for its connections to."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                engine.asgi,
                host=settings.host,
                port=settings.port,
                http=HttpProtocol,
                ws=WebSocketProtocol,
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
        self._engine = engine

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `serve` hears them, and has work to finish after the server has gone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._engine.worker.stop()
        self._engine.streams.close()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raise OSError if the address cannot be had.

    Its protocol is named: asyncio turns Nagle's delay off only on sockets that say they are TCP.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


async def serve(settings: Settings, listening: Callable[[int], None] = lambda _: None) -> None:
    """Run an engine until the process is told to stop. `listening` is called with the port once it is open."""
    log = structlog.get_logger()
    # The port first: a start that fails because another engine has it must leave that engine's files alone.
    with listen(settings.host, settings.port) as listener:
        async with open_engine(settings) as engine:
            server = Server(engine, settings)
            port = listener.getsockname()[1]
            working = asyncio.create_task(engine.worker.run())
            working.add_done_callback(lambda _: server.handle_exit(signal.SIGTERM, None))  # no engine without a worker
            loop = asyncio.get_running_loop()
            for signal_number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(signal_number, server.handle_exit, signal_number, None)
            gc.collect()
            gc.freeze()  # what is there now stays: no need to look through it again and again
            gc.set_threshold(GC_THRESHOLD, 20, 20)
            try:
                log.info("engine.listening", url=f"http://{settings.host}:{port}", database=settings.database_url)
                listening(port)
                await server.serve(sockets=[listener])
            finally:
                engine.worker.stop()
                await working
                log.info("engine.stopped")
