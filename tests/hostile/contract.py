"""The engine against its own OpenAPI document: schemathesis makes right requests of it, and wrong ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import schemathesis
from schemathesis.engine import from_schema
from schemathesis.engine.events import EngineFinished, FatalError, NonFatalError, ScenarioFinished

from tests.hostile.target import Target

CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
VARIED: Final = 14  # of the endpoints: those that take a path, a query or a body, and so more than a few examples


@dataclass(slots=True)
class Examples:
    """What came of them. `statuses` says how far they reached: endpoint and status -> how many."""

    examples: int = 0
    answers_5xx: int = 0
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


async def try_examples(target: Target, examples: int, seed: int) -> Examples:
    """Make about that many requests; schemathesis, which knows nothing of event loops, has a thread of its own."""
    return await asyncio.to_thread(_try_examples, target.port, examples, seed)


def _try_examples(port: int, examples: int, seed: int) -> Examples:
    config = schemathesis.Config.from_dict(
        {
            "seed": seed,
            "continue-on-failure": True,
            "request-timeout": 10,
            "checks": {"enabled": False, **{check: {"enabled": True} for check in CHECKS}},
            "generation": {"mode": "all", "max-examples": max(1, examples // VARIED), "no-shrink": True},
            "phases": {"stateful": {"generation": {"max-examples": max(1, examples // 100)}}},
        }
    )
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json", config=config)
    # One that halts the engine would spare it all the others.
    asked = schema.exclude(path="/api/mode", method="PUT")
    found = Examples()
    for event in from_schema(asked).execute():
        match event:
            case ScenarioFinished(recorder=recorder):
                for case_id, interaction in recorder.interactions.items():
                    found.examples += 1
                    if interaction.response is not None:
                        label = recorder.cases[case_id].value.operation.label
                        found.statuses[label, interaction.response.status_code] += 1
                        found.answers_5xx += interaction.response.status_code >= 500
                for checks in recorder.checks.values():
                    for check in checks:
                        if check.failure_info is not None:
                            failure = check.failure_info.failure
                            sample = check.failure_info.code_sample
                            found.failures.append(
                                f"{recorder.label}: {failure.title}: {failure.message[:300]}: {sample}"
                            )
            case NonFatalError(label=label, value=error):
                found.failures.append(f"{label}: {error}")
            case FatalError(exception=error):
                raise error
            case EngineFinished():
                pass
    return found
