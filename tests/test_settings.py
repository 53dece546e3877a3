"""What can be set, from where, and how a mistake is told."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest

from fillwright.settings import Settings, SettingsError, env_name, read_settings, without_password

NOWHERE: Final = Path("no-such-folder/.env")
TEXTS: Final = {
    "wallet",  # never repeated: it may be a key
    "wallet_passphrase_file",
    "host",
    "database_url",
    "redis_url",
    "bullmq_queue",
    "bullmq_prefix",
    "public_url",
    "metrics_host",
    "traces_url",
    "trusted_proxies",
    "origins",
    "api_key",
    "pools",
    "webhook_secret",
    "tip_account",
    "lookup_tables",
    "sim_ledger",
    "rpc_urls",
    "send_urls",
    "rpc_ws_url",
}


def refusal(environ: dict[str, str], env_file: Path = NOWHERE) -> str:
    with pytest.raises(SettingsError) as refused:
        read_settings(environ, env_file)
    return str(refused.value)


def a_file(folder: Path, text: str) -> Path:
    env_file = folder / ".env"
    env_file.write_text(text, encoding="utf-8")
    return env_file


def test_where_nothing_is_set_the_engine_is_the_seed_s() -> None:
    settings = read_settings({}, NOWHERE)
    assert settings.port == 3000
    assert (settings.queue_concurrency, settings.queue_rate_limit, settings.attempts_max) == (10, 100, 3)
    assert (settings.sim_raydium_fee_bps, settings.sim_meteora_fee_bps) == (30, 20)
    assert settings.sim_quote_delay_ms == 200
    assert (settings.sim_execution_min_ms, settings.sim_execution_max_ms) == (2_000, 3_000)
    assert (settings.sim_difference_min_bps, settings.sim_difference_max_bps) == (200, 500)


def test_nobody_is_let_in_from_outside_by_default() -> None:
    assert read_settings({}, NOWHERE).host == "127.0.0.1"


def test_the_environment_goes_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    env_file = a_file(tmp_path, "PORT=4000\nFILLWRIGHT_SIM_SPEED=0.5\n")
    settings = read_settings({"PORT": "5000", "LOG_LEVEL": "DEBUG"}, env_file)
    assert (settings.port, settings.sim_speed, settings.log_level) == (5000, 0.5, "debug")
    assert settings.queue_concurrency == Settings().queue_concurrency


@pytest.mark.parametrize("name", ["FILLWRIGHT_X", "FILLWRIGHT_PORT", "FILLWRIGHT_SIM_SPEEED"])
def test_a_name_of_ours_that_we_do_not_know_is_refused_by_name(tmp_path: Path, name: str) -> None:
    assert refusal({name: "1"}).startswith(f"unknown setting: {name};")
    env_file = a_file(tmp_path, f"{name}=1\n")
    assert refusal({}, env_file).startswith(f"unknown setting: {name} (in {env_file});")


def test_in_our_own_file_no_unknown_name_is_let_pass_but_in_the_environment_others_have_theirs(tmp_path: Path) -> None:
    assert read_settings({"PROT": "1", "EDITOR": "ed"}, NOWHERE) == Settings()
    assert "unknown setting: PROT (in " in refusal({}, a_file(tmp_path, "PROT=1\n"))


@pytest.mark.parametrize(
    "given",
    [
        {"FILLWRIGHT_TIP_ACCOUNT": "me", "FILLWRIGHT_TIP_LAMPORTS": "1"},
        {"FILLWRIGHT_LOOKUP_TABLES": "So11111111111111111111111111111111111111112,me"},
    ],
    ids=["tip", "tables"],
)
def test_what_is_no_address_stops_the_start(given: dict[str, str]) -> None:
    assert "'me' is no address of Solana" in refusal(given)


def test_a_secret_that_is_too_short_is_refused_and_not_shown() -> None:
    assert "swordfish" not in (told := refusal({"FILLWRIGHT_WEBHOOK_SECRET": "swordfish"}))
    assert "FILLWRIGHT_WEBHOOK_SECRET" in told


def test_every_unknown_name_is_told_at_once() -> None:
    assert "FILLWRIGHT_A, FILLWRIGHT_B" in refusal({"FILLWRIGHT_B": "1", "FILLWRIGHT_A": "1"})


@pytest.mark.parametrize("field", [field.name for field in fields(Settings) if field.name not in TEXTS])
@pytest.mark.parametrize("value", ["what?", ""])
def test_a_value_that_cannot_be_read_names_its_variable(field: str, value: str) -> None:
    assert refusal({env_name(field): value}).startswith(f"{env_name(field)}={value!r}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "3000.5"),
        ("QUEUE_CONCURRENCY", "0"),
        ("QUEUE_RATE_LIMIT", "-1"),
        ("LOG_LEVEL", "loud"),
        ("FILLWRIGHT_LOG_FORMAT", "xml"),
        ("FILLWRIGHT_ATTEMPTS_MAX", "0"),
        ("FILLWRIGHT_LEASE_MS", "499"),
        ("FILLWRIGHT_SIM_SPEED", "5.1"),
        ("FILLWRIGHT_SIM_SPEED", "nan"),
        ("FILLWRIGHT_SIM_DROPPED_RATE", "1.1"),
        ("FILLWRIGHT_SIM_DROPPED_RATE", "-0.1"),
        ("FILLWRIGHT_SIM_RAYDIUM_FEE_BPS", "10001"),
    ],
)
def test_a_value_out_of_bounds_names_its_variable(tmp_path: Path, name: str, value: str) -> None:
    assert refusal({name: value}).startswith(f"{name}={value!r}: ")
    assert refusal({}, a_file(tmp_path, f"{name}={value}\n")).startswith(f"{name}={value!r}: ")


@pytest.mark.parametrize("pair", ["FILLWRIGHT_SIM_EXECUTION_{}_MS", "FILLWRIGHT_SIM_DIFFERENCE_{}_BPS"])
def test_a_least_above_its_greatest_names_both(pair: str) -> None:
    least, greatest = pair.format("MIN"), pair.format("MAX")
    assert refusal({least: "5001", greatest: "5000"}) == f"{least} is greater than {greatest}"
    assert read_settings({least: "5000", greatest: "5000"}, NOWHERE) != Settings()


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({}, "fillwright.db.chain.db"),
        ({"DATABASE_URL": "sqlite:////var/lib/orders.db"}, "/var/lib/orders.db.chain.db"),
        ({"DATABASE_URL": "sqlite://"}, ":memory:"),
        ({"DATABASE_URL": "memory://"}, ":memory:"),
        ({"FILLWRIGHT_SIM_LEDGER": "chain.db"}, "chain.db"),
    ],
)
def test_the_simulated_chain_is_kept_beside_the_orders(settings: dict[str, str], path: str) -> None:
    assert read_settings(settings, NOWHERE).ledger_path == path


@pytest.mark.parametrize("line", ["PORT 3046", 'PORT="3044', "DATABASE_URL sqlite:///x.db"])
def test_a_line_of_the_file_that_cannot_be_read_stops_the_start(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"LOG_LEVEL=info\n{line}\n")
    with pytest.raises(SettingsError, match=r"\.env, line 2: this is not NAME=value"):
        read_settings({}, tmp_path / ".env")


def test_a_slip_of_the_pen_in_a_plain_name_stops_the_start_and_is_put_right(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"QUEUE_CONCURENCY; did you mean QUEUE_CONCURRENCY\?"):
        read_settings({"QUEUE_CONCURENCY": "5"}, tmp_path / ".env")
    read_settings({"HOSTNAME": "h", "PORTS": "1", "QUEUE": "x", "DATABASE": "y"}, tmp_path / ".env")


def test_a_value_is_refused_in_words_that_say_what_to_write(tmp_path: Path) -> None:
    for name, value, words in (
        ("PORT", "abc", "must be a whole number"),
        ("LOG_LEVEL", "loud", "must be one of debug, info, warning, error"),
        ("DATABASE_URL", "mysql://x", "must begin with sqlite:/// or postgresql:// or postgres:// or memory://"),
        ("REDIS_URL", "http://x", "must begin with redis:// or rediss:// or unix://"),
    ):
        with pytest.raises(SettingsError, match=f"{name}=.*{words}"):
            read_settings({name: value}, tmp_path / ".env")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:secret@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:se@cret/#@host/db", "postgresql://user:***@host/db"),
        ("postgresql://host/db?password=secret&sslmode=require", "postgresql://host/db?password=***&sslmode=require"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("sqlite:///orders.db", "sqlite:///orders.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_the_chain_s_file_does_not_bear_a_password() -> None:
    for url in ("postgresql://user:secret@host:5432", "postgresql://user:secret@host:5432/orders?password=secret"):
        assert "secret" not in Settings(database_url=url).ledger_path


def test_what_is_no_url_is_refused_without_being_shown() -> None:
    for name, url in (
        ("DATABASE_URL", "postgresql:/user:secret@host/orders"),
        ("DATABASE_URL", "user:secret@host/orders"),
        ("DATABASE_URL", "mysql://user:secret@host/orders"),
        ("REDIS_URL", ":secret@host:6379"),
    ):
        told = refusal({name: url})
        assert told.startswith(f"{name}=")
        assert "secret" not in told


def test_the_address_of_a_node_is_refused_without_being_shown() -> None:
    for name in ("FILLWRIGHT_RPC_URLS", "FILLWRIGHT_SEND_URLS", "FILLWRIGHT_RPC_WS_URL"):
        good = {"FILLWRIGHT_RPC_URLS": "https://node"}
        for url in (
            "node/canary",
            "ftp://canary",
            "https:///canary",
            "https://[canary",
            "https://node:canary",
            "canary",
        ):
            told = refusal({**good, name: url})
            assert told.startswith(f"{name}: each URL must begin with ")
            assert "canary" not in told
    assert "canary" not in repr(Settings(rpc_urls="https://node/canary", rpc_ws_url="wss://node/canary"))


def test_where_transactions_are_sent_somebody_must_be_asked_what_became_of_them() -> None:
    assert "FILLWRIGHT_RPC_URLS: nobody could be asked" in refusal({"FILLWRIGHT_SEND_URLS": "https://node"})
    assert refusal({"FILLWRIGHT_RPC_WS_URL": "wss://a,wss://b"}) == "FILLWRIGHT_RPC_WS_URL must be one URL"
