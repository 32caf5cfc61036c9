"""A real headless Chromium, driven through the DevTools protocol over two pipes; standard library only."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60.0
"""To wait for an answer before the browser is given up."""
NO_CHROMIUM = "no Chromium on this machine: make browser (as root: apt-get install chromium)"
REQUIRED = "PSGPO_REQUIRE_BROWSER"
VIRTUAL_KEYS = {"ArrowDown": 40, "ArrowRight": 39, "ArrowUp": 38, "ArrowLeft": 37, "Escape": 27, "Tab": 9, "Enter": 13}


def find_chromium() -> str | None:
    """Path of a Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def skips_browser() -> bool:
    """Whether the tests of pages are skipped. With PSGPO_REQUIRE_BROWSER=1 they fail where there is no Chromium."""
    return find_chromium() is None and os.environ.get(REQUIRED) != "1"


class Chromium:
    """One browser with one tab. Use as a context manager."""

    def __init__(self, binary: str, profile: Path) -> None:
        reads, self._write = os.pipe()
        self._read, writes = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4; high numbers first, so that neither is taken.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        options += ["--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars"]
        options += [f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "bash", binary, *options],
            pass_fds=high,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (reads, writes, *high):
            os.close(end)
        self._buffer, self._number = b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """What the page reported since the last `open`: console messages, exceptions, requests."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return dict(message["result"])
            self.events.append(message)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._read, 1 << 16) if ready else b""
            if not piece:
                raise RuntimeError("Chromium ended or does not answer")
            self._buffer += piece
        raw, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(raw))

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a file and wait until it is there."""
        self.send("Page.navigate", url="about:blank")
        self.events.clear()
        self.send("Page.navigate", url=f"{page.resolve().as_uri()}{fragment}")
        deadline = time.monotonic() + SECONDS
        while self.js("document.readyState") != "complete" or self.js("location.href") == "about:blank":
            assert time.monotonic() < deadline, "the page does not load"

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What a person reads in the first element of a selector."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    def key(self, key: str, *, modifiers: int = 0) -> None:
        """Press and release a key. Modifiers: 1 Alt, 2 Ctrl, 8 Shift."""
        typed = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        code = {"windowsVirtualKeyCode": VIRTUAL_KEYS[key]} if key in VIRTUAL_KEYS else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=modifiers, **typed, **code)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, modifiers=modifiers, **code)

    def click(self, selector: str) -> None:
        """Click the middle of the first element of a selector, as a mouse does."""
        box = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def choose(self, selector: str, value: int) -> None:
        """Choose an option of a select, as its menu does."""
        name = json.dumps(selector)
        self.js(
            f"(() => {{ const e = document.querySelector({name}); e.value = {value};"
            " e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def look(self, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Size of the window and colour scheme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    @contextmanager
    def alone_with(self, page: Path, *, allowed: str | None = None) -> Iterator[None]:
        """A page, freshly opened; at the end it must have reported no error and asked for nothing but itself.

        Args:
            allowed: beginning of addresses that it may ask for too.
        """
        self.look()
        self.open(page)
        yield
        faults = [event for event in self.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        assert not faults
        asked = {e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"}
        others = {url for url in asked if allowed is None or not url.startswith(allowed)}
        assert {url.partition("#")[0] for url in others} <= {page.resolve().as_uri()}

    def screenshot(self, out: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        out.write_bytes(base64.b64decode(shot["data"]))

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)  # the browser ends when its pipe does
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
