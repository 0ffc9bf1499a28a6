"""The charts of M9-LAB-07: what was measured, signed with the machine, and told in words."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, new_figure, show, sign
from .lab_07 import Spread

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

#: Colour, dashes and mark of each line, in the order of drawing: never the colour alone.
STYLES = ((GOLD, "-", "o"), (NAVY, "-", "s"), (SKY, "--", "^"), (SLATE, ":", "D"))

Looks = Sequence[tuple[int, float]]  # (steps done, held-out loss), in order


def curves(runs: Mapping[str, Sequence[Looks]], tokens_a_step: int) -> "Image":
    """Held-out loss against tokens seen, every run thin and each family's mean thick; at the right where they end."""
    figure, (ax, ends) = new_figure(8.6, 3.7, ncols=2, gridspec_kw={"width_ratios": (2.1, 1)})
    for row, ((name, several), (colour, dashes, mark)) in enumerate(zip(runs.items(), STYLES, strict=False)):
        tokens = [step * tokens_a_step for step, _ in several[0]]
        for looks in several:
            ax.plot(tokens, [loss for _, loss in looks], color=colour, linewidth=0.8, alpha=0.6, linestyle=dashes)
        means = [Spread([looks[at][1] for looks in several]).mean for at in range(len(tokens))]
        ax.plot(tokens, means, color=colour, linewidth=2, linestyle=dashes, marker=mark, markersize=4.5, label=name)
        last = [looks[-1][1] for looks in several]
        ends.plot(last, [row] * len(last), color=colour, linestyle="", marker=mark, markersize=7, alpha=0.75)
        ends.plot((min(last), max(last)), (row, row), color=colour, linewidth=1.5)
        text = f"mean {Spread(last).mean:.2f}, spread {Spread(last).width:.2f}"
        ends.text(min(last), row - 0.22, text, color=CHARCOAL, fontsize=9, va="bottom")
    labelled(ax, "tokens seen", "held-out loss, nats per token")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL)
    labelled(ends, "at the end, a mark a seed", "")
    ends.set_yticks(range(len(runs)), list(runs))
    low, high = ends.get_xlim()
    ends.set(ylim=(len(runs) - 0.6, -0.6), xlim=(low, high + 0.45 * (high - low)))
    told = "; ".join(
        f"{name}: {', '.join(f'{looks[-1][1]:.2f}' for looks in several)}" for name, several in runs.items()
    )
    begin = next(iter(runs.values()))[0][0][1]
    return show(
        sign(figure, ends),
        f"Held-out loss against tokens seen, falling from {begin:.1f} nats per token. At the end, one number a seed: "
        f"{told}.",
    )


def suspicious(losses: Mapping[str, Sequence[float]], guess: float, floor: float) -> "Image":
    """Training losses of a sound model and of one that sees its answers, between a guess and the texts' own entropy."""
    figure, ax = new_figure(8.6, 2.9)
    for (name, values), (colour, dashes, _) in zip(losses.items(), STYLES, strict=False):
        ax.plot(range(len(values)), values, color=colour, linestyle=dashes, linewidth=2)
        text = f"{name}, {values[-1]:.1f}"
        ax.text(len(values) + 1, values[-1], text, color=CHARCOAL, fontsize=9, va="center")
    steps = max(map(len, losses.values()))
    bounds = {f"a guess among all tokens, {guess:.1f}": guess, f"what nobody can foretell, {floor:.2f}": floor}
    for text, height in bounds.items():
        ax.axhline(height, color=SLATE, linewidth=1, linestyle=":")
        ax.text(steps * 1.3, height + 0.08, text, color=SLATE, fontsize=8.5, va="bottom", ha="right")
    ax.set(xlim=(0, steps * 1.3), ylim=(0, guess + 0.9), xticks=range(0, steps + 1, 20))
    labelled(ax, "steps", "training loss, nats per token")
    told = "; ".join(f"{name}: from {values[0]:.1f} to {values[-1]:.1f}" for name, values in losses.items())
    return show(
        sign(figure, ax),
        f"Training loss against steps, in nats per token. {told}. A guess is {guess:.1f}; nobody can do better than "
        f"{floor:.2f}.",
    )


def by_position(losses: Mapping[str, Sequence[float]], trained: int, bin_width: int) -> "Image":
    """Held-out loss against the place in the window, in bins, to beyond the length that the models were trained on."""
    figure, ax = new_figure(8.6, 3.1)
    for (name, values), (colour, dashes, mark) in zip(losses.items(), STYLES, strict=False):
        places = [(index + 0.5) * bin_width for index in range(len(values))]
        ax.plot(places, values, color=colour, linestyle=dashes, marker=mark, markersize=4.5, linewidth=2, label=name)
    shortest, values = min(losses.items(), key=lambda item: len(item[1]))
    ax.plot(trained, values[-1], marker="x", color=GOLD, markersize=10, markeredgewidth=2.5)
    ax.annotate(
        f" {shortest} ends here: an error", (trained, values[-1]), color=CHARCOAL, fontsize=9, va="center", ha="left",
        xytext=(8, 0), textcoords="offset points",
    )  # fmt: skip
    ax.axvline(trained, color=CHARCOAL, linewidth=1, linestyle="--")
    ax.set_xticks(range(0, max(map(len, losses.values())) * bin_width + 1, trained))
    low, high = ax.get_ylim()
    top = high + 0.2 * (high - low)  # room for what is written above the lines
    ax.set_ylim(low, top)
    ax.text(trained - 3, top, f"trained on {trained} places", color=CHARCOAL, fontsize=9, ha="right", va="top")
    ax.text(trained + 3, top, "never trained", color=CHARCOAL, fontsize=9, va="top")
    labelled(ax, "place in the window, in tokens", "held-out loss, nats per token")
    ax.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, loc="lower right")
    inside = trained // bin_width
    told = "; ".join(
        f"{name}: {Spread(values[:inside]).mean:.2f} within the trained {trained}"
        + (f", {Spread(values[inside:]).mean:.2f} beyond" if len(values) > inside else ", an error beyond")
        for name, values in losses.items()
    )
    return show(sign(figure, ax), f"Held-out loss in nats per token against the place in the window. {told}.")


def two_rulers(rows: Mapping[str, tuple[float, float]], units: tuple[str, str]) -> "Image":
    """The same models in order of loss per token and of loss per byte, with a line from one order to the other."""
    figure, ax = new_figure(8.6, 0.9 + 0.42 * len(rows))
    orders = [sorted(rows, key=lambda name: rows[name][ruler]) for ruler in (0, 1)]
    for index, name in enumerate(rows):
        places = [order.index(name) for order in orders]
        colour, dashes, mark = STYLES[index % len(STYLES)]
        ax.plot((0, 1), places, color=colour, linestyle=dashes, marker=mark, markersize=7, linewidth=2)
        for x, place, align, figures in ((-0.03, places[0], "right", 0), (1.03, places[1], "left", 1)):
            text = f"{name}   {rows[name][figures]:.4f}"
            ax.text(x, place, text, color=CHARCOAL, fontsize=9, ha=align, va="center")
    for x, unit in zip((0, 1), units, strict=True):
        ax.text(x, -0.75, unit, color=NAVY, fontsize=10, fontweight="bold", ha="center")
    ax.set(xlim=(-0.9, 1.9), ylim=(len(rows) - 0.5, -1.1))
    ax.set_axis_off()
    told = "; ".join(f"by {unit}: {', '.join(order)}" for unit, order in zip(units, orders, strict=True))
    return show(figure, f"The models from best to worst, {told}. Lines that cross are models that change places.")


def labelled(ax: "Axes", x: str, y: str) -> None:
    ax.set_facecolor(PEARL)
    ax.set_xlabel(x, color=CHARCOAL, fontsize=9)
    ax.set_ylabel(y, color=CHARCOAL, fontsize=9)
    ax.grid(axis="y", color=SLATE, alpha=0.2)
