"""The sources say what the deck's document says, and a source that breaks a rule is refused by name."""

import json
import re
from pathlib import Path

import pytest

from slides import deck

#: The deck's own words, taken from the document this course was made from; cross-references as they were put right.
WORDS = {int(number): words for number, words in json.loads((Path(__file__).parent / "deck.json").read_text()).items()}
SOURCE = deck.CONTENT / "06-memory-efficient-loading.md"


@pytest.mark.parametrize("number", WORDS)
def test_every_word_is_the_decks(slides, number):
    slide, words = slides[number - 1], dict(WORDS[number])
    assert slide.title == words.pop("title")
    assert slide.wisdom == words.pop("Wisdom")
    if "Storyboard" in words:
        assert [stage.lower() for stage in slide.sections["Storyboard"]] == words.pop("Storyboard")
    for heading, text in words.items():
        shown = slide.sections[heading]
        assert (shown if isinstance(shown, list) else shown.strip("`")) == text


def test_there_are_thirty_in_two_hours(slides):
    assert [slide.number for slide in slides] == list(range(1, 31)) == sorted(WORDS)
    assert sum(slide.minutes for slide in slides) == 120


def test_references_lead_to_the_slide_that_treats_the_topic(slides):
    topics = {}
    for slide in slides:
        for line in slide.sections.get("Annotations", ()):
            if match := re.match(r"Related topic: (.+) in Slides? (\d+)", line):
                topics[slide.number, match[1]] = int(match[2])
    assert len(topics) == 11
    title = {slide.number: slide.title.lower() for slide in slides}
    assert "interface" in title[topics[5, "interface abstraction"]]
    assert "bridge" in title[topics[10, "practical variant run"]]
    assert "memory-efficient" in title[topics[4, "memory-efficient load"]]
    assert "decision matrix" in title[topics[8, "decision matrix"]]
    assert "runbook" in title[topics[12, "appendix runbook"]]
    assert "transition" in title[topics[9, "transition notebooks"]]
    for number in (3, 6):
        assert "mismatch" in title[next(target for (slide, _), target in topics.items() if slide == number)]


def test_every_slide_has_another_picture(slides):
    assert len({slide.figure for slide in slides}) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("12. Related", "Related"), "not part of a numbered list"),
        (lambda text: re.sub(r"12\. Related.*\n", "", text), "11 in 'Annotations', need 12"),
        (lambda text: text.replace("- Why it matters", "- Why"), "must begin with 'Why it matters: '"),
        (lambda text: re.sub(r"\nclaim: .*", "", text), "missing ['claim']"),
        (lambda text: text.replace("kind: concept", "kind: poster"), "kind 'poster' is unknown"),
        (lambda text: text.replace("kind: concept", "kind: practical"), "missing sections ['Checklist'"),
        (lambda text: re.sub(r"layout: .*", "layout: diagonal", text), "layout 'diagonal' is unknown"),
        (lambda text: text.replace("## Wisdom\n", "## Wisdom\nTwo\n"), "must be one line"),
        (lambda text: text.replace("## Wisdom", "## Moral"), "unknown section 'Moral'"),
        (lambda text: text + '\n## Wisdom\n"Twice"\n', "stands twice"),
        (lambda text: re.sub(r"(?s)## Speaker notes\n.*", "## Speaker notes\nHello.\n", text), "say it in at least 60"),
        (lambda text: text.replace("minutes: 5", "minutes: soon"), "minutes must be a positive number"),
        (lambda text: text.replace("---\n", "", 1), "must begin with front matter"),
        (lambda text: text.replace("kind: concept", "kind: [concept"), "front matter is not YAML"),
    ],
)
def test_a_broken_source_is_refused_by_name(tmp_path, change, message):
    text = SOURCE.read_text(encoding="utf-8")
    changed = change(text)
    assert changed != text
    path = tmp_path / SOURCE.name
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(deck.DeckError) as caught:
        deck.read_slide(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(SOURCE.name)


def test_the_deck_names_every_fault_at_once(tmp_path):
    for path in sorted(deck.CONTENT.glob("*.md"))[:3]:
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8").replace('"', "", 2), encoding="utf-8")
    (tmp_path / "03-again.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(deck.DeckError, match=r"03-again\.md: must begin with front matter"):
        deck.read_deck(tmp_path)


def test_minutes_must_fill_the_hours(tmp_path):
    for path in deck.CONTENT.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace("minutes: 5", "minutes: 6"), encoding="utf-8")
    with pytest.raises(deck.DeckError, match="hour 1: the slides' minutes add up to"):
        deck.read_deck(tmp_path)


def test_an_anchor_is_taken_apart():
    anchor = deck.Anchor.parse("[Hands-on Anchor: A | Asset: x/a.ipynb; y/b.py | Objective: to see | Pre-req: B]")
    assert anchor == deck.Anchor("A", ("x/a.ipynb", "y/b.py"), "to see", "B")
    with pytest.raises(deck.DeckError, match="not a hands-on anchor"):
        deck.Anchor.parse("[Hands-on Anchor: A | Objective: to see]")
