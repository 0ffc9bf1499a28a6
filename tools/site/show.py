"""The deck and the films: what is built is shown and linked; for what is not, the page says which command builds it."""

from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

from slides import browser, deck, films, page

from . import markdown
from .stage import Stage, href

DECK = "deck/module9.html"
#: What `make slides` builds beside the page, and what each is for.
EXPORTS = {
    "module9.pdf": "PDF",
    "module9-notes.pdf": "Handout with notes",
    "module9.pptx": "PowerPoint",
}
PICTURE_WIDTH = 960  # pixels: sharp on a phone, and in three columns


@dataclass(frozen=True)
class Deck:
    """The deck as far as it is built: the page's place or None, and the place of each slide's picture."""

    slides: list[deck.Slide]
    page: str | None
    pictures: dict[int, str]
    why_not: str = ""


@dataclass(frozen=True)
class Film:
    """One film in the site; `video` is None where it is not rendered."""

    title: str
    alt: str
    slide: int
    video: str | None = None
    poster: str | None = None
    captions: str | None = None
    transcript: Path | None = None


def write_deck(stage: Stage, pictures: bool) -> Deck:
    """Build the page of the deck if that is possible, take pictures of its slides if wanted, and write about it."""
    slides = deck.read_deck()
    try:
        stage.write(DECK, page.build_page(slides))
    except (deck.DeckError, FileNotFoundError) as error:
        shown = Deck(slides, None, {}, str(error).splitlines()[-1])
    else:
        shown = Deck(slides, DECK, _pictures(stage, slides) if pictures else {})
    stage.page("deck.html", _deck_page(stage, shown), hide="[toc]")
    return shown


def _pictures(stage: Stage, slides: list[deck.Slide]) -> dict[int, str]:
    from PIL import Image

    found = {}
    try:
        with browser.open_page(browser.address(stage.folder / DECK), PICTURE_WIDTH / browser.WIDTH) as window:
            for slide in slides:
                browser.show(window, slide.number)
                shot, small = Image.open(BytesIO(window.screenshot(type="png"))).convert("RGB"), BytesIO()
                shot.save(small, "WEBP", quality=86)
                found[slide.number] = f"deck/pictures/{slide.number:02d}.webp"
                stage.write(found[slide.number], small.getvalue())
    except browser.NoBrowser:
        return {}
    return found


def _deck_page(stage: Stage, shown: Deck) -> str:
    minutes = sum(slide.minutes for slide in shown.slides)
    links = [f'<a class="md-button md-button--primary" href="{shown.page}">Open the deck</a>'] if shown.page else []
    for name, words in EXPORTS.items():
        built = stage.root / "slides" / "build" / name
        if built.is_file():
            links.append(f'<a class="md-button" href="{stage.copy(built, f"deck/{name}")}">{words}</a>')
    links.append('<a class="md-button" href="present.html">How to present it</a>')
    absent = "" if shown.page else f'<p class="absent">The deck could not be built here: {escape(shown.why_not)}</p>'
    return (
        f"# The deck\n\n{len(shown.slides)} slides for {minutes:.0f} minutes. Every figure is drawn by code from what "
        "the labs measured. In the deck, S opens the speaker view, F fills the screen, Esc shows all slides.\n\n"
        f'{absent}<p class="buttons">{"".join(links)}</p>\n\n' + "\n\n".join(_hour(shown, hour) for hour in (1, 2))
    )


def _hour(shown: Deck, hour: int) -> str:
    cards = "".join(slide_card("deck.html", shown, slide) for slide in shown.slides if slide.hour == hour)
    return f'## Hour {hour}\n\n<ol class="cards slides">{cards}</ol>'


def slide_card(from_page: str, shown: Deck, slide: deck.Slide) -> str:
    """One slide as a card: picture if there is one, number, title, claim, minutes."""
    picture = shown.pictures.get(slide.number)
    drawn = (
        f'<img src="{href(from_page, picture)}" alt="{escape(slide.alt)}" width="960" height="540" loading="lazy">'
        if picture
        else ""
    )
    title = f"{slide.number} · {escape(_title(slide))}"
    if shown.page:
        title = f'<a href="{href(from_page, shown.page)}#/{slide.id}">{title}</a>'
    body = f"<strong>{title}</strong><span>{escape(slide.claim)}</span><small>{slide.minutes:g} min</small>"
    return f'<li class="card">{drawn}<div>{body}</div></li>'


def _title(slide: deck.Slide) -> str:
    return slide.title.replace(" - ", "\u00a0– ")  # as the slide itself is set; no line begins with a dash


def write_films(stage: Stage, slides: list[deck.Slide]) -> list[Film]:
    """The films that slides announce."""
    found = [_film(stage, slide) for slide in slides if slide.kind == "animation"]
    parts = ["# The films", "The deck steps through them on its own; here they play from first to last."]
    for film in found:
        parts += [f"## {film.title}", player("films.html", film)]
        if film.transcript:
            text = markdown.html(film.transcript.read_text(encoding="utf-8").partition("\n")[2])
            parts.append(f"<details><summary>Transcript: what can be seen and read</summary>\n{text}\n</details>")
    stage.page("films.html", "\n\n".join(parts))
    return found


def _film(stage: Stage, slide: deck.Slide) -> Film:
    try:
        files = films.find(slide.sections["Animation Asset"])
    except FileNotFoundError:
        return Film(_title(slide), slide.alt, slide.number)
    copied = [stage.copy(path, f"films/{path.name}") for path in (files.video, files.poster, files.captions)]
    transcript = files.video.with_name(f"{files.video.stem}-transcript.md")
    if not transcript.is_file():
        return Film(_title(slide), slide.alt, slide.number, *copied)
    title = transcript.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return Film(title, slide.alt, slide.number, *copied, transcript)


def player(from_page: str, film: Film) -> str:
    """A film with its controls and captions, or what to do to get it."""
    if not film.video:
        return f'<p class="absent">This film is not rendered here: <code>make animations</code>. {escape(film.alt)}</p>'
    video, poster, captions = (href(from_page, place) for place in (film.video, film.poster, film.captions))
    return (
        f'<video class="film" controls playsinline preload="none" poster="{poster}" aria-label="{escape(film.alt)}" '
        f'width="1920" height="1080" src="{video}">'
        f'<track kind="captions" srclang="en" label="English" src="{captions}"></video>'
    )
