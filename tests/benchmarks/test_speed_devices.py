"""The speed benchmark on other devices: a clock of events, models that do not fit, steps that are compiled."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks import speed, speed_case, speed_transformers
from benchmarks.speed_case import Settings, groups, joined, measure_case
from benchmarks.speed_clock import EventClock, timed
from benchmarks.speed_floor import Bandwidth, fastest
from benchmarks.speed_shapes import QUICK, SINGLE
from benchmarks.speed_systems import OURS, TRANSFORMERS, Loader


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
    assert names == {f"{TRANSFORMERS}, sdpa, static, compiled", f"{OURS}, compiled"} and asked
    for measure in case["measures"]:
        steps_only = measure["measure"].startswith(("decode", "first"))
        assert (names <= measure["seconds"].keys()) == steps_only


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
