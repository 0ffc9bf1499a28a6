"""The matrix of old and new libraries: cases ask for what requirements.txt promises, the table tells what ran."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
tool = SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "compatibility.py")))
ROWS = json.loads((ROOT / "benchmarks" / "results" / "compatibility.json").read_text(encoding="utf-8"))
NEEDS = {canonicalize_name(need.name): need for need in tool.needs()}


def test_a_case_is_every_lower_bound_or_every_pin_or_nothing_but_what_is_kept():
    pinned, oldest = tool.constraints("pinned"), tool.constraints("oldest")
    assert pinned.keys() == oldest.keys() == NEEDS.keys()
    assert oldest == {name: tool.lower_bound(need) for name, need in NEEDS.items()}
    assert all(Version(oldest[name]) <= Version(pinned[name]) for name in NEEDS) and oldest != pinned
    assert tool.constraints("newest") == {}
    assert tool.constraints("oldest", ["torch"]) == oldest | {"torch": pinned["torch"]}


def test_what_is_pinned_is_allowed():
    pinned = tool.constraints("pinned")
    assert all(NEEDS[name].specifier.contains(version) for name, version in pinned.items())


def test_continuous_integration_runs_every_case():
    weekly = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8"))
    assert set(weekly["jobs"]["versions"]["strategy"]["matrix"]["case"]) == set(tool.CASES) - {"pinned"}


def test_the_page_is_the_table_of_the_results():
    page = (ROOT / "benchmarks" / "results" / "compatibility.md").read_text(encoding="utf-8")
    assert page == tool.table(ROWS) and all(tool.holds(row) for row in ROWS)


def test_the_oldest_case_has_run():
    assert "oldest" in {row["case"] for row in ROWS}


@pytest.mark.parametrize("row", [row for row in ROWS if row["case"].startswith("oldest")], ids=lambda row: row["case"])
def test_the_bounds_that_were_run_are_those_that_requirements_promise(row):
    asked = tool.constraints(row["case"], row["keep"])
    for name, version in row["versions"].items():
        if name in asked and name not in row["keep"]:
            assert Version(version) == Version(asked[name]), name


def row(**changes):
    versions = dict.fromkeys(tool.SHOWN, "1.0") | {"torch": "2.13.0"}
    usual = {"case": "oldest", "python": "3.11.7", "keep": [], "versions": versions, "refused": ""}
    return usual | {"passed": 2, "failed": 0, "skipped": 0, "seconds": 1} | changes


@pytest.mark.parametrize(
    ("changes", "cell", "good"),
    [
        ({}, "| 2 passed |", True),
        ({"skipped": 1}, "| 2 passed, 1 skipped |", True),
        ({"failed": 1}, "| **1 of 3 failed** |", False),
        ({"passed": 0}, "| **0 of 0 failed** |", False),
        ({"refused": "Cannot install x", "versions": {}}, "| **Cannot install x** |", False),
    ],
)
def test_a_row_says_whether_it_holds(changes, cell, good):
    assert cell in tool.table([row(**changes)]) and tool.holds(row(**changes)) is good


def test_a_new_row_takes_the_place_of_its_case_and_python_only():
    rows = []
    for new in (row(case="newest"), row(), row(python="3.13.0"), row(python="3.11.2", passed=7)):
        rows = tool.merged(rows, new)
    assert [(each["case"], each["python"]) for each in rows] == [
        ("oldest", "3.11.2"),
        ("oldest", "3.13.0"),
        ("newest", "3.11.7"),
    ]
    assert rows[0]["passed"] == 7


def test_the_page_says_what_was_kept_and_what_never_ran():
    kept = str(tool.pinned()["torch"])
    versions = row()["versions"] | {"torch": f"{kept}+cpu"}
    page = tool.table([row(keep=["torch"], versions=versions)])
    assert f"In `oldest`, torch was kept at {kept}+cpu in place of 2.6." in page
    others = [row(case=case, keep=["torch"], versions=versions) for case in ("newest", "pinned")]
    assert "In `newest`, torch was kept at" in tool.table(others) and "In `pinned`" not in tool.table(others)
    assert "Not run yet: `pinned`, `newest`." in page
    assert "was kept" not in tool.table([row()])


def test_failing_tests_are_counted_and_end_in_a_status_of_one(tmp_path):
    """With this very environment in place of one that pip fills."""
    tests = tmp_path / "test_x.py"
    tests.write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n@pytest.mark.skip\ndef test_c(): pass\n"
    )
    counts = tool.run_tests(Path(sys.executable), tmp_path / "report.xml", [str(tests)])
    assert counts == {"passed": 1, "failed": 1, "skipped": 1}
    nothing = tool.run_tests(Path(sys.executable), tmp_path / "none.xml", [str(tmp_path / "test_missing.py")])
    assert not tool.holds(row(**nothing))


def test_a_case_that_does_not_exist_is_refused():
    command = [sys.executable, str(ROOT / "tools" / "compatibility.py"), "newst"]
    outcome = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert outcome.returncode == 2 and "no such case: newst. Choose from pinned, oldest" in outcome.stderr
