"""The built site: every link and anchor, every figure and checkpoint of the labs, and how it behaves in a browser."""

import functools
import http.server
import json
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from course_helpers.labs.order import find_labs
from course_helpers.palette import contrast

LABS = find_labs()
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1366, "height": 900}
#: One page of every kind, for what takes long; the other pages come from the same parts.
KINDS = ("index", "labs/index", "labs/m9-lab-06", "deck", "films", "runbook", "results/index", "reference/index")


class Links(HTMLParser):
    """What a page links to, loads and can be linked at, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.loaded, self.ids, self.pictures, self.checkpoints, self.titles = [], [], set(), [], 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "a" and found.get("href"):
            self.targets.append(found["href"])
        if tag in ("script", "img", "video", "track", "iframe", "source") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.loaded.append(found["href"])
        if tag == "img":
            self.pictures.append(found)
        self.titles += tag == "h1"
        self.checkpoints += "checkpoint" in (found.get("class") or "").split()


@pytest.fixture(scope="module")
def pages(site):
    """Every page that links can lead to, taken apart; the error page's paths depend on where it is published."""
    found = [path for path in site.rglob("*.html") if path.name != "404.html" and path.name != "module9.html"]
    return {path: Links(path.read_text(encoding="utf-8")) for path in found}


def test_no_link_and_no_anchor_is_broken(site, pages):
    broken = []
    for path, page in pages.items():
        for target in page.targets + page.loaded:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            leads = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if leads.is_dir():
                leads /= "index.html"
            anchors = pages[leads].ids | {""} if leads in pages else None
            if not leads.is_file() or (anchors and unquote(parts.fragment) not in anchors):
                broken.append(f"{path.relative_to(site)}: {target}")
    assert broken == []


def test_nothing_is_loaded_from_a_network(pages):
    assert [
        source for page in pages.values() for source in page.loaded if urlsplit(source).scheme not in ("", "data")
    ] == []


def test_every_picture_is_described(pages):
    silent = [(str(path), image) for path, page in pages.items() for image in page.pictures if not image.get("alt")]
    assert silent == []


def test_every_page_has_one_title_and_a_lab_lists_all_its_sections(site, pages, window):
    assert {str(path) for path, page in pages.items() if page.titles != 1} == set()
    for lab in LABS:
        source = lab.source.read_text(encoding="utf-8")
        sections = re.findall(r"^# ##? (\d+) · ", source, re.MULTILINE)
        window.goto((site / "labs" / f"{lab.id.lower()}.html").as_uri())
        listed = window.eval_on_selector_all(".md-sidebar--secondary a", "all => all.map(a => a.textContent.trim())")
        assert [entry.partition(" ")[0] for entry in listed if entry[0].isdigit()] == sections, lab.id


def test_a_formula_in_a_sentence_stays_in_it(site, window):
    window.goto((site / "labs" / "m9-lab-app-a.html").as_uri())
    style = "all => all.map(e => [getComputedStyle(e).float, e.getBoundingClientRect().width < 100])"
    assert window.eval_on_selector_all(".math.inline", style)[0] == ["none", True]


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_a_lab_keeps_every_figure_and_checkpoint(pages, site, lab):
    notebook = json.loads(lab.notebook.read_text(encoding="utf-8"))
    shown = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    page = pages[site / "labs" / f"{lab.id.lower()}.html"]
    assert len(page.pictures) == sum("image/png" in data for data in shown)
    assert page.checkpoints == sum("application/vnd.course.checkpoint+json" in data for data in shown)


def test_every_page_is_quiet_and_fits_a_phone(site, pages, window):
    """No request to a network, no complaint on the console, nothing wider than the screen but what scrolls alone."""
    wide = []
    for path in sorted(pages):
        if "source" in path.relative_to(site).parts[:1] and path.name != "families.py.html":
            continue
        window.set_viewport_size(PHONE)
        window.goto(path.as_uri())
        if window.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            wide.append(str(path.relative_to(site)))
    assert wide == []
    assert (window.course_requests, window.course_messages) == ([], [])


@pytest.mark.parametrize("kind", KINDS)
def test_text_can_be_read(site, window, kind):
    window.set_viewport_size(DESKTOP)
    window.goto((site / f"{kind}.html").as_uri())
    found = window.evaluate(CONTRAST)
    assert len(found) > 20
    pale = [text for text in found if contrast(text["colour"], text["behind"]) < (3 if text["large"] else 4.5)]
    assert pale == []


def test_films_play_where_they_are_rendered(site, window):
    window.goto((site / "films.html").as_uri())
    players = window.query_selector_all("video.film")
    assert len(players) + window.locator(".absent", has_text="make animations").count() == 2
    for player in players:
        player.evaluate("async video => { video.muted = true; await video.play(); }")
        window.wait_for_function("video => video.currentTime > 0.2 && video.videoWidth > 0", arg=player)
        assert player.evaluate("video => video.textTracks.length") == 1


def search(window, words):
    """Type into the search as a person does; the addresses of what is found."""
    window.set_viewport_size(DESKTOP)
    window.click("label.md-search__icon, .md-search__input")
    window.keyboard.type(words)
    window.wait_for_selector(".md-search-result__link")
    return window.eval_on_selector_all(".md-search-result__link", "links => links.map(link => link.href)")


def test_search_finds_a_lab_in_a_page_opened_from_a_folder(site, window):
    window.goto((site / "index.html").as_uri())
    assert any("labs/m9-lab-05" in link for link in search(window, "sliding window"))
    window.click(".md-search-result__link")
    assert "sliding" in window.inner_text("article").lower()


def test_search_finds_a_lab_on_a_server(site, window):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with window.context.browser.new_context(viewport=DESKTOP) as context:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            assert any("labs/m9-lab-05" in link for link in search(page, "sliding window"))
        server.shutdown()


def focused(window, presses):
    """Where the Tab key leads: the addresses and labels of what has the focus, as long as it can be seen."""
    seen = []
    for _ in range(presses):
        window.keyboard.press("Tab")
        seen.append(
            window.evaluate(
                "() => { const e = document.activeElement, b = e.getBoundingClientRect();"
                "return e.checkVisibility({ visibilityProperty: true }) && b.right > 0 && b.left < innerWidth"
                " ? e.getAttribute('href') || e.getAttribute('aria-label') || e.id || e.tagName : 'unseen' }"
            )
        )
    return seen


def test_the_keyboard_reaches_every_part_of_the_front_page(site, window, pages):
    window.set_viewport_size(DESKTOP)
    window.goto((site / "index.html").as_uri())
    targets = set(pages[site / "index.html"].targets) - {"."}
    hidden = set(
        window.eval_on_selector_all(
            "a", "all => all.filter(a => !a.checkVisibility()).map(a => a.getAttribute('href'))"
        )
    )
    seen = focused(window, 120)
    assert seen[0].startswith("#"), "the first stop skips the navigation"
    assert "unseen" not in seen
    assert targets - hidden - set(seen) == set()


def test_the_keyboard_opens_the_navigation_on_a_narrow_screen(site, window):
    window.set_viewport_size(PHONE)
    window.goto((site / "deck.html").as_uri())
    seen = focused(window, 2)
    assert seen[-1] == "Navigation"
    window.keyboard.press("Enter")
    window.wait_for_selector(".md-sidebar--primary a:visible")
    assert window.is_checked("#__drawer")
