"""Meteora DLMM: `swap2`, exact in.

Source of the rules: the program's published accounts and instruction. What a bin pays, of its own and for limit orders,
is emulated, and so is all that a later swap depends on. What belongs to those who provide liquidity or place orders is
left as it is: their share of fees, and how an order that is partly filled is told apart from others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import pack_into, unpack_from
from typing import Final

from fillwright.core.accounts import Address
from fillwright.core.programs import METEORA_DLMM, SPL_TOKEN, TOKEN_2022
from fillwright.localnet.fixed_point import ONE, power
from fillwright.localnet.program import (
    ACCOUNT_NOT_ENOUGH_KEYS,
    CONSTRAINT_HAS_ONE,
    Call,
    Effect,
    NotEmulated,
    ProgramFailed,
    Transfer,
    check_transferable,
)
from fillwright.venues.meteora.dlmm import (
    ARRAY_LAYOUT,
    BIN_BYTES,
    BINS,
    BINS_AT,
    EVENT_AUTHORITY,
    EXTENSION_LAYOUT,
    PAIR_LAYOUT,
    SWAP2,
)

INVALID_INPUT: Final = 6002
EXCEEDED_SLIPPAGE: Final = 6003
BITMAP_EXTENSION_MISSING: Final = 6036
INSUFFICIENT_OUT_AMOUNT: Final = 6039
PAIR_DISABLED: Final = 6042
BILLION: Final = 10**9
RATE_LIMIT: Final = 10**8
ID_LIMIT: Final = 443_636
ARRAY_LIMIT: Final = 6_656
UNITS: Final = 40_000
UNITS_PER_BIN: Final = 5_200


@dataclass(slots=True)
class _Swap:
    """A swap under way, through the bins of the arrays that the call brings."""

    call: Call
    pair: bytearray
    extension: bytes | None
    arrays: dict[int, tuple[Address, bytearray]]
    is_down: bool
    left: int
    out: int = 0
    protocol: int = 0
    visited: int = 0
    touched: dict[Address, bytearray] = field(default_factory=dict)

    def run(self) -> None:
        pair, now_s = self.pair, self.call.state.time.unix_time_s
        factor, filter_s, decay_s, reduction, control, most = unpack_from("<HHHHII", pair, 8)
        volatility, reference, from_id = unpack_from("<IIi", pair, 40)
        (updated_s,) = unpack_from("<q", pair, 56)
        active, step = unpack_from("<iH", pair, 76)
        if now_s - updated_s >= filter_s:
            from_id = active
            reference = volatility * reduction // 10_000 if now_s - updated_s < decay_s else 0
        base = factor * step * 10 * 10 ** pair[34]
        for bin_id, array, at in self._bins(active):
            own = unpack_from("<Q", array, at + (8 if self.is_down else 0))[0]
            offers = (own, *self._orders(array, at))
            if not any(offers):
                continue
            self.visited += 1
            volatility = min(reference + abs(from_id - bin_id) * 10_000, most)
            rate = min(base + -(-control * (volatility * step) ** 2 // 10**11), RATE_LIMIT)
            price = int.from_bytes(array[at + 16 : at + 32], "little") or power(ONE + step * ONE // 10_000, bin_id)
            if self._trade(array, at, offers, price, rate):
                pack_into("<IIi", pair, 40, volatility, reference, from_id)
                if bin_id != active:
                    pack_into("<q", pair, 56, now_s)
                    pack_into("<i", pair, 76, bin_id)
                return
        raise ProgramFailed(ACCOUNT_NOT_ENOUGH_KEYS)

    def _trade(self, array: bytearray, at: int, offers: tuple[int, ...], price: int, rate: int) -> bool:
        """Trade with one bin. Return whether that was the last."""
        of_input = self.pair[36] == 0 or not self.is_down
        net = self.left - -(-self.left * rate // BILLION) if of_input else self.left
        rest, given, paid = net, list[int](), list[int]()
        for offer in offers:
            worth = -(-offer * ONE // price) if self.is_down else -(-offer * price // ONE)
            if rest >= worth:
                given.append(worth)
                paid.append(offer)
            else:
                given.append(rest)
                paid.append(rest * price // ONE if self.is_down else rest * ONE // price)
            rest -= given[-1]
        used, gross = net - rest, sum(paid)
        if of_input:
            fee = self.left - net if rest == 0 else -(-used * rate // (BILLION - rate))
            self.out += gross
            self.left -= used + fee
        else:
            fee = -(-gross * rate // BILLION)
            self.out += gross - fee
            self.left -= used
        own_in, own_out = (at, at + 8) if self.is_down else (at + 8, at)
        pack_into("<Q", array, own_in, unpack_from("<Q", array, own_in)[0] + given[0])
        pack_into("<Q", array, own_out, offers[0] - paid[0])
        if any(offers[1:]):
            pack_into("<Q", array, at + 128, offers[1] - paid[1])
            pack_into("<Q", array, at + 112, offers[2] - paid[2])
        else:
            self.protocol += fee * unpack_from("<H", self.pair, 32)[0] // 10_000
        return rest == 0

    def _orders(self, array: bytearray, at: int) -> tuple[int, int]:
        """Return what limit orders of the bin offer: first those being processed, then those that are open."""
        function, rewards = self.pair[35], bytes(self.pair[264:296]) + bytes(self.pair[408:440])
        counts = function == 2 or (function == 0 and not any(rewards))
        if not counts or (array[at + 140] == 0) is not self.is_down:
            return 0, 0
        return unpack_from("<Q", array, at + 128)[0], unpack_from("<Q", array, at + 112)[0]

    def _bins(self, active: int) -> Iterator[tuple[int, bytearray, int]]:
        """Yield the bins from the active one on. Raise ProgramFailed where an array is needed that is not there."""
        least, greatest = unpack_from("<ii", self.pair, 24)
        by = -1 if self.is_down else 1
        index = active // BINS
        while abs(index) <= ARRAY_LIMIT:
            if not self._has_liquidity(index):
                index += by
                continue
            if index not in self.arrays:
                raise ProgramFailed(ACCOUNT_NOT_ENOUGH_KEYS)
            address, data = self.arrays[index]
            self.touched[address] = data
            ids = range(index * BINS, index * BINS + BINS)
            for bin_id in reversed(ids) if self.is_down else ids:
                if (bin_id - active) * by < 0:
                    continue
                if not max(least, -ID_LIMIT) <= bin_id <= min(greatest, ID_LIMIT):
                    return
                yield bin_id, data, BINS_AT + BIN_BYTES * (bin_id - ids[0])
            index += by

    def _has_liquidity(self, index: int) -> bool:
        if -512 <= index <= 511:
            return _bit(self.pair, 584, index + 512)
        if self.extension is None:
            raise ProgramFailed(BITMAP_EXTENSION_MISSING)
        number = index if index > 0 else -index - 1
        row, bit = divmod(number, 512)
        return row <= 12 and _bit(self.extension, (40 if index > 0 else 808) + 64 * (row - 1), bit)


def swap(call: Call) -> Effect:
    amount, least, slices = call.arguments(SWAP2, "<QQI")
    if slices:
        raise NotEmulated("transfer hooks")
    pair = call.own(0, PAIR_LAYOUT, writable=True)
    address = call.key(0)
    reserves = [Address(bytes(pair[at : at + 32])) for at in (152, 184)]
    mints = [Address(bytes(pair[at : at + 32])) for at in (88, 120)]
    programs = [TOKEN_2022 if flag else SPL_TOKEN for flag in pair[880:882]]
    for index, expected, writable in (
        (2, reserves[0], True), (3, reserves[1], True), (6, mints[0], False), (7, mints[1], False),
        (8, Address(bytes(pair[552:584])), True), (11, programs[0], False), (12, programs[1], False),
        (14, EVENT_AUTHORITY, False), (15, METEORA_DLMM, False),
    ):  # fmt: skip
        call.expect(index, expected, CONSTRAINT_HAS_ONE, writable=writable)
    source, destination = call.key(4, writable=True), call.key(5, writable=True)
    trader = call.key(10, signer=True)
    if call.key(9) != METEORA_DLMM:
        raise NotEmulated("host fees")
    if pair[75] > 3 or pair[36] > 1 or pair[35] > 2:
        raise NotEmulated("pairs of this type")

    now = call.state.time
    point = now.unix_time_s if pair[86] else now.slot
    if pair[82] or (pair[75] in (1, 2) and point < unpack_from("<Q", pair, 816)[0]):
        raise ProgramFailed(PAIR_DISABLED)
    if amount == 0:
        raise ProgramFailed(INVALID_INPUT)
    is_down = call.is_a_in(trader, (source, destination), (mints[0], mints[1]), (programs[0], programs[1]))
    i, o = (0, 1) if is_down else (1, 0)
    extension = None
    if call.key(1) != METEORA_DLMM:
        extension = bytes(call.own(1, EXTENSION_LAYOUT, writable=True))
    arrays = dict[int, tuple[Address, bytearray]]()
    for index in range(16, len(call.accounts)):
        array = call.own(index, ARRAY_LAYOUT, writable=True)
        if bytes(array[24:56]) == address:
            arrays[unpack_from("<q", array, 8)[0]] = (call.key(index), array)
    under_way = _Swap(call, pair, extension, arrays, is_down, call.arriving(mints[i], programs[i], amount))
    under_way.run()
    paid = under_way.out
    check_transferable(paid)
    received = call.arriving(mints[o], programs[o], paid)
    if received == 0:
        raise ProgramFailed(INSUFFICIENT_OUT_AMOUNT)
    if received < least:
        raise ProgramFailed(EXCEEDED_SLIPPAGE)
    fee_at = 224 if pair[36] == 1 or not is_down else 216
    pack_into("<Q", pair, fee_at, unpack_from("<Q", pair, fee_at)[0] + under_way.protocol)
    return Effect(
        (
            Transfer(mints[i], programs[i], source, reserves[i], trader, amount),
            Transfer(mints[o], programs[o], reserves[o], destination, address, paid),
        ),
        {address: bytes(pair), **{each: bytes(data) for each, data in under_way.touched.items()}},
        UNITS + UNITS_PER_BIN * under_way.visited,
    )


def _bit(data: bytes | bytearray, at: int, bit: int) -> bool:
    return bool(data[at + bit // 8] >> bit % 8 & 1)
