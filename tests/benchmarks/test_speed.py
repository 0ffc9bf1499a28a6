"""The speed benchmark on tiny shapes: every system runs and is checked, and the report says it all.

Nothing is asserted about speed: that is for the benchmark's own run on a quiet machine.
"""

import dataclasses
import inspect
import json
import random
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import speed, speed_case, speed_transformers
from benchmarks.speed_case import Settings, groups, joined, measure_case
from benchmarks.speed_check import REFERENCE, Reference, checked
from benchmarks.speed_clock import EventClock, ProcessorClock, timed
from benchmarks.speed_floor import Bandwidth, fastest, step_bytes
from benchmarks.speed_rounds import Bench, interleaved, middle_first
from benchmarks.speed_shapes import QUICK, SHAPES, SINGLE, shapes
from benchmarks.speed_systems import OURS, SCRATCH, TRANSFORMERS, Loaded, Loader, OurSession, Session, System
from course_helpers import load_model
from course_helpers.families import family_of
from course_helpers.planning.calibration import random_model
from course_helpers.sizes import kv_cache_bytes

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


# --- the floor ------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def touched_bytes(config) -> int:
    """What one token needs, found by brute force: whatever changes its logits by being NaN. It is the second of a text,
    because the first has only itself to look at."""
    model = random_model(config, SINGLE, "cpu")
    random_state = torch.Generator().manual_seed(3)
    for parameter in model.parameters():  # all equal, experts would tie
        parameter.normal_(0.0, 0.5, generator=random_state)
    tables = {id(one.weight) for one in model.modules() if isinstance(one, torch.nn.Embedding)}
    right, found = second_token(model), 0
    for parameter in model.parameters():
        spared = {5, 1} if id(parameter) in tables else set()  # the row of the token, and that of its position
        parts = parameter if parameter.dim() == 3 else [parameter]  # the experts one by one
        for part in parts:
            kept = part.clone()

            def spoil(part=part, kept=kept, spared=spared):
                part.fill_(torch.nan)
                for row in spared:
                    part[row] = kept[row]

            found += part.nbytes * (not torch.equal(second_token(model, spoil), right))
            part.copy_(kept)
    return found


def second_token(model, between=lambda: None):
    """Its logits; something may be done to the model between the first token and the second."""
    cache = model.make_cache(1, 2)
    model(torch.tensor([[7]]), cache=cache)
    between()
    return model(torch.tensor([[5]]), cache=cache)


@pytest.mark.parametrize("name", TINY)
def test_the_floor_counts_what_a_token_needs(name):
    config = TINY[name].config
    assert step_bytes(config, SINGLE) == touched_bytes(config)


def test_rows_that_choose_different_experts_need_more_of_them():
    config, rows, random_state = TINY["moe"].config, 3, random.Random(5)
    draws = [
        len({expert for _ in range(rows) for expert in random_state.sample(range(config.num_experts), 2)})
        for _ in range(4000)
    ]
    one_expert = 3 * config.hidden_size * config.moe_intermediate_size * SINGLE.itemsize
    more = (sum(draws) / len(draws) - 2) * one_expert * config.num_hidden_layers
    assert step_bytes(config, SINGLE, rows) - step_bytes(config, SINGLE) == pytest.approx(more, rel=0.02)
    assert step_bytes(TINY["llama"].config, SINGLE, rows) == step_bytes(TINY["llama"].config, SINGLE)


def test_keys_and_values_are_read_as_well():
    config = TINY["olmo3"].config
    cache = family_of(config.to_hf()).model(config).make_cache(2, 40, SINGLE)
    assert step_bytes(config, SINGLE, 2, 40) - step_bytes(config, SINGLE, 2) == cache.nbytes
    assert cache.nbytes == kv_cache_bytes(config, 40, 2, SINGLE)


# --- clocks and devices ---------------------------------------------------------------------------------------------


class FakeEvent:
    """An event of a device on which one hundredth of a second passes from mark to mark."""

    now, waited = 0, 0

    def record(self):
        FakeEvent.now += 10
        self.at = FakeEvent.now

    def synchronize(self):
        FakeEvent.waited += 1

    def elapsed_time(self, end):
        return end.at - self.at


def test_the_clock_of_a_gpu_waits_for_the_second_event_and_counts_in_milliseconds():
    FakeEvent.waited = 0
    assert timed(EventClock(FakeEvent), lambda: None) == pytest.approx(0.01)
    assert FakeEvent.waited == 1


def test_everything_is_timed_by_the_clock_that_is_given(tmp_path):
    settings = Settings("olmo3", "bfloat16", quick=True, rounds=2, amount=1e6)
    case = measure_case(settings, tmp_path, EventClock(FakeEvent))
    for measure in case["measures"]:
        is_step = measure["floor"] is not None
        for values in measure["seconds"].values():
            assert values == pytest.approx([0.01 / QUICK.steps if is_step else 0.01] * len(values))


def test_compiled_steps_are_measured_where_they_are_asked_for(tmp_path, monkeypatch):
    """With a torch.compile that only counts what it is asked to compile."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(function) or function)
    case = measure_case(Settings("qwen3", "float32", quick=True, compiled=True, rounds=1, amount=1e6), tmp_path)
    names = {system["name"] for system in case["systems"] if system["compiled"]}
    ours = {f"{OURS}, compiled"} if "compile" in inspect.signature(load_model).parameters else set()
    assert names == {f"{TRANSFORMERS}, sdpa, static, compiled"} | ours and asked
    for measure in case["measures"]:
        steps_only = measure["measure"].startswith(("decode", "first"))
        assert (names <= measure["seconds"].keys()) == steps_only


@pytest.mark.skipif("compile" not in inspect.signature(load_model).parameters, reason="it is not there yet")
def test_what_cannot_be_compiled_is_not_measured_as_if_it_were(tmp_path, monkeypatch):
    def broken(function, **options):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(speed_transformers, "compiled_call", lambda model, device: model)
    case = measure_case(Settings("qwen3", "float32", quick=True, compiled=True, rounds=1, amount=1e6), tmp_path)
    (reason,) = [one["reason"] for one in case["left_out"] if one["name"] == f"{OURS}, compiled"]
    assert "no compiler here" in reason and f"{OURS}, compiled" not in case["measures"][0]["seconds"]


def test_a_gpu_is_named_and_has_files_of_its_own(tmp_path, monkeypatch):
    gpu = SimpleNamespace(name="Some GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    asked = []

    def skipped(settings, folder):
        asked.append(settings)
        return {"shape": settings.shape, "dtype": settings.dtype, "bytes": 1, "skipped": "needs more"}

    speed.main(["--device", "cuda", "--compiled", "--output", str(tmp_path), "--folder", str(tmp_path)], skipped)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed-cuda.json", "speed-cuda.md"]
    assert [(one.shape, one.dtype, one.device) for one in asked] == [
        (name, "bfloat16", "cuda") for name in ("qwen3", "olmo3", "moe")
    ]
    text = (tmp_path / "speed-cuda.md").read_text()
    assert "Some GPU, 80.0 GiB" in text and "- moe, bfloat16: needs more." in text


def test_a_gpu_also_copies():
    bandwidth = Bandwidth(SINGLE, "cpu", EventClock(FakeEvent), amount=1e6)
    bandwidth.kind = "cuda"
    rates = bandwidth.measure()
    assert rates["F.linear"] == pytest.approx(bandwidth.count * bandwidth.nbytes / 0.01)
    assert rates["copy"] == pytest.approx(2 * (bandwidth.count // 2) * bandwidth.nbytes / 0.01)
    assert fastest(rates) == max(rates.values())


def test_models_that_do_not_fit_together_come_one_after_the_other(monkeypatch):
    monkeypatch.setattr(speed_case, "BESIDE", 5)
    first, second, large = (Loader(name, None, (name,), size) for name, size in (("a", 1), ("b", 1), ("c", 3)))
    assert groups([first, second, large], 10, 55) == ([[first, second, large]], [])
    assert groups([first, second, large], 10, 40) == ([[first], [second], [large]], [])
    alone, left_out = groups([first, second, large], 10, 20)
    assert alone == [[first], [second]]
    assert left_out == [{"name": "c", "reason": "needs 35 bytes, and 20 bytes are free"}]


def test_what_was_measured_one_after_the_other_is_put_together():
    def entry(name, floor):
        return {"measure": "m", "rows": 1, "floor": floor, "rates": {"F.linear": [9.0]}, "seconds": {name: [1.0]}}

    more = [entry("b", {"b": [2.0]}), entry("b", None) | {"measure": "n"}]
    first, second = joined([entry("a", {"a": [1.0]})], more)
    assert first["seconds"].keys() == first["floor"].keys() == {"a", "b"} and first["rates"] == {"F.linear": [9.0, 9.0]}
    assert second["measure"] == "n"


def test_a_shape_that_does_not_fit_is_skipped_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(speed_case, "free_bytes", lambda device: 10**6)
    case = measure_case(Settings("gpt2", "float32", quick=True), tmp_path)
    assert case["skipped"].startswith("needs 3.0 GB") and not list(tmp_path.iterdir())


# --- rounds and checks ----------------------------------------------------------------------------------------------


@pytest.fixture
def bench():
    bandwidth = Bandwidth(SINGLE, "cpu", ProcessorClock(), amount=1e6)
    return Bench(TINY["llama"].config, SINGLE, "cpu", ProcessorClock(), bandwidth, QUICK, rounds=3, budget=1e9)


def test_rounds_are_interleaved_each_with_another_system_first(bench):
    order, systems = [], [System(name, OURS, None) for name in "abc"]

    def turn(system, number):
        order.append((number, system.name))
        return {"decode 8 → 16": 1.0}

    (found,) = interleaved(bench, systems, turn)
    assert order == [(number, name) for number, names in enumerate(("abc", "bca", "cab")) for name in names]
    assert found["seconds"] == dict.fromkeys("abc", [1.0] * 3) and len(found["rates"]["F.linear"]) == 9
    turns = [step_bytes(bench.config, SINGLE) / max(rates) for rates in zip(*found["rates"].values(), strict=True)]
    places = {"a": (0, 5, 7), "b": (1, 3, 8), "c": (2, 4, 6)}
    assert found["floor"] == {name: [turns[place] for place in each] for name, each in places.items()}


def test_what_takes_long_has_fewer_rounds_and_one_at_least(bench):
    turn = lambda system, number: {"prefill 16": 1.0}  # noqa: E731
    (found,) = interleaved(dataclasses.replace(bench, budget=0.0), [System("a", OURS, None)], turn, floor=False)
    assert len(found["seconds"]["a"]) == 1 and found["floor"] is None and found["rates"] == {}


def test_compiled_systems_run_once_before_they_are_timed(bench):
    turns = []
    turn = lambda system, number: turns.append(system.name) or {"prefill 16": 1.0}  # noqa: E731
    interleaved(bench, [System("a", OURS, None), System("b", OURS, None, compiled=True)], turn)
    assert turns == ["b", "a", "b", "b", "a", "a", "b"]


def test_the_middle_of_a_span_comes_first():
    assert middle_first(5) == [2, 1, 3, 0, 4] and middle_first(1) == [0]


class Off(Session):
    """A session whose answers are wrong, or not numbers."""

    def __init__(self, session, by):
        self.session, self.by = session, by

    def logits(self, ids_BT):
        return self.session.logits(ids_BT) + self.by


@pytest.mark.parametrize("by", [0.5, torch.nan])
def test_a_peer_that_computes_something_else_is_left_out_and_ours_ends_the_run(bench, by):
    model = random_model(bench.config, SINGLE, "cpu")
    with torch.inference_mode():
        model.token_embedding.weight.normal_(generator=torch.Generator().manual_seed(1))
    right = lambda rows, positions: OurSession(model, rows, positions)  # noqa: E731
    good = System(REFERENCE, TRANSFORMERS, right)
    scale = float(Reference(bench, good).logits.abs().max())
    wrong = lambda rows, positions: Off(right(rows, positions), by * scale)  # noqa: E731
    left_out = []
    systems, _, checks = checked([Loaded([good, System("wrong", TRANSFORMERS, wrong)])], None, bench, left_out)
    assert [system.name for system in systems] == [check["system"] for check in checks] == [REFERENCE]
    assert left_out[0]["name"] == "wrong" and "1e-05 is allowed" in left_out[0]["reason"]
    with pytest.raises(RuntimeError, match="ours: logits differ"):
        checked([Loaded([good, System("ours", OURS, wrong)])], None, bench, [])
