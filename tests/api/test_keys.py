"""Keys that are made, shown and revoked over HTTP: by those who may, with no more than they have, and audited."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.test_access import Keys, keys
from tests.world import a_world

BOT = {"name": "bot", "scopes": ["read", "trade"]}


async def make(all_: Keys, who: str, **changes: Any) -> tuple[int, dict[str, Any]]:
    async with all_.world.http.post("/api/keys", json={**BOT, **changes}, headers=all_.headers(who)) as response:
        assert response.headers["cache-control"] == "no-store"
        return response.status, await response.json()


async def audit(all_: Keys) -> list[dict[str, Any]]:
    async with all_.world.http.get("/api/audit", headers=all_.headers("full")) as response:
        entries: list[dict[str, Any]] = (await response.json())["entries"]
        return entries


async def test_a_key_that_is_made_opens_what_it_was_made_for_and_nothing_else() -> None:
    async with keys(working=False) as all_:
        status, made = await make(all_, "full", account="desk")
        assert (status, made["account"], made["scopes"], made["revokedAt"]) == (201, "desk", ["read", "trade"], None)
        all_.texts["bot"] = made["key"]
        assert await all_.ask("bot", "GET", f"/api/orders/{all_.orders['full']}") == 200
        assert await all_.ask("bot", "GET", f"/api/orders/{all_.orders['stranger']}") == 404
        assert await all_.ask("bot", "GET", "/api/keys") == 403


async def test_a_key_without_an_account_is_of_one_with_its_name_as_on_the_command_line() -> None:
    async with keys(working=False) as all_:
        assert (await make(all_, "full"))[1]["account"] == "bot"
        assert (await make(all_, "full", name="older", account="local"))[1]["account"] == "local"


async def test_the_secret_is_in_the_answer_that_makes_the_key_and_in_no_other() -> None:
    async with keys(working=False) as all_:
        _, made = await make(all_, "full")
        secret = made["key"].split("_")[2]
        for path in ("/api/keys", "/api/audit"):
            async with all_.world.http.get(path, headers=all_.headers("full")) as response:
                told = await response.text()
                assert made["keyId"] in told
                assert secret not in told
                assert "digest" not in told


async def test_who_made_and_who_revoked_a_key_is_in_the_audit_log() -> None:
    async with keys(working=False) as all_:
        _, made = await make(all_, "full")
        assert await all_.ask("stranger", "DELETE", f"/api/keys/{made['keyId']}") == 200
        before, after = (await audit(all_))[-2:]
        assert (before["actor"], before["action"]) == (all_.key_id("full"), "KeyCreated")
        assert before["data"] == {"key_id": made["keyId"], "account": "bot", "name": "bot", "scopes": BOT["scopes"]}
        assert (after["actor"], after["action"]) == (all_.key_id("stranger"), "KeyRevoked")
        await all_.world.gate.verify()


async def test_a_key_that_is_revoked_is_shown_as_such_and_opens_nothing() -> None:
    async with keys(working=False) as all_:
        _, made = await make(all_, "full")
        all_.texts["bot"] = made["key"]
        assert await all_.ask("full", "DELETE", f"/api/keys/{made['keyId']}") == 200
        assert await all_.ask("bot", "GET", "/api/orders") == 401
        async with all_.world.http.get("/api/keys", headers=all_.headers("full")) as response:
            shown = {each["keyId"]: each["revokedAt"] for each in (await response.json())["keys"]}
        assert shown[made["keyId"]] is not None
        assert shown[all_.key_id("full")] is None


async def test_a_key_may_revoke_itself_and_is_heard_no_more() -> None:
    async with keys(working=False) as all_:
        assert await all_.ask("operator", "DELETE", f"/api/keys/{all_.key_id('operator')}") == 200
        assert await all_.ask("operator", "GET", "/api/keys") == 401


@pytest.mark.parametrize("scope", ["read", "trade"])
async def test_no_key_gives_a_scope_that_it_has_not_itself(scope: str) -> None:
    async with keys(working=False) as all_:
        entries = len(await audit(all_))
        status, body = await make(all_, "operator", scopes=["admin", scope])
        assert (status, body["code"], body["field"]) == (403, "forbidden", "scopes")
        assert len(await audit(all_)) == entries
        assert (await make(all_, "operator", scopes=["admin"]))[0] == 201


async def test_without_keys_nobody_makes_the_first_over_http() -> None:
    async with a_world() as world:
        status, body = await world.post("/api/keys", json={"name": "mine", "scopes": ["read", "trade", "admin"]})
        assert (status, body["code"]) == (403, "forbidden")
        assert "fillwright keys create" in body["message"]
        assert not world.gate.known.demands_keys


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"name": ""}, "invalid_name", "name"),
        ({"name": "local"}, "invalid_name", "account"),
        ({"scopes": ["read", "everything"]}, "invalid_scope", "scopes"),
        ({"scopes": []}, "invalid_scope", "scopes"),
        ({"scopes": "read"}, "invalid_request", "scopes"),
        ({"name": 5}, "invalid_request", "name"),
        ({"owner": "me"}, "invalid_request", "owner"),
    ],
)
async def test_what_is_wrong_with_a_key_is_said_and_none_is_made(
    changes: dict[str, Any], code: str, field: str
) -> None:
    async with keys(working=False) as all_:
        entries = len(await audit(all_))
        status, body = await make(all_, "full", **changes)
        assert (status, body["code"], body["field"]) == (400, code, field)
        assert len(await audit(all_)) == entries


async def test_to_revoke_what_is_no_key_is_refused_without_repeating_it() -> None:
    async with keys(working=False) as all_:
        path = f"/api/keys/{all_.texts['full']}"  # the whole key, where its id belongs
        async with all_.world.http.delete(path, headers=all_.headers("full")) as response:
            body = await response.text()
            assert response.status == 404
            assert '"key_not_found"' in body
            assert all_.texts["full"].split("_")[2] not in body
