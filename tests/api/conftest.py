"""Every test of the API runs over both ways in: the fast lane, and the ASGI route it must not be told apart from."""

from __future__ import annotations

import pytest

from tests import world


@pytest.fixture(autouse=True, params=["on", "off"], ids=["fast lane", "asgi"])
def fast_lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.DEFAULTS, "fast_lane", request.param)
