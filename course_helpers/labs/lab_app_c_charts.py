"""The charts of M9-LAB-APP-C: what was counted and measured. What is measured says on which machine."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, SOFT_GREY, legend, new_figure, show, sign

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour, dashes and mark of each line, in the order of drawing.
STYLES = ((NAVY, "-", "o"), (GOLD, "--", "s"), (SKY, "-.", "^"), (SLATE, ":", "D"))


def labelled(ax: "Axes", x: str, y: str) -> None:
    ax.set_xlabel(x, color=CHARCOAL, fontsize=9, labelpad=1)
    ax.set_ylabel(y, color=CHARCOAL, fontsize=9)
    ax.grid(axis="y", color=SLATE, alpha=0.2)


def legend_above(figure: "Figure", ax: "Axes") -> None:
    """One legend for all panels, which have the same lines."""
    handles, names = ax.get_legend_handles_labels()
    options = {"ncols": len(names), "fontsize": 9, "frameon": False, "labelcolor": CHARCOAL}
    figure.legend(handles, names, loc="outside upper center", **options)


def away_from_alone(pads: Sequence[int], found: Mapping[str, Mapping[str, Sequence[float]]]) -> "Image":
    """How far what the head reads is from the same text without padding: `found[model][way]`, relative."""
    figure, axes = new_figure(8.6, 2.9, ncols=len(found), sharey=True)
    told = []
    for ax, (model, ways) in zip(axes, found.items(), strict=True):
        for (way, values), (colour, dashes, mark) in zip(ways.items(), STYLES, strict=False):
            ax.plot(pads, values, color=colour, linestyle=dashes, marker=mark, linewidth=2, label=way)
            told.append(f"{model}, {way}: {values[-1]:.2f} with {pads[-1]} pads")
        ax.set_title(model, fontsize=10, color=NAVY)
        labelled(ax, "pads beside the text", "")
        ax.set_ylim(bottom=-0.05)
    axes[0].set_ylabel("distance from the text alone,\nin lengths of its vector", color=CHARCOAL, fontsize=9)
    legend_above(figure, axes[0])
    return show(
        sign(figure, axes[-1]),
        f"How far the vector that the head reads moves when padding is added, {pads[0]} to {pads[-1]} pads. "
        f"{'; '.join(told)}.",
    )


def what_is_trained(parts: Mapping[str, Sequence[tuple[str, int, bool]]]) -> "Image":
    """One bar a model, each part as wide as its parameters, the trained ones dark: `(part, count, trained)`."""
    figure, ax = new_figure(8.6, 1.0 + 0.62 * len(parts))
    told = []
    for row, (model, pieces) in enumerate(parts.items()):
        left, total = 0.0, sum(count for _, count, _ in pieces)
        for name, count, trained in pieces:
            share = 100 * count / total
            style = {"color": NAVY} if trained else {"color": SOFT_GREY, "hatch": "///", "edgecolor": SLATE}
            ax.barh(row, share, left=left, height=0.55, linewidth=0.8, **{"edgecolor": PEARL} | style)
            if share > 5:
                plain = {"facecolor": SOFT_GREY, "edgecolor": "none", "pad": 1.5}
                ax.text(left + share / 2, row, name, ha="center", va="center", fontsize=8.5,
                        color="white" if trained else CHARCOAL, bbox=None if trained else plain)  # fmt: skip
            left += share
        trained = 100 * sum(count for _, count, is_trained in pieces if is_trained) / total
        ax.text(101, row, f"{trained:.0f} % trained", va="center", color=CHARCOAL, fontsize=9)
        told.append(f"{model}: {trained:.1f} % of {total:,} parameters are trained")
    ax.set_yticks(range(len(parts)), list(parts))
    ax.set(xlim=(0, 116), ylim=(len(parts) - 0.5, -0.5), xticks=range(0, 101, 20))
    ax.set_xlabel("% of all parameters, in the order of the computation", color=CHARCOAL, fontsize=9)
    legend(ax, {"trained": NAVY, "frozen (hatched)": SLATE})
    return show(figure, f"Bars of where a classifier's parameters are, the last blocks dark. {'; '.join(told)}.")


def curves(
    losses: Mapping[str, Mapping[str, Sequence[float]]],
    looks: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]],
    guess: float,
) -> "Image":
    """Training loss of every step (thin) and validation loss (thick, with marks): `losses[model][start]`."""
    figure, axes = new_figure(8.6, 3.1, ncols=len(losses), sharey=True)
    told, highest = [], max(max(values) for runs in losses.values() for values in runs.values())
    for ax, (model, runs) in zip(axes, losses.items(), strict=True):
        for (start, values), (colour, dashes, mark) in zip(runs.items(), STYLES, strict=False):
            ax.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.8, alpha=0.6, linestyle=dashes)
            steps, seen = zip(*looks[model][start], strict=True)
            ax.plot(
                steps,
                seen,
                color=colour,
                linewidth=2,
                linestyle=dashes,
                marker=mark,
                markersize=4.5,
                label=f"validation, {start}",
            )
            told.append(f"{model} from {start}: {seen[0]:.2f} to {seen[-1]:.2f}")
        name = f"a guess: ln 2 = {guess:.2f}"
        ax.axhline(guess, color=CHARCOAL, linewidth=1, linestyle=(0, (1, 2)), label=name)
        ax.set_title(model, fontsize=10, color=NAVY)
        ax.set_ylim(0, highest * 1.05)
        labelled(ax, "steps", "")
    axes[0].set_ylabel("loss, nats a text", color=CHARCOAL, fontsize=9)
    legend_above(figure, axes[0])
    return show(
        sign(figure, axes[-1]), f"Validation loss in nats against steps. {'; '.join(told)}. A guess: {guess:.2f}."
    )


def compared(rows: Mapping[str, Mapping[str, float]], words: float) -> "Image":
    """Accuracy on the test set, `rows[model][what was trained]`; chance, and counting words."""
    ways = list(next(iter(rows.values())))
    figure, axes = new_figure(8.6, 1.3 + 0.36 * len(ways), ncols=len(rows), sharey=True)
    colours = (SLATE, SKY, GOLD, NAVY)
    for ax, (model, found) in zip(axes, rows.items(), strict=True):
        values = [100 * found[way] for way in ways]
        ax.barh(range(len(ways)), values, color=colours[: len(ways)], height=0.66)
        for row, value in enumerate(values):
            plain = {"facecolor": PEARL, "edgecolor": "none", "pad": 0.8}
            text = f"{value:.0f} %"
            ax.text(value + 2, row, text, color=CHARCOAL, fontsize=9, va="center", bbox=plain, zorder=3)
        for height, dashes in ((50, "--"), (100 * words, ":")):
            ax.axvline(height, color=CHARCOAL, linewidth=1.2, linestyle=dashes)
        ax.set(xlim=(0, 116), xticks=range(0, 101, 25))
        ax.set_title(model, fontsize=10, color=NAVY)
        ax.set_xlabel("test texts right, %", color=CHARCOAL, fontsize=9, labelpad=1)
    axes[0].set_yticks(range(len(ways)), ways)
    axes[0].set_ylim(len(ways) - 0.5, -1.1)
    for place, text in ((49, "chance "), (100 * words + 1, "words")):
        side = "right" if place < 50 else "left"
        axes[0].text(place, -0.8, text, color=CHARCOAL, fontsize=8.5, ha=side, va="center")
    told = "; ".join(
        f"{model}: " + ", ".join(f"{way} {100 * value:.0f} %" for way, value in found.items())
        for model, found in rows.items()
    )
    return show(
        sign(figure, axes[-1]),
        f"Accuracy on the test texts. {told}. Dashed: chance, 50 %; dotted: counting words, {100 * words:.0f} %.",
    )


def confusions(counts: Mapping[str, Mapping[tuple[str, str], int]], labels: Sequence[str]) -> "Image":
    """For each model a square: what the texts were (rows), and what they were taken for (columns)."""
    figure, axes = new_figure(8.6, 2.5, ncols=len(counts))
    most = max(max(square.values()) for square in counts.values())
    told = []
    for ax, (model, square) in zip(axes, counts.items(), strict=True):
        values = [[square.get((true, found), 0) for found in labels] for true in labels]
        ax.imshow(values, cmap="Blues", vmin=0, vmax=most * 1.15, aspect=0.42)
        for row, line in enumerate(values):
            for column, count in enumerate(line):
                dark = count > 0.6 * most
                ax.text(column, row, str(count), ha="center", va="center", fontsize=13,
                        color="white" if dark else CHARCOAL)  # fmt: skip
        ax.set_xticks(range(len(labels)), [f"found: {label}" for label in labels])
        ax.set_yticks(range(len(labels)), [f"is {label}" for label in labels])
        ax.set_title(model, fontsize=10, color=NAVY)
        ax.tick_params(length=0)
        told += [f"{model}, {true} taken for {found}: {square.get((true, found), 0)}"
                 for true, group in groupby([(one, other) for one in labels for other in labels], lambda pair: pair[0])
                 for _, found in group]  # fmt: skip
    return show(sign(figure, axes[-1]), f"Confusion counts on the test texts. {'; '.join(told)}.")
