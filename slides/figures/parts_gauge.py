"""A round instrument: cells along an open ring, a needle, and a count below the hub."""

import math

from course_helpers.palette import ALARM, GOLD, GOLD_INK, NAVY, SOFT_GREY, WHITE

from .svg import Drawing, Point

START, SWEEP = 140, 260  # degrees clockwise from the right: where the ring begins, how far it goes round
INNER, OUTER = 0.5, 0.88  # of the radius: the band that holds the cells


def gauge(drawing: Drawing, x: float, y: float, radius: float, cells: list[list[bool]]) -> None:
    """An instrument whose rings, from the outside in, are the rows of `cells`; the needle shows how much holds."""
    drawing.circle(x, y, radius, WHITE, NAVY, 6)
    thick = (OUTER - INNER) * radius / len(cells)
    for ring, row in enumerate(cells):
        step = SWEEP / len(row)
        for place, holds in enumerate(row):
            outer = OUTER * radius - ring * thick
            angles = (START + place * step + 1.6, START + (place + 1) * step - 1.6)
            _cell(drawing, (x, y), (outer - thick + 2.5, outer), angles, NAVY if holds else ALARM)
    held, all_cells = sum(map(sum, cells)), sum(map(len, cells))
    _needle(drawing, x, y, radius, START + SWEEP * held / all_cells)
    drawing.text(x, y + radius * 0.66, str(held), 30, 700, NAVY, "middle")
    drawing.text(x, y + radius * 0.66 + 20, f"of {all_cells}", 17, 600, GOLD_INK, "middle")


def _needle(drawing: Drawing, x: float, y: float, radius: float, degrees: float) -> None:
    tip = _at((x, y), radius * (INNER - 0.02), degrees)
    sides = [_at((x, y), 7, degrees + side) for side in (90, -90)]
    drawing.polygon((tip, *sides), GOLD, NAVY, 1.5)
    drawing.circle(x, y, 9, GOLD, NAVY, 2.5)
    drawing.circle(x, y, 3, SOFT_GREY)


def _cell(drawing: Drawing, centre: Point, radii: Point, degrees: Point, fill: str) -> None:
    """The part of a ring between two radii and two angles."""
    (inner, outer), (first, last) = radii, degrees
    a, b, c, d = (
        _at(centre, radius, angle) for radius, angle in ((outer, first), (outer, last), (inner, last), (inner, first))
    )
    drawing.path(
        f"M{a[0]:.1f} {a[1]:.1f} A{outer:.1f} {outer:.1f} 0 0 1 {b[0]:.1f} {b[1]:.1f} "
        f"L{c[0]:.1f} {c[1]:.1f} A{inner:.1f} {inner:.1f} 0 0 0 {d[0]:.1f} {d[1]:.1f} Z",
        fill=fill,
        stroke=None,
    )


def _at(centre: Point, radius: float, degrees: float) -> Point:
    angle = math.radians(degrees)
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)
