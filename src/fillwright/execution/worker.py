"""Claims due orders and drives each until it rests: over, or waiting for its next attempt.

There is no recovery code. A worker that dies leaves leases that run out; whoever claims the order next reads its log
and takes the next step. A worker that was frozen and wakes up is refused at its next append, because the lease that it
names is no longer the newest, and lets go.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from fillwright.core.control import Mode
from fillwright.core.errors import LeaseLost, SigningHalted, StoreError, StoreUnavailable, VersionConflict
from fillwright.core.lifecycle import STATUS_AFTER, is_expired
from fillwright.core.order import Order, OrderStatus
from fillwright.core.ports import Bus, Claim, Clock, Gate, Store
from fillwright.core.units import Millis, OrderId
from fillwright.execution.executor import Executor

IN_HAND: Final = frozenset({OrderStatus.ROUTING, OrderStatus.BUILDING, OrderStatus.SUBMITTED})
UNSIGNED: Final = IN_HAND - {OrderStatus.SUBMITTED}

PAUSE_MS: Final = 50
HALTED_MS: Final = 1_000  # how long an order that may not be signed rests before somebody looks at it again


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """`poll_ms` bounds how long a lost wake-up can go unnoticed."""

    name: str
    concurrency: int = 10
    lease_ms: Millis = 5_000
    poll_ms: Millis = 1_000
    stop_ms: Millis = 8_000


class Worker:
    def __init__(
        self, store: Store, executor: Executor, bus: Bus, clock: Clock, gate: Gate, settings: WorkerSettings
    ) -> None:
        self._store = store
        self._executor = executor
        self._leave = bus.subscribe_wakes(self._awake)
        self._clock = clock
        self._gate = gate
        self._settings = settings
        self._in_hand: dict[OrderId, int] = {}  # and under which lease
        self._ending: set[OrderId] = set()  # of those in hand, the ones whose last event is being written
        self._drives: set[asyncio.Task[None]] = set()
        self.leases_run_out = 0  # before this worker took their orders: each is counted by who takes the order next
        self._news = False
        self._wake: asyncio.Future[None] | None = None
        self._stopping = False
        self._log = structlog.get_logger().bind(worker=settings.name)

    async def run(self) -> None:
        """Work until `stop` is called, then finish what is in hand or give it back."""
        renewing = asyncio.create_task(self._keep_leases())
        try:
            while not self._stopping:
                self._news = False
                await self._wait(await self._claim())
            await self._finish()
        finally:
            self._leave()
            renewing.cancel()
            for drive in self._drives:
                drive.cancel()

    @property
    def in_hand(self) -> int:
        return len(self._in_hand)

    def stop(self) -> None:
        self._stopping = True
        self._awake()

    async def _claim(self) -> Millis | None:
        """Take as many due orders as there are hands free. Return when to look again (None: when there is news)."""
        # What is left to do for an order that is ending, the store does: that hand is free for the next order. But if
        # the store is slow with it, no more gather than there are hands.
        concurrency, held = self._settings.concurrency, len(self._in_hand)
        free = min(concurrency - held + len(self._ending), 2 * concurrency - held)
        if free <= 0:
            return None
        # What was signed is followed whatever the gate says, or cannot say.
        halted = await self._is_halted()
        try:
            claims = await self._store.claim(self._settings.name, free, begun_only=halted)
        except StoreUnavailable as error:
            self._log.error("worker.claim_failed", reason=str(error))
            return self._clock.now_ms() + self._settings.poll_ms
        except Exception:
            self._log.exception("worker.claim_fault")  # and go on: a worker that ends in silence serves nobody
            return self._clock.now_ms() + self._settings.poll_ms
        for claim in claims.taken:
            self.leases_run_out += claim.left_by != ""
            if claim.left_by or (claim.order.status is not OrderStatus.ROUTING and not halted):
                self._log.info(
                    "order.resumed", order=claim.order.id, status=claim.order.status, left_by=claim.left_by or None
                )
            self._in_hand[claim.order.id] = claim.lease
            self._ending.discard(claim.order.id)
            drive = asyncio.create_task(self._drive(claim))
            self._drives.add(drive)
            drive.add_done_callback(self._drives.discard)
        if halted and len(claims.taken) < free:
            return None
        if not claims.taken and claims.next_due_ms is not None:
            # What is due and cannot be taken (its log cannot be read) must not keep us asking without a pause.
            return max(claims.next_due_ms, self._clock.now_ms() + PAUSE_MS)
        return claims.next_due_ms

    async def _drive(self, claim: Claim) -> None:
        order, lease = claim.order, claim.lease
        try:
            while order.status in IN_HAND:
                control = self._gate.current
                if (control is None or control.mode is Mode.HALTED) and await self._is_held_back(order):
                    await self._rest(order, lease)
                    return
                event = await self._executor.next_event(order)
                if STATUS_AFTER[type(event)] not in IN_HAND and self._in_hand.get(order.id) == lease:
                    self._ending.add(order.id)
                    self._awake()
                order = await self._store.append(order, event, lease)
        except SigningHalted:
            await self._rest(order, lease)
        except (VersionConflict, LeaseLost) as error:
            self._log.info("worker.let_go", order=order.id, reason=str(error))
        except StoreUnavailable as error:
            self._log.error("worker.append_failed", order=order.id, reason=str(error))
        except Exception:
            self._log.exception("worker.fault", order=order.id, status=order.status)
        finally:
            # Where the order was left in hand, its lease runs out and the next claim reads what is true.
            was_offered = order.id in self._ending and len(self._in_hand) < 2 * self._settings.concurrency
            if self._in_hand.get(order.id) == lease:
                del self._in_hand[order.id]
                self._ending.discard(order.id)
            if not was_offered:
                self._awake()

    async def _rest(self, order: Order, lease: int) -> None:
        """Give an order back that may not be signed now."""
        try:
            await self._store.release([(order.id, lease)], delay_ms=HALTED_MS)
        except StoreUnavailable as error:
            self._log.error("worker.release_failed", order=order.id, reason=str(error))  # its lease runs out by itself

    async def _is_held_back(self, order: Order) -> bool:
        """Return whether an order must rest because nothing may be signed. That it has expired may be said."""
        if order.status not in UNSIGNED:
            return False
        return await self._is_halted() and not is_expired(order, self._clock.now_ms())

    async def _is_halted(self) -> bool:
        """Return whether nothing may be signed; it may not, either, where that cannot be known."""
        try:
            return (self._gate.current or await self._gate.control()).mode is Mode.HALTED
        except StoreError as error:
            self._log.error("worker.gate_unknown", reason=str(error))
            return True

    async def _keep_leases(self) -> None:
        while True:
            await self._clock.sleep(self._settings.lease_ms // 3)
            if self._in_hand:
                try:
                    await self._store.renew(list(self._in_hand.items()))
                except StoreUnavailable as error:
                    self._log.error("worker.renew_failed", reason=str(error))
                except Exception:
                    self._log.exception("worker.renew_fault")  # and go on: without renewals every order changes hands

    async def _finish(self) -> None:
        if self._drives:
            await asyncio.wait(self._drives, timeout=self._settings.stop_ms / 1000)
        unfinished = list(self._in_hand.items())
        for drive in self._drives:
            drive.cancel()
        await asyncio.gather(*self._drives, return_exceptions=True)
        if unfinished:
            self._log.info("worker.handed_back", orders=len(unfinished))
            try:
                await self._store.release(unfinished)
            except StoreUnavailable as error:
                self._log.error("worker.release_failed", reason=str(error))  # the leases run out by themselves

    def _awake(self) -> None:
        self._news = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _wait(self, until_ms: Millis | None) -> None:
        """Return at `until_ms`, at the next poll, or when there is news, whichever comes first."""
        now_ms = self._clock.now_ms()
        span_ms = self._settings.poll_ms if until_ms is None else min(self._settings.poll_ms, until_ms - now_ms)
        if self._news or span_ms <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        alarm = loop.call_later(span_ms / 1000, self._awake)
        try:
            await self._wake
        finally:
            alarm.cancel()
            self._wake = None
