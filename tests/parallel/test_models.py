"""One model on 2 and on 4 ranks: the same parameters, logits and texts as in one process, for every family."""

import pytest
import torch

from course_helpers import generate, load_model
from course_helpers.parallelism.apply import shares_of
from course_helpers.parallelism.costs import rank_cost
from tests.parallel.launch import work
from tests.parallel.work import TINY, prompt_ids


@pytest.fixture(scope="module", params=[2, 4], ids=["2 ranks", "4 ranks"])
def ranks(request, tmp_path_factory) -> list[dict]:
    """What every rank found, in order."""
    folder, size = tmp_path_factory.mktemp("models"), request.param
    ended = work("models", size, folder)
    assert [one.status for one in ended] == [0] * size, "\n".join(one.err[-2000:] for one in ended)
    return [torch.load(folder / f"models-{rank}-of-{size}.pt") for rank in range(size)]


@pytest.fixture(scope="module")
def whole() -> dict:
    return {name: load_model(name, torch.float32) for name in TINY}


each = pytest.mark.parametrize("name", TINY)


@each
def test_every_rank_holds_its_part_and_nothing_more(ranks, whole, name):
    shares = shares_of(whole[name], len(ranks))
    for rank, found in enumerate(ranks):
        parts = found[name]["parts"]
        assert parts.keys() == dict(whole[name].named_parameters()).keys()
        for parameter, values in whole[name].named_parameters():
            cut = shares[parameter].cut(values.shape, rank, len(ranks))
            expected = values if cut is None else values.narrow(cut.dim, cut.start, cut.stop - cut.start)
            assert torch.equal(parts[parameter], expected), parameter


@each
def test_the_large_matrices_are_shared_out(ranks, whole, name):
    """No rank holds more than its share of the model, what is copied (norms, learned positions, a router, and
    key/value heads that are fewer than the ranks) aside."""
    total = sum(values.nbytes for values in whole[name].parameters())
    shares, size = shares_of(whole[name], len(ranks)), len(ranks)
    copied = sum(
        values.nbytes * (1 / shares[parameter].parts - 1 / size) for parameter, values in whole[name].named_parameters()
    )
    assert 0 < copied < 0.1 * total
    for found in ranks:
        held = sum(values.nbytes for values in found[name]["parts"].values())
        assert held == pytest.approx(total / size + copied)


@each
def test_what_it_costs_is_what_the_formulas_say(ranks, whole, name):
    """Bytes held by the first rank, by all of them less than that or as much; and every sum over the ranks."""
    cost = rank_cost(whole[name].config, len(ranks), torch.float32)
    held = [sum(values.nbytes for values in found[name]["parts"].values()) for found in ranks]
    assert held[0] == max(held) == cost.held
    assert all(found[name]["sums"] == cost.sums for found in ranks)
    one = whole[name].make_cache(1, 1, torch.float32)
    assert cost.cache_per_token == one.nbytes // min(whole[name].config.num_key_value_heads, len(ranks))


@each
def test_logits_are_those_of_one_process(ranks, whole, name):
    with torch.no_grad():
        logits, hidden = whole[name](prompt_ids()), whole[name](prompt_ids(), hidden_states=True)
    for found in ranks:
        assert (found[name]["logits"] - logits).abs().max() <= 1e-4
        assert (found[name]["hidden"] - hidden).abs().max() <= 1e-4
        assert torch.equal(found[name]["logits"], ranks[0][name]["logits"])


@each
def test_greedy_texts_are_those_of_one_process(ranks, whole, name):
    ids = prompt_ids()
    rows = [ids[0, :20].tolist(), ids[1, :7].tolist()]
    greedy, uncached = generate(whole[name], rows, 8), generate(whole[name], rows, 2, use_cache=False)
    assert all(found[name]["greedy"] == greedy and found[name]["uncached"] == uncached for found in ranks)


@each
def test_sampling_without_a_seed_is_the_same_in_every_rank(ranks, name):
    assert all(found[name]["sampled"] == ranks[0][name]["sampled"] for found in ranks)


@each
def test_the_cache_holds_the_ranks_own_heads(ranks, whole, name):
    heads = whole[name].config.num_key_value_heads
    parts = min(heads, len(ranks))
    assert all(found[name]["cache"] == whole[name].make_cache(1, 100).nbytes // parts for found in ranks)


@each
def test_the_report_accounts_for_every_tensor(ranks, whole, name):
    for found in ranks:
        assert found[name]["report"].splitlines()[1:] == str(whole[name].load_report).splitlines()[1:]
