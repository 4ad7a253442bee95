"""A headless Chromium for tests, driven by its own protocol over a socket; whoever has none skips visibly."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

__all__ = ["Chromium", "Tab", "find_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--disable-extensions", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-port=0", "--lang=en-US", "--mute-audio",
)  # fmt: skip
WAIT_S = 50.0


def find_chromium() -> str:
    """Where it is; skips the test if it is nowhere."""
    found = os.environ.get("RUNRAILS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium, or name one in RUNRAILS_CHROMIUM")
    return found


class Chromium:
    """A browser with an empty profile."""

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        profile.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "TZ": "UTC", "LANG": "en_US.UTF-8", "HOME": str(profile)}
        self._process = subprocess.Popen(
            [find_chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"], env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._port = self._wait_for_port()

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def tab(self, *, width: int = 1280, height: int = 900, phone: bool = False) -> Tab:
        """The browser's page, at that size."""
        from urllib.request import urlopen

        until, address = time.monotonic() + WAIT_S, ""
        while not address:  # it listens a moment before its first page is there
            with urlopen(f"http://127.0.0.1:{self._port}/json", timeout=WAIT_S) as answer:
                pages = [each["webSocketDebuggerUrl"] for each in json.load(answer) if each["type"] == "page"]
            address = next(iter(pages), "")
            assert time.monotonic() < until, "Chromium has no page"
        tab = Tab(connect(address, max_size=64 * 2**20, open_timeout=WAIT_S))
        tab.resize(width, height, phone=phone)
        return tab

    def _wait_for_port(self) -> str:
        place, until = self._profile / "DevToolsActivePort", time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if place.exists() and (lines := place.read_text().split()):
                return lines[0]
            if self._process.poll() is not None:
                raise AssertionError(f"Chromium ended with {self._process.returncode}")
            time.sleep(0.05)
        raise AssertionError("Chromium did not start")


class Tab:
    """One page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._asked = 0
        self.told: list[str] = []
        """What went wrong there: errors, refused policies, logged warnings."""
        self.asked_for: list[str] = []
        """Every address that was asked for."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def do(self, method: str, **params: object) -> dict[str, Any]:
        """One command of the protocol."""
        self._asked += 1
        self._socket.send(json.dumps({"id": self._asked, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(WAIT_S))
            if told.get("id") == self._asked:
                assert "error" not in told, told["error"]
                return told["result"]
            self._hear(told)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """The size of what is seen."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.do("Emulation.setTouchEmulationEnabled", enabled=phone)

    def dark(self, *, on: bool = True) -> None:
        """What the system prefers."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.do("Emulation.setEmulatedMedia", features=features)

    def go(self, address: str) -> None:
        """Open an address."""
        self.do("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """What an expression comes to; promises are awaited."""
        told = self.do(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )  # fmt: skip
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + WAIT_S
        while True:
            try:
                found = self.run(f"!!({script})")
            except AssertionError:  # the page is being exchanged
                found = None
            if found:
                return
            assert time.monotonic() < until, (
                f"never: {script}\n{self.run('document.body.innerText')[:2000]}\n{self.told}"
            )
            time.sleep(0.03)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.do("Input.insertText", text=text)

    def press(self, key: str, text: str | None = None) -> None:
        """Press a key: `Enter`, `Tab`, `g`."""
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "End": 35}
        text = text if text is not None else ("\r" if key == "Enter" else key if len(key) == 1 else None)
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        more = {} if text is None else {"text": text}
        self.do("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        self.do("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path, *, whole: bool = False) -> bytes:
        """What is seen, as a PNG."""
        told = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        data = base64.b64decode(told["data"])
        path.write_bytes(data)
        return data

    def _hear(self, told: dict[str, Any]) -> None:
        method, params = told.get("method"), told.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.told.append(json.dumps(params["exceptionDetails"])[:600])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.told.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.told.append(json.dumps(params["args"])[:600])
        elif method == "Network.requestWillBeSent":
            self.asked_for.append(params["request"]["url"])
