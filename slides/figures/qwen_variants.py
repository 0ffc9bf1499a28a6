"""Slide 20: Qwen3's four variants: two feed-forwards, each without and with a cache.

The middle of attention is the router at work: curves lead from it to the experts of the first layer, as thick as the
share of tokens that asks each, and below them is what it does in every layer. Beside it, in areas to scale, what a
mixture holds and what one token uses of it. At the bottom the four variants under one protocol, a row each.
"""

from course_helpers.palette import (
    CHARCOAL,
    GOLD,
    GOLD_INK,
    MUTED,
    NAVY,
    NAVY_TINT,
    SLATE,
    SOUND,
    WHITE,
    contrast,
)

from . import figure
from .numbers import measured
from .svg import Drawing

TITLE = 44
MAP_LEFT, MAP_TOP, CELL, ROW = 118, 214, 62, 45
ROUTER_TOP, ROUTER_HEIGHT, WHOLE = 66, 38, 124  # WHOLE: width of a ribbon that all tokens take
SQUARES_LEFT, SQUARES_TOP, SIDE, GAP = 684, 96, 172, 36  # SIDE: of the largest model's square
THIN = 0.32  # opacity of the other ribbons
DENSE = 0.45  # opacity of a square that is used whole: the eye shall go to the one that is not
TABLE_TOP, TABLE_ROW, BAR_LEFT, BAR = 480, 40, 216, 270
COLUMNS = {"vectors": 696, "cache bytes": 888, "texts": 1064}


@figure
def qwen_variants(drawing: Drawing) -> None:
    results = measured(drawing, "M9-LAB-04")
    usage = list(results["expert_usage"].values())
    asked = round(sum(usage[0]))  # every token counts once for each expert that it asks
    draw_router(drawing, usage[0], asked)
    draw_map(drawing, usage, asked)
    draw_squares(drawing, results["released_held_and_active"])
    draw_variants(drawing, results["variants"], results["tokens_per_second"])


def busiest(shares: list[float], count: int) -> list[int]:
    """The experts that most tokens ask."""
    return sorted(range(len(shares)), key=lambda expert: -shares[expert])[:count]


def middle_of(expert: int) -> float:
    return MAP_LEFT + (expert + 0.5) * CELL


def draw_router(drawing: Drawing, shares: list[float], asked: int) -> None:
    """From the router to the first layer's experts: the wider, the more tokens take that way."""
    drawing.text(32, TITLE, f"tiny-qwen3-moe: each token asks {asked} of {len(shares)} experts", 22, 650, NAVY)
    total = sum(shares) * WHOLE
    left = middle_of(0) + (middle_of(len(shares) - 1) - middle_of(0) - total) / 2
    start, best = left, busiest(shares, asked)
    for expert, share in enumerate(shares):
        width = share * WHOLE
        look = (GOLD, 1) if expert in best else (NAVY, THIN)
        ribbon(drawing, start, middle_of(expert) - width / 2, width, *look)
        start += width
        ink = GOLD_INK if expert in best else MUTED
        drawing.text(middle_of(expert), MAP_TOP - 7, str(expert), 18, 650, ink, "middle")
    drawing.box(left - 2, ROUTER_TOP, total + 4, ROUTER_HEIGHT, "router", fill=NAVY, ink=WHITE, size=20, radius=8)
    drawing.text(MAP_LEFT - 14, MAP_TOP - 7, "expert", 18, 400, MUTED, "end")


def ribbon(drawing: Drawing, top: float, bottom: float, width: float, fill: str, opacity: float) -> None:
    """A band of constant width that bends from `top` at the router to `bottom` above the map."""
    high, low = ROUTER_TOP + ROUTER_HEIGHT, MAP_TOP - 26
    bend = (high + low) / 2
    drawing.path(
        f"M{top:.1f} {high} C{top:.1f} {bend} {bottom:.1f} {bend} {bottom:.1f} {low} h{width:.1f} "
        f"C{bottom + width:.1f} {bend} {top + width:.1f} {bend} {top + width:.1f} {high} Z",
        fill=fill,
        stroke=WHITE,
        line=1.5,
        opacity=opacity,
    )


def shade(part: float) -> float:
    """The opacity of navy, for a part of the largest value. It jumps over the shades on which no text can be read."""
    return part * 0.8 if part <= 0.55 else 0.72 + (part - 0.55) / 0.45 * 0.28


def on_white(colour: str, opacity: float) -> str:
    """The colour that is seen."""
    channels = (int(WHITE[i : i + 2], 16) * (1 - opacity) + int(colour[i : i + 2], 16) * opacity for i in (1, 3, 5))
    return "#" + "".join(f"{round(channel):02X}" for channel in channels)


def ink_on(opacity: float) -> str:
    """The text that is read best on so much navy."""
    return max((WHITE, CHARCOAL), key=lambda ink: contrast(ink, on_white(NAVY, opacity)))


def draw_map(drawing: Drawing, usage: list[list[float]], asked: int) -> None:
    """A row for each layer, a cell for each expert: the share of all tokens that asks it."""
    most = max(map(max, usage))
    for layer, shares in enumerate(usage):
        y = MAP_TOP + layer * ROW
        drawing.text(MAP_LEFT - 14, y + ROW / 2 + 6, f"layer {layer}", 18, 400, MUTED, "end")
        for expert, share in enumerate(shares):
            opacity, x = shade(share / most), middle_of(expert) - CELL / 2
            drawing.rect(x + 2, y + 2, CELL - 4, ROW - 4, NAVY, radius=6, opacity=opacity)
            if expert in busiest(shares, asked):
                drawing.rect(x + 3, y + 3, CELL - 6, ROW - 6, "none", GOLD, 5, 4)
            drawing.text(x + CELL / 2, y + ROW / 2 + 6, f"{share:.0%}", 18, 600, ink_on(opacity), "middle")
    text = f"share of tokens; even would be {asked / len(usage[0]):.0%}. Gold: the busiest {asked}"
    drawing.text(MAP_LEFT, MAP_TOP + len(usage) * ROW + 27, text, 18, 400, MUTED)


def draw_squares(drawing: Drawing, released: dict[str, list[int]]) -> None:
    """Areas to scale: all parameters held, in gold those that one token uses. The large ones above the small one."""
    drawing.text(SQUARES_LEFT, TITLE, "Hold everything, use a part", 22, 650, NAVY)
    drawing.text(SQUARES_LEFT, TITLE + 28, "billions of parameters; gold: used for a token", 18, 400, MUTED)
    largest = max(held for held, _ in released.values())
    small, *large = sorted(released, key=lambda name: released[name][0])
    for place, name in enumerate(large):
        x, floor = SQUARES_LEFT + place * (SIDE + GAP), SQUARES_TOP + SIDE
        draw_square(drawing, x, floor, released[name], largest)
        for line, label in enumerate(labels_of(name, *released[name])):
            drawing.text(x, floor + 27 + 23 * line, label[0], 18, *label[1:])
    floor = MAP_TOP + 4 * ROW + 26
    side = draw_square(drawing, SQUARES_LEFT, floor, released[small], largest)
    for line, label in enumerate(labels_of(small, *released[small])):
        drawing.text(SQUARES_LEFT + side + 16, floor - 46 + 23 * line, label[0], 18, *label[1:])


def draw_square(drawing: Drawing, x: float, floor: float, sizes: list[int], largest: int) -> float:
    """One model on the line `floor`. Returns the side of its square."""
    side, inner = (SIDE * (size / largest) ** 0.5 for size in sizes)
    drawing.rect(x, floor - side, side, side, NAVY_TINT, NAVY, 3, 2)
    drawing.rect(x, floor - inner, inner, inner, GOLD, radius=3, opacity=1 if inner < side else DENSE)
    drawing.rect(x, floor - inner, inner, inner, "none", NAVY, 3, 2)
    return side


def labels_of(name: str, held: int, active: int) -> list[tuple[str, int, str]]:
    return [
        (name.removeprefix("Qwen3-"), 650, NAVY),
        (f"{held / 1e9:.1f} held", 400, CHARCOAL),
        (f"{active / 1e9:.1f} used", 600, GOLD_INK),
    ]


def draw_variants(drawing: Drawing, variants: dict[str, dict], speeds: dict[str, float]) -> None:
    """One row a variant: speed as a bar, then work, memory of the cache, and whether the texts agree."""
    fastest = max(speeds.values())
    drawing.line(32, TABLE_TOP - 28, drawing.width - 32, TABLE_TOP - 28)
    drawing.text(32, TABLE_TOP + 4, "Four variants, same prompts", 22, 650, NAVY)
    heads = {"vectors": "vectors for 50 tokens", "cache bytes": "cache, 256 tokens", "texts": "texts alike"}
    for name, text in heads.items():
        drawing.text(COLUMNS[name], TABLE_TOP + 4, text, 18, 400, MUTED, "end")
    for row, (name, variant) in enumerate(variants.items()):
        y = TABLE_TOP + 18 + row * TABLE_ROW
        cached = variant["cache bytes"] > 0
        width = speeds[name] / fastest * BAR
        drawing.rect(BAR_LEFT, y + 6, width, TABLE_ROW - 12, GOLD if cached else SLATE, radius=4)
        drawing.tick(COLUMNS["texts"] - 74, y + TABLE_ROW / 2, 15, SOUND, 3)
        cache = f"{variant['cache bytes'] / 1024:.0f} KiB" if cached else "none"
        for x, text, weight, ink, anchor in (
            (BAR_LEFT - 16, name, 600 if cached else 400, NAVY, "end"),
            (BAR_LEFT + width + 10, f"{speeds[name]:.0f} tokens/s", 600, CHARCOAL, "start"),
            (COLUMNS["vectors"], f"{variant['vectors']:,}", 600, GOLD_INK if cached else CHARCOAL, "end"),
            (COLUMNS["cache bytes"], cache, 400, CHARCOAL, "end"),
            (COLUMNS["texts"], variant["texts"].removesuffix(" alike"), 400, SOUND, "end"),
        ):
            drawing.text(x, y + TABLE_ROW / 2 + 7, text, 19, weight, ink, anchor)
