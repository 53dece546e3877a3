"""Raydium CLMM, as the tests know it: positions make ticks, ticks make arrays and bitmaps.

The walk of a swap is written down twice more here, once without any rounding and once with the program's, in fractions
and over a plain list of all ticks: neither knows of arrays or bitmaps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from struct import pack, unpack_from
from typing import TypeAlias

from hypothesis import strategies as st

from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts
from fillwright.core.programs import RAYDIUM_CLMM
from fillwright.venues.addresses import derive
from fillwright.venues.mints import TransferFee
from fillwright.venues.pool import PoolQuote, PoolType
from fillwright.venues.raydium.clmm import CLMM, ClmmPool
from fillwright.venues.raydium.tick_math import sqrt_price_at
from tests.venues.model import NOW, POLICY, SLOT, a_fee_mint, a_mint, address, patched

TYPE: PoolType = CLMM
POOL, CONFIG, VAULT_A, VAULT_B = (address(name) for name in ("pool", "config", "vault a", "vault b"))
MINTS = MINT_A, MINT_B = address("mint a"), address("mint b")
OBSERVATION = address("observation")
TICK_MAX = 443_636
X64 = 2**64
PARTS = 2**16

Position: TypeAlias = tuple[int, int, int]
"""Lower tick, upper tick, liquidity between them."""


def world(
    positions: Sequence[Position] = ((-1_200, 1_200, 10**12),),
    *,
    tick: int = 0,
    part: int = PARTS // 3,
    spacing: int = 10,
    rates: tuple[int, int, int] = (2_500, 120_000, 40_000),
    growths: tuple[int, int] = (0, 0),
    owed: tuple[int, int, int, int] = (0, 0, 0, 0),
    transfer_fees: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None),
    has_extension: bool = True,
    name: str = "",
    mints: tuple[Address, Address] = MINTS,
    decimals: tuple[int, int] = (6, 6),
) -> PoolAccounts:
    """Return a pool whose price is `part` of PARTS from `tick` to the next tick.

    `rates` are of the trade fee, and of it the protocol's and the fund's; `owed` is to protocol and fund, of each side.
    """
    pool_address, config_address, vault_a, vault_b = (
        address(f"{name}{what}") for what in ("pool", "config", "vault a", "vault b")
    )
    lower, upper = sqrt_price_at(tick), sqrt_price_at(tick + 1)
    sqrt_price = lower + (upper - lower) * part // PARTS
    liquidity = sum(amount for low, high, amount in positions if low <= tick < high)
    starts = {bound // (60 * spacing) * 60 * spacing for low, high, _ in positions for bound in (low, high)}
    default, positive, negative = bitmaps(starts, 60 * spacing)
    pool = b"".join(
        (
            bytes.fromhex("f7ede3f5d7c3de46"), bytes(1), config_address, bytes(32), *mints, vault_a, vault_b,
            OBSERVATION, bytes(decimals), pack("<H", spacing), u128(liquidity), u128(sqrt_price), pack("<i4x", tick),
            u128(growths[0]), u128(growths[1]), pack("<QQ", *owed[:2]), bytes(64), bytes(2 + 6 + 507), default,
            bytes(32), pack("<QQ", *owed[2:]), bytes(8 + 8 + 80 + 368),
        )
    )  # fmt: skip
    trade, protocol, fund = rates
    config = bytes.fromhex("daf42168cbcb2b6f") + pack("<35xIIHI", protocol, trade, spacing, fund) + bytes(60)
    mint_accounts = [
        a_mint(places) if fee is None else a_fee_mint(*fee, decimals=places)
        for fee, places in zip(transfer_fees, decimals, strict=True)
    ]
    accounts = {
        pool_address: Account(RAYDIUM_CLMM, pool),
        config_address: Account(RAYDIUM_CLMM, config),
        mints[0]: mint_accounts[0],
        mints[1]: mint_accounts[1],
        **{array_at(start, pool_address): tick_array(positions, start, spacing, pool_address) for start in starts},
    }
    if has_extension:
        extension = bytes.fromhex("3c9624db61808b99") + pool_address + positive + negative
        accounts[extension_of(pool_address)] = Account(RAYDIUM_CLMM, extension)
    return PoolAccounts(pool_address, SLOT, NOW, accounts)


def extension_of(pool: Address) -> Address:
    return derive(RAYDIUM_CLMM, b"pool_tick_array_bitmap_extension", pool)


def array_at(start: int, pool: Address = POOL) -> Address:
    return derive(RAYDIUM_CLMM, b"tick_array", pool, pack(">i", start))


def tick_array(positions: Sequence[Position], start: int, spacing: int, pool: Address) -> Account:
    data = bytes.fromhex("c09b55cd31f9812a") + pool + pack("<i", start)
    for tick in range(start, start + 60 * spacing, spacing):
        net = sum(amount * ((tick == low) - (tick == high)) for low, high, amount in positions)
        gross = sum(amount for low, high, amount in positions if tick in (low, high))
        data += (pack("<i", tick if gross else 0) + net.to_bytes(16, "little", signed=True) + u128(gross)).ljust(
            168, b"\0"
        )
    return Account(RAYDIUM_CLMM, data.ljust(10_240, b"\0"))


def bitmaps(starts: set[int], span: int) -> tuple[bytes, bytes, bytes]:
    """Return the pool's bitmap, and the two sides of its extension, row by row as the program's accounts have them."""
    default, positive, negative = 0, [0] * 14, [0] * 14
    border = 512 * span
    for start in starts:
        if -border <= start < border:
            default |= 1 << (start // span + 512)
        elif start > 0:
            positive[start // border - 1] |= 1 << (start % border // span)
        else:
            rows, rest = divmod(-start, border)
            negative[rows - (1 if rest else 2)] |= 1 << (512 - rest // span if rest else 0)
    sides = [b"".join(row.to_bytes(64, "little") for row in side) for side in (positive, negative)]
    return default.to_bytes(128, "little"), sides[0], sides[1]


@st.composite
def worlds(draw: st.DrawFn) -> PoolAccounts:
    """Return pools on either side of every border: of ticks, arrays, the pool's own bitmap, the range of prices."""
    spacing = draw(st.sampled_from((1, 2, 10, 14, 15, 60, 120)))
    last = TICK_MAX // spacing  # the outermost ticks that can be used, counted in spacings
    border = min(512 * 60, last)
    middle = draw(st.sampled_from((0, 0, 100, border, -border, 2 * border, -2 * border, last, -last)))
    middle = max(-last, min(last, middle))
    distances = st.one_of(st.integers(-5, 5), st.integers(-130, 130), st.integers(-700, 700))
    amounts = st.one_of(
        st.integers(1, 1_000), st.integers(10**6, 10**15), st.integers(10**6, 10**15), st.integers(1, 2**90)
    )
    positions = []
    for _ in range(draw(st.integers(1, 6))):
        ends = [max(-last, min(last, middle + draw(distances))) for _ in range(2)]
        if draw(st.integers(0, 15)) == 0:
            ends = [-last, last]
        if ends[0] != ends[1]:
            positions.append((min(ends) * spacing, max(ends) * spacing, draw(amounts)))
    near = middle * spacing + draw(st.one_of(st.integers(-9, 9), st.integers(-50 * spacing, 50 * spacing)))
    fees = st.none() | st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 10**9))
    return world(
        positions,
        tick=max(1 - TICK_MAX, min(TICK_MAX - 2, near)),
        part=draw(st.one_of(st.sampled_from((0, PARTS)), st.integers(0, PARTS))),
        spacing=spacing,
        rates=(draw(st.sampled_from((0, 100, 2_500, 10_000, 999_999))), draw(st.integers(0, 500_000)), 40_000),
        growths=(draw(st.integers(0, 2**100)), draw(st.integers(0, 2**100))),
        owed=(draw(st.integers(0, 10**9)), draw(st.integers(0, 10**9)), 0, 0),
        transfer_fees=(draw(fees), draw(fees)),
        has_extension=draw(st.booleans()) or abs(near) > 500 * 60 * spacing,
    )


def exact_out(pool: ClmmPool, amount: int, a_to_b: bool, at: ChainTime) -> Fraction:
    keeps = 1 - Fraction(pool.trade_fee, 1_000_000)
    fee_in, fee_out = (pool.transfer_fee_a, pool.transfer_fee_b)[:: 1 if a_to_b else -1]
    left, out = (amount - exact_fee(fee_in, Fraction(amount), at.epoch)) * keeps, Fraction(0)
    price, liquidity = Fraction(pool.sqrt_price, X64), pool.liquidity
    for tick, net, _ in ticks_ahead(pool.held, pool.tick, a_to_b):
        target = Fraction(sqrt_price_at(tick), X64)
        if liquidity:
            need = between(price, target, liquidity, of_token_a=a_to_b)
            if left < need:
                next_price = 1 / (1 / price + left / liquidity) if a_to_b else price + left / liquidity
                out += between(price, next_price, liquidity, of_token_a=not a_to_b)
                break
            out += between(price, target, liquidity, of_token_a=not a_to_b)
            left -= need
        price, liquidity = target, liquidity + (-net if a_to_b else net)
    return out - exact_fee(fee_out, out, at.epoch)


def exact_fee(fee: TransferFee | None, amount: Fraction, epoch: int) -> Fraction:
    if fee is None:
        return Fraction(0)
    bps, most = (fee.newer_bps, fee.newer_max) if epoch >= fee.epoch else (fee.older_bps, fee.older_max)
    return min(amount * bps / 10_000, Fraction(most))


def between(one: Fraction, other: Fraction, liquidity: int, *, of_token_a: bool) -> Fraction:
    return liquidity * (abs(1 / one - 1 / other) if of_token_a else abs(one - other))


def ticks_ahead(
    accounts: Mapping[Address, Account], tick: int, a_to_b: bool
) -> list[tuple[int, int, tuple[Address, int]]]:
    """Return the initialised ticks that a swap would come to, in order: number, net liquidity, and where it stands."""
    found = []
    for array, account in accounts.items():
        data = account.data
        if account.owner != RAYDIUM_CLMM or len(data) != 10_240:
            continue
        for at in range(44, 44 + 60 * 168, 168):
            if any(data[at + 20 : at + 36]):
                (number,) = unpack_from("<i", data, at)
                found.append((number, int.from_bytes(data[at + 4 : at + 20], "little", signed=True), (array, at)))
    return sorted((each for each in found if (each[0] <= tick) == a_to_b), reverse=a_to_b)


def after(world: PoolAccounts, quote: PoolQuote) -> PoolAccounts:
    """Return the pool and its ticks as a swap leaves them, without the program's statistics and rewards."""
    a_to_b = quote.a_to_b
    data = world.accounts[world.address].data
    pool = CLMM.decode(world.address, world.accounts, POLICY)
    assert isinstance(pool, ClmmPool)
    protocol_rate, rate, _, fund_rate = unpack_from("<IIHI", world.accounts[pool.config].data, 43)
    transfer_fee = pool.transfer_fee_a if a_to_b else pool.transfer_fee_b
    left = quote.in_amount - (transfer_fee.of(quote.in_amount, world.time.epoch) if transfer_fee else 0)
    growths = [read_u128(data, 277), read_u128(data, 293)]
    side = 0 if a_to_b else 1
    (protocol,), (fund,) = unpack_from("<Q", data, 309 + 8 * side), unpack_from("<Q", data, 1064 + 8 * side)
    liquidity, sqrt_price, tick = read_u128(data, 237), read_u128(data, 253), unpack_from("<i", data, 269)[0]
    out = 0
    for number, net, (array, at) in ticks_ahead(world.accounts, tick, a_to_b):
        if not left:
            break
        target = reached = sqrt_price_at(number)
        if liquidity:
            price = Fraction(sqrt_price, X64)
            usable = floor(left * (1 - Fraction(rate, 1_000_000)))
            taken = ceil(between(price, Fraction(target, X64), liquidity, of_token_a=a_to_b))
            if usable < taken:
                moved = 1 / (1 / price + Fraction(usable, liquidity)) if a_to_b else price + Fraction(usable, liquidity)
                reached = ceil(moved * X64) if a_to_b else floor(moved * X64)
                taken = ceil(between(price, Fraction(reached, X64), liquidity, of_token_a=a_to_b))
            fee = ceil(Fraction(taken * rate, 1_000_000 - rate)) if reached == target else left - taken
            out += floor(between(price, Fraction(reached, X64), liquidity, of_token_a=not a_to_b))
            protocol_part, fund_part = fee * protocol_rate // 1_000_000, fee * fund_rate // 1_000_000
            protocol, fund = protocol + protocol_part, fund + fund_part
            growths[side] += (fee - protocol_part - fund_part) * X64 // liquidity
            left -= taken + fee
        if reached == target:
            outside = {
                at + offset: u128((growth - read_u128(world.accounts[array].data, at + offset)) % 2**128)
                for offset, growth in ((36, growths[0]), (52, growths[1]))
            }
            world = patched(world, array, outside)
            liquidity += -net if a_to_b else net
            tick = number - 1 if a_to_b else number
        elif reached != sqrt_price:
            tick = tick_at(reached)
        sqrt_price = reached
    fee_out = pool.transfer_fee_b if a_to_b else pool.transfer_fee_a
    assert not left
    assert quote.out_amount == out - (fee_out.of(out, world.time.epoch) if fee_out else 0)
    return patched(
        world,
        world.address,
        {
            237: u128(liquidity),
            253: u128(sqrt_price),
            269: pack("<i", tick),
            277: u128(growths[0]),
            293: u128(growths[1]),
            309 + 8 * side: pack("<Q", protocol),
            1064 + 8 * side: pack("<Q", fund),
        },
    )


def tick_at(sqrt_price: int) -> int:
    """Return the largest tick whose price is not above."""
    return bisect_right(range(-TICK_MAX, TICK_MAX + 1), sqrt_price, key=sqrt_price_at) - 1 - TICK_MAX


def u128(value: int) -> bytes:
    return value.to_bytes(16, "little")


def read_u128(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 16], "little")
