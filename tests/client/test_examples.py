"""The examples of the documents run as they stand, but for the engine's address."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cli.terminal import Running, Terminal

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)
ADDRESS: Final = re.compile(r'Fillwright\(("http://localhost:3000"(, )?)?')
EXAMPLES: Final = [
    pytest.param(example, id=f"{path}-{number}")
    for path in ("README.md", "docs/client.md")
    for number, example in enumerate(PYTHON.findall((ROOT / path).read_text(encoding="utf-8")), 1)
]


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with Terminal(tmp_path_factory.mktemp("engine"), QUEUE_RATE_LIMIT="0").serve() as (terminal, _):
        yield terminal


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_works(terminal: Terminal, example: str) -> None:
    url = f"http://127.0.0.1:{terminal.settings['PORT']}"
    script = ADDRESS.sub(f'Fillwright("{url}", ', example)
    assert url in script
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    running = Running(process)
    try:
        if "follow_all" in example:  # it has no end
            while not terminal.run("stats --json").json["websocket"]["connections"]:
                assert process.poll() is None, running.end()
            terminal.run("order submit SOL USDC 1 --watch")
            assert running.out.until("ord_")
            return
        ended = running.end()
    finally:
        running.clean_up()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out
