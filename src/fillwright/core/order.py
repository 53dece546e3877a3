"""An order: what was asked for (`Terms`), and where it stands (`Order`).

`KINDS` is where a kind of order plugs in: one row, whose function says what makes such an order valid. A market order
is due at once. A kind that waits for something (a price, a new pool) brings its condition in its terms and is made due
by whatever watches that condition; from there on its life is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fillwright.core.errors import Failure, SameToken, UnknownOrderKind
from fillwright.core.routing import Route
from fillwright.core.units import BaseUnits, Bps, MicroUsd, Millis, OrderId, Signature, Token


class OrderStatus(StrEnum):
    PENDING = "pending"
    ROUTING = "routing"
    BUILDING = "building"
    SUBMITTED = "submitted"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the client asked for. Never changes. After `expires_at_ms` nothing new is begun for the order."""

    kind: str
    token_in: Token
    token_out: Token
    in_amount: BaseUnits
    slippage_bps: Bps
    expires_at_ms: Millis | None = None


def check_market(terms: Terms) -> None:
    """Swap now, at the best price there is."""
    if terms.token_in.mint == terms.token_out.mint:
        raise SameToken("tokenIn and tokenOut are the same token", field="tokenOut")


KINDS: Final[Mapping[str, Callable[[Terms], None]]] = {
    "market": check_market,
}


def check_terms(terms: Terms) -> Terms:
    """Return the terms if they can be meant. Raise UnknownOrderKind, or what the kind's own check raises."""
    check = KINDS.get(terms.kind)
    if check is None:
        known = ", ".join(KINDS)
        raise UnknownOrderKind(f"orderType {terms.kind[:64]!r} is not known; known: {known}", field="orderType")
    check(terms)
    return terms


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """Bytes that may be sent, as often as needed, until the chain's block height passes `last_valid_block_height`."""

    signature: Signature
    raw: bytes
    last_valid_block_height: int


@dataclass(frozen=True, slots=True)
class Fill:
    """What the swap did, as read from the chain."""

    in_amount: BaseUnits
    out_amount: BaseUnits
    fee_lamports: int
    slot: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What an order counts for in the limits, from when it is accepted until it ends without a fill.

    `day` is that of the acceptance; `usd` what was to be sold was worth then, None if nobody knew. `key_id` is the key
    that brought it. `control_seq` says which state of the limits it was accepted under.
    """

    day: int
    usd: MicroUsd | None
    key_id: str
    control_seq: int


@dataclass(frozen=True, slots=True)
class Order:
    """Where an order stands after its first `version` events. Made by `lifecycle.accepted` and `lifecycle.apply`.

    `due_at_ms` is when the order wants a worker next: never (None) once it is over. `min_out_amount` is pinned by the
    first route and holds for every later attempt. `live` is the one transaction that may still land.
    """

    id: OrderId
    terms: Terms
    client_order_id: str | None
    status: OrderStatus
    version: int
    created_at_ms: Millis
    updated_at_ms: Millis
    due_at_ms: Millis | None
    attempt: int = 0
    min_out_amount: BaseUnits | None = None
    route: Route | None = None
    live: SignedTransaction | None = None
    fill: Fill | None = None
    failure: Failure | None = None
    account: str = ""
    charge: Charge | None = None

    @property
    def client_key(self) -> str | None:
        """What no two orders share: the client order id, within its account."""
        return None if self.client_order_id is None else client_key(self.account, self.client_order_id)


def client_key(account: str, client_order_id: str) -> str:
    """Return a client order id as no other account can have it: none contains a space."""
    return f"{account} {client_order_id}" if account else client_order_id
