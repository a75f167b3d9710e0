"""A browser without a window, driven over a pipe; tests that need one are skipped where there is none."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
WAIT_S = 60
PROBES = Path(__file__).with_name("probes.js").read_text()
"""Functions that a test may call on the page."""


class Browser:
    """Chromium with one page. Messages are JSON and end in a zero byte (DevTools Protocol, --remote-debugging-pipe).

    `complaints` holds every exception and every warning or error of the console since the page was opened.
    """

    def __init__(self, program: str, profile: Path):
        theirs_in, self.to = os.pipe()
        self.of, theirs_out = os.pipe()
        self.process = _started([program, *FLAGS, f"--user-data-dir={profile}", "about:blank"], theirs_in, theirs_out)
        self.buffer, self.number, self.session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        pages = [info for info in self("Target.getTargets")["targetInfos"] if info["type"] == "page"]
        self.session = self("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters) -> dict[str, Any]:
        """Send a command and wait for its answer; what else comes is kept as an event."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(self.to, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            assert select.select([self.of], [], [], WAIT_S)[0], "the browser does not answer"
            self.buffer += os.read(self.of, 1 << 20)
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Show a file in a window of a size, and wait until it is drawn."""
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self("Page.navigate", url=path.resolve().as_uri())
        self.until("document.readyState === 'complete'")
        self.js(PROBES)
        self.js("new Promise((done) => setTimeout(done, 400))")

    def js(self, expression: str) -> Any:
        """The value of an expression, a promise's when it is kept."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until it holds."""
        last = time.monotonic() + WAIT_S
        while not self.js(expression):
            assert time.monotonic() < last, f"never came true: {expression}"
            time.sleep(0.05)

    @property
    def complaints(self) -> list[str]:
        kinds = "Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        """mousePressed, mouseMoved, mouseReleased or mouseWheel at a place in the window."""
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """With the left button."""
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self.mouse("mousePressed", *start, **held)
        self.mouse("mouseMoved", *end, **held)
        self.mouse("mouseReleased", *end, **held)

    def key(self, name: str) -> None:
        """Press and let go."""
        self("Input.dispatchKeyEvent", type="keyDown", key=name, **({"text": name} if len(name) == 1 else {}))
        self("Input.dispatchKeyEvent", type="keyUp", key=name)

    def quit(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(WAIT_S)
        os.close(self.to)
        os.close(self.of)


def _started(command: list[str], reads: int, writes: int) -> subprocess.Popen:
    """A process that reads from a pipe at 3 and writes to one at 4."""
    reads_high, writes_high = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (reads, writes))

    def place() -> None:
        os.dup2(reads_high, 3)
        os.dup2(writes_high, 4)

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(command, preexec_fn=place, close_fds=True, pass_fds=(3, 4), **quiet)
    for end in (reads, writes, reads_high, writes_high):
        os.close(end)
    return process


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on PATH")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()
