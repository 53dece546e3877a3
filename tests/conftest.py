"""Tests that are coroutines run on a virtual loop (see `tests.virtual`), unless an argument of theirs runs them.

`make deep` looks at a million and a half cases of quotes instead of a few thousand.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import virtual

pytest_plugins = ["tests.server_fixtures"]

settings.register_profile(
    "deep", max_examples=50_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("shallow", deadline=None)  # that a machine is busy is no fault
if settings.get_current_profile_name() == "default":
    settings.load_profile("shallow")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    runners = [argument.run_test for argument in arguments.values() if hasattr(argument, "run_test")]
    (runners[0] if runners else virtual.run)(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def clock() -> virtual.VirtualClock:
    return virtual.VirtualClock()
