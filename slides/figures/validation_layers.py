"""Slide 11: five sieves, one below the other, and every grain that falls into them.

A grain is one silent fault in one family's checkpoint: it loads, runs and writes. All of them are poured in at the top;
each sieve keeps the grains that its layer is the first to notice, and the stream below it is narrower by just those. A
strip of grains has the same density everywhere, so widths and areas can be compared. Nothing is left at the bottom.
"""

from course_helpers.palette import CHARCOAL, GOLD, GOLD_INK, MONO, MUTED, NAVY, SOUND, WHITE

from . import figure
from .parts_measured import measured_together
from .parts_silent_faults import LAYERS, Case, read_cases, stopped
from .svg import Drawing

ASKS = {
    "files": ("Files", "is the file whole?", 1),
    "shapes": ("Shapes", "has every tensor its place?", 2),
    "forward": ("Forward pass", "are the numbers sound?", 3),
    "generation": ("Generation", "is the text the same again?", 4),
    "baseline": ("Baseline", "as good as on its card?", 6),
}
ROWS, PITCH, GRAIN = 5, 9.6, 3.7  # grains above each other; pixels from one to the next; their radius
LEFT, TOP, STEP = 342, 44, 86  # the stream's left edge, the first grains, from one sieve to the next
FIRST = 160  # the height of the first mesh
LOADS_BUT = "another family's tokenizer"  # the fault that annotation 8 speaks of
COUNTS, TIMES = 936, 1060  # where the two columns of numbers stand


@figure
def validation_layers(drawing: Drawing) -> None:
    records = measured_together(drawing, "M9-LAB-08")
    drawing.source("tests/silent_faults/README.md, observed")
    cases = read_cases()
    milliseconds = records["M9-LAB-08"]["milliseconds_per_look"]
    _heads(drawing, len(cases), len({case.fault for case in cases}))
    falling = len(cases)
    _grains(drawing, LEFT, TOP, range(falling), GOLD)
    for number, (layer, caught) in enumerate(stopped(cases).items()):
        y = FIRST + number * STEP
        _stream(drawing, falling, y - (STEP - 8 if number else FIRST - TOP - ROWS * PITCH), y)
        _sieve(drawing, layer, y, number, columns(len(cases)))
        _kept(drawing, caught, falling, y)
        falling -= caught
        most = caught == max(stopped(cases).values())
        ink = GOLD_INK if most else NAVY if caught else MUTED
        drawing.text(COUNTS, y - 8, str(caught), 38 if most else 30, 700, ink, "end")
        drawing.text(TIMES, y - 8, f"{milliseconds[layer]:,.0f} ms", 19, 500, MUTED, "end")
    _remarks(drawing, cases, milliseconds)
    _result(drawing, falling, len(cases))


def columns(grains: int) -> int:
    """How many columns of `ROWS` hold that many grains."""
    return -(-grains // ROWS)


def _heads(drawing: Drawing, cases: int, faults: int) -> None:
    width = drawing.text(36, 66, f"{faults} silent faults", 27, 700, NAVY)
    drawing.marker(36 + width + 28, 57, 7)
    drawing.text(36, 92, f"in each family they fit: {cases} cases", 18, 400, CHARCOAL)
    drawing.text(COUNTS, 66, "stopped", 18, 600, NAVY, "end")
    drawing.text(COUNTS, 89, "here", 18, 600, NAVY, "end")
    drawing.marker(TIMES - 76, 60, 5)
    drawing.text(TIMES, 66, "a look", 18, 600, MUTED, "end")
    drawing.text(TIMES, 89, "takes", 18, 600, MUTED, "end")


def _grains(drawing: Drawing, x: float, y: float, grains: range, fill: str) -> None:
    """Grains in columns, filled from the left, each column from the bottom."""
    for grain in grains:
        column, row = divmod(grain, ROWS)
        drawing.circle(x + (column + 0.5) * PITCH, y + (ROWS - 0.5 - row) * PITCH, GRAIN, fill)


def _stream(drawing: Drawing, falling: int, top: float, bottom: float) -> None:
    width = columns(falling) * PITCH
    drawing.rect(LEFT, top, width, bottom - top, GOLD, None, 0, opacity=0.15)


def _sieve(drawing: Drawing, layer: str, y: float, number: int, widest: int) -> None:
    """A mesh, finer from layer to layer, with its name and its question."""
    title, question, marker = ASKS[layer]
    drawing.marker(52, y - 24, marker)
    drawing.text(82, y - 24, title, 23, 700, NAVY)
    drawing.text(82, y + 1, question, 18, 400, CHARCOAL)
    gap = (36, 28, 21, 15, 10)[number]
    drawing.line(LEFT - 12, y + 6, LEFT + widest * PITCH + 12, y + 6, MUTED, 6, f"{gap} 6")


def _kept(drawing: Drawing, caught: int, falling: int, y: float) -> None:
    """The grains that the sieve keeps: the right-hand end of the stream, heaped on the mesh."""
    if caught:
        x = LEFT + (columns(falling) - columns(caught)) * PITCH
        drawing.rect(x - 1, y - ROWS * PITCH - 4, columns(caught) * PITCH + 2, ROWS * PITCH + 4, WHITE, None, 4)
        _grains(drawing, x, y - ROWS * PITCH - 1, range(caught), NAVY)


def _remarks(drawing: Drawing, cases: list[Case], milliseconds: dict[str, float]) -> None:
    """What is to be said about single sieves, in the room that the stream leaves beside the heaps."""
    height = {layer: FIRST + number * STEP - 20 for number, layer in enumerate(LAYERS)}
    changed = sum(not case.in_code for case in cases)
    drawing.text(LEFT + 16, height["files"], f"given hashes, it stops all {changed} changed files", 18, 600, GOLD_INK)

    early = milliseconds["files"] + milliseconds["shapes"]
    drawing.marker(LEFT + 28, height["shapes"] - 6, 11)
    text = f"files and shapes {early:.0f} ms, all {sum(milliseconds.values()):.0f} ms"
    drawing.text(LEFT + 54, height["shapes"], text, 18, 400, CHARCOAL)

    (layer,) = {case.layer for case in cases if case.fault == LOADS_BUT}
    drawing.marker(LEFT + 28, height[layer] - 6, 8)
    drawing.text(LEFT + 54, height[layer], LOADS_BUT, 18, 400, CHARCOAL)

    kept = LEFT + columns(stopped(cases)["baseline"]) * PITCH
    drawing.marker(kept + 28, height["baseline"] - 6, 12)
    drawing.text(kept + 54, height["baseline"], "troubleshoot", 18, 400, CHARCOAL)


def _result(drawing: Drawing, left: int, cases: int) -> None:
    y = FIRST + len(LAYERS) * STEP - 18
    drawing.tick(LEFT + 12, y - 8, 24, SOUND, 5)
    width = drawing.text(LEFT + 38, y, f"{left} of {cases} come through", 25, 700, SOUND)
    drawing.marker(LEFT + 38 + width + 28, y - 8, 10)
    drawing.marker(52, y - 8, 9)
    drawing.text(82, y - 2, "validate SOURCE", 19, 600, NAVY, family=MONO)
