"""The drawings of M9-LAB-04: its ideas. Its charts of computed and measured numbers are in `lab_04_charts.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, SOFT_GREY, arrow, box, canvas, show

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

    from .lab_04 import Routing

TOKENS, EXPERTS, ASKED = 6, 8, (2, 5)  # of the opening picture


def four_variants() -> "Image":
    """The opening picture: what one new token costs in each of the four variants."""
    figure, ax = canvas(8.6, 4.1)
    for column, heading in enumerate(("without cache", "with KV cache")):
        ax.text(2.75 + column * 3.85, 3.78, heading, color=NAVY, fontsize=11, fontweight="bold", ha="center")
    for row, heading in enumerate(("dense", "mixture\nof experts")):
        y = 2.15 - row * 1.75
        ax.text(0.1, y + 0.7, heading, color=NAVY, fontsize=11, fontweight="bold", va="center")
        for column in range(2):
            _variant(ax, 1.1 + column * 3.85, y, cached=column == 1, experts=row == 1)
    ax.plot((4.8, 4.8), (0.3, 3.9), color=SLATE, linewidth=0.8)
    ax.plot((0.1, 8.5), (2.0, 2.0), color=SLATE, linewidth=0.8)
    ax.text(0.1, 0.06, "navy: computed, or used, for the next token", color=CHARCOAL, fontsize=9)
    ax.text(3.55, 0.06, "pale: kept from before", color=CHARCOAL, fontsize=9)
    ax.text(5.6, 0.06, "white: held in memory, not used", color=CHARCOAL, fontsize=9)
    return show(
        figure,
        "Four panels: dense and mixture of experts, without and with a KV cache. Without a cache all six tokens are "
        "computed for the next one; with it only the newest, and five are kept. The dense model uses all of its "
        "feed-forward; the mixture holds eight small experts and uses two.",
    )


def _variant(ax: "Axes", x: float, y: float, cached: bool, experts: bool) -> None:
    """One panel: the tokens in a row, and the feed-forward weights they go through."""
    for token in range(TOKENS):
        kept = cached and token < TOKENS - 1
        _cell(ax, x + token * 0.27, y + 0.55, 0.23, 0.3, SKY if kept else NAVY, 0.35 if kept else 1.0)
    arrow(ax, (x + TOKENS * 0.27, y + 0.7), (x + TOKENS * 0.27 + 0.4, y + 0.7))
    left = x + TOKENS * 0.27 + 0.45
    if experts:
        for expert in range(EXPERTS):
            _cell(ax, left, y + 0.1 + expert * 0.155, 1.2, 0.125, NAVY if expert in ASKED else PEARL)
    else:
        _cell(ax, left, y + 0.3, 1.2, 0.8, NAVY)
    tokens = "the newest token" if cached else "every token, again"
    weights = "2 of 8 experts" if experts else "all weights"
    ax.text(x + 0.8, y + 0.36, tokens, color=CHARCOAL, fontsize=9, ha="center")
    ax.text(left + 0.6, y + (1.4 if experts else 1.18), weights, color=CHARCOAL, fontsize=9, ha="center")


def query_path() -> "Image":
    """What happens to queries and keys on their way to the scores, with the step that Qwen3 adds."""
    figure, ax = canvas(8.6, 1.75)
    steps = (
        ("x: one token,\nE numbers", SOFT_GREY, 1.15),
        ("matrix\nE to H x D", SOFT_GREY, 1.1),
        ("cut in heads\nof D numbers", SOFT_GREY, 1.2),
        ("RMSNorm\nof each head", GOLD, 1.2),
        ("RoPE: turn\nby position", SOFT_GREY, 1.15),
        ("scores: query\nx key / sqrt(D)", SOFT_GREY, 1.25),
    )
    x = 0.1
    for index, (text, fill, width) in enumerate(steps):
        box(ax, x, 0.5, width, 0.75, text, fill, fontsize=8.5)
        if fill == GOLD:
            ax.text(x + width / 2, 1.36, "new in Qwen3", color=NAVY, fontsize=9.5, fontweight="bold", ha="center")
        if index < len(steps) - 1:
            arrow(ax, (x + width, 0.87), (x + width + 0.24, 0.87))
        x += width + 0.24
    note = "E: width, H: heads, D: numbers in one head. Queries and keys alike; values skip the norm and RoPE"
    ax.text(4.3, 0.18, note, color=SLATE, fontsize=9, ha="center")
    return show(
        figure,
        "Six boxes in a row: x, a matrix from E to H times D numbers, cut in heads of D numbers, RMSNorm of each head "
        "(marked as new in Qwen3), RoPE, and the scores, query times key over the root of D.",
    )


def kept_or_again(prompt: int, new_tokens: int) -> "Image":
    """Step by step, which tokens go through the model: all of them each time, or each of them once."""
    figure, ax = canvas(8.6, 0.95 + 0.3 * new_tokens)
    length = prompt + new_tokens - 1
    side, counts = 0.27, []
    for panel, (left, title) in enumerate(((0.75, "without cache"), (4.95, "with cache"))):
        computed = 0
        for step in range(new_tokens):
            seen = prompt + step
            y = 0.3 + (new_tokens - 1 - step) * 0.3
            for token in range(seen):
                again = panel == 0 or token >= seen - (prompt if step == 0 else 1)
                computed += again
                _cell(ax, left + token * side, y, side - 0.04, 0.25, NAVY if again else SKY, 1.0 if again else 0.35)
            if panel == 0:
                ax.text(0.65, y + 0.12, f"step {step + 1}", color=CHARCOAL, fontsize=8.5, ha="right", va="center")
        counts.append(computed)
        text = f"{title}: {computed} vectors computed"
        ax.text(left, 0.42 + new_tokens * 0.3, text, color=NAVY, fontsize=10, fontweight="bold")
        ax.text(left + length * side / 2, 0.06, "token of the text", color=SLATE, fontsize=8.5, ha="center")
    return show(
        figure,
        f"Two staircases of squares, a row for each of {new_tokens} steps after a prompt of {prompt} tokens. Without "
        f"cache every square is computed, {counts[0]} in all. With cache the first row and then one square a row are "
        f"computed, {counts[1]} in all; the others are kept from before.",
    )


def one_token(token: str, routing: "Routing", position: int, weights: Sequence[float]) -> "Image":
    """One token on its way through a mixture of experts, with the router's own numbers."""
    figure, ax = canvas(8.6, 3.3)
    probabilities = routing.probability_NX[position].tolist()
    asked = routing.chosen_Nk[position].tolist()
    shown = asked + [e for e in range(len(probabilities)) if e not in asked]
    shown = sorted(shown[:8])  # a released model has 128: those asked, and the first of the others
    step = 2.5 / len(shown)
    box(ax, 0.1, 1.15, 1.05, 0.8, f"token\n{token!r}", fontsize=9.5)
    box(ax, 1.6, 1.15, 1.05, 0.8, "router\na matrix E x X", fontsize=8.5)
    arrow(ax, (1.15, 1.55), (1.6, 1.55))
    arrow(ax, (2.65, 1.55), (3.0, 1.55))
    for index, expert in enumerate(shown):
        y = 2.72 - (index + 1) * step + 0.04
        on, height = expert in asked, step - 0.08
        _cell(ax, 3.1, y, max(0.02, 1.3 * probabilities[expert] / max(probabilities)), height, GOLD if on else SLATE)
        ax.text(4.5, y + height / 2, f"{100 * probabilities[expert]:.0f} %", color=CHARCOAL, fontsize=9, va="center")
        _cell(ax, 5.1, y, 1.15, height, NAVY if on else PEARL)
        colour = "white" if on else SLATE
        ax.text(5.67, y + height / 2, f"expert {expert}", color=colour, fontsize=8.5, ha="center", va="center")
        if on:
            arrow(ax, (6.25, y + height / 2), (7.15, 1.55))
            weight = f"x {weights[asked.index(expert)]:.2f}"
            above = y + height / 2 > 1.55  # the arrow goes down from there, and the number stays clear of it
            ax.text(6.4, y + height / 2 + (0.08 if above else -0.22), weight, color=CHARCOAL, fontsize=9)
    box(ax, 7.15, 1.15, 1.3, 0.8, "weighted sum\nof the answers", fontsize=8.5)
    for x, text in ((3.1, "probabilities"), (5.1, f"{len(asked)} experts answer"), (6.9, "and are mixed")):
        ax.text(x, 2.85, text, color=NAVY, fontsize=10, fontweight="bold")
    words = ", ".join(
        f"expert {expert} with probability {100 * probabilities[expert]:.0f} % and weight {weight:.2f}"
        for expert, weight in zip(asked, weights, strict=True)
    )
    return show(figure, f"The token {token!r} goes to the router, which picks {words}. Their answers are summed.")


def _cell(ax: "Axes", x: float, y: float, width: float, height: float, fill: str, alpha: float = 1.0) -> None:
    from matplotlib.patches import Rectangle

    edge = SLATE if fill == PEARL else fill
    ax.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=edge, linewidth=0.8, alpha=alpha, zorder=2))
