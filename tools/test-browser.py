"""Open pages in Chromium, as a phone and as a screen, and see that they fit and ask for nothing.

    tools/test-browser.py [FOLDER ...]

FOLDER is a run folder, or one that holds an index.html; with none, sample runs are made. Each page
is opened 360 and 1,200 px wide, in light and in dark, with everything folded open. Screenshots are
left in .build/browser. Chromium is driven through its debugging pipe: nothing else is needed.
"""

from __future__ import annotations

import base64
import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / ".build" / "browser"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VIEWS = ((360, 2, "light"), (360, 2, "dark"), (1200, 1, "light"), (1200, 1, "dark"))
"""Width in CSS pixels, device pixels to one of them, colours."""
TALLEST = 16_000
"""Device pixels that a screenshot may be high."""

# What is wrong with an open page, as lines.
CHECK = """(() => {
  const wrong = [];
  document.querySelectorAll('details').forEach(each => each.open = true);
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth)
    wrong.push(`it is ${page.scrollWidth} px wide in a window of ${innerWidth}`);
  const named = each => `<${each.tagName.toLowerCase()}> ${each.textContent.trim().slice(0, 40)}`;
  for (const each of document.body.querySelectorAll('*')) {
    const box = each.getBoundingClientRect();
    if (!each.closest('.wide') && box.width && (box.right > innerWidth + 1 || box.left < -1))
      wrong.push(`${named(each)} sticks out: ${box.left.toFixed()} to ${box.right.toFixed()}`);
  }
  for (const each of document.images)
    if (!each.complete || !each.naturalWidth) wrong.push(`a picture does not open: ${each.alt}`);
  for (const chart of document.querySelectorAll('.chart > svg')) {
    const edge = chart.getBoundingClientRect();
    const boxes = [...chart.querySelectorAll('text')].map(t => [t, t.getBoundingClientRect()]);
    for (const [text, a] of boxes) {
      if (a.left < edge.left - 1 || a.right > edge.right + 1 || a.bottom > edge.bottom + 1)
        wrong.push(`a chart cuts ${named(text)}`);
      if (a.height < 8) wrong.push(`${named(text)} is too small to read: ${a.height} px`);
      for (const [other, b] of boxes)
        if (text !== other && a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 1 && b.top < a.bottom - 1)
          wrong.push(`in a chart ${named(text)} lies on ${named(other)}`);
    }
  }
  return [...new Set(wrong)];
})()"""


# Where Chromium looks for its pipe.
_AS_3_AND_4 = """import os, sys
os.dup2(int(sys.argv[1]), 3), os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])"""


class Chromium:
    """A browser without a window, told what to do by lines of JSON."""

    def __init__(self, program: str, home: str) -> None:
        # Above every number that the child gives a meaning to.
        theirs, self._write = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in os.pipe())
        self._read, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in os.pipe())
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _AS_3_AND_4, str(theirs), str(answers), program),
                *("--headless", "--remote-debugging-pipe", f"--user-data-dir={home}"),
                *("--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            ],
            pass_fds=(theirs, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        self._rest = b""
        self._count = 0
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = ""
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for part in ("Page", "Network", "Log"):
            self.ask(f"{part}.enable")

    _session = ""

    def ask(self, method: str, **params: Any) -> Any:
        """Send a command, and wait for its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") != self._count:
                self.events.append(told)
            elif "error" in told:
                raise RuntimeError(f"{method}: {told['error']['message']}")
            else:
                return told["result"]

    def wait(self, method: str) -> None:
        """Wait until something has happened."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._read, 2**20)
            if not data:
                raise RuntimeError("Chromium has gone")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def chromium() -> Iterator[Chromium]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        sys.exit(
            "no Chromium: apt-get install chromium (Debian), snap install chromium (Ubuntu), "
            "brew install --cask chromium (macOS)"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        browser = Chromium(program, home)
        try:
            yield browser
        finally:
            browser.close()


def look(browser: Chromium, page: Path, width: int, scale: int, colours: str) -> list[str]:
    """Open a page at a width, leave a screenshot, and tell what is wrong."""
    screen = {"width": width, "height": 800, "deviceScaleFactor": scale, "mobile": width < 500}
    browser.ask("Emulation.setDeviceMetricsOverride", **screen)
    wanted = [{"name": "prefers-color-scheme", "value": colours}]
    browser.ask("Emulation.setEmulatedMedia", features=wanted)
    browser.events.clear()
    address = page.resolve().as_uri()
    browser.ask("Page.navigate", url=address)
    browser.wait("Page.loadEventFired")
    size = browser.ask("Page.getLayoutMetrics")["cssContentSize"]
    height = min(size["height"], TALLEST / scale)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
    name = f"{page.parent.name}-{width}-{colours}.png"
    (SHOTS / name).write_bytes(base64.b64decode(shot["data"]))
    told = browser.ask("Runtime.evaluate", expression=CHECK, returnByValue=True)["result"]
    wrong = [str(line) for line in told["value"]]
    for event in browser.events:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if url != address and not url.startswith("data:"):
                wrong.append(f"it asks for {url}")
        elif event.get("method") == "Log.entryAdded":
            wrong.append(f"the browser says: {params['entry']['text']}")
    return wrong


def samples() -> list[Path]:
    """Sample runs, whole and partial, written anew."""
    source = ROOT / "tests" / "data" / "sample_run.py"
    spec = importlib.util.spec_from_file_location("sample_run", source)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = SHOTS / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    return list(module.make_all(folder))


def page_of(folder: Path) -> Path:
    """The page of a folder; that of a run is written anew."""
    if (folder / "index.html").is_file():
        return folder / "index.html"
    from discovery.report.page import write

    return write(folder)


def main(arguments: list[str]) -> int:
    with chromium() as browser:
        SHOTS.mkdir(parents=True, exist_ok=True)
        pages = [page_of(folder) for folder in map(Path, arguments)] or [
            page_of(folder) for folder in samples()
        ]
        found = 0
        for page in pages:
            for width, scale, colours in VIEWS:
                wrong = look(browser, page, width, scale, colours)
                print(f"{page.parent.name}, {width} px, {colours}: {len(wrong) or 'nothing'} wrong")
                for line in wrong:
                    print(f"  {line}")
                found += len(wrong)
    print(f"{len(pages)} pages, {found or 'nothing'} wrong; screenshots: {SHOTS.relative_to(ROOT)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
