"""Addresses that follow from others."""

from __future__ import annotations

from functools import lru_cache

from solders.pubkey import Pubkey

from fillwright.core.accounts import Address


@lru_cache(maxsize=65_536)
def derive(program: Address, *seeds: bytes) -> Address:
    """Return the program's address for the seeds: the first, counting the bump down from 255, that is no public key."""
    return Address(bytes(Pubkey.find_program_address(seeds, Pubkey.from_bytes(program))[0]))
