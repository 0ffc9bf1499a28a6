"""Rounds of the speed benchmark, and the check that comes before them."""

import dataclasses

import pytest
import torch

from benchmarks.speed_check import REFERENCE, Reference, checked
from benchmarks.speed_clock import ProcessorClock
from benchmarks.speed_floor import Bandwidth, step_bytes
from benchmarks.speed_rounds import Bench, interleaved, middle_first
from benchmarks.speed_shapes import QUICK, SINGLE, shapes
from benchmarks.speed_systems import OURS, TRANSFORMERS, Loaded, OurSession, Session, System
from course_helpers.planning.calibration import random_model

TINY = shapes("cpu", quick=True)


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
