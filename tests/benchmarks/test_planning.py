"""The planning benchmark on tiny checkpoints: every case is foretold and measured, and the report says it all.

Nothing is asserted about how well they agree: that is for the benchmark's own run, on sizes where the model counts.
"""

import json
from pathlib import Path

import pytest

from benchmarks import planning
from course_helpers.planning.machines import BRAIN, SINGLE, Machine, Speed
from tests.benchmarks.test_loading import here

KNOWN = [
    Machine(
        "known", "cpu", 10**10, dict.fromkeys((BRAIN, SINGLE), Speed(rate, {1: 1.0, 2: rate}, 1e-6, 1e-6, 1e9)), 10**6
    )
    for rate in (1e9, 2e9, 9e9)
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "measure", lambda device, rounds: KNOWN[0])
        arguments = ["--quick", "--rounds", "2", "--output", str(folder), "--folder", str(folder)]
        planning.main(arguments, measure_process=here)
    assert sorted(path.name for path in folder.iterdir()) == ["planning.json", "planning.md"]  # nothing is left behind
    return json.loads((folder / "planning.json").read_text()), (folder / "planning.md").read_text()


def test_every_case_is_foretold_and_measured(report):
    content, _ = report
    assert [row["case"] for row in content["rows"]] == [case.title for case in planning.cases(False)]
    for row in content["rows"]:
        assert len(row["all_peaks"]) == len(row["all_seconds"]) == 2
        for what in ("peak", "tokens_per_second"):
            pair = row[what]
            assert pair["foretold"] > 0 and pair["ratio"] == pytest.approx(pair["foretold"] / pair["measured"])
        assert row["peak"]["foretold"] == max(sum(row["memory_terms"].values()), row["loading_peak"])
        assert row["tokens_per_second"]["foretold"] == pytest.approx(1 / sum(row["seconds_terms"].values()))


def test_the_table_has_a_row_for_each_case(report):
    content, text = report
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| checkpoint")]
    assert len(rows) == len(content["rows"]) and all(row.count("|") == 9 for row in rows)


def test_the_report_says_which_machine_and_names_no_place(report):
    content, text = report
    assert (
        content["machine"]["cores"]
        and content["machine"]["threads"]
        and content["speeds"].keys() == {"bfloat16", "float32"}
    )
    for secret in (str(Path.home()), "/tmp", str(Path.cwd())):
        assert secret not in text and secret not in json.dumps(content)


def test_the_machine_is_the_median_of_its_rounds():
    machine = planning.middle(KNOWN)
    assert machine.speeds[BRAIN].bandwidth == 2e9 and machine.speeds[SINGLE].rows == {1: 1.0, 2: 2e9}


def test_the_cases_are_what_the_acceptance_asks_for():
    """Three sizes at least, up to 2 GB of checkpoint; experts, windows, both types, prompts of 64 to 512 tokens."""
    cases = planning.cases(False)
    sizes = {planning.anatomy(case.config).parameters * case.stored.itemsize for case in cases}
    assert len(sizes) >= 3 and max(sizes) <= 2 * 10**9
    assert {case.family for case in cases} >= {"qwen3_moe", "gemma3"} and {case.dtype for case in cases} == {
        BRAIN,
        SINGLE,
    }
    assert all(64 <= case.prompt <= 512 for case in cases)
