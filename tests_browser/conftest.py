"""A headless browser, pages as a reader opens them, and why there may be none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as BrowserError

PAGES = Path(os.environ.get("SUTURE_PAGES", ".venv-browser/pages"))
SYSTEM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCAL = ("file:", "data:", "blob:")
DESKTOP, TALL, PHONE = (1280, 800), (1200, 1000), (390, 844)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium of the system, else of Playwright; tests are skipped with the reason where there is none."""
    system = next(filter(None, map(shutil.which, SYSTEM)), None)
    with sync_playwright() as playwright:
        try:
            # A container has no user namespaces for Chromium's sandbox; pages here are our own.
            found = playwright.chromium.launch(executable_path=system, args=["--no-sandbox", "--disable-gpu"])
        except BrowserError as error:
            pytest.skip(f"no Chromium ({str(error).splitlines()[0]}); install chromium, as apt-get does")
        yield found
        found.close()


@pytest.fixture(scope="session")
def truth() -> dict[str, Any]:
    """What must stand on each page (`make_pages`)."""
    found: dict[str, Any] = json.loads((PAGES / "truth.json").read_text())
    return found


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a page by name and size, with options of a browser context; errors and requests fail the test."""
    contexts, trouble = [], list[str]()

    def open_(name: str, size: tuple[int, int] = DESKTOP, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on("request", lambda r: None if r.url.startswith(LOCAL) else trouble.append(r.url))
        page.goto((PAGES / f"{name}.html").absolute().as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert trouble == []
