"""The OpenAPI document says what the engine does."""

from __future__ import annotations

from pathlib import Path

from fillwright.api.openapi import document
from tests.hostile.contract import try_examples
from tests.hostile.target import a_target
from tests.process import in_real_time

EXAMPLES = 400
SEED = 4


def test_requests_made_from_the_document_are_answered_as_it_says(tmp_path: Path) -> None:
    async def tried() -> None:
        async with a_target(tmp_path) as target:
            found = await try_examples(target, EXAMPLES, SEED)
            assert found.failures == []
            assert target.faults == []
        reached = {endpoint for endpoint, status in found.statuses if status < 300}
        assert {
            "POST /api/orders/execute",
            "POST /api/quotes",
            "GET /api/orders",
            "GET /api/orders/{orderId}",
        } <= reached

    in_real_time(tried())


def test_every_answer_with_a_body_has_a_schema() -> None:
    bare = [
        f"{method} {path} {status}"
        for path, operations in document()["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if "$ref" not in answer and "content" not in answer and status not in ("101", "204")
    ]
    assert bare == []
