"""The pictures' vocabulary: cards, tensors, blocks, files, tokens, the memory bar, arrows and the stage rail.

Both films are made of these and of `canvas` (frame, regions, text). Colours and fonts are `course_helpers.palette`'s.
Colours mean something: navy is the model and what belongs to it, gold the tensors that travel, sky a file or what is
merely looked at, the alarm colours what is refused, the sound colours what has been checked. None says so alone: each
has a label beside it.
"""

from collections.abc import Sequence

import numpy as np
from manim import DOWN, LEFT, RIGHT, UP, Animation, Circle, Line, Polygon, Rectangle, RoundedRectangle, VGroup, VMobject

from course_helpers import palette
from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    PEARL,
    SKY_TINT,
    SOFT_GREY,
    SOUND,
    WHITE,
)

from .canvas import BOLD, LABEL, MEDIUM, RAIL, SMALLEST, Box, code, lines, px, words

#: Width of strokes in Manim's unit, a hundredth of a length unit: hairlines, edges, and lines that carry meaning.
THIN, EDGE, THICK = px(1.5) * 100, px(2.5) * 100, px(4) * 100
RADIUS = 14


class Card(RoundedRectangle):
    """A plain rounded rectangle: the ground on which other things lie."""

    def __init__(self, width: float, height: float, fill: str = PEARL, edge: str = HAIRLINE, radius: float = RADIUS):
        radius = min(radius, width / 2, height / 2)
        super().__init__(corner_radius=px(radius), width=px(width), height=px(height))
        self.set_fill(fill, 1).set_stroke(edge, EDGE)

    @classmethod
    def over(cls, box: Box, **options) -> "Card":
        """A card that fills a box."""
        return cls(box.width, box.height, **options).move_to(box.at())


class Tensor(VGroup):
    """A tile with a tensor's name and, under it, its shape."""

    def __init__(self, name: str, shape: str = "", width: float = 300, fill: str = GOLD_TINT, edge: str = GOLD):
        rows = [code(name, LABEL, GOLD_INK if fill == GOLD_TINT else CHARCOAL, fit=width - 32)]
        rows += [code(shape, SMALLEST, MUTED, fit=width - 32)] if shape else []
        self.card = Card(width, 50 + 34 * (len(rows) - 1), fill, edge, radius=10)
        self.label = lines(*rows, gap=0, side=np.zeros(3)).move_to(self.card)
        super().__init__(self.card, self.label)


class Sheet(VGroup):
    """A matrix drawn as a grid, as high and as wide as its shape says, up to a scale."""

    def __init__(self, shape: tuple[int, int], scale: float, fill: str = GOLD_TINT, edge: str = GOLD, cells: int = 4):
        height, width = px(shape[0] * scale), px(shape[1] * scale)
        self.ground = Rectangle(width=width, height=height).set_fill(fill, 1).set_stroke(edge, EDGE)
        steps = np.linspace(-0.5, 0.5, cells + 1)[1:-1]
        across = [Line([-width / 2, step * height, 0], [width / 2, step * height, 0]) for step in steps]
        upright = [Line([step * width, -height / 2, 0], [step * width, height / 2, 0]) for step in steps]
        super().__init__(self.ground, *(line.set_stroke(edge, THIN, opacity=0.5) for line in across + upright))


class Block(VGroup):
    """A part of a model: a heading over slots, one for each parameter. A slot is hollow until it is filled."""

    def __init__(self, title: str, slots: Sequence[str], width: float = 300, slot_height: float = 40, columns: int = 1):
        wide = (width - 32 - 8 * (columns - 1)) / columns
        self.slots = {name: Card(wide, slot_height, WHITE, HAIRLINE, radius=8) for name in slots}
        grid = VGroup(*self.slots.values()).arrange_in_grid(cols=columns, buff=px(8))
        self.title = words(title, LABEL, NAVY, weight=BOLD, fit=width - 32)
        content = lines(self.title, grid, gap=8)
        self.labels = {
            name: words(name, SMALLEST, MUTED, fit=wide - 16).move_to(slot) for name, slot in self.slots.items()
        }
        self.card = Card(width, content.height / px(1) + 28, palette.NAVY_TINT, NAVY).move_to(content)
        super().__init__(self.card, content, *self.labels.values())

    def fill(self, *names: str) -> list[Animation]:
        """The animations that show the slots as filled; all of them if no name is given."""
        filled = [self.slots[name] for name in names or self.slots]
        texts = [self.labels[name] for name in names or self.slots]
        return [slot.animate.set_fill(NAVY, 1).set_stroke(NAVY) for slot in filled] + [
            text.animate.set_fill(WHITE) for text in texts
        ]


class File(VGroup):
    """A page with a folded corner, its name, and the parts it is made of, from top to bottom, or `across`. `fills` are
    the parts' colours, `shares` their heights or widths."""

    FOLD = 30

    def __init__(
        self,
        name: str,
        parts: Sequence[str] = (),
        width: float = 260,
        height: float = 200,
        edge: str = NAVY,
        fills: Sequence[str] = (),
        shares: Sequence[float] = (),
        across: bool = False,
    ):
        self.page = self._page(width, height, edge)
        self.name = code(name, LABEL, NAVY, weight=MEDIUM, fit=width - 44 - self.FOLD)
        self.name.move_to(self.page.get_corner(UP + LEFT) + px(18) * RIGHT + px(12) * DOWN, aligned_edge=UP + LEFT)
        space = Box(-width / 2, -height / 2, width / 2, height / 2).inset(18, 16)
        space = Box(space.left, space.bottom, space.right, space.top - 44)
        self.parts = VGroup()
        fills = fills or [SKY_TINT if part else SOFT_GREY for part in parts]
        cut = space.columns if across else space.rows
        for row, part, fill in zip(cut(shares or max(len(parts), 1), gap=8), parts, fills, strict=False):
            card = Card(row.width, row.height, fill, HAIRLINE, radius=6).move_to(row.at())
            label = words(part, SMALLEST, CHARCOAL, fit=row.width - 16).move_to(card) if part else VGroup()
            self.parts.add(VGroup(card, label))
        super().__init__(self.page, self.name, self.parts)

    def _page(self, width: float, height: float, edge: str) -> VGroup:
        box, fold = Box(-width / 2, -height / 2, width / 2, height / 2), px(self.FOLD)
        corner = box.at(1, 1)
        sheet = Polygon(box.at(0, 0), box.at(1, 0), corner + fold * DOWN, corner + fold * LEFT, box.at(0, 1))
        flap = Polygon(corner + fold * LEFT, corner + fold * (LEFT + DOWN), corner + fold * DOWN)
        sheet.set_fill(PEARL, 1).set_stroke(edge, EDGE)
        return VGroup(sheet, flap.set_fill(HAIRLINE, 1).set_stroke(edge, EDGE))


class Token(VGroup):
    """A piece of text as the model sees it: the piece (a space is drawn as an open box) and its id."""

    def __init__(self, text: str, id: int | None = None, size: float = LABEL, fill: str = SOFT_GREY, edge: str = NAVY):
        shown = text.replace(" ", "␣").replace("\n", "⏎") or "∅"
        self.text = code(shown, size)
        self.card = Card(self.text.width / px(1) + 20, size * 1.7, fill, edge, radius=8)
        self.text.move_to(self.card)
        super().__init__(self.card, self.text)
        self.id = None if id is None else code(str(id), SMALLEST, MUTED).next_to(self.card, DOWN, buff=px(4))
        if self.id:
            self.add(self.id)


class Arrow(VGroup):
    """A straight line with a small head."""

    HEAD = 14

    def __init__(self, start: np.ndarray, end: np.ndarray, colour: str = NAVY, width: float = EDGE):
        along = (end - start) / np.linalg.norm(end - start)
        aside = np.array([-along[1], along[0], 0])
        neck = end - px(self.HEAD) * along
        self.line = Line(start, neck).set_stroke(colour, width)
        wing = px(self.HEAD / 2) * aside
        head = Polygon(neck + wing, end, neck - wing).set_fill(colour, 1).set_stroke(width=0)
        super().__init__(self.line, head)


class Tick(VGroup):
    """What has been checked holds."""

    def __init__(self, size: float = 26, colour: str = SOUND):
        box = Box(-size / 2, -size / 2, size / 2, size / 2)
        stroke = VMobject().set_points_as_corners([box.at(0.05, 0.5), box.at(0.38, 0.15), box.at(0.95, 0.85)])
        super().__init__(stroke.set_stroke(colour, THICK))


class Cross(VGroup):
    """What has been checked does not hold."""

    def __init__(self, size: float = 24, colour: str = ALARM):
        box = Box(-size / 2, -size / 2, size / 2, size / 2)
        strokes = [Line(box.at(0, 0), box.at(1, 1)), Line(box.at(0, 1), box.at(1, 0))]
        super().__init__(*(stroke.set_stroke(colour, THICK) for stroke in strokes))


class MemoryBar(VGroup):
    """Memory in use as a column over a scale from nothing to `most`. Marks say where a size lies on that scale."""

    def __init__(self, most: float, width: float = 120, height: float = 560, fill: str = GOLD):
        self.most, self.full = most, px(height)
        self.track = Card(width, height, SOFT_GREY, HAIRLINE, radius=0)
        self.bar = Rectangle(width=px(width), height=self.full).set_fill(fill, 1).set_stroke(width=0)
        self.bar.move_to(self.track)
        super().__init__(self.track, self.bar)
        self.show(0)

    def show(self, amount: float) -> "MemoryBar":
        """Fill the column up to an amount."""
        height = max(self.full * amount / self.most, 1e-4)
        self.bar.stretch_to_fit_height(height).move_to(self.track.get_bottom(), aligned_edge=DOWN)
        return self

    def level(self, amount: float, side: np.ndarray = RIGHT) -> np.ndarray:
        """The point of the column's side at an amount."""
        edge = self.track.get_corner(DOWN + side)
        return edge + UP * self.full * amount / self.most

    def mark(self, amount: float, text: str, colour: str = NAVY, gap: float = 14, side: np.ndarray = RIGHT) -> VGroup:
        """A line across the column at an amount, and its meaning beside it."""
        line = Line(self.level(amount, LEFT), self.level(amount, RIGHT)).set_stroke(colour, THICK)
        label = words(text, LABEL, colour).next_to(self.level(amount, side), side, buff=px(gap))
        return VGroup(line, label)


class StageRail(VGroup):
    """The stages of a film on top of the frame: a dot and a name each; the one the film is in is lit."""

    DOT = 9

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.dots, self.names = [], []
        places = RAIL.columns(len(names))
        self.points_of = [place.at(0.5, 0.8) for place in places]
        self.way = Line(self.points_of[0], self.points_of[-1]).set_stroke(HAIRLINE, THICK)
        self.done = Line(self.points_of[0], self.points_of[0] + px(1) * RIGHT).set_stroke(NAVY, THICK, opacity=0)
        for name, place, point in zip(names, places, self.points_of, strict=True):
            self.dots.append(Circle(px(self.DOT)).set_fill(WHITE, 1).set_stroke(MUTED, EDGE).move_to(point))
            self.names.append(words(name, LABEL, MUTED, weight=MEDIUM).move_to(place.at(0.5, 0.1)))
        self.add(self.way, self.done, *self.dots, *self.names)

    def go(self, stage: int) -> list[Animation]:
        """The animations that light a stage, and show those before it as done: all, if there is none of that number."""
        changes = []
        for index, (dot, name) in enumerate(zip(self.dots, self.names, strict=True)):
            fill, edge = (GOLD, NAVY) if index == stage else (NAVY, NAVY) if index < stage else (WHITE, MUTED)
            changes.append(dot.animate.set_fill(fill, 1).set_stroke(edge))
            changes.append(name.animate.set_fill(NAVY if index <= stage else MUTED))
        if stage > 0:
            end = self.points_of[min(stage, len(self.dots) - 1)]
            changes.append(self.done.animate.put_start_and_end_on(self.points_of[0], end).set_stroke(opacity=1))
        return changes
