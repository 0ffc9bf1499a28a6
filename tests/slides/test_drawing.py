"""Drawing on slides: texts are measured, and what does not fit is refused instead of drawn."""

import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_helpers.palette import MONO, SANS, SERIF
from slides import figures, fonts
from slides.figures.axes import Axes
from slides.figures.numbers import measured
from slides.figures.svg import SMALLEST, Drawing, TooWide

SVG = "{http://www.w3.org/2000/svg}"
WORDS = st.lists(st.text("abcdefghijklmnop", min_size=1, max_size=12), min_size=1, max_size=30)


def test_widths_are_the_browsers(chromium, built):
    from slides.browser import address, open_page

    samples = [
        ("Memory-Efficient Loading", 50, SERIF, 560),
        ("grouped-query attention, 24 heads", 20, SANS, 400),
        ("TENSORS", 21, SANS, 650),
        ("model.layers.0.mlp.down_proj.weight", 17, MONO, 500),
    ]
    script = """([text, size, family, weight]) => {
        const span = document.createElement("span");
        span.style = `position:absolute;white-space:pre;font:${weight} ${size}px "${family}";letter-spacing:0`;
        span.textContent = text; document.body.append(span);
        return span.getBoundingClientRect().width; }"""
    with open_page(address(built)) as page:
        for text, size, family, weight in samples:
            shown = page.evaluate(script, [text, size, family, weight])
            assert fonts.text_width(text, size, family, weight) == pytest.approx(shown, rel=0.01)


@given(WORDS, st.integers(160, 600), st.integers(16, 30))
def test_wrapping_loses_no_word_and_no_line_is_too_wide(words, width, size):
    text = " ".join(words)
    if max(fonts.text_width(word, size) for word in words) > width:
        with pytest.raises(ValueError, match="alone is wider"):
            fonts.wrap(text, width, size)
        return
    lines = fonts.wrap(text, width, size)
    assert " ".join(lines) == text
    assert all(fonts.text_width(line, size) <= width for line in lines)


def test_text_that_does_not_fit_is_refused():
    drawing = Drawing(400, 300)
    with pytest.raises(TooWide, match="its place 30 px"):
        drawing.text(0, 20, "much too wide", fit=30)
    with pytest.raises(TooWide):
        drawing.box(0, 0, 60, 60, "much too wide")
    with pytest.raises(ValueError, match="px of lines in a box 20 px high"):
        drawing.box(0, 0, 300, 20, "two", "lines")
    with pytest.raises(ValueError, match="nothing on a slide is smaller"):
        drawing.text(0, 20, "tiny", size=SMALLEST - 1)


def test_axes_map_values_to_places():
    axes = Axes(Drawing(400, 300), 50, 10, 300, 200, (0, 10), (1, 100), log_up=True)
    assert (axes.x(0), axes.x(5), axes.x(10)) == (50, 200, 350)
    assert (axes.y(1), axes.y(10), axes.y(100)) == pytest.approx((210, 110, 10))


def test_two_figures_of_one_name_are_refused():
    name = next(iter(figures.load()))

    def double(drawing):
        pass

    double.__name__ = name
    with pytest.raises(ValueError, match=f"two figures are called {name}"):
        figures.figure(double)


def test_numbers_without_provenance_are_refused(tmp_path):
    (tmp_path / "M9-LAB-00.json").write_text(json.dumps({"results": {"peak": 1}}))
    with pytest.raises(
        ValueError, match="does not say where its numbers come from: date, cpu, cores, packages missing"
    ):
        measured(Drawing(10, 10), "M9-LAB-00", tmp_path)


@pytest.mark.parametrize(("sample", "word"), [(True, "Sample data"), (False, "Measured")])
def test_sample_data_says_so_under_the_figure(tmp_path, sample, word):
    origin = {"date": "2026-11-29T00:00:00", "cpu": "any", "cores": 2, "packages": {"torch": "2.13.0"}}
    record = {"provenance": origin, "results": {"peak": 1}, **({"sample": True} if sample else {})}
    (tmp_path / "M9-LAB-00.json").write_text(json.dumps(record))
    drawing = Drawing(10, 10)
    assert measured(drawing, "M9-LAB-00", tmp_path) == {"peak": 1}
    assert drawing.sources[0].startswith(f"{word}: M9-LAB-00, 2026-11-29")


def test_a_figure_is_well_formed_and_described():
    drawing = Drawing(400, 300)
    drawing.text(10, 30, 'a < b & "c"')
    drawing.arrow((0, 0), (100, 0), (100, 100))
    drawing.marker(50, 50, 3)
    root = ElementTree.fromstring(drawing.svg('shows "this" & that'))
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'shows "this" & that'
    assert [text.text for text in root.iter(f"{SVG}text")] == ['a < b & "c"', "3"]
