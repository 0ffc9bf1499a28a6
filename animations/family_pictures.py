"""The pictures of the five things that families change, drawn from the numbers in `swap_parts`.

Navy is the model itself; gold are norms, keys and values; sky is what says where a token stands.
"""

from manim import LEFT, RIGHT, UP, Animation, Circle, Line, Mobject, Polygon, Rotate, VGroup, VMobject

from course_helpers.palette import CHARCOAL, GOLD, HAIRLINE, NAVY, NAVY_TINT, SKY, SKY_TINT, SLATE, WHITE

from .canvas import SMALLEST, Box, px
from .family_shapes import Picture, bar, joint, path, small, step
from .style import EDGE, THICK, Card, Token
from .swap_parts import POSITION, TEXT, Part

#: A block from top to bottom: what stands in a row, and how high the row is.
BLOCK_ROWS = {
    "feed-forward +": 26,
    "feed-forward after": 14,
    "feed-forward": 44,
    "feed-forward before": 14,
    "attention +": 26,
    "attention after": 14,
    "attention": 62,
    "attention before": 14,
}


def norm(part: Part, box: Box) -> Picture:
    """A block: attention and feed-forward, the norms before or after them, and the way around each."""
    block = Box(box.left + 46, box.bottom + 4, box.right - 66, box.top - 4)
    rows = dict(zip(BLOCK_ROWS, block.rows(list(BLOCK_ROWS.values()), gap=7), strict=True))
    pieces = {"stream": path(block.at(0.5, 0), block.at(0.5, 1))}
    for name in ("attention", "feed-forward"):
        pieces[f"{name} around"] = around(rows[f"{name} before"], rows[f"{name} +"], box.left + 8)
        pieces[f"{name} +"] = joint("+", rows[f"{name} +"].at())
        pieces[name] = step(name, rows[name])
        for place in ("before", "after"):
            if part.drawn[place]:
                pieces[f"{name} {place}"] = bar(rows[f"{name} {place}"])
    label = rows["attention before" if part.drawn["before"] else "attention after"]
    pieces["label"] = small("norm").next_to(label.at(1, 0.5), RIGHT, buff=px(10))
    if part.drawn["queries"]:
        pieces["attention"][1].move_to(rows["attention"].at(0.5, 0.66))
        slots = rows["attention"].rows([46, 10, 6])[1].inset(20, 0).columns(part.drawn["queries"], gap=10)
        pieces["queries"] = VGroup(*map(bar, slots))
    return Picture(pieces)


def around(start: Box, end: Box, left: float) -> VMobject:
    """The way around a part: out of the stream below it, and back in with a plus above it."""
    leave, enter = start.at(0.5, -0.3), end.at()
    return path(leave, [px(left), leave[1], 0], [px(left), enter[1], 0], enter)


def positions(part: Part, box: Box) -> Picture:
    """A table of learned vectors, or dials whose hands have turned by the text's position."""
    return vectors(part, box) if "vectors" in part.drawn else dials(part, box)


def vectors(part: Part, box: Box) -> Picture:
    """The first of the learned vectors and the last, each beside its position."""
    names = ["0", "1", "2", "…", str(part.drawn["vectors"] - 1)]
    pieces = {}
    for name, row in zip(names, box.inset(0, 34).rows(len(names), gap=12), strict=True):
        label, vector = row.columns([60, 240], gap=12)
        pieces[f"label {name}"] = label.place(small(name), RIGHT)
        if name != "…":
            cells = vector.columns(6, gap=4)
            pieces[f"vector {name}"] = VGroup(*(Card.over(cell, fill=SKY_TINT, edge=SKY, radius=3) for cell in cells))
    return Picture(pieces)


def dials(part: Part, box: Box) -> Picture:
    """A row of dials for each type of layer, a dial for each pair of a head that is shown."""
    kinds = part.drawn["hands"]
    heading, *rows, speeds = box.inset(0, 60 if len(kinds) == 1 else 10).rows([30, *[90] * len(kinds), 30], gap=8)
    pieces = {"heading": heading.place(small(f"turned after {POSITION} tokens"))}
    shares = [84 if len(kinds) > 1 else 1, 76, 76, 76]
    for index, ((kind, hands), row) in enumerate(zip(kinds.items(), rows, strict=True)):
        label, *places = row.columns(shares)
        if kind:
            pieces[f"kind {index}"] = label.place(small(kind), LEFT)
        for number, place in enumerate(places):
            pieces[f"dial {index} {number}"] = Dial(place, hands[number])
    _, fast, _, slow = speeds.columns(shares)
    return Picture(pieces | {"fast": fast.place(small("fast")), "slow": slow.place(small("slow"))})


class Dial(VGroup):
    """A circle, a mark where its hand begins, and the hand, to be turned clockwise by an angle."""

    RADIUS = 34

    def __init__(self, box: Box, angle: float):
        self.angle, self.centre, up = angle, box.at(), px(self.RADIUS) * UP
        circle = Circle(px(self.RADIUS)).set_fill(SKY_TINT, 1).set_stroke(SKY, EDGE).move_to(self.centre)
        mark = Line(self.centre + 0.72 * up, self.centre + up).set_stroke(SLATE, EDGE)
        self.hand = Line(self.centre, self.centre + 0.86 * up).set_stroke(NAVY, THICK)
        super().__init__(circle, mark, self.hand)

    def turned(self) -> "Dial":
        """With its hand where it comes to stand."""
        self.hand.rotate(-self.angle, about_point=self.centre)
        return self

    def turn(self, **options) -> Animation:
        """The animation in which the hand goes all the way there."""
        return Rotate(self.hand, -self.angle, about_point=self.centre, **options)


#: The columns of the picture of attention, labels and what they are about; a layer's square, and the gap beside it.
LABELLED, SQUARE, GAP = (130, 176), 54, 7


def attention(part: Part, box: Box) -> Picture:
    """Which query heads share which key/value head, and under it what each layer sees of the text."""
    queries, keys, masks = box.inset(0, 6).rows([40, 70, 40 + 2 * SQUARE], gap=8)
    pieces = heads(part, queries, keys)
    label, place = masks.columns(LABELLED)
    pieces["layers"] = label.place(small("layers"), LEFT)
    windows, columns = part.drawn["windows"], -(-len(part.drawn["windows"]) // 2)
    squares = VGroup(*(mask(window) for window in windows)).arrange_in_grid(cols=columns, buff=px(GAP))
    place.place(squares)
    return Picture(pieces | {f"layer {index}": square for index, square in enumerate(squares)})


def heads(part: Part, upper: Box, lower: Box) -> dict[str, Mobject]:
    """Dots for the query heads over dots for the key/value heads, joined where they work together."""
    count, shared = part.drawn["heads"], part.drawn["shared"]
    (queries, above), (keys, below) = upper.columns(LABELLED), lower.columns(LABELLED)
    pieces = {"queries": queries.place(small("queries"), LEFT), "keys": keys.place(small("keys, values"), LEFT)}
    starts = [place.at() for place in above.columns(count)]
    ends = [place.at() for place in below.columns(shared)]
    for index, start in enumerate(starts):
        pieces[f"link {index}"] = Line(start, ends[index * shared // count]).set_stroke(SLATE, EDGE)
    for name, points, colour in (("query", starts, NAVY), ("key", ends, GOLD)):
        for index, point in enumerate(points):
            pieces[f"{name} {index}"] = Circle(px(11)).set_fill(colour, 1).set_stroke(width=0).move_to(point)
    return pieces


def mask(window: int | None) -> VGroup:
    """Who sees whom in a text: a row for each token, filled where it looks; the whole triangle, or a band of it."""
    box, share = Box(0, 0, SQUARE, SQUARE), min(1.0, (window or TEXT) / TEXT)
    corners = [box.at(0, 1), box.at(1, 0), box.at(1 - share, 0), box.at(0, 1 - share)]
    seen = Polygon(*corners).set_fill(NAVY, 1).set_stroke(width=0)
    return VGroup(Card.over(box, fill=WHITE, edge=HAIRLINE, radius=2), seen)


def feed_forward(part: Part, box: Box) -> Picture:
    """Its matrices from bottom to top, with a gate or without; or the experts, and the router under them."""
    if "experts" in part.drawn:
        return experts(part, box)
    down, product, activation, up = box.inset(0, 10).rows([46, 30, 40, 46], gap=24)
    left, _, right = box.columns([140, box.width - 280, 140])
    middle = box.inset(80, 0)
    gated = part.drawn["gated"]
    first, second = (left, right) if gated else (middle, middle)
    pieces = {
        "line up": path(meet(second, up).at(), meet(second, product).at(), product.at()),
        "line down": path(product.at(), down.at()),
    }
    if gated:
        pieces["line gate"] = path(meet(first, up).at(), meet(first, product).at(), product.at())
        pieces["product"] = joint("×", product.at())
        pieces["gate"] = step("gate", meet(first, up))
    pieces["up"] = step("up", meet(second, up))
    name = part.drawn["activation"]
    pieces["activation"] = step(name, meet(first, activation), fill=WHITE, ink=CHARCOAL, edge=SLATE)
    pieces["down"] = step("down", meet(middle, down))
    return Picture(pieces)


def meet(column: Box, row: Box) -> Box:
    """Where a column and a row meet."""
    return Box(column.left, row.bottom, column.right, row.top)


def experts(part: Part, box: Box, token: int = -1) -> Picture:
    """All experts over the router, lit where it sends a token of the prompt; under it, the token."""
    mixed, first, second, _, router, sent = box.rows([28, 56, 56, 4, 46, 38], gap=12)
    count, lit = part.drawn["experts"], part.drawn["chosen"][token]
    half = -(-count // 2)
    places = first.columns(half, gap=12) + second.columns(half, gap=12)
    pieces = {}
    for number, index in enumerate(lit):
        pieces[f"sent {number}"] = path(router.at(), places[index].at(), colour=GOLD, width=THICK)
        pieces[f"mixed {number}"] = path(places[index].at(), mixed.at(), colour=GOLD, width=THICK)
    for index in range(count):
        chosen = {"fill": NAVY, "ink": WHITE} if index in lit else {"fill": NAVY_TINT, "ink": NAVY}
        pieces[f"expert {index}"] = step(str(index), places[index], **chosen)
    pieces["token"] = sent.place(Token(part.drawn["tokens"][token], size=SMALLEST))
    return Picture(pieces | {"router": step("router", router.inset(80, 0)), "product": joint("+", mixed.at())})


def cache(part: Part, box: Box) -> Picture:
    """A bar for each layer: as long as what it keeps of the text, as high as it has key/value heads."""
    *rows, axis = box.rows([220 / len(part.drawn["kept"])] * len(part.drawn["kept"]) + [30], gap=6)
    pieces = {}
    for index, (kept, row) in enumerate(zip(part.drawn["kept"], rows, strict=True)):
        height, middle = 10 * part.drawn["shared"], (row.top + row.bottom) / 2
        whole = Box(row.left, middle - height / 2, row.right, middle + height / 2)
        pieces[f"room {index}"] = Card.over(whole, fill=WHITE, edge=HAIRLINE, radius=5)
        pieces[f"layer {index}"] = bar(Box(whole.left, whole.bottom, whole.left + whole.width * kept / TEXT, whole.top))
    pieces["start"] = axis.place(small("0"), LEFT)
    pieces["end"] = axis.place(small(f"{TEXT} tokens"), RIGHT)
    return Picture(pieces)


#: How each of the five is drawn.
PICTURES = {
    "Norm": norm,
    "Positions": positions,
    "Attention": attention,
    "Feed-forward": feed_forward,
    "KV cache": cache,
}

#: What each of the five is about: shown before the first family comes.
QUESTIONS = {
    "Norm": "before or after?",
    "Positions": "added or turned?",
    "Attention": "who sees what?",
    "Feed-forward": "a gate? experts?",
    "KV cache": "what is kept?",
}
