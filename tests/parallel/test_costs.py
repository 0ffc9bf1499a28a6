"""What sharing out comes to: the formulas beside an independent count, and the places where they are printed."""

import json

import pytest
import torch

from benchmarks.parallel_table import table, worst
from course_helpers import FAMILIES
from course_helpers.memory import weight_bytes
from course_helpers.parallelism.costs import LARGE, cost_table, rank_cost
from tests.parallel.kill import MOMENTS, TIMEOUT, Kill
from tests.parallel.kill import RESULT as KILLS
from tests.parallel.launch import ROOT

RESULTS = ROOT / "benchmarks/results"
PRESETS = {hub_id: config for family in FAMILIES.values() for hub_id, config in family.presets.items()}


def test_one_rank_holds_everything():
    for config in PRESETS.values():
        cost = rank_cost(config, 1)
        assert (cost.held, cost.sums, cost.sent_per_token) == (weight_bytes(config), 0, 0)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_qwen3_32b_by_hand(ranks):
    """64 layers of 5,120 x (64 + 8 + 8) heads of 128, back again, and three matrices of 5,120 x 25,600; 151,936 tokens
    twice. Copied: two norms a layer and QK-norm's two vectors of 128, and the last norm."""
    layer = 5120 * (64 + 8 + 8) * 128 + 64 * 128 * 5120 + 3 * 5120 * 25600
    cut, copied = 64 * layer + 2 * 151936 * 5120, 64 * (2 * 5120 + 2 * 128) + 5120
    cost = rank_cost(PRESETS["Qwen/Qwen3-32B"], ranks)
    assert (cost.cut, cost.copied) == (2 * cut // ranks, 2 * copied)
    assert cost.sums == 64 * 2 + 1 and cost.sent_per_token == cost.sums * 5120 * 2
    assert cost.cache_per_token == 2 * 64 * 8 * 128 * 2 // ranks


def test_eight_ranks_share_four_heads_two_by_two():
    """Qwen3-30B-A3B: keys and values are cut in four, whatever the number of ranks beyond; experts in eight."""
    four, eight = (rank_cost(PRESETS["Qwen/Qwen3-30B-A3B"], ranks) for ranks in (4, 8))
    assert four.cache_per_token == eight.cache_per_token
    assert eight.copied - four.copied == 48 * 2 * 2048 * 128 * 2


def test_the_disk_is_shared_or_not():
    cost = rank_cost(PRESETS["Qwen/Qwen3-32B"], 4)
    assert cost.load_seconds(2e9) == pytest.approx(4 * cost.load_seconds(2e9, ranks_on_a_disk=1))
    assert cost.load_seconds(2e9) == pytest.approx(cost.whole / 2e9, rel=1e-3)


def test_a_ring_sends_every_number_almost_twice():
    cost = rank_cost(PRESETS["Qwen/Qwen3-32B"], 4)
    assert cost.wire_seconds(1e9) == pytest.approx(1.5 * 129 * 5120 * 2 / 1e9)
    assert rank_cost(PRESETS["Qwen/Qwen3-32B"], 1).wire_seconds(1e9) == 0


def test_the_runbook_has_the_table_as_it_is_computed():
    _, _, rest = (ROOT / "runbook.md").read_text(encoding="utf-8").partition("<!-- costs -->\n")
    assert rest.startswith(cost_table(LARGE) + "\n<!-- end of costs -->")


def test_the_record_keeps_the_bound():
    """At 2 GB, with 1, 2 and 4 ranks: what a rank reads, and its peak, at most 1.1 times what it is to hold."""
    report = json.loads((RESULTS / "parallel.json").read_text(encoding="utf-8"))
    own = [load for load in report["loads"] if load["method"] == "own parts"]
    assert report["bytes"] > 2e9 and [load["ranks"] for load in own] == [1, 2, 4]
    for load in own:
        assert max(worst(load).values()) <= report["bound"] == 1.1
        assert load["held"] <= report["bytes"] / load["ranks"] * 1.001
    assert (RESULTS / "parallel.md").read_text(encoding="utf-8") == table(report)


def test_the_record_of_kills_is_complete():
    record = json.loads(KILLS.read_text(encoding="utf-8"))
    assert len(record["kills"]) == 20 and {kill["moment"] for kill in record["kills"]} == set(MOMENTS)
    assert record["timeout_s"] == TIMEOUT
    for kill in record["kills"]:
        assert Kill(**kill).held, kill


def test_other_types_weigh_what_they_weigh():
    config = PRESETS["openai-community/gpt2"]
    assert rank_cost(config, 2, torch.float32).held == 2 * rank_cost(config, 2).held
