"""The drawings of M9-LAB-APP-A: its ideas, without numbers. Its charts are in `lab_app_a_charts.py`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, SOFT_GREY, arrow, box, canvas, show

if TYPE_CHECKING:
    from IPython.display import Image

#: The same colours as in the timelines of `memory.MemoryUse.plot`; the third is what a load lets go of again.
PRIVATE, FILE_BACKED, TEMPORARY = NAVY, GOLD, SKY


def four_questions() -> "Image":
    """The opening picture: what the checklist asks, in which order, and what each question saves you from."""
    figure, ax = canvas(8.6, 2.45)
    questions = (
        ("config", "Is every number of\nthe model known,\nand none guessed?", "another model\nin the same shapes"),
        ("tokenizer", "Does text come back,\nand has every id\nan embedding?", "noise goes in,\nnoise comes out"),
        ("memory", "How much will it\ntake, and did it\ntake just that?", "a process killed\nhalf-way"),
        ("first prompt", "Does it say what\na right model\nwould say?", "everything that\nno file can tell"),
    )
    for index, (title, question, danger) in enumerate(questions):
        x = 0.1 + index * 2.15
        box(ax, x, 1.1, 1.75, 0.95, question, fontsize=9)
        ax.text(x + 0.03, 2.13, f"{index + 1}  {title}", color=NAVY, fontsize=11, fontweight="bold", va="bottom")
        ax.text(x + 0.875, 0.86, "saves you from", color=SLATE, fontsize=8, ha="center", va="center")
        ax.text(x + 0.875, 0.46, danger, color=CHARCOAL, fontsize=9, ha="center", va="center", linespacing=1.35)
        if index < 3:
            arrow(ax, (x + 1.75, 1.57), (x + 2.15, 1.57))
    return show(
        figure,
        "Four boxes in a row, joined by arrows: config, is every number known and none guessed; tokenizer, does text "
        "come back and has every id an embedding; memory, how much will it take and did it take just that; first "
        "prompt, does it say what a right model would say. Below each, what it saves you from: another model in the "
        "same shapes; noise; a killed process; everything that no file can tell.",
    )


def two_kinds_of_memory() -> "Image":
    """Private pages and windows onto a file, and where their bytes are."""
    figure, ax = canvas(8.6, 3.05)
    box(ax, 0.1, 0.75, 1.5, 1.3, "disk\n\nmodel.safetensors", SOFT_GREY, fontsize=9)
    box(ax, 2.75, 0.75, 1.75, 1.3, "page cache\n\nthe system's copy of\nwhat was read", SOFT_GREY, fontsize=9)
    box(ax, 5.9, 1.7, 2.5, 0.85, "private memory\na copy of our own", PRIVATE, fontsize=9.5)
    box(ax, 5.9, 0.3, 2.5, 0.85, "file-backed memory\na window onto the cache", FILE_BACKED, fontsize=9.5)
    arrow(ax, (1.6, 1.4), (2.75, 1.4))
    arrow(ax, (4.5, 1.65), (5.9, 2.1))
    arrow(ax, (4.5, 1.15), (5.9, 0.72))
    ax.text(2.17, 1.5, "first read", color=CHARCOAL, fontsize=8.5, ha="center")
    ax.text(5.1, 2.08, "copy", color=CHARCOAL, fontsize=8.5, ha="center")
    ax.text(5.1, 0.62, "map", color=CHARCOAL, fontsize=8.5, ha="center")
    ax.text(7.15, 2.65, "the process", color=NAVY, fontsize=10, fontweight="bold", ha="center")
    ax.text(3.62, 2.2, "the system", color=NAVY, fontsize=10, fontweight="bold", ha="center")
    ax.text(7.15, 0.08, "can be dropped and read again", color=SLATE, fontsize=8.5, ha="center")
    ax.text(7.15, 1.48, "stays until we let go of it", color=SLATE, fontsize=8.5, ha="center")
    return show(
        figure,
        "Bytes go from the disk to the system's page cache at the first read. From there the process either copies "
        "them into private memory, which stays until the process lets go of it, or maps them: file-backed memory, a "
        "window onto the page cache that can be dropped and read again.",
    )


#: What a strategy holds at its worst moment: (what, kind of memory, share of the model). The largest tensor is drawn
#: as an eighth of the model.
DRAWN: Mapping[str, Sequence[tuple[str, str, float]]] = {
    "naive": (("model", PRIVATE, 1), ("whole file", TEMPORARY, 1)),
    "sequential": (("model", PRIVATE, 1), ("one tensor", TEMPORARY, 0.16)),
    "mmap": (("model", FILE_BACKED, 1),),
    "stream": (("model", PRIVATE, 1),),
}
HOW = {
    "naive": "build, read all,\ncopy",
    "sequential": "build, then read\nand copy one by one",
    "mmap": "no memory: windows\nonto the file",
    "stream": "no memory: each tensor\nread into its place",
}


def four_strategies() -> "Image":
    """What each strategy holds at its worst moment, as piles of boxes."""
    figure, ax = canvas(8.6, 3.3)
    for index, (strategy, pile) in enumerate(DRAWN.items()):
        x, y = 0.35 + index * 2.1, 0.52
        for what, colour, share in pile:
            height = 1.05 * share
            ax.add_patch(rectangle(x, y, 1.4, height, colour))
            dark = colour == PRIVATE
            ax.text(
                x + 0.7, y + height / 2, what, ha="center", va="center", fontsize=9, color="white" if dark else CHARCOAL
            )
            y += height
        ax.text(x + 0.7, y + 0.06, strategy, ha="center", va="bottom", color=NAVY, fontsize=11, fontweight="bold")
        ax.text(x + 0.7, 0.42, HOW[strategy], ha="center", va="top", color=CHARCOAL, fontsize=8.5, linespacing=1.3)
    ax.plot((0.1, 8.4), (0.52, 0.52), color=SLATE, linewidth=1)
    names = {"private, to stay": PRIVATE, "private, for a while": TEMPORARY, "file-backed": FILE_BACKED}
    for index, (name, colour) in enumerate(names.items()):
        ax.add_patch(rectangle(2.35 + index * 2.1, 3.02, 0.2, 0.16, colour))
        ax.text(2.63 + index * 2.1, 3.1, name, color=CHARCOAL, fontsize=9, va="center")
    return show(
        figure,
        "What each strategy holds at its worst moment. Naive: the model and the whole file, both private. Sequential: "
        "the model and one tensor. Mmap: the model as file-backed memory. Stream: the model in private memory, alone.",
    )


def rectangle(x: float, y: float, width: float, height: float, fill: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=fill, edgecolor=PEARL, linewidth=1, zorder=2)
