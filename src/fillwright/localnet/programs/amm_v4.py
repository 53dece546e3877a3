"""Raydium AMM v4: `swap_base_in`, with an order book's accounts (tag 9) and without them (tag 16).

Source of the rules: the program's published accounts and instructions. The two forms differ in what they list, and in
how the builds that came with each round the fee of a tiny swap: the older charged nothing below half a unit.
"""

from __future__ import annotations

from struct import pack_into, unpack_from
from typing import Final

from fillwright.core.accounts import Address
from fillwright.core.programs import SPL_TOKEN
from fillwright.localnet.program import Call, Effect, ProgramFailed, Transfer, check_transferable
from fillwright.venues.raydium.amm_v4 import AUTHORITY, POOL_LAYOUT

INVALID_PROGRAM_ADDRESS: Final = 1
WRONG_COIN_VAULT: Final = 4
WRONG_PC_VAULT: Final = 5
INVALID_SIGNER: Final = 21
INVALID_STATUS: Final = 22
WRONG_ACCOUNT_COUNT: Final = 24
INVALID_INPUT: Final = 29
EXCEEDED_SLIPPAGE: Final = 30
INVALID_TOKEN_PROGRAM: Final = 38
INSUFFICIENT_FUNDS: Final = 40
INVALID_USER_TOKEN: Final = 42
SWAP_ONLY: Final = 6
WAITING: Final = 7
UNITS: Final = 22_000

LEGACY: Final = 9
V2: Final = 16
# Accounts by instruction: how many, then where the vaults, the trader's two accounts and the trader are.
_LISTS: Final = {(LEGACY, 17): (4, 5, 14, 15, 16), (LEGACY, 18): (5, 6, 15, 16, 17), (V2, 8): (3, 4, 5, 6, 7)}


def swap(call: Call) -> Effect:
    tag = call.data[0] if call.data else 0
    if tag not in (LEGACY, V2) or len(call.data) < 17:
        raise ProgramFailed("InvalidInstructionData")
    places = _LISTS.get((tag, len(call.accounts)))
    if places is None:
        raise ProgramFailed(WRONG_ACCOUNT_COUNT)
    coin_at, pc_at, source_at, destination_at, trader_at = places
    amount, least = unpack_from("<QQ", call.data, 1)
    call.expect(0, SPL_TOKEN, INVALID_TOKEN_PROGRAM)
    pool = call.own(1, POOL_LAYOUT, writable=True)
    call.expect(2, AUTHORITY, INVALID_PROGRAM_ADDRESS)
    vaults = [Address(bytes(pool[at : at + 32])) for at in (336, 368)]
    mints = [Address(bytes(pool[at : at + 32])) for at in (400, 432)]
    call.expect(coin_at, vaults[0], WRONG_COIN_VAULT, writable=True)
    call.expect(pc_at, vaults[1], WRONG_PC_VAULT, writable=True)
    source, destination = call.key(source_at, writable=True), call.key(destination_at, writable=True)
    if not call.accounts[trader_at].is_signer:
        raise ProgramFailed(INVALID_SIGNER)
    trader = call.key(trader_at)

    status, open_time_s = unpack_from("<Q", pool, 0)[0], unpack_from("<Q", pool, 224)[0]
    if status not in (SWAP_ONLY, WAITING) or (status == WAITING and call.state.time.unix_time_s < open_time_s):
        raise ProgramFailed(INVALID_STATUS)
    if amount == 0:
        raise ProgramFailed(INVALID_INPUT)
    is_coin_in = call.is_a_in(
        trader, (source, destination), (mints[0], mints[1]), (SPL_TOKEN, SPL_TOKEN), INVALID_USER_TOKEN
    )
    i, o = (0, 1) if is_coin_in else (1, 0)
    numerator, denominator = unpack_from("<QQ", pool, 176)
    owed = unpack_from("<QQ", pool, 192)
    held_in, held_out = call.token_amount(vaults[i]) - owed[i], call.token_amount(vaults[o]) - owed[o]
    if held_in < 0 or held_out < 0 or denominator == 0:
        raise ProgramFailed("ProgramFailedToComplete")
    fee = (amount * numerator + denominator - 1) // denominator
    if tag == LEGACY and amount * numerator < denominator:
        fee = 1 if amount * numerator * 2 >= denominator else 0
    net = amount - fee
    paid = held_out * net // (held_in + net) if net else 0
    check_transferable(paid)
    if paid == 0:
        raise ProgramFailed(INVALID_INPUT)
    if paid < least:
        raise ProgramFailed(EXCEEDED_SLIPPAGE)
    if paid >= held_out:
        raise ProgramFailed(INSUFFICIENT_FUNDS)
    in_at, out_at, fee_at = (256, 272, 288) if i == 0 else (296, 312, 328)
    for at, width, by in ((in_at, 16, amount), (out_at, 16, paid), (fee_at, 8, fee)):
        total = (int.from_bytes(pool[at : at + width], "little") + by) % (1 << (8 * width))
        pool[at : at + width] = total.to_bytes(width, "little")
    pack_into("<Q", pool, 0, SWAP_ONLY)
    pack_into("<Q", pool, 736, call.state.time.epoch)
    return Effect(
        (
            Transfer(mints[i], SPL_TOKEN, source, vaults[i], trader, amount),
            Transfer(mints[o], SPL_TOKEN, vaults[o], destination, AUTHORITY, paid),
        ),
        {call.key(1): bytes(pool)},
        UNITS,
    )
