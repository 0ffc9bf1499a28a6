"""The drawings of M9-LAB-APP-C: its ideas. Its charts of counted and measured numbers are in `lab_app_c_charts.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, SOFT_GREY, arrow, box, canvas, show

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

#: What is handed on: its name, where it lies, and what it saves the next module from.
ARTIFACTS = (
    ("validated base", "model.safetensors", "finetuning a base\nthat was broken"),
    ("config", "config.json", "the right weights in\na wrong computation"),
    ("tokenizer", "its own files", "ids that mean\nother words"),
    ("manifest", "run.json", "files that were\nexchanged since"),
    ("pad and stop", "decisions.json", "a head that\nreads padding"),
    ("way back", "the folder, untouched", "a spoilt base, and\nno other copy"),
)


def hand_off() -> "Image":
    """The opening picture: six artifacts between the base and the classifier."""
    figure, ax = canvas(8.6, 3.3)
    box(ax, 0.1, 1.15, 1.3, 0.95, "a base that has\npassed\nM9-LAB-APP-B")
    for index, (name, where, danger) in enumerate(ARTIFACTS):
        x, y = 1.85 + (index % 3) * 1.68, 1.7 - (index // 3) * 1.4
        box(ax, x, y, 1.55, 1.2, "", PEARL)
        ax.text(x + 0.78, y + 1.1, name, color=NAVY, fontsize=10.5, fontweight="bold", ha="center", va="top")
        ax.text(x + 0.78, y + 0.83, where, color=CHARCOAL, fontsize=8.8, ha="center", va="top")
        ax.text(x + 0.78, y + 0.5, danger, color=CHARCOAL, fontsize=8.5, ha="center", va="top", linespacing=1.25)
    arrow(ax, (1.4, 1.6), (1.85, 1.6))
    arrow(ax, (6.77, 1.6), (7.2, 1.6))
    box(ax, 7.2, 1.15, 1.3, 0.95, "Module 10:\na classifier\nis trained", NAVY)
    ax.text(4.31, 3.06, "the hand-off: name, file, and what it saves from", color=CHARCOAL, fontsize=9.5, ha="center")
    told = "; ".join(f"{name} ({where}) saves from {danger}" for name, where, danger in ARTIFACTS).replace("\n", " ")
    return show(
        figure,
        "An arrow from a base that has passed M9-LAB-APP-B through six cards to Module 10, where a classifier is "
        f"trained. The cards: {told}.",
    )


def _cells(ax: "Axes", x: float, y: float, tokens: Sequence[str], real: Sequence[bool], width: float = 0.62) -> None:
    """A row of tokens; padding is pale and dashed."""
    from matplotlib.patches import Rectangle

    for index, (token, is_real) in enumerate(zip(tokens, real, strict=True)):
        line = "-" if is_real else ":"
        fill = SOFT_GREY if is_real else PEARL
        cell = Rectangle((x + index * width, y), width - 0.06, 0.3, facecolor=fill, edgecolor=SLATE, linestyle=line)
        ax.add_patch(cell)
        ax.text(
            x + index * width + width / 2 - 0.03,
            y + 0.15,
            token,
            color=CHARCOAL if is_real else SLATE,
            fontsize=8.5,
            ha="center",
            va="center",
        )


def two_heads(tokens: Sequence[str], vocabulary: int, width: int, labels: Sequence[str]) -> "Image":
    """One base, two heads: scores for the next token at every position, or for the labels at the last real one."""
    figure, ax = canvas(8.6, 3.5)
    shown, x, step = [*tokens[-5:], "pad", "pad"], 2.0, 0.72
    real = [token != "pad" for token in shown]
    last = sum(real) - 1
    _cells(ax, x, 0.1, shown, real, step)
    box(ax, x, 0.72, step * len(shown) - 0.06, 0.5, "the base: token embedding, blocks, final norm", NAVY)
    for index, is_real in enumerate(real):
        middle = x + index * step + step / 2 - 0.03
        arrow(ax, (middle, 0.4), (middle, 0.74))
        fill = GOLD if index == last else SKY if is_real else PEARL
        box(ax, middle - 0.16, 1.42, 0.32, 0.34, "", fill)
    ax.text(1.9, 1.59, f"hidden states,\n{width} numbers each", color=CHARCOAL, fontsize=9, ha="right", va="center")
    ax.text(1.9, 0.25, "tokens and padding", color=CHARCOAL, fontsize=9, ha="right", va="center")
    box(ax, 0.35, 2.5, 3.2, 0.78, f"language model: {vocabulary:,} x {width} numbers\na score for each next token,\n"
        "at every position", PEARL, fontsize=9)  # fmt: skip
    chosen = x + last * step + step / 2 - 0.03
    box(ax, 4.35, 2.5, 3.9, 0.78, f"classifier: {len(labels)} x {width} numbers, and {len(labels)} biases\n"
        f"a score for {' and for '.join(labels)},\nfrom one position", fontsize=9)  # fmt: skip
    for index in range(last + 1):
        middle = x + index * step + step / 2 - 0.03
        ax.plot((middle, 1.95), (1.78, 2.48), color=SLATE, linewidth=0.8, linestyle=":")
    arrow(ax, (chosen, 1.76), (6.0, 2.5))
    ax.text(chosen + 0.5, 1.95, "the last real token: it alone\nhas seen the whole text", color=CHARCOAL, fontsize=9,
            va="center", ha="left")  # fmt: skip
    return show(
        figure,
        f"A row of tokens ending in two pads goes through the base into one hidden state of {width} numbers a token. "
        f"The language model's head, {vocabulary:,} x {width}, reads every position; the classifier's head, "
        f"{len(labels)} x {width}, reads the last real token only, not the pads after it.",
    )


#: Title, tokens, index that is read, and how that is written.
READINGS = (
    ("right, last column", "Nora sang . pad pad", 4, "x_BTE[:, -1]"),
    ("right, length - 1", "Nora sang . pad pad", 2, "x_BTE[rows_B, lengths_B - 1]"),
    ("left, last column", "pad pad Nora sang .", 4, "x_BTE[:, -1]"),
    ("left, model told", "pad pad Nora sang .", 4, "x_BTE[:, -1], and left_padding_B"),
)


def four_readings() -> "Image":
    """Four ways to read a padded row. Which of them are right, the lab asks."""
    from matplotlib.patches import Rectangle

    figure, ax = canvas(8.6, 2.3)
    for row, (title, text, index, code) in enumerate(READINGS):
        y = 1.85 - row * 0.55
        tokens = text.split()
        ax.text(0.1, y + 0.15, f"pads on the {title}", color=CHARCOAL, fontsize=9.2, va="center")
        _cells(ax, 2.4, y, tokens, [token != "pad" for token in tokens])
        frame = Rectangle((2.4 + index * 0.62 - 0.03, y - 0.04), 0.62, 0.38, facecolor="none", edgecolor=GOLD)
        frame.set_linewidth(2.5)
        ax.add_patch(frame)
        ax.text(5.7, y + 0.15, code, color=CHARCOAL, fontsize=9, family="monospace", va="center")
    told = "; ".join(f"{title}: {text.split()[index]!r} in column {index}" for title, text, index, _ in READINGS)
    return show(figure, f"Four rows of three tokens and two pads, with a frame around what is read. {told}.")
