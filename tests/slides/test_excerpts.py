"""Code on slides is cut out of the package, exactly, and refused where it would not fit."""

from pathlib import Path

import pytest

from slides.deck import DeckError
from slides.excerpts import LONGEST_LINE, MOST_LINES, excerpt, highlight

ROOT = Path(__file__).parents[2]
HERE = "tests/slides/test_excerpts.py"


def example(names, limit=3):
    """A docstring that is not shown."""
    found = []
    for name in names:
        found.append(name)
    return found[:limit]


class Holder:
    """Another."""

    value: int = 1

    def method(self):
        return self.value


LONG = "x" * LONGEST_LINE


def test_a_function_without_its_docstring():
    code, places = excerpt(f"include: {HERE}#example")
    assert code.splitlines()[0] == "def example(names, limit=3):"
    assert code.splitlines()[1] == "    found = []"
    assert "docstring" not in code
    assert places == [f"{HERE}, example"]


def test_a_part_of_a_function_and_a_method():
    code, places = excerpt(
        f'include: {HERE}#example from "for name" to "found.append"\n# then\ninclude: {HERE}#Holder.method'
    )
    assert code.splitlines() == [
        "    for name in names:",
        "        found.append(name)",
        "# then",
        "def method(self):",
        "    return self.value",
    ]
    assert places == [f"{HERE}, example, Holder.method"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (f"include: {HERE}#nowhere", "has no nowhere"),
        ("include: no/such.py#name", "there is no no/such.py"),
        (f'include: {HERE}#example from "while"', "no line begins with 'while'"),
        (f"include: {HERE}", "is not of the form"),
        ("x = 1", "neither an include nor a comment"),
        ("\n".join(["#"] * (MOST_LINES + 1)), f"{MOST_LINES + 1} lines, a slide holds {MOST_LINES}"),
        ("#" * (LONGEST_LINE + 1), f"{LONGEST_LINE + 1} columns, a slide holds {LONGEST_LINE}"),
    ],
)
def test_what_cannot_be_shown_is_refused(section, message):
    with pytest.raises(DeckError) as caught:
        excerpt(section)
    assert message in str(caught.value)


def test_the_code_slides_show_the_package(slides):
    shown = [slide for slide in slides if slide.kind == "code"]
    assert [slide.number for slide in shown] == [15, 27]
    for slide in shown:
        code, places = excerpt(slide.sections["Code"])
        sources = [(ROOT / place.split(", ")[0]).read_text(encoding="utf-8") for place in places]
        for line in code.splitlines():
            assert line.strip().startswith("#") or any(line.strip() in source for source in sources)


def test_highlighting_keeps_every_character():
    import re
    from html import unescape

    code, _ = excerpt(f"include: {HERE}#example")
    assert unescape(re.sub(r"<[^>]+>", "", highlight(code))).rstrip("\n") == code
