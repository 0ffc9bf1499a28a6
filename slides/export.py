"""What is made of the page: pictures, the PDF of the slides, and the handout with the speaker notes."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from course_helpers.labs.records import whole

from .browser import address, open_page, show

Progress = Callable[[str], None]


def write_pictures(
    page: Path, folder: Path, numbers: Iterable[int], scale: float, progress: Progress = print
) -> list[Path]:
    """One PNG a slide, `scale` x 1920 pixels wide, named 01.png to 30.png; each is written whole or not at all."""
    written = []
    with open_page(address(page), scale) as browser:
        for number in numbers:
            show(browser, number)
            path = folder / f"{number:02d}.png"
            with whole(path) as temporary:
                temporary.write_bytes(browser.screenshot(type="png"))
            written.append(path)
            progress(f"picture {number:02d}")
    return written


def write_pdf(page: Path, target: Path) -> None:
    """All slides as a tagged PDF with bookmarks, one slide a page, text as text."""
    with open_page(address(page, "print-pdf")) as browser:
        browser.wait_for_selector(".pdf-page")
        # reveal.js hides all slides but one from screen readers; on paper each is as present as the others.
        browser.evaluate(
            "document.querySelectorAll('section[aria-hidden]').forEach(s => s.removeAttribute('aria-hidden'))"
        )
        _save(target, browser.pdf(prefer_css_page_size=True, print_background=True, tagged=True, outline=True))


def write_handout(handout: str, target: Path) -> None:
    """The page of `build_handout` as a tagged PDF."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "handout.html"
        page.write_text(handout, encoding="utf-8")
        with open_page(page.as_uri(), reveal=False) as browser:
            _save(target, browser.pdf(prefer_css_page_size=True, print_background=True, tagged=True, outline=True))


def _save(target: Path, content: bytes) -> None:
    with whole(target) as temporary:
        temporary.write_bytes(content)
