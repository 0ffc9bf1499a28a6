"""Slide 13: four roads to one GPT-2 in one table of small multiples: is it the same model, how long, how much memory?

The first columns are the lab's four checks; the last row is the lab's trap, a square matrix copied without being
turned: it has the right names and shapes and is another model. In each column of bars the best road is gold.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from course_helpers.palette import (
    ALARM,
    ALARM_TINT,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    HAIRLINE,
    MONO,
    MUTED,
    NAVY,
    SOFT_GREY,
    SOUND,
)

from . import figure
from .numbers import ROOT
from .parts_measured import measured_together
from .svg import Drawing

LAB = "M9-LAB-01"
NOTEBOOK = ROOT / "notebooks" / "M9-LAB-01-alternative-weight-loading.py"
CHECKS = ("names", "shapes", "logits", "text")
READS = {
    "PyTorch state dict": "pytorch_model.bin",
    "Transformers": "from_pretrained(…)",
    "safetensors": "model.safetensors",
    "TensorFlow": "model.ckpt.index, .data",
}
#: The lab's validation checkpoints and what each says of the four checks.
SAME, TRAP = "four roads give one model", "the transposed square is caught by numbers only"
EXPECTED = {SAME: (True, True, True, True), TRAP: (True, True, False, False)}
HEAD, ROW = 96, 52  # where the first row begins; from one to the next
ROADS, TICKS, TIMES, PEAKS, FLIPPED, RUNS = 36, 352, 690, 1030, 1452, 1632  # the columns' left edges
BAR, THICK = 216, 26  # the longest bar, and how thick all are


@figure
def loading_comparison(drawing: Drawing) -> None:
    records = measured_together(drawing, LAB, "run")
    drawing.source("right: the notebook, section 9")
    lab = records[LAB]
    roads = lab["roads"]
    _shade(drawing, len(roads))
    _heads(drawing, lab["model_mb"])
    checks = passed_checks(records["run"])
    facts = {what: notebook_row(what) for what in ("Notices a flipped bit", "Can run code")}
    for place, name in enumerate(roads):
        y = HEAD + (place + 0.5) * ROW
        drawing.text(ROADS, y - 2, name, 20, 650, NAVY)
        drawing.text(ROADS, y + 20, READS[name], 16, 400, MUTED, family=MONO)
        _ticks(drawing, y, checks[SAME])
        _verdict(drawing, FLIPPED, y, facts["Notices a flipped bit"][name], good=True)
        _verdict(drawing, RUNS, y, facts["Can run code"][name], good=False)
    seconds = {name: road["seconds"] for name, road in roads.items()}
    _bars(drawing, TIMES, seconds, "{:.2f} s")
    models = {name: road["peak_mb"] / lab["model_mb"] for name, road in roads.items()}
    _bars(drawing, PEAKS, models, "{:.2f}", one=True)
    _trap(drawing, HEAD + len(roads) * ROW + 10, checks[TRAP])


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


def _shade(drawing: Drawing, roads: int) -> None:
    """Every second row is tinted, so that the eye stays in its row over the whole width."""
    for place in range(0, roads, 2):
        drawing.rect(20, HEAD + place * ROW, drawing.width - 40, ROW, SOFT_GREY, None, 10)


def _heads(drawing: Drawing, model_mb: float) -> None:
    title = partial(drawing.text, size=21, weight=650, fill=NAVY)
    below = partial(drawing.text, size=17, fill=MUTED)
    title(ROADS, 46, "Road")
    below(ROADS, 74, "and what it reads")
    title(TICKS, 46, "Same model?")
    for place, check in enumerate(CHECKS):
        below(TICKS + 26 + place * 76, 76, check, anchor="middle")
    title(TIMES, 46, "Time to load")
    below(TIMES, 74, f"GPT-2 small, {model_mb:.0f} MiB")
    title(PEAKS, 46, "Peak memory")
    below(PEAKS, 74, "in models; 1 is the model itself")
    title(FLIPPED, 46, "Sees a")
    title(FLIPPED, 74, "flipped bit")
    title(RUNS, 46, "File may")
    title(RUNS, 74, "run code")


def _ticks(drawing: Drawing, y: float, passed: tuple[bool, ...]) -> None:
    for place, ok in enumerate(passed):
        x = TICKS + 26 + place * 76
        (drawing.tick if ok else drawing.cross)(x, y, 20, SOUND if ok else ALARM, 4)


def _verdict(drawing: Drawing, x: float, y: float, yes: bool, good: bool) -> None:
    ink = SOUND if yes == good else MUTED if good else ALARM
    drawing.text(x, y + 7, "yes" if yes else "no", 20, 650, ink)


def _bars(drawing: Drawing, x: float, values: Mapping[str, float], form: str, one: bool = False) -> None:
    """A bar for every road; gold are those that nobody beats in the digits shown. `one`: a line at the value 1."""
    most, best = max(values.values()), form.format(min(values.values()))
    bottom = HEAD + len(values) * ROW
    for place, value in enumerate(values.values()):
        y, length, shown = HEAD + (place + 0.5) * ROW, BAR * value / most, form.format(value)
        drawing.rect(x, y - THICK / 2, length, THICK, GOLD if shown == best else NAVY, None, 4)
        drawing.text(x + length + 12, y + 7, shown, 20, 650, GOLD_INK if shown == best else CHARCOAL)
    drawing.line(x, HEAD + 4, x, bottom - 4, HAIRLINE, 2)
    if one:
        drawing.line(x + BAR / most, HEAD, x + BAR / most, bottom, CHARCOAL, 2, "3 5")


def _trap(drawing: Drawing, top: float, passed: tuple[bool, ...]) -> None:
    y = top + ROW / 2
    drawing.rect(20, top, drawing.width - 40, ROW, ALARM_TINT, None, 10)
    drawing.text(ROADS, y - 2, "The trap", 20, 650, ALARM)
    drawing.text(ROADS, y + 20, "a square matrix, not turned", 17, 400, CHARCOAL)
    _ticks(drawing, y, passed)
    drawing.text(TIMES, y + 7, "It loads in silence and fits every shape: only the numbers tell.", 20, 500, CHARCOAL)
