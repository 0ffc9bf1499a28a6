"""Slide 23: what the chapter-5 loop measured for three families at equal settings, and what held the comparison
together.

A chart, because the lab's result is one: held-out loss against tokens seen, a thin line a seed and a thick one for
their mean, so that the spread is seen before the difference. At the right a magnified strip of where the runs end,
one mark a seed: the gap that is a finding and the one that asks for more seeds lie on one ruler. Below, the bridge
itself: what was carried over unchanged is the deck between the two banks, and only what stands on the banks
differs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from course_helpers.labs.lab_07 import Spread
from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    MUTED,
    NAVY,
    NAVY_TINT,
    SKY,
    SKY_INK,
    SLATE,
    SOUND,
    WHITE,
)

from . import figure
from .axes import Axes
from .numbers import measured
from .svg import Drawing

#: Line, ink of its label, dashes.
STYLES = {"GPT-2": (GOLD, GOLD_INK, None), "Llama 3": (NAVY, NAVY, None), "Qwen3": (SKY, SKY_INK, "14 6")}
CHART = (76, 92, 520, 352)  # x, y, width, height
STRIP = (824, 112, 340)
PANEL = 640
#: Of two families that end at almost the same place: the side of the ruler, and how far the name is moved up or down.
ASIDE = {"Qwen3": (-16, -8), "Llama 3": (16, 10)}
HIGHEST = 7.5
BRIDGE_TOP, BANK, LEFT = 536, 180, 28

Looks = Sequence[tuple[int, float]]


@figure
def bridge_curves(drawing: Drawing) -> None:
    found = measured(drawing, "M9-LAB-07")
    ends = {name: Spread([looks[-1][1] for looks in runs]) for name, runs in found["curves"].items()}
    _curves(drawing, found)
    _ends(drawing, ends)
    _bridge(drawing, found)


def mean_curve(runs: Sequence[Looks], tokens_a_step: int) -> list[tuple[float, float]]:
    """(tokens seen, mean loss of all seeds) at each look."""
    return [
        (looks[0][0] * tokens_a_step, sum(loss for _, loss in looks) / len(looks)) for looks in zip(*runs, strict=True)
    ]


def _curves(drawing: Drawing, found: Mapping[str, Any]) -> None:
    tokens, curves = found["tokens a step"], found["curves"]
    most = found["settings"]["steps"] * tokens
    chart = Axes(drawing, *CHART, across=(0, most), up=(1.5, HIGHEST))
    drawing.text(CHART[0] - 42, 46, "Held-out loss", 22, 650, NAVY)
    drawing.text(CHART[0] + 114, 46, "nats per token, against tokens seen", 18, 400, MUTED)
    chart.grid(range(2, int(HIGHEST) + 1))
    chart.base()
    chart.ticks(range(0, most + 1, 20_000), "{:,}")
    for name, runs in curves.items():
        stroke, _, dash = STYLES[name]
        for looks in runs:
            points = [(chart.x(step * tokens), chart.y(loss)) for step, loss in looks]
            drawing.polyline(points, stroke, 2, dash, opacity=0.45)
        mean = mean_curve(runs, tokens)
        chart.curve(mean, stroke, 5.5, dash)
        for at, loss in mean[1:]:
            drawing.circle(chart.x(at), chart.y(loss), 7, stroke, WHITE, 2)
    start = max(loss for runs in curves.values() for (_, loss), *_ in runs)
    drawing.text(chart.x(2500), chart.y(start) + 3, f"random weights: all begin near {start:.1f}", 18, 400, MUTED)
    _names(drawing, chart, {name: mean_curve(runs, tokens) for name, runs in curves.items()})


def _names(drawing: Drawing, chart: Axes, means: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """The names: the higher curve's beside it; those of the two that all but coincide in the free corner below."""
    tokens, loss = means["GPT-2"][1]
    drawing.text(chart.x(tokens) + 16, chart.y(loss) - 16, "GPT-2", 22, 700, STYLES["GPT-2"][1])
    for place, name in enumerate(("Qwen3", "Llama 3")):
        stroke, ink, dash = STYLES[name]
        y = chart.y(2.75) + 34 * place
        drawing.line(chart.x(1500), y, chart.x(8500), y, stroke, 5.5, dash)
        drawing.text(chart.x(9800), y + 7, name, 22, 700, ink)


def _ends(drawing: Drawing, ends: Mapping[str, Spread]) -> None:
    """Where the runs end, magnified: one mark a seed, and the empty space between the groups."""
    x, y, height = STRIP
    drawing.rect(PANEL, 24, drawing.width - LEFT - PANEL, 466, NAVY_TINT, None, 14)
    drawing.text(PANEL + 24, 58, "Where they end", 22, 650, NAVY)
    drawing.text(PANEL + 24, 84, "one mark a seed, magnified", 18, 400, MUTED)
    low, high = (limit(value for end in ends.values() for value in end.losses) for limit in (min, max))
    ruler = Axes(drawing, x - 20, y, 40, height, (0, 1), (low - 0.08, high + 0.08))
    drawing.line(x, ruler.top, x, ruler.bottom, SLATE, 3)
    for name, end in ends.items():
        stroke, ink, _ = STYLES[name]
        edges = ruler.y(max(end.losses)), ruler.y(min(end.losses))
        aside, moved = ASIDE.get(name, (0, 0))
        x = STRIP[0] + aside
        drawing.rect(x - 13, edges[0] - 13, 26, edges[1] - edges[0] + 26, WHITE, stroke, 13, 3)
        for loss in end.losses:
            drawing.circle(x, ruler.y(loss), 7, stroke, WHITE, 1.5)
        baseline = sum(edges) / 2 + 7 + moved
        drawing.text(STRIP[0] - 40, baseline, f"{name}  {end.mean:.2f}", 20, 700, ink, "end")
    _gaps(drawing, ruler, ends)


def _gaps(drawing: Drawing, ruler: Axes, ends: Mapping[str, Spread]) -> None:
    """The spread of the worst group, the clear gap, and the one that is hardly wider than its neighbours' spread."""
    last, middle, first = sorted(ends, key=lambda name: -ends[name].mean)
    x = ruler.right + 22
    _bracket(drawing, x, ruler.y(max(ends[last].losses)), ruler.y(min(ends[last].losses)), GOLD_INK)
    edge = ruler.y(sum((max(ends[last].losses), min(ends[last].losses))) / 2)
    drawing.text(x + 26, edge - 4, f"{ends[last].width:.2f} spread", 20, 700, GOLD_INK)
    drawing.text(x + 26, edge + 20, "by the seed alone", 18, 400, CHARCOAL)
    gap, _ = ends[middle].gaps_to(ends[last])
    top, bottom = ruler.y(min(ends[last].losses)), ruler.y(max(ends[middle].losses))
    _bracket(drawing, x, top + 17, bottom - 17, SOUND)
    y = (top + bottom) / 2
    drawing.tick(x + 36, y - 10, 17, SOUND)
    drawing.text(x + 54, y - 4, f"{gap:.2f} apart", 20, 700, SOUND)
    drawing.text(x + 26, y + 20, "that is a finding", 18, 400, CHARCOAL)
    close, _ = ends[first].gaps_to(ends[middle])
    y = ruler.y(min(ends[middle].losses))
    drawing.text(x + 36, y + 1, "?", 24, 700, ALARM, "middle")
    drawing.text(x + 54, y, f"{close:.2f} apart", 20, 700, ALARM)
    drawing.text(x + 26, y + 24, "run more seeds", 18, 400, CHARCOAL)


def _bracket(drawing: Drawing, x: float, top: float, bottom: float, stroke: str) -> None:
    drawing.polyline(((x, top), (x + 10, top), (x + 10, bottom), (x, bottom)), stroke, 2.5)


def planks(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was carried over unchanged: the figure and what it is of."""
    settings = found["settings"]
    seeds = {len(runs) for runs in found["curves"].values()}
    return [
        ("same", "text, tokens"),
        (f"{settings['batch']} × {settings['context']}", "tokens a step"),
        (f"{settings['steps']}", "AdamW steps"),
        (f"{settings['learning_rate']:g}", "peak rate"),
        (f"{seeds.pop()} seeds", "held-out tenth"),
    ]


def _bridge(drawing: Drawing, found: Mapping[str, Any]) -> None:
    """Two banks with what differs, and between them a deck of what does not."""
    start, end, deck = LEFT + BANK, drawing.width - LEFT - BANK, BRIDGE_TOP + 14
    parameters = found["parameters"]
    others = [name for name in parameters if name != "GPT-2"]
    middle = (start + end) / 2
    _bank(drawing, LEFT, "Chapter 5", [f"GPT-2 · {parameters['GPT-2']:,}"], GOLD)
    _bank(drawing, end, "Other LLMs", [f"{name} · {parameters[name]:,}" for name in others], NAVY)
    cells = planks(found)
    step = (end - start) / len(cells)
    _arches(drawing, [start + place * step for place in range(len(cells) + 1)], deck + 62, BRIDGE_TOP + 106)
    for place, (number, what) in enumerate(cells):
        x = start + (place + 0.5) * step
        drawing.rect(x - step / 2 + 3, deck, step - 6, 62, GOLD_TINT, GOLD, 6, 2)
        drawing.text(x, deck + 27, number, 20, 700, NAVY, "middle")
        drawing.text(x, deck + 49, what, 17, 500, CHARCOAL, "middle", fit=step - 8)
    drawing.text(middle, BRIDGE_TOP - 6, "the bridge: carried over unchanged", 18, 650, NAVY, "middle")


def _arches(drawing: Drawing, piers: Sequence[float], road: float, foot: float) -> None:
    """The masonry that carries the deck: an arch below each plank, on narrow piers."""
    half = 7  # of a pier's width
    d = f"M{piers[0]} {road} H{piers[-1]} V{foot}"
    for right, left in zip(piers[:0:-1], piers[-2::-1], strict=True):
        span, rise = (right - left) / 2 - half, foot - road - 7
        d += f" H{right - half:.1f} A{span:.1f} {rise} 0 0 0 {left + half:.1f} {foot}"
    drawing.path(f"{d} H{piers[0]} Z", NAVY_TINT, SLATE, 2)


def _bank(drawing: Drawing, x: float, title: str, lines: Sequence[str], edge: str) -> None:
    drawing.rect(x, BRIDGE_TOP, BANK, 106, WHITE, edge, 10, 3)
    middle = x + BANK / 2
    drawing.text(middle, BRIDGE_TOP + 29, title, 20, 700, NAVY, "middle")
    for place, line in enumerate([*lines, "parameters"]):
        drawing.text(middle, BRIDGE_TOP + 52 + 21 * place, line, 17, 400, CHARCOAL, "middle", fit=BANK - 14)
