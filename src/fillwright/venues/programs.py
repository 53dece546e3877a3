"""The programs on the chain that swaps go through, and the addresses that follow from them."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from solders.pubkey import Pubkey

from fillwright.core.accounts import Address, parse_address

RAYDIUM_CPMM: Final = parse_address("CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C")
RAYDIUM_AMM_V4: Final = parse_address("675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8")
RAYDIUM_CLMM: Final = parse_address("CAMMCzo5YL8w4VFF8KVHrK22GGUsp5VTaW7grrKgrWqK")
METEORA_DAMM_V2: Final = parse_address("cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG")
METEORA_DLMM: Final = parse_address("LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo")
METEORA_DAMM_V1: Final = parse_address("Eo7WjKq67rjJQSZxS6z3YkapzY3eMj6Xy8X5EQVn5UaB")
METEORA_VAULT: Final = parse_address("24Uqj9JCLxUeoC3hGfh5W3s9FM9uCHDS2SG3LYwBpyTi")

SPL_TOKEN: Final = parse_address("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022: Final = parse_address("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
MEMO: Final = parse_address("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
SYSVAR_OWNER: Final = parse_address("Sysvar1111111111111111111111111111111111111")
CLOCK: Final = parse_address("SysvarC1ock11111111111111111111111111111111")
SOL_MINT: Final = parse_address("So11111111111111111111111111111111111111112")


@lru_cache(maxsize=65_536)
def derive(program: Address, *seeds: bytes) -> Address:
    """Return the program's address for the seeds: the first, counting the bump down from 255, that is no public key."""
    return Address(bytes(Pubkey.find_program_address(seeds, Pubkey.from_bytes(program))[0]))
