"""Pages into a site: everything is written beside the old site, which is exchanged only for a whole new one."""

import logging
import os
import tempfile
from pathlib import Path

from mkdocs.commands.build import build as build_site
from mkdocs.config import load_config
from mkdocs.plugins import BasePlugin

from course_helpers.labs.order import find_labs

from . import documents, home, look, notebooks, reference, show
from .stage import ROOT, Stage

CONFIG = ROOT / "site" / "mkdocs.yml"
OUTPUT = ROOT / "site" / "build"
Entries = dict[str, dict[str, str]]  # part of the navigation -> title -> page


def build(output: Path = OUTPUT, pictures: bool = True) -> list[str]:
    """Build the site; `pictures` also takes one of each slide. Returns what documents link to and is not there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(suffix=".tmp", dir=output.parent) as folder:
        pages, made = Path(folder) / "pages", Path(folder) / "made"
        pages.mkdir()
        stage, entries = write_pages(pages, pictures)
        _mkdocs(pages, made, stage, entries)
        _exchange(made, output)
    return stage.missing


def write_pages(folder: Path, pictures: bool) -> tuple[Stage, Entries]:
    """Everything that MkDocs reads; also what the navigation gets, name to page, below Labs and Results."""
    labs = find_labs(ROOT / "notebooks")
    stage = Stage(folder, labs={lab.source.stem: lab.id for lab in labs})
    look.write_look(stage)
    summaries = [notebooks.write_lab(stage, lab) for lab in labs]
    deck = show.write_deck(stage, pictures)
    films = show.write_films(stage, deck.slides)
    home.write_home(stage, summaries, deck, films)
    documents.write_labs_index(stage, home.lab_cards("labs/index.html", summaries))
    measured = documents.write_documents(stage)
    documents.write_run(stage, summaries, measured)
    documents.write_plans(stage, deck.slides)
    reference.write_reference(stage)
    documents.write_sources(stage)
    return stage, {"Labs": {_short(lab): lab.page for lab in summaries}, "Results": measured}


def _short(lab: notebooks.Summary) -> str:
    return f"{lab.id.removeprefix('M9-')} · {lab.title}"


def _mkdocs(pages: Path, made: Path, stage: Stage, entries: Entries) -> None:
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    config = load_config(str(CONFIG), docs_dir=str(pages), site_dir=str(made))
    for entry in config.nav:
        for part in entries.keys() & entry.keys():
            entry[part] += [{title: page.replace(".html", ".md")} for title, page in entries[part].items()]
    config.plugins["whole"] = _Whole(stage)
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build_site(config)
    finally:
        config.plugins.on_shutdown()


class _Whole(BasePlugin):
    """Puts back what was kept aside, before the search reads the page."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.stage = stage

    def on_page_content(self, html: str, **_: object) -> str:
        return self.stage.whole(html)


def _exchange(made: Path, output: Path) -> None:
    old = made.with_name("old")
    if output.exists():
        os.replace(output, old)
    os.replace(made, output)
