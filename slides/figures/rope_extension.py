"""Slide 18: from Llama 2 to 3.2, four configs and what their rotary positions do.

A table of the fields that change gives the order of work. The chart below shows the one change that no shape can show:
each pair's wavelength on a logarithmic axis, before and after, with the three bands of the scaling rule. At the side,
where in a text a wrong value shows: at the end of it, which is why a short test passes.
"""

import math

from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    NAVY_TINT,
    SKY,
    SKY_INK,
    SKY_TINT,
    SLATE,
    SOUND,
)

from . import figure
from .axes import Axes
from .numbers import measured
from .svg import Drawing

LEFT, RIGHT = 36, 1060
HEAD, ROW = 44, 29  # baseline of the table's head; distance of its rows
NAMES = LEFT + 8
COLUMNS = (408, 616, 824, 1032)  # right edges of the four releases' values
FIELDS = (
    ("rotary base", "rope_theta"),
    ("scaling of slow pairs", "factor"),
    ("context, in tokens", "max_position_embeddings"),
    ("key/value heads", "num_key_value_heads"),
    ("head tied to embedding", "tie_word_embeddings"),
)
TITLES = 278  # baseline of both charts' titles
STRIP = 32  # height of the bands' names above the chart
CHART = (98, 334, 536, 276)  # x, y, width, height
LOSSES = (772, 302, 196, 308)
BANDS = ((SKY_TINT, SKY_INK), (GOLD_TINT, GOLD_INK), (NAVY_TINT, NAVY))
#: A wrong rotation: its colour, ink and line; where its name stands (token, loss), and its name
LINES = {
    "base 10,000": (SLATE, MUTED, 4, 4, 1.72, "base\n10,000"),
    "scaling left out": (ALARM, ALARM, 5, 94, 2.15, "scaling\nleft out"),
    "factor 32": (SKY, SKY_INK, 9, 94, 0.09, "wrong: 32"),
    "right": (NAVY, NAVY, 3, 94, 0.33, "right: 8"),
}
TENS = ((10, "10"), (1000, "1,000"), (100_000, "100,000"), (10_000_000, "10 million"))


@figure
def rope_extension(drawing: Drawing) -> None:
    found = measured(drawing, "M9-LAB-03")
    releases(drawing, found["configs"], found["milestones"])
    waves = found["wavelengths_llama3.1_8b"]
    wavelengths(drawing, found["configs"], waves["before"], waves["after"])
    by_position(drawing, found["loss_by_position"])


def bands(before: list[float], after: list[float], factor: float) -> tuple[int, int, int]:
    """How many pairs are kept, blended and slowed by the whole factor."""
    kept = sum(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(after, before, strict=True))
    slowed = sum(math.isclose(a, b * factor, rel_tol=1e-4) for a, b in zip(after, before, strict=True))
    return kept, len(before) - kept - slowed, slowed


def plain_wavelengths(config: dict) -> list[float]:
    """Tokens that each pair of a head needs for a whole turn, without scaling."""
    size = config["head_dim"]
    return [2 * math.pi * config["rope_theta"] ** (2 * pair / size) for pair in range(size // 2)]


def shown(value: object) -> str:
    """A config's value in words."""
    return {None: "none", True: "yes", False: "no"}.get(value) or f"{value:,.0f}"


def releases(drawing: Drawing, configs: dict, milestones: dict) -> None:
    """The fields that change, one release a column; what differs from the column before stands on gold."""
    for place, (name, right) in enumerate(zip(configs, COLUMNS, strict=True)):
        drawing.text(right, HEAD, name, 20, 650, NAVY, "end")
        if milestones[name.rsplit(" ", 1)[0]]:
            drawing.tick(right - 9, HEAD + 3 + (len(FIELDS) + 1) * ROW, 18, SOUND)
        before = list(configs.values())[place - 1] if place else None
        for row, (_, field) in enumerate(FIELDS, 1):
            value, y = configs[name][field], HEAD + 8 + row * ROW
            words = f"factor {value:.0f}" if field == "factor" and value else shown(value)
            changed = before is not None and before[field] != value
            if changed:
                drawing.rect(right - 128, y - 21, 140, 27, GOLD_TINT, GOLD, 7, 1.5)
            drawing.text(right, y, words, 18, 650 if changed else 400, GOLD_INK if changed else CHARCOAL, "end")
    for row, (words, _) in enumerate(FIELDS, 1):
        drawing.text(NAMES, HEAD + 8 + row * ROW, words, 18, 400, MUTED)
    drawing.text(NAMES, HEAD + 8 + (len(FIELDS) + 1) * ROW, "milestone: logits and text are right", 18, 600, SOUND)
    drawing.line(LEFT, HEAD + 12, RIGHT, HEAD + 12, HAIRLINE, 1.5)


def wavelengths(drawing: Drawing, configs: dict, before: list[float], after: list[float]) -> None:
    """Tokens for a whole turn, pair by pair: Llama 2's, Llama 3's and, slowed, Llama 3.1's."""
    axes = Axes(drawing, *CHART, (0, len(before) - 1), (4, 40_000_000), log_up=True)
    drawing.text(LEFT, TITLES, "Tokens until a rotary pair has turned once", 20, 650, NAVY)
    llama_3, llama_31 = configs["Llama 3 8B"], configs["Llama 3.1 8B"]
    old, new = llama_3["max_position_embeddings"], llama_31["max_position_embeddings"]
    shade(axes, before, after, llama_31["factor"])
    for value, words in TENS:
        drawing.line(axes.left, axes.y(value), axes.right, axes.y(value), HAIRLINE, 1.2)
        drawing.text(axes.left - 10, axes.y(value) + 6, words.split()[0], 16, 400, MUTED, "end")
        if "million" in words:
            drawing.text(axes.left - 10, axes.y(value) + 25, "million", 16, 400, MUTED, "end")
    for limit, words in ((old, f"old context {old:,}"), (new, f"new context {new:,}")):
        drawing.line(axes.left, axes.y(limit), axes.right, axes.y(limit), SLATE, 2, "7 6")
        drawing.text(axes.left + 12, axes.y(limit) - 8, words, 17, 600, MUTED)
    axes.curve(enumerate(plain_wavelengths(configs["Llama 2 7B"])), SLATE, 3.5, "2 6")
    axes.curve(enumerate(after), GOLD, 8)
    axes.curve(enumerate(before), NAVY, 3.5)
    last = len(before) - 1
    spread(axes, last - 6, before, after, llama_31["factor"])
    drawing.text(axes.right + 8, axes.y(after[last]) + 8, "Llama 3.1", 18, 650, GOLD_INK)
    drawing.text(axes.right + 8, axes.y(before[last]) + 8, "Llama 3", 18, 650, NAVY)
    drawing.text(axes.right + 8, axes.y(plain_wavelengths(configs["Llama 2 7B"])[last]) + 8, "Llama 2", 18, 650, MUTED)
    axes.base()
    drawing.text(axes.left, axes.bottom + 26, "fast pair 0", 17, 400, MUTED)
    drawing.text(axes.right, axes.bottom + 26, f"slow pair {last}", 17, 400, MUTED, "end")


def shade(axes: Axes, before: list[float], after: list[float], factor: float) -> None:
    """The three bands of the rule as columns behind the curves, each with its number of pairs above."""
    kept, blended, slowed = bands(before, after, factor)
    starts = (0, kept - 0.5, kept + blended - 0.5)
    ends = (*starts[1:], kept + blended + slowed - 1)
    words = (f"{kept} pairs kept", f"{blended}", f"{slowed} pairs slowed")
    for text, start, end, (fill, ink) in zip(words, starts, ends, BANDS, strict=True):
        left, width = axes.x(start), axes.x(end) - axes.x(start)
        axes.drawing.rect(left, axes.top - STRIP, width, axes.height + STRIP, fill, None, 0)
        axes.drawing.text(left + width / 2, axes.top - 9, text, 18, 650, ink, "middle", fit=width)
    axes.drawing.text(axes.x(kept + blended / 2), axes.bottom - 30, "blend", 17, 600, GOLD_INK, "middle")


def spread(axes: Axes, pair: int, before: list[float], after: list[float], factor: float) -> None:
    """Between the two curves at one pair: how much slower it turns."""
    x, low, high = axes.x(pair), axes.y(before[pair]), axes.y(after[pair])
    axes.drawing.arrow((x, low - 3), (x, high + 6), stroke=GOLD_INK, line=2.5, head=9)
    axes.drawing.text(x - 10, high - 10, f"{factor:.0f} times slower", 18, 650, GOLD_INK, "end")


def by_position(drawing: Drawing, found: dict) -> None:
    """The loss of a trained model, stretch by stretch of its texts, with the right rotation and with wrong ones."""
    rows, stretch = found["rows"], found["stretch"]
    count, highest = len(rows["right"]), 3
    axes = Axes(drawing, *LOSSES, (0, count * stretch), (0, highest))
    drawing.text(LOSSES[0] - 30, TITLES, "Loss along a text (tiny-llama3)", 20, 650, NAVY)
    axes.grid(range(highest + 1), "{:.0f}")
    for name, (colour, ink, line, x, y, words) in LINES.items():
        points = [((place + 0.5) * stretch, loss) for place, loss in enumerate(rows[name])]
        axes.curve(points, colour, line)
        for part, text in enumerate(words.split("\n")):
            drawing.text(axes.x(x), axes.y(y) + 21 * part, text, 18, 650, ink)
    axes.base()
    drawing.text(axes.left, axes.bottom + 26, "first token", 17, 400, MUTED)
    drawing.text(axes.right, axes.bottom + 26, f"token {count * stretch}", 17, 400, MUTED, "end")
