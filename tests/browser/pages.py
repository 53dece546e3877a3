"""A real browser on a real engine's dashboard."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Collection
from typing import Final, Literal

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright

from tests.process import EngineProcess

NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",  # which needs more than a container gives; the only pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS: Final = 15_000
WIDE: Final = 1280
NARROW: Final = 390
HEIGHT: Final = 844


def chromium() -> str:
    """Return the browser's path. Where there is none, skip the test; in CI, where there must be one, fail it."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    missing = f"there is no browser: install one of {', '.join(NAMES)} (on Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@contextlib.asynccontextmanager
async def a_page(
    engine: EngineProcess,
    path: str,
    *,
    width: int = WIDE,
    scheme: Literal["light", "dark"] = "light",
    complaints: Collection[str] = (),
) -> AsyncIterator[Page]:
    """Open a page of the dashboard. At the end nothing may have been complained of but what has one of `complaints`."""
    complained: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complained.append(message.text)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            context = await browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            context.set_default_timeout(PATIENCE_MS)
            page = await context.new_page()
            page.on("console", hear)
            page.on("pageerror", lambda error: complained.append(str(error)))
            await page.goto(f"{url(engine)}{path}")
            yield page
        finally:
            await browser.close()
    assert [text for text in complained if not any(known in text for known in complaints)] == []


def url(engine: EngineProcess) -> str:
    return str(engine.http._base_url).rstrip("/")
