"""`fillwright all`: several processes as one command. It starts them, starts anew what ends, and ends them together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click
import structlog

from fillwright import processes
from fillwright.cli.exits import EXIT_CODES, settings_or_fail
from fillwright.cli.running import address_or_fail, shareable_or_fail
from fillwright.settings import Settings, env_name
from fillwright.telemetry import configure_logs

PAUSE_S: Final = 0.5  # before the second start of a process that ended within STEADY_S of its first, then twice as long
PAUSE_S_MAX: Final = 30.0
STEADY_S: Final = 10.0
STOP_MARGIN_S: Final = 5.0


@click.command(epilog=EXIT_CODES)
@click.option("--apis", type=click.IntRange(1, 64), default=1, show_default=True, help="API processes, on one port.")
@click.option("--workers", type=click.IntRange(0, 64), default=1, show_default=True, help="Worker processes.")
def command(apis: int, workers: int) -> None:
    """Run several API and worker processes on one port until told to stop.

    A process that ends by itself is started anew. Connections to an API process that died wait for its successor.
    """
    settings = settings_or_fail(os.environ)
    shareable_or_fail(settings)
    configure_logs(settings.log_level, settings.log_format)
    asyncio.run(_supervise(settings, apis, workers))


async def _supervise(settings: Settings, apis: int, workers: int) -> None:
    listeners = _listen(settings, apis)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        structlog.get_logger().info("all.started", port=listeners[0].getsockname()[1], apis=apis, workers=workers)
        commands: list[tuple[tuple[str, ...], tuple[int, ...]]]
        commands = [(("serve", "--api-only", "--listener", str(one.fileno())), (one.fileno(),)) for one in listeners]
        commands += [(("worker",), ())] * workers
        grace_s = settings.stop_ms / 1000 + STOP_MARGIN_S
        async with asyncio.TaskGroup() as group:
            for place, (arguments, files) in enumerate(commands):
                port = settings.metrics_port and settings.metrics_port + place
                environment = {**os.environ, env_name("metrics_port"): str(port)}
                group.create_task(_keep(arguments, files, environment, stop, grace_s))
    finally:
        for listener in listeners:
            listener.close()


def _listen(settings: Settings, count: int) -> list[socket.socket]:
    """Return as many sockets on one port. They stay open here: a process that dies takes no connection along."""
    first = address_or_fail(settings, shared=True)
    port = first.getsockname()[1]
    return [first, *(processes.listen(settings.host, port, shared=True) for _ in range(count - 1))]


async def _keep(
    arguments: Sequence[str],
    files: Sequence[int],
    environment: Mapping[str, str],
    stop: asyncio.Event,
    grace_s: float,
) -> None:
    """Keep one process running until `stop`, then end it."""
    log, loop, pause_s = structlog.get_logger().bind(process=arguments[0]), asyncio.get_running_loop(), PAUSE_S
    while not stop.is_set():
        started = loop.time()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fillwright", *arguments, "--parent", str(os.getpid())),
                pass_fds=files,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            log.error("all.cannot_start", reason=str(error), again_in_s=PAUSE_S_MAX)
            await _wait(stop, PAUSE_S_MAX)
            continue
        ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if process.returncode is None:
                await _end(process, grace_s)
        if stop.is_set():
            return
        pause_s = PAUSE_S if loop.time() - started > STEADY_S else min(PAUSE_S_MAX, pause_s * 2)
        log.error("all.process_ended", pid=process.pid, code=process.returncode, again_in_s=pause_s)
        await _wait(stop, pause_s)


async def _wait(stop: asyncio.Event, span_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(span_s):
            await stop.wait()


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(grace_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
