"""The charts of M9-LAB-02: numbers that the lab has computed."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from .code_01_figures import diverging
from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, canvas, legend, new_figure, rectangle, show

if TYPE_CHECKING:
    from IPython.display import Image
    from torch import Tensor

SMALL = {"fontsize": 9, "color": CHARCOAL}


def vectors(rows: Mapping[str, "Tensor"]) -> "Image":
    """A few short vectors as bars, side by side, each with its mean and its root mean square."""
    figure, axes = new_figure(8.6, 2.3, ncols=len(rows), sharey=True)
    described = []
    for ax, (name, values) in zip(axes, rows.items(), strict=True):
        mean, size = values.mean().item(), values.pow(2).mean().sqrt().item()
        colours = [NAVY if value >= 0 else GOLD for value in values]
        ax.bar(range(len(values)), values.tolist(), color=colours, width=0.75)
        ax.axhline(0, color=SLATE, linewidth=0.8)
        ax.axhline(mean, color=CHARCOAL, linewidth=1.2, linestyle="--")
        ax.set_title(name, fontsize=10, color=NAVY)
        ax.set_xlabel(f"mean {mean:.2f}, root mean square {size:.2f}".replace("-0.00", "0.00"), **SMALL)
        ax.set_xticks(range(len(values)))
        described.append(f"{name}: mean {mean:.2f}, root mean square {size:.2f}")
    axes[0].set_ylabel("value (dashed: the mean)", **SMALL)
    return show(figure, f"Bars of the same numbers before and after a norm. {'; '.join(described)}.")


def curves(functions: Mapping[str, Callable[["Tensor"], "Tensor"]], limit: float = 5.0) -> "Image":
    """Activation functions, and what they do to their input."""
    figure, axes = new_figure(8.6, 2.5, ncols=2)
    x = torch.linspace(-limit, limit, 401)
    values = {name: function(x) for name, function in functions.items()}
    first, second = values
    for style, colour, (name, y) in zip(("-", "--"), (NAVY, GOLD), values.items(), strict=True):
        axes[0].plot(x, y, style, color=colour, linewidth=2, label=name)
    axes[0].set_ylabel("output", **SMALL)
    apart = values[second] - values[first]
    axes[1].plot(x, apart, color=SKY, linewidth=2)
    axes[1].set_ylabel(f"{second} - {first}", **SMALL)
    for ax in axes:
        ax.axhline(0, color=SLATE, linewidth=0.8, zorder=0)
        ax.set_xlabel("input", **SMALL)
    axes[0].legend(fontsize=9, frameon=False, labelcolor=CHARCOAL)
    return show(
        figure,
        f"Left: {first} and {second}, two smooth bends that are 0 far to the left and the input itself far to the "
        f"right. Right: their difference, at most {apart.abs().max():.2f}.",
    )


def clock_hands(angle_TP: "Tensor", positions: Sequence[int], pairs: Sequence[int]) -> "Image":
    """How far some pairs are turned at some positions: a row a pair, a dial a position."""
    step, radius, left = 0.95, 0.41, 1.45
    figure, ax = canvas(8.6, step * len(pairs) + 0.4)
    for row, pair in enumerate(pairs):
        y = step * (len(pairs) - row - 0.5) + 0.05
        text = f"pair {pair}\n1 turn =\n{tokens_in_a_turn(angle_TP, pair)} tokens"
        ax.text(left - 0.6, y, text, ha="right", va="center", **SMALL)
        for column, position in enumerate(positions):
            x, angle = left + step * column, angle_TP[position, pair]
            ax.add_patch(circle(x, y, radius))
            ax.plot((x, x + radius), (y, y), color=SLATE, linewidth=0.9, linestyle=":")
            end = (x + 0.86 * radius * angle.cos().item(), y + 0.86 * radius * angle.sin().item())
            hand = {"arrowstyle": "-|>", "color": NAVY, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", end, (x, y), arrowprops=hand)
            if row == 0:
                ax.text(x, y + radius + 0.06, f"token {position}", fontsize=9.5, color=NAVY, ha="center", va="bottom")
    speeds = ", ".join(f"pair {pair} once in {tokens_in_a_turn(angle_TP, pair)} tokens" for pair in pairs)
    return show(
        figure,
        f"Dials with a hand, one row for each of {len(pairs)} pairs, one column for each of the tokens "
        f"{', '.join(map(str, positions))}. All hands begin at the same place and turn at their own speeds: {speeds}.",
    )


def tokens_in_a_turn(angle_TP: "Tensor", pair: int) -> str:
    return f"{2 * torch.pi / angle_TP[1, pair].item():,.0f}"


def circle(x: float, y: float, radius: float):
    from matplotlib.patches import Circle

    return Circle((x, y), radius, facecolor=PEARL, edgecolor=SLATE, linewidth=1)


def score_maps(scores: Mapping[str, "Tensor"], notes: Sequence[str]) -> "Image":
    """Attention scores (T, T) of a text in which every token is the same; only what lies in the past is shown."""
    figure, axes = new_figure(8.6, 3.6, ncols=len(scores))
    for ax, (name, score_TT), note in zip(axes, scores.items(), notes, strict=True):
        past = torch.ones_like(score_TT, dtype=torch.bool).tril()
        limit = score_TT[past].abs().max().item()
        shown = ax.imshow(score_TT.masked_fill(~past, torch.nan).numpy(), cmap=diverging(), vmin=-limit, vmax=limit)
        ax.set_title(f"{name}\n{note}", fontsize=10, color=NAVY)
        ax.set_xlabel("token that is looked at", **SMALL)
        ax.set_ylabel("token that looks", **SMALL)
        bar = figure.colorbar(shown, ax=ax, shrink=0.75)
        bar.set_label("score", **SMALL)
        bar.ax.tick_params(labelsize=8, colors=CHARCOAL)
    described = "; ".join(f"{name}, {note}" for name, note in zip(scores, notes, strict=True))
    return show(figure, f"Heat maps of attention scores between equal tokens at different positions. {described}.")


def layouts(losses: Mapping[tuple[str, str], float], guessing: float) -> "Image":
    """Loss for every meeting of an order of rows with a rotation: `losses[rows, rotation]`."""
    figure, ax = new_figure(8.6, 0.85 + 0.5 * len(losses))
    low = min(losses.values())
    names = [f"{rows}, {rotation}" for rows, rotation in losses]
    right = [value < low + 0.01 for value in losses.values()]
    shown = ax.barh(names, list(losses.values()), color=[NAVY if one else GOLD for one in right], height=0.6)
    words = [f" {value:.2f}  {'right' if one else 'WRONG'}" for value, one in zip(losses.values(), right, strict=True)]
    ax.bar_label(shown, words, fontsize=9, color=CHARCOAL)
    ax.set_xlim(0, max(losses.values()) * 1.25)
    ax.invert_yaxis()
    ax.set_xlabel(f"loss per token, nats (guessing: {guessing:.1f})", **SMALL)
    legend(ax, {"rows and rotation belong together": NAVY, "they do not": GOLD})
    described = "; ".join(f"{name}: {value:.2f}" for name, value in zip(names, losses.values(), strict=True))
    return show(figure, f"Bars of the loss. {described}.")


def surprise_by_position(losses: Mapping[str, "Tensor"], guessing: float) -> "Image":
    """Surprise of two models at every token of a text, and its mean in both halves of the text."""
    figure, ax = new_figure(8.6, 2.6)
    described = []
    for colour, style, (name, values) in zip((NAVY, GOLD), ("o-", "s--"), losses.items(), strict=True):
        first, second = (part.mean().item() for part in values.tensor_split(2))
        label = f"{name} (mean {first:.2f} in the first half, {second:.2f} in the second)"
        ax.plot(range(len(values)), values.tolist(), style, color=colour, linewidth=1.6, markersize=3, label=label)
        described.append(label)
    ax.axhline(guessing, color=SLATE, linewidth=1, linestyle=":")
    ax.text(0, guessing, "guessing", color=SLATE, fontsize=8.5, va="bottom")
    ax.set_xlabel("position in the text (tokens)", **SMALL)
    ax.set_ylabel("surprise, nats", **SMALL)
    ax.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, loc="lower left", bbox_to_anchor=(0, 1))
    return show(figure, f"Lines of the surprise at each token. {'; '.join(described)}.")


def verdicts(rows: Mapping[str, Mapping[str, bool]], end: Mapping[str, str]) -> "Image":
    """What the checks of single parts say of some models, beside what the whole of each says: `rows[model][part]`."""
    parts = list(next(iter(rows.values())))
    figure, ax = new_figure(8.6, 0.9 + 0.42 * len(rows))
    for y, (model, found) in enumerate(rows.items()):
        ax.text(-0.6, y, f"{end[model]}", ha="center", va="center", **SMALL)
        for x, part in enumerate(parts, start=1):
            fine = found[part]
            ax.add_patch(rectangle(x - 0.46, y - 0.4, 0.92, 0.8, PEARL if fine else GOLD, SLATE))
            weight = "normal" if fine else "bold"
            ax.text(x, y, "equal" if fine else "DIFFERS", ha="center", va="center", fontweight=weight, **SMALL)
    ax.set(xlim=(-1.4, len(parts) + 0.5), ylim=(len(rows) - 0.5, -0.6))
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xticks([-0.6, *range(1, len(parts) + 1)], ["the whole:\nloss", *(part.replace(" ", "\n") for part in parts)])
    ax.xaxis.tick_top()
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    described = "; ".join(
        f"{model}: loss {end[model]}, "
        + (", ".join(part for part, fine in found.items() if not fine) or "nothing")
        + " differs"
        for model, found in rows.items()
    )
    return show(figure, f"A table of models and their parts. {described}.")
