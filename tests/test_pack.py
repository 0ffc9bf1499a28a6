"""The instructor's pack: what is in it, that it is written whole, and that a room without a network can be prepared."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from course_helpers.labs.order import find_labs
from slides.deck import read_deck
from tools import offline, pack, paper, teaching

ROOT = Path(__file__).resolve().parents[1]
LABS = find_labs()


@pytest.fixture
def small(monkeypatch):
    """A pack of the quick parts."""
    monkeypatch.setattr(pack, "add_offline", lambda made: made.write("offline/wheels.txt", "six==1.17.0\n"))
    monkeypatch.setattr(pack, "add_plans", lambda made: made.write("timing-plan.html", "plan"))
    monkeypatch.setattr(pack, "add_films", lambda made: None)


def test_learners_get_no_solutions_and_instructors_do(small, tmp_path):
    pack.build(tmp_path / "class")
    for lab in LABS:
        learner = json.loads((tmp_path / "class" / "learners" / lab.notebook.name).read_text(encoding="utf-8"))
        assert not any("solution" in cell["metadata"].get("tags", []) for cell in learner["cells"])
        assert not any(cell.get("outputs") for cell in learner["cells"])
        solution = tmp_path / "class" / "solutions" / lab.notebook.name
        assert solution.read_bytes() == lab.notebook.read_bytes()


def test_what_is_not_built_is_named_with_its_command(small, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "DECK", ("no-such-deck.html",))
    assert pack.main([str(tmp_path / "class")]) == 1
    start = (tmp_path / "class" / pack.START).read_text(encoding="utf-8")
    assert "deck/no-such-deck.html. Next step: make slides" in start
    assert '<a href="timing-plan.html">' in start
    assert 'href="deck/module9.html"' not in start, "a page that is not there is not linked"
    monkeypatch.setattr(pack, "DECK", ())
    assert pack.main([str(tmp_path / "class")]) == 0
    assert "Next step: make slides" not in (tmp_path / "class" / pack.START).read_text(encoding="utf-8")


def test_films_come_with_their_transcripts_and_a_preview_is_called_one(tmp_path, monkeypatch):
    monkeypatch.setattr(pack.films, "BUILD", tmp_path / "nothing")
    made = pack.Pack(tmp_path / "class")
    pack.add_films(made)
    assert made.missing == [] and sum(place.endswith("-transcript.md") for place in made.files) == 2
    assert len(made.notes) == 2 and all("make animations" in note for note in made.notes)
    assert "preview of 720p" in pack._start(made)


def test_pages_link_to_what_lies_beside_them_and_to_nothing_else():
    text = (ROOT / "runbook.md").read_text(encoding="utf-8")
    made = paper.page(text, "runbook.md", pack.PAGES)
    assert made.startswith("<!DOCTYPE html>") and "<title>Runbook" in made
    led = set(re.findall(r'href="([^"]+)"', made))
    assert "how-to-present.html" in led and all(f'id="{link[1:]}"' in made for link in led if link.startswith("#"))
    assert {link for link in led if "://" not in link and link[0] != "#"} <= set(pack.PAGES.values())
    assert "the table of silent faults" in made, "the words of a link stay"


def test_a_page_of_many_sections_lists_them():
    sections = "".join(f"## S{number}\n\nwords\n\n" for number in range(paper.CONTENTS_FROM))
    made = paper.page(f"# T\n\n{sections}")
    assert made.count('href="#section-') == made.count('id="section-') == paper.CONTENTS_FROM
    assert "<nav>" not in paper.page("# T\n\n## S\n\nwords\n")


@pytest.mark.parametrize(
    ("paragraph", "kept"),
    [
        ("It is square. So it loads, and writes:", "It is square."),
        (
            "**No error, only worse text**: so keep 1.5 of it. Four places do:",
            "**No error, only worse text**: so keep 1.5 of it.",
        ),
        ("The answer is two.", "The answer is two."),
        ("Here is how:", ""),
    ],
)
def test_an_answer_does_not_lead_on_to_what_it_does_not_hold(paragraph, kept):
    assert teaching._without_lead_in(paragraph, True) == kept
    assert teaching._without_lead_in(paragraph, False) == (kept or paragraph)


def test_an_interrupted_pack_leaves_the_old_one_and_goes_on(small, tmp_path, monkeypatch):
    target, part = tmp_path / "class", tmp_path / ".class.part"
    pack.build(target)
    before = (target / pack.LIST).read_text(encoding="utf-8")

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(pack, "add_plans", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack.build(target)
    assert (target / pack.LIST).read_text(encoding="utf-8") == before
    kept = part / "solutions" / LABS[0].notebook.name
    number = kept.stat().st_ino  # a file that is written again is another file
    (part / "left-over.txt").write_text("of another version")
    pack.build(target)
    assert (target / "solutions" / LABS[0].notebook.name).stat().st_ino == number
    assert not part.exists() and not (target / "left-over.txt").exists()


def test_a_folder_that_is_no_pack_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert pack.main([str(tmp_path)]) == 1
    assert "not a pack" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_timing_plan_fills_two_hours_and_has_every_lab():
    plan = teaching.timing_plan()
    assert [line for line in plan.splitlines() if line.startswith("| 1:00 | | end of hour")]
    assert plan.count("| 1:00 | | end of hour") == 2
    assert all(f"| {lab.id} |" in plan for lab in LABS)
    seconds = json.loads((ROOT / "results" / "run.json").read_text(encoding="utf-8"))["labs"][0]["seconds"]
    assert f"| M9-LAB-01 | {seconds:.0f} s |" in plan
    shown = [slide for slide in read_deck() if "**Show.**" in slide.notes]
    assert shown and sum(teaching._show(slide) in plan for slide in shown) == len(shown)


def test_every_slide_asks_something_and_has_the_answer():
    asked = list(teaching.slide_questions(read_deck()))
    assert [question.where for question in asked] == [f"Slide {number}" for number in range(1, 31)]
    assert all(question.text.endswith("?") and len(question.answer) > 10 for question in asked)


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_every_exercise_and_prediction_of_a_lab_is_asked_once(lab):
    asked = list(teaching.lab_questions(lab))
    source = lab.source.read_text(encoding="utf-8")
    exercises = [question for question in asked if question.where.startswith("Exercise")]
    assert len(exercises) == source.count('tags=["exercise"]') >= 3
    assert all("NotImplementedError" in question.text for question in exercises)
    assert all(question.answer.startswith("```python") for question in exercises)
    assert all("NotImplementedError" not in question.answer for question in exercises)
    # One prediction of one lab is answered by a later section only.
    assert len(asked) - len(exercises) >= source.count(teaching.PREDICT) - 1
    assert all(question.text and question.answer for question in asked)


def test_the_list_of_packages_is_pinned_and_complete():
    listed = dict(pin.split("==") for pin in pack.wheels())
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert all(f"{name}=={version}" in constraints for name, version in listed.items())
    assert {"torch", "transformers", "jupyterlab", "setuptools", "MarkupSafe", "isoduration"} <= set(listed)
    assert "manim" not in listed and "mkdocs" not in listed
    for name in ("torch", "jupyterlab", "jsonschema"):
        needs = [re.match(r"[\w.-]+", line)[0] for line in metadata.requires(name) if ";" not in line]
        assert {pack.canonicalize_name(need) for need in needs} <= {pack.canonicalize_name(pin) for pin in listed}


def test_missing_packages_are_found_however_files_write_their_names(tmp_path, capsys):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels.txt").write_text(
        "# For a machine\ntorch==2.13.0\npython-pptx==1.0.2\nPyYAML==6.0.3\nsix==1.17.0\n"
    )
    for name in ("torch-2.13.0+cpu-cp311-none-any.whl", "python_pptx-1.0.2-py3-none-any.whl", "pyyaml-6.0.3.tar.gz"):
        (tmp_path / "wheels" / name).touch()
    assert offline.main(["check"], tmp_path) == 1
    assert capsys.readouterr().err.startswith("missing: six==1.17.0\n")
    assert offline.main(["install", str(tmp_path)], tmp_path) == 1, "nothing is installed from half a list"


def test_a_download_is_checked_and_goes_on(tmp_path):
    """The real thing, with one package of a few kilobytes; skipped where no package index can be reached."""
    (tmp_path / "wheels.txt").write_text("iniconfig==2.3.1\n")
    script = tmp_path / "offline.py"
    script.write_bytes((ROOT / "tools" / "offline.py").read_bytes())
    ran = subprocess.run([sys.executable, script, "download"], capture_output=True, text=True, check=False)
    if ran.returncode and re.search(r"No matching distribution|connection|Network", ran.stderr + ran.stdout):
        pytest.skip("no package index can be reached")
    assert ran.returncode == 0, ran.stderr
    wheel = tmp_path / "wheels" / "iniconfig-2.3.1-py3-none-any.whl"
    number = wheel.stat().st_ino
    assert subprocess.run([sys.executable, script, "download"], capture_output=True, check=False).returncode == 0
    assert wheel.stat().st_ino == number
