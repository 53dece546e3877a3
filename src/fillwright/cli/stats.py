"""`fillwright stats`."""

from __future__ import annotations

import click

from fillwright.cli.asking import engine_command
from fillwright.cli.client import RemoteEngine
from fillwright.cli.screen import facts, open_screen


@engine_command
async def command(engine: RemoteEngine, as_json: bool) -> None:
    """Count what waits, runs and is done."""
    answer = await engine.get("/api/orders/stats")
    if as_json:
        click.echo(answer.text)
        return
    counts = {name: str(count) for name, count in answer.body["queue"].items()}
    open_screen().print(facts(**counts, streams=str(answer.body["websocket"]["connections"])))
