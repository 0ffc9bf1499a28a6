"""Slide 10: the chapter-5 loop as a ring with one open slot, and the models as cartridges for it.

A ring, because a loop is one, and because four of its five stations know no family: only the slot is open. The
cartridges beside it have the same plug; on the face of each is drawn what the lab measured when it was in the slot:
held-out loss with the same texts, steps and rate. How many fields a swap changes is what the lab's stored run
printed.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from course_helpers.families import family_of
from course_helpers.labs.order import find_labs
from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MONO,
    MUTED,
    NAVY,
    NAVY_TINT,
    PEARL,
    SKY,
    SKY_INK,
    SLATE,
    SOUND,
    WHITE,
)

from . import figure
from .axes import Axes
from .bridge_curves import mean_curve
from .numbers import measured
from .svg import Drawing, Point

LAB = "M9-LAB-07"
CENTRE, RADIUS, HALF = (284, 312), 178, 42
#: The stations beside the slot, clockwise; an angle is in degrees from the top. The slot is open from 58 to 122.
STATIONS = {"batch": (346, 416), "loss": (124, 194), "gradient": (198, 268), "update": (272, 342)}
#: Cartridges: model_type, the book's notebook, colour of the curve and of its number.
CARTRIDGES = {
    "GPT-2": ("gpt2", "ch05.ipynb", GOLD, GOLD_INK),
    "Llama 3": ("llama", "ch05-llama32.ipynb", NAVY, NAVY),
    "Qwen3": ("qwen3", "ch05-qwen3.ipynb", SKY, SKY_INK),
}
PLUGGED = "Llama 3"
OUTSIDE, INSIDE, WIDTH, HEIGHT, TAB = 598, 506, 470, 144, 76
TOPS = {"GPT-2": 28, "Llama 3": 240, "Qwen3": 440}


@figure
def training_swap(drawing: Drawing) -> None:
    found = measured(drawing, LAB)
    for name in STATIONS:
        _station(drawing, name)
    _socket(drawing)
    for name in CARTRIDGES:
        _cartridge(drawing, name, found)
    _centre(drawing)
    _around(drawing, found)
    _markers(drawing)


def printed(pattern: str) -> re.Match[str]:
    """What the lab's stored run printed. Raises ValueError where it printed nothing of the kind."""
    notebook = next(lab.notebook for lab in find_labs() if lab.id == LAB)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "".join(line for cell in cells for output in cell.get("outputs", ()) for line in output.get("text", ()))
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the stored run of {notebook.name} printed nothing like {pattern!r}")
    return match


def place(angle: float, radius: float) -> Point:
    """A point of the ring: degrees clockwise from the top."""
    turn = math.radians(angle)
    return CENTRE[0] + radius * math.sin(turn), CENTRE[1] - radius * math.cos(turn)


def segment(first: float, last: float, tip: float = 7) -> Iterator[Point]:
    """A piece of the ring with a notch behind and a tip in front, so that it points the way the loop goes."""
    angles = [first + (last - first) * step / 24 for step in range(25)]
    yield from (place(angle, RADIUS + HALF) for angle in angles)
    yield place(last + tip, RADIUS)
    yield from (place(angle, RADIUS - HALF) for angle in reversed(angles))
    yield place(first + tip, RADIUS)


def _station(drawing: Drawing, name: str) -> None:
    first, last = STATIONS[name]
    drawing.polygon(segment(first, last), NAVY)
    x, y = place((first + last) / 2 + 4, RADIUS)
    drawing.text(x, y + 7, name, 20, 650, WHITE, "middle")


def _socket(drawing: Drawing) -> None:
    """The opening in the ring, as wide as a cartridge's plug."""
    x, y = CENTRE[0] + RADIUS - HALF, CENTRE[1]
    drawing.rect(x - 4, y - 62, 2 * HALF + 4, 124, PEARL, GOLD, 12, 3, dash="7 6")


def _cartridge(drawing: Drawing, name: str, found: Mapping[str, Any]) -> None:
    model_type, notebook, stroke, ink = CARTRIDGES[name]
    y, inside = TOPS[name], name == PLUGGED
    x = INSIDE if inside else OUTSIDE
    drawing.rect(
        x - TAB, y + 22, TAB + 14, HEIGHT - 44, GOLD if inside else HAIRLINE, GOLD_INK if inside else SLATE, 8, 2
    )
    for pin in range(4):
        drawing.rect(x - TAB + 10, y + 34 + 21 * pin, 40, 12, WHITE if inside else PEARL, radius=3)
    drawing.rect(
        x, y, WIDTH, HEIGHT, GOLD_TINT if inside else NAVY_TINT, GOLD if inside else SLATE, 14, 3 if inside else 2
    )
    drawing.text(x + 24, y + 38, name, 26, 700, NAVY)
    drawing.text(x + 24, y + 68, family_of({"model_type": model_type}).model.__name__, 18, 500, CHARCOAL, family=MONO)
    drawing.text(x + 24, y + 95, f"{found['parameters'][name]:,} parameters", 18, 400, CHARCOAL)
    drawing.text(x + 24, y + 121, notebook, 16, 400, MUTED, family=MONO)
    _screen(drawing, x + 226, y + 14, name, found, stroke, ink)


def _screen(drawing: Drawing, x: float, y: float, name: str, found: Mapping[str, Any], stroke: str, ink: str) -> None:
    """The cartridge's face: its mean curve on one scale for all, and where it ends."""
    drawing.rect(x, y, 230, HEIGHT - 28, WHITE, HAIRLINE, 10, 1.5)
    curve = mean_curve(found["curves"][name], found["tokens a step"])
    chart = Axes(drawing, x + 24, y + 18, 122, HEIGHT - 62, (0, curve[-1][0]), (1.5, 7.4))
    chart.base(HAIRLINE)
    chart.curve(curve, stroke, 4.5)
    drawing.circle(chart.x(curve[-1][0]), chart.y(curve[-1][1]), 6.5, stroke, WHITE, 2)
    drawing.text(chart.x(0) + 10, y + 26, f"{curve[0][1]:.1f}", 17, 600, MUTED)
    drawing.text(chart.right + 14, chart.y(curve[-1][1]) + 3, f"{curve[-1][1]:.2f}", 25, 700, ink)


def _centre(drawing: Drawing) -> None:
    x, y = CENTRE
    equal, total = printed(r"(\d+) of (\d+) losses are equal to the bit").groups()
    drawing.text(x, y - 40, "One loop", 30, 700, NAVY, "middle")
    drawing.text(x, y - 12, "training_steps", 18, 500, CHARCOAL, "middle", MONO)
    drawing.text(x, y + 16, "knows no family", 18, 400, MUTED, "middle")
    drawing.line(x - 84, y + 32, x + 84, y + 32)
    drawing.text(x, y + 60, f"{equal} of {total} losses equal", 19, 650, SOUND, "middle")
    drawing.text(x, y + 84, "to the loop you write", 18, 400, MUTED, "middle")


def _around(drawing: Drawing, found: Mapping[str, Any]) -> None:
    """What stays as it is at each station, and what can come later."""
    settings, fields = found["settings"], printed(r"(\d+) of (\d+) fields differ")
    drawing.text(28, 40, f"{settings['batch']} rows × {settings['context']} tokens", 20, 650, NAVY)
    drawing.text(28, 73, "no longer than the limit", 18, 400, MUTED)
    drawing.text(OUTSIDE, 419, f"{fields[1]} of {fields[2]} fields differ,", 19, 700, GOLD_INK)
    drawing.text(OUTSIDE + 192, 419, "none of texts, rate or steps", 18, 400, CHARCOAL)
    drawing.text(OUTSIDE, 212, "same held-out windows", 18, 600, NAVY)
    drawing.text(OUTSIDE + 278, 212, "same generate", 18, 600, NAVY)
    for x, width, text in ((28, 234, "phase two: bfloat16"), (272, 234, "another loss: Slide 29")):
        drawing.rect(x, 544, width, 40, PEARL, SLATE, 20, 2, dash="6 6")
        drawing.text(x + 16, 570, text, 17, 500, CHARCOAL)


def _markers(drawing: Drawing) -> None:
    face, start = OUTSIDE + 426, INSIDE + 226 + 80
    for number, x, y in (
        (1, CENTRE[0], CENTRE[1] - 90), (2, CENTRE[0] + RADIUS, CENTRE[1] - 78), (3, 248, 33), (8, 248, 67),
        (5, 240, 564), (11, 484, 564), (6, OUTSIDE + 232, 206), (4, OUTSIDE + 432, 206),
        (7, OUTSIDE + 202, TOPS["Qwen3"] + 118), (9, start, TOPS[PLUGGED] + 36), (10, face, TOPS["GPT-2"] + 40),
        (12, face, TOPS["Qwen3"] + 40),
    ):  # fmt: skip
        drawing.marker(x, y, number)
