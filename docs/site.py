"""Build the documentation as a site: `make site`, into build/site.

The pages are those that one reads in the repository. Here the README becomes the first page, and links that lead out of
`docs/` lead to it, or lose their link where they lead to code.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build" / "site-pages"
NAVIGATION: Final = {
    "Start": {"Fillwright": "index.md", "Tutorial": "tutorial.md"},
    "How to": {
        "Scale out": "scaling.md",
        "Deploy": "deploying.md",
        "Watch it": "metrics.md",
        "Receive webhooks": "webhooks.md",
        "Use it from Python": "client.md",
        "Take BullMQ's jobs": "bullmq.md",
        "Rehearse on a local chain": "localnet.md",
        "Add a venue": "add-a-venue.md",
    },
    "Reference": {"Settings": "settings.md", "Error codes": "errors.md", "Glossary": "glossary.md"},
    "Explanation": {
        "Architecture": "ARCHITECTURE.md",
        "What is guaranteed": "guarantees.md",
        "Security": "security.md",
        "Licences": "licences.md",
    },
}
LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def main() -> None:
    shutil.rmtree(BUILD, ignore_errors=True)
    pages = BUILD / "docs"
    shutil.copytree(ROOT / "docs", pages, ignore=shutil.ignore_patterns("*.py", "__pycache__", "proof.json"))
    shutil.copy(ROOT / "README.md", pages / "index.md")
    for page in pages.rglob("*.md"):
        home = ROOT if page.name == "index.md" else ROOT / "docs" / page.parent.relative_to(pages)
        page.write_text(LINK.sub(partial(_on_the_site, home, page, pages), page.read_text("utf-8")), "utf-8")
    (BUILD / "zensical.toml").write_text(_configuration(pages), "utf-8")
    subprocess.run([Path(sys.executable).parent / "zensical", "build", "--clean"], cwd=BUILD, check=True)  # noqa: S603 (ours)
    shutil.rmtree(ROOT / "build" / "site", ignore_errors=True)
    shutil.move(BUILD / "site", ROOT / "build" / "site")


def _on_the_site(home: Path, page: Path, pages: Path, link: re.Match[str]) -> str:
    """Return a link as it must be on the site."""
    picture, text, path, anchor = link[1], link[2], link[3], link[4] or ""
    target = (home / path).resolve()
    if target == ROOT / "README.md":
        to = pages / "index.md"
    elif target.is_relative_to(ROOT / "docs") and target.is_file():
        to = pages / target.relative_to(ROOT / "docs")
    else:
        return text
    up = "../" * len(page.parent.relative_to(pages).parts)
    return f"{picture}[{text}]({up}{to.relative_to(pages)}{anchor})"


def _configuration(pages: Path) -> str:
    decisions = {page.read_text("utf-8").partition("\n")[0].lstrip("# "): f"decisions/{page.name}"
                 for page in sorted((pages / "decisions").glob("*.md"))}  # fmt: skip
    navigation = {
        group: {title: path for title, path in entries.items() if (pages / path).is_file()}
        for group, entries in {**NAVIGATION, "Decisions": decisions}.items()
    }
    entries = ",\n".join(
        f'  {{ "{group}" = [{", ".join(_entry(*each) for each in inside.items())}] }}'
        for group, inside in navigation.items()
    )
    return (
        '[project]\nsite_name = "Fillwright"\ndocs_dir = "docs"\nsite_dir = "site"\n'
        f"nav = [\n{entries},\n]\n"
        '[project.theme]\nlanguage = "en"\nfont = false\n'
        'features = ["navigation.sections", "navigation.top", "content.code.copy", "search.highlight"]\n'
        '[[project.theme.palette]]\nmedia = "(prefers-color-scheme: light)"\nscheme = "default"\n'
        '[[project.theme.palette]]\nmedia = "(prefers-color-scheme: dark)"\nscheme = "slate"\n'
    )


def _entry(title: str, path: str) -> str:
    return '{ "' + title.replace('"', "'") + f'" = "{path}" }}'


if __name__ == "__main__":
    main()
