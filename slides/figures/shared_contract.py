"""Slide 8: one contract, six machines in the same casing, cut open.

A section through machines that stand between the same two rails: token ids go in above, logits come out below, and
no casing may differ where it meets a rail. The cut shows what may: each row draws one part of the first block, read
off the model itself (built on torch's meta device) and its config, so the six can be compared across. Gold has one
meaning in the cut: GPT-2 has no such thing. Above the upper rail the one part of the contract that does not
interchange: every family's own tokenizer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from course_helpers import FAMILIES
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.config import ModelConfig
from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    HAIRLINE,
    MONO,
    MUTED,
    NAVY,
    NAVY_TINT,
    PEARL,
    SKY,
    SLATE,
    WHITE,
)
from course_helpers.sizes import on_meta

from . import figure
from .numbers import computed
from .svg import Drawing

#: Registry names, the names as the deck writes them, the book's notebooks; the smallest size of each is drawn.
SHOWN = {
    "gpt2": ("GPT-2", "ch04"),
    "llama3": ("Llama 3.2", "ch05/07"),
    "qwen3": ("Qwen3", "ch05/11"),
    "qwen3_moe": ("Qwen3 MoE", "ch05/11"),
    "gemma3": ("Gemma 3", "ch05/12"),
    "olmo3": ("Olmo 3", "ch05/13"),
}
#: What hangs on the lower rail, with the annotation that speaks of it.
TOOLS = {"generate": 5, "stream": None, "train": 11, "validate_checkpoint": 9, "plan": 12}
LEFT, LABELS, PITCH, CASE = 26, 118, 150, 136
PLUGS, IDS, TOP, BOTTOM, BENCH = 22, 100, 146, 482, 534
RAIL, RIGHT = 34, 1070
ASIDE, BRACKET = RIGHT - 18, RIGHT - 33  # right of the casings: markers, and what embraces the parts that vary
SCATTER = 37  # any odd number: picks experts that do not stand in a line
ROWS = {"positions": 226, "norms": 274, "attention": 343, "feed-forward": 428}


@dataclass(frozen=True, eq=False)
class Inside:
    """What the cut shows of one family."""

    title: str
    notebooks: str
    vocabulary: int
    tokenizer: str  # the format of its files
    config: ModelConfig
    model: LanguageModel  # without memory

    def has(self, name: str) -> bool:
        """Whether the first block has a part of this name."""
        return any(name == found for found, _ in self.model.blocks[0].named_modules())


@cache
def insides() -> tuple[Inside, ...]:
    found = []
    for name, shown in SHOWN.items():
        family = FAMILIES[name]
        config = next(iter(family.presets.values()))
        files = family.tokenizer.partition("(")[2].rstrip(")")
        found.append(Inside(*shown, config.vocab_size, files, config, on_meta(family.model, config)))
    return tuple(found)


@figure
def shared_contract(drawing: Drawing) -> None:
    shown = insides()
    for place, inside in enumerate(shown):
        x = LEFT + LABELS + PITCH * place
        _tokenizer(drawing, x, inside)
        _casing(drawing, x, inside)
        for row, y in ROWS.items():
            DRAWN[row](drawing, x + CASE / 2, y, inside)
    for y, name, shape in ((IDS, "token ids", "(B, T)"), (BOTTOM, "logits", "(B, T, V)")):
        _rail(drawing, y, name, shape)
    _labels(drawing)
    _tools(drawing)
    _markers(drawing)
    computed(drawing, "smallest preset of each family in FAMILIES, its config and its first block")


def _rail(drawing: Drawing, y: float, name: str, shape: str) -> None:
    """A bar that runs through the whole figure: the part of the contract that is the same for all."""
    drawing.rect(LEFT, y, RIGHT - LEFT, RAIL, NAVY, radius=8)
    drawing.text(LEFT + 14, y + 23, name, 19, 700, WHITE)
    for place in range(len(SHOWN)):
        middle = LEFT + LABELS + PITCH * place + CASE / 2
        drawing.text(middle, y + 23, shape, 18, 500, WHITE, "middle", MONO)


def _tokenizer(drawing: Drawing, x: float, inside: Inside) -> None:
    """A plug above the rail; its teeth are the family's own, drawn from the vocabulary's size."""
    drawing.rect(x, PLUGS, CASE, 56, WHITE, SLATE, 10, 2)
    drawing.text(x + CASE / 2, PLUGS + 24, f"{inside.vocabulary:,}", 20, 700, NAVY, "middle")
    drawing.text(x + CASE / 2, PLUGS + 46, inside.tokenizer, 17, 400, CHARCOAL, "middle", fit=CASE - 8)
    for tooth, bit in enumerate(f"{inside.vocabulary % 512:09b}"):
        height = 14 if bit == "1" else 6
        drawing.rect(x + 12 + tooth * 13.2, PLUGS + 56, 9, height, SLATE, radius=1.5)


def _casing(drawing: Drawing, x: float, inside: Inside) -> None:
    """The same outside for all: plate, pins at both rails, and a window that is cut into it."""
    for y, height in ((IDS + RAIL - 4, TOP - IDS - RAIL + 8), (BOTTOM - 18, 22)):
        for pin in (0.2, 0.5, 0.8):
            drawing.rect(x + CASE * pin - 9, y, 18, height, SLATE, radius=3)
    drawing.rect(x, TOP, CASE, BOTTOM - TOP - 14, NAVY_TINT, NAVY, 14, 3)
    drawing.text(x + CASE / 2, TOP + 25, inside.title, 20, 700, NAVY, "middle", fit=CASE - 10)
    drawing.text(x + CASE / 2, TOP + 46, inside.notebooks, 17, 400, MUTED, "middle")
    top, bottom, step = TOP + 56, BOTTOM - 24, 4
    cut = [(x + 10 + 7 * (turn % 2), top + (bottom - top) * turn / (2 * step)) for turn in range(2 * step + 1)]
    edge = [(x + CASE - 10 - 7 * (turn % 2), y) for turn, (_, y) in enumerate(cut)]
    drawing.polygon([*cut, *reversed(edge)], WHITE, HAIRLINE, 1.5)


def _positions(drawing: Drawing, x: float, y: float, inside: Inside) -> None:
    """Learned: a table of places. Rotary: a hand that turns, one for each kind of layer."""
    if hasattr(inside.model, "position_embedding"):
        for row in range(4):
            for column in range(2):
                drawing.rect(x - 17 + column * 18, y - 17 + row * 9, 16, 7, SKY, radius=1.5)
        return
    hands = len(inside.model.rotary_embeddings)
    for place in range(hands):
        middle = x + (place - (hands - 1) / 2) * 44
        drawing.circle(middle, y, 17, WHITE, GOLD, 4)
        drawing.line(middle, y, middle + (12 if place else 9), y - (3 if place else 9), NAVY, 3)


def _norms(drawing: Drawing, x: float, y: float, inside: Inside) -> None:
    """A sub-layer as a block between its norms: bars before it, after it, or both; a bar inside is QK-norm."""
    kind = type(inside.model.final_norm).__name__.removeprefix(inside.title.replace(" ", ""))
    fill = GOLD if kind == "RMSNorm" else SKY
    drawing.text(x, y + 34, kind, 17, 400, CHARCOAL, "middle", fit=CASE - 20)
    for place, part in enumerate(("attention", "feed_forward")):
        middle = x - 27 + 54 * place
        drawing.rect(middle - 12, y - 14, 24, 28, NAVY, radius=4)
        if inside.has(f"{part}.query_norm"):
            drawing.rect(middle - 2.5, y - 9, 5, 18, fill, radius=2)
        for side, suffix in ((-1, "_norm"), (1, "_post_norm")):
            if inside.has(part + suffix):
                drawing.rect(middle + side * 17 - 2.5, y - 14, 5, 28, fill, radius=2)


def _attention(drawing: Drawing, x: float, y: float, inside: Inside) -> None:
    """A comb: a tooth above for each query head, a bar below for the key/value head that it shares."""
    queries, shared = inside.config.num_attention_heads, inside.config.num_key_value_heads
    width = CASE - 48
    step, wide = width / queries, width / shared
    for head in range(queries):
        drawing.rect(x - width / 2 + head * step + step * 0.14, y - 22, step * 0.72, 20, NAVY, radius=1)
    for head in range(shared):
        gap = min(3, wide * 0.28)
        left = x - width / 2 + head * wide + gap / 2
        drawing.rect(left, y + 1, wide - gap, 10, GOLD if shared < queries else SKY, radius=1)
    drawing.text(x, y + 30, f"{queries} : {shared}", 18, 500, CHARCOAL, "middle")


def _feed_forward(drawing: Drawing, x: float, y: float, inside: Inside) -> None:
    """Its matrices as slabs, two or three; a mixture as a field of experts, with those at work in gold."""
    if inside.has("feed_forward.router"):
        experts, used = inside.config.num_experts, inside.config.num_experts_per_tok
        across = 16
        for expert in range(experts):
            fill = GOLD if expert * SCATTER % experts < used else HAIRLINE
            row, column = divmod(expert, across)
            drawing.rect(x - 48 + column * 6, y - 46 + row * 6, 4.6, 4.6, fill, radius=0.8)
        drawing.text(x, y + 22, f"{used} of {experts}", 18, 500, CHARCOAL, "middle")
        return
    matrices = [name for name, _ in inside.model.blocks[0].feed_forward.named_children()]
    for place, name in enumerate(matrices):
        left = x - 22 * len(matrices) / 2 + 22 * place + 2
        drawing.rect(left, y - 42, 18, 40, GOLD if name == "gate" else SKY, radius=3)
    words = "gated" if "gate" in matrices else "2 matrices"
    drawing.text(x, y + 22, words, 18, 500, CHARCOAL, "middle")


DRAWN: dict[str, Callable[[Drawing, float, float, Inside], None]] = {
    "positions": _positions,
    "norms": _norms,
    "attention": _attention,
    "feed-forward": _feed_forward,
}


def _labels(drawing: Drawing) -> None:
    drawing.text(LEFT + 2, PLUGS + 20, "its own", 18, 400, CHARCOAL)
    drawing.text(LEFT + 2, PLUGS + 48, "tokenizer", 18, 650, NAVY)
    drawing.text(LEFT + 2, TOP + 26, "config", 18, 650, NAVY)
    for row, y in ROWS.items():
        drawing.text(LEFT + 2, y + (-14 if row == "feed-forward" else 6), row, 17, 650, NAVY, fit=LABELS - 4)
    drawing.text(LEFT + 2, ROWS["attention"] + 28, "queries : K/V", 16, 400, CHARCOAL, fit=LABELS - 4)
    drawing.rect(LEFT + 2, ROWS["feed-forward"] + 14, 16, 16, GOLD, radius=3)
    drawing.text(LEFT + 26, ROWS["feed-forward"] + 20, "not in", 16, 600, GOLD_INK)
    drawing.text(LEFT + 26, ROWS["feed-forward"] + 39, "GPT-2", 16, 600, GOLD_INK)
    drawing.path(f"M{BRACKET} {ROWS['norms'] - 16} h8 V{ROWS['feed-forward'] + 24} h-8", stroke=SLATE, line=2)


def _tools(drawing: Drawing) -> None:
    """What hangs on the lower rail: written once, because the rail is the same."""
    drawing.rect(LEFT, BENCH, RIGHT - LEFT, 50, PEARL, HAIRLINE, 10, 2)
    drawing.text(LEFT + 14, BENCH + 32, "written once", 18, 650, NAVY)
    x = LEFT + LABELS + 34
    for tool, number in TOOLS.items():
        x += drawing.chip(x, BENCH + 25, tool, WHITE, NAVY, 18, 500, stroke=NAVY, family=MONO)
        if number:
            drawing.marker(x + 24, BENCH + 25, number)
        x += 62 if number else 30


def _markers(drawing: Drawing) -> None:
    """The other annotations: labels at the left, ends of rails and rows at the right."""
    for number, x, y in (
        (4, LEFT + 92, PLUGS + 14), (3, LEFT + 84, TOP + 20), (2, ASIDE, ROWS["attention"] + 8),
        (6, LEFT + 94, BOTTOM + RAIL / 2), (8, ASIDE, PLUGS + 28), (1, ASIDE, IDS + RAIL / 2), (7, ASIDE, TOP + 40),
        (10, ASIDE, BOTTOM + RAIL / 2),
    ):  # fmt: skip
        drawing.marker(x, y, number)
