"""Where a peer is ahead, the time is taken apart, once, and by title."""

import time

import pytest
import torch
import torch.nn.functional as F

from benchmarks.speed_clock import ProcessorClock, timed
from benchmarks.speed_parts import PARTS, PartsClock, ahead_and_ours, part_of
from benchmarks.speed_rounds import Bench, interleaved
from benchmarks.speed_shapes import QUICK, SINGLE, shapes
from benchmarks.speed_systems import OURS, TRANSFORMERS, System
from benchmarks.speed_view import View
from tests.benchmarks import made_up

BIG = torch.ones(600, 600)


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("aten::mm", "products"),
        ("aten::_grouped_mm", "products"),
        ("mkldnn::_linear_pointwise", "products"),
        ("aten::addmv_", "products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::mul", "the rest"),
        ("aten::copy_", "the rest"),
    ],
)
def test_operations_belong_to_parts(operation, part):
    assert part_of(operation) == part


@pytest.mark.parametrize(
    ("work", "part"),
    [
        (lambda: [BIG @ BIG for _ in range(5)], "products"),
        (lambda: F.scaled_dot_product_attention(*[BIG.view(1, 10, 60, 600)] * 3), "attention"),
        (lambda: [torch.exp(BIG) for _ in range(5)], "the rest"),
    ],
)
def test_the_part_that_works_has_most_of_the_time(work, part):
    clock = PartsClock("cpu")
    with torch.inference_mode():
        timed(clock, work)
        found = dict(zip(PARTS, timed(clock, work) / 2, strict=True))
    assert found[part] > 0.6 * sum(found.values()) > 0


def systems_of(*known: tuple[str, str, bool]) -> list[System]:
    return [System(name, who, None, exact=exact) for name, who, exact in known]


def test_the_fastest_of_both_sides_with_the_weights_of_the_file_are_compared():
    systems = systems_of(("a", OURS, True), ("b", OURS, False), ("c", TRANSFORMERS, True), ("d", TRANSFORMERS, True))
    found = ahead_and_ours(systems, {"a": 3.0, "b": 0.5, "c": 2.0, "d": 1.0})
    assert [one.name for one in found] == ["d", "a"]
    assert ahead_and_ours(systems, {"a": 0.9, "b": 0.5, "c": 2.0, "d": 1.0}) is None
    assert ahead_and_ours(systems[:2], {"a": 3.0, "b": 0.5}) is None


@pytest.mark.parametrize(
    ("pause", "asked"), [({OURS: 0.02, TRANSFORMERS: 0.0}, 2), ({OURS: 0.0, TRANSFORMERS: 0.02}, 0)]
)
def test_only_where_a_peer_is_ahead_both_have_one_more_turn(pause, asked):
    bench = Bench(shapes("cpu", True)["llama"].config, SINGLE, "cpu", ProcessorClock(), None, QUICK, 2, 1e9)
    systems, turns = systems_of(("ours", OURS, True), ("theirs", TRANSFORMERS, True)), []

    def turn(system, number):
        turns.append(system.name)
        works = {"prefill 16": lambda: (BIG @ BIG, time.sleep(pause[system.who])), "prefill 48": lambda: BIG.exp()}
        return {title: timed(bench.clock, work) for title, work in works.items()}

    found = interleaved(bench, systems, turn, floor=False)[0]
    assert len(turns) >= 4 + asked and isinstance(bench.clock, ProcessorClock)
    if asked:
        assert set(found["parts"]) == {"ours", "theirs"}
        assert all(set(one) == set(PARTS) and one["products"] > one["the rest"] for one in found["parts"].values())
    else:
        assert "parts" not in found


def parts(products: float, attention: float, rest: float) -> dict[str, float]:
    return dict(zip(PARTS, (products, attention, rest), strict=True))


def test_the_reason_is_the_part_with_the_largest_difference():
    measure = made_up.measure("prefill 512", 512, made_up.seconds(0.2, 0.2, 0.1, 0.3))
    case = made_up.case("Model A", measure)
    assert View(case, measure).verdict().endswith("(100%).")
    measure["parts"] = {
        "course_helpers, plain": parts(0.06, 0.02, 0.1201),
        "transformers, sdpa, dynamic": parts(0.05, 0.03, 0.02),
    }
    expected = "profiler (100.0 ms against 200.1 ms) most of that is in the rest: 20.0 ms against 120.1 ms."
    assert View(case, measure).verdict().endswith("(100%). Under torch's " + expected)
    measure["parts"]["course_helpers, plain"] = parts(0.01, 0.01, 0.01)
    expected = "Once more, under torch's profiler, it was not: 100.0 ms against 30.0 ms."
    assert View(case, measure).verdict().endswith(expected)
