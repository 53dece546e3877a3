"""`fillwright localnet`: a chain on this machine to rehearse on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from solders.pubkey import Pubkey

from fillwright.cli.exits import EXIT_CODES, Misused, Refused
from fillwright.cli.screen import open_screen, table
from fillwright.clock import SystemClock
from fillwright.core.accounts import Address, format_address
from fillwright.core.errors import InvalidWallet
from fillwright.core.programs import USDC_MINT
from fillwright.core.units import format_amount
from fillwright.localnet.chain import LocalChain
from fillwright.localnet.endpoint import Endpoint
from fillwright.localnet.faults import Faults
from fillwright.localnet.world import WALLET_SOL, WALLET_USDC, Market, associated, open_market, open_wallet

PORT: Final = 8899  # where Solana's own tools look for a local chain
WALLET: Final = Path("localnet-wallet.json")


@click.command(epilog=EXIT_CODES)
@click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="0 takes a free one.")
@click.option(
    "--wallet",
    "path",
    metavar="PATH",
    type=click.Path(path_type=Path, dir_okay=False),
    default=WALLET,
    show_default=True,
    help="The key pair that gets the money, as Solana's command line keeps it; made if there is none.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="What all keys follow from."
)
@click.option(
    "--speed",
    metavar="FACTOR",
    type=click.FloatRange(0.1, 40),
    default=1.0,
    show_default=True,
    help="How much faster than the real chain's 400 ms for a slot.",
)
def command(port: int, path: Path, seed: int, speed: float) -> None:
    """Run a local chain with pools and money to rehearse on, until Ctrl-C.

    It answers like a node of Solana, on this machine only. Raydium and Meteora are emulated, all other programs are
    real. What happens on it is gone with it.
    """
    try:
        wallet = open_wallet(path, seed=seed)
    except InvalidWallet as error:
        raise Misused(str(error), error.code) from error
    clock = SystemClock()
    chain = LocalChain(seed=seed, unix_time_s=clock.now_ms() // 1000)
    market = open_market(chain, wallet, seed=seed)
    faults = Faults(seed)
    endpoint = Endpoint(chain, clock, faults)
    try:
        asyncio.run(_run(endpoint, port, chain.run(clock, speed=speed), market, path))
    except OSError as error:
        raise Refused(f"the local chain cannot listen on port {port}: {error.strerror}") from error


async def _run(endpoint: Endpoint, port: int, blocks: Awaitable[None], market: Market, path: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has neither
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await endpoint.start(port)
        _show(open_screen(), endpoint, market, path)
        with contextlib.suppress(asyncio.CancelledError):
            await blocks
    finally:
        await endpoint.close()


@dataclass(frozen=True, slots=True)
class Running:
    """A local chain that runs in this process."""

    market: Market
    url: str
    websocket_url: str

    @property
    def wallet(self) -> str:
        return str(self.market.wallet.pubkey())

    @property
    def pools(self) -> list[str]:
        return [format_address(address) for _, address in self.market.pools]

    def balances(self) -> str:
        """Return what the wallet holds now, in words."""
        chain, owner = self.market.chain, self.market.wallet.pubkey()
        lamports = account.lamports if (account := chain.account(owner)) else 0
        tokens = chain.account(Pubkey.from_bytes(associated(Address(bytes(owner)), USDC_MINT)))
        usdc = int.from_bytes(tokens.data[64:72], "little") if tokens else 0
        return f"{format_amount(lamports, 9)} SOL and {format_amount(usdc, 6)} USDC"


@contextlib.asynccontextmanager
async def start_chain(path: Path) -> AsyncIterator[Running]:
    """Run a local chain on a free port, with its wallet's key in a new file at `path`."""
    clock = SystemClock()
    chain = LocalChain(seed=0, unix_time_s=clock.now_ms() // 1000)
    market = open_market(chain, open_wallet(path))
    endpoint = Endpoint(chain, clock, Faults(0))
    await endpoint.start(0)
    blocks = asyncio.create_task(chain.run(clock))
    try:
        yield Running(market, endpoint.url, endpoint.websocket_url)
    finally:
        blocks.cancel()
        await asyncio.gather(blocks, return_exceptions=True)
        await endpoint.close()


def _show(screen: Console, endpoint: Endpoint, market: Market, path: Path) -> None:
    screen.print(f"RPC        {endpoint.url}", soft_wrap=True)
    screen.print(f"WebSocket  {endpoint.websocket_url}", soft_wrap=True)
    screen.print(f"Wallet     {market.wallet.pubkey()} ({path})", soft_wrap=True)
    screen.print(f"Holds      {WALLET_SOL} SOL, {WALLET_USDC} USDC\n")
    grid = table("Venue", "Type", "Pair", "Pool")
    for pool_type, address in market.pools:
        grid.add_row(pool_type.venue, pool_type.name, "SOL / USDC", format_address(address))
    screen.print(grid)
    screen.print("\nAn engine trades on it with these settings, and with a database of its own (DATABASE_URL):\n")
    for line in (
        "FILLWRIGHT_MODE=localnet",
        f"FILLWRIGHT_RPC_URLS={endpoint.url}",
        f"FILLWRIGHT_POOLS={','.join(format_address(address) for _, address in market.pools)}",
        f"FILLWRIGHT_WALLET=file:{path.absolute()}",
    ):
        screen.print(line, soft_wrap=True)
    screen.print("\nCtrl-C ends it.")
