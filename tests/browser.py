"""Chromium without a window, by its debugging protocol over two pipes: nothing to install but the browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any

LIMIT = 60.0  # seconds until waiting is given up
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The browser reads from descriptor 3 and writes to 4. Its arguments are what comes after two descriptors.
START = "import os, sys; [os.dup2(int(sys.argv[n]), n + 2) for n in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"


class Browser:
    """A context with one page. ``events`` are what the browser told of its own accord."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._session = ""
        self._held = b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        assert CHROMIUM is not None
        self._answers, theirs = os.pipe()
        given, self._orders = os.pipe()
        # Far from 3 and 4, so that neither is lost on the way there.
        ends = [os.dup2(end, place) for end, place in ((given, 100), (theirs, 101))]
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, ends), CHROMIUM, f"--user-data-dir={self._folder}", *options],
            pass_fds=ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (given, theirs, *ends):
            os.close(end)
        pages = self._call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in pages if each["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._answers)
        os.close(self._orders)

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What JavaScript makes of it."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until it is true."""
        deadline = monotonic() + LIMIT
        while not self.value(expression):
            assert monotonic() < deadline, (expression, self.value("document.body.innerText"))
            sleep(0.02)

    def type_into(self, field: str, text: str) -> None:
        """In the place of what the field with this id has."""
        self.value(f"document.getElementById({field!r}).select()")
        self._call("Input.insertText", text=text)

    def click(self, element: str) -> None:
        """With the mouse, on the element with this id."""
        box = f"document.getElementById({element!r}).getBoundingClientRect()"
        place = self.value(f"[{box}.x + {box}.width / 2, {box}.y + {box}.height / 2]")
        mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, **mouse)

    def complaints(self) -> list[dict[str, Any]]:
        """What would be in the console."""
        return [event for event in self.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]

    def requested(self) -> set[str]:
        """The addresses of all that the page loaded."""
        return {
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        }  # fmt: skip

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            if "method" in message:
                self.events.append(message)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            data = os.read(self._answers, 1 << 16)
            assert data, "the browser has ended"
            self._held += data
        message, _, self._held = self._held.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
