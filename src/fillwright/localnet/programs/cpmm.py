"""Raydium CPMM: `swap_base_input`. Source of the rules: the program's published accounts and instruction."""

from __future__ import annotations

from struct import pack_into, unpack_from
from typing import Final

from fillwright.core.accounts import Address
from fillwright.localnet.program import (
    CONSTRAINT_ADDRESS,
    CONSTRAINT_SEEDS,
    REQUIRE_GT_VIOLATED,
    Call,
    Effect,
    NotEmulated,
    ProgramFailed,
    Transfer,
    check_transferable,
)
from fillwright.venues.raydium.cpmm import AUTHORITY, CONFIG_LAYOUT, POOL_LAYOUT, SWAP_BASE_INPUT

NOT_APPROVED: Final = 6000
EXCEEDED_SLIPPAGE: Final = 6005
INVALID_VAULT: Final = 6008
UNITS: Final = 33_000
MILLION: Final = 1_000_000


def swap(call: Call) -> Effect:
    amount, least = call.arguments(SWAP_BASE_INPUT, "<QQ")
    trader = call.key(0, signer=True)
    call.expect(1, AUTHORITY, CONSTRAINT_SEEDS)
    pool = call.own(3, POOL_LAYOUT, writable=True)
    source, destination = call.key(4, writable=True), call.key(5, writable=True)
    vault_in, vault_out = call.key(6, writable=True), call.key(7, writable=True)
    call.expect(2, Address(bytes(pool[8:40])))
    config = call.own(2, CONFIG_LAYOUT)
    vaults = [Address(bytes(pool[at : at + 32])) for at in (72, 104)]
    mints = [Address(bytes(pool[at : at + 32])) for at in (168, 200)]
    programs = [Address(bytes(pool[at : at + 32])) for at in (232, 264)]
    if (vault_in, vault_out) == (vaults[0], vaults[1]):
        i, o = 0, 1
    elif (vault_in, vault_out) == (vaults[1], vaults[0]):
        i, o = 1, 0
    else:
        raise ProgramFailed(INVALID_VAULT)
    for index, address in ((8, programs[i]), (9, programs[o]), (10, mints[i]), (11, mints[o])):
        call.expect(index, address, CONSTRAINT_ADDRESS)
    call.expect(12, Address(bytes(pool[296:328])), writable=True)

    (open_time_s,) = unpack_from("<Q", pool, 373)
    if pool[329] & 4 or call.state.time.unix_time_s < open_time_s:
        raise ProgramFailed(NOT_APPROVED)
    if pool[390]:
        raise NotEmulated("creator fees")
    arriving = call.arriving(mints[i], programs[i], amount)
    if arriving == 0:
        raise ProgramFailed(REQUIRE_GT_VIOLATED)
    owed = [sum(unpack_from("<Q", pool, at + 8 * side)[0] for at in (341, 357, 397)) for side in (0, 1)]
    held_in, held_out = call.token_amount(vault_in) - owed[i], call.token_amount(vault_out) - owed[o]
    trade_rate, protocol_rate, fund_rate = unpack_from("<QQQ", config, 12)
    fee = (arriving * trade_rate + MILLION - 1) // MILLION
    net = arriving - fee
    paid = held_out * net // (held_in + net) if net else 0
    check_transferable(paid)
    received = call.arriving(mints[o], programs[o], paid)
    if received == 0:
        raise ProgramFailed(REQUIRE_GT_VIOLATED)
    if received < least:
        raise ProgramFailed(EXCEEDED_SLIPPAGE)
    for at, rate in ((341 + 8 * i, protocol_rate), (357 + 8 * i, fund_rate)):
        pack_into("<Q", pool, at, unpack_from("<Q", pool, at)[0] + fee * rate // MILLION)
    pack_into("<Q", pool, 381, call.state.time.epoch)
    return Effect(
        (
            Transfer(mints[i], programs[i], source, vault_in, trader, amount),
            Transfer(mints[o], programs[o], vault_out, destination, AUTHORITY, paid),
        ),
        {call.key(3): bytes(pool)},
        UNITS,
    )
