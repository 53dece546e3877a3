"""Meteora DAMM v2: `swap2`, exact in. Source of the rules: the program's published accounts and instruction."""

from __future__ import annotations

from math import isqrt
from typing import Final

from fillwright.core.accounts import Address
from fillwright.core.programs import METEORA_DAMM_V2, SPL_TOKEN, TOKEN_2022
from fillwright.localnet.fixed_point import ONE, power
from fillwright.localnet.program import (
    CONSTRAINT_HAS_ONE,
    Call,
    Effect,
    NotEmulated,
    ProgramFailed,
    Transfer,
    check_transferable,
)
from fillwright.venues.meteora.damm_v2 import AUTHORITY, EVENT_AUTHORITY, POOL_LAYOUT, SWAP2

MATH_OVERFLOW: Final = 6000
EXCEEDED_SLIPPAGE: Final = 6002
POOL_DISABLED: Final = 6003
AMOUNT_IS_ZERO: Final = 6006
PRICE_RANGE_VIOLATION: Final = 6015
UNITS: Final = 30_000
BILLION: Final = 10**9


class _Pool:
    """The pool's account, by offset and width in bytes."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def get(self, at: int, width: int) -> int:
        return int.from_bytes(self.data[at : at + width], "little")

    def put(self, at: int, width: int, value: int) -> None:
        if value >= 1 << (8 * width) or value < 0:
            raise ProgramFailed(MATH_OVERFLOW)
        self.data[at : at + width] = value.to_bytes(width, "little")

    def add(self, at: int, width: int, value: int) -> None:
        self.put(at, width, self.get(at, width) + value)

    def key(self, at: int) -> Address:
        return Address(bytes(self.data[at : at + 32]))


def swap(call: Call) -> Effect:
    amount, least, mode = call.arguments(SWAP2, "<QQB")
    if mode != 0:
        raise NotEmulated("partial fills and exact out")
    call.expect(0, AUTHORITY)
    pool = _Pool(call.own(1, POOL_LAYOUT, writable=True))
    source, destination = call.key(2, writable=True), call.key(3, writable=True)
    vault_a, vault_b, mint_a, mint_b = pool.key(232), pool.key(264), pool.key(168), pool.key(200)
    programs = [TOKEN_2022 if pool.get(at, 1) else SPL_TOKEN for at in (482, 483)]
    for index, address in ((4, vault_a), (5, vault_b)):
        call.expect(index, address, CONSTRAINT_HAS_ONE, writable=True)
    for index, address in ((6, mint_a), (7, mint_b), (9, programs[0]), (10, programs[1])):
        call.expect(index, address, CONSTRAINT_HAS_ONE)
    trader = call.key(8, signer=True)
    if call.key(11) != METEORA_DAMM_V2:
        raise NotEmulated("referrals")
    call.expect(12, EVENT_AUTHORITY)
    call.expect(13, METEORA_DAMM_V2)

    now = call.state.time
    point = now.slot if pool.get(480, 1) == 0 else now.unix_time_s
    if pool.get(481, 1) or point < pool.get(472, 8):
        raise ProgramFailed(POOL_DISABLED)
    if amount == 0:
        raise ProgramFailed(AMOUNT_IS_ZERO)
    is_a_in = call.is_a_in(trader, (source, destination), (mint_a, mint_b), (programs[0], programs[1]))
    mint_in, program_in, vault_in = (mint_a, programs[0], vault_a) if is_a_in else (mint_b, programs[1], vault_b)
    mint_out, program_out, vault_out = (mint_b, programs[1], vault_b) if is_a_in else (mint_a, programs[0], vault_a)
    arriving = call.arriving(mint_in, program_in, amount)
    if arriving == 0:
        raise ProgramFailed(AMOUNT_IS_ZERO)
    rate, collecting = _fee_rate(pool, point), pool.get(484, 1)
    is_fee_of_input = collecting in (1, 2) and not is_a_in
    fee = -(-arriving * rate // BILLION) if is_fee_of_input else 0
    traded = arriving - fee
    price, after = pool.get(456, 16), 0
    if collecting == 2:
        held_in, held_out = (pool.get(680, 8), pool.get(688, 8))[:: 1 if is_a_in else -1]
        gross = held_out * traded // (held_in + traded)
    else:
        after, gross = _move(pool, price, traded, is_a_in)
    if not is_fee_of_input:
        fee = -(-gross * rate // BILLION)
    paid = gross if is_fee_of_input else gross - fee
    check_transferable(paid)
    received = call.arriving(mint_out, program_out, paid)
    if received < least:
        raise ProgramFailed(EXCEEDED_SLIPPAGE)
    _settle(pool, fee, traded, gross, is_a_in=is_a_in, is_fee_of_b=is_fee_of_input or is_a_in)
    if collecting == 2:
        after = isqrt((pool.get(688, 8) << 128) // pool.get(680, 8))
    pool.put(456, 16, after)
    _remember(pool, price, after, now.unix_time_s)
    return Effect(
        (
            Transfer(mint_in, program_in, source, vault_in, trader, amount),
            Transfer(mint_out, program_out, vault_out, destination, AUTHORITY, paid),
        ),
        {call.key(1): bytes(pool.data)},
        UNITS,
    )


def _fee_rate(pool: _Pool, point: int) -> int:
    base, mode, periods = pool.get(8, 8), pool.get(16, 1), pool.get(22, 2)
    length, reduction, activation = pool.get(24, 8), pool.get(32, 8), pool.get(472, 8)
    if mode > 1:
        raise NotEmulated(f"base fees of mode {mode}")
    if length:
        passed = min((point - activation) // length, periods)
        if mode == 0:
            base -= reduction * passed
        elif reduction:
            base = power(ONE - reduction * ONE // 10_000, passed) * base // ONE
    variable = 0
    if pool.get(56, 1):
        swing = pool.get(120, 16) * pool.get(72, 2)
        variable = (swing * swing * pool.get(68, 4) + 99_999_999_999) // 10**11
    return min(base + variable, 500_000_000 if pool.get(486, 1) == 0 else 990_000_000)


def _move(pool: _Pool, price: int, traded: int, is_a_in: bool) -> tuple[int, int]:
    """Return the new square root of the price, and what the range pays for moving there."""
    liquidity = pool.get(360, 16)
    if is_a_in:
        after = -(-liquidity * price // (liquidity + traded * price))
        if after < pool.get(424, 16):
            raise ProgramFailed(PRICE_RANGE_VIOLATION)
        return after, liquidity * (price - after) >> 128
    after = price + traded * 2**128 // liquidity
    if after > pool.get(440, 16):
        raise ProgramFailed(PRICE_RANGE_VIOLATION)
    return after, liquidity * (after - price) // (price * after)


def _settle(pool: _Pool, fee: int, traded: int, gross: int, *, is_a_in: bool, is_fee_of_b: bool) -> None:
    """Divide the fee between protocol and liquidity, and count what the pool holds."""
    protocol = fee * pool.get(48, 1) // 100
    kept = (fee - protocol) * pool.get(54, 2) // 10_000 if pool.get(484, 1) == 2 else 0
    claimable = fee - protocol - kept
    side = 8 if is_fee_of_b else 0
    pool.add(392 + side, 8, protocol)
    pool.add(600 + side, 8, protocol)
    pool.add(568 + 2 * side, 16, claimable + kept)
    at = 488 + 4 * side
    pool.put(at, 32, (pool.get(at, 32) + claimable * 2**128 // pool.get(360, 16)) % 2**256)
    if pool.get(696, 1):
        pool.add(680 if is_a_in else 688, 8, traded)
        pool.add(688 if is_a_in else 680, 8, -gross)
        pool.add(688, 8, kept)


def _remember(pool: _Pool, price: int, after: int, now_s: int) -> None:
    """Let the price's move count for the fees of later swaps."""
    if not pool.get(56, 1):
        return
    volatility, reference = pool.get(120, 16), pool.get(104, 16)
    passed_s = max(0, now_s - pool.get(80, 8))
    if passed_s >= pool.get(74, 2):
        reference = price
        carried = volatility * pool.get(78, 2) // 10_000 if passed_s < pool.get(76, 2) else 0
        pool.put(104, 16, reference)
        pool.put(136, 16, carried)
    step = pool.get(88, 16)

    def distance(one: int, other: int) -> int:
        low, high = sorted((one, other))
        return (high * ONE // low - ONE) // step * 2 if low else 0

    pool.put(120, 16, min(pool.get(136, 16) + distance(after, reference) * 10_000, pool.get(64, 4)))
    if distance(price, after):
        pool.put(80, 8, now_s)
