"""The triage of M9-LAB-08: twenty broken checkpoints run down a trunk, and every look takes some of them out.

The trunk is as wide as the number of checkpoints that are still unexplained, a branch as wide as the number that a
look stops. So two things are seen before anything is read: the looks before the last stop more than half, and the
widest branch is the one at the bottom, which shows no symptom at all. All looks are equally tall, because their time is
a bar of its own. Counts, times, causes and cures are what the lab recorded.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    SKY,
    SKY_TINT,
    SLATE,
    WHITE,
)

from . import figure
from .numbers import measured
from .svg import Drawing

LAB = "M9-LAB-08"
#: what each look does, in the lab's order
LOOKS = {
    "files": "open, read no weight",
    "shapes": "load, see every value",
    "forward": "one pass: numbers?",
    "generation": "tokenizer and model",
    "baseline": "known texts' losses",
}
#: what the owner of a checkpoint sees who just loads it and lets it write: the lab's waiting room, in short
SYMPTOMS = {
    ("files", "file format"): "will not open",
    ("shapes", "shape"): "will not load",
    ("shapes", "dtype/device"): "will not load",
    ("shapes", "silent"): "a fluent text",
    ("forward", "dtype/device"): "one token for ever",
    ("generation", "tokenizer"): "word salad",
    ("baseline", "tokenizer"): "a fluent text",
    ("baseline", "silent"): "nearly all fluent",
}
FOCUS = "baseline", "silent"

LEFT, LABELS = 28, 206  # the looks' column
UNIT = 7  # pixels of trunk for one checkpoint
TRUNK, TOP, BOTTOM = 220, 66, 650  # left edge of the trunk; where it begins and where leaves end
STAGE, LONGEST = 105, 112  # from look to look; the bar of the slowest
LEAF, RIGHT, GAP = 388, 1072, 8
CAUSE, CURE = LEAF + 210, LEAF + 456  # columns within a leaf
LINE, PAD, MOST = 21, 12, 4  # of a leaf's text; so many lines at most


@dataclass(frozen=True)
class Leaf:
    """The checkpoints that one look stops for one kind of reason."""

    look: str
    department: str
    causes: tuple[str, ...]
    cures: Mapping[str, int]

    @property
    def count(self) -> int:
        return len(self.causes)

    @property
    def focus(self) -> bool:
        return (self.look, self.department) == FOCUS

    @property
    def shown(self) -> Sequence[str]:
        """Causes, one a line; of many, some, and how many more."""
        return self.causes if self.count <= MOST else (*self.causes[: MOST - 1], f"and {self.count - MOST + 1} more")


def leaves_of(faults: Sequence[Mapping[str, Any]]) -> list[Leaf]:
    """The leaves in the order of the looks; within a look, the larger first."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for fault in faults:
        groups.setdefault((fault["noticed_by"], fault["department"]), []).append(fault)
    leaves = [
        Leaf(look, department, tuple(row["what_was_done"] for row in rows), Counter(kind_of(row) for row in rows))
        for (look, department), rows in groups.items()
    ]
    return sorted(leaves, key=lambda leaf: (list(LOOKS).index(leaf.look), leaf.focus, -leaf.count))


def kind_of(fault: Mapping[str, Any]) -> str:
    """A cure in two words: whatever is fetched, it is fetched again."""
    return "fetch again" if fault["cure"].startswith("fetch again") else fault["cure"]


@figure
def failure_tree(drawing: Drawing) -> None:
    results = measured(drawing, LAB)
    leaves = leaves_of(results["faults"])
    total = left = sum(leaf.count for leaf in leaves)
    times = results["milliseconds_per_look"]
    headings(drawing, total)
    spots = list(placed(leaves))
    drawing.rect(TRUNK, TOP - 14, total * UNIT, 14.5, NAVY, radius=0)
    for index, (look, milliseconds) in enumerate(times.items()):
        here = [(leaf, top + height / 2) for leaf, top, height in spots if leaf.look == look]
        y = TOP + STAGE * index
        stage(drawing, y, left, here)
        gate(drawing, y, f"{index + 1}  {look}", LOOKS[look])
        clock(drawing, y + 67, milliseconds, LONGEST / max(times.values()))
        left -= sum(leaf.count for leaf, _ in here)
    for leaf, top, height in spots:
        draw_leaf(drawing, leaf, top, height)
    late = sum(leaf.count for leaf in leaves if leaf.look == FOCUS[0])
    early = f"{total - late} of {total} stop before look {len(LOOKS)}"
    drawing.paragraph(LEFT, BOTTOM - 32, LABELS - LEFT, early, 20, 650, GOLD_INK, leading=1.25)


def placed(leaves: Sequence[Leaf]) -> Iterator[tuple[Leaf, float, float]]:
    """Every leaf with its top and height: room for its lines, and what is over shared out."""
    natural = [max(2, len(leaf.shown), len(leaf.cures)) * LINE + PAD for leaf in leaves]
    spare = (BOTTOM - TOP - sum(natural) - GAP * (len(leaves) - 1)) / len(leaves)
    top = TOP
    for leaf, height in zip(leaves, natural, strict=True):
        yield leaf, top, height + spare
        top += height + spare + GAP


def headings(drawing: Drawing, total: int) -> None:
    drawing.text(LEFT, 40, "First look", 20, 650, NAVY)
    drawing.text(TRUNK + total * UNIT / 2, 40, f"{total} checkpoints", 20, 650, NAVY, "middle")
    for x, word in ((LEAF + 14, "Symptom"), (CAUSE, "Cause"), (CURE, "Recovery")):
        drawing.text(x, 40, word, 20, 650, NAVY)


def stage(drawing: Drawing, top: float, left: int, here: Sequence[tuple[Leaf, float]]) -> None:
    """The trunk from one look down to the next, and the branches that leave it there, each to its leaf's middle."""
    remaining = left - sum(leaf.count for leaf, _ in here)
    if remaining:
        drawing.rect(TRUNK, top, remaining * UNIT, STAGE + 1, NAVY, radius=0)
    edge = left
    for leaf, middle in here:
        branch(drawing, top, edge - leaf.count, leaf, middle)
        edge -= leaf.count
    drawing.line(TRUNK - 1, top, TRUNK + left * UNIT + 1, top, WHITE, 3)


def branch(drawing: Drawing, top: float, place: int, leaf: Leaf, middle: float) -> None:
    """A ribbon that runs down beside the trunk and turns to its leaf; those of later looks run inside of it."""
    inner, outer = TRUNK + place * UNIT, TRUNK + (place + leaf.count) * UNIT
    half = leaf.count * UNIT / 2
    high, low = middle - half, middle + half
    turn = min(24.0, max(6.0, high - top))
    wide = turn + 2 * half
    d = (
        f"M{inner:.1f} {top:.1f} V{low - wide:.1f} Q{inner:.1f} {low:.1f} {inner + wide:.1f} {low:.1f} H{LEAF} "
        f"V{high:.1f} H{outer + turn:.1f} Q{outer:.1f} {high:.1f} {outer:.1f} {high - turn:.1f} V{top:.1f} Z"
    )
    drawing.path(d, GOLD if leaf.focus else SKY, stroke=WHITE, line=1.5)


def gate(drawing: Drawing, y: float, name: str, what: str) -> None:
    """A look: a line that leads to the trunk, and what is done there."""
    drawing.line(LEFT, y, TRUNK - 8, y, HAIRLINE, 2)
    drawing.text(LEFT, y + 27, name, 20, 700, NAVY)
    drawing.text(LEFT, y + 50, what, 17, 400, CHARCOAL, fit=TRUNK - LEFT - 10)


def clock(drawing: Drawing, y: float, milliseconds: float, scale: float) -> None:
    """How long a look takes: a bar, all of one scale."""
    width = max(3, milliseconds * scale)
    drawing.rect(LEFT, y, width, 10, SLATE, radius=2)
    amount = f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    drawing.text(LEFT + width + 8, y + 11, amount, 17, 600, MUTED)


def draw_leaf(drawing: Drawing, leaf: Leaf, top: float, height: float) -> None:
    fill, ink = (GOLD_TINT, GOLD_INK) if leaf.focus else (SKY_TINT, NAVY)
    drawing.rect(LEAF, top, RIGHT - LEAF, height, fill, radius=9)
    middle = top + height / 2
    drawing.text(LEAF + 16, middle + 10, str(leaf.count), 28, 750, ink)
    drawing.text(LEAF + 48, middle - 3, leaf.department, 19, 700, ink)
    drawing.text(LEAF + 48, middle + 19, SYMPTOMS[leaf.look, leaf.department], 17, 400, CHARCOAL, fit=CAUSE - LEAF - 54)
    lines(drawing, CAUSE, middle, leaf.shown, CURE - CAUSE - 10)
    cures = [f"{cure} (× {count})" if count > 1 else cure for cure, count in leaf.cures.items()]
    lines(drawing, CURE, middle, cures, RIGHT - CURE - 6)


def lines(drawing: Drawing, x: float, middle: float, texts: Sequence[str], fit: float) -> None:
    first = middle - (len(texts) - 1) * LINE / 2 + 5.5
    for index, text in enumerate(texts):
        drawing.text(x, first + index * LINE, text, 17, 400, CHARCOAL, fit=fit)
