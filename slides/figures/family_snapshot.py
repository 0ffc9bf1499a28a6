"""Slide 9: three families as numbers. One row a released size: its plan of layers, its key/value heads, the parameters
at work on one token, and on a common scale what its weights need and what they need with a cache of 32,768 tokens.

A scale and no cards, because the slide's question is one of size: does it fit, and what does a long text add? The
scale is logarithmic (sizes span a factor of 900), so weights and total are two dots and the cache is the way
between them. The plan of layers stands beside it because it explains that way: layers that keep a window only
hardly lengthen it.
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
CEILINGS = {"laptop-8GB": "8", "laptop-16GB": "16", "L4": "24", "A100-40GB": "40", "A100-80GB": "80"}
SHORT = {"google/gemma-3-1b-pt": "1B", "google/gemma-3-4b-pt": "4B", "google/gemma-3-270m": "270M"}

TOP, PITCH, GAP = 84, 35, 11
BAND, NAME, WORK, STRIP, HEADS, CHART, RIGHT = 26, 202, 386, 408, 588, 622, 1060
STRIP_WIDTH, STRIP_HEIGHT = 140, 18


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


@figure
def family_snapshot(drawing: Drawing) -> None:
    groups = [[row for family in families for row in rows(family)] for _, _, families in GROUPS]
    bottom = TOP + PITCH * sum(map(len, groups)) + GAP * (len(groups) - 1)
    chart = Axes(drawing, CHART, TOP, RIGHT - CHART, bottom - TOP, (0.45, 1000), (0, 1), log_across=True)
    _heads(drawing, chart)
    y = TOP
    for (title, folder, families), found in zip(GROUPS, groups, strict=True):
        height = PITCH * len(found)
        drawing.rect(BAND, y, RIGHT - BAND + 10, height, "none", HAIRLINE, 10, 1.5)
        _band(drawing, y, title, folder, FAMILIES[families[0]].tiny)
        for place, row in enumerate(found):
            _row(drawing, chart, y + PITCH * (place + 0.5), row, begin=place == 0)
        y += height + GAP
    _mixtures(drawing)
    _legend(drawing, bottom + 27)
    _markers(drawing, chart, groups)
    computed(drawing, f"presets, kv_cache_bytes at {TOKENS:,} tokens, planning.MACHINES")


def _heads(drawing: Drawing, chart: Axes) -> None:
    """Column heads, and the ceilings of machines as lines down the chart."""
    for x, anchor, text, below in (
        (NAME, "start", "size", ""),
        (WORK, "end", "parameters", "at work"),
        (STRIP, "start", "plan of layers", ""),
        (HEADS, "middle", "K/V", "heads"),
    ):
        drawing.text(x, 50 if below else 70, text, 17, 600, NAVY, anchor)
        if below:
            drawing.text(x, 70, below, 17, 600, NAVY, anchor)
    drawing.text(CHART + 36, 44, f"memory for one text of {TOKENS:,} tokens", 18, 650, NAVY)
    drawing.text(CHART + 4, 70, "machines, GB", 17, 400, MUTED)
    for name, label in CEILINGS.items():
        x = chart.x(MACHINES[name].memory / GB)
        drawing.line(x, TOP - 6, x, chart.bottom, SKY, 1.5, dash="2 5")
        drawing.text(x, 70, label, 17, 650, CHARCOAL, "middle")


def _band(drawing: Drawing, y: float, title: str, folder: str, tiny: str | None) -> None:
    drawing.text(BAND + 16, y + 28, title, 23, 700, NAVY)
    drawing.text(BAND + 16, y + 47, folder, 16, 400, MUTED)
    drawing.text(BAND + 16, y + 64, f"{tiny}", 16, 600, GOLD_INK)


def _mixtures(drawing: Drawing) -> None:
    """Which of the first family's rows are mixtures of experts."""
    dense, mixtures = (rows(name) for name in GROUPS[0][2])
    first = TOP + PITCH * len(dense)
    drawing.line(BAND + 16, first, RIGHT, first, HAIRLINE, 1.5, dash="4 5")
    drawing.text(BAND + 16, first - 12, "dense", 17, 600, MUTED)
    drawing.text(BAND + 16, first + PITCH * len(mixtures) / 2 + 6, "mixture", 17, 600, MUTED)
    drawing.text(BAND + 16, first + PITCH * len(mixtures) / 2 + 26, "of experts", 17, 600, MUTED)


def _row(drawing: Drawing, chart: Axes, y: float, row: Row, begin: bool) -> None:
    sparse = row.active < row.parameters
    drawing.text(NAME, y + 7, row.size, 20, 650 if begin else 500, NAVY)
    drawing.text(WORK, y + 6, billions(row.active), 17, 650 if sparse else 400, GOLD_INK if sparse else CHARCOAL, "end")
    for x, width, full in cells(row.config):
        height = STRIP_HEIGHT if full else STRIP_HEIGHT * 0.45
        drawing.rect(x, y + STRIP_HEIGHT / 2 - height, width, height, NAVY if full else GOLD, radius=0.8)
    drawing.text(HEADS, y + 6, str(row.config.num_key_value_heads), 17, 500, CHARCOAL, "middle")
    weights, total = (chart.x(size / GB) for size in (row.weights, row.total))
    fits = row.total <= max(MACHINES[name].memory for name in CEILINGS)
    if begin:
        drawing.rect(weights - 15, y - 14, total - weights + 30, 28, GOLD_TINT, GOLD, 14, 2)
    drawing.line(weights, y, total, y, NAVY if fits else ALARM, 5)
    drawing.circle(weights, y, 6.5, WHITE, NAVY if fits else ALARM, 3)
    drawing.circle(total, y, 7.5, NAVY if fits else ALARM, WHITE, 1.5)
    label, left = gigabytes(row.total), total + (22 if begin else 14)
    drawing.rect(left - 4, y - 12, text_width(label, 17, weight=650) + 8, 24, WHITE, radius=4)
    drawing.text(left, y + 6, label, 17, 650, NAVY if fits else ALARM)
    if begin:
        drawing.text(RIGHT, y + 6, f"cache +{100 * row.cache / row.weights:.0f} %", 17, 600, GOLD_INK, "end")


def cells(config: ModelConfig) -> Iterator[tuple[float, float, bool]]:
    """x, width and whether it sees everything, for each layer of the plan, over the strip's whole width."""
    step = STRIP_WIDTH / len(config.layer_plan)
    for place, kind in enumerate(config.layer_plan):
        yield STRIP + place * step, step * 0.72, config.window(kind) is None


def _legend(drawing: Drawing, y: float) -> None:
    drawing.rect(STRIP, y - 15, 5, 18, NAVY, radius=1)
    drawing.text(STRIP + 12, y, "sees all", 16, 400, MUTED)
    drawing.rect(STRIP + 88, y - 8, 5, 8, GOLD, radius=1)
    drawing.text(STRIP + 100, y, "a window only", 16, 400, MUTED)
    drawing.circle(CHART + 30, y - 5, 6.5, WHITE, NAVY, 3)
    drawing.text(CHART + 44, y, "weights, bfloat16", 16, 400, MUTED)
    drawing.line(CHART + 194, y - 5, CHART + 222, y - 5, NAVY, 5)
    drawing.circle(CHART + 225, y - 5, 7.5, NAVY)
    drawing.text(CHART + 240, y, "with the text's cache, GB", 16, 400, MUTED)


def _markers(drawing: Drawing, chart: Axes, groups: list[list[Row]]) -> None:
    """Each annotation at the thing it speaks of."""
    middles, y = {}, TOP + PITCH / 2
    for found in groups:
        for row in found:
            middles[row] = y
            y += PITCH
        y += GAP
    (qwen, *_, mixture, largest), (smallest, *_, gemma), (olmo, *_) = groups
    band = BAND + 150
    for number, x, place in (
        (1, band, middles[mixture] + PITCH / 2), (3, band, middles[olmo] + 1), (5, band, middles[qwen] + 46),
        (7, band, middles[smallest] + 1), (4, STRIP + 16, 36), (6, CHART + 390, 38),
        (10, CHART + 16, 38), (11, RIGHT - 6, 64),
        (2, chart.x(gemma.total / GB) + 76, middles[gemma]), (8, chart.x(largest.weights / GB) - 30, middles[largest]),
        (9, chart.x(smallest.total / GB) + 86, middles[smallest]), (12, chart.x(qwen.total / GB) + 86, middles[qwen]),
    ):  # fmt: skip
        drawing.marker(x, place, number)


def billions(number: float) -> str:
    return f"{number / 1e9:.1f} B" if number >= 0.9995e9 else f"{number / 1e6:.0f} M"


def gigabytes(size: float) -> str:
    return f"{size / GB:.1f}" if size < 100 * GB else f"{size / GB:.0f}"
