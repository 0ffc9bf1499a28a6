"""The palette can be read: every ink on every surface it is used on, by WCAG 2.1."""

import pytest

from course_helpers import palette

INKS = ("CHARCOAL", "NAVY", "MUTED", "GOLD_INK", "SKY_INK", "ALARM", "SOUND")
SURFACES = ["WHITE", "PEARL", "SOFT_GREY", "GOLD_TINT", "NAVY_TINT", "SKY_TINT", "ALARM_TINT", "SOUND_TINT"]


def test_contrast_is_the_standards():
    assert palette.contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert palette.contrast("#777777", "#777777") == 1
    assert (
        palette.contrast("#767676", "#FFFFFF")
        == palette.contrast("#FFFFFF", "#767676")
        == pytest.approx(4.54, abs=0.01)
    )


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("ink", INKS)
def test_text_can_be_read_on_every_light_surface(ink, surface):
    assert palette.contrast(getattr(palette, ink), getattr(palette, surface)) >= 4.5


@pytest.mark.parametrize("ink", ["WHITE", "GOLD", "GOLD_TINT", "PEARL"])
def test_text_can_be_read_on_navy(ink):
    assert palette.contrast(getattr(palette, ink), palette.NAVY) >= 4.5


@pytest.mark.parametrize("fill", ["NAVY", "SKY", "SLATE"])
def test_a_filled_area_stands_out_from_white_without_its_label(fill):
    assert palette.contrast(getattr(palette, fill), palette.WHITE) >= 3
