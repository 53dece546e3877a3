"""`fillwright order ...`: the life of one order, and the list of all."""

from __future__ import annotations

import click

from fillwright.cli.asking import engine_command, url_default
from fillwright.cli.client import Answer, Json, RemoteEngine
from fillwright.cli.exits import Refused
from fillwright.cli.screen import (
    attempts_table,
    bps_text,
    open_screen,
    order_facts,
    orders_table,
    quotes_table,
    slippage_text,
    swap_text,
    update_line,
)
from fillwright.core.errors import OrderNotFound
from fillwright.core.order import OrderStatus
from fillwright.core.units import is_order_id


@click.group(no_args_is_help=True)
def command() -> None:
    """Submit, follow, explain and cancel orders."""


@click.argument("token_in")
@click.argument("token_out")
@click.argument("amount")
@click.option("--slippage", metavar="FRACTION", help="How much worse the price may get: 0.01, the default, is 1 %.")
@click.option("--client-order-id", metavar="ID", help="Your own name for the order. Sent again, it is the same order.")
@click.option("--expires-at", metavar="TIME", help="Begin nothing after this time, such as 2026-01-31T12:00:00Z.")
@click.option("--watch", is_flag=True, help="Follow the order to its end.")
async def submit(
    engine: RemoteEngine,
    as_json: bool,
    token_in: str,
    token_out: str,
    amount: str,
    slippage: str | None,
    client_order_id: str | None,
    expires_at: str | None,
    watch: bool,
) -> None:
    """Submit an order: swap AMOUNT of TOKEN_IN for TOKEN_OUT.

    Tokens are symbols (SOL, USDC, ...) or mint addresses. The amount is in whole tokens, and passed on exactly as it
    is typed.
    """
    body = {
        "tokenIn": token_in,
        "tokenOut": token_out,
        "amount": amount,
        "slippage": slippage,
        "clientOrderId": client_order_id,
        "expiresAt": expires_at,
    }
    answer = await engine.post(
        "/api/orders/execute", {name: value for name, value in body.items() if value is not None}
    )
    order_id = answer.body["orderId"]
    if as_json:
        click.echo(answer.text)
    else:
        known = "" if answer.status == 201 else f": it was accepted before, and is {answer.body['status']}"
        click.echo(f"order {order_id}{known}")
    if watch:
        await _watch(engine, order_id, 0, as_json)
    elif not as_json:
        elsewhere = "" if engine.url == url_default() else f" --url {engine.url}"
        click.echo(f"follow it with: fillwright order watch {order_id}{elsewhere}")


@click.argument("order_id")
async def get(engine: RemoteEngine, as_json: bool, order_id: str) -> None:
    """Show an order: its fill, its quotes and its attempts."""
    answer = await engine.get(_path(order_id))
    if as_json:
        click.echo(answer.text)
    else:
        _show(answer.body)


@click.option(
    "--status", type=click.Choice([str(status) for status in OrderStatus]), help="Only orders in this status."
)
@click.option("--token", metavar="TOKEN", help="Only orders with this token, by symbol or mint, on either side.")
@click.option("--client-order-id", metavar="ID", help="Only the order with this client order id.")
@click.option("--limit", metavar="COUNT", type=click.IntRange(1, 200), default=20, show_default=True, help="How many.")
@click.option("--cursor", metavar="CURSOR", help="Where the page before this one ended: its nextCursor.")
async def list_(engine: RemoteEngine, as_json: bool, **options: str | int | None) -> None:
    """List orders, newest first."""
    query = {
        "clientOrderId" if name == "client_order_id" else name: str(value)
        for name, value in options.items()
        if value is not None
    }
    answer = await engine.get("/api/orders", query)
    if as_json:
        click.echo(answer.text)
        return
    orders, cursor = answer.body["orders"], answer.body["nextCursor"]
    if not orders:
        click.echo("no orders")
        return
    screen = open_screen()
    screen.print(orders_table(orders, screen.width))
    if cursor:
        click.echo(f"there may be more: add --cursor {cursor}")


@click.argument("order_id")
async def cancel(engine: RemoteEngine, as_json: bool, order_id: str) -> None:
    """Cancel an order, as long as nothing is signed for it."""
    answer = await engine.delete(_path(order_id))
    click.echo(answer.text if as_json else f"order {order_id} is {answer.body['status']}; nothing was signed for it")


@click.argument("order_id")
@click.option("--after", metavar="SEQ", type=click.IntRange(0), default=0, help="Only events with a higher seq.")
async def watch(engine: RemoteEngine, as_json: bool, order_id: str, after: int) -> None:
    """Follow an order to its end. A connection that is cut is taken up again where it broke off."""
    await _watch(engine, order_id, after, as_json)


@click.argument("order_id")
async def explain(engine: RemoteEngine, as_json: bool, order_id: str) -> None:
    """Show every quote for an order, and why its venue was selected."""
    answer = await engine.get(f"{_path(order_id)}/explain")
    if as_json:
        click.echo(answer.text)
    else:
        _explain(answer.body)


async def _watch(engine: RemoteEngine, order_id: str, after: int, as_json: bool) -> None:
    """Show an order's messages up to its last. Raise Refused if the order did not end confirmed."""
    order = (await engine.get(_path(order_id))).body
    screen, message = open_screen(), Answer("", {})

    def cut() -> None:
        click.echo("the connection was cut; trying to take it up again", err=True)

    async for message in engine.follow(order_id, after, cut=cut):
        if as_json:
            click.echo(message.text)
        elif "seq" in message.body:
            screen.print(update_line(message.body, order), soft_wrap=True)
    status = message.body["status"]
    if status != OrderStatus.CONFIRMED:
        error = message.body.get("data", {}).get("error", {"code": f"order_{status}"})
        raise Refused(f"order {order_id} ended {status}", error["code"])


def _path(order_id: str) -> str:
    if not is_order_id(order_id):
        raise Refused(f"{order_id!r} is no order id: that is ord_ and 26 letters or digits", OrderNotFound.code)
    return f"/api/orders/{order_id}"


def _show(order: Json) -> None:
    screen = open_screen()
    screen.print(order_facts(order), soft_wrap=True)
    if order["quotes"]:
        screen.print()
        screen.print(quotes_table(order["quotes"], order))
    if len(order["attempts"]) > 1:
        screen.print()
        screen.print(attempts_table(order["attempts"]))


def _explain(explained: Json) -> None:
    screen, out = open_screen(), explained["tokenOut"]
    screen.print(f"order {explained['orderId']}: {swap_text(explained)}, {explained['status']}")
    for decision in explained["decisions"]:
        screen.print(f"\nAttempt {decision['attempt']}: {decision['reason']}")
        screen.print(quotes_table(decision["quotes"], explained))
    for attempt in explained["attempts"]:
        if error := attempt.get("error"):
            screen.print(f"\nAttempt {attempt['attempt']} failed: {error['message']} ({error['code']})")
    if explained["filledOutAmount"] is not None:
        least = explained["decisions"][-1]["minOutAmount"]
        screen.print(
            f"\nQuoted {explained['quotedOutAmount']} {out}, at least {least} {out} (slippage"
            f" {slippage_text(explained)}); received {explained['filledOutAmount']} {out},"
            f" {bps_text(explained['quoteToFillBps'])}."
        )


for ask in (submit, get, list_, cancel, watch, explain):
    command.add_command(engine_command(ask), ask.__name__.rstrip("_"))
