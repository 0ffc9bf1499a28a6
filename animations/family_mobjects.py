"""What the film of the family swap is played on: the stations of the workflow, the families' tabs, the five cells."""

from collections.abc import Mapping, Sequence

import numpy as np
from manim import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    Animation,
    FadeIn,
    FadeOut,
    Line,
    Mobject,
    Scene,
    VGroup,
    smooth,
    squish_rate_func,
)

from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    HAIRLINE,
    MUTED,
    NAVY,
    PEARL,
    SOFT_GREY,
    WHITE,
)

from .canvas import BODY, BOLD, LABEL, MEDIUM, SMALLEST, STAGE, Box, Words, code, px, words
from .family_pictures import PICTURES, QUESTIONS, Dial, experts
from .family_shapes import Picture
from .style import EDGE, THICK, Card
from .swap_parts import Part

#: The stage from top to bottom: the workflow's calls, the families, the model, and the prompt with what is written.
STATIONS, TABS, MODEL, OUTPUT = STAGE.rows([128, 54, 434, 156], gap=18)
#: The output's rows, each with a label before it.
PROMPT_ROW, TEXT_ROW = OUTPUT.rows([92, 60], gap=8)
LABELS = 170
LIFT = px(14) * UP
#: An old line goes in the first half of the time, a new one comes in the second: they never lie over one another.
FIRST, THEN = squish_rate_func(smooth, 0, 0.5), squish_rate_func(smooth, 0.5, 1)


class Slot:
    """A place for one line of text, which is changed by letting the old line go and the new one come."""

    def __init__(self, box: Box, side: np.ndarray | None = None):
        self.box, self.side, self.line = box, side, None

    def show(self, line: Words) -> list[Animation]:
        """The animations that put a line here instead of the one before."""
        leave = [FadeOut(self.line, shift=LIFT, rate_func=FIRST)] if self.line else []
        self.line = self.box.place(line, self.side)
        return [*leave, FadeIn(self.line, shift=LIFT, rate_func=THEN)]


class Station:
    """One call of the workflow. Its place and the call stay as they are; what comes of it is told below the call."""

    def __init__(self, box: Box, call: str):
        self.frame = Card.over(box, fill=PEARL).set_stroke(opacity=0).set_fill(opacity=0)
        inner = box.inset(22, 14)
        self.width = inner.width
        self.call, self.result, self.note = (Slot(row, LEFT) for row in inner.rows([36, 34, 28]))
        self.ask(call)

    def ask(self, call: str, colour: str = CHARCOAL) -> list[Animation]:
        """The animations that put another call here."""
        return self.call.show(code(call, LABEL, colour, fit=self.width))

    def tell(self, result: str, note: str, colour: str = NAVY) -> list[Animation]:
        """The animations that say what came of the call."""
        line = words(result, LABEL, colour, weight=MEDIUM, fit=self.width)
        return self.result.show(line) + self.note.show(words(note, SMALLEST, MUTED, fit=self.width))

    def light(self, edge: str = GOLD) -> Animation:
        """The animation that marks the station as the one at work, or as the one where something is wrong."""
        return self.frame.animate.set_stroke(edge, THICK, opacity=1)

    def rest(self) -> Animation:
        """The animation that takes the mark away."""
        return self.frame.animate.set_stroke(opacity=0)

    @property
    def mobjects(self) -> list[Mobject]:
        """All that is on the screen for this station."""
        return [self.frame, *(slot.line for slot in (self.call, self.result, self.note) if slot.line)]


def stations(calls: Sequence[str]) -> tuple[VGroup, list[Station]]:
    """The ground, with a line between two stations, and the stations, each under its stage on the rail."""
    boxes = STATIONS.columns(len(calls))
    edges = [Line(box.at(0, 0.14), box.at(0, 0.86)).set_stroke(HAIRLINE, EDGE) for box in boxes[1:]]
    return VGroup(Card.over(STATIONS), *edges), [Station(box, call) for box, call in zip(boxes, calls, strict=True)]


class Tabs(VGroup):
    """The families side by side; a navy card lies behind the one that is selected."""

    def __init__(self, titles: Sequence[str]):
        boxes = TABS.columns(len(titles), gap=14)
        self.cards = [Card.over(box, fill=SOFT_GREY, radius=10) for box in boxes]
        self.chosen = Card.over(boxes[0], fill=NAVY, edge=NAVY, radius=10).set_opacity(0)
        self.titles = [
            words(title, LABEL, MUTED, weight=MEDIUM).move_to(box.at())
            for title, box in zip(titles, boxes, strict=True)
        ]
        super().__init__(*self.cards, self.chosen, *self.titles)

    def select(self, index: int) -> list[Animation]:
        """The animations that select a family."""
        colours = [WHITE if number == index else MUTED for number in range(len(self.titles))]
        inks = [title.animate.set_fill(colour) for title, colour in zip(self.titles, colours, strict=True)]
        return [self.chosen.animate.move_to(self.cards[index]).set_opacity(1), *inks]


class Cell:
    """One of the five things inside the model: its title, its picture, and what it is in this family."""

    def __init__(self, box: Box, title: str):
        inner = box.inset(16, 12)
        heading, self.place, what, detail = inner.rows([36, 304, 36, 32], gap=4)
        self.title, self.card = title, Card.over(box, fill=WHITE)
        self.heading = heading.place(words(title, LABEL, MUTED, weight=BOLD), LEFT)
        self.width = inner.width
        self.what, self.detail = Slot(what, LEFT), Slot(detail, LEFT)
        self.tag = heading.place(words("changed", SMALLEST, GOLD_INK, weight=MEDIUM), RIGHT)
        self.picture = Picture({"question": self.place.place(words(QUESTIONS[title], LABEL, MUTED))})

    def show(self, part: Part) -> list[Animation]:
        """The animations that turn the cell's picture and words into another family's."""
        moves = self._becomes(PICTURES[self.title](part, self.place.inset(0, 6)))
        lines = self.what.show(words(part.what, LABEL, NAVY, weight=MEDIUM, fit=self.width))
        return moves + lines + self.detail.show(words(part.detail, SMALLEST, MUTED, fit=self.width))

    def _becomes(self, new: Picture) -> list[Animation]:
        moves, self.picture = self.picture.into(new), new
        return moves

    def turn(self, **options) -> list[Animation]:
        """The animations in which the hands of dials turn, where there are any."""
        dials = [piece for piece in self.picture.pieces.values() if isinstance(piece, Dial)]
        return [dial.turn(**options) for dial in dials]

    def send(self, part: Part, token: int) -> list[Animation]:
        """The animations in which the router sends another token of the prompt to its experts."""
        return self._becomes(experts(part, self.place.inset(0, 6), token))

    def settle(self, scene: Scene) -> None:
        """After the animations of `show`: the pieces lie over one another as the picture has them."""
        scene.remove(*self.picture.pieces.values())
        scene.add(self.picture)

    def mark(self) -> list[Animation]:
        """The animations that say that this has changed."""
        return [self.card.animate.set_stroke(GOLD, THICK), FadeIn(self.tag)]

    def unmark(self) -> list[Animation]:
        """The animations that take this back."""
        return [self.card.animate.set_stroke(HAIRLINE, EDGE), FadeOut(self.tag)]

    @property
    def mobjects(self) -> list[Mobject]:
        """All that is on the screen for this cell, in the order in which it is drawn."""
        lines = [slot.line for slot in (self.what, self.detail) if slot.line]
        return [self.card, self.heading, self.picture, *lines]


def cells(parts: Mapping[str, Part]) -> dict[str, Cell]:
    """The five cells side by side, still empty."""
    boxes = MODEL.columns(len(parts), gap=14)
    return {title: Cell(box, title) for title, box in zip(parts, boxes, strict=True)}


def row_label(row: Box, text: str) -> Words:
    """The label before a row of the output."""
    return row.columns([LABELS, row.width - LABELS])[0].place(words(text, LABEL, MUTED), LEFT)


def row_place(row: Box) -> Box:
    """The place of a row of the output behind its label."""
    return row.columns([LABELS, row.width - LABELS])[1]


class Writing(Animation):
    """Text that appears piece by piece, as a model writes it."""

    def __init__(self, line: Words, pieces: Sequence[str], **options):
        texts = ["".join(pieces[:end]).strip() for end in range(1, len(pieces) + 1)]
        self.steps = [words(text, line.size, line.colour).align_to(line, LEFT + DOWN) for text in texts if text]
        super().__init__(line, **options)

    def interpolate_mobject(self, alpha: float) -> None:
        """Show as many pieces as the share of the time that has gone."""
        reached = min(int(self.rate_func(alpha) * len(self.steps)), len(self.steps) - 1)
        self.mobject.set_points(self.steps[reached].points)


def continued(last: str, pieces: Sequence[str], colour: str = NAVY) -> tuple[Words, Words]:
    """Two parts of one line of the output: the last word of the prompt, and after it what is written."""
    place, text = row_place(TEXT_ROW), "".join(pieces)
    whole = place.place(words(f"… {last}{text}", BODY, colour, fit=place.width), LEFT)
    line = words(text.strip(), whole.size, colour).align_to(whole, RIGHT + DOWN)
    return words(f"… {last}", whole.size, MUTED).align_to(whole, LEFT + DOWN), line
