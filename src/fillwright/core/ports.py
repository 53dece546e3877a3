"""Every seam of the engine on one page. An implementation of a port passes that port's suite in `tests/contracts`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from fillwright.core.accounts import Account, Address, Instruction, PoolAccounts, Trader
from fillwright.core.control import Action, Control, Entry
from fillwright.core.errors import ExecutionError
from fillwright.core.lifecycle import Accepted, Event, Recorded, Update
from fillwright.core.limits import Cap
from fillwright.core.order import Fill, Order, OrderStatus, SignedTransaction
from fillwright.core.routing import Answer, Leg, Quote, QuoteRequest, Route
from fillwright.core.units import BaseUnits, Bps, MicroUsd, Millis, Mint, OrderId, Signature, Token

START_WINDOW_MS: Final[Millis] = 60_000
"""The rate limit counts the starts in this span: in any such span, both ends included."""


class Clock(Protocol):
    def now_ms(self) -> Millis:
        """Return the time since the Unix epoch."""

    async def sleep(self, span_ms: Millis) -> None: ...


class Venue(Protocol):
    """A place where swaps are made."""

    @property
    def name(self) -> str: ...

    def quote(self, request: QuoteRequest) -> Quote | Coroutine[Any, Any, Quote | Sequence[Answer]]:
        """Return what the venue pays, at once if that is known here, else when it has been asked for.

        One that has many pools answers for each. Raise VenueUnavailable or PairNotListed.
        """


class AccountReader(Protocol):
    """Reads accounts of the chain."""

    async def read(self, addresses: Sequence[Address]) -> tuple[int, list[Account | None]]:
        """Return the slot, and what each of up to 100 accounts held then (None: it does not exist).

        Raise ChainUnavailable.
        """


class PoolSource(Protocol):
    """Where the accounts of real pools come from."""

    @property
    def newest_slot(self) -> int:
        """The newest slot that anything was read at: how old a pool is, is counted from here."""

    async def pools(self, mint_a: Mint, mint_b: Mint, *, min_slot: int = 0) -> Sequence[PoolAccounts]:
        """Return the pools of a pair, whichever way round; read anew where they are older than `min_slot`.

        Raise VenueUnavailable.
        """


@dataclass(frozen=True, slots=True)
class PreparedSwap:
    """A leg of a route as its pool would make it at `slot`. `instruction` writes it, with a least out amount."""

    slot: int
    in_amount: BaseUnits
    out_amount: BaseUnits
    instruction: Callable[[BaseUnits, Trader], Instruction]


class Swaps(Protocol):
    """Makes the swaps of a route."""

    async def prepare(self, leg: Leg, in_amount: BaseUnits, *, min_slot: int = 0) -> PreparedSwap:
        """Return a leg as its pool stands now, at `min_slot` or later. Raise QuoteRefused or VenueUnavailable."""


class Prices(Protocol):
    """What tokens are worth, apart from any pool that could be made to say something else."""

    def usd(self, token: Token, amount: BaseUnits) -> MicroUsd | None:
        """Return the worth of an amount now, rounded up. None if it is not known, or not well enough."""


@dataclass(frozen=True, slots=True)
class Finalized:
    """The newest block that can no longer be rolled back."""

    block_height: int
    slot: int


@dataclass(frozen=True, slots=True)
class LandedSwap:
    """A successful swap in the chain's own record; order and attempt are read from the transaction's memo."""

    order_id: OrderId
    attempt: int
    signature: Signature
    fill: Fill


class Chain(Protocol):
    """Where transactions are signed and land. Every method may raise ChainUnavailable, which means "unknown"."""

    @property
    def identity(self) -> str:
        """Name the chain as no other chain is named: what one has proven says nothing about another."""

    async def sign(self, order: Order, route: Route, min_out_amount: BaseUnits) -> SignedTransaction:
        """Build and sign the order's swap, with order id and attempt as memo. Nothing is sent."""

    async def send(self, transaction: SignedTransaction) -> None:
        """Hand the bytes to the network. May be repeated: a signature lands at most once."""

    async def finalized(self) -> Finalized: ...

    async def outcome(self, transaction: SignedTransaction, finalized: Finalized) -> Fill | ExecutionError | None:
        """Return the fill, the error on chain, or None if a view at least as recent as `finalized` does not know it.

        If that is past the last block that it can land in, None says that it never has and never will.

        Both must be final: a fill or an error that a fork can still undo is not an outcome yet.
        """

    async def wait(self, signature: Signature, span_ms: Millis) -> None:
        """Return after `span_ms`, or when it is worth looking for an outcome: sooner on news, later where asking costs.

        It says nothing of the outcome.
        """

    def landed_swaps(self) -> AsyncIterator[LandedSwap]:
        """Yield every successful swap of this wallet, oldest first, from the chain's own record.

        A chain that knows already what is bound to land yields that, too.
        """


Listener: TypeAlias = Callable[[Sequence[Update]], None]


def anything(_: OrderId) -> bool:
    return True


class Bus(Protocol):
    """Carries news of commits. It may lose some and holds no truth: listeners check `seq` and read the log."""

    @property
    def fault(self) -> str | None:
        """Say what keeps the news of other processes from coming, None if nothing does."""

    def publish(self, updates: Sequence[Update]) -> None:
        """Tell every listener of one commit. Never blocks, never raises."""

    def subscribe(self, listener: Listener, wants: Callable[[OrderId], bool] = anything) -> Callable[[], None]:
        """Call `listener` for every commit from now on. Return the function that ends it.

        News from elsewhere of orders that it does not want may be spared.
        """

    def subscribe_wakes(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever an order may have become due. Return the function that ends it."""

    def start(self) -> None:
        """Begin to exchange news with other processes, for those who have subscribed by now."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """An order that this worker holds. `lease` is the fence: an append that names an older one is refused.

    `left_by` is the worker that held the order before and let its lease run out; empty where it was given back.
    """

    order: Order
    lease: int
    left_by: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a claim returned, and the earliest time at which another one may return more (None: no order waits)."""

    taken: Sequence[Claim]
    next_due_ms: Millis | None


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which of an account's orders to list, newest first; `before` is the last id of the previous page."""

    account: str = ""
    status: OrderStatus | None = None
    mint: Mint | None = None
    client_order_id: str | None = None
    created_from_ms: Millis | None = None
    created_to_ms: Millis | None = None
    before: OrderId | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """`waiting`: due, not taken. `active`: held by a worker. `delayed`: held back by a retry or the rate limit.

    `oldest_due_ms` is since when the oldest of those that wait is due; None if none waits.
    """

    waiting: int
    active: int
    delayed: int
    confirmed: int
    failed: int
    total: int
    oldest_due_ms: Millis | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far a webhook has been told of an order: `sent` is the last event that it took.

    `lease` is the fence, as with claims. Given up (`dead_at_ms`) it waits for somebody to have it tried again.
    """

    webhook_id: str
    order_id: OrderId
    sent: int = 0
    tries: int = 0
    due_at_ms: Millis = 0
    lease: int = 0
    error: str = ""
    dead_at_ms: Millis | None = None


class Store(Protocol):
    """The log of events, and the queue that follows from it. What a method returns is durable.

    After each commit the store hands its news to the listener it was opened with, once, in order.
    Any method may raise StoreUnavailable.
    """

    async def accept(
        self, order_id: OrderId, event: Accepted, caps: Sequence[Cap] = (), webhooks: Sequence[str] = ()
    ) -> Order:
        """Append an order's first event. If its account knows its client order id, return that order, unchanged.

        Raise QueueFull if as many orders are open as the store admits, Halted if the audit log says that nothing new is
        taken, OverLimit if one of `caps` would be exceeded. Of all who accept with caps, in whatever process, each sees
        what those before have used. `webhooks` are to be told of the order: a delivery to each begins in this commit.
        """

    async def usage(self, day: int, of: Sequence[str]) -> Mapping[tuple[str, str], int]:
        """Return what the orders of a day count for, and how many are open now, by whose and what (see `limits`)."""

    async def append(self, order: Order, event: Event, lease: int | None = None) -> Order:
        """Append an event to the order as the caller saw it, and return the order after it.

        Raise VersionConflict if the order has moved on, LeaseLost if `lease` is not the newest, SigningHalted for a
        TransactionSigned if the audit log says that the engine is halted. Terminal events and AttemptFailed give the
        lease back.
        """

    async def claim(self, worker: str, limit: int, *, begun_only: bool = False) -> Claims:
        """Take up to `limit` due orders under a new lease each, those already begun first, or only those.

        A pending order is begun (or expires) in the same commit, so that start, lease and the global rate limit of
        starts are one decision.
        """

    async def renew(self, claims: Sequence[tuple[OrderId, int]]) -> None:
        """Lengthen leases that are still held; others are left alone."""

    async def release(self, claims: Sequence[tuple[OrderId, int]], *, delay_ms: Millis = 0) -> None:
        """Give leases back: the orders are due after `delay_ms`."""

    async def history(self, order_id: OrderId, after: int = 0) -> list[Recorded]:
        """Return the order's events with a `seq` above `after`, in order; empty if there are none."""

    async def find(self, criteria: OrderFilter) -> list[Order]:
        """Return one page of orders, newest first."""

    async def counts(self) -> QueueCounts: ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes are to be expected, whose commits this one does not see."""

    async def count_events(self, from_ms: Millis, to_ms: Millis) -> int:
        """Return how many events bear a time from `from_ms` to before `to_ms`. Meant for the last few seconds."""

    async def changed(self, since_ms: Millis, limit: int) -> list[Update]:
        """Return the updates since then of up to `limit` orders, each order's own in order."""

    def scan(self) -> AsyncIterator[Order]:
        """Yield every order, oldest first."""

    async def pinned(self, name: str) -> str | None:
        """Return what is kept under `name`, None if nothing is."""

    async def pin(self, name: str, value: str) -> str:
        """Keep `value` under `name` if there is none yet, and return what is kept."""

    async def add_ticket(self, digest: str, key_id: str, expires_at_ms: Millis) -> None:
        """Keep a ticket of a key until somebody takes it."""

    async def take_ticket(self, digest: str) -> str | None:
        """Return whose key a ticket is of, and forget it. None if there is none, or it has expired."""

    async def claim_deliveries(
        self, webhook_id: str, limit: int, lease_ms: Millis, orders: Sequence[OrderId] | None = None
    ) -> list[Delivery]:
        """Take up to `limit` of a webhook's deliveries that are due and have an event to tell, under a new lease each.

        `orders` narrows that to some.
        """

    async def settle_delivery(self, delivery: Delivery, *, is_over: bool = False) -> None:
        """Keep a delivery as it stands now, or forget it if it `is_over`, unless somebody else has taken it since."""

    async def failed_deliveries(self, webhooks: Sequence[str], limit: int) -> list[Delivery]:
        """Return deliveries that were not taken, those that were given up first, the oldest first."""

    async def revive_deliveries(self, webhooks: Sequence[str], order_id: OrderId | None = None) -> int:
        """Make deliveries that were given up due again, those of one order or all. Return how many there were."""

    async def drop_deliveries(self, webhooks: Sequence[str], dead_before_ms: Millis = 0) -> None:
        """Forget all deliveries to these webhooks, and those to any that were given up before a time."""

    async def add_audit(self, entry: Entry) -> bool:
        """Append an entry to the audit log. Return False if another one has its place: read on, and try again."""

    async def audit_log(self, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Return the entries of the audit log with a `seq` above `after`, in order; not more than `limit`, if given."""

    async def check(self) -> None:
        """Return if the store can answer and its last write worked; raise StoreUnavailable if not."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """An order in the client's words. Amount and slippage are still text, so that no float ever touches them."""

    token_in: str
    token_out: str
    amount: str
    slippage: str | None = None
    kind: str = "market"
    client_order_id: str | None = None
    expires_at_ms: Millis | None = None


@dataclass(frozen=True, slots=True)
class QuotePreview:
    """The route that an order would take now."""

    route: Route
    request: QuoteRequest
    slippage_bps: Bps
    min_out_amount: BaseUnits


class Intake(Protocol):
    """The one door through which orders, cancels and quotes come. Every method may raise Denied."""

    async def submit(self, request: OrderRequest, account: str = "", key_id: str = "") -> tuple[Order, bool]:
        """Return the order once it is durable, and whether it is new (False: its client order id was known).

        `key_id` is whose key brings it, if it came by one.
        """

    async def cancel(self, order_id: OrderId, actor: str, account: str = "") -> Order: ...

    async def quote(self, request: OrderRequest, account: str = "", key_id: str = "") -> QuotePreview: ...


class Gate(Protocol):
    """What operators have decided."""

    @property
    def current(self) -> Control | None:
        """What is in force, as of at most a second ago; None if this process must look first."""

    async def control(self) -> Control:
        """Return `current`, having looked if need be. Raise StoreUnavailable if that cannot be known."""

    async def change(self, actor: str, change: Action | Callable[[Control], Action]) -> Entry:
        """Append to the audit log what somebody does, and return the entry once it is durable and in force here.

        What depends on what is in force is given as a function of it: it is asked again if somebody else was faster.
        Raise StoreUnavailable if it is not known to be written.
        """
