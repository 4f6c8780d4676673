"""A headless Chromium, driven through chromedriver's plain HTTP interface (W3C WebDriver) with the standard library."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

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
        self._process = subprocess.Popen(
            [driver, "--port=0", "--log-level=SEVERE"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self._root = f"http://127.0.0.1:{self._port()}"
            options = {
                "binary": chromium,
                "args": [*_FLAGS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"],
            }
            logs = {"browser": "ALL", "performance": "ALL"}
            wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": logs}}
            answer = self._call("POST", "/session", {"capabilities": wanted})
            self._root += f"/session/{answer['sessionId']}"
            self._call("POST", "/url", {"url": "data:,"})
            self.requests()  # those of the page a new window shows
        except BaseException:
            self._stop()
            raise

    def open(self, page: Path) -> None:
        """Load a page and wait until its scripts have run."""
        self._call("POST", "/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's ``return`` (a promise is awaited)."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str, seconds: float = 10.0) -> None:
        """Poll a JavaScript expression until it is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = self.run(f"return Boolean({condition})")
            if value:
                return
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {condition}; console: {self.console()}")

    def box(self, selector: str) -> dict[str, float]:
        """Where the first matching element stands in the window (x, y, width, height in CSS pixels)."""
        return self.run(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return b.toJSON()", selector
        )

    def press(self, key: str) -> None:
        """A real key press on whatever has the focus; names of special keys as in W3C WebDriver ('\\ue00c')."""
        strokes = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def click(self, x: float, y: float) -> None:
        """A real click at a place of the window."""
        moves = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": moves}
        self._call("POST", "/actions", {"actions": [pointer]})

    def emulate(self, width: int, height: int, dark: bool = False, mobile: bool = False, scale: float = 1.0) -> None:
        """Another screen and colour scheme."""
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self._devtools("Emulation.setDeviceMetricsOverride", screen)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._devtools("Emulation.setEmulatedMedia", {"features": scheme})

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What the window (or the whole page) shows, as PNG."""
        answer = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": whole, "format": "png"})
        path.write_bytes(base64.b64decode(answer["data"]))

    def console(self) -> list[str]:
        """Warnings and errors logged since the last call."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses requested since the last call."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self._call("POST", "/se/log", {"type": "performance"})
        ]
        sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]

    def close(self) -> None:
        """End the browser."""
        try:
            self._call("DELETE", "", None)
        finally:
            self._stop()

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _port(self) -> int:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "started successfully on port" in line:
                return int(line.rstrip(" .\n").rsplit(" ", 1)[1])
        raise RuntimeError("chromedriver did not start")

    def _call(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._root + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from error

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._profile.cleanup()
