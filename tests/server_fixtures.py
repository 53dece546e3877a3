"""Fixtures with real servers: an empty database, a Redis. They are not for coroutine tests, whose time is virtual.

One PostgreSQL serves a whole run, whatever number of processes the run has. The process that leads the run holds a lock
as long as it lives. The first test that asks for the server starts a keeper, which starts the server and then waits for
that lock: the server ends with the run, even with one that is killed. The leader, in turn, ends after the keeper.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pytest

from tests import servers

RUN: Final = "TEST_RUN_FOLDER"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database on the server that the whole run shares; to stop a server, run one: `servers.postgres`."""
    server_url = _postgres_of_the_run()
    url = servers.create_database(server_url)
    yield url
    servers.drop_database(server_url, url)


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis of the test's own: it starts in 10 ms, and one for all would mix up the channels of different tests."""
    with servers.redis() as server:
        yield server.url


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a process of pytest-xdist, and not the one that leads
        return
    run = contextlib.ExitStack()
    run.enter_context(_leading())
    config.add_cleanup(run.close)


@contextlib.contextmanager
def _leading() -> Iterator[None]:
    with servers.a_home("run") as (run, _), (run / "keeper").open("ab") as keeper:
        os.environ[RUN] = str(run)
        with _locked(run / "leader"):
            yield
        fcntl.flock(keeper, fcntl.LOCK_EX)


@functools.cache
def _postgres_of_the_run() -> str:
    run = Path(os.environ[RUN])
    answer = run / "postgres.json"
    with _locked(run / "asking"):
        if not answer.exists():
            keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.server_fixtures", run],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            assert keeper.stdout is not None
            with keeper.stdout:
                answer.write_bytes(keeper.stdout.read())
            keeper.returncode = 0  # it may outlive us, and Popen shall not complain
    said = json.loads(answer.read_bytes() or b'{"error": "the keeper of PostgreSQL did not start"}')
    if "error" in said:
        raise servers.StartFailedError(said["error"])
    return str(said["url"])


def _keep(run: Path) -> None:
    """Run the server, say its URL on standard output, and stop it once the run is over."""
    with (run / "leader").open("rb") as leader, _locked(run / "keeper"):
        try:
            with servers.postgres() as server:
                _say({"url": server.url})
                fcntl.flock(leader, fcntl.LOCK_SH)
        except (servers.StartFailedError, servers.ServerMissingError) as error:
            _say({"error": str(error)})


def _say(answer: dict[str, str]) -> None:
    os.write(1, json.dumps(answer).encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who asked reads to the end


def _locked(path: Path) -> IO[bytes]:
    """Open a file and hold its lock until it is closed."""
    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
