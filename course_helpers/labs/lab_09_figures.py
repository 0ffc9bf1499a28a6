"""The drawings of M9-LAB-09: its ideas, without numbers. Its charts are in `lab_09_charts.py`."""

from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SLATE, SOFT_GREY, arrow, box, canvas, show

if TYPE_CHECKING:
    from IPython.display import Image

#: The tiers of the protocol: what they ask, and the names of their checks in order.
TIERS = (
    ("ground", "is it there,\nand whole?", ("opens", "config", "placed", "words")),
    ("behaviour", "does it do what\nevery model must?", ("forward", "cached", "batched")),
    ("known answers", "is it this\nvery model?", ("greedy", "loss")),
)


def protocol() -> "Image":
    """The opening picture: nine checks in three tiers, what follows green and red, and the manifest below them."""
    figure, ax = canvas(8.6, 3.5)
    box(ax, 0.1, 1.75, 1.15, 1.0, "a checkpoint\nof any family", fontsize=9)
    arrow(ax, (1.25, 2.25), (1.6, 2.25))
    for index, (title, question, names) in enumerate(TIERS):
        x = 1.6 + index * 1.75
        box(ax, x, 1.35, 1.6, 1.8, "", PEARL)
        ax.text(x + 0.8, 3.2, title, color=NAVY, fontsize=10.5, fontweight="bold", ha="center", va="bottom")
        for row, name in enumerate(names):
            box(ax, x + 0.12, 2.77 - row * 0.41, 1.36, 0.31, name, SOFT_GREY, fontsize=9)
        ax.text(x + 0.8, 1.28, question, color=SLATE, fontsize=8.6, ha="center", va="top", linespacing=1.25)
        if index < 2:
            arrow(ax, (x + 1.6, 2.25), (x + 1.75, 2.25))
    arrow(ax, (6.7, 2.45), (7.15, 2.75))
    arrow(ax, (6.7, 2.05), (7.15, 1.75))
    box(ax, 7.15, 2.5, 1.35, 0.6, "all green:\ngo on", NAVY, fontsize=9)
    box(ax, 7.15, 1.4, 1.35, 0.6, "one is red:\nits name says\nwhere to look", GOLD, fontsize=8)
    box(
        ax,
        1.6,
        0.15,
        3.1,
        0.6,
        "the manifest: which files, which settings,\nwhich texts came out",
        SOFT_GREY,
        fontsize=8.8,
    )
    arrow(ax, (4.7, 0.45), (5.15, 0.45))
    again = "the same run again, in a fresh process:\nevery field the same, or the one that is not"
    box(ax, 5.15, 0.15, 3.35, 0.6, again, NAVY, fontsize=8.8)
    ax.text(0.1, 0.45, "and so that\nanybody can\nrerun it:", color=SLATE, fontsize=8.5, va="center", linespacing=1.3)
    text = "; ".join(f"{title}: {', '.join(names)}" for title, _, names in TIERS)
    return show(
        figure,
        f"A checkpoint of any family goes through nine checks in three tiers. {text}. All green: go on. One is red: "
        "its name says where to look. Below: the manifest holds which files, settings and texts, and the same run in a "
        "fresh process shows every field the same, or the one that is not.",
    )


#: What `verify` does with a difference: title, what it is about, and why.
TREATMENT = (
    (
        "must match exactly",
        "a difference ends the trust",
        "every byte of every file\nthe config as it is understood\nthe tokenizer and its ids\n"
        "ids and texts that came out\nwhich layers of checks passed",
    ),
    (
        "may differ, and is said",
        "a warning: look at the results",
        "versions of Python, torch\nand the tokenizer libraries:\nthey may change something,\nor nothing",
    ),
    (
        "is never compared",
        "true of the machine, not of the run",
        "seconds, tokens per second\npeak of memory\ndate, processor, cores\n"
        "the last bits of logits,\nand the margin that\nthey moved",
    ),
)


def what_is_compared() -> "Image":
    """Three kinds of fields in a manifest: those that must match, those that may differ, those that nobody compares."""
    figure, ax = canvas(8.6, 2.6)
    for index, (title, meaning, fields) in enumerate(TREATMENT):
        x, fill = 0.1 + index * 2.85, (NAVY, GOLD, SOFT_GREY)[index]
        box(ax, x, 0.15, 2.65, 1.65, fields, fill, fontsize=9)
        ax.text(x + 0.03, 2.2, title, color=NAVY, fontsize=11, fontweight="bold", va="bottom")
        ax.text(x + 0.03, 1.93, meaning, color=SLATE, fontsize=8.8, va="bottom")
    text = "; ".join(f"{title} ({meaning}): {' '.join(fields.split())}" for title, meaning, fields in TREATMENT)
    return show(figure, f"Three boxes. {text}.")


def fallback() -> "Image":
    """What to do when a check is red: go on with what is known to be good, and only then look for the cause."""
    figure, ax = canvas(8.6, 2.35)
    names = (
        ("the new one", "smoke: red", SOFT_GREY),
        ("your last good one", "smoke: green?", SOFT_GREY),
        ("the baseline", "small, pinned, always there", NAVY),
    )
    for index, (title, text, fill) in enumerate(names):
        x = 0.1 + index * 2.95
        box(ax, x, 1.15, 2.3, 0.75, f"{title}\n{text}", fill, fontsize=9.5)
        if index < 2:
            arrow(ax, (x + 2.3, 1.52), (x + 2.95, 1.52))
            ax.text(x + 2.62, 1.6, "red", color=CHARCOAL, fontsize=9, ha="center", va="bottom")
    ax.text(0.1, 1.98, "1  keep working", color=NAVY, fontsize=11, fontweight="bold", va="bottom")
    ax.text(0.1, 0.62, "2  then find out why", color=NAVY, fontsize=11, fontweight="bold", va="bottom")
    box(
        ax,
        0.1,
        0.1,
        8.2,
        0.42,
        "the first red check  \u2192  its row in the table below  \u2192  one fix  \u2192  the whole suite again",
        SOFT_GREY,
        fontsize=9.5,
    )
    return show(
        figure,
        "Two steps. First, keep working: from the new checkpoint, if it is red, to your last good one, and if that is "
        "red, to the baseline, which is small, pinned and always there. Second, find out why: the first red check, its "
        "row in the table below, one fix, the whole suite again.",
    )
