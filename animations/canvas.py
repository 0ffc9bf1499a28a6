"""What every picture of the films stands on: the frame and its regions, text, and the few colours.

Everything is measured in pixels of a 1920 x 1080 frame, whatever size is rendered: `px(30)` is as long as 30 of them.
Text is Pango's, so nothing needs LaTeX.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from manim import DOWN, LEFT, RIGHT, UP, ManimColor, MarkupText, Mobject, Text, VGroup, VMobject, config

from course_helpers import palette

WIDTH, HEIGHT, PER_UNIT = 1920, 1080, 120
#: Sizes of text, in pixels at 1080p. Nothing is smaller than SMALLEST.
HUGE, TITLE, HEAD, BODY, LABEL, SMALLEST = 72, 52, 36, 30, 26, 22

config.frame_width, config.frame_height = WIDTH / PER_UNIT, HEIGHT / PER_UNIT
config.background_color = ManimColor(palette.WHITE)

REGULAR, MEDIUM, BOLD = "NORMAL", "MEDIUM", "SEMIBOLD"
#: Shares of a font's size: from the baseline to the top of capitals, and from there or the baseline to a line's edge.
CAPITAL, MARGIN = 0.727, 0.24
STRUT_POINTS = 8


def px(pixels: float) -> float:
    """Manim's length for so many pixels of a 1080p frame."""
    return pixels / PER_UNIT


@dataclass(frozen=True)
class Box:
    """A part of the frame, in pixels from its middle; y grows upwards. Scenes take regions from here, not numbers."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def width(self) -> float:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """In pixels."""
        return self.top - self.bottom

    def at(self, across: float = 0.5, up: float = 0.5) -> np.ndarray:
        """The point at these shares of the width and the height, for Manim."""
        return np.array([px(self.left + across * self.width), px(self.bottom + up * self.height), 0.0])

    def inset(self, across: float, along: float | None = None) -> "Box":
        """The box without a margin of so many pixels left and right, and above and below (the same if not given)."""
        along = across if along is None else along
        return Box(self.left + across, self.bottom + along, self.right - across, self.top - along)

    def columns(self, shares: int | Sequence[float], gap: float = 0) -> list["Box"]:
        """The box cut into columns, of equal width or in proportion to `shares`, from left to right."""
        edges = _cuts(self.left, self.width, shares, gap)
        return [Box(start, self.bottom, end, self.top) for start, end in edges]

    def rows(self, shares: int | Sequence[float], gap: float = 0) -> list["Box"]:
        """The box cut into rows, of equal height or in proportion to `shares`, from top to bottom."""
        edges = _cuts(-self.top, self.height, shares, gap)
        return [Box(self.left, -end, self.right, -start) for start, end in edges]

    def place(self, mobject: Mobject, side: np.ndarray | None = None) -> Mobject:
        """Move a mobject to the middle of the box, or against one side or corner (LEFT, UP + LEFT, ...) of it."""
        side = np.zeros(3) if side is None else side
        mobject.move_to(self.at((side[0] + 1) / 2, (side[1] + 1) / 2), aligned_edge=side)
        return mobject


def _cuts(start: float, length: float, shares: int | Sequence[float], gap: float) -> list[tuple[float, float]]:
    shares = [1.0] * shares if isinstance(shares, int) else list(shares)
    per_share = (length - gap * (len(shares) - 1)) / sum(shares)
    edges = []
    for share in shares:
        edges.append((start, start + share * per_share))
        start = edges[-1][1] + gap
    return edges


FRAME = Box(-WIDTH / 2, -HEIGHT / 2, WIDTH / 2, HEIGHT / 2)
#: The stage rail on top, the caption at the bottom, and between them the stage.
RAIL, STAGE, CAPTION = FRAME.inset(80, 40).rows([64, 800, 56], gap=40)


class Words(VMobject):
    """One line of text as one shape, fast to draw.

    Its box reaches from above its capitals to below its descenders whatever the letters are, and its middle is that of
    the capitals. So lines placed side by side share a baseline, and text in the middle of a card looks so.
    """

    def __init__(self, text: str, size: float, colour: str, font: str, weight: str):
        super().__init__(stroke_width=0, fill_color=colour, fill_opacity=1)
        self.content, self.size, self.colour = text, size, colour
        self.set_points(_outline(text, font, weight) * px(size))

    def become(self, mobject: Mobject, **options) -> "Words":
        """Turn into other words: what they say goes along with how they look."""
        if isinstance(mobject, Words):
            self.content, self.size, self.colour = mobject.content, mobject.size, mobject.colour
        return super().become(mobject, **options)

    def ink(self) -> tuple[np.ndarray, np.ndarray]:
        """The lower left and the upper right corner of what is drawn, without the margins of the line."""
        drawn = self.points[:-STRUT_POINTS]
        return drawn.min(axis=0), drawn.max(axis=0)


@functools.cache
def _outline(text: str, font: str, weight: str) -> np.ndarray:
    """The letters' curves, for a font one unit large, their middle at the origin."""
    # Small sizes are hinted: letters would stand at whole pixels. An x in front says where the baseline is.
    letters = _glyphs(f"x{text}", font, weight).family_members_with_points()
    baseline = letters[0].points[:, 1].min()
    points = np.concatenate([letter.points for letter in letters[1:]])
    left, right = points[:, 0].min(), points[:, 0].max()
    points = points - [(left + right) / 2, baseline + CAPITAL / 2, 0]
    reach = CAPITAL / 2 + MARGIN
    corners = [[(left - right) / 2, -reach, 0], [(right - left) / 2, reach, 0]]
    return np.concatenate([points, np.repeat(corners, STRUT_POINTS // 2, axis=0)])


def _glyphs(text: str, font: str, weight: str) -> Text | MarkupText:
    """A glyph for each letter. Where the font of code would join signs, as in <|, it is told not to."""
    options = {"font": font, "weight": weight, "font_size": 72, "disable_ligatures": True}
    try:
        return Text(text, **options)
    except ValueError:  # Text cannot switch joins in context (calt) off, and says so
        return MarkupText(f'<span font_features="calt=0">{escape(text)}</span>', **options)


def words(
    text: str,
    size: float = BODY,
    colour: str = palette.CHARCOAL,
    font: str = palette.SANS,
    weight: str = REGULAR,
    fit: float | None = None,
) -> Words:
    """One line of text. `fit`: the most pixels it may be wide; a longer one is set smaller, down to SMALLEST."""
    line = Words(text, size, colour, font, weight)
    if fit is not None and line.width > px(fit):
        smaller = size * px(fit) / line.width
        if smaller < SMALLEST:
            raise ValueError(f"{text!r} does not fit into {fit:.0f} px: it would be {smaller:.1f} px high")
        line = Words(text, smaller, colour, font, weight)
    return line


def code(text: str, size: float = LABEL, colour: str = palette.CHARCOAL, **options) -> Words:
    """One line in the font of code: names of tensors and files, shapes, tokens."""
    return words(text, size, colour, font=palette.MONO, **options)


def lines(*rows: Mobject, gap: float = 8, side: np.ndarray = LEFT) -> VGroup:
    """Rows under one another, aligned on one side."""
    return VGroup(*rows).arrange(DOWN, buff=px(gap), aligned_edge=side)


def beside(*parts: Mobject, gap: float = 16) -> VGroup:
    """Parts in a row, their middles on one line."""
    return VGroup(*parts).arrange(RIGHT, buff=px(gap))


def above(mobject: Mobject, label: Mobject, gap: float = 10, side: np.ndarray | None = None) -> Mobject:
    """Put a label over a mobject, in the middle or aligned on one side, and return the label."""
    return label.next_to(mobject, UP, buff=px(gap), aligned_edge=np.zeros(3) if side is None else side)


def below(mobject: Mobject, label: Mobject, gap: float = 10, side: np.ndarray | None = None) -> Mobject:
    """Put a label under a mobject, in the middle or aligned on one side, and return the label."""
    return label.next_to(mobject, DOWN, buff=px(gap), aligned_edge=np.zeros(3) if side is None else side)
