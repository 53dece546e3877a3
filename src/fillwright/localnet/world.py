"""A market to rehearse on: SOL and USDC, a few pools of them at about 150 USDC for a SOL, and a wallet with money.

All keys follow from the seed, and where the real programs derive an address, so does this one. Accounts are put there
as they would be found; nothing here goes through the rules of the chain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import isqrt
from pathlib import Path
from struct import pack, pack_into
from typing import Final

from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from fillwright.core.accounts import Account as PlainAccount
from fillwright.core.accounts import Address
from fillwright.core.errors import InvalidWallet
from fillwright.core.programs import (
    ASSOCIATED_TOKEN,
    METEORA_DAMM_V2,
    RAYDIUM_AMM_V4,
    RAYDIUM_CPMM,
    SOL_MINT,
    SPL_TOKEN,
    USDC_MINT,
)
from fillwright.localnet.chain import LocalChain
from fillwright.venues.addresses import derive
from fillwright.venues.meteora import damm_v2
from fillwright.venues.pool import PoolType
from fillwright.venues.pool_types import identify
from fillwright.venues.raydium import amm_v4, cpmm

SOL_DECIMALS: Final = 9
USDC_DECIMALS: Final = 6
SOL: Final = 10**SOL_DECIMALS
USDC: Final = 10**USDC_DECIMALS
WALLET_SOL: Final = 1_000
WALLET_USDC: Final = 100_000
FILE_MODE: Final = 0o600
SQRT_PRICE_MIN: Final = 4_295_048_016  # of a DAMM v2 pool without a range, in Q64
SQRT_PRICE_MAX: Final = 79_226_673_521_066_979_257_578_248_091
NATIVE_BYTES: Final = 165


@dataclass(frozen=True, slots=True)
class Market:
    """What there is to trade with."""

    chain: LocalChain
    wallet: Keypair
    pools: Sequence[tuple[PoolType, Address]]


def open_market(chain: LocalChain, wallet: Keypair, *, seed: int = 0) -> Market:
    """Put mints, pools and the wallet's money on a chain."""
    authority = key_of(seed, "mint authority").pubkey()
    place_mint(chain, SOL_MINT, SOL_DECIMALS)
    place_mint(chain, USDC_MINT, USDC_DECIMALS, authority=Address(bytes(authority)), supply=10**9 * USDC)
    pools = (
        place_cpmm(chain, 20_000 * SOL, 3_000_000 * USDC),
        place_damm_v2(chain, 1_501_000 * USDC, price_usdc_cents=15_010),
        place_amm_v4(chain, 12_000 * SOL, 1_798_000 * USDC, seed=seed),
    )
    fund(chain, Address(bytes(wallet.pubkey())), lamports=WALLET_SOL * SOL, usdc=WALLET_USDC * USDC)
    named = [(address, chain.account(Pubkey.from_bytes(address))) for address in pools]
    return Market(chain, wallet, [(_type(account), address) for address, account in named])


def key_of(seed: int, name: str) -> Keypair:
    """Return the key pair that follows from a seed and a name."""
    return Keypair.from_seed(sha256(f"fillwright localnet {seed} {name}".encode()).digest())


def open_wallet(path: Path, *, seed: int = 0) -> Keypair:
    """Return the key pair in a file of the Solana command line's form; if there is no file, make one.

    The new file is for its owner's eyes only. Raise InvalidWallet.
    """
    try:
        return Keypair.from_bytes(bytes(json.loads(path.read_text())))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError) as error:
        raise InvalidWallet("the wallet's file is no key pair of the Solana command line: name another") from error
    wallet = key_of(seed, "wallet")
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(file, "w") as writing:
            writing.write(json.dumps(list(bytes(wallet))))
    except OSError as error:
        raise InvalidWallet(f"the wallet's file cannot be written: {error.strerror}") from error
    return wallet


def fund(chain: LocalChain, owner: Address, *, lamports: int, usdc: int) -> None:
    """Give an owner SOL, and USDC in their associated account."""
    chain.set_account(Pubkey.from_bytes(owner), Account(lamports, b"", Pubkey.default()))
    place_tokens(chain, associated(owner, USDC_MINT), USDC_MINT, owner, usdc)


def associated(owner: Address, mint: Address, program: Address = SPL_TOKEN) -> Address:
    """Return the address of an owner's account for a mint."""
    return derive(ASSOCIATED_TOKEN, owner, program, mint)


def place(chain: LocalChain, address: Address, account: PlainAccount, *, extra_lamports: int = 0) -> None:
    """Put an account there, with the lamports that keep it alive."""
    lamports = chain.rent_exempt_lamports(len(account.data)) + extra_lamports
    chain.set_account(Pubkey.from_bytes(address), Account(lamports, account.data, Pubkey.from_bytes(account.owner)))


def place_mint(
    chain: LocalChain, mint: Address, decimals: int, *, authority: Address | None = None, supply: int = 0
) -> None:
    head = pack("<I32s", 1, authority) if authority else bytes(36)
    place(chain, mint, PlainAccount(SPL_TOKEN, head + pack("<QBB36x", supply, decimals, 1)))


def place_tokens(
    chain: LocalChain, address: Address, mint: Address, owner: Address, amount: int, program: Address = SPL_TOKEN
) -> None:
    """Put a token account there. One of wrapped SOL holds the lamports that it stands for."""
    is_native = mint == SOL_MINT
    native = pack("<IQ", 1, chain.rent_exempt_lamports(NATIVE_BYTES)) if is_native else bytes(12)
    data = pack("<32s32sQ36xB", mint, owner, amount, 1) + native + bytes(44)
    place(chain, address, PlainAccount(program, data), extra_lamports=amount if is_native else 0)


def place_cpmm(chain: LocalChain, sol: int, usdc: int, *, fee_rate: int = 2_500) -> Address:
    """Put a CPMM pool there that takes `fee_rate` millionths."""
    config = derive(RAYDIUM_CPMM, b"amm_config", bytes(2))
    pool = derive(RAYDIUM_CPMM, b"pool", config, SOL_MINT, USDC_MINT)
    vaults = [derive(RAYDIUM_CPMM, b"pool_vault", pool, mint) for mint in (SOL_MINT, USDC_MINT)]
    observation = derive(RAYDIUM_CPMM, b"observation", pool)
    lp_mint = derive(RAYDIUM_CPMM, b"pool_lp_mint", pool)
    state = b"".join(
        (
            cpmm.POOL_LAYOUT.discriminator, config, bytes(32), *vaults, lp_mint, SOL_MINT, USDC_MINT,
            SPL_TOKEN, SPL_TOKEN, observation,
            bytes([255, 0, 9, SOL_DECIMALS, USDC_DECIMALS]), pack("<Q", isqrt(sol * usdc)),
        )
    )  # fmt: skip
    place(chain, pool, PlainAccount(RAYDIUM_CPMM, state.ljust(cpmm.POOL_LAYOUT.length, b"\0")))
    rates = cpmm.CONFIG_LAYOUT.discriminator + pack("<4xQQQ", fee_rate, 120_000, 40_000)
    place(chain, config, PlainAccount(RAYDIUM_CPMM, rates.ljust(cpmm.CONFIG_LAYOUT.length, b"\0")))
    seen = bytes.fromhex("7aaec5358109a584") + bytes(3) + pool
    place(chain, observation, PlainAccount(RAYDIUM_CPMM, seen.ljust(4_075, b"\0")))
    place_tokens(chain, vaults[0], SOL_MINT, cpmm.AUTHORITY, sol)
    place_tokens(chain, vaults[1], USDC_MINT, cpmm.AUTHORITY, usdc)
    return pool


def place_damm_v2(chain: LocalChain, usdc: int, *, price_usdc_cents: int) -> Address:
    """Put a DAMM v2 pool there without a range, and as much SOL in it as its price asks for."""
    sqrt_price = isqrt((price_usdc_cents * USDC << 128) // (100 * SOL))
    liquidity = (usdc << 128) // (sqrt_price - SQRT_PRICE_MIN)
    sol = -(-liquidity * (SQRT_PRICE_MAX - sqrt_price) // (sqrt_price * SQRT_PRICE_MAX))
    pool = derive(METEORA_DAMM_V2, b"cpool", max(SOL_MINT, USDC_MINT), min(SOL_MINT, USDC_MINT))
    vaults = [derive(METEORA_DAMM_V2, b"token_vault", mint, pool) for mint in (SOL_MINT, USDC_MINT)]
    data = bytearray(damm_v2.POOL_LAYOUT.length)
    data[:8] = damm_v2.POOL_LAYOUT.discriminator
    pack_into("<Q", data, 8, 2_500_000)  # the base fee: 0.25 %
    data[48] = 20  # the protocol's share of it, in percent
    pack_into("<32s32s32s32s", data, 168, SOL_MINT, USDC_MINT, *vaults)
    for at, value in ((360, liquidity), (424, SQRT_PRICE_MIN), (440, SQRT_PRICE_MAX), (456, sqrt_price)):
        data[at : at + 16] = value.to_bytes(16, "little")
    data[480], data[486], data[696] = 1, 1, 1  # counts seconds; fees of version 1; keeps account of its reserves
    pack_into("<QQ", data, 680, sol, usdc)
    place(chain, pool, PlainAccount(METEORA_DAMM_V2, bytes(data)))
    place_tokens(chain, vaults[0], SOL_MINT, damm_v2.AUTHORITY, sol)
    place_tokens(chain, vaults[1], USDC_MINT, damm_v2.AUTHORITY, usdc)
    return pool


def place_amm_v4(chain: LocalChain, sol: int, usdc: int, *, seed: int = 0) -> Address:
    """Put an AMM v4 pool there that takes 0.25 % and has no order book."""
    pool, *vaults = (
        Address(bytes(key_of(seed, f"amm v4 {what}").pubkey())) for what in ("pool", "SOL vault", "USDC vault")
    )
    data = bytearray(amm_v4.POOL_LAYOUT.length)
    pack_into("<QQ", data, 0, amm_v4.SWAP_ONLY, amm_v4.AUTHORITY_NONCE)
    pack_into("<QQ", data, 32, SOL_DECIMALS, USDC_DECIMALS)
    pack_into("<QQ", data, 176, 25, 10_000)
    pack_into("<32s32s32s32s", data, 336, *vaults, SOL_MINT, USDC_MINT)
    place(chain, pool, PlainAccount(RAYDIUM_AMM_V4, bytes(data)))
    place_tokens(chain, vaults[0], SOL_MINT, amm_v4.AUTHORITY, sol)
    place_tokens(chain, vaults[1], USDC_MINT, amm_v4.AUTHORITY, usdc)
    return pool


def _type(account: Account | None) -> PoolType:
    assert account is not None
    pool_type = identify(PlainAccount(Address(bytes(account.owner)), account.data))
    assert pool_type is not None
    return pool_type
