"""The catalogue of errors: what programs read of it does not change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest

from fillwright.core import errors
from fillwright.core.errors import (
    Denied,
    ExecutionError,
    Failure,
    FillwrightError,
    InvalidAmount,
    NoRoute,
    PreflightFailed,
    TooManyRequests,
    TransactionFault,
    reason_of,
)

E = TypeVar("E", bound=FillwrightError)
PUBLISHED = {
    "amount_too_large", "audit_broken", "chain_unavailable", "daily_limit_reached", "invalid_webhook",
    "price_deviation_too_high", "price_impact_too_high", "price_unknown", "slippage_too_high", "token_not_allowed",
    "too_many_open_orders", "too_many_webhooks", "webhook_not_found", "webhooks_off",
    "invalid_name", "invalid_scope", "key_not_found",
    "exposed", "forbidden", "halted", "idempotency_mismatch", "internal_error",
    "invalid_amount", "invalid_expiry", "invalid_order", "invalid_request", "invalid_slippage", "lease_lost",
    "missing_extra",
    "method_not_allowed", "no_route", "not_cancellable", "not_found", "not_ready", "order_not_found",
    "pair_not_listed", "payload_too_large", "queue_full", "same_token", "signing_halted", "slippage_exceeded",
    "store_unavailable", "too_many_requests", "transaction_expired", "transaction_reverted", "unauthorized",
    "unknown_order_kind", "unknown_token", "unroutable", "unsupported_media_type", "venue_unavailable",
    "version_conflict", "wrong_chain", "invalid_recording", "invalid_snapshot", "transaction_too_large",
    "simulation_failed", "insufficient_funds", "not_final", "wrong_network", "uncapped",
    "unknown_layout", "invalid_pool", "not_tradable", "not_yet_open", "order_book_pool", "unsupported_mode",
    "stable_curve_unsupported", "unsupported_token", "missing_account", "missing_tick_array", "missing_bin_array",
    "insufficient_liquidity", "amount_too_small", "amount_overflow", "stale_quote",
    "signing_refused", "invalid_wallet",
    "preflight_failed", "invalid_call", "mixed_chains",
}  # fmt: skip
WORTH_ANOTHER_ATTEMPT = {
    "price_deviation_too_high", "price_impact_too_high", "price_unknown",
    "venue_unavailable", "no_route", "chain_unavailable", "slippage_exceeded", "transaction_reverted",
    "transaction_expired", "internal_error",
    "missing_account", "missing_tick_array", "missing_bin_array", "insufficient_liquidity", "stale_quote",
    "simulation_failed", "not_final",
    "preflight_failed", "invalid_call",
}  # fmt: skip
ABSTRACT = {FillwrightError, Denied, ExecutionError, errors.OverLimit, errors.QuoteRefused, errors.StoreError}


def every(kind: type[E]) -> Iterator[type[E]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from every(child)


def test_a_code_never_changes_once_published() -> None:
    concrete = [kind for kind in dict.fromkeys(every(FillwrightError)) if kind not in ABSTRACT]
    assert sorted(kind.code for kind in concrete) == sorted(PUBLISHED)
    assert all(kind.title and "code" in vars(kind) and "title" in vars(kind) for kind in concrete)


def test_each_way_an_attempt_can_end_says_whether_another_one_makes_sense() -> None:
    assert {kind.code for kind in every(ExecutionError) if kind.retryable} == WORTH_ANOTHER_ATTEMPT


def test_a_refusal_for_too_many_requests_says_when_the_next_will_be_heard() -> None:
    refusal = TooManyRequests("at most 10 a second", retry_after_s=7)
    assert (refusal.retry_after_s, refusal.field, str(refusal)) == (7, None, "at most 10 a second")
    assert TooManyRequests("at most 10 a second").retry_after_s == 1


@pytest.mark.parametrize("field", [None, "amount"])
def test_a_refusal_keeps_the_field_at_fault(field: str | None) -> None:
    refusal = InvalidAmount("amount is not one", field=field)
    assert (refusal.field, str(refusal)) == (field, "amount is not one")


def test_the_words_of_others_can_be_kept_and_sent_whatever_they_are() -> None:
    error = NoRoute("raydium says \udcff and \u20ac")
    assert reason_of(error) == "raydium says ? and \u20ac"
    assert Failure.of(error) == Failure("no_route", "raydium says ? and \u20ac")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (TransactionFault("BlockhashNotFound"), "BlockhashNotFound"),
        (TransactionFault("InstructionError", 0), "InstructionError in instruction 0"),
        (
            TransactionFault("InstructionError", 2, "InvalidAccountData"),
            "InstructionError in instruction 2: InvalidAccountData",
        ),
        (
            TransactionFault("InstructionError", 2, "Custom", custom=0),
            "InstructionError in instruction 2: custom error 0",
        ),
        (TransactionFault("InsufficientFundsForRent", detail="account 3"), "InsufficientFundsForRent: account 3"),
    ],
)
def test_why_a_transaction_fails_is_told_with_as_much_as_is_known(fault: TransactionFault, text: str) -> None:
    assert str(fault) == text
    refused = PreflightFailed(f"a node refuses it: {fault}", fault, ("Program log: no",))
    assert (str(refused), refused.fault, refused.logs) == (f"a node refuses it: {text}", fault, ("Program log: no",))
