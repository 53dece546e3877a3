"""Raydium CLMM: `swap_v2`, exact in, of classic pools.

Source of the rules: the program's published accounts and instruction. Rewards, observations and statistics are left as
they are: no swap depends on them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import pack_into, unpack_from
from typing import Final

from fillwright.core.accounts import Address
from fillwright.localnet.program import (
    REQUIRE_GT_VIOLATED,
    Call,
    Effect,
    NotEmulated,
    ProgramFailed,
    Transfer,
    check_transferable,
)
from fillwright.venues.raydium.clmm import (
    CONFIG_LAYOUT,
    EXTENSION_LAYOUT,
    POOL_LAYOUT,
    SWAP_V2,
    TICK_ARRAY_LAYOUT,
    TICK_BYTES,
    TICKS,
    TICKS_AT,
)
from fillwright.venues.raydium.tick_bitmap import DEFAULT_BYTES, SIDE_BYTES, arrays_from, bits_of

NOT_APPROVED: Final = 6001
LIQUIDITY_INSUFFICIENT: Final = 6019
TOO_LITTLE_OUTPUT_RECEIVED: Final = 6022
ZERO_AMOUNT: Final = 6024
TOO_SMALL: Final = 6026
NOT_ENOUGH_TICK_ARRAYS: Final = 6027
INVALID_FIRST_TICK_ARRAY: Final = 6028
MILLION: Final = 1_000_000
Q: Final = 2**64
TICK_LIMIT: Final = 443_636
UNITS: Final = 63_000
UNITS_PER_TICK: Final = 18_500
U64_MAX: Final = Q - 1

# For each bit of a tick the square root of 1.0001 to its power, inverted, times 2^64.
_FACTORS: Final = [
    int(each, 16)
    for each in [
        "fffcb933bd6fb800",
        "fff97272373d4000",
        "fff2e50f5f657000",
        "ffe5caca7e10f000",
        "ffcb9843d60f7000",
        "ff973b41fa98e800",
        "ff2ea16466c9b000",
        "fe5dee046a9a3800",
        "fcbe86c7900bb000",
        "f987a7253ac65800",
        "f3392b0822bb6000",
        "e7159475a2caf000",
        "d097f3bdfd2f2000",
        "a9f746462d9f8000",
        "70d869a156f31c00",
        "31be135f97ed3200",
        "9aa508b5b85a500",
        "5d6af8dedc582c",
        "2216e584f5fa",
    ]
]


@dataclass(slots=True)
class _Swap:
    """A swap under way. `arrays` are those that the call has not come to yet."""

    call: Call
    pool: bytearray
    is_down: bool
    left: int
    rates: tuple[int, int, int]  # of the trade fee; of it, the protocol's and the fund's
    arrays: deque[tuple[Address, bytearray]]
    bits: int
    price: int
    liquidity: int
    tick: int
    growth: list[int]
    out: int = 0
    protocol: int = 0
    fund: int = 0
    crossed: int = 0
    touched: dict[Address, bytearray] = field(default_factory=dict)

    def run(self) -> None:
        span = TICKS * unpack_from("<H", self.pool, 235)[0]
        began_at = self.price
        for tick, address, at in self._ticks(span):
            self._step(tick, address, at)
            if self.left == 0:
                break
        else:
            raise ProgramFailed(LIQUIDITY_INSUFFICIENT)
        if self.price == began_at:
            raise ProgramFailed(REQUIRE_GT_VIOLATED)

    def _ticks(self, span: int) -> Iterator[tuple[int, Address, int]]:
        """Yield the initialised ticks ahead, in order, from the arrays that the call brings in that order, too."""
        is_first, start_tick = True, self.tick
        for number in arrays_from(self.bits, start_tick // span, self.is_down):
            while self.arrays and unpack_from("<i", self.arrays[0][1], 40)[0] != number * span:
                self.arrays.popleft()
            if not self.arrays:
                raise ProgramFailed(INVALID_FIRST_TICK_ARRAY if is_first else NOT_ENOUGH_TICK_ARRAYS)
            is_first = False
            address, data = self.arrays.popleft()
            self.touched[address] = data
            places = range(TICKS_AT, TICKS_AT + TICKS * TICK_BYTES, TICK_BYTES)
            for at in reversed(places) if self.is_down else places:
                if not any(data[at + 20 : at + 36]):
                    continue
                if any(data[at + 124 : at + 140]):
                    raise NotEmulated("limit orders")
                (tick,) = unpack_from("<i", data, at)
                if (tick <= start_tick) is self.is_down:
                    yield tick, address, at

    def _step(self, tick: int, address: Address, at: int) -> None:
        target = sqrt_price(tick)
        reached = target
        if self.liquidity:
            trade_rate, protocol_rate, fund_rate = self.rates
            net = self.left * (MILLION - trade_rate) // MILLION
            taken = self._amount(target, of_input=True)
            if net < taken:
                reached = self._moved(net)
                if reached != target:
                    taken = self._amount(reached, of_input=True)
            elif taken > U64_MAX:
                raise ProgramFailed("ProgramFailedToComplete")
            self.out += self._amount(reached, of_input=False)
            fee = _up(taken * trade_rate, MILLION - trade_rate) if reached == target else self.left - taken
            protocol, fund = fee * protocol_rate // MILLION, fee * fund_rate // MILLION
            self.protocol, self.fund = self.protocol + protocol, self.fund + fund
            side = 0 if self.is_down else 1
            self.growth[side] = (self.growth[side] + (fee - protocol - fund) * Q // self.liquidity) % 2**128
            self.left -= taken + fee
        if reached == target:
            self._cross(tick, self.touched[address], at)
        elif reached != self.price:
            self.tick = tick_of(reached)
        self.price = reached

    def _cross(self, tick: int, array: bytearray, at: int) -> None:
        net = int.from_bytes(array[at + 4 : at + 20], "little", signed=True)
        self.liquidity += -net if self.is_down else net
        if self.liquidity < 0:
            raise ProgramFailed("ProgramFailedToComplete")
        for offset, growth in zip((36, 52), self.growth, strict=True):
            outside = int.from_bytes(array[at + offset : at + offset + 16], "little")
            array[at + offset : at + offset + 16] = ((growth - outside) % 2**128).to_bytes(16, "little")
        self.tick = tick - 1 if self.is_down else tick
        self.crossed += 1

    def _moved(self, amount: int) -> int:
        scaled = self.liquidity * Q
        if self.is_down:
            return _up(scaled * self.price, scaled + amount * self.price)
        return self.price + amount * Q // self.liquidity

    def _amount(self, to: int, *, of_input: bool) -> int:
        """Return how much of one token lies between the price and `to`: of what comes in rounded up, else down."""
        low, high = sorted((self.price, to))
        if of_input is self.is_down:  # token 0
            product = self.liquidity * Q * (high - low)
            return _up(_up(product, high), low) if of_input else product // high // low
        product = self.liquidity * (high - low)
        return _up(product, Q) if of_input else product // Q


def swap(call: Call) -> Effect:
    amount, least, limit, limit_high, is_input = call.arguments(SWAP_V2, "<QQQQB")
    if limit or limit_high or not is_input:
        raise NotEmulated("price limits and exact out")
    trader = call.key(0, signer=True)
    pool = call.own(2, POOL_LAYOUT, writable=True)
    address = call.key(2)
    call.expect(1, Address(bytes(pool[9:41])))
    config = call.own(1, CONFIG_LAYOUT)
    source, destination = call.key(3, writable=True), call.key(4, writable=True)
    mints = [Address(bytes(pool[at : at + 32])) for at in (73, 105)]
    vaults = [Address(bytes(pool[at : at + 32])) for at in (137, 169)]
    is_down = call.key(5) == vaults[0]
    i, o = (0, 1) if is_down else (1, 0)
    for index, expected, writable in (
        (5, vaults[i], True),
        (6, vaults[o], True),
        (7, Address(bytes(pool[201:233])), True),
        (11, mints[i], False),
        (12, mints[o], False),
    ):
        call.expect(index, expected, writable=writable)
    if pool[390] or any(pool[1096:1176]):
        raise NotEmulated("dynamic fees and fees of one side")
    programs = [_program_of(call, mint) for mint in mints]
    if pool[389] & 16 or call.state.time.unix_time_s <= unpack_from("<Q", pool, 1080)[0]:
        raise ProgramFailed(NOT_APPROVED)
    arriving = call.arriving(mints[i], programs[i], amount)
    if arriving == 0:
        raise ProgramFailed(ZERO_AMOUNT)
    protocol_rate, trade_rate, _, fund_rate = unpack_from("<IIHI", config, 43)
    arrays, bits = _arrays(call, address, pool)
    under_way = _Swap(
        call, pool, is_down, arriving, (trade_rate, protocol_rate, fund_rate), arrays, bits,
        int.from_bytes(pool[253:269], "little"), int.from_bytes(pool[237:253], "little"),
        unpack_from("<i", pool, 269)[0], [int.from_bytes(pool[at : at + 16], "little") for at in (277, 293)],
    )  # fmt: skip
    under_way.run()
    paid = under_way.out
    check_transferable(paid)
    if paid == 0:
        raise ProgramFailed(TOO_SMALL)
    if call.arriving(mints[o], programs[o], paid) < least:
        raise ProgramFailed(TOO_LITTLE_OUTPUT_RECEIVED)
    for at, value in (
        (237, under_way.liquidity),
        (253, under_way.price),
        *zip((277, 293), under_way.growth, strict=True),
    ):
        pool[at : at + 16] = value.to_bytes(16, "little")
    pack_into("<i", pool, 269, under_way.tick)
    for at, value in ((309 + 8 * i, under_way.protocol), (1064 + 8 * i, under_way.fund)):
        pack_into("<Q", pool, at, unpack_from("<Q", pool, at)[0] + value)
    return Effect(
        (
            Transfer(mints[i], programs[i], source, vaults[i], trader, amount),
            Transfer(mints[o], programs[o], vaults[o], destination, address, paid),
        ),
        {address: bytes(pool), **{each: bytes(data) for each, data in under_way.touched.items()}},
        UNITS + UNITS_PER_TICK * under_way.crossed,
    )


def sqrt_price(tick: int) -> int:
    """Return the square root of a tick's price, times 2^64."""
    ratio = Q
    for bit, factor in enumerate(_FACTORS):
        if abs(tick) >> bit & 1:
            ratio = ratio * factor // Q
    return (2**128 - 1) // ratio if tick > 0 else ratio


def tick_of(price: int) -> int:
    """Return the greatest tick whose price is not above."""
    low, high = -TICK_LIMIT, TICK_LIMIT
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sqrt_price(middle) <= price else (low, middle - 1)
    return low


def _up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _arrays(call: Call, pool_address: Address, pool: bytearray) -> tuple[deque[tuple[Address, bytearray]], int]:
    """Return the tick arrays that the call brings, and which ones the pool has."""
    arrays = deque[tuple[Address, bytearray]]()
    sides = (bytes(SIDE_BYTES), bytes(SIDE_BYTES))
    for index in range(13, len(call.accounts)):
        address = call.key(index, writable=True)
        account = call.state.account(address)
        if account is None or account.data[8:40] != pool_address:
            continue  # what is there for other purposes
        if EXTENSION_LAYOUT.fits(account):
            sides = (account.data[40 : 40 + SIDE_BYTES], account.data[40 + SIDE_BYTES : 40 + 2 * SIDE_BYTES])
        elif TICK_ARRAY_LAYOUT.fits(account):
            arrays.append((address, bytearray(account.data)))
    return arrays, bits_of(bytes(pool[904 : 904 + DEFAULT_BYTES]), *sides)


def _program_of(call: Call, mint: Address) -> Address:
    account = call.state.account(mint)
    if account is None:
        raise ProgramFailed("InvalidAccountData")
    return account.owner
