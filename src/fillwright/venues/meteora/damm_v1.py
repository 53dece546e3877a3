"""Meteora DAMM v1: a pool that owns shares of two vaults, which lend out what they hold.

What a pool has of a token is therefore never written down: it is its share of what the vault owns at that second. A
vault releases the profit of lending bit by bit, and so that amount grows with the clock. A swap deposits into one
vault and withdraws from the other, and each of the two rounds shares and amounts down once more.

Two curves are known. The constant product is one line. The stable curve is StableSwap over two scaled amounts, of which
one is modelled: that whose price is Marinade's, which the pool keeps for ten minutes. Its invariant and its reserves
are found by Newton's method, which ends one unit away from a fixed point; amounts are scaled by at least a million,
so that this unit is not seen.

Source of layouts, formulas and accounts: the published account structs (`Pool` with `CurveType` and `Depeg`, `Vault`)
and the programs' instruction `swap`, compared with swaps that they made themselves (docs/venues.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

import msgspec

from fillwright.core.accounts import Account, AccountMeta, Address, ChainTime, Instruction, Trader, format_address
from fillwright.core.errors import (
    AmountOverflow,
    AmountTooSmall,
    InsufficientLiquidity,
    InvalidPool,
    NotTradable,
    NotYetOpen,
    StableCurveUnsupported,
    UnknownLayout,
    UnsupportedMode,
    UnsupportedToken,
)
from fillwright.core.programs import METEORA_DAMM_V1, METEORA_VAULT, SPL_TOKEN, TOKEN_2022
from fillwright.core.units import BaseUnits
from fillwright.venues.mints import balance, need, supply
from fillwright.venues.pool import (
    Layout,
    Policy,
    PoolQuote,
    PoolType,
    check_amount,
    check_received,
    check_room,
    impact_bps,
    up,
)

ALL_PROFIT: Final = 1_000_000_000_000  # shares of a vault's profit are millionths of millionths
PRICE_SCALE: Final = 1_000_000  # Marinade's price has 6 decimals
PRICE_KEPT_S: Final = 600
STEPS_MAX: Final = 256
STABLE_BITS: Final = 192  # the width of the program's integers in the stable curve
CONSTANT_PRODUCT, STABLE = 0, 1
MARINADE: Final = 1
SLOTS, SECONDS = 0, 1  # what activation is counted in
COMPUTE_UNITS: Final = 108_000
COMPUTE_UNITS_STABLE: Final = 165_000

# Pool: mints, vaults, the pool's shares of them; then whether it is on, where fees go, fees, activation, the curve.
POOL_BYTES_MIN: Final = 875
STABLE_POOL_BYTES_MIN: Final = 925
POOL: Final = bytes.fromhex("f19a6d0411b16dbc")
POOL_LAYOUT: Final = Layout("DAMM v1 pool", METEORA_DAMM_V1, POOL_BYTES_MIN, POOL, is_length_min=True)
_KEYS: Final = Struct("<40x32s32s32s32s32s32s")
_POOL: Final = Struct("<233xB32s32s32xQQQQB32s8xQ64xB398xB")
_STABLE: Final = Struct("<875xQQQxQQB")

# Vault: whether it takes deposits, what it owns, its token account; token and share mint; profit that is still locked.
VAULT_BYTES_MIN: Final = 1227
VAULT: Final = bytes.fromhex("d308e82b02987577")
VAULT_LAYOUT: Final = Layout("dynamic vault", METEORA_VAULT, VAULT_BYTES_MIN, VAULT, is_length_min=True)
_VAULT: Final = Struct("<8xB2xQ32s32x32s32s1056xQQQ")
_VAULT_KEYS: Final = Struct("<19x32s64x32s")

SWAP: Final = bytes.fromhex("f8c69e91e17587c8")
_ARGUMENTS: Final = Struct("<8sQQ")


class Side(msgspec.Struct, frozen=True):
    """One token of a pool, and its vault.

    The vault owns `total`, of which `held` are in its account and the rest is lent. Of the `supply` of its shares the
    pool owns `shares`. Of `locked_profit`, as reported at `reported_s`, `release` is set free in each second.
    """

    mint: Address
    vault: Address
    vault_account: Address
    share_mint: Address
    share_account: Address
    fee_account: Address
    takes_deposits: bool
    total: BaseUnits
    held: BaseUnits
    supply: BaseUnits
    shares: BaseUnits
    locked_profit: BaseUnits
    reported_s: int
    release: int

    def unlocked(self, now_s: int) -> BaseUnits:
        """Return what all shares of the vault are worth. Raise InvalidPool or InsufficientLiquidity.

        Source: `Vault.get_unlocked_amount` of the vault program.
        """
        if now_s < self.reported_s:
            raise InvalidPool(
                f"the vault {format_address(self.vault)} was changed after the clock was read: read them at one slot"
            )
        released = (now_s - self.reported_s) * self.release
        locked = self.locked_profit * (ALL_PROFIT - released) // ALL_PROFIT if released <= ALL_PROFIT else 0
        if locked > self.total:
            raise InvalidPool(f"the vault {format_address(self.vault)} has more profit than it owns")
        if locked == self.total:
            raise InsufficientLiquidity(f"the vault {format_address(self.vault)} is empty: take another pool")
        return self.total - locked


class StableCurve(msgspec.Struct, frozen=True):
    """StableSwap with the amplification `amplification`; `scale_a` and `scale_b` make amounts of equal worth equal.

    The price in the scale is the pool's own until `price_until_s`; then the program asks Marinade's `stake` account.
    """

    amplification: int
    scale_a: int
    scale_b: int
    price_from_s: int
    price_until_s: int
    stake: Address


class DammV1Pool(msgspec.Struct, frozen=True):
    """Fees are fractions: the trade fee of the amount, the protocol's of the trade fee. `curve` None: x times y."""

    address: Address
    a: Side
    b: Side
    is_on: bool
    activation_point: int
    is_by_slot: bool
    trade_fee: int
    trade_fee_of: int
    protocol_fee: int
    protocol_fee_of: int
    curve: StableCurve | None

    @property
    def mint_a(self) -> Address:
        return self.a.mint

    @property
    def mint_b(self) -> Address:
        return self.b.mint

    @property
    def accounts(self) -> tuple[Address, ...]:
        sides = (self.a, self.b)
        return (
            self.address,
            *(side.vault for side in sides),
            *(side.share_account for side in sides),
            *(side.vault_account for side in sides),
            *(side.share_mint for side in sides),
        )

    def quote(self, amount: BaseUnits, a_to_b: bool, at: ChainTime) -> PoolQuote:
        """Return what a swap of `amount` pays.

        Raise NotTradable, NotYetOpen, InsufficientLiquidity, AmountTooSmall, AmountOverflow, StableCurveUnsupported or
        InvalidPool.
        """
        check_amount(amount)
        given, taken = (self.a, self.b) if a_to_b else (self.b, self.a)
        self._check_open(given, at)
        owned_in, owned_out = given.unlocked(at.unix_time_s), taken.unlocked(at.unix_time_s)
        reserve_in = given.shares * owned_in // given.supply
        reserve_out = taken.shares * owned_out // taken.supply
        if reserve_in == 0 or reserve_out == 0:
            raise InsufficientLiquidity(f"the pool {format_address(self.address)} is empty: take another pool")

        trade_fee = _fee(amount, self.trade_fee, self.trade_fee_of)
        protocol_fee = _fee(trade_fee, self.protocol_fee, self.protocol_fee_of)
        deposit = amount - protocol_fee
        minted = deposit * given.supply // owned_in
        if minted == 0:
            raise AmountTooSmall(f"the pool {format_address(self.address)} would get no share for so little: swap more")
        check_room(max(given.total, given.held), deposit, self.address)
        check_room(given.supply, minted, self.address)
        reserve_after = (given.shares + minted) * (owned_in + deposit) // (given.supply + minted)
        swapped = reserve_after - reserve_in - (trade_fee - protocol_fee)
        if swapped <= 0:
            raise AmountTooSmall(f"the fees of the pool {format_address(self.address)} take all of it: swap more")

        if self.curve is None:
            price_in, price_out = reserve_in, reserve_out
            gross = reserve_out - up(reserve_in * reserve_out, reserve_in + swapped)
        else:
            gross, price_in, price_out = self._stable(self.curve, reserve_in, reserve_out, swapped, a_to_b, at)
        burned = check_received(gross, self.address) * taken.supply // owned_out
        received = check_received(burned * owned_out // taken.supply, self.address)
        if received >= taken.held:
            raise InsufficientLiquidity(
                f"the pool {format_address(self.address)} would pay {received}, but its vault holds {taken.held}"
                " and has lent the rest: swap less, or wait"
            )
        return PoolQuote(
            amount,
            received,
            a_to_b,
            trade_fee,
            True,
            impact_bps(swapped, gross, price_in, price_out),
            COMPUTE_UNITS if self.curve is None else COMPUTE_UNITS_STABLE,
        )

    def swap(self, quote: PoolQuote, min_out_amount: BaseUnits, trader: Trader) -> Instruction:
        """Return `swap` for the quote."""
        fee_account = self.a.fee_account if quote.a_to_b else self.b.fee_account
        return Instruction(
            METEORA_DAMM_V1,
            (
                AccountMeta(self.address, is_writable=True),
                AccountMeta(trader.in_account, is_writable=True),
                AccountMeta(trader.out_account, is_writable=True),
                AccountMeta(self.a.vault, is_writable=True),
                AccountMeta(self.b.vault, is_writable=True),
                AccountMeta(self.a.vault_account, is_writable=True),
                AccountMeta(self.b.vault_account, is_writable=True),
                AccountMeta(self.a.share_mint, is_writable=True),
                AccountMeta(self.b.share_mint, is_writable=True),
                AccountMeta(self.a.share_account, is_writable=True),
                AccountMeta(self.b.share_account, is_writable=True),
                AccountMeta(fee_account, is_writable=True),
                AccountMeta(trader.wallet, is_signer=True),
                AccountMeta(METEORA_VAULT),
                AccountMeta(SPL_TOKEN),
                *(() if self.curve is None else (AccountMeta(self.curve.stake),)),
            ),
            _ARGUMENTS.pack(SWAP, quote.in_amount, min_out_amount),
        )

    def _check_open(self, given: Side, at: ChainTime) -> None:
        if not self.is_on:
            raise NotTradable(f"swaps are switched off in the pool {format_address(self.address)}: take another pool")
        if (at.slot if self.is_by_slot else at.unix_time_s) < self.activation_point:
            unit = "slot" if self.is_by_slot else "Unix time"
            raise NotYetOpen(f"the pool {format_address(self.address)} opens at {unit} {self.activation_point}")
        if not given.takes_deposits:
            raise NotTradable(
                f"a vault of the pool {format_address(self.address)} takes no deposits: take another pool"
            )

    def _stable(
        self,
        curve: StableCurve,
        reserve_in: BaseUnits,
        reserve_out: BaseUnits,
        swapped: BaseUnits,
        a_to_b: bool,
        at: ChainTime,
    ) -> tuple[BaseUnits, int, int]:
        """Return what the stable curve pays, and its price of the moment: the second for the first."""
        name = format_address(self.address)
        if at.unix_time_s > curve.price_until_s:
            raise StableCurveUnsupported(
                f"the pool {name} will ask Marinade for a new price, which is not modelled: wait for somebody's swap"
            )
        if at.unix_time_s < curve.price_from_s:
            raise InvalidPool(f"the price of the pool {name} is newer than the clock: read them at one slot")
        scale_in, scale_out = (curve.scale_a, curve.scale_b) if a_to_b else (curve.scale_b, curve.scale_a)
        x, y = reserve_in * scale_in, reserve_out * scale_out
        ann = 2 * curve.amplification
        invariant = stable_invariant(x, y, ann)
        left = None if invariant is None else stable_other(x + swapped * scale_in, invariant, ann)
        if invariant is None or left is None:
            raise AmountOverflow(f"the stable curve of the pool {name} cannot be computed for so much: swap less")
        gross = (y - left) // scale_out
        if gross >= reserve_out:
            raise InsufficientLiquidity(f"the pool {name} would be emptied: swap less")
        even, tilt = 4 * ann * x * x * y * y, invariant**3
        return gross, (even + tilt * x) * scale_out, (even + tilt * y) * scale_in


def stable_invariant(x: int, y: int, ann: int) -> int | None:
    """Return StableSwap's D for two positive scaled amounts and twice the amplification, as the program finds it.

    None if it cannot: its integers are too narrow, or the steps lead nowhere. Source: `compute_d` of the stable curve.
    """
    d = total = x + y
    if _is_too_wide(total * total):
        return None
    for _ in range(STEPS_MAX):
        product = d * d // (2 * x) * d
        k = product // (2 * y)
        numerator = d * (total * ann + 2 * k)
        if _is_too_wide(product) or _is_too_wide(numerator):
            return None
        before, d = d, numerator // ((ann - 1) * d + 3 * k)
        if abs(d - before) <= 1:
            return d
    return None


def stable_other(x: int, d: int, ann: int) -> int | None:
    """Return the scaled amount that belongs to another one, `x`, and to D, as the program finds it; None if it cannot.

    Source: `compute_y` of the stable curve.
    """
    product = d * d // (2 * x) * d
    if _is_too_wide(product):
        return None
    c, b = product // (2 * ann), d // ann + x
    y = d
    for _ in range(STEPS_MAX):
        numerator, denominator = y * y + c, 2 * y + b - d
        if denominator <= 0 or _is_too_wide(numerator):
            return None
        before, y = y, numerator // denominator
        if abs(y - before) <= 1:
            return y
    return None


def _is_too_wide(number: int) -> bool:
    return number >> STABLE_BITS > 0


def _fee(amount: BaseUnits, numerator: int, denominator: int) -> BaseUnits:
    """Return the fee, which is at least one unit if there is any. Source: `PoolFees.calculate_fee`."""
    return max(amount * numerator // denominator, 1) if numerator and amount else 0


def wanted(address: Address, accounts: Mapping[Address, Account]) -> tuple[Address, ...]:
    """Return the accounts that a quote depends on: vaults, the pool's shares; then what the vaults name."""
    data = POOL_LAYOUT.read(accounts, address)
    _, _, vault_a, vault_b, shares_a, shares_b = _KEYS.unpack_from(data)
    of_vaults: list[Address] = []
    for vault in (vault_a, vault_b):
        if vault in accounts:
            of_vaults += _VAULT_KEYS.unpack_from(VAULT_LAYOUT.read(accounts, vault))
    return (address, vault_a, vault_b, shares_a, shares_b, *of_vaults)


def decode(address: Address, accounts: Mapping[Address, Account], policy: Policy) -> DammV1Pool:  # noqa: ARG001  # as every pool type
    """Return the pool.

    Raise UnknownLayout, InvalidPool, UnsupportedMode, StableCurveUnsupported, UnsupportedToken, NotTradable,
    InsufficientLiquidity or MissingAccount.
    """
    data = POOL_LAYOUT.read(accounts, address)
    name = format_address(address)
    mint_a, mint_b, vault_a, vault_b, shares_a, shares_b = _KEYS.unpack_from(data)
    (
        is_on, fee_account_a, fee_account_b, trade_fee, trade_fee_of, protocol_fee, protocol_fee_of,
        pool_type, stake, activation_point, activation_type, curve_type,
    ) = _POOL.unpack_from(data)  # fmt: skip
    if pool_type > 1 or activation_type not in (SLOTS, SECONDS) or curve_type not in (CONSTANT_PRODUCT, STABLE):
        raise UnsupportedMode(
            f"the pool {name} is of type {pool_type}, with activation {activation_type} and curve {curve_type}:"
            " that is not known"
        )
    if trade_fee > trade_fee_of or protocol_fee > protocol_fee_of or not trade_fee_of or not protocol_fee_of:
        raise InvalidPool(f"the pool {name} takes more than all as its fee")
    if vault_a == vault_b or mint_a == mint_b:
        raise InvalidPool(f"both sides of the pool {name} are the same")
    return DammV1Pool(
        address,
        _side(address, accounts, mint_a, vault_a, shares_a, fee_account_a),
        _side(address, accounts, mint_b, vault_b, shares_b, fee_account_b),
        is_on == 1,
        activation_point,
        activation_type == SLOTS,
        trade_fee,
        trade_fee_of,
        protocol_fee,
        protocol_fee_of,
        None if curve_type == CONSTANT_PRODUCT else _curve(data, name, stake),
    )


def _side(
    pool: Address,
    accounts: Mapping[Address, Account],
    mint: Address,
    vault: Address,
    share_account: Address,
    fee_account: Address,
) -> Side:
    is_enabled, total, vault_account, vault_mint, share_mint, locked_profit, reported_s, release = _VAULT.unpack_from(
        VAULT_LAYOUT.read(accounts, vault)
    )
    name = format_address(pool)
    if vault_mint != mint:
        raise InvalidPool(f"a vault of the pool {name} is for another token than the pool says")
    if need(accounts, vault_account, "the vault's account").owner == TOKEN_2022:
        raise UnsupportedToken(f"a token of the pool {name} is of Token-2022, which this pool type does not know")
    side = Side(
        mint, vault, vault_account, share_mint, share_account, fee_account, is_enabled == 1, total,
        balance(accounts, vault_account, mint, SPL_TOKEN), supply(accounts, share_mint),
        balance(accounts, share_account, share_mint, SPL_TOKEN), locked_profit, reported_s, release,
    )  # fmt: skip
    if side.shares > side.supply:
        raise InvalidPool(f"the pool {name} has more shares of a vault than there are")
    if side.shares == 0 or side.total == 0:
        raise InsufficientLiquidity(f"the pool {name} is empty: take another pool")
    return side


def _curve(data: bytes, name: str, stake: Address) -> StableCurve:
    if len(data) < STABLE_POOL_BYTES_MIN:
        raise UnknownLayout(f"the pool {name} ends in the middle of its stable curve: the program may have changed")
    amplification, multiplier_a, multiplier_b, price, price_from_s, depeg_type = _STABLE.unpack_from(data)
    if depeg_type != MARINADE:
        raise StableCurveUnsupported(
            f"the pool {name} has a stable curve with depeg type {depeg_type}, which is not modelled: take another pool"
        )
    if not (amplification and multiplier_a and multiplier_b and price):
        raise InvalidPool(f"the stable curve of the pool {name} multiplies by zero")
    return StableCurve(
        amplification,
        multiplier_a * PRICE_SCALE,
        multiplier_b * price,
        price_from_s,
        price_from_s + PRICE_KEPT_S,
        stake,
    )


DAMM_V1: Final = PoolType("damm_v1", "meteora", POOL_LAYOUT, mints_at=(40, 72), wanted=wanted, decode=decode)
