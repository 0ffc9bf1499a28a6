"""Slide 21: why Gemma 3's cache stops growing, and what it costs in speed: nothing.

Left, the masks, a row for each token: what a local layer may look at is a band. In the middle, what follows from it,
to scale: every layer of a released model is a strip as long as the part of the text that it keeps, so the ink is the
memory. Right, the race of the three pathways on the small model: a cache with rings is as fast as a full one.
"""

from course_helpers.architectures.config import FULL, SLIDING
from course_helpers.families import FAMILIES
from course_helpers.palette import CHARCOAL, GOLD, GOLD_INK, HAIRLINE, MUTED, NAVY, NAVY_TINT, SLATE, WHITE

from . import figure
from .axes import Axes
from .numbers import measured
from .svg import Drawing

MODEL, TOKENS = "google/gemma-3-1b-pt", 32_768
RELEASED = f"released caches at {TOKENS}"
SEAM = 1.2  # rows overlap a little, so that no background shines through between them
WINDOWS = 2  # how many windows long the text of the masks is
TITLE, TOP, BOTTOM, BELOW = 44, 74, 336, 29  # BELOW: from the bottom of a panel to what stands under it
LEFT, MASK_LEFT, STRIPS_LEFT, STRIPS, RACE_LEFT = 36, 204, 546, 500, 1376
NO_CACHE, ALL, RING = "no cache", "every layer keeps all", "ring in the local layers"
MB = 10**6


@figure
def window_cache(drawing: Drawing) -> None:
    results = measured(drawing, "M9-LAB-05")
    draw_masks(drawing, results["window"])
    draw_strips(drawing)
    draw_sizes(drawing, results[RELEASED][MODEL])
    draw_race(drawing, results["race"])
    for x in (STRIPS_LEFT - 36, RACE_LEFT - 70):
        drawing.line(x, TITLE - 16, x, BOTTOM + 16)
    drawing.source(f"layers of {MODEL}: preset")


def rows_of_mask(length: int, window: int | None) -> list[tuple[int, int]]:
    """For each query, the first and the last key that it may look at. The window counts the query itself."""
    return [(0 if window is None else max(0, query - window + 1), query) for query in range(length)]


def draw_masks(drawing: Drawing, window: int) -> None:
    """Both masks in one square: the global layer's triangle, over it the local layers' band."""
    length = WINDOWS * window
    side = BOTTOM - TOP
    cell = side / length
    drawing.text(LEFT, TITLE, "tiny-gemma3: who may look at whom", 22, 650, NAVY)
    drawing.rect(MASK_LEFT, TOP, side, side, WHITE, HAIRLINE, 2, 1.5)
    for fill, width in ((NAVY_TINT, None), (GOLD, window)):
        for query, (first, last) in enumerate(rows_of_mask(length, width)):
            drawing.rect(
                MASK_LEFT + first * cell, TOP + query * cell, (last - first + 1) * cell, cell * SEAM, fill, radius=0
            )
    label_masks(drawing, window, cell)


def label_masks(drawing: Drawing, window: int, cell: float) -> None:
    """Names where the band and the triangle touch the left edge."""
    side = BOTTOM - TOP
    for line, text in enumerate(("not into", "the future")):
        drawing.text(MASK_LEFT + side - 14, TOP + 36 + 23 * line, text, 18, 400, MUTED, "end")
    labels = (
        (window / 2, "local layers", f"the last {window}", GOLD_INK),
        (window * 1.5, "global layers", "these, too", NAVY),
    )
    for row, name, what, ink in labels:
        y = TOP + row * cell
        drawing.text(MASK_LEFT - 16, y - 4, name, 19, 650, ink, "end")
        drawing.text(MASK_LEFT - 16, y + 20, what, 18, 400, ink, "end")
    drawing.text(MASK_LEFT, BOTTOM + BELOW, "a row: one token, looking back", 17, 400, MUTED)


def draw_strips(drawing: Drawing) -> None:
    """What each layer keeps of a long text: its newest tokens at the right."""
    config = FAMILIES["gemma3"].presets[MODEL]
    layers = config.num_hidden_layers
    pitch = (BOTTOM - TOP) / layers
    drawing.text(STRIPS_LEFT, TITLE, f"Gemma 3 1B: what {layers} layers keep of {TOKENS:,} tokens", 22, 650, NAVY)
    for number, kind in enumerate(config.layer_types):
        kept = min(TOKENS, config.window(kind) or TOKENS)
        width, y = kept / TOKENS * STRIPS, TOP + number * pitch
        drawing.rect(STRIPS_LEFT, y + 1, STRIPS, pitch - 2, NAVY_TINT if kind == SLIDING else NAVY, radius=1)
        if kind == SLIDING:
            drawing.rect(STRIPS_LEFT + STRIPS - width, y + 0.5, width, pitch - 1, GOLD, radius=0)
    drawing.text(STRIPS_LEFT, BOTTOM + BELOW, "oldest token", 17, 400, MUTED)
    drawing.text(STRIPS_LEFT + STRIPS, BOTTOM + BELOW, "newest", 17, 400, MUTED, "end")


def draw_sizes(drawing: Drawing, sizes: dict[str, int]) -> None:
    """The same as numbers: what the cache would take, what it takes."""
    config = FAMILIES["gemma3"].presets[MODEL]
    x = STRIPS_LEFT + STRIPS + 26
    count = {kind: config.layer_types.count(kind) for kind in (FULL, SLIDING)}
    full, ring = (sizes[name] / MB for name in ("full", "ring"))
    drawing.text(x, TOP + 20, f"{count[FULL]} global layers", 18, 650, NAVY)
    drawing.text(x, TOP + 43, "keep everything", 18, 400, NAVY)
    drawing.text(x, TOP + 76, f"{count[SLIDING]} local ones", 18, 650, GOLD_INK)
    drawing.text(x, TOP + 99, f"the last {config.sliding_window}", 18, 400, GOLD_INK)
    drawing.text(x, TOP + 138, "if all kept everything", 18, 400, MUTED)
    width = drawing.text(x, TOP + 165, f"{full:.0f} MB", 24, 500, MUTED)
    drawing.line(x - 2, TOP + 157, x + width + 2, TOP + 157, MUTED, 2)
    drawing.text(x, TOP + 216, f"{ring:.0f} MB", 44, 700, NAVY)
    drawing.text(x, TOP + 245, f"with rings: {full / ring:.1f} times less", 18, 400, CHARCOAL)


def draw_race(drawing: Drawing, race: dict[str, dict[str, dict]]) -> None:
    """Tokens a second, against the length of the prompt."""
    speeds = {
        name: [(int(length), 1 / run["step_seconds"]) for length, run in runs.items()] for name, runs in race.items()
    }
    lengths = [length for length, _ in speeds[RING]]
    axes = Axes(drawing, RACE_LEFT, TOP, 236, BOTTOM - TOP, (lengths[0], lengths[-1]), (0, 310), log_across=True)
    drawing.text(RACE_LEFT - 40, TITLE, "tiny-gemma3: tokens a second", 22, 650, NAVY)
    axes.grid((0, 100, 200, 300), size=17)
    axes.ticks(lengths[::2] + lengths[-1:], size=17)
    for name, stroke, line in ((NO_CACHE, SLATE, 4), (ALL, NAVY, 7), (RING, GOLD, 4)):
        axes.curve(speeds[name], stroke, line)
        drawing.circle(axes.right, axes.y(speeds[name][-1][1]), 6, stroke, WHITE)
    label_race(drawing, axes, {name: points[-1][1] for name, points in speeds.items()}, race, str(lengths[-1]))


def label_race(drawing: Drawing, axes: Axes, last: dict[str, float], race: dict, length: str) -> None:
    x = axes.right + 14
    held = {name: (runs[length]["cache_bytes"] + runs[length]["working_bytes"]) / MB for name, runs in race.items()}
    rows = ((RING, "ring", GOLD_INK, 0), (ALL, "full cache", NAVY, 50), (NO_CACHE, "no cache", MUTED, None))
    for name, words, ink, below in rows:
        y = axes.y(last[RING]) - 18 + below if below is not None else axes.y(last[name]) - 26
        drawing.text(x, y, f"{words}: {last[name]:.0f}", 18, 650, ink)
        drawing.text(x, y + 21, f"holds {held[name]:.1f} MB", 17, 400, ink)
    drawing.text(x + 10, axes.bottom + BELOW, "prompt tokens", 17, 400, MUTED)
