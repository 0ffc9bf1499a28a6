"""Slide 29: the folder that is handed to the next module, in an exploded view, and what it is worth there.

An exploded view, because the hand-off is one thing made of six parts: plates lifted off one another along their
axis, each with its name and the file it lies in. Where the lab spoilt a part, the refusal stands beside that very
plate. At the right, what the base is worth to a classifier, on one scale with what words alone give: the parts at
the left decide the dots there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from course_helpers.palette import (
    ALARM,
    ALARM_TINT,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MONO,
    MUTED,
    NAVY,
    NAVY_TINT,
    SKY,
    SKY_INK,
    SLATE,
    WHITE,
)

from . import figure
from .axes import Axes
from .numbers import measured
from .svg import Drawing, Point

#: The lab's name of an artifact, from the top: shown name, file, and the spoilt copy that was refused for it.
PLATES = (
    ("validated base", "validated base", "model.safetensors", "one-bit"),
    ("config: the source's", "config", "config.json", "other-config"),
    ("tokenizer: the source's ids", "tokenizer", "tokenizer files", "other-tokenizer"),
    ("manifest: every file pinned", "manifest", "run.json", None),
    ("pad and stop: decided", "pad and stop", "decisions.json", None),
    ("way back: equal to the source", "way back", "left untouched", None),
)
SPOILT = {"one-bit": "one bit flipped", "other-config": "a number edited", "other-tokenizer": "another family's"}
AXIS, FIRST, STEP = 150, 102, 80  # x of the plates' middle, y of the first, and from one to the next
HALF_WIDTH, HALF_DEPTH, THICK = 104, 30, 11
NAMES, REFUSED, PANEL = 276, 462, 668
CHART = (752, 136, 226, 424)  # x, y, width, height
MARKS = {"GPT-2": (GOLD, GOLD_INK), "Qwen3": (SKY, SKY_INK)}


@figure
def handoff_artifacts(drawing: Drawing) -> None:
    found = measured(drawing, "M9-LAB-APP-C")
    _folder(drawing, found)
    for place in reversed(range(len(PLATES))):
        _plate(drawing, FIRST + STEP * place, PLATES[place], found)
    _outcome(drawing, found)


def rhombus(y: float, grow: float = 0) -> list[Point]:
    """A plate seen from above: right, front, left, back."""
    wide, deep = HALF_WIDTH + grow, HALF_DEPTH + grow * HALF_DEPTH / HALF_WIDTH
    return [(AXIS + wide, y), (AXIS, y + deep), (AXIS - wide, y), (AXIS, y - deep)]


def _folder(drawing: Drawing, found: Mapping[str, Any]) -> None:
    """Heading, the axis that the plates were lifted along, and the open folder below them."""
    complete = sum(all(ticks.values()) for ticks in found["artifacts"].values())
    drawing.text(32, 46, "What is handed on", 22, 650, NAVY)
    drawing.text(NAMES, 46, f"six artifacts, complete for {complete} bases", 18, 400, MUTED)
    bottom = FIRST + STEP * len(PLATES) + 6
    drawing.line(AXIS, FIRST - 30, AXIS, bottom, SLATE, 2, dash="3 6")
    right, front, left, back = rhombus(bottom, 14)
    drop = 30
    drawing.polygon([right, front, left, back], NAVY_TINT, NAVY, 2.5)
    for one, other in ((left, front), (front, right)):
        drawing.polygon([one, other, (other[0], other[1] + drop), (one[0], one[1] + drop)], GOLD_TINT, NAVY, 2.5)
    drawing.text(NAMES, bottom + 8, "one folder a base", 20, 650, NAVY)
    names = ", ".join(decision["source"] for decision in found["decisions"].values())
    drawing.text(NAMES, bottom + 33, names, 17, 400, MUTED, family=MONO)


def _plate(drawing: Drawing, y: float, plate: Sequence[str | None], found: Mapping[str, Any]) -> None:
    key, name, file, spoilt = plate
    right, front, left, back = rhombus(y)
    for one, other, shade in ((left, front, 0.75), (front, right, 0.55)):
        side = [one, other, (other[0], other[1] + THICK), (one[0], one[1] + THICK)]
        drawing.polygon(side, NAVY, WHITE, 1)
        drawing.polygon(side, CHARCOAL, opacity=1 - shade)
    drawing.polygon([right, front, left, back], NAVY, WHITE, 2)
    held = all(ticks[key] for ticks in found["artifacts"].values())
    if held:
        drawing.tick(AXIS, y, 26, WHITE, 5)
    drawing.line(right[0] + 4, y, NAMES - 10, y, SLATE, 1.5)
    drawing.circle(right[0] + 4, y, 3.5, SLATE)
    drawing.text(NAMES, y - 3, name, 21, 700, NAVY)
    drawing.text(NAMES, y + 22, file, 16, 400, MUTED, family=MONO)
    if key in SEEN:
        _seen(drawing, y, SEEN[key](found))
    if spoilt in found["refused"]:
        _refusal(drawing, y, spoilt)


def _refusal(drawing: Drawing, y: float, spoilt: str) -> None:
    """A spoilt copy of the plate, and that it was not loaded."""
    width = PANEL - 16 - REFUSED
    drawing.rect(REFUSED, y - 26, width, 54, ALARM_TINT, ALARM, 10, 1.5)
    drawing.cross(REFUSED + 20, y - 8, 12, ALARM)
    drawing.text(REFUSED + 36, y - 2, SPOILT[spoilt], 17, 600, ALARM, fit=width - 38)
    drawing.text(REFUSED + 36, y + 19, "refused, by name", 17, 400, CHARCOAL)


def examined(found: Mapping[str, Any]) -> int:
    """How many texts the accuracies are of."""
    return sum(next(iter(found["confusion"].values())).values())


def ways(found: Mapping[str, Any]) -> list[str]:
    """The classifiers that were compared, the best first."""
    accuracy = list(found["test accuracy"].values())
    return sorted(accuracy[0], key=lambda way: -sum(one[way] for one in accuracy))


def _seen(drawing: Drawing, y: float, lines: Sequence[str]) -> None:
    for place, line in enumerate(lines):
        drawing.text(REFUSED + 12, y - 3 + 22 * place, line, 17, 400, CHARCOAL, fit=PANEL - 20 - REFUSED)


def decided(found: Mapping[str, Any]) -> tuple[str, str]:
    """What was written down about padding, of all bases."""
    decisions = found["decisions"].values()
    ids = " or ".join(str(decision["pad_id"]) for decision in decisions)
    (side,), (reads,) = ({decision[key] for decision in decisions} for key in ("padding", "reads"))
    return f"id {ids}, {side}", reads


#: What is seen of the artifacts that nobody spoilt.
SEEN = {
    "manifest: every file pinned": lambda found: (f"its hashes found all {len(found['refused'])}", "before loading"),
    "pad and stop: decided": decided,
    "way back: equal to the source": lambda _: ("equal to the source,", "to the bit"),
}


def _outcome(drawing: Drawing, found: Mapping[str, Any]) -> None:
    """A row for each classifier: a dot a family, with a whisker of one standard error to both sides."""
    x, y, width, height = CHART
    drawing.rect(PANEL, 24, drawing.width - 28 - PANEL, drawing.height - 44, WHITE, HAIRLINE, 14, 2)
    count = examined(found)
    drawing.text(PANEL + 24, 58, "What it is worth in Module 10", 21, 650, NAVY)
    drawing.text(PANEL + 24, 83, f"right on {count} new stories, happy or sad", 17, 400, MUTED)
    chart = Axes(drawing, x, y, width, height, (0.4, 1), (0, 1))
    words = chart.x(found["counting words"])
    drawing.rect(words, y - 4, chart.right - words + 72, height + 4, GOLD_TINT, None, 0)
    drawing.line(words, y - 4, words, chart.bottom, GOLD_INK, 2.5, dash="7 5")
    drawing.text(words, y - 14, f"counting words: {percent(found['counting words'])}", 17, 650, GOLD_INK, "middle")
    rows = ways(found)
    for place, way in enumerate(rows):
        _row(drawing, chart, y + height * place / len(rows), way, found, count)
    drawing.line(PANEL + 24, chart.bottom, chart.right + 72, chart.bottom, SLATE, 2)
    for tick in (0.5, 0.75, 1):
        drawing.text(chart.x(tick), chart.bottom + 27, percent(tick), 17, 400, MUTED, "middle")
    drawing.text(chart.x(0.5), chart.bottom + 50, "chance", 17, 400, MUTED, "middle")
    drawing.text(chart.right + 72, chart.bottom + 50, "line: one standard error", 17, 400, MUTED, "end")


def _row(drawing: Drawing, chart: Axes, y: float, way: str, found: Mapping[str, Any], count: int) -> None:
    best = way == ways(found)[0]
    drawing.text(PANEL + 24, y + 34, way, 18, 700 if best else 600, NAVY)
    for place, (name, (stroke, ink)) in enumerate(MARKS.items()):
        share, middle = found["test accuracy"][name][way], y + 60 + 24 * place
        error = standard_error(share, count)
        drawing.text(PANEL + 24, middle + 6, name, 17, 500, ink)
        drawing.line(chart.x(share - error), middle, chart.x(min(share + error, 1)), middle, stroke, 3)
        drawing.circle(chart.x(share), middle, 10 if best else 8, stroke, WHITE, 2)
        drawing.text(chart.x(share + error) + 10, middle + 6, percent(share), 18 if best else 17, 700, ink)


def standard_error(share: float, count: int) -> float:
    """How far a share of so many answers usually lies off by chance."""
    return (share * (1 - share) / count) ** 0.5


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
