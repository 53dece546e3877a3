"""A user's terminal: a folder, what is set there, and the commands that are typed into it, each a real process."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

Json = dict[str, Any]

PATIENCE_S: Final = 20


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        (message,) = self.lines
        return message

    @property
    def lines(self) -> list[Json]:
        return [json.loads(line) for line in self.out.splitlines()]


class Lines:
    """What a process writes, read as it comes. Whoever waits for the next line does so for `PATIENCE_S` at most."""

    def __init__(self, pipe: IO[str]) -> None:
        self._coming: queue.Queue[str | None] = queue.Queue()
        self._seen: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def until(self, text: str) -> str:
        """Return the next line that has `text` in it."""
        for line in self._next():
            if text in line:
                return line
        raise AssertionError(f"the process ended without {text!r}: {''.join(self._seen)}")

    def all(self, patience_s: float) -> str:
        """Return everything from the first line to the last, once the process has ended."""
        for _ in self._next(patience_s):
            pass
        return "".join(self._seen)

    def close(self) -> None:
        self._reader.join(PATIENCE_S)

    def _next(self, patience_s: float = PATIENCE_S) -> Iterator[str]:
        try:
            while (line := self._coming.get(timeout=patience_s)) is not None:
                self._seen.append(line)
                yield line
        except queue.Empty:
            raise AssertionError(f"nothing more came within {patience_s} s: {''.join(self._seen)}") from None
        self._coming.put(None)  # the end stays the end, for whoever asks again

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self._coming.put(line)
        self._coming.put(None)


class Running:
    """A command that has been started, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self.pid = process.pid
        self.out, self.err = Lines(process.stdout), Lines(process.stderr)

    def end(self, told: signal.Signals | None = None, within_s: float = PATIENCE_S) -> Ended:
        """Send the signal `told`, if any, and wait for the end."""
        if told is not None:
            self._process.send_signal(told)
        out, err = self.out.all(within_s), self.err.all(within_s)
        return Ended(self._process.wait(within_s), out, err)

    def clean_up(self) -> None:
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(PATIENCE_S)
        self.out.close()
        self.err.close()


class Terminal:
    """Nothing gets in of what is set on the machine that runs the tests. Simulated delays are off."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = {
            "PATH": os.environ["PATH"],
            "TERM": "xterm-256color",
            "SSL_CERT_FILE": os.devnull,  # nothing here speaks TLS, and reading the machine's certificates takes time
            "PORT": "0",
            "DATABASE_URL": "sqlite:///orders.db",
            "FILLWRIGHT_SIM_SPEED": "0",
            **settings,
        }

    def run(self, line: str) -> Ended:
        """Type one command and wait for its end."""
        (ended,) = self.run_all(line)
        return ended

    def run_all(self, *lines: str) -> list[Ended]:
        """Type each command into a window of its own, all at once, and wait for their ends."""
        return run_all((self, line) for line in lines)

    @contextlib.contextmanager
    def start(self, line: str) -> Iterator[Running]:
        """Type a command and do not wait for its end; it comes with the end of the block at the latest."""
        running = Running(
            subprocess.Popen(
                [sys.executable, "-m", "fillwright", *shlex.split(line)],
                cwd=self.folder,
                env=self.settings,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        try:
            yield running
        finally:
            running.clean_up()

    @contextlib.contextmanager
    def serve(self, options: str = "") -> Iterator[tuple[Terminal, Running]]:
        """Run an engine. Yield a terminal whose commands find it, and the engine's process."""
        with self.start(f"serve {options}") as engine:
            port = json.loads(engine.err.until("engine.listening"))["url"].rpartition(":")[2]
            yield Terminal(self.folder, **{**self.settings, "PORT": port}), engine


def run_all(commands: Iterable[tuple[Terminal, str]]) -> list[Ended]:
    """Type commands into several terminals at once, and wait for their ends."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(terminal.start(line)) for terminal, line in commands]
        return [command.end() for command in started]
