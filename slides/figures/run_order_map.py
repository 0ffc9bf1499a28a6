"""The runbook as one strip of time: every lab in run order, as wide as it took, under its stage.

Above each lab stands one dot for every validation checkpoint that held there; one that failed would be a cross. So the
strip answers what an instructor asks before class: in which order, how long, and what must hold before going on.
"""

from typing import Any

from course_helpers.labs.order import STAGES
from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    HAIRLINE,
    MUTED,
    NAVY,
    NAVY_TINT,
    SERIF,
    SKY_INK,
    SLATE,
    WHITE,
)

from ..fonts import text_width, wrap
from . import figure
from .parts_measured import measured_together
from .svg import Drawing

LEFT, RIGHT, SUMMARY = 268.0, 30.0, 36.0
STAGE_TOP, STAGE_HEIGHT, DOTS_BOTTOM, BAND_TOP, BAND_HEIGHT, AXIS = 26.0, 58.0, 214.0, 224.0, 52.0, 286.0
ROWS, STEP, DOT = 5, 19.0, 7.0  # dots stand in rows as wide as it takes for at most so many rows
FILLS = ((NAVY, WHITE), (SKY_INK, WHITE))  # stages alternate


def stages_of(run: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(stage, its labs in run order) as a run recorded them. Raises ValueError where it was not of all labs."""
    if not run["complete"]:
        raise ValueError("results/run.json is not of a full run: `make run` without LABS")
    labs = {lab["lab"]: lab for lab in run["labs"]}
    return [(stage, [labs[lab] for lab in members]) for stage, members in STAGES.items()]


@figure
def run_order_map(drawing: Drawing) -> None:
    """Summary at the left; stages, dots, labs and minutes at the right."""
    _strip(drawing, stages_of(measured_together(drawing, "run")["run"]))


def _strip(drawing: Drawing, stages: list[tuple[str, list[dict[str, Any]]]]) -> None:
    labs = [lab for _, members in stages for lab in members]
    scale = (drawing.width - LEFT - RIGHT) / sum(lab["seconds"] for lab in labs)
    _summary(drawing, labs)
    x = LEFT
    for place, (stage, members) in enumerate(stages):
        width = sum(lab["seconds"] for lab in members) * scale
        _stage(drawing, x, width, stage, last=place == len(stages) - 1)
        for lab in members:
            wide = lab["seconds"] * scale
            _lab(drawing, x, wide, lab, *FILLS[place % 2])
            x += wide
    _axis(drawing, sum(lab["seconds"] for lab in labs), scale)


def _summary(drawing: Drawing, labs: list[dict[str, Any]]) -> None:
    checkpoints = [checkpoint for lab in labs for checkpoint in lab["checkpoints"]]
    held = sum(checkpoint["passed"] for checkpoint in checkpoints)
    drawing.text(SUMMARY - 4, STAGE_TOP + 76, str(held), 100, 600, NAVY, family=SERIF)
    drawing.text(SUMMARY, STAGE_TOP + 116, f"of {len(checkpoints)} checkpoints hold", 18, 600, NAVY)
    drawing.circle(SUMMARY + DOT, STAGE_TOP + 140, DOT, GOLD, GOLD_INK, 1.5)
    drawing.text(SUMMARY + 24, STAGE_TOP + 146, "one checkpoint", 18, 400, CHARCOAL)
    drawing.text(SUMMARY, BAND_TOP + 21, f"{len(labs)} labs", 20, 600, CHARCOAL)
    drawing.text(SUMMARY, BAND_TOP + 46, clock(sum(lab["seconds"] for lab in labs)), 20, 400, CHARCOAL)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, in words short enough for a figure."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _stage(drawing: Drawing, x: float, width: float, stage: str, last: bool) -> None:
    """A chevron: its point says where the run goes on."""
    top, bottom, tip = STAGE_TOP, STAGE_TOP + STAGE_HEIGHT, 12
    end = x + width - 3
    right = [(end, top), (end, bottom)] if last else [(end - tip, top), (end, (top + bottom) / 2), (end - tip, bottom)]
    left = [(x, bottom), (x + tip, (top + bottom) / 2), (x, top)] if x > LEFT else [(x, bottom), (x, top)]
    drawing.polygon([*right, *left], NAVY_TINT)
    size = next(size for size in (19, 18, 17, 16) if len(wrap(stage, width - 40, size, weight=600)) <= 2)
    lines = wrap(stage, width - 40, size, weight=600)
    baseline = (top + bottom) / 2 + 7 - (len(lines) - 1) * 12
    for line in lines:
        drawing.text(x + 20, baseline, line, size, 600, NAVY, fit=width - 26)
        baseline += 24


def _lab(drawing: Drawing, x: float, width: float, lab: dict[str, Any], fill: str, ink: str) -> None:
    """Its place in the band, its seconds, and its checkpoints as columns of dots."""
    drawing.rect(x + 1.5, BAND_TOP, width - 3, BAND_HEIGHT, fill, radius=6)
    middle = x + width / 2
    name = lab["lab"].removeprefix("M9-").replace("LAB-APP", "APP")
    if text_width(name, 16, weight=600) > width:  # a lab that took a few seconds has room for its number only
        name = name.replace("CODE-", "C").replace("LAB-", "L").replace("APP-", "A")
    drawing.text(middle, BAND_TOP + 22, name, 16, 600, ink, "middle", fit=width - 3, spacing=-0.4)
    drawing.text(middle, BAND_TOP + 43, f"{lab['seconds']:.0f} s", 17, 400, ink, "middle")
    checkpoints = lab["checkpoints"]
    columns = -(-len(checkpoints) // ROWS)
    for place, checkpoint in enumerate(checkpoints):
        row, column = divmod(place, columns)
        beside = min(columns, len(checkpoints) - row * columns)  # the last row is centred, so the number is, too
        centre = (middle + (column - (beside - 1) / 2) * STEP, DOTS_BOTTOM - DOT - 2 - row * STEP)
        if checkpoint["passed"]:
            drawing.circle(*centre, DOT, GOLD, GOLD_INK, 1.5)
        else:
            drawing.cross(*centre, 2 * DOT, ALARM)
    top = DOTS_BOTTOM - -(-len(checkpoints) // columns) * STEP - 6
    drawing.text(middle, top, str(len(checkpoints)), 19, 650, CHARCOAL, "middle")


def _axis(drawing: Drawing, seconds: float, scale: float) -> None:
    drawing.line(LEFT, AXIS, LEFT + seconds * scale, AXIS, SLATE, 1.5)
    drawing.line(LEFT, DOTS_BOTTOM, LEFT + seconds * scale, DOTS_BOTTOM, HAIRLINE, 1.5)
    for minute in range(1, int(seconds // 60) + 1):
        x = LEFT + minute * 60 * scale
        drawing.line(x, AXIS, x, AXIS + 7, SLATE, 1.5)
        drawing.text(x, AXIS + 26, f"{minute} min", 18, 400, MUTED, "middle")
