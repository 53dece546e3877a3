"""The few things that tests build, with only what matters to a test spelled out in it."""

from __future__ import annotations

from typing import Any

from fillwright.core.lifecycle import Accepted, Recorded, accepted
from fillwright.core.order import Order, SignedTransaction, Terms
from fillwright.core.routing import Quote, QuoteRequest, Route
from fillwright.core.tokens import TokenRegistry
from fillwright.core.units import BaseUnits, Bps, Millis, OrderId, Signature, Token, order_id

TOKENS = TokenRegistry()
SOL = TOKENS.resolve("SOL", "token")
USDC = TOKENS.resolve("USDC", "token")
BONK = TOKENS.resolve("BONK", "token")
ONE_SOL = 1_000_000_000


def some_terms(
    token_in: Token = SOL,
    token_out: Token = USDC,
    in_amount: BaseUnits = ONE_SOL,
    slippage_bps: Bps = 100,
    expires_at_ms: Millis | None = None,
) -> Terms:
    return Terms("market", token_in, token_out, in_amount, slippage_bps, expires_at_ms)


def some_order(number: int = 1, at_ms: Millis = 1_000, **terms: Any) -> Order:
    return accepted(some_id(number, at_ms), Accepted(some_terms(**terms)), at_ms)


def some_id(number: int = 1, at_ms: Millis = 1_000) -> OrderId:
    return order_id(at_ms, number)


def a_request(in_amount: BaseUnits = ONE_SOL) -> QuoteRequest:
    return QuoteRequest(SOL, USDC, in_amount, asked_at_ms=1_000)


def a_quote(out_amount: BaseUnits = 150_000_000, venue: str = "raydium") -> Quote:
    return Quote(venue, f"{venue}-pool", ONE_SOL, out_amount, fee_bps=30, price_impact_bps=0, quoted_at_ms=1_000)


def a_route(out_amount: BaseUnits = 150_000_000) -> Route:
    return Route(a_quote(out_amount), (), "the only one")


def a_transaction(name: str = "first", last_valid_block_height: int = 150) -> SignedTransaction:
    return SignedTransaction(Signature(name), name.encode(), last_valid_block_height)


def seqs(records: list[Recorded]) -> list[int]:
    return [record.seq for record in records]
