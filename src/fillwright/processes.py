"""The engine's processes, each from its start until it is told to stop: API, worker, bridge."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from typing import Final

import structlog
import uvicorn
from starlette.types import Receive, Scope, Send

from fillwright.api.protocol import HttpProtocol, WebSocketProtocol
from fillwright.app import Api, Engine, open_api, open_parts, open_streams, open_worker, tracing, webhooks
from fillwright.core.errors import Exposed
from fillwright.execution.gate import Gate
from fillwright.execution.worker import Worker
from fillwright.metrics import Metrics
from fillwright.settings import Settings, without_password

BACKLOG: Final = 2048
GC_THRESHOLD: Final = 10_000


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


async def check_exposure(gate: Gate, listener: socket.socket) -> None:
    """Raise Exposed if others than this machine's users reach `listener`, and nothing asks them for a key."""
    address, control = listener.getsockname()[0], await gate.control()
    if not ip_address(address).is_loopback and not control.demands_keys:
        raise Exposed(
            f"listening on {address} without keys would let anybody on the network trade: make a key first, with"
            " `fillwright keys create NAME`, or set HOST to 127.0.0.1"
        )


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


def _on_stop(stop: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)


def _settle_memory() -> None:
    """What is there now stays: no need to look through it for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
