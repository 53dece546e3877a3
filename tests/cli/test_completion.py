"""What a shell is told when the user presses Tab."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fillwright.__main__ import COMMANDS
from tests.cli.terminal import Terminal


def complete(folder: Path, *words: str) -> list[str]:
    """Return what bash is offered for the last of the words."""
    asked = {
        "_FILLWRIGHT_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    ended = Terminal(folder, **asked).run("")
    assert (ended.code, ended.err) == (0, "")
    return [line.partition(",")[2] for line in ended.out.splitlines()]


def test_commands_their_commands_and_options_are_completed(tmp_path: Path) -> None:
    assert complete(tmp_path, "fillwright", "") == list(COMMANDS)
    assert complete(tmp_path, "fillwright", "re") == ["resume", "reconcile"]
    assert complete(tmp_path, "fillwright", "order", "") == ["cancel", "explain", "get", "list", "submit", "watch"]
    assert "--client-order-id" in complete(tmp_path, "fillwright", "order", "submit", "--c")
    assert "confirmed" in complete(tmp_path, "fillwright", "order", "list", "--status", "")
    assert complete(tmp_path, "fillwright", "--ver") == ["--version"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_the_shell_s_own(tmp_path: Path, shell: str) -> None:
    script = Terminal(tmp_path).run(f"completion {shell}")
    assert (script.code, script.err) == (0, "")
    assert f"_FILLWRIGHT_COMPLETE={shell}_complete" in script.out
    if (program := shutil.which(shell)) is not None:
        assert subprocess.run([program, "-n"], input=script.out, text=True, check=False).returncode == 0


def test_another_shell_is_refused(tmp_path: Path) -> None:
    assert Terminal(tmp_path).run("completion tcsh").code == 2
