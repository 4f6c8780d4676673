"""A headless Chromium, driven by selenium and Debian's chromedriver."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
)


class Browser:
    """One tab. Pages are local files; what they log and request is kept."""

    def __init__(self, width: int = 1300, height: int = 1000):
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        driver = shutil.which("chromedriver")
        if chromium is None or driver is None:
            pytest.skip("no headless Chromium here: apt-get install chromium chromium-driver")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ChromeOptions()
        options.binary_location = chromium
        for flag in (*_FLAGS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # Both programs are named, so that selenium looks for neither on the network.
        self._driver = Chrome(options, Service(driver))
        self._driver.get("data:,")
        self.requests()  # those of the page a new window shows

    def open(self, page: Path) -> None:
        """Load a page and wait until its scripts have run."""
        self._driver.get(page.resolve().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's ``return`` (a promise is awaited)."""
        return self._driver.execute_script(script, *arguments)

    def wait(self, condition: str, seconds: float = 10.0) -> None:
        """Poll a JavaScript expression until it is true."""
        try:
            WebDriverWait(self._driver, seconds, 0.05).until(lambda _: self.run(f"return Boolean({condition})"))
        except TimeoutException:
            raise AssertionError(f"not within {seconds} s: {condition}; console: {self.console()}") from None

    def box(self, selector: str) -> dict[str, float]:
        """Where the first matching element stands in the window (x, y, width, height in CSS pixels)."""
        return self.run(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return b.toJSON()", selector
        )

    def press(self, key: str) -> None:
        """A real key press on whatever has the focus; special keys as in selenium's ``Keys``."""
        ActionChains(self._driver).send_keys(key).perform()

    def click(self, x: float, y: float) -> None:
        """A real click at a place of the window."""
        actions = ActionChains(self._driver, duration=0)
        actions.w3c_actions.pointer_action.move_to_location(round(x), round(y)).click()
        actions.perform()

    def emulate(self, width: int, height: int, dark: bool = False, mobile: bool = False, scale: float = 1.0) -> None:
        """Another screen and colour scheme."""
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What the window (or the whole page) shows, as PNG."""
        wanted = {"captureBeyondViewport": whole, "format": "png"}
        path.write_bytes(base64.b64decode(self._driver.execute_cdp_cmd("Page.captureScreenshot", wanted)["data"]))

    def console(self) -> list[str]:
        """Warnings and errors logged since the last call."""
        return [e["message"] for e in self._driver.get_log("browser") if e["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses requested since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]

    def close(self) -> None:
        """End the browser."""
        self._driver.quit()
        self._profile.cleanup()
