"""The slides as their sources say them: one Markdown file a slide, read and checked before anything is built.

A source has YAML front matter (what kind of slide, title, claim, minutes, which figure and what it shows) and sections
under `##` headings. `SECTIONS` says which sections a kind of slide has, and of what form each is.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

CONTENT = Path(__file__).parent / "content"
SLIDES = 30
HOUR_MINUTES = 60  # slides 1 to 18 fill the first hour, 19 to 30 the second
FIRST_OF_HOUR_2 = 19

LAYOUTS = ("figure-left", "figure-right", "figure-top")
OPTIONAL = {"layout", "figure_height"}
WORDS = ("title", "kicker", "claim", "figure", "alt")
SHORTEST_NOTES = 60
FRONT_MATTER = {"kind", "title", "kicker", "claim", "minutes", "figure", "alt"}

NUMBERED, BULLETS, LINE, TEXT = "numbered list", "bullet list", "line", "text"
FORMS = {
    "Central Text": BULLETS,
    "Hour 1": NUMBERED,
    "Hour 2": NUMBERED,
    "Annotations": NUMBERED,
    "Beginner's Corner": BULLETS,
    "Checklist": NUMBERED,
    "Code": TEXT,
    "Storyboard": NUMBERED,
    "Animation Asset": LINE,
    "Hands-on Anchor": LINE,
    "Key Takeaways": NUMBERED,
    "What You Can Now Do": BULLETS,
    "Next": LINE,
    "Wisdom": LINE,
    "Speaker notes": TEXT,
}
SECTIONS = {
    "title": ("Central Text",),
    "agenda": ("Hour 1", "Hour 2"),
    "concept": ("Annotations", "Beginner's Corner"),
    "practical": ("Checklist", "Hands-on Anchor"),
    "code": ("Code", "Hands-on Anchor"),
    "animation": ("Storyboard", "Animation Asset"),
    "recap": ("Key Takeaways", "What You Can Now Do", "Next"),
}
EVERY_SLIDE = ("Wisdom", "Speaker notes")
COUNTS = {"Annotations": 12, "Beginner's Corner": 3, "Key Takeaways": 6, "What You Can Now Do": 4, "Central Text": 3}
NOTES = ("**Say.**", "**Ask.**")
CORNER = ("What this means: ", "Why it matters: ", "Common mistake: ")


class DeckError(ValueError):
    """A slide's source breaks a rule; the message names the file, the rule and what was found."""


@dataclass(frozen=True)
class Anchor:
    """`[Hands-on Anchor: ID | Asset: a; b | Objective: ... | Pre-req: ...]`, taken apart."""

    lab: str
    assets: tuple[str, ...]
    objective: str
    prerequisite: str

    FORM = re.compile(
        r"`?\[Hands-on Anchor: (?P<lab>[^|]+) \| Asset: (?P<assets>[^|]+) \| Objective: (?P<objective>[^|]+)"
        r" \| Pre-req: (?P<prerequisite>[^\]]+)\]`?"
    )

    @classmethod
    def parse(cls, line: str) -> "Anchor":
        """Raises DeckError where the line is not of the form."""
        match = cls.FORM.fullmatch(line)
        if not match:
            raise DeckError(
                f"not a hands-on anchor: {line!r}; expected [Hands-on Anchor: … | Asset: … | Objective: … | Pre-req: …]"
            )
        parts = match.groupdict()
        return cls(parts["lab"], tuple(parts["assets"].split("; ")), parts["objective"], parts["prerequisite"])


@dataclass(frozen=True)
class Slide:
    """One slide. `sections` maps a heading to its text: a list of strings, or a string."""

    number: int
    path: Path
    kind: str
    title: str
    kicker: str
    claim: str
    minutes: float
    figure: str
    alt: str
    layout: str | None = None
    figure_height: float | None = None  # where the layout's own leaves too little room for the words
    sections: dict[str, list[str] | str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The slide's address in the page: `#/slide-06`."""
        return f"slide-{self.number:02d}"

    @property
    def hour(self) -> int:
        return 1 if self.number < FIRST_OF_HOUR_2 else 2

    @cached_property
    def anchor(self) -> Anchor | None:
        line = self.sections.get("Hands-on Anchor")
        return Anchor.parse(line) if line else None

    @property
    def wisdom(self) -> str:
        return self.sections["Wisdom"].strip('"')

    @property
    def notes(self) -> str:
        return self.sections["Speaker notes"]


def read_deck(folder: Path = CONTENT) -> list[Slide]:
    """All slides, in order. Raises DeckError with every fault of every source, one a line."""
    faults, slides = [], []
    for number, path in enumerate(sorted(folder.glob("*.md")), 1):
        try:
            slide = read_slide(path)
            slides.append(slide)
            if slide.number != number:
                faults.append(f"{path.name}: is slide {number} by its place; numbers run from 01 without a gap")
        except DeckError as error:
            faults.append(str(error))
    if not faults and len(slides) != SLIDES:
        faults.append(f"{folder}: {len(slides)} slides, expected {SLIDES}")
    if not faults:
        for hour in (1, 2):
            total = sum(slide.minutes for slide in slides if slide.hour == hour)
            if total != HOUR_MINUTES:
                faults.append(f"hour {hour}: the slides' minutes add up to {total}, expected {HOUR_MINUTES}")
    if faults:
        raise DeckError("\n".join(faults))
    return slides


def read_slide(path: Path) -> Slide:
    """One source, checked. Raises DeckError, naming the file."""
    slide = read_source(path)
    faults = _faults(slide)
    if faults:
        raise DeckError("\n".join(f"{path.name}: {fault}" for fault in faults))
    return slide


def read_source(path: Path) -> Slide:
    """One source as it stands: of the right form, but perhaps incomplete. Raises DeckError, naming the file."""
    try:
        front, body = _front_matter(path.read_text(encoding="utf-8"))
        slide = Slide(number=_number(path), path=path, sections=_sections(body), **front)
        _ = slide.anchor  # raises where the line is not of the form
    except DeckError as error:
        raise DeckError(f"{path.name}: {error}") from None
    return slide


def _number(path: Path) -> int:
    match = re.match(r"(\d\d)-[a-z0-9-]+\.md$", path.name)
    if not match:
        raise DeckError("the name must be like 06-memory-efficient-loading.md")
    return int(match[1])


def _front_matter(text: str) -> tuple[dict[str, object], str]:
    match = re.match(r"---\n(.*?)\n---\n(.*)", text, re.S)
    if not match:
        raise DeckError("must begin with front matter between two lines of ---")
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise DeckError(f"front matter is not YAML: {' '.join(str(error).split())}") from None
    missing, unknown = FRONT_MATTER - set(front), set(front) - FRONT_MATTER - OPTIONAL
    if missing or unknown:
        raise DeckError(f"front matter: missing {sorted(missing)}, unknown {sorted(unknown)}")
    return front, match[2]


def _sections(body: str) -> dict[str, list[str] | str]:
    parts = re.split(r"^## (.+)\n", body, flags=re.M)
    if parts[0].strip():
        raise DeckError(f"text before the first section: {parts[0].strip()[:60]!r}")
    sections = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        if heading not in FORMS:
            raise DeckError(f"unknown section {heading!r}; known: {', '.join(FORMS)}")
        if heading in sections:
            raise DeckError(f"section {heading!r} stands twice")
        sections[heading] = _form(heading, text.strip())
    return sections


def _form(heading: str, text: str) -> list[str] | str:
    if FORMS[heading] in (LINE, TEXT):
        if FORMS[heading] is LINE and "\n" in text:
            raise DeckError(f"section {heading!r} must be one line")
        return text
    pattern = r"\d+\. (.+)" if FORMS[heading] is NUMBERED else r"- (.+)"
    items = []
    for place, line in enumerate(text.splitlines(), 1):
        match = re.fullmatch(pattern, line)
        if not match or (FORMS[heading] is NUMBERED and not line.startswith(f"{place}. ")):
            raise DeckError(f"section {heading!r}, line {place}: not part of a {FORMS[heading]}: {line!r}")
        items.append(match[1])
    return items


def _faults(slide: Slide) -> list[str]:
    if slide.kind not in SECTIONS:
        return [f"kind {slide.kind!r} is unknown; known: {', '.join(SECTIONS)}"]
    expected, found = {*SECTIONS[slide.kind], *EVERY_SLIDE}, set(slide.sections)
    if expected != found:
        missing, extra = sorted(expected - found), sorted(found - expected)
        return [f"a {slide.kind} slide: missing sections {missing}, unexpected sections {extra}"]
    faults = [f"{name} is empty" for name in WORDS if str(getattr(slide, name)).strip() in ("", "TODO")]
    if slide.layout is not None and slide.layout not in LAYOUTS:
        faults.append(f"layout {slide.layout!r} is unknown; known: {', '.join(LAYOUTS)}")
    for heading, count in COUNTS.items():
        if heading in found and len(slide.sections[heading]) != count:
            faults.append(f"{len(slide.sections[heading])} in {heading!r}, need {count}")
    for line, start in zip(slide.sections.get("Beginner's Corner", ()), CORNER, strict=False):
        if not line.startswith(start):
            faults.append(f"Beginner's Corner: {line!r} must begin with {start!r}")
    if not re.fullmatch(r'".+"', slide.sections["Wisdom"]):
        faults.append("Wisdom must be one line in double quotes")
    if not isinstance(slide.minutes, int | float) or slide.minutes <= 0:
        faults.append(f"minutes must be a positive number, found {slide.minutes!r}")
    return faults + _faults_of_notes(slide)


def _faults_of_notes(slide: Slide) -> list[str]:
    faults = [f"speaker notes need a paragraph that begins with {word}" for word in NOTES if word not in slide.notes]
    words = len(slide.notes.split())
    if words < SHORTEST_NOTES:
        faults.append(f"speaker notes of {words} words; say it in at least {SHORTEST_NOTES}")
    return faults
