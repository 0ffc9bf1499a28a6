"""The drawings of M9-LAB-03. Its charts, numbers that were computed or measured, are in `lab_03_charts.py`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SERIES, SKY, SLATE, SOFT_GREY, arrow, box, canvas, show

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

#: What each step changes, and nothing else does.
STEPS: Mapping[str, Sequence[str]] = {
    "Llama 2": ("where M9-LAB-02", "ended: RMSNorm,", "SwiGLU, RoPE"),
    "Llama 3": ("grouped queries", "RoPE base x 50", "another tokenizer"),
    "Llama 3.1": ("slow RoPE pairs", "slowed down:", "16 x the context"),
    "Llama 3.2": ("smaller, and", "the head is the", "embedding: tied"),
}


def four_steps() -> "Image":
    """The opening picture: four models in a row, what each changes, and the check that stands between two."""
    figure, ax = canvas(8.6, 2.2)
    for index, (name, lines) in enumerate(STEPS.items()):
        x = 0.1 + index * 2.15
        box(ax, x, 0.75, 1.75, 1.0, "\n".join(lines), NAVY if index == 3 else SOFT_GREY, fontsize=9.5)
        ax.text(x + 0.03, 1.84, name, color=NAVY, fontsize=12, fontweight="bold", va="bottom")
        ax.text(x + 0.875, 0.52, "same logits, same text", color=CHARCOAL, fontsize=8.5, ha="center", va="center")
        ax.text(x + 0.875, 0.28, "as the package", color=CHARCOAL, fontsize=8.5, ha="center", va="center")
        if index < 3:
            arrow(ax, (x + 1.75, 1.25), (x + 2.15, 1.25))
    text = "; ".join(f"{name}: {' '.join(lines)}" for name, lines in STEPS.items())
    return show(
        figure,
        f"Four boxes in a row, joined by arrows. {text}. Under each box stands its check: same logits and same text "
        "as the package.",
    )


def config_table(columns: Mapping[str, Mapping[str, Any]]) -> "Image":
    """Configs side by side: `columns[model][field]`. What differs from the column to its left is gold and bold."""
    fields = list(next(iter(columns.values())))
    height, left, wide = 0.27, 2.3, 6.2 / len(columns)
    figure, ax = canvas(8.6, 0.5 + height * len(fields))
    top = 0.06 + height * len(fields)
    before: Mapping[str, Any] | None = None
    told = []
    for column, (name, values) in enumerate(columns.items()):
        x = left + column * wide
        ax.text(x + wide / 2, top + 0.1, name, color=NAVY, fontsize=10.5, fontweight="bold", ha="center", va="bottom")
        changed = [field for field in fields if before is not None and values[field] != before[field]]
        if before is not None:
            told.append(f"{name} changes " + ", ".join(f"{field} to {shown(values[field])}" for field in changed))
        for row, field in enumerate(fields):
            cell(ax, x, top - (row + 1) * height, wide, height, shown(values[field]), field in changed)
        before = values
    for row, field in enumerate(fields):
        ax.text(0.05, top - (row + 0.5) * height, field, color=CHARCOAL, fontsize=9.5, va="center")
    first, values = next(iter(columns.items()))
    start = ", ".join(f"{field} {shown(values[field])}" for field in fields)
    return show(figure, f"A table of configs, changes marked. {first}: {start}. {'. '.join(told)}.")


def cell(ax: "Axes", x: float, y: float, width: float, height: float, text: str, changed: bool) -> None:
    """One cell of a table, marked where it changed."""
    from matplotlib.patches import Rectangle

    fill = GOLD if changed else SOFT_GREY
    ax.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=PEARL, linewidth=1.5, zorder=1))
    weight = "bold" if changed else "normal"
    ax.text(x + width / 2, y + height / 2, text, color=CHARCOAL, fontsize=9.5, ha="center", va="center", weight=weight)


def shown(value: object) -> str:
    """A value of a config as a person would write it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def shared_heads(heads: int = 8) -> "Image":
    """Which key/value head each query head looks at, for three ways to share: one each, one for two, one for all."""
    figure, ax = canvas(8.6, 2.55)
    panels = ((heads, "every head its own", "GPT-2, Llama 2 7B"), (heads // 2, "two share one", "grouped queries"))
    panels = (*panels, (1, "all share one", "multi-query"))
    wide, gap = 2.6, 0.3
    for index, (shared, title, who) in enumerate(panels):
        left = 0.1 + index * (wide + gap)
        slot = wide / heads
        for head in range(heads):
            group = head * shared // heads
            colour = SERIES[group % len(SERIES)]
            x = left + (head + 0.5) * slot
            to = left + (group + 0.5) * wide / shared
            ax.plot((x, to), (1.5, 1.05), color=colour, linewidth=1.6, zorder=1)
            square(ax, x, 1.62, slot * 0.8, colour, f"{head}")
        for group in range(shared):
            square(ax, left + (group + 0.5) * wide / shared, 0.92, slot * 0.8, SERIES[group % len(SERIES)], f"{group}")
        ax.text(left + wide / 2, 2.25, title, color=NAVY, fontsize=10.5, fontweight="bold", ha="center")
        ax.text(left + wide / 2, 2.03, who, color=CHARCOAL, fontsize=9, ha="center")
        ax.text(left + wide / 2, 1.82, "query heads", color=SLATE, fontsize=8.5, ha="center")
        ax.text(left + wide / 2, 0.61, "key/value heads", color=SLATE, fontsize=8.5, ha="center")
        ax.text(left + wide / 2, 0.3, f"cache: {shared / heads:.3g} x", color=CHARCOAL, fontsize=10, ha="center")
    return show(
        figure,
        f"Three panels of {heads} query heads each. Left: every query head has a key/value head of its own, cache 1 x. "
        f"Middle: neighbours in pairs share one, so query heads 0 and 1 look at key/value head 0, cache 0.5 x. Right: "
        f"all {heads} share a single one, cache {1 / heads:.3g} x.",
    )


def square(ax: "Axes", x: float, y: float, side: float, colour: str, text: str) -> None:
    """A small numbered square around a point."""
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x - side / 2, y - 0.12), side, 0.24, facecolor=colour, edgecolor=PEARL, zorder=2))
    light = CHARCOAL if colour in (GOLD, SKY) else "white"
    ax.text(x, y, text, color=light, fontsize=9, ha="center", va="center", zorder=3)
