"""One headless browser for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support_browser import Browser


@pytest.fixture(scope="session")
def running_browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(running_browser: Browser) -> Browser:
    """The browser, on a desktop screen, its logs empty."""
    running_browser.emulate(1300, 1000)
    running_browser.console()
    running_browser.requests()
    return running_browser
