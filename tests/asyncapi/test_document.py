"""AsyncAPI's own parser, which has the official schema of the format, takes the document that an engine serves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from tests.node.packages import installed
from tests.process import an_engine, in_real_time

Json = dict[str, Any]

HERE: Final = Path(__file__).parent
SOURCES: Final = [HERE / "package.json", HERE / "validate.mjs"]
# Programs that read 3.1 read 3.0, too; not yet the other way round.
NO_FAULT: Final = {"asyncapi-latest-version"}


async def faults(document: Json) -> list[Json]:
    """Return what the parser finds wrong with a document."""
    folder = await asyncio.to_thread(installed, "asyncapi", SOURCES)
    process = await asyncio.create_subprocess_exec(
        *("node", str(folder / "validate.mjs")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(json.dumps(document).encode())
    assert process.returncode == 0
    told = json.loads(out)
    found: list[Json] = [each for each in told["said"] if each["code"] not in NO_FAULT]
    assert found or told["version"] == document["asyncapi"], "it was read, or there is a reason why not"
    return found


def test_the_document_that_an_engine_serves_is_asyncapi(tmp_path: Path) -> None:
    async def read() -> None:
        async with an_engine(tmp_path) as engine, engine.http.get("/asyncapi.json") as response:
            document = await response.json()
        assert await faults(document) == []
        channel = document["channels"]["order"]
        misspelt = document["channels"] | {"order": {**channel, "adress": channel["address"]}}
        nowhere = document["operations"] | {"more": {"action": "send", "channel": {"$ref": "#/channels/nowhere"}}}
        no_schema = document["components"]["schemas"] | {"Status": {"type": "text"}}
        for planted in (
            {"channels": misspelt},
            {"operations": nowhere},
            {"components": {**document["components"], "schemas": no_schema}},
        ):
            assert await faults(document | planted), f"it does not notice what is wrong with {[*planted]}"

    in_real_time(read(), within_s=400)  # npm may have to install first
