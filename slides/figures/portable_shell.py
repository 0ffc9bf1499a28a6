"""The title's picture: one shell in the middle, four families docked to it, each through an adapter of its own.

What differs is drawn from the configs: a family's disc shows its layers as bars, long where a layer sees the whole text
and short where it looks through a window, or its experts as dots. An adapter's bars are the rows of its weight map.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from course_helpers import FAMILIES
from course_helpers.architectures.config import FULL
from course_helpers.palette import CHARCOAL, GOLD, GOLD_INK, HAIRLINE, NAVY, NAVY_TINT, SERIF, SKY, WHITE

from . import figure
from .numbers import computed
from .svg import Drawing, Point

CENTRE = (1430.0, 512.0)
CORE, SHELL, REACH, DISC = 150, 176, 382, 112  # radii, and how far out a family's disc stands
LABEL = 304  # and the labels of the adapters, between the discs
ORBITS = (REACH, 560, 760, 980, 1220)
SHARED = ("training loop", "generation", "evaluation")


@dataclass(frozen=True)
class Dock:
    """A family's place on the ring: registry key, angle in degrees (clockwise from the right), name, mark, words."""

    family: str
    angle: float
    name: str
    mark: Callable[[Drawing, Point, object], None]
    words: str

    @property
    def config(self):
        """The family's smallest released size."""
        return next(iter(FAMILIES[self.family].presets.values()))

    @property
    def rows(self) -> int:
        """Rules of the weight map that loads it."""
        return len(FAMILIES[self.family].weight_maps[0].rows)

    def at(self, distance: float, aside: float = 0) -> Point:
        """The point at this distance from the centre on the family's ray, and so far to its side."""
        along = math.radians(self.angle)
        return (
            CENTRE[0] + distance * math.cos(along) - aside * math.sin(along),
            CENTRE[1] + distance * math.sin(along) + aside * math.cos(along),
        )


def layer_mark(drawing: Drawing, centre: Point, config: object) -> None:
    """One bar a layer, the first at the bottom: whole width for full attention, a third for a window."""
    plan, width, height = config.layer_plan, 140, 132
    pitch = height / len(plan)
    for layer, kind in enumerate(plan):
        full = kind == FULL
        long = width if full else width / 3
        y = centre[1] + height / 2 - (layer + 1) * pitch
        drawing.rect(centre[0] - long / 2, y, long, pitch * 0.62, NAVY if full else SKY, radius=pitch * 0.3)


def expert_mark(drawing: Drawing, centre: Point, config: object) -> None:
    """One dot an expert; in gold, spread over the grid, as many as answer a token."""
    columns = 16
    rows = config.num_experts // columns
    stride = config.num_experts // config.num_experts_per_tok
    for expert in range(config.num_experts):
        row, column = divmod(expert, columns)
        chosen = expert % stride == (5 * (expert // stride) + 7) % stride
        x, y = centre[0] + (column - (columns - 1) / 2) * 11.2, centre[1] + (row - (rows - 1) / 2) * 14
        drawing.circle(x, y, 5.6 if chosen else 3.4, GOLD if chosen else NAVY, NAVY if chosen else None, 1.5)


LAYERS, EXPERTS = "{full} of {layers} layers see the whole text", "{active} of {experts} experts answer a token"
DOCKS = (
    Dock("llama3", 225, "Llama", layer_mark, LAYERS),
    Dock("qwen3_moe", 315, "Qwen", expert_mark, EXPERTS),
    Dock("gemma3", 135, "Gemma", layer_mark, LAYERS),
    Dock("olmo3", 45, "Olmo", layer_mark, LAYERS),
)


@figure
def portable_shell(drawing: Drawing) -> None:
    """One shell, four adapters, four families."""
    _orbits(drawing)
    for dock in DOCKS:
        _adapter(drawing, dock)
    _shell(drawing)
    for dock in DOCKS:
        _disc(drawing, dock)
    _label_of_adapters(drawing)
    computed(drawing, "configs of the smallest sizes, weight maps")


def _orbits(drawing: Drawing) -> None:
    """Faint rings that carry the eye from the words to the shell."""
    for place, radius in enumerate(ORBITS):
        drawing.circle(*CENTRE, radius, "none", HAIRLINE, 1.5, opacity=1 - place * 0.17)


def _shadow(drawing: Drawing, centre: Point, radius: float) -> None:
    for spread in (22, 15, 8):
        drawing.circle(centre[0], centre[1] + 10, radius + spread, NAVY, opacity=0.022)


def _shell(drawing: Drawing) -> None:
    x, y = CENTRE
    _shadow(drawing, CENTRE, SHELL)
    drawing.circle(x, y, SHELL, WHITE, HAIRLINE, 1.5)
    drawing.circle(x, y, (SHELL + CORE) / 2, "none", NAVY_TINT, SHELL - CORE - 8)
    drawing.circle(x, y, CORE, NAVY)
    for dock in DOCKS:
        drawing.polygon([dock.at(*corner) for corner in _block(CORE + 2, SHELL + 6, 34)], NAVY)
    drawing.text(x, y - 66, "ONE SHELL", 20, 700, GOLD, "middle", spacing=2.4)
    for place, word in enumerate(SHARED):
        drawing.text(x, y - 18 + place * 46, word, 31, 600, WHITE, "middle")
        if place:
            drawing.line(x - 34, y - 47 + place * 46, x + 34, y - 47 + place * 46, SKY, 1.5)


def _adapter(drawing: Drawing, dock: Dock) -> None:
    """A plug between shell and disc; one bar on it for each row of the weight map."""
    start, end, half = SHELL + 16, REACH - DISC + 6, 36
    for prong in (-16, 16):
        drawing.polygon([dock.at(d, a + prong) for d, a in _block(SHELL, start + 2, 6)], NAVY)
    drawing.polygon([dock.at(*corner) for corner in _block(start, end, half)], GOLD, NAVY, 3)
    room = end - start - 26
    for row in range(dock.rows):
        distance = start + 11 + room * row / (dock.rows - 1)
        drawing.line(*dock.at(distance, -half + 10), *dock.at(distance, half - 10), NAVY, 2.6)


def _block(near: float, far: float, half: float) -> list[Point]:
    return [(near, -half), (far, -half), (far, half), (near, half)]


def _disc(drawing: Drawing, dock: Dock) -> None:
    x, y = centre = dock.at(REACH)
    _shadow(drawing, centre, DISC)
    drawing.circle(x, y, DISC, WHITE, NAVY, 3)
    drawing.circle(x, y, DISC - 11, "none", HAIRLINE, 1.5)
    dock.mark(drawing, centre, dock.config)
    above = y < CENTRE[1]
    baseline = y - DISC - 46 if above else y + DISC + 42
    drawing.text(x, baseline, dock.name, 38, 600, NAVY, "middle", SERIF)
    drawing.text(x, baseline + 31, _words(dock), 22, 400, CHARCOAL, "middle")


def _words(dock: Dock) -> str:
    config = dock.config
    return dock.words.format(
        layers=len(config.layer_plan),
        full=config.layer_plan.count(FULL),
        experts=getattr(config, "num_experts", None),
        active=getattr(config, "num_experts_per_tok", None),
    )


def _label_of_adapters(drawing: Drawing) -> None:
    """What the plugs are, and what a bar on them is; a fine line leads from the words to the plugs of their side."""
    rows = sorted({dock.rows for dock in DOCKS})
    words = {-1: ("adapters", "load the weights"), 1: (f"{rows[0]} to {rows[-1]} rules", "one bar for each")}
    for side, (first, second) in words.items():
        x, y = CENTRE[0] + side * LABEL, CENTRE[1]
        for dock in DOCKS:
            tip = dock.at((SHELL + REACH - DISC) / 2 + 6)
            if (tip[0] - CENTRE[0]) * side > 0:
                up = 1 if tip[1] > y else -1
                drawing.path(
                    f"M{x:.1f} {y + 42 * up:.1f} Q{x:.1f} {tip[1] - 8 * up:.1f} {tip[0] + side * 46:.1f} {tip[1]:.1f}",
                    stroke=GOLD, line=2.5,
                )  # fmt: skip
        drawing.text(x, y - 5, first, 25, 650, GOLD_INK, "middle")
        drawing.text(x, y + 25, second, 22, 400, CHARCOAL, "middle")
