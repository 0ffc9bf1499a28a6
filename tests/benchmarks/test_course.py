"""The course's own timing: what is compared with what, what is marked, what a run says. Nothing here takes time."""

import json
from pathlib import Path

import pytest

from benchmarks import course, course_parts
from benchmarks.course_parts import PARTS, Failed, Measured, Part, Skipped
from benchmarks.course_table import BUDGETS, Row, compare


def row(seconds, last=10.0, pace=1.0, budget=None, noise=1.0):
    return Row("a lab", seconds, last, pace, budget, noise)


@pytest.mark.parametrize(
    ("figure", "marks"),
    [
        (row(12.4), []),
        (row(12.6), ["slower"]),
        (row(12.6, last=None), []),  # nothing to compare with
        (row(25.0, pace=2.0), []),  # the machine is slower, not the course
        (row(10.0, pace=0.5), ["slower"]),  # a faster machine hides nothing
        (row(1.3, last=0.4), []),  # three times as long, and yet noise
        (row(12.0, budget=11.0), ["over budget"]),
        (row(12.0, pace=1.2, budget=11.0), []),
        (row(30.0, budget=11.0), ["slower", "over budget"]),
    ],
)
def test_what_is_marked(figure, marks):
    assert figure.marks == marks


def part(calibration, **figures):
    return {"calibration": calibration, "figures": figures, "details": {}}


def test_each_part_is_compared_at_its_own_pace():
    found = {"imports": part(0.2, a=1.0, b=2.0), "labs": part(0.4, c=3.0), "films": {"skipped": "no tools"}}
    last = {"imports": part(0.2, a=0.5), "labs": part(0.2, c=1.5), "films": part(0.2, d=9.0)}
    rows = compare(found, last, dict.fromkeys(found, 0.0))
    assert [(row.name, row.last, row.pace, row.ratio) for row in rows] == [
        ("a", 0.5, 1.0, 2.0),
        ("b", None, 1.0, None),
        ("c", 1.5, 2.0, 1.0),
    ]


def test_a_lab_and_what_is_promised_have_budgets():
    found = {"labs": part(0.2, **{"M9-LAB-01": 91.0, "all labs": 400.0})}
    assert [row.marks for row in compare(found, {}, {"labs": 0.0})] == [["over budget"], []]


def pretend(measured, noise=0.0):
    def measure(options):
        if isinstance(measured, Exception):
            raise measured
        return measured

    return Part(measure, noise)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run it on parts that only pretend; the exit status, what it showed, and the folder it wrote into."""
    monkeypatch.setattr(course, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(course, "last_committed", lambda: {"parts": {}})

    def run(parts, *arguments):
        status = course.main(list(arguments), parts=parts, calibrated=lambda: 0.25)
        return status, capsys.readouterr().out, tmp_path / "results"

    return run


def test_a_run_is_shown_and_written(run):
    parts = {
        "imports": pretend(Measured({"import torch": 1.5}, {"slow modules": {"course_helpers.x": 0.25}})),
        "films": pretend(Skipped("manim is not installed: make film-tools installs it.")),
    }
    status, shown, folder = run(parts)
    assert status == 0
    assert "| import torch | 1.5 |  |  |  |  | new |" in shown
    assert "- 0.250 s: course_helpers.x" in shown
    assert "**films: skipped.** manim is not installed" in shown
    assert (folder / "course.md").read_text() + "\n" == shown
    content = json.loads((folder / "course.json").read_text())
    assert content["parts"]["imports"]["figures"] == {"import torch": 1.5} and content["machine"]["cores"]
    for secret in (str(Path.home()), "/tmp", str(Path.cwd())):
        assert secret not in shown and secret not in json.dumps(content)


def test_what_became_slower_is_marked_and_fails_the_check_only(run, tmp_path):
    (tmp_path / "last.json").write_text(json.dumps({"parts": {"labs": part(0.25, first=4.0, second=4.0)}}))
    parts = {"labs": pretend(Measured({"first": 4.5, "second": 5.5}))}
    status, shown, _ = run(parts, "--against", str(tmp_path / "last.json"))
    assert status == 0
    assert "| first | 4.5 | 4.0 | 1.00 | 1.12 | 90 |  |" in shown
    assert "| second | 5.5 | 4.0 | 1.00 | 1.38 | 90 | **slower** |" in shown
    assert "- second: 5.5 s: slower." in shown
    assert run(parts, "--against", str(tmp_path / "last.json"), "--check")[0] == 1


def test_some_parts_are_shown_and_not_written(run, tmp_path):
    parts = {"imports": pretend(Measured({"a": 1.0})), "labs": pretend(Failed("nobody asked for it"))}
    status, shown, folder = run(parts, "--only", "imports", "--check")
    assert status == 0 and "| a | 1.0 |" in shown and "labs" not in shown.split("|---")[1] and not folder.exists()
    run(parts, "--only", "imports", "--output", str(tmp_path / "other"))
    assert json.loads((tmp_path / "other" / "course.json").read_text())["parts"].keys() == {"imports"}


def test_a_part_that_fails_is_told_fails_the_run_and_leaves_the_record_alone(run):
    parts = {"imports": pretend(Measured({"a": 1.0})), "deck": pretend(Failed("slides build: exit status 1."))}
    status, shown, folder = run(parts)
    assert status == 1 and "| a | 1.0 |" in shown and "**deck: failed.** slides build" in shown
    assert not folder.exists()


def test_what_is_committed_is_the_measure(monkeypatch, tmp_path):
    """The working tree's file counts only before the first commit of one: runs cannot creep up on each other."""
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    file = tmp_path / "benchmarks/results/course.json"
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(course, "RESULTS", file.parent)
    assert course.last_committed() == {"parts": {}}
    file.write_text('{"parts": {"labs": 1}}')
    assert course.last_committed() == {"parts": {"labs": 1}}
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        course.subprocess.run(["git", *words], cwd=tmp_path, check=True)
    file.write_text('{"parts": {"labs": 2}}')
    assert course.last_committed() == {"parts": {"labs": 1}}


LOG = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |   torch._C
import time:       300 |        400 | torch
import time:      2000 |       2000 |   course_helpers.slow
import time:        50 |         50 |     torch.fx
import time:       500 |       2550 | course_helpers
import time:      9000 |       9000 | atexit
"""


def test_modules_are_counted_from_torch_to_the_package():
    assert course_parts.own_seconds(LOG) == {"course_helpers.slow": 0.002, "course_helpers": 0.0005, "torch.fx": 5e-5}


def test_tests_are_added_up_by_folder():
    cases = [
        ("tests/test_a.py", "one", 1.0),
        ("tests/loaders/test_b.py", "two", 2.0),
        ("tests/loaders/c/d.py", "x", 4.0),
    ]
    measured = course_parts.by_folder(5.0, cases)
    assert measured.figures == {"all tests": 5.0, "tests/*.py": 1.0, "tests/loaders": 6.0}
    assert list(measured.details["slowest tests"]) == [
        "tests/loaders/c/d.py::x",
        "tests/loaders/test_b.py::two",
        "tests/test_a.py::one",
    ]


@pytest.mark.parametrize(
    ("classname", "file"),
    [
        ("tests.test_chat", "tests/test_chat.py"),
        ("tests.loaders.damage.test_damage.TestTable", "tests/loaders/damage/test_damage.py"),
    ],
)
def test_a_test_is_counted_where_its_module_lies(classname, file):
    assert course_parts.file_of(classname) == file


def test_labs_come_from_their_own_record(tmp_path):
    """The committed one, which has all labs; one that is not complete says nothing about speed."""
    record = json.loads((course_parts.ROOT / "results/run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record))
    figures = course_parts.labs_recorded(tmp_path / "run.json").figures
    assert figures.keys() == {lab["lab"] for lab in record["labs"]} | {"all labs"}
    assert figures["all labs"] == pytest.approx(sum(figures.values()) / 2, rel=1e-4)
    (tmp_path / "run.json").write_text(json.dumps(record | {"complete": False}))
    with pytest.raises(Failed, match="not of a complete run"):
        course_parts.labs_recorded(tmp_path / "run.json")


def test_a_command_that_fails_says_what_it_said():
    seconds, told = course_parts.timed("-c", "print('here')")
    assert seconds > 0 and told == "here\n"
    with pytest.raises(Failed, match=r"exit status 3.*(?s:.)*no such thing"):
        course_parts.timed("-c", "import sys\nprint('no such thing', file=sys.stderr)\nsys.exit(3)")


@pytest.mark.parametrize("name", ["deck", "films"])
def test_parts_without_their_tools_are_skipped(name, monkeypatch):
    monkeypatch.setattr(course_parts.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(Skipped, match="is not installed: make"):
        PARTS[name].measure(None)


def test_every_part_has_something_to_be_compared(monkeypatch):
    """The figure that ends up in a budget has the name that its part gives it."""
    monkeypatch.setattr(course_parts, "timed", lambda *arguments: (1.0, "2.0 0.5\n"))
    monkeypatch.setattr(course_parts, "need", lambda *words: None)
    monkeypatch.setattr(course_parts, "chromium", lambda: "chromium")
    names = [name for part in ("imports", "commands", "deck", "films") for name in PARTS[part].measure(None).figures]
    assert set(names) | {"all labs", "all tests"} == BUDGETS.keys() | {"import torch"}
