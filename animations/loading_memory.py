"""The picture of memory in the film about loading: what was measured, and the ghost of what the naive way takes."""

import numpy as np
from manim import DOWN, LEFT, UP, DashedVMobject, Rectangle, VGroup

from course_helpers.palette import GOLD_INK, MUTED, SOFT_GREY

from .canvas import BODY, BOLD, LABEL, Box, Words, lines, px, words
from .loading_story import Memory
from .style import EDGE, MemoryBar


class MemoryPicture(VGroup):
    """The measured memory as a column that can be played, and the naive peak as the ghost of another one beside it."""

    def __init__(self, memory: Memory, box: Box):
        super().__init__()
        self.memory = memory
        names, room = box.rows([1, 8.4], gap=16)
        left, right = room.columns(2, gap=56)
        self.bar = MemoryBar(memory.naive_peak_mb, left.width, room.height)
        left.place(self.bar)
        self.value = self.value_at(0)
        titles = (("stream", "measured", GOLD_INK), ("naive", f"peak {memory.naive_peak_mb:.0f} MiB", MUTED))
        for column, (title, note, colour) in zip(names.columns(2, gap=56), titles, strict=True):
            text = (words(title, BODY, colour, weight=BOLD), words(note, LABEL, MUTED))
            self.add(column.place(lines(*text, gap=-4, side=np.zeros(3))))
        self.add(self.bar, self.ghost(right), self.value)

    def ghost(self, box: Box) -> VGroup:
        """What the naive way holds at its worst moment: the model it has built, and all of the file beside it."""
        share = self.memory.model_mb / self.memory.naive_peak_mb
        upper, lower = box.rows([1 - share, share])
        parts = VGroup()
        for part, meaning in ((upper, "the whole file"), (lower, "the model")):
            ground = Rectangle(width=px(part.width), height=px(part.height)).move_to(part.at())
            parts.add(ground.copy().set_fill(SOFT_GREY, 0.6).set_stroke(width=0))
            parts.add(DashedVMobject(ground.set_stroke(MUTED, EDGE), num_dashes=44))
            parts.add(words(meaning, LABEL, MUTED, fit=part.width - 20).move_to(part.at()))
        return parts

    def value_at(self, amount: float) -> Words:
        """The amount in words, over the column's top."""
        text = words(f"{amount:.0f} MiB", BODY, GOLD_INK, weight=BOLD)
        return text.move_to(self.bar.level(amount, LEFT) + px(8) * UP, aligned_edge=DOWN).set_x(self.bar.get_x())

    def play_to(self, moment: float) -> None:
        """Show what was held at a moment (seconds) of the measurement."""
        amount = float(np.interp(moment, self.memory.seconds, self.memory.private_mb))
        self.bar.show(amount)
        self.value.become(self.value_at(amount))


def measured_where(memory: Memory, seconds: float) -> str:
    """What is being shown, and how slowly."""
    return (
        f"Memory as measured on a larger checkpoint ({memory.source}): {memory.model_mb:.0f} MiB "
        f"in {memory.load_seconds:.2f} s, shown {seconds / memory.load_seconds:.0f} times slower."
    )
