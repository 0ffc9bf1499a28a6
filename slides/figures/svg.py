"""Drawing for slides: SVG in CSS pixels of a 1920 x 1080 slide, with text that is measured before it is placed.

Every figure is a function that takes a `Drawing` of the size its slide has room for and draws on it. Text never
overflows in silence: `text(..., fit=width)` and `box` raise `TooWide` where it would.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

from course_helpers.palette import CHARCOAL, HAIRLINE, MUTED, NAVY, PEARL, SANS, WHITE

from ..fonts import text_width, wrap

SMALLEST = 16  # pixels at 1920 wide: what can still be read at the back of a room
Point = tuple[float, float]


class TooWide(ValueError):
    """A text needs more room than its place has."""


class Drawing:
    """One figure. Coordinates are pixels, y runs downward, (0, 0) is the upper left corner of the figure's card."""

    def __init__(self, width: float, height: float, name: str = "figure"):
        self.width, self.height, self.name = width, height, name
        self.parts: list[str] = []
        self.sources: list[str] = []
        self._gradients = 0

    # --- shapes -------------------------------------------------------------------------------------------------
    def rect(
        self, x: float, y: float, width: float, height: float, fill: str = WHITE, stroke: str | None = None,
        radius: float = 10, line: float = 2, dash: str | None = None, opacity: float = 1,
    ) -> None:  # fmt: skip
        """A rectangle with rounded corners."""
        self._shape("rect", fill, stroke, line, dash, opacity, x=x, y=y, width=width, height=height, rx=radius)

    def circle(
        self, x: float, y: float, radius: float, fill: str = WHITE, stroke: str | None = None, line: float = 2,
        dash: str | None = None, opacity: float = 1,
    ) -> None:  # fmt: skip
        self._shape("circle", fill, stroke, line, dash, opacity, cx=x, cy=y, r=radius)

    def polygon(
        self, points: Iterable[Point], fill: str = WHITE, stroke: str | None = None, line: float = 2, opacity: float = 1
    ) -> None:
        self._shape("polygon", fill, stroke, line, None, opacity, points=_points(points))

    def polyline(
        self, points: Iterable[Point], stroke: str = NAVY, line: float = 3, dash: str | None = None, opacity: float = 1
    ) -> None:
        self._shape("polyline", "none", stroke, line, dash, opacity, points=_points(points))

    def path(
        self, d: str, fill: str = "none", stroke: str | None = NAVY, line: float = 3, dash: str | None = None,
        opacity: float = 1,
    ) -> None:  # fmt: skip
        """Any SVG path, for curves that the other shapes cannot draw."""
        self._shape("path", fill, stroke, line, dash, opacity, d=d)

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        stroke: str = HAIRLINE,
        line: float = 1.5,
        dash: str | None = None,
    ) -> None:
        self.polyline(((x1, y1), (x2, y2)), stroke, line, dash)

    def arrow(
        self, *points: Point, stroke: str = NAVY, line: float = 3, head: float = 11, dash: str | None = None
    ) -> None:
        """A line through `points` with a filled head at the last; corners are rounded a little."""
        (x0, y0), (x1, y1) = points[-2:]
        angle = math.atan2(y1 - y0, x1 - x0)
        neck = (x1 - head * 0.8 * math.cos(angle), y1 - head * 0.8 * math.sin(angle))
        self.path(_rounded((*points[:-1], neck), 10), stroke=stroke, line=line, dash=dash)
        wings = [
            (x1 - head * 1.25 * math.cos(angle + side * 0.44), y1 - head * 1.25 * math.sin(angle + side * 0.44))
            for side in (1, -1)
        ]
        self.polygon(((x1, y1), *wings), fill=stroke)

    def curve(
        self, start: Point, end: Point, stroke: str = NAVY, line: float = 3, vertical: bool = False, opacity: float = 1
    ) -> None:
        """A smooth S between two points: leaves and arrives horizontally (or vertically)."""
        (x0, y0), (x1, y1) = start, end
        middle = (y0 + y1) / 2 if vertical else (x0 + x1) / 2
        bends = (
            f"{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f}"
            if vertical
            else f"{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f}"
        )
        self.path(f"M{x0:.1f} {y0:.1f} C{bends} {x1:.1f} {y1:.1f}", stroke=stroke, line=line, opacity=opacity)

    def gradient(self, top: str, bottom: str, top_opacity: float = 1, bottom_opacity: float = 1) -> str:
        """A vertical gradient; what it returns goes where a fill goes."""
        self._gradients += 1
        name = f"{self.name}-gradient-{self._gradients}"
        self.parts.append(
            f'<defs><linearGradient id="{name}" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{top}" '
            f'stop-opacity="{top_opacity}"/><stop offset="1" stop-color="{bottom}" stop-opacity="{bottom_opacity}"/>'
            "</linearGradient></defs>"
        )
        return f"url(#{name})"

    # --- text ---------------------------------------------------------------------------------------------------
    def text(
        self, x: float, y: float, text: str, size: float = 20, weight: int = 400, fill: str = CHARCOAL,
        anchor: str = "start", family: str = SANS, italic: bool = False, fit: float | None = None,
        turn: float = 0, spacing: float = 0,
    ) -> float:  # fmt: skip
        """One line on the baseline `y`; `anchor` is start, middle or end. Returns its width in pixels.

        Raises ValueError below `SMALLEST`, and TooWide where it is wider than `fit`.
        """
        if size < SMALLEST:
            raise ValueError(f"{text!r} at {size} px: nothing on a slide is smaller than {SMALLEST} px")
        style = "italic" if italic else "normal"
        width = text_width(text, size, family, weight, style) + spacing * len(text)
        if fit is not None and width > fit:
            raise TooWide(f"{text!r} is {width:.0f} px wide at {size} px, its place {fit:.0f} px")
        attributes = {"x": x, "y": y, "font-size": size, "fill": fill}
        if weight != 400:
            attributes["font-weight"] = weight
        if anchor != "start":
            attributes["text-anchor"] = anchor
        if family != SANS:
            attributes["font-family"] = f"'{family}'"
        if italic:
            attributes["font-style"] = "italic"
        if spacing:
            attributes["letter-spacing"] = spacing
        if turn:
            attributes["transform"] = f"rotate({turn} {_number(x)} {_number(y)})"
        self.parts.append(f"<text{_attributes(attributes)}>{escape(text)}</text>")
        return width

    def paragraph(
        self, x: float, y: float, width: float, text: str, size: float = 20, weight: int = 400, fill: str = CHARCOAL,
        anchor: str = "start", leading: float = 1.35, family: str = SANS,
    ) -> float:  # fmt: skip
        """Wrapped text whose first baseline is `y`. Returns the baseline after the last line."""
        for line in wrap(text, width, size, family, weight):
            self.text(x, y, line, size, weight, fill, anchor, family)
            y += size * leading
        return y

    def box(
        self, x: float, y: float, width: float, height: float, title: str, below: str = "", fill: str = WHITE,
        stroke: str | None = NAVY, ink: str = NAVY, size: float = 21, below_size: float = 17,
        below_ink: str | None = None, radius: float = 12, line: float = 2, family: str = SANS, weight: int = 650,
    ) -> None:  # fmt: skip
        """A rounded box with a centred title and, below it, smaller text; both may hold `\\n`.

        Raises TooWide where a line does not fit, ValueError where the lines do not.
        """
        self.rect(x, y, width, height, fill, stroke, radius, line)
        rows = [(row, size, weight, ink, family) for row in title.split("\n")]
        rows += [
            (row, below_size, 400, below_ink or (MUTED if ink != WHITE else PEARL), SANS)
            for row in below.split("\n")
            if row
        ]
        total = sum(row[1] * 1.3 for row in rows)
        if total > height - 6:
            raise ValueError(f"{title!r}: {total:.0f} px of lines in a box {height:.0f} px high")
        baseline = y + (height - total) / 2
        for row, row_size, row_weight, row_ink, row_family in rows:
            self.text(
                x + width / 2,
                baseline + row_size * 0.99,
                row,
                row_size,
                row_weight,
                row_ink,
                "middle",
                row_family,
                fit=width - 16,
            )
            baseline += row_size * 1.3

    def chip(
        self, x: float, y: float, text: str, fill: str = NAVY, ink: str = WHITE, size: float = 17, weight: int = 600,
        anchor: str = "start", stroke: str | None = None, family: str = SANS,
    ) -> float:  # fmt: skip
        """A pill with text, `y` its vertical middle. Returns its width."""
        width, height = text_width(text, size, family, weight) + size * 1.3, size * 1.75
        left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
        self.rect(left, y - height / 2, width, height, fill, stroke, height / 2, 1.5)
        self.text(left + width / 2, y + size * 0.355, text, size, weight, ink, "middle", family)
        return width

    def marker(self, x: float, y: float, number: int, fill: str = NAVY, ink: str = WHITE) -> None:
        """The round number that ties a place in the figure to the annotation of the same number."""
        self.parts.append(f'<g data-marker="{number}">')
        self.circle(x, y, 16, fill, WHITE, 2.5)
        self.text(x, y + 6, str(number), 17, 700, ink, "middle")
        self.parts.append("</g>")

    def tick(self, x: float, y: float, size: float = 18, stroke: str = NAVY, line: float = 3.5) -> None:
        """A check mark in a square of `size` pixels around (x, y): the fonts have none."""
        h = size / 2
        self.polyline(((x - h, y + h * 0.05), (x - h * 0.3, y + h * 0.7), (x + h, y - h * 0.75)), stroke, line)

    def cross(self, x: float, y: float, size: float = 16, stroke: str = NAVY, line: float = 3.5) -> None:
        h = size / 2
        self.path(
            f"M{x - h:.1f} {y - h:.1f} L{x + h:.1f} {y + h:.1f} M{x + h:.1f} {y - h:.1f} L{x - h:.1f} {y + h:.1f}",
            stroke=stroke,
            line=line,
        )

    # --- where numbers come from --------------------------------------------------------------------------------
    def source(self, text: str) -> None:
        """A provenance, printed under the figure: who measured or computed what is drawn."""
        if text not in self.sources:
            self.sources.append(text)

    # --- output -------------------------------------------------------------------------------------------------
    def svg(self, alt: str) -> str:
        """The figure as inline SVG with its description for those who cannot see it."""
        size = f"{_number(self.width)} {_number(self.height)}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" aria-label="{escape(alt)}" '
            f'font-family="{SANS}, sans-serif" text-rendering="geometricPrecision">{"".join(self.parts)}</svg>'
        )

    def _shape(
        self, tag: str, fill: str, stroke: str | None, line: float, dash: str | None, opacity: float, **geometry: object
    ) -> None:
        attributes = {**geometry, "fill": fill}
        if stroke:
            attributes |= {
                "stroke": stroke,
                "stroke-width": line,
                "stroke-linejoin": "round",
                "stroke-linecap": "round",
            }
        if dash:
            attributes |= {"stroke-dasharray": dash, "stroke-linecap": "butt"}
        if opacity != 1:
            attributes["opacity"] = opacity
        self.parts.append(f"<{tag}{_attributes(attributes)}/>")


def _rounded(points: Sequence[Point], radius: float) -> str:
    """A path through points whose corners are rounded."""
    d = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = (_towards(corner, other, radius) for other in (before, after))
        d += f" L{start[0]:.1f} {start[1]:.1f} Q{corner[0]:.1f} {corner[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
    return d + f" L{points[-1][0]:.1f} {points[-1][1]:.1f}"


def _towards(start: Point, end: Point, distance: float) -> Point:
    length = math.dist(start, end) or 1
    share = min(distance, length / 2) / length
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _attributes(attributes: dict[str, object]) -> str:
    return "".join(f' {name}="{escape(_number(value))}"' for name, value in attributes.items())
