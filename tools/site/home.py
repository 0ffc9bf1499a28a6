"""The landing page: the words are in site/pages/index.html.j2; every count and picture in it comes from the course."""

import json
from html import escape

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from course_helpers import FAMILIES
from slides.previews import SHEETS

from . import markdown, show
from .documents import plain
from .notebooks import Summary, image, stage_of
from .stage import ROOT, Stage, href

#: Two commands for each of the three cards below the title.
COMMANDS = {
    "run": "make run LABS=M9-LAB-01\nmake lab",
    "teach": "make slides\nmake pack",
    "family": "make checkpoints CHECKPOINTS=tiny-NAME\nmake test",
}


def write_home(stage: Stage, labs: list[Summary], deck: show.Deck, films: list[show.Film]) -> None:
    """The front page."""
    loader = FileSystemLoader(ROOT / "site" / "pages")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    strip = [slide for slide in deck.slides if slide.number in SHEETS["strip.png"][0]]
    text = environment.get_template("index.html.j2").render(
        labs=labs,
        cards=lab_cards("index.html", labs),
        deck=deck,
        strip="".join(show.slide_card("index.html", deck, slide) for slide in strip),
        films=[(film, show.player("index.html", film)) for film in films],
        families=len(FAMILIES),
        seconds=_seconds(labs[0].id),
        **{name: markdown.code(lines, "bash") for name, lines in COMMANDS.items()},
        hero=image("index.html", labs[0].picture, fetchpriority="high").replace(' loading="lazy"', ""),
    )
    stage.page("index.html", text, title="Architecture Variants and Weight Loading", hide="[navigation, toc]")


def _seconds(lab: str) -> str:
    record = json.loads((ROOT / "results" / "run.json").read_text(encoding="utf-8"))
    return next(f"{outcome['seconds']:.0f}" for outcome in record["labs"] if outcome["lab"] == lab)


def lab_cards(page: str, labs: list[Summary]) -> str:
    """All labs as cards, in order."""
    return f'<ol class="cards labs">{"".join(_card(page, lab) for lab in labs)}</ol>'


def _card(page: str, lab: Summary) -> str:
    time = plain(lab.facts["Time"]).partition(" to read")[0]
    return (
        f'<li class="card">{image(page, lab.picture)}<div><small>{stage_of(lab.id)}</small>'
        f'<strong><a href="{href(page, lab.page)}">{escape(lab.title)}</a></strong>'
        f"<span>{escape(plain(lab.facts['Objective']))}</span>"
        f'<small class="foot">{lab.id} · {escape(time)}</small></div></li>'
    )
