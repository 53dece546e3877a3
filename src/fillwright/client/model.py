"""What the engine tells, as values. Amounts and prices are Decimals: none of them was ever a float.

Each class reads itself from the engine's JSON, and ignores what it does not know: a newer engine may tell more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypeAlias

Json: TypeAlias = Mapping[str, Any]
Amount: TypeAlias = Decimal | str | int


class Status(StrEnum):
    PENDING = "pending"
    ROUTING = "routing"
    BUILDING = "building"
    SUBMITTED = "submitted"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_over(self) -> bool:
        return self in OVER


OVER: Final = frozenset({Status.CONFIRMED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})


@dataclass(frozen=True, slots=True)
class Terms:
    """What was asked for."""

    token_in: str
    token_out: str
    mint_in: str
    mint_out: str
    amount: Decimal
    slippage_bps: int
    expires_at: datetime | None

    @classmethod
    def read(cls, json: Json) -> Terms:
        return cls(
            json["tokenIn"],
            json["tokenOut"],
            json["mintIn"],
            json["mintOut"],
            Decimal(json["amount"]),
            json["slippageBps"],
            _time_or_none(json["expiresAt"]),
        )


@dataclass(frozen=True, slots=True)
class Fill:
    """What the swap did, as the chain says."""

    in_amount: Decimal
    out_amount: Decimal
    fee_lamports: int
    slot: int

    @classmethod
    def read(cls, json: Json) -> Fill:
        return cls(Decimal(json["inAmount"]), Decimal(json["outAmount"]), json["feeLamports"], json["slot"])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an order or an attempt failed."""

    code: str
    message: str

    @classmethod
    def read(cls, json: Json) -> Failure:
        return cls(json["code"], json["message"])


@dataclass(frozen=True, slots=True)
class Quote:
    """A venue's answer. One that made no offer has no amounts; `code` and `reason` say why it was passed over."""

    venue: str
    is_selected: bool
    code: str
    reason: str
    out_amount: Decimal | None
    effective_price: Decimal | None
    fee_bps: int | None
    price_impact_bps: int | None
    pool: str | None

    @classmethod
    def read(cls, json: Json) -> Quote:
        return cls(
            json["dex"],
            json["selected"],
            json["code"],
            json["reason"],
            _decimal_or_none(json.get("outAmount")),
            _decimal_or_none(json.get("effectivePrice")),
            json.get("feeBps"),
            json.get("priceImpactBps"),
            json.get("pool"),
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at an order. `status` is open, confirmed, failed or cancelled."""

    number: int
    status: str
    started_at: datetime
    venue: str | None
    signature: str | None
    submitted_at: datetime | None
    ended_at: datetime | None
    failure: Failure | None

    @classmethod
    def read(cls, json: Json) -> Attempt:
        return cls(
            json["attempt"],
            json["status"],
            _time(json["startedAt"]),
            json.get("selectedDex"),
            json.get("txHash"),
            _time_or_none(json.get("submittedAt")),
            _time_or_none(json.get("endedAt")),
            Failure.read(json["error"]) if "error" in json else None,
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The engine's answer to an order: it is on disk.

    `is_new` is false where the engine had the order already, be it from an earlier try of the same call.
    """

    order_id: str
    client_order_id: str
    status: Status
    accepted_at: datetime
    is_new: bool

    @classmethod
    def read(cls, json: Json, *, is_new: bool) -> Accepted:
        return cls(json["orderId"], json["clientOrderId"], Status(json["status"]), _time(json["timestamp"]), is_new)


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stands after its event `seq`. Lists leave out its quotes and attempts."""

    order_id: str
    client_order_id: str | None
    kind: str
    status: Status
    terms: Terms
    min_out_amount: Decimal | None
    venue: str | None
    signature: str | None
    executed_price: Decimal | None
    fill: Fill | None
    failure: Failure | None
    attempt: int
    seq: int
    created_at: datetime
    updated_at: datetime
    quotes: tuple[Quote, ...]
    attempts: tuple[Attempt, ...]

    @property
    def is_over(self) -> bool:
        return self.status.is_over

    @classmethod
    def read(cls, json: Json) -> Order:
        return cls(
            json["orderId"],
            json["clientOrderId"],
            json["orderType"],
            Status(json["status"]),
            Terms.read(json),
            _decimal_or_none(json["minOutAmount"]),
            json["selectedDex"],
            json["txHash"],
            _decimal_or_none(json["executedPrice"]),
            Fill.read(json["fill"]) if json["fill"] else None,
            Failure.read(json["error"]) if json["error"] else None,
            json["attempt"],
            json["seq"],
            _time(json["createdAt"]),
            _time(json["updatedAt"]),
            _quotes(json),
            _attempts(json),
        )


@dataclass(frozen=True, slots=True)
class Update:
    """One event of an order; `status` is the order's after it, and `data` all that the engine tells of it.

    What an event does not tell is None or empty: `terms` come with the first, `quotes` and `reason` with a route,
    `fill` with the confirmation. `name` is the event's name in the log; streams do not tell it.
    """

    order_id: str
    seq: int
    status: Status
    at: datetime
    name: str | None
    attempt: int | None
    terms: Terms | None
    venue: str | None
    reason: str | None
    signature: str | None
    fill: Fill | None
    failure: Failure | None
    retry_at: datetime | None
    quotes: tuple[Quote, ...]
    data: Json

    @property
    def is_last(self) -> bool:
        return self.status.is_over

    @classmethod
    def read(cls, json: Json) -> Update:
        data, name = json["data"], json["event"]
        return cls(
            json["orderId"],
            json["seq"],
            Status(json["status"]),
            _time(json["timestamp"]),
            None if name == "order:update" else name,
            data.get("attempt", data.get("attempts")),
            Terms.read(data) if "tokenIn" in data else None,
            data.get("selectedDex"),
            data.get("reason"),
            data.get("txHash"),
            Fill.read(data) if "outAmount" in data else None,
            Failure.read(data["error"]) if "error" in data else None,
            _time_or_none(data.get("retryAt")),
            _quotes(data),
            data,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """How one attempt was routed, and why."""

    attempt: int
    at: datetime
    venue: str
    reason: str
    min_out_amount: Decimal
    quotes: tuple[Quote, ...]

    @classmethod
    def read(cls, json: Json) -> Decision:
        return cls(
            json["attempt"],
            _time(json["timestamp"]),
            json["selectedDex"],
            json["reason"],
            Decimal(json["minOutAmount"]),
            _quotes(json),
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every decision about an order, and how its fill compares with what was quoted."""

    order_id: str
    status: Status
    terms: Terms
    decisions: tuple[Decision, ...]
    attempts: tuple[Attempt, ...]
    quoted_out_amount: Decimal | None
    filled_out_amount: Decimal | None
    quote_to_fill_bps: int | None

    @classmethod
    def read(cls, json: Json) -> Explanation:
        return cls(
            json["orderId"],
            Status(json["status"]),
            Terms.read(json),
            tuple(Decision.read(each) for each in json["decisions"]),
            _attempts(json),
            _decimal_or_none(json["quotedOutAmount"]),
            _decimal_or_none(json["filledOutAmount"]),
            json["quoteToFillBps"],
        )


@dataclass(frozen=True, slots=True)
class Route:
    """The route that an order would take now."""

    terms: Terms
    venue: str
    reason: str
    out_amount: Decimal
    min_out_amount: Decimal
    price: Decimal
    quotes: tuple[Quote, ...]
    at: datetime

    @classmethod
    def read(cls, json: Json) -> Route:
        return cls(
            Terms.read(json),
            json["selectedDex"],
            json["reason"],
            Decimal(json["outAmount"]),
            Decimal(json["minOutAmount"]),
            Decimal(json["price"]),
            _quotes(json),
            _time(json["timestamp"]),
        )


@dataclass(frozen=True, slots=True)
class Stats:
    """How many orders wait, run and are done; `total` counts cancelled and expired ones, too."""

    waiting: int
    active: int
    delayed: int
    confirmed: int
    failed: int
    total: int
    streams: int
    at: datetime

    @classmethod
    def read(cls, json: Json) -> Stats:
        queue = json["queue"]
        return cls(
            queue["waiting"],
            queue["active"],
            queue["delayed"],
            queue["completed"],
            queue["failed"],
            queue["total"],
            json["websocket"]["connections"],
            _time(json["timestamp"]),
        )


def amount_text(amount: Amount, field: str) -> str:
    """Return an amount as the engine takes it. Raise TypeError if it was a float: those are not exact."""
    if isinstance(amount, Decimal):
        return f"{amount:f}"
    if isinstance(amount, bool) or not isinstance(amount, (str, int)):
        raise TypeError(f"{field} must be a Decimal, a str or an int, not {type(amount).__name__}")
    return str(amount)


def _quotes(json: Json) -> tuple[Quote, ...]:
    return tuple(Quote.read(each) for each in json.get("quotes", ()))


def _attempts(json: Json) -> tuple[Attempt, ...]:
    return tuple(Attempt.read(each) for each in json.get("attempts", ()))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time_or_none(text: str | None) -> datetime | None:
    return None if text is None else _time(text)


def _decimal_or_none(number: Decimal | str | int | None) -> Decimal | None:
    return None if number is None else Decimal(number)
