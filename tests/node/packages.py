"""What tests need from npm, installed once and kept for later runs."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

INSTALL: Final = ("npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund")


def installed(name: str, sources: Sequence[Path]) -> Path:
    """Return a folder with copies of the sources, one of them a package.json, and with the packages that it names."""
    for program in ("node", "npm"):
        assert shutil.which(program), f"{program} is not in PATH: these tests need Node 18 or later, and npm"
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    shelf = Path(sys.prefix) / "node"
    shelf.mkdir(exist_ok=True)
    folder = shelf / f"{name}-{key}"
    with (shelf / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not folder.exists():
            making = Path(tempfile.mkdtemp(dir=shelf))
            for source in sources:
                shutil.copy(source, making)
            done = subprocess.run(INSTALL, cwd=making, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"npm could not install {name}:\n{done.stderr}"
            making.rename(folder)
    return folder
