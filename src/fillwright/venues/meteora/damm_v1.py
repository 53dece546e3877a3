"""Meteora DAMM v1: a pool that owns shares of two vaults, which lend out what they hold.

What a pool has of a token is therefore never written down: it is its share of what the vault owns at that second. A
vault releases the profit of lending bit by bit, and so that amount grows with the clock. A swap deposits into one
vault and withdraws from the other, and each of the two rounds shares and amounts down once more. So a little more may
pay less: by as much as that rounding takes, which is about what one share is worth.

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
from fillwright.core.units import U64_MAX, BaseUnits
from fillwright.venues.mints import balance, supply
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

ALL_PROFIT: Final = 1_000_000_000_000  # shares of a vault's profit are millionths of millionths
PRICE_SCALE: Final = 1_000_000  # Marinade's price has 6 decimals
PRICE_KEPT_S: Final = 600
STEPS_MAX: Final = 256
STABLE_MAX: Final = 2**192 - 1  # the program's greatest integer in the stable curve
PERMISSIONED, PERMISSIONLESS = 0, 1  # types of pools
CONSTANT_PRODUCT, STABLE = 0, 1
MARINADE: Final = 1
SLOTS, SECONDS = 0, 1  # what activation is counted in
COMPUTE_UNITS: Final = 108_000
COMPUTE_UNITS_STABLE: Final = 165_000

# Pool: mints, vaults, the pool's shares of them; then whether it is on, where fees go, fees, activation, the curve.
POOL_LAYOUT: Final = Layout(
    "DAMM v1 pool",
    METEORA_DAMM_V1,
    bytes.fromhex("f19a6d0411b16dbc"),
    "32x32s32s32s32s32s32s xB32s32s 32xQQQQ B32s8xQ64xB 398xB",
    is_open_ended=True,
)
_STABLE: Final = Struct("<875xQQQxQQB8x")

# Vault: whether it takes deposits, what it owns, its token account; token and share mint; profit that is still locked.
VAULT_LAYOUT: Final = Layout(
    "dynamic vault",
    METEORA_VAULT,
    bytes.fromhex("d308e82b02987577"),
    "B2xQ32s 32x32s32s 1056xQQQ",
    is_open_ended=True,
)

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
        if released >= ALL_PROFIT:
            return self.total
        unlocked = self.total - self.locked_profit * (ALL_PROFIT - released) // ALL_PROFIT
        if unlocked < 0:
            raise InvalidPool(f"the vault {format_address(self.vault)} has more profit than it owns")
        if unlocked == 0:
            raise InsufficientLiquidity(f"the vault {format_address(self.vault)} is empty: take another pool")
        return unlocked


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
        if not 0 < amount <= U64_MAX:
            raise unswappable(amount)
        given, taken = (self.a, self.b) if a_to_b else (self.b, self.a)
        point = at.slot if self.is_by_slot else at.unix_time_s
        if not self.is_on or not given.takes_deposits or point < self.activation_point:
            raise self._closed(point)
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
        if given.total + deposit > U64_MAX or given.held + deposit > U64_MAX or given.supply + minted > U64_MAX:
            raise no_room(self.address)
        reserve_after = (given.shares + minted) * (owned_in + deposit) // (given.supply + minted)
        swapped = reserve_after - reserve_in - (trade_fee - protocol_fee)
        if swapped <= 0:
            raise AmountTooSmall(f"the fees of the pool {format_address(self.address)} take all of it: swap more")

        if self.curve is None:
            price_in, price_out = reserve_in, reserve_out
            gross = reserve_out * swapped // (reserve_in + swapped)
        else:
            gross, price_in, price_out = self._stable(self.curve, reserve_in, reserve_out, swapped, a_to_b, at)
        burned = gross * taken.supply // owned_out
        received = burned * owned_out // taken.supply
        if received <= 0:
            raise unpayable(received, self.address)
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

    def _closed(self, point: int) -> NotTradable | NotYetOpen:
        name = format_address(self.address)
        if not self.is_on:
            return NotTradable(f"swaps are switched off in the pool {name}: take another pool")
        if point < self.activation_point:
            unit = "slot" if self.is_by_slot else "Unix time"
            return NotYetOpen(f"the pool {name} opens at {unit} {self.activation_point}")
        return NotTradable(f"a vault of the pool {name} takes no deposits: take another pool")

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
        even, tilt = 4 * ann * x * x * y * y, invariant * invariant * invariant
        return gross, (even + tilt * x) * scale_out, (even + tilt * y) * scale_in


def stable_invariant(x: int, y: int, ann: int) -> int | None:
    """Return StableSwap's D for two positive scaled amounts and twice the amplification, as the program finds it.

    None if it cannot: its integers are too narrow, or the steps lead nowhere. Source: `compute_d` of the stable curve.
    """
    d = total = x + y
    if total * total > STABLE_MAX:
        return None
    twice_x, twice_y, weight = 2 * x, 2 * y, total * ann
    for _ in range(STEPS_MAX):
        product = d * d // twice_x * d
        k = product // twice_y
        numerator = d * (weight + 2 * k)
        if product > STABLE_MAX or numerator > STABLE_MAX:
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
    if product > STABLE_MAX:
        return None
    c, b = product // (2 * ann), d // ann + x
    y, b = d, b - d
    for _ in range(STEPS_MAX):
        numerator, denominator = y * y + c, 2 * y + b
        if denominator <= 0 or numerator > STABLE_MAX:
            return None
        before, y = y, numerator // denominator
        if abs(y - before) <= 1:
            return y
    return None


def _fee(amount: BaseUnits, numerator: int, denominator: int) -> BaseUnits:
    """Return the fee, which is at least one unit if there is any. Source: `PoolFees.calculate_fee`."""
    return amount * numerator // denominator or (1 if numerator and amount else 0)


def wanted(address: Address, accounts: Mapping[Address, Account]) -> tuple[Address, ...]:
    """Return the accounts that a quote depends on: vaults, the pool's shares; then what the vaults name."""
    _, _, _, vault_a, vault_b, shares_a, shares_b, *_ = POOL_LAYOUT.unpack(accounts, address)
    of_vaults: list[Address] = []
    for vault in (vault_a, vault_b):
        if vault in accounts:
            _, _, _, account, _, share_mint, *_ = VAULT_LAYOUT.unpack(accounts, vault)
            of_vaults += (account, share_mint)
    return (address, vault_a, vault_b, shares_a, shares_b, *of_vaults)


def decode(address: Address, accounts: Mapping[Address, Account], policy: Policy) -> DammV1Pool:  # noqa: ARG001  # as every pool type
    """Return the pool.

    Raise UnknownLayout, InvalidPool, UnsupportedMode, StableCurveUnsupported, UnsupportedToken, NotTradable,
    InsufficientLiquidity or MissingAccount.
    """
    (
        _, mint_a, mint_b, vault_a, vault_b, shares_a, shares_b, is_on, fee_account_a, fee_account_b,
        trade_fee, trade_fee_of, protocol_fee, protocol_fee_of,
        pool_type, stake, activation_point, activation_type, curve_type,
    ) = POOL_LAYOUT.unpack(accounts, address)  # fmt: skip
    if pool_type > PERMISSIONLESS or activation_type > SECONDS or curve_type > STABLE:
        raise UnsupportedMode(
            f"the pool {format_address(address)} is of type {pool_type}, with activation {activation_type} and curve"
            f" {curve_type}: that is not known"
        )
    if trade_fee > trade_fee_of or protocol_fee > protocol_fee_of or not trade_fee_of or not protocol_fee_of:
        raise InvalidPool(f"the pool {format_address(address)} takes more than all as its fee")
    if vault_a == vault_b or mint_a == mint_b:
        raise InvalidPool(f"both sides of the pool {format_address(address)} are the same")
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
        None if curve_type == CONSTANT_PRODUCT else _curve(accounts[address].data, address, stake),
    )


def _side(
    pool: Address,
    accounts: Mapping[Address, Account],
    mint: Address,
    vault: Address,
    share_account: Address,
    fee_account: Address,
) -> Side:
    (
        _, is_enabled, total, vault_account, vault_mint, share_mint, locked_profit, reported_s, release,
    ) = VAULT_LAYOUT.unpack(accounts, vault)  # fmt: skip
    if vault_mint != mint:
        raise InvalidPool(f"a vault of the pool {format_address(pool)} is for another token than the pool says")
    try:
        held = balance(accounts, vault_account, mint, SPL_TOKEN)
    except UnknownLayout:
        if accounts[vault_account].owner != TOKEN_2022:
            raise
        raise UnsupportedToken(
            f"a token of the pool {format_address(pool)} is of Token-2022, which this pool type does not know"
        ) from None
    all_shares = supply(accounts, share_mint)
    shares = balance(accounts, share_account, share_mint, SPL_TOKEN)
    if shares > all_shares:
        raise InvalidPool(f"the pool {format_address(pool)} has more shares of a vault than there are")
    if shares == 0 or total == 0:
        raise InsufficientLiquidity(f"the pool {format_address(pool)} is empty: take another pool")
    return Side(
        mint, vault, vault_account, share_mint, share_account, fee_account, is_enabled == 1, total, held, all_shares,
        shares, locked_profit, reported_s, release,
    )  # fmt: skip


def _curve(data: bytes, pool: Address, stake: Address) -> StableCurve:
    name = format_address(pool)
    if len(data) < _STABLE.size:
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
