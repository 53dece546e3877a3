"""What the Dockerfile does, done without Docker: its steps in a bare folder, and the engine as the image starts it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.deploy.files import DOCKERFILE, ROOT, image_environment, image_list, stages

Json = dict[str, Any]

DATA: Final = "/var/lib/fillwright"


class Image:
    """The folders of an image below one of the test's own. `users` of the base image are the only step left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / DATA[1:]
        self.data.mkdir(parents=True)

    def there(self, text: str) -> str:
        """Return a command or a value with the image's folders where they are here."""
        return re.sub(r"(?<![\w.])/(opt|build|var/lib/fillwright)\b", lambda found: f"{self.root}{found[0]}", text)

    def build(self) -> None:
        """Carry out the first stage as written, and copy what the second one copies from the context."""
        first, last = stages()
        folder = self.root
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for name, rest in first[1:]:
            match name:
                case "WORKDIR":
                    folder = Path(self.there(rest))
                    folder.mkdir()
                case "ENV":
                    environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
                case "COPY":
                    self._copy(rest, folder)
                case "RUN":
                    self._run(self.there(rest), folder, environment)
                case _:
                    raise AssertionError(f"a step that this test does not know: {name} {rest}")
        for name, rest in last:
            if name == "COPY" and "--from" not in rest:
                self._copy(rest, self.root)

    def environment(self) -> dict[str, str]:
        """Return what the image sets, and nothing of this machine but its own PATH."""
        values = {name: self.there(value) for name, value in image_environment().items()}
        return {**values, "PATH": values["PATH"].replace("$PATH", "/usr/bin:/bin"), "HOME": DATA}

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the image with arguments, to its end."""
        return self._started(self._command(*arguments), settings)

    def is_healthy(self, port: int) -> bool:
        """Return what the image's HEALTHCHECK says of what listens on `port`."""
        check = json.loads(dict(stages()[-1])["HEALTHCHECK"].partition("CMD ")[2])
        return self._started([self.there(word) for word in check], {"PORT": str(port)}).returncode == 0

    @contextmanager
    def running(self, *arguments: str, **settings: str) -> Iterator[Json]:
        """Run the image, yield what it says of itself once it works, and stop it as Docker does."""
        process = subprocess.Popen(
            self._command(*arguments),
            env={**self.environment(), **settings},
            cwd=self.data,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if '"engine.listening"' in line or '"worker.started"' in line:
                    yield json.loads(line)
                    break
            else:
                raise AssertionError(f"it did not start: {''.join(said)}")
            process.terminate()
            process.stderr.read()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            process.stderr.close()

    def files(self) -> dict[str, int]:
        """Return every file outside of the data folder, with the time of its last change."""
        paths = (self.root / "opt").rglob("*")
        return {str(path): path.lstat().st_mtime_ns for path in paths}

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.root / "opt/fillwright/bin" / image_list("ENTRYPOINT")[0]), *arguments]

    def _started(self, command: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment(), **settings}
        program = shutil.which(command[0], path=environment["PATH"])
        assert program is not None, command
        return subprocess.run(
            [program, *command[1:]], env=environment, cwd=self.data, capture_output=True, text=True, timeout=30
        )

    def _copy(self, rest: str, folder: Path) -> None:
        *sources, target = self.there(rest).split()
        for source in sources:
            origin, copy = ROOT / source, folder / target
            if origin.is_dir():
                shutil.copytree(origin, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, copy)

    def _run(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{DOCKERFILE.name}: {command}\n{done.stdout}{done.stderr}"


def test_the_steps_of_the_image_make_an_engine_that_runs_as_the_image_says(tmp_path: Path) -> None:
    image = Image(tmp_path)
    image.build()
    assert not (tmp_path / "opt/fillwright/bin/pip").exists()
    before = image.files()

    refused = image.run(*image_list("CMD"), PORT="0")
    assert (refused.returncode, "exposed" in refused.stderr) == (1, True), refused.stderr

    assert image.run("migrate").returncode == 0
    key = image.run("keys", "create", "operator", "--scopes", "read,trade,admin").stdout.strip()
    assert key.startswith("fw_")

    with image.running(*image_list("CMD"), HOST="127.0.0.1", PORT="0", FILLWRIGHT_SIM_SPEED="0.05") as engine:
        port = int(engine["url"].rpartition(":")[2])
        assert image.is_healthy(port)
        order = ("order", "submit", "SOL", "USDC", "1.5", "--watch", "--url", engine["url"])
        assert "unauthorized" in image.run(*order).stderr
        done = image.run(*order, FILLWRIGHT_API_KEY=key)
        assert (done.returncode, "confirmed" in done.stdout) == (0, True), done.stdout + done.stderr
    assert not image.is_healthy(port)
    with image.running("worker"):
        assert image.run("reconcile").returncode == 0

    assert image.files() == before, "it wrote outside of its data folder"
    assert {path.name.partition(".db")[0] for path in image.data.iterdir()} == {"fillwright", "chain"}
