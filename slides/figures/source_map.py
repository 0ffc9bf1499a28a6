"""The module's map, drawn as a railway: seven lines are the folders of chapter 5, the stations are our labs.

A lab that draws on several folders is a station where their lines meet, so the map shows at a glance which labs belong
to one folder and which to all. Left to right is the order in which the labs run. Which lab stands for which notebook is
read from the hands-on anchors of the slides.
"""

import re
from dataclasses import dataclass

from course_helpers import FAMILIES
from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    MONO,
    NAVY,
    SKY,
    SKY_INK,
    SKY_TINT,
    SLATE,
    WHITE,
)

from ..deck import CONTENT, read_source
from . import figure
from .numbers import computed
from .svg import Drawing

#: folder number -> (name, colour), from the top: in this order a lab's folders lie side by side. A colour is a group:
#: loading files, chapter 5's own road from GPT-2, and families from scratch.
LINES = {
    "08": ("memory-efficient", SLATE),
    "02": ("alternative loading", SLATE),
    "07": ("GPT to Llama", NAVY),
    "11": ("Qwen3", SKY),
    "12": ("Gemma 3", SKY),
    "13": ("Olmo 3", SKY),
    "14": ("other LLMs", NAVY),
}
#: lab -> where it stands, from left to right in run order
STATIONS = {
    "M9-LAB-01": 346, "M9-LAB-APP-A": 408, "M9-CODE-01": 468, "M9-LAB-02": 484, "M9-LAB-03": 560, "M9-LAB-04": 574,
    "M9-LAB-05": 606, "M9-LAB-06": 652, "M9-LAB-07": 672, "M9-LAB-08": 704, "M9-LAB-09": 762, "M9-CODE-02": 774,
    "M9-LAB-APP-B": 976, "M9-LAB-APP-C": 1044,
}  # fmt: skip
TOP, PITCH, BUNDLE = 106.0, 62.0, 13.0  # first line, distance of lines, distance where they run together
MARKERS, NAMES, TERMINUS, GATE = 46.0, 74.0, 246.0, 288.0
MIDDLE = TOP + 3 * PITCH
FOLDER = re.compile(r"ch05/(\d\d)_\w+")


@dataclass(frozen=True)
class Station:
    """A lab: its id, and the folders of chapter 5 that its anchor names, in the order of the lines."""

    lab: str
    folders: tuple[str, ...]
    feeders: tuple[str, ...]  # folders that have no line of their own

    @property
    def label(self) -> str:
        return self.lab.removeprefix("M9-").replace("LAB-APP", "APP")


def read_stations() -> list[Station]:
    """One station for each slide with an anchor, in the order of `STATIONS`."""
    anchors = [slide.anchor for slide in map(read_source, sorted(CONTENT.glob("*.md"))) if slide.anchor]
    stations = []
    for anchor in sorted(anchors, key=lambda anchor: list(STATIONS).index(anchor.lab)):
        named = {match[1] for asset in anchor.assets if (match := FOLDER.match(asset))}
        folders = tuple(folder for folder in LINES if folder in named)
        stations.append(Station(anchor.lab, folders, tuple(sorted(named - set(LINES)))))
    return stations


def read_markers() -> dict[str, int]:
    """folder -> number of the annotation that names it."""
    annotations = read_source(next(CONTENT.glob("03-*.md"))).sections["Annotations"]
    return {match[1]: number for number, text in enumerate(annotations, 1) if (match := FOLDER.search(text))}


@figure
def source_map(drawing: Drawing) -> None:
    """Gate, lines, stations, the trunk that they become."""
    stations = read_stations()
    _gate(drawing)
    _no_transfer(drawing)
    for place, folder in enumerate(LINES):
        _line(drawing, place, folder)
    _ticks(drawing)
    _trunk(drawing)
    for station in stations:
        _station(drawing, station)
    _termini(drawing)
    _signs(drawing)
    _run_order(drawing)
    drawing.source("Which lab stands for which notebook: the slides' anchors")
    computed(drawing, "presets")


def _y(folder: str) -> float:
    return TOP + list(LINES).index(folder) * PITCH


def _gate(drawing: Drawing) -> None:
    """Between their notebooks and our labs: on every line, config and tokenizer are looked at."""
    half, top, bottom = 19, TOP - 36, TOP + 6 * PITCH + 36
    drawing.rect(GATE - half, top, 2 * half, bottom - top, SKY_TINT, SKY_INK, half, 2)
    drawing.text(GATE - 42, top - 14, "config and tokenizer checked", 18, 600, SKY_INK)


def _ticks(drawing: Drawing) -> None:
    for folder in LINES:
        drawing.circle(GATE, _y(folder), 13, WHITE, SKY_INK, 2)
        drawing.tick(GATE, _y(folder), 13, SKY_INK, 3)


def _line(drawing: Drawing, place: int, folder: str) -> None:
    """From the terminus along its row, then down or up into the bundle before the last interchange."""
    y, end = TOP + place * PITCH, STATIONS["M9-LAB-APP-B"]
    target = MIDDLE + (place - 3) * BUNDLE
    fall = target - y
    drawing.path(
        f"M{TERMINUS} {y} " + (_bend(end - 18 - abs(fall), y, end - 18, target) if fall else "") + f" H{end}",
        stroke=LINES[folder][1], line=8,
    )  # fmt: skip


def _bend(x0: float, y0: float, x1: float, y1: float, soft: float = 12) -> str:
    """The part of a path that leaves a row at x0, goes down or up at 45 degrees and runs on level at y1."""
    way = 1 if y1 > y0 else -1
    slant = soft * 0.7
    return (
        f"H{x0 - soft:.1f} Q{x0:.1f} {y0:.1f} {x0 + slant:.1f} {y0 + way * slant:.1f} "
        f"L{x1 - slant:.1f} {y1 - way * slant:.1f} Q{x1:.1f} {y1:.1f} {x1 + soft:.1f} {y1:.1f}"
    )


def _trunk(drawing: Drawing) -> None:
    drawing.line(STATIONS["M9-LAB-APP-B"], MIDDLE, STATIONS["M9-LAB-APP-C"], MIDDLE, GOLD, 16)


def _station(drawing: Drawing, station: Station) -> None:
    x, bundled = STATIONS[station.lab], station.lab == "M9-LAB-APP-B"
    if not station.folders:  # the last stop, on the trunk: another chapter
        drawing.circle(x, MIDDLE, 14, WHITE, NAVY, 4)
        drawing.text(x, MIDDLE - 46, station.label, 18, 650, NAVY, "middle")
        drawing.text(x, MIDDLE - 24, "ch06", 17, 500, CHARCOAL, "middle", MONO)
        return
    rows = [MIDDLE - 3 * BUNDLE, MIDDLE + 3 * BUNDLE] if bundled else [_y(folder) for folder in station.folders]
    for feeder in station.feeders:
        drawing.line(x, rows[0], x + 34, rows[0] - 34, SLATE, 4, dash="5 4")
        drawing.text(x + 42, rows[0] - 30, f"ch05/{feeder}", 17, 500, CHARCOAL, family=MONO)
    high, low = min(rows) - 12, max(rows) + 12
    drawing.rect(x - 12, high, 24, low - high, GOLD if bundled else WHITE, NAVY, 12, 4)
    if station.feeders:
        drawing.text(x, low + 21, station.label, 18, 650, NAVY, "middle")
    else:
        drawing.text(x, high - 9, station.label, 18, 650, NAVY, "middle")


def _termini(drawing: Drawing) -> None:
    numbers = read_markers()
    for folder, (name, colour) in LINES.items():
        y = _y(folder)
        drawing.rect(TERMINUS - 6, y - 13, 9, 26, colour, radius=3)
        drawing.marker(MARKERS, y, numbers[folder])
        drawing.text(NAMES, y - 3, f"ch05/{folder}", 19, 700, NAVY, family=MONO)
        drawing.text(NAMES, y + 19, name, 18, 400, CHARCOAL, fit=TERMINUS - NAMES - 8)


def _no_transfer(drawing: Drawing) -> None:
    """What a learner must not try: one family's tensor in another family's model."""
    x, (above, below) = 328, (_y("12"), _y("13"))
    shapes = []
    for family in ("gemma3", "olmo3"):
        config = next(iter(FAMILIES[family].presets.values()))
        shapes.append(f"{config.num_attention_heads * config.head_dim} × {config.hidden_size}")
    drawing.line(x, above, x, below, ALARM, 3, dash="6 5")
    drawing.circle(x, (above + below) / 2, 15, WHITE)
    drawing.cross(x, (above + below) / 2, 17, ALARM, 4)
    drawing.text(x + 54, above + 27, "other shapes: q_proj", 17, 600, ALARM)
    drawing.text(x + 54, above + 48, f"{shapes[0]}, {shapes[1]}", 17, 400, ALARM)
    drawing.marker(x + 34, (above + below) / 2, 9)


def _signs(drawing: Drawing) -> None:
    """The annotations that are no folder: goal, gate, checks, clinic."""
    end = STATIONS["M9-LAB-APP-B"]
    drawing.marker(GATE - 66, TOP - 56, 10)
    drawing.marker(end, MIDDLE + 76, 8)
    drawing.text(end + 8, MIDDLE + 122, "one workflow", 20, 650, GOLD_INK, "middle")
    _above(drawing, "M9-LAB-08", _y("02"), 12, "faults")
    _above(drawing, "M9-LAB-09", _y("07"), 11, "tests")


def _above(drawing: Drawing, lab: str, y: float, number: int, word: str) -> None:
    x = STATIONS[lab]
    drawing.marker(x + 56, y - 27, number)
    drawing.text(x + 79, y - 21, word, 18, 400, CHARCOAL)


def _run_order(drawing: Drawing) -> None:
    """Below the map: where each lab stands in the order, and how to read a station."""
    y, first, last = TOP + 6 * PITCH + 62, STATIONS["M9-LAB-01"], STATIONS["M9-LAB-APP-C"]
    drawing.arrow((first, y), (last + 16, y), stroke=SLATE, line=2, head=10)
    for x in STATIONS.values():
        drawing.circle(x, y, 4, SLATE, WHITE, 1)
    drawing.text(TERMINUS + 3, y + 6, "order of the labs", 18, 500, CHARCOAL, "end")
    y += 42
    drawing.circle(first, y - 6, 9, WHITE, NAVY, 3)
    drawing.text(first + 18, y, "a lab of ours", 18, 400, CHARCOAL)
    drawing.rect(first + 154, y - 15, 42, 18, WHITE, NAVY, 9, 3)
    drawing.text(first + 206, y, "a lab on several folders", 18, 400, CHARCOAL)
    drawing.line(first + 448, y - 6, first + 488, y - 6, SLATE, 4, dash="5 4")
    drawing.text(first + 500, y, "one more file that it reads", 18, 400, CHARCOAL)
