"""The speed benchmark on tiny shapes: every system runs and is checked, and the report says it all.

Nothing is asserted about speed: that is for the benchmark's own run on a quiet machine.
"""

import json
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks import speed, speed_transformers
from benchmarks.speed_case import measure_case
from benchmarks.speed_shapes import QUICK, SHAPES, SINGLE, shapes
from benchmarks.speed_systems import OURS, SCRATCH, TRANSFORMERS

TINY = shapes("cpu", quick=True)
HAS_SCRATCH = bool(speed.version("llms_from_scratch"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    arguments = ["--quick", "--dtype", "float32", "--threads", "1", "--output", str(folder), "--folder", str(folder)]
    speed.main(arguments, measure=measure_case)
    names = ["speed-context.svg", "speed-decode.svg", "speed-prefill.svg", "speed.json", "speed.md"]
    assert sorted(path.name for path in folder.iterdir()) == names  # nothing else is left behind
    return json.loads((folder / "speed.json").read_text()), (folder / "speed.md").read_text(), folder


def test_every_system_is_checked_and_measured_in_every_round(run):
    content, _, _ = run
    assert [case["shape"] for case in content["cases"]] == [shape.title for shape in SHAPES.values()]
    for case, config in zip(content["cases"], (one.config for one in TINY.values()), strict=True):
        names = {system["name"] for system in case["systems"]}
        assert names >= {f"{OURS}, plain", *speed_transformers.transformers_loader(config, "cpu", False).covers}
        assert {check["system"] for check in case["checks"]} == names
        assert all(check["same_tokens"] == check["of"] == QUICK.checked + 1 for check in case["checks"])
        titles = [(measure["measure"], measure["rows"]) for measure in case["measures"]]
        decode = [("decode 8 → 16", 1), ("first token", 1), ("decode 8 → 48", 1)]
        assert titles[:7] == [*decode, ("decode 8 → 16", 2), ("first token", 2), ("prefill 16", 1), ("prefill 48", 1)]
        for measure in case["measures"]:
            who = {next(one["who"] for one in case["systems"] if one["name"] == name) for name in measure["seconds"]}
            assert who == {one["who"] for one in case["systems"]}  # every library, if not every setting of it
            (rounds,) = {len(values) for values in measure["seconds"].values()}
            assert rounds in (1, 2)
            turns = {len(values) for values in measure["rates"].values()}
            assert turns == (set() if measure["measure"].startswith("prefill") else {rounds * len(measure["seconds"])})
            assert all(second > 0 for values in measure["seconds"].values() for second in values)


def test_long_texts_are_followed_in_the_shapes_that_say_so(run):
    content, _, _ = run
    for case, shape in zip(content["cases"], SHAPES.values(), strict=True):
        contexts = [one for one in case["measures"] if one["measure"].startswith("context")]
        assert [one["measure"] for one in contexts] == [f"context {length}" for length in QUICK.contexts] * shape.long
        assert all(one["bytes"] > case["measures"][0]["bytes"] for one in contexts)  # keys and values are read, too


@pytest.mark.skipif(not HAS_SCRATCH, reason="llms-from-scratch is not installed: benchmarks/requirements.txt")
def test_llms_from_scratch_runs_where_it_can_and_its_absence_is_explained(run):
    content, _, _ = run
    without = {case["shape"]: case["left_out"] for case in content["cases"] if case["left_out"]}
    assert without.keys() == {SHAPES[name].title for name in ("gemma3", "olmo3", "gpt2")}
    assert all(one["name"] == SCRATCH and one["reason"] for lines in without.values() for one in lines)


def test_caches_hold_what_the_formula_says(run):
    content, _, _ = run
    for case in content["cases"]:
        for row in case["caches"]:
            assert (
                row["held"].items()
                >= dict.fromkeys((OURS, f"{TRANSFORMERS}, dynamic", f"{TRANSFORMERS}, static"), row["formula"]).items()
            )


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("kind", speed_transformers.CACHES)
def test_sizes_of_transformers_caches_are_those_of_real_ones(name, kind):
    """Asked on the meta device, and filled in memory, one token after the other."""
    from transformers import AutoConfig

    config, positions = TINY[name].config, 40
    about = AutoConfig.for_model(**config.to_hf())
    cache = speed_transformers.transformers_cache(about, kind, positions)
    for _ in range(positions):
        speed_transformers.fill(cache, about, 1, 1, SINGLE, "cpu")
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    windows = sum(config.window(layer_type) is not None for layer_type in config.layer_plan)
    one = 2 * config.num_key_value_heads * config.head_dim * SINGLE.itemsize
    kept_back = one * windows * (kind == "dynamic")  # its view leaves out the oldest, and the memory is still there
    assert speed_transformers.cache_bytes(config, kind, positions, SINGLE) == real + kept_back


def test_the_page_and_the_pictures_name_no_place_and_say_which_machine(run):
    content, text, folder = run
    assert content["machine"]["cores"] and content["machine"]["threads"] == 1
    for secret in (str(Path.home()), "/tmp", str(Path.cwd())):
        assert secret not in text and secret not in json.dumps(content)
    for name in ("decode", "prefill", "context"):
        assert f"(speed-{name}.svg)" in text
        root = ElementTree.parse(folder / f"speed-{name}.svg").getroot()
        assert root.tag.endswith("svg")


def test_a_process_of_its_own_measures_the_same_way(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    arguments = ["--quick", "--only", "gpt2", "--dtype", "bfloat16", "--rounds", "1", "--threads", "1"]
    speed.main([*arguments, "--output", str(tmp_path), "--folder", str(tmp_path)])
    (case,) = json.loads((tmp_path / "speed.json").read_text())["cases"]
    assert case["dtype"] == "bfloat16" and case["measures"]


def test_one_case_that_fails_does_not_lose_the_others(tmp_path):
    def fails(settings, folder):
        if settings.dtype == "float32":
            raise subprocess.CalledProcessError(3, "python")
        return {"shape": "GPT-2 124M", "dtype": settings.dtype, "bytes": 1, "skipped": "enough"}

    with pytest.raises(SystemExit, match=r"failed, with the reason above: GPT-2 124M, float32$"):
        speed.main(["--quick", "--only", "gpt2", "--output", str(tmp_path)], fails)
    text = (tmp_path / "speed.md").read_text()
    assert "- GPT-2 124M, float32: failed with status 3." in text and "- GPT-2 124M, bfloat16: enough." in text


def test_the_file_has_one_line_for_all_rounds():
    report = {"seconds": {"a": [0.123456789, 2e-7]}, "names": ["x"], "none": [], "cases": [{"rows": 1}]}
    text = speed.compact(report)
    assert '"a": [0.12346, 2e-07]' in text and json.loads(text) == report | {"seconds": {"a": [0.12346, 2e-7]}}


def test_unknown_shapes_are_refused(capsys):
    with pytest.raises(SystemExit):
        speed.main(["--only", "gpt5"])
    assert "there are: llama, qwen3" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["", "--quick", "--only llama,moe --dtype bfloat16 --compiled --budget 3.0"])
def test_the_recorded_command_asks_for_the_same(words):
    chosen = speed.arguments_of(words.split())
    recorded = speed.command_of(chosen)
    program = "python -m benchmarks.speed"
    assert recorded.startswith(program) and speed.arguments_of(recorded.removeprefix(program).split()) == chosen
