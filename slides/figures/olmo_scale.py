"""Slide 22: how tall a machine must be for Olmo 3 7B and 32B.

Models and machines stand side by side on one measuring rule, as people do before a roller coaster: a line runs from the
top of each model across all machines, and whoever reaches it may run that model. Memory is stacked in modules of 8 GB;
the dashed frame above a model is the same model with the longest text: it outgrows machines that did for a short one.
"""

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
    NAVY_TINT,
    SKY,
    SLATE,
    SOUND,
    WHITE,
)
from course_helpers.planner import plan
from course_helpers.planning.choices import Choice
from course_helpers.planning.machines import GB, MACHINES, SHARE, Machine

from . import figure
from .numbers import computed
from .svg import Drawing

SHORT, LONG = 4096, 65_536  # tokens
MODULE = 8  # GB
TOP_GB, TOP, FLOOR = 90, 88, 500
RULE, RULE_WIDTH = 66, 24
COLUMNS, COLUMN = {"7B": 132, "32B": 246}, 72
FIRST, STEP, WIDE = 352, 80, 54  # machines
NAMES, ROWS, RULED = FLOOR + 27, {"7B": 586, "32B": 626}, 206
INK = {"7B": NAVY, "32B": GOLD_INK}
PARTS = (("weights", NAVY), ("KV cache", GOLD), ("program, activations", SLATE))


@figure
def olmo_scale(drawing: Drawing) -> None:
    short, long = needs(SHORT), needs(LONG)
    drawing.text(32, 46, f"Models and machines to one scale: a text of {SHORT:,} tokens", 22, 650, NAVY)
    draw_rule(drawing)
    draw_machines(drawing, {size: choice.peak for size, choice in short.items()})
    for size, choice in short.items():
        draw_lines(drawing, size, choice.peak)
        draw_model(drawing, size, choice, long[size].peak)
    draw_key(drawing)
    draw_remark(drawing, long)
    computed(drawing, f"planner, Olmo 3 in bfloat16, {SHORT:,} tokens; machines by data sheet")


def needs(tokens: int) -> dict[str, Choice]:
    """What each size takes for a text so long, on a machine that is large enough for anything."""
    roomy = plan("run", "H100", family="olmo3", context=tokens, memory=1000 * GB)
    return {choice.hub_id.split("-")[-1]: choice for choice in roomy.choices}


def machines() -> list[Machine]:
    """The planner's machines, the smallest first."""
    return sorted(MACHINES.values(), key=lambda machine: machine.memory)


def installed(machine: Machine) -> float:
    """GB in the machine; of a computer without a GPU a tenth is left to the system."""
    return machine.memory / GB / (SHARE if machine.device == "cpu" else 1)


def level(gigabytes: float) -> float:
    return FLOOR - gigabytes / TOP_GB * (FLOOR - TOP)


def draw_rule(drawing: Drawing) -> None:
    left = RULE - RULE_WIDTH / 2
    drawing.rect(left, TOP - 6, RULE_WIDTH, FLOOR - TOP + 6, GOLD_TINT, GOLD, 4, 2)
    for gigabytes in range(0, TOP_GB + 1, 5):
        tenth = gigabytes % 10 == 0
        y = level(gigabytes)
        drawing.line(left, y, left + RULE_WIDTH * (0.7 if tenth else 0.4), y, CHARCOAL, 2 if tenth else 1.5)
        if gigabytes % 20 == 0:
            drawing.text(left - 10, y + 6, str(gigabytes), 18, 500, MUTED, "end")
    drawing.text(left + RULE_WIDTH + 8, TOP + 4, "GB", 18, 600, MUTED)
    drawing.line(left, FLOOR, drawing.width - 28, FLOOR, MUTED, 2)


def draw_model(drawing: Drawing, size: str, choice: Choice, long: int) -> None:
    """A column of what the model takes; dashed, how far it grows with the longest text."""
    left = COLUMNS[size]
    grown = level(choice.peak / GB) - level(long / GB)
    drawing.rect(left + 1, level(long / GB), COLUMN - 2, grown, WHITE, INK[size], 3, 2, "6 5")
    memory, bottom = choice.memory, 0.0
    rest = memory["program"] + memory["activations"]
    for (_, fill), part in zip(PARTS, (memory["weights"], memory["KV cache"], rest), strict=True):
        height = level(bottom) - level(bottom + part / GB)
        drawing.rect(left, level(bottom + part / GB), COLUMN, height, fill, radius=0)
        bottom += part / GB
    middle = left + COLUMN / 2
    drawing.text(
        middle, level(memory["weights"] / GB / 2) + 6, f"{memory['weights'] / GB:.1f}", 18, 650, WHITE, "middle"
    )
    drawing.text(middle, level(long / GB) - 9, f"{long / GB:.1f}", 18, 650, INK[size], "middle")
    drawing.text(middle, NAMES, "Olmo 3", 18, 400, MUTED, "middle")
    drawing.text(middle, NAMES + 23, size, 20, 700, NAVY, "middle")


def draw_machines(drawing: Drawing, peaks: dict[str, int]) -> None:
    smallest = {size: next(one.name for one in machines() if one.memory >= peak) for size, peak in peaks.items()}
    for place, machine in enumerate(machines()):
        middle = FIRST + (place + 0.5) * STEP
        runs = {size: machine.memory >= peak for size, peak in peaks.items()}
        draw_modules(drawing, middle, machine, sum(runs.values()))
        for line, text in enumerate(name_of(machine)):
            drawing.text(middle, NAMES + 22 * line, text, 16.5, 400 if line else 600, CHARCOAL, "middle", fit=STEP - 2)
        for size, y in ROWS.items():
            if machine.name == smallest[size]:
                drawing.circle(middle, y, 17, GOLD_TINT, GOLD, 3)
            if runs[size]:
                drawing.tick(middle, y, 17, SOUND)
            else:
                drawing.cross(middle, y, 13, ALARM, 3)
    for line, text in enumerate(("gold ring:", "the smallest")):
        drawing.text(32, sum(ROWS.values()) / 2 - 4 + 23 * line, text, 18, 400, MUTED)
    for size, y in ROWS.items():
        drawing.line(RULED if y == ROWS["32B"] else 32, y - 20, drawing.width - 28, y - 20)
        drawing.text(FIRST - 14, y + 6, f"runs the {size}", 19, 600, INK[size], "end")


def draw_modules(drawing: Drawing, middle: float, machine: Machine, sizes: int) -> None:
    """The memory as modules on top of each other; a dashed one for what is left to the system."""
    fill, edge = ((HAIRLINE, SLATE), (NAVY_TINT, SKY), (GOLD_TINT, GOLD))[sizes]
    usable, left = machine.memory / GB, middle - WIDE / 2
    if installed(machine) > usable:
        top = level(installed(machine))
        drawing.rect(left + 1, top, WIDE - 2, level(usable) - top, WHITE, SLATE, 3, 1.5, "3 3")
        if sizes:  # said once, where there is room
            drawing.text(middle, top - 30, "left to", 17, 400, MUTED, "middle")
            drawing.text(middle, top - 10, "the system", 17, 400, MUTED, "middle")
    bottom = 0.0
    while bottom < usable - 1e-6:
        top = min(bottom + MODULE, usable)
        drawing.rect(left, level(top) + 1.5, WIDE, level(bottom) - level(top) - 3, fill, edge, 3, 2)
        drawing.rect(left + 6, level(top) + 7, 5, max(4, level(bottom) - level(top) - 14), edge, radius=1)
        bottom = top


def name_of(machine: Machine) -> tuple[str, str]:
    """`A100-40GB` as two lines: A100, 40 GB."""
    name = machine.name.partition("-")[0]
    return name, f"{installed(machine):.0f} GB"


def draw_lines(drawing: Drawing, size: str, peak: int) -> None:
    """How tall one must be."""
    y = level(peak / GB)
    drawing.line(COLUMNS[size] + COLUMN, y, drawing.width - 28, y, INK[size], 3, "10 6")
    text = f"the {size} takes {peak / GB:.1f} GB"
    drawing.text(FIRST + 8, y - 11, text, 20, 650, INK[size])


def draw_key(drawing: Drawing) -> None:
    """The colours of the columns, and the dashed frames."""
    x = FIRST + 8
    for name, fill in (*PARTS, (f"dashed: with {LONG:,} tokens", None)):
        drawing.rect(x, 64, 16, 16, fill or WHITE, None if fill else NAVY, 3, 2, None if fill else "4 3")
        x += 24 + drawing.text(x + 24, 79, name, 18, 400, MUTED) + 18


def draw_remark(drawing: Drawing, long: dict[str, Choice]) -> None:
    """What surprises in the long text, in the free space above the small machines."""
    caches = {size: choice.memory["KV cache"] / GB for size, choice in long.items()}
    heads = {size: FAMILIES["olmo3"].presets[choice.hub_id].num_key_value_heads for size, choice in long.items()}
    x, y = FIRST + 8, level(55)
    drawing.text(x, y, f"With {LONG:,} tokens the 32B's cache is half as large", 18, 650, CHARCOAL)
    for line, size in enumerate(caches, start=1):
        text = f"{size}: {heads[size]} key/value heads, {caches[size]:.1f} GB"
        drawing.text(x, y + 2 + 25 * line, text, 18, 400, MUTED)
