"""Webhooks: an address of a client's own is told every event of its account's orders.

How far each address has been told of each order is a row in the store, begun in the commit that accepts the order.
Events are read from the log and sent one after another, the next once the one before was taken, so they come in order.
Whoever dies in between leaves a lease that runs out, so each comes at least once; `webhook-id` tells a repeated one.
What is not taken is tried again, later each time, and in the end given up until somebody has it tried once more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import structlog

from fillwright.api import wire
from fillwright.core.control import Control, Webhook
from fillwright.core.errors import StoreError, WebhooksOff
from fillwright.core.lifecycle import TERMINAL, Update, replay
from fillwright.core.ports import Bus, Clock, Delivery, Gate, Store
from fillwright.core.units import Millis, OrderId
from fillwright.core.webhooks import secret_of, signature

if TYPE_CHECKING:
    from fillwright.api.outbound import Outbound

LEASE_MS: Final[Millis] = 30_000
GATHER_MS: Final[Millis] = 50  # what happens to an order within this time is told in one go
POLL_MS: Final[Millis] = 2_000  # how often deliveries are looked for without news
AT_ONCE: Final = 8  # deliveries to one webhook at the same time
BACKOFF_MS: Final[Millis] = 1_000
BACKOFF_MAX_MS: Final[Millis] = 3_600_000
SWEEP_MS: Final[Millis] = 3_600_000
DEAD_MS: Final[Millis] = 30 * 86_400_000  # how long what was given up can be replayed
STOP_S: Final = 2.0  # how long a stop waits for what is being sent
ERROR_MAX: Final = 300


class Undelivered(Exception):
    """Nobody has taken a delivery, as far as we know. `is_final`: nobody ever will."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`secret` is what every webhook's own is made of."""

    secret: str
    attempts_max: int = 15
    timeout_ms: Millis = 10_000
    private: bool = False


class Webhooks:
    """Delivers until it is stopped. Any number of these may work on the same store.

    `delivered` events were taken so far; `failed` is how often one was not.
    """

    def __init__(self, store: Store, gate: Gate, bus: Bus, clock: Clock, settings: WebhookSettings) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._settings = settings
        self._outbound: Outbound | None = None
        self._leave = bus.subscribe(self._hear)
        self._accounts: frozenset[str] = frozenset()
        self._news: defaultdict[str, set[OrderId]] = defaultdict(set)  # by account
        self._more: set[str] = set()  # webhooks that had more to be told than there was room for
        self._busy: Counter[str] = Counter()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._gone: set[str] = set()
        self._dropped: set[str] = set()
        self._poll_ms = POLL_MS
        self._signable: dict[str, bool] = {}
        self._swept_ms: Millis | None = None
        self.delivered = 0
        self.failed = 0
        self._wake: asyncio.Future[None] | None = None
        self._woken = True
        self._stopping = False
        self._log = structlog.get_logger()

    async def run(self) -> None:
        looked_ms: Millis | None = None
        try:
            while not self._stopping:
                control, now_ms = self._gate.current, self._clock.now_ms()
                everything = looked_ms is None or abs(now_ms - looked_ms) >= self._poll_ms
                try:
                    if control is not None:
                        looked_ms = now_ms if everything else looked_ms
                        active = [each for each in control.webhooks_of(None) if self._can_sign(each)]
                        self._accounts = frozenset(each.account for each in active)
                        await self._take(active, everything=everything)
                        if everything and (control.webhooks or control.gone_webhooks):
                            await self._drop(control)
                            # Looking at everything takes a twentieth of the time at most, however much there is.
                            self._poll_ms = max(POLL_MS, 20 * (self._clock.now_ms() - now_ms))
                except StoreError as error:
                    self._log.warning("webhooks.store_unavailable", reason=str(error))
                except Exception:
                    self._log.exception("webhooks.fault")  # and go on: deliveries that end in silence serve nobody
                await self._wait()
            if self._deliveries:
                await asyncio.wait(self._deliveries, timeout=STOP_S)
        finally:
            self._leave()
            for delivery in self._deliveries:
                delivery.cancel()
            await asyncio.gather(*self._deliveries, return_exceptions=True)
            if self._outbound is not None:
                await self._outbound.close()

    def stop(self) -> None:
        self._stopping = True
        self._awake()

    def _hear(self, updates: Sequence[Update]) -> None:
        if not self._accounts:
            return
        for update in updates:
            if update.order.account in self._accounts:
                self._news[update.order.account].add(update.order.id)
                self._awake()

    async def _take(self, active: Sequence[Webhook], *, everything: bool) -> None:
        """Begin with as many deliveries as there is room for; `_more` notes where that were not all."""
        news, self._news = self._news, defaultdict(set)
        for webhook in active:
            webhook_id = webhook.webhook_id
            anything = everything or webhook_id in self._more
            orders = None if anything else list(news.get(webhook.account, ()))
            if orders == []:
                continue
            self._more.discard(webhook_id)
            room = AT_ONCE - self._busy[webhook_id]
            taken = await self._store.claim_deliveries(webhook_id, room, LEASE_MS, orders) if room else []
            if len(taken) == room:
                self._more.add(webhook_id)
            for delivery in taken:
                self._busy[webhook_id] += 1
                task = asyncio.create_task(self._deliver(webhook, delivery))
                self._deliveries.add(task)
                task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, webhook: Webhook, delivery: Delivery) -> None:
        try:
            await self._tell(webhook, delivery)
        except StoreError as error:
            self._log.warning("webhook.store_unavailable", webhook=webhook.webhook_id, reason=str(error))
        except Exception:
            self._log.exception("webhook.fault", webhook=webhook.webhook_id, order=delivery.order_id)
        finally:
            self._busy[webhook.webhook_id] -= 1
            self._busy += Counter()  # without those that have none
            if webhook.webhook_id in self._more:
                self._awake()

    async def _tell(self, webhook: Webhook, delivery: Delivery) -> None:
        """Send what is in the log beyond what was sent, and keep how far that went."""
        updates = replay(await self._store.history(delivery.order_id))
        until_ms = delivery.due_at_ms - self._settings.timeout_ms - 1_000  # what begins by then ends within the lease
        try:
            for update in updates[delivery.sent :]:
                if self._clock.now_ms() > until_ms:
                    break
                await self._send(webhook, update)
                self.delivered += 1
                delivery = replace(delivery, sent=update.record.seq, tries=0, error="")
        except Undelivered as error:
            delivery = self._after_failure(delivery, error)
        else:
            delivery = replace(delivery, due_at_ms=self._clock.now_ms())
        is_over = delivery.sent > 0 and updates[delivery.sent - 1].order.status in TERMINAL
        await self._store.settle_delivery(delivery, is_over=is_over)
        if not is_over and not delivery.error and await self._store.history(delivery.order_id, delivery.sent):
            self._news[webhook.account].add(delivery.order_id)  # news that came while nobody could take the delivery
            self._awake()

    def _after_failure(self, delivery: Delivery, error: Undelivered) -> Delivery:
        self.failed += 1
        now_ms, tries = self._clock.now_ms(), delivery.tries + 1
        delay_ms = min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (tries - 1))
        is_dead = error.is_final or tries >= self._settings.attempts_max
        self._log.warning(
            "webhook.given_up" if is_dead else "webhook.not_taken",
            webhook=delivery.webhook_id,
            order=delivery.order_id,
            seq=delivery.sent + 1,
            tries=tries,
            reason=str(error),
        )
        return replace(
            delivery,
            tries=tries,
            due_at_ms=now_ms + delay_ms,
            error=str(error)[:ERROR_MAX],
            dead_at_ms=now_ms if is_dead else None,
        )

    async def _send(self, webhook: Webhook, update: Update) -> None:
        body = wire.encode(wire.update_message(update))
        message_id = f"{update.record.order_id}.{update.record.seq}"
        at_s = self._clock.now_ms() // 1000
        secret = secret_of(self._settings.secret, webhook.webhook_id)
        headers = {
            "content-type": "application/json",
            "user-agent": "fillwright",
            "fillwright-webhook": webhook.webhook_id,
            "webhook-id": message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signature(secret, message_id, at_s, body),
        }
        if self._outbound is None:
            # Here, so that who has no webhooks does not carry the client.
            from fillwright.api.outbound import Outbound

            self._outbound = Outbound(self._settings.timeout_ms / 1000, private=self._settings.private)
        await self._outbound.post(webhook.url, body, headers)

    async def _drop(self, control: Control) -> None:
        """Forget what is left of webhooks that were taken away, and what nobody had tried again for a month.

        A while after, when no order begins a delivery to them any more.
        """
        revoked = {each.webhook_id for each in control.webhooks.values() if not control.is_active(each)}
        gone = revoked.union(control.gone_webhooks)
        ripe, now_ms = (gone & self._gone) - self._dropped, self._clock.now_ms()
        if ripe or self._swept_ms is None or abs(now_ms - self._swept_ms) >= SWEEP_MS:
            await self._store.drop_deliveries(sorted(ripe), now_ms - DEAD_MS)
            self._swept_ms = now_ms
        self._gone, self._dropped = gone, self._dropped | ripe
        self._more &= {*control.webhooks}

    def _can_sign(self, webhook: Webhook) -> bool:
        """Return whether this process has the secret that the webhook was added with; if not, say so once."""
        can = self._signable.get(webhook.webhook_id)
        if can is None:
            with contextlib.suppress(WebhooksOff):
                secret = secret_of(self._settings.secret, webhook.webhook_id)
                can = sha256(secret).hexdigest() == webhook.digest
            if not can:
                remedy = "set FILLWRIGHT_WEBHOOK_SECRET to the same for all processes and the command line"
                self._log.error("webhook.other_secret", webhook=webhook.webhook_id, remedy=remedy)
            can = self._signable[webhook.webhook_id] = bool(can)
        return can

    def _awake(self) -> None:
        self._woken = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _wait(self) -> None:
        """Return a moment after there is something to do, or when it is time to look at all deliveries."""
        if not self._woken:
            loop = asyncio.get_running_loop()
            self._wake = loop.create_future()
            alarm = loop.call_later(POLL_MS / 1000, self._awake)
            try:
                await self._wake
            finally:
                alarm.cancel()
                self._wake = None
        if not self._stopping:
            await self._clock.sleep(GATHER_MS)
        self._woken = False
