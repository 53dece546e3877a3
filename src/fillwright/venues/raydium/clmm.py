"""Raydium CLMM: liquidity that lies between ticks, as classic pools have it.

Think of the price as a point on a line with marks, the ticks. Between two marks the liquidity is constant and the swap
is a simple curve; at a mark that somebody's position begins or ends at (an initialised tick), the liquidity changes. A
swap therefore is a walk: as far as the next initialised tick, or as far as what is left of the amount reaches. A to B
walks down, B to A walks up. Ticks lie in tick arrays of 60, each an account of its own; `tick_bitmap` knows which of
them hold an initialised tick, and `tick_math` what a step costs and pays.

Classic means: the fee is taken of what comes in, at one rate, and there are no limit orders. Pools that use what the
program learned in 2026 (dynamic fees, fees in one token only, limit orders) are refused.

Source of layouts, formula and accounts: the program's published account structs (`PoolState`, `AmmConfig`,
`TickArrayState`, `TickState`, `TickArrayBitmapExtension`) and its instruction `swap_v2`, compared with swaps that the
program itself made (docs/venues.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from struct import Struct
from typing import Final

import msgspec

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime, Instruction, Trader, format_address
from fillwright.core.errors import (
    AmountOverflow,
    AmountTooSmall,
    InsufficientLiquidity,
    InvalidPool,
    MissingAccount,
    MissingTickArray,
    NotTradable,
    NotYetOpen,
    QuoteRefused,
    UnsupportedMode,
    UnsupportedToken,
)
from fillwright.core.programs import MEMO, RAYDIUM_CLMM, SPL_TOKEN, TOKEN_2022
from fillwright.core.units import U64_MAX, BaseUnits
from fillwright.venues.addresses import derive
from fillwright.venues.mints import TransferFee, need, read_mint
from fillwright.venues.pool import (
    Q64,
    Layout,
    Policy,
    PoolQuote,
    PoolType,
    impact_bps,
    unpayable,
    unswappable,
    up,
)
from fillwright.venues.raydium.tick_bitmap import DEFAULT_BYTES, NUMBER_MAX, SIDE_BYTES, arrays_from, bits_of
from fillwright.venues.raydium.tick_math import (
    SQRT_PRICE_MAX,
    SQRT_PRICE_MIN,
    TICK_MAX,
    amount_in,
    amount_out,
    sqrt_price_after,
    sqrt_price_at,
)

RATE: Final = 1_000_000  # fee rates are millionths
SWAPS_OFF: Final = 0b1_0000
U128_MAX: Final = 2**128 - 1
COMPUTE_UNITS: Final = 65_000
COMPUTE_UNITS_PER_TICK: Final = 18_600
TICK_ARRAYS_MAX: Final = 16  # more do not fit a transaction
TICK_ARRAYS_WANTED: Final = 10  # in each direction: as many as fit beside the wrapping of SOL

# PoolState, 1544 bytes. Numbers of 128 bits are read as two halves, the low one first.
POOL_LAYOUT: Final = Layout("CLMM pool", RAYDIUM_CLMM, bytes.fromhex("f7ede3f5d7c3de46"), "1536x")
_KEYS: Final = Struct("<9x32s32x32s32s32s32s32s")  # config, mints, vaults, observation
_POSITION: Final = Struct("<235xHQQQQi")  # tick spacing, liquidity, square root of the price, tick
_POOL: Final = Struct("<277xQQQQQQ64xBB673xQQQ")  # fee growth, protocol fees, status, fee on, fund fees, open time
_BITMAP: Final = slice(904, 904 + DEFAULT_BYTES)
_DYNAMIC_FEE: Final = slice(1096, 1176)
_NO_DYNAMIC_FEE: Final = bytes(80)

# AmmConfig, 117 bytes: protocol fee rate, trade fee rate, tick spacing, fund fee rate.
CONFIG_LAYOUT: Final = Layout("CLMM config", RAYDIUM_CLMM, bytes.fromhex("daf42168cbcb2b6f"), "35xIIHI60x")

# TickArrayBitmapExtension, 1832 bytes: pool, rows above the pool's own bitmap, rows below.
EXTENSION_LAYOUT: Final = Layout(
    "bitmap extension", RAYDIUM_CLMM, bytes.fromhex("3c9624db61808b99"), f"32s{SIDE_BYTES}s{SIDE_BYTES}s"
)

# TickArrayState, 10240 bytes: pool, first tick, and 60 of TickState, 168 bytes.
TICK_ARRAY_LAYOUT: Final = Layout("tick array", RAYDIUM_CLMM, bytes.fromhex("c09b55cd31f9812a"), "10232x")
TICKS: Final = 60
TICKS_AT: Final = 44
TICK_BYTES: Final = 168
_TICK_ARRAY: Final = Struct("<8x32si")
_TICK: Final = Struct("<iQqQQ88xQQ")  # tick, net liquidity, gross liquidity, two amounts of limit orders

SWAP_V2: Final = bytes.fromhex("2b04ed0b1ac91e62")
_ARGUMENTS: Final = Struct("<8sQQ16xB")  # amount, least amount out, no price limit, amount is what goes in


class ClmmPool(msgspec.Struct, frozen=True):
    """A pool at its price. Rates are millionths; `sqrt_price` is the square root of B for one A, times 2^64.

    `arrays` has a bit for each tick array with an initialised tick (`tick_bitmap`), and `held` the accounts that were
    read, by address, among them tick arrays: a quote looks into those that it walks, no others. `extension` is the
    bitmap extension, None if the pool has none.
    """

    address: Address
    config: Address
    mint_a: Address
    mint_b: Address
    vault_a: Address
    vault_b: Address
    observation: Address
    extension: Address | None
    tick_spacing: int
    liquidity: int
    sqrt_price: int
    tick: int
    trade_fee: int
    is_on: bool
    open_time_s: int
    fee_growths: tuple[int, int]
    fees_owed: tuple[BaseUnits, BaseUnits]
    transfer_fee_a: TransferFee | None
    transfer_fee_b: TransferFee | None
    arrays: int
    held: Mapping[Address, Account]

    @property
    def accounts(self) -> tuple[Address, ...]:
        extensions = (self.extension,) if self.extension else ()
        return (self.address, self.config, self.mint_a, self.mint_b, *extensions)

    def quote(self, amount: BaseUnits, a_to_b: bool, at: ChainTime) -> PoolQuote:
        """Return what a swap of `amount` pays.

        Raise NotTradable, NotYetOpen, AmountTooSmall, AmountOverflow, InsufficientLiquidity, MissingTickArray,
        MissingAccount, UnknownLayout, InvalidPool or UnsupportedMode.
        """
        if not 0 < amount <= U64_MAX:
            raise unswappable(amount)
        if not self.is_on:
            raise NotTradable(f"swaps are switched off in the pool {format_address(self.address)}: take another pool")
        if at.unix_time_s <= self.open_time_s:
            raise NotYetOpen(f"the pool {format_address(self.address)} opens after Unix time {self.open_time_s}")
        if a_to_b:
            fee_in, fee_out = self.transfer_fee_a, self.transfer_fee_b
        else:
            fee_in, fee_out = self.transfer_fee_b, self.transfer_fee_a
        arriving = amount if fee_in is None else amount - fee_in.of(amount, at.epoch)
        if not arriving:
            raise AmountTooSmall(
                f"the transfer fee leaves nothing for the pool {format_address(self.address)}: swap more"
            )
        left, gross, fees, growth, crossed = arriving, 0, 0, 0, 0
        sqrt_price, liquidity = self.sqrt_price, self.liquidity
        path: list[Address] = []
        for tick, net_liquidity in self._ticks(a_to_b, path):
            target = self._target(tick, a_to_b)
            if liquidity:
                usable = left * (RATE - self.trade_fee) // RATE
                taken = amount_in(sqrt_price, target, liquidity)
                if taken > U64_MAX:
                    raise self._too_far(tick)
                if usable >= taken:
                    reached = target
                    fee = up(taken * self.trade_fee, RATE - self.trade_fee)
                else:
                    reached = sqrt_price_after(sqrt_price, liquidity, usable, a_to_b)
                    taken = amount_in(sqrt_price, reached, liquidity)
                    fee = left - taken  # what is too little to move the price is fee
                gross += amount_out(sqrt_price, reached, liquidity)
                growth += fee * Q64 // liquidity
                fees += fee
                left -= taken + fee
                sqrt_price = reached
            else:
                sqrt_price = target
            if sqrt_price == target:
                liquidity += -net_liquidity if a_to_b else net_liquidity
                crossed += 1
                self._check_crossing(tick, liquidity)
            if not left:
                break
        if left:
            raise self._exhausted(a_to_b)
        self._check_fees(a_to_b, fees, growth)
        if not 0 < gross <= U64_MAX:
            raise unpayable(gross, self.address)
        received = gross if fee_out is None else gross - fee_out.of(gross, at.epoch)
        if received <= 0:
            raise unpayable(received, self.address)
        price_a, price_b = Q64 * Q64, self.sqrt_price * self.sqrt_price
        return PoolQuote(
            amount,
            received,
            a_to_b,
            fees,
            True,
            impact_bps(arriving - fees, gross, *((price_a, price_b) if a_to_b else (price_b, price_a))),
            COMPUTE_UNITS + COMPUTE_UNITS_PER_TICK * crossed,
            tuple(path),
        )

    def swap(self, quote: PoolQuote, min_out_amount: BaseUnits, trader: Trader) -> Instruction:
        """Return `swap_v2` for the quote, with the bitmap extension if there is one and the arrays of its path."""
        a, b = (self.vault_a, self.mint_a), (self.vault_b, self.mint_b)
        (vault_in, mint_in), (vault_out, mint_out) = (a, b) if quote.a_to_b else (b, a)
        extensions = (self.extension,) if self.extension else ()
        return Instruction(
            RAYDIUM_CLMM,
            (
                AccountMeta(trader.wallet, is_signer=True),
                AccountMeta(self.config),
                AccountMeta(self.address, is_writable=True),
                AccountMeta(trader.in_account, is_writable=True),
                AccountMeta(trader.out_account, is_writable=True),
                AccountMeta(vault_in, is_writable=True),
                AccountMeta(vault_out, is_writable=True),
                AccountMeta(self.observation, is_writable=True),
                AccountMeta(SPL_TOKEN),
                AccountMeta(TOKEN_2022),
                AccountMeta(MEMO),
                AccountMeta(mint_in),
                AccountMeta(mint_out),
                *(AccountMeta(address, is_writable=True) for address in (*extensions, *quote.path)),
            ),
            _ARGUMENTS.pack(SWAP_V2, quote.in_amount, min_out_amount, True),
        )

    def _ticks(self, a_to_b: bool, path: list[Address]) -> Iterator[tuple[int, int]]:
        """Yield initialised ticks and their net liquidity, nearest first; each array that is opened goes into `path`.

        Walking down begins with the tick that the price is at, walking up with the one above.
        """
        spacing = self.tick_spacing
        span = TICKS * spacing
        here = self.tick // span
        for number in arrays_from(self.arrays, here, a_to_b):
            start = number * span
            if len(path) == TICK_ARRAYS_MAX:
                raise InsufficientLiquidity(
                    f"the swap would walk more than {TICK_ARRAYS_MAX} tick arrays of the pool"
                    f" {format_address(self.address)}, more than a transaction can name: swap less"
                )
            data = self._array(start, span, path)
            if number == here:
                place = (self.tick - start) // spacing
                places = range(place, -1, -1) if a_to_b else range(place + 1, TICKS)
            else:
                places = range(TICKS - 1, -1, -1) if a_to_b else range(TICKS)
            is_empty = number != here  # the array at hand may have its ticks on the other side
            for place in places:
                tick, low, high, gross_low, gross_high, orders, orders_left = _TICK.unpack_from(
                    data, TICKS_AT + TICK_BYTES * place
                )
                if orders or orders_left:
                    raise UnsupportedMode(
                        f"limit orders wait in the pool {format_address(self.address)}, which are not modelled"
                    )
                if gross_low or gross_high:
                    if tick != start + place * spacing or abs(tick) > TICK_MAX:
                        raise InvalidPool(f"the pool {format_address(self.address)} has tick {tick} where it cannot be")
                    is_empty = False
                    yield tick, (high << 64) + low
            if is_empty:
                raise InvalidPool(
                    f"the bitmap of the pool {format_address(self.address)} names the tick array from tick {start} on,"
                    " which has no tick"
                )

    def _array(self, start: int, span: int, path: list[Address]) -> bytes:
        if not _exists(start, span):
            raise InvalidPool(f"the bitmap of the pool {format_address(self.address)} names ticks that do not exist")
        address = _array_at(self.address, start)
        if address not in self.held:
            raise MissingTickArray(
                f"the tick array {format_address(address)} of the pool {format_address(self.address)}, from tick"
                f" {start} on, is missing: read the pool anew with it, or swap less"
            )
        data = TICK_ARRAY_LAYOUT.read(self.held, address)
        if _TICK_ARRAY.unpack_from(data) != (self.address, start):
            raise InvalidPool(
                f"the tick array {format_address(address)} says that it belongs elsewhere than to the pool"
                f" {format_address(self.address)} at tick {start}"
            )
        path.append(address)
        return data

    def _target(self, tick: int, a_to_b: bool) -> int:
        """Return the tick's price, or the swap's limit, just inside of the range of prices, if that comes first."""
        sqrt_price = sqrt_price_at(tick)
        return max(sqrt_price, SQRT_PRICE_MIN + 1) if a_to_b else min(sqrt_price, SQRT_PRICE_MAX - 1)

    def _check_crossing(self, tick: int, liquidity: int) -> None:
        if abs(tick) == TICK_MAX:
            raise InsufficientLiquidity(
                f"the swap would move the pool {format_address(self.address)} to the end of its prices: swap less"
            )
        if not 0 <= liquidity <= U128_MAX:
            raise InvalidPool(
                f"the ticks of the pool {format_address(self.address)} take more liquidity away than there is"
            )

    def _check_fees(self, a_to_b: bool, fees: BaseUnits, growth: int) -> None:
        side = 0 if a_to_b else 1
        if self.fees_owed[side] + fees > U64_MAX or self.fee_growths[side] + growth > U128_MAX:
            raise AmountOverflow(f"the pool {format_address(self.address)} cannot count so much in fees: swap less")

    def _too_far(self, tick: int) -> UnsupportedMode:
        return UnsupportedMode(
            f"in the pool {format_address(self.address)} no account could hold what it takes to the next tick, {tick}:"
            " builds of the program differ in what they do then; take another pool"
        )

    def _exhausted(self, a_to_b: bool) -> InsufficientLiquidity | MissingAccount:
        name = format_address(self.address)
        if self.extension is None and _has_extension(self.tick_spacing):
            return MissingAccount(
                f"the pool {name} is walked to the end of its own bitmap, and its bitmap extension is missing:"
                " read the pool anew with it, or swap less"
            )
        return InsufficientLiquidity(
            f"no tick is left {'below' if a_to_b else 'above'} the price of the pool {name}: swap less"
        )


def wanted(address: Address, accounts: Mapping[Address, Account]) -> tuple[Address, ...]:
    """Return the accounts that a quote depends on: config, mints, bitmap extension, and the nearest tick arrays.

    Those are up to TICK_ARRAYS_WANTED in each direction, by the pool's own bitmap until the extension is at hand. Where
    the pool cannot be right, none: `decode` says why. Raise MissingAccount or UnknownLayout.
    """
    data = POOL_LAYOUT.read(accounts, address)
    config, mint_a, mint_b, *_ = _KEYS.unpack_from(data)
    tick_spacing, *_, tick = _POSITION.unpack_from(data)
    try:
        _check_tick(address, tick_spacing, tick)
        arrays = _arrays(address, data, accounts)
    except QuoteRefused:
        return (address, config, mint_a, mint_b, _extension_at(address))
    span = TICKS * tick_spacing
    numbers = [
        number
        for downwards in (True, False)
        for number in islice(arrays_from(arrays, tick // span, downwards), TICK_ARRAYS_WANTED)
        if _exists(number * span, span)
    ]
    tick_arrays = (_array_at(address, number * span) for number in dict.fromkeys(numbers))
    return (address, config, mint_a, mint_b, _extension_at(address), *tick_arrays)


def decode(address: Address, accounts: Mapping[Address, Account], policy: Policy) -> ClmmPool:
    """Return the pool. Raise UnknownLayout, InvalidPool, UnsupportedMode, UnsupportedToken or MissingAccount."""
    data = POOL_LAYOUT.read(accounts, address)
    config, mint_a, mint_b, vault_a, vault_b, observation = _KEYS.unpack_from(data)
    tick_spacing, liquidity_low, liquidity_high, price_low, price_high, tick = _POSITION.unpack_from(data)
    (
        growth_a_low, growth_a_high, growth_b_low, growth_b_high, protocol_fees_a, protocol_fees_b,
        status, fee_on, fund_fees_a, fund_fees_b, open_time_s,
    ) = _POOL.unpack_from(data)  # fmt: skip
    if fee_on or data[_DYNAMIC_FEE] != _NO_DYNAMIC_FEE:
        raise UnsupportedMode(
            f"the pool {format_address(address)} takes its fee in a way that is not modelled (dynamic, or of one token)"
        )
    _check_tick(address, tick_spacing, tick)
    sqrt_price = (price_high << 64) + price_low
    if not (
        SQRT_PRICE_MIN < sqrt_price < SQRT_PRICE_MAX and sqrt_price_at(tick) <= sqrt_price <= sqrt_price_at(tick + 1)
    ):
        raise InvalidPool(f"the pool {format_address(address)} has a price that is not at its tick")
    _, protocol_fee, trade_fee, config_spacing, fund_fee = CONFIG_LAYOUT.unpack(accounts, config)
    if config_spacing != tick_spacing:
        raise InvalidPool(f"the pool {format_address(address)} has another tick spacing than its config")
    if trade_fee >= RATE or protocol_fee + fund_fee > RATE:
        raise InvalidPool(f"the pool {format_address(address)} takes more than all as its fee")
    extension = _extension_at(address)
    arrays = _arrays(address, data, accounts)
    if extension not in accounts and not -NUMBER_MAX - 1 <= tick // (TICKS * tick_spacing) <= NUMBER_MAX:
        raise MissingAccount(
            f"the price of the pool {format_address(address)} is beyond its own bitmap, and its bitmap extension"
            f" {format_address(extension)} is missing: read the pool anew with it"
        )
    return ClmmPool(
        address, config, mint_a, mint_b, vault_a, vault_b, observation,
        extension if extension in accounts else None,
        tick_spacing, (liquidity_high << 64) + liquidity_low, sqrt_price, tick,
        trade_fee, not status & SWAPS_OFF, open_time_s,
        ((growth_a_high << 64) + growth_a_low, (growth_b_high << 64) + growth_b_low),
        (max(protocol_fees_a, fund_fees_a), max(protocol_fees_b, fund_fees_b)),
        _transfer_fee(address, accounts, mint_a, policy), _transfer_fee(address, accounts, mint_b, policy),
        arrays, dict(accounts),
    )  # fmt: skip


def _check_tick(address: Address, tick_spacing: int, tick: int) -> None:
    if tick_spacing == 0 or not -TICK_MAX <= tick < TICK_MAX:
        raise InvalidPool(f"the pool {format_address(address)} is at a tick that does not exist")


def _arrays(address: Address, data: bytes, accounts: Mapping[Address, Account]) -> int:
    """Return the bits of the pool's tick arrays, with those of the bitmap extension if that is at hand."""
    extension = _extension_at(address)
    if extension not in accounts:
        return bits_of(data[_BITMAP])
    _, pool, positive, negative = EXTENSION_LAYOUT.unpack(accounts, extension)
    if pool != address:
        raise InvalidPool(f"the bitmap extension {format_address(extension)} belongs to another pool than it should")
    return bits_of(data[_BITMAP], positive, negative)


def _transfer_fee(
    address: Address, accounts: Mapping[Address, Account], mint: Address, policy: Policy
) -> TransferFee | None:
    if need(accounts, mint, "the mint").owner == SPL_TOKEN:
        return None
    fee = read_mint(accounts, mint).transfer_fee
    if fee is not None and not policy.unproven_transfer_fees:
        raise UnsupportedToken(
            f"the mint {format_address(mint)} of the pool {format_address(address)} withholds a transfer fee, which is"
            " known for this pool type from documentation alone: operators can allow it (unproven_transfer_fees)"
        )
    return fee


def _exists(start: int, span: int) -> bool:
    """Return if an array of `span` ticks from `start` on has a tick within the program's range."""
    return -TICK_MAX - span < start <= TICK_MAX


def _has_extension(tick_spacing: int) -> bool:
    """Return if there are ticks beyond the arrays of the pool's own bitmap."""
    return (NUMBER_MAX + 1) * TICKS * tick_spacing < TICK_MAX


def _extension_at(pool: Address) -> Address:
    return derive(RAYDIUM_CLMM, b"pool_tick_array_bitmap_extension", pool)


def _array_at(pool: Address, start: int) -> Address:
    return derive(RAYDIUM_CLMM, b"tick_array", pool, start.to_bytes(4, "big", signed=True))


CLMM: Final = PoolType("clmm", "raydium", POOL_LAYOUT, mints_at=(73, 105), wanted=wanted, decode=decode)
