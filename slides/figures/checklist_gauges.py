"""Slide 14: the loading checklist as an instrument panel, and what the panel shows for three copies that were broken.

A ring of a gauge is a line of the list, a cell of it one bundled checkpoint; the needle is at the end of its scale when
all of them hold. In the rows below the gauges every line is a lamp under its instrument: the lab broke three copies,
and the lamps go as far as the first line that did not hold. A list that could not fail would show nothing.
"""

import json
import re
from dataclasses import dataclass

from course_helpers.families import FAMILIES
from course_helpers.palette import ALARM, ALARM_TINT, CHARCOAL, MUTED, NAVY, SOFT_GREY, SOUND, SOUND_TINT, WHITE

from . import figure
from .numbers import ROOT, measured
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
#: A broken copy: what was done to it, in two lines.
BROKEN = {
    "half-a-file": ("Half of the weights", "the file is cut off"),
    "other-tokenizer": ("Another tokenizer", "of another family"),
    "other-theta": ("Another rope_theta", "one config number"),
}
#: What the first line that failed says of a copy, in short, where the lab's words are longer than their place.
SAID = {
    "better than guessing": "worse than guessing",
    "the text that was expected": "another text",
    "the file ends before its data does": "file ends too early",
}
LEFT, NAMES, WIDE, GAP = 24, 252, 196, 12  # the rows' names, then four instruments
TOP, HIGH, RADIUS = 28, 282, 88  # the panel of a gauge
ROWS, ROW, EACH = 384, 84, 74  # the first row of lamps, from one to the next, and how high one is
LAMP, SPACE = 14, 43


@figure
def checklist_gauges(drawing: Drawing) -> None:
    checklist = measured(drawing, LAB)["checklist"]
    drawing.source("below: the notebook's output")
    sources = [family.tiny for family in FAMILIES.values() if family.tiny in checklist]
    held = sum(sum(lines.values()) for lines in checklist.values())
    drawing.text(36, 66, "Lines that hold", 27, 700, NAVY)
    drawing.tick(47, 98, 22, SOUND, 4.5)
    drawing.text(68, 105, f"{held} of {sum(map(len, checklist.values()))}", 22, 700, SOUND)
    for row, text in enumerate(("a ring: one line", f"a cell: one of {len(sources)}", "bundled checkpoints")):
        drawing.text(36, 236 + 25 * row, text, 18, 400, CHARCOAL)
    for place, (title, lines) in enumerate(PARTS.values()):
        x = column(place)
        drawing.rect(x, TOP, WIDE, HIGH, SOFT_GREY, None, 16)
        cells = [[checklist[source][line] for source in sources] for line in lines]
        gauge(drawing, x + WIDE / 2, TOP + RADIUS + 18, RADIUS, cells)
        drawing.text(x + WIDE / 2, TOP + HIGH - 40, title, 19, 700, NAVY, "middle", fit=WIDE - 6)
        drawing.text(x + WIDE / 2, TOP + HIGH - 15, f"{len(lines)} lines", 18, 400, MUTED, "middle")
    drawing.text(36, ROWS - 22, "Three copies, broken on purpose: all three are found, the last by its text alone", 21,
                 700, ALARM)  # fmt: skip
    for place, copy in enumerate(broken_copies()):
        _lamps(drawing, ROWS + place * ROW, copy)


@dataclass(frozen=True)
class Broken:
    """A broken copy: what was done to it, and the part and the words with which the checklist found it."""

    copy: str
    part: str
    says: str

    @property
    def line(self) -> str:
        """The line of the list that does not hold, or the error that came before any line of its part."""
        return self.says.partition(" (")[0]

    def lamps(self) -> dict[str, list[bool | None]]:
        """Part -> its lamps: lines before the first that failed hold, those after it are not lit (None).

        An error of a part as a whole is its one lamp.
        """
        parts, lit = {}, True
        for part, (_, lines) in PARTS.items():
            parts[part] = [lit or None] * len(lines)
            if part == self.part:
                stop = lines.index(self.line) if self.line in lines else 0
                after = len(lines) - stop - 1 if self.line in lines else 0
                parts[part], lit = [True] * stop + [False] + [None] * after, False
        return parts


def broken_copies() -> list[Broken]:
    """What the executed lab printed of its broken copies. Raises ValueError where one of them passed."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    printed = "".join("".join(output.get("text", ())) for cell in cells for output in cell.get("outputs", ()))
    found = [Broken(*row) for row in re.findall(r"^([\w-]+) +FAILED +([\w ]+): (.*)$", printed, re.M)]
    if {row.copy for row in found} != set(BROKEN):
        raise ValueError(f"{NOTEBOOK.name}: not all of {', '.join(BROKEN)} were found broken")
    return sorted(found, key=lambda row: list(BROKEN).index(row.copy))


def column(place: int) -> float:
    """The left edge of an instrument and of the lamps below it."""
    return NAMES + place * (WIDE + GAP)


def _lamps(drawing: Drawing, top: float, copy: Broken) -> None:
    """One broken copy: its lamps under the instruments, and beside the one that failed what it said."""
    drawing.rect(LEFT, top, drawing.width - 2 * LEFT, EACH, SOFT_GREY, None, 14)
    title, below = BROKEN[copy.copy]
    drawing.text(36, top + 32, title, 21, 700, NAVY)
    drawing.text(36, top + 57, below, 18, 400, CHARCOAL)
    for place, lamps in enumerate(copy.lamps().values()):
        x = column(place)
        if False in lamps:
            drawing.rect(x - 2, top + 2, WIDE + 4, EACH - 4, ALARM_TINT, ALARM, 12, 2.5)
            drawing.text(x + WIDE / 2, top + 62, SAID.get(copy.line, copy.line), 18, 650, ALARM, "middle", fit=WIDE)
        middle = top + (25 if False in lamps else EACH / 2)
        for lamp, holds in enumerate(lamps):
            if holds is not None:
                _lamp(drawing, x + WIDE / 2 + (lamp - (len(lamps) - 1) / 2) * SPACE, middle, holds)


def _lamp(drawing: Drawing, x: float, y: float, holds: bool) -> None:
    if holds:
        drawing.circle(x, y, LAMP, SOUND_TINT, SOUND, 2)
        drawing.tick(x, y, 13, SOUND, 3)
    else:
        drawing.circle(x, y, LAMP + 1, ALARM)
        drawing.cross(x, y, 12, WHITE, 3.5)
