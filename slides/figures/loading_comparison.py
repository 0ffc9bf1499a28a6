"""Slide 13: four roads to one GPT-2 as places on a map of cost, and the four checks that all of them passed.

A map, because what the lab asks is "what does this road cost?", and a cost has two directions here: to the right it
takes longer, upward it needs more memory. The corner below left is where one wants to be; gold are the roads that none
beats in both. Beside a road stands what its file would do or notice. At the right the four checks, and the lab's trap:
a square matrix that was copied without being turned passes the first two of them.
"""

import re
from collections.abc import Mapping
from typing import Any

from course_helpers.palette import (
    ALARM,
    ALARM_TINT,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    MUTED,
    NAVY,
    SLATE,
    SOUND,
    SOUND_TINT,
    WHITE,
)

from . import figure
from .axes import Axes
from .numbers import ROOT
from .parts_measured import measured_together
from .svg import Drawing

LAB = "M9-LAB-01"
NOTEBOOK = ROOT / "notebooks" / "M9-LAB-01-alternative-weight-loading.py"
CHECKS = ("names", "shapes", "logits", "text")
#: The lab's validation checkpoints and what each says of the four checks.
SAME, TRAP = "four roads give one model", "the transposed square is caught by numbers only"
EXPECTED = {SAME: (True, True, True, True), TRAP: (True, True, False, False)}
#: What a file would do or notice, as the lab's table asks it; how it is said beside a road; whether it is good.
FACTS = (("Can run code", "its file may run code", False), ("Notices a flipped bit", "notices a flipped bit", True))
CHART = (100, 58, 992, 268)  # x, y, width, height
SLOWEST, HIGHEST = 2.3, 2.2  # seconds and models at the ends of the axes
DOT = 19
PANEL, COLUMN = 1148, 84  # where the checks begin; from one check to the next
FIRST_CHECK = PANEL + 290


@figure
def loading_comparison(drawing: Drawing) -> None:
    records = measured_together(drawing, LAB, "run")
    drawing.source("what a file may do: the notebook, section 9")
    lab = records[LAB]
    costs = {name: (road["seconds"], road["peak_mb"] / lab["model_mb"]) for name, road in lab["roads"].items()}
    axes = _ground(drawing, lab["model_mb"])
    facts = {words: notebook_row(what) for what, words, _ in FACTS}
    for name, cost in costs.items():
        said = [(words, good) for _, words, good in FACTS if facts[words][name]]
        _road(axes, name, cost, name in unbeaten(costs), said)
    _checks(drawing, passed_checks(records["run"]))


def passed_checks(run: Mapping[str, Any]) -> dict[str, tuple[bool, ...]]:
    """What the lab's run showed of the four checks. Raises ValueError where it did not."""
    (lab,) = [lab for lab in run["labs"] if lab["lab"] == LAB]
    passed = {checkpoint["name"] for checkpoint in lab["checkpoints"] if checkpoint["passed"]}
    if missing := set(EXPECTED) - passed:
        raise ValueError(f"{LAB}: not shown by the last run: {', '.join(sorted(missing))}")
    return EXPECTED


def notebook_row(what: str) -> dict[str, bool]:
    """A row of the lab's table of what no measurement shows: road -> whether its cell says yes."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    (head,) = re.findall(r"^# \| \| (PyTorch state dict \|.*)\|$", text, re.M)
    (row,) = re.findall(rf"^# \| \*\*{re.escape(what)}\*\* \|(.*)\|$", text, re.M)
    names, cells = ([cell.strip() for cell in line.split(" | ")] for line in (head, row))
    return {name: cell.startswith("yes") for name, cell in zip(names, cells, strict=True)}


def unbeaten(costs: Mapping[str, tuple[float, float]]) -> set[str]:
    """The roads beside which none is as good in both costs and better in one, in the digits that are shown."""
    shown = {name: tuple(round(value, 2) for value in cost) for name, cost in costs.items()}
    return {
        name
        for name, mine in shown.items()
        if not any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in shown.values())
    }


def _ground(drawing: Drawing, model_mb: float) -> Axes:
    """The plane of costs, with the corner where one wants to be and the floor that no road can go below."""
    axes = Axes(drawing, *CHART, (0, SLOWEST), (0.4, HIGHEST))
    reach, rise = 330, axes.bottom - axes.y(1)
    bend = f"Q{axes.left + reach - 60} {axes.y(1):.1f} {axes.left + reach} {axes.bottom}"
    drawing.path(f"M{axes.left} {axes.y(1):.1f} {bend} H{axes.left} Z", GOLD_TINT, None)
    drawing.text(axes.left + 20, axes.bottom - rise / 2 + 7, "best: fast and lean", 22, 650, GOLD_INK)
    drawing.text(36, 36, "What a road costs", 22, 650, NAVY)
    drawing.text(246, 36, "up: peak memory, in models; gold: no road is better in both", 18, 400, MUTED)
    drawing.line(axes.left, axes.y(1), axes.right, axes.y(1), SLATE, 2, "3 6")
    for value in (1, 2):
        drawing.line(axes.left - 6, axes.y(value), axes.left + 6, axes.y(value), SLATE, 2)
        drawing.text(axes.left - 14, axes.y(value) + 6, f"{value} ×", 18, 600, MUTED, "end")
    drawing.text(axes.left + 20, axes.y(1) - 12, f"the model itself: {model_mb:.0f} MiB", 19, 500, CHARCOAL)
    for seconds in (0.5, 1, 1.5, 2):
        drawing.line(axes.x(seconds), axes.bottom - 6, axes.x(seconds), axes.bottom + 6, SLATE, 2)
        drawing.text(axes.x(seconds), axes.bottom + 30, f"{seconds:g} s", 18, 600, MUTED, "middle")
    drawing.text(axes.left, axes.bottom + 30, "right: time to load", 18, 400, MUTED)
    drawing.polyline(((axes.left, axes.top), (axes.left, axes.bottom), (axes.right, axes.bottom)), SLATE, 2)
    return axes


def _road(axes: Axes, name: str, cost: tuple[float, float], best: bool, said: list[tuple[str, bool]]) -> None:
    """One road at its place, with its name, its two costs and what is to be said of its file."""
    draw, x, y = axes.drawing, axes.x(cost[0]), axes.y(cost[1])
    draw.circle(x, y, DOT, GOLD if best else NAVY, WHITE, 3)
    left, ink = x + DOT + 12, GOLD_INK if best else NAVY
    below = y + 8
    if cost[1] < 1.2:  # a road on the floor has its words below it
        left, below = x - DOT, y + 48
    width = draw.text(left, below, name, 25, 700, ink)
    draw.text(left + width + 14, below, f"{cost[0]:.2f} s · {cost[1]:.2f} ×", 22, 600, CHARCOAL)
    for row, (words, good) in enumerate(said, 1):
        line = below + 30 * row
        (draw.tick if good else draw.cross)(left + 9, line - 7, 17, SOUND if good else ALARM, 3.5)
        draw.text(left + 28, line, words, 20, 600, SOUND if good else ALARM)


def _checks(drawing: Drawing, passed: Mapping[str, tuple[bool, ...]]) -> None:
    """The four checks: what the roads said to them, and what the trap said."""
    drawing.text(PANEL, 36, "Is it the same model?", 22, 650, NAVY)
    for place, check in enumerate(CHECKS):
        drawing.text(FIRST_CHECK + place * COLUMN, 84, check, 21, 600, NAVY, "middle")
    rows = (
        (SAME, "All four roads", "equal to each other", 104, SOUND, SOUND_TINT),
        (TRAP, "The trap", "a matrix, not turned", 204, ALARM, ALARM_TINT),
    )
    for key, title, below, top, ink, tint in rows:
        drawing.rect(PANEL, top, drawing.width - PANEL - 36, 84, tint, None, 14)
        drawing.text(PANEL + 22, top + 37, title, 24, 700, ink)
        drawing.text(PANEL + 22, top + 65, below, 19, 400, CHARCOAL, fit=FIRST_CHECK - PANEL - 48)
        for place, ok in enumerate(passed[key]):
            x, y = FIRST_CHECK + place * COLUMN, top + 42
            (drawing.tick if ok else drawing.cross)(x, y, 30, SOUND if ok else ALARM, 5.5)
    drawing.text(PANEL + 22, 324, "It loads, and every shape fits: only the numbers tell.", 20, 600, ALARM)
