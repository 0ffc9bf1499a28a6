"""The last picture of the film about loading, and its poster: a card for each stage, with what happened there."""

import numpy as np
from manim import DOWN, RIGHT, UP, DashedVMobject, Rectangle, VGroup

from course_helpers.palette import GOLD, GOLD_INK, GOLD_TINT, HAIRLINE, MUTED, NAVY, NAVY_TINT, SKY, SKY_TINT

from .canvas import BODY, BOLD, HEAD, LABEL, RAIL, SMALLEST, TITLE, Box, below, beside, lines, px, words
from .loading_pictures import split_in_lines
from .loading_story import Story
from .style import EDGE, Arrow, Card, Cross, Tick, Token

MIDDLE = np.zeros(3)


def recap(story: Story, stage: Box) -> list[VGroup]:
    """The sentence to remember, and the five cards under the stages of the rail."""
    head, space = stage.rows([1, 4.4], gap=20)
    sentence = head.place(words("Safe loading is a pipeline, not a single call.", TITLE, NAVY, weight=BOLD))
    memory, expected = story.memory, "expected" if story.run.expected else "unexpected"
    facts = (
        (sources, f"{len(story.layouts)} formats", "one model in all of them"),
        (names, f"{story.tensors} tensors", f"become {story.parameters} parameters"),
        (verdicts, "all or nothing", "one wrong shape stops the whole load"),
        (columns, f"{memory.peak_mb:.0f} MiB at most", f"naive: {memory.naive_peak_mb:.0f} MiB"),
        (text, f"the {expected} text", "“" + story.run.prompt + " …”"),
    )
    cards = []
    for (picture, fact, meaning), column in zip(facts, RAIL.columns(len(facts)), strict=True):
        box = Box(column.left + 14, space.bottom, column.right - 14, space.top)
        cards.append(card(picture, fact, meaning, box, story))
    return [sentence, *cards]


def card(picture, fact: str, meaning: str, box: Box, story: Story) -> VGroup:
    """A picture over a fact and what it means."""
    above, beneath = box.inset(20, 36).rows([2.5, 1], gap=16)
    told = [words(line, LABEL, MUTED, fit=beneath.width) for line in split_in_lines(meaning, beneath.width, LABEL)]
    fact_line = words(fact, HEAD - 2, NAVY, weight=BOLD, fit=beneath.width)
    column = lines(fact_line, lines(*told, gap=-4, side=MIDDLE), gap=12, side=MIDDLE)
    return VGroup(Card.over(box), picture(story, above), beneath.place(column, UP))


def sources(story: Story, box: Box) -> VGroup:
    """Pages: a strip of names and a field of numbers in each."""
    pages = []
    for layout in story.layouts:
        page = Box(-60, -75, 60, 75)
        shares = [1, 3] if len(layout.files) < 3 else [1, *[2] * (len(layout.files) - 1)]
        strips = page.inset(12, 12).rows(shares, gap=8)
        fills = [(SKY_TINT, SKY), *[(GOLD_TINT, GOLD)] * (len(strips) - 1)]
        cards = (
            Card.over(strip, fill=fill, edge=edge, radius=4) for strip, (fill, edge) in zip(strips, fills, strict=True)
        )
        pages.append(VGroup(Card.over(page, edge=NAVY, radius=6), *cards))
    return box.place(VGroup(*pages).arrange_in_grid(cols=2, buff=px(22)))


def names(story: Story, box: Box) -> VGroup:
    """Tiles that become others."""
    rows = []
    for row in story.rows[:3]:
        count = len(row.targets)
        start = Card(96, 40, GOLD_TINT, GOLD, radius=6)
        ends = VGroup(*(Card(96, 40, NAVY_TINT, NAVY, radius=6) for _ in row.targets)).arrange(DOWN, buff=px(10))
        pair = VGroup(start, ends).arrange(RIGHT, buff=px(90))
        arrows = (
            Arrow(start.get_right() + px(8) * RIGHT, end.get_left() - px(8) * RIGHT, GOLD if count > 1 else MUTED)
            for end in ends
        )
        rows.append(VGroup(pair, *arrows))
    return box.place(VGroup(*rows).arrange(DOWN, buff=px(24)))


def verdicts(story: Story, box: Box) -> VGroup:
    """Lines that hold, and the one that does not."""
    marks = [Tick(30) for _ in story.rows[:3]] + [Cross(28)]
    rows = [beside(Card(170, 16, HAIRLINE, HAIRLINE, radius=8), mark, gap=24) for mark in marks]
    return box.place(VGroup(*rows).arrange(DOWN, buff=px(30)))


def columns(story: Story, box: Box) -> VGroup:
    """Memory as columns, to scale: what was needed, and the ghost of the naive way."""
    memory, high = story.memory, px(box.height - 60)
    used = Rectangle(width=px(100), height=high * memory.peak_mb / memory.naive_peak_mb).set_fill(GOLD, 1)
    ghost = DashedVMobject(Rectangle(width=px(100), height=high).set_stroke(MUTED, EDGE), num_dashes=44)
    pair = VGroup(used.set_stroke(width=0), ghost).arrange(RIGHT, buff=px(36), aligned_edge=DOWN)
    labels = [below(used, words("stream", SMALLEST, GOLD_INK), 6), below(ghost, words("naive", SMALLEST, MUTED), 6)]
    return box.place(VGroup(pair, *labels))


def text(story: Story, box: Box) -> VGroup:
    """The end of the text that came out."""
    pieces = [piece for piece, _ in story.run.new_tokens[-4:]]
    tokens = VGroup(*(Token(piece, None, BODY, GOLD_TINT, GOLD) for piece in pieces))
    tokens.add(Tick(36) if story.run.expected else Cross(32))
    return box.place(tokens.arrange(DOWN, buff=px(14)))
