"""The AsyncAPI document says what the streams say, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from jsonschema_rs import Draft7Validator

from fillwright.api.asyncapi import document
from fillwright.core.control import Scope, new_key
from tests.world import SWAP, Json, World, a_world, read_all

KEYS: Final = frozenset({Scope.READ, Scope.TRADE})


def validators(channel: str) -> dict[str, Draft7Validator]:
    """Return what checks each message of a channel, by the rules of draft 7, which are those of AsyncAPI."""
    components = document()["components"]
    return {
        name: Draft7Validator(
            {"components": components, "allOf": [{"$ref": f"{reference['$ref']}/payload"}]}, validate_formats=True
        )
        for name, reference in document()["channels"][channel]["messages"].items()
    }


def names(channel: str, messages: list[Json]) -> set[str]:
    """Return the names of the messages. Fail if one has none, or several."""
    known, found = validators(channel), set[str]()
    for message in messages:
        fitting = [name for name, validator in known.items() if validator.is_valid(message)]
        assert len(fitting) == 1, f"{message} is {fitting or 'no message'} of {channel}"
        found |= {*fitting}
    return found


async def life(world: World, order_id: str) -> list[Json]:
    async with world.http.ws_connect(f"/api/orders/{order_id}/stream") as websocket:
        return await read_all(websocket)


async def test_every_message_of_an_order_s_stream_is_in_the_document_and_no_other() -> None:
    heard: set[str] = set()
    async with a_world() as world:
        heard |= names("order", await life(world, await world.submit(clientOrderId="mine")))
        assert "update_confirmed" in heard
    async with a_world(sim_quote_error_rate=1.0) as world:
        heard |= names("order", await life(world, await world.submit()))
    async with a_world(working=False) as world:
        order_id = await world.submit()
        async with world.http.delete(f"/api/orders/{order_id}"):
            pass
        heard |= names("order", await life(world, order_id))
    async with a_world(sim_quote_error_rate=1.0) as world:
        soon = datetime.fromtimestamp(world.clock.now_ms() / 1000 + 0.5, UTC).isoformat()
        heard |= names("order", await life(world, await world.submit(expiresAt=soon)))
    assert heard == set(document()["channels"]["order"]["messages"])


async def test_the_messages_of_a_socket_that_takes_orders_are_in_the_document() -> None:
    async with a_world() as world:
        key, text = new_key("desk", "bot", KEYS, bytes(40))
        await world.gate.change("test", key)
        headers = {"Authorization": f"Bearer {text}"}
        async with world.http.ws_connect("/api/orders/execute", headers=headers) as websocket:
            await websocket.send_json({**SWAP, "expiresAt": None})
            await websocket.send_json({"tokenIn": "SOL"})
            messages = [await websocket.receive_json() for _ in range(8)]
    heard = names("execute", messages)
    assert {"established", "orderAccepted", "error", "update_accepted", "update_confirmed"} <= heard
    assert validators("execute")["order"].is_valid({**SWAP, "expiresAt": None})
    assert not validators("execute")["order"].is_valid({"tokenIn": "SOL"})


async def test_the_messages_of_all_orders_are_in_the_document() -> None:
    async with a_world() as world, world.http.ws_connect("/api/stream") as websocket:
        greeting = await websocket.receive_json()
        await world.submit()
        heard = names("all", [greeting, *[await websocket.receive_json() for _ in range(5)]])
    assert {"established", "update_accepted", "update_confirmed"} <= heard


async def test_server_sent_events_are_the_same_messages() -> None:
    async with a_world() as world:
        path = f"/api/orders/{await world.submit()}/stream"
        async with world.http.get(path, headers={"Accept": "text/event-stream"}) as response:
            lines = (await response.text()).splitlines()
    updates = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert len(names("order", updates)) == 5


def test_a_field_too_many_or_too_few_is_no_message() -> None:
    message: Json = {
        "event": "order:update",
        "orderId": "ord_01M82APHRDYJXS45D7A234R3HK",
        "seq": 2,
        "status": "routing",
        "timestamp": "2026-11-22T19:11:03.438Z",
        "data": {"attempt": 1},
    }
    validator = validators("all")["update_routing"]
    assert validator.is_valid(message)
    assert not validator.is_valid({**message, "more": 1})
    assert not validator.is_valid({**message, "data": {}})
    assert not validator.is_valid({**message, "status": "building"})


async def test_the_document_is_served_and_its_references_lead_somewhere() -> None:
    async with a_world() as world:
        status, served = await world.get("/asyncapi.json")
    assert (status, served) == (200, json.loads(json.dumps(document())))
    assert served["asyncapi"].startswith("3.")
    assert {channel["address"] for channel in served["channels"].values()} == {
        "/api/orders/{orderId}/stream",
        "/api/orders/execute",
        "/api/stream",
    }
    for reference in references(served):
        target: Any = served
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            yield reference
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)
