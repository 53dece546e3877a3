"""The import rules, as data."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import fillwright

ROOT: Final = Path(fillwright.__file__).parent

# Who may import whom, by the first part of the path below the package.
MAY_IMPORT: Final = {
    "core": {"core"},
    "api": {"core", "api"},
    "execution": {"core", "execution"},
    "venues": {"core", "venues"},
    "chain": {"core", "chain"},
    "localnet": {"core", "venues", "localnet"},
    "backends": {"core", "backends"},
    "clock": {"core"},
    "settings": {"core"},
    "telemetry": {"core"},
    "metrics": {"core"},
    "tracing": {"core"},
    "client": {"client"},
    "solana": {"core", "chain", "venues", "settings", "metrics"},
    "app": {
        "solana",
        "core",
        "api",
        "execution",
        "venues",
        "chain",
        "backends",
        "clock",
        "settings",
        "telemetry",
        "metrics",
        "tracing",
    },
    "processes": {"core", "api", "execution", "settings", "metrics", "app"},
    "cli": {
        "core",
        "execution",
        "venues",
        "chain",
        "backends",
        "localnet",
        "clock",
        "settings",
        "telemetry",
        "app",
        "processes",
        "cli",
        "client",
        "solana",
    },
    "__main__": {"cli", "app", "settings", "telemetry", "core"},
    "__init__": set[str](),
}
# Inside core, each file may import only those before it.
CORE_ORDER: Final = [
    "errors",
    "units",
    "accounts",
    "programs",
    "tokens",
    "routing",
    "order",
    "lifecycle",
    "limits",
    "limits_document",
    "webhooks",
    "control",
    "retry",
    "ports",
]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path, path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_each_part_imports_only_what_it_may() -> None:
    offences = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, part in modules()
        for name in imports(path)
        if name.startswith("fillwright.")
        and name.split(".")[1] not in MAY_IMPORT[part]
        and name != "fillwright.__version__"
    ]
    assert not offences


def test_core_imports_only_the_standard_library_and_what_comes_before_it() -> None:
    offences = []
    for path in sorted((ROOT / "core").glob("*.py")):
        for name in imports(path):
            first, *rest = name.split(".")
            if first != "fillwright":
                if first not in sys.stdlib_module_names:
                    offences.append(f"core/{path.name} imports {name}")
            elif CORE_ORDER.index(rest[1]) >= CORE_ORDER.index(path.stem):
                offences.append(f"core/{path.name} imports core/{rest[1]}.py, which comes after it")
    assert not offences


def test_core_does_no_io_and_asks_no_clock() -> None:
    forbidden = {
        "asyncio",
        "time",
        "os",
        "socket",
        "sqlite3",
        "random",
        "threading",
        "subprocess",
        "pathlib",
        "logging",
    }
    offences = [
        f"core/{path.name} imports {name}"
        for path in sorted((ROOT / "core").glob("*.py"))
        for name in imports(path)
        if name.split(".")[0] in forbidden
    ]
    assert not offences


def test_the_app_and_its_processes_are_imported_by_the_command_line_only() -> None:
    offences = [
        str(path.relative_to(ROOT))
        for path, part in modules()
        for name in imports(path)
        if name.startswith(("fillwright.app", "fillwright.processes")) and part not in ("cli", "__main__", "processes")
    ]
    assert not offences


def test_no_wait_swallows_a_cancellation() -> None:
    """`asyncio.wait_for` of Python 3.11 does, where what it waits for is done at that moment; `timeout` does not."""
    assert [path.name for path in ROOT.rglob("*.py") if "asyncio.wait_for(" in path.read_text("utf-8")] == []
