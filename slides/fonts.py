"""The deck's fonts: where `npm ci` put them, how wide a text is in them, and which characters they have."""

from functools import cache, lru_cache
from pathlib import Path

from course_helpers.palette import MONO, SANS, SERIF

MODULES = Path(__file__).parent / "node_modules"
_FOLDER = MODULES / "@fontsource-variable"

#: family, style -> file; each has one axis, its weight.
FILES = {
    (SANS, "normal"): _FOLDER / "inter/files/inter-latin-wght-normal.woff2",
    (SERIF, "normal"): _FOLDER / "source-serif-4/files/source-serif-4-latin-wght-normal.woff2",
    (SERIF, "italic"): _FOLDER / "source-serif-4/files/source-serif-4-latin-wght-italic.woff2",
    (MONO, "normal"): _FOLDER / "jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2",
}


def require() -> None:
    """Raises FileNotFoundError, saying what to run, where the fonts and reveal.js are not there yet."""
    missing = [path.name for path in (*FILES.values(), MODULES / "reveal.js/dist/reveal.js") if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"slides/node_modules lacks {', '.join(missing)}. Next step: make slides (it runs npm ci in slides/)."
        )


@lru_cache(maxsize=64)
def _font(family: str, style: str, weight: int):
    from PIL import ImageFont

    font = ImageFont.truetype(str(FILES[family, style]), 100)
    font.set_variation_by_axes([weight])
    return font


@lru_cache(maxsize=16384)
def text_width(text: str, size: float, family: str = SANS, weight: int = 400, style: str = "normal") -> float:
    """Width of one line in CSS pixels."""
    return _font(family, style, weight).getlength(text) * size / 100


@cache
def characters(family: str, style: str = "normal") -> frozenset[str]:
    """Every character the embedded file of this family can draw."""
    from fontTools.ttLib import TTFont

    with TTFont(FILES[family, style]) as font:
        return frozenset(map(chr, font.getBestCmap()))


def wrap(text: str, width: float, size: float, family: str = SANS, weight: int = 400) -> list[str]:
    """`text` in lines no wider than `width` pixels. Raises ValueError where one word alone is wider."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if text_width(longer, size, family, weight) <= width:
            line = longer
            continue
        if text_width(word, size, family, weight) > width:
            raise ValueError(f"{word!r} alone is wider than {width:.0f} px at {size} px")
        lines.append(line)
        line = word
    return [line for line in (*lines, line) if line]
