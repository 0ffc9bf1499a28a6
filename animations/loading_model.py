"""More pictures of the film about loading: the checks, the refusal, the model, memory, and the sanity run."""

from collections.abc import Sequence

import numpy as np
from manim import DOWN, LEFT, RIGHT, UP, ManimColor, VGroup, interpolate_color, smooth

from course_helpers.palette import (
    ALARM,
    ALARM_TINT,
    CHARCOAL,
    GOLD,
    GOLD_TINT,
    HAIRLINE,
    MUTED,
    NAVY,
    NAVY_TINT,
    SOFT_GREY,
    SOUND,
    WHITE,
)

from .canvas import BODY, BOLD, LABEL, MEDIUM, SMALLEST, Box, beside, code, lines, px, words
from .loading_pictures import shape_text
from .loading_story import Refusal, Run
from .style import Card, Cross, Tick, Token


class Check(VGroup):
    """A line of the checks: a tensor, the shape the model needs, the shape in the file, and the verdict."""

    COLUMNS = (2.1, 1, 1, 0.3)

    def __init__(self, name: str, needed: Sequence[int], found: Sequence[int], box: Box):
        holds = tuple(needed) == tuple(found)
        cells = box.inset(24, 0).columns(self.COLUMNS, gap=20)
        self.ground = Card.over(
            box, fill=SOFT_GREY if holds else ALARM_TINT, edge=HAIRLINE if holds else ALARM, radius=10
        )
        self.tensor = cells[0].place(code(name, LABEL, fit=cells[0].width), LEFT)
        self.needed = cells[1].place(code(shape_text(needed), LABEL, MUTED), LEFT)
        self.found = cells[2].place(code(shape_text(found), LABEL, CHARCOAL if holds else ALARM), LEFT)
        self.mark = cells[3].place(Tick() if holds else Cross())
        super().__init__(self.ground, self.tensor, self.needed, self.found, self.mark)

    def without_mark(self) -> VGroup:
        """The line before the verdict."""
        return VGroup(self.ground, self.tensor, self.needed, self.found)

    @classmethod
    def heading(cls, box: Box) -> VGroup:
        """The names of the columns."""
        cells = box.inset(24, 0).columns(cls.COLUMNS, gap=20)
        names = ("tensor", "model needs", "file holds")
        return VGroup(*(cell.place(words(name, LABEL, MUTED), LEFT) for cell, name in zip(cells, names, strict=False)))


def error_card(refusal: Refusal, box: Box) -> VGroup:
    """What the loader said, in its own words, at the top of a box."""
    error, room = refusal.error, box.width - 56
    told = {"tensor": error.tensor, "expected": error.expected, "found": error.found, "likely cause": error.cause}
    kind = code(type(error).__name__, BODY, ALARM, weight=MEDIUM)
    rows = [lines(kind, words(error.what, BODY, CHARCOAL, weight=BOLD), gap=0)]
    labels = lines(*(words(label, LABEL, MUTED) for label in told), gap=10)
    answers = lines(*(code(str(answer), LABEL, fit=room - 190) for answer in told.values()), gap=10)
    rows.append(beside(labels, answers, gap=30))
    content = lines(*rows, gap=24)
    card = Card(box.width, content.height / px(1) + 56, ALARM_TINT, ALARM)
    box.place(card, UP)
    return VGroup(card, content.move_to(card.get_left() + px(28) * RIGHT, aligned_edge=LEFT))


def fingerprints(refusal: Refusal) -> VGroup:
    """A digest of the weights in the model before the refused load, and after, and whether they are the same."""
    digests = {"weights before": refusal.before, "weights after": refusal.after}
    labels = lines(*(words(when, LABEL, MUTED) for when in digests), gap=4, side=RIGHT)
    values = lines(*(code(digest, LABEL, NAVY) for digest in digests.values()), gap=4)
    same = Tick(34) if refusal.before == refusal.after else Cross(32)
    return beside(labels, values, same, gap=20)


#: The parts of a block that are drawn.
PARTS = ("attention", "feed_forward")


class Slot(VGroup):
    """A place for a part's weights: hollow, until they are there."""

    def __init__(self, name: str, box: Box):
        self.ground = Card.over(box, fill=WHITE, edge=HAIRLINE, radius=8)
        self.label = words(
            name.split(".")[-1].replace("_", "-" if "feed" in name else " "), SMALLEST, MUTED, fit=box.width - 12
        ).move_to(self.ground)
        super().__init__(self.ground, self.label)

    def show(self, share: float) -> "Slot":
        """Filled so far."""
        self.ground.set_fill(interpolate_color(ManimColor(WHITE), ManimColor(NAVY), share), 1)
        self.ground.set_stroke(NAVY if share > 0.5 else HAIRLINE)
        self.label.set_fill(interpolate_color(ManimColor(MUTED), ManimColor(WHITE), share))
        return self


class BlockPicture(VGroup):
    """A part of the model: its name, if it has several slots, and the slots beside it."""

    def __init__(self, title: str, slots: Sequence[str], box: Box):
        self.ground = Card.over(box, fill=NAVY_TINT, edge=NAVY)
        inside = box.inset(14, 12)
        places = inside.columns([0.6, *[1] * len(slots)] if title else len(slots), gap=12)
        name = [places[0].place(words(title, LABEL, NAVY, weight=BOLD))] if title else []
        self.slots = {slot: Slot(slot, place) for slot, place in zip(slots, places[len(name) :], strict=True)}
        super().__init__(self.ground, *name, *self.slots.values())


class ModelPicture(VGroup):
    """The whole model as a column: embedding, blocks, final norm. Slots are named as its modules are."""

    def __init__(self, blocks: int, box: Box):
        first, *middle, last = box.rows([0.62, *[1] * blocks, 0.62], gap=12)
        pictures = [BlockPicture("", ["embeddings"], first)]
        for number, row in enumerate(middle):
            pictures.append(BlockPicture(f"block {number}", [f"blocks.{number}.{part}" for part in PARTS], row))
        pictures.append(BlockPicture("", ["final_norm"], last))
        #: By the name of the part of the model.
        self.slots = {name: slot for picture in pictures for name, slot in picture.slots.items()}
        super().__init__(*pictures)

    def filled(self) -> "ModelPicture":
        """The picture with every slot filled."""
        for slot in self.slots.values():
            slot.show(1)
        return self


class Stream(VGroup):
    """Tensors on their way from a file into the slots of a model. `move` and `fill` say how far all are."""

    #: How much of its own way a tensor spends travelling; in the rest, its slot takes its colour.
    TRAVEL = 0.75

    def __init__(self, start: np.ndarray, slots: Sequence[Slot]):
        self.start, self.targets = start, list(slots)
        self.tiles = [Card(64, 30, GOLD_TINT, GOLD, radius=6).move_to(start) for _ in slots]
        super().__init__(*self.tiles)
        self.move(0)

    def progress(self, share: float) -> list[float]:
        """How far each tensor is: it starts when the one before is half way."""
        return [min(max((share * (len(self.tiles) + 1) - number) / 2, 0.0), 1.0) for number in range(len(self.tiles))]

    def move(self, share: float) -> None:
        """Show the tensors where they are."""
        for tile, slot, own in zip(self.tiles, self.targets, self.progress(share), strict=True):
            way = smooth(min(own / self.TRAVEL, 1.0))
            tile.move_to(self.start + way * (slot.get_center() - self.start))
            tile.set_opacity(1.0 if 0 < own < 1 else 0.0)

    def fill(self, share: float) -> None:
        """Show the slots of those that have arrived as filled."""
        for slot, own in zip(self.targets, self.progress(share), strict=True):
            slot.show(max(0.0, own - self.TRAVEL) / (1 - self.TRAVEL))


class Pulse(Card):
    """A forward pass: a line of light that goes down through the model."""

    def __init__(self, model: VGroup):
        super().__init__(model.width / px(1) + 16, 10, GOLD, GOLD, radius=5)
        self.way = model.get_top(), model.get_bottom()
        self.show(0)

    def show(self, share: float) -> None:
        """How far it is."""
        start, end = self.way
        self.move_to(start + share * (end - start)).set_opacity(1.0 if 0 < share < 1 else 0.0)


#: The size of the text that comes out.
TOKEN = 46


def chips(tokens: Sequence[tuple[str, int]], box: Box, known: int) -> VGroup:
    """Tokens with their ids in lines, as text is set, in the middle of a box; the first `known` are the prompt's."""
    made, line, gap = VGroup(), [], 12
    for number, (text, id) in enumerate(tokens):
        chip = Token(text, id, TOKEN, *((SOFT_GREY, NAVY) if number < known else (GOLD_TINT, GOLD)))
        if line and sum(other.width + px(gap) for other in line) + chip.width > px(box.width):
            line = []
        anchor = line[-1].card if line else made[-1].card if made else None
        if line:
            chip.shift(anchor.get_corner(UP + RIGHT) + px(gap) * RIGHT - chip.card.get_corner(UP + LEFT))
        else:
            down = made[-1].get_bottom() * UP + px(gap + 8) * DOWN if anchor else box.at(0, 1) * UP
            chip.shift(down + box.at(0, 1) * RIGHT - chip.card.get_corner(UP + LEFT))
        line.append(chip)
        made.add(chip)
    return box.place(made, LEFT)


def token_key() -> VGroup:
    """Which tokens are whose."""
    kinds = (("the prompt", SOFT_GREY, NAVY), ("what the model adds", GOLD_TINT, GOLD))
    keys = (beside(Card(44, 30, fill, edge, radius=8), words(text, LABEL, MUTED), gap=14) for text, fill, edge in kinds)
    return beside(*keys, gap=48)


def verdict(run: Run) -> VGroup:
    """Whether the text is the one that was expected."""
    mark, text = (
        (Tick(30), "the text that the checkpoint's card expects") if run.expected else (Cross(28), "another text")
    )
    return beside(mark, words(text, BODY, SOUND if run.expected else ALARM, weight=BOLD), gap=16)
