"""Chromium, driven by Playwright, without a network: what takes the pictures and looks for faults."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTH, HEIGHT = 1920, 1080
CHROMIUM_VARIABLE = "COURSE_CHROMIUM"
ARGUMENTS = [
    "--no-sandbox",  # as root, as in continuous integration, Chromium has no sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",  # glyphs as wide as at any other scale
    "--autoplay-policy=no-user-gesture-required",
]
NAMES = (
    "chromium",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "chromium-browser",  # last: Ubuntu's only leads to a snap
)


class NoBrowser(RuntimeError):
    """No Chromium is installed; the message says how to get one."""


def chromium() -> str:
    """The path of Chromium: the variable COURSE_CHROMIUM, what is installed, or Playwright's own. Raises NoBrowser."""
    named = os.environ.get(CHROMIUM_VARIABLE)
    found = next((path for path in map(shutil.which, [named] if named else NAMES) if path), None)
    found = found or (None if named else playwrights_own())
    if not found:
        looked = named or ", ".join(NAMES)
        raise NoBrowser(
            f"no Chromium found (looked for {looked}). Next step: make system-packages, or .venv/bin/python -m "
            f"playwright install chromium, or set {CHROMIUM_VARIABLE}."
        )
    return found


@cache
def playwrights_own() -> str | None:
    """The Chromium that `playwright install chromium` has fetched, if it has."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return shutil.which(playwright.chromium.executable_path)


@contextmanager
def open_page(address: str, scale: float = 1, reveal: bool = True) -> Iterator["Page"]:
    """A page of 1920 x 1080 CSS pixels, each drawn as `scale` pixels; every request to a network fails.

    What the page asked a network for is in `page.course_requests`, what it complained of in `page.course_messages`.
    `reveal=False` is for pages without reveal.js.
    """
    from playwright.sync_api import sync_playwright

    executable = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        try:
            context = running.new_context(
                viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=scale, offline=True
            )
            page = context.new_page()
            _listen(page)
            page.goto(address)
            if reveal:
                page.wait_for_function("window.Reveal && Reveal.isReady()")
            page.evaluate("document.fonts.ready.then(() => true)")
            yield page
        finally:
            running.close()


def _listen(page: "Page") -> None:
    """Keeps what the page asked a network for, and what it complained of."""
    page.course_requests, page.course_messages = [], []
    local = ("file:", "data:", "blob:", "about:")
    page.on("request", lambda request: request.url.startswith(local) or page.course_requests.append(request.url))
    page.on(
        "console", lambda message: message.type in ("error", "warning") and page.course_messages.append(message.text)
    )
    page.on("pageerror", lambda error: page.course_messages.append(str(error)))


def address(page: Path, query: str = "export", slide: str = "") -> str:
    """A built page's address; `query` is `export` for pictures, `print-pdf` for print, or nothing for presenting."""
    return f"{page.resolve().as_uri()}?{query}{f'#/{slide}' if slide else ''}"


def show(page: "Page", slide: int) -> None:
    """Turn to a slide (from 1) and wait until it is drawn."""
    page.evaluate("number => Reveal.slide(number - 1)", slide)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
