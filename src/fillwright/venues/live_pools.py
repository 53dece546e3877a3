"""Pools as they stand now, read from the chain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from fillwright.core.accounts import Account, Address, PoolAccounts, format_address, parse_address
from fillwright.core.errors import ChainUnavailable, VenueUnavailable
from fillwright.core.ports import AccountReader, Clock
from fillwright.core.programs import CLOCK
from fillwright.core.units import Millis, Mint, Token
from fillwright.venues.pool_types import identify
from fillwright.venues.snapshots import ROUNDS_MAX, needed, pair_of, read_time, token_of

DISCOVER_MS: Final = 60_000
BATCH_MAX: Final = 100  # what getMultipleAccounts takes


class LivePools:
    """Some pools, by their addresses, as a PoolSource.

    All accounts of a pool, and the Clock, come with one call, so that they are of one slot. Those who ask at the same
    moment share a reading, and it serves for `refresh_ms`.
    """

    def __init__(self, reader: AccountReader, addresses: Sequence[Address], clock: Clock, refresh_ms: Millis) -> None:
        self._reader = reader
        self._addresses = addresses
        self._clock = clock
        self._refresh_ms = refresh_ms
        self._newest_slot = 0
        self._wanted: dict[Address, tuple[Address, ...]] = {}
        self._by_pair: dict[frozenset[Mint], set[Address]] = {}
        self._discovered_ms: Millis | None = None
        self._read: dict[Address, tuple[Millis, PoolAccounts]] = {}
        self._reading = asyncio.Lock()

    @property
    def newest_slot(self) -> int:
        return self._newest_slot

    async def pools(self, mint_a: Mint, mint_b: Mint, *, min_slot: int = 0) -> Sequence[PoolAccounts]:
        """Return the pools of a pair. Raise VenueUnavailable if the chain does not answer."""
        try:
            async with self._reading:
                await self._discover()
                addresses = sorted(self._by_pair.get(frozenset((mint_a, mint_b)), ()))
                stale = [each for each in addresses if not self._is_fresh(each, min_slot)]
                await self._refresh(stale)
        except ChainUnavailable as error:
            raise VenueUnavailable(f"the pools cannot be read: {error}") from error
        return [self._read[each][1] for each in addresses if each in self._read]

    async def tokens(self) -> list[Token]:
        """Return the tokens that the pools' mints tell of. Raise VenueUnavailable."""
        try:
            async with self._reading:
                await self._discover()
                mints = sorted({mint for pair in self._by_pair for mint in pair})
                found = dict[Address, Account]()
                for start in range(0, len(mints), BATCH_MAX):
                    batch = [parse_address(mint) for mint in mints[start : start + BATCH_MAX]]
                    _, accounts = await self._reader.read(batch)
                    found |= {each: account for each, account in zip(batch, accounts, strict=True) if account}
        except ChainUnavailable as error:
            raise VenueUnavailable(f"the pools' tokens cannot be read: {error}") from error
        return [token for mint in mints if (token := token_of(mint, found)) is not None]

    async def states(self) -> list[tuple[Address, PoolAccounts | None]]:
        """Return each pool as it stands now; None for what is no pool of a known type. Raise ChainUnavailable."""
        async with self._reading:
            await self._discover()
            await self._refresh([each for each in self._addresses if each in self._wanted])
            read = {each: accounts for each, (_, accounts) in self._read.items()}
        return [(each, read.get(each)) for each in self._addresses]

    def _is_fresh(self, address: Address, min_slot: int) -> bool:
        read = self._read.get(address)
        return read is not None and read[1].slot >= min_slot and abs(self._clock.now_ms() - read[0]) < self._refresh_ms

    async def _discover(self) -> None:
        """Learn which pair each pool is of; of those that could not be read, every so often again."""
        missing = [each for each in self._addresses if each not in self._wanted]
        now_ms = self._clock.now_ms()
        if not missing or (self._discovered_ms is not None and abs(now_ms - self._discovered_ms) < DISCOVER_MS):
            return
        for start in range(0, len(missing), BATCH_MAX):
            batch = missing[start : start + BATCH_MAX]
            _, accounts = await self._reader.read(batch)
            for address, account in zip(batch, accounts, strict=True):
                pool_type = identify(account) if account is not None else None
                if account is not None and pool_type is not None:
                    self._by_pair.setdefault(pair_of(pool_type, account), set()).add(address)
                    self._wanted[address] = (address,)
        self._discovered_ms = now_ms
        unknown = [format_address(each) for each in missing if each not in self._wanted]
        if unknown:
            structlog.get_logger().warning("pools.unknown", pools=unknown, reason="no accounts of a known pool type")

    async def _refresh(self, addresses: Sequence[Address]) -> None:
        """Read pools anew, again where that shows that one needs further accounts."""
        for _ in range(ROUNDS_MAX):
            more = list[Address]()
            for batch in self._batches(addresses):
                more += await self._read_batch(batch)
            if not more:
                return
            addresses = more

    def _batches(self, addresses: Sequence[Address]) -> list[list[Address]]:
        """Put pools together whose accounts fit one call."""
        batches, room = list[list[Address]](), 0
        for address in addresses:
            size = len(self._wanted[address])
            if size > room:
                batches.append([])
                room = BATCH_MAX - 1
            batches[-1].append(address)
            room -= size
        return batches

    async def _read_batch(self, pools: Sequence[Address]) -> list[Address]:
        """Read some pools at one slot. Return those that turned out to need more accounts than were read."""
        asked = list(dict.fromkeys((CLOCK, *(each for pool in pools for each in self._wanted[pool]))))
        slot, found = await self._reader.read(asked)
        held = {address: account for address, account in zip(asked, found, strict=True) if account is not None}
        time, now_ms = read_time(held), self._clock.now_ms()
        if time is None:
            raise ChainUnavailable("a node gave no Clock")
        self._newest_slot = max(self._newest_slot, slot)
        more = list[Address]()
        for pool in pools:
            account = held.get(pool)
            pool_type = identify(account) if account is not None else None
            if pool_type is None:
                self._read.pop(pool, None)  # the pool is gone
                continue
            mine: dict[Address, Account] = {each: held[each] for each in (CLOCK, *self._wanted[pool]) if each in held}
            wanted = needed(pool_type, pool, mine)
            if set(wanted) <= set(self._wanted[pool]):
                self._read[pool] = now_ms, PoolAccounts(pool, slot, time, mine)
            elif len(wanted) < BATCH_MAX:
                more.append(pool)
            self._wanted[pool] = wanted
        return more
