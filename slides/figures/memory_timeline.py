"""Slide 6: what a process holds while it loads the same model, moment by moment, in four ways.

The naive way is the mountain, the streamed way the plateau: everything above the line of one model is memory that
nobody needs afterwards. A machine with room for one and a half models could run the model and still not load it. The
right-hand panel shows that the two levels stay in proportion at the size of released models.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    HAIRLINE,
    MUTED,
    NAVY,
    NAVY_TINT,
    SKY,
    SKY_INK,
    SLATE,
    SOFT_GREY,
)

from . import figure
from .axes import Axes
from .parts_measured import measured_together
from .svg import Drawing, Point

ROOM = 1.5  # models that fit into the memory of the machine that is drawn: enough to run one, too little for two
MACHINE_GB = 16
BYTES_EACH = 2  # bfloat16
CASES = ("Qwen3-0.6B", "Llama-3.2-1B")  # the benchmark's checkpoints that are shown
PANEL = 800  # where the right-hand panel begins


@figure
def memory_timeline(drawing: Drawing) -> None:
    records = measured_together(drawing, "M9-LAB-APP-A", "loading")
    lab = records["M9-LAB-APP-A"]
    loads, model = lab["strategies"], lab["model_mb"]
    title = f"Memory held while one model is loaded, in models (1 = {model:.0f} MiB)"
    width = drawing.text(36, 46, title, 21, 650, NAVY)
    drawing.marker(36 + width + 26, 39, 9)
    end = max(loads["naive"]["timeline"]["seconds"])
    axes = Axes(drawing, 84, 78, 660, 444, (0, end), (0, 2.24 * model))
    for share in (0, 0.5, 1, ROOM, 2):
        drawing.text(axes.left - 12, axes.y(share * model) + 6, f"{share:g}", 17, 400, MUTED, "end")
    drawing.line(axes.left, axes.y(2 * model), axes.right, axes.y(2 * model))
    axes.ticks([tenth / 10 for tenth in range(0, 13, 2)])
    drawing.text(axes.right, axes.bottom + 54, "seconds since the load began", 18, 400, MUTED, "end")
    width = drawing.text(axes.left, axes.bottom + 54, "Lab M9-LAB-APP-A", 18, 600, GOLD_INK)
    drawing.marker(axes.left + width + 26, axes.bottom + 48, 7)
    _curves(axes, loads)
    _levels(axes, loads["naive"], model)
    _labels(axes, loads, model)
    _at_full_size(drawing, records["loading"]["cases"])


def series(load: Mapping[str, Any], kind: str) -> list[Point]:
    """A load's timeline as points: seconds, MiB of `private` or `file` memory."""
    return list(zip(load["timeline"]["seconds"], load["timeline"][f"{kind}_mb"], strict=True))


def crossing(points: list[Point], level: float) -> float:
    """The first moment at which the curve is at a level."""
    for (before, low), (after, high) in pairwise(points):
        if low <= level < high:
            return before + (after - before) * (level - low) / (high - low)
    raise ValueError(f"the curve never rises to {level:g}")


def _curves(axes: Axes, loads: Mapping[str, Any]) -> None:
    draw = axes.drawing
    naive, stream = series(loads["naive"], "private"), series(loads["stream"], "private")
    axes.area(naive, draw.gradient(NAVY, NAVY_TINT, 0.42, 0.5))
    axes.curve(series(loads["sequential"], "private"), SLATE, 3)
    axes.curve(naive, NAVY, 4.5)
    axes.area(stream, draw.gradient(GOLD, GOLD, 0.6, 0.3))
    axes.curve(stream, GOLD, 5)
    axes.curve(series(loads["mmap"], "file"), SKY, 3.5, "7 5")
    axes.base()


def _levels(axes: Axes, naive: Mapping[str, Any], model: float) -> None:
    """One model, and the room of a machine that holds one and a half."""
    draw, room = axes.drawing, ROOM * model
    draw.line(axes.left, axes.y(model), axes.right, axes.y(model), GOLD_INK, 2, "3 5")
    draw.line(axes.left, axes.y(room), axes.right, axes.y(room), ALARM, 2.5, "10 7")
    left = axes.left + 14
    width = draw.text(left, axes.y(room) - 14, f"a machine with room for {ROOM:g} models: killed", 19, 650, ALARM)
    draw.marker(left + width + 28, axes.y(room) - 21, 12)
    at = axes.x(crossing(series(naive, "private"), room))
    draw.circle(at, axes.y(room), 15, "#FFFFFF", ALARM, 2.5)
    draw.cross(at, axes.y(room), 12, ALARM, 3.5)
    draw.marker(at - 34, axes.y(room) - 26, 8)


def _labels(axes: Axes, loads: Mapping[str, Any], model: float) -> None:
    """Every curve's name beside it, in its colour."""
    draw, ready = axes.drawing, {way: load["load_seconds"] for way, load in loads.items()}
    peak = {way: load["peak_mb"] for way, load in loads.items()}
    summit = max(series(loads["naive"], "private"), key=lambda point: point[1])
    x, y = axes.x(summit[0]), axes.y(summit[1])
    draw.text(
        x - 30, y - 18, f"naive: {peak['naive']:.0f} MiB, {peak['naive'] / model:.1f} models", 23, 700, NAVY, "end"
    )
    draw.marker(x, y - 24, 1)
    draw.marker(x + 34, axes.y(1.4 * model), 6)
    draw.text(axes.x(0.94), axes.bottom - 40, "a new model is filled with", 18, 400, NAVY, "end")
    draw.text(axes.x(0.94), axes.bottom - 16, "random numbers nobody needs", 18, 400, NAVY, "end")

    x, y = axes.x(ready["stream"]) + 36, axes.y(model)
    draw.marker(x, y + 28, 2)
    draw.text(x + 26, y + 36, f"stream: {peak['stream']:.0f} MiB", 23, 700, GOLD_INK)
    draw.text(x + 26, y + 62, f"ready in {ready['stream']:.2f} s", 18)
    draw.marker(x, y - 22, 5)
    draw.text(x + 26, y - 15, "one model at rest, on the CPU", 18, 600, GOLD_INK)

    x, y = axes.x(0.98), axes.y(1.29 * model)
    width = draw.text(x, y, f"sequential: {peak['sequential']:.0f} MiB", 19, 650, MUTED, "end")
    draw.marker(x - width - 26, y - 7, 4)

    x, y = axes.left + 24, axes.y(1.32 * model)
    draw.line(x + 12, y + 10, x + 12, axes.y(1.03 * model), SKY_INK, 1.5)
    width = draw.text(x, y, f"mmap: {ready['mmap']:.2f} s", 19, 650, SKY_INK)
    draw.marker(x + width + 28, y - 7, 11)


def _at_full_size(draw: Drawing, cases: list[dict[str, Any]]) -> None:
    """The measured peaks of checkpoints of released sizes, and what they mean for a machine of a given memory."""
    draw.rect(PANEL, 66, draw.width - PANEL - 32, 506, SOFT_GREY, None, 14)
    left = PANEL + 22
    draw.text(left, 102, "At full size", 21, 650, NAVY)
    draw.marker(left + 140, 95, 3)
    draw.text(left, 126, "peak memory, MiB", 18, 400, MUTED)
    peaks = {name: full_size_peaks(cases, name) for name in CASES}
    most = max(max(found["naive"], found["stream"]) for found in peaks.values())
    y = 166
    for name, found in peaks.items():
        draw.text(left, y, f"{name}'s shape", 18, 600, CHARCOAL)
        _pair(draw, left, y + 12, {way: found[way] for way in ("naive", "stream")}, most, "{:,.0f}")
        y += 130
    draw.line(left, y - 14, draw.width - 54, y - 14, HAIRLINE, 2)
    draw.text(left, y + 20, f"So {MACHINE_GB} GB can load", 21, 650, NAVY)
    draw.marker(draw.width - 66, y + 13, 10)
    draw.text(left, y + 44, "billion parameters, bfloat16", 18, 400, MUTED)
    largest = {way: largest_model(peaks[CASES[-1]], way) / 1e9 for way in ("naive", "stream")}
    _pair(draw, left, y + 58, largest, max(largest.values()), "{:.1f}")


def full_size_peaks(cases: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Peaks in MiB by way of loading, and the model's own size, of one benchmarked safetensors checkpoint."""
    case = next(case for case in cases if case["checkpoint"].startswith(name) and ".safetensors" in case["checkpoint"])
    ours = {row["name"].removeprefix("course_helpers, "): row["peak_resident_mb"] for row in case["methods"]}
    return {way: ours[way] for way in ("naive", "sequential", "mmap", "stream")} | {"model": case["bytes"] / 2**20}


def largest_model(peaks: Mapping[str, float], way: str) -> float:
    """How many bfloat16 parameters a machine can load if peaks keep their measured proportion to the model."""
    return MACHINE_GB * 1e9 / BYTES_EACH / (peaks[way] / peaks["model"])


def _pair(draw: Drawing, x: float, y: float, values: Mapping[str, float], most: float, form: str) -> None:
    """Two bars, naive above stream, each with its name before and its value behind it."""
    for row, (way, value) in enumerate(values.items()):
        top, length = y + row * 40, 98 * value / most
        fill, ink = (NAVY, NAVY) if way == "naive" else (GOLD, GOLD_INK)
        draw.text(x, top + 22, way, 18, 600, ink)
        draw.rect(x + 72, top, length, 30, fill, None, 4)
        draw.text(x + 72 + length + 8, top + 22, form.format(value), 18, 650, CHARCOAL)
