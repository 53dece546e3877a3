"""The programs, mints and sysvars of Solana that swaps have to do with, and the bounds of a transaction."""

from __future__ import annotations

from typing import Final

from fillwright.core.accounts import parse_address

RAYDIUM_CPMM: Final = parse_address("CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C")
RAYDIUM_AMM_V4: Final = parse_address("675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8")
RAYDIUM_CLMM: Final = parse_address("CAMMCzo5YL8w4VFF8KVHrK22GGUsp5VTaW7grrKgrWqK")
METEORA_DAMM_V2: Final = parse_address("cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG")
METEORA_DLMM: Final = parse_address("LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo")
METEORA_DAMM_V1: Final = parse_address("Eo7WjKq67rjJQSZxS6z3YkapzY3eMj6Xy8X5EQVn5UaB")
METEORA_VAULT: Final = parse_address("24Uqj9JCLxUeoC3hGfh5W3s9FM9uCHDS2SG3LYwBpyTi")

SYSTEM: Final = parse_address("11111111111111111111111111111111")
SPL_TOKEN: Final = parse_address("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022: Final = parse_address("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ASSOCIATED_TOKEN: Final = parse_address("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
MEMO: Final = parse_address("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
LOOKUP_TABLES: Final = parse_address("AddressLookupTab1e1111111111111111111111111")
COMPUTE_BUDGET: Final = parse_address("ComputeBudget111111111111111111111111111111")

SYSVAR_OWNER: Final = parse_address("Sysvar1111111111111111111111111111111111111")
CLOCK: Final = parse_address("SysvarC1ock11111111111111111111111111111111")
SOL_MINT: Final = parse_address("So11111111111111111111111111111111111111112")
USDC_MINT: Final = parse_address("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")
USDT_MINT: Final = parse_address("Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB")

PACKET_BYTES: Final = 1_232  # that a transaction may have, signatures included
COMPUTE_UNITS_MAX: Final = 1_400_000  # of a transaction
SIGNATURE_LAMPORTS: Final = 5_000
TOKEN_ACCOUNT_RENT_LAMPORTS: Final = 2_039_280  # what keeps a token account of 165 bytes
