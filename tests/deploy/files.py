"""The deployment files, read: which containers there are, how they are run, and with which environment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

Json = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
DOCKERFILE: Final = DEPLOY / "Dockerfile"
COMPOSE: Final = DEPLOY / "docker-compose.yml"
MANIFESTS: Final = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OWN_IMAGE: Final = "fillwright"


@dataclass(frozen=True, slots=True)
class Part:
    """One of our own processes: where it is named, what is run, with which environment."""

    where: str
    command: tuple[str, ...]  # without `fillwright`
    environment: dict[str, str]


def one(path: Path) -> Json:
    text = path.read_text(encoding="utf-8")
    document: Json = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    return document


def manifests() -> Iterator[Json]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def pods() -> Iterator[tuple[str, Json]]:
    """Yield every pod that the manifests make, with the name of what makes it."""
    for manifest in manifests():
        if "template" in manifest.get("spec", {}):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    words = (line.partition(" ") for line in joined if line.strip())
    return [(name, rest.strip()) for name, _, rest in words]


def stages() -> list[list[tuple[str, str]]]:
    """Return the instructions of each stage, its FROM first."""
    found: list[list[tuple[str, str]]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def image_environment() -> dict[str, str]:
    return dict(
        pair.split("=", 1) for name, rest in stages()[-1] if name == "ENV" for pair in shlex.split(rest) if "=" in pair
    )


def image_list(instruction: str) -> list[str]:
    """Return the runtime stage's instruction in exec form. Fail if it is not in that form."""
    words: list[str] = json.loads(dict(stages()[-1])[instruction])
    return words


def parts() -> list[Part]:
    image = image_environment()
    found = [Part("Dockerfile", tuple(image_list("CMD")), image)]
    for name, service in one(COMPOSE)["services"].items():
        if service["image"].startswith(f"{OWN_IMAGE}:"):
            found.append(Part(f"compose {name}", tuple(service["command"]), {**image, **service["environment"]}))
    found += _kubernetes(image)
    render = one(ROOT / "render.yaml")
    groups = {group["name"]: _values(group["envVars"], {}) for group in render["envVarGroups"]}
    for service in render["services"]:
        for command in ("startCommand", "preDeployCommand"):
            if command in service:
                environment = _values(service["envVars"], groups)
                found.append(Part(f"render {service['name']}", _own(service[command]), environment))
    for path in (ROOT / "railway.json", DEPLOY / "railway.worker.json"):
        deploy = one(path)["deploy"]
        for command in (deploy["startCommand"], *deploy.get("preDeployCommand", [])):
            found.append(Part(path.name, _own(command), image))
    unit = (DEPLOY / "fillwright.service").read_text(encoding="utf-8")
    started = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    found.append(Part("systemd", tuple(started.partition("bin/fillwright ")[2].split()), {}))
    return found


def _kubernetes(image: dict[str, str]) -> Iterator[Part]:
    shared = {
        name: value
        for manifest in manifests()
        if manifest["kind"] in ("ConfigMap", "Secret")
        for name, value in (manifest.get("data") or manifest["stringData"]).items()
    }
    for name, pod in pods():
        for container in pod["containers"]:
            own = {each["name"]: each["value"] for each in container.get("env", [])}
            yield Part(f"kubernetes {name}", tuple(container["args"]), {**image, **shared, **own})


def _values(variables: list[Json], groups: dict[str, dict[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for variable in variables:
        if "fromGroup" in variable:
            values |= groups[variable["fromGroup"]]
        else:
            values[variable["key"]] = variable.get("value", "")
    return values


def _own(command: str) -> tuple[str, ...]:
    program, *arguments = shlex.split(command)
    assert program == "fillwright"
    return tuple(arguments)
