"""The drawings of M9-LAB-07: its ideas, without measured numbers. Its charts are in `lab_07_charts.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, SOFT_GREY, arrow, box, canvas, rectangle, show

if TYPE_CHECKING:
    from IPython.display import Image

LOOP = (
    ("texts", "one tokenizer,\none order"),
    ("model", ""),
    ("loss", "how surprised by\nthe next token?"),
    ("AdamW", "one small step\nfor every weight"),
    ("held-out text", "the same words\nfor everybody"),
)
FAMILIES = ("GPT-2", "Llama 3", "Qwen3")


def one_loop() -> "Image":
    """The opening picture: a loop with five stations, of which only one is exchanged."""
    figure, ax = canvas(8.6, 3.3)
    for index, (title, text) in enumerate(LOOP):
        x = 0.1 + index * 1.74
        if title == "model":
            for row, family in enumerate(FAMILIES):
                box(ax, x, 1.98 - row * 0.66, 1.34, 0.56, family, NAVY if row == 1 else SKY, fontsize=10, color="white")
        else:
            box(ax, x, 1.22, 1.34, 0.76, text, fontsize=8.5)
        y = 2.6 if title == "model" else 2.04
        ax.text(x + 0.67, y, title, color=NAVY, fontsize=10.5, fontweight="bold", ha="center", va="bottom")
        if index < len(LOOP) - 1:
            arrow(ax, (x + 1.34, 1.6), (x + 1.74, 1.6))
    for start, end in (((5.99, 1.22), (5.99, 0.3)), ((5.99, 0.3), (0.77, 0.3))):
        ax.plot((start[0], end[0]), (start[1], end[1]), color=GOLD, linewidth=2)
    arrow(ax, (0.77, 0.27), (0.77, 1.22))
    ax.text(4.6, 0.36, "again, as many times as for the others", color=CHARCOAL, fontsize=9, ha="center", va="bottom")
    ax.text(2.51, 3.0, "the only thing that changes", color=SLATE, fontsize=9, ha="center", va="bottom")
    return show(
        figure,
        "A loop of five stations: texts, model, loss, AdamW, held-out text; after AdamW it goes back to the texts. At "
        "the station model stand three boxes, GPT-2, Llama 3 and Qwen3, under the words: the only thing that changes.",
    )


def shifted_window(tokens: Sequence[str]) -> "Image":
    """A window of tokens as the model gets it: inputs above, and below each the token that it has to foretell."""
    figure, ax = canvas(8.6, 1.75)
    count = len(tokens) - 1
    width = 7.4 / count
    for index in range(count):
        x = 1.05 + index * width
        for y, token, fill in ((1.05, tokens[index], SOFT_GREY), (0.15, tokens[index + 1], GOLD)):
            box(ax, x + 0.04, y, width - 0.08, 0.42, token.replace(" ", "·"), fill, fontsize=9, family="monospace")
        ax.annotate("", (x + width / 2, 0.6), (x + width / 2, 1.03), arrowprops={"arrowstyle": "->", "color": SLATE})
    for y, name in ((1.26, "inputs"), (0.36, "targets")):
        ax.text(0.1, y, name, color=NAVY, fontsize=10.5, fontweight="bold", va="center")
    shown = [token.strip() for token in tokens]
    return show(
        figure,
        f"Two rows of boxes. Inputs: {', '.join(shown[:-1])}. Targets, one below each input: {', '.join(shown[1:])}. "
        "Every target is the next input.",
    )


def two_masks(tokens: int = 6) -> "Image":
    """Who sees whom: the causal mask, the same one place too far, and what that lets through."""
    figure, ax = canvas(8.6, 2.45)
    side = 0.28
    pictures = (
        (0.95, 0, "right: tril(0)", "a token sees itself\nand what came before"),
        (5.05, 1, "one too far: tril(1)", "it sees the next token, too:\nthe answer to its question"),
    )
    for left, extra, title, text in pictures:
        for row in range(tokens):
            for column in range(tokens):
                seen = column <= row + extra
                leak = seen and column > row
                fill = GOLD if leak else NAVY if seen else PEARL
                ax.add_patch(rectangle(left + column * side, 1.85 - row * side, side, side, fill, SLATE))
                if leak:
                    x, y = left + (column + 0.5) * side, 1.85 - (row - 0.5) * side
                    ax.text(x, y, "!", ha="center", va="center", color=CHARCOAL, fontsize=9, fontweight="bold")
        ax.text(left, 2.2, title, color=NAVY, fontsize=10.5, fontweight="bold", va="bottom")
        ax.text(left + tokens * side + 0.15, 1.3, text, color=CHARCOAL, fontsize=9, va="center", linespacing=1.35)
        ax.text(left - 0.1, 1.3, "asks", color=SLATE, fontsize=8.5, rotation=90, ha="right", va="center")
        ax.text(left + tokens * side / 2, 0.38, "is looked at", color=SLATE, fontsize=8.5, ha="center", va="top")
    return show(
        figure,
        "Two squares of cells, a row for each token that asks and a column for each that is looked at. In the right "
        "one for training, dark cells reach up to the diagonal. In the wrong one they reach one cell further, marked "
        "with exclamation marks: each token sees the next one, which it should foretell.",
    )


def two_ways_to_cut(window: int = 4, stride: int = 1, tokens: int = 8) -> "Image":
    """A text longer than the window: cut into blocks, or read by a window that moves on a little at a time."""
    figure, ax = canvas(8.6, 2.6)
    cell = 0.3
    for left, step, title in ((0.1, window, "blocks"), (4.5, stride, "overlapping windows")):
        starts = range(0, tokens - window + 1, step)
        for row, start in enumerate(starts):
            y = 1.95 - row * 0.29 * (1 if step == stride else 1.2)
            for place in range(window):
                scored = row == 0 or place >= window - step
                fill = NAVY if scored else SOFT_GREY
                ax.add_patch(rectangle(left + (start + place) * cell, y, cell, 0.24, fill, SLATE))
        ax.text(left, 2.3, title, color=NAVY, fontsize=10.5, fontweight="bold", va="bottom")
    for x, y, text in (
        (0.1, 1.05, "two passes for eight tokens. After each\ncut the model has forgotten everything"),
        (6.45, 1.9, "five passes for eight tokens.\nAll but the first few of them\nhave a long past"),
    ):
        ax.text(x, y, text, color=CHARCOAL, fontsize=9, va="center", linespacing=1.35)
    for x, fill, name in ((0.1, NAVY, "its loss counts"), (1.75, SOFT_GREY, "is only context")):
        ax.add_patch(rectangle(x, 0.06, 0.24, 0.2, fill, SLATE))
        ax.text(x + 0.32, 0.16, name, color=CHARCOAL, fontsize=9, va="center")
    return show(
        figure,
        "Left, blocks: windows of four tokens one after the other, and the loss of every token counts. Right, "
        "overlapping windows: each begins one token after the last, and only its last token counts; the others are "
        "context. Every token counts once in both.",
    )
