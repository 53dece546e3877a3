"""Everything that can be set, read once from the environment and from `.env` in the working directory.

The names in `PLAIN` are the ones that people expect of any such service; every other one begins with `FILLWRIGHT_`.
A name of ours that we do not know, or a value that cannot be meant, stops the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from dotenv import dotenv_values

PLAIN: Final = frozenset({"host", "port", "database_url", "queue_concurrency", "queue_rate_limit", "log_level"})
PREFIX: Final = "FILLWRIGHT_"

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
    queue_concurrency: Positive = 10
    queue_rate_limit: Count = 100
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    log_format: Literal["auto", "json", "console"] = "auto"
    public_url: str = ""
    trusted_proxies: str = ""
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
    body_max_bytes: Positive = 16_384
    stream_backlog_max: Positive = 1_000
    stream_connections_max: Positive = 10_000

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
            return f"fillwright-{self.database_url.rpartition('/')[2].partition('?')[0]}.chain.db"
        path = sqlite_path(self.database_url)
        return path if path == ":memory:" else f"{path}.chain.db"


def sqlite_path(url: str) -> str:
    """Return the file that a `sqlite:///` URL names, or ":memory:" where it names none."""
    return url.removeprefix("sqlite://").removeprefix("/") or ":memory:"


def env_name(field: str) -> str:
    """Return the environment's name of a setting."""
    return field.upper() if field in PLAIN else PREFIX + field.upper()


def read_settings(environ: Mapping[str, str], env_file: Path = Path(".env")) -> Settings:
    """Return the settings; the environment goes before the file. Raise SettingsError naming what is wrong."""
    from_file = {name: value or "" for name, value in dotenv_values(env_file).items()}
    names = {env_name(field.name): field.name for field in fields(Settings)}
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in names)
    unknown += sorted(f"{name} (in {env_file})" for name in from_file if name not in names)
    if unknown:
        raise SettingsError(f"unknown setting: {', '.join(unknown)}; see .env.example for all that there are")
    given = {names[name]: value for name, value in {**from_file, **environ}.items() if name in names}
    for field in ("log_level", "log_format"):
        if field in given:
            given[field] = given[field].lower()
    try:
        return msgspec.convert(given, Settings, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        text = str(error)
        at = text.rpartition("`$.")[2].rstrip("`") if "`$." in text else ""
        detail = text.partition(" - at `$.")[0]
        raise SettingsError(f"{env_name(at)}={given[at]!r}: {detail}" if at in given else detail) from error
