"""The two hours as a score: one staff an hour, one line an agenda item, one block a slide, as long as its minutes.

A ribbon runs through the blocks in the order they are shown, so the eye sees when the course returns to an item. What
is shown comes from the slides' own front matter: change a slide's minutes and the picture follows.
"""

import re
from dataclasses import dataclass

from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    NAVY_TINT,
    SKY,
    SKY_TINT,
    SLATE,
    WHITE,
)

from ..deck import CONTENT, HOUR_MINUTES, Slide, read_source
from . import figure
from .svg import Drawing

TOP, PITCH, BLOCK = 28.0, 48.0, 37.0
#: The slide's two cards above: gap between them, and from a card's edge to its numbers, its text and its end.
GAP, NUMBERS, TEXT, END = 26.0, 54.0, 92.0, 98.0
FRAME = None  # the line of slides that belong to no agenda item: they open or close an hour
#: kind of slide -> (what it is called, fill, edge, ink)
LOOK = {
    "concept": ("idea", SKY_TINT, SKY, NAVY),
    "animation": ("film", GOLD, GOLD_INK, NAVY),
    "practical": ("lab", NAVY, NAVY, WHITE),
    "code": ("code", GOLD_TINT, GOLD_INK, NAVY),
    "frame": ("opening and close", WHITE, SLATE, MUTED),
}


@dataclass(frozen=True)
class Block:
    """A slide in the score: when it starts, in minutes of its hour, and on which line (0 to 3, or FRAME)."""

    slide: Slide
    start: float
    line: int | None

    @property
    def look(self) -> tuple[str, str, str, str]:
        return LOOK.get(self.slide.kind, LOOK["frame"])


def read_hours() -> dict[int, list[Block]]:
    """The blocks of both hours, in order."""
    slides = [read_source(path) for path in sorted(CONTENT.glob("*.md"))]
    agenda = next(slide for slide in slides if slide.kind == "agenda")
    hours: dict[int, list[Block]] = {1: [], 2: []}
    for slide in slides:
        blocks = hours[slide.hour]
        start = blocks[-1].start + blocks[-1].slide.minutes if blocks else 0
        blocks.append(Block(slide, start, agenda_line(slide.kicker, agenda.sections[f"Hour {slide.hour}"])))
    return hours


def agenda_line(kicker: str, items: list[str]) -> int | None:
    """Which agenda item a kicker names: the one it shares most words with; FRAME where it shares none."""
    words = _words(kicker.partition(" · ")[2])
    shared = [len(words & _words(item)) for item in items]
    return shared.index(max(shared)) if max(shared) else FRAME


def _words(text: str) -> set[str]:
    """The words that tell items apart, without a plural's s."""
    return {word.rstrip("s") for word in re.findall(r"[a-z]+", text.lower())} - {"a", "and", "it", "to", "for"}


@figure
def hour_ribbon(drawing: Drawing) -> None:
    """Two staffs, the axis of minutes, and what the colours mean."""
    card = (drawing.width - GAP) / 2
    for hour, blocks in read_hours().items():
        _Staff(drawing, (hour - 1) * (card + GAP), card, hour, blocks).draw()
    _legend(drawing)
    drawing.source("Minutes, kinds and order: the slides' own sources")


class _Staff:
    """One hour below its card: maps minutes and lines to pixels, and draws."""

    def __init__(self, drawing: Drawing, card: float, width: float, hour: int, blocks: list[Block]):
        self.drawing, self.hour, self.blocks = drawing, hour, blocks
        self.numbers, self.left, self.width = card + NUMBERS, card + TEXT, width - TEXT - END
        self.bottom = TOP + 3 * PITCH + BLOCK

    def x(self, minutes: float) -> float:
        return self.left + minutes / HOUR_MINUTES * self.width

    def y(self, line: int | None) -> float:
        """The middle of a line; a frame block stands over all four."""
        return TOP + BLOCK / 2 + PITCH * (1.5 if line is FRAME else line)

    def draw(self) -> None:
        for line in range(4):
            self.drawing.line(self.left, self.y(line), self.x(HOUR_MINUTES), self.y(line), HAIRLINE, 1.5)
            self.drawing.circle(self.numbers, self.y(line), 18, NAVY_TINT)
            self.drawing.text(self.numbers, self.y(line) + 7, str(line + 1), 20, 700, NAVY, "middle")
            minutes = sum(block.slide.minutes for block in self.blocks if block.line == line)
            self.drawing.text(self.x(HOUR_MINUTES) + 14, self.y(line) + 7, f"{minutes:g} min", 20, 500, CHARCOAL)
        self._ribbon()
        for block in self.blocks:
            self._block(block)
        self._axis()

    def _ribbon(self) -> None:
        for before, after in zip(self.blocks, self.blocks[1:], strict=False):
            turn = self.x(after.start)
            self.drawing.curve((turn - 13, self.y(before.line)), (turn + 13, self.y(after.line)), GOLD, 6, opacity=0.55)

    def _block(self, block: Block) -> None:
        _, fill, edge, ink = block.look
        x, end = self.x(block.start) + 2.5, self.x(block.start + block.slide.minutes) - 2.5
        height = self.bottom - TOP if block.line is FRAME else BLOCK
        y = self.y(block.line)
        self.drawing.rect(x, y - height / 2, end - x, height, fill, edge, 7, 2)
        self.drawing.text((x + end) / 2, y + 7, str(block.slide.number), 18, 650, ink, "middle")

    def _axis(self) -> None:
        y = self.bottom + 14
        self.drawing.line(self.left, y, self.x(HOUR_MINUTES), y, SLATE, 1.5)
        for minutes in range(0, HOUR_MINUTES + 1, 15):
            self.drawing.line(self.x(minutes), y, self.x(minutes), y + 7, SLATE, 1.5)
            self.drawing.text(self.x(minutes), y + 29, _clock(self.hour, minutes), 18, 400, MUTED, "middle")


def _clock(hour: int, minutes: int) -> str:
    total = (hour - 1) * HOUR_MINUTES + minutes
    return f"{total // 60}:{total % 60:02d}"


def _legend(drawing: Drawing) -> None:
    x, y = TEXT, drawing.height - 16
    for name, fill, edge, _ in LOOK.values():
        drawing.rect(x, y - 15, 30, 19, fill, edge, 5, 2)
        x += 40 + drawing.text(x + 40, y + 1, name, 19, 500, CHARCOAL) + 32
    words = "one block a slide, as long as its minutes"
    drawing.text((drawing.width + GAP) / 2 + TEXT, y + 1, words, 19, 400, MUTED)
