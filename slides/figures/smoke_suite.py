"""The smoke suite of M9-LAB-09, one column a check: what it costs, what it alone sees first, how clear its verdict is.

Three questions share the nine columns. Above: the same nine checks on every family, a disc as large as the time it
took. In the middle: nine faults, made on purpose, in all families; the staircase says that no check could be left out.
Below: how far rounding and mistakes are from the tolerance. All numbers are what the lab recorded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from course_helpers.families import FAMILIES
from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    SKY_TINT,
    SOUND,
    WHITE,
)

from . import figure
from .axes import Axes
from .numbers import measured
from .parts_families import deck_name
from .svg import Drawing

LAB = "M9-LAB-09"
LEFT, FIRST, PITCH, END = 30, 338, 76, 984  # labels; centre of the first column, from column to column; right edge
TIMES_TOP, ROW = 94, 27
FAULTS_TOP, STEP = 346, 26
MARGINS_TOP, LINE = 596, 24
SMALLEST, LARGEST = 2.5, 13.5  # radius of the disc of the slowest check
DECADES = -3, 5  # of the axis that says how many tolerances something is off
QUIET = "loss: epsilon x 10"  # the fault that only some families show


@figure
def smoke_suite(drawing: Drawing) -> None:
    results = measured(drawing, LAB)
    checks = list(next(iter(results["checks"].values())))
    columns = {check: FIRST + PITCH * index for index, check in enumerate(checks)}
    heads(drawing, columns)
    times(drawing, columns, results)
    staircase(drawing, columns, results)
    margins(drawing, columns, results["distances_in_tolerances"])


def heads(drawing: Drawing, columns: Mapping[str, float]) -> None:
    drawing.text(LEFT, 42, "Nine checks, any family", 20, 650, NAVY)
    drawing.text(LEFT, 67, "a disc passed; its area is time", 16, 400, MUTED)
    drawing.text(drawing.width - LEFT, 67, "in all", 16, 400, MUTED, "end")
    for number, (check, x) in enumerate(columns.items(), 1):
        drawing.text(x, 42, str(number), 18, 700, MUTED, "middle")
        drawing.text(x, 68, check, 17, 650, NAVY, "middle", fit=PITCH - 4)


def times(drawing: Drawing, columns: Mapping[str, float], results: Mapping[str, Any]) -> None:
    """A row a family: a disc for every green check, its area the time, and the whole suite's time at the end."""
    slowest = max(max(row.values()) for row in results["seconds"].values())
    bottom = TIMES_TOP + ROW * (len(FAMILIES) - 1)
    for x in columns.values():
        drawing.line(x, TIMES_TOP - 10, x, bottom + 10, HAIRLINE, 1.5)
    for index, (key, family) in enumerate(FAMILIES.items()):
        y = TIMES_TOP + ROW * index
        seconds, colours = results["seconds"][family.tiny], results["checks"][family.tiny]
        drawing.text(LEFT, y + 6, deck_name(key), 18, 500, CHARCOAL)
        for check, x in columns.items():
            if colours[check] != "green":
                raise ValueError(f"{family.tiny}: {check} is {colours[check]}, and the picture has no place for that")
            drawing.circle(x, y, max(SMALLEST, LARGEST * (seconds[check] / slowest) ** 0.5), SOUND, WHITE, 1.5)
        drawing.text(drawing.width - LEFT, y + 6, f"{sum(seconds.values()):.2f} s", 18, 650, SOUND, "end")
    y = bottom + 33
    drawing.text(LEFT, y, "slowest, in ms", 16, 400, MUTED)
    for check, x in columns.items():
        most = max(row[check] for row in results["seconds"].values()) * 1e3
        drawing.text(x, y, f"{most:.1f}" if most < 10 else f"{most:.0f}", 16, 500, MUTED, "middle")


def staircase(drawing: Drawing, columns: Mapping[str, float], results: Mapping[str, Any]) -> None:
    """A row a fault: in how many families each check turns red; gold where it is the first to see it."""
    drawing.line(LEFT, FAULTS_TOP - 47, drawing.width - LEFT, FAULTS_TOP - 47, HAIRLINE, 2)
    drawing.text(LEFT, FAULTS_TOP - 20, "Nine faults, made on purpose", 20, 650, NAVY)
    drawing.text(drawing.width - LEFT, FAULTS_TOP - 20, "by the gold check", 16, 400, MUTED, "end")
    families = len(FAMILIES)
    for index, (fault, counts) in enumerate(results["faults"].items()):
        y, first = FAULTS_TOP + STEP * index, results["first_to_see"][fault]
        drawing.text(LEFT, y + 6, fault, 17, 400, CHARCOAL)
        for check, x in columns.items():
            cell(drawing, x, y, counts[check], check == first)
        caught = counts[first]
        drawing.text(drawing.width - LEFT, y + 6, f"{caught} of {families}", 18, 650, GOLD_INK, "end")


def cell(drawing: Drawing, x: float, y: float, count: int | None, first: bool) -> None:
    """One check on one fault: a count of families, a dot where it saw nothing; empty where the run had ended."""
    if count is None:
        return
    if not count:
        drawing.circle(x, y, 3, HAIRLINE)
        return
    width = PITCH - 8
    drawing.rect(x - width / 2, y - STEP / 2 + 2, width, STEP - 4, GOLD if first else SKY_TINT, radius=6)
    drawing.text(x, y + 6, str(count), 18, 700, NAVY, "middle")


def margins(drawing: Drawing, columns: Mapping[str, float], distances: Mapping[str, Sequence[float]]) -> None:
    """Checks that compare numbers: how many tolerances right models are off, and wrong ones; 1 lies between."""
    drawing.rect(LEFT - 8, MARGINS_TOP - 18, drawing.width - 2 * LEFT + 16, 3 * LINE + 12, GOLD_TINT, radius=10)
    axis = Axes(drawing, FIRST - 30, MARGINS_TOP - 14, 4.5 * PITCH, 3 * LINE + 4, (10 ** DECADES[0], 10 ** DECADES[1]),
                (0, 1), log_across=True)  # fmt: skip
    drawing.line(axis.x(1), axis.top, axis.x(1), axis.bottom, GOLD, 3)
    rows = (
        ("rounding, at most", ": right", SOUND, max),
        ("mistakes, at least", None, ALARM, min),
        ("epsilon × 10, by loss", QUIET, ALARM, None),
    )
    for index, (label, end, ink, extreme) in enumerate(rows):
        y = MARGINS_TOP + LINE * index
        drawing.text(LEFT + 4, y + 6, label, 17, 500, ink)
        for name in (name for name in distances if kind(name) == (end or "mistake")):
            for value in distances[name]:
                drawing.circle(axis.x(max(value, 10 ** DECADES[0])), y, 4.5, ink, WHITE, 1, opacity=0.85)
            check = name.partition(":")[0]
            if extreme:
                shown = in_tolerances(extreme(distances[name]))
                drawing.text(columns[check], y + 6, shown, 17, 650, ink, "middle")
    quiet = distances[QUIET]
    seen = sum(value > 1 for value in quiet)
    drawing.text(drawing.width - LEFT, MARGINS_TOP + 2 * LINE + 6, f"{seen} of {len(quiet)}", 18, 650, ALARM, "end")
    drawing.text(axis.x(1) + 10, MARGINS_TOP + 6, "1 is the tolerance", 16, 600, GOLD_INK)


def kind(name: str) -> str:
    """What a row of distances is about: right models, the fault that a check is aimed at, or the quiet one."""
    return name if name == QUIET else ": right" if name.endswith(": right") else "mistake"


def in_tolerances(value: float) -> str:
    return f"{value:,.0f}" if value > 1 else f"{value:.2f}"
