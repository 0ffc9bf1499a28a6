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
    MUTED,
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

#: folder number -> (name, colour), from the top: in this order a lab's folders lie side by side
LINES = {
    "08": ("memory-efficient", SLATE),
    "02": ("alternative loading", SKY),
    "07": ("GPT to Llama", NAVY),
    "11": ("Qwen3", SKY_INK),
    "12": ("Gemma 3", SLATE),
    "13": ("Olmo 3", SKY),
    "14": ("other LLMs", NAVY),
}
#: lab -> where it stands, from left to right in run order
STATIONS = {
    "M9-LAB-01": 338, "M9-LAB-APP-A": 400, "M9-CODE-01": 464, "M9-LAB-02": 480, "M9-LAB-03": 553, "M9-LAB-04": 566,
    "M9-LAB-05": 592, "M9-LAB-06": 628, "M9-LAB-07": 656, "M9-LAB-08": 678, "M9-LAB-09": 764, "M9-CODE-02": 786,
    "M9-LAB-APP-B": 984, "M9-LAB-APP-C": 1050,
}  # fmt: skip
TOP, PITCH, BUNDLE = 106.0, 62.0, 13.0  # first line, distance of lines, distance where they run together
MARKERS, NAMES, TERMINUS, RIVER = 46.0, 74.0, 244.0, 278.0
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
    """River and gate, lines, stations, the trunk that they become."""
    stations = read_stations()
    _river(drawing)
    _no_transfer(drawing)
    for place, folder in enumerate(LINES):
        _line(drawing, place, folder)
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


def _river(drawing: Drawing) -> None:
    """Between their notebooks and our labs: every line crosses it through the same gate."""
    top, bottom, half, sway = TOP - 44, TOP + 6 * PITCH + 40, 17, 10
    middle = (top + bottom) / 2
    left, right = RIVER - sway, RIVER + sway
    course = f"C{right} {top + 120} {left} {middle - 120} {RIVER} {middle} S{right} {bottom - 120} {RIVER} {bottom}"
    drawing.path(f"M{RIVER} {top} {course}", stroke=SKY_TINT, line=2 * half)
    drawing.text(RIVER, top - 14, "control: config, tokenizer", 17, 600, SKY_INK, "middle")


def _line(drawing: Drawing, place: int, folder: str) -> None:
    """From the terminus along its row, then down or up into the bundle before the last interchange."""
    y, end = TOP + place * PITCH, STATIONS["M9-LAB-APP-B"]
    target = MIDDLE + (place - 3) * BUNDLE
    fall = target - y
    drawing.path(
        f"M{TERMINUS} {y} " + (_bend(end - 18 - abs(fall), y, end - 18, target) if fall else "") + f" H{end}",
        stroke=LINES[folder][1], line=7,
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
        drawing.text(x, MIDDLE - 44, station.label, 17, 650, NAVY, "middle")
        drawing.text(x, MIDDLE - 24, "ch06", 16, 500, MUTED, "middle", MONO)
        return
    rows = [MIDDLE - 3 * BUNDLE, MIDDLE + 3 * BUNDLE] if bundled else [_y(folder) for folder in station.folders]
    for feeder in station.feeders:
        drawing.line(x, rows[0], x + 34, rows[0] - 34, SLATE, 4, dash="5 4")
        drawing.text(x + 42, rows[0] - 30, f"ch05/{feeder}", 16, 500, MUTED, family=MONO)
    high, low = min(rows) - 12, max(rows) + 12
    drawing.rect(x - 12, high, 24, low - high, GOLD if bundled else WHITE, NAVY, 12, 4)
    if station.feeders:
        drawing.text(x, low + 20, station.label, 17, 650, NAVY, "middle")
    else:
        drawing.text(x, high - 9, station.label, 17, 650, NAVY, "middle")


def _termini(drawing: Drawing) -> None:
    numbers = read_markers()
    for folder, (name, colour) in LINES.items():
        y = _y(folder)
        drawing.rect(TERMINUS - 6, y - 13, 9, 26, colour, radius=3)
        drawing.marker(MARKERS, y, numbers[folder])
        drawing.text(NAMES, y - 3, f"ch05/{folder}", 18, 700, NAVY, family=MONO)
        drawing.text(NAMES, y + 18, name, 17, 400, MUTED)


def _no_transfer(drawing: Drawing) -> None:
    """What a learner must not try: one family's tensor in another family's model."""
    x, (above, below) = 320, (_y("12"), _y("13"))
    shapes = []
    for family in ("gemma3", "olmo3"):
        config = next(iter(FAMILIES[family].presets.values()))
        shapes.append(f"{config.num_attention_heads * config.head_dim} × {config.hidden_size}")
    drawing.line(x, above, x, below, ALARM, 3, dash="6 5")
    drawing.circle(x, (above + below) / 2, 15, WHITE)
    drawing.cross(x, (above + below) / 2, 17, ALARM, 4)
    drawing.text(x + 56, above + 27, "no change: q_proj is", 17, 600, ALARM)
    drawing.text(x + 56, above + 48, f"{shapes[0]}, {shapes[1]}", 17, 400, ALARM)
    drawing.marker(x + 35, (above + below) / 2, 9)


def _signs(drawing: Drawing) -> None:
    """The annotations that are no folder: goal, gate, checks, clinic."""
    end = STATIONS["M9-LAB-APP-B"]
    drawing.marker(RIVER - 130, TOP - 66, 10)
    drawing.marker(end + 34, MIDDLE + 96, 8)
    drawing.text(end + 34, MIDDLE + 140, "one workflow", 18, 650, GOLD_INK, "middle")
    _above(drawing, "M9-LAB-08", _y("02"), 12, "faults")
    _above(drawing, "M9-LAB-09", _y("07"), 11, "tests")


def _above(drawing: Drawing, lab: str, y: float, number: int, word: str) -> None:
    x = STATIONS[lab]
    drawing.marker(x + 56, y - 27, number)
    drawing.text(x + 79, y - 21, word, 17, 400, CHARCOAL)


def _run_order(drawing: Drawing) -> None:
    """Below the map: where each lab stands in the order, and how to read a station."""
    y, first, last = TOP + 6 * PITCH + 62, STATIONS["M9-LAB-01"], STATIONS["M9-LAB-APP-C"]
    drawing.arrow((first, y), (last + 16, y), stroke=SLATE, line=2, head=10)
    for x in STATIONS.values():
        drawing.circle(x, y, 4, SLATE, WHITE, 1)
    drawing.text(TERMINUS + 3, y + 6, "order of the labs", 17, 500, MUTED, "end")
    y += 42
    drawing.circle(first, y - 6, 9, WHITE, NAVY, 3)
    drawing.text(first + 18, y, "a lab of ours", 17, 400, MUTED)
    drawing.rect(first + 150, y - 15, 42, 18, WHITE, NAVY, 9, 3)
    drawing.text(first + 202, y, "a lab on several folders", 17, 400, MUTED)
    drawing.line(first + 430, y - 6, first + 470, y - 6, SLATE, 4, dash="5 4")
    drawing.text(first + 482, y, "one more file that it reads", 17, 400, MUTED)
