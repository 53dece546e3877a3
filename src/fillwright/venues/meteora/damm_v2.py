"""Meteora DAMM v2: one price range with the same liquidity all over it, or a constant product that keeps its fees.

The price is the square root of B for A, in Q64 (2^64 stands for 1), and so a swap moves it by how much of A or B goes
into the liquidity. A *compounding* pool has no range: what it holds of A and B is its curve.

The fee is the sum of two. The base fee falls in steps from the pool's activation on, counted in slots or seconds; the
variable fee follows from how far the price moved in the swaps before. As the program lets a swap change that figure
for later ones only, the stored one decides, and the variable fee is known as soon as the pool is read.

Source of layout, formulas and accounts: the program's published account struct (`Pool` with `PoolFeesStruct`) and its
instruction `swap2`, compared with swaps that the program itself made (docs/venues.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

import msgspec

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime, Instruction, Trader, format_address
from fillwright.core.errors import (
    AmountOverflow,
    InsufficientLiquidity,
    InvalidPool,
    NotTradable,
    NotYetOpen,
    UnsupportedMode,
    UnsupportedToken,
)
from fillwright.core.programs import METEORA_DAMM_V2, SPL_TOKEN, TOKEN_2022
from fillwright.core.units import BPS, U64_MAX, BaseUnits
from fillwright.venues.addresses import derive
from fillwright.venues.fixed_point import ONE, U128_MAX, pow_q64
from fillwright.venues.mints import TransferFee, transfer_fee
from fillwright.venues.pool import (
    Layout,
    Policy,
    PoolQuote,
    PoolType,
    impact_bps,
    no_room,
    unpayable,
    unswappable,
)

RATE: Final = 1_000_000_000  # fees are billionths
FEE_MAX: Final = (500_000_000, 990_000_000)  # by fee version
VARIABLE_FEE_SCALE: Final = 100_000_000_000
LINEAR, EXPONENTIAL = 0, 1  # how the base fee falls
FEE_ON_OUTPUT, FEE_ON_B, COMPOUNDING = 0, 1, 2  # how fees are collected
SLOTS, SECONDS = 0, 1  # what activation and schedule are counted in
COMPUTE_UNITS: Final = 34_000
EXACT_IN: Final = 0

# Pool. First the fees; then liquidity, protocol fees and the range; then how it works, and what it holds.
POOL_LAYOUT: Final = Layout(
    "DAMM v2 pool",
    METEORA_DAMM_V2,
    bytes.fromhex("f19a6d0411b16dbc"),
    "QB5xHQQ 8xB5xHB11xIH14xQQ16xQQ 224xQQ16xQQ 16xQQQQQQ QBBBBBxBx 112xQQ64xQQB 415x",
)
_KEYS: Final = Struct("<168x32s32s32s32s")  # mints, vaults
MINT_A, MINT_B = slice(168, 200), slice(200, 232)
_TOKEN_FLAGS: Final = slice(482, 484)
TOKEN_PROGRAMS: Final = (SPL_TOKEN, TOKEN_2022)

SWAP2: Final = bytes.fromhex("414b3f4ceb5b5b88")
_ARGUMENTS: Final = Struct("<8sQQB")
AUTHORITY: Final = derive(METEORA_DAMM_V2, b"pool_authority")
EVENT_AUTHORITY: Final = derive(METEORA_DAMM_V2, b"__event_authority")


class DammV2Pool(msgspec.Struct, frozen=True):
    """`data` is the pool's account: keys are looked up in it when they are needed, for the instruction above all.

    Fees are in billionths, square roots of prices in Q64, `liquidity` in units times 2^64.

    The base fee is `cliff_fee` at first and falls after each of `period_count` periods of `period_length` points: by
    `reduction` billionths, or by `reduction` bps if `is_exponential`. A point is a slot if `is_by_slot`, else a second.
    `are_reserves_tracked` says whether the pool knows what it holds; those of older programs do not.
    The pool's account counts protocol fees twice: `protocol_fees_a` and `protocol_fees_b` are the larger counts.
    """

    address: Address
    data: bytes
    is_on: bool
    activation_point: int
    is_by_slot: bool
    cliff_fee: int
    is_exponential: bool
    period_count: int
    period_length: int
    reduction: int
    variable_fee: int
    fee_max: int
    collect_fee_mode: int
    protocol_fee_percent: int
    protocol_fees_a: BaseUnits
    protocol_fees_b: BaseUnits
    liquidity: int
    sqrt_price: int
    sqrt_price_min: int
    sqrt_price_max: int
    are_reserves_tracked: bool
    reserve_a: BaseUnits
    reserve_b: BaseUnits
    transfer_fee_a: TransferFee | None
    transfer_fee_b: TransferFee | None

    @property
    def mint_a(self) -> Address:
        return Address(self.data[MINT_A])

    @property
    def mint_b(self) -> Address:
        return Address(self.data[MINT_B])

    @property
    def accounts(self) -> tuple[Address, ...]:
        return (self.address, *_mints_of_token_2022(self.data))

    def quote(self, amount: BaseUnits, a_to_b: bool, at: ChainTime) -> PoolQuote:
        """Return what a swap of `amount` pays.

        Raise NotTradable, NotYetOpen, InsufficientLiquidity, AmountTooSmall, AmountOverflow or InvalidPool.
        """
        if not 0 < amount <= U64_MAX:
            raise unswappable(amount)
        if not self.is_on:
            raise NotTradable(f"swaps are switched off in the pool {format_address(self.address)}: take another pool")
        point = at.slot if self.is_by_slot else at.unix_time_s
        if point < self.activation_point:
            unit = "slot" if self.is_by_slot else "Unix time"
            raise NotYetOpen(f"the pool {format_address(self.address)} opens at {unit} {self.activation_point}")
        if a_to_b:
            reserve_in, reserve_out = self.reserve_a, self.reserve_b
            fee_in, fee_out = self.transfer_fee_a, self.transfer_fee_b
            is_fee_on_input = False
        else:
            reserve_in, reserve_out = self.reserve_b, self.reserve_a
            fee_in, fee_out = self.transfer_fee_b, self.transfer_fee_a
            is_fee_on_input = self.collect_fee_mode != FEE_ON_OUTPUT
        rate = (self._base_fee(point) if self.period_count else self.cliff_fee) + self.variable_fee
        if rate > self.fee_max:
            rate = self.fee_max
        arriving = amount if fee_in is None else amount - fee_in.of(amount, at.epoch)
        fee = (arriving * rate + RATE - 1) // RATE if is_fee_on_input else 0
        swapped = arriving - fee
        if self.collect_fee_mode == COMPOUNDING:
            price_in, price_out = reserve_in, reserve_out
            gross = reserve_out * swapped // (reserve_in + swapped)
        else:
            square = self.sqrt_price * self.sqrt_price
            price_in, price_out = (1 << 128, square) if a_to_b else (square, 1 << 128)
            gross = self._cross(swapped, a_to_b)
        if self.are_reserves_tracked:
            if reserve_in + arriving > U64_MAX:
                raise no_room(self.address)
            if gross > reserve_out:
                raise InsufficientLiquidity(
                    f"the pool {format_address(self.address)} holds {reserve_out} and would pay {gross}: swap less"
                )
        if not 0 < gross <= U64_MAX:
            raise unpayable(gross, self.address)
        net = gross
        if not is_fee_on_input:
            fee = (gross * rate + RATE - 1) // RATE
            net -= fee
        counted = self.protocol_fees_b if a_to_b or is_fee_on_input else self.protocol_fees_a
        if counted + fee > U64_MAX and counted + fee * self.protocol_fee_percent // 100 > U64_MAX:  # seldom the second
            raise AmountOverflow(f"the pool {format_address(self.address)} cannot count so much in fees: swap less")
        received = net if fee_out is None else net - fee_out.of(net, at.epoch)
        if received <= 0:
            raise unpayable(received, self.address)
        return PoolQuote(
            amount,
            received,
            a_to_b,
            fee,
            is_fee_on_input,
            impact_bps(swapped, gross, price_in, price_out),
            COMPUTE_UNITS,
        )

    def swap(self, quote: PoolQuote, min_out_amount: BaseUnits, trader: Trader) -> Instruction:
        """Return `swap2` for the quote, without a referrer: the program's own id says that there is none."""
        mint_a, mint_b, vault_a, vault_b = _KEYS.unpack_from(self.data)
        program_a, program_b = (TOKEN_PROGRAMS[flag] for flag in self.data[_TOKEN_FLAGS])
        return Instruction(
            METEORA_DAMM_V2,
            (
                AccountMeta(AUTHORITY),
                AccountMeta(self.address, is_writable=True),
                AccountMeta(trader.in_account, is_writable=True),
                AccountMeta(trader.out_account, is_writable=True),
                AccountMeta(vault_a, is_writable=True),
                AccountMeta(vault_b, is_writable=True),
                AccountMeta(mint_a),
                AccountMeta(mint_b),
                AccountMeta(trader.wallet, is_signer=True),
                AccountMeta(program_a),
                AccountMeta(program_b),
                AccountMeta(METEORA_DAMM_V2),
                AccountMeta(EVENT_AUTHORITY),
                AccountMeta(METEORA_DAMM_V2),
            ),
            _ARGUMENTS.pack(SWAP2, quote.in_amount, min_out_amount, EXACT_IN),
        )

    def _base_fee(self, point: int) -> int:
        periods = min((point - self.activation_point) // self.period_length, self.period_count)
        if not self.is_exponential:
            return self.cliff_fee - self.reduction * periods
        try:
            share = pow_q64(ONE - self.reduction * ONE // BPS, periods)
        except InvalidPool as error:
            raise InvalidPool(f"the pool {format_address(self.address)} has no base fee now: {error}") from error
        return share * self.cliff_fee >> 64

    def _cross(self, swapped: BaseUnits, a_to_b: bool) -> BaseUnits:
        """Return what the range pays for the amount. Raise InsufficientLiquidity where the range ends."""
        liquidity, price = self.liquidity, self.sqrt_price
        if a_to_b:
            whole = liquidity + swapped * price
            after = (liquidity * price + whole - 1) // whole
            if after < self.sqrt_price_min:
                raise self._out_of_range()
            return liquidity * (price - after) >> 128
        after = price + (swapped << 128) // liquidity
        if after > self.sqrt_price_max:
            raise self._out_of_range()
        return liquidity * (after - price) // (price * after)

    def _out_of_range(self) -> InsufficientLiquidity:
        return InsufficientLiquidity(
            f"the pool {format_address(self.address)} has no liquidity at the price where the swap would end: swap less"
        )


def wanted(address: Address, accounts: Mapping[Address, Account]) -> tuple[Address, ...]:
    """Return the accounts that a quote depends on: the pool, and those of its mints that are of Token-2022."""
    return (address, *_mints_of_token_2022(POOL_LAYOUT.read(accounts, address)))


def _mints_of_token_2022(pool: bytes) -> tuple[Address, ...]:
    mints = zip((pool[MINT_A], pool[MINT_B]), pool[_TOKEN_FLAGS], strict=True)
    return tuple(Address(mint) for mint, flag in mints if flag)


def decode(address: Address, accounts: Mapping[Address, Account], policy: Policy) -> DammV2Pool:  # noqa: ARG001  # as every pool type
    """Return the pool.

    Raise UnknownLayout, InvalidPool, UnsupportedMode, UnsupportedToken, InsufficientLiquidity or MissingAccount.
    """
    (
        _, cliff_fee, base_fee_mode, period_count, period_length, reduction, protocol_fee_percent, compounding_fee_bps,
        is_dynamic, variable_fee_control, bin_step, step_low, step_high, volatility_low, volatility_high,
        liquidity_low, liquidity_high, protocol_fee_a, protocol_fee_b,
        min_low, min_high, max_low, max_high, price_low, price_high, activation_point, activation_type, status,
        flag_a, flag_b, collect_fee_mode, fee_version, total_protocol_fee_a, total_protocol_fee_b,
        reserve_a, reserve_b, layout_version,
    ) = POOL_LAYOUT.unpack(accounts, address)  # fmt: skip
    is_compounding = collect_fee_mode == COMPOUNDING
    if base_fee_mode > EXPONENTIAL:
        raise UnsupportedMode(
            f"the pool {format_address(address)} sets its base fee in mode {base_fee_mode}, which is not modelled"
        )
    if collect_fee_mode > COMPOUNDING:
        raise UnsupportedMode(
            f"the pool {format_address(address)} collects fees in mode {collect_fee_mode}, which is not known"
        )
    if fee_version >= len(FEE_MAX):
        raise UnsupportedMode(
            f"the pool {format_address(address)} has fees of version {fee_version}, which is not known"
        )
    if activation_type > SECONDS:
        raise UnsupportedMode(
            f"the pool {format_address(address)} counts time in way {activation_type}, which is not known"
        )
    if layout_version > 1 or (is_compounding and layout_version != 1):
        raise UnsupportedMode(
            f"the pool {format_address(address)} keeps its reserves in version {layout_version}, which is not modelled"
        )
    if flag_a > 1 or flag_b > 1:
        raise UnsupportedToken(
            f"a token of the pool {format_address(address)} belongs to a token program that is not known"
        )
    if protocol_fee_percent > 100 or (is_compounding and compounding_fee_bps > BPS):
        raise InvalidPool(f"the pool {format_address(address)} gives away more than all of its fee")
    if period_length and (reduction > BPS if base_fee_mode == EXPONENTIAL else reduction * period_count > cliff_fee):
        raise InvalidPool(f"the base fee of the pool {format_address(address)} falls below zero")
    variable_fee = 0
    if is_dynamic:
        if not (step_low or step_high):
            raise InvalidPool(
                f"the pool {format_address(address)} has a variable fee without a step to measure prices by"
            )
        moved = ((volatility_high << 64) + volatility_low) * bin_step
        weighted = moved * moved * variable_fee_control + VARIABLE_FEE_SCALE - 1
        if weighted > U128_MAX:
            raise InvalidPool(f"the variable fee of the pool {format_address(address)} is too large to be computed")
        variable_fee = weighted // VARIABLE_FEE_SCALE
    liquidity, sqrt_price = (liquidity_high << 64) + liquidity_low, (price_high << 64) + price_low
    sqrt_price_min, sqrt_price_max = (min_high << 64) + min_low, (max_high << 64) + max_low
    if not (sqrt_price > 0 if is_compounding else 0 < sqrt_price_min <= sqrt_price <= sqrt_price_max):
        raise InvalidPool(f"the price of the pool {format_address(address)} is not within its range")
    if liquidity == 0 or (is_compounding and (reserve_a == 0 or reserve_b == 0)):
        raise InsufficientLiquidity(f"the pool {format_address(address)} is empty: take another pool")
    data = accounts[address].data
    return DammV2Pool(
        address, data, status == 0, activation_point, activation_type == SLOTS,
        cliff_fee, base_fee_mode == EXPONENTIAL, period_count if reduction and period_length else 0, period_length,
        reduction, variable_fee, FEE_MAX[fee_version], collect_fee_mode, protocol_fee_percent,
        total_protocol_fee_a if total_protocol_fee_a > protocol_fee_a else protocol_fee_a,
        total_protocol_fee_b if total_protocol_fee_b > protocol_fee_b else protocol_fee_b,
        liquidity, sqrt_price, sqrt_price_min, sqrt_price_max, layout_version == 1, reserve_a, reserve_b,
        transfer_fee(accounts, Address(data[MINT_A]), TOKEN_2022) if flag_a else None,
        transfer_fee(accounts, Address(data[MINT_B]), TOKEN_2022) if flag_b else None,
    )  # fmt: skip


DAMM_V2: Final = PoolType(
    "damm_v2", "meteora", POOL_LAYOUT, mints_at=(MINT_A.start, MINT_B.start), wanted=wanted, decode=decode
)
