"""``run``: every lab is executed, whatever fails before it, and the table and the exit status tell the truth."""

import json

import pytest

from course_helpers.labs.__main__ import main

RECORDS = """
# %%
import os

from course_helpers.labs import record_results

record_results("M9-LAB-01", {"offline": os.environ["HF_HUB_OFFLINE"], "threads": os.environ["OMP_NUM_THREADS"]})
"""


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    for variable in ("COURSE_CHECKPOINTS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)

    def start(*labs):
        status = main(["run", "--notebooks", str(tmp_path / "notebooks"), *labs])
        return status, capsys.readouterr(), json.loads((tmp_path / "results" / "run.json").read_text())

    return start


def test_a_passing_lab_is_tabled_recorded_and_not_written_back(run, write_lab, tmp_path):
    lab = write_lab("M9-LAB-01", RECORDS)
    status, captured, record = run()
    assert status == 0
    assert captured.out.splitlines()[0].split() == ["lab", "validation", "checkpoint", "result", "seconds"]
    assert captured.out.splitlines()[2].startswith("M9-LAB-01  one and one            passed  ")
    assert captured.out.endswith("all passed\n") and "M9-LAB-01" in captured.err
    assert not lab.notebook.exists()
    assert record["ok"] and record["complete"] and record["provenance"]["packages"]["torch"]
    (lab_record,) = record["labs"]
    assert [c["name"] for c in lab_record["checkpoints"]] == ["one and one"] and lab_record["seconds"] > 0
    measured = json.loads((tmp_path / "results" / "M9-LAB-01.json").read_text())
    assert measured["results"] == {"offline": "1", "threads": "1"}


def test_failures_of_every_kind_are_told_and_stop_nothing(run, write_lab):
    write_lab("M9-LAB-01", answer=3)
    write_lab("M9-LAB-02", "\n# %%\n1 / 0\n\n# %%\nprint('not reached')\n", answer=None)
    write_lab("M9-LAB-03", "\n# %%\nprint('nothing checked')\n", answer=None)
    status, captured, record = run()
    rows = captured.out.splitlines()[2:5]
    assert status == 1 and not record["ok"]
    assert rows[0].startswith("M9-LAB-01  one and one ") and " FAILED " in rows[0]
    assert rows[1].startswith("M9-LAB-02  (cell 1) ") and "ERROR ZeroDivisionError: division by zero" in rows[1]
    assert rows[2].startswith("M9-LAB-03  (none) ") and "FAILED no validation checkpoint" in rows[2]
    assert "FAILED: M9-LAB-01, M9-LAB-02, M9-LAB-03" in captured.out
    assert "cell 1 failed: ZeroDivisionError" in captured.err and "    1 / 0" in captured.err
    assert [lab["ok"] for lab in record["labs"]] == [False, False, False]


def test_a_checkpoint_that_names_another_lab_does_not_count(run, write_lab):
    lab = write_lab("M9-LAB-01")
    lab.source.write_text(lab.source.read_text().replace('"M9-LAB-01"', '"M9-LAB-02"'))
    write_lab("M9-LAB-04", "\n# %%\n1 / 0\n", answer=None)
    status, captured, record = run("M9-LAB-01")
    assert status == 1 and "names M9-LAB-02, but stands in M9-LAB-01" in captured.out
    assert not record["complete"]


def test_a_run_of_one_lab_leaves_the_record_of_all_as_it_was(run, write_lab):
    write_lab("M9-LAB-01")
    write_lab("M9-LAB-04")
    _, _, complete = run()
    status, captured, record = run("M9-LAB-04")
    assert status == 0 and record == complete and len(record["labs"]) == 2
    assert "run.json keeps the last run of all labs" in captured.err and "1 lab, 1 validation" in captured.out
