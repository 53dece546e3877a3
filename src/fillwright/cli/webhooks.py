"""`fillwright webhooks ...`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.text import Text

from fillwright.cli.exits import EXIT_CODES, Refused, settings_or_fail
from fillwright.cli.operating import id_in, operate, operator, where
from fillwright.cli.screen import open_screen, table
from fillwright.core.control import WEBHOOK_ID_BYTES, Webhook, new_webhook_id, webhook_added, webhook_removed
from fillwright.core.errors import Denied
from fillwright.core.limits import LOCAL
from fillwright.core.ports import Delivery, Store
from fillwright.core.units import OrderId
from fillwright.core.webhooks import check_url, secret_of, secret_text
from fillwright.execution.gate import Gate

FAILED_MAX: Final = 1_000


@click.group(epilog=EXIT_CODES)
def command() -> None:
    """Have addresses told what becomes of orders, and look after what they did not take.

    Deliveries are signed as Standard Webhooks says, with a secret that is made from FILLWRIGHT_WEBHOOK_SECRET. Those
    that are not taken are tried again, later each time, and given up in the end: `replay` has them tried once more.
    """


@command.command(epilog=EXIT_CODES)
@click.argument("url")
@click.option("--key", "key_id", default="", help="Whose it is; it ends with the key. Needed once there are keys.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def add(url: str, key_id: str, as_json: bool) -> None:
    """Have an address told every event of an account's new orders. Prints the secret that signs what it is told."""
    settings = settings_or_fail(os.environ)

    webhook_id = new_webhook_id(os.urandom(WEBHOOK_ID_BYTES))

    async def work(gate: Gate, _: Store) -> tuple[Webhook, str]:
        check_url(url, private=settings.webhook_private == "on")
        secret = secret_of(settings.webhook_secret, webhook_id)
        await gate.change(operator(), lambda known: webhook_added(known, webhook_id, id_in(key_id), url, secret))
        return gate.known.webhooks[webhook_id], secret_text(secret)

    try:
        webhook, secret = operate(work)
    except Denied as error:
        raise Refused(str(error), error.code) from error
    if as_json:
        view = {"webhookId": webhook.webhook_id, "url": webhook.url, "secret": secret}
        click.echo(json.dumps(view, separators=(",", ":")))
    else:
        click.echo(secret)
        account = webhook.account or LOCAL
        click.echo(f"Webhook {webhook.webhook_id} is told of the orders of {account}. ({where()})", err=True)


@command.command("list", epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs.")
def list_(as_json: bool) -> None:
    """Show the webhooks, and how their deliveries go."""

    async def work(gate: Gate, store: Store) -> list[tuple[Webhook, list[Delivery]]]:
        hooks = gate.known.webhooks_of(None)
        return [(each, await store.failed_deliveries([each.webhook_id], FAILED_MAX)) for each in hooks]

    grid, rows = table("Webhook", "Account", "Key", "Address", "Failing", "Given up", "Why"), operate(work)
    for webhook, failed in rows:
        dead = sum(each.dead_at_ms is not None for each in failed)
        failing, why = len(failed) - dead, failed[-1].error if failed else ""
        if as_json:
            named = {"account": webhook.account or LOCAL, "keyId": webhook.key_id or None, "url": webhook.url}
            view = {"webhookId": webhook.webhook_id, **named, "failing": failing, "givenUp": dead, "error": why or None}
            click.echo(json.dumps(view, separators=(",", ":")))
        more = " or more" if len(failed) == FAILED_MAX else ""
        grid.add_row(
            *(webhook.webhook_id, Text(webhook.account or LOCAL), webhook.key_id or "-", Text(webhook.url)),
            *(f"{failing}{more}", f"{dead}{more}", Text(why)),
        )
    if not as_json:
        open_screen().print(grid if rows else f"There are no webhooks. ({where()})")


@command.command(epilog=EXIT_CODES)
@click.argument("webhook_id")
def remove(webhook_id: str) -> None:
    """Tell an address nothing any more, within a second. What it was not told yet is forgotten."""

    async def work(gate: Gate, _: Store) -> None:
        await gate.change(operator(), lambda known: webhook_removed(known, webhook_id))

    try:
        operate(work)
    except Denied as error:
        raise Refused(str(error), error.code) from error
    click.echo(f"Webhook {webhook_id} is removed. ({where()})")


@command.command(epilog=EXIT_CODES)
@click.option("--webhook", "webhook_id", help="Only those of this webhook.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs.")
def dead(webhook_id: str | None, as_json: bool) -> None:
    """Show the deliveries that were given up, the oldest first."""

    async def work(gate: Gate, store: Store) -> list[Delivery]:
        failed = await store.failed_deliveries(_chosen(gate, webhook_id), FAILED_MAX)
        return [each for each in failed if each.dead_at_ms is not None]

    grid, rows = table("Webhook", "Order", "Event", "Tries", "Given up", "Why"), operate(work)
    for each in rows:
        at = datetime.fromtimestamp((each.dead_at_ms or 0) / 1000, UTC).isoformat(timespec="seconds")
        if as_json:
            view: dict[str, Any] = {
                "webhookId": each.webhook_id,
                "orderId": each.order_id,
                "seq": each.sent + 1,
                "tries": each.tries,
            }
            click.echo(json.dumps({**view, "givenUpAt": at, "error": each.error}, separators=(",", ":")))
        grid.add_row(each.webhook_id, each.order_id, str(each.sent + 1), str(each.tries), at, Text(each.error))
    if not as_json:
        open_screen().print(grid if rows else f"Nothing was given up. ({where()})")


@command.command(epilog=EXIT_CODES)
@click.option("--webhook", "webhook_id", help="Only those of this webhook.")
@click.option("--order", "order_id", help="Only those of this order.")
def replay(webhook_id: str | None, order_id: str | None) -> None:
    """Have deliveries that were given up tried again, from the event that was not taken on."""

    async def work(gate: Gate, store: Store) -> int:
        chosen = _chosen(gate, webhook_id)
        return await store.revive_deliveries(chosen, None if order_id is None else OrderId(order_id))

    count = operate(work)
    click.echo(f"{count} deliver{'y is' if count == 1 else 'ies are'} tried again. ({where()})")


def _chosen(gate: Gate, webhook_id: str | None) -> Sequence[str]:
    active = [each.webhook_id for each in gate.known.webhooks_of(None)]
    if webhook_id is not None and webhook_id not in active:
        raise Refused("there is no such webhook; see fillwright webhooks list", "webhook_not_found")
    return [each for each in active if webhook_id in (None, each)]
