"""The documents say what is: what can be generated is, and the rest names only what exists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
from docs import generate
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fillwright
from fillwright.__main__ import COMMANDS
from fillwright.api.openapi import operations
from fillwright.core.errors import Unroutable
from fillwright.core.routing import QuoteRequest, best_route
from fillwright.execution.quoting import ask_all
from fillwright.settings import Settings, read_settings
from tests.builders import SOL, USDC

ROOT: Final = generate.ROOT
DOCUMENTS: Final = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", generate.pages())
def test_generated_pages_are_what_the_code_says_now(path: str) -> None:
    assert read(path) == generate.pages()[path], "run `make docs`"


def test_the_example_file_is_the_defaults() -> None:
    assert read_settings({}, ROOT / ".env.example") == Settings()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


def test_the_map_names_every_file_and_no_other() -> None:
    package = Path(fillwright.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(files_on_the_map(read("docs/ARCHITECTURE.md"))) == found


def files_on_the_map(text: str) -> list[str]:
    """Return the files below `src/fillwright/` in the map, whose folders are told by their indentation."""
    block = text.partition("```\nsrc/fillwright/\n")[2].partition("```")[0]
    files, folder = [], ""
    for line in block.splitlines():
        if line and not line.startswith(" "):
            break
        if match := re.match(r"( +)(\S+)", line):
            indent, name = len(match[1]), match[2]
            folder = folder if indent > 2 else ""
            if name.endswith("/"):
                folder = name
            else:
                files.append(folder + name)
    return files


def test_the_readme_names_every_endpoint_and_command() -> None:
    readme = read("README.md")
    paths = {path.replace("{orderId}", "{id}") for path, _ in operations()}
    assert [path for path in paths if f"`{path}`" not in readme] == []
    assert [command for command in COMMANDS if f"`fillwright {command}" not in readme] == []


async def test_the_venue_of_the_page_on_venues_gets_the_orders_that_it_pays_most_for() -> None:
    page: dict[str, Any] = {}
    exec(compile(read("docs/add-a-venue.md").partition("```python")[2].partition("```")[0], "page", "exec"), page)
    venue = page["FixedVenue"]("fixed")
    asked = QuoteRequest(SOL, USDC, 2_000_000_000, asked_at_ms=0)
    route = best_route(asked, await ask_all([venue], asked, 1_000))
    assert (route.quote.venue, route.quote.out_amount) == ("fixed", 299_700_000)
    with pytest.raises(Unroutable):
        best_route(asked, await ask_all([venue], replace(asked, token_in=USDC, token_out=SOL), 1_000))


def test_the_site_has_every_page_and_no_link_that_leads_nowhere() -> None:
    subprocess.run([sys.executable, ROOT / "docs/site.py"], check=True, capture_output=True)
    site = ROOT / "build/site"
    pages = {path.stem for path in ROOT.glob("docs/*.md")} | {path.stem for path in ROOT.glob("docs/decisions/*.md")}
    assert pages <= {path.parent.name for path in site.rglob("index.html")}
    for page in site.rglob("index.html"):
        links = re.findall(r'(?:href|src)="?([^" >]+)', page.read_text("utf-8"))
        inside = [
            unquote(link.partition("#")[0]) for link in links if not link.startswith(("http", "#", "data:", "mailto:"))
        ]
        missing = [link for link in inside if not link.startswith("/") and not (page.parent / link).exists()]
        assert missing == [], page


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## [{fillwright.__version__}]" in read("CHANGELOG.md")
    assert fillwright.__version__ == version("fillwright")


def pinned(lock: str) -> dict[str, str]:
    """Return what a lock pins: name -> version."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==(\S+)", read(lock), re.MULTILINE))


def test_every_runtime_dependency_is_listed_with_its_licence() -> None:
    rows = re.findall(r"^\| ([a-z0-9.-]+) \| (.+) \|$", read("docs/licences.md"), re.MULTILINE)
    listed = {name for name, _ in rows} - {"package"}
    assert listed == set(pinned("requirements.lock"))


@pytest.mark.parametrize(("lock", "group"), [("requirements.lock", None), ("requirements-dev.lock", "dev")])
def test_the_lock_has_what_the_project_asks_for(lock: str, group: str | None) -> None:
    project = tomllib.loads(read("pyproject.toml"))
    wanted = project["project"]["dependencies"] + (project["dependency-groups"][group] if group else [])
    pins = pinned(lock)
    wishes = [Requirement(text) for text in wanted]
    unmet = [wish for wish in wishes if not wish.specifier.contains(pins.get(canonicalize_name(wish.name), "0"))]
    assert not unmet, "run `make lock`"


def test_the_locks_agree_and_tell_of_no_index() -> None:
    runtime, development = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert runtime.items() <= development.items()
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert not re.search(r"://|^-", read(lock), re.MULTILINE)
