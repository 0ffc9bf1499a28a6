"""Every figure of the deck: well-formed, in the palette's colours, marked, and never without its source."""

import re
from xml.etree import ElementTree

import pytest

from course_helpers import palette
from slides import deck
from slides.page import FIGURE_SIZES, draw

SLIDES = [slide for slide in map(deck.read_source, sorted(deck.CONTENT.glob("*.md"))) if slide.kind != "animation"]
COLOURS = {value for value in vars(palette).values() if isinstance(value, str) and value.startswith("#")}


@pytest.fixture(scope="module")
def drawings():
    return {slide.number: draw(slide) for slide in SLIDES}


@pytest.mark.parametrize("slide", SLIDES, ids=lambda slide: slide.figure)
def test_figure(slide, drawings):
    drawing = drawings[slide.number]
    root = ElementTree.fromstring(drawing.svg(slide.alt))
    assert root.get("role") == "img"
    assert root.get("aria-label") == slide.alt
    assert drawing.width == FIGURE_SIZES[slide.kind, slide.layout][0]
    assert drawing.sources, "no source: nobody could tell where the figure's numbers come from"
    assert "Sample" not in " ".join(drawing.sources)
    used = {
        value
        for element in root.iter()
        for name, value in element.attrib.items()
        if re.fullmatch("#[0-9A-Fa-f]{3,8}", value)
    }
    assert used <= COLOURS


@pytest.mark.parametrize(
    "slide", [slide for slide in SLIDES if slide.kind == "concept"], ids=lambda slide: slide.figure
)
def test_every_annotation_has_its_place_in_the_figure(slide, drawings):
    root = ElementTree.fromstring(drawings[slide.number].svg(slide.alt))
    markers = [int(group.get("data-marker")) for group in root.iter() if group.get("data-marker")]
    assert sorted(markers) == list(range(1, 13))


def test_a_figure_is_the_same_every_time(drawings):
    for slide in SLIDES:
        assert draw(slide).parts == drawings[slide.number].parts
