"""The pictures of the film about loading, each made from a part of its story and laid out in a box of the frame."""

from collections.abc import Sequence

import numpy as np
from manim import DOWN, LEFT, RIGHT, UP, Square, VGroup

from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    MUTED,
    NAVY,
    SKY,
    SKY_TINT,
    WHITE,
)

from .canvas import BODY, BOLD, HEAD, LABEL, MEDIUM, SMALLEST, Box, Words, above, beside, code, lines, px, words
from .loading_formats import NAMES, NUMBERS, PLACES, Layout, Part, WeightFile
from .loading_story import Row
from .style import EDGE, Arrow, Card, File, Tensor

#: What the parts of a file are, in colour: fill and edge.
PAINT = {NAMES: (SKY_TINT, SKY), PLACES: (SKY_TINT, SKY), NUMBERS: (GOLD_TINT, GOLD)}
#: The width of a letter of the smallest code, in pixels, and the height from which two lines have room in a part.
LETTER, ROOM = SMALLEST * 0.6, 90
#: How much larger numbers are drawn than names. Really, they are hundreds of times larger.
LARGER = 3.6


def shape_text(shape: Sequence[int]) -> str:
    """A shape as Python writes it."""
    return str(tuple(shape))


def size_text(count: int) -> str:
    """Bytes in the largest unit of which there is one."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def shortened(name: str, most: int) -> str:
    """A name without its end, if it is longer than so many letters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def split_in_lines(text: str, width: float, size: float) -> list[str]:
    """Text in as few lines of at most so many pixels as there can be, and these of about one length."""
    fewest = _broken(text, width, size)
    tries = (_broken(text, width * share / 20, size) for share in range(10, 20))
    return next((lines for lines in tries if len(lines) == len(fewest)), fewest)


def _broken(text: str, width: float, size: float) -> list[str]:
    made = [""]
    for word in text.split():
        longer = f"{made[-1]} {word}".strip()
        if made[-1] and words(longer, size).width > px(width):
            made.append(word)
        else:
            made[-1] = longer
    return made


# --- checkpoint source ---


class Folder(VGroup):
    """A checkpoint in its own format: its files under one another, and in each what it holds, with its size."""

    def __init__(self, layout: Layout, box: Box):
        heading, space = box.rows([1, 8], gap=12)
        title = heading.place(words(layout.title, HEAD, NAVY, weight=BOLD))
        #: What holds names and shapes, and what holds numbers.
        self.of_names, self.of_numbers = VGroup(), VGroup()
        if len(layout.files) == 1:
            rows = [space]
        else:
            first, rest = space.rows([1, 2.4], gap=16)
            rows = [first, *rest.rows(len(layout.files) - 1, gap=16)]
        super().__init__(title, *(self.page(file, row) for file, row in zip(layout.files, rows, strict=True)))

    def page(self, file: WeightFile, box: Box) -> File:
        """A file and what is in it."""
        flat = box.height < 2 * ROOM
        page = empty_page(file, box, across=flat)
        for part, slot in zip(file.parts, page.parts, strict=True):
            slot.add(meaning(part, brief=flat, beside_others=len(file.parts) > 1).move_to(slot[0]))
            (self.of_numbers if part.kind == NUMBERS else self.of_names).add(slot)
        return page


def empty_page(file: WeightFile, box: Box, across: bool = False) -> File:
    """A file with its parts in their colours, and no words in them."""
    paints = [PAINT[part.kind] for part in file.parts]
    shares = [(1.9 if across else LARGER) if part.kind == NUMBERS else 1 for part in file.parts]
    name, fills = shortened(file.name, int((box.width - 74) / LETTER)), [fill for fill, _ in paints]
    page = File(name, [""] * len(paints), box.width, box.height, fills=fills, shares=shares, across=across)
    for slot, (_, edge) in zip(page.parts, paints, strict=True):
        slot[0].set_stroke(edge)
    return page.move_to(box.at())


def meaning(part: Part, brief: bool, beside_others: bool) -> VGroup:
    """What a part holds, and its name and size. In brief: as much of it as has room."""
    size = size_text(part.bytes)
    if not brief:
        told = f"{part.name}, {size}" if part.name else size
        return lines(
            words(part.kind, LABEL, CHARCOAL, weight=MEDIUM), words(told, SMALLEST, MUTED), gap=-2, side=np.zeros(3)
        )
    if part.kind == NUMBERS:
        return beside(words(part.kind, SMALLEST, CHARCOAL, weight=MEDIUM), words(size, SMALLEST, MUTED), gap=10)
    return words(part.name if beside_others else part.kind, SMALLEST, CHARCOAL, weight=MEDIUM)


def page_of_tensors(layout: Layout, box: Box) -> File:
    """The file that is read from, on its own."""
    page = empty_page(layout.files[0], box)
    for part, slot in zip(layout.files[0].parts, page.parts, strict=True):
        slot.add(words(part.kind, LABEL, CHARCOAL).move_to(slot[0]))
    return page


def weights_line(layout: Layout) -> str:
    """How many files a checkpoint is, and how large."""
    count = len(layout.files)
    return f"{count} file{'s' if count > 1 else ''}, {size_text(sum(file.bytes for file in layout.files))}"


# --- format adapter ---


def ticket(layout: Layout, box: Box) -> VGroup:
    """A format as a small card, once its files have been looked at."""
    card = Card.over(box)
    text = lines(words(layout.title, BODY, NAVY, weight=BOLD), words(weights_line(layout), SMALLEST, MUTED), gap=0)
    return VGroup(card, text.move_to(card.get_left() + px(24) * RIGHT, aligned_edge=LEFT))


class Door(VGroup):
    """What all formats go through: one function. `readers` are the formats as it calls them, at the heights given."""

    def __init__(self, layouts: Sequence[Layout], heights: Sequence[float], box: Box):
        self.card = Card.over(box, fill=NAVY, edge=NAVY)
        title = code("open_checkpoint", BODY, WHITE, weight=MEDIUM, fit=box.width - 40)
        title.move_to(self.card.get_top() + px(26) * DOWN, aligned_edge=UP)
        self.readers = [
            code(f'"{layout.format}"', LABEL, GOLD_TINT).move_to(box.at()).set_y(height)
            for layout, height in zip(layouts, heights, strict=True)
        ]
        super().__init__(self.card, title)


def questions() -> VGroup:
    """What can be asked of an open checkpoint of any format."""
    asked = (".names()", ".shape(name)", ".dtype(name)", ".read(name)")
    return beside(
        words("the same questions for all:", LABEL, MUTED), *(code(question, LABEL, NAVY) for question in asked), gap=26
    )


def found(layout: Layout, box: Box) -> VGroup:
    """What comes out: a named tensor with its shape, and how many there are."""
    tile = Tensor(layout.first_name, shape_text(layout.first_shape), box.width - 190)
    count = words(f"+ {layout.tensors - 1} more", LABEL, MUTED)
    return VGroup(box.place(tile, LEFT), count.next_to(tile, RIGHT, buff=px(20)))


# --- names, one by one ---


def joined(targets: Sequence[str]) -> str:
    """Several names in one, written with braces where they differ."""
    if len(targets) == 1:
        return targets[0]
    parts = [name.split(".") for name in targets]
    columns = [list(dict.fromkeys(column)) for column in zip(*parts, strict=True)]
    return ".".join(column[0] if len(column) == 1 else "{" + ",".join(column) + "}" for column in columns)


class MapRow(VGroup):
    """One row of the weight map: the tensor's name, what is done to it, and the parameters it becomes."""

    def __init__(self, row: Row, box: Box):
        left, middle, right = box.columns([1, 0.72, 1.5], gap=28)
        changed = row.done != "as it is"
        self.source = left.place(Tensor(row.source, shape_text(row.shape), left.width))
        self.arrow = Arrow(middle.at(0), middle.at(1), GOLD if changed else MUTED)
        self.done = words(row.done, LABEL, GOLD_INK if changed else MUTED, weight=MEDIUM, fit=middle.width - 10)
        above(self.arrow, self.done, gap=2)
        several = f"{len(row.targets)} times " if len(row.targets) > 1 else ""
        self.ours = Tensor(joined(row.targets), several + shape_text(row.target_shape), right.width, WHITE, NAVY)
        right.place(self.ours)
        self.way = VGroup(self.arrow, self.done)
        super().__init__(self.source, self.way, self.ours)

    def titles(self, box: Box) -> VGroup:
        """What stands over the two sides of all rows."""
        titled = (("in the checkpoint", self.source), ("in our model", self.ours))
        titles = VGroup(*(words(text, BODY, MUTED, weight=BOLD) for text, _ in titled)).move_to(box.at())
        for title, (_, tile) in zip(titles, titled, strict=True):
            title.align_to(tile, LEFT).set_y(box.at()[1])
        return titles


# --- one row from close by ---


class Turned(VGroup):
    """A matrix in which several lie side by side. It can be turned over its diagonal, and taken apart."""

    def __init__(self, names: Sequence[str], side: float, centre: np.ndarray):
        squares = [Square(px(side)).set_fill(GOLD_TINT, 1).set_stroke(GOLD, EDGE) for _ in names]
        self.squares = VGroup(*squares).arrange(RIGHT, buff=0).move_to(centre)
        self.names = VGroup(*(words(name, HEAD, GOLD_INK, weight=BOLD) for name in names))
        for name, square in zip(self.names, squares, strict=True):
            name.move_to(square)
        super().__init__(self.squares, self.names)

    #: Turns right into down and up into left: rows become columns.
    OVER = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, 1]])

    def parts(self) -> list[VGroup]:
        """Each square with its name."""
        return [VGroup(square, name) for square, name in zip(self.squares, self.names, strict=True)]

    def turned(self) -> list[np.ndarray]:
        """Where the squares' middles are after the turn."""
        middle = self.squares.get_center()
        return [middle + self.OVER @ (square.get_center() - middle) for square in self.squares]

    def dimensions(self, across: tuple[int, str], down: tuple[int, str]) -> tuple[Words, Words]:
        """How long the sides are, and what runs along them: over the matrix, and to its left."""
        upper, left = (words(f"{size} {meaning}", LABEL, MUTED) for size, meaning in (across, down))
        return upper.next_to(self.squares, UP, buff=px(14)), left.next_to(self.squares, LEFT, buff=px(18))
