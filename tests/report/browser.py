"""A real browser for the pages: Chromium by Playwright, where both are there."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
MISSING = (
    "playwright is not installed: pip install 'vidcls[test]'"
    if importlib.util.find_spec("playwright") is None
    else "Chromium is not installed: apt-get install chromium"
    if CHROMIUM is None
    else ""
)
needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is open, and all that went wrong or out on it.

    Attributes:
        page: Playwright's page.
        wrong: Errors, messages of the console and dialogs.
        answered: Addresses that the page got something from, beside itself and what it holds.
    """

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self._context.new_page()
        self.wrong: list[str] = []
        self.answered: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self._address = path.absolute().as_uri()
        self.page.on("response", lambda response: self._take(response.url))
        self.page.goto(self._address)

    def _take(self, address: str) -> None:
        if not address.startswith(("data:", self._address)):
            self.answered.append(address)

    def close(self) -> None:
        self._context.close()
