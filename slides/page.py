"""The page: every slide, figure, font and script in one HTML file that needs nothing else."""

import base64
import re
from collections.abc import Iterable
from html import escape, unescape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt

from course_helpers import palette
from course_helpers.labs.order import find_labs

from . import excerpts, figures, films, fonts
from .deck import FIRST_OF_HOUR_2, SLIDES, DeckError, Slide
from .figures.svg import Drawing

THEME = Path(__file__).parent / "theme"
CAPTION = 30  # pixels under every figure for where its numbers come from

#: width and height in pixels of the figure of a kind and layout; the style sheet's rows leave just this room
FIGURE_SIZES = {
    ("title", None): (1920, 1080),
    ("agenda", None): (1776, 300),
    ("concept", "figure-left"): (1096, 600),
    ("concept", "figure-right"): (1096, 600),
    ("concept", "figure-top"): (1776, 362),
    ("practical", "figure-left"): (1096, 668),
    ("practical", "figure-right"): (1096, 668),
    ("practical", "figure-top"): (1776, 380),
    ("code", None): (654, 600),
    ("recap", None): (1776, 296),
    ("animation", None): (1180, 664),
}
LINKED = re.compile(r"Slides? (\d+)(?:-(\d+))?")


def build_page(slides: list[Slide]) -> str:
    """The deck as one HTML page. Raises DeckError naming the slide whose figure, code or film cannot be made."""
    reveal = fonts.MODULES / "reveal.js" / "dist"
    styles = [_read(reveal / "reset.css"), _read(reveal / "reveal.css"), _own_styles()]
    scripts = [_read(reveal / "reveal.js"), _read(reveal / "plugin" / "notes.js"), _read(THEME / "deck.js")]
    return _page("page.html.j2", slides, styles, scripts)


def build_handout(slides: list[Slide]) -> str:
    """The slides with their speaker notes, one to a page of A4, to be printed: no script, nothing moves."""
    return _page("handout.html.j2", slides, [_own_styles(), _read(THEME / "handout.css")], [])


def _page(template: str, slides: list[Slide], styles: list[str], scripts: list[str]) -> str:
    fonts.require()
    loader = FileSystemLoader(THEME)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = breakable
    shown = [_Shown(slide) for slide in slides]
    body = environment.get_template("slides.html.j2").render(
        slides=shown, total=SLIDES, first_of_hour_2=FIRST_OF_HOUR_2, caption=CAPTION
    )
    # A script inside a page ends at the first closing tag, wherever it stands.
    script = "\n".join(scripts).replace("</script", "<\\/script")
    return environment.get_template(template).render(slides=body, styles="\n".join(styles), scripts=script)


class _Shown:
    """A slide as the template sees it: the source's fields, and those made of them."""

    def __init__(self, slide: Slide):
        self._slide = slide
        self.title_html = _title(slide.title)
        self.claim_html = inline(slide.claim)
        self.notes_html = MarkdownIt().render(slide.notes)
        try:
            self._draw(slide)
            if slide.kind == "code":
                code, places = excerpts.excerpt(slide.sections["Code"])
                self.code, self.code_places = excerpts.highlight(code), places
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise DeckError(f"{slide.path.name}: {type(error).__name__}: {error}") from error

    def __getattr__(self, name: str) -> object:
        return getattr(self._slide, name)

    def items(self, heading: str) -> list[str]:
        """A section's lines as HTML; in the Beginner's Corner what stands before the colon is strong."""
        lines = [inline(line) for line in self._slide.sections[heading]]
        if heading == "Beginner's Corner":
            lines = [re.sub(r"^([^:]+:)", r"<strong>\1</strong>", line) for line in lines]
        return lines

    @property
    def central(self) -> dict[str, str]:
        return dict(line.split(": ", 1) for line in self._slide.sections["Central Text"])

    @property
    def central_title_html(self) -> str:
        return _title(self.central["Title"])

    @property
    def lab_path(self) -> str:
        lab = self._slide.anchor.lab
        labs = {found.id: found for found in find_labs()}
        if lab not in labs:
            raise DeckError(f"{self._slide.path.name}: no notebook is called {lab}")
        return f"notebooks/{labs[lab].notebook.name}"

    def _draw(self, slide: Slide) -> None:
        if slide.kind == "animation":
            self.film = films.markup(films.find(slide.sections["Animation Asset"]), slide.alt)
            return
        drawing = draw(slide)
        self.svg, self.source, self.figure_height = drawing.svg(slide.alt), " · ".join(drawing.sources), drawing.height


def draw(slide: Slide) -> Drawing:
    """The slide's figure at the slide's size. Raises DeckError where there is no figure of that name."""
    known = figures.load()
    if slide.figure not in known:
        raise DeckError(f"no figure is called {slide.figure!r}; there are {', '.join(sorted(known))}")
    width, height = FIGURE_SIZES[slide.kind, slide.layout]
    drawing = Drawing(width, slide.figure_height or height, slide.id)
    known[slide.figure](drawing)
    return drawing


def inline(text: str) -> str:
    """Markdown of one line as HTML; slides that are named become links."""

    def link(match: re.Match[str]) -> str:
        return f'<a href="#/slide-{int(match[1]):02d}">{match[0]}</a>'

    return LINKED.sub(link, MarkdownIt().renderInline(text))


def plain(text: str) -> str:
    """Markdown of one line as it reads: without the marks of code and emphasis."""
    return unescape(re.sub(r"<[^>]+>", "", MarkdownIt().renderInline(text)))


def breakable(path: str) -> str:
    """A path as HTML that breaks after its slashes, where it must, and nowhere else."""
    *folders, name = path.split("/")
    parts = [f"{folder}/" for folder in folders] + [name]
    return "<wbr>".join(f'<span class="unbroken">{escape(part)}</span>' for part in parts)


def _title(title: str) -> str:
    part, dash, rest = title.partition(" - ")
    if not dash:
        return escape(title)
    return f'<span class="part">{escape(part)}</span><span class="dash"> - </span>{escape(rest)}'


def _own_styles() -> str:
    return "\n".join([*_font_faces(), _variables(), _read(THEME / "deck.css")])


def _font_faces() -> Iterable[str]:
    for (family, style), path in fonts.FILES.items():
        data = base64.b64encode(path.read_bytes()).decode()
        yield (
            f'@font-face {{ font-family: "{family}"; font-style: {style}; font-weight: 100 900; font-display: block; '
            f"src: url(data:font/woff2;base64,{data}) format('woff2'); }}"
        )


def _variables() -> str:
    colours = {name: value for name, value in vars(palette).items() if isinstance(value, str) and value.startswith("#")}
    rows = [f"--{name.lower().replace('_', '-')}: {value};" for name, value in colours.items()]
    families = (
        ("serif", palette.SERIF, "serif"),
        ("sans", palette.SANS, "sans-serif"),
        ("mono", palette.MONO, "monospace"),
    )
    rows += [f'--{name}: "{family}", {generic};' for name, family, generic in families]
    return f":root {{ {' '.join(rows)} }}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
