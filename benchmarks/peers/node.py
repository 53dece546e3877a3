"""Node's side: the reference engine and the load client, with their packages, in `build/peers`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.engine import ROOT, BenchFailed, say

NODE_MAJOR_MIN: Final = 20
SOURCES: Final = Path(__file__).parent
INSTALLED: Final = ROOT / "build" / "peers"
REFERENCE: Final = INSTALLED / "reference"
CLIENT: Final = INSTALLED / "client" / "load.mjs"
INSTALL: Final = ("npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--silent")


def install() -> str:
    """Copy the sources, and fetch the packages unless they are there. Return Node's version, raise BenchFailed."""
    version = node_version()
    for part in ("reference", "client"):
        source, target = SOURCES / part, INSTALLED / part
        packages = target / "package.json"
        wanted = (source / "package.json").read_bytes()
        ready = (target / "node_modules").is_dir() and packages.is_file() and packages.read_bytes() == wanted
        if not ready:
            shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, dirs_exist_ok=True)
        if not ready:
            say(f"npm install for {part} ...")
            fetch_packages(target)
    return version


def fetch_packages(folder: Path) -> None:
    try:
        subprocess.run(INSTALL, cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder / "node_modules", ignore_errors=True)  # half of it would count as all next time
        raise BenchFailed(f"the Node reference's packages cannot be installed: {error}") from error


def node_version() -> str:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise BenchFailed(f"no {program} in PATH: to measure beside Node, install Node {NODE_MAJOR_MIN} or newer")
    answer = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    version = answer.stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < NODE_MAJOR_MIN:
        raise BenchFailed(f"Node {version} is too old: install Node {NODE_MAJOR_MIN} or newer")
    return version
