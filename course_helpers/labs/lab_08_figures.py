"""The drawings of M9-LAB-08. Its charts of what was found are in `lab_08_charts.py`."""

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SLATE, SOFT_GREY, arrow, box, canvas, show

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes


def the_way() -> "Image":
    """The opening picture: four steps with every patient, and the five departments."""
    figure, ax = canvas(8.6, 3.3)
    steps = (
        ("symptom", "What does the owner\nsee? Run it."),
        ("hypothesis", "What could it be?\nSay it first."),
        ("check", "The cheapest tool that\ncan say yes or no."),
        ("fix", "Mend the copy, then\nthe same check again."),
    )
    for index, (title, text) in enumerate(steps):
        x = 0.1 + index * 2.17
        box(ax, x, 2.15, 1.82, 0.72, text, fontsize=8.8)
        ax.text(x + 0.03, 2.95, f"{index + 1}  {title}", color=NAVY, fontsize=11, fontweight="bold", va="bottom")
        if index < 3:
            arrow(ax, (x + 1.82, 2.51), (x + 2.17, 2.51))
    ax.plot((7.5, 7.5, 5.35), (2.13, 1.86, 1.86), color=GOLD, linewidth=2)
    arrow(ax, (5.35, 1.83), (5.35, 2.15))
    ax.text(6.45, 1.74, "until it passes", color=SLATE, fontsize=8.5, ha="center", va="top")
    departments = (
        ("file format", "cut short, a web\npage, code inside"),
        ("shape", "config and weights\nof two models"),
        ("dtype / device", "too large a number,\nno memory, no GPU"),
        ("tokenizer", "other ids for\nthe same text"),
        ("silent", "everything fits,\nand it is wrong"),
    )
    for index, (title, text) in enumerate(departments):
        x, silent = 0.1 + index * 1.715, title == "silent"
        box(ax, x, 0.3, 1.53, 0.66, text, NAVY if silent else SOFT_GREY, fontsize=8.5)
        ax.text(x + 0.765, 1.03, title, color=NAVY, fontsize=10, fontweight="bold", ha="center", va="bottom")
    ax.text(0.1, 1.4, "the departments", color=SLATE, fontsize=9, va="bottom")
    return show(
        figure,
        "Four boxes joined by arrows: symptom, what does the owner see; hypothesis, what could it be; check, the "
        "cheapest tool that can say yes or no; fix, mend the copy. An arrow leads from the fix back to the check, "
        "until it passes. Below, five departments: file format, shape, dtype and device, tokenizer, and, in dark, the "
        "silent ones, where everything fits and it is wrong.",
    )


ROW = 1.1  # height of a card and the gap to the next


def waiting_room(symptoms: Mapping[str, str], columns: int = 4) -> "Image":
    """A card for each patient: its name, and what its owner sees."""
    rows = -(-len(symptoms) // columns)
    figure, ax = canvas(8.6, 0.12 + ROW * rows)
    width = 8.5 / columns
    for index, (name, symptom) in enumerate(symptoms.items()):
        row, column = divmod(index, columns)
        x, y = 0.05 + column * width, 0.06 + ROW * (rows - 1 - row)
        refused = symptom.startswith("refused")
        box(ax, x, y, width - 0.12, ROW - 0.08, "", SOFT_GREY if refused else PEARL)
        ax.text(x + 0.08, y + ROW - 0.17, name, color=NAVY, fontsize=9, fontweight="bold", va="top")
        text = symptom if refused else f"\u201c{symptom}\u201d"
        text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
        lines = textwrap.wrap(text, 30, max_lines=4, placeholder=" …")
        ax.text(x + 0.08, y + ROW - 0.37, "\n".join(lines), color=CHARCOAL, fontsize=8.2, va="top", linespacing=1.25)
    text = "; ".join(f"{name}: {textwrap.shorten(symptom, 60, placeholder=' …')}" for name, symptom in symptoms.items())
    return show(figure, f"A waiting room of {len(symptoms)} cards with what each owner sees. {text}.")


#: The tree's trunk: layer, question, tool; then the department that a "no" leads to, and what is looked at there.
TRUNK = (
    ("files", "Does it open?", "open_checkpoint", "file format", "the first bytes: weights,\na web page, a pointer?"),
    ("shapes", "Does every tensor fit?\nIs every value a number?", "load_model(verify=True)", "shape", ""),
    ("forward", "Are the logits finite?", "one forward pass", "dtype / device", "the same in bfloat16:\nfinite there?"),
    (
        "generation",
        "Do words and ids\nbelong together?",
        "load_tokenizer",
        "tokenizer",
        "which ids end a text?\ndoes text come back?",
    ),
    ("baseline", "Is known text as\nlikely as it was?", "the card's losses", "", ""),
)


def decision_tree() -> "Image":
    """The questions in the order of what they cost, and where each answer leads."""
    figure, ax = canvas(8.6, 6.3)
    ax.set_ylim(-0.08, 6.22)
    ax.text(0.1, 6.12, "cheap", color=SLATE, fontsize=9, va="center")
    ax.text(0.1, 1.2, "dear", color=SLATE, fontsize=9, va="center")
    for index, (layer, question, tool, department, look) in enumerate(TRUNK):
        y = 5.3 - index * 1.05
        box(ax, 0.75, y, 2.1, 0.72, question, fontsize=9)
        ax.text(0.65, y + 0.36, str(index + 1), color=NAVY, fontsize=13, fontweight="bold", ha="right", va="center")
        ax.text(0.8, y + 0.74, layer, color=SLATE, fontsize=8, va="bottom")
        ax.text(2.92, y + 0.12, tool, color=SLATE, fontsize=8.2, va="center")
        downwards(ax, 1.8, y, 0.33 if index < 4 else 0.38, "yes")
        if layer not in ("shapes", "baseline"):
            sideways(ax, 2.85, 5.1, y + 0.36)
            leaf(ax, 5.1, y, department, look)
    sideways(ax, 2.85, 5.1, 4.61)
    for height, text, department in (
        (4.82, "another size, a place left over:", "shape"),
        (4.58, "16-bit types contradict:", "dtype / device"),
        (4.34, "NaN, zeros, absurd numbers:", "silent"),
    ):
        ax.text(5.15, height, text, color=CHARCOAL, fontsize=8.2, va="center")
        ax.text(8.5, height, department, color=NAVY, fontsize=9, fontweight="bold", va="center", ha="right")
    box(ax, 0.75, 0.0, 2.1, 0.72, "healthy, as far as\nanybody can tell", GOLD, fontsize=9)
    sideways(ax, 2.85, 4.0, 1.46)
    box(ax, 4.0, 1.1, 1.75, 0.72, "Are the ids those\nof a good copy?", fontsize=8.8)
    sideways(ax, 5.75, 6.75, 1.46)
    leaf(ax, 6.75, 1.1, "tokenizer", "merges, marks,\nvocabulary", 1.75)
    downwards(ax, 4.87, 1.1, 0.38, "yes")
    box(ax, 4.0, 0.0, 1.75, 0.72, "first_mismatch\nwith a good copy", NAVY, fontsize=8.8)
    arrow(ax, (5.75, 0.36), (6.75, 0.36))
    leaf(ax, 6.75, 0.0, "silent", "the first place that\ndiffers, and why", 1.75)
    return show(
        figure,
        "A decision tree, from cheap to dear. 1, does it open: no leads to file format. 2, does every tensor fit, is "
        "every value a number: no leads to shape, to dtype and device, or to silent damage. 3, are the logits finite: "
        "no leads to dtype and device. 4, do words and ids belong together: no leads to tokenizer. 5, is known text "
        "as likely as it was: yes means healthy as far as anybody can tell; no asks whether the ids are those of a "
        "good copy. If they are not, it is the tokenizer; if they are, first_mismatch names the first place that "
        "differs.",
    )


def leaf(ax: "Axes", x: float, y: float, department: str, look: str, width: float = 3.4) -> None:
    """Where a "no" leads: the department, and what is looked at there."""
    box(ax, x, y, width, 0.72, "", PEARL)
    narrow = width < 2
    ax.text(x + 0.1, y + 0.36 + 0.2 * narrow, department, color=NAVY, fontsize=9.5, fontweight="bold", va="center")
    place = (x + 0.1, y + 0.25) if narrow else (x + 1.5, y + 0.36)
    ax.text(*place, look, color=CHARCOAL, fontsize=8 if narrow else 8.2, va="center", linespacing=1.2)


def downwards(ax: "Axes", x: float, y: float, length: float, answer: str) -> None:
    arrow(ax, (x, y), (x, y - length))
    ax.text(x + 0.08, y - length / 2, answer, color=CHARCOAL, fontsize=8, va="center")


def sideways(ax: "Axes", start: float, end: float, y: float) -> None:
    arrow(ax, (start, y), (end, y))
    ax.text((start + end) / 2, y + 0.07, "no", color=CHARCOAL, fontsize=8, ha="center", va="bottom")
