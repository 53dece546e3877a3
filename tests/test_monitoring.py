"""The alert rules, the dashboard and the page on metrics speak of metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.chain.trading import trading
from tests.world import World, a_world

ROOT: Final = Path(__file__).parent.parent
NAME: Final = re.compile(r"\bfillwright_[a-z0-9_]+\b")
RULES: Final = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"][0]["rules"]
PANELS: Final = json.loads((ROOT / "deploy/grafana/fillwright.json").read_text())["panels"]
EXPRESSIONS: Final = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{panel["title"]: " ".join(target["expr"] for target in panel["targets"]) for panel in PANELS},
}


async def all_there_is(world: World) -> tuple[set[str], dict[str, set[str]]]:
    """Return the names of all samples, and which labels each has."""
    async with world.http.get("/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    labels: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return {family.name for family in families} | set(labels), labels


async def test_what_rules_and_panels_ask_for_is_told() -> None:
    async with a_world(sim_reverted_rate=0.5, webhook_secret="x" * 32) as world:
        for _ in range(5):
            await world.statuses(await world.submit())
        names, labels = await all_there_is(world)
    for title, expression in EXPRESSIONS.items():
        assert set(NAME.findall(expression)) - names == set(), title
        for name, selected in re.findall(r"(fillwright_[a-z0-9_]+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)(?:=|!=|=~)\"", selected)) <= labels[name], title


async def test_the_page_names_every_metric_and_no_other(tmp_path: Path) -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    named = set(re.findall(r"`(fillwright_[a-z_]+)`", page))
    async with a_world(sim_reverted_rate=0.5) as world:
        for _ in range(5):
            await world.statuses(await world.submit())
        names, _ = await all_there_is(world)
    async with trading(tmp_path) as (world, _):
        names |= (await all_there_is(world))[0]
    told = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in names}
    assert named == {name for name in told if f"{name}_total" not in told}
    assert {rule["alert"] for rule in RULES} == set(re.findall(r"`(Fillwright\w+)`", page))
