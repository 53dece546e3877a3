"""Everything that can be set, read once from the environment and from `.env` in the working directory.

The names in `PLAIN` are the ones that people expect of any such service; every other one begins with `FILLWRIGHT_`.
A name of ours that we do not know, one that is a slip of the pen away from a plain one, a line that cannot be read, or
a value that cannot be meant, stops the start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Annotated, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from dotenv.parser import parse_stream

from fillwright.core.errors import UnknownToken
from fillwright.core.units import address_bytes
from fillwright.core.webhooks import SECRET_MIN

PLAIN: Final = frozenset(
    {"host", "port", "database_url", "redis_url", "queue_concurrency", "queue_rate_limit", "log_level"}
)
PREFIX: Final = "FILLWRIGHT_"
DATABASES: Final = ("sqlite:///", "postgresql://", "postgres://", "memory://")
NODES: Final = ("https://", "http://")
NODE_SOCKETS: Final = ("wss://", "ws://")
REDISES: Final = ("redis://", "rediss://", "unix://")
# Read from the environment by `chain/wallet.py` alone, so that no Settings ever hold them.
SECRETS: Final = frozenset({"FILLWRIGHT_WALLET_KEY", "FILLWRIGHT_WALLET_PASSPHRASE"})
WALLETS: Final = ("keystore:", "file:", "env:")
CLOSE: Final = 0.93  # how alike a name in the environment must be to one of ours to be taken for a slip

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
BpsValue = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class SettingsError(Exception):
    """The environment does not make sense; the message names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 3000
    database_url: str = "sqlite:///fillwright.db"
    redis_url: str = ""
    queue_concurrency: Positive = 10
    queue_rate_limit: Count = 100
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    log_format: Literal["auto", "json", "console"] = "auto"
    metrics: Literal["on", "off"] = "on"
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    traces_url: str = ""
    public_url: str = ""
    trusted_proxies: str = ""
    origins: str = ""
    key_requests_per_minute: Count = 0
    api_key: str = ""
    webhook_secret: str = ""
    webhook_delivery: Literal["on", "off"] = "on"
    webhook_private: Literal["on", "off"] = "off"
    webhook_attempts_max: Positive = 15
    webhook_timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=20_000)] = 10_000
    queue_capacity: Positive = 100_000
    attempts_max: Positive = 3
    retry_delay_ms: Count = 1_000
    retry_delay_max_ms: Count = 60_000
    lease_ms: Annotated[int, msgspec.Meta(ge=500, le=600_000)] = 5_000
    poll_ms: Positive = 1_000
    stop_ms: Count = 8_000
    quote_deadline_ms: Positive = 2_000
    outcome_poll_ms: Positive = 200
    resend_ms: Positive = 2_000
    chain_deadline_ms: Positive = 10_000
    postgres_writers: Annotated[int, msgspec.Meta(ge=1, le=32)] = 2
    postgres_readers: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4
    postgres_timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 5_000
    postgres_patience_ms: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 5_000
    body_max_bytes: Positive = 16_384
    fast_lane: Literal["on", "off"] = "on"
    stream_backlog_max: Positive = 1_000
    stream_connections_max: Positive = 10_000

    mode: Literal["simulated", "paper", "localnet", "devnet", "mainnet"] = "simulated"
    pools: str = ""
    pool_refresh_ms: Annotated[int, msgspec.Meta(ge=50, le=60_000)] = 400
    commitment: Literal["confirmed", "finalized"] = "confirmed"
    fee_lamports_max: Annotated[int, msgspec.Meta(ge=5_000, le=1_000_000_000)] = 2_000_000
    priority_fee_micro_lamports_max: Count = 1_000_000
    tip_account: str = ""
    tip_lamports: Count = 0
    lookup_tables: str = ""
    quote_slots_max: Count = 150
    priority_fee_micro_lamports: Count = 10_000
    amm_v4_fee: Literal["current", "legacy"] = "current"
    unproven_transfer_fees: Literal["on", "off"] = "off"

    rpc_urls: str = field(default="", repr=False)
    send_urls: str = field(default="", repr=False)
    rpc_ws_url: str = field(default="", repr=False)
    rpc_requests_per_second: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 20
    rpc_timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=60_000)] = 3_000
    rpc_deadline_ms: Annotated[int, msgspec.Meta(ge=100, le=60_000)] = 8_000
    rpc_lag_slots_max: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 20
    wallet: str = ""
    wallet_passphrase_file: str = ""

    bullmq_queue: str = "order-queue"
    bullmq_prefix: str = "bull"
    bullmq_concurrency: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    bullmq_lock_ms: Annotated[int, msgspec.Meta(ge=500, le=600_000)] = 10_000

    sim_seed: int = 0
    sim_speed: Annotated[float, msgspec.Meta(ge=0, le=5)] = 1.0
    sim_ledger: str = ""
    sim_raydium_fee_bps: BpsValue = 30
    sim_meteora_fee_bps: BpsValue = 20
    sim_quote_delay_ms: Count = 200
    sim_difference_min_bps: BpsValue = 200
    sim_difference_max_bps: BpsValue = 500
    sim_execution_min_ms: Count = 2_000
    sim_execution_max_ms: Count = 3_000
    sim_quote_error_rate: Rate = 0.0
    sim_venue_down_rate: Rate = 0.0
    sim_slippage_exceeded_rate: Rate = 0.0
    sim_reverted_rate: Rate = 0.0
    sim_dropped_rate: Rate = 0.0
    sim_late_rate: Rate = 0.0
    sim_reply_lost_rate: Rate = 0.0

    def __post_init__(self) -> None:
        if not self.database_url.startswith(tuple(scheme.rstrip("/") + "//" for scheme in DATABASES)):
            raise ValueError(f"DATABASE_URL={_beginning(self.database_url)}: must begin with {' or '.join(DATABASES)}")
        if self.redis_url and not self.redis_url.startswith(REDISES):
            raise ValueError(f"REDIS_URL={_beginning(self.redis_url)}: must begin with {' or '.join(REDISES)}")
        for name, schemes in (("rpc_urls", NODES), ("send_urls", NODES), ("rpc_ws_url", NODE_SOCKETS)):
            for url in listed_urls(getattr(self, name)):
                if not url.startswith(schemes) or not _has_host(url):
                    # The rest of it may be a key, and so may all of it.
                    raise ValueError(f"{env_name(name)}: each URL must begin with {' or '.join(schemes)} and a host")
        if len(listed_urls(self.rpc_ws_url)) > 1:
            raise ValueError(f"{env_name('rpc_ws_url')} must be one URL")
        if self.send_urls and not self.rpc_urls:
            raise ValueError(f"{env_name('send_urls')} is set without {env_name('rpc_urls')}: nobody could be asked")
        scheme, _, rest = self.wallet.partition(":")
        if self.wallet and (f"{scheme}:" not in WALLETS or bool(rest) == (scheme == "env")):
            raise ValueError(f"{env_name('wallet')} must be keystore:PATH, file:PATH or env:")  # it may be a key
        if self.mode != "simulated" and not self.rpc_urls:
            raise ValueError(f"{env_name('mode')}={self.mode} needs nodes to ask: set {env_name('rpc_urls')}")
        if self.mode != "simulated" and not self.pools:
            raise ValueError(f"{env_name('mode')}={self.mode} needs pools to trade with: set {env_name('pools')}")
        for name in ("tip_account", "lookup_tables"):
            for text in getattr(self, name).split(","):
                try:
                    if text.strip():
                        address_bytes(text.strip())
                except UnknownToken:
                    raise ValueError(f"{env_name(name)}: {text.strip()[:64]!r} is no address of Solana") from None
        if bool(self.tip_account) != bool(self.tip_lamports):
            raise ValueError(f"set {env_name('tip_account')} and {env_name('tip_lamports')} together, or neither")
        if 0 < len(self.webhook_secret) < SECRET_MIN:
            raise ValueError(f"{env_name('webhook_secret')} must have {SECRET_MIN} characters or more, at random")
        for low, high in (
            ("sim_difference_min_bps", "sim_difference_max_bps"),
            ("sim_execution_min_ms", "sim_execution_max_ms"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{env_name(low)} is greater than {env_name(high)}")

    @property
    def ledger_path(self) -> str:
        """The simulated chain's file: beside the engine's database, unless it is set."""
        if self.sim_ledger:
            return self.sim_ledger
        if not self.database_url.startswith("sqlite://"):
            if self.database_url.startswith("memory://"):
                return ":memory:"
            return f"fillwright-{urlsplit(self.database_url).path.strip('/') or 'postgres'}.chain.db"
        path = sqlite_path(self.database_url)
        return path if path == ":memory:" else f"{path}.chain.db"


def sqlite_path(url: str) -> str:
    """Return the file that a `sqlite:///` URL names, or ":memory:" where it names none."""
    return url.removeprefix("sqlite://").removeprefix("/") or ":memory:"


def listed_urls(text: str) -> tuple[str, ...]:
    """Return the URLs of a list that is separated by commas, each once."""
    return tuple(dict.fromkeys(url.strip() for url in text.split(",") if url.strip()))


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # what it says quotes the URL
        return False


def without_password(url: str) -> str:
    """Return a URL as it may be shown and logged."""
    hidden = re.sub(r"(?<=://)([^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)((?:^|[?&])(?:ssl)?pass(?:word|file)=)[^&]*", r"\1***", hidden)


def _beginning(url: str) -> str:
    """Return as much of what is no URL as may be shown: anywhere else in it may be a password."""
    scheme, separator, _ = url.partition("://")
    return repr(f"{scheme}://..." if separator else "..." if url else "")


def env_name(field: str) -> str:
    """Return the environment's name of a setting."""
    return field.upper() if field in PLAIN else PREFIX + field.upper()


def read_settings(environ: Mapping[str, str], env_file: Path = Path(".env")) -> Settings:
    """Return the settings; the environment goes before the file. Raise SettingsError naming what is wrong."""
    from_file = _read_file(env_file)
    names = {env_name(field.name): field.name for field in fields(Settings)}
    if misplaced := sorted(SECRETS & from_file.keys()):
        raise SettingsError(f"{misplaced[0]} (in {env_file}): set it in the environment, or use a keystore or file")
    unknown = sorted(
        name
        for name in environ
        if name not in names
        and name not in SECRETS
        and (name.startswith(PREFIX) or get_close_matches(name, names, cutoff=CLOSE))
    )
    unknown += sorted(f"{name} (in {env_file})" for name in from_file if name not in names)
    if unknown:
        close = [match for name in unknown for match in get_close_matches(name.split()[0], names, 1, 0.8)]
        hint = f"did you mean {' and '.join(close)}?" if close else "see .env.example for all that there are"
        raise SettingsError(f"unknown setting: {', '.join(unknown)}; {hint}")
    given = {names[name]: value for name, value in {**from_file, **environ}.items() if name in names}
    for name in ("log_level", "log_format"):
        if name in given:
            given[name] = given[name].lower()
    try:
        return msgspec.convert(given, Settings, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        text = str(error)
        at = text.rpartition("`$.")[2].rstrip("`") if "`$." in text else ""
        if at not in given:
            raise SettingsError(text) from error
        raise SettingsError(f"{env_name(at)}={given[at]!r}: {_in_words(at, text)}") from error


def _read_file(env_file: Path) -> dict[str, str]:
    try:
        text = env_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {env_file}: {error}") from error
    bindings = list(parse_stream(StringIO(text)))
    for binding in bindings:
        if binding.error:
            raise SettingsError(f"{env_file}, line {binding.original.line}: this is not NAME=value")
    return {binding.key: binding.value or "" for binding in bindings if binding.key is not None}


def _in_words(field: str, text: str) -> str:
    kind = get_type_hints(Settings)[field]
    if get_origin(kind) is Literal:
        return f"must be one of {', '.join(get_args(kind))}"
    expected = text.partition(" - at `$.")[0]
    return {
        "Expected `int`, got `str`": "must be a whole number",
        "Expected `float`, got `str`": "must be a number",
    }.get(expected, expected)
