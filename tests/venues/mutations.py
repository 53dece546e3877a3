"""Recorded pools with damaged accounts: bytes changed, cut off, added, accounts lost, absurd amounts and times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts
from fillwright.venues.recordings import Recording

EDGES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01")


def mutated(recordings: Sequence[Recording], count: int, seed: int) -> Iterator[Recording]:
    """Yield `count` recordings, each with damage; the same for the same seed."""
    chance = Random(seed)
    for _ in range(count):
        recording = chance.choice(recordings)
        accounts = dict(recording.pool.accounts)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            address = chance.choice((recording.pool.address, *accounts))
            if address in accounts:
                _damage(accounts, address, chance)
        time = recording.pool.time
        if chance.random() < 0.1:
            edge = chance.choice((0, 2**63 - 1, time.unix_time_s + chance.randrange(-(10**6), 10**6)))
            time = ChainTime(edge, chance.choice((0, 2**64 - 1)), edge)
        amount = chance.choice((recording.amount, recording.amount, 1, 2**64 - 1, chance.randrange(1, 2**64)))
        pool = PoolAccounts(recording.pool.address, recording.pool.slot, time, accounts)
        yield replace(recording, pool=pool, amount=amount, a_to_b=chance.random() < 0.5)


def _damage(accounts: dict[Address, Account], address: Address, chance: Random) -> None:
    account = accounts[address]
    data = bytearray(account.data) or bytearray(1)
    match chance.randrange(20):
        case 0:
            del accounts[address]
            return
        case 1:
            data = data[: chance.randrange(len(data))]
        case 2:
            data += bytes(chance.randrange(1, 200))
        case 3:
            accounts[address] = Account(Address(chance.randbytes(32)), account.data)
            return
        case 4 | 5 | 6 | 7:  # a whole number at an edge of its range
            width = chance.choice((2, 4, 8, 16))
            at = chance.randrange(max(1, len(data) - width))
            data[at : at + width] = chance.choice(EDGES) * width
        case _:
            # Most that matters stands at the beginning of an account.
            at = chance.randrange(len(data) if chance.random() < 0.3 else min(len(data), 600))
            data[at] = chance.randrange(256)
    accounts[address] = Account(account.owner, bytes(data))
