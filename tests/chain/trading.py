"""An engine that trades on a local chain, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from fillwright.core.accounts import Address, format_address
from tests.localnet.local import Local, a_local_chain
from tests.world import World, a_world

SLOT_MS = 400


def all_of_them(local: Local) -> Sequence[Address]:
    return [address for _, address in local.market.pools]


@contextlib.asynccontextmanager
async def trading(
    folder: Path, prepare: Callable[[Local], Sequence[Address]] = all_of_them, **settings: Any
) -> AsyncIterator[tuple[World, Local]]:
    """Run a chain that makes a slot every 400 ms, and an engine that trades with the pools that `prepare` returns."""
    async with a_local_chain() as local:
        chosen = {**trading_settings(local, prepare(local), folder), **settings}
        async with ticking(local), a_world(clock=local.clock, **chosen) as world:
            yield world, local


def trading_settings(local: Local, pools: Sequence[Address], folder: Path) -> dict[str, Any]:
    """Return the settings of an engine that trades for the chain's wallet, whose key is put into the folder."""
    wallet = folder / "wallet.json"
    wallet.write_text(json.dumps(list(bytes(local.wallet))))
    wallet.chmod(0o600)
    return {
        "mode": "localnet",
        "rpc_urls": local.endpoint.url,
        "rpc_requests_per_second": 0,
        "pools": ",".join(format_address(address) for address in pools),
        "wallet": f"file:{wallet}",
    }


def only(*names: str) -> Callable[[Local], Sequence[Address]]:
    def prepare(local: Local) -> Sequence[Address]:
        return [address for pool_type, address in local.market.pools if pool_type.name in names]

    return prepare


@contextlib.asynccontextmanager
async def ticking(local: Local) -> AsyncIterator[None]:
    """Let the chain make a slot every 400 ms."""
    task = asyncio.create_task(_tick(local))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tick(local: Local) -> None:
    while True:
        await local.clock.sleep(SLOT_MS)
        local.chain.tick()
