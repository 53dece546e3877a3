"""The SDKs' side: npm packages in `build/pools`, and the Node program that quotes with them."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.engine import ROOT, BenchFailed, say
from benchmarks.peers.node import node_version

SOURCES: Final = Path(__file__).parent / "sdk"
INSTALLED: Final = ROOT / "build" / "pools"
LOCK: Final = "package-lock.json"
# No package runs anything when installed. One of them (bigint-buffer) then lacks its native part and does the same in
# JavaScript, in 0.3 µs for each number; the SDKs use it for nothing but what token accounts and mints hold.
INSTALL: Final = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")


def install() -> str:
    """Fetch the packages unless they are there. Return Node's version, raise BenchFailed."""
    version = node_version()
    lock, done = (SOURCES / LOCK).read_bytes(), INSTALLED / "installed.json"
    is_ready = done.is_file() and done.read_bytes() == lock
    if not is_ready:
        shutil.rmtree(INSTALLED, ignore_errors=True)
    shutil.copytree(SOURCES, INSTALLED, dirs_exist_ok=True)
    if not is_ready:
        say("npm ci ...")
        try:
            subprocess.run(INSTALL, cwd=INSTALLED, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BenchFailed(f"the SDKs cannot be installed: {error}") from error
        done.write_bytes(lock)
    return version


def versions() -> dict[str, str]:
    packages: dict[str, str] = json.loads((SOURCES / "package.json").read_bytes())["dependencies"]
    return packages


class Sdks:
    """The Node program, waiting for what to do next: while ours is measured, it does nothing."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    def amounts(self, case: str) -> Sequence[str]:
        """Return what the SDK pays for each vector: digits, or the SDK's error. Raise BenchFailed."""
        amounts: Sequence[str] = self._ask(case=case)["amounts"]
        return amounts

    def timed(self, case: str, passes: int) -> tuple[float, float]:
        """Return the CPU time and the wall time of so many passes over the vectors, in seconds."""
        took = self._ask(case=case, passes=passes)
        return took["cpu_us"] / 1e6, took["wall_us"] / 1e6

    def _ask(self, **request: object) -> Mapping[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._in.write(json.dumps(request) + "\n")
            self._in.flush()
        answer: Mapping[str, Any] = json.loads(self._out.readline() or '{"error": "Node ended by itself"}')
        if "error" in answer:
            raise BenchFailed(f"{request['case']}: {answer['error']}")
        return answer


@contextlib.contextmanager
def running(vectors: Mapping[str, object]) -> Iterator[Sdks]:
    """Start the Node program with the vectors of each case; end it."""
    file = INSTALLED / "vectors.json"
    file.write_text(json.dumps(vectors))
    process = subprocess.Popen(
        ["node", "quotes.cjs", file.name], cwd=INSTALLED, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Sdks(process)
    finally:
        process.kill()
        process.wait()
