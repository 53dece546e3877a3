"""Meteora DLMM, as the tests know it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from struct import pack, pack_into, unpack_from

from hypothesis import strategies as st

from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts
from fillwright.core.programs import METEORA_DLMM
from fillwright.venues.addresses import derive
from fillwright.venues.fixed_point import ONE, pow_q64
from fillwright.venues.meteora.dlmm import DLMM, DlmmPool
from fillwright.venues.pool import PoolQuote, PoolType
from tests.venues.model import NOW, POLICY, SLOT, a_fee_mint, a_mint, address, patched

TYPE: PoolType = DLMM
POOL, RESERVE_A, RESERVE_B = (address(name) for name in ("pool", "reserve a", "reserve b"))
MINT_A, MINT_B, ORACLE, REWARD = (address(name) for name in ("mint a", "mint b", "oracle", "reward"))
EXTENSION = derive(METEORA_DLMM, b"bitmap", POOL)
ID_MAX = 443_636


@dataclass(frozen=True)
class Bin:
    """What a bin holds of its own, and a limit order on one side: open, and what is left of one in process."""

    a: int = 0
    b: int = 0
    opened: int = 0
    in_process: int = 0
    is_ask: bool = False
    is_priced: bool = True


@dataclass(frozen=True)
class Fees:
    """The fee parameters, in the program's units. `before` is volatility, its reference and the reference bin."""

    base_factor: int = 10_000
    power: int = 0
    variable: int = 7_500
    volatility_max: int = 150_000
    filter_s: int = 30
    decay_s: int = 600
    reduction_bps: int = 5_000
    before: tuple[int, int, int | None] = (0, 0, None)
    quiet_s: int = 0
    on_b: bool = False


def array_address(index: int, pool: Address = POOL) -> Address:
    return derive(METEORA_DLMM, b"bin_array", pool, index.to_bytes(8, "little", signed=True))


def world(
    bins: Mapping[int, Bin],
    active_id: int = 0,
    bin_step: int = 25,
    fees: Fees = Fees(),
    *,
    bounds: tuple[int, int] = (-ID_MAX, ID_MAX),
    function_type: int = 0,
    is_rewarded: bool = False,
    pair_type: int = 0,
    activation: tuple[int, int] = (0, 0),
    transfer_fees: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None),
) -> PoolAccounts:
    """Return a pair with these bins by id. `activation` is type and point; `transfer_fees` are bps and maximum."""
    pair = bytearray(904)
    pack_into("<8sHHHHIIiiHBBB", pair, 0, bytes.fromhex("210b3162b565b10d"), fees.base_factor, fees.filter_s,
              fees.decay_s, fees.reduction_bps, fees.variable, fees.volatility_max, *bounds, 1_000, fees.power,
              function_type, fees.on_b)  # fmt: skip
    volatility, reference, reference_id = fees.before
    pack_into("<IIi", pair, 40, volatility, reference, active_id if reference_id is None else reference_id)
    pack_into("<q", pair, 56, NOW.unix_time_s - fees.quiet_s)
    pack_into("<BiH", pair, 75, pair_type, active_id, bin_step)
    pair[86] = activation[0]
    pack_into("<32s32s32s32s", pair, 88, MINT_A, MINT_B, RESERVE_A, RESERVE_B)
    pack_into("<32s", pair, 408, REWARD if is_rewarded else bytes(32))
    pack_into("<32s", pair, 552, ORACLE)
    pack_into("<Q", pair, 816, activation[1])
    pair[880:882] = bytes(fee is not None for fee in transfer_fees)
    extension = bytearray(1576)
    pack_into("<8s32s", extension, 0, bytes.fromhex("506f7c7137ed1205"), POOL)
    accounts = {
        MINT_A: a_mint() if transfer_fees[0] is None else a_fee_mint(*transfer_fees[0]),
        MINT_B: a_mint() if transfer_fees[1] is None else a_fee_mint(*transfer_fees[1]),
    }
    for index in {bin_id // 70 for bin_id in bins}:
        if -512 <= index <= 511:
            set_bit(pair, 584, index + 512)
        else:
            row, bit = divmod(index if index > 0 else -index - 1, 512)
            set_bit(extension, (40 if index > 0 else 808) + 64 * (row - 1), bit)
            accounts[EXTENSION] = Account(METEORA_DLMM, b"")
        held = {bin_id: each for bin_id, each in bins.items() if bin_id // 70 == index}
        accounts[array_address(index)] = Account(METEORA_DLMM, an_array(index, held, bin_step))
    if EXTENSION in accounts:
        accounts[EXTENSION] = Account(METEORA_DLMM, bytes(extension))
    return PoolAccounts(POOL, SLOT, NOW, {POOL: Account(METEORA_DLMM, bytes(pair)), **accounts})


def an_array(index: int, bins: Mapping[int, Bin], bin_step: int) -> bytes:
    data = bytearray(10_136)
    pack_into("<8sq8x32s", data, 0, bytes.fromhex("5c8e5cdc059446b5"), index, POOL)
    for bin_id, each in bins.items():
        at = 56 + 144 * (bin_id - 70 * index)
        price = price_of(bin_id, bin_step) if each.is_priced else 0
        pack_into("<QQ16s16s", data, at, each.a, each.b, price.to_bytes(16, "little"), ONE.to_bytes(16, "little"))
        pack_into("<QQQIB", data, at + 112, each.opened, each.opened, each.in_process, 0, each.is_ask)
    return bytes(data)


def set_bit(data: bytearray, at: int, bit: int) -> None:
    data[at + bit // 8] |= 1 << bit % 8


def price_of(bin_id: int, bin_step: int) -> int:
    return pow_q64(ONE + bin_step * ONE // 10_000, bin_id)


@st.composite
def worlds(draw: st.DrawFn) -> PoolAccounts:
    """Return pairs of moderate prices: B below the active bin, A above it, with gaps; bids below and asks above."""
    bin_step = draw(st.sampled_from([1, 5, 10, 25, 100, 250, 400]))
    furthest = 270_000 // bin_step
    edges = [id_ for id_ in (0, -1, 69, 70, 35_839, 35_840, -35_840, -35_841, 72_000, -72_000) if abs(id_) < furthest]
    active_id = draw(st.sampled_from(edges) | st.integers(-furthest, furthest))
    amounts = st.one_of(st.just(0), st.integers(1, 300), st.integers(1, 10**12), st.integers(1, 2**60))
    distances = st.one_of(st.just(0), st.integers(-5, 5), st.integers(-300, 300))
    bins = {}
    for distance in draw(st.sets(distances, min_size=1, max_size=8)):
        is_ask = draw(st.booleans()) if distance == 0 else distance > 0
        opened, in_process = draw(st.just((0, 0)) | st.tuples(amounts, amounts))
        a, b = draw(amounts) if distance >= 0 else 0, draw(amounts) if distance <= 0 else 0
        bins[active_id + distance] = Bin(a, b, opened, in_process, is_ask, draw(st.booleans()))
    fees = Fees(
        draw(st.integers(0, 65_535)),
        draw(st.integers(0, 4)),
        draw(st.just(0) | st.integers(0, 2_000_000)),
        draw(st.integers(0, 1_000_000)),
        before=(draw(st.integers(0, 500_000)), draw(st.integers(0, 500_000)), active_id + draw(st.integers(-50, 50))),
        quiet_s=draw(st.sampled_from([0, 29, 30, 599, 600, 10_000])),
        on_b=draw(st.booleans()),
    )
    withheld = st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 10**9))
    return world(
        bins,
        active_id,
        bin_step,
        fees,
        function_type=draw(st.integers(0, 2)),
        is_rewarded=draw(st.booleans()),
        pair_type=draw(st.integers(0, 3)),
        transfer_fees=draw(st.just((None, None)) | st.tuples(withheld, withheld)),
    )


@dataclass(frozen=True)
class Visit:
    """A bin that a swap may trade in: what it pays, first of its own, then of limit orders, and at which fee."""

    array: Address
    id: int
    at: int
    offers: tuple[int, int, int]
    price: int
    volatility: int
    rate: Fraction


def visits(pool: DlmmPool, a_to_b: bool, at: ChainTime) -> Iterator[Visit]:
    """Yield the bins that hold something to pay, in order. `rate` is exact: the program rounds it up to billionths."""
    _, reference, reference_id = references(pool, at)
    for index in pool.arrays_walked(a_to_b):
        array = array_address(index, pool.address)
        data = pool.held[array].data
        ids = range(70 * index, 70 * index + 70)
        for bin_id in reversed(ids) if a_to_b else ids:
            if bin_id > pool.active_id if a_to_b else bin_id < pool.active_id:
                continue
            offset = 56 + 144 * (bin_id - ids[0])
            own = unpack_from("<QQ", data, offset)[a_to_b]
            opened, in_process, is_ask = unpack_from("<Q8xQ4xB", data, offset + 112)
            orders = (in_process, opened) if pool.has_limit_orders and (is_ask != 0) != a_to_b else (0, 0)
            if own or any(orders):
                stored = int.from_bytes(data[offset + 16 : offset + 32], "little")
                volatility = min(reference + 10_000 * abs(reference_id - bin_id), pool.volatility_max)
                variable = Fraction(pool.variable_fee_control * (volatility * pool.bin_step) ** 2, 10**11)
                rate = min((pool.base_fee + variable) / 10**9, Fraction(1, 10))
                price = stored or price_of(bin_id, pool.bin_step)
                yield Visit(array, bin_id, offset, (own, *orders), price, volatility, rate)


def references(pool: DlmmPool, at: ChainTime) -> tuple[int, int, int]:
    """Return the seconds without a swap, the volatility to start with and the bin that it is measured from."""
    quiet_s = at.unix_time_s - pool.updated_at_s
    if quiet_s < pool.filter_period_s:
        return quiet_s, pool.volatility_reference, pool.index_reference
    kept = pool.volatility * pool.reduction_bps // 10_000 if quiet_s < pool.decay_period_s else 0
    return quiet_s, kept, pool.active_id


def exact_out(pool: DlmmPool, amount: int, a_to_b: bool, at: ChainTime) -> Fraction:
    left, out = Fraction(amount), Fraction(0)
    for visit in visits(pool, a_to_b, at):
        paid_per_unit = Fraction(visit.price, ONE) if a_to_b else Fraction(ONE, visit.price)
        is_fee_on_output = a_to_b and pool.is_fee_always_on_b
        arriving_share = 1 - (Fraction(0) if is_fee_on_output else visit.rate)
        most = min(left * arriving_share * paid_per_unit, Fraction(sum(visit.offers)))
        out += most * (1 - visit.rate) if is_fee_on_output else most
        left -= most / paid_per_unit / arriving_share
    return out


def after(world: PoolAccounts, quote: PoolQuote) -> PoolAccounts:
    """Return the accounts after the swap, as far as quotes depend on them.

    Of limit orders it is known how much they pay together, not how what is left is told apart.
    """
    pool = DLMM.decode(POOL, world.accounts, POLICY)
    assert isinstance(pool, DlmmPool)
    a_to_b, transfer_fee = quote.a_to_b, pool.transfer_fee_a if quote.a_to_b else pool.transfer_fee_b
    left = quote.in_amount - (transfer_fee.of(quote.in_amount, world.time.epoch) if transfer_fee else 0)
    fee_side = 224 if pool.is_fee_always_on_b or not a_to_b else 216
    protocol_share = unpack_from("<H", world.accounts[POOL].data, 32)[0]
    for visit in visits(pool, a_to_b, world.time):
        rate = -(-visit.rate * 10**9 // 1)
        offered = left + (-left * rate // 10**9 if quote.is_fee_on_input else 0)
        rest, took, paid_in = offered, [], []
        for offer in visit.offers:
            cost = -(-offer * ONE // visit.price) if a_to_b else -(-offer * visit.price // ONE)
            part = rest * visit.price // ONE if a_to_b else rest * ONE // visit.price
            took.append(offer if rest >= cost else part)
            paid_in.append(min(rest, cost))
            rest -= paid_in[-1]
        used = offered - rest
        if quote.is_fee_on_input:
            fee = left - offered if rest == 0 else -(-used * rate // (10**9 - rate))
        else:
            fee = -(-sum(took) * rate // 10**9)
        own_in, own_out = (0, 8) if a_to_b else (8, 0)
        changes = {
            visit.at + own_in: pack(
                "<Q", unpack_from("<Q", world.accounts[visit.array].data, visit.at + own_in)[0] + paid_in[0]
            ),
            visit.at + own_out: pack("<Q", visit.offers[0] - took[0]),
        }
        if any(visit.offers[1:]):
            changes[visit.at + 128] = pack("<Q", visit.offers[1] - took[1])
            changes[visit.at + 112] = pack("<Q", visit.offers[2] - took[2])
        else:
            kept = unpack_from("<Q", world.accounts[POOL].data, fee_side)[0] + fee * protocol_share // 10_000
            world = patched(world, POOL, {fee_side: pack("<Q", kept)})
        world = patched(world, visit.array, changes)
        left -= used + (fee if quote.is_fee_on_input else 0)
        if rest == 0:
            _, reference, reference_id = references(pool, world.time)
            pair = {40: pack("<IIi", visit.volatility, reference, reference_id), 76: pack("<i", visit.id)}
            if visit.id != pool.active_id:
                pair[56] = pack("<q", world.time.unix_time_s)
            return patched(world, POOL, pair)
    raise AssertionError("the swap was quoted, but the bins do not hold so much")
