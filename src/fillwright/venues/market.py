"""Real pools as one venue: every pool of the pair side by side, their combinations, and what each pays after costs.

An order may go through one pool, be split over several of the same pair, or pass through a token in between. All of
these are quotes like any other, and the route is the one that pays most; the others stay in the record. A pool that
gives no quote says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from fillwright.core.accounts import Address, Instruction, PoolAccounts, Trader, format_address, parse_address
from fillwright.core.errors import (
    AmountTooSmall,
    InsufficientLiquidity,
    PairNotListed,
    QuoteRefused,
    StaleQuote,
    VenueUnavailable,
)
from fillwright.core.ports import PoolSource, PreparedSwap
from fillwright.core.programs import (
    COMPUTE_UNITS_MAX,
    SIGNATURE_LAMPORTS,
    SOL_MINT,
    TOKEN_ACCOUNT_RENT_LAMPORTS,
    USDC_MINT,
)
from fillwright.core.routing import Answer, Leg, NoQuote, Quote, QuoteRequest
from fillwright.core.units import BPS, BaseUnits, Bps, Mint
from fillwright.venues.pool import Policy, Pool, PoolQuote, PoolType, up
from fillwright.venues.pool_types import identify
from fillwright.venues.splitting import NEVER, Curve, remembering, splits

SOL: Final = Mint(format_address(SOL_MINT))
USDC: Final = Mint(format_address(USDC_MINT))
BETWEEN: Final = (SOL, USDC)
"""The tokens that an order may pass through where no pool holds both of its own."""

SPLIT_MAX: Final = 3
FIXED_COMPUTE_UNITS: Final = 45_000  # what a swap needs besides the pool's own: token accounts, wrapping SOL, the memo
PROBE_LAMPORTS: Final = 10_000_000
PROBES: Final = (10**6, 10**9)  # base units, of a pool's first token


@dataclass(frozen=True, slots=True)
class MarketRules:
    """`quote_slots_max` is how far a pool may lie behind what was read last; the priority fee is per compute unit."""

    quote_slots_max: int
    priority_fee_micro_lamports: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class Listed:
    """A pool that is of the pair, read at `at.slot`."""

    type: PoolType
    pool: Pool
    at: PoolAccounts


@dataclass(frozen=True, slots=True)
class Offer:
    """What one pool pays for an amount."""

    listed: Listed
    quote: PoolQuote


@dataclass(frozen=True, slots=True)
class PoolState:
    """`why_not` says what keeps a pool from giving a quote; empty: it gives one."""

    address: Address
    name: str
    why_not: str


class PoolVenue:
    """All pools of a source, asked as one venue; each quote bears the venue of its pools."""

    def __init__(self, source: PoolSource, rules: MarketRules) -> None:
        self._source = source
        self._rules = rules
        self._decoded: dict[bytes, tuple[int, Listed | NoQuote]] = {}  # by address, as of a slot

    @property
    def name(self) -> str:
        return "pools"

    async def quote(self, request: QuoteRequest) -> Sequence[Answer]:
        """Return a quote of each pool, of a split, and of ways through another token; or why there is none.

        Raise PairNotListed if there are neither pools nor ways, VenueUnavailable if the source does not answer.
        """
        mint_in, mint_out = request.token_in.mint, request.token_out.mint
        listed, answers = await self._pools(mint_in, mint_out)
        offers = list[Offer]()
        for each in listed:
            offer = _offer(each, mint_in, request.in_amount)
            if isinstance(offer, Offer):
                offers.append(offer)
            else:
                answers.append(offer)
        costs = await self._costs(mint_out)
        answers += (_side_by_side(request, [offer], costs) for offer in offers)
        answers += self._split(request, listed, offers, costs)
        for between in BETWEEN:
            if between not in (mint_in, mint_out):
                answers += await self._through(request, between, costs)
        if not answers:
            raise PairNotListed(f"no pool is known for {request.token_in.symbol} and {request.token_out.symbol}")
        return answers

    async def prepare(self, leg: Leg, in_amount: BaseUnits, *, min_slot: int = 0) -> PreparedSwap:
        """Quote a leg of a route anew. Raise QuoteRefused, or VenueUnavailable if its pool is not there any more."""
        listed, answers = await self._pools(leg.mint_in, leg.mint_out, min_slot)
        mine = next((each for each in listed if format_address(each.pool.address) == leg.pool), None)
        if mine is None:
            refused = (answer for answer in answers if isinstance(answer, NoQuote) and answer.pool == leg.pool)
            why = next((answer.error for answer in refused), None)
            raise why or VenueUnavailable(f"the pool {leg.pool} cannot be read any more")
        offer = _offer(mine, leg.mint_in, in_amount)
        if isinstance(offer, NoQuote):
            raise offer.error
        return PreparedSwap(mine.at.slot, in_amount, offer.quote.out_amount, partial(_instruction, offer))

    async def _pools(self, mint_a: Mint, mint_b: Mint, min_slot: int = 0) -> tuple[list[Listed], list[Answer]]:
        """Return the pools of a pair that can be asked, and why others cannot."""
        listed, refused = list[Listed](), list[Answer]()
        for accounts in await self._source.pools(mint_a, mint_b, min_slot=min_slot):
            behind = self._source.newest_slot - accounts.slot
            each = self._decode(accounts)
            if isinstance(each, Listed) and behind > self._rules.quote_slots_max:
                stale = StaleQuote(
                    f"the pool was read {behind} slots ago, and {self._rules.quote_slots_max} are allowed: read it anew"
                )
                each = NoQuote(each.type.venue, stale, format_address(accounts.address))
            if isinstance(each, Listed):
                listed.append(each)
            else:
                refused.append(each)
        return listed, refused

    def _decode(self, accounts: PoolAccounts) -> Listed | NoQuote:
        known = self._decoded.get(accounts.address)
        if known is not None and known[0] == accounts.slot:
            return known[1]
        decoded = decode(accounts, self._rules.policy)
        self._decoded[accounts.address] = accounts.slot, decoded
        return decoded

    def _split(
        self, request: QuoteRequest, listed: Sequence[Listed], offers: Sequence[Offer], costs: _Costs
    ) -> Iterator[Quote]:
        """Yield the best split of the order over several pools, if it pays more than the best of them after costs."""
        mint_in = request.token_in.mint
        curves = [remembering(_curve(each, mint_in)) for each in listed]
        best = max((costs.net([offer]) for offer in offers), default=0)
        found: tuple[BaseUnits, list[Offer]] | None = None
        for parts in splits(request.in_amount, curves, SPLIT_MAX):
            legs = [_offer(listed[index], mint_in, part) for index, part in sorted(parts.items())]
            taken = [leg for leg in legs if isinstance(leg, Offer)]
            if len(taken) < max(2, len(legs)):
                break
            if (net := costs.net(taken)) > (found[0] if found else best):
                found = net, taken
        if found is not None:
            yield _side_by_side(request, found[1], costs)

    async def _through(self, request: QuoteRequest, between: Mint, costs: _Costs) -> list[Answer]:
        """Return the best way through another token, if there is one."""
        first, _ = await self._pools(request.token_in.mint, between)
        second, _ = await self._pools(between, request.token_out.mint)
        there = _best(first, request.token_in.mint, request.in_amount)
        onward = _best(second, between, there.quote.out_amount) if there else None
        if there is None or onward is None:
            return []
        # A token account for what is in between must exist, and be paid for; that of SOL is closed again.
        rent = 0 if between == SOL else TOKEN_ACCOUNT_RENT_LAMPORTS
        return [_one_after_the_other(request, there, between, onward, costs.of([there, onward], rent))]

    async def _costs(self, mint_out: Mint) -> _Costs:
        """Return what lamports are worth in the out token, by what the pools pay for some."""
        if mint_out == SOL:
            return _Costs(1, 1, self._rules.priority_fee_micro_lamports)
        listed, _ = await self._pools(SOL, mint_out)
        best = _best(listed, SOL, PROBE_LAMPORTS)
        return _Costs(best.quote.out_amount if best else 0, PROBE_LAMPORTS, self._rules.priority_fee_micro_lamports)


@dataclass(frozen=True, slots=True)
class _Costs:
    """What sending a transaction costs, in the out token: `paid` of it are worth `lamports`. 0 where nobody knows."""

    paid: BaseUnits
    lamports: int
    priority_fee_micro_lamports: int

    def of(self, offers: Sequence[Offer], rent_lamports: int = 0) -> BaseUnits:
        units = FIXED_COMPUTE_UNITS + sum(offer.quote.compute_units for offer in offers)
        lamports = SIGNATURE_LAMPORTS + up(units * self.priority_fee_micro_lamports, 1_000_000) + rent_lamports
        return up(lamports * self.paid, self.lamports)

    def net(self, offers: Sequence[Offer]) -> BaseUnits:
        """Return what offers for parts of one amount pay together, after costs."""
        return sum(offer.quote.out_amount for offer in offers) - self.of(offers)


def decode(accounts: PoolAccounts, policy: Policy) -> Listed | NoQuote:
    """Return the pool that the accounts make up, or why they make up none."""
    account = accounts.accounts[accounts.address]
    pool_type = identify(account)
    address = format_address(accounts.address)
    if pool_type is None:
        return NoQuote("unknown", PairNotListed(f"{address} is no pool of a type that is known"), address)
    try:
        return Listed(pool_type, pool_type.decode(accounts.address, accounts.accounts, policy), accounts)
    except QuoteRefused as error:
        return NoQuote(pool_type.venue, error, address)


def state_of(address: Address, accounts: PoolAccounts | None, policy: Policy) -> PoolState:
    """Return whether a pool gives a quote for one of some usual amounts; if not, why it refuses the last of them."""
    if accounts is None:
        return PoolState(address, "", "there is no pool of a known type at this address")
    listed = decode(accounts, policy)
    if isinstance(listed, NoQuote):
        return PoolState(address, listed.venue, str(listed.error))
    why_not = ""
    for amount in PROBES:
        try:
            listed.pool.quote(amount, True, listed.at.time)
        except QuoteRefused as error:
            why_not = str(error)
        else:
            why_not = ""
            break
    return PoolState(address, f"{listed.type.venue} {listed.type.name}", why_not)


def _offer(listed: Listed, mint_in: Mint, amount: BaseUnits) -> Offer | NoQuote:
    address = format_address(listed.pool.address)
    try:
        quote = listed.pool.quote(amount, listed.pool.mint_a == parse_address(mint_in), listed.at.time)
    except QuoteRefused as error:
        return NoQuote(listed.type.venue, error, address)
    if FIXED_COMPUTE_UNITS + quote.compute_units > COMPUTE_UNITS_MAX:
        units = f"{quote.compute_units} compute units"
        too_much = InsufficientLiquidity(f"the pool {address} would need {units}, more than there may be: swap less")
        return NoQuote(listed.type.venue, too_much, address)
    return Offer(listed, quote)


def _instruction(offer: Offer, least: BaseUnits, trader: Trader) -> Instruction:
    return offer.listed.pool.swap(offer.quote, least, trader)


def _curve(listed: Listed, mint_in: Mint) -> Curve:
    quote, a_to_b, at = listed.pool.quote, listed.pool.mint_a == parse_address(mint_in), listed.at.time

    def paid(amount: BaseUnits) -> BaseUnits:
        try:
            return quote(amount, a_to_b, at).out_amount
        except AmountTooSmall:
            return 0
        except QuoteRefused:
            return NEVER

    return paid


def _best(listed: Sequence[Listed], mint_in: Mint, amount: BaseUnits) -> Offer | None:
    offers = (offer for each in listed if isinstance(offer := _offer(each, mint_in, amount), Offer))
    return max(offers, key=lambda offer: offer.quote.out_amount, default=None)


def _leg(offer: Offer, mint_in: Mint) -> Leg:
    listed, quote = offer.listed, offer.quote
    base = quote.in_amount if quote.is_fee_on_input else quote.out_amount + quote.fee_amount
    return Leg(
        listed.type.venue,
        format_address(listed.pool.address),
        listed.type.name,
        listed.at.slot,
        mint_in,
        Mint(format_address(listed.pool.mint_b if quote.a_to_b else listed.pool.mint_a)),
        quote.in_amount,
        quote.out_amount,
        min(BPS, (2 * quote.fee_amount * BPS + base) // (2 * base)),  # to the nearest
        quote.price_impact_bps,
    )


def _side_by_side(request: QuoteRequest, offers: Sequence[Offer], costs: _Costs) -> Quote:
    """Return the quote of one pool, or of several that share the amount."""
    legs = [_leg(offer, request.token_in.mint) for offer in offers]
    fees = sum(leg.fee_bps * leg.in_amount for leg in legs)
    impacts = sum(leg.price_impact_bps * leg.in_amount for leg in legs)
    shares_bps = up(fees, request.in_amount), up(impacts, request.in_amount)
    return _quote(request, legs, sum(leg.out_amount for leg in legs), *shares_bps, costs.of(offers))


def _one_after_the_other(
    request: QuoteRequest, there: Offer, between: Mint, onward: Offer, cost_amount: BaseUnits
) -> Quote:
    """Return the quote of a way through a token in between."""
    first, second = _leg(there, request.token_in.mint), _leg(onward, between)
    fee_bps = BPS - (BPS - first.fee_bps) * (BPS - second.fee_bps) // BPS
    impact_bps = BPS - (BPS - first.price_impact_bps) * (BPS - second.price_impact_bps) // BPS
    return _quote(request, [first, second], second.out_amount, fee_bps, impact_bps, cost_amount)


def _quote(
    request: QuoteRequest, legs: Sequence[Leg], out_amount: BaseUnits, fee_bps: Bps, impact_bps: Bps, cost: BaseUnits
) -> Quote:
    return Quote(
        "+".join(sorted({leg.venue for leg in legs})),
        "+".join(leg.pool for leg in legs),
        request.in_amount,
        out_amount,
        fee_bps,
        impact_bps,
        request.asked_at_ms,
        tuple(legs),
        cost,
    )
