"""Small pictures of the deck for the README: six slides, and all thirty on one sheet. Committed, so kept small."""

import io
from pathlib import Path

from PIL import Image

from course_helpers.labs.records import whole
from course_helpers.palette import SOFT_GREY

from .browser import HEIGHT, WIDTH, address, open_page, show
from .deck import SLIDES

FOLDER = Path(__file__).parent / "previews"
#: file -> slides, how many stand in a row, how wide each is, pixels between them
SHEETS = {
    "strip.png": ((6, 5, 11, 20, 21, 24), 3, 640, 12),
    "all.png": (range(1, SLIDES + 1), 5, 384, 8),
}


def write_previews(page: Path, folder: Path = FOLDER) -> list[Path]:
    """Both sheets, from the built page; each is written whole or not at all."""
    with open_page(address(page)) as browser:
        shots = {}
        for number in range(1, SLIDES + 1):
            show(browser, number)
            shots[number] = Image.open(io.BytesIO(browser.screenshot(type="png"))).convert("RGB")
    written = []
    for name, (numbers, columns, width, gap) in SHEETS.items():
        target = folder / name
        pictures = sheet([shots[number] for number in numbers], columns, width, gap)
        with whole(target) as temporary:
            # 256 colours are a third of the bytes, and nobody sees it at this size.
            pictures.quantize(256, dither=0).save(temporary, "PNG", optimize=True)
        written.append(target)
    return written


def sheet(pictures: list[Image.Image], columns: int, width: int, gap: int) -> Image.Image:
    """Pictures side by side, `columns` in a row, each `width` pixels wide."""
    height = round(width * HEIGHT / WIDTH)
    rows = -(-len(pictures) // columns)
    size = (columns * width + (columns + 1) * gap, rows * height + (rows + 1) * gap)
    whole = Image.new("RGB", size, SOFT_GREY)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        small = picture.resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(small, (gap + column * (width + gap), gap + row * (height + gap)))
    return whole
