"""An engine that trades on a local chain, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fillwright.core.accounts import format_address
from tests.localnet.local import Local, a_local_chain
from tests.world import World, a_world

SLOT_MS = 400


@contextlib.asynccontextmanager
async def trading(folder: Path, **settings: Any) -> AsyncIterator[tuple[World, Local]]:
    """Run a chain that makes a slot every 400 ms, and an engine that trades on it."""
    async with a_local_chain() as local:
        wallet = folder / "wallet.json"
        wallet.write_text(json.dumps(list(bytes(local.wallet))))
        wallet.chmod(0o600)
        chosen = {
            "mode": "localnet",
            "rpc_urls": local.endpoint.url,
            "rpc_requests_per_second": 0,
            "pools": ",".join(format_address(address) for _, address in local.market.pools),
            "wallet": f"file:{wallet}",
            **settings,
        }
        ticking = asyncio.create_task(tick(local))
        try:
            async with a_world(clock=local.clock, **chosen) as world:
                yield world, local
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)


async def tick(local: Local) -> None:
    while True:
        await local.clock.sleep(SLOT_MS)
        local.chain.tick()
