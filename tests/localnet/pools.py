"""Pools of every emulated type, as the quotes' tests know them, put on a local chain with what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import pack
from typing import Final

from fillwright.core.accounts import Account, Address
from fillwright.core.programs import RAYDIUM_CPMM, SPL_TOKEN, USDC_MINT
from fillwright.localnet.chain import LocalChain
from fillwright.localnet.world import associated, place, place_mint, place_tokens
from fillwright.venues.raydium.cpmm import AUTHORITY
from tests.venues import clmm, cpmm, damm_v1, dlmm
from tests.venues.model import address

RICH: Final = 10**17


def place_clmm(chain: LocalChain, owner: Address) -> Address:
    positions = ((-6_000, 6_000, 10**13), (-1_200, 1_200, 10**12), (-310, 590, 10**13), (20, 40, 10**14))
    _place_all(chain, clmm.world(positions, tick=7).accounts)
    for vault, mint in ((clmm.VAULT_A, clmm.MINT_A), (clmm.VAULT_B, clmm.MINT_B)):
        place_tokens(chain, vault, mint, clmm.POOL, RICH)
        place_tokens(chain, associated(owner, mint), mint, owner, RICH)
    return clmm.POOL


def place_dlmm(chain: LocalChain, owner: Address) -> Address:
    bins = {
        index: dlmm.Bin(10**9 if index >= 0 else 0, 10**9 if index <= 0 else 0, is_ask=index > 0)
        for index in range(-200, 201)
        if index % 7
    }
    bins |= {index: dlmm.Bin(10**9 * (index > 0), 10**9 * (index < 0), 10**8, 10**7, index > 0) for index in (-15, 16)}
    _place_all(chain, dlmm.world(bins, 3, fees=dlmm.Fees(before=(20_000, 10_000, 0))).accounts)
    for reserve, mint in ((dlmm.RESERVE_A, dlmm.MINT_A), (dlmm.RESERVE_B, dlmm.MINT_B)):
        place_tokens(chain, reserve, mint, dlmm.POOL, RICH)
        place_tokens(chain, associated(owner, mint), mint, owner, RICH)
    return dlmm.POOL


def place_damm_v1(chain: LocalChain, owner: Address) -> Address:
    vaults = (damm_v1.a_vault(10**13, locked_bps=300), damm_v1.a_vault(3 * 10**12, supply_bps=9_000, locked_bps=100))
    _place_all(chain, damm_v1.world(*vaults).accounts)
    for side, numbers in enumerate(vaults):
        mint, vault, shares = damm_v1.MINTS[side], damm_v1.VAULTS[side], damm_v1.SHARE_MINTS[side]
        place_mint(chain, mint, 6)
        place_tokens(chain, damm_v1.VAULT_ACCOUNTS[side], mint, vault, numbers["held"])
        place_tokens(chain, damm_v1.SHARE_ACCOUNTS[side], shares, damm_v1.POOL, numbers["shares"])
        place_tokens(chain, damm_v1.FEE_ACCOUNTS[side], mint, damm_v1.POOL, 0)
        authority = pack("<I32s", 1, vault)
        place(chain, shares, Account(SPL_TOKEN, authority + pack("<QBB36x", numbers["supply"], 6, 1)))
        place_tokens(chain, associated(owner, mint), mint, owner, RICH)
    return damm_v1.POOL


def place_token_pool(chain: LocalChain, mint: Address, reserve: int, usdc: int) -> Address:
    """Put a token with 6 decimals there, and a CPMM pool of it and USDC."""
    world = cpmm.world(reserve, usdc, name="token ", mints=(mint, USDC_MINT))
    _place_all(chain, {each: account for each, account in world.accounts.items() if each != USDC_MINT})
    seen = bytes.fromhex("7aaec5358109a584") + bytes(3) + world.address
    place(chain, cpmm.OBSERVATION, Account(RAYDIUM_CPMM, seen.ljust(4_075, b"\0")))
    place_tokens(chain, address("token vault a"), mint, AUTHORITY, reserve)
    place_tokens(chain, address("token vault b"), USDC_MINT, AUTHORITY, usdc)
    return world.address


def _place_all(chain: LocalChain, accounts: Mapping[Address, Account]) -> None:
    for each, account in accounts.items():
        place(chain, each, account)


PLACED: Final[Mapping[str, Callable[[LocalChain, Address], Address]]] = {
    "clmm": place_clmm,
    "dlmm": place_dlmm,
    "damm_v1": place_damm_v1,
}
