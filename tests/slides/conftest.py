"""The deck, built once for all of its tests."""

from pathlib import Path

import pytest

from slides import deck, drafts, page

MEMORY = Path(__file__).parents[2] / "slides" / "content" / "06-memory-efficient-loading.md"


@pytest.fixture(scope="session")
def slides():
    return deck.read_deck()


@pytest.fixture(scope="session")
def built(slides, tmp_path_factory):
    """The page of all slides, as a file."""
    target = tmp_path_factory.mktemp("deck") / "module9.html"
    target.write_text(page.build_page(slides), encoding="utf-8")
    return target


@pytest.fixture
def edited(tmp_path):
    """Builds a page of one slide whose source was changed; returns the page and the slide."""

    def build(change, source=MEMORY):
        folder = tmp_path / "content"
        folder.mkdir()
        text = source.read_text(encoding="utf-8")
        changed = change(text)
        assert changed != text
        (folder / source.name).write_text(changed, encoding="utf-8")
        changed_slides = drafts.read_drafts([int(source.name[:2])], folder)
        target = tmp_path / "page.html"
        target.write_text(page.build_page(changed_slides), encoding="utf-8")
        return target, changed_slides

    return build
