"""`fillwright top`: what an engine does, as it does it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from fillwright.cli.asking import key, url_option
from fillwright.cli.exits import EXIT_CODES, Misused, Refused, Unreachable
from fillwright.cli.screen import WIDTH_OF_ALL_COLUMNS, facts, open_screen, status_text, table
from fillwright.client import AsyncFillwright, ClientError, Failure, Order, Stats, Status, Update
from fillwright.client import Refused as EngineRefused

RATE_SPAN: Final = timedelta(seconds=10)
LOOK_S: Final = 1.0
TIMEOUT_S: Final = 5.0
SEEN_FIRST: Final = 1_000  # how far back the first look goes, for the rates
SEEN_AGAIN: Final = 50
FILLS_KEPT: Final = 1_000
FAILURES_KEPT: Final = 50
FAILURES_SHOWN: Final = 5
ORDERS_SHOWN_ONCE: Final = 20
LINES_AROUND: Final = 13  # what is not the table of orders
FRAMES_PER_S: Final = 4
CLOCK: Final = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class Row:
    """An order as the table shows it."""

    order_id: str
    seq: int
    status: Status
    swap: str
    venue: str | None
    accepted_at: datetime


@dataclass(slots=True)
class Board:
    """What is known of an engine, from its counts, its newest orders and its stream."""

    url: str
    stats: Stats | None = None
    away: str = ""
    rows: dict[str, Row] = field(default_factory=dict)
    # When each order was accepted, confirmed or failed, over the last `RATE_SPAN`.
    moments: dict[str, dict[str, datetime]] = field(
        default_factory=lambda: {"accepted": {}, "confirmed": {}, "failed": {}}
    )
    fills: dict[str, str] = field(default_factory=dict)  # order -> venue
    failures: deque[tuple[datetime, str, Failure]] = field(default_factory=lambda: deque(maxlen=FAILURES_KEPT))

    def count(self, stats: Stats) -> None:
        """Take in the counts; they also tell what time it is for the engine."""
        self.stats, self.away = stats, ""
        for moments in self.moments.values():
            for order_id in [order_id for order_id, at in moments.items() if at <= stats.at - RATE_SPAN]:
                del moments[order_id]
        self.rows = dict(sorted(self.rows.items(), reverse=True)[:SEEN_FIRST])

    def see(self, order: Order) -> None:
        """Take in an order from a list."""
        known = self.rows.get(order.order_id)
        if known is not None and known.seq >= order.seq:
            return
        swap = f"{order.terms.amount:f} {order.terms.token_in} -> {order.terms.token_out}"
        self.rows[order.order_id] = Row(order.order_id, order.seq, order.status, swap, order.venue, order.created_at)
        self.moments["accepted"].setdefault(order.order_id, order.created_at)
        self._end(order.order_id, order.status, order.updated_at, order.venue)
        if order.failure is not None and order.status is Status.FAILED:
            self._fail(order.updated_at, order.order_id, order.failure)

    def hear(self, update: Update) -> None:
        """Take in an update from the stream."""
        known = self.rows.get(update.order_id)
        if update.terms is not None:
            swap = f"{update.terms.amount:f} {update.terms.token_in} -> {update.terms.token_out}"
            self.moments["accepted"].setdefault(update.order_id, update.at)
            known = known or Row(update.order_id, update.seq, update.status, swap, None, update.at)
            self.rows.setdefault(update.order_id, known)
        if known is not None and known.seq < update.seq:
            self.rows[update.order_id] = replace(
                known, seq=update.seq, status=update.status, venue=update.venue or known.venue
            )
        self._end(update.order_id, update.status, update.at, update.venue)
        if update.failure is not None:
            self._fail(update.at, update.order_id, update.failure)

    def _end(self, order_id: str, status: Status, at: datetime, venue: str | None) -> None:
        if status in (Status.CONFIRMED, Status.FAILED):
            self.moments[status].setdefault(order_id, at)
        if status is Status.CONFIRMED and venue is not None:
            self.fills[order_id] = venue
            if len(self.fills) > FILLS_KEPT:
                del self.fills[next(iter(self.fills))]

    def _fail(self, at: datetime, order_id: str, failure: Failure) -> None:
        if (at, order_id, failure) not in self.failures:
            self.failures.append((at, order_id, failure))


@click.command(epilog=EXIT_CODES)
@click.option("--once", is_flag=True, help="Print what there is to see now, and end.")
def command(url: str, once: bool) -> None:
    """Show what the engine does, live: rates, queue, orders, venues and errors. Ends with q or Ctrl-C."""
    screen = open_screen()
    if not once and not screen.is_terminal:
        raise Misused("a live view needs a terminal; --once prints what there is to see now", "no_terminal")
    try:
        asyncio.run(_once(screen, url) if once else _live(screen, url))
    except EngineRefused as refused:
        raise Refused(refused.detail, refused.code) from refused
    except ClientError as error:
        hint = "start one with `fillwright serve`, or name another with --url"
        raise Unreachable(f"{error}; {hint}", "unreachable") from error


command.params.append(url_option())


async def _once(screen: Console, url: str) -> None:
    board = Board(url)
    async with AsyncFillwright(url, key(), timeout_s=TIMEOUT_S) as engine:
        await _look(engine, board, SEEN_FIRST)
    screen.print(_frame(board, ORDERS_SHOWN_ONCE, screen.width))


async def _live(screen: Console, url: str) -> None:
    board, ended = Board(url), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)

    def frame() -> RenderableType:
        return _frame(board, max(1, screen.height - LINES_AROUND), screen.width)

    async with AsyncFillwright(url, key(), timeout_s=TIMEOUT_S) as engine:
        await _look(engine, board, SEEN_FIRST)
        with _keys(ended), Live(console=screen, get_renderable=frame, screen=True, refresh_per_second=FRAMES_PER_S):
            tasks = [asyncio.create_task(each) for each in (_keep_looking(engine, board), _hear(engine, board))]
            tasks.append(asyncio.create_task(_until(ended)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()


async def _until(ended: asyncio.Event) -> None:
    await ended.wait()


async def _look(engine: AsyncFillwright, board: Board, seen_max: int) -> None:
    """Take in the counts and the newest orders: as many as can be shown, and those that the rates are about."""
    stats = await engine.stats()
    numbers = count(1)
    async with contextlib.aclosing(engine.list()) as orders:
        async for order in orders:
            board.see(order)
            number = next(numbers)
            if number >= seen_max or (number >= SEEN_AGAIN and order.created_at <= stats.at - RATE_SPAN):
                break
    board.count(stats)


async def _keep_looking(engine: AsyncFillwright, board: Board) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            await _look(engine, board, SEEN_AGAIN)
        except ClientError as error:
            if not error.is_passing:
                raise
            board.away = str(error)


async def _hear(engine: AsyncFillwright, board: Board) -> None:
    async for update in engine.follow_all():
        board.hear(update)


@contextlib.contextmanager
def _keys(ended: asyncio.Event) -> Iterator[None]:
    """Let the key q set `ended`, where there is a keyboard."""
    try:
        import termios
        import tty

        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (ImportError, OSError, ValueError, termios.error):
        yield
        return

    def pressed() -> None:
        if os.read(fd, 1) in (b"q", b"Q", b""):
            ended.set()

    loop = asyncio.get_running_loop()
    tty.setcbreak(fd)
    loop.add_reader(fd, pressed)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _frame(board: Board, orders_max: int, width: int) -> RenderableType:
    stats = board.stats
    assert stats is not None
    span_s = RATE_SPAN.total_seconds()
    rates = "  ".join(f"{name} {len(moments) / span_s:.1f}/s" for name, moments in board.moments.items())
    others = stats.total - stats.confirmed - stats.failed - stats.waiting - stats.active - stats.delayed
    shares = Counter(board.fills.values()).most_common()
    head = facts(
        engine=Text.assemble(board.url, f"  {stats.at:{CLOCK}} UTC", (f"  {board.away}", "red") if board.away else ""),
        rates=f"{rates}  (over {span_s:.0f} s)",
        queue=f"waiting {stats.waiting}  active {stats.active}  delayed {stats.delayed}  streams {stats.streams}",
        orders=f"confirmed {stats.confirmed}  failed {stats.failed}  cancelled or expired {others}  all {stats.total}",
        venues="  ".join(f"{venue} {100 * fills / len(board.fills):.0f} %" for venue, fills in shares)
        + f"  (of the last {len(board.fills)} fills)"
        if shares
        else "no fills yet",
    )
    wide = width >= WIDTH_OF_ALL_COLUMNS
    orders = table("Order", "Status", "Swap", *(["Venue", "Accepted (UTC)"] if wide else []))
    for column in orders.columns:
        column.no_wrap = True
    for row in sorted(board.rows.values(), key=lambda row: row.order_id, reverse=True)[:orders_max]:
        more = [row.venue or "-", f"{row.accepted_at:{CLOCK}}"] if wide else []
        orders.add_row(row.order_id, status_text(row.status), row.swap, *more)
    failures = table("Newest errors", "Order", "Why")
    for column in failures.columns:
        column.no_wrap = True
    for at, order_id, failure in sorted(board.failures, key=lambda each: each[0], reverse=True)[:FAILURES_SHOWN]:
        failures.add_row(f"{at:%H:%M:%S}", order_id, f"{failure.message} ({failure.code})")
    return Group(head, "", orders, "", failures) if board.failures else Group(head, "", orders)
