"""The triage of M9-LAB-08: twenty broken checkpoints run down a trunk, and every look takes some of them out.

The trunk is as wide as the number of checkpoints that are still unexplained, a branch as wide as the number that a
look stops there. So two things are seen before anything is read: cheap looks stop more than half, and the widest branch
is the one at the bottom, which shows no symptom at all. Counts, causes and cures are what the lab recorded.
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
    ("files", "file format"): "refused on opening",
    ("shapes", "shape"): "refused on loading",
    ("shapes", "dtype/device"): "refused on loading",
    ("shapes", "silent"): "a fluent text",
    ("forward", "dtype/device"): "one token, for ever",
    ("generation", "tokenizer"): "word salad",
    ("baseline", "tokenizer"): "a fluent text",
    ("baseline", "silent"): "nearly all fluent",
}
FOCUS = "baseline", "silent"

UNIT = 6.4  # pixels of trunk for one checkpoint
TRUNK, TOP, BOTTOM = 218, 66, 646  # left edge of the trunk; where it begins and where leaves end
LEAF, RIGHT, GAP = 400, 1072, 9
CAUSE, CURE = LEAF + 220, LEAF + 456  # columns within a leaf
LINE, PAD = 22, 13


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
        most = 5 if self.focus else 4
        return self.causes if self.count <= most else (*self.causes[: most - 1], f"and {self.count - most + 1} more")


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
    total = sum(leaf.count for leaf in leaves)
    headings(drawing, total)
    spots, left = list(placed(leaves)), total
    drawing.rect(TRUNK, TOP - 14, total * UNIT, 14.5, NAVY, radius=0)
    for number, (look, milliseconds) in enumerate(results["milliseconds_per_look"].items(), 1):
        here = [spot for spot in spots if spot[0].look == look]
        gate_y = here[0][1] - GAP / 2 if number > 1 else TOP
        segment(drawing, gate_y, left, here)
        gate(drawing, gate_y, number, look, milliseconds)
        left -= sum(leaf.count for leaf, *_ in here)
    for leaf, top, height in spots:
        draw_leaf(drawing, leaf, top, height)
    late = sum(leaf.count for leaf in leaves if leaf.look == FOCUS[0])
    early = f"{total - late} of {total} are explained before look {len(LOOKS)}"
    drawing.paragraph(28, BOTTOM - 54, TRUNK - 40, early, 18, 650, GOLD_INK)


def placed(leaves: Sequence[Leaf]) -> Iterator[tuple[Leaf, float, float]]:
    """Every leaf with its top and height: room for its lines, and what is over shared out."""
    natural = [max(2, len(leaf.shown), len(leaf.cures)) * LINE + PAD for leaf in leaves]
    spare = (BOTTOM - TOP - sum(natural) - GAP * (len(leaves) - 1)) / len(leaves)
    top = TOP
    for leaf, height in zip(leaves, natural, strict=True):
        yield leaf, top, height + spare
        top += height + spare + GAP


def headings(drawing: Drawing, total: int) -> None:
    drawing.text(28, 42, "First look", 18, 650, NAVY)
    drawing.text(TRUNK + total * UNIT / 2, 42, f"{total} checkpoints", 18, 650, NAVY, "middle")
    for x, word in ((LEAF + 14, "Symptom"), (CAUSE, "Cause"), (CURE, "Recovery")):
        drawing.text(x, 42, word, 18, 650, NAVY)


def segment(drawing: Drawing, top: float, left: int, here: Sequence[tuple[Leaf, float, float]]) -> None:
    """The trunk from one look down to the next, and the branches that leave it to the right."""
    last = here[-1]
    bottom = last[1] + last[2] + GAP / 2
    remaining = left - sum(leaf.count for leaf, *_ in here)
    if remaining:
        drawing.rect(TRUNK, top, remaining * UNIT, bottom - top + 1, NAVY, radius=0)
    edge = left
    for leaf, y, height in here:
        branch(drawing, top, edge - leaf.count, leaf, y + height / 2)
        edge -= leaf.count


def branch(drawing: Drawing, top: float, place: int, leaf: Leaf, middle: float) -> None:
    """A ribbon that leaves the trunk's right side downward and arrives at its leaf from the left."""
    inner, outer = TRUNK + place * UNIT, TRUNK + (place + leaf.count) * UNIT
    half = leaf.count * UNIT / 2
    high, low = middle - half, middle + half
    turn = min(30.0, max(6.0, high - top))
    wide = turn + 2 * half
    d = (
        f"M{inner:.1f} {top:.1f} V{low - wide:.1f} Q{inner:.1f} {low:.1f} {inner + wide:.1f} {low:.1f} H{LEAF} "
        f"V{high:.1f} H{outer + turn:.1f} Q{outer:.1f} {high:.1f} {outer:.1f} {high - turn:.1f} V{top:.1f} Z"
    )
    drawing.path(d, GOLD if leaf.focus else SKY, stroke=None)


def gate(drawing: Drawing, y: float, number: int, look: str, milliseconds: float) -> None:
    """A look: a line across the trunk, and at its left what is done there and how long it takes."""
    drawing.line(28, y, TRUNK - 10, y, HAIRLINE, 2)
    drawing.line(TRUNK - 1, y, LEAF - 40, y, WHITE, 2.5)
    drawing.text(28, y + 25, f"{number}  {look}", 19, 700, NAVY)
    amount = f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    drawing.text(TRUNK - 12, y + 25, amount, 16, 600, MUTED, "end")
    drawing.text(28, y + 47, LOOKS[look], 16, 400, CHARCOAL, fit=TRUNK - 40)


def draw_leaf(drawing: Drawing, leaf: Leaf, top: float, height: float) -> None:
    fill, ink = (GOLD_TINT, GOLD_INK) if leaf.focus else (SKY_TINT, NAVY)
    drawing.rect(LEAF, top, RIGHT - LEAF, height, fill, radius=9)
    middle = top + height / 2
    drawing.text(LEAF + 16, middle + 10, str(leaf.count), 28, 750, ink)
    drawing.text(LEAF + 50, middle - 3, leaf.department, 19, 700, ink)
    drawing.text(LEAF + 50, middle + 19, SYMPTOMS[leaf.look, leaf.department], 16, 400, CHARCOAL, fit=CAUSE - LEAF - 54)
    lines(drawing, CAUSE, middle, leaf.shown, CURE - CAUSE - 10)
    cures = [f"{cure} (× {count})" if count > 1 else cure for cure, count in leaf.cures.items()]
    lines(drawing, CURE, middle, cures, RIGHT - CURE - 6)


def lines(drawing: Drawing, x: float, middle: float, texts: Sequence[str], fit: float) -> None:
    first = middle - (len(texts) - 1) * LINE / 2 + 5.5
    for index, text in enumerate(texts):
        drawing.text(x, first + index * LINE, text, 16, 400, CHARCOAL, fit=fit)
