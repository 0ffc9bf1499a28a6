"""A plotting area for charts: values to pixels, grid, ticks, curves and areas."""

import math
from collections.abc import Callable, Iterable, Sequence

from course_helpers.palette import GOLD, MUTED, NAVY

from .svg import Drawing, Point


class Axes:
    """A plotting area: maps values to pixels, draws grid lines, ticks and labels."""

    def __init__(
        self,
        drawing: Drawing,
        x: float,
        y: float,
        width: float,
        height: float,
        across: Point,
        up: Point,
        log_up: bool = False,
        log_across: bool = False,
    ):
        self.drawing, self.left, self.top, self.width, self.height = drawing, x, y, width, height
        self.bottom, self.right = y + height, x + width
        self._x, self._y = _scale(across, log_across), _scale(up, log_up)

    def x(self, value: float) -> float:
        return self.left + self._x(value) * self.width

    def y(self, value: float) -> float:
        return self.bottom - self._y(value) * self.height

    def grid(self, ticks: Iterable[float], form: str = "{:g}", size: float = 17) -> None:
        """Horizontal lines with their values at the left."""
        for value in ticks:
            self.drawing.line(self.left, self.y(value), self.right, self.y(value))
            self.drawing.text(self.left - 12, self.y(value) + size * 0.35, form.format(value), size, 400, MUTED, "end")

    def ticks(self, ticks: Iterable[float], form: str = "{:g}", size: float = 17) -> None:
        """Values along the bottom."""
        for value in ticks:
            self.drawing.text(self.x(value), self.bottom + size * 1.7, form.format(value), size, 400, MUTED, "middle")

    def base(self, stroke: str = MUTED) -> None:
        self.drawing.line(self.left, self.bottom, self.right, self.bottom, stroke, 2)

    def curve(self, values: Iterable[Point], stroke: str = NAVY, line: float = 4, dash: str | None = None) -> None:
        self.drawing.polyline(((self.x(a), self.y(b)) for a, b in values), stroke, line, dash)

    def area(self, values: Sequence[Point], fill: str = GOLD, opacity: float = 1) -> None:
        """What lies between the curve and the bottom."""
        edge = [(self.x(a), self.y(b)) for a, b in values]
        self.drawing.polygon([(edge[0][0], self.bottom), *edge, (edge[-1][0], self.bottom)], fill, opacity=opacity)


def _scale(limits: Point, logarithmic: bool) -> Callable[[float], float]:
    low, high = map(math.log, limits) if logarithmic else limits
    return lambda value: ((math.log(value) if logarithmic else value) - low) / (high - low)
