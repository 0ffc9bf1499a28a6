"""M9-LAB-04: its exercise checks diagnose, its counts are right, and its pictures say in words what they show."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from course_helpers import generate
from course_helpers.architectures.config import FULL
from course_helpers.architectures.qwen3 import Qwen3Config, Qwen3Model, Qwen3MoeModel
from course_helpers.labs import ExerciseHint, lab_04_charts, lab_04_figures
from course_helpers.labs.lab_04 import (
    CountedWork,
    Routing,
    decode_all,
    faithfulness,
    favourites,
    routing_of,
    seconds_per_token,
    variant_table,
    watched_routers,
    work_of_each_step,
)
from course_helpers.labs.lab_04_dispatch import check_dispatch
from course_helpers.labs.lab_04_exercises import (
    PLAIN,
    SMALL,
    check_active_parameters,
    check_route,
    right_active,
    right_weights,
    total_parameters,
)
from course_helpers.training import initialize

DENSE = Qwen3Config(
    **{
        field.name: getattr(SMALL, field.name)
        for field in dataclasses.fields(Qwen3Config)
        if field.name != "layer_types"
    },
    layer_types=(FULL,) * SMALL.num_hidden_layers,
)


@pytest.fixture(scope="module")
def dense():
    return initialize(Qwen3Model(DENSE), seed=1).eval()


@pytest.fixture(scope="module")
def moe():
    return initialize(Qwen3MoeModel(SMALL), seed=2).eval()


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


# Exercise 1


def active(change):
    """An active_parameters that is off by `change(config, sparse layers)`."""

    def active_parameters(config):
        sparse = sum(config.is_sparse(layer) for layer in range(config.num_hidden_layers))
        return right_active(config) + change(config, sparse)

    return active_parameters


def expert(config):
    return 3 * config.hidden_size * config.moe_intermediate_size


def idle(config):
    return config.num_experts - config.num_experts_per_tok


# Exercise 2


def routes(scores="softmax", normalized=None, change=lambda chosen, weight: (chosen, weight)):
    """A route that is right, or wrong in one way."""

    def route(scores_NX, k, normalize):
        chosen, weight = right_weights(scores_NX, k, normalize if normalized is None else normalized)
        if scores == "chosen only":
            weight = scores_NX.gather(1, chosen).softmax(dim=-1)
        if scores == "raw":
            weight = scores_NX.gather(1, chosen)
        return change(chosen, weight)

    return route


def over_tokens(scores_NX, k, normalize):
    weight, chosen = scores_NX.softmax(dim=0).topk(k, dim=-1)
    return chosen, weight / weight.sum(dim=-1, keepdim=True) if normalize else weight


def wrong_dimension(scores_NX, k, normalize):
    weight, chosen = scores_NX.softmax(dim=-1).topk(k, dim=0)
    return chosen, weight


def least(scores_NX, k, normalize):
    weight, chosen = scores_NX.softmax(dim=-1).topk(k, dim=-1, largest=False)
    return chosen, weight


def right_choice_over_tokens(scores_NX, k, normalize):
    chosen = scores_NX.topk(k, dim=-1).indices
    return chosen, scores_NX.softmax(dim=0).gather(1, chosen)


def divided_by_all(scores_NX, k, normalize):
    chosen, weight = right_weights(scores_NX, k, False)
    return chosen, weight / weight.sum() if normalize else weight


def softmax_twice(scores_NX, k, normalize):
    chosen, weight = right_weights(scores_NX, k, False)
    return chosen, weight.softmax(dim=-1) if normalize else weight


def in_order_of_experts(chosen, weight):
    chosen, order = chosen.sort(dim=-1)
    return chosen, weight.gather(1, order)


# Exercise 3


def dispatch(x, chosen, weight, ask, experts, *, add=True, used=None, select=True, times=1, skip=None):
    """Grouped dispatch that is right, or wrong in one way."""
    answer = torch.zeros_like(x)
    for number in range(experts):
        token, place = (chosen == number).nonzero(as_tuple=True)
        if not len(token) or number == skip:
            continue
        answers = ask(number, x[token]) if select else ask(number, x)[token]
        counted = (weight[token, place] if used is None else used(weight, token, place))[:, None] * answers * times
        if add:
            answer[token] += counted
        else:
            answer[token] = counted
    return answer


def dispatches(**wrong):
    return lambda *arguments: dispatch(*arguments, **wrong)


def sorted_dispatch(x, chosen, weight, ask, experts, *, back=True, weights_back=True):
    """As the package does it: sorted by expert, one slice an expert, and back again."""
    number, order = chosen.flatten().sort(stable=True)
    rows, k = x[order // chosen.shape[1]], chosen.shape[1]
    slices = [(e, rows[number == e]) for e in range(experts) if (number == e).any()]
    answers = torch.cat([ask(e, part) for e, part in slices])
    weights = weight.flatten()[order]
    if not back:
        return (answers * weights[:, None]).unflatten(0, (-1, k)).sum(dim=1)
    there = order.argsort()
    weights = weights[there] if weights_back else weights
    return (answers[there] * weights[:, None]).unflatten(0, (-1, k)).sum(dim=1)


def token_by_token(x, chosen, weight, ask, experts):
    answer = torch.zeros_like(x)
    for n in range(len(x)):
        for number, share in zip(chosen[n], weight[n], strict=True):
            answer[n] += share * ask(int(number), x[n : n + 1])[0]
    return answer


def into_its_own_input(x, chosen, weight, ask, experts):
    for number in range(experts):
        token, place = (chosen == number).nonzero(as_tuple=True)
        if len(token):
            x[token] += weight[token, place][:, None] * ask(number, x[token])
    return x


def asks_nobodys(x, chosen, weight, ask, experts):
    ask(4, x[:0])
    return dispatch(x, chosen, weight, ask, experts)


def two_experts_only(x, chosen, weight, ask, experts):
    return dispatch(x, chosen[:, :2], weight[:, :2], ask, experts)


def counted_from_another_token(x, chosen, weight, ask, experts):
    answer = dispatch(x, chosen, weight, ask, experts)
    answer[0] = answer[1]
    return answer


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (check_active_parameters, right_active),
        (check_route, right_weights),
        (check_route, routes(change=in_order_of_experts)),
        (check_route, routes(change=lambda chosen, weight: (chosen.int(), weight.double()))),
        (check_dispatch, dispatch),
        (check_dispatch, sorted_dispatch),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (check_active_parameters, empty, "still empty"),
        (check_active_parameters, silent, "return statement"),
        (check_active_parameters, lambda config: float(right_active(config)), "whole number"),
        (check_active_parameters, total_parameters, "must be held"),
        (check_active_parameters, active(lambda c, n: -n * (c.num_experts_per_tok - 1) * expert(c)), "not to one"),
        (check_active_parameters, active(lambda c, n: -n * c.num_experts_per_tok * expert(c)), "the idle ones only"),
        (
            check_active_parameters,
            active(lambda c, n: n * (idle(c) - c.num_experts_per_tok) * expert(c)),
            "leave out those that are not",
        ),
        (check_active_parameters, active(lambda c, n: -n * c.hidden_size * c.num_experts), "scores all experts"),
        (check_active_parameters, active(lambda c, n: -n * c.hidden_size * idle(c)), "all its rows are active"),
        (check_active_parameters, active(lambda c, n: n * idle(c) * expert(c) // 3), "not two"),
        (check_active_parameters, active(lambda c, n: n * idle(c) * expert(c) // 3 * 2), "not one"),
        (
            check_active_parameters,
            active(lambda c, n: n * idle(c) * (expert(c) - 3 * c.hidden_size * c.intermediate_size)),
            "moe_intermediate_size",
        ),
        (check_active_parameters, active(lambda c, n: (n - 1) * idle(c) * expert(c)), "counted one layer"),
        (
            check_active_parameters,
            active(lambda c, n: (n - c.num_hidden_layers) * idle(c) * expert(c)),
            "only 4 have experts",
        ),
        (check_active_parameters, active(lambda c, n: -c.vocab_size * c.hidden_size), "two matrices here"),
        (check_active_parameters, lambda config: 5, "you say 5"),
        (check_route, empty, "still empty"),
        (check_route, silent, "return statement"),
        (check_route, lambda scores, k, normalize: right_weights(scores, k, normalize)[0], "expected two tensors"),
        (check_route, lambda scores, k, normalize: ([1], [2]), "expected two tensors"),
        (check_route, routes(change=lambda chosen, weight: (weight, chosen)), "weights come first"),
        (check_route, routes(change=lambda chosen, weight: (weight, weight)), "ids of experts"),
        (check_route, wrong_dimension, "dim=-1"),
        (check_route, routes(change=lambda chosen, weight: (chosen + 8, weight)), "no expert of this layer"),
        (check_route, least, "lowest scores"),
        (check_route, over_tokens, "other experts than the 3 likeliest"),
        (check_route, right_choice_over_tokens, "goes over the tokens"),
        (check_route, routes(scores="raw"), "scores themselves"),
        (check_route, routes(scores="chosen only"), "Softmax over all experts first"),
        (check_route, routes(normalized=True), "normalize=False: the weights of each token sum to 1"),
        (check_route, routes(normalized=False), "normalize=True: the weights of a token do not sum to 1"),
        (check_route, divided_by_all, "sum over all tokens"),
        (check_route, softmax_twice, "a second softmax"),
        (check_route, routes(change=lambda chosen, weight: (chosen.sort(dim=-1)[0], weight)), "not side by side"),
        (check_route, routes(change=lambda chosen, weight: (chosen, weight + 0.01)), "are not the softmax"),
        (check_dispatch, empty, "still empty"),
        (check_dispatch, silent, "return statement"),
        (check_dispatch, lambda x, *others: x.tolist(), "expected a tensor"),
        (check_dispatch, lambda x, *others: x[:, None], "one answer for each token"),
        (check_dispatch, lambda x, *others: torch.zeros_like(x), "nothing arrived"),
        (check_dispatch, dispatches(used=lambda weight, token, place: torch.ones(len(token))), "not weighted"),
        (check_dispatch, dispatches(used=lambda weight, token, place: torch.ones(len(token)) / 2), "plain mean"),
        (check_dispatch, dispatches(used=lambda weight, token, place: weight[token, 0]), "its first choice"),
        (check_dispatch, dispatches(used=lambda weight, token, place: weight.flip(1)[token, place]), "are exchanged"),
        (check_dispatch, dispatches(add=False), "overwritten"),
        (check_dispatch, dispatches(times=2), "counted twice"),
        (check_dispatch, lambda x, *others: x + dispatch(x, *others), "residual"),
        (check_dispatch, lambda *all: sorted_dispatch(*all, back=False), "in the experts' order"),
        (check_dispatch, lambda *all: sorted_dispatch(*all, weights_back=False), "their weights are in the experts'"),
        (check_dispatch, dispatches(skip=0), "is an expert left out"),
        (check_dispatch, into_its_own_input, "a tensor of its own"),
        (check_dispatch, counted_from_another_token, "1 of 9 tokens are wrong"),
        (check_dispatch, lambda x, *others: x * 3 + 1, "mixed up"),
        (check_dispatch, dispatches(select=False), "saves nothing"),
        (check_dispatch, token_by_token, "in 18 calls, and 5 suffice"),
        (check_dispatch, asks_nobodys, "skip one that nobody chose"),
        (check_dispatch, two_experts_only, "is a number fixed"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


def test_the_right_answers_of_the_checks_are_those_of_the_model(moe):
    """The oracle of exercise 1 counts by hand, that of exercise 2 is the layer's own router."""
    c = SMALL
    attention = 2 * c.hidden_size * c.head_dim * (c.num_attention_heads + c.num_key_value_heads) + 2 * c.head_dim
    experts = c.hidden_size * c.num_experts + c.num_experts_per_tok * 3 * c.hidden_size * c.moe_intermediate_size
    ordinary = 3 * c.hidden_size * c.intermediate_size
    norms = (2 * c.num_hidden_layers + 1) * c.hidden_size
    by_hand = 2 * c.vocab_size * c.hidden_size + 5 * attention + 4 * experts + ordinary + norms
    assert right_active(c) == by_hand
    assert right_active(PLAIN) == by_hand - ordinary + experts
    assert total_parameters(c) == moe.num_parameters()

    layer, x_NE = moe.blocks[0].feed_forward, torch.randn(6, c.hidden_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for mine, theirs in zip(right_weights(layer.router(x_NE), 3, True), layer.route(x_NE), strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("use_cache", [False, True])
def test_work_is_counted_as_the_shapes_say(dense, use_cache):
    ids, prompt = list(range(9)), 4
    steps = work_of_each_step(dense, ids, prompt, use_cache)
    layers, heads = DENSE.num_hidden_layers, DENSE.num_attention_heads
    matrices = sum(p.numel() for block in dense.blocks for p in block.parameters() if p.dim() == 2)
    head = DENSE.vocab_size * DENSE.hidden_size
    assert len(steps) == len(ids) - prompt
    for index, step in enumerate(steps):
        keys = prompt + index
        vectors = 1 if use_cache and index else keys
        assert step.positions == layers * vectors
        assert step.matrix_products == vectors * matrices + head  # the head sees the last token only
        assert step.scores == layers * heads * vectors * keys
        assert step.attention_products == 2 * DENSE.head_dim * step.scores
        assert step.calls > 0


def test_one_token_meets_every_active_matrix_once(moe):
    with torch.no_grad(), CountedWork() as work:
        moe(torch.zeros(1, 1, dtype=torch.int64))
    vectors = sum(p.numel() for p in moe.parameters() if p.dim() == 1)
    assert work.matrix_products == right_active(SMALL) - vectors - moe.token_embedding.weight.numel()


def test_grouped_products_count_as_those_of_a_loop():
    rows, matrices = torch.randn(6, 8), torch.randn(2, 8, 4)
    with CountedWork() as work:
        F.linear(rows, matrices[0].T)
    alone = work.matrix_products
    if not hasattr(F, "grouped_mm"):
        pytest.skip("this torch has no grouped product")
    with CountedWork() as work:
        F.grouped_mm(rows, matrices, offs=torch.tensor([2, 6], dtype=torch.int32))
    assert work.matrix_products == alone == 6 * 8 * 4


def test_routers_are_watched_text_by_text_and_let_go(moe):
    rows = [[1, 2, 3], [4, 5]]
    routings = routing_of(moe, rows)
    assert sorted(routings) == [0, 2, 3, 4]  # layer 1 has no experts
    for layer, routing in routings.items():
        assert routing.probability_NX.shape == (5, SMALL.num_experts) and routing.chosen_Nk.shape == (5, 3)
        torch.testing.assert_close(routing.probability_NX.sum(dim=1), torch.ones(5))
        assert routing.counts_X.sum() == 15 and len(routing.counts_X) == SMALL.num_experts
        assert not moe.blocks[layer].feed_forward.router._forward_hooks
    alone = routing_of(moe, rows[1:])
    torch.testing.assert_close(alone[2].probability_NX, routings[2].probability_NX[3:])


def test_no_hook_stays_when_the_watched_code_fails(moe):
    with pytest.raises(ZeroDivisionError), watched_routers(moe):
        _ = 1 / 0
    assert not moe.blocks[0].feed_forward.router._forward_hooks


def made_up_routing() -> tuple[list[str], Routing]:
    """Twelve tokens, three experts: " a" goes to 0, "." mostly to 2, the others anywhere."""
    tokens = [" a", ".", " a", ".", " dog", " a", ".", ".", " a", " cat", " a", "."]
    first = [0, 2, 0, 2, 1, 0, 1, 2, 0, 1, 1, 2]
    chosen_Nk = torch.tensor([[expert, (expert + 1) % 3] for expert in first])
    probability_NX = torch.full((12, 3), 0.1).scatter(1, chosen_Nk, torch.tensor([[0.6, 0.3]] * 12))
    return tokens, Routing(probability_NX, chosen_Nk)


def test_favourites_and_faithfulness_by_hand():
    tokens, routing = made_up_routing()
    assert favourites(tokens, routing) == {0: [(" a", 4, 5)], 1: [], 2: [(".", 4, 5)]}
    assert favourites(tokens, routing, at_least=1)[1] == [(" cat", 1, 1), (" dog", 1, 1)]
    assert favourites(tokens, routing, at_least=1, most=1)[1] == [(" cat", 1, 1)]
    assert faithfulness(tokens, routing) == 8 / 10
    assert faithfulness(tokens, routing, at_least=1) == 10 / 12
    assert routing.counts_X.tolist() == [8, 8, 8]


@pytest.mark.parametrize("use_cache", [False, True])
def test_decoded_is_what_generate_writes(dense, use_cache):
    prompts = [[1, 2], [3, 4, 5]]
    decoded = decode_all(dense, prompts, 6, (), use_cache)
    assert decoded.ids == [generate(dense, [prompt], 6)[0] for prompt in prompts]
    assert decoded.tokens_per_second > 0


def test_time_is_taken_for_every_length_both_ways(moe):
    seconds = seconds_per_token(moe, (2, 5, 9), repeats=2)
    assert list(seconds) == ["without cache", "with cache"]
    assert all(len(row) == 3 and min(row) > 0 for row in seconds.values())


def test_the_table_shows_what_is_not_filled_yet():
    text = variant_table({"dense": {"held": 1234, "texts": "alike"}, "MoE + cache": {"held": 0}}, ("held", "texts"))
    assert [line.split() for line in text.splitlines()] == [
        ["held", "texts"],
        ["dense", "1,234", "alike"],
        ["MoE", "+", "cache", "0", "."],
    ]
    assert len({len(line) for line in text.splitlines()}) == 1


@pytest.mark.parametrize("draw", ["four_variants", "query_path"])
def test_drawings_have_words_for_those_who_cannot_see_them(draw):
    image = getattr(lab_04_figures, draw)()
    assert image.data.startswith(b"\x89PNG") and len(image.alt) > 100


@pytest.mark.parametrize(("prompt", "new"), [(4, 6), (2, 1)])
def test_the_staircases_count_their_squares(prompt, new):
    alt = lab_04_figures.kept_or_again(prompt, new).alt
    without, cached = sum(range(prompt, prompt + new)), prompt + new - 1
    assert f"computed, {without} in all" in alt and f"computed, {cached} in all" in alt


def test_pictures_of_routing_name_experts_and_shares():
    tokens, routing = made_up_routing()
    alt = lab_04_figures.one_token(" a", routing, 0, [0.67, 0.33]).alt
    assert "expert 0 with probability 60 % and weight 0.67" in alt and "expert 1" in alt
    alt = lab_04_charts.router_map(tokens, {"first layer": routing, "last layer": routing}).alt
    assert "12 tokens by 3 experts" in alt and "' a' to experts 0 and 1" in alt
    alt = lab_04_charts.expert_usage({0: routing, 3: routing}).alt
    assert "layer 3: from 67 to 67 %" in alt and "66.7 %" in alt


def test_charts_tell_their_figures_in_words_too():
    two = {"with QK-norm": [9.9, 9.9], "without": [18.6, 4773.0]}
    weights = {"with QK-norm": [0.31, 0.31], "without": [0.35, 0.99]}
    charts = {
        lab_04_charts.score_growth((1, 16), two, 16.3, weights): ("9.9", "16", "4,773", "0.99"),
        lab_04_charts.time_against_length(
            (16, 32),
            {"dense": {"without cache": [0.01, 0.02], "with cache": [0.003] * 2}}
            | {"MoE": {"without cache": [0.01, 0.04], "with cache": [0.004] * 2}},
        ): ("10.0 to 20.0 ms", "4.0 to 4.0 ms"),
        lab_04_charts.held_and_active({"30B": (30_500, 3_300)}, 1000, "thousands"): ("held 30.50", "active 3.30"),
        lab_04_charts.variants_measured(
            {"speed": {"dense": 40, "MoE": 30}, "cache": {"dense": 0, "MoE": 512}}, ["tokens/s", "KiB"]
        ): ("dense 40 tokens/s", "MoE 512 KiB"),
    }
    for image, words in charts.items():
        assert image.data.startswith(b"\x89PNG")
        assert all(word in image.alt for word in words), image.alt
