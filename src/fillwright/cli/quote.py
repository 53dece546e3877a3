"""`fillwright quote`."""

from __future__ import annotations

import click

from fillwright.cli.asking import engine_command
from fillwright.cli.client import RemoteEngine
from fillwright.cli.screen import open_screen, quotes_table, slippage_text, swap_text


@engine_command
@click.argument("token_in")
@click.argument("token_out")
@click.argument("amount")
@click.option("--slippage", metavar="FRACTION", help="How much worse the price may get: 0.01, the default, is 1 %.")
async def command(
    engine: RemoteEngine, as_json: bool, token_in: str, token_out: str, amount: str, slippage: str | None
) -> None:
    """Show the route that an order for AMOUNT of TOKEN_IN would take now. Nothing is executed."""
    body = {"tokenIn": token_in, "tokenOut": token_out, "amount": amount}
    answer = await engine.post("/api/quotes", body if slippage is None else {**body, "slippage": slippage})
    if as_json:
        click.echo(answer.text)
        return
    quote, screen = answer.body, open_screen()
    screen.print(f"{swap_text(quote)}: {quote['reason']}")
    screen.print(quotes_table(quote["quotes"], quote))
    screen.print(
        f"an order would receive at least {quote['minOutAmount']} {quote['tokenOut']}"
        f" (slippage {slippage_text(quote)}), or nothing would be swapped"
    )
