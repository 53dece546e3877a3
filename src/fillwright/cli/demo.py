"""`fillwright demo`: an engine, some orders at once, and everything that happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fillwright.cli.child import Child, start_engine
from fillwright.cli.client import Json, RemoteEngine, connect
from fillwright.cli.exits import EXIT_CODES, Refused, settings_or_fail
from fillwright.cli.reconcile import counts, judge, judge_by_nodes, meaning
from fillwright.cli.screen import (
    open_screen,
    price_text,
    quotes_table,
    seconds_since,
    status_text,
    swap_text,
    table,
    update_line,
)
from fillwright.execution.reconcile import Reconciliation

# (token in, token out, amount), amounts as text: no float touches them on the way.
SWAPS: Final = (
    ("SOL", "USDC", "1.5"),
    ("USDC", "JUP", "250"),
    ("RAY", "SOL", "120"),
    ("BONK", "USDC", "750000"),
    ("mSOL", "SOL", "3.25"),
    ("JUP", "RAY", "800"),
    ("USDC", "BONK", "99.99"),
    ("SOL", "mSOL", "0.75"),
)
CHAIN_SWAPS: Final = (
    ("SOL", "USDC", "1.5"),
    ("USDC", "SOL", "150"),
    ("SOL", "USDC", "25"),
    ("USDC", "SOL", "1000.5"),
    ("SOL", "USDC", "100"),
)
STEPS: Final = ("pending", "routing", "building", "submitted", "confirmed")
PATIENCE_S: Final = 300
WIDE: Final = 120

NEXT: Final = """\
Try next, in one terminal:
  make serve
and in another:
  .venv/bin/fillwright order submit SOL USDC 1.5 --slippage 0.01 --watch
  .venv/bin/fillwright order list
  .venv/bin/fillwright order explain <id>
  curl -X POST http://localhost:3000/api/orders/execute \\
       -H 'Content-Type: application/json' \\
       -d '{"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1.5"}'
The dashboard is at http://localhost:3000, the API's own pages are at http://localhost:3000/docs"""


@dataclass(slots=True)
class Life:
    """An order as the demo has seen it. `reached` is when it came to each status, in seconds since its acceptance."""

    number: int
    order: Json
    websocket: str
    status: str = ""
    note: str = ""
    reached: dict[str, float] = field(default_factory=dict)

    def hear(self, message: Json) -> None:
        """Take in an update from the order's stream."""
        self.status, data = message["status"], message["data"]
        since = seconds_since(self.order["createdAt"], message["timestamp"])
        if self.status == "routing":  # perhaps once more: the times of the attempt before no longer hold
            self.reached = {"pending": self.reached["pending"]}
        self.reached.setdefault(self.status, since)
        if "error" in data:
            self.note = data["error"]["code"]
        elif "selectedDex" in data:
            self.note = data["selectedDex"]


@click.command(epilog=EXIT_CODES)
@click.option("--orders", metavar="COUNT", type=click.IntRange(1, 100), default=5, show_default=True, help="How many.")
@click.option(
    "--speed",
    metavar="FACTOR",
    type=click.FloatRange(0, 5),
    default=1.0,
    show_default=True,
    help="Multiplies every simulated delay, up to 5: 0.1 is ten times as fast, 0 waits for nothing.",
)
@click.option("--chain", "on_chain", is_flag=True, help="Swap by signed transactions, on a local Solana chain.")
def command(orders: int, speed: float, on_chain: bool) -> None:
    """Start an engine, submit orders all at once, and show each one's life.

    The engine runs on a free port over a temporary folder; both are gone afterwards, and so is the local chain.
    """
    screen = open_screen()
    with tempfile.TemporaryDirectory(prefix="fillwright-demo-") as folder:
        environ, patience_s = _environ(folder, speed), PATIENCE_S * max(1.0, speed)
        try:
            if on_chain:
                lives, result = asyncio.run(_run_on_chain(screen, folder, environ, orders, patience_s))
            else:
                lives = asyncio.run(_run(screen, folder, environ, SWAPS, orders, patience_s))
                result = judge(settings_or_fail(environ, Path(folder) / ".env"))
        except asyncio.CancelledError:  # told to stop, and done so
            raise click.Abort from None
    screen.print(f"\nReconciled with the chain: {counts(result)}.\n{meaning(result)}\n")
    screen.print(NEXT, soft_wrap=True)
    if not result.clean or any(life.status != "confirmed" for life in lives):
        raise SystemExit(Refused.exit_code)


def _environ(folder: str, speed: float) -> dict[str, str]:
    """Return the environment of the demo's engine: the caller's, but for what must not meet an engine of theirs."""
    own = {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATABASE_URL": f"sqlite:///{folder}/fillwright.db",
        "LOG_LEVEL": "info",
        "FILLWRIGHT_LOG_FORMAT": "json",
        "FILLWRIGHT_PUBLIC_URL": "",
        "FILLWRIGHT_SIM_LEDGER": "",
        "FILLWRIGHT_SIM_SPEED": str(speed),
        "FILLWRIGHT_STOP_MS": "0",  # what is in hand at the end is thrown away with the folder
    }
    return {**os.environ, **own}


async def _run_on_chain(
    screen: Console, folder: str, environ: dict[str, str], orders: int, patience_s: float
) -> tuple[list[Life], Reconciliation]:
    """Do the same on a local chain, and say what landed there and what the wallet has gained."""
    from fillwright.cli.localnet import start_chain  # LiteSVM is loaded only where there is a chain

    wallet = Path(folder) / "wallet.json"
    async with start_chain(wallet) as local:
        chain_environ = {
            **environ,
            "FILLWRIGHT_MODE": "localnet",
            "FILLWRIGHT_RPC_URLS": local.url,
            "FILLWRIGHT_RPC_WS_URL": local.websocket_url,
            "FILLWRIGHT_RPC_REQUESTS_PER_SECOND": "0",
            "FILLWRIGHT_POOLS": ",".join(local.pools),
            "FILLWRIGHT_WALLET": f"file:{wallet}",
        }
        screen.print(f"Local chain: {local.url}, wallet {local.wallet} with {local.balances()}", soft_wrap=True)
        lives = await _run(screen, folder, chain_environ, CHAIN_SWAPS, orders, patience_s)
        _show_landings(screen, lives)
        screen.print(f"\nThe wallet has {local.balances()} now.")
        return lives, await judge_by_nodes(settings_or_fail(chain_environ, Path(folder) / ".env"))


async def _run(
    screen: Console,
    folder: str,
    environ: dict[str, str],
    swaps: Sequence[tuple[str, str, str]],
    orders: int,
    patience_s: float,
) -> list[Life]:
    _stop_on_signals()
    async with start_engine(folder, environ) as child, connect(child.url) as engine:
        screen.print(f"Engine: {child.url}, data in {folder}", soft_wrap=True)
        started = time.monotonic()
        lives = await _submit(engine, swaps, orders)
        screen.print(f"{orders} orders submitted at once; each is followed over its own WebSocket.\n")
        await _while_alive(child, _watch(screen, engine, lives), patience_s)
        took_s = time.monotonic() - started
        explained = await asyncio.gather(*(engine.get(f"{_path(life)}/explain") for life in lives))
        finished = await asyncio.gather(*(engine.get(_path(life)) for life in lives))
    for life, answer, order in zip(lives, explained, finished, strict=True):
        life.order = {**order.body, "explained": answer.body}
    _show_routing(screen, lives)
    _show_summary(screen, lives, took_s)
    return lives


def _stop_on_signals() -> None:
    """Ctrl-C ends the demo as it should; let the other ways to end it do the same."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has neither
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _submit(engine: RemoteEngine, swaps: Sequence[tuple[str, str, str]], count: int) -> list[Life]:
    bodies = [
        {"tokenIn": token_in, "tokenOut": token_out, "amount": amount, "slippage": "0.01"}
        for token_in, token_out, amount in islice(cycle(swaps), count)
    ]
    accepted = await asyncio.gather(*(engine.post("/api/orders/execute", body) for body in bodies))
    return [
        Life(number, {**body, **answer.body, "createdAt": answer.body["timestamp"]}, answer.body["websocket"])
        for number, (body, answer) in enumerate(zip(bodies, accepted, strict=True), 1)
    ]


async def _while_alive(child: Child, work: Coroutine[None, None, None], patience_s: float) -> None:
    """Do `work`. Raise Refused if the engine ends under it, or if it takes longer than `patience_s`."""
    tasks = {asyncio.create_task(work), asyncio.create_task(child.ended())}
    try:
        done, _ = await asyncio.wait(tasks, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    if not done:
        raise Refused(f"not every order was over within {patience_s:g} s")
    for task in done:
        task.result()


async def _watch(screen: Console, engine: RemoteEngine, lives: Sequence[Life]) -> None:
    live = Live(console=screen, get_renderable=lambda: _lives_table(screen, lives), refresh_per_second=10)
    with live if screen.is_terminal else contextlib.nullcontext():
        await asyncio.gather(*(_follow(screen, engine, life) for life in lives))


async def _follow(screen: Console, engine: RemoteEngine, life: Life) -> None:
    async for message in engine.follow(life.order["orderId"], websocket=life.websocket):
        if "seq" not in message.body:
            continue
        life.hear(message.body)
        if not screen.is_terminal:
            head = f"#{life.number:<3} {swap_text(life.order):<20} "
            screen.print(Text.assemble(head, update_line(message.body, life.order)), soft_wrap=True)


def _lives_table(screen: Console, lives: Sequence[Life]) -> Table:
    ids = screen.width >= WIDE
    grid = table("#", *(["Order"] if ids else []), "Swap", *STEPS, "", gap=2 if ids else 1)
    grid.columns[2 if ids else 1].no_wrap = True
    for life in lives:
        over = "green" if life.status == "confirmed" else "cyan"
        times = [
            Text(f"{life.reached[step]:.2f} s" if step in life.reached else "", style=over, justify="right")
            for step in STEPS
        ]
        note = Text(life.note, style="" if life.status == "confirmed" else status_text(life.status).style)
        grid.add_row(str(life.number), *([life.order["orderId"]] if ids else []), swap_text(life.order), *times, note)
    return grid


def _show_routing(screen: Console, lives: Sequence[Life]) -> None:
    screen.print("\nHow each order was routed:", style="bold")
    for life in lives:
        explained = life.order["explained"]
        screen.print(f"\n#{life.number} {life.order['orderId']}: {swap_text(life.order)}", soft_wrap=True)
        for decision in explained["decisions"]:
            screen.print(f"attempt {decision['attempt']}: {decision['reason']}")
            screen.print(quotes_table(decision["quotes"], explained))


def _show_summary(screen: Console, lives: Sequence[Life], took_s: float) -> None:
    grid = table("#", "Result", "Time", "Price in", "Quoted", "Executed", "Fill to quote")
    for life in lives:
        order, explained = life.order, life.order["explained"]
        decisions, difference = explained["decisions"], explained["quoteToFillBps"]
        grid.add_row(
            str(life.number),
            status_text(life.status),
            f"{life.reached[life.status]:.2f} s",
            f"{order['tokenOut']} per {order['tokenIn']}",
            price_text(decisions[-1]["quotes"][0]["effectivePrice"]) if decisions else "-",
            price_text(order["executedPrice"]) if order["fill"] else "-",
            f"{difference:+} bps" if difference is not None else life.note,
        )
    confirmed = sum(life.status == "confirmed" for life in lives)
    screen.print("\nHow each order ended:\n", style="bold")
    screen.print(grid)
    screen.print(f"\n{confirmed} of {len(lives)} orders confirmed, {len(lives) - confirmed} failed, in {took_s:.1f} s.")


def _show_landings(screen: Console, lives: Sequence[Life]) -> None:
    grid = table("#", "Slot", "Pools", "Sold", "Received", "Fill to quote", "Signature")
    for life in lives:
        order, fill = life.order, life.order["fill"]
        if fill:
            chosen = order["explained"]["decisions"][-1]["quotes"][0]
            grid.add_row(
                str(life.number),
                str(fill["slot"]),
                " + ".join(f"{leg['dex']} {leg['type']}" for leg in chosen["legs"]),
                f"{fill['inAmount']} {order['tokenIn']}",
                f"{fill['outAmount']} {order['tokenOut']}",
                f"{order['explained']['quoteToFillBps']:+} bps",
                order["txHash"],
            )
    screen.print("\nWhat landed on the chain:\n", style="bold")
    screen.print(grid)


def _path(life: Life) -> str:
    return f"/api/orders/{life.order['orderId']}"
