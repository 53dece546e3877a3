"""Meteora DAMM v2, as the tests know it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import isqrt
from struct import pack

from hypothesis import strategies as st

from fillwright.core.accounts import Account, ChainTime, PoolAccounts
from fillwright.core.programs import METEORA_DAMM_V2
from fillwright.core.units import U64_MAX
from fillwright.venues.meteora.damm_v2 import DAMM_V2, DammV2Pool
from fillwright.venues.pool import PoolQuote, PoolType
from tests.venues.model import NOW, POLICY, SLOT, a_fee_mint, a_mint, address, patched, u64s

TYPE: PoolType = DAMM_V2
POOL, MINT_A, MINT_B, VAULT_A, VAULT_B = (address(name) for name in ("pool", "mint a", "mint b", "vault a", "vault b"))
ONE = 2**64
SQRT_PRICE_MIN, SQRT_PRICE_MAX = 4_295_048_016, 79_226_673_521_066_979_257_578_248_091  # of pools without a range

# Offset and width of what the tests write: the whole numbers of a pool's account.
FIELDS = {
    "cliff_fee": (8, 8), "base_fee_mode": (16, 1), "period_count": (22, 2), "period_length": (24, 8),
    "reduction": (32, 8), "protocol_fee_percent": (48, 1), "compounding_fee_bps": (54, 2),
    "is_dynamic": (56, 1), "volatility_max": (64, 4), "variable_fee_control": (68, 4), "bin_step": (72, 2),
    "filter_period": (74, 2), "decay_period": (76, 2), "volatility_reduction": (78, 2), "last_update": (80, 8),
    "bin_step_q64": (88, 16), "reference_price": (104, 16), "volatility": (120, 16), "volatility_reference": (136, 16),
    "liquidity": (360, 16), "protocol_fee_a": (392, 8), "protocol_fee_b": (400, 8),
    "sqrt_price_min": (424, 16), "sqrt_price_max": (440, 16), "sqrt_price": (456, 16),
    "activation_point": (472, 8), "activation_type": (480, 1), "status": (481, 1), "flag_a": (482, 1),
    "flag_b": (483, 1), "collect_fee_mode": (484, 1), "fee_version": (486, 1),
    "fee_a_per_liquidity": (488, 32), "fee_b_per_liquidity": (520, 32),
    "total_lp_fee_a": (568, 16), "total_lp_fee_b": (584, 16),
    "total_protocol_fee_a": (600, 8), "total_protocol_fee_b": (608, 8),
    "reserve_a": (680, 8), "reserve_b": (688, 8), "layout_version": (696, 1),
}  # fmt: skip

DYNAMIC = {
    "is_dynamic": 1, "volatility_max": 14_460_000, "variable_fee_control": 956, "bin_step": 1, "filter_period": 10,
    "decay_period": 120, "volatility_reduction": 5_000, "bin_step_q64": 1_844_674_407_370_955,
}  # fmt: skip


def put(name: str, value: int) -> dict[int, bytes]:
    at, width = FIELDS[name]
    return {at: value.to_bytes(width, "little")}


def get(world: PoolAccounts, name: str) -> int:
    at, width = FIELDS[name]
    return int.from_bytes(world.accounts[POOL].data[at : at + width], "little")


def having(world: PoolAccounts, **numbers: int) -> PoolAccounts:
    """Return the world with some of the pool's numbers changed."""
    return patched(world, POOL, {at: value for name in numbers for at, value in put(name, numbers[name]).items()})


def world(liquidity: int = 10**13 * ONE, sqrt_price: int = ONE, **numbers: int) -> PoolAccounts:
    """Return a pool. What it holds follows from its range."""
    low, high = numbers.get("sqrt_price_min", SQRT_PRICE_MIN), numbers.get("sqrt_price_max", SQRT_PRICE_MAX)
    held_a = -(-liquidity * (high - sqrt_price) // (sqrt_price * high))
    held_b = -(-liquidity * (sqrt_price - low) // 2**128)
    pool = pack("<8s160x32s32s32s32s816x", bytes.fromhex("f19a6d0411b16dbc"), MINT_A, MINT_B, VAULT_A, VAULT_B)
    accounts = {POOL: Account(METEORA_DAMM_V2, pool), MINT_A: a_mint(), MINT_B: a_mint()}
    usual = {
        "cliff_fee": 2_500_000, "protocol_fee_percent": 20, "liquidity": liquidity, "sqrt_price": sqrt_price,
        "sqrt_price_min": low, "sqrt_price_max": high, "activation_type": 1, "fee_version": 1, "layout_version": 1,
        "reserve_a": min(held_a, U64_MAX), "reserve_b": min(held_b, U64_MAX),
    }  # fmt: skip
    return having(PoolAccounts(POOL, SLOT, NOW, accounts), **(usual | numbers))


def withholding(world: PoolAccounts, fee_a: tuple[int, int] | None, fee_b: tuple[int, int] | None) -> PoolAccounts:
    """Return the world with mints of Token-2022 that withhold so many bps, and at most so much, of a transfer."""
    mints = {mint: a_fee_mint(*fee) for mint, fee in ((MINT_A, fee_a), (MINT_B, fee_b)) if fee is not None}
    flagged = having(world, flag_a=fee_a is not None, flag_b=fee_b is not None)
    return replace(flagged, accounts={**flagged.accounts, **mints})


def compounding(reserve_a: int = 10**12, reserve_b: int = 5 * 10**10, **numbers: int) -> PoolAccounts:
    price = isqrt(reserve_b * 2**128 // reserve_a)
    whole = {"sqrt_price_min": 0, "sqrt_price_max": 2**128 - 1, "reserve_a": reserve_a, "reserve_b": reserve_b}
    usual = {"collect_fee_mode": 2, "compounding_fee_bps": 5_000}
    return world(10**13 * ONE, price, **(usual | numbers | whole))


@st.composite
def worlds(draw: st.DrawFn) -> PoolAccounts:
    numbers = {
        "cliff_fee": draw(st.sampled_from([0, 1, 10**9, U64_MAX]) | st.integers(0, 990_000_000)),
        "protocol_fee_percent": draw(st.integers(0, 100)),
        "fee_version": draw(st.integers(0, 1)),
    }
    numbers |= draw(_schedules(numbers["cliff_fee"]))
    if draw(st.booleans()):
        numbers |= DYNAMIC | {
            "volatility": draw(st.sampled_from([0, 1, 14_460_000]) | st.integers(0, 2**32)),
            "bin_step": draw(st.sampled_from([1, 100])),
            "last_update": NOW.unix_time_s - draw(st.sampled_from([0, 9, 10, 119, 120, 10**6])),
        }
    if draw(st.integers(0, 3)) == 0:
        numbers["compounding_fee_bps"] = draw(st.integers(0, 10_000))
        numbers["reference_price"] = ONE
        return compounding(draw(u64s), draw(u64s), **numbers)
    sqrt_price = draw(st.integers(34, 95).flatmap(lambda bits: st.integers(2**bits, 2 ** (bits + 1) - 1)))
    sqrt_price = min(sqrt_price, SQRT_PRICE_MAX)
    width = draw(st.none() | st.integers(0, 9_999))
    if width is not None:
        numbers["sqrt_price_min"] = max(SQRT_PRICE_MIN, sqrt_price * (10_000 - width) // 10_000)
        numbers["sqrt_price_max"] = min(SQRT_PRICE_MAX, sqrt_price * 10_000 // (10_000 - width))
    numbers["collect_fee_mode"] = draw(st.integers(0, 1))
    numbers["layout_version"] = draw(st.integers(0, 1))
    numbers["reference_price"] = sqrt_price
    fees = st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 10**9))
    liquidity = draw(st.integers(1, 2**40) | u64s.map(lambda units: units * ONE))
    return withholding(world(liquidity, sqrt_price, **numbers), draw(fees), draw(fees))


@st.composite
def _schedules(draw: st.DrawFn, cliff_fee: int) -> dict[str, int]:
    mode, activation_type = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    now = NOW.unix_time_s if activation_type else NOW.slot
    length, count = draw(st.sampled_from([0, 1, 60])), draw(st.integers(0, 200))
    return {
        "base_fee_mode": mode,
        "activation_type": activation_type,
        "activation_point": now - draw(st.integers(0, 12_000)),
        "period_length": length,
        "period_count": count,
        # The power of a share must not vanish, as little as the fee itself.
        "reduction": draw(st.integers(0, 1_500)) if mode else draw(st.integers(0, cliff_fee // max(1, count))),
    }


def exact_out(pool: DammV2Pool, amount: int, a_to_b: bool, at: ChainTime) -> Fraction:
    rate = exact_rate(pool, at) / 10**9
    withheld = pool.transfer_fee_a if a_to_b else pool.transfer_fee_b
    swapped = Fraction(amount)
    if withheld is not None:
        swapped -= min(swapped * withheld.newer_bps / 10_000, Fraction(withheld.newer_max))
    is_fee_on_input = pool.collect_fee_mode > 0 and not a_to_b
    if is_fee_on_input:
        swapped *= 1 - rate
    price, liquidity = Fraction(pool.sqrt_price, ONE), Fraction(pool.liquidity, ONE)
    if pool.collect_fee_mode == 2:
        held_in, held_out = (pool.reserve_a, pool.reserve_b) if a_to_b else (pool.reserve_b, pool.reserve_a)
        out = held_out * swapped / (held_in + swapped)
    elif a_to_b:
        out = liquidity * (price - 1 / (1 / price + swapped / liquidity))
    else:
        out = liquidity * (1 / price - 1 / (price + swapped / liquidity))
    return out if is_fee_on_input else out * (1 - rate)


def exact_rate(pool: DammV2Pool, at: ChainTime) -> Fraction:
    """Return the least that the fee can be, in billionths: a share's power may be rounded down by less than two."""
    base = Fraction(pool.cliff_fee)
    if pool.period_length:
        passed = min(((at.slot if pool.is_by_slot else at.unix_time_s) - pool.activation_point) // pool.period_length,
                     pool.period_count)  # fmt: skip
        if pool.is_exponential:
            base = max(Fraction(0), base * Fraction(10_000 - pool.reduction, 10_000) ** passed - 2)
        else:
            base -= passed * pool.reduction
    return min(base + pool.variable_fee, Fraction(pool.fee_max))


def after(world: PoolAccounts, quote: PoolQuote) -> PoolAccounts:
    pool = DAMM_V2.decode(POOL, world.accounts, POLICY)
    assert isinstance(pool, DammV2Pool)
    transfer_fee = pool.transfer_fee_a if quote.a_to_b else pool.transfer_fee_b
    swapped = quote.in_amount - (transfer_fee.of(quote.in_amount, world.time.epoch) if transfer_fee else 0)
    if quote.is_fee_on_input:
        swapped -= quote.fee_amount
    given, taken = ("a", "b") if quote.a_to_b else ("b", "a")
    before, liquidity = get(world, "sqrt_price"), get(world, "liquidity")
    held_in, held_out = get(world, f"reserve_{given}"), get(world, f"reserve_{taken}")
    is_compounding = get(world, "collect_fee_mode") == 2
    if is_compounding:
        price, leaving = before, held_out * swapped // (held_in + swapped)
    elif quote.a_to_b:
        price = -(-liquidity * before // (liquidity + swapped * before))
        leaving = liquidity * (before - price) >> 128
    else:
        price = before + swapped * 2**128 // liquidity
        leaving = liquidity * (price - before) // (before * price)

    protocol = quote.fee_amount * get(world, "protocol_fee_percent") // 100
    rest = quote.fee_amount - protocol
    compounded = rest * get(world, "compounding_fee_bps") // 10_000 if is_compounding else 0
    paid_in = "b" if quote.is_fee_on_input else taken
    per_liquidity = get(world, f"fee_{paid_in}_per_liquidity") + (rest - compounded) * 2**128 // liquidity
    changes = {
        f"protocol_fee_{paid_in}": get(world, f"protocol_fee_{paid_in}") + protocol,
        f"total_protocol_fee_{paid_in}": get(world, f"total_protocol_fee_{paid_in}") + protocol,
        f"total_lp_fee_{paid_in}": get(world, f"total_lp_fee_{paid_in}") + rest,
        f"fee_{paid_in}_per_liquidity": per_liquidity % 2**256,
    }
    if get(world, "layout_version"):
        changes |= {f"reserve_{given}": held_in + swapped, f"reserve_{taken}": held_out - leaving}
        changes["reserve_b"] += compounded
    if is_compounding:
        price = isqrt(changes["reserve_b"] * 2**128 // changes["reserve_a"])
    changes["sqrt_price"] = price
    if get(world, "is_dynamic"):
        changes |= _volatility(world, before, price)
    return having(world, **changes)


def _volatility(world: PoolAccounts, before: int, price: int) -> dict[str, int]:
    """Return how the measure of past moves changes, which decides on the fee of the next swap."""
    step, elapsed = get(world, "bin_step_q64"), max(0, world.time.unix_time_s - get(world, "last_update"))
    reference_price, reference = get(world, "reference_price"), get(world, "volatility_reference")
    if elapsed >= get(world, "filter_period"):
        reference_price = before
        is_decaying = elapsed < get(world, "decay_period")
        reference = get(world, "volatility") * get(world, "volatility_reduction") // 10_000 if is_decaying else 0

    def moved(one: int, other: int) -> int:
        return (max(one, other) * ONE // min(one, other) - ONE) // step * 2

    changes = {
        "reference_price": reference_price,
        "volatility_reference": reference,
        "volatility": min(reference + moved(price, reference_price) * 10_000, get(world, "volatility_max")),
    }
    if moved(before, price) > 0:
        changes["last_update"] = world.time.unix_time_s
    return changes
