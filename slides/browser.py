"""Chromium, driven by Playwright, without a network: what takes the pictures and looks for faults."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class NoBrowser(RuntimeError):
    """No Chromium is installed; the message says how to get one."""


def chromium() -> str:
    """The path of Chromium: the variable COURSE_CHROMIUM, or what is installed. Raises NoBrowser."""
    named = os.environ.get(CHROMIUM_VARIABLE)
    found = next((path for path in map(shutil.which, [named] if named else NAMES) if path), None)
    if not found:
        looked = named or ", ".join(NAMES)
        raise NoBrowser(
            f"no Chromium found (looked for {looked}). Next step: make system-packages, or set {CHROMIUM_VARIABLE}."
        )
    return found


@contextmanager
def open_page(address: str, scale: float = 1, width: int = WIDTH, height: int = HEIGHT) -> Iterator["Page"]:  # noqa: F821
    """A page of `width` x `height` CSS pixels, each drawn as `scale` pixels; every request to a network fails."""
    from playwright.sync_api import sync_playwright

    executable = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        try:
            context = running.new_context(
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                offline=True,
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.goto(address)
            page.wait_for_function("window.Reveal && Reveal.isReady()")
            page.evaluate("document.fonts.ready.then(() => true)")
            yield page
        finally:
            running.close()


def address(page: Path, query: str = "export", slide: str = "") -> str:
    """A built page's address; `query` is `export` for pictures, `print-pdf` for print, or nothing for presenting."""
    return f"{page.resolve().as_uri()}?{query}{f'#/{slide}' if slide else ''}"


def show(page: "Page", slide: int) -> None:  # noqa: F821
    """Turn to a slide (from 1) and wait until it is drawn."""
    page.evaluate("number => Reveal.slide(number - 1)", slide)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
