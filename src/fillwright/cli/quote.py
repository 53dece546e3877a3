"""`fillwright quote`."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import click

from fillwright.cli.asking import engine_command
from fillwright.cli.client import RemoteEngine
from fillwright.cli.exits import Misused, Refused, settings_or_fail
from fillwright.cli.screen import Json, open_screen, quotes_table, slippage_text, swap_text
from fillwright.core.errors import Denied, ExecutionError, InvalidSnapshot
from fillwright.core.ports import OrderRequest


@engine_command
@click.argument("token_in")
@click.argument("token_out")
@click.argument("amount")
@click.option("--slippage", metavar="FRACTION", help="How much worse the price may get: 0.01, the default, is 1 %.")
@click.option(
    "--pools",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Quote the pools of this snapshot, without an engine: see `fillwright pools fetch`.",
)
async def command(
    engine: RemoteEngine,
    as_json: bool,
    token_in: str,
    token_out: str,
    amount: str,
    slippage: str | None,
    pools: Path | None,
) -> None:
    """Show the route that an order for AMOUNT of TOKEN_IN would take now. Nothing is executed."""
    if pools is not None:
        quote = await _of_pools(pools, OrderRequest(token_in, token_out, amount, slippage))
    else:
        body = {"tokenIn": token_in, "tokenOut": token_out, "amount": amount}
        answer = await engine.post("/api/quotes", body if slippage is None else {**body, "slippage": slippage})
        quote = answer.body
    if as_json:
        click.echo(json.dumps(quote, separators=(",", ":"), ensure_ascii=False))
        return
    screen = open_screen()
    screen.print(f"{swap_text(quote)}: {quote['reason']}")
    screen.print(quotes_table(quote["quotes"], quote))
    screen.print(
        f"an order would receive at least {quote['minOutAmount']} {quote['tokenOut']}"
        f" (slippage {slippage_text(quote)}), or nothing would be swapped"
    )


async def _of_pools(pools: Path, request: OrderRequest) -> Json:
    from fillwright import app  # the whole engine, which the other way has no need of

    settings = replace(settings_or_fail(os.environ), pools=str(pools), database_url="memory://", redis_url="")
    try:
        return await app.preview(settings, request)
    except (Denied, InvalidSnapshot) as error:
        raise Misused(str(error), error.code) from error
    except ExecutionError as error:
        raise Refused(str(error), error.code) from error
