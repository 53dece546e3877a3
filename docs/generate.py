"""Write the pages that follow from the code: `make docs`. A test compares them with what this would write now."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from fillwright.api.openapi import error_catalogue
from fillwright.core.lifecycle import (
    STATUS_AFTER,
    TERMINAL,
    TRANSITIONS,
    Accepted,
    AttemptFailed,
    Cancelled,
    Event,
    Failed,
)
from fillwright.core.order import OrderStatus
from fillwright.settings import Settings, env_name

ROOT: Final = Path(__file__).resolve().parent.parent


def main() -> None:
    for path, text in pages().items():
        (ROOT / path).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return every generated file: its path and what belongs in it."""
    return {
        "docs/lifecycle.svg": lifecycle_svg(),
        "docs/errors.md": errors_page(),
        "docs/settings.md": settings_page(),
        "docs/guarantees.md": guarantees_page(),
        ".env.example": env_example(),
    }


# ---- guarantees

PROOF: Final = re.compile(r"(?s)(<!-- proof: .*?-->\n).*(<!-- end of proof -->)")


def guarantees_page() -> str:
    """Return the page with the figures of the last proof in their place; the rest of it is written by hand."""
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "docs/proof.json").read_text(encoding="utf-8"))
    return PROOF.sub(lambda match: match[1] + "\n".join(_figures(report)) + "\n" + match[2], text)


def _figures(report: Mapping[str, Any]) -> Iterator[str]:
    columns = ("orders", "faults", "lost", "doubled", "misreported", "gaps", "drain_s")
    yield ""
    yield f"| campaign | store | {' | '.join(columns)} |"
    yield f"|---|---|{'---:|' * len(columns)}"
    for campaign in report["campaigns"]:
        cells = [f"{campaign[name]:.1f}" if name == "drain_s" else f"{campaign[name]:,}" for name in columns]
        yield f"| {campaign['campaign']} | {campaign['store']} | {' | '.join(cells)} |"
    yield ""
    for campaign in report["campaigns"]:
        if not campaign["passed"]:
            yield f"- {campaign['campaign']} on {campaign['store']} did not pass: {campaign['failures'][0]}"
    simulation, planted, mutation = (report.get(name) for name in ("simulation", "planted", "mutation"))
    if simulation:
        yield f"- Simulation: {simulation['seeds']:,} seeds, {simulation['failed']} failed."
    if planted:
        yield f"- Planted mistakes: {sum(planted.values())} of {len(planted)} found."
    if mutation:
        yield f"- Mutants of `core/`: {mutation['killed']:,} of {mutation['mutants']:,} killed."
    yield ""


# ---- settings

# What each setting means, in one line. A setting without a meaning, or a meaning without its setting, is an error.
MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "The engine": {
        "host": "Address to listen on; `0.0.0.0` for all of the machine's.",
        "port": "Port to listen on; 0 takes a free one.",
        "database_url": "Where orders are kept: `sqlite:///` and a path (a fourth slash makes it absolute),"
        " `postgresql://user:password@host:port/database`, or `memory://`, which forgets them at the end.",
        "redis_url": "The Redis that carries news between processes, such as `redis://localhost:6379/0`; empty: none,"
        " and processes hear of each other by polling.",
        "log_level": "The least that is logged.",
        "metrics": "Whether what happens is counted for Prometheus, and told at `/metrics`.",
        "metrics_host": "Address at which each process tells its metrics, to whoever asks, besides the API.",
        "metrics_port": "Port for that; 0: none. With several processes on one machine, each needs its own:"
        " `fillwright all` takes this one and those that follow.",
        "traces_url": "Where traces of orders are sent by OTLP over HTTP, such as `http://localhost:4318/v1/traces`;"
        " needs `pip install 'fillwright[traces]'`.",
        "log_format": "`json`, `console`, or `auto`: console on a terminal, JSON elsewhere.",
    },
    "Queue and worker": {
        "queue_concurrency": "Orders that a worker works on at the same time.",
        "queue_rate_limit": "Most orders begun in any 60 s, over all workers of the database; 0 turns the limit off.",
        "queue_capacity": "Open orders at most; one more is answered with 429 `queue_full`.",
        "attempts_max": "Attempts per order, the first included.",
        "retry_delay_ms": "Wait before the second attempt; doubles before each further one, plus up to 10 % jitter.",
        "retry_delay_max_ms": "The longest wait before an attempt, jitter aside.",
        "lease_ms": "How long a worker's order stays its own without a sign of life; after a crash, orders go on then.",
        "poll_ms": "How often worker and streams look into the log unasked, in case news was lost.",
        "stop_ms": "How long a stop waits for orders in hand before it gives them back.",
        "quote_deadline_ms": "How long venues have to quote; who is late is passed over.",
        "outcome_poll_ms": "How often the chain is asked for the outcome of what was sent.",
        "chain_deadline_ms": "How long the chain may take to answer; a later answer counts as unknown.",
        "resend_ms": "How often the same signed bytes are sent again until the chain has decided.",
    },
    "PostgreSQL": {
        "postgres_writers": "Connections that append events; new orders and claims have one more each.",
        "postgres_readers": "Connections for lists, counts and health at most.",
        "postgres_timeout_ms": "How long a statement may take.",
        "postgres_patience_ms": "How long a lost connection is sought again before the caller is told.",
    },
    "HTTP and streams": {
        "public_url": "How clients reach the engine, such as `https://orders.example.com`, for the `websocket` address"
        " in answers; empty: as the request came.",
        "trusted_proxies": "Peers, separated by commas, whose `X-Forwarded-Proto` and `-Host` headers are believed.",
        "origins": "Web pages, separated by commas, that may open streams, such as `https://desk.example.com`.",
        "key_requests_per_minute": "Requests that each key may make in a minute, at each API process; 0: no limit.",
        "api_key": "The key that the commands of the command line show to an engine that asks for one.",
        "body_max_bytes": "Largest request body and WebSocket message.",
        "fast_lane": "Whether POSTs of orders are answered past the ASGI layer: the same answers at less cost.",
        "stream_backlog_max": "Updates that a stream's client may be behind before it is closed.",
        "stream_connections_max": "Streams open at the same time.",
    },
    "Webhooks": {
        "webhook_secret": "What the secrets that sign deliveries are made of: 32 random characters or more, the same"
        " for all processes. Without it there are no webhooks.",
        "webhook_delivery": "Whether this worker delivers to webhooks, too.",
        "webhook_private": "Whether addresses of this machine's network, and plain HTTP, may be told.",
        "webhook_attempts_max": "Tries of a delivery, a second apart at first and an hour in the end, before it is"
        " given up.",
        "webhook_timeout_ms": "How long an address may take to answer.",
    },
    "Chain and pools": {
        "mode": "`simulated`: swaps are made on a simulated chain. `paper`: real pools are quoted, fills are simulated,"
        " nothing is signed. `localnet`, `devnet` and `mainnet`: swaps are signed and sent"
        " ([going-live.md](going-live.md)).",
        "pools": "Where the pools are. While simulated, a file or folder of snapshots from `fillwright pools fetch`,"
        " quoted exactly as their programs would; empty: the simulated market. Else the pools' addresses, separated by"
        " commas, or a file with one a line.",
        "pool_refresh_ms": "How long what was read of a pool serves.",
        "commitment": "From when a swap counts as confirmed. What counts before it is final is watched until it is.",
        "fee_lamports_max": "The most that a transaction may cost, signature and priority fee together.",
        "priority_fee_micro_lamports_max": "The most that a transaction bids for each compute unit.",
        "tip_account": "Whom each transaction pays a tip, for landing sooner; empty: nobody.",
        "tip_lamports": "How much.",
        "lookup_tables": "Address lookup tables, separated by commas, that make transactions smaller.",
        "quote_slots_max": "How many slots a pool may lie behind what was read last before it is not quoted.",
        "priority_fee_micro_lamports": "What a transaction pays for each compute unit, which counts in the comparison.",
        "amm_v4_fee": "How Raydium's AMM v4 rounds its fee: `current` as programs since August 2025, `legacy` as older"
        " ones, which take nothing where it is less than half a unit.",
        "unproven_transfer_fees": "Whether to quote pools of types for which the transfer fees of Token-2022 are known"
        " from documentation, but were not compared with swaps (CLMM and DLMM).",
    },
    "Solana nodes": {
        "rpc_urls": "JSON-RPC addresses of nodes, separated by commas, keys and all; each call goes to the one that"
        " looks best, and to the next if that does not answer. They are never logged: nodes are called by their host.",
        "send_urls": "Further addresses to which transactions are sent, besides the nodes.",
        "rpc_ws_url": "WebSocket address of a node, which tells sooner that something has landed; empty: none. What it"
        " says saves asking, and decides nothing.",
        "rpc_requests_per_second": "Requests to each address at most; 0: no limit.",
        "rpc_timeout_ms": "How long one node may take to answer before the next is asked.",
        "rpc_deadline_ms": "How long all nodes together may take; best below `FILLWRIGHT_CHAIN_DEADLINE_MS`.",
        "rpc_lag_slots_max": "How many slots a node may be behind the best one before it is asked after the others.",
    },
    "Wallet": {
        "wallet": "Where the key is that signs: `keystore:PATH`, a file of `fillwright wallet create`; `file:PATH`, one"
        " of Solana's command line; or `env:`, which takes it from `FILLWRIGHT_WALLET_KEY`. That name and"
        " `FILLWRIGHT_WALLET_PASSPHRASE`, the keystore's passphrase, are read from the environment alone.",
        "wallet_passphrase_file": "A file with the keystore's passphrase, open to nobody else; empty, and no"
        " `FILLWRIGHT_WALLET_PASSPHRASE`: it is asked for on the terminal.",
    },
    "BullMQ bridge": {
        "bullmq_queue": "The queue that `fillwright bullmq` takes orders from.",
        "bullmq_prefix": "The prefix of that queue's keys in Redis.",
        "bullmq_concurrency": "Jobs in hand at most; a job is in hand until its order is over.",
        "bullmq_lock_ms": "How long a job stays a bridge's own without a sign of life; after a crash, another one takes"
        " it within about twice that time.",
    },
    "Simulated market": {
        "sim_seed": "What prices and mishaps are drawn from; processes with the same seed see the same market.",
        "sim_speed": "Factor on all simulated delays: 1 is life-like, 0 is none.",
        "sim_raydium_fee_bps": "Raydium's fee, in basis points.",
        "sim_meteora_fee_bps": "Meteora's fee, in basis points.",
        "sim_quote_delay_ms": "How long a venue takes to quote.",
        "sim_difference_min_bps": "Least difference between the venues' prices, in basis points.",
        "sim_difference_max_bps": "Greatest difference between the venues' prices, in basis points.",
        "sim_quote_error_rate": "Share of quotes that fail.",
        "sim_venue_down_rate": "Share of time, in stretches of 10 s, that a venue is down.",
    },
    "Simulated chain": {
        "sim_ledger": "The chain's own file, the same for all processes; empty: beside an SQLite database, with"
        " `.chain.db` behind its name; with PostgreSQL, `fillwright-<database>.chain.db` in the working directory.",
        "sim_execution_min_ms": "Least time from sending to landing.",
        "sim_execution_max_ms": "Greatest time from sending to landing.",
        "sim_slippage_exceeded_rate": "Share of swaps that fail on chain because the price moved beyond the limit.",
        "sim_reverted_rate": "Share of swaps that fail on chain for another reason.",
        "sim_dropped_rate": "Share of sends that never arrive.",
        "sim_late_rate": "Share of transactions that land around the end of their time, some of them too late.",
        "sim_reply_lost_rate": "Share of calls to the chain that are carried out but not answered.",
    },
}


class Setting(NamedTuple):
    name: str
    default: str
    values: str
    meaning: str


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Read once at the start from the environment, and from a file `.env` in the working directory; the environment"
        " goes before the file. An unknown name that begins with `FILLWRIGHT_` (in the file: any unknown name), or a"
        " value that cannot be meant, stops the start and says which. [.env.example](../.env.example) has them all.",
    ]
    for group, settings in _settings():
        lines += ["", f"## {group}", "", "| name | default | values | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{s.name}` | {f'`{s.default}`' if s.default else ''} | {s.values} | {s.meaning} |" for s in settings
        ]
    return "\n".join(lines) + "\n"


def env_example() -> str:
    lines = ["# Copy to .env and change what you need. Every setting there is, with its default."]
    for group, settings in _settings():
        lines += ["", f"## {group}"]
        for setting in settings:
            lines += ["", f"# {setting.meaning.replace('`', '')}", f"{setting.name}={setting.default}"]
    return "\n".join(lines) + "\n"


def _settings() -> Iterator[tuple[str, list[Setting]]]:
    defaults = {field.name: field.default for field in fields(Settings) if field.default is not MISSING}
    explained = [name for meanings in MEANINGS.values() for name in meanings]
    if sorted(explained) != sorted(field.name for field in fields(Settings)):
        odd = set(explained) ^ {field.name for field in fields(Settings)}
        raise ValueError(f"docs/generate.py: MEANINGS and Settings differ in {', '.join(sorted(odd)) or 'a duplicate'}")
    types = get_type_hints(Settings, include_extras=True)
    for group, meanings in MEANINGS.items():
        yield (
            group,
            [
                Setting(env_name(name), str(defaults[name]), _values(types[name]), meaning)
                for name, meaning in meanings.items()
            ],
        )


def _values(type_: Any) -> str:
    if get_origin(type_) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(type_))
    if get_origin(type_) is Annotated:
        base, *metas = get_args(type_)
        for meta in metas:
            if isinstance(meta, msgspec.Meta):
                return f"{_values(base)}, {meta.ge:,} to {meta.le:,}"
    return {int: "whole number", float: "number", str: "text"}[type_]


# ---- errors


def errors_page() -> str:
    catalogue = error_catalogue()
    lines = [
        "# Error codes",
        "",
        "A code never changes once published. An answer with an error is `application/problem+json` (RFC 9457):"
        " `type`, `title`, `status`, `detail` and `code`, the same again as `error` (the title) and `message` (the"
        " detail), and `field` where one part of the request is at fault. A refusal by one of"
        " the operators' limits names it in `limit`: its `name`, and whose it is, `of`. 429 and 503 carry"
        " `Retry-After`.",
        "",
        "## In answers",
        "",
        "| code | status | meaning |",
        "|---|---|---|",
        *(f"| `{code}` | {status} | {title} |" for code, status, _, title in catalogue if status is not None),
        "",
        "## Why an attempt failed",
        "",
        "In the order's `error`, its attempts and its events. After an error that is retried another attempt follows,"
        " as long as `FILLWRIGHT_ATTEMPTS_MAX` allows.",
        "",
        "| code | retried | meaning |",
        "|---|---|---|",
        *(
            f"| `{code}` | {'yes' if retryable else 'no'} | {title} |"
            for code, _, retryable, title in catalogue
            if retryable is not None
        ),
        "",
        "## Between the engine's own parts",
        "",
        "Never in an answer; in the log.",
        "",
        "| code | meaning |",
        "|---|---|",
        *(
            f"| `{code}` | {title} |"
            for code, status, retryable, title in catalogue
            if (status, retryable) == (None, None)
        ),
    ]
    return "\n".join(lines) + "\n"


# ---- lifecycle


class Lane(NamedTuple):
    """A line that statuses share on their way to one: its height, and how far beside their middle they join it."""

    y: int
    dx: int


WIDTH, HEIGHT = 1024, 366
BOX_WIDTH, BOX_HEIGHT = 112, 44
CORNER: Final = 9
AT: Final[Mapping[OrderStatus, tuple[int, int]]] = {
    OrderStatus.PENDING: (150, 130),
    OrderStatus.ROUTING: (350, 130),
    OrderStatus.BUILDING: (550, 130),
    OrderStatus.SUBMITTED: (750, 130),
    OrderStatus.CONFIRMED: (950, 130),
    OrderStatus.EXPIRED: (110, 316),
    OrderStatus.CANCELLED: (350, 316),
    OrderStatus.FAILED: (650, 316),
}
LANES: Final[Mapping[type[Event], Lane]] = {
    AttemptFailed: Lane(y=56, dx=0),
    Cancelled: Lane(y=204, dx=-24),
    Failed: Lane(y=244, dx=24),
}
STYLE: Final = """
    text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #57606a; }
    .card { fill: #ffffff; stroke: #d0d7de; }
    .status text { font-weight: 600; font-size: 14px; fill: #1f2328; text-anchor: middle; }
    .status rect { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5; }
    .over rect { fill: #f6f8fa; stroke: #6e7781; }
    .confirmed rect { fill: #dafbe1; stroke: #1a7f37; }
    .failed rect { fill: #ffebe9; stroke: #cf222e; }
    .line { fill: none; stroke: currentColor; stroke-width: 1.5; }
    .tip { fill: currentColor; }
    .event { color: #57606a; }
    .AttemptFailed { color: #bf8700; } .Failed { color: #cf222e; } .Cancelled, .Expired { color: #8c959f; }
    .middle { text-anchor: middle; }
    @media (prefers-color-scheme: dark) {
      text { fill: #9198a1; } .card { fill: #0d1117; stroke: #3d444d; } .status text { fill: #f0f6fc; }
      .status rect { fill: #0c2d4d; stroke: #4493f8; } .over rect { fill: #21262d; stroke: #9198a1; }
      .confirmed rect { fill: #12341d; stroke: #3fb950; } .failed rect { fill: #3c1618; stroke: #f85149; }
      .event { color: #9198a1; } .AttemptFailed { color: #d29922; } .Failed { color: #f85149; }
      .Cancelled, .Expired { color: #848d97; }
    }
""".rstrip()


def lifecycle_svg() -> str:
    """Return the diagram of `TRANSITIONS`: progress from left to right, retries above, ends without a fill below."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' role="img" aria-labelledby="title desc">',
        '  <title id="title">The life of an order</title>',
        f'  <desc id="desc">{_told()}</desc>',
        f"  <style>{STYLE}\n  </style>",
        f'  <rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        *_arrow(Accepted, (12, AT[OrderStatus.PENDING][1]), AT[OrderStatus.PENDING], gap=0),
    ]
    for status, row in TRANSITIONS.items():
        for event, after in row.items():
            if event not in LANES:
                lines += _arrow(event, AT[status], AT[after])
    for event, lane in LANES.items():
        lines += _lane(event, lane, [AT[status] for status, row in TRANSITIONS.items() if event in row])
    for status in OrderStatus:
        x, y = AT[status]
        over = " over" if status in TERMINAL else ""
        lines.append(
            f'  <g class="status{over} {status}"><rect x="{x - BOX_WIDTH // 2}" y="{y - BOX_HEIGHT // 2}"'
            f' width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="{22 if over else 8}"/>'
            f'<text x="{x}" y="{y + 5}">{status}</text></g>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _told() -> str:
    rows = (
        f"{status}: " + ", ".join(f"{event.__name__} leads to {after}" for event, after in row.items())
        for status, row in TRANSITIONS.items()
        if row
    )
    return "; ".join(rows) + "."


def _arrow(
    event: type[Event], start: tuple[int, int], end: tuple[int, int], gap: int = BOX_WIDTH // 2
) -> Iterator[str]:
    """Draw straight to the right, or straight down, with the event's name at the line."""
    (x1, y1), (x2, y2) = start, end
    name = event.__name__
    if y1 == y2:
        left, right = x1 + gap, x2 - BOX_WIDTH // 2
        yield _line(name, f"M{left} {y1}H{right - 8}", f"M{right} {y1}l-10 -5v10z")
        words = re.findall("[A-Z][a-z]+", name)
        for number, word in enumerate(words):
            y = y1 - 8 - 15 * (len(words) - 1 - number)
            yield f'  <text class="middle" x="{(left + right) // 2 - 2}" y="{y}">{word}</text>'
    else:
        top, bottom = y1 + BOX_HEIGHT // 2, y2 - BOX_HEIGHT // 2
        yield _line(name, f"M{x2} {top}V{bottom - 8}", f"M{x2} {bottom}l-5 -10h10z")
        yield f'  <text x="{x2 + 8}" y="{bottom - 14}">{name}</text>'


def _lane(event: type[Event], lane: Lane, starts: list[tuple[int, int]]) -> Iterator[str]:
    """Draw from each start, out of it by `lane.dx` beside its middle, to the lane and along it to where it leads."""
    end_x, end_y = AT[STATUS_AFTER[event]]
    name = event.__name__
    into = 1 if end_y > lane.y else -1
    end = end_y - into * BOX_HEIGHT // 2
    for start_x, start_y in starts:
        x, out = start_x + lane.dx, 1 if lane.y > start_y else -1
        along = CORNER if end_x > x else -CORNER
        line = (
            f"M{x} {start_y + out * BOX_HEIGHT // 2}V{lane.y - out * CORNER}Q{x} {lane.y} {x + along} {lane.y}"
            f"H{end_x - along}Q{end_x} {lane.y} {end_x} {lane.y + into * CORNER}V{end - into * 8}"
        )
        yield _line(name, line, f"M{end_x} {end}l-5 {-into * 10}h10z")
    text_x, text_y = (end_x + 8, end - 14) if lane.y > starts[0][1] else (end_x + 14, lane.y - 8)
    yield f'  <text x="{text_x}" y="{text_y}">{name}</text>'


def _line(name: str, line: str, tip: str) -> str:
    return f'  <g class="event {name}"><path class="line" d="{line}"/><path class="tip" d="{tip}"/></g>'


if __name__ == "__main__":
    main()
