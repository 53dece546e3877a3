"""What the tests with real servers rely on."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis import Redis

from tests import servers
from tests.process import in_real_time

# Tells the URLs of its servers to whoever listens, waits for leave to go on, and ends as a test wants it to.
SAY_AND_WAIT: Final = """
import os, signal, socket
from tests import servers

def say_and_wait(*urls):
    with socket.create_connection(("127.0.0.1", {port})) as listener:
        listener.sendall(" ".join(urls).encode())
        listener.recv(1)
"""
A_TEST: Final = """
def test_with_servers(postgres_url, redis_url):
    say_and_wait(postgres_url, redis_url)
    {ending}
"""
A_PROGRAM: Final = """
with servers.postgres() as postgres, servers.redis() as redis:
    say_and_wait(postgres.url, redis.url)
    {ending}
"""
GREETINGS: Final = {"redis": b"PING\r\n", "postgresql": bytes.fromhex("00000008 04d2162f")}  # an SSLRequest
PYTEST: Final = ("-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "tests.server_fixtures")


async def fetch(url: str, *statements: str) -> list[Any]:
    """Run the statements and return the first column of what the last one yields."""
    connection = await asyncpg.connect(url)
    try:
        answers = [await connection.fetch(statement) for statement in statements]
    finally:
        await connection.close()
    return [row[0] for row in answers[-1]]


def connected(url: str) -> socket.socket:
    """Connect and be answered. The next thing to be read, if nothing more is asked, is the end of the connection."""
    address = urlsplit(url)
    connection = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30)
    connection.sendall(GREETINGS[address.scheme])
    assert connection.recv(100)
    return connection


def test_a_killed_postgres_comes_back_with_what_was_committed() -> None:
    with servers.postgres() as server:
        url = server.new_database()
        in_real_time(fetch(url, "CREATE TABLE orders (id int)", "INSERT INTO orders VALUES (7)"))
        with connected(url) as connection:
            server.kill()
            assert connection.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connected(url)
        server.start()
        assert in_real_time(fetch(url, "SELECT id FROM orders")) == [7]


def test_a_killed_redis_comes_back_with_what_it_wrote() -> None:
    with servers.redis(appendfsync="always") as server, Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.kill()
        server.start()
        assert client.get("key") == b"value"


def test_a_paused_redis_answers_once_resumed() -> None:
    with servers.redis() as server, connected(server.url) as connection:
        server.pause()
        connection.sendall(b"PING\r\n")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        server.resume()
        connection.settimeout(30)
        assert connection.recv(1) == b"+"


def test_data_in_a_folder_of_ones_own_outlives_the_server(tmp_path: Path) -> None:
    with servers.redis(tmp_path / "redis", appendfsync="always") as server, Redis.from_url(server.url) as client:
        client.set("key", "value")
    with servers.redis(tmp_path / "redis") as server, Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


def test_settings_reach_the_server() -> None:
    with servers.postgres(fsync="off", application_name="it's us") as server:
        assert in_real_time(fetch(server.url, "SHOW fsync")) == ["off"]
        assert in_real_time(fetch(server.url, "SHOW application_name")) == ["it's us"]


def test_two_databases_do_not_see_each_other(postgres_url: str) -> None:
    other = servers.create_database(postgres_url)
    in_real_time(fetch(postgres_url, "CREATE TABLE orders (id int)"))
    with pytest.raises(asyncpg.UndefinedTableError):
        in_real_time(fetch(other, "SELECT id FROM orders"))
    servers.drop_database(postgres_url, other)


def test_a_database_can_be_made_where_a_loop_is_running(postgres_url: str) -> None:
    async def make() -> list[Any]:
        return await fetch(servers.create_database(postgres_url), "SELECT 7")

    assert asyncio.run(make()) == [7]


def test_a_redis_is_shared_by_nobody(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert len(client.client_list()) == 1


@pytest.mark.parametrize("choice", ["machine", "packaged"])
@pytest.mark.parametrize("run", [servers.postgres, servers.redis])
def test_the_machines_server_and_the_packaged_one_both_start(
    run: Callable[[], AbstractContextManager[servers.Server]], choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SERVERS", choice)
    try:
        with run() as server, connected(server.url):
            pass
    except servers.ServerMissingError:
        assert choice == "machine"  # which need not have one


@pytest.mark.parametrize("program", [servers.POSTGRES, servers.REDIS], ids=["postgres", "redis"])
def test_a_server_in_the_path_goes_before_the_packaged_one(
    program: servers.Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in program.names:
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("TEST_SERVERS", raising=False)
    assert servers.find(program) == tmp_path


def test_a_missing_server_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_SERVERS", raising=False)
    program = servers.Program(("no-such-server",), ("/nowhere/*/bin",), "no-such-package", "bin")
    with pytest.raises(servers.ServerMissingError, match=r"no-such-server.*/nowhere/\*/bin.*no-such-package"):
        servers.find(program)


@pytest.mark.parametrize(
    ("what", "options", "ending"),
    [
        pytest.param(A_TEST, (*PYTEST, "-n2"), "pass", id="a run that passes"),
        pytest.param(A_TEST, PYTEST, "raise KeyboardInterrupt", id="a run that is interrupted"),
        pytest.param(A_TEST, (*PYTEST, "-n2"), "os.kill(os.getppid(), signal.SIGKILL)", id="a run that is killed"),
        pytest.param(A_PROGRAM, (), "os.kill(os.getpid(), signal.SIGKILL)", id="a program that is killed"),
    ],
)
def test_servers_end_with(what: str, options: tuple[str, ...], ending: str, tmp_path: Path) -> None:
    script = tmp_path / "test_inner.py"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(30)
        script.write_text((SAY_AND_WAIT + what).format(port=listener.getsockname()[1], ending=ending))
        command = [sys.executable, *options, str(script)]
        run = stack.enter_context(
            subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        )
        told = stack.enter_context(listener.accept()[0])
        connections = [stack.enter_context(connected(url)) for url in told.recv(1000).decode().split()]
        told.close()
        assert [connection.recv(1) for connection in connections] == [b"", b""]
        run.wait()
