"""What both films are checked for: a film is rendered once, small, and looked at when each of its sections ends.

Needs Manim (`make film-tools`); continuous integration has it and may not skip this.
"""

import json
import os
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

if not os.environ.get("CI"):
    pytest.importorskip("manim", reason="needs Manim: make film-tools")

from manim import VMobject

from animations.canvas import CAPITAL, FRAME, MARGIN, PER_UNIT, SMALLEST, Words
from animations.film import Film, Section
from animations.render import render, settings
from course_helpers import palette

COLOURS = {value.upper() for value in vars(palette).values() if isinstance(value, str) and value.startswith("#")}
#: Below this opacity a thing is on its way out or only hinted at.
VISIBLE = 0.3
#: Pixels by which the ink of two texts may overlap, and by which a stroke may leave the frame.
TOUCH = 2
#: Words a second: more than this is hurried.
FAST = 3.5
DIGESTS = Path(__file__).with_name("last_frames.json")
#: The difference that another version of a font or of Cairo may make to the mean of a field's colour, of 255.
NEAR = 5


@dataclass(frozen=True)
class Seen:
    """A text on the screen: what it says, where its ink is, and how large it is, in pixels at 1080p."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    size: float


@dataclass
class Picture:
    """What is on the screen when a section ends."""

    texts: list[Seen] = field(default_factory=list)
    boxes: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    colours: set[str] = field(default_factory=set)


@dataclass
class Recording:
    """A film that was made: its sections, a picture of each one's end, the last frame, and where the files are."""

    film: Film | None = None
    folder: Path | None = None
    path: Path | None = None
    pictures: dict[str, Picture] = field(default_factory=dict)
    frame: np.ndarray | None = None

    def __call__(self, film: Film, section: Section) -> None:
        """Stand by as a watcher."""
        self.film, self.frame = film, film.renderer.get_frame()
        picture = self.pictures[section.name] = Picture()
        for part in {id(part): part for mobject in film.mobjects for part in mobject.get_family()}.values():
            if isinstance(part, VMobject) and len(part.points):
                look_at(part, picture)


def look_at(part: VMobject, picture: Picture) -> None:
    """Note a shape, if it can be seen."""
    paints = ((part.fill_opacity, part.fill_color), (part.stroke_opacity * (part.stroke_width > 0), part.stroke_color))
    seen = [colour.to_hex().upper() for opacity, colour in paints if opacity > VISIBLE]
    if not seen:
        return
    picture.colours.update(seen)
    low, high = part.ink() if isinstance(part, Words) else (part.points.min(axis=0), part.points.max(axis=0))
    box = tuple(float(edge) * PER_UNIT for edge in (low[0], low[1], high[0], high[1]))
    picture.boxes.append((type(part).__name__, *box))
    if isinstance(part, Words):
        picture.texts.append(Seen(part.content, *box, part.height * PER_UNIT / (CAPITAL + 2 * MARGIN)))


def record(name: str, folder: Path) -> Recording:
    """Render a film in its smallest quality."""
    recording = Recording(folder=folder)
    recording.path = render(name, "480p", poster=0, output=folder, watchers=[recording])
    return recording


def play(film: type[Film], folder: Path) -> Recording:
    """Run a film without writing it."""
    recording = Recording(folder=folder)
    with settings(folder, 854, 480, dry_run=True):
        film(recording).render()
    return recording


# --- what is wrong with a picture; each answers with a list that should be empty ---


def outside_frame(picture: Picture) -> list[str]:
    """Shapes that are not inside the frame as a whole."""
    return [
        f"{kind}: {left:.0f} {bottom:.0f} {right:.0f} {top:.0f}"
        for kind, left, bottom, right, top in picture.boxes
        if min(left - FRAME.left, bottom - FRAME.bottom, FRAME.right - right, FRAME.top - top) < -TOUCH
    ]


def overlapping(picture: Picture) -> list[str]:
    """Pairs of texts whose ink overlaps."""
    return [
        f"{one.text!r} and {two.text!r}"
        for one, two in combinations(picture.texts, 2)
        if min(one.right, two.right) - max(one.left, two.left) > TOUCH
        and min(one.top, two.top) - max(one.bottom, two.bottom) > TOUCH
    ]


def too_small(picture: Picture) -> list[str]:
    """Texts that could not be read from the back of a room."""
    return [f"{text.text!r}: {text.size:.1f} px" for text in picture.texts if text.size < SMALLEST - 0.1]


def foreign_colours(picture: Picture) -> list[str]:
    """Colours that are not the course's."""
    return sorted(picture.colours - COLOURS)


def too_quick(recording: Recording) -> list[str]:
    """Captions that nobody can read in the time that they stay."""
    captions = [caption for section in recording.film.sections for caption in section.captions]
    return [caption.text for caption in captions if len(caption.text.split()) / (caption.end - caption.start) > FAST]


def worries(recording: Recording) -> list[str]:
    """Everything that is wrong at the end of any section."""
    tests = (outside_frame, overlapping, too_small, foreign_colours)
    return [
        f"{section}: {test.__name__}: {worry}"
        for section, picture in recording.pictures.items()
        for test in tests
        for worry in test(picture)
    ] + [f"too quick: {text}" for text in too_quick(recording)]


# --- the last frame ---


def digest(frame: np.ndarray, across: int = 16, down: int = 9) -> list[list[int]]:
    """The mean colours of a grid of fields: a picture as it looks from afar, whatever the hinting of its letters."""
    rows = (np.array_split(row, across, axis=1) for row in np.array_split(frame[:, :, :3].astype(float), down))
    return [[round(value) for value in cell.mean(axis=(0, 1))] for row in rows for cell in row]


def compare_with_stored(name: str, frame: np.ndarray) -> float:
    """The largest difference between a film's last frame and the stored one. COURSE_RENEW_FRAMES=1 stores it anew."""
    stored = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    if os.environ.get("COURSE_RENEW_FRAMES"):
        stored[name] = digest(frame)
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(stored.items()))
        DIGESTS.write_text(f"{{\n{lines}\n}}\n")
    return float(np.abs(np.array(stored[name]) - np.array(digest(frame))).max())
