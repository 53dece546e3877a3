"""Where the parts for real pools and chains meet: `app` loads it only where the settings name some."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from fillwright.chain.building import Tip
from fillwright.chain.hints import Hints
from fillwright.chain.rpc import Rpc, RpcSettings, unheard
from fillwright.chain.solana import SolanaChain, SolanaSettings
from fillwright.chain.wallet import open_wallet
from fillwright.core.accounts import Address, PoolAccounts, format_address, parse_address
from fillwright.core.control import Control
from fillwright.core.errors import (
    ChainUnavailable,
    InvalidSnapshot,
    InvalidWallet,
    Uncapped,
    UnknownToken,
    WrongNetwork,
)
from fillwright.core.limits import EVERYBODY, Limits
from fillwright.core.limits_document import limits_in_words, to_document
from fillwright.core.ports import Chain, Clock, Prices, Store, Venue
from fillwright.core.programs import LOOKUP_TABLES
from fillwright.core.tokens import WELL_KNOWN, TokenRegistry
from fillwright.core.units import Token
from fillwright.metrics import Metrics
from fillwright.settings import Settings, listed_urls
from fillwright.venues.live_pools import LivePools
from fillwright.venues.market import MarketRules, PoolState, PoolVenue, state_of
from fillwright.venues.pool import Policy
from fillwright.venues.prices import DollarPrices
from fillwright.venues.snapshots import Snapshot, SnapshotPools, pools_of, read_snapshots, snapshots_of, tokens_of

Market: TypeAlias = tuple[list[Venue], Prices, TokenRegistry]
"""What is asked for quotes, what tokens are worth, and which tokens there are."""

GENESIS: Final = {
    "mainnet": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
    "devnet": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxkzBFEx",
}
"""The names of the public chains: the hashes of their first blocks."""

WATCHED_AGAIN_MS: Final = 15 * 60_000  # much longer than a block takes to be final
WATCHED_AGAIN_MAX: Final = 5_000
POLL_MS: Final = 800  # two slots: how often nodes are asked for an outcome where no news can come
TABLE_HEAD_BYTES: Final = 56  # of an address lookup table; behind it come addresses of 32 bytes


@dataclass(frozen=True, slots=True)
class Solana:
    """A chain that is reached through nodes, and the pools on it."""

    rpc: Rpc
    pools: PoolVenue
    genesis_hash: str
    market: Market
    source: LivePools
    policy: Policy

    @contextlib.asynccontextmanager
    async def trading(
        self, settings: Settings, clock: Clock, control: Control, metrics: Metrics
    ) -> AsyncIterator[SolanaChain]:
        """Open the wallet, and say what will be done with whose money.

        Raise Uncapped, InvalidWallet or ChainUnavailable.
        """
        if settings.mode == "mainnet":
            _check_caps(control)
        hints = Hints(settings.rpc_ws_url, max(settings.outcome_poll_ms, POLL_MS), commitment=settings.commitment)
        chain = await self.open_chain(settings, clock, hints)
        _, lamports = await self.rpc.balance(chain.wallet)
        structlog.get_logger().warning(
            "chain.trading",
            mode=settings.mode,
            wallet=format_address(chain.wallet),
            sol=f"{lamports / 10**9:.9f}",
            what=f"signs and sends swaps from this wallet on {settings.mode}",
            limits=_in_words(control),
        )
        metrics.watch("rollbacks", "Swaps that a fork dropped.", lambda: chain.counts.rolled_back, counts=True)
        metrics.watch("requotes", "Quotes that a simulation belied.", lambda: chain.counts.requoted, counts=True)
        tasks = [asyncio.create_task(chain.watch()), asyncio.create_task(hints.run())]
        try:
            yield chain
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def watch_again(self, chain: Chain, store: Store, clock: Clock) -> None:
        """Let a chain look after what was confirmed lately: a fork may drop it while nobody else watches."""
        if not isinstance(chain, SolanaChain) or chain.confirms_what_is_final:
            return
        recent = await store.changed(clock.now_ms() - WATCHED_AGAIN_MS, WATCHED_AGAIN_MAX)
        chain.watch_again(each.order for each in recent)
        if len({each.order.id for each in recent}) == WATCHED_AGAIN_MAX:
            structlog.get_logger().warning(
                "chain.watched_again_in_part", orders=WATCHED_AGAIN_MAX, what_to_do="run `fillwright reconcile`"
            )

    async def pool_states(self) -> list[PoolState]:
        """Try each pool that is set, and say why one gives no quote. Raise ChainUnavailable."""
        return [state_of(address, accounts, self.policy) for address, accounts in await self.source.states()]

    async def open_chain(self, settings: Settings, clock: Clock, hints: Hints | None = None) -> SolanaChain:
        """Return the chain as the wallet sees it, without hints to look at. Raise InvalidWallet or ChainUnavailable."""
        # Asked for here, where one is needed: processes that only take orders have none.
        if not settings.wallet:
            raise InvalidWallet(f"FILLWRIGHT_MODE={settings.mode} signs swaps, and no wallet is set: FILLWRIGHT_WALLET")
        wallet = open_wallet(settings.wallet, os.environ, passphrase_file=settings.wallet_passphrase_file)
        tip = Tip(parse_address(settings.tip_account), settings.tip_lamports) if settings.tip_account else None
        solana_settings = SolanaSettings(
            commitment=settings.commitment,
            priority_fee_micro_lamports_max=settings.priority_fee_micro_lamports_max,
            fee_lamports_max=settings.fee_lamports_max,
            tip=tip,
            tables=await _tables(self.rpc, settings.lookup_tables),
        )
        hints = hints or Hints("", POLL_MS)
        return SolanaChain(self.rpc, wallet, self.pools, clock, solana_settings, self.genesis_hash, hints)


@contextlib.asynccontextmanager
async def connect(settings: Settings, clock: Clock, metrics: Metrics | None = None) -> AsyncIterator[Solana]:
    """Reach the nodes, see that they are of the chain that is meant, and learn of the pools.

    Raise ChainUnavailable, MixedChains, WrongNetwork or InvalidSnapshot.
    """
    async with _reach(settings, metrics) as (rpc, genesis_hash):
        source = LivePools(rpc, _addresses(settings.pools), clock, settings.pool_refresh_ms)
        rules = _rules(settings)
        pools = PoolVenue(source, rules)
        yield Solana(rpc, pools, genesis_hash, _market(pools, await source.tokens()), source, rules.policy)


async def fetch(settings: Settings, addresses: Sequence[Address], clock: Clock) -> list[Snapshot]:
    """Read pools from the nodes, each with all that its quotes depend on.

    Raise ChainUnavailable, MixedChains, WrongNetwork or InvalidSnapshot.
    """
    async with _reach(settings) as (rpc, _):
        states = await LivePools(rpc, addresses, clock, settings.pool_refresh_ms).states()
    unknown = [format_address(address) for address, pool in states if pool is None]
    if unknown:
        raise InvalidSnapshot(f"there is no pool of a type that is known at {', '.join(unknown)}")
    return snapshots_of(pool for _, pool in states if pool is not None)


def open_snapshots(settings: Settings) -> Market:
    """Return the market of pools in files. Raise InvalidSnapshot if they cannot be read, or hold no pool."""
    snapshots = _read_snapshots(Path(settings.pools))
    return _market(PoolVenue(SnapshotPools(snapshots), _rules(settings)), tokens_of(snapshots))


def snapshot_states(settings: Settings) -> list[PoolState]:
    """Try each pool in the files, and say why one gives no quote. Raise InvalidSnapshot as `open_snapshots` does."""
    policy = _rules(settings).policy
    return [state_of(pool.address, pool, policy) for pool in _pools_in(_read_snapshots(Path(settings.pools)))]


def _read_snapshots(path: Path) -> list[Snapshot]:
    if not path.exists():
        raise InvalidSnapshot(
            f"there is no file or folder {path} with pools; they are read at their addresses in the modes that"
            " read from nodes: see FILLWRIGHT_MODE"
        )
    snapshots = read_snapshots(path)
    if not any(_pools_in(snapshots)):
        raise InvalidSnapshot(f"there is no pool of a type that is known in {path}")
    return snapshots


def _pools_in(snapshots: Iterable[Snapshot]) -> Iterator[PoolAccounts]:
    return (pool for snapshot in snapshots for _, pool in pools_of(snapshot))


@contextlib.asynccontextmanager
async def _reach(settings: Settings, metrics: Metrics | None = None) -> AsyncIterator[tuple[Rpc, str]]:
    """Yield the nodes and the name of their chain, having seen that it is the one that is meant."""
    rpc = Rpc(
        RpcSettings(
            listed_urls(settings.rpc_urls),
            listed_urls(settings.send_urls),
            settings.rpc_requests_per_second,
            settings.rpc_timeout_ms,
            settings.rpc_deadline_ms,
            settings.rpc_lag_slots_max,
        ),
        metrics.hear_node if metrics else unheard,
    )
    try:
        genesis_hash = await rpc.genesis_hash()
        _check_network(settings.mode, genesis_hash)
        yield rpc, genesis_hash
    finally:
        await rpc.close()


def _rules(settings: Settings) -> MarketRules:
    policy = Policy(settings.amm_v4_fee, settings.unproven_transfer_fees == "on")
    return MarketRules(settings.quote_slots_max, settings.priority_fee_micro_lamports, policy)


def _market(pools: PoolVenue, tokens: Iterable[Token]) -> Market:
    known = {token.mint for token in WELL_KNOWN}
    found = (token for token in tokens if token.mint not in known)
    return [pools], DollarPrices(), TokenRegistry((*WELL_KNOWN, *found))


def _check_network(mode: str, genesis_hash: str) -> None:
    meant = GENESIS.get(mode, genesis_hash)
    if genesis_hash != meant or (mode == "localnet" and genesis_hash in GENESIS.values()):
        names = {genesis: name for name, genesis in GENESIS.items()}
        found = names.get(genesis_hash, f"another chain ({genesis_hash})")
        raise WrongNetwork(f"FILLWRIGHT_MODE is {mode}, and the nodes in FILLWRIGHT_RPC_URLS are of {found}")


def _check_caps(control: Control) -> None:
    """Raise Uncapped unless everybody's orders and days are limited: a mistake must cost no more than that."""
    if not control.limits.get(EVERYBODY, Limits()).caps_orders_and_days:
        raise Uncapped(
            "on mainnet, what an order and a day may cost must be limited for everybody: see `fillwright limits set`"
        )


def _in_words(control: Control) -> str:
    limits = control.limits.get(EVERYBODY)
    if limits is None:
        return "none"
    words = limits_in_words(to_document(limits, TokenRegistry()))
    return ", ".join(f"{name} {value}" for name, value in words.items())


def _addresses(text: str) -> list[Address]:
    """Return the pools that the setting lists, or that the file which it names lists, one a line."""
    path = Path(text)
    listed = path.read_text(encoding="utf-8").split() if path.is_file() else text.split(",")
    try:
        return [parse_address(each.strip()) for each in listed if each.strip()]
    except UnknownToken as error:
        raise InvalidSnapshot(
            f"FILLWRIGHT_POOLS must be addresses of pools, separated by commas, or a file with one a line: {error}"
        ) from error


async def _tables(rpc: Rpc, text: str) -> Sequence[tuple[Address, Sequence[Address]]]:
    """Return the address lookup tables that are set, and what stands in them."""
    keys = [parse_address(each.strip()) for each in text.split(",") if each.strip()]
    if not keys:
        return ()
    _, accounts = await rpc.read(keys)
    tables = list[tuple[Address, Sequence[Address]]]()
    for key, account in zip(keys, accounts, strict=True):
        if account is None or account.owner != LOOKUP_TABLES or len(account.data) < TABLE_HEAD_BYTES:
            raise ChainUnavailable(f"{format_address(key)} in FILLWRIGHT_LOOKUP_TABLES is no address lookup table")
        data = account.data[TABLE_HEAD_BYTES:]
        tables.append((key, [Address(data[at : at + 32]) for at in range(0, len(data) - 31, 32)]))
    return tables
