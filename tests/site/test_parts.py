"""The parts that the site is made of, without building it."""

import re

import pytest

import course_helpers
from tools.site import build, markdown, reference, show
from tools.site.stage import ROOT, Stage, href


def test_the_reference_has_every_public_name_once():
    names = [name for group in reference.GROUPS.values() for name in group]
    assert sorted(names) == sorted(course_helpers.__all__)


@pytest.mark.parametrize("name", course_helpers.__all__)
def test_a_docstring_has_no_star_that_would_be_read_as_emphasis(name):
    documented = {"FAMILIES": course_helpers.families.Family}.get(name, getattr(course_helpers, name))
    said = documented.__doc__
    assert said and "*" not in re.sub(r"`[^`]+`", "", said)


def test_names_of_labs_and_short_commands_stay_on_one_line():
    text = markdown.html("| M9-LAB-APP-A | `make run LABS=M9-LAB-01` |\n|---|---|\n| `a & b` | " + f"`{'x' * 40}` |")
    assert '<span class="unbroken">M9-LAB-APP-A</span>' in text
    assert '<code class="unbroken">make run LABS=M9-LAB-01</code>' in text and "a &amp; b" in text
    assert f"<code>{'x' * 40}</code>" in text


def test_a_list_needs_no_empty_line_before_it_and_headings_stay():
    text = markdown.page_text("## One\nwords\n- first\n- second\n\n### Two\nmore")
    assert "## One\n\n<!--raw--><div>" in text and "\n\n### Two\n\n" in text
    assert "<li>first</li>" in text


def test_the_parts_of_a_long_lab_stand_beside_its_sections():
    assert markdown.page_text("# Lab").startswith("# Lab\n")
    assert markdown.page_text("# Part 2\n\n## 8 · Next", title=False) == "## Part 2 {.part}\n\n## 8 · Next\n"


def test_formulas_need_no_script():
    text = markdown.html(r"the loss is $\ln V$, and it costs 5$ or 6$")
    assert text.count("<math") == 1 and "<mi>ln</mi>" in text and "5$ or 6$" in text


def test_code_is_coloured_and_cannot_end_its_block():
    text = markdown.code("x = '</code><b>'")
    assert "<b>" not in text and 'class="highlight"' in text


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path, labs={"M9-LAB-01-alternative-weight-loading": "M9-LAB-01"})


def test_links_of_documents_lead_into_the_site(stage):
    def led(page, document, target):
        return stage.link(page, document, target)

    assert led("readme.html", "README.md", "runbook.md#the-steps") == "runbook.html#the-steps"
    assert (
        led("readme.html", "README.md", "notebooks/M9-LAB-01-alternative-weight-loading.ipynb") == "labs/m9-lab-01.html"
    )
    assert (
        led("present.html", "slides/README.md", "../course_helpers/palette.py")
        == "source/course_helpers/palette.py.html"
    )
    assert led("readme.html", "README.md", "https://pytorch.org") == "https://pytorch.org"
    assert stage.linked == ["course_helpers/palette.py"] and stage.missing == []
    assert led("readme.html", "README.md", ".ci/run") == "source/ci/run.html", (
        "MkDocs leaves out what begins with a dot"
    )


def test_a_dead_link_becomes_words_and_is_reported(stage):
    text = markdown.html(
        "[gone](no/such.md) and ![also](no.png)", lambda target: stage.link("a.html", "README.md", target)
    )
    assert "href" not in text and "<img" not in text and "gone" in text and "also" in text
    assert stage.missing == ["README.md: no/such.md", "README.md: no.png"]
    assert stage.link("a.html", "README.md", "../../etc/passwd") is None


def test_ways_between_pages():
    assert href("labs/a.html", "results/b.html") == "../results/b.html"
    assert href("index.html", "labs/a.html") == "labs/a.html"


def test_a_build_that_fails_leaves_the_old_site(tmp_path, monkeypatch):
    output = tmp_path / "build"
    output.mkdir()
    (output / "index.html").write_text("old")

    def broken(*_):
        raise RuntimeError("no disk")

    monkeypatch.setattr(build, "write_pages", broken)
    with pytest.raises(RuntimeError, match="no disk"):
        build.build(output)
    assert (output / "index.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_the_deck_is_linked_if_it_can_be_built_and_else_the_page_says_why(tmp_path, monkeypatch):
    def no_film(_):
        raise FileNotFoundError("no film. Next step: make animations")

    monkeypatch.setattr(show.page, "build_page", no_film)
    without = show.write_deck(Stage(tmp_path), pictures=False)
    text = (tmp_path / "deck.md").read_text(encoding="utf-8")
    assert without.page is None and "Next step: make animations" in text and show.DECK not in text
    monkeypatch.setattr(show.page, "build_page", lambda slides: f"<html>{len(slides)}</html>")
    show.write_deck(Stage(tmp_path), pictures=False)
    text = (tmp_path / "deck.md").read_text(encoding="utf-8")
    assert (tmp_path / show.DECK).read_text(encoding="utf-8") == "<html>30</html>"
    assert all(f'href="{show.DECK}#/slide-{number:02d}"' in text for number in range(1, 31))


def test_documents_link_only_to_what_is_there_or_is_built(tmp_path):
    """Previews come with the deck and the films; everything else that a document links to must exist."""
    from tools.site import documents

    stage = Stage(tmp_path, labs={path.stem: path.stem for path in (ROOT / "notebooks").glob("*.py")})
    documents.write_documents(stage)
    documents.write_sources(stage)
    assert [link for link in stage.missing if "previews/" not in link] == []
