"""Slide 4: three roads from a file to the same GPT-2, and what each of them lets you see.

A road is open where you see and decide, and runs under a hill where things happen by themselves. Below each road lies
what it costs, on one scale: seconds, and the peak of memory in models. At the end all three must pass the same gate.
"""

import json
from dataclasses import dataclass

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
    NAVY_TINT,
    SKY,
    SLATE,
    SOUND,
    SOUND_TINT,
    WHITE,
)

from . import figure
from .numbers import RESULTS, measured
from .svg import Drawing

LAB, SAME = "M9-LAB-01", "four roads give one model"  # the lab, and its checkpoint that the gate shows
LEFT, START, END = 36, 258, 806  # margin; the roads' ends
FIRST, LANE, WIDTH = 132, 158, 46  # middle of the first road; distance of the roads; width of one
STATIONS = (328, 464, 606, 742)  # what happens along the way
HEADS = ("open", "look inside", "turn and cut", "fill the model")
GATE = (892, 1060, 118, 462)  # left, right, top and bottom edge
MODEL = 130  # pixels for one model's memory
#: Below the roads: what holds for all of them, with the number of its annotation
BELOW = ((36, 5, "convert once, use often"), (318, 10, "open road: control; hill: convenience"),
         (728, 7, "three notebooks; ours: M9-LAB-01"))  # fmt: skip


@dataclass(frozen=True)
class Road:
    """One way in. Without `stations` it runs under the hill."""

    key: str  # in the lab's record
    title: str
    file: str
    number: int  # of its annotation
    stations: tuple[str, ...]
    peak: str  # why memory peaks where it does
    risk: str = ""  # what opening the file may do, or cannot do


YOURS = ("your table", "your check")
ROADS = (
    Road("PyTorch state dict", "PyTorch state dict", "pytorch_model.bin", 2, ("a pickle", "names, shapes", *YOURS),
         "file pages count, too", "may run code"),
    Road("Transformers", "HF Transformers", "config and weights", 3, (), "its own, then ours"),
    Road("safetensors", "Direct safetensors", "model.safetensors", 4, ("a header", "every byte", *YOURS),
         "tensor by tensor", "nothing to run"),
)  # fmt: skip


@figure
def loading_roads(drawing: Drawing) -> None:
    found = measured(drawing, LAB)
    drawing.marker(LEFT + 16, 44, 1)
    drawing.text(LEFT + 42, 50, "choose a road", 19, 650, NAVY)
    for x, words in zip(STATIONS, HEADS, strict=True):
        drawing.text(x, 50, words, 19, 650, MUTED, "middle")
    drawing.line(START, 66, END, 66, HAIRLINE, 1.5)
    ends = [FIRST + place * LANE for place in range(len(ROADS))]
    merge(drawing, ends)
    for road, y in zip(ROADS, ends, strict=True):
        lane(drawing, road, y)
        cost(drawing, road, y + 64, found["roads"][road.key], found["model_mb"])
    gate(drawing, same_model())
    for x, number, words in BELOW:
        drawing.marker(x + 16, 567, number)
        drawing.text(x + 42, 573, words, 18, 500, CHARCOAL)


def same_model() -> bool:
    """Whether the last run found the models of all roads equal: names, shapes, logits and text."""
    run = json.loads((RESULTS / "run.json").read_text(encoding="utf-8"))
    checkpoints = next(lab for lab in run["labs"] if lab["lab"] == LAB)["checkpoints"]
    return next(one for one in checkpoints if one["name"] == SAME)["passed"]


def merge(drawing: Drawing, ends: list[float]) -> None:
    """The roads' last stretch, from their ends to the middle of the gate: the edges first, then what lies between."""
    middle = sum(ends) / len(ends)
    for stroke, line in ((SLATE, WIDTH + 4), (NAVY_TINT, WIDTH)):
        for y in ends:
            bend = f"C{END + 62} {y:.0f} {END + 36} {middle:.0f} {GATE[0]} {middle:.0f}"
            drawing.path(f"M{START} {y:.0f} H{END} {bend}", stroke=stroke, line=line)
    for y in ends:
        drawing.line(START, y, END, y, WHITE, 3, "16 12")


def lane(drawing: Drawing, road: Road, y: float) -> None:
    """One road: its name and file, and its stations or the hill above it."""
    drawing.text(LEFT, y - 4, road.title, 20, 650, NAVY, fit=START - LEFT - 18)
    drawing.text(LEFT, y + 20, road.file, 17, 400, CHARCOAL, family=MONO)
    if not road.stations:
        hill(drawing, y)
    drawing.marker(START, y, road.number)
    safe = road.risk.startswith("nothing")
    ink, tint = (SOUND, SOUND_TINT) if safe else (ALARM, ALARM_TINT)
    colours = [(tint, ink, ink), *[(WHITE, NAVY, SKY)] * (len(STATIONS) - 1)]
    for x, words, (fill, letters, edge) in zip(STATIONS, road.stations, colours, strict=False):
        drawing.chip(x, y, words, fill, letters, 18, 600, "middle", edge)
    if road.risk:
        (drawing.tick if safe else drawing.cross)(STATIONS[0] - 42, y - 43, 15, ink, 3.5)
        width = drawing.text(STATIONS[0] - 26, y - 37, road.risk, 18, 650, ink)
        if not safe:
            drawing.marker(STATIONS[0] + width - 2, y - 44, 11)


def hill(drawing: Drawing, y: float) -> None:
    """What a library does for you: you drive in at one end and come out at the other."""
    left, right, foot = STATIONS[0] - 40, STATIONS[-1] + 52, y + WIDTH / 2 + 2
    shape = f"C{left + 60} {y - 76} {left + 150} {y - 62} {(left + right) / 2:.0f} {y - 62}"
    other = f"C{right - 150} {y - 62} {right - 60} {y - 76} {right} {foot}"
    drawing.path(f"M{left} {foot} {shape} {other} Z", NAVY, None)
    for x in (left + 15, right - 43):
        drawing.path(f"M{x} {foot - 2} V{y} A14 18 0 0 1 {x + 28} {y} V{foot - 2} Z", CHARCOAL, SLATE, 2)
    middle = (left + right) / 2
    drawing.text(middle, y - 20, "it happens by itself", 20, 650, WHITE, "middle")
    drawing.text(middle, y + 9, "class, names, defaults, layout, tied head", 18, 400, WHITE, "middle")


def cost(drawing: Drawing, road: Road, y: float, found: dict, model_mb: float) -> None:
    """Seconds, and the peak on the common scale: what the model itself takes, and what comes on top."""
    peak = found["peak_mb"] / model_mb
    drawing.text(LEFT, y + 6, f"{found['seconds']:.2f} seconds", 18, 650, CHARCOAL)
    drawing.rect(START, y - 12, peak * MODEL, 24, GOLD, None, 4)
    drawing.rect(START, y - 12, min(peak, 1) * MODEL, 24, MUTED, None, 4)
    drawing.text(START + MODEL / 2, y + 6, "the model", 17, 600, WHITE, "middle")
    x = START + peak * MODEL + 14
    x += drawing.text(x, y + 6, f"peak {peak:.2f} ×:", 18, 650, GOLD_INK) + 8
    x += drawing.text(x, y + 6, road.peak, 18, 400, CHARCOAL)
    if road is ROADS[-1]:
        drawing.marker(x + 30, y, 12)


def gate(drawing: Drawing, same: bool) -> None:
    """The end of all roads: one prompt, one tokenizer, and four checks in the order of their price."""
    left, right, top, bottom = GATE
    drawing.rect(left, top, right - left, bottom - top, WHITE, NAVY, 16, 3.5)
    drawing.text((left + right) / 2, top + 36, "one GPT-2", 22, 700, NAVY, "middle")
    y = top + 78
    for words, number in (("one prompt", 9), ("one tokenizer", 8)):
        drawing.text(left + 14, y, words, 16, 500, CHARCOAL)
        drawing.marker(right - 22, y - 6, number)
        y += 40
    drawing.line(left + 14, y - 14, right - 14, y - 14, HAIRLINE, 2)
    drawing.text(left + 14, y + 20, "all equal:", 16, 500, CHARCOAL)
    drawing.marker(right - 22, y + 14, 6)
    for row, words in enumerate(("names", "shapes", "logits", "text"), 1):
        below = y + 22 + 37 * row
        (drawing.tick if same else drawing.cross)(left + 28, below - 6, 18, SOUND if same else ALARM, 4)
        drawing.text(left + 52, below, words, 19, 650, SOUND if same else ALARM)
