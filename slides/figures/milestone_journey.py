"""The way back seen from its end: a road from GPT-2 to Module 10, with a flag for each of the six takeaways.

A flag is a promise kept: it shows the figure that a lab measured for that takeaway. The disc on the road carries the
takeaway's number in the list below, and the sun stands over what comes next.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    NAVY,
    SERIF,
    SKY,
    WHITE,
)

from ..fonts import text_width
from . import figure
from .parts_measured import measured_together
from .svg import Drawing, Point

START, FIRST, APART, SUMMIT = 92.0, 262.0, 236.0, 1672.0  # along the road
FOOT, RISE = 206.0, 92.0  # how low it begins, how far it climbs
POLE, FLAG, DISC = 78.0, 40.0, 17.0
LAB_OF_TAKEAWAY = ("M9-LAB-01", "M9-LAB-02", "M9-LAB-APP-A", "M9-LAB-09", "M9-CODE-02", "M9-LAB-APP-C")


@dataclass(frozen=True)
class Milestone:
    """What a lab's record proves: the figure on the flag, and two lines below the road that say what it is."""

    flag: str
    lines: tuple[str, str]


def _roads(found: dict[str, Any]) -> Milestone:
    return Milestone(f"{len(found['roads'])} roads", ("four ways to load", "the same GPT-2"))


def _stages(found: dict[str, Any]) -> Milestone:
    stages = found["ledger"][1:]  # the first row is the GPT-2 that it starts from
    return Milestone(f"{len(stages)} stages", ("from GPT-2 to Llama 2,", f"{stages[0]['checks']} checks after each"))


def _peak(found: dict[str, Any]) -> Milestone:
    naive, stream = (found["strategies"][name]["peak_mb"] / found["model_mb"] for name in ("naive", "stream"))
    words = (f"{stream:.1f} × the model's size,", f"{naive:.1f} × loaded naively")
    return Milestone(f"peak −{100 * (1 - stream / naive):.0f} %", words)


def _families(found: dict[str, Any]) -> Milestone:
    results = [result for checks in found["checks"].values() for result in checks.values()]
    green = results.count("green")
    return Milestone(
        f"{len(found['checks'])} families", ("under one smoke suite,", f"{green} of {len(results)} checks green")
    )


def _lines(found: dict[str, Any]) -> Milestone:
    return Milestone(
        f"{sum(found['lines of a new family'].values())} lines", ("bring in a family that", "the core has never met")
    )


def _artifacts(found: dict[str, Any]) -> Milestone:
    ticks = [tick for artifacts in found["artifacts"].values() for tick in artifacts.values()]
    bases = len(found["artifacts"])
    return Milestone(f"{sum(ticks)} of {len(ticks)}", ("artifacts are ready,", f"for {bases} validated bases"))


PROOFS: tuple[Callable[[dict[str, Any]], Milestone], ...] = (_roads, _stages, _peak, _families, _lines, _artifacts)


def milestones(records: dict[str, dict[str, Any]]) -> list[Milestone]:
    """One for each takeaway, from what its lab recorded."""
    return [proof(records[lab]) for lab, proof in zip(LAB_OF_TAKEAWAY, PROOFS, strict=True)]


def checkpoints(run: dict[str, Any]) -> tuple[int, int]:
    """How many validation checkpoints of the last full run held, and how many there are."""
    passed = [checkpoint["passed"] for lab in run["labs"] for checkpoint in lab["checkpoints"]]
    return sum(passed), len(passed)


def height(x: float) -> float:
    """The road's y: a climb that is steepest in the middle, with a little roll."""
    share = min(max((x - START) / (SUMMIT - START), 0), 1)
    return FOOT - RISE * share * share * (3 - 2 * share) - 7 * math.sin(share * 4 * math.pi)


@figure
def milestone_journey(drawing: Drawing) -> None:
    """Landscape, road, flags, both ends."""
    records = measured_together(drawing, *LAB_OF_TAKEAWAY, "run")
    _landscape(drawing)
    _road(drawing)
    _ends(drawing, *checkpoints(records["run"]))
    for place, milestone in enumerate(milestones(records)):
        _milestone(drawing, FIRST + place * APART, place + 1, milestone)


def _landscape(drawing: Drawing) -> None:
    """Far mountains, the sun, the slope that the road climbs, and a fold in front of it; all fade at the bottom."""
    x, y = SUMMIT + 6, height(SUMMIT) - 12
    for radius, opacity in ((98, 0.55), (76, 1)):
        drawing.circle(x, y, radius, GOLD_TINT, opacity=opacity)
    _hill(drawing, SKY, 0.22, lambda at: height(at) - 16 + 26 * math.sin(at / 118) * (1 - at / 2400))
    drawing.circle(x, y, 54, GOLD)
    for fill, opacity in ((WHITE, 1), (SKY, 0.3)):
        _hill(drawing, fill, opacity, lambda at: height(at) + 3)
    _hill(drawing, NAVY, 0.09, lambda at: height(at) + 60 + 16 * math.sin(at / 205 + 2))


def _hill(drawing: Drawing, fill: str, opacity: float, ridge: Callable[[float], float]) -> None:
    """A ridge from beyond one edge of the card to beyond the other."""
    steps = range(-40, int(drawing.width) + 41, 12)
    outline = [(steps[0], drawing.height), *((x, ridge(x)) for x in steps), (steps[-1], drawing.height)]
    drawing.polygon(outline, drawing.gradient(fill, fill, opacity, 0))


def _road(drawing: Drawing) -> None:
    points: Iterable[Point] = [(x, height(x)) for x in range(int(START), int(SUMMIT) + 1, 10)]
    drawing.polyline(points, NAVY, 11)
    drawing.polyline(points, WHITE, 2, dash="14 12")


def _ends(drawing: Drawing, held: int, total: int) -> None:
    drawing.text(36, 66, f"{held} of {total}", 40, 600, NAVY, family=SERIF)
    drawing.text(36, 94, "checkpoints hold on the way", 19, 400, CHARCOAL)
    x, y = START, height(START)
    drawing.circle(x, y, 13, WHITE, NAVY, 5)
    drawing.text(x, y + 46, "GPT-2", 22, 650, NAVY, "middle")
    drawing.text(x, y + 70, "chapter 5", 19, 400, CHARCOAL, "middle")
    x, y = SUMMIT, height(SUMMIT)
    drawing.circle(x, y, 13, WHITE, NAVY, 5)
    drawing.text(x, y + 46, "Module 10", 22, 650, NAVY, "middle")
    drawing.text(x, y + 70, "classification", 19, 400, CHARCOAL, "middle")
    drawing.text(x, y + 92, "finetuning", 19, 400, CHARCOAL, "middle")


def _milestone(drawing: Drawing, x: float, number: int, milestone: Milestone) -> None:
    """A flag on a pole, the takeaway's number on the road, what the figure is below it."""
    y = height(x)
    top = y - POLE
    width = text_width(milestone.flag, 24, weight=650) + 44
    drawing.line(x, y, x, top, NAVY, 4)
    tail = [(x + width, top), (x + width - 12, top + FLAG / 2), (x + width, top + FLAG)]
    drawing.polygon([(x, top), *tail, (x, top + FLAG)], NAVY, NAVY)
    drawing.text(x + 15, top + 28, milestone.flag, 24, 650, WHITE)
    drawing.circle(x, y, DISC, GOLD_TINT, GOLD, 3)
    drawing.circle(x, y, DISC + 2, "none", GOLD_INK, 1)
    drawing.text(x, y + 6.5, str(number), 18, 700, NAVY, "middle")
    for place, line in enumerate(milestone.lines):
        drawing.text(x, y + 47 + place * 24, line, 19, 400, CHARCOAL, "middle", fit=APART - 10)
