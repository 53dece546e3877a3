"""Tests that are coroutines run on a virtual loop: see `tests.virtual`."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tests import virtual


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    virtual.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def clock() -> virtual.VirtualClock:
    return virtual.VirtualClock()
