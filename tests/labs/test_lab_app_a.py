"""M9-LAB-APP-A: its exercise checks diagnose, its checklist can fail, its checkpoint and its measurements are real."""

import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from course_helpers import CheckpointError, load_model
from course_helpers.labs import ExerciseHint, lab_app_a_charts, lab_app_a_figures
from course_helpers.labs.lab_app_a import (
    MeasuredLoad,
    drop_from_page_cache,
    measure_load,
    run_checklist,
    storage_bytes,
    write_random_checkpoint,
)
from course_helpers.labs.lab_app_a_exercises import (
    SMALL,
    Reader,
    check_cache_bytes,
    check_peak_bytes,
    check_stream_into,
    right_peak,
)
from course_helpers.loaders.assign import set_parameter
from course_helpers.memory import MemoryUse, Sample


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def cache(config, length, batch, itemsize, *, two=2, layers=None, heads=None, head_dim=None):
    """A cache_bytes that is right, or has another value for one of the factors."""
    layers, heads = layers or config.num_hidden_layers, heads or config.num_key_value_heads
    return two * layers * heads * (head_dim or config.head_dim) * length * batch * itemsize


def caches(**wrong):
    return lambda config, length, batch, itemsize: cache(config, length, batch, itemsize, **wrong)


def peaks(wrong_strategy=None, wrong=None):
    """A peak_bytes that is right, but for one strategy."""

    def peak_bytes(strategy, tensors, in_file, in_model):
        if strategy == wrong_strategy:
            return wrong(sum(tensors.values()), max(tensors.values()), in_file, in_model)
        return right_peak(strategy, tensors, in_file, in_model)

    return peak_bytes


def streams(model, names, read, dtype):
    for name in names:
        set_parameter(model, name, read(name).to(dtype))


def holds_the_last(model, names, read, dtype):
    for name in names:
        tensor = read(name)
        set_parameter(model, name, tensor.to(dtype))


def lets_go(model, names, read, dtype):
    for name in names:
        tensor = read(name)
        set_parameter(model, name, tensor.to(dtype))
        del tensor


def holds_all(model, names, read, dtype):
    everything = {name: read(name) for name in names}
    for name, tensor in everything.items():
        set_parameter(model, name, tensor.to(dtype))


def copies_into_meta(model, names, read, dtype):
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).copy_(read(name))


def no_cast(model, names, read, dtype):
    for name in names:
        set_parameter(model, name, read(name))


def all_but_the_last(model, names, read, dtype):
    streams(model, names[:-1], read, dtype)


def exchanges(model, names, read, dtype):
    streams(model, names, read, dtype)
    norms = [name for name in names if "attention_norm" in name]
    for name in norms:
        set_parameter(model, name, torch.zeros(model.get_parameter(name).shape))


def reads_twice(model, names, read, dtype):
    streams(model, names, read, dtype)
    streams(model, names[:1], read, dtype)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (check_cache_bytes, cache),
        (check_peak_bytes, right_peak),
        (check_stream_into, streams),
        (check_stream_into, lets_go),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (check_cache_bytes, empty, "still empty"),
        (check_cache_bytes, silent, "return statement"),
        (check_cache_bytes, lambda *arguments: float(cache(*arguments)), "whole number"),
        (check_cache_bytes, caches(two=1), "where is the 2"),
        (check_cache_bytes, caches(layers=1), "each of the 5 layers"),
        (check_cache_bytes, caches(heads=1), "number of key/value heads"),
        (check_cache_bytes, caches(heads=6), "query heads"),
        (check_cache_bytes, caches(head_dim=1), "where is head_dim"),
        (check_cache_bytes, caches(head_dim=24 // 6), "not the width divided"),
        (check_cache_bytes, caches(heads=1, head_dim=24), "the model's width"),
        (check_cache_bytes, lambda config, length, batch, size: cache(config, 1, batch, size), "length of the text"),
        (check_cache_bytes, lambda config, length, batch, size: cache(config, length, 1, size), "batch_size"),
        (check_cache_bytes, lambda config, length, batch, size: cache(config, length, batch, 1), "bytes of one number"),
        (check_cache_bytes, lambda *arguments: 5, "not 5"),
        (check_peak_bytes, empty, "still empty"),
        (check_peak_bytes, silent, "return statement"),
        (check_peak_bytes, lambda *arguments: 0.5, "whole number"),
        (check_peak_bytes, peaks("naive", lambda n, t, file, model: 2 * n * model), "one is the file's"),
        (check_peak_bytes, peaks("sequential", lambda n, t, file, model: n * model), "twice, in the model"),
        (check_peak_bytes, peaks("sequential", lambda n, t, file, model: (n + t) * model), "type of the file"),
        (check_peak_bytes, peaks("stream", lambda n, t, file, model: n * model), "in both types"),
        (check_peak_bytes, peaks("stream", lambda n, t, file, model: n * model + t * file), "becomes"),
        (check_peak_bytes, peaks("mmap", lambda n, t, file, model: n * model), "file-backed peak"),
        (check_peak_bytes, peaks("mmap", lambda n, t, file, model: 0), "cannot show it in another type"),
        (check_peak_bytes, peaks("mmap", lambda n, t, file, model: 7), "expected 0 bytes"),
        (check_stream_into, empty, "still empty"),
        (check_stream_into, silent, "no tensor was read"),
        (check_stream_into, copies_into_meta, "does nothing"),
        (check_stream_into, all_but_the_last, "final_norm.weight is still on the meta device"),
        (check_stream_into, no_cast, "cast each tensor"),
        (check_stream_into, exchanges, "other numbers"),
        (check_stream_into, reads_twice, "read twice"),
        (check_stream_into, holds_all, "at once"),
        (check_stream_into, holds_the_last, "A variable keeps its tensor"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


def test_the_reader_of_exercise_3_knows_what_is_in_memory():
    reader = Reader({"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)})
    reader("a")  # let go of at once
    kept = reader("b")
    assert reader.together is None
    reader("c")
    assert reader.together == ("b", "c") and kept is not None


def refuses(source):
    raise CheckpointError("the file ends early", tensor="wte.weight")


def test_a_checklist_counts_what_holds_and_survives_a_refusal():
    parts = {
        "config": lambda source: [("read", True, source)],
        "weights": refuses,
        "text": lambda source: [("as expected", False, "other words")],
    }
    result = run_checklist("somewhere", parts)
    assert not result.ok and result.failed == "weights: the file ends early (wte.weight)"
    text = str(result)
    assert text.startswith("somewhere: 1 of 3 lines hold")
    assert "[x] read" in text and "[ ] the file ends early   wte.weight" in text and "[ ] as expected" in text

    assert run_checklist("somewhere", {"config": parts["config"]}).ok
    assert run_checklist("somewhere", {"config": parts["config"]}).failed == ""


def test_other_errors_are_not_hidden_by_a_checklist():
    with pytest.raises(ZeroDivisionError):
        run_checklist("somewhere", {"config": lambda source: 1 / 0})


def test_the_random_checkpoint_is_a_real_one(tmp_path, capsys):
    folder = write_random_checkpoint(tmp_path / "one", SMALL, torch.bfloat16, seed=3)
    assert "100%" in capsys.readouterr().out
    tensors = load_file(folder / "model.safetensors")  # the library, not our own reader
    assert all(tensor.dtype == torch.bfloat16 and tensor.isfinite().all() for tensor in tensors.values())
    embedding = tensors["model.embed_tokens.weight"].float()
    assert 0.01 < embedding.std() < 0.03 and (tensors["model.norm.weight"] == 1).all()

    model = load_model(folder)
    assert model.config == SMALL
    assert sum(tensor.numel() for tensor in tensors.values()) == model.num_parameters()
    again = write_random_checkpoint(tmp_path / "two", SMALL, torch.bfloat16, seed=3)
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.sampled_from([torch.float32, torch.bfloat16]))
def test_shared_memory_counts_once(sizes, dtype):
    tensors = [torch.zeros(size, dtype=dtype) for size in sizes]
    views = [tensor[: tensor.numel() // 2 + 1] for tensor in tensors]
    assert storage_bytes([*tensors, *views, *tensors]) == sum(sizes) * dtype.itemsize


def test_a_load_is_measured_in_a_process_of_its_own(tmp_path):
    folder = write_random_checkpoint(tmp_path / "one", SMALL, torch.bfloat16)
    before = sorted(folder.iterdir())
    load = measure_load(folder, "stream")
    assert 0 < load.load_seconds < load.load_seconds + sum(load.pass_seconds) <= load.use.seconds
    assert min(load.pass_seconds) > 0 and load.private_mb >= 0 and load.file_mb >= 0
    assert sorted(folder.iterdir()) == before

    assert drop_from_page_cache(folder) == hasattr(os, "posix_fadvise")
    assert load_model(folder).config == SMALL  # nothing but time was lost

    with pytest.raises(RuntimeError, match="no such checkpoint"):
        measure_load(tmp_path / "nowhere", "stream")


def made_up(kinds: bool, samples: int = 1000) -> MeasuredLoad:
    """A load of 100 MiB, as a system with or without knowledge of the kinds of memory would tell it."""
    timeline = [
        Sample(
            step / samples, 50 + 100 * step / samples, *((40 + 100 * step / samples, 10.0) if kinds else (None, None))
        )
        for step in range(samples + 1)
    ]
    use = MemoryUse(50.0, 150.0, 150.0, seconds=1.0, source="sampled", timeline=timeline)
    if kinds:
        use.start_anonymous_mb, use.peak_anonymous_mb, use.start_file_mb, use.peak_file_mb = 40.0, 140.0, 10.0, 10.0
    return MeasuredLoad(use, 0.8, (0.1, 0.1))


@pytest.mark.parametrize("kinds", [True, False])
def test_a_record_is_short_and_counts_over_the_start(kinds):
    record = made_up(kinds).record()
    assert record["peak_private_mb"] == 100 and record["peak_file_mb"] == 0
    timeline = json.loads(json.dumps(record))["timeline"]
    assert {len(values) for values in timeline.values()} == {len(timeline["seconds"])} and len(
        timeline["seconds"]
    ) <= 80
    assert [values[0] for values in timeline.values()] == [0, 0, 0]
    assert timeline["private_mb"][-1] > 95 and set(timeline["file_mb"]) == {0}


@pytest.mark.parametrize("kinds", [True, False])
def test_charts_of_measured_loads_tell_their_figures_in_words_too(kinds):
    loads = {"naive": made_up(kinds), "mmap": made_up(kinds)}
    for chart in (
        lab_app_a_charts.timelines(loads, 100.0),
        lab_app_a_charts.predicted_beside_measured({"naive": (100.0, 0.0), "mmap": (0.0, 100.0)}, loads),
    ):
        assert chart.data.startswith(b"\x89PNG")
        assert "naive" in chart.alt and "mmap" in chart.alt and "100" in chart.alt


@pytest.mark.parametrize("draw", ["four_questions", "two_kinds_of_memory", "four_strategies"])
def test_drawings_have_words_for_those_who_cannot_see_them(draw):
    image = getattr(lab_app_a_figures, draw)()
    assert image.data.startswith(b"\x89PNG") and len(image.alt) > 100


def test_charts_of_computed_sizes_are_right():
    image = lab_app_a_charts.memory_against_context("a small model", SMALL)
    assert "a small model" in image.alt and f"{SMALL.max_position_embeddings:,} tokens" in image.alt
    image = lab_app_a_charts.stacked_sizes({"run": {"weights": 2**30}, "train": {"weights": 2**30, "moments": 2**31}})
    assert "train: weights 1.00 GiB, moments 2.00 GiB" in image.alt
    image = lab_app_a_charts.shares({"one": {"embedding": 1, "norms": 3}})
    assert "embedding 25.0 %, norms 75.0 %" in image.alt
