"""The runbook's table of steps is the order of the labs, their checkpoints, and the seconds of the last run."""

import json
import subprocess
from pathlib import Path

import pytest

from course_helpers.labs.order import RUN_ORDER, STAGES, LabError, find_labs
from course_helpers.labs.runbook import BEGIN, END, checkpoint_names, steps_table, with_steps

ROOT = Path(__file__).resolve().parents[2]
TEXT = f"# Runbook\n{BEGIN}\nold\n{END}\nafter\n"


def test_the_steps_are_in_order_by_stage_with_their_seconds(write_lab):
    first, second = write_lab("M9-LAB-03"), write_lab("M9-LAB-04")
    rows = steps_table([second, first], {"M9-LAB-04": 11.6}).splitlines()
    assert rows[3] == "| | **From GPT to Llama** | | | |"
    assert rows[4] == "| 1 | M9-LAB-03 | `make run LABS=M9-LAB-03` | one and one | not run yet |"
    assert rows[5] == "| | **Families on their own** | | | |"
    assert rows[6] == "| 2 | M9-LAB-04 | `make run LABS=M9-LAB-04` | one and one | 12 |"
    assert len(rows) == 7


def test_only_the_steps_are_made_anew(write_lab):
    text = with_steps(TEXT, [write_lab()], {"labs": [{"lab": "M9-LAB-01", "seconds": 3.2}]})
    assert text.startswith("# Runbook\n") and text.endswith("\nafter\n") and "\nold\n" not in text
    assert "| 1 | M9-LAB-01 | `make run LABS=M9-LAB-01` | one and one | 3 |" in text
    assert with_steps(text, [write_lab()], {"labs": [{"lab": "M9-LAB-01", "seconds": 3.2}]}) == text


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}"])
def test_a_runbook_without_a_place_for_them_is_refused(text, write_lab):
    with pytest.raises(LabError, match="no place for the steps"):
        with_steps(text, [write_lab()], {})


def test_checkpoints_are_found_over_line_ends_and_named_once(write_lab):
    lab = write_lab(cells='# %%\nvalidation_checkpoint(\n    "M9-LAB-01",\n    "long",\n    True,\n)\n')
    assert checkpoint_names(lab) == ["long", "one and one"]


def records():
    """The last run of all labs here, and the one that is committed: a run of yours has other seconds."""
    here = (ROOT / "results" / "run.json").read_text(encoding="utf-8")
    committed = subprocess.run(["git", "show", "HEAD:results/run.json"], cwd=ROOT, capture_output=True, check=False)
    return [json.loads(text) for text in (here, committed.stdout.decode() or here)]


def test_the_runbook_is_up_to_date():
    text = (ROOT / "runbook.md").read_text(encoding="utf-8")
    made = [with_steps(text, find_labs(), run) for run in records()]
    assert text in made, "python -m course_helpers.labs runbook"


def test_every_lab_has_one_stage():
    assert [lab for stage in STAGES.values() for lab in stage] == list(RUN_ORDER)
    assert len(set(RUN_ORDER)) == len(RUN_ORDER)
