"""Logs: one JSON object a line, or lines for people on a terminal. What happens to orders is heard on the bus."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Any, BinaryIO, TextIO, cast

import orjson
import structlog

from fillwright.core.lifecycle import AttemptFailed, Confirmed, Failed, RouteSelected, Update
from fillwright.core.ports import Bus
from fillwright.core.units import difference_bps, format_amount


class Unfailing:
    """A place for logs that cannot be written to at times, on a full disk, say: that must cost nobody an answer."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def write(self, text: Any) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_logs(level: str, log_format: str) -> None:
    """Write to standard error: as JSON, or in colour if `log_format` is auto and that is a terminal."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        structlog.configure(
            processors=[*shared, _console()],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.PrintLoggerFactory(cast("TextIO", Unfailing(sys.stderr))),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[
                *shared,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", Unfailing(sys.stderr.buffer))),
            cache_logger_on_first_use=True,
        )
    # The web server has its own loggers; what matters of theirs goes the same way.
    renderer = _console() if console else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    server = logging.getLogger("uvicorn")
    server.handlers, server.propagate = [handler], False
    server.setLevel(max(number, logging.WARNING))


def _console() -> structlog.dev.ConsoleRenderer:
    """Return a renderer for people. Variables are not for their eyes: a URL may have a password in it."""
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False))


class _OrderLines:
    """The two lines that every order has, as the logger would write them, at a fraction of its cost: once a commit."""

    def __init__(self) -> None:
        self._stream = Unfailing(sys.stderr.buffer)
        self._lines: list[bytes] = []

    def info(self, event: str, **what: object) -> None:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._lines.append(orjson.dumps({**what, "event": event, "level": "info", "timestamp": at}))

    def flush(self) -> None:
        if self._lines:
            self._stream.write(b"\n".join([*self._lines, b""]))
            self._stream.flush()
            self._lines = []


def log_orders(bus: Bus) -> None:
    """Log the routing decision and the end of every attempt and order."""
    log = structlog.get_logger()
    every_step = log.is_enabled_for(logging.INFO)
    told = (
        _OrderLines()
        if isinstance(structlog.get_config()["processors"][-1], structlog.processors.JSONRenderer)
        else log
    )

    def hear(updates: Sequence[Update]) -> None:
        for update in updates:
            order, event = update.order, update.record.event
            match event:
                case RouteSelected(route) if every_step:
                    told.info(
                        "order.routed",
                        order=order.id,
                        attempt=order.attempt,
                        venue=route.quote.venue,
                        out=format_amount(route.quote.out_amount, order.terms.token_out.decimals),
                        why=route.reason,
                        passed_over=[f"{venue.venue}: {venue.reason}" for venue in route.passed_over],
                    )
                case Confirmed(fill) if every_step:
                    quoted = order.route.quote.out_amount if order.route else fill.out_amount
                    told.info(
                        "order.confirmed",
                        order=order.id,
                        attempt=order.attempt,
                        out=format_amount(fill.out_amount, order.terms.token_out.decimals),
                        fill_to_quote_bps=difference_bps(fill.out_amount, quoted),
                    )
                case AttemptFailed(attempt, failure, retry_at_ms):
                    log.warning(
                        "order.attempt_failed",
                        order=order.id,
                        attempt=attempt,
                        code=failure.code,
                        reason=failure.message,
                        retry_in_ms=retry_at_ms - update.record.at_ms,
                    )
                case Failed(attempt, failure):
                    log.error(
                        "order.failed", order=order.id, attempts=attempt, code=failure.code, reason=failure.message
                    )
                case _:
                    pass
        if isinstance(told, _OrderLines):
            told.flush()

    bus.subscribe(hear)
