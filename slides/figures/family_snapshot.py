"""Slide 9: three families by size. The smallest and the largest of each kind: its plan of layers, its key/value heads,
and on a common scale what its weights need and what they need with a cache of 32,768 tokens.

A scale and no cards, because the slide's question is one of size: does it fit, and what does a long text add? The
scale is logarithmic (sizes span a factor of 900), so weights and total are two dots and the cache is the way
between them. The plan of layers stands beside it because it explains that way: layers that keep a window only
hardly lengthen it. Sizes between the smallest and the largest are left out: they lie between.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from course_helpers import FAMILIES
from course_helpers.architectures.config import ModelConfig
from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    SKY,
    WHITE,
)
from course_helpers.planner import parts_of
from course_helpers.planning.costs import Anatomy
from course_helpers.planning.machines import GB, MACHINES
from course_helpers.sizes import kv_cache_bytes

from ..fonts import text_width
from . import figure
from .axes import Axes
from .numbers import computed
from .svg import Drawing

TOKENS = 32_768
BYTES = 2  # of a number in bfloat16
#: Shown name, notebook folder, and the registry's names: a mixture of experts is a family of its own there.
GROUPS = (
    ("Qwen3", "ch05/11_qwen3", ("qwen3", "qwen3_moe")),
    ("Gemma 3", "ch05/12_gemma3", ("gemma3",)),
    ("Olmo 3", "ch05/13_olmo3", ("olmo3",)),
)
#: machine -> its name above its line, which stands at the memory that a program gets: few, so that lines stand apart
CEILINGS = {"laptop-8GB": ("laptop", "8 GB"), "L4": ("L4", "24 GB"), "A100-80GB": ("A100", "80 GB")}
SHORT = {"google/gemma-3-1b-pt": "1B", "google/gemma-3-4b-pt": "4B", "google/gemma-3-270m": "270M"}

TOP, PITCH, GAP = 92, 55, 12
BAND, INSET, NAME, STRIP, HEADS, CHART, RIGHT = 26, 42, 238, 376, 606, 640, 1070
STRIP_WIDTH, STRIP_HEIGHT = 196, 28
DOT, ROOM = 10, 72  # radius of a dot, and what the last one leaves for its number


@dataclass(frozen=True, eq=False)
class Row:
    """One released size. Bytes are those of bfloat16."""

    family: str
    size: str
    config: ModelConfig
    parameters: int
    active: int  # at work on one token
    weights: int
    cache: int  # of TOKENS positions

    @property
    def total(self) -> int:
        return self.weights + self.cache


@cache
def rows(family: str) -> list[Row]:
    """The family's sizes, the smallest first; of versions that differ in training alone, the first."""
    found: dict[int, Row] = {}
    for hub_id, config in FAMILIES[family].presets.items():
        parts = parts_of(family, hub_id)
        row = Row(
            family, size_of(hub_id), config, parts.parameters, active(parts), parts.parameters * BYTES,
            kv_cache_bytes(config, TOKENS),
        )  # fmt: skip
        found.setdefault(row.parameters, row)
    return list(found.values())


def size_of(hub_id: str) -> str:
    """`Qwen/Qwen3-30B-A3B`: 30B-A3B."""
    return SHORT.get(hub_id) or "-".join(part for part in hub_id.split("-")[1:] if part[-1] == "B")


def active(parts: Anatomy) -> int:
    """Parameters at work on one token: of each layer's experts only those that the router picks."""
    idle = sum(mixture.parameters * (1 - mixture.used / mixture.experts) for mixture in parts.mixtures)
    return round(parts.parameters - idle)


def ends(family: str) -> list[Row]:
    """The smallest and the largest size."""
    found = rows(family)
    return [found[0], found[-1]]


@figure
def family_snapshot(drawing: Drawing) -> None:
    groups = [[row for family in families for row in ends(family)] for _, _, families in GROUPS]
    bottom = TOP + PITCH * sum(map(len, groups)) + GAP * (len(groups) - 1)
    chart = Axes(drawing, CHART, TOP, RIGHT - ROOM - CHART, bottom - TOP, (0.42, 520), (0, 1), log_across=True)
    y = TOP
    for (title, folder, families), found in zip(GROUPS, groups, strict=True):
        height = PITCH * len(found)
        drawing.rect(BAND, y, RIGHT - BAND, height, "none", HAIRLINE, 12, 1.5)
        drawing.rect(BAND + 1, y + 1, RIGHT - BAND - 2, PITCH - 2, GOLD_TINT, radius=11)
        drawing.text(INSET, y + 38, title, 26, 700, NAVY)
        drawing.text(INSET, y + 71, folder, 17, 400, CHARCOAL)
        drawing.text(INSET, y + 95, f"{FAMILIES[families[0]].tiny}", 17, 600, MUTED)
        y += height + GAP
    _heads(drawing, chart)
    y = TOP
    for found in groups:
        for place, row in enumerate(found):
            _row(drawing, chart, y + PITCH * (place + 0.5), row, begin=place == 0)
        y += PITCH * len(found) + GAP
    _mixtures(drawing)
    _legend(drawing, bottom + 31)
    _markers(drawing, chart, groups)
    computed(drawing, f"presets, kv_cache_bytes at {TOKENS:,} tokens, planning.MACHINES")


def _heads(drawing: Drawing, chart: Axes) -> None:
    """Column heads, and the ceilings of machines as lines down the chart."""
    drawing.text(NAME, 74, "size", 19, 600, NAVY)
    drawing.text(STRIP, 74, "plan of layers", 19, 600, NAVY)
    drawing.text(HEADS, 52, "K/V", 19, 600, NAVY, "middle")
    drawing.text(HEADS, 74, "heads", 19, 600, NAVY, "middle")
    drawing.text(CHART + 56, 38, f"GB for one text of {TOKENS:,} tokens", 19, 650, NAVY)
    for name, (label, memory) in CEILINGS.items():
        x = chart.x(MACHINES[name].memory / GB)
        drawing.line(x, TOP - 2, x, chart.bottom, SKY, 2, dash="3 6")
        drawing.text(x, 64, label, 16, 400, MUTED, "middle")
        drawing.text(x, 83, memory, 17, 650, CHARCOAL, "middle")


def _mixtures(drawing: Drawing) -> None:
    """Which of the first family's rows are mixtures of experts."""
    dense = ends(GROUPS[0][2][0])
    first = TOP + PITCH * len(dense)
    drawing.line(INSET, first, RIGHT - 16, first, HAIRLINE, 1.5, dash="4 5")
    drawing.text(INSET, first + PITCH - 8, "mixture", 19, 600, NAVY)
    drawing.text(INSET, first + PITCH + 17, "of experts", 19, 600, NAVY)


def _row(drawing: Drawing, chart: Axes, y: float, row: Row, begin: bool) -> None:
    sparse = row.active < row.parameters
    drawing.text(NAME, y + (-1 if sparse else 8), row.size, 23, 700 if begin else 500, NAVY)
    if sparse:
        drawing.text(NAME, y + 20, f"{billions(row.active)} at work", 16, 400, CHARCOAL)
    for x, width, full in cells(row.config):
        height = STRIP_HEIGHT if full else STRIP_HEIGHT * 0.42
        drawing.rect(x, y + STRIP_HEIGHT / 2 - height, width, height, NAVY if full else SKY, radius=0.8)
    drawing.text(HEADS, y + 7, str(row.config.num_key_value_heads), 21, 600, NAVY, "middle")
    weights, total = (chart.x(size / GB) for size in (row.weights, row.total))
    fits = row.total <= max(MACHINES[name].memory for name in CEILINGS)
    ink = NAVY if fits else ALARM
    drawing.line(weights, y, total, y, GOLD, 12)
    drawing.circle(weights, y, DOT - 1.5, WHITE, ink, 3)
    drawing.circle(total, y, DOT, ink, WHITE, 1.5)
    label, left = gigabytes(row.total), total + DOT + 8
    drawing.rect(left - 4, y - 14, text_width(label, 20, weight=650) + 8, 28, GOLD_TINT if begin else WHITE, radius=4)
    drawing.text(left, y + 7, label, 20, 650, ink)
    if begin:
        drawing.text(RIGHT - 14, y + 7, f"cache +{100 * row.cache / row.weights:.0f} %", 19, 700, GOLD_INK, "end")


def cells(config: ModelConfig) -> Iterator[tuple[float, float, bool]]:
    """x, width and whether it sees everything, for each layer of the plan, over the strip's whole width."""
    step = STRIP_WIDTH / len(config.layer_plan)
    for place, kind in enumerate(config.layer_plan):
        yield STRIP + place * step, step * 0.68, config.window(kind) is None


def _legend(drawing: Drawing, y: float) -> None:
    """What the rows' tint, the cells and the dots are, each below its column."""
    drawing.rect(INSET, y - 15, 26, 18, GOLD_TINT, GOLD, 4, 1.5)
    drawing.text(INSET + 36, y, "begin here", 17, 600, GOLD_INK)
    drawing.rect(STRIP, y - 16, 6, 18, NAVY, radius=1)
    drawing.text(STRIP + 14, y, "sees all", 17, 400, CHARCOAL)
    drawing.rect(STRIP + 96, y - 6, 6, 8, SKY, radius=1)
    drawing.text(STRIP + 110, y, "sees a window", 17, 400, CHARCOAL)
    drawing.circle(CHART + 66, y - 6, DOT - 1.5, WHITE, NAVY, 3)
    drawing.text(CHART + 84, y, "weights, bfloat16", 17, 400, CHARCOAL)
    drawing.line(CHART + 250, y - 6, CHART + 282, y - 6, GOLD, 12)
    drawing.circle(CHART + 287, y - 6, DOT, NAVY, WHITE, 1.5)
    drawing.text(CHART + 306, y, "plus cache", 17, 400, CHARCOAL)


def _markers(drawing: Drawing, chart: Axes, groups: list[list[Row]]) -> None:
    """Each annotation at the thing it speaks of."""
    middles, y = {}, TOP + PITCH / 2
    for found in groups:
        for row in found:
            middles[row] = y
            y += PITCH
        y += GAP
    (qwen, _, mixture, largest), (gemma, _), (olmo, _) = groups
    column = NAME - 30
    for number, x, place in (
        (5, column, middles[qwen]), (7, column, middles[qwen] + 40), (1, column, middles[mixture] + PITCH / 2),
        (2, column, middles[gemma] + PITCH / 2), (3, column, middles[olmo] + PITCH / 2),
        (9, NAME + 92, middles[gemma]), (12, NAME + 92, middles[qwen]),
        (4, STRIP + 154, 68), (10, CHART + 32, 32), (6, CHART + 384, 32), (11, chart.x(240), 74),
        (8, chart.x(largest.weights / GB) - 36, middles[largest]),
    ):  # fmt: skip
        drawing.marker(x, place, number)


def billions(number: float) -> str:
    return f"{number / 1e9:.1f} B" if number >= 0.9995e9 else f"{number / 1e6:.0f} M"


def gigabytes(size: float) -> str:
    return f"{size / GB:.1f}" if size < 100 * GB else f"{size / GB:.0f}"
