"""The drawings of M9-CODE-02: one workflow, and what is exchanged. Its charts of numbers are in `code_02_charts.py`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SLATE, SOFT_GREY, arrow, box, canvas, show

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

#: The outer workflow, and below each step what an adapter answers there, for two families.
STEPS = (
    ("select", "model_type", ("gpt2", "qwen3")),
    (
        "read config",
        "which fields,\nwhich defaults",
        ("n_embd, n_head;\nGELU", "hidden_size,\nhead_dim; SwiGLU", "..."),
    ),
    (
        "load weights",
        "which tensor\ngoes where",
        ("c_attn: turn,\ncut in three", "q_proj, k_proj,\nv_proj; norms"),
    ),
    (
        "bind tokenizer",
        "which files,\nwhich marks",
        ("vocab.json,\nmerges.txt", "tokenizer.json;\nno begin mark"),
    ),
    (
        "generate",
        "logits and\na cache",
        ("learned positions,\nall layers alike", "rotary positions,\nQK-norm"),
    ),
)


def one_workflow() -> "Image":
    """The opening picture: five steps that never change, and a row of insides for each family."""
    figure, ax = canvas(8.6, 4.55)
    left, width, gap = 1.2, 1.28, 0.2
    ax.text(0.08, 3.97, "workflow:\nthe same\nfor all", color=NAVY, fontsize=9.5, fontweight="bold", va="center")
    for row, (name, y) in enumerate((("GPT-2", 2.1), ("Qwen3", 1.2), ("your\nfamily", 0.3))):
        box(ax, 0.05, y - 0.06, 8.5, 0.78, "", PEARL)
        ax.text(0.16, y + 0.33, name, color=CHARCOAL, fontsize=10, fontweight="bold", va="center")
        for column, (_, _, insides) in enumerate(STEPS):
            x = left + column * (width + gap)
            if row < 2:
                box(ax, x, y + 0.04, width, 0.58, insides[row], SOFT_GREY, fontsize=8)
            else:
                box(ax, x, y + 0.04, width, 0.58, "...", GOLD, fontsize=11)
    for column, (step, question, _) in enumerate(STEPS):
        x = left + column * (width + gap)
        box(ax, x, 3.65, width, 0.62, step, NAVY, fontsize=10)
        if column:
            arrow(ax, (x - gap, 3.96), (x, 3.96))
        ax.text(x + width / 2, 3.3, question, color=CHARCOAL, fontsize=8.5, ha="center", va="center", style="italic")
        middle = x + width / 2
        ax.plot((middle, middle), (2.88, 3.06), color=SLATE, linewidth=1.2)
    ax.text(0.08, 3.3, "it asks:", color=CHARCOAL, fontsize=9, va="center", style="italic")
    ax.text(
        8.5, 0.06, "a row is an adapter: any of them fits under the workflow", color=CHARCOAL, fontsize=9, ha="right"
    )
    return show(
        figure,
        "On top the workflow, the same for all: select, read config, load weights, bind tokenizer, generate. Each step "
        "asks a question. Below, a row of answers for each family, its adapter: GPT-2, Qwen3, and an empty row for "
        "your family.",
    )


def branches_or_rows(functions: Sequence[str], families: Sequence[str]) -> "Image":
    """The same decisions twice: scattered over functions, and a row for each family."""
    figure, ax = canvas(8.6, 3.5)
    _cells(ax, 1.35, functions, families, rows_are_families=False)
    _cells(ax, 6.25, ("names", "config", "model", "weights", "tokenizer"), families, rows_are_families=True)
    ax.text(0.1, 3.26, "branches: a family is a column", color=NAVY, fontsize=10.5, fontweight="bold")
    ax.text(4.85, 3.26, "adapters: a family is a row", color=NAVY, fontsize=10.5, fontweight="bold")
    ax.plot((4.6, 4.6), (0.1, 3.4), color=SLATE, linewidth=0.8)
    places = len(functions)
    ax.text(0.1, 0.12, f"gold, with a +: the next family, in {places} functions", color=CHARCOAL, fontsize=9)
    ax.text(4.85, 0.12, "gold, with a +: the next family, in one place", color=CHARCOAL, fontsize=9)
    return show(
        figure,
        f"Two grids. Left, branches: {places} functions are rows and {len(families)} families are columns, and one "
        f"more family means an edit in each of the {places} functions. Right, adapters: each family is a row, and one "
        "more family is one more row.",
    )


SHORT = {"Llama 3, 3.1, 3.2": "Llama", "Qwen3, mixture of experts": "Qwen3 MoE", "Gemma 3 (text)": "Gemma 3"}


def _cells(ax: "Axes", x: float, parts: Sequence[str], families: Sequence[str], rows_are_families: bool) -> None:
    """A grid of decisions; the last family is the new one."""
    names = [SHORT.get(family, family) for family in families] + ["next"]
    columns, rows = (parts, names) if rows_are_families else (names, parts)
    side, height, top = (0.44, 0.25, 2.4) if rows_are_families else (0.36, 0.42, 2.1)
    style = {"color": CHARCOAL, "fontsize": 8.5}
    for column, name in enumerate(columns):
        ax.text(x + column * side + 0.14, top + 0.32, name, rotation=35, ha="left", va="bottom", **style)
    for row, name in enumerate(rows):
        y = top - row * height + (0.25 - height)
        font = {} if rows_are_families else {"family": "monospace"}
        ax.text(x - 0.08, y + height / 2 - 0.03, name, ha="right", va="center", **style, **font)
        for column, heading in enumerate(columns):
            _cell(ax, x + column * side, y, side - 0.04, height - 0.04, "next" in (name, heading))


def _cell(ax: "Axes", x: float, y: float, width: float, height: float, new: bool) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), width, height, facecolor=GOLD if new else SOFT_GREY, edgecolor=NAVY, linewidth=0.8))
    if new:
        ax.text(x + width / 2, y + height / 2, "+", color=CHARCOAL, fontsize=10, ha="center", va="center")


UNEDITED = (
    ("select", "refuses no longer"),
    ("load", "plan, check, assign"),
    ("generate", "with and without cache"),
    ("contract", "six promises"),
    ("desk", "gate and way back"),
    ("save", "Transformers reads it"),
    ("train", "the same loop"),
    ("validate", "five layers"),
)


def what_was_added(lines: Mapping[str, int]) -> "Image":
    """The closing picture: the pieces of the new family with their lines, and all that works on them as it is."""
    figure, ax = canvas(8.6, 3.55)
    total = sum(lines.values())
    ax.text(0.1, 3.28, f"written for Qwen2: {total} lines", color=NAVY, fontsize=10.5, fontweight="bold")
    ax.text(4.75, 3.28, "works on it, no line changed", color=NAVY, fontsize=10.5, fontweight="bold")
    step = 2.75 / len(lines)
    longest = max(lines.values())
    for index, (name, count) in enumerate(lines.items()):
        y = 3.05 - (index + 1) * step
        ax.text(1.5, y + step * 0.42, name, color=CHARCOAL, fontsize=8.5, ha="right", va="center", family="monospace")
        length = 2.0 * count / longest
        box(ax, 1.6, y + step * 0.12, length, step * 0.6, "", GOLD)
        ax.text(1.66 + length, y + step * 0.42, f"{count}", color=CHARCOAL, fontsize=9, va="center")
    arrow(ax, (4.1, 1.65), (4.7, 1.65))
    for index, (name, what) in enumerate(UNEDITED):
        column, row = divmod(index, 4)
        box(ax, 4.75 + column * 1.92, 2.4 - row * 0.71, 1.8, 0.6, f"{name}\n{what}", SOFT_GREY, fontsize=8.5)
    ax.text(0.1, 0.06, "lines of code, without docstrings", color=SLATE, fontsize=9)
    return show(
        figure,
        f"Left, bars for the pieces written for Qwen2, {total} lines together: "
        f"{', '.join(f'{name} {count}' for name, count in lines.items())}. Right, what works on it with no line "
        f"changed: {', '.join(name for name, _ in UNEDITED)}.",
    )
