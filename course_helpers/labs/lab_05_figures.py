"""The drawings of M9-LAB-05. Those of masks, reach and rings draw what the lab has computed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .figures import (
    CHARCOAL,
    GOLD,
    NAVY,
    SKY,
    SLATE,
    SOFT_GREY,
    arrow,
    box,
    canvas,
    legend,
    new_figure,
    rectangle,
    show,
)

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

LOCAL, GLOBAL, UNSEEN = GOLD, NAVY, SOFT_GREY


def gemma_idea() -> "Image":
    """The opening picture: what each of six layers sees of a text, and what its cache must therefore hold."""
    figure, ax = canvas(8.6, 3.15)
    tokens, window, unit = 26, 7, 0.145
    left, right = 1.3, 5.65
    ax.text(left, 3.05, "what the newest token sees", color=NAVY, fontsize=10.5, fontweight="bold", va="top")
    ax.text(right, 3.05, "what the cache must hold", color=NAVY, fontsize=10.5, fontweight="bold", va="top")
    for row in range(6):
        y, is_global = 0.38 + row * 0.4, row == 5
        name = f"layer {row + 1}, {'global' if is_global else 'local'}"
        ax.text(left - 0.1, y + 0.13, name, color=CHARCOAL, fontsize=9, ha="right", va="center")
        for token in range(tokens):
            seen = is_global or token >= tokens - window
            colour = (GLOBAL if is_global else LOCAL) if seen else UNSEEN
            ax.add_patch(rectangle(left + token * unit, y, unit, 0.26, colour))
        for slot in range(tokens if is_global else window):
            ax.add_patch(rectangle(right + slot * 0.105, y, 0.105, 0.26, GLOBAL if is_global else LOCAL))
    ax.text(left, 0.24, "first token", color=SLATE, fontsize=8.5, va="top")
    ax.text(left + tokens * unit, 0.24, "newest token", color=SLATE, fontsize=8.5, va="top", ha="right")
    ax.text(right, 0.24, "five rings of one window, and one cache that grows", color=SLATE, fontsize=8.5, va="top")
    return show(
        figure,
        "Six layers, one above the other. In the five lower ones, the local layers, the newest of 26 tokens sees the "
        "last 7 tokens only, and the cache holds 7 positions. In the sixth, the global layer, it sees all 26, and the "
        "cache holds all 26.",
    )


def two_blocks() -> "Image":
    """Where the norms stand in a block of Qwen3 or Llama, and in one of Gemma 3."""
    figure, ax = canvas(8.6, 2.75)
    lanes = {
        "Llama 3, Qwen3": (1.55, (("norm", "attention", ""), ("norm", "feed-forward", ""))),
        "Gemma 3": (0.3, (("norm", "attention", "post-norm"), ("norm", "feed-forward", "post-norm"))),
    }
    for title, (y, halves) in lanes.items():
        stream = y + 0.56
        ax.text(0.1, y + 0.72, title, color=NAVY, fontsize=10.5, fontweight="bold", va="bottom")
        ax.plot((0.1, 8.5), (stream, stream), color=SLATE, linewidth=1.6, zorder=0)
        for start, parts in zip((0.25, 4.35), halves, strict=True):
            sublayer(ax, start, y, stream, parts)
    return show(
        figure,
        "Two lanes. In Llama 3 and Qwen3 a norm stands before attention and another before the feed-forward, and each "
        "result is added to the stream. In Gemma 3 two more norms, marked in gold, stand after attention and after the "
        "feed-forward, before the result is added.",
    )


def sublayer(ax: "Axes", start: float, y: float, stream: float, parts: Sequence[str]) -> None:
    """One branch off the stream and back onto it, through `parts`."""
    end = start + 3.65
    ax.plot((start, start, end), (stream, y + 0.05, y + 0.05), color=SLATE, linewidth=1.2, zorder=0)
    x = start + 0.15
    for part, width in zip(parts, (0.75, 1.3, 0.95), strict=True):
        if part:
            box(ax, x, y - 0.16, width, 0.42, part, GOLD if part == "post-norm" else SOFT_GREY, fontsize=9)
        x += width + 0.17
    arrow(ax, (end, y + 0.03), (end, stream - 0.06))
    circle = {"boxstyle": "circle,pad=0.12", "facecolor": NAVY, "edgecolor": NAVY}
    ax.text(end, stream, "+", color="white", fontsize=10, fontweight="bold", ha="center", va="center", bbox=circle)


def masks(sees: Mapping[str, Tensor]) -> "Image":
    """Who sees whom: one square a mask, a row a query, a column a key; each seen key is a filled cell."""
    figure, axes = new_figure(8.6, 3.75, ncols=len(sees))
    texts = []
    for ax, (name, mask_TT), colour in zip(axes, sees.items(), (GLOBAL, LOCAL), strict=False):
        length = len(mask_TT)
        for query in range(length):
            for key in range(length):
                ax.add_patch(rectangle(key, query, 1, 1, colour if mask_TT[query, key] else UNSEEN))
            ax.text(length + 0.25, query + 0.5, int(mask_TT[query].sum()), color=CHARCOAL, fontsize=8.5, va="center")
        ax.text(length + 0.1, -0.35, "keys\nseen", color=SLATE, fontsize=8, va="bottom", linespacing=1.0)
        ax.set(xlim=(0, length + 1.6), ylim=(length, 0), aspect="equal")
        ax.set_xticks([at + 0.5 for at in range(length)], range(length), fontsize=8)
        ax.set_yticks([at + 0.5 for at in range(length)], range(length), fontsize=8)
        ax.tick_params(length=0)
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.set_xlabel("key: position looked at", color=CHARCOAL, fontsize=9)
        ax.set_title(name, fontsize=10.5, color=NAVY)
        texts.append(f"{name}: the queries see {', '.join(str(int(row.sum())) for row in mask_TT)} keys")
    axes[0].set_ylabel("query: position that looks", color=CHARCOAL, fontsize=9)
    return show(figure, f"Squares of {length} queries by {length} keys, the seen ones filled. {'; '.join(texts)}.")


def reach(known_LT: Tensor, plan: Sequence[str], window: int) -> "Image":
    """After each layer L: which of the T positions the newest one depends on."""
    layers, length = known_LT.shape
    figure, ax = new_figure(8.6, 0.85 + 0.4 * layers)
    for layer in range(layers):
        is_global = plan[layer] == "full_attention"
        for position in range(length):
            colour = GLOBAL if is_global else LOCAL
            ax.add_patch(rectangle(position, layer, 1, 0.86, colour if known_LT[layer, position] else UNSEEN))
        known = int(known_LT[layer].sum())
        ax.text(length + 0.3, layer + 0.43, f"{known} positions", color=CHARCOAL, fontsize=9, va="center")
    names = [
        f"after layer {number + 1} ({'global' if kind == 'full_attention' else 'local'})"
        for number, kind in enumerate(plan)
    ]
    ax.set_yticks([at + 0.43 for at in range(layers)], names)
    ax.set(xlim=(0, length * 1.14), ylim=(0, layers))
    ax.tick_params(length=0)
    ax.set_xticks([0.5, length - 0.5], ["first", "newest"])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xlabel(f"positions that the newest one knows of, with a window of {window}", color=CHARCOAL, fontsize=9)
    counts = ", ".join(str(int(row.sum())) for row in known_LT)
    return show(
        figure,
        f"A row a layer, a cell a position of {length}; filled are those that the newest position depends on. From the "
        f"first layer to the last: {counts} positions.",
    )


def ring_over_time(history: Sequence[Sequence[int | None]]) -> "Image":
    """A ring after each write: a column a moment, a row a slot; the number is the position that lies there."""
    slots, moments = len(history[0]), len(history)
    figure, ax = new_figure(8.6, 0.95 + 0.42 * slots)
    for moment, held in enumerate(history):
        for slot, position in enumerate(held):
            new, fresh = position == moment, position is None
            ax.add_patch(rectangle(moment, slot, 0.94, 0.9, UNSEEN if fresh else LOCAL if new else SKY))
            if not fresh:
                ax.text(
                    moment + 0.47,
                    slot + 0.45,
                    position,
                    ha="center",
                    va="center",
                    fontsize=10,
                    color=CHARCOAL,
                    fontweight="bold" if new else "normal",
                    zorder=3,
                )
    ax.set_yticks([at + 0.45 for at in range(slots)], [f"slot {slot}" for slot in range(slots)])
    ax.set_xticks([at + 0.47 for at in range(moments)], range(moments))
    ax.set(xlim=(0, moments), ylim=(slots, 0))
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xlabel("after writing position ...", color=CHARCOAL, fontsize=9)
    legend(ax, {"just written": LOCAL, "kept": SKY, "still empty": UNSEEN})
    last = ", ".join(f"slot {slot} holds position {position}" for slot, position in enumerate(history[-1]))
    return show(
        figure,
        f"A ring of {slots} slots over {moments} writes. Each position goes to the slot position % {slots}, and "
        f"takes the place of the one written {slots} before. In the end {last}.",
    )
