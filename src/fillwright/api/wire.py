"""The JSON in and out. These shapes and names live here and nowhere else.

On the wire the seed's words stand (`selectedDex`, `txHash`, `executedPrice`); amounts are decimal strings in whole
tokens, exact, and prices are numbers, for people. Request amounts are taken as the text that the client sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from fillwright.core.control import (
    TEXT_MAX,
    Action,
    Control,
    Entry,
    Key,
    KeyCreated,
    LimitsSet,
    Mode,
    ModeSet,
    Webhook,
    WebhookAdded,
    mode_set,
)
from fillwright.core.errors import (
    AuditBroken,
    Denied,
    FillwrightError,
    Forbidden,
    IdempotencyMismatch,
    InternalError,
    InvalidExpiry,
    InvalidRequest,
    KeyNotFound,
    MethodNotAllowed,
    NoRoute,
    NotCancellable,
    NotFound,
    NotReady,
    OrderNotFound,
    OverLimit,
    PayloadTooLarge,
    QueueFull,
    StoreUnavailable,
    TooManyRequests,
    Unauthorized,
    Unroutable,
    UnsupportedMediaType,
    WebhookNotFound,
    WebhooksOff,
)
from fillwright.core.lifecycle import (
    Accepted,
    AttemptFailed,
    Cancelled,
    Confirmed,
    Event,
    Expired,
    Failed,
    RouteSelected,
    RoutingStarted,
    TransactionSigned,
    Update,
)
from fillwright.core.limits import LOCAL, Limits
from fillwright.core.limits_document import from_document, to_document, used_document
from fillwright.core.order import Fill, Order, Terms
from fillwright.core.ports import Delivery, OrderRequest, QueueCounts, QuotePreview
from fillwright.core.routing import Leg, PassedOver, Quote, Route
from fillwright.core.tokens import WELL_KNOWN, TokenRegistry
from fillwright.core.units import BPS, BaseUnits, Millis, Mint, Token, difference_bps, format_amount

Json = dict[str, Any]

STATUS_CODES: Final[dict[type[FillwrightError], int]] = {
    Denied: 400,
    PayloadTooLarge: 413,
    UnsupportedMediaType: 415,
    NotFound: 404,
    MethodNotAllowed: 405,
    OrderNotFound: 404,
    KeyNotFound: 404,
    WebhookNotFound: 404,
    WebhooksOff: 503,
    Unauthorized: 401,
    Forbidden: 403,
    TooManyRequests: 429,
    NotCancellable: 409,
    IdempotencyMismatch: 422,
    QueueFull: 429,
    OverLimit: 403,
    NotReady: 503,
    NoRoute: 503,
    Unroutable: 422,
    InternalError: 500,
    StoreUnavailable: 503,
    AuditBroken: 503,
}
RETRY_AFTER_S: Final = 1
EPOCH: Final = datetime.fromtimestamp(0, UTC)
TIME_MAX_MS: Final = 253_402_300_799_999  # the end of the year 9999

encode: Final = msgspec.json.Encoder().encode


class OrderBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """An order as a client sends it. `amount` and `slippage` may be JSON numbers or decimal strings."""

    token_in: str
    token_out: str
    amount: msgspec.Raw
    slippage: msgspec.Raw = msgspec.Raw(b"")
    order_type: str = "market"
    client_order_id: str | None = None
    expires_at: str | None = None


class ModeBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    mode: Mode
    reason: str = ""


class KeyBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    name: str
    scopes: list[str]
    account: str = ""


class WebhookBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    url: str
    key_id: str | None = None


class LimitsBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    of: str
    limits: dict[str, Any]


_limits_decoder: Final = msgspec.json.Decoder(LimitsBody, float_hook=str)
_key_decoder: Final = msgspec.json.Decoder(KeyBody)
_webhook_decoder: Final = msgspec.json.Decoder(WebhookBody)
_mode_decoder: Final = msgspec.json.Decoder(ModeBody)
_order_decoder: Final = msgspec.json.Decoder(OrderBody)
_field_named: Final = re.compile(r"`\$\.(\w+)`|field `(\w+)`")


def order_request(body: bytes | str, idempotency_key: str | None = None) -> OrderRequest:
    """Return the order in a request body. `idempotency_key`, from the header, is its client order id.

    Raise InvalidRequest or InvalidExpiry.
    """
    try:
        order = _order_decoder.decode(body if isinstance(body, str) else body.decode())
        amount = _number_text(order.amount, "amount")
        slippage = _number_text(order.slippage, "slippage") if order.slippage else None
    except UnicodeDecodeError as error:
        raise InvalidRequest("the body is not UTF-8") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    except msgspec.DecodeError as error:
        named = _field_named.search(str(error))
        raise InvalidRequest(_in_words(str(error)), field=(named[1] or named[2]) if named else None) from error
    if idempotency_key is not None and order.client_order_id not in (None, idempotency_key):
        raise InvalidRequest(
            "the Idempotency-Key header and clientOrderId differ; send one of them", field="clientOrderId"
        )
    return OrderRequest(
        token_in=order.token_in,
        token_out=order.token_out,
        amount=amount,
        slippage=slippage,
        kind=order.order_type,
        client_order_id=idempotency_key if idempotency_key is not None else order.client_order_id,
        expires_at_ms=None if order.expires_at is None else parse_time(order.expires_at, "expiresAt", InvalidExpiry),
    )


def _in_words(error: str) -> str:
    """Return what the decoder found wrong so that one who never saw the decoder can mend it."""
    if "truncated" in error:
        return "the body ends before its JSON does: is it empty, or cut off?"
    if "unknown field" in error:
        return f"{error}; known: {', '.join(field.encode_name for field in msgspec.structs.fields(OrderBody))}"
    return error.replace("Expected `str`, got", "this must be text (a JSON string), not")


def _number_text(raw: msgspec.Raw, field: str) -> str:
    text = bytes(raw).decode()
    if text.startswith('"'):
        return msgspec.json.decode(text, type=str)
    if text[0] in "-0123456789":
        return text
    raise InvalidRequest(f"{field} must be a number or a decimal string", field=field)


def parse_time(text: str, field: str, refusal: type[Denied] = InvalidRequest) -> Millis:
    """Return a time in RFC 3339, with its offset, as milliseconds. Raise `refusal` naming `field`."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    at_ms = (time - EPOCH) // timedelta(milliseconds=1) if time is not None and time.tzinfo is not None else -1
    if not 0 <= at_ms <= TIME_MAX_MS:
        raise refusal(f"{field} must be a time such as 2026-01-31T12:00:00Z", field=field)
    return at_ms


def iso(at_ms: Millis) -> str:
    """Return a time as RFC 3339 in UTC, to the millisecond."""
    seconds, millis = divmod(at_ms, 1000)
    return f"{_to_the_second(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=64)
def _to_the_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def status_of(kind: type[FillwrightError]) -> int:
    """Return the HTTP status of a kind of error."""
    kinds = (each for each in kind.__mro__ if each in STATUS_CODES)
    return STATUS_CODES.get(next(kinds, FillwrightError), 500)


def problem(error: FillwrightError) -> tuple[int, Json]:
    """Return the HTTP status and the RFC 9457 body of an error."""
    status = status_of(type(error))
    body: Json = {
        "type": f"/docs#{error.code}",
        "title": error.title,
        "status": status,
        "detail": str(error),
        "code": error.code,
        "error": error.title,
        "message": str(error),
    }
    if isinstance(error, Denied) and error.field is not None:
        body["field"] = error.field
    if isinstance(error, OverLimit):
        name, _, token = error.limit.partition(" ")
        body["limit"] = {"name": name, "of": error.of, **({"token": token} if token else {})}
    return status, body


def order_view(order: Order, updates: Sequence[Update] = ()) -> Json:
    """Return an order as clients see it; with its `updates`, also what each attempt did."""
    terms = order.terms
    view: Json = {
        "orderId": order.id,
        "clientOrderId": order.client_order_id,
        "orderType": terms.kind,
        "status": order.status,
        **_terms(terms),
        "minOutAmount": None
        if order.min_out_amount is None
        else format_amount(order.min_out_amount, terms.token_out.decimals),
        "selectedDex": order.route.quote.venue if order.route else None,
        "txHash": order.live.signature if order.live else None,
        "executedPrice": price(order.fill.in_amount, order.fill.out_amount, terms) if order.fill else None,
        "fill": _fill(order.fill, terms) if order.fill else None,
        "error": {"code": order.failure.code, "message": order.failure.message} if order.failure else None,
        "attempt": order.attempt,
        "seq": order.version,
        "createdAt": iso(order.created_at_ms),
        "updatedAt": iso(order.updated_at_ms),
        "links": links(order),
    }
    if updates:
        view["quotes"] = quotes_view(order.route, terms) if order.route else []
        view["attempts"] = attempts_view(updates)
    return view


def attempts_view(updates: Sequence[Update]) -> list[Json]:
    attempts: list[Json] = []
    for update in updates:
        at = iso(update.record.at_ms)
        match update.record.event:
            case RoutingStarted(attempt):
                attempts.append({"attempt": attempt, "startedAt": at, "status": "open"})
            case RouteSelected(route):
                attempts[-1]["selectedDex"] = route.quote.venue
            case TransactionSigned(transaction):
                attempts[-1] |= {"txHash": transaction.signature, "submittedAt": at}
            case Confirmed():
                attempts[-1] |= {"status": "confirmed", "endedAt": at}
            case AttemptFailed(_, failure) | Failed(_, failure):
                error = {"code": failure.code, "message": failure.message}
                attempts[-1] |= {"status": "failed", "endedAt": at, "error": error}
            case Cancelled() if attempts and attempts[-1]["status"] == "open":
                attempts[-1] |= {"status": "cancelled", "endedAt": at}
            case _:
                pass
    return attempts


def explain_view(order: Order, updates: Sequence[Update]) -> Json:
    """Return every decision that was taken about an order, with the reasons."""
    terms = order.terms
    decisions = [
        {
            "attempt": update.order.attempt,
            "timestamp": iso(update.record.at_ms),
            "selectedDex": update.record.event.route.quote.venue,
            "reason": update.record.event.route.reason,
            "minOutAmount": format_amount(update.record.event.min_out_amount, terms.token_out.decimals),
            "quotes": quotes_view(update.record.event.route, terms),
        }
        for update in updates
        if isinstance(update.record.event, RouteSelected)
    ]
    quoted = order.route.quote.out_amount if order.route else None
    filled = order.fill.out_amount if order.fill else None
    return {
        "orderId": order.id,
        "status": order.status,
        **_terms(terms),
        "decisions": decisions,
        "attempts": attempts_view(updates),
        "quotedOutAmount": None if quoted is None else format_amount(quoted, terms.token_out.decimals),
        "filledOutAmount": None if filled is None else format_amount(filled, terms.token_out.decimals),
        "quoteToFillBps": None if quoted is None or filled is None else difference_bps(filled, quoted),
    }


def update_message(update: Update) -> Json:
    """Return the stream message of one event."""
    record = update.record
    return {
        "event": "order:update",
        "orderId": record.order_id,
        "seq": record.seq,
        "status": record.status,
        "timestamp": iso(record.at_ms),
        "data": _event_data(record.event, update.order),
    }


def event_view(update: Update) -> Json:
    """Return one entry of the event log."""
    message = update_message(update)
    message["event"] = type(update.record.event).__name__
    return message


def _event_data(event: Event, order: Order) -> Json:
    terms = order.terms
    match event:
        case Accepted():
            return {"orderType": terms.kind, "clientOrderId": order.client_order_id, **_terms(terms)}
        case RoutingStarted(attempt):
            return {"attempt": attempt}
        case RouteSelected(route, min_out_amount):
            return {
                "attempt": order.attempt,
                "selectedDex": route.quote.venue,
                "reason": route.reason,
                "minOutAmount": format_amount(min_out_amount, terms.token_out.decimals),
                "quotes": quotes_view(route, terms),
            }
        case TransactionSigned(transaction):
            return {
                "attempt": order.attempt,
                "selectedDex": order.route.quote.venue if order.route else None,
                "txHash": transaction.signature,
                "lastValidBlockHeight": transaction.last_valid_block_height,
            }
        case Confirmed(fill):
            return {
                "attempt": order.attempt,
                "selectedDex": order.route.quote.venue if order.route else None,
                "txHash": order.live.signature if order.live else None,
                "executedPrice": price(fill.in_amount, fill.out_amount, terms),
                **_fill(fill, terms),
            }
        case AttemptFailed(attempt, failure, retry_at_ms):
            error = {"code": failure.code, "message": failure.message}
            return {"attempt": attempt, "error": error, "retryAt": iso(retry_at_ms)}
        case Failed(attempt, failure):
            return {"attempts": attempt, "error": {"code": failure.code, "message": failure.message}}
        case Cancelled(by):
            return {"by": by} if by else {}
        case Expired():
            return {}


def quotes_view(route: Route, terms: Terms) -> list[Json]:
    """Return every venue's answer, the one taken first."""
    chosen = {**_quote(route.quote, terms), "selected": True, "code": "selected", "reason": route.reason}
    return [chosen, *(_passed_over(venue, terms) for venue in route.passed_over)]


def preview_view(preview: QuotePreview) -> Json:
    """Return the route that an order would take now."""
    terms = Terms(
        "market", preview.request.token_in, preview.request.token_out, preview.request.in_amount, preview.slippage_bps
    )
    return {
        **_terms(terms),
        "selectedDex": preview.route.quote.venue,
        "reason": preview.route.reason,
        "outAmount": format_amount(preview.route.quote.out_amount, terms.token_out.decimals),
        "minOutAmount": format_amount(preview.min_out_amount, terms.token_out.decimals),
        "price": price(preview.route.quote.in_amount, preview.route.quote.out_amount, terms),
        "quotes": quotes_view(preview.route, terms),
        "timestamp": iso(preview.request.asked_at_ms),
    }


def counts_view(counts: QueueCounts, connections: int, now_ms: Millis) -> Json:
    return {
        "queue": {
            "waiting": counts.waiting,
            "active": counts.active,
            "completed": counts.confirmed,
            "failed": counts.failed,
            "delayed": counts.delayed,
            "total": counts.total,
        },
        "websocket": {"connections": connections},
        "timestamp": iso(now_ms),
    }


def links(order: Order) -> Json:
    path = f"/api/orders/{order.id}"
    return {"self": path, "events": f"{path}/events", "stream": f"{path}/stream", "explain": f"{path}/explain"}


def price(in_amount: BaseUnits, out_amount: BaseUnits, terms: Terms) -> float:
    """Return out per in, in whole tokens, as a float: for people, never for computing."""
    return out_amount / 10.0**terms.token_out.decimals / (in_amount / 10.0**terms.token_in.decimals)


def _terms(terms: Terms) -> Json:
    return {
        "tokenIn": terms.token_in.symbol,
        "tokenOut": terms.token_out.symbol,
        "mintIn": terms.token_in.mint,
        "mintOut": terms.token_out.mint,
        "amount": _text(terms.in_amount, terms.token_in),
        "slippage": terms.slippage_bps / BPS,
        "slippageBps": terms.slippage_bps,
        "expiresAt": None if terms.expires_at_ms is None else iso(terms.expires_at_ms),
    }


def _fill(fill: Fill, terms: Terms) -> Json:
    return {
        "inAmount": _text(fill.in_amount, terms.token_in),
        "outAmount": _text(fill.out_amount, terms.token_out),
        "feeLamports": fill.fee_lamports,
        "slot": fill.slot,
    }


def _quote(quote: Quote, terms: Terms) -> Json:
    effective = price(quote.in_amount, quote.out_amount, terms)
    told: Json = {
        "dex": quote.venue,
        "pool": quote.pool,
        "outAmount": _text(quote.out_amount, terms.token_out),
        "price": effective * BPS / (BPS - quote.fee_bps) if quote.fee_bps < BPS else None,
        "effectivePrice": effective,
        "fee": quote.fee_bps / BPS,
        "feeBps": quote.fee_bps,
        "priceImpactBps": quote.price_impact_bps,
        "timestamp": iso(quote.quoted_at_ms),
    }
    if quote.legs:
        told |= {
            "type": quote.type,
            "slot": min(leg.slot for leg in quote.legs),
            "costAmount": _text(quote.cost_amount, terms.token_out),
            "legs": [_leg(leg, terms) for leg in quote.legs],
        }
    return told


def _leg(leg: Leg, terms: Terms) -> Json:
    token_in, token_out = (_token(mint, terms) for mint in (leg.mint_in, leg.mint_out))
    return {
        "dex": leg.venue,
        "pool": leg.pool,
        "type": leg.pool_type,
        "slot": leg.slot,
        "tokenIn": token_in.symbol,
        "tokenOut": token_out.symbol,
        "inAmount": _text(leg.in_amount, token_in),
        "outAmount": _text(leg.out_amount, token_out),
        "feeBps": leg.fee_bps,
        "priceImpactBps": leg.price_impact_bps,
    }


def _token(mint: Mint, terms: Terms) -> Token:
    """Return one of the order's tokens, or that between them, which is well known."""
    return next(token for token in (terms.token_in, terms.token_out, *WELL_KNOWN) if token.mint == mint)


def _passed_over(venue: PassedOver, terms: Terms) -> Json:
    answer = {"dex": venue.venue, **({"pool": venue.pool} if venue.pool else {})}
    if venue.quote:
        answer = _quote(venue.quote, terms)
    return {**answer, "selected": False, "code": venue.code, "reason": venue.reason}


def _text(amount: BaseUnits, token: Token) -> str:
    return format_amount(amount, token.decimals)


def mode_change(body: bytes) -> ModeSet:
    """Return the change of mode in a request body. Raise InvalidRequest."""
    try:
        change = _mode_decoder.decode(body.decode())
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"send a mode: one of {', '.join(Mode)}, and a reason: {error}", field="mode") from error
    if len(change.reason) > TEXT_MAX:
        raise InvalidRequest(f"reason has more than {TEXT_MAX} characters", field="reason")
    return mode_set(change.mode, change.reason)


def limits_change(body: bytes, tokens: TokenRegistry) -> tuple[str, Limits]:
    """Return whose limits a request body sets, and to what. Raise InvalidRequest."""
    try:
        change = _limits_decoder.decode(body.decode())
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        named = _field_named.search(str(error))
        field = (named[1] or named[2]) if named else None
        raise InvalidRequest(
            f"send whose limits they are, as `of`, and all the `limits`: {error}", field=field
        ) from error
    return change.of, from_document(change.limits, tokens)


def limits_view(of: str, limits: Limits, used: Mapping[tuple[str, str], int] | None, tokens: TokenRegistry) -> Json:
    """Return somebody's limits, and what is used of them today, if that may be told."""
    return {
        "of": of,
        "limits": to_document(limits, tokens),
        "used": None if used is None else used_document(used, of, tokens),
    }


def key_body(body: bytes) -> KeyBody:
    """Return the key that a request body asks for. Raise InvalidRequest."""
    try:
        return _key_decoder.decode(body.decode())
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        named = _field_named.search(str(error))
        field = (named[1] or named[2]) if named else None
        raise InvalidRequest(f"send the key's `name` and its `scopes`: {error}", field=field) from error


def key_view(key: Key | KeyCreated, created_at_ms: Millis, revoked_at_ms: Millis | None = None) -> Json:
    return {
        "keyId": key.key_id,
        "name": key.name,
        "account": key.account or LOCAL,
        "scopes": sorted(key.scopes),
        "createdAt": iso(created_at_ms),
        "revokedAt": None if revoked_at_ms is None else iso(revoked_at_ms),
    }


def webhook_body(body: bytes) -> tuple[str, str | None]:
    """Return the address that a request body names, and whose key's it is to be. Raise InvalidRequest."""
    try:
        webhook = _webhook_decoder.decode(body.decode())
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"send the address to be told, as `url`: {error}", field="url") from error
    return webhook.url, webhook.key_id


def webhook_view(webhook: Webhook | WebhookAdded, added_at_ms: Millis) -> Json:
    return {
        "webhookId": webhook.webhook_id,
        "keyId": webhook.key_id or None,
        "account": webhook.account or LOCAL,
        "url": webhook.url,
        "addedAt": iso(added_at_ms),
    }


def delivery_view(delivery: Delivery) -> Json:
    """Return a delivery that was not taken: of which event, and whether it is tried again."""
    is_dead = delivery.dead_at_ms is not None
    return {
        "orderId": delivery.order_id,
        "seq": delivery.sent + 1,
        "tries": delivery.tries,
        "error": delivery.error,
        "nextTryAt": None if is_dead else iso(delivery.due_at_ms),
        "givenUpAt": None if delivery.dead_at_ms is None else iso(delivery.dead_at_ms),
    }


def mode_view(control: Control) -> Json:
    return {"mode": control.mode, "reason": control.mode_reason}


def _audit_data(action: Action, tokens: TokenRegistry) -> Json:
    if isinstance(action, LimitsSet):
        return {"of": action.of, "limits": to_document(action.limits, tokens)}
    return {name: value for name, value in msgspec.to_builtins(action).items() if name != "digest"}


def audit_view(entry: Entry, tokens: TokenRegistry) -> Json:
    return {
        "seq": entry.seq,
        "timestamp": iso(entry.at_ms),
        "actor": entry.actor,
        "action": type(entry.action).__name__,
        "data": _audit_data(entry.action, tokens),
        "hash": entry.hash,
    }
