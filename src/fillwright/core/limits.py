"""How far orders may go: what operators allow everybody, an account, a key.

Of an order, its terms and its worth are checked before it is accepted and again before it is signed, and so is what the
market would do with it. What many orders share, the amounts of a day and the places for open orders, is a `Cap`: the
store checks it in the transaction that accepts the order, so no two orders can take the same room.

An order counts from when it is accepted, on the day (UTC) on which it is; its `Charge` says for how much. If it ends
without a fill, that is given back in the transaction that writes the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from fillwright.core.errors import (
    AmountTooLarge,
    DailyLimitReached,
    OverLimit,
    PriceDeviationTooHigh,
    PriceImpactTooHigh,
    PriceUnknown,
    SlippageTooHigh,
    TokenNotAllowed,
    TooManyOpenOrders,
)
from fillwright.core.order import Order, Terms
from fillwright.core.routing import Quote
from fillwright.core.units import (
    BPS,
    BaseUnits,
    Bps,
    MicroUsd,
    Millis,
    Mint,
    format_amount,
    format_share,
    format_usd,
)

DAY_MS: Final[Millis] = 86_400_000
EVERYBODY: Final = "everybody"
USD: Final = "usd"  # what a cap or a count in US dollars is of; others are of a mint
OPEN: Final = "open"
LOCAL: Final = "local"  # what the account of orders without a key is called


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """How much of a token may be sold."""

    mint: Mint
    order_max: BaseUnits | None = None
    day_max: BaseUnits | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed at most; None where there is no limit. `tokens` are those that may be sold and bought.

    `price_impact_bps` is what the order itself may move the price by, `price_deviation_bps` how far a quote may be from
    what the reference prices make of the amount, up or down.
    """

    order_usd: MicroUsd | None = None
    day_usd: MicroUsd | None = None
    amounts: tuple[TokenLimit, ...] = ()
    tokens: tuple[Mint, ...] | None = None
    slippage_bps: Bps | None = None
    price_impact_bps: Bps | None = None
    price_deviation_bps: Bps | None = None
    open_orders: int | None = None

    @property
    def caps_orders_and_days(self) -> bool:
        """Whether neither an order nor a day may cost any amount."""
        caps_orders = self.order_usd is not None or any(each.order_max is not None for each in self.amounts)
        return caps_orders and (self.day_usd is not None or any(each.day_max is not None for each in self.amounts))


NONE: Final = Limits()


class Cap(NamedTuple):
    """An upper bound over many orders: `what` (`USD`, a mint, `OPEN`) of all that are `of` somebody, this one included.

    `adds` is what this order adds.
    """

    of: str
    what: str
    maximum: int
    adds: int


def of_account(account: str) -> str:
    return f"account {account or LOCAL}"


def of_key(key_id: str) -> str:
    return f"key {key_id}"


@lru_cache(maxsize=4096)
def whose(account: str, key_id: str) -> tuple[str, ...]:
    """Return whose limits an order is under."""
    return (EVERYBODY, of_account(account), of_key(key_id)) if key_id else (EVERYBODY, of_account(account))


def owner(of: str) -> tuple[str | None, str | None]:
    """Return the account and the key that `whose` has put into words; None for any."""
    kind, _, name = of.partition(" ")
    account = ("" if name == LOCAL else name) if kind == "account" else None
    return account, name if kind == "key" else None


def day_of(at_ms: Millis) -> int:
    """Return the day (UTC), counted from the Unix epoch."""
    return at_ms // DAY_MS


def counted(order: Order) -> Iterator[tuple[int, str, str, int]]:
    """Yield what an order counts for: the day, whose, what, and how much of it. Nothing if it was never counted."""
    charge = order.charge
    if charge is None:
        return
    for of in whose(order.account, charge.key_id):
        yield charge.day, of, order.terms.token_in.mint, order.terms.in_amount
        if charge.usd is not None:
            yield charge.day, of, USD, charge.usd


class Bounds:
    """The limits that apply to an order: those of everybody, of its account and of its key.

    It must be within all of them, so of each kind the strictest decides. `ask_the_market` says whether an order must be
    quoted to know if it is allowed.
    """

    def __init__(self, limits: Mapping[str, Limits], account: str, key_id: str) -> None:
        self._all = [(of, limits[of]) for of in whose(account, key_id) if of in limits]
        self._tokens = [(of, frozenset(each.tokens)) for of, each in self._all if each.tokens is not None]
        amounts = [(of, each) for of, its in self._all for each in its.amounts]
        self._order_max = {
            mint: _strictest((of, each.order_max) for of, each in amounts if each.mint == mint)
            for mint in {each.mint for _, each in amounts}
        }
        self._order_usd = _strictest((of, each.order_usd) for of, each in self._all)
        self._slippage_bps = _strictest((of, each.slippage_bps) for of, each in self._all)
        self._price_impact_bps = _strictest((of, each.price_impact_bps) for of, each in self._all)
        self._price_deviation_bps = _strictest((of, each.price_deviation_bps) for of, each in self._all)
        self.ask_the_market = self._price_impact_bps is not None or self._price_deviation_bps is not None

    def __bool__(self) -> bool:
        return bool(self._all)

    def check(self, terms: Terms, usd: MicroUsd | None) -> None:
        """Raise OverLimit if such an order, worth `usd`, is not allowed."""
        token_in, amount = terms.token_in, terms.in_amount
        for of, tokens in self._tokens:
            for field, token in (("tokenIn", token_in), ("tokenOut", terms.token_out)):
                if token.mint not in tokens:
                    message = f"{token.symbol} is not among the tokens of {of}"
                    raise TokenNotAllowed(message, limit="tokens", of=of, field=field)
        if self._slippage_bps is not None and terms.slippage_bps > self._slippage_bps[1]:
            of, most = self._slippage_bps
            raise SlippageTooHigh(
                f"slippage {format_share(terms.slippage_bps)} is over the limit of {of}, {format_share(most)}",
                limit="slippage",
                of=of,
                field="slippage",
            )
        order_max = self._order_max.get(token_in.mint)
        if order_max is not None and amount > order_max[1]:
            of, most = order_max
            raise AmountTooLarge(
                f"one order may sell {format_amount(most, token_in.decimals)} {token_in.symbol} at most, by the limit"
                f" of {of}",
                limit=f"orderAmount {token_in.symbol}",
                of=of,
                field="amount",
            )
        if self._order_usd is not None:
            of, most = self._order_usd
            if (worth := _known(of, "orderUsd", terms, usd)) > most:
                raise AmountTooLarge(
                    f"the order is worth {format_usd(worth)} USD; the limit of {of} for one order is"
                    f" {format_usd(most)} USD",
                    limit="orderUsd",
                    of=of,
                    field="amount",
                )

    def caps(self, terms: Terms, usd: MicroUsd | None) -> list[Cap]:
        """Return the bounds that the order shares with others."""
        caps = []
        for of, limits in self._all:
            if limits.day_usd is not None:
                caps.append(Cap(of, USD, limits.day_usd, _known(of, "dayUsd", terms, usd)))
            caps += [
                Cap(of, each.mint, each.day_max, terms.in_amount)
                for each in limits.amounts
                if each.mint == terms.token_in.mint and each.day_max is not None
            ]
            if limits.open_orders is not None:
                caps.append(Cap(of, OPEN, limits.open_orders, 1))
        return caps

    def caps_of_the_day(self, terms: Terms, usd: MicroUsd | None) -> list[Cap]:
        """Return the bounds on amounts that an order is under which is counted already, and so adds nothing."""
        return [cap._replace(adds=0) for cap in self.caps(terms, usd) if cap.what != OPEN]

    def check_quote(self, terms: Terms, quote: Quote, usd_in: MicroUsd | None, usd_out: MicroUsd | None) -> None:
        """Raise OverLimit if an order may not take a quote, whose two sides are worth `usd_in` and `usd_out`."""
        if self._price_impact_bps is not None and quote.price_impact_bps > self._price_impact_bps[1]:
            of, most = self._price_impact_bps
            raise PriceImpactTooHigh(
                f"{quote.venue} would move the price by {format_share(quote.price_impact_bps)}, over the limit of"
                f" {of}, {format_share(most)}",
                limit="priceImpact",
                of=of,
            )
        if self._price_deviation_bps is not None:
            of, most = self._price_deviation_bps
            paid, got = _known(of, "priceDeviation", terms, usd_in), _known(of, "priceDeviation", terms, usd_out)
            # Of what is worth nothing no share can be taken, so whatever it buys is too far from it.
            if not paid or abs(got - paid) * BPS > most * paid:
                raise PriceDeviationTooHigh(
                    f"{quote.venue} pays {format_usd(got)} USD for {format_usd(paid)} USD by the reference prices;"
                    f" the limit of {of} is {format_share(most)} less or more",
                    limit="priceDeviation",
                    of=of,
                )


def _strictest(limits: Iterable[tuple[str, int | None]]) -> tuple[str, int] | None:
    """Return the lowest limit and whose it is, of several the first; None if there is none."""
    set_ = [(of, most) for of, most in limits if most is not None]
    return min(set_, key=lambda each: each[1], default=None)


def refusal(caps: Sequence[Cap], used: Mapping[tuple[str, str], int], terms: Terms) -> OverLimit | None:
    """Return why an order cannot be added to what is `used` already, by whose and what; None if it can."""
    for cap in caps:
        if used.get((cap.of, cap.what), 0) + cap.adds > cap.maximum:
            return _over(cap, terms)
    return None


def _over(cap: Cap, terms: Terms) -> OverLimit:
    if cap.what == OPEN:
        return TooManyOpenOrders(
            f"{cap.maximum} orders may be open at the same time, by the limit of {cap.of}",
            limit="openOrders",
            of=cap.of,
        )
    if cap.what == USD:
        limit, most = "dayUsd", f"{format_usd(cap.maximum)} USD"
    else:
        token = terms.token_in
        limit, most = f"dayAmount {token.symbol}", f"{format_amount(cap.maximum, token.decimals)} {token.symbol}"
    return DailyLimitReached(
        f"with this order, the day (UTC) would be over the limit of {cap.of}, {most}",
        limit=limit,
        of=cap.of,
        field="amount",
    )


def _known(of: str, limit: str, terms: Terms, usd: MicroUsd | None) -> MicroUsd:
    """Return a worth that a limit asks for. What is not known is within no limit."""
    if usd is None:
        raise PriceUnknown(
            f"the limit {limit} of {of} asks what the order is worth, and there is no reference price for"
            f" {terms.token_in.symbol} and {terms.token_out.symbol} now",
            limit=limit,
            of=of,
        )
    return usd
