"""Meteora DLMM: liquidity in bins, each with one price, and a fee that rises with how far the price has moved.

A bin holds A at prices above the pool's and B below; the active bin may hold both. Inside a bin every unit trades at
the bin's price. A swap empties the active bin and goes on to the next: downwards if A is sold, upwards if B is. Bins
lie in arrays of 70, one account each, and a bitmap says which arrays hold anything: 1024 arrays around price 1 in the
pool's account, all others in an extension account. Where the bitmap has a hole, the swap jumps over it.

The fee of a bin has a base, and a part that grows with the square of its distance from a reference. The reference is
the active bin of the last quiet moment: it moves after `filter_period_s` without a swap, and what the last swaps had
added is then reduced, and forgotten after `decay_period_s`. So the same swap may cost less one second later.

A bin may also hold limit orders on one side. They are filled after the bin's own liquidity, at the same price.

Source of layouts, formulas and accounts: the program's published account structs (`LbPair`, `BinArray`,
`BinArrayBitmapExtension`) and its instruction `swap2`, compared with swaps that the program itself made
(docs/venues.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime, Instruction, Trader, format_address
from fillwright.core.errors import (
    AmountOverflow,
    InsufficientLiquidity,
    InvalidPool,
    MissingBinArray,
    NotTradable,
    NotYetOpen,
    UnsupportedMode,
    UnsupportedToken,
)
from fillwright.core.programs import MEMO, METEORA_DLMM, SPL_TOKEN, TOKEN_2022
from fillwright.core.units import BPS, U64_MAX, BaseUnits
from fillwright.venues.addresses import derive
from fillwright.venues.bitmap import set_bits
from fillwright.venues.fixed_point import ONE, U128_MAX, pow_q64
from fillwright.venues.mints import TransferFee, transfer_fee
from fillwright.venues.pool import (
    Layout,
    Policy,
    PoolQuote,
    PoolType,
    impact_bps,
    unpayable,
    unswappable,
    up,
)

RATE: Final = 10**9  # fee rates are billionths
RATE_MAX: Final = 10**8
VARIABLE_FEE_SCALE: Final = 10**11
VOLATILITY_PER_BIN: Final = 10_000
BIN_ID_MAX: Final = 443_636

# How far a quote goes. The program sets no bound, but a transaction has at most 1,400,000 compute units.
ARRAYS_MAX: Final = 8
BINS_MAX: Final = 250
COMPUTE_UNITS: Final = 40_000
COMPUTE_UNITS_PER_BIN: Final = 5_300

# LbPair, 904 bytes.
PAIR_LAYOUT: Final = Layout("DLMM pair", METEORA_DLMM, bytes.fromhex("210b3162b565b10d"), "896x")
# Base factor, filter and decay period, reduction factor, variable fee control, greatest volatility, least and greatest
# bin, protocol's share, power of the base fee, function type, collect fee mode.
_PARAMETERS: Final = Struct("<8xHHHHIIiiHBBB")
# Volatility accumulator and reference, index reference, last update; pair type, active bin, bin step, status,
# activation type.
_STATE: Final = Struct("<40xIIi4xq11xBiHB3xB")
# Mints, reserves; the mints of two rewards; oracle; activation point, which token programs.
_KEYS: Final = Struct("<88x32s32s32s32s48x32s112x32s112x32s232xQ56xBB")
_BOUNDS: Final = Struct("<24xii44xi")  # least, greatest and active bin
_MINTS: Final = Struct("<88x32s32s")
BITMAP: Final = slice(584, 712)
INNER_BITS: Final = 128 * 8

ENABLED: Final = 0
PERMISSION: Final = 1  # pair types: only these two wait for an activation point
CUSTOMIZABLE: Final = 2
PAIR_TYPE_MAX: Final = 3
UNDETERMINED: Final = 0  # function types: limit orders unless liquidity is rewarded, ...
LIMIT_ORDERS: Final = 2
FUNCTION_TYPE_MAX: Final = 2
FEE_ON_B: Final = 1  # collect fee modes: always in B; else in what comes in
COLLECT_FEE_MODE_MAX: Final = 1
BY_SLOT: Final = 0  # activation types: a slot, or a Unix time
ACTIVATION_TYPE_MAX: Final = 1
TOKEN_PROGRAMS: Final = (SPL_TOKEN, TOKEN_2022)
NO_KEY: Final = bytes(32)

# BinArray, 10136 bytes: index and pair, then 70 bins of 144 bytes.
ARRAY_LAYOUT: Final = Layout("DLMM bin array", METEORA_DLMM, bytes.fromhex("5c8e5cdc059446b5"), "10128x")
BINS: Final = 70
BINS_AT: Final = 56
BIN_BYTES: Final = 144
_ARRAY: Final = Struct("<8xq8x32s")
# Amount of A, of B, price in Q64 (B per A, its lower half first; 0 = not stored yet). Of limit orders: what is open,
# what is left of those being processed, their side (0 = bid: they pay B).
_BIN: Final = Struct("<QQQQ80xQ8xQ4xB")

# BinArrayBitmapExtension, 1576 bytes: pair, arrays from 512 upwards, arrays from -513 downwards.
EXTENSION_LAYOUT: Final = Layout(
    "DLMM bitmap extension", METEORA_DLMM, bytes.fromhex("506f7c7137ed1205"), "32s768s768s"
)
EXTENSION_BITS: Final = 768 * 8
BITS_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
ARRAY_INDEX_MIN: Final = -512 - EXTENSION_BITS

SWAP2: Final = bytes.fromhex("414b3f4ceb5b5b88")
_ARGUMENTS: Final = Struct("<8sQQI")  # ... and no slices of further accounts, which only transfer hooks need
EVENT_AUTHORITY: Final = derive(METEORA_DLMM, b"__event_authority")


class DlmmPool(msgspec.Struct, frozen=True):
    """The pair at its active bin.

    `arrays` has a bit for each bin array that holds anything, and `held` the accounts that were read, by address, among
    them bin arrays: a quote looks into those that it walks, no others.
    `base_fee` is in billionths, `bin_step` the step of the price from bin to bin in basis points. `opens_at` is a slot
    if `is_opened_by_slot`, else a Unix time in seconds; 0 for a pair that is open from the beginning.
    """

    address: Address
    extension: Address | None
    reserve_a: Address
    reserve_b: Address
    mint_a: Address
    mint_b: Address
    program_a: Address
    program_b: Address
    oracle: Address
    active_id: int
    least_id: int
    greatest_id: int
    bin_step: int
    base_fee: int
    variable_fee_control: int
    volatility_max: int
    filter_period_s: int
    decay_period_s: int
    reduction_bps: int
    volatility: int
    volatility_reference: int
    index_reference: int
    updated_at_s: int
    is_fee_always_on_b: bool
    has_limit_orders: bool
    is_on: bool
    opens_at: int
    is_opened_by_slot: bool
    transfer_fee_a: TransferFee | None
    transfer_fee_b: TransferFee | None
    arrays: int
    held: Mapping[Address, Account]

    @property
    def accounts(self) -> tuple[Address, ...]:
        extension = (self.extension,) if self.extension else ()
        sides = ((self.mint_a, self.program_a), (self.mint_b, self.program_b))
        return (self.address, *extension, *(mint for mint, program in sides if program == TOKEN_2022))

    def quote(self, amount: BaseUnits, a_to_b: bool, at: ChainTime) -> PoolQuote:
        """Return what a swap of `amount` pays.

        Raise NotTradable, NotYetOpen, AmountTooSmall, AmountOverflow, InsufficientLiquidity, MissingBinArray,
        UnknownLayout or InvalidPool.
        """
        if not 0 < amount <= U64_MAX:
            raise unswappable(amount)
        self._check_open(at)
        fee_a, fee_b = self.transfer_fee_a, self.transfer_fee_b
        fee_in, fee_out = (fee_a, fee_b) if a_to_b else (fee_b, fee_a)
        arriving = amount if fee_in is None else amount - fee_in.of(amount, at.epoch)
        is_fee_on_input = not a_to_b or not self.is_fee_always_on_b
        if arriving <= 0:
            raise unpayable(arriving, self.address)
        fill = self._fill(arriving, a_to_b, is_fee_on_input, at.unix_time_s)
        paid = fill.gross if is_fee_on_input else fill.gross - fill.fee
        if not 0 < paid <= U64_MAX:
            raise unpayable(paid, self.address)
        received = paid if fee_out is None else paid - fee_out.of(paid, at.epoch)
        if received <= 0:
            raise unpayable(received, self.address)
        price = self._spot_price()
        price_in, price_out = (ONE, price) if a_to_b else (price, ONE)
        return PoolQuote(
            amount,
            received,
            a_to_b,
            fill.fee,
            is_fee_on_input,
            impact_bps(fill.in_net, fill.gross, price_in, price_out),
            COMPUTE_UNITS + COMPUTE_UNITS_PER_BIN * fill.bins,
            fill.path,
        )

    def swap(self, quote: PoolQuote, min_out_amount: BaseUnits, trader: Trader) -> Instruction:
        """Return `swap2` for the quote. The program id stands for what is not given: extension, host's fee account."""
        return Instruction(
            METEORA_DLMM,
            (
                AccountMeta(self.address, is_writable=True),
                AccountMeta(self.extension or METEORA_DLMM, is_writable=self.extension is not None),
                AccountMeta(self.reserve_a, is_writable=True),
                AccountMeta(self.reserve_b, is_writable=True),
                AccountMeta(trader.in_account, is_writable=True),
                AccountMeta(trader.out_account, is_writable=True),
                AccountMeta(self.mint_a),
                AccountMeta(self.mint_b),
                AccountMeta(self.oracle, is_writable=True),
                AccountMeta(METEORA_DLMM),
                AccountMeta(trader.wallet, is_signer=True),
                AccountMeta(self.program_a),
                AccountMeta(self.program_b),
                AccountMeta(MEMO),
                AccountMeta(EVENT_AUTHORITY),
                AccountMeta(METEORA_DLMM),
                *(AccountMeta(array, is_writable=True) for array in quote.path),
            ),
            _ARGUMENTS.pack(SWAP2, quote.in_amount, min_out_amount, 0),
        )

    def _check_open(self, at: ChainTime) -> None:
        if not self.is_on:
            raise NotTradable(f"swaps are switched off in {self._name}: take another pool")
        if (at.slot if self.is_opened_by_slot else at.unix_time_s) < self.opens_at:
            unit = "slot" if self.is_opened_by_slot else "Unix time"
            raise NotYetOpen(f"{self._name} opens at {unit} {self.opens_at}")

    def _fill(self, arriving: BaseUnits, a_to_b: bool, is_fee_on_input: bool, now_s: int) -> _Fill:
        left, in_net, gross, fee, bins = arriving, 0, 0, 0, 0
        path: list[Address] = []
        has_limit_orders = self.has_limit_orders
        reference, index_reference = self._references(now_s)
        for index in self.arrays_walked(a_to_b):
            data = self._array(index, path)
            for bin_id in self._bin_ids(index, a_to_b):
                bin_at = BINS_AT + BIN_BYTES * (bin_id - BINS * index)
                amount_a, amount_b, price_low, price_high, opened, in_process, is_ask = _BIN.unpack_from(data, bin_at)
                own, held_in = (amount_b, amount_a) if a_to_b else (amount_a, amount_b)
                orders: tuple[int, ...] = ()
                if (opened or in_process) and has_limit_orders and a_to_b != bool(is_ask):
                    orders = (in_process, opened)
                if not own and not orders:
                    continue
                bins += 1
                if bins > BINS_MAX:
                    raise InsufficientLiquidity(f"{self._name} would need more than {BINS_MAX} bins: swap less")
                rate = self._fee_rate(reference + abs(index_reference - bin_id) * VOLATILITY_PER_BIN)
                price = price_high << 64 | price_low or self._price_of(bin_id)

                offered = left * (RATE - rate) // RATE if is_fee_on_input else left
                rest, got = self._take(own, offered, price, a_to_b)
                for order in orders:
                    rest, more = self._take(order, rest, price, a_to_b)
                    got += more
                used = offered - rest
                if held_in + used > U64_MAX:
                    raise AmountOverflow(f"a bin of {self._name} cannot hold so much: swap less")
                in_net += used
                gross += got
                if not is_fee_on_input:
                    fee += up(got * rate, RATE)
                if rest == 0:
                    return _Fill(in_net, gross, arriving - in_net if is_fee_on_input else fee, bins, tuple(path))
                left -= used + up(used * rate, RATE - rate) if is_fee_on_input else used
        raise InsufficientLiquidity(
            f"{self._name} cannot fill so much within {ARRAYS_MAX} bin arrays: swap less, or take another pool"
        )

    def arrays_walked(self, a_to_b: bool) -> Iterator[int]:
        """Return the arrays that a swap goes through, in order, for as long as it is not filled."""
        return islice(_arrays_from(self.arrays, self.active_id, a_to_b), ARRAYS_MAX)

    def _array(self, index: int, path: list[Address]) -> bytes:
        """Return an array's data, and add its address to the path."""
        address = _array_address(self.address, index)
        if address not in self.held:
            raise MissingBinArray(
                f"{self._name} goes through the bin array {format_address(address)}, which is missing:"
                " read the pool anew, with all its accounts"
            )
        data = ARRAY_LAYOUT.read(self.held, address)
        if _ARRAY.unpack_from(data) != (index, self.address):
            raise InvalidPool(f"the bin array {format_address(address)} belongs elsewhere than at {index}")
        path.append(address)
        return data

    def _bin_ids(self, index: int, a_to_b: bool) -> range:
        """Return the bins of an array that a swap visits, in order: those not yet behind the active bin."""
        first, last = BINS * index, BINS * index + BINS - 1
        if a_to_b:
            return range(min(self.active_id, last), max(self.least_id, first) - 1, -1)
        return range(max(self.active_id, first), min(self.greatest_id, last) + 1)

    def _take(self, offer: BaseUnits, rest: BaseUnits, price: int, a_to_b: bool) -> tuple[BaseUnits, BaseUnits]:
        """Return what is left of `rest` after buying from an offer, and what was bought.

        What the offer costs in full is rounded up, and what a part of it pays is rounded down.
        """
        if not offer or not rest:
            return rest, 0
        cost = ((offer << 64) + price - 1) // price if a_to_b else (offer * price + ONE - 1) >> 64
        if cost > U64_MAX:
            raise AmountOverflow(f"a bin of {self._name} is worth more than an account can hold: take another pool")
        if rest < cost:
            return 0, rest * price >> 64 if a_to_b else (rest << 64) // price
        return rest - cost, offer

    def _references(self, now_s: int) -> tuple[int, int]:
        """Return the volatility to start with and the bin that it is measured from."""
        quiet_s = now_s - self.updated_at_s
        if quiet_s < self.filter_period_s:
            return self.volatility_reference, self.index_reference
        if quiet_s < self.decay_period_s:
            return self.volatility * self.reduction_bps // BPS, self.active_id
        return 0, self.active_id

    def _fee_rate(self, volatility: int) -> int:
        """Return what the fee of a bin is, in billionths."""
        moved = (volatility if volatility < self.volatility_max else self.volatility_max) * self.bin_step
        rate = self.base_fee + up(self.variable_fee_control * moved * moved, VARIABLE_FEE_SCALE)
        return rate if rate < RATE_MAX else RATE_MAX

    def _price_of(self, bin_id: int) -> int:
        try:
            return pow_q64(ONE + self.bin_step * ONE // BPS, bin_id)
        except InvalidPool as error:
            raise InvalidPool(f"the price of bin {bin_id} of {self._name} cannot be expressed") from error

    def _spot_price(self) -> int:
        """Return the price of the active bin, in Q64. Its array, if it has one, is where every walk begins."""
        index, position = divmod(self.active_id, BINS)
        array = self.held.get(_array_address(self.address, index))
        if array is not None and self.arrays >> index - ARRAY_INDEX_MIN & 1:
            _, _, low, high, *_ = _BIN.unpack_from(array.data, BINS_AT + BIN_BYTES * position)
            if low or high:
                return high << 64 | low  # type: ignore[no-any-return]  # struct knows no types
        return self._price_of(self.active_id)

    @property
    def _name(self) -> str:
        return f"the pool {format_address(self.address)}"


class _Fill(NamedTuple):
    """`in_net` is what reached the bins, `gross` what left them, `fee` what was kept, of the one or the other."""

    in_net: BaseUnits
    gross: BaseUnits
    fee: BaseUnits
    bins: int
    path: tuple[Address, ...]


def wanted(address: Address, accounts: Mapping[Address, Account]) -> tuple[Address, ...]:
    """Return the accounts that a quote depends on: mints, bitmap extension, the bin arrays to both sides."""
    data = PAIR_LAYOUT.read(accounts, address)
    mint_a, mint_b = _MINTS.unpack_from(data)
    active_id = _active_id(address, data)
    bitmap = _bitmap(address, data, accounts)
    near = [
        index for is_down in (True, False) for index in islice(_arrays_from(bitmap, active_id, is_down), ARRAYS_MAX)
    ]
    arrays = (_array_address(address, index) for index in dict.fromkeys(near))
    return (address, mint_a, mint_b, _extension_address(address), *arrays)


def decode(address: Address, accounts: Mapping[Address, Account], policy: Policy) -> DlmmPool:
    """Return the pool. Raise UnknownLayout, InvalidPool, UnsupportedMode, UnsupportedToken or MissingAccount."""
    data = PAIR_LAYOUT.read(accounts, address)
    (
        base_factor, filter_period_s, decay_period_s, reduction_bps, variable_fee_control, volatility_max,
        least_id, greatest_id, protocol_share_bps, base_fee_power, function_type, collect_fee_mode,
    ) = _PARAMETERS.unpack_from(data)  # fmt: skip
    (
        volatility, volatility_reference, index_reference, updated_at_s,
        pair_type, active_id, bin_step, status, activation_type,
    ) = _STATE.unpack_from(data)  # fmt: skip
    (
        mint_a, mint_b, reserve_a, reserve_b, reward_a, reward_b, oracle, activation_point, program_a, program_b,
    ) = _KEYS.unpack_from(data)  # fmt: skip
    name = f"the pool {format_address(address)}"
    has_activation = pair_type in (PERMISSION, CUSTOMIZABLE)
    if (
        pair_type > PAIR_TYPE_MAX
        or function_type > FUNCTION_TYPE_MAX
        or collect_fee_mode > COLLECT_FEE_MODE_MAX
        or (has_activation and activation_type > ACTIVATION_TYPE_MAX)
    ):
        raise UnsupportedMode(f"{name} works in a mode that this version does not know: take another pool")
    if program_a >= len(TOKEN_PROGRAMS) or program_b >= len(TOKEN_PROGRAMS):
        raise UnsupportedToken(f"{name} names a token program that this version does not know: take another pool")
    base_fee = base_factor * bin_step * 10 * 10**base_fee_power
    if not (
        0 < bin_step <= BPS
        and max(reduction_bps, protocol_share_bps) <= BPS
        and base_fee <= U128_MAX
        and -BIN_ID_MAX <= index_reference <= BIN_ID_MAX
        and updated_at_s >= 0
    ):
        raise InvalidPool(f"{name} has parameters out of the program's range: take another pool")
    _active_id(address, data)
    extension = _extension_address(address)
    fee_a = transfer_fee(accounts, mint_a, TOKEN_PROGRAMS[program_a])
    fee_b = transfer_fee(accounts, mint_b, TOKEN_PROGRAMS[program_b])
    if (fee_a or fee_b) and not policy.unproven_transfer_fees:
        raise UnsupportedToken(
            f"a token of {name} withholds a fee of each transfer, which is not proven for DLMM:"
            " allow unproven transfer fees, or take another pool"
        )
    return DlmmPool(
        address,
        extension if extension in accounts else None,
        reserve_a, reserve_b, mint_a, mint_b, TOKEN_PROGRAMS[program_a], TOKEN_PROGRAMS[program_b], oracle,
        active_id,
        max(least_id, -BIN_ID_MAX),
        min(greatest_id, BIN_ID_MAX),
        bin_step, base_fee, variable_fee_control, volatility_max, filter_period_s, decay_period_s, reduction_bps,
        volatility, volatility_reference, index_reference, updated_at_s,
        collect_fee_mode == FEE_ON_B,
        function_type == LIMIT_ORDERS or (function_type == UNDETERMINED and reward_a == reward_b == NO_KEY),
        status == ENABLED,
        activation_point if has_activation else 0,
        activation_type == BY_SLOT,
        fee_a, fee_b,
        _bitmap(address, data, accounts),
        dict(accounts),
    )  # fmt: skip


def _active_id(address: Address, pair: bytes) -> int:
    least_id, greatest_id, active_id = _BOUNDS.unpack_from(pair)
    if not max(least_id, -BIN_ID_MAX) <= active_id <= min(greatest_id, BIN_ID_MAX):
        raise InvalidPool(f"the active bin of the pool {format_address(address)} is out of its bounds")
    return active_id  # type: ignore[no-any-return]  # struct knows no types


def _arrays_from(bitmap: int, bin_id: int, downwards: bool) -> Iterator[int]:
    """Return the arrays that hold anything, nearest first, beginning with that of the bin itself."""
    nearest = set_bits(bitmap, bin_id // BINS - ARRAY_INDEX_MIN, downwards)
    return (bit + ARRAY_INDEX_MIN for bit in nearest)


def _bitmap(address: Address, pair: bytes, accounts: Mapping[Address, Account]) -> int:
    """Return which arrays hold anything: bit 0 stands for the array ARRAY_INDEX_MIN.

    The extension counts its negative half away from zero, so that one is turned round.
    """
    inner = int.from_bytes(pair[BITMAP], "little") << EXTENSION_BITS
    where = _extension_address(address)
    if where not in accounts:
        return inner
    _, of_pair, positive, negative = EXTENSION_LAYOUT.unpack(accounts, where)
    if of_pair != address:
        raise InvalidPool(f"the bitmap extension {format_address(where)} belongs to another pool")
    outer = int.from_bytes(positive, "little") << EXTENSION_BITS + INNER_BITS
    turned = int.from_bytes(negative.translate(BITS_REVERSED), "big")
    return turned | inner | outer


def _array_address(pair: Address, index: int) -> Address:
    return derive(METEORA_DLMM, b"bin_array", pair, index.to_bytes(8, "little", signed=True))


def _extension_address(pair: Address) -> Address:
    return derive(METEORA_DLMM, b"bitmap", pair)


DLMM: Final = PoolType("dlmm", "meteora", PAIR_LAYOUT, mints_at=(88, 120), wanted=wanted, decode=decode)
