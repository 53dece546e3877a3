"""Every error that the engine raises on purpose.

FillwrightError
├── Denied                     by us: the request is refused and nothing has been done
│   ├── InvalidRequest         the request cannot be read
│   │   ├── PayloadTooLarge
│   │   └── UnsupportedMediaType
│   ├── NotFound, MethodNotAllowed
│   ├── Unauthorized, Forbidden, TooManyRequests
│   ├── InvalidOrder           the order cannot be meant
│   │   ├── InvalidAmount
│   │   ├── InvalidSlippage
│   │   ├── InvalidExpiry
│   │   ├── UnknownToken
│   │   ├── SameToken
│   │   └── UnknownOrderKind
│   ├── OrderNotFound
│   ├── NotCancellable
│   ├── IdempotencyMismatch
│   ├── QueueFull
│   ├── InvalidName, InvalidScope, KeyNotFound
│   ├── InvalidWebhook, TooManyWebhooks, WebhookNotFound, WebhooksOff
│   ├── OverLimit              a limit that operators have set is in the way: before an order is accepted, and again
│   │   │                      before it is signed, so each of these is an ExecutionError, too
│   │   ├── AmountTooLarge
│   │   ├── DailyLimitReached
│   │   ├── TooManyOpenOrders
│   │   ├── TokenNotAllowed
│   │   ├── SlippageTooHigh
│   │   ├── PriceImpactTooHigh *
│   │   ├── PriceDeviationTooHigh *
│   │   └── PriceUnknown       *
│   └── NotReady
│       └── Halted             an operator has stopped the engine from taking orders
├── ExecutionError             why an attempt ended; `retryable` says whether another one makes sense
│   ├── VenueUnavailable   *
│   ├── PairNotListed
│   ├── QuoteRefused           a pool gives no quote rather than a wrong one
│   │   ├── UnknownLayout
│   │   ├── InvalidPool
│   │   ├── NotTradable
│   │   ├── NotYetOpen
│   │   ├── OrderBookPool
│   │   ├── UnsupportedMode
│   │   │   └── StableCurveUnsupported
│   │   ├── UnsupportedToken
│   │   ├── MissingAccount     *
│   │   │   ├── MissingTickArray *
│   │   │   └── MissingBinArray *
│   │   ├── InsufficientLiquidity *
│   │   ├── AmountTooSmall
│   │   ├── AmountOverflow
│   │   └── StaleQuote         *
│   ├── NoRoute            *
│   ├── Unroutable
│   ├── TransactionTooLarge
│   ├── SimulationFailed   *   the transaction would fail, or pay something else than was quoted: it is not signed
│   ├── ChainUnavailable   *   before signing; after it, an unreachable chain means "unknown", never "failed"
│   ├── SlippageExceeded   *
│   ├── TransactionReverted *
│   ├── TransactionExpired *
│   └── InternalError      *
├── Exposed                    anybody on the network could trade: the engine does not start
├── InvalidRecording           a file of recorded swaps cannot be read
├── InvalidSnapshot            a file of pools cannot be read: the engine does not start
├── InvalidWallet              the key to sign with cannot be had: the engine does not start
├── MissingExtra               what is set needs a package that is not installed: the engine does not start
└── StoreError
    ├── VersionConflict        somebody else appended first: read again
    ├── LeaseLost              another worker holds the order now: let go of it
    ├── SigningHalted          an operator has halted the engine: the signature was not written, so it is never sent
    ├── AuditBroken            the audit log is not what was written
    └── StoreUnavailable       nothing was written, as far as the store can tell: see its message
        └── WrongChain         the database belongs to another chain than the one that is set

* retryable. `code` is the name on the wire and in the log; it never changes once published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class FillwrightError(Exception):
    """The root. `code` is stable and meant for programs; the message is for people."""

    code: ClassVar[str]
    title: ClassVar[str]


class Denied(FillwrightError):
    """We refuse; nothing has been done. `field` names the part of the request at fault, where there is one."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidRequest(Denied):
    code = "invalid_request"
    title = "The request cannot be read"


class PayloadTooLarge(InvalidRequest):
    code = "payload_too_large"
    title = "The request body is too large"


class UnsupportedMediaType(InvalidRequest):
    code = "unsupported_media_type"
    title = "The request body is not JSON"


class NotFound(Denied):
    code = "not_found"
    title = "No such page"


class MethodNotAllowed(Denied):
    code = "method_not_allowed"
    title = "The page does not take this method"


class Unauthorized(Denied):
    code = "unauthorized"
    title = "A key is missing or not valid"


class Forbidden(Denied):
    code = "forbidden"
    title = "The request is not allowed"


class TooManyRequests(Denied):
    """`retry_after_s` is when the next request will be heard."""

    code = "too_many_requests"
    title = "The key has made too many requests"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidOrder(Denied):
    code = "invalid_order"
    title = "The order is not valid"


class InvalidAmount(InvalidOrder):
    code = "invalid_amount"
    title = "The amount is not valid"


class InvalidSlippage(InvalidOrder):
    code = "invalid_slippage"
    title = "The slippage is not valid"


class InvalidExpiry(InvalidOrder):
    code = "invalid_expiry"
    title = "The expiry is not valid"


class UnknownToken(InvalidOrder):
    code = "unknown_token"
    title = "The token is not known"


class SameToken(InvalidOrder):
    code = "same_token"
    title = "Both sides are the same token"


class UnknownOrderKind(InvalidOrder):
    code = "unknown_order_kind"
    title = "The kind of order is not known"


class OrderNotFound(Denied):
    code = "order_not_found"
    title = "No such order"


class NotCancellable(Denied):
    code = "not_cancellable"
    title = "The order can no longer be cancelled"


class IdempotencyMismatch(Denied):
    code = "idempotency_mismatch"
    title = "The client order id was used for another order"


class QueueFull(Denied):
    code = "queue_full"
    title = "The queue is full"


class InvalidName(Denied):
    code = "invalid_name"
    title = "A key cannot have this name"


class InvalidScope(Denied):
    code = "invalid_scope"
    title = "A key cannot have these scopes"


class KeyNotFound(Denied):
    code = "key_not_found"
    title = "No such key"


class InvalidWebhook(Denied):
    code = "invalid_webhook"
    title = "The address cannot be told anything"


class TooManyWebhooks(Denied):
    code = "too_many_webhooks"
    title = "The account has as many webhooks as it may"


class WebhookNotFound(Denied):
    code = "webhook_not_found"
    title = "No such webhook"


class WebhooksOff(Denied):
    code = "webhooks_off"
    title = "The engine has no secret for webhooks"


class NotReady(Denied):
    code = "not_ready"
    title = "The engine cannot take orders now"


class Halted(NotReady):
    code = "halted"
    title = "An operator has stopped new orders"


class ExecutionError(FillwrightError):
    """Why an attempt ended. Raised only where it is proven that the attempt has no effect and never will have."""

    retryable: ClassVar[bool]


class OverLimit(Denied, ExecutionError):
    """`limit` is which one hit, and `of` whose it is."""

    retryable = False

    def __init__(self, message: str, *, limit: str, of: str, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.limit = limit
        self.of = of


class AmountTooLarge(OverLimit):
    code = "amount_too_large"
    title = "The order is larger than allowed"


class DailyLimitReached(OverLimit):
    code = "daily_limit_reached"
    title = "The day's limit would be exceeded"


class TooManyOpenOrders(OverLimit):
    code = "too_many_open_orders"
    title = "As many orders are open as allowed"


class TokenNotAllowed(OverLimit):
    code = "token_not_allowed"
    title = "The token may not be traded"


class SlippageTooHigh(OverLimit):
    code = "slippage_too_high"
    title = "The slippage is higher than allowed"


class PriceImpactTooHigh(OverLimit):
    code = "price_impact_too_high"
    title = "The order would move the price further than allowed"
    retryable = True


class PriceDeviationTooHigh(OverLimit):
    code = "price_deviation_too_high"
    title = "The price is too far from the reference price"
    retryable = True


class PriceUnknown(OverLimit):
    code = "price_unknown"
    title = "There is no reference price"
    retryable = True


class VenueUnavailable(ExecutionError):
    code = "venue_unavailable"
    title = "The venue does not answer"
    retryable = True


class PairNotListed(ExecutionError):
    code = "pair_not_listed"
    title = "The venue has no pool for the pair"
    retryable = False


class QuoteRefused(ExecutionError):
    """A pool gives no quote: anything else would be a guess. The message says of which pool, why, and what helps."""

    retryable = False


class UnknownLayout(QuoteRefused):
    code = "unknown_layout"
    title = "The account is not laid out as this pool type is"


class InvalidPool(QuoteRefused):
    code = "invalid_pool"
    title = "The pool's numbers contradict each other"


class NotTradable(QuoteRefused):
    code = "not_tradable"
    title = "Swaps are switched off in the pool"


class NotYetOpen(QuoteRefused):
    code = "not_yet_open"
    title = "The pool is not open yet"


class OrderBookPool(QuoteRefused):
    code = "order_book_pool"
    title = "The pool shares an order book"


class UnsupportedMode(QuoteRefused):
    code = "unsupported_mode"
    title = "The pool works in a way that is not modelled"


class StableCurveUnsupported(UnsupportedMode):
    code = "stable_curve_unsupported"
    title = "The stable curve is not modelled"


class UnsupportedToken(QuoteRefused):
    code = "unsupported_token"
    title = "A token of the pool has a rule that is not modelled"


class MissingAccount(QuoteRefused):
    code = "missing_account"
    title = "An account that the quote depends on is missing"
    retryable = True


class MissingTickArray(MissingAccount):
    code = "missing_tick_array"
    title = "A tick array on the path is missing"


class MissingBinArray(MissingAccount):
    code = "missing_bin_array"
    title = "A bin array on the path is missing"


class InsufficientLiquidity(QuoteRefused):
    code = "insufficient_liquidity"
    title = "The pool cannot fill the amount"
    retryable = True


class AmountTooSmall(QuoteRefused):
    code = "amount_too_small"
    title = "The amount is too small to receive anything"


class AmountOverflow(QuoteRefused):
    code = "amount_overflow"
    title = "An amount does not fit an account"


class StaleQuote(QuoteRefused):
    code = "stale_quote"
    title = "The pool was read too long ago"
    retryable = True


class NoRoute(ExecutionError):
    code = "no_route"
    title = "No venue gave a usable quote"
    retryable = True


class Unroutable(ExecutionError):
    code = "unroutable"
    title = "No venue can fill the order"
    retryable = False


class TransactionTooLarge(ExecutionError):
    code = "transaction_too_large"
    title = "The transaction does not fit a packet"
    retryable = False


class SimulationFailed(ExecutionError):
    code = "simulation_failed"
    title = "The transaction would not do what was quoted"
    retryable = True


class ChainUnavailable(ExecutionError):
    code = "chain_unavailable"
    title = "The chain does not answer"
    retryable = True


class SlippageExceeded(ExecutionError):
    code = "slippage_exceeded"
    title = "The price moved beyond the slippage limit"
    retryable = True


class TransactionReverted(ExecutionError):
    code = "transaction_reverted"
    title = "The transaction is on chain with an error"
    retryable = True


class TransactionExpired(ExecutionError):
    code = "transaction_expired"
    title = "The transaction can no longer land"
    retryable = True


class InternalError(ExecutionError):
    code = "internal_error"
    title = "The engine has a fault"
    retryable = True


class Exposed(FillwrightError):
    code = "exposed"
    title = "The engine would be open to everybody"


class InvalidRecording(FillwrightError):
    code = "invalid_recording"
    title = "The file holds no recorded swaps"


class InvalidSnapshot(FillwrightError):
    code = "invalid_snapshot"
    title = "The file holds no pools"


class InvalidWallet(FillwrightError):
    """The message never repeats what was read: it may be a key."""

    code = "invalid_wallet"
    title = "The wallet cannot be opened"


class MissingExtra(FillwrightError):
    code = "missing_extra"
    title = "A package is missing"


class StoreError(FillwrightError):
    """The log could not be written or read."""


class VersionConflict(StoreError):
    code = "version_conflict"
    title = "The order has moved on"


class LeaseLost(StoreError):
    code = "lease_lost"
    title = "Another worker holds the order"


class SigningHalted(StoreError):
    code = "signing_halted"
    title = "An operator has halted the engine"


class AuditBroken(StoreError):
    code = "audit_broken"
    title = "The audit log is not what was written"


class StoreUnavailable(StoreError):
    code = "store_unavailable"
    title = "The database does not answer"


class WrongChain(StoreUnavailable):
    code = "wrong_chain"
    title = "The database belongs to another chain"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the log keeps it."""

    code: str
    message: str

    @classmethod
    def of(cls, error: ExecutionError) -> Failure:
        return cls(error.code, reason_of(error))


def reason_of(error: FillwrightError) -> str:
    """Return an error's message as text that can be kept and sent: others' words are not always valid Unicode."""
    return str(error).encode("utf-8", "replace").decode()
