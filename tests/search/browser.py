"""Opens a page in a headless browser without a network, to see what a reader's browser makes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
CONSOLE = re.compile(r'^\[[^\]]*:CONSOLE[:(]\d+\)?\] "(.*?)", source: ', re.MULTILINE | re.DOTALL)
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass(frozen=True, slots=True)
class Page:
    """The document after its scripts ran, and all that they wrote to the console.

    Chromium logs every console message at one level, so an error cannot be told from a note; a page without faults
    writes neither.
    """

    dom: str
    console_errors: list[str]


def find_browser() -> str | None:
    """The path of a Chromium or Chrome, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def open_page(path: Path, budget_ms: int = 5000, timeout_s: float = 60) -> Page:
    """Opens a file, lets its scripts run for ``budget_ms`` of the page's own clock, and reads the result."""
    browser = find_browser()
    if browser is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is on PATH")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        own = (f"--user-data-dir={profile}", f"--virtual-time-budget={budget_ms}", "--window-size=1280,2000")
        logging = ("--enable-logging=stderr", "--v=0")
        result = subprocess.run(
            [browser, *FLAGS, *own, *logging, "--dump-dom", path.resolve().as_uri()],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=True,
        )
    return Page(result.stdout, CONSOLE.findall(result.stderr))


def missing_charts(dom: str, ids: Iterable[str]) -> list[str]:
    """The ids without an element that holds a drawn plotly chart."""
    finder = _Charts(set(ids))
    finder.feed(dom)
    finder.close()
    return [name for name in ids if name not in finder.drawn]


def remote_loads(dom: str) -> list[str]:
    """Addresses on a network that an element of the document would load."""
    finder = _Charts(set())
    finder.feed(dom)
    finder.close()
    return finder.remote


class _Charts(HTMLParser):
    """Follows which of the wanted elements is open, and notes those in which a ``.main-svg`` begins."""

    def __init__(self, wanted: set[str]) -> None:
        super().__init__()
        self.wanted = wanted
        self.open: list[tuple[str, str]] = []
        self.drawn: set[str] = set()
        self.remote: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "svg" and "main-svg" in values.get("class", "").split():
            self.drawn.update(name for _, name in self.open if name in self.wanted)
        loads = [value for name, value in values.items() if name in ("src", "srcset", "href", "xlink:href", "data")]
        self.remote += [value for value in loads if re.match(r"(https?:)?//", value.strip()) and tag != "a"]
        if tag not in VOID:
            self.open.append((tag, values.get("id", "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        while any(name == tag for name, _ in self.open) and self.open.pop()[0] != tag:
            pass
