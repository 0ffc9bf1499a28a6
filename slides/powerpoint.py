"""The deck as a PowerPoint file that can be edited: native text boxes and shapes where the page has them.

The page is opened in Chromium, every card, text and picture is measured, and python-pptx puts its counterpart at the
same place: texts stay text with their runs, figures become pictures with their descriptions, notes become notes. Fonts
are named, not embedded: without Inter, Source Serif 4 and JetBrains Mono, PowerPoint shows its own.
"""

import io
import re
from pathlib import Path
from typing import Any

from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.enum.shapes import MSO_SHAPE
from pptx.enum.text import MSO_ANCHOR, MSO_AUTO_SIZE, PP_ALIGN
from pptx.oxml.ns import qn
from pptx.util import Emu

from course_helpers.labs.records import whole
from course_helpers.palette import PEARL

from .browser import HEIGHT, WIDTH, address, open_page, show
from .deck import Slide
from .page import plain

BOXES = Path(__file__).parent / "theme" / "boxes.js"
PIXEL = 6350  # EMU a CSS pixel: 1920 px are 13.33 inches, PowerPoint's wide page
SLACK = 14  # pixels added to a text box's width: another renderer's letters are a little wider
PICTURE_SCALE = 2
TITLE_ONLY = 5  # the default template's layout that has a title and nothing else
ALIGN = {"center": PP_ALIGN.CENTER, "right": PP_ALIGN.RIGHT, "end": PP_ALIGN.RIGHT}


def write_powerpoint(page: Path, slides: list[Slide], target: Path) -> None:
    """The built page as `.pptx`, written whole or not at all."""
    presentation = Presentation()
    presentation.slide_width, presentation.slide_height = Emu(WIDTH * PIXEL), Emu(HEIGHT * PIXEL)
    script = BOXES.read_text(encoding="utf-8")
    made = {}
    with open_page(address(page), PICTURE_SCALE) as browser:
        browser.add_style_tag(content=".slide.title > :not(.figure), .title figcaption { opacity: 0; }")
        for place, slide in enumerate(slides, 1):
            show(browser, place)
            boxes = browser.evaluate(script, slide.id)
            pictures = [
                shown.screenshot(type="png", omit_background=True)
                for shown in browser.query_selector_all(f"#{slide.id} figure svg, #{slide.id} .film video")
            ]
            made[slide.id] = _add_slide(presentation, slide, boxes, pictures)
    _link(made)
    presentation.core_properties.title = "Module 9: Architecture Variants + Weight Loading"
    with whole(target) as temporary:
        presentation.save(str(temporary))


def plain_notes(slide: Slide) -> str:
    """The speaker notes as text without Markdown's marks."""
    return "\n\n".join(plain(" ".join(paragraph.split())) for paragraph in slide.notes.split("\n\n"))


def _add_slide(presentation: Any, slide: Slide, boxes: dict[str, Any], pictures: list[bytes]) -> Any:
    added = presentation.slides.add_slide(presentation.slide_layouts[TITLE_ONLY])
    added.background.fill.solid()
    added.background.fill.fore_color.rgb = _colour(PEARL)
    full = [index for index, picture in enumerate(boxes["pictures"]) if picture["width"] >= WIDTH]
    for index in full:  # a picture behind the words goes first: what is added later lies above
        _add_picture(added, boxes["pictures"][index], pictures[index])
    for shape in boxes["shapes"]:
        _add_shape(added, shape)
    for index, picture in enumerate(boxes["pictures"]):
        if index not in full:
            _add_picture(added, picture, pictures[index])
    for text in boxes["texts"]:
        frame = _title_box(added) if text["role"] == "title" else None
        _add_text(added, text, frame)
    added.notes_slide.notes_text_frame.text = plain_notes(slide)
    return added


def _title_box(added: Any) -> Any:
    """The layout's own title, so that outline view and screen readers find it; last, to lie above the cards."""
    title = added.shapes.title
    added.shapes._spTree.remove(title._element)
    added.shapes._spTree.append(title._element)
    return title


def _add_shape(added: Any, box: dict[str, Any]) -> None:
    kind = MSO_SHAPE.OVAL if box.get("round") else MSO_SHAPE.ROUNDED_RECTANGLE if box["radius"] else MSO_SHAPE.RECTANGLE
    shape = added.shapes.add_shape(kind, *_place(box))
    if kind is MSO_SHAPE.ROUNDED_RECTANGLE:
        shape.adjustments[0] = min(0.5, box["radius"] / max(1, min(box["width"], box["height"])))
    style = shape._element.find(qn("p:style"))  # the template's own look: a shadow, another font
    shape._element.remove(style)
    if box["fill"]:
        shape.fill.solid()
        shape.fill.fore_color.rgb = _colour(box["fill"])
    else:
        shape.fill.background()
    if box["line"]:
        shape.line.color.rgb = _colour(box["line"])
        shape.line.width = Emu(int(1.5 * PIXEL))
    else:
        shape.line.fill.background()
    _describe(shape, "", decorative=True)


def _add_picture(added: Any, box: dict[str, Any], picture: bytes) -> None:
    shape = added.shapes.add_picture(io.BytesIO(picture), *_place(box))
    _describe(shape, box["alt"])


def _add_text(added: Any, box: dict[str, Any], shape: Any | None) -> None:
    one_line = box["lines"] <= 1
    wide = dict(box, width=box["width"] + (SLACK if box["align"] not in ALIGN else 0))
    if shape is None:
        shape = added.shapes.add_textbox(*_place(wide))
    else:
        shape.left, shape.top, shape.width, shape.height = _place(wide)
    shape.name = box["role"]
    frame = shape.text_frame
    frame.margin_left = frame.margin_right = frame.margin_top = frame.margin_bottom = 0
    frame.auto_size, frame.word_wrap, frame.vertical_anchor = MSO_AUTO_SIZE.NONE, not one_line, MSO_ANCHOR.MIDDLE
    runs = box["runs"]
    if box["quoted"]:
        runs = [dict(runs[0], text="“"), *runs, dict(runs[-1], text="”")]
    paragraph = frame.paragraphs[0]
    paragraph.alignment = ALIGN.get(box["align"], PP_ALIGN.LEFT)
    paragraph.line_spacing = box["leading"] / 1.2
    for run in runs:
        for index, piece in enumerate(run["text"].split("\n")):
            if index:
                paragraph = frame.add_paragraph()
                paragraph.line_spacing = box["leading"] / 1.2
            if piece:
                _add_run(paragraph, dict(run, text=piece))


def _add_run(paragraph: Any, run: dict[str, Any]) -> None:
    added = paragraph.add_run()
    added.text = run["text"]
    font = added.font
    font.size, font.name = Emu(int(run["size"] * PIXEL)), run["family"]
    font.bold, font.italic = run["weight"] >= 600, run["italic"]
    font.color.rgb = _colour(run["colour"])
    if run["upper"]:
        added._r.get_or_add_rPr().set("cap", "all")  # shown in capitals; the text stays the source's
    if run["link"]:
        added._r.get_or_add_rPr().set("u", "sng")


def _link(made: dict[str, Any]) -> None:
    """Texts that name another slide lead to it on a click."""
    for added in made.values():
        for shape in added.shapes:
            match = re.search(r"in Slides? (\d+)", shape.text_frame.text) if shape.has_text_frame else None
            target = made.get(f"slide-{int(match[1]):02d}") if match else None
            if target is not None:
                shape.click_action.target_slide = target


def _describe(shape: Any, text: str, decorative: bool = False) -> None:
    properties = shape._element.xpath(".//p:cNvPr")[0]
    properties.set("descr", text)
    if decorative:
        properties.set("title", "decoration")


def _place(box: dict[str, Any]) -> tuple[Emu, Emu, Emu, Emu]:
    return tuple(Emu(round(box[key] * PIXEL)) for key in ("x", "y", "width", "height"))


def _colour(text: str) -> RGBColor:
    return RGBColor.from_string(text.lstrip("#").upper())
