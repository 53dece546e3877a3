"""What people see: JSON from the engine in, tables and lines out. Colour only on a terminal."""

from __future__ import annotations

import sys
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

WIDTH_IN_PIPES: Final = 1000  # so that nothing is wrapped
WIDTH_OF_ALL_COLUMNS: Final = 104
STYLES: Final = {"confirmed": "green", "failed": "red", "cancelled": "yellow", "expired": "yellow"}
STYLE_OPEN: Final = "cyan"


def open_screen() -> Console:
    """Return standard output, where text is shown as it is: nothing in it is markup."""
    width = None if sys.stdout.isatty() else WIDTH_IN_PIPES
    return Console(width=width, markup=False, highlight=False, emoji=False)


def table(*headings: str, gap: int = 2) -> Table:
    """Return a table whose columns are separated by nothing but space."""
    grid = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    return grid


def facts(**values: str | Text | None) -> Text:
    """Return one line for each fact that is known; underscores in the names stand for spaces."""
    known = {name: value for name, value in values.items() if value is not None}
    width = max(map(len, known)) + 2
    lines = [
        Text.assemble((name.capitalize().replace("_", " ").ljust(width), "dim"), value) for name, value in known.items()
    ]
    return Text("\n").join(lines)


def status_text(status: str, width: int = 0) -> Text:
    return Text(status.ljust(width), style=STYLES.get(status, STYLE_OPEN))


def swap_text(terms: Json) -> str:
    return f"{terms['amount']} {terms['tokenIn']} -> {terms['tokenOut']}"


def slippage_text(terms: Json) -> str:
    return f"{terms['slippageBps'] / 100:g} %"


def price_text(price: float) -> str:
    """Return a price to six digits, or to whole numbers where it has more, never with an exponent."""
    if price >= 100_000:
        return f"{price:.0f}"
    return f"{Decimal(f'{price:.6g}'):f}"


def pair_price_text(price: float, terms: Json) -> str:
    return f"{price_text(price)} {terms['tokenOut']} per {terms['tokenIn']}"


def bps_text(difference: int) -> str:
    """Return how a fill compares with its quote."""
    return f"{abs(difference)} bps {'more' if difference > 0 else 'less'} than quoted" if difference else "as quoted"


def clock_text(time: str) -> str:
    """Return a time on the wire, RFC 3339 in UTC, as people read it."""
    return time.replace("T", " ").removesuffix("Z").partition(".")[0]


def seconds_since(start: str, time: str) -> float:
    return (datetime.fromisoformat(time) - datetime.fromisoformat(start)).total_seconds()


def quotes_table(quotes: list[Json], terms: Json) -> Table:
    """Return every venue's answer, the one taken first."""
    of_pools = any("pool" in quote and "legs" in quote for quote in quotes)
    pool_columns = ("Pool", "Type", "Slot") if of_pools else ()
    grid = table("Venue", *pool_columns, "Pays", "Price", "Fee", "Impact", "Why")
    for quote in quotes:
        answered = "outAmount" in quote
        pool = (_pools_text(quote), quote.get("type", "-"), str(quote.get("slot", "-"))) if of_pools else ()
        grid.add_row(
            Text(quote["dex"], style="green" if quote["selected"] else ""),
            *pool,
            f"{quote['outAmount']} {terms['tokenOut']}" if answered else "-",
            price_text(quote["effectivePrice"]) if answered else "-",
            f"{quote['feeBps']} bps" if answered else "-",
            f"{quote['priceImpactBps']} bps" if answered else "-",
            "selected, pays most" if quote["selected"] else quote["reason"],
        )
    return grid


def _pools_text(quote: Json) -> str:
    """Return the pools of a quote: what part of the amount each gets if they share it, else where each leads."""
    legs = quote.get("legs", [])
    if len(legs) < 2:
        return str(quote.get("pool", "-"))
    does = "{inAmount} {tokenIn}" if quote["type"] == "split" else "to {tokenOut}"
    return "\n".join(f"{leg['pool'][:4]}..{leg['pool'][-4:]} {does.format(**leg)}" for leg in legs)


def order_facts(order: Json) -> Text:
    """Return what was asked for, and where it stands."""
    fill, error = order["fill"], order["error"]
    received = least = fee = None
    if fill:
        price = pair_price_text(order["executedPrice"], order)
        received = f"{fill['outAmount']} {order['tokenOut']} at {price}"
        fee = f"{fill['feeLamports']} lamports, in slot {fill['slot']}"
    if order["minOutAmount"] is not None:
        least = f"{order['minOutAmount']} {order['tokenOut']}"
    return facts(
        order=order["orderId"],
        client_order_id=order["clientOrderId"],
        status=status_text(order["status"]),
        swap=f"{swap_text(order)}, slippage {slippage_text(order)}",
        accepted=clock_text(order["createdAt"]) + " UTC",
        updated=clock_text(order["updatedAt"]) + " UTC",
        expires=None if order["expiresAt"] is None else clock_text(order["expiresAt"]) + " UTC",
        attempt=str(order["attempt"]),
        venue=order["selectedDex"],
        at_least=least,
        received=received,
        fee=fee,
        transaction=order["txHash"],
        error=None if error is None else f"{error['message']} ({error['code']})",
    )


def attempts_table(attempts: list[Json]) -> Table:
    grid = table("Attempt", "Status", "Venue", "Started", "Error")
    for attempt in attempts:
        error = attempt.get("error")
        grid.add_row(
            str(attempt["attempt"]),
            status_text(attempt["status"]),
            attempt.get("selectedDex", "-"),
            clock_text(attempt["startedAt"]),
            f"{error['message']} ({error['code']})" if error else "",
        )
    return grid


def orders_table(orders: list[Json], width: int) -> Table:
    """Return one line for each order; what it received is shown where it has been received."""
    more = ["Venue", "Accepted (UTC)"] if width >= WIDTH_OF_ALL_COLUMNS else []
    # Narrower screens get what cannot be had from the id: it sorts by time, and `order get` tells the rest.
    grid = table("Order", "Status", "Swap", *more)
    grid.columns[0].no_wrap = grid.columns[1].no_wrap = True
    for order in orders:
        received = f"{order['fill']['outAmount']} " if order["fill"] else ""
        swap = f"{order['amount']} {order['tokenIn']} -> {received}{order['tokenOut']}"
        details = [order["selectedDex"] or "-", clock_text(order["createdAt"])] if more else []
        grid.add_row(order["orderId"], status_text(order["status"]), swap, *details)
    return grid


def update_line(message: Json, order: Json) -> Text:
    """Return an update as one line: when, counted from the order's acceptance, what, and the detail that matters."""
    since = seconds_since(order["createdAt"], message["timestamp"])
    return Text.assemble(
        (f"{since:+9.3f} s  ", "dim"), status_text(message["status"], 9), "  ", update_detail(message, order)
    )


def update_detail(message: Json, order: Json) -> str:
    data: Json = message["data"]
    match message["status"]:
        case "pending" if "error" in data:
            wait_s = max(0.0, seconds_since(message["timestamp"], data["retryAt"]))
            return f"attempt {data['attempt']} failed: {_error(data)}; again in {wait_s:.1f} s"
        case "pending":
            return f"accepted: {swap_text(data)}, slippage {slippage_text(data)}"
        case "routing":
            return f"attempt {data['attempt']}: asking every venue"
        case "building":
            return str(data["reason"])
        case "submitted":
            return f"transaction {data['txHash']}"
        case "confirmed":
            price = pair_price_text(data["executedPrice"], order)
            return f"received {data['outAmount']} {order['tokenOut']} at {price}"
        case "failed":
            return _error(data)
        case "cancelled":
            return "nothing was signed"
        case _:
            return "its time ran out before anything was signed"


def _error(data: Json) -> str:
    return f"{data['error']['message']} ({data['error']['code']})"
