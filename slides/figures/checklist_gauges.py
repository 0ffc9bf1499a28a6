"""Slide 14: the loading checklist as an instrument panel, one gauge for each of its four parts.

A ring of a gauge is a line of the list, a cell of it one bundled checkpoint; the needle is at the end of its scale
when all of them hold. Below the panel stands what the instruments said of three copies that the lab had broken: a list
that could not fail would show nothing.
"""

import json
import re
from dataclasses import dataclass

from course_helpers.families import FAMILIES
from course_helpers.palette import ALARM, ALARM_TINT, CHARCOAL, MUTED, NAVY, SOFT_GREY, SOUND

from . import figure
from .numbers import ROOT, measured
from .parts_families import deck_name
from .parts_gauge import gauge
from .svg import Drawing

LAB = "M9-LAB-APP-A"
NOTEBOOK = ROOT / "notebooks" / "M9-LAB-APP-A-loading-checklist.ipynb"
#: The gauges: the lab's name of a part -> its title, and its lines in the lab's words.
PARTS = {
    "config": ("Config file", ("every field is understood", "parameters: promised = found")),
    "tokenizer": (
        "Tokenizer",
        ("recognised from its files", "text comes back", "every id has an embedding", "marks exist and are used"),
    ),
    "memory": ("Memory profile", ("weights: predicted = held", "cache: predicted = held")),
    "first prompt": (
        "First prompt output",
        ("better than guessing", "same without the cache", "the text that was expected"),
    ),
}
BROKEN = {
    "half-a-file": "half of the weights",
    "other-tokenizer": "another family's tokenizer",
    "other-theta": "another rope_theta",
}
LEFT, TOP, WIDE, HIGH, GAP = 24, 76, 516, 214, 16  # the panel of one gauge, and the room between two
RADIUS = 92


@figure
def checklist_gauges(drawing: Drawing) -> None:
    checklist = measured(drawing, LAB)["checklist"]
    drawing.source("below: the notebook's output")
    sources = {family.tiny: deck_name(name) for name, family in FAMILIES.items() if family.tiny in checklist}
    held = sum(sum(lines.values()) for lines in checklist.values())
    width = drawing.text(36, 50, f"{held} of {sum(map(len, checklist.values()))} lines hold", 27, 700, NAVY)
    drawing.text(36 + width + 14, 50, f"in {len(checklist)} bundled checkpoints", 20, 400, CHARCOAL)
    for place, (title, lines) in enumerate(PARTS.values()):
        row, column = divmod(place, 2)
        x, y = LEFT + column * (WIDE + GAP), TOP + row * (HIGH + GAP)
        drawing.rect(x, y, WIDE, HIGH, SOFT_GREY, None, 16)
        cells = [[checklist[source][line] for source in sources] for line in lines]
        gauge(drawing, x + RADIUS + 20, y + HIGH / 2, RADIUS, cells)
        _lines(drawing, x + 2 * RADIUS + 46, y, title, dict(zip(lines, cells, strict=True)))
    _key(drawing, list(sources.values()))
    _broken(drawing, broken_copies())


@dataclass(frozen=True)
class Broken:
    """A broken copy: what was done to it, and the part and the words with which the checklist found it."""

    copy: str
    part: str
    says: str

    @property
    def verdict(self) -> str:
        """The line of the list that does not hold, or the error that came before any line."""
        line = self.says.partition(" (")[0]
        return f"fails: {line}" if line in PARTS[self.part][1] else line


def broken_copies() -> list[Broken]:
    """What the executed lab printed of its broken copies. Raises ValueError where one of them passed."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    printed = "".join("".join(output.get("text", ())) for cell in cells for output in cell.get("outputs", ()))
    found = [Broken(*row) for row in re.findall(r"^([\w-]+) +FAILED +([\w ]+): (.*)$", printed, re.M)]
    if {row.copy for row in found} != set(BROKEN):
        raise ValueError(f"{NOTEBOOK.name}: not all of {', '.join(BROKEN)} were found broken")
    return sorted(found, key=lambda row: list(BROKEN).index(row.copy))


def _lines(drawing: Drawing, x: float, top: float, title: str, lines: dict[str, list[bool]]) -> None:
    """A part's title and its lines, each ticked if it holds everywhere."""
    y = top + HIGH / 2 - len(lines) * 17 - 2
    drawing.text(x, y, title, 22, 700, NAVY)
    for row, (line, cells) in enumerate(lines.items(), 1):
        at = y + 6 + row * 33
        (drawing.tick if all(cells) else drawing.cross)(x + 9, at - 6, 17, SOUND if all(cells) else ALARM, 3.5)
        drawing.text(x + 30, at, line, 17, 400, CHARCOAL, fit=WIDE - 2 * RADIUS - 46 - 36)


def _key(drawing: Drawing, names: list[str]) -> None:
    y = TOP + 2 * (HIGH + GAP) + 14
    drawing.text(36, y, f"A ring is a line of the list; its cells, clockwise: {', '.join(names)}", 17, 400, MUTED)


def _broken(drawing: Drawing, copies: list[Broken]) -> None:
    top = drawing.height - 104
    drawing.rect(LEFT, top, drawing.width - 2 * LEFT, 86, ALARM_TINT, None, 16)
    step = (drawing.width - 2 * LEFT) / len(copies)
    for place, row in enumerate(copies):
        x = LEFT + 24 + place * step
        drawing.cross(x + 8, top + 30, 15, ALARM, 4)
        drawing.text(x + 28, top + 36, BROKEN[row.copy], 19, 650, ALARM)
        drawing.text(x + 28, top + 64, row.verdict, 17, 400, CHARCOAL, fit=step - 36)
