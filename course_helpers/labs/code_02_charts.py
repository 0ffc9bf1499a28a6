"""The charts of M9-CODE-02: what is kept, what is measured, what does not belong together."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from .code_01_figures import diverging
from .figures import CHARCOAL, GOLD, NAVY, SKY, SLATE, SOFT_GREY, new_figure, show

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

Outcome = Mapping[str, Mapping[str, bool]]


def contract_grid(families: Outcome, faulty: Outcome) -> "Image":
    """Promises are columns. Above, every family keeps all; below, what each broken adapter breaks."""
    heights = len(families), len(faulty)
    figure, axes = new_figure(8.6, 1.75 + 0.29 * sum(heights), nrows=2, height_ratios=heights)
    _grid(axes[0], families, "the adapters of the lab")
    _grid(axes[1], faulty, "one adapter, broken in one way a row")
    promises = list(next(iter(families.values())))
    axes[0].set_xticks(range(len(promises)), [promise.replace(" ", "\n", 1) for promise in promises], fontsize=9)
    axes[0].xaxis.tick_top()
    axes[1].set_xticks([])
    figure.align_ylabels(list(axes))
    broken = {row: [name for name, held in kept.items() if not held] for row, kept in faulty.items()}
    described = "; ".join(f"{row} breaks {' and '.join(names) or 'nothing'}" for row, names in broken.items())
    whole = sum(all(kept.values()) for kept in families.values())
    return show(
        figure,
        f"A grid of {len(promises)} promises. {whole} of {len(families)} adapters keep all of them. Below, adapters "
        f"broken on purpose: {described}.",
    )


def _grid(ax: "Axes", outcome: Outcome, title: str) -> None:
    from matplotlib.patches import Rectangle

    for row, kept in enumerate(outcome.values()):
        for column, held in enumerate(kept.values()):
            place = (column - 0.48, row - 0.44)
            fill = SOFT_GREY if held else NAVY
            ax.add_patch(Rectangle(place, 0.96, 0.88, facecolor=fill, edgecolor=SLATE, linewidth=0.6))
            word, colour = ("kept", CHARCOAL) if held else ("broken", "white")
            ax.text(column, row, word, ha="center", va="center", fontsize=8.5, color=colour)
    columns = len(next(iter(outcome.values())))
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(len(outcome) - 0.5, -0.5))
    ax.set_yticks(range(len(outcome)), list(outcome), fontsize=9)
    ax.set_ylabel(title, fontsize=8.5, color=NAVY)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)


def two_rulers(table: Mapping[str, Mapping[str, float]]) -> "Image":
    """The same models, ordered by loss per token and by loss per byte; a line joins the two places of each."""
    figure, ax = new_figure(8.6, 0.95 + 0.36 * len(table))
    rulers = ("nats a token", "bits in 100 bytes")
    orders = [sorted(table, key=lambda source: table[source][ruler]) for ruler in rulers]
    moved = {source: orders[1].index(source) - orders[0].index(source) for source in table}
    furthest = max(moved, key=lambda source: abs(moved[source]))
    for source in table:
        places = [order.index(source) + 1 for order in orders]
        colour, width = (GOLD, 3.5) if source == furthest else (SKY, 1.8)
        ax.plot((0, 1), places, color=colour, linewidth=width, marker="o", markersize=7)
        for x, place, ruler, side in zip((-0.04, 1.04), places, rulers, ("right", "left"), strict=True):
            value = table[source][ruler]
            number = f"{value:.3f}" if ruler == rulers[0] else f"{value:.2f}"
            text = f"{source}   {number}" if side == "right" else f"{number}   {source}"
            weight = "bold" if source == furthest else "normal"
            ax.text(x, place, text, ha=side, va="center", fontsize=9.5, color=CHARCOAL, fontweight=weight)
    for x, heading in ((0, "per token (nats)"), (1, "per text (bits in 100 bytes)")):
        ax.text(x, 0.3, heading, ha="center", va="bottom", fontsize=10.5, color=NAVY, fontweight="bold")
    ax.text(-0.78, 1, "least", fontsize=9, color=SLATE, va="center")
    ax.text(-0.78, len(table), "most", fontsize=9, color=SLATE, va="center")
    ax.set(xlim=(-0.8, 1.65), ylim=(len(table) + 0.4, 0))
    ax.set_axis_off()
    return show(
        figure,
        "Two rankings of the same models by loss, joined by lines. Per token, from the least: "
        f"{', '.join(orders[0])}. Per byte of text: {', '.join(orders[1])}. {furthest} moves most, by "
        f"{abs(moved[furthest])} places.",
    )


def tokenizer_grid(
    sources: Sequence[str], pairs: Mapping[tuple[str, str], float], refused: Collection[tuple[str, str]]
) -> "Image":
    """Models are rows, tokenizers are columns; a frame marks the pairs that the workflow lets through."""
    import numpy as np
    from matplotlib.patches import Rectangle

    figure, ax = new_figure(8.6, 1.2 + 0.46 * len(sources))
    values = np.array([[pairs[model, words] for words in sources] for model in sources])
    shown = ax.imshow(
        np.log10(values), cmap=diverging(), aspect="auto", vmin=np.log10(values.min()), vmax=np.log10(values.max())
    )
    for row, model in enumerate(sources):
        for column, words in enumerate(sources):
            value = values[row, column]
            colour = "white" if value > 60 else CHARCOAL
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=9.5, color=colour)
            if (model, words) not in refused:
                place = (column - 0.46, row - 0.44)
                ax.add_patch(Rectangle(place, 0.92, 0.88, fill=False, edgecolor=CHARCOAL, linewidth=2))
    names = [source.removeprefix("tiny-") for source in sources]
    ax.set_xticks(range(len(sources)), names)
    ax.set_yticks(range(len(sources)), names)
    ax.set_xlabel("tokenizer of", fontsize=9.5, color=CHARCOAL)
    ax.set_ylabel("model", fontsize=9.5, color=CHARCOAL)
    ax.set_title(
        "bits in 100 bytes of text; framed: let through, all others are refused", fontsize=10, color=NAVY, loc="left"
    )
    ax.spines[["left", "bottom"]].set_visible(False)
    bar = figure.colorbar(shown, ax=ax, shrink=0.9, ticks=[1, 2, np.log10(500)])
    bar.ax.set_yticklabels(["10", "100", "500"])
    bar.ax.tick_params(labelsize=8, colors=CHARCOAL)
    own = [pairs[source, source] for source in sources]
    other = [value for pair, value in pairs.items() if pair in refused]
    cheapest, dearest = min(other, default=0.0), max(other, default=0.0)
    return show(
        figure,
        f"A grid of {len(sources)} models and {len(sources)} tokenizers. With their own tokenizer models need "
        f"{min(own):.0f} to {max(own):.0f} bits for 100 bytes of text; the {len(other)} refused pairs need "
        f"{cheapest:.0f} to {dearest:.0f}. {len(pairs) - len(other)} pairs are let through.",
    )
