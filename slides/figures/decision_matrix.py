"""The decision matrix: what somebody wants and has, at the left; what the planner makes of it for every family.

Four wishes go through `course_helpers.planner` when the deck is built: a cell says which size of a family fits, or the
one constraint that refuses it; gold is the smallest that fits, and where one begins. In the same columns below stands
what was measured of each family's bundled checkpoint: a path that fits must also be one that can be trusted.
"""

import functools
from collections.abc import Mapping
from typing import Any

from course_helpers.dtypes import short
from course_helpers.families import FAMILIES
from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    SKY_TINT,
    SOFT_GREY,
    SOUND,
)
from course_helpers.planning.objectives import OBJECTIVES

from . import figure
from .numbers import computed
from .parts_families import deck_name
from .parts_measured import measured_together
from .svg import Drawing

GB = 10**9
#: objective, machine, ceiling in bytes (None: the machine's own), tokens a second at least
WISHES = (
    ("classify", "laptop-8GB", None, 20),
    ("chat", "laptop-8GB", None, 10),
    ("write", "T4", 8 * GB, 20),
    ("code", "H100", None, 100),
)
SUITE, RULERS, CHOICE = "M9-LAB-09", "M9-CODE-02", "M9-LAB-APP-B"

LEFT, HEAD, TOP, ROW, CELL = 30, 39, 61, 49, 43  # of the matrix: its head's baseline, its first row, a row, a cell
FAMILY, PITCH, GAP = 388, 136, 8
BEST, RESERVE, RIGHT = 1364, 1564, 1746
EVIDENCE, LINE = 283, 33  # the first of the rows below the matrix, and from one to the next


@functools.cache
def plans() -> tuple[Any, ...]:
    """What the planner says to every wish. Asked once: it takes some seconds."""
    from course_helpers.planner import plan

    return tuple(
        plan(objective, machine, memory=memory, tokens_per_second=speed) for objective, machine, memory, speed in WISHES
    )


@figure
def decision_matrix(drawing: Drawing) -> None:
    computed(drawing, "planner, on data sheets")
    records = measured_together(drawing, SUITE, RULERS, CHOICE)
    heads(drawing)
    for index, plan in enumerate(plans()):
        y = TOP + ROW * index
        if index:
            for start, stop in ((LEFT, FAMILY - 24), (BEST, RIGHT)):
                drawing.line(start, y - (ROW - CELL) / 2, stop, y - (ROW - CELL) / 2, HAIRLINE, 1.5)
        wish(drawing, y, plan, marked=not index)
        verdicts(drawing, y, plan)
        recommendation(drawing, y, plan, marked=not index)
    evidence(drawing, records)
    reason(drawing, records[CHOICE]["why"])


def heads(drawing: Drawing) -> None:
    end = FAMILY + PITCH * len(FAMILIES) - GAP
    after(drawing, LEFT, HEAD, "constraints", 1, NAVY)
    for index, family in enumerate(FAMILIES):
        drawing.text(column(index), HEAD, deck_name(family), 20, 650, NAVY, "middle", fit=PITCH)
    after(drawing, BEST, HEAD, "smallest fit", 2, GOLD_INK)
    after(drawing, RESERVE, HEAD, "in reserve", 9, GOLD_INK)
    for start, stop, ink in ((LEFT, FAMILY - 24, NAVY), (FAMILY, end, HAIRLINE), (BEST, RIGHT, GOLD)):
        drawing.line(start, HEAD + 14, stop, HEAD + 14, ink, 2.5)


def after(drawing: Drawing, x: float, y: float, text: str, number: int, ink: str) -> None:
    """A heading and the marker behind it."""
    drawing.marker(x + drawing.text(x, y, text, 20, 650, ink) + 26, y - 7, number)


def column(index: int) -> float:
    """The centre of a family's column."""
    return FAMILY + PITCH * index + (PITCH - GAP) / 2


def wish(drawing: Drawing, y: float, plan: Any, marked: bool) -> None:
    """What for, and on which machine; below it how much text, memory and time."""
    request = plan.request
    name = next(name for name, objective in OBJECTIVES.items() if objective is request.objective)
    width = drawing.text(LEFT, y + 20, name, 20, 700, NAVY)
    drawing.text(LEFT + width + 8, y + 20, f"on {request.machine.name}", 19, 450, CHARCOAL)
    rows = f"{request.work.batch_size} × " if request.work.batch_size > 1 else ""
    limits = f"{request.machine.memory / GB:g} GB · {1000 / request.tokens_per_second:g} ms/token"
    what = f"{rows}{request.work.context:,} tokens · {limits}"
    drawing.text(LEFT, y + 39, what, 17, 400, MUTED, fit=FAMILY - LEFT - 14)
    if marked:
        drawing.marker(FAMILY - 41, y + 18, 11)


def verdicts(drawing: Drawing, y: float, plan: Any) -> None:
    """A cell a family: the smallest of its sizes that fits, or what refuses the size that came nearest."""
    for index, family in enumerate(FAMILIES):
        x, width, middle, line = FAMILY + PITCH * index, PITCH - GAP, column(index), y + CELL / 2 + 7
        fits = next((choice for choice in plan.choices if choice.family == family), None)
        if fits is None:
            drawing.rect(x, y, width, CELL, SOFT_GREY, radius=8)
            drawing.text(middle, line, obstacle(plan, family), 18, 400, MUTED, "middle", fit=width - 6)
            continue
        best = fits is plan.best
        drawing.rect(x, y, width, CELL, GOLD if best else SKY_TINT, radius=8)
        what = f"{fits.parameters / 1e9:.1f}B · {1000 * fits.seconds_per_token:.0f} ms"
        drawing.text(middle, line, what, 19, 700 if best else 600, NAVY, "middle", fit=width - 4)


def obstacle(plan: Any, family: str) -> str:
    """Why no size of a family will do, in two words: of the smallest that suits the objective, or else the largest."""
    refused = [refusal for refusal in plan.refused if refusal.family == family]
    nearest = next((refusal for refusal in refused if refusal.remedies), refused[-1])
    reason = nearest.reasons[0]
    words = reason.split()
    if "too much" in reason:
        return f"{float(words[0]):.0f} GB over"
    if "tokens/s" in reason:
        return f"{float(words[0]):.0f} tokens/s"
    if reason.startswith("made for"):
        return f"max {words[2]}"
    if reason.startswith("below"):
        return f"under {plan.request.objective.parameters / 1e9:g}B"
    return "gated" if reason.startswith("gated") else " ".join(words[1:3])


def recommendation(drawing: Drawing, y: float, plan: Any, marked: bool) -> None:
    """The model to begin with and how it is loaded, and the one that waits."""
    best = plan.best
    drawing.text(BEST, y + 20, bare(best.hub_id), 20, 700, NAVY, fit=RESERVE - BEST - 8)
    width = drawing.text(BEST, y + 39, f"{short(best.dtype)}, {best.strategy}", 17, 400, CHARCOAL)
    if marked:
        drawing.marker(BEST + width + 24, y + 27, 3)
    drawing.text(RESERVE, y + 20, bare(plan.choices[1].hub_id), 18, 450, MUTED, fit=RIGHT - RESERVE)


def bare(hub_id: str) -> str:
    return hub_id.rpartition("/")[2]


def evidence(drawing: Drawing, records: Mapping[str, Mapping[str, Any]]) -> None:
    """What was measured of each family, in the same columns."""
    suite, rulers = records[SUITE], records[RULERS]["rulers"]
    rows = (
        ((4, "smoke suite"), (8, "all greedy"), lambda tiny, _: passed(suite["checks"][tiny])),
        ((5, "tokenizer"), None, lambda _, family: library(family.tokenizer)),
        ((6, "same stories"), (7, "bits in 100 bytes"), lambda tiny, _: f"{rulers[tiny]['bits in 100 bytes']:.2f}"),
    )
    for place, (first, second, of) in enumerate(rows):
        y = EVIDENCE + LINE * place
        for x, label in ((LEFT + 16, first), (LEFT + 178, second)):
            if label:
                drawing.marker(x, y, label[0])
                drawing.text(x + 26, y + 6, label[1], 18, 500, CHARCOAL, fit=FAMILY - x - 30)
        for index, family in enumerate(FAMILIES.values()):
            ink, weight = (SOUND, 650) if not place else (CHARCOAL, 450)
            drawing.text(column(index), y + 6, of(family.tiny, family), 17, weight, ink, "middle", fit=PITCH)
        drawing.line(LEFT, y - LINE / 2, FAMILY + PITCH * len(FAMILIES) - GAP, y - LINE / 2, HAIRLINE, 1.5)


def library(tokenizer: str) -> str:
    """What reads a tokenizer, as the row in FAMILIES says it in brackets."""
    return tokenizer.rpartition("(")[2].rstrip(")")


def passed(checks: Mapping[str, str]) -> str:
    return f"{sum(word == 'green' for word in checks.values())} of {len(checks)}"


def reason(drawing: Drawing, why: str) -> None:
    """The sentence that the runbook lab pins in its manifest, and where to go when what should work does not."""
    top, x = EVIDENCE - LINE / 2, BEST + 42
    drawing.rect(BEST - 12, top, RIGHT - BEST + 12, 3 * LINE, GOLD_TINT, radius=10)
    drawing.marker(BEST + 12, top + 23, 10)
    drawing.paragraph(x, top + 31, RIGHT - x - 12, f"“{why.partition('/')[2]}”", 18, 500, GOLD_INK, leading=1.3)
    drawing.marker(BEST + 12, top + 77, 12)
    drawing.text(x, top + 83, "fits, and fails? Slides 25-26", 18, 500, ALARM, fit=RIGHT - x)
