"""Meteora DAMM v1: `swap`, of constant product pools and of stable ones with Marinade's price.

A pool owns shares of two vaults, which it has in common with others. What comes in is deposited in one, for new shares;
what goes out is withdrawn from the other, for burned ones. Source of the rules: the published accounts and instructions
of the two programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack_into, unpack_from
from typing import Final

from fillwright.core.accounts import Address
from fillwright.core.programs import METEORA_VAULT, SPL_TOKEN
from fillwright.localnet.program import (
    CONSTRAINT_HAS_ONE,
    SUPPLY_AT,
    Call,
    Effect,
    Minting,
    NotEmulated,
    ProgramFailed,
    Transfer,
    check_transferable,
)
from fillwright.venues.meteora.damm_v1 import POOL_LAYOUT, SWAP, VAULT_LAYOUT

VAULT_DISABLED: Final = 6000
EXCEEDED_SLIPPAGE: Final = 6004
ZERO_TRADING_TOKENS: Final = 6006
VAULT_AMOUNT_IS_ZERO: Final = 6013
POOL_DISABLED: Final = 6015
ALL_UNLOCKED: Final = 10**12
PRICE_SCALE: Final = 10**6
PRICE_KEPT_S: Final = 600
STEPS: Final = 256
UNITS: Final = 105_000
UNITS_STABLE: Final = 160_000


@dataclass(frozen=True, slots=True)
class _Vault:
    """One of the pool's two vaults. `worth` is what all its shares are worth now, `shares` are the pool's."""

    address: Address
    data: bytearray
    tokens: Address
    mint: Address
    share_mint: Address
    share_account: Address
    worth: int
    supply: int
    shares: int

    def with_total(self, by: int) -> bytes:
        data = bytearray(self.data)
        pack_into("<Q", data, 11, unpack_from("<Q", data, 11)[0] + by)
        return bytes(data)


def swap(call: Call) -> Effect:
    amount, least = call.arguments(SWAP, "<QQ")
    pool = call.own(0, POOL_LAYOUT, writable=True)
    address = call.key(0)
    source, destination = call.key(1, writable=True), call.key(2, writable=True)
    vaults = [_vault(call, pool, side) for side in (0, 1)]
    fees = [Address(bytes(pool[at : at + 32])) for at in (234, 266)]
    trader = call.key(12, signer=True)
    call.expect(13, METEORA_VAULT)
    call.expect(14, SPL_TOKEN)
    now = call.state.time
    point = now.unix_time_s if pool[475] else now.slot
    if not pool[233] or point < unpack_from("<Q", pool, 403)[0]:
        raise ProgramFailed(POOL_DISABLED)
    is_a_in = call.is_a_in(trader, (source, destination), (vaults[0].mint, vaults[1].mint), (SPL_TOKEN, SPL_TOKEN))
    i, o = (0, 1) if is_a_in else (1, 0)
    call.expect(11, fees[i], CONSTRAINT_HAS_ONE, writable=True)
    given, taken = vaults[i], vaults[o]
    if not given.data[8]:
        raise ProgramFailed(VAULT_DISABLED)
    if not (given.supply and given.worth and taken.supply and taken.worth):
        raise ProgramFailed("ProgramFailedToComplete")

    held_in, held_out = (each.shares * each.worth // each.supply for each in (given, taken))
    trade_fee = _fee(amount, *unpack_from("<QQ", pool, 330))
    protocol_fee = _fee(trade_fee, *unpack_from("<QQ", pool, 346))
    deposit = amount - protocol_fee
    minted = deposit * given.supply // given.worth
    if minted == 0:
        raise ProgramFailed(VAULT_AMOUNT_IS_ZERO)
    held_after = (minted + given.shares) * (given.worth + deposit) // (given.supply + minted)
    traded = held_after - held_in - (trade_fee - protocol_fee)
    if traded <= 0:
        raise ProgramFailed(ZERO_TRADING_TOKENS)
    if pool[874] == 0:
        gross = held_out + -(held_in * held_out) // (held_in + traded)
    else:
        gross = _stable(pool, held_in, held_out, traded, i, now.unix_time_s)
    if gross <= 0:
        raise ProgramFailed(ZERO_TRADING_TOKENS)
    burned = gross * taken.supply // taken.worth
    received = burned * taken.worth // taken.supply
    check_transferable(received, deposit, minted)
    if received == 0:
        raise ProgramFailed(VAULT_AMOUNT_IS_ZERO)
    if received < least:
        raise ProgramFailed(EXCEEDED_SLIPPAGE)
    fee_movements = (Transfer(given.mint, SPL_TOKEN, source, fees[i], trader, protocol_fee),) if protocol_fee else ()
    return Effect(
        (
            *fee_movements,
            Transfer(given.mint, SPL_TOKEN, source, given.tokens, trader, deposit),
            Minting(given.share_mint, given.share_account, given.address, minted),
            Minting(taken.share_mint, taken.share_account, address, -burned),
            Transfer(taken.mint, SPL_TOKEN, taken.tokens, destination, taken.address, received),
        ),
        {given.address: given.with_total(deposit), taken.address: taken.with_total(-received)},
        UNITS if pool[874] == 0 else UNITS_STABLE,
    )


def _vault(call: Call, pool: bytearray, side: int) -> _Vault:
    """Return a vault of the pool, having checked the accounts that the call brings for it. Raise ProgramFailed."""
    address, share_account = (Address(bytes(pool[at + 32 * side : at + 32 * side + 32])) for at in (104, 168))
    call.expect(3 + side, address, CONSTRAINT_HAS_ONE, writable=True)
    data = call.of(VAULT_LAYOUT, address)
    tokens, mint, share_mint = (Address(bytes(data[at : at + 32])) for at in (19, 83, 115))
    for index, expected in ((5 + side, tokens), (7 + side, share_mint), (9 + side, share_account)):
        call.expect(index, expected, CONSTRAINT_HAS_ONE, writable=True)
    locked, reported_s, release = unpack_from("<QQQ", data, 1203)
    passed_s = call.state.time.unix_time_s - reported_s
    if passed_s < 0:
        raise ProgramFailed("ProgramFailedToComplete")
    still_locked = locked * (ALL_UNLOCKED - min(ALL_UNLOCKED, passed_s * release)) // ALL_UNLOCKED
    supply_of = call.state.account(share_mint)
    if supply_of is None:
        raise ProgramFailed("InvalidAccountData")
    return _Vault(
        address, data, tokens, mint, share_mint, share_account,
        unpack_from("<Q", data, 11)[0] - still_locked,
        unpack_from("<Q", supply_of.data, SUPPLY_AT)[0],
        call.token_amount(share_account),
    )  # fmt: skip


def _fee(amount: int, numerator: int, denominator: int) -> int:
    """Return the share of an amount, at least one unit if there is anything to take."""
    return max(amount * numerator // denominator, 1) if amount and numerator else 0


def _stable(pool: bytearray, held_in: int, held_out: int, traded: int, i: int, now_s: int) -> int:
    """Return what the stable curve pays, with B worth as much of A as Marinade says."""
    amplification, multiplier_a, multiplier_b = unpack_from("<QQQ", pool, 875)
    price, priced_s = unpack_from("<QQ", pool, 900)
    if pool[916] != 1:
        raise NotEmulated("stable pools without Marinade's price")
    if now_s > priced_s + PRICE_KEPT_S:
        raise NotEmulated("the renewal of Marinade's price")
    scales = (multiplier_a * PRICE_SCALE, multiplier_b * price)
    x, y = held_in * scales[i], held_out * scales[1 - i]
    moved, ann = traded * scales[i], 2 * amplification
    total = d = x + y
    for _ in range(STEPS):
        k = d * d // (2 * x) * d // (2 * y)
        before, d = d, d * (total * ann + 2 * k) // ((ann - 1) * d + 3 * k)
        if abs(d - before) <= 1:
            break
    x_after = x + moved
    c, b = d * d // (2 * x_after) * d // (2 * ann), d // ann + x_after
    left = d
    for _ in range(STEPS):
        before, left = left, (left * left + c) // (2 * left + b - d)
        if abs(left - before) <= 1:
            break
    depeg, multiplier = (price, multiplier_b) if i == 0 else (PRICE_SCALE, multiplier_a)
    return int((y - left) // multiplier // depeg)
