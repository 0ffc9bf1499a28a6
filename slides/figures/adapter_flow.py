"""The adapter pattern as plugs and one socket: a workflow that is always the same, and cartridges that fit it.

Above runs the workflow of M9-CODE-02, six steps that name no family. Four of them are sockets. Below lie the adapters,
one a row of FAMILIES that has code of its own: what each puts into the four sockets is read from the registry, so a new
family draws itself. The gold one is plugged in; the dashed one is the reader's own.
"""

from typing import NamedTuple

from course_helpers.families import FAMILIES, Family
from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    MONO,
    NAVY,
    NAVY_TINT,
    SANS,
    SLATE,
    SOFT_GREY,
    SOUND,
    WHITE,
)

from . import figure
from .numbers import measured
from .parts_families import deck_name
from .svg import Drawing

LAB = "M9-CODE-02"
PLUGGED = "llama"  # the model_type of the adapter that is drawn in its socket
#: the steps with a socket, and the part of an adapter that goes into it
SOCKETS = {"read": "read_config", "build": "model", "fill": "weight_maps", "bind": "load_tokenizer"}

LEFT, RIGHT, COLUMN = 24, 630, 151.5
UPPER, LOWER = 46, 104  # the two levels of the workflow's line
PLATE, PLATE_HEIGHT = 126, 36
FIRST, PITCH, HEIGHT = 175, 57, 50
PIN = 30, 9


class Adapter(NamedTuple):
    """The families that share one adapter, by the deck's names, and what it has for the four sockets."""

    names: str
    parts: tuple[str, str, str, str]
    model_type: str


def adapters() -> list[Adapter]:
    """One for every kind of model in FAMILIES, the plugged one first."""
    sharing: dict[type, list[str]] = {}
    for key, family in FAMILIES.items():
        sharing.setdefault(family.model, []).append(key)
    rows = [adapter([FAMILIES[key] for key in keys], ", ".join(map(deck_name, keys))) for keys in sharing.values()]
    return sorted(rows, key=lambda row: row.model_type != PLUGGED)


def adapter(families: list[Family], names: str) -> Adapter:
    first = families[0]
    rows = sum(row is not None for row in first.weight_maps[0].rows.values())
    tokenizers = dict.fromkeys(family.tokenizer.rpartition("(")[2].rstrip(")") for family in families)
    return Adapter(
        names,
        (
            first.config.__name__,
            first.model.__name__,
            f"{rows} rows",
            "by its files" if len(tokenizers) > 1 else next(iter(tokenizers)),
        ),
        first.config.model_type,
    )


@figure
def adapter_flow(drawing: Drawing) -> None:
    results = measured(drawing, LAB)
    rows = adapters()
    sockets(drawing)
    workflow(drawing)
    for index, row in enumerate(rows):
        cartridge(drawing, FIRST + PITCH * index, row, plugged=not index)
    lines = sum(results["lines of a new family"].values())
    yours(drawing, FIRST + PITCH * len(rows), lines)
    kept = [all(promises.values()) for promises in results["contract"].values()]
    promises = len(next(iter(results["contract"].values())))
    drawing.tick(LEFT + 10, 580, 17, SOUND)
    drawing.text(LEFT + 30, 586, f"{promises} promises, kept by {sum(kept)} of {len(kept)} checkpoints", 19, 650, SOUND)


def centre(index: int) -> float:
    return LEFT + COLUMN * (index + 0.5)


def workflow(drawing: Drawing) -> None:
    """The line: down from select, through the four sockets, up to generate."""
    first, last = centre(0), centre(3)
    drawing.arrow((first, UPPER), (first, LOWER), (last, LOWER), (last, UPPER + 22), stroke=NAVY, line=7, head=15)
    for x, y, name in ((first, UPPER, "select"), (last, UPPER, "generate")):
        drawing.rect(x - 62, y - 21, 124, 42, NAVY, radius=21)
        drawing.text(x, y + 7, name, 20, 650, WHITE, "middle")
    for index, step in enumerate(SOCKETS):
        drawing.circle(centre(index), LOWER, 11, WHITE, NAVY, 5)
        anchor, side = ("end", -18) if index == len(SOCKETS) - 1 else ("start", 18)
        drawing.text(centre(index) + side, LOWER - 13, step, 20, 650, NAVY, anchor)
    middle = (first + last) / 2
    drawing.text(middle, UPPER - 6, "one workflow:", 19, 400, CHARCOAL, "middle")
    drawing.text(middle, UPPER + 20, "no family is named in it", 19, 400, CHARCOAL, "middle")


def sockets(drawing: Drawing) -> None:
    """The plate that every adapter fits: four sockets, each led to its step."""
    drawing.rect(LEFT, PLATE, RIGHT - LEFT, PLATE_HEIGHT, NAVY, radius=8)
    for index, part in enumerate(SOCKETS.values()):
        x = centre(index)
        drawing.line(x, LOWER, x, PLATE + 2, NAVY, 7)
        drawing.text(x, PLATE + 24, part, 16.5, 600, WHITE, "middle", MONO, fit=COLUMN - 4)
        drawing.rect(x - PIN[0] / 2, PLATE + PLATE_HEIGHT - 2, PIN[0], FIRST - PLATE - PLATE_HEIGHT + 3, GOLD, radius=0)


def cartridge(drawing: Drawing, y: float, row: Adapter, plugged: bool) -> None:
    """An adapter: pins above, the families' names, and in each column what it has for that socket."""
    fill, edge = (GOLD_TINT, GOLD) if plugged else (SOFT_GREY, SLATE)
    if not plugged:
        pins(drawing, y, edge)
    drawing.rect(LEFT, y, RIGHT - LEFT, HEIGHT, fill, edge if plugged else None, 8, 2.5)
    drawing.text(LEFT + 12, y + 21, row.names, 19, 700, GOLD_INK if plugged else NAVY)
    for index, part in enumerate(row.parts):
        family = MONO if index < 2 or part.endswith(".json") else SANS
        drawing.text(
            centre(index), y + 42, part, 16.5 if family == MONO else 17, 500, CHARCOAL, "middle", family, fit=COLUMN - 4
        )


def pins(drawing: Drawing, y: float, fill: str) -> None:
    for index in range(len(SOCKETS)):
        drawing.rect(centre(index) - PIN[0] / 2, y - PIN[1] + 2, PIN[0], PIN[1], fill, radius=2)


def yours(drawing: Drawing, y: float, lines: int) -> None:
    """The empty cartridge."""
    pins(drawing, y, NAVY_TINT)
    drawing.rect(LEFT, y, RIGHT - LEFT, 42, WHITE, NAVY, 8, 2, dash="7 6")
    drawing.text(LEFT + 12, y + 28, "your family", 19, 700, NAVY)
    drawing.text(RIGHT - 12, y + 27, f"in the lab Qwen2: {lines} lines, no edit elsewhere", 18, 500, CHARCOAL, "end")
