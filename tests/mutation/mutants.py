"""mutmut over core/, in a copy of the tree, and its survivors against those that somebody has looked at.

mutmut mutates the bodies of functions. What stands outside of them (the tables, the codes, the patterns) it leaves
alone, and functions with a decorator, too; `lru_cache`, which changes no answer, is therefore taken off in the copy.
A cache would also carry answers from one mutant over to the next.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

Json = dict[str, Any]

ROOT: Final = Path(__file__).resolve().parents[2]
CORE: Final = Path("src/fillwright/core")
COPIED: Final = ("src", "tests", "pyproject.toml")
LISTED: Final = Path(__file__).with_name("survivors.toml")
SCORE_MIN: Final = 90.0
CACHE: Final = re.compile(r"^@lru_cache\(.*\)\n", re.MULTILINE)


class BrokenRun(Exception):
    """The mutants could not be tried: the tests fail on the unchanged core, or the run was interrupted."""


@dataclass(frozen=True, slots=True)
class Change:
    """A mutant by what it changes: its number would be another one after the next edit of the function."""

    function: str
    was: tuple[str, ...]
    now: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.function, *(f"  - {line}" for line in self.was), *(f"  + {line}" for line in self.now)])


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that no test told from the core. `reason` is why that is so, None if nobody has looked at it."""

    change: Change
    status: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class MutationResult:
    """`score` is the killed in percent of all; what ran out of time is not killed: that may be the machine's fault.

    `unlisted` are the survivors without a reason, `stale` the listed changes that did not survive.
    """

    mutants: int
    killed: int
    survived: int
    timeout: int
    score: float
    unlisted: tuple[Survivor, ...]
    listed: tuple[Survivor, ...]
    stale: tuple[Change, ...]

    @property
    def passed(self) -> bool:
        return self.score >= SCORE_MIN and not self.unlisted

    def as_json(self) -> Json:
        return {**asdict(self), "passed": self.passed}


def run(children: int = 2) -> MutationResult:
    """Try every mutant of core/ and return what became of them. Raise BrokenRun if that was not possible."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name).resolve()
        copy_tree(folder)
        mutmut = Path(sys.executable).with_name("mutmut")
        done = subprocess.run(
            [mutmut, "run", "--max-children", str(children)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BrokenRun(f"mutmut ended with {done.returncode}:\n{done.stdout[-4_000:]}")
        with contextlib.chdir(folder):  # mutmut finds its files from where it stands
            return judge(read_statuses(), read_listed())


def copy_tree(folder: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    for path in (folder / CORE).glob("*.py"):
        path.write_text(CACHE.sub("", path.read_text()))


def read_statuses() -> dict[str, tuple[Path, str]]:
    """Return the file and the fate of each mutant."""
    return {
        name: (CORE / meta.name.removesuffix(".meta"), status_by_exit_code[code])
        for meta in sorted((Path("mutants") / CORE).glob("*.py.meta"))
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()
    }


def read_listed() -> dict[Change, str]:
    entries = tomllib.loads(LISTED.read_text())["survivor"]
    return {
        Change(entry["function"], lines_of(entry.get("was", "")), lines_of(entry.get("now", ""))): entry["reason"]
        for entry in entries
    }


def judge(statuses: dict[str, tuple[Path, str]], reasons: dict[Change, str]) -> MutationResult:
    counts = Counter(status for _, status in statuses.values())
    untried = counts["not checked"] + counts["check was interrupted by user"]
    if not statuses or untried:
        raise BrokenRun(f"{untried} of {len(statuses)} mutants were not tried")
    survivors = []
    for name, (path, status) in statuses.items():
        if status != "killed":
            change = change_of(name, path)
            survivors.append(Survivor(change, status, reasons.get(change)))
    alive = {survivor.change for survivor in survivors}
    return MutationResult(
        mutants=len(statuses),
        killed=counts["killed"],
        survived=len(statuses) - counts["killed"] - counts["timeout"],
        timeout=counts["timeout"],
        score=round(100 * counts["killed"] / len(statuses), 1),
        unlisted=tuple(survivor for survivor in survivors if survivor.reason is None),
        listed=tuple(survivor for survivor in survivors if survivor.reason is not None),
        stale=tuple(change for change in reasons if change not in alive),
    )


def change_of(name: str, path: Path) -> Change:
    diff = get_diff_for_mutant(name, path=path).splitlines()[2:]
    function = name.rpartition("__mutmut_")[0].rpartition(".")[2].removeprefix("x_").removeprefix("xǁ")
    return Change(
        f"{path.stem}.{function.replace('ǁ', '.')}",
        lines_of(line[1:] for line in diff if line.startswith("-")),
        lines_of(line[1:] for line in diff if line.startswith("+")),
    )


def lines_of(text: str | Iterable[str]) -> tuple[str, ...]:
    lines = text.splitlines() if isinstance(text, str) else text
    return tuple(line.strip() for line in lines if line.strip())
