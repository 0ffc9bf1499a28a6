"""The drawings of M9-LAB-02: what changes from GPT-2 to Llama 2, and how. Its charts are in `lab_02_charts.py`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, SOFT_GREY, arrow, box, canvas, rectangle, show
from .lab_02 import Stage

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

#: From the text upwards: GPT-2's part, Llama 2's, and the stages of the lab that lead from one to the other.
PARTS = (
    ("byte-level BPE tokenizer", "SentencePiece tokenizer", "", "another tokenizer"),
    ("token + position embedding", "token embedding", "6", "no learned positions"),
    ("LayerNorm", "RMSNorm", "1", "no mean, no bias"),
    (
        "attention, with biases",
        "attention, no biases,\nqueries and keys turned",
        "3 6",
        "no biases;\nrotary positions",
    ),
    ("LayerNorm", "RMSNorm", "1", "no mean, no bias"),
    (
        "feed-forward, with biases\n2 matrices, GELU, 4 x width",
        "feed-forward, no biases\n3 matrices, SiLU, 8/3 x width",
        "2 3 4 5",
        "bend, biases,\ngate, width",
    ),
    ("LayerNorm", "RMSNorm", "1", "no mean, no bias"),
    ("head: the token embedding", "head: a matrix of its own", "7", "untied"),
)
#: The lower edge and the height of each part, in inches.
ROWS = ((0.1, 0.34), (0.72, 0.34), (1.5, 0.32), (2.06, 0.5), (3.0, 0.32), (3.56, 0.5), (4.74, 0.32), (5.32, 0.34))


def two_models() -> "Image":
    """The opening picture: GPT-2 and Llama 2 side by side, from the text at the bottom to the scores at the top."""
    figure, ax = canvas(8.6, 6.1)
    for x, title in ((0.55, "GPT-2"), (5.35, "Llama 2")):
        ax.text(x + 1.35, 5.78, title, color=NAVY, fontsize=12, fontweight="bold", ha="center", va="bottom")
        ax.add_patch(frame(x - 0.4, 1.28, 3.4, 3.25))
        ax.text(x + 2.95, 4.3, "a block", color=SLATE, fontsize=8.5, ha="right", va="bottom", style="italic")
        stack(ax, x, title == "GPT-2")
    for (y, height), (_, _, numbers, change) in zip(ROWS, PARTS, strict=True):
        middle = y + height / 2
        badges = numbers.split()
        for index, number in enumerate(badges):
            badge(ax, 4.28 + 0.3 * (index - (len(badges) - 1) / 2), middle + (0.17 if "\n" in change else 0.1), number)
        below = middle - 0.02 if "\n" in change else middle - 0.07 if badges else middle + 0.04
        ax.text(4.28, below, change, color=CHARCOAL, fontsize=8, ha="center", va="top", linespacing=1.2)
    return show(
        figure,
        "GPT-2 and Llama 2 as two stacks of the same parts: tokenizer, embedding, a block of norm, attention, norm and "
        "feed-forward with two residual sums, a last norm and a head. Between them the numbered changes: 1 LayerNorm "
        "becomes RMSNorm, 2 GELU becomes SiLU, 3 the biases go, 4 the feed-forward gets a gate, 5 its width shrinks, 6 "
        "learned positions become rotary ones, 7 the head gets a matrix of its own.",
    )


def stack(ax: "Axes", x: float, old: bool) -> None:
    """One model's parts from the bottom up, with the two residual sums of a block."""
    centre = x + 1.35
    for (y, height), (gpt2, llama, numbers, _) in zip(ROWS, PARTS, strict=True):
        fill = SOFT_GREY if old or not numbers else GOLD
        box(ax, x, y, 2.7, height, gpt2 if old else llama, fill, fontsize=8.6, linespacing=1.2)
    for (low, height), (high, _) in pairwise(ROWS):
        ax.plot((centre, centre), (low + height, high), color=NAVY, linewidth=1.3, zorder=0)
    for bottom, top in ((1.4, 2.8), (2.9, 4.3)):
        ax.plot((centre, x - 0.2, x - 0.2, centre), (bottom, bottom, top, top), color=SLATE, linewidth=1.2, zorder=0)
        ax.plot(centre, top, "o", markersize=11, markerfacecolor=PEARL, markeredgecolor=NAVY, zorder=3)
        ax.text(centre, top, "+", color=NAVY, fontsize=10, ha="center", va="center_baseline", zorder=4)


def badge(ax: "Axes", x: float, y: float, text: str) -> None:
    """A stage's number in a gold circle."""
    ax.plot(x, y, "o", markersize=13, markerfacecolor=GOLD, markeredgecolor=NAVY, markeredgewidth=1)
    ax.text(
        x,
        y,
        text,
        color=CHARCOAL,
        fontsize=8.5 - 1.5 * (len(text) > 1),
        fontweight="bold",
        ha="center",
        va="center_baseline",
    )


def frame(x: float, y: float, width: float, height: float):
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.1"
    return FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor="none", edgecolor=SLATE, linestyle="--")


def two_feed_forwards(width: int, hidden: int) -> "Image":
    """GPT-2's feed-forward and the gated one, with their matrices."""
    figure, ax = canvas(8.6, 2.55)
    for x, title in ((0.1, "GPT-2: one way"), (3.4, "gated (SwiGLU): two ways, multiplied")):
        ax.text(x, 2.3, title, color=NAVY, fontsize=10.5, fontweight="bold", va="bottom")
    matrix = f"{width} x {hidden}"
    for x in (0.2, 3.5):
        ax.text(x, 1.4, "x", color=CHARCOAL, fontsize=11, va="center", ha="center")
    box(ax, 0.4, 1.1, 0.85, 0.6, f"up\n{matrix}", fontsize=8)
    box(ax, 1.45, 1.1, 0.6, 0.6, "GELU", GOLD, fontsize=8.5)
    box(ax, 2.25, 1.1, 0.85, 0.6, f"down\n{hidden} x {width}", fontsize=8)
    arrow(ax, (1.25, 1.4), (1.45, 1.4))
    arrow(ax, (2.05, 1.4), (2.25, 1.4))
    for y, name in ((1.6, "gate"), (0.5, "up")):
        arrow(ax, (3.6, 1.4), (3.95, y + 0.3))
        box(ax, 3.95, y, 0.95, 0.6, f"{name}\n{matrix}", NAVY if name == "gate" else SOFT_GREY, fontsize=8)
    box(ax, 5.15, 1.6, 0.6, 0.6, "SiLU", GOLD, fontsize=8.5)
    arrow(ax, (4.9, 1.9), (5.15, 1.9))
    ax.plot(6.4, 1.4, "o", markersize=20, markerfacecolor=PEARL, markeredgecolor=NAVY)
    ax.text(6.4, 1.4, "×", color=NAVY, fontsize=13, ha="center", va="center_baseline")
    arrow(ax, (5.75, 1.9), (6.28, 1.5))
    arrow(ax, (4.9, 0.8), (6.28, 1.3))
    arrow(ax, (6.53, 1.4), (6.95, 1.4))
    box(ax, 6.95, 1.1, 1.1, 0.6, f"down\n{hidden} x {width}", fontsize=8)
    ax.text(3.95, 0.14, "how open is each gate?   times   what would come through?", color=CHARCOAL, fontsize=9)
    return show(
        figure,
        f"Left: GPT-2's feed-forward, a matrix up of {matrix}, GELU, a matrix down. Right: the gated one. x goes "
        "through two matrices of that size, gate and up; the gate passes SiLU, the two are multiplied number by "
        "number, and a third matrix leads down again.",
    )


def riffle(order: Sequence[int]) -> "Image":
    """The rows of one head in two orders. `order[k]` is the row of ours that Meta keeps in place k."""
    figure, ax = canvas(8.6, 3.2)
    rows, gap = len(order), 0.34
    half, colours = rows // 2, (NAVY, GOLD, SKY, SLATE)
    names = [f"{row % half}{'ab'[row // half]}" for row in range(rows)]
    top = 0.25 + gap * (rows - 1)
    for x, title in ((1.35, "Hugging Face: halves"), (5.75, "Meta: pairs")):
        ax.text(x + 0.65, top + 0.22, title, color=NAVY, fontsize=10.5, fontweight="bold", ha="center", va="bottom")
    for place in range(rows):
        for x, row in ((1.35, place), (5.75, order[place])):
            y, colour = top - gap * place, colours[row % half % 4]
            ax.add_patch(rectangle(x, y - 0.12, 1.3, 0.27, colour))
            dark = colour != GOLD
            text = f"row {row}:  {names[row]}"
            ax.text(x + 0.65, y, text, color="white" if dark else CHARCOAL, fontsize=8.6, ha="center", va="center")
        start, end = order[place], place
        y = top - gap * start, top - gap * end
        ax.plot((2.7, 5.7), y, color=colours[start % half % 4], linewidth=1.8, linestyle=("-", "--")[start // half])
    for pair in range(half):
        first, second = top - gap * pair, top - gap * (pair + half)
        x = 1.2 - 0.24 * pair
        ax.plot((1.3, x, x, 1.3), (first, first, second, second), color=colours[pair % 4], linewidth=1.6)
        y = top - gap * 2 * pair
        ax.plot((7.1, 7.3, 7.3, 7.1), (y, y, y - gap, y - gap), color=colours[pair % 4], linewidth=1.6)
        ax.text(7.4, y - gap / 2, f"pair {pair}", color=CHARCOAL, fontsize=8.6, va="center")
    return show(
        figure,
        f"The {rows} rows of a head, in two orders, joined by lines. In the Hugging Face order the partners of a pair "
        f"are {half} rows apart: {', '.join(names)}. In Meta's they are neighbours: "
        f"{', '.join(names[row] for row in order)}. The lines cross as two halves of a deck of cards do that are "
        "shuffled into each other.",
    )


def conversion_map(stages: Sequence[Stage], ends: Sequence[tuple[str, str]]) -> "Image":
    """The staged conversion: what each stage changed, what it cost, and the milestone that it passed. `ends` are the
    stages without parameters of their own: (what, its milestone)."""
    rows, step = len(stages) + len(ends), 0.38
    figure, ax = canvas(8.6, 0.55 + step * rows)
    top, left, right = 0.2 + step * (rows - 1), 3.0, 5.65
    least, most = (pick(stage.parameters for stage in stages) for pick in (min, max))
    margin = (most - least or 1) * 0.12
    scale = (right - left) / (most - least + 2 * margin)
    heads = (
        (0.5, "stage", "left"),
        (left, "parameters", "left"),
        (6.75, "change", "right"),
        (6.95, "milestone", "left"),
    )
    for x, text, align in heads:
        ax.text(x, top + 0.28, text, color=NAVY, fontsize=10, fontweight="bold", va="bottom", ha=align)
    ax.plot((0.22, 0.22), (0.2, top), color=SLATE, linewidth=1.5, zorder=0)
    before = stages[0].parameters
    for index, stage in enumerate(stages):
        y = top - step * index
        badge(ax, 0.22, y, str(index))
        ax.text(0.5, y, stage.name, color=CHARCOAL, fontsize=9.2, va="center")
        start, end = (left + (count - least + margin) * scale for count in (before, stage.parameters))
        ax.plot((end, end), (y - step * (index < len(stages) - 1), y), color=SLATE, linewidth=0.8, zorder=0)
        fill = NAVY if stage.parameters >= before else GOLD
        ax.add_patch(rectangle(min(start, end) - 0.015, y - 0.12, abs(end - start) + 0.03, 0.24, fill))
        if index in (0, len(stages) - 1):
            ax.text(max(start, end) + 0.07, y, f"{stage.parameters:,}", color=CHARCOAL, fontsize=9, va="center")
        change = f"{stage.change:+,}" if stage.change else "0" if index else ""
        ax.text(6.75, y, change, color=CHARCOAL, fontsize=9, va="center", ha="right")
        ax.text(6.95, y, f"{stage.checks} checks, loss {stage.loss:.2f}", color=CHARCOAL, fontsize=9, va="center")
        before = stage.parameters
    for index, (what, milestone) in enumerate(ends, start=len(stages)):
        y = top - step * index
        badge(ax, 0.22, y, str(index))
        ax.text(0.5, y, what, color=CHARCOAL, fontsize=9.2, va="center")
        ax.text(left, y, milestone, color=CHARCOAL, fontsize=9, va="center", style="italic")
    described = "; ".join(f"{stage.name} {stage.change:+,}" for stage in stages[1:])
    return show(
        figure,
        f"A map of the conversion, from {stages[0].parameters:,} parameters to {stages[-1].parameters:,}, one row a "
        f"stage: {described}. Then {'; '.join(f'{what}: {milestone}' for what, milestone in ends)}.",
    )
