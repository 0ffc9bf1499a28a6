"""The charts of M9-LAB-09: what the checks said, and what was measured on the way."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SERIES, SKY, SLATE, SOFT_GREY, new_figure, show, sign

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

#: What a cell of a matrix can say: word -> (sign, fill, ink). The sign alone tells them apart, too.
MARKS = {
    "green": ("\u2713", "#D6E4F0", NAVY),
    "RED": ("\u2717", GOLD, CHARCOAL),
    "warning": ("!", PEARL, CHARCOAL),
    "unknown": ("?", PEARL, SLATE),
    "not reached": ("\u00b7", PEARL, SLATE),
}
FLOOR = 1e-3  # in tolerances: where a logarithmic axis shows what is equal to the last bit


def matrix(
    cells: Mapping[str, Mapping[str, str]],
    seconds: Mapping[str, Mapping[str, float]] | None = None,
    named: Mapping[str, str] | None = None,
) -> "Image":
    """A mark for every row and column: `cells[row][column]` is one of MARKS. With `seconds`, what each cell took, in
    milliseconds, and the sum of the row; `named`: other names for the marks."""
    rows, columns = list(cells), list(next(iter(cells.values())))
    figure, ax = grid(rows, columns, 0.42 if seconds else 0.33)
    for row, name in enumerate(rows):
        for column, check in enumerate(columns):
            mark, _, ink = MARKS[word := cells[name][check]]
            took = seconds[name].get(check) if seconds else None
            fill(ax, row, column, word)
            tell(ax, row, column, mark, ink, None if took is None else f"{1000 * took:.0f} ms")
        if seconds:
            total = f"{sum(seconds[name].values()):.2f} s"
            ax.text(len(columns) - 0.35, row, total, va="center", color=CHARCOAL, fontsize=9)
    if seconds:
        ax.set_xlim(-0.5, len(columns) + 0.35)
        sign(figure, ax)
    legend(ax, {word for row in cells.values() for word in row.values()}, named)
    return show(figure, in_words(cells, seconds, named or {}))


def in_words(
    cells: Mapping[str, Mapping[str, str]],
    seconds: Mapping[str, Mapping[str, float]] | None,
    named: Mapping[str, str],
) -> str:
    """A matrix for those who cannot see it: every mark that is not the usual one."""
    usual = named.get("green", "green")
    odd = [
        f"{name}: {check} {named.get(word, word)}"
        for name, row in cells.items()
        for check, word in row.items()
        if word != "green"
    ]
    times = [f"{name} {sum(row.values()):.2f} s" for name, row in (seconds or {}).items()]
    columns = ", ".join(next(iter(cells.values())))
    parts = [
        f"A matrix of marks. Rows: {', '.join(cells)}. Columns: {columns}",
        f"{'; '.join(odd)}; all others {usual}" if odd else f"Every cell is {usual}",
        ", ".join(times),
    ]
    return ". ".join(filter(None, parts)) + "."


def caught(counts: Mapping[str, Mapping[str, int | None]], models: int) -> "Image":
    """In how many of the models each fault turned each check red; None where the check was not reached. The first check
    that saw it is framed."""
    rows, columns = list(counts), list(next(iter(counts.values())))
    figure, ax = grid(rows, columns, 0.33)
    told = []
    for row, fault in enumerate(rows):
        first = next((check for check in columns if counts[fault][check]), None)
        for column, check in enumerate(columns):
            count = counts[fault][check]
            word = "not reached" if count is None else "RED" if count else "green"
            fill(ax, row, column, word)
            tell(ax, row, column, f"\u2717 {count}" if count else MARKS[word][0], MARKS[word][2])
            if check == first:
                frame(ax, row, column)
        red = ", ".join(f"{check} {counts[fault][check]}" for check in columns if counts[fault][check])
        told.append(f"{fault}: {red or 'none'}")
    legend(ax, {"green", "RED", "not reached"})
    text = (
        f"Rows are faults, columns are checks; a cell says in how many of {models} models the check turned red, and a "
    )
    return show(figure, text + f"frame stands around the first. {'; '.join(told)}.")


def grid(rows: Sequence[str], columns: Sequence[str], height: float):
    """Empty axes with a cell for each row and column, names above and at the left."""
    figure, ax = new_figure(8.6, 0.75 + height * len(rows))
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    return figure, ax


def fill(ax: "Axes", row: int, column: int, word: str) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, facecolor=MARKS[word][1], edgecolor=SOFT_GREY))


def frame(ax: "Axes", row: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    options = {"facecolor": "none", "edgecolor": NAVY, "linewidth": 2.2, "zorder": 3}
    ax.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, **options))


def tell(ax: "Axes", row: int, column: int, mark: str, ink: str, note: str | None = None) -> None:
    lift = 0.14 if note else 0.0
    ax.text(column, row - lift, mark, ha="center", va="center", color=ink, fontsize=11, fontweight="bold")
    if note:
        ax.text(column, row + 0.27, note, ha="center", va="center", color=CHARCOAL, fontsize=7)


def legend(ax: "Axes", words: set[str], named: Mapping[str, str] | None = None) -> None:
    """The signs in words, below the matrix at the left."""
    text = "     ".join(f"{MARKS[word][0]} {(named or {}).get(word, word)}" for word in MARKS if word in words)
    ax.annotate(text, (0, 0), (0, -6), "axes fraction", "offset points", va="top", color=CHARCOAL, fontsize=8.5)


def margins(rows: Mapping[str, Sequence[float]], unit: str) -> "Image":
    """How far right and wrong models are from what they are compared with, on a logarithmic axis: `rows[name]` has one
    distance a model, in tolerances; `unit` says what one tolerance is."""
    figure, ax = new_figure(8.6, 0.95 + 0.36 * len(rows))
    told = []
    for row, (name, values) in enumerate(rows.items()):
        beyond = [value > 1 for value in values]
        colours = [GOLD if far else SKY for far in beyond]
        shown = [max(value, FLOOR) for value in values]
        ax.scatter(shown, [row] * len(values), c=colours, s=48, edgecolors=NAVY, linewidths=0.8, zorder=3)
        ax.text(
            1.01, row, f"{sum(beyond)} of {len(values)}", transform=ax.get_yaxis_transform(), va="center", fontsize=9
        )
        told.append(f"{name}: {min(values):.1g} to {max(values):.1g}, {sum(beyond)} of {len(values)} beyond")
    ax.axvline(1, color=CHARCOAL, linewidth=1.2, linestyle="--")
    ax.text(1, -0.72, "the tolerance ", color=CHARCOAL, fontsize=9, ha="right", va="center")
    ax.text(1.01, -0.72, "red", transform=ax.get_yaxis_transform(), va="center", fontsize=9, color=CHARCOAL)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xscale="log", ylim=(len(rows) - 0.5, -1))
    exact = any(value == 0 for values in rows.values() for value in values)
    note = f" (dots at {FLOOR:g}: equal to the last bit)" if exact else ""
    ax.set_xlabel("distance, in tolerances" + note, color=CHARCOAL, fontsize=9, loc="left")
    ax.set_title(unit, color=NAVY, fontsize=9.5)
    ax.grid(axis="x", color=SOFT_GREY, zorder=0)
    return show(sign(figure, ax), f"Dots on a logarithmic axis, one a model, in tolerances. {'; '.join(told)}.")


def ranges(measured: Mapping[str, Mapping[str, float]], loss_range: Mapping[str, Sequence[float]]) -> "Image":
    """What is expected of each family, and what was found: `measured[name]` has loss, weights_mib, cache_mib and
    tokens_per_second."""
    names = list(measured)
    figure, axes = new_figure(8.6, 0.95 + 0.34 * len(names), ncols=3, sharey=True)
    for row, name in enumerate(names):
        found = measured[name]
        if name in loss_range:
            low, high = loss_range[name]
            axes[0].plot((low, high), (row, row), color=SKY, linewidth=9, solid_capstyle="butt")
        axes[0].plot(found["loss"], row, "o", color=NAVY, markersize=6, zorder=3)
        left = 0.0
        for part, colour in (("weights_mib", NAVY), ("cache_mib", GOLD)):
            axes[1].barh(row, found[part], left=left, color=colour, height=0.6)
            left += found[part]
        rate = found["tokens_per_second"]
        axes[2].barh(row, rate, color=SERIES[2], height=0.6)
        axes[2].text(rate, row, f" {rate:,.0f}", va="center", color=CHARCOAL, fontsize=8.5)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    fastest = max(found["tokens_per_second"] for found in measured.values())
    axes[2].set_xlim(0, fastest * 1.3)
    titles = (
        "loss, nats per token\nband: allowed, dot: found",
        "memory, MiB: weights (dark),\n256 tokens of cache (gold)",
        "tokens per second\nmeasured, one text, cached",
    )
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=9, color=NAVY)
    told = "; ".join(
        f"{name}: loss {found['loss']:.3f}"
        + (f" within {loss_range[name][0]} to {loss_range[name][1]}" if name in loss_range else "")
        + f", {found['weights_mib'] + found['cache_mib']:.1f} MiB, {found['tokens_per_second']:,.0f} tokens per second"
        for name, found in measured.items()
    )
    return show(sign(figure, axes[-1]), f"Three panels, one row a model. {told}.")
