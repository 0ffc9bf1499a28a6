"""The page, as a presenter uses it: keys, notes, links, films."""

import pytest

from slides.browser import address, open_page, show

pytestmark = pytest.mark.usefixtures("chromium")


@pytest.fixture(scope="module")
def page(built):
    with open_page(address(built, "")) as opened:
        yield opened


def place(page):
    return page.evaluate("Reveal.getCurrentSlide().id")


def test_keys_lead_through_the_deck(page):
    show(page, 1)
    page.keyboard.press("ArrowRight")
    assert place(page) == "slide-02"
    page.keyboard.press("End")
    assert place(page) == "slide-30"
    page.keyboard.press("Home")
    assert place(page) == "slide-01"


def test_a_reference_is_a_link(page):
    show(page, 5)
    page.click("#slide-05 a[href='#/slide-08']")
    page.wait_for_function("Reveal.getCurrentSlide().id === 'slide-08'")


def test_the_speaker_sees_the_notes(page, slides):
    show(page, 6)
    with page.context.expect_page() as opened:
        page.keyboard.press("s")
    speaker = opened.value
    speaker.wait_for_function(
        "document.querySelector('.speaker-controls-notes')?.innerText.includes('Ask.')", timeout=20000
    )
    said = speaker.inner_text(".speaker-controls-notes")
    assert slides[5].notes.split("**Say.**")[1].split()[0] in said
    assert speaker.is_visible(".speaker-controls-time")
    speaker.close()


def test_every_slide_has_its_minutes_for_the_timer(page, slides):
    timing = page.evaluate(
        "[...document.querySelectorAll('.slides > section')].map(section => Number(section.dataset.timing))"
    )
    assert timing == [round(slide.minutes * 60) for slide in slides]


PLAYS = "([film, after]) => !document.querySelector(film).paused && document.querySelector(film).currentTime > after"
PAUSED = "film => document.querySelector(film).paused"
AT_ITS_BEGINNING = "film => document.querySelector(film).currentTime === 0"
LIT = (
    "slide => [...document.querySelectorAll(`#${slide} .storyboard li`)].findIndex(li => li.classList.contains('now'))"
)


@pytest.mark.parametrize("number", [7, 19])
def test_a_film_is_stepped_through_and_stops_at_the_end_of_a_section(page, number):
    show(page, number)
    selector = f"#slide-{number:02d} video"
    film = page.locator(selector)
    sections = film.evaluate("film => JSON.parse(film.dataset.sections)")
    assert len(sections) >= 5
    assert film.evaluate("film => film.poster.startsWith('data:image/png')")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(PLAYS, arg=[selector, sections[0]["start"] + 0.3])
    assert film.evaluate("film => film.videoWidth") >= 854
    assert film.evaluate("film => film.error") is None
    film.evaluate("(film, end) => { film.currentTime = end - 0.4; }", sections[0]["end"])
    page.wait_for_function(PAUSED, arg=selector)
    assert abs(film.evaluate("film => film.currentTime") - sections[0]["end"]) < 0.5
    assert place(page) == f"slide-{number:02d}"
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(AT_ITS_BEGINNING, arg=selector)


@pytest.mark.parametrize("number", [7, 19])
def test_the_storyboards_stages_light_up_with_the_film(page, number):
    show(page, number)
    slide = f"slide-{number:02d}"
    film = page.locator(f"#{slide} video")
    sections = film.evaluate("film => JSON.parse(film.dataset.sections)")
    # A section begins with the stage that was lit before; where it lights another at once, that one counts.
    changes = list({start: stage for section in sections for start, stage in section["stages"]}.items())
    stages = page.locator(f"#{slide} .storyboard li").count()
    assert set(range(stages)) <= {stage for _, stage in changes}
    for start, stage in changes:
        if [later for later, _ in changes if start < later <= start + 0.2]:
            continue
        film.evaluate("(film, time) => { film.pause(); film.currentTime = time; }", start + 0.1)
        expected = stage if stage < stages else -1
        page.wait_for_function(f"([slide, stage]) => ({LIT})(slide) === stage", arg=[slide, expected])
