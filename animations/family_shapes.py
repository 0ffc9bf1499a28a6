"""What the pictures of the families are made of: pictures whose pieces have names, and a few shapes."""

import numpy as np
from manim import PI, RIGHT, Animation, Circle, FadeIn, FadeOut, Line, Mobject, ReplacementTransform, VGroup, VMobject

from course_helpers.palette import GOLD, MUTED, NAVY, NAVY_TINT, SLATE, WHITE

from .canvas import SMALLEST, Box, px, words
from .style import EDGE, Card


class Picture(VGroup):
    """Named pieces that are drawn together."""

    def __init__(self, pieces: dict[str, Mobject]):
        super().__init__(*pieces.values())
        self.pieces = pieces

    def into(self, other: "Picture") -> list[Animation]:
        """The animations that turn this picture into another one."""
        moved = self.pieces.keys() & other.pieces.keys()
        moves = [ReplacementTransform(self.pieces[name], other.pieces[name]) for name in self.pieces if name in moved]
        leave = [FadeOut(piece, scale=0.6) for name, piece in self.pieces.items() if name not in moved]
        return moves + leave + [FadeIn(piece, scale=0.6) for name, piece in other.pieces.items() if name not in moved]


def path(*points: np.ndarray, colour: str = SLATE, width: float = EDGE) -> VMobject:
    """A line through points."""
    return VMobject().set_points_as_corners(np.array(points)).set_stroke(colour, width)


def small(text: str, colour: str = MUTED) -> VMobject:
    """A label inside a picture."""
    return words(text, SMALLEST, colour)


def step(text: str, box: Box, fill: str = NAVY_TINT, ink: str = NAVY, edge: str = NAVY) -> VGroup:
    """A part of the model that computes: a box with its name."""
    return VGroup(Card.over(box, fill=fill, edge=edge, radius=8), small(text, ink).move_to(box.at()))


def joint(sign: str, point: np.ndarray, radius: float = 13) -> VGroup:
    """Where two streams become one: a circle with + or × in it."""
    circle = Circle(px(radius)).set_fill(WHITE, 1).set_stroke(NAVY, EDGE)
    arm = px(radius * 0.55) * RIGHT
    turn = PI / 4 if sign == "×" else 0
    arms = [Line(-arm, arm).rotate(turn + quarter).set_stroke(NAVY, EDGE) for quarter in (0, PI / 2)]
    return VGroup(circle, *arms).move_to(point)


def bar(box: Box, fill: str = GOLD) -> Card:
    """A filled bar with a thin edge of its own colour's neighbour, to be seen on white."""
    return Card.over(box, fill=fill, edge=fill, radius=5).set_stroke(width=0)
