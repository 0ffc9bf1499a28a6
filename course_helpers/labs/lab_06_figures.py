"""The drawings of M9-LAB-06: its ideas, without numbers. Its charts are in `lab_06_charts.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, SOFT_GREY, arrow, box, canvas, rectangle, show

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes


def opening() -> "Image":
    """A pre-norm block beside OLMo 3's, and OLMo 3's plan of layers."""
    figure, ax = canvas(8.6, 4.7)
    block(ax, 0.25, "Llama 3, Qwen3: norm before", ("norm", "attention", "norm", "feed-forward"))
    block(ax, 3.0, "OLMo 3: norm after", ("attention", "norm", "feed-forward", "norm"))
    plan(ax, 5.95)
    return show(
        figure,
        "Three drawings. Left, a block of Llama 3 or Qwen3: on each branch the norm comes before attention and before "
        "the feed-forward. Middle, a block of OLMo 3: on each branch the norm comes after attention and after the "
        "feed-forward, and the plain residual line goes past both. Right, OLMo 3's layers: three with a sliding window "
        "and plain RoPE, then one that sees everything, with RoPE and YaRN; this repeats to the top.",
    )


def block(ax: "Axes", x: float, title: str, parts: Sequence[str]) -> None:
    """A residual line at the left, and two branches, each with two parts from below to above."""
    ax.text(x, 4.45, title, color=NAVY, fontsize=10.5, fontweight="bold", va="center")
    arrow(ax, (x + 0.25, 0.25), (x + 0.25, 4.2))
    for half in (0, 1):
        bottom = 0.45 + half * 1.85
        for level in (0, 1):
            name = parts[2 * half + level]
            fill = GOLD if name == "norm" else SOFT_GREY
            box(ax, x + 0.75, bottom + 0.12 + level * 0.68, 1.35, 0.48, name, fill, fontsize=9.5)
        line = {"color": CHARCOAL, "linewidth": 1.3}
        ax.plot((x + 0.25, x + 1.42, x + 1.42), (bottom - 0.07, bottom - 0.07, bottom + 0.12), **line)
        ax.plot((x + 1.42, x + 1.42), (bottom + 0.6, bottom + 0.8), **line)
        ax.plot((x + 1.42, x + 1.42, x + 0.35), (bottom + 1.28, bottom + 1.46, bottom + 1.46), **line)
        ax.text(
            x + 0.25,
            bottom + 1.46,
            "+",
            color=CHARCOAL,
            fontsize=12,
            ha="center",
            va="center",
            bbox={"boxstyle": "circle,pad=0.12", "facecolor": PEARL, "edgecolor": NAVY},
            zorder=4,
        )
    ax.text(x + 0.4, 0.1, "x", color=CHARCOAL, fontsize=10, va="center")


def plan(ax: "Axes", x: float) -> None:
    ax.text(x, 4.45, "and its layers, from below", color=NAVY, fontsize=10.5, fontweight="bold", va="center")
    for layer in range(4):
        full = layer == 3
        text = "sees everything\nRoPE with YaRN" if full else "sliding window\nplain RoPE"
        box(ax, x + 0.3, 0.35 + layer * 0.85, 1.9, 0.66, text, NAVY if full else SOFT_GREY, fontsize=9)
        ax.text(x + 0.15, 0.68 + layer * 0.85, str(layer + 1), color=SLATE, fontsize=9, ha="center", va="center")
    ax.text(x + 1.25, 3.92, "… and so on, three to one", color=CHARCOAL, fontsize=9, ha="center", va="center")


def norm_of_heads() -> "Image":
    """What a QK-norm divides by: one number for all heads, or one for each."""
    figure, ax = canvas(8.6, 2.5)
    colours = (NAVY, SKY, SLATE, GOLD)
    rows = ((1.55, "OLMo 3: before the heads are cut apart", True), (0.3, "Qwen3: head by head", False))
    for y, title, together in rows:
        ax.text(0.1, y + 0.42, title, color=NAVY, fontsize=10.5, fontweight="bold", va="bottom")
        for head, colour in enumerate(colours):
            for number in range(6):
                left = 0.1 + head * 1.32 + number * 0.2
                ax.add_patch(rectangle(left, y, 0.18, 0.32, colour))
            if not together:
                bracket(ax, 0.1 + head * 1.32, 0.1 + head * 1.32 + 1.18, y - 0.06)
        if together:
            bracket(ax, 0.1, 0.1 + 3 * 1.32 + 1.18, y - 0.06)
        kinds = "one for each head,\nweights of one head, shared", "one root mean square,\nas many weights as numbers"
        ax.text(5.55, y + 0.16, kinds[together], color=CHARCOAL, fontsize=9.5, va="center", linespacing=1.35)
    return show(
        figure,
        "Four heads of six numbers each, drawn twice. Above, OLMo 3: one bracket under all heads, one root mean square "
        "for all of them, and as many weights as numbers. Below, Qwen3: a bracket under each head, a root mean square "
        "for each, and the weights of one head, shared by all.",
    )


def bracket(ax: "Axes", left: float, right: float, y: float) -> None:
    ax.plot((left, left, right, right), (y, y - 0.08, y - 0.08, y), color=CHARCOAL, linewidth=1.2)


def two_ways_to_share() -> "Image":
    """A model on two devices: every matrix cut in two, or every other layer."""
    figure, ax = canvas(8.6, 3.55)
    title = {"color": NAVY, "fontsize": 10.5, "fontweight": "bold", "va": "center"}
    ax.text(0.1, 3.35, "tensor parallel: every matrix is cut", **title)
    for device in (0, 1):
        y = 1.95 - device * 1.35
        colour = (NAVY, SKY)[device]
        ax.text(0.1, y + 0.98, f"device {device + 1}", color=CHARCOAL, fontsize=9, va="center")
        for part, text in enumerate(("half of\nthe heads", "half of the\nfeed-forward")):
            x = 0.1 + part * 2.15
            box(ax, x, y, 1.2, 0.8, text, colour, fontsize=9, color="white" if device == 0 else CHARCOAL)
            ax.plot((x + 1.2, x + 1.4), (y + 0.4, y + 0.4), color=CHARCOAL, linewidth=1.3)
    for part in (0, 1):
        x = 1.6 + part * 2.15
        box(ax, x - 0.1, 0.6, 0.42, 2.15, "sum", GOLD, fontsize=9.5, rotation=90)
        arrow(ax, (x + 0.32, 1.68), (x + 0.65, 1.68))
    ax.text(2.1, 0.25, "all work at every token, and add up twice a layer", color=CHARCOAL, fontsize=9, ha="center")
    ax.plot((4.75, 4.75), (0.1, 3.4), color=SLATE, linewidth=0.8, linestyle=":")
    ax.text(5.0, 3.35, "pipeline: the layers are shared out", **title)
    for device in (0, 1):
        x, colour = 5.0 + device * 1.85, (NAVY, SKY)[device]
        ax.text(x, 2.95, f"device {device + 1}", color=CHARCOAL, fontsize=9, va="center")
        for layer in range(3):
            text = f"layer {3 * device + layer + 1}"
            box(ax, x, 0.7 + layer * 0.7, 1.25, 0.55, text, colour, fontsize=9, color=("white", CHARCOAL)[device])
    arrow(ax, (6.25, 2.38), (6.85, 0.98))
    ax.text(6.7, 0.25, "one works, and the other waits for it", color=CHARCOAL, fontsize=9, ha="center")
    return show(
        figure,
        "Two ways to put a model on two devices. Left, tensor parallel: each device has half of the heads and half of "
        "the feed-forward of every layer; after attention and after the feed-forward, their results are summed. Right, "
        "pipeline: device 1 has layers 1 to 3, device 2 has layers 4 to 6, and an arrow leads from the first to the "
        "second.",
    )
