"""The loading benchmark on tiny checkpoints: every method loads, all load the same, and the report says it all.

Nothing is asserted about speed: that is for the benchmark's own run on a quiet machine.
"""

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import loading, loading_methods
from benchmarks.loading_methods import METHODS
from benchmarks.loading_table import PLAIN, verdicts
from course_helpers.memory import MemoryUse, track_memory


def here(statement: str, setup: str) -> MemoryUse:
    """`measure_in_subprocess` without the process: seconds for all methods, and not minutes."""
    names = {}
    exec(setup, names)
    with track_memory(interval=None) as use:
        exec(statement, names)
    return use


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # the benchmark takes it away
        folder = tmp_path_factory.mktemp("benchmark")
        loading.main(["--quick", "--output", str(folder), "--folder", str(folder)], measure=here)
    assert sorted(path.name for path in folder.iterdir()) == ["loading.json", "loading.md"]  # nothing is left behind
    return json.loads((folder / "loading.json").read_text()), (folder / "loading.md").read_text()


def installed() -> set[str]:
    without = set() if loading.version("accelerate") else {"accelerate load_checkpoint_in_model"}
    return METHODS.keys() - without


def test_every_method_is_measured_on_every_checkpoint_of_its_format(report):
    content, _ = report
    endings = [re.search(r"\.(safetensors|bin)", case["checkpoint"])[0] for case in content["cases"]]
    assert endings == [".safetensors", ".bin"] * 2
    for ending, case in zip(endings, content["cases"], strict=True):
        expected = [name for name, method in METHODS.items() if ending in method.formats and name in installed()]
        assert [method["name"] for method in case["methods"]] == expected
        for method in case["methods"]:
            assert len(method["all_seconds"]) == METHODS[method["name"]].repeats(1)
            assert 0 < method["seconds"] <= method["touched_seconds"]
            assert (
                method["model_bytes"]
                == {
                    "limit": None,
                    "peer": case["bytes"],
                    "ours": case["bytes"] * (2 if "float32" in method["name"] else 1),
                }[method["who"]]
            )


def test_the_table_has_a_row_for_each_of_them(report):
    content, text = report
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| method")]
    assert len(rows) == sum(len(case["methods"]) for case in content["cases"])
    assert all(row.count("|") == 8 for row in rows)
    assert text.count("- `mmap` (") == text.count("- `stream` (") == 4


def test_the_report_says_which_machine_and_names_no_place(report):
    content, text = report
    assert content["machine"]["cores"] and content["machine"]["packages"]["torch"] and content["machine"]["memory_gib"]
    for secret in (str(Path.home()), "/tmp", str(Path.cwd())):
        assert secret not in text and secret not in json.dumps(content)


def test_methods_that_load_something_else_are_found_out(tmp_path, monkeypatch):
    broken = loading_methods.Method("ours", lambda folder: zeroed(loading_methods.load_model(folder)))
    monkeypatch.setitem(METHODS, "course_helpers, mmap", broken)
    with pytest.raises(RuntimeError, match="did not load the same weights"):
        loading.main(["--quick", "--methods", "mmap,stream", "--folder", str(tmp_path)], measure=here)


def zeroed(model):
    next(model.parameters()).data.zero_()
    return model


def test_a_real_process_measures_the_same_way(tmp_path):
    arguments = ["--quick", "--methods", "float32", "--output", str(tmp_path), "--folder", str(tmp_path)]
    sys.path.insert(0, str(Path(__file__).parents[2]))
    loading.main(arguments)
    sys.path.pop(0)
    content = json.loads((tmp_path / "loading.json").read_text())
    names = [[method["name"] for method in case["methods"]] for case in content["cases"]]
    assert names == [["course_helpers, stream to float32"], []] * 2


def test_verdicts_compare_like_with_like():
    def method(name, who, seconds, own):
        memory = {"model_bytes": 2**20, "peak_anonymous_mb": own, "peak_file_mb": 1.0 - own}
        return {"name": name, "who": who, "seconds": seconds} | memory

    peers = [method("lazy", "peer", 0.05, 0.0), method("same", "peer", 0.101, 0.0), method("whole", "peer", 2.0, 1.0)]
    mine = [method("course_helpers, mmap", "ours", 0.1, 0.0), method("course_helpers, stream", "ours", 0.5, 1.0)]
    assert verdicts([*peers, *mine], plain=0.4) == [
        "- `mmap` (0.100 s, the file's memory): behind lazy (0.050 s); level with same (0.101 s).",
        "- `stream` (0.500 s, own memory): ahead of whole (2.0 s); "
        "slower than one plain read into fresh memory (0.400 s).",
    ]
    assert PLAIN in METHODS
