"""What is made of the page: pictures of exactly 8K, a tagged PDF, a handout with notes, and a PowerPoint file."""

import re

import pytest
from PIL import Image, ImageStat
from pptx import Presentation
from pptx.enum.shapes import MSO_SHAPE_TYPE

from slides import export, powerpoint
from slides.page import build_handout, plain

pytestmark = pytest.mark.usefixtures("chromium")


def test_a_picture_is_8k_and_not_blank(built, tmp_path):
    (picture,) = export.write_pictures(built, tmp_path, [6], scale=4, progress=lambda _: None)
    assert picture.name == "06.png"
    with Image.open(picture) as image:
        assert (image.size, image.mode) == ((7680, 4320), "RGB")
        assert min(ImageStat.Stat(image.reduce(8)).stddev) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["06.png"]


@pytest.fixture(scope="module")
def pdf(built, tmp_path_factory):
    target = tmp_path_factory.mktemp("pdf") / "module9.pdf"
    export.write_pdf(built, target)
    return target.read_bytes()


def test_the_pdf_is_tagged_and_has_a_page_a_slide(pdf):
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 30
    assert re.search(rb"/MarkInfo\s*<<[^>]*/Marked true", pdf)
    assert {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox\s*\[([^\]]+)\]", pdf)} == {
        (0, 0, 1440, 810)
    }
    assert len(re.findall(rb"/Alt\b", pdf)) >= 28  # every drawn figure, for those who cannot see it


def test_the_handout_has_every_note(slides, tmp_path):
    target = tmp_path / "notes.pdf"
    html = build_handout(slides)
    assert all(f'data-number="{slide.number}"' in html for slide in slides)
    export.write_handout(html, target)
    assert len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) == 30


@pytest.fixture(scope="module")
def presentation(built, slides, tmp_path_factory):
    target = tmp_path_factory.mktemp("pptx") / "module9.pptx"
    powerpoint.write_powerpoint(built, slides, target)
    return Presentation(str(target))


def words(slide):
    """Every line of the source that stands on the slide, without Markdown's marks."""
    lines = [slide.wisdom]
    for heading, text in slide.sections.items():
        if isinstance(text, list):
            lines += [line.split(": ", 1)[1] if heading == "Central Text" else line for line in text]
    if slide.kind != "title":
        lines += [slide.title, slide.claim, slide.kicker]
    if slide.anchor:
        lines += [*slide.anchor.assets, slide.anchor.objective, slide.anchor.prerequisite]
    return [plain(line) for line in lines]


def test_powerpoint_says_what_the_sources_say(presentation, slides):
    assert len(presentation.slides) == 30
    for made, slide in zip(presentation.slides, slides, strict=True):
        texts = [" ".join(shape.text_frame.text.split()) for shape in made.shapes if shape.has_text_frame]
        missing = [line for line in words(slide) if line not in texts and f"“{line}”" not in texts]
        assert not missing, slide.path.name
        assert made.shapes.title.text_frame.text
        assert made.notes_slide.notes_text_frame.text == powerpoint.plain_notes(slide)


def test_powerpoint_describes_every_picture(presentation, slides):
    for made, slide in zip(presentation.slides, slides, strict=True):
        pictures = [shape for shape in made.shapes if shape.shape_type == MSO_SHAPE_TYPE.PICTURE]
        described = [shape._element.xpath(".//p:cNvPr")[0].get("descr") for shape in pictures]
        assert described == [" ".join(slide.alt.split())] or described == [slide.alt]


def test_powerpoint_stays_on_the_page_and_can_be_edited(presentation):
    for made in presentation.slides:
        for shape in made.shapes:
            assert shape.left >= 0 and shape.top >= 0
            assert shape.left + shape.width <= presentation.slide_width + powerpoint.SLACK * powerpoint.PIXEL
            assert shape.top + shape.height <= presentation.slide_height
        assert sum(shape.has_text_frame and bool(shape.text_frame.text) for shape in made.shapes) >= 5


def test_references_lead_to_their_slides(presentation):
    linked = {
        (number, shape.click_action.target_slide.slide_id)
        for number, made in enumerate(presentation.slides, 1)
        for shape in made.shapes
        if shape.has_text_frame and shape.click_action.target_slide is not None
    }
    by_number = {number: made.slide_id for number, made in enumerate(presentation.slides, 1)}
    assert (5, by_number[8]) in linked
    assert len(linked) == 11
