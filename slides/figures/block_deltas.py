"""Slide 5: GPT-2's block above, Llama 2's below, mirrored, so that every change is one gold band between them.

The stream of a transformer runs along the outside of both: it is what stays. The parts that read from it and add to it
hang between, and face each other. All that is drawn (norms, heads, biases, matrices and their widths, the tied head) is
read off the models that the two configs build.
"""

import math
from dataclasses import dataclass

from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    NAVY,
    NAVY_TINT,
    SKY,
    SLATE,
    SOFT_GREY,
    WHITE,
)

from . import figure
from .numbers import computed
from .parts_blocks import Blocks, deltas, read
from .svg import Drawing

OLD, NEW = "openai-community/gpt2", "meta-llama/Llama-2-7b-hf"
#: name -> left edge and width of a part, on both sides
PARTS = {
    "embedding": (34, 124),
    "norm": (208, 110),
    "attention": (336, 180),
    "norm 2": (534, 110),
    "feed-forward": (662, 156),
    "norm 3": (850, 110),
    "head": (976, 86),
}
BLOCK = (194, 832)  # left and right edge of the frame around a block
HEIGHT = 126  # of a part
RIGHT = 1062  # where lines end


@dataclass(frozen=True)
class Side:
    """Where one of the two models stands: the stream outside, the parts inside of it."""

    name: str
    stream: float
    top: float
    title: float  # baseline
    outward: int  # -1 where outside is up

    @property
    def outer(self) -> float:
        """The edge of the parts that faces the stream."""
        return self.top if self.outward < 0 else self.top + HEIGHT

    @property
    def inner(self) -> float:
        return self.top + HEIGHT if self.outward < 0 else self.top


UPPER, LOWER = Side("GPT-2", 88, 122, 42, -1), Side("Llama 2", 512, 352, 574, 1)
#: Annotations that stand on a band: its part, and how far right of its middle
ON_BANDS = {2: ("norm", 0), 3: ("attention", -26), 8: ("attention", 26), 5: ("feed-forward", 0), 9: ("head", 0)}
#: Annotations that stand on a stream: where, and on which
ON_STREAMS = ((1, 508, UPPER), (12, 154, LOWER), (6, 820, LOWER))
NOTEBOOKS = ((7, UPPER, "converting-gpt-to-llama2.ipynb"), (11, LOWER, "standalone-llama32.ipynb"))


@figure
def block_deltas(drawing: Drawing) -> None:
    configs = presets()
    draw(drawing, read(configs[OLD]), read(configs[NEW]))
    computed(drawing, f"the models that the presets {OLD} and {NEW} build")


def presets() -> dict[str, object]:
    from course_helpers import FAMILIES

    return FAMILIES["gpt2"].presets | FAMILIES["llama2"].presets


def draw(drawing: Drawing, old: Blocks, new: Blocks) -> None:
    """Both models and what lies between them."""
    changes = deltas(old, new)
    for part in PARTS:
        band(drawing, part, changes[kind(part)])
    for side, blocks in ((UPPER, old), (LOWER, new)):
        frame(drawing, side, blocks)
        if blocks.tied:
            tie(drawing, side)
        stream(drawing, side)
        for part in PARTS:
            x, width = PARTS[part]
            fresh = side is LOWER and bool(changes[kind(part)])
            drawing.rect(x, side.top, width, HEIGHT, WHITE, GOLD if fresh else SKY, 10, 3.5 if fresh else 2)
            INSIDE[kind(part)](drawing, x, side.top, width, blocks)
    landmarks(drawing)


def landmarks(drawing: Drawing) -> None:
    """The numbered places, and the two notebooks at the ends of the way."""
    for number, (part, shift) in ON_BANDS.items():
        x, width = PARTS[part]
        drawing.marker(x + width / 2 + shift, LOWER.inner - 22, number)
    for number, x, side in ON_STREAMS:
        drawing.marker(x, side.stream, number)
    path = (PARTS["embedding"][0] + PARTS["embedding"][1] + BLOCK[0]) / 2
    drawing.arrow((path, UPPER.inner + 18), (path, LOWER.inner - 16), stroke=GOLD, line=4, head=13)
    drawing.marker(path, (UPPER.inner + LOWER.inner) / 2 - 4, 10)
    for number, side, words in NOTEBOOKS:
        width = drawing.text(RIGHT, side.title, words, 18, 500, CHARCOAL, "end")
        drawing.marker(RIGHT - width - 26, side.title - 7, number)


def kind(part: str) -> str:
    return "norm" if part.startswith("norm") else part


def band(drawing: Drawing, part: str, lines: list[str]) -> None:
    """The way from the old part to the new one: gold with what changes, grey where nothing does."""
    x, width = PARTS[part]
    top, bottom = UPPER.inner, LOWER.inner
    drawing.rect(x + 6, top, width - 12, bottom - top, GOLD_TINT if lines else SOFT_GREY, None, 0)
    for edge in (x + 6, x + width - 6):
        drawing.line(edge, top, edge, bottom, GOLD if lines else SLATE, 2)
    lines = lines or ["same"]
    y = top + (50 if len(lines) == 1 else 33)
    for words in lines:
        drawing.text(x + width / 2, y, words, 18, 650, GOLD_INK, "middle", fit=width - 14)
        y += 23


def frame(drawing: Drawing, side: Side, blocks: Blocks) -> None:
    left, right = BLOCK
    drawing.rect(left, side.top - 12, right - left, HEIGHT + 24, NAVY_TINT, None, 16)
    words = f"{blocks.layers} blocks, width {blocks.width:,}, {millions(blocks.parameters)} parameters"
    left = PARTS["embedding"][0]
    width = drawing.text(left, side.title, side.name, 24, 700, NAVY)
    width += 14 + drawing.text(left + width + 14, side.title, words, 19, 500, NAVY)
    if side is LOWER:
        drawing.marker(left + width + 26, side.title - 7, 4)


def millions(count: int) -> str:
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"


def stream(drawing: Drawing, side: Side) -> None:
    """The residual stream with its two sums, and the branches through the parts."""
    start, end = PARTS["embedding"][0] + PARTS["embedding"][1] / 2, PARTS["norm 3"][0] + PARTS["norm 3"][1] / 2
    drawing.polyline(((start, side.outer), (start, side.stream), (end, side.stream), (end, side.outer)), NAVY, 5)
    for norm, part in (("norm", "attention"), ("norm 2", "feed-forward")):
        (norm_x, norm_width), (x, width) = PARTS[norm], PARTS[part]
        drawing.arrow((norm_x + norm_width / 2, side.stream), (norm_x + norm_width / 2, side.outer), line=2.5, head=9)
        drawing.line(norm_x + norm_width, side.top + HEIGHT / 2, x, side.top + HEIGHT / 2, NAVY, 3)
        drawing.line(x + width / 2, side.outer, x + width / 2, side.stream, NAVY, 2.5)
        drawing.circle(x + width / 2, side.stream, 12, WHITE, NAVY, 3)
        drawing.line(x + width / 2 - 6, side.stream, x + width / 2 + 6, side.stream, NAVY, 2.5)
        drawing.line(x + width / 2, side.stream - 6, x + width / 2, side.stream + 6, NAVY, 2.5)
    x, width = PARTS["norm 3"]
    drawing.line(x + width, side.top + HEIGHT / 2, PARTS["head"][0], side.top + HEIGHT / 2, NAVY, 3)


def embedding(drawing: Drawing, x: float, y: float, width: float, blocks: Blocks) -> None:
    """Tables as small grids: one row a token, and one row a position where they are learned."""
    drawing.text(x + width / 2, y + 24, "token table", 18, 650, NAVY, "middle", fit=width - 8)
    table(drawing, x + 16, y + 38, width - 32, 3, SKY)
    if blocks.learned_positions:
        drawing.text(x + width / 2, y + 88, "+ positions", 18, 650, NAVY, "middle")
        table(drawing, x + 16, y + 98, width - 32, 2, SLATE)


def table(drawing: Drawing, x: float, y: float, width: float, rows: int, fill: str) -> None:
    for row in range(rows):
        drawing.rect(x, y + 10 * row, width, 7, fill, None, 2)


def norm(drawing: Drawing, x: float, y: float, width: float, blocks: Blocks) -> None:
    drawing.text(x + width / 2, y + 26, blocks.norm, 17, 650, NAVY, "middle", fit=width - 8)
    rows = ["weight", "bias"] if blocks.norm_bias else ["weight"]
    for row, word in enumerate(rows):
        drawing.rect(x + 14, y + 40 + 39 * row, width - 28, 32, NAVY_TINT, None, 6)
        drawing.text(x + width / 2, y + 62 + 39 * row, word, 17, 400, CHARCOAL, "middle")


def attention(drawing: Drawing, x: float, y: float, width: float, blocks: Blocks) -> None:
    """Query heads as squares over their key/value heads; dials where positions are rotary."""
    drawing.text(x + width / 2, y + 24, f"attention, {blocks.heads} heads", 17, 650, NAVY, "middle", fit=width - 8)
    across = min(blocks.heads, 16)
    cell = (width - 32) / across
    for head in range(blocks.heads):
        left, top = x + 16 + cell * (head % across), y + 38 + 13 * (head // across)
        drawing.rect(left + 1, top, cell - 2, 9, SKY, None, 2)
    if blocks.attention_bias:
        drawing.text(x + width / 2, y + 90, "with biases", 17, 400, CHARCOAL, "middle")
    if blocks.rotary_base is None:
        return
    for place, turn in enumerate((0.6, 1.4, 2.2)):
        dial(drawing, x + width / 2 + 46 * (place - 1), y + 92, turn)


def dial(drawing: Drawing, x: float, y: float, angle: float) -> None:
    """A rotary pair: a hand that is turned by the token's position."""
    drawing.circle(x, y, 18, GOLD_TINT, GOLD, 3)
    drawing.line(x, y, x + 14 * math.sin(angle), y - 14 * math.cos(angle), NAVY, 3.5)


def feed_forward(drawing: Drawing, x: float, y: float, width: float, blocks: Blocks) -> None:
    """The matrices as trapezoids: as wide inside, against the stream, as the config says."""
    drawing.text(x + width / 2, y + 24, "feed-forward", 18, 650, NAVY, "middle")
    ways, narrow, middle = len(blocks.matrices) - 1, 11, y + 65
    wide = narrow * blocks.ratio
    for row, name in enumerate(blocks.matrices[:ways]):
        centre = middle + (row - (ways - 1) / 2) * (wide + 5)
        trapezoid(drawing, x + 16, x + 64, centre, narrow, wide, GOLD if name == "gate" else SKY)
    trapezoid(drawing, x + width - 16, x + width - 64, middle, narrow, wide, SKY)
    if "gate" in blocks.matrices:
        drawing.text(x + width / 2, middle + 7, "×", 20, 650, NAVY, "middle")
    drawing.text(
        x + width / 2, y + HEIGHT - 11, f"{blocks.activation}, {blocks.ratio:.2g} × wide", 17, 400, CHARCOAL, "middle"
    )


def trapezoid(drawing: Drawing, start: float, end: float, y: float, narrow: float, wide: float, fill: str) -> None:
    drawing.polygon(((start, y - narrow / 2), (end, y - wide / 2), (end, y + wide / 2), (start, y + narrow / 2)), fill)


def head(drawing: Drawing, x: float, y: float, width: float, blocks: Blocks) -> None:
    drawing.text(x + width / 2, y + 24, "head", 18, 650, NAVY, "middle")
    table(drawing, x + 14, y + 40, width - 28, 3, SKY if blocks.tied else GOLD)
    drawing.text(x + width / 2, y + 98, "tied" if blocks.tied else "its own", 17, 400, CHARCOAL, "middle")


def tie(drawing: Drawing, side: Side) -> None:
    """From the head back to the token table: one matrix, used twice."""
    out = side.stream + side.outward * 22
    start, end = PARTS["embedding"][0] + 24, PARTS["head"][0] + PARTS["head"][1] / 2
    drawing.polyline(((end, side.outer), (end, out), (start, out), (start, side.outer)), SKY, 2.5, "8 6")


INSIDE = {"embedding": embedding, "norm": norm, "attention": attention, "feed-forward": feed_forward, "head": head}
