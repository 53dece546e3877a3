"""The migrations: a folder for each kind of database, numbered files in it, each applied once."""

from __future__ import annotations

from importlib import resources


def read_scripts(kind: str) -> list[str]:
    """Return the text of every migration of one kind of database, oldest first."""
    folder = resources.files(__package__).joinpath(kind)
    entries = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [entry.read_text(encoding="utf-8") for entry in entries]
