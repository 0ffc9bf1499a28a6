"""What a person would notice from the back of the room, found by measuring in a real browser without a network.

`check_page` turns to every slide and collects faults: text that leaves its box, overlaps, letters too small or too
pale, characters the fonts lack, pictures without descriptions, dead links, uneven fill, requests, console messages, and
words that are not the source's. `python -m slides check` prints them; the tests expect none.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from . import fonts
from .browser import address, open_page, show
from .deck import SLIDES, Slide
from .page import plain

INSPECT = Path(__file__).parent / "theme" / "inspect.js"
TARGETS = {f"#/slide-{number:02d}" for number in range(1, SLIDES + 1)}
#: at least this share of each half of the slide's inside is covered by something that is not background
LEAST_FILL = 0.04
HALVES = {"left": (0, 0, 0.5, 1), "right": (0.5, 0, 1, 1), "upper": (0, 0, 1, 0.5), "lower": (0, 0.5, 1, 1)}


@dataclass(frozen=True)
class Fault:
    """One thing wrong on one slide; `slide` 0 means the page as a whole."""

    slide: int
    rule: str
    what: str

    def __str__(self) -> str:
        return f"slide {self.slide:02d}: {self.rule}: {self.what}" if self.slide else f"page: {self.rule}: {self.what}"


def check_page(page: Path, slides: list[Slide]) -> list[Fault]:
    """Every fault of a built page. `slides` are those it was built from, in order."""
    faults: list[Fault] = []
    script = INSPECT.read_text(encoding="utf-8")
    with open_page(address(page)) as browser:
        faults += [Fault(0, "network", request) for request in browser.course_requests]
        shown = browser.evaluate("[...document.querySelectorAll('.slides > section')].map(section => section.id)")
        if shown != [slide.id for slide in slides]:
            faults.append(Fault(0, "order", f"the page shows {shown}"))
        for place, slide in enumerate(slides, 1):
            show(browser, place)
            seen = browser.evaluate(script, slide.id)
            faults += [Fault(slide.number, rule, what) for rule, what in seen["faults"]]
            faults += [Fault(slide.number, "link", link) for link in seen["links"] if link not in TARGETS]
            faults += [Fault(slide.number, "glyph", what) for what in _missing_characters(seen["characters"])]
            faults += [Fault(slide.number, "text", what) for what in _wrong_words(slide, seen["texts"])]
            faults += [Fault(slide.number, "fill", what) for what in _empty_parts(browser.screenshot(type="png"))]
        faults += [Fault(0, "console", message) for message in browser.course_messages]
    return faults


def _missing_characters(texts: list[tuple[str, str, str]]) -> list[str]:
    faults = []
    for family, style, text in texts:
        if (family, style) not in fonts.FILES:
            faults.append(f"{text[:40]!r} is set in {family} {style}, which the page does not carry")
            continue
        missing = sorted({char for char in text if not char.isspace()} - fonts.characters(family, style))
        if missing:
            faults.append(f"{family} has no {' '.join(missing)} for {text[:40]!r}")
    return faults


def _wrong_words(slide: Slide, texts: list[tuple[str, str]]) -> list[str]:
    """Words of the source that are not on the slide as they stand there."""
    shown = {role: [text for other, text in texts if other == role] for role, _ in texts}
    wanted = {"kicker": [slide.kicker], "title": [slide.title], "claim": [slide.claim], "wisdom": [slide.wisdom]}
    if slide.kind == "title":
        central = [line.split(": ", 1)[1] for line in slide.sections["Central Text"]]
        wanted = {"title": central[:1], "subtitle": central[1:2], "tagline": central[2:], "wisdom": [slide.wisdom]}
    wanted |= {
        heading: lines
        for heading, lines in slide.sections.items()
        if isinstance(lines, list) and heading != "Central Text"
    }
    if slide.anchor:
        wanted["anchor-label"] = [f"Hands-on Anchor: {slide.anchor.lab}"]
        wanted["anchor-asset"] = list(slide.anchor.assets)
        wanted["anchor-objective"], wanted["anchor-prerequisite"] = (
            [slide.anchor.objective],
            [slide.anchor.prerequisite],
        )
    faults = []
    for role, lines in wanted.items():
        said = [plain(line) for line in lines]
        if shown.get(role) != said:
            faults.append(f"{role}: the slide shows {shown.get(role)}, its source says {said}")
    return faults


def _empty_parts(picture: bytes) -> list[str]:
    """Halves of the slide's inside (without head, foot and margins) that hold almost nothing."""
    from PIL import Image, ImageChops, ImageFilter

    image = Image.open(io.BytesIO(picture)).convert("L")
    inside = image.crop((72, 200, 1848, 1010))
    # What differs from its surroundings is ink: flat backgrounds and cards vanish, text and drawings stay.
    ink = ImageChops.difference(inside, inside.filter(ImageFilter.GaussianBlur(12))).point(
        lambda value: 255 * (value > 6)
    )
    faults = []
    for name, (left, top, right, bottom) in HALVES.items():
        part = ink.crop(
            (int(left * ink.width), int(top * ink.height), int(right * ink.width), int(bottom * ink.height))
        )
        share = part.histogram()[255] / (part.width * part.height)
        if share < LEAST_FILL:
            faults.append(f"the {name} half is {share:.1%} filled, expected at least {LEAST_FILL:.0%}")
    return faults
