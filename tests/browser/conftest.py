from __future__ import annotations

import pytest

from tests.browser.pages import chromium


@pytest.fixture(autouse=True)
def _browser() -> None:
    """Skip before an engine is started for nothing."""
    chromium()
