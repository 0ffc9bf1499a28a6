"""The smoke suite of M9-LAB-09, one column a check: what it costs, and what it is the first to see.

Above: the same nine checks on every family, a disc as large as the time it took. Below, in the same columns: nine
faults, made on purpose, in all families; the staircase says that no check could be left out. All numbers are what the
lab recorded.
"""

from collections.abc import Mapping
from typing import Any

from course_helpers.families import FAMILIES
from course_helpers.palette import CHARCOAL, GOLD, GOLD_INK, HAIRLINE, MUTED, NAVY, SKY_TINT, SLATE, SOUND, WHITE

from . import figure
from .numbers import measured
from .parts_families import deck_name
from .svg import Drawing

LAB = "M9-LAB-09"
LEFT, FIRST, PITCH, END = 30, 338, 77, 1066  # labels; centre of the first column, from column to column; right edge
TIMES_TOP, ROW = 104, 30
FAULTS_TOP, STEP = 404, 30
SMALLEST, LARGEST = 3, 14.5  # radius of the disc of the slowest check


@figure
def smoke_suite(drawing: Drawing) -> None:
    results = measured(drawing, LAB)
    checks = list(next(iter(results["checks"].values())))
    columns = {check: FIRST + PITCH * index for index, check in enumerate(checks)}
    heads(drawing, columns)
    times(drawing, columns, results)
    staircase(drawing, columns, results)


def heads(drawing: Drawing, columns: Mapping[str, float]) -> None:
    drawing.text(LEFT, 44, "Nine checks, any family", 22, 650, NAVY)
    drawing.text(LEFT, 71, "disc: passed; its area: time", 18, 400, MUTED)
    drawing.text(END, 71, "in all", 18, 400, MUTED, "end")
    for number, (check, x) in enumerate(columns.items(), 1):
        drawing.text(x, 44, str(number), 18, 700, MUTED, "middle")
        drawing.text(x, 71, check, 17, 650, NAVY, "middle", fit=PITCH - 3)


def guides(drawing: Drawing, columns: Mapping[str, float], top: float, bottom: float) -> None:
    """The columns, so that the eye finds back up to their heads."""
    for x in columns.values():
        drawing.line(x, top, x, bottom, HAIRLINE, 1.5)


def times(drawing: Drawing, columns: Mapping[str, float], results: Mapping[str, Any]) -> None:
    """A row a family: a disc for every green check, its area the time, and the whole suite's time at the end."""
    slowest = max(max(row.values()) for row in results["seconds"].values())
    bottom = TIMES_TOP + ROW * (len(FAMILIES) - 1)
    guides(drawing, columns, TIMES_TOP - 14, bottom + 14)
    for index, (key, family) in enumerate(FAMILIES.items()):
        y = TIMES_TOP + ROW * index
        seconds, colours = results["seconds"][family.tiny], results["checks"][family.tiny]
        drawing.text(LEFT, y + 6, deck_name(key), 19, 500, CHARCOAL)
        for check, x in columns.items():
            if colours[check] != "green":
                raise ValueError(f"{family.tiny}: {check} is {colours[check]}, and the picture has no place for that")
            drawing.circle(x, y, max(SMALLEST, LARGEST * (seconds[check] / slowest) ** 0.5), SOUND, WHITE, 1.5)
        drawing.text(END, y + 6, f"{sum(seconds.values()):.2f} s", 19, 650, SOUND, "end")
    drawing.text(LEFT, bottom + 38, "the slowest, in ms", 18, 400, MUTED)
    for check, x in columns.items():
        most = max(row[check] for row in results["seconds"].values()) * 1e3
        drawing.text(x, bottom + 38, f"{most:.1f}" if most < 10 else f"{most:.0f}", 18, 500, MUTED, "middle")


def staircase(drawing: Drawing, columns: Mapping[str, float], results: Mapping[str, Any]) -> None:
    """A row a fault: in how many families each check turns red; gold where it is the first to see it."""
    drawing.line(LEFT, FAULTS_TOP - 64, END, FAULTS_TOP - 64, HAIRLINE, 2)
    drawing.text(LEFT, FAULTS_TOP - 30, "Nine faults, made on purpose", 22, 650, NAVY)
    key(drawing, FAULTS_TOP - 37)
    guides(drawing, columns, FAULTS_TOP - 13, FAULTS_TOP + STEP * (len(results["faults"]) - 1))
    for index, (fault, counts) in enumerate(results["faults"].items()):
        y, first = FAULTS_TOP + STEP * index, results["first_to_see"][fault]
        drawing.text(LEFT, y + 6, fault, 18, 450, CHARCOAL, fit=FIRST - PITCH / 2 - LEFT)
        for check, x in columns.items():
            cell(drawing, x, y, counts[check], check == first)


def cell(drawing: Drawing, x: float, y: float, count: int | None, first: bool) -> None:
    """One check on one fault: how many families, a dot where it saw nothing; empty where the run had ended."""
    if count is None:
        return
    if not count:
        drawing.circle(x, y, 4.5, SLATE, WHITE, 2)
        return
    width, height = PITCH - 7, STEP - 4
    drawing.rect(x - width / 2, y - height / 2, width, height, GOLD if first else SKY_TINT, radius=6)
    drawing.text(x, y + 6, f"{count} of {len(FAMILIES)}", 18, 700 if first else 500, NAVY, "middle", fit=width)


def key(drawing: Drawing, y: float) -> None:
    """What the cells mean, from the right edge leftward."""
    x = END
    for words, ink, fill in (
        ("sees nothing", MUTED, None),
        ("sees it, too", NAVY, SKY_TINT),
        ("the first to see it", GOLD_INK, GOLD),
    ):
        x -= drawing.text(x, y + 6, words, 18, 500, ink, "end") + 20
        if fill:
            drawing.rect(x - 12, y - 9, 22, 18, fill, radius=5)
        else:
            drawing.circle(x + 4, y, 4.5, SLATE, WHITE, 2)
        x -= 34
