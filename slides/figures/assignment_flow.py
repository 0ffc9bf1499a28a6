"""Safe assignment as a sorting yard: wagons from the file, one gate, points, and the model's platforms.

Six tensors of a GPT-2 file stand for all kinds of rules: as it is, turned, turned and cut in three, left out. Every
track crosses the same gate, which stays closed until all names and shapes have been checked, so a bad file stops before
the first wagon moves. Rules, shapes and counts are the package's own weight map, expanded for the smallest GPT-2.
"""

from collections.abc import Mapping
from typing import NamedTuple

from course_helpers.architectures.gpt2 import PRESETS, GPT2Config, GPT2Model
from course_helpers.loaders.assign import HEAD
from course_helpers.loaders.rules import Rule
from course_helpers.loaders.weight_maps import GPT2
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
    PEARL,
    SKY,
    SLATE,
    SOUND,
    SOUND_TINT,
    WHITE,
)
from course_helpers.sizes import on_meta

from . import figure
from .numbers import computed
from .svg import Drawing

LAYER = "h.0."
SHOWN = ("wte.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight", "h.0.ln_1.weight")
SIDING = {"lm_head.weight": "tied to the embedding", "h.0.attn.bias": "the causal mask, a constant"}
WORDS = {"transpose": "turn", "split in 3": "cut in 3", "as it is": "as it is"}

LEFT, WAGON, HEIGHT = 28, 190, 46
GATE, POINTS, PLATFORM, RIGHT = 240, 346, 452, 626
TOP, PITCH, SIDE, SIDE_PITCH = 86, 57, 434, 54
STRIP, STRIP_HEIGHT = 526, 60


class Yard(NamedTuple):
    """A GPT-2 of some size: rules by name in the file, and the shapes of its parameters."""

    rules: Mapping[str, Rule]
    shapes: Mapping[str, tuple[int, ...]]

    def source_shape(self, name: str) -> tuple[int, ...]:
        rule = self.rules[name]
        return rule.source_shape([self.shapes[target] for target in rule.targets])

    @property
    def used(self) -> dict[str, Rule]:
        """The rules that a tied model needs: all but the head's."""
        return {name: rule for name, rule in self.rules.items() if rule.targets != (HEAD,)}


def yard(config: GPT2Config) -> Yard:
    parameters = on_meta(GPT2Model, config).named_parameters()
    return Yard(GPT2.expand(config), {name: parameter.shape for name, parameter in parameters})


@figure
def assignment_flow(drawing: Drawing) -> None:
    found = yard(next(iter(PRESETS.values())))
    computed(drawing, "GPT-2's weight map")
    drawing.text(LEFT, 44, "in the file", 21, 650, NAVY)
    drawing.text(RIGHT, 44, "in the model", 21, 650, NAVY, "end")
    row = 0
    for name in SHOWN:
        targets = found.rules[name].targets
        route(drawing, found, name, TOP + PITCH * row)
        row += len(targets)
    for index, (name, why) in enumerate(SIDING.items()):
        siding(drawing, name, why, SIDE + SIDE_PITCH * index)
    gate(drawing)
    outcomes(drawing, len(found.used), len(found.shapes))


def route(drawing: Drawing, found: Yard, name: str, first: float) -> None:
    """One tensor's way: wagon, through the gate, over the points, to its platforms."""
    rule = found.rules[name]
    platforms = [first + PITCH * index for index in range(len(rule.targets))]
    middle = sum(platforms) / len(platforms)
    ink = GOLD if len(platforms) > 1 else SKY if rule.transpose else SLATE
    for y in platforms:
        rail(drawing, (POINTS, middle), (PLATFORM, y), ink)
    rail(drawing, (LEFT + WAGON, middle), (POINTS, middle), ink)
    wagon(drawing, middle, name, times(found.source_shape(name)), ink)
    what = ", ".join(WORDS[step] for step in rule.describe().split(", "))
    drawing.chip(POINTS, middle, what, GOLD_TINT if ink == GOLD else WHITE, NAVY, 17, 650, "middle", ink)
    for y, target in zip(platforms, rule.targets, strict=True):
        platform(drawing, y, target, times(found.shapes[target]))


def rail(drawing: Drawing, start: tuple[float, float], end: tuple[float, float], ink: str) -> None:
    """A track: sleepers, and two rails on them."""
    (x0, y0), (x1, y1) = start, end
    bend = (x0 + x1) / 2
    d = f"M{x0:.1f} {y0:.1f} C{bend:.1f} {y0:.1f} {bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    drawing.path(d, stroke=HAIRLINE, line=17, dash="3 7")
    drawing.path(d, stroke=ink, line=9)
    drawing.path(d, stroke=PEARL, line=3.5)


def wagon(drawing: Drawing, y: float, name: str, shape: str, ink: str) -> None:
    top = y - HEIGHT / 2
    for x in (LEFT + 34, LEFT + WAGON - 34):
        drawing.circle(x, top + HEIGHT + 1, 7, CHARCOAL, WHITE, 2)
    drawing.rect(LEFT, top, WAGON, HEIGHT, WHITE, ink, 7, 2.5)
    drawing.text(LEFT + 10, y - 5, name.removeprefix(LAYER), 16, 600, CHARCOAL, family=MONO, fit=WAGON - 14)
    drawing.text(LEFT + 10, y + 16, shape, 17, 400, MUTED)


def platform(drawing: Drawing, y: float, target: str, shape: str) -> None:
    top, width = y - HEIGHT / 2, RIGHT - PLATFORM
    name = target.removesuffix(".weight").rpartition("blocks.0.")[2]
    drawing.rect(PLATFORM, top, width, HEIGHT, NAVY, radius=7)
    drawing.text(PLATFORM + 10, y - 5, name, 16, 600, WHITE, family=MONO, fit=width - 14)
    drawing.text(PLATFORM + 10, y + 16, shape, 17, 400, NAVY_TINT)


def siding(drawing: Drawing, name: str, why: str, y: float) -> None:
    """A tensor that is left out for a reason that is written down: its track ends at a buffer."""
    stop = POINTS - 26
    rail(drawing, (LEFT + WAGON, y), (stop, y), SLATE)
    drawing.rect(stop - 3, y - 15, 8, 30, CHARCOAL, radius=2)
    wagon(drawing, y, name, "left out", SLATE)
    drawing.text(stop + 18, y - 3, "a reason, not a guess:", 17, 400, MUTED)
    drawing.text(stop + 18, y + 18, why, 17, 550, CHARCOAL, fit=RIGHT - stop - 18)


def gate(drawing: Drawing) -> None:
    """A striped barrier across every track."""
    top, bottom, width, stripe = 60, STRIP - 8, 16, 26
    drawing.rect(GATE, top, width, bottom - top, WHITE, radius=4)
    for index in range(int((bottom - top) / stripe)):
        y = top + stripe * index
        drawing.rect(GATE, y, width, stripe, NAVY if index % 2 else GOLD, radius=0)
    drawing.rect(GATE, top, width, int((bottom - top) / stripe) * stripe, "none", NAVY, 3, 2.5)
    drawing.text(GATE + width / 2 + 12, 44, "plan, check", 21, 650, GOLD_INK, "middle")


def outcomes(drawing: Drawing, tensors: int, parameters: int) -> None:
    """Below the gate: what happens when it stays closed, and when it opens."""
    halves = (
        (LEFT, ALARM_TINT, ALARM, drawing.cross, "any problem: all listed,", "nothing has moved"),
        (
            POINTS - 10,
            SOUND_TINT,
            SOUND,
            drawing.tick,
            f"no problem: {tensors} tensors",
            f"fill {parameters} parameters",
        ),
    )
    for x, fill, ink, mark, first, second in halves:
        width = POINTS - 22 - LEFT if x == LEFT else RIGHT - x
        drawing.rect(x, STRIP, width, STRIP_HEIGHT, fill, radius=9)
        mark(x + 24, STRIP + STRIP_HEIGHT / 2, 17, ink)
        drawing.text(x + 48, STRIP + 26, first, 18.5, 650, ink, fit=width - 52)
        drawing.text(x + 48, STRIP + 49, second, 18.5, 500, ink, fit=width - 52)


def times(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{size:,}" for size in shape)
