"""What a lab calls: validation_checkpoint, hint and record_results."""

import json
import subprocess
import sys

import pytest

from course_helpers.labs import ExerciseHint, hint, record_results, validation_checkpoint
from course_helpers.labs.records import write_text

LIGHT_IMPORT = """
import sys, types
package = types.ModuleType("course_helpers")
package.__path__ = [sys.argv[1]]
sys.modules["course_helpers"] = package
import course_helpers.labs
print(sorted({"jupytext", "nbclient", "nbformat", "IPython", "tqdm", "torch", "numpy"} & set(sys.modules)))
"""


def test_a_passed_checkpoint_prints_one_line_without_ipython(capsys):
    validation_checkpoint("M9-LAB-01", "three paths give one model", True)
    assert capsys.readouterr().out == "VALIDATION CHECKPOINT M9-LAB-01 | three paths give one model | passed\n"


def test_a_failed_checkpoint_shows_its_line_before_it_raises_the_detail(capsys):
    with pytest.raises(AssertionError, match="largest difference 3, expected 1"):
        validation_checkpoint("M9-LAB-01", "equal", False, "largest difference 3, expected 1")
    assert capsys.readouterr().out == "VALIDATION CHECKPOINT M9-LAB-01 | equal | FAILED\n"


def test_hint_stops_at_the_first_wrong_condition():
    hint(False, "not this one")
    with pytest.raises(ExerciseHint, match="multiply") as caught:
        hint(True, "multiply, do not add")
    assert caught.value._render_traceback_() == ["Not yet: multiply, do not add"]


def test_results_are_written_only_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert record_results("M9-LAB-01", {"bytes": 3}) is None
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setenv("COURSE_RESULTS", str(tmp_path / "results"))
    path = record_results("M9-LAB-01", {"bytes": 3})
    record = json.loads(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "results" / "M9-LAB-01.json"
    assert record["lab"] == "M9-LAB-01" and record["results"] == {"bytes": 3}
    assert set(record["provenance"]) == {"date", "python", "packages", "platform", "cpu", "cores"}
    assert record["provenance"]["packages"]["torch"] and record["provenance"]["cpu"]


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "run.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half\ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_importing_the_package_in_a_lab_loads_only_the_standard_library(pytestconfig):
    package = str(pytestconfig.rootpath / "course_helpers")
    command = [sys.executable, "-c", LIGHT_IMPORT, package]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
