"""The deck has no fault that a browser can measure; and the checks find each kind of fault when it is put in."""

import re

import pytest

from slides import checks
from slides.deck import CONTENT

pytestmark = pytest.mark.usefixtures("chromium")
CODE = CONTENT / "15-code-bridge-a-weight-assignment.md"


def test_the_deck_has_no_fault(built, slides):
    assert [str(fault) for fault in checks.check_page(built, slides)] == []


def rules(page, slides):
    return {(fault.rule, fault.slide) for fault in checks.check_page(page, slides)}


def longer_note(text):
    return re.sub(r"(?m)^5\. .*$", "5. " + " ".join(["A note that goes on and on and says the same."] * 4), text)


def oversized_wisdom(text):
    return text.replace('## Wisdom\n"', '## Wisdom\n"' + "Wisdom is long, and longer than a box can hold. " * 9)


def longer_claim(text):
    longer = " ".join(["An assertion that does not end before the slide does"] * 5)
    return re.sub(r"(?m)^claim: .*$", f"claim: {longer}", text)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (longer_note, "overflow"),
        (oversized_wisdom, "overflow"),
        (longer_claim, "overflow"),
        (lambda text: text.replace("Naive loading", "Naïve ≥ loading"), "glyph"),
        (lambda text: text.replace("Slide 25", "Slide 52"), "link"),
    ],
)
def test_a_fault_in_the_source_is_found(edited, change, rule):
    page, changed = edited(change)
    assert (rule, 6) in rules(page, changed)


def test_too_many_lines_of_code_are_found(edited, monkeypatch):
    monkeypatch.setattr("slides.excerpts.MOST_LINES", 99)
    page, changed = edited(lambda text: text.replace("## Code\n", "## Code\n" + "# one more line\n" * 14), CODE)
    assert ("overflow", 15) in rules(page, changed)


@pytest.mark.parametrize(
    ("style", "rule"),
    [
        (".notes12 li { font-size: 15px !important; }", "small text"),
        (".kicker { color: #C9A227 !important; }", "contrast"),
        (".figure svg { transform: scale(0.5); }", "figure size"),
        (".notes12 { opacity: 0; } .corner { opacity: 0; } .wisdom { opacity: 0; } .figure { opacity: 0; }", "fill"),
        (".claim { margin-top: -52px !important; }", "overlap"),
        (".notes12 { font-family: Georgia; }", "glyph"),
        (".foot .wisdom { margin-top: -60px !important; }", "overlap"),
    ],
)
def test_a_fault_of_the_look_is_found(edited, style, rule):
    page, changed = edited(lambda text: text + "\n")
    page.write_text(page.read_text(encoding="utf-8").replace("</style>", f"{style}</style>"), encoding="utf-8")
    assert (rule, 6) in rules(page, changed)


@pytest.mark.parametrize(
    ("pattern", "replacement", "rule"),
    [
        (r'(<svg[^>]*aria-label=")[^"]*"', r'\1"', "alt"),
        (r"Smart loading avoids memory crashes", "Smart loading avoids memory", "text"),
        (r"(<text [^>]*?)x=\"[0-9.]+\"", r'\1x="1090"', "clipped"),
    ],
)
def test_a_fault_in_the_page_is_found(edited, pattern, replacement, rule):
    page, changed = edited(lambda text: text + "\n")
    html = page.read_text(encoding="utf-8")
    start = html.index('<section id="slide-06"')
    broken = re.sub(pattern, replacement, html[start:], count=1)
    assert broken != html[start:]
    page.write_text(html[:start] + broken, encoding="utf-8")
    assert (rule, 6) in rules(page, changed)


@pytest.mark.parametrize(
    ("script", "rule"),
    [
        ("fetch('https://example.org/font.woff2').catch(() => {})", "network"),
        ("console.error('lost')", "console"),
        ("setTimeout(() => { throw new Error('lost') }, 0)", "console"),
    ],
)
def test_a_page_that_asks_or_complains_is_found(edited, script, rule):
    page, changed = edited(lambda text: text + "\n")
    head, end, tail = page.read_text(encoding="utf-8").rpartition("</body>")
    page.write_text(f"{head}<script>{script}</script>{end}{tail}", encoding="utf-8")
    assert (rule, 0) in rules(page, changed)


def test_slides_out_of_order_are_found(built, slides):
    assert ("order", 0) in rules(built, [slides[1], slides[0], *slides[2:]][:2])
