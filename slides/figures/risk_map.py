"""Slide 12: what can go wrong, by whether anybody notices and by how much it hurts.

Above: the loud risks, which stop and say so, and do no harm to what a model says. Below: the silent ones, every mistake
that the labs made on purpose and measured, each a model that loads, runs and writes. The further to the right, the more
nats per token are lost; in the tinted field at the right a model is worse than one that guesses.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from course_helpers.palette import (
    ALARM,
    ALARM_TINT,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    NAVY_TINT,
    WHITE,
)

from . import figure
from .axes import Axes
from .numbers import ROOT
from .parts_measured import measured_together
from .parts_mistakes import CODE, CONFIG, LABS, PRECISION, TOKENIZER, WEIGHTS, Mistake, mistakes
from .svg import Drawing

LEAST, MOST = 3e-5, 22  # nats: the ends of the axis
RADIUS, PITCH = 8.5, 19  # of a dot, and from one to the next
#: kind of mistake -> its name, its share of the height, the annotation's number
LANES = {
    CONFIG: ("Config", 104, 1),
    CODE: ("Code", 64, None),
    WEIGHTS: ("Weights", 46, None),
    TOKENIZER: ("Tokenizer", 46, 2),
    PRECISION: ("Precision", 36, 4),
}
#: mistakes that are named in the picture, and on which side of their dot
NAMED = {
    ("M9-LAB-03", "base 10,000"): ("rope_theta", 1),
    ("M9-LAB-02", "GPT-2's tokenizer"): ("GPT-2's tokenizer", -1),
    ("M9-LAB-02", "the same, no mark"): ("no begin mark", -1),
    ("M9-LAB-03", "rows in Meta's order"): ("rows in Meta's order", -1),
    ("M9-LAB-03", "bfloat16 at 5,000"): ("positions in bfloat16", -1),
}


@figure
def risk_map(drawing: Drawing) -> None:
    records = measured_together(drawing, *LABS, "M9-LAB-08", "M9-LAB-09", "M9-LAB-APP-A")
    _loud(drawing, records)
    found = mistakes(records)
    height = sum(share for _, share, _ in LANES.values())
    axes = Axes(drawing, 236, 212, 828, height, (LEAST, MOST), (0, 1), log_across=True)
    width = drawing.text(36, 190, "Silent", 23, 700, NAVY)
    drawing.text(36 + width + 12, 190, f"{len(found)} mistakes of the labs that load, run and write", 18)
    drawing.text(axes.right, 190, "worse than a guess", 18, 600, ALARM, "end")
    right = sum(row.loss - row.nats for row in found) / len(found)
    _ground(axes, guess() - right)
    top = axes.top
    for kind, (_, share, _) in LANES.items():
        _lane(axes, top, kind, found)
        top += share
    _guards(drawing, records)


def guess() -> float:
    """The loss of a model that takes every token of the labs' vocabulary for equally likely."""
    (size,) = {json.loads(path.read_text())["vocab_size"] for path in ROOT.glob("checkpoints/tiny-*/config.json")}
    return math.log(size)


def swarm(places: Iterable[float], pitch: float) -> list[tuple[float, int]]:
    """Each place with a level 0, 1, -1, 2, … such that none comes closer than `pitch` to another of its level."""
    taken: dict[int, float] = {}
    placed = []
    for place in sorted(places):
        for step in range(99):
            level = (step + 1) // 2 * (1 if step % 2 else -1)
            if place - taken.get(level, -math.inf) >= pitch:
                taken[level] = place
                placed.append((place, level))
                break
    return placed


def _loud(draw: Drawing, records: Mapping[str, Any]) -> None:
    """Risks that stop a run, each with what was seen of it in a lab."""
    draw.rect(24, 24, draw.width - 48, 132, ALARM_TINT, None, 14)
    width = draw.text(44, 58, "Loud", 23, 700, ALARM)
    draw.text(44 + width + 12, 58, "it stops or warns", 18)
    for place, (number, title, seen) in enumerate(loud_risks(records)):
        x = 44 + place * 260
        draw.marker(x + 16, 98, number)
        draw.text(x + 42, 105, title, 20, 650, NAVY)
        draw.text(x, 138, seen, 18, 400, CHARCOAL, fit=256)


def loud_risks(records: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    """The annotation's number, the risk and what a lab saw of it."""
    naive = records["M9-LAB-APP-A"]["strategies"]["naive"]["peak_mb"] / records["M9-LAB-APP-A"]["model_mb"]
    other_size = _patient(records["M9-LAB-08"]["faults"], "the config of a larger model")
    versions = records["M9-LAB-09"]["verify"]["3  another torch"]["versions"]
    cuts = records["M9-LAB-06"]["constraints"]["32B"]["devices it can be cut for"].split()
    refused = next(count for count in range(2, 99) if str(count) not in cuts)
    return [
        (3, "Memory spike", f"naive peaks at {naive:.1f} models"),
        (8, "Sizes mixed", f"stopped by the {other_size} check"),
        (5, "Launch", f"a model cut in {refused}: refused"),
        (6, "Versions", f"another torch: a {versions}"),
    ]


def _patient(faults: list[Mapping[str, Any]], what: str) -> str:
    return next(fault["noticed_by"] for fault in faults if fault["what_was_done"] == what).removesuffix("s")


def _ground(axes: Axes, limit: float) -> None:
    """Decades as hairlines, and the field in which a guess would be better."""
    draw, limit = axes.drawing, axes.x(limit)
    draw.rect(limit, axes.top - 12, axes.right - limit, axes.height + 12, ALARM_TINT, None, 0)
    for power in range(-4, 2):
        x = axes.x(10**power)
        draw.line(x, axes.top, x, axes.bottom, HAIRLINE, 1.5, "2 6")
        draw.text(x, axes.bottom + 26, f"{10**power:g}", 18, 400, MUTED, "middle")
    draw.text(36, axes.bottom + 26, "nats lost a token:", 18, 400, MUTED)
    draw.text(axes.left, axes.bottom + 26, "none", 18, 400, MUTED, "middle")


def _lane(axes: Axes, top: float, kind: str, found: list[Mistake]) -> None:
    """One kind of mistake: its name, how many there are, and every one of them; the commonest kind is in gold."""
    draw, (name, share, marker) = axes.drawing, LANES[kind]
    rows, middle = [row for row in found if row.kind == kind], top + share / 2
    fullest = len(rows) > len(found) / 2
    draw.line(36, top, axes.right, top, HAIRLINE, 1.5)
    if fullest:
        draw.rect(36, top + 3, axes.left - 60, share - 6, GOLD_TINT, None, 8)
    draw.text(76, middle + 8, str(len(rows)), 27 if fullest else 21, 700, GOLD_INK if fullest else MUTED, "end")
    width = draw.text(88, middle + 7, name, 20, 650, NAVY)
    if marker:
        draw.marker(88 + width + 26, middle, marker)
    places = {row: axes.x(max(row.nats, LEAST)) for row in rows}
    swarmed = swarm(places.values(), PITCH)
    levels = [level for _, level in swarmed]
    centre = (min(levels) + max(levels)) / 2
    for row, (x, level) in zip(sorted(rows, key=places.__getitem__), swarmed, strict=True):
        y = middle + (level - centre) * PITCH
        harmless = row.nats < LEAST
        fill = WHITE if harmless else ALARM if row.loss > guess() else GOLD if fullest else NAVY
        draw.circle(x, y, RADIUS, fill, NAVY if fullest else WHITE, 1.8)
        _name(draw, x, y, row)
    harmless = sum(row.nats < LEAST for row in rows)
    if harmless:
        y = middle + (max(levels[:harmless]) - centre) * PITCH
        draw.text(axes.left + RADIUS + 7, y + 6, f"{harmless} cost nothing", 18, 400, CHARCOAL)


def _name(draw: Drawing, x: float, y: float, row: Mistake) -> None:
    name, side = NAMED.get((row.lab, row.name), ("", 0))
    if name:
        text = f"{name} {row.nats:.1f}" if row.nats >= 1 else name
        draw.text(x + side * (RADIUS + 7), y + 6, text, 18, 400, CHARCOAL, "start" if side > 0 else "end")


def _guards(draw: Drawing, records: Mapping[str, Any]) -> None:
    """What keeps a run safe, one word each, and where it is found."""
    lines = {len(lines) for lines in records["M9-LAB-APP-A"]["checklist"].values()}
    texts = {
        7: "README, tests",
        9: "pinned manifest",
        10: f"pre-flight, {min(lines)} lines",
        11: "a baseline to fall back on",
        12: "runbook",
    }
    x, y = 52.0, draw.height - 34
    draw.rect(24, y - 25, draw.width - 48, 50, NAVY_TINT, None, 14)
    for number, text in texts.items():
        draw.marker(x, y, number)
        x += 26 + draw.text(x + 24, y + 6, text, 18, 600, NAVY) + 40
