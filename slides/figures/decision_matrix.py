"""The decision matrix: what somebody wants and has, at the left; what the planner makes of it for every family.

Above, four wishes go through `course_helpers.planner` when the deck is built: a cell says which size of a family fits,
or the one constraint that refuses it; gold is the smallest that fits. Below, in the same columns, what the harness has
measured of each family's bundled checkpoint: a path that fits must also be one that can be trusted.
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

GUTTER, HEAD, TOP, ROW = 46, 30, 62, 36
OBJECTIVE, HARDWARE, CEILING, LATENCY, FAMILY, PITCH = 74, 274, 384, 450, 524, 112
BEST, PATH, RESERVE, RIGHT = 1322, 1464, 1600, 1750
HARNESS, LINE = 248, 33


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
        wish(drawing, TOP + ROW * index, plan)
        verdicts(drawing, TOP + ROW * index, plan)
        recommendation(drawing, TOP + ROW * index, plan)
    drawing.marker(GUTTER, TOP + ROW / 2 - 2, 11)
    harness(drawing, records)
    reason(drawing, records[CHOICE]["why"])


def heads(drawing: Drawing) -> None:
    drawing.marker(GUTTER, HEAD - 1, 1)
    for x, title in ((OBJECTIVE, "objective"), (HARDWARE, "hardware"), (CEILING, "ceiling"), (LATENCY, "latency")):
        drawing.text(x, HEAD + 5, title, 17, 650, NAVY)
    drawing.line(OBJECTIVE, HEAD + 20, FAMILY - 10, HEAD + 20, NAVY, 2.5)
    for index, family in enumerate(FAMILIES):
        drawing.text(column(index), HEAD + 5, deck_name(family), 17, 650, NAVY, "middle")
    drawing.line(FAMILY, HEAD + 20, FAMILY + PITCH * len(FAMILIES) - 8, HEAD + 20, HAIRLINE, 2.5)
    for number, x, title in ((2, BEST, "smallest fit"), (3, PATH, "path"), (9, RESERVE, "in reserve")):
        width = drawing.text(x, HEAD + 5, title, 17, 650, GOLD_INK)
        drawing.marker(x + width + 22, HEAD - 1, number)
    drawing.line(BEST, HEAD + 20, RIGHT, HEAD + 20, GOLD, 2.5)


def column(index: int) -> float:
    """The centre of a family's column."""
    return FAMILY + PITCH * index + (PITCH - 8) / 2


def wish(drawing: Drawing, y: float, plan: Any) -> None:
    request, line = plan.request, y + 22
    rows = request.work.batch_size
    name = next(name for name, objective in OBJECTIVES.items() if objective is request.objective)
    width = drawing.text(OBJECTIVE, line, name, 17, 650, NAVY)
    tokens = f"{request.work.context:,} tokens" + (f" × {rows}" if rows > 1 else "")
    drawing.text(OBJECTIVE + width + 9, line, tokens, 16, 400, MUTED, fit=HARDWARE - OBJECTIVE - width - 14)
    drawing.text(HARDWARE, line, request.machine.name, 16, 400, CHARCOAL, fit=CEILING - HARDWARE - 6)
    drawing.text(CEILING, line, f"{request.machine.memory / GB:g} GB", 16, 400, CHARCOAL)
    drawing.text(LATENCY, line, f"{1000 / request.tokens_per_second:g} ms", 16, 400, CHARCOAL)


def verdicts(drawing: Drawing, y: float, plan: Any) -> None:
    """A cell a family: the smallest of its sizes that fits, or what refuses the size that came nearest."""
    for index, family in enumerate(FAMILIES):
        x, width, middle = FAMILY + PITCH * index, PITCH - 8, column(index)
        fits = next((choice for choice in plan.choices if choice.family == family), None)
        if fits is None:
            drawing.rect(x, y, width, ROW - 4, SOFT_GREY, radius=7)
            drawing.text(middle, y + 22, obstacle(plan, family), 16, 400, MUTED, "middle", fit=width - 4)
            continue
        best = fits is plan.best
        drawing.rect(x, y, width, ROW - 4, GOLD if best else SKY_TINT, radius=7)
        what = f"{fits.parameters / 1e9:.1f}B · {1000 * fits.seconds_per_token:.0f} ms"
        drawing.text(middle, y + 22, what, 16, 700 if best else 550, NAVY, "middle", fit=width - 4)


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


def recommendation(drawing: Drawing, y: float, plan: Any) -> None:
    best, line = plan.best, y + 22
    drawing.text(BEST, line, bare(best.hub_id), 17, 700, NAVY, fit=PATH - BEST - 8)
    drawing.text(PATH, line, f"{short(best.dtype)}, {best.strategy}", 16, 400, CHARCOAL, fit=RESERVE - PATH - 6)
    drawing.text(RESERVE, line, bare(plan.choices[1].hub_id), 16, 400, MUTED, fit=RIGHT - RESERVE)


def bare(hub_id: str) -> str:
    return hub_id.rpartition("/")[2]


def harness(drawing: Drawing, records: Mapping[str, Mapping[str, Any]]) -> None:
    """What was measured of each family, in the same columns."""
    suite, rulers = records[SUITE], records[RULERS]["rulers"]
    y = TOP + ROW * len(WISHES)
    drawing.text(
        OBJECTIVE,
        y + 19,
        "cell: parameters · least time a token, or what refuses",
        16,
        400,
        MUTED,
        fit=FAMILY - OBJECTIVE,
    )
    drawing.line(FAMILY, y + 14, FAMILY + PITCH * len(FAMILIES) - 8, y + 14, HAIRLINE, 2)
    rows = (
        (4, "smoke suite", lambda tiny, _: passed(suite["checks"][tiny])),
        (5, "tokenizer: library, or .json file", lambda _, family: library(family.tokenizer)),
        (6, "the same stories: bits in 100 bytes", lambda tiny, _: f"{rulers[tiny]['bits in 100 bytes']:.2f}"),
        (7, "tokens a second, all greedy", lambda tiny, _: f"{suite['expected'][tiny]['tokens_per_second']:.0f}"),
    )
    for place, (number, label, of) in enumerate(rows):
        y = HARNESS + LINE * place
        drawing.marker(GUTTER, y, number)
        width = drawing.text(OBJECTIVE, y + 6, label, 17, 500, CHARCOAL)
        if number == 7:
            drawing.marker(OBJECTIVE + width + 26, y, 8)
        for index, family in enumerate(FAMILIES.values()):
            ink, weight = (SOUND, 650) if number == 4 else (CHARCOAL, 400)
            drawing.text(column(index), y + 6, of(family.tiny, family), 16, weight, ink, "middle", fit=PITCH + 4)


def library(tokenizer: str) -> str:
    """What reads a tokenizer, as the row in FAMILIES says it in brackets; the file that several share, in short."""
    return tokenizer.rpartition("(")[2].rstrip(")").removeprefix("tokenizer")


def passed(checks: Mapping[str, str]) -> str:
    return f"{sum(word == 'green' for word in checks.values())} of {len(checks)}"


def reason(drawing: Drawing, why: str) -> None:
    """The sentence that the runbook lab pins in its manifest, and where to go when what should work does not."""
    top = HARNESS - 26
    drawing.rect(BEST - 12, top, RIGHT - BEST + 18, 4 * LINE + 8, GOLD_TINT, radius=10)
    drawing.marker(BEST + 12, top + 26, 10)
    drawing.text(BEST + 42, top + 32, "the reason, pinned in the manifest:", 17, 650, GOLD_INK)
    drawing.paragraph(BEST + 42, top + 57, RIGHT - BEST - 48, f"“{why.partition('/')[2]}”", 17, 400, CHARCOAL)
    drawing.marker(BEST + 12, top + 105, 12)
    drawing.text(BEST + 42, top + 111, "fits on paper, and fails? Slides 25-26", 17, 500, ALARM)
