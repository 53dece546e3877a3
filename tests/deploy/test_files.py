"""The deployment files are valid, name only what exists, and keep our rules."""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import pytest
import yaml

import fillwright
from fillwright.__main__ import cli
from fillwright.settings import read_settings
from tests.deploy.files import (
    COMPOSE,
    DEPLOY,
    DOCKERFILE,
    MANIFESTS,
    OWN_IMAGE,
    ROOT,
    Json,
    Part,
    image_environment,
    image_list,
    instructions,
    manifests,
    one,
    parts,
    pods,
    stages,
)

BIN: Final = Path(sys.executable).parent
# Where pyproject.toml asks for the two tools that are no Python.
HAS_TOOLS: Final = (platform.system(), platform.machine()) in {
    ("Linux", "x86_64"),
    ("Linux", "aarch64"),
    ("Darwin", "arm64"),
}
needs_tools = pytest.mark.skipif(not HAS_TOOLS, reason="there is no hadolint and no docker-compose for this machine")
KUBERNETES: Final = "1.30"  # the oldest that the manifests are for
SECRETS: Final = {"POSTGRES_PASSWORD": "postgres0", "REDIS_PASSWORD": "redis0", "GRAFANA_PASSWORD": "grafana0"}
# In place of what a file leaves to others, so that the rest can be read.
GIVEN: Final = {"DATABASE_URL": "postgresql://user:word@host/name", "REDIS_URL": "redis://host:6379/0"}
# What is not for the engine; FILLWRIGHT_METRICS_PORT is a setting as soon as workers have metrics.
OTHERS: Final = {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHON_VERSION"}
SECRET_NAMES: Final = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|AUTH$|_URL$")
FILES: Final = [
    ROOT / "render.yaml",
    ROOT / "railway.json",
    *(path for path in sorted(DEPLOY.rglob("*")) if path.suffix in (".yaml", ".yml", ".json")),
]


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def settings_of(part: Part) -> dict[str, str]:
    """Return a part's environment as it is where it runs, as far as it can be known."""
    own = {name: value for name, value in part.environment.items() if name not in OTHERS}
    filled = {name: re.sub(r"\$\{\w+:([-?])(.*?)\}", _filled, value) for name, value in own.items()}
    return {name: value or GIVEN.get(name, "") for name, value in filled.items()}


def _filled(variable: re.Match[str]) -> str:
    return variable[2] if variable[1] == "-" else "word"


# --- what others' tools say ---


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_can_be_read(path: Path) -> None:
    documents = [one(path)] if path.suffix == ".json" else list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    assert all(isinstance(document, dict) for document in documents)


@needs_tools
def test_the_dockerfile_pleases_hadolint() -> None:
    said = run(BIN / "hadolint", "--no-color", DOCKERFILE)
    assert said.returncode == 0, said.stdout


def test_the_compose_file_is_as_its_specification_says() -> None:
    said = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert said.returncode == 0, said.stdout


@needs_tools
def test_docker_compose_can_read_the_compose_file() -> None:
    said = run(BIN / "docker-compose", "--file", COMPOSE, "config", "--quiet", **SECRETS)
    assert said.returncode == 0, said.stderr


@needs_tools
@pytest.mark.parametrize("missing", SECRETS)
def test_docker_compose_starts_nothing_without_its_passwords(missing: str) -> None:
    given = {name: value for name, value in SECRETS.items() if name != missing}
    said = run(BIN / "docker-compose", "--file", COMPOSE, "config", "--quiet", **given)
    assert said.returncode != 0
    assert missing in said.stderr


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_as_kubernetes_wants_them(path: Path) -> None:
    said = run(sys.executable, "-m", "kubernetes_validate", "--strict", "-k", KUBERNETES, path)
    assert said.returncode == 0, said.stdout + said.stderr


# --- what they name ---


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.where)
def test_every_command_is_one_of_ours(part: Part) -> None:
    name, *arguments = part.command
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, arguments)


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.where)
def test_every_environment_is_one_that_the_engine_starts_with(part: Part) -> None:
    read_settings(settings_of(part), Path(os.devnull))


def test_every_api_in_a_container_listens_for_others() -> None:
    apis = [part for part in parts() if part.command[0] == "serve" and part.where != "systemd"]
    assert {part.environment["HOST"] for part in apis} == {"0.0.0.0"}


def test_the_example_of_secrets_names_what_compose_asks_for() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    example = dict(line.split("=", 1) for line in _lines(DEPLOY / "compose.env.example"))
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(SECRETS)
    assert set(SECRETS) <= set(example) <= set(re.findall(r"\$\{(\w+)", text))
    assert not any(example.values())


def test_the_kustomization_names_every_manifest_but_the_example() -> None:
    named = set(one(DEPLOY / "kubernetes" / "kustomization.yaml")["resources"])
    assert named == {path.name for path in MANIFESTS} - {"kustomization.yaml", "secret.example.yaml"}


def test_what_is_copied_into_the_image_is_not_kept_out_of_it() -> None:
    sources = {
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    admitted = {line.removeprefix("!") for line in _lines(ROOT / ".dockerignore") if line.startswith("!")}
    assert _lines(ROOT / ".dockerignore")[0] == "*"
    assert sources == admitted
    assert all((ROOT / source).exists() for source in sources)


def test_prometheus_asks_every_kind_of_process_where_it_answers() -> None:
    services = one(COMPOSE)["services"]
    asked = {
        (name, found["port"])
        for job in one(DEPLOY / "prometheus.yml")["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    api, worker = (services[name]["environment"] for name in ("api", "worker"))
    assert asked == {(name, int(part["FILLWRIGHT_METRICS_PORT"])) for name, part in (("api", api), ("worker", worker))}
    assert api["FILLWRIGHT_METRICS_HOST"] == worker["FILLWRIGHT_METRICS_HOST"] == "0.0.0.0"
    assert all("back" in services[name]["networks"] for name in ("api", "worker", "prometheus"))


def test_selectors_find_the_pods_that_they_are_for() -> None:
    labels = [
        manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in manifests()
        if manifest["kind"] == "Deployment"
    ]
    for manifest in manifests():
        selector = manifest.get("spec", {}).get("selector", {})
        wanted = selector.get("matchLabels", selector)
        assert not wanted or wanted in labels, manifest["metadata"]["name"]
    scaled = next(each for each in manifests() if each["kind"] == "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert scaled["name"] in {each["metadata"]["name"] for each in manifests() if each["kind"] == scaled["kind"]}


# --- our rules ---


def test_the_image_runs_as_nobody_in_particular_and_starts_without_a_shell() -> None:
    user = dict(stages()[-1])["USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert image_list("ENTRYPOINT") == ["fillwright"]
    assert len(stages()) > 1
    check = dict(stages()[-1])["HEALTHCHECK"].partition("CMD ")[2]
    assert json.loads(check)[0] == "python"


def images() -> list[tuple[str, str]]:
    found = [("Dockerfile", rest.split()[0]) for name, rest in instructions() if name == "FROM"]
    found += [(f"compose {name}", service["image"]) for name, service in one(COMPOSE)["services"].items()]
    tags = {each["name"]: each["newTag"] for each in one(DEPLOY / "kubernetes" / "kustomization.yaml")["images"]}
    for name, pod in pods():
        found += [(name, f"{each['image']}:{tags.get(each['image'], '')}") for each in pod["containers"]]
    return found


@pytest.mark.parametrize(("where", "image"), images())
def test_every_image_has_a_version(where: str, image: str) -> None:
    name, _, tag = image.partition(":")
    assert re.match(r"v?\d+\.\d+", tag), image
    assert name != OWN_IMAGE or tag == fillwright.__version__


@pytest.mark.parametrize("name", one(COMPOSE)["services"])
def test_containers_may_write_only_where_they_are_told_and_have_no_powers(name: str) -> None:
    service = one(COMPOSE)["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "healthcheck" in service
    assert service["image"].startswith(f"{OWN_IMAGE}:") or re.fullmatch(r"[1-9]\d*:\d+", service["user"])


@pytest.mark.parametrize("name", one(COMPOSE)["services"])
def test_nothing_is_open_to_others_before_its_proxy(name: str) -> None:
    ports = one(COMPOSE)["services"][name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert name in ("api", "grafana") or not ports


@pytest.mark.parametrize(("name", "pod"), list(pods()))
def test_pods_run_as_nobody_in_particular_on_a_file_system_that_cannot_be_written(name: str, pod: Json) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == int(dict(stages()[-1])["USER"].partition(":")[0])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "a variable FILLWRIGHT_PORT would stop the start"
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_everything_has_longer_to_stop_than_the_engine_takes() -> None:
    for part in parts():
        stop_s = read_settings(settings_of(part), Path(os.devnull)).stop_ms / 1000
        assert stop_s < 15, part.where
    for name, pod in pods():
        assert pod.get("terminationGracePeriodSeconds", 30) > 15, name
    for name in ("api", "worker"):
        assert int(one(COMPOSE)["services"][name]["stop_grace_period"].removesuffix("s")) > 15
    for service in one(ROOT / "render.yaml")["services"]:
        assert service.get("maxShutdownDelaySeconds", 30) > 15
    for path in (ROOT / "railway.json", DEPLOY / "railway.worker.json"):
        assert one(path)["deploy"]["drainingSeconds"] > 15


def test_all_workers_share_the_simulated_chain() -> None:
    """A file: so a volume of the host, a claim that one node mounts, a disk of one instance."""
    folder = str(Path(image_environment()["FILLWRIGHT_SIM_LEDGER"]).parent)
    assert f"chain:{folder}" in one(COMPOSE)["services"]["worker"]["volumes"]
    worker = dict(pods())["fillwright-worker"]
    assert folder in {mount["mountPath"] for mount in worker["containers"][0]["volumeMounts"]}
    assert worker["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    render = next(each for each in one(ROOT / "render.yaml")["services"] if each["type"] == "worker")
    assert (render["disk"]["mountPath"], render.get("numInstances", 1)) == (folder, 1)
    assert one(DEPLOY / "railway.worker.json")["deploy"]["numReplicas"] == 1
    for part in parts():
        if part.command[0] == "worker":
            assert settings_of(part)["FILLWRIGHT_SIM_LEDGER"].startswith(f"{folder}/"), part.where


def test_no_file_holds_a_secret() -> None:
    named: list[tuple[str, str, str]] = []
    for name, service in one(COMPOSE)["services"].items():
        named += [(name, key, str(value)) for key, value in service.get("environment", {}).items()]
    for manifest in manifests():
        if manifest["kind"] in ("ConfigMap", "Secret"):
            values = manifest.get("data") or manifest["stringData"]
            named += [(manifest["kind"], key, value) for key, value in values.items()]
    render = one(ROOT / "render.yaml")
    for each in (*render["envVarGroups"], *render["services"]):
        named += [(each["name"], given.get("key", ""), given.get("value", "")) for given in each.get("envVars", [])]
    plain = [
        (where, key)
        for where, key, value in named
        if SECRET_NAMES.search(key) and value and not re.search(r"\$\{\w+(:\?|:-\})", value)
    ]
    assert not plain


def test_no_file_of_git_is_one_that_holds_secrets() -> None:
    ignored = _lines(ROOT / ".gitignore")
    assert any(fnmatch.fnmatch("deploy/.env", pattern) or pattern == ".env" for pattern in ignored)


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
