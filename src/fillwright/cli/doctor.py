"""`fillwright doctor`: whether everything that trading needs is in order. It looks, and changes nothing.

What cannot be looked at is not in order: it is told as a warning or a problem, never as ok.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
import structlog

from fillwright.app import open_solana
from fillwright.backends import migrate_store
from fillwright.cli.exits import EXIT_CODES, CommandFailed, Refused
from fillwright.cli.operating import open_database
from fillwright.cli.reconcile import check_schema
from fillwright.cli.running import NO_START
from fillwright.cli.screen import open_screen
from fillwright.clock import SystemClock
from fillwright.core.accounts import Address, format_address, parse_address
from fillwright.core.control import Control, Mode
from fillwright.core.errors import ChainUnavailable, FillwrightError, InvalidSnapshot, InvalidWallet, StoreError
from fillwright.core.limits import EVERYBODY, NONE
from fillwright.core.limits_document import limits_in_words, to_document
from fillwright.core.order import Order, OrderStatus, SignedTransaction
from fillwright.core.ports import OrderFilter, Store
from fillwright.core.tokens import WELL_KNOWN, TokenRegistry
from fillwright.core.units import Token, format_amount
from fillwright.execution.gate import Gate
from fillwright.settings import Settings, SettingsError, listed_urls, read_settings, sqlite_path, without_password

if TYPE_CHECKING:
    from fillwright.chain.rpc import Rpc
    from fillwright.venues.market import PoolState

Verdict = Literal["ok", "warning", "problem"]

STYLES: Final = {"ok": "green", "warning": "yellow", "problem": "red"}
CLOCK_WARNING_S: Final = 15
CLOCK_PROBLEM_S: Final = 120
ATTEMPTS_MAX: Final = 100  # that are looked up on the chain
SIGNS: Final = ("localnet", "devnet", "mainnet")
UNSEEN: Final = "see to the nodes first"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and, where that is not ok, what to do about it."""

    check: str
    verdict: Verdict
    says: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """What one node said: its chain, how fast, and as of which slot and time of the chain."""

    label: str
    genesis_hash: str
    latency_ms: float
    slot: int
    unix_time_s: int


@dataclass(frozen=True, slots=True)
class Database:
    """What the engine's database holds that the chain must be asked about.

    `control` None: it cannot be read. `chain` is the one that its orders are on, None if there are none yet.
    """

    control: Control | None
    attempts: tuple[Order, ...]
    chain: str | None = None


@click.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, for programs.")
def command(as_json: bool) -> None:
    """Check settings, database, nodes, clock, wallet, pools, limits, open attempts and halt.

    Looks at what the settings name, whether or not an engine runs, and changes nothing. Ends with exit code 1 if there
    is a problem; with warnings alone it ends with 0.
    """
    # The findings say what the logs would, and standard output is for those.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    findings = asyncio.run(_examine())
    counts = {verdict: sum(each.verdict == verdict for each in findings) for verdict in STYLES}
    if as_json:
        document = {**counts, "findings": [dataclasses.asdict(each) for each in findings]}
        click.echo(json.dumps(document, separators=(",", ":")))
    else:
        _show(findings, counts)
    if counts["problem"]:
        raise SystemExit(Refused.exit_code)


async def _examine() -> list[Finding]:
    try:
        settings = read_settings(os.environ, Path(".env"))
    except SettingsError as error:
        return [Finding("settings", "problem", str(error), "correct it: docs/settings.md explains every setting")]
    findings = [Finding("settings", "ok", f"mode {settings.mode}")]
    found, database = await _database(settings)
    findings += found
    findings += await _redis(settings)
    if database.control is not None:
        findings += [_halt(database.control), _limits(settings, database.control)]
    if settings.mode == "simulated":
        return [*findings, *_simulated(settings, database)]
    findings += await _nodes(settings)
    return [*findings, *[each async for each in _on_chain(settings, database)]]


async def _database(settings: Settings) -> tuple[list[Finding], Database]:
    url, shown, none = settings.database_url, without_password(settings.database_url), Database(None, ())
    if url.startswith("memory://"):
        fix = "set DATABASE_URL to a database that is kept"
        verdict: Verdict = "problem" if settings.mode in SIGNS else "warning"
        return [Finding("database", verdict, "memory:// forgets every order when its engine ends", fix)], none
    if (missing := _missing(url)) is not None:
        return [missing], Database(Control(), ()) if missing.verdict == "warning" else none
    try:
        check_schema(settings)
        version, needed = await migrate_store(url, change=False)
        if version != needed:
            says = f"{shown} has schema {version}, and this version needs {needed}"
            return [Finding("database", "problem", says, "run `fillwright migrate`")], none
        async with open_database(settings) as store:
            return await _orders(store, shown)
    except (CommandFailed, StoreError, OSError, sqlite3.Error) as error:
        fix = "set DATABASE_URL to the engine's database, and see that it runs"
        return [Finding("database", "problem", f"{shown}: {error}", fix)], none


def _missing(url: str) -> Finding | None:
    """Return what is to be said of a file that is not there. Opening it would make it."""
    if not url.startswith("sqlite:") or Path(sqlite_path(url)).is_file():
        return None
    folder = Path(sqlite_path(url)).absolute().parent
    if not os.access(folder, os.W_OK):
        fix = "make the folder, or set DATABASE_URL to another place"
        return Finding("database", "problem", f"{folder} is no folder that can be written to", fix)
    says = f"there is none at {url} yet: no orders, no limits, and no halt"
    return Finding("database", "warning", says, "the engine makes it at its first start")


async def _orders(store: Store, shown: str) -> tuple[list[Finding], Database]:
    await store.check()
    counts = await store.counts()
    still = counts.waiting + counts.active + counts.delayed
    findings = [Finding("database", "ok", f"{shown}: {counts.total} orders, {still} of them open")]
    gate = Gate(store, SystemClock())
    try:
        await gate.look()
    except StoreError as error:
        fix = "nothing is signed until it can be read: run `fillwright audit verify`"
        findings.append(Finding("audit log", "problem", str(error), fix))
        return findings, Database(None, ())
    accounts = {"", *(key.account for key in gate.known.keys.values())}
    attempts = [order for account in sorted(accounts) for order in await _submitted(store, account)]
    return findings, Database(gate.known, tuple(attempts), await store.pinned("chain"))


async def _submitted(store: Store, account: str) -> list[Order]:
    found, page = list[Order](), list[Order]()
    while not found or len(page) == ATTEMPTS_MAX:
        before = found[-1].id if found else None
        page = await store.find(OrderFilter(account, OrderStatus.SUBMITTED, before=before, limit=ATTEMPTS_MAX))
        if not page:
            break
        found += page
    return found


async def _redis(settings: Settings) -> list[Finding]:
    if not settings.redis_url:
        return []
    from fillwright.backends.redis import ask

    shown = without_password(settings.redis_url)
    try:
        await ask(settings.redis_url)
    except StoreError as error:
        fix = "start it, or correct REDIS_URL; until then processes hear of each other later, and nothing is lost"
        return [Finding("redis", "warning", f"{shown}: {error}", fix)]
    return [Finding("redis", "ok", f"{shown} answers")]


def _halt(control: Control) -> Finding:
    if control.mode is Mode.ACTIVE:
        return Finding("halt", "ok", "orders are taken and executed")
    does = "takes and signs nothing" if control.mode is Mode.HALTED else "takes nothing new"
    why = f": {control.mode_reason}" if control.mode_reason else ""
    return Finding("halt", "warning", f"the engine is {control.mode}, and {does}{why}", "`fillwright resume` goes on")


def _limits(settings: Settings, control: Control) -> Finding:
    limits = control.limits.get(EVERYBODY, NONE)
    words = limits_in_words(to_document(limits, TokenRegistry()))
    says = ", ".join(f"{name} {value}" for name, value in words.items()) or "none for everybody"
    if settings.mode == "mainnet" and not limits.caps_orders_and_days:
        fix = "run `fillwright limits set --order-usd ... --day-usd ...`: without both the engine does not start"
        return Finding("limits", "problem", f"{says}; on mainnet, an order and a day must be limited", fix)
    return Finding("limits", "ok", says)


def _simulated(settings: Settings, database: Database) -> list[Finding]:
    findings = [*_same_chain(database)]
    if settings.pools:
        from fillwright.solana import snapshot_states

        try:
            findings += _pools(snapshot_states(settings), "set FILLWRIGHT_POOLS to a snapshot with other pools")
        except InvalidSnapshot as error:
            findings.append(Finding("pools", "problem", str(error), "correct FILLWRIGHT_POOLS, or import them anew"))
    says = f"{len(database.attempts)} orders are submitted to the simulated chain"
    return [*findings, Finding("attempts", "ok", says)]


async def _nodes(settings: Settings) -> list[Finding]:
    """Ask each node by itself, so that none hides behind another."""
    from fillwright.chain.rpc import labels

    urls = listed_urls(settings.rpc_urls)
    answers = await asyncio.gather(
        *(_node(url, label, settings) for url, label in zip(urls, labels(urls), strict=True)), return_exceptions=True
    )
    nodes = [each for each in answers if isinstance(each, Node)]
    newest = max((each.slot for each in nodes), default=0)
    findings = list[Finding]()
    for label, answer in zip(labels(urls), answers, strict=True):
        if isinstance(answer, Node):
            findings.append(_of_node(answer, newest - answer.slot, settings))
        elif isinstance(answer, FillwrightError):
            fix = "see whether it runs, and whether its key in FILLWRIGHT_RPC_URLS is right"
            findings.append(Finding(f"node {label}", "warning" if nodes else "problem", str(answer), fix))
        else:
            raise answer
    if nodes and settings.mode != "localnet":  # a local chain keeps a time of its own
        findings.append(_clock(max(nodes, key=lambda each: each.slot)))
    return findings


async def _node(url: str, label: str, settings: Settings) -> Node:
    from fillwright.chain.rpc import Rpc, RpcSettings
    from fillwright.core.programs import CLOCK
    from fillwright.venues.snapshots import read_time

    alone = RpcSettings((url,), timeout_ms=settings.rpc_timeout_ms, deadline_ms=settings.rpc_deadline_ms)
    rpc, loop = Rpc(alone), asyncio.get_running_loop()
    try:
        genesis_hash = await rpc.genesis_hash()
        began_s = loop.time()
        slot, (clock,) = await rpc.read([CLOCK])
        latency_ms = (loop.time() - began_s) * 1000
        time = read_time({} if clock is None else {CLOCK: clock})
        if time is None:
            raise ChainUnavailable("the node gave no Clock")
        return Node(label, genesis_hash, latency_ms, slot, time.unix_time_s)
    finally:
        await rpc.close()


def _of_node(node: Node, lag_slots: int, settings: Settings) -> Finding:
    says = f"{node.latency_ms:.0f} ms, slot {node.slot}, {lag_slots} behind, chain {node.genesis_hash}"
    if lag_slots > settings.rpc_lag_slots_max:
        fix = f"more than {settings.rpc_lag_slots_max} is too far: it is asked last; use another one if it stays so"
        return Finding(f"node {node.label}", "warning", says, fix)
    return Finding(f"node {node.label}", "ok", says)


def _clock(node: Node) -> Finding:
    apart_s = SystemClock().now_ms() // 1000 - node.unix_time_s
    if abs(apart_s) <= CLOCK_WARNING_S:
        return Finding("clock", "ok", f"{abs(apart_s)} s from the chain's")
    says = f"this machine is {abs(apart_s)} s {'ahead of' if apart_s > 0 else 'behind'} the chain"
    fix = "set it by NTP (orders expire, and days of limits begin, by it); if it is right, the node may have stopped"
    return Finding("clock", "problem" if abs(apart_s) > CLOCK_PROBLEM_S else "warning", says, fix)


async def _on_chain(settings: Settings, database: Database) -> AsyncIterator[Finding]:
    """Check what only the chain can tell: first of all that it is the one that is meant."""
    from fillwright.chain.solana import chain_identity

    wallet = _wallet(settings) if settings.mode in SIGNS else None
    if isinstance(wallet, Finding):
        yield wallet
    try:
        async with open_solana(settings, SystemClock()) as solana:
            yield Finding("chain", "ok", f"the nodes are of the chain that mode {settings.mode} means")
            if settings.mode not in SIGNS:
                for finding in _same_chain(database):
                    yield finding
            if isinstance(wallet, bytes):
                for finding in _same_chain(database, chain_identity(solana.genesis_hash, wallet)):
                    yield finding
                yield await _balances(solana.rpc, await solana.source.tokens(), wallet, settings)
            for finding in _pools(await solana.pool_states(), "set FILLWRIGHT_POOLS to pools of this chain"):
                yield finding
            if settings.mode in SIGNS:
                for finding in await _attempts(solana.rpc, database.attempts):
                    yield finding
    except NO_START as error:
        yield Finding("chain", "problem", str(error), "correct what it says, or else the engine does not start")
        if isinstance(wallet, bytes):
            yield Finding("wallet", "warning", f"{format_address(wallet)}: what it holds is not known", UNSEEN)
        for order in database.attempts:
            yield Finding("attempts", "warning", f"{order.id}: what became of it is not known", UNSEEN)


def _same_chain(database: Database, chain: str = "") -> Iterator[Finding]:
    """Say if the database's orders are on another chain than is meant; none named means a simulated one."""
    if database.chain is None or (database.chain == chain if chain else not database.chain.startswith("solana:")):
        return
    says = f"its orders are on the chain {database.chain}, which is another: the engine does not start"
    fix = "set DATABASE_URL to a database of this chain and wallet, a new one if there is none"
    yield Finding("database", "problem", says, fix)


def _wallet(settings: Settings) -> Address | Finding:
    from fillwright.chain.wallet import open_wallet

    if not settings.wallet:
        fix = "set FILLWRIGHT_WALLET; processes that only take orders need none"
        return Finding("wallet", "problem", "none is set, and without one nothing can be signed", fix)
    try:
        return open_wallet(settings.wallet, os.environ, passphrase_file=settings.wallet_passphrase_file).address
    except InvalidWallet as error:
        return Finding("wallet", "problem", str(error), "docs/going-live.md says how to make one")


async def _balances(rpc: Rpc, tokens: Sequence[Token], wallet: Address, settings: Settings) -> Finding:
    """Return what the wallet holds of SOL and of the pools' tokens."""
    _, lamports = await rpc.balance(wallet)
    symbols = {token.mint: token.symbol for token in WELL_KNOWN}
    tokens = [token for token in tokens if symbols.get(token.mint) != "SOL"]
    found = await asyncio.gather(*(rpc.token_accounts(wallet, parse_address(each.mint)) for each in tokens))
    held = [f"{format_amount(lamports, 9)} SOL"]
    for token, (_, accounts) in zip(tokens, found, strict=True):
        amount = sum(int.from_bytes(account.data[64:72], "little") for account in accounts.values())
        if amount:
            held.append(f"{format_amount(amount, token.decimals)} {symbols.get(token.mint, token.symbol)}")
    says = f"{format_address(wallet)} holds {', '.join(held)}"
    if lamports < settings.fee_lamports_max:
        fix = f"send it SOL: {format_amount(settings.fee_lamports_max, 9)} may be needed for a fee alone"
        return Finding("wallet", "problem", says, fix)
    return Finding("wallet", "ok", says)


def _pools(states: Sequence[PoolState], fix: str) -> list[Finding]:
    """Tell of each pool, and, with what to do about it, if none gives a quote."""
    findings = list[Finding]()
    for state in states:
        shown = f"{format_address(state.address)} {state.name}".strip()
        if state.why_not:
            through_others = "orders go through the others; take it out of FILLWRIGHT_POOLS if it stays so"
            findings.append(Finding("pool", "warning", f"{shown}: {state.why_not}", through_others))
        else:
            findings.append(Finding("pool", "ok", f"{shown} gives quotes"))
    if not any(not state.why_not for state in states):
        findings.append(Finding("pools", "problem", "no pool gives a quote: every order would fail", fix))
    return findings


async def _attempts(rpc: Rpc, orders: tuple[Order, ...]) -> list[Finding]:
    """Tell what the chain says of transactions that may have been sent: first how far it is final, then of them."""
    live = [(order, order.live) for order in orders if order.live is not None]
    if not live:
        return [Finding("attempts", "ok", "no order waits for its transaction")]
    finalized = await rpc.finalized()
    findings = list[Finding]()
    for start in range(0, len(live), ATTEMPTS_MAX):
        batch = live[start : start + ATTEMPTS_MAX]
        answer = await rpc.signature_statuses([signed.signature for _, signed in batch], finalized.slot)
        for (order, signed), status in zip(batch, answer.statuses, strict=True):
            says = f"{order.id}, attempt {order.attempt}, {signed.signature}: "
            if status is None:
                findings.append(_unseen(says, signed, finalized.block_height))
            else:
                ended = "succeeded" if status.fault is None else f"failed ({status.fault})"
                says += f"{ended} in slot {status.slot}, {status.commitment or 'commitment unknown'}"
                findings.append(Finding("attempts", "warning", says, "a worker records it: see that one runs"))
    return findings


def _unseen(says: str, signed: SignedTransaction, block_height: int) -> Finding:
    left = signed.last_valid_block_height - block_height
    if left >= 0:
        says += f"not on the chain, and may land for {left} more finalized blocks"
        return Finding("attempts", "warning", says, "a worker follows it to its end: see that one runs")
    says += "past its last block, and not known to the node that was asked"
    fix = "a worker has more nodes say so before the attempt is over: see that one runs"
    return Finding("attempts", "warning", says, fix)


def _show(findings: list[Finding], counts: dict[str, int]) -> None:
    screen = open_screen()
    for each in findings:
        screen.print(f"{each.verdict:<8} {each.check}: {each.says}", style=STYLES[each.verdict], soft_wrap=True)
        if each.fix:
            screen.print(f"{'':<8} -> {each.fix}", soft_wrap=True)
    screen.print(f"\n{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems", soft_wrap=True)
