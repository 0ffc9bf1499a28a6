"""Slide 16: the conversion as a staircase that is built of passed checks.

A stair is as high as the rows of checks below it: every stage of the lab lays one more row of six, and the last three
stand on top of them. So the picture shows why small steps hold, and what the dashed leap has under it: nothing.
"""

from dataclasses import dataclass

from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    NAVY_TINT,
    SKY,
    SKY_TINT,
    SLATE,
    SOUND,
)

from . import figure
from .conversion_milestones import GROUPS, LAB
from .numbers import measured
from .svg import Drawing

LEFT, RIGHT = 36, 1740
FLOOR, ROW = 304, 19  # where the stairs stand; height of one row of checks
COUNTS, WAY_LINE = FLOOR + 23, FLOOR + 54  # baselines below the stairs
SKYLINE = 56  # height of the leap
NONE = "same count"  # a stage that neither adds nor takes parameters
#: The steps after the architecture: their names, and what each of them settles
AFTER = {
    "config": ("translated", "field by field"),
    "tokenizer": ("bound", "with its mark"),
    "weights": ("loaded", "same logits"),
}
#: Below the stairs: what holds on the whole way, with the number of its annotation
WAY = (
    (5, "three regression prompts, never touched"),
    (6, "no speed-ups yet: first right, then fast"),
    (7, "course: converting-gpt-to-llama2.ipynb"),
    (12, "ours, and the next slide: M9-LAB-02"),
)
#: Annotations that stand at the right end of a stair: its place, how far above its tread
ON_STAIRS = {1: (0, 24), 2: (1, 62), 9: (6, 62), 4: (8, 62), 11: (10, 62)}


@dataclass(frozen=True)
class Stair:
    """One step: two lines of name, a line of what it did, the checks of each row below it, from the floor up."""

    part: str
    name: str
    change: str
    rows: tuple[int, ...]
    edge: str

    @property
    def top(self) -> float:
        return FLOOR - ROW * len(self.rows)


def stairs(ledger: list[dict]) -> list[Stair]:
    """The baseline, the lab's stages, and the three steps that turn the architecture into a model that speaks."""
    built, rows = [], ()
    for stage in ledger:
        rows = (*rows, stage["checks"])
        part, _, name = stage["name"].partition(": ")
        change = f"{stage['change']:+,}".replace("-", "−") if stage["change"] else NONE
        built.append(
            Stair(part if name else "baseline", name or part, change if name else "", rows, GOLD if name else SLATE)
        )
    for part, count in GROUPS:
        if part in AFTER:
            rows = (*rows, count)
            built.append(Stair(part, *AFTER[part], rows, SKY))
    return built


@figure
def conversion_staircase(drawing: Drawing) -> None:
    found = measured(drawing, LAB)
    built = stairs(found["ledger"])
    width = (RIGHT - LEFT) / len(built)
    for place, stair in enumerate(built):
        step(drawing, stair, LEFT + place * width, width, place in (0, len(built) - 1))
    drawing.line(LEFT - 8, FLOOR, RIGHT + 8, FLOOR, NAVY, 3)
    leap(drawing, LEFT + 60, built[0].top - 62, LEFT + width * 8 - 30)
    legend(drawing, LEFT + 1.27 * width, found["ledger"])
    for number, (place, above) in ON_STAIRS.items():
        drawing.marker(LEFT + (place + 1) * width - 22, built[place].top - above, number)
    drawing.marker(RIGHT - 13, COUNTS - 3, 10)
    for place, (number, words) in enumerate(WAY):
        x = LEFT + place * (RIGHT - LEFT) / len(WAY)
        drawing.marker(x + 16, WAY_LINE - 6, number)
        drawing.text(x + 42, WAY_LINE, words, 18, 500, CHARCOAL)


def step(drawing: Drawing, stair: Stair, x: float, width: float, end: bool) -> None:
    """The checks of one stair, its tread, and above it what changed."""
    fill = {GOLD: GOLD_TINT, SKY: SKY_TINT, SLATE: NAVY_TINT}[stair.edge]
    drawing.rect(x, stair.top, width, FLOOR - stair.top, fill, HAIRLINE, 0, 1.2)
    for row, count in enumerate(stair.rows):
        y, newest = FLOOR - (row + 0.5) * ROW, row == len(stair.rows) - 1
        for place in range(count):
            drawing.tick(x + (place + 0.5) * width / count, y, 11, SOUND if newest else SLATE, 2.6 if newest else 1.6)
    drawing.rect(x, stair.top - 3, width, 6, stair.edge, None, 0)
    lines = [(stair.part, 17, 500, MUTED), (stair.name, 20, 700 if end else 650, NAVY)]
    lines += [(stair.change, 17, 600, GOLD_INK if stair.change != NONE else MUTED)] if stair.change else []
    y = stair.top - 14
    for words, size, weight, ink in reversed(lines):
        drawing.text(x + 10, y, words, size, weight, ink, fit=width - 12)
        y -= size + 5
    drawing.text(x + width / 2, COUNTS, f"{sum(stair.rows)} checks", 17, 600, NAVY, "middle")
    if stair.edge == GOLD:
        flag(drawing, x + width - 22, stair.top - 3)


def flag(drawing: Drawing, x: float, foot: float) -> None:
    """A finished stage is saved: one can come back to it."""
    drawing.line(x, foot, x, foot - 30, NAVY, 2.5)
    drawing.polygon(((x, foot - 31), (x + 17, foot - 24), (x, foot - 17)), GOLD)


def leap(drawing: Drawing, x: float, y: float, end: float) -> None:
    """The way that nobody should go: from the first stair to the last, with nothing below."""
    drawing.path(
        f"M{x} {y} C{x + 4} {y - 80} {x + 90} {SKYLINE} {x + 260} {SKYLINE} L{end:.0f} {SKYLINE}",
        stroke=ALARM,
        line=3,
        dash="3 9",
    )
    drawing.cross(end + 18, SKYLINE, 20, ALARM, 4.5)
    drawing.marker(x + 276, SKYLINE - 24, 8)
    drawing.text(x + 302, SKYLINE - 17, "One leap: all changes at once, and nothing to stand on", 19, 650, ALARM)


def legend(drawing: Drawing, x: float, ledger: list[dict]) -> None:
    """In the room above the low stairs: how to read them."""
    drawing.marker(x + 4, 98, 3)
    drawing.text(x + 30, 105, f"Each stage lays a row of {ledger[0]['checks']} passed checks", 21, 650, SOUND)
    drawing.text(x + 30, 132, "below its name: parameters gained or lost", 18, 400, CHARCOAL)
