"""Check functions for exercises 1 and 2 of M9-LAB-04: each failure names the likely mistake.

The third is in `lab_04_dispatch.py`. Shape suffixes: N tokens, X experts, k experts per token.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..architectures.config import FULL
from ..architectures.qwen3 import Qwen3MoeConfig, Qwen3MoeModel
from ..architectures.rope import RopeParameters
from .checkpoint import hint
from .exercises import answer

#: Every size differs from every other that could be taken for it; layer 1 of 5 has an ordinary feed-forward.
SMALL = Qwen3MoeConfig(
    vocab_size=37,
    hidden_size=20,
    intermediate_size=44,
    num_hidden_layers=5,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
    tie_word_embeddings=False,
    layer_types=(FULL,) * 5,
    num_experts=7,
    num_experts_per_tok=3,
    moe_intermediate_size=9,
    norm_topk_prob=True,
    mlp_only_layers=(1,),
)
PLAIN = dataclasses.replace(SMALL, mlp_only_layers=())


def total_parameters(config: Qwen3MoeConfig) -> int:
    with torch.device("meta"):
        return Qwen3MoeModel(config).num_parameters()


def right_active(config: Qwen3MoeConfig) -> int:
    """Parameters that one token makes use of: all but those of the experts it is not sent to."""
    sparse = sum(config.is_sparse(layer) for layer in range(config.num_hidden_layers))
    idle = config.num_experts - config.num_experts_per_tok
    return total_parameters(config) - sparse * idle * 3 * config.hidden_size * config.moe_intermediate_size


def check_active_parameters(active_parameters: Callable[[Qwen3MoeConfig], int]) -> None:
    """Exercise 1: active parameters, against the model that the config builds."""
    for config in (PLAIN, SMALL):
        found, expected = answer(active_parameters, config), right_active(config)
        hint(not isinstance(found, int), f"expected a whole number of parameters, got a {type(found).__name__}")
        total, width, layers = total_parameters(config), config.hidden_size, config.num_hidden_layers
        sparse = sum(config.is_sparse(layer) for layer in range(layers))
        experts, asked, inner = config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size
        one = 3 * width * inner
        routers = sparse * width * experts
        causes = {
            total: "these are the parameters that must be held: how many of the experts answer for one token?",
            total - sparse * (experts - 1) * one: f"a token is sent to {asked} experts, not to one",
            total
            - sparse * experts * one: f"the {asked} experts that are asked are missing: leave out the idle ones only",
            total - sparse * asked * one: "you left out the experts that are asked; leave out those that are not",
            expected - routers: "the router is a matrix, too, and every token goes through it: it scores all experts",
            expected - routers + sparse * width * asked: "the router scores all experts for every token, so all its "
            "rows are active, not only those of the chosen ones",
            total - sparse * (experts - asked) * 2 * width * inner: "an expert is a SwiGLU: three matrices, not two",
            total - sparse * (experts - asked) * width * inner: "an expert is a SwiGLU: three matrices, not one",
            total - sparse * (experts - asked) * 3 * width * config.intermediate_size: "that is the inner width of an "
            "ordinary feed-forward; an expert's is moe_intermediate_size",
            total - (experts - asked) * one: f"there are experts in each of {sparse} layers, and you counted one layer",
            total - layers * (experts - asked) * one: f"of the {layers} layers only {sparse} have experts: ask "
            "config.is_sparse(layer) for each",
            expected - config.vocab_size * width: "embedding and output head are two matrices here: "
            "tie_word_embeddings is False",
        }
        for value, advice in causes.items():
            hint(found == value and value != expected, advice)
        hint(found != expected, f"this config has {expected:,} active parameters of {total:,}, and you say {found:,}")
    print("Exercise 1: right. Counted on the model, with and without a layer that has no experts.")


def right_weights(scores_NX: Tensor, k: int, normalize: bool) -> tuple[Tensor, Tensor]:
    weight_Nk, chosen_Nk = scores_NX.softmax(dim=-1).topk(k, dim=-1)
    return chosen_Nk, weight_Nk / weight_Nk.sum(dim=-1, keepdim=True) if normalize else weight_Nk


def scattered(chosen_Nk: Tensor, weight_Nk: Tensor, experts: int) -> Tensor:
    """(N, X): each expert's weight, 0 for those not chosen. The order within a row no longer matters."""
    return torch.zeros(len(chosen_Nk), experts).scatter(1, chosen_Nk, weight_Nk.float())


def check_route(route: Callable[[Tensor, int, bool], tuple[Tensor, Tensor]]) -> None:
    """Exercise 2: the router's choice and its weights, with and without normalising."""
    tokens, experts, k = 6, 8, 3
    scores_NX = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(4)) * 2
    for normalize in (False, True):
        found = answer(route, scores_NX.clone(), k, normalize)
        hint(not (isinstance(found, tuple) and len(found) == 2), "expected two tensors: return chosen_Nk, weight_Nk")
        chosen_Nk, weight_Nk = found
        hint(not all(isinstance(part, Tensor) for part in found), "expected two tensors, the ids and the weights")
        hint(
            chosen_Nk.is_floating_point() and not weight_Nk.is_floating_point(),
            "the weights come first: return the ids of the experts, then their weights (topk gives values, indices)",
        )
        hint(chosen_Nk.is_floating_point(), "the first tensor must hold ids of experts, whole numbers")
        for part in found:
            hint(
                part.shape != (tokens, k),
                f"expected shape {(tokens, k)}, tokens x experts asked, got {tuple(part.shape)}: along which "
                "dimension did you choose? dim=-1 is that of the experts",
            )
        hint_about_choice(scores_NX, chosen_Nk, f"normalize={normalize}")
        hint_about_weights(scores_NX, chosen_Nk, weight_Nk, normalize)
    print("Exercise 2: right. Softmax over all experts, then the choice, then the sum to 1 where it is asked for.")


def hint_about_choice(scores_NX: Tensor, chosen_Nk: Tensor, case: str) -> None:
    """Say which experts were chosen instead of the likeliest."""
    k, experts = chosen_Nk.shape[1], scores_NX.shape[1]
    hint(not bool(((chosen_Nk >= 0) & (chosen_Nk < experts)).all()), f"{case}: an id is no expert of this layer")
    found = [set(row) for row in chosen_Nk.tolist()]
    likeliest, lowest = (
        [set(row) for row in scores_NX.topk(k, dim=-1, largest=largest).indices.tolist()] for largest in (True, False)
    )
    hint(found == lowest, f"{case}: these are the experts with the lowest scores; the likeliest are asked")
    hint(
        found != likeliest,
        f"{case}: other experts than the {k} likeliest of each token. Over which dimension is your softmax? Each token "
        "chooses among the experts: dim=-1",
    )


def hint_about_weights(scores_NX: Tensor, chosen_Nk: Tensor, weight_Nk: Tensor, normalize: bool) -> None:
    """Say what the weights are instead of what they should be; the choice is right."""
    case, k, experts = f"normalize={normalize}", chosen_Nk.shape[1], scores_NX.shape[1]
    right_chosen, right_weight = right_weights(scores_NX, k, normalize)
    expected = scattered(right_chosen, right_weight, experts)
    found = scattered(chosen_Nk, weight_Nk, experts)

    def same(other_NX: Tensor) -> bool:
        return torch.allclose(found, other_NX, atol=1e-5)

    other = scattered(*right_weights(scores_NX, k, not normalize), experts)
    only_chosen = scattered(right_chosen, scores_NX.gather(1, right_chosen).softmax(dim=-1), experts)
    column = scattered(right_chosen, scores_NX.softmax(dim=0).gather(1, right_chosen), experts)
    raw = scattered(right_chosen, scores_NX.gather(1, right_chosen), experts)
    hint(same(raw), f"{case}: these are the scores themselves; softmax turns them into probabilities")
    hint(
        not normalize and same(only_chosen),
        f"{case}: the weights of each token sum to 1, so they were scaled up, or the softmax saw the chosen ones only. "
        "Softmax over all experts first, then choose",
    )
    hint(normalize and same(other), f"{case}: the weights of a token do not sum to 1: divide them by their sum")
    again = scattered(right_chosen, right_weights(scores_NX, k, False)[1].softmax(dim=-1), experts)
    hint(
        normalize and same(again),
        f"{case}: a second softmax makes a sum of 1, too, but other weights: divide by the sum instead",
    )
    hint(
        normalize and torch.allclose(found, other / other.sum(), atol=1e-5),
        f"{case}: you divided by the sum over all tokens; each token has a sum of its own (dim=-1, keepdim=True)",
    )
    hint(
        same(column) or (normalize and same(column / column.sum(dim=-1, keepdim=True))),
        f"{case}: your softmax goes over the tokens (dim=0); each token chooses among the experts: dim=-1",
    )
    right_values, values = right_weight.sort(dim=-1).values, weight_Nk.float().sort(dim=-1).values
    hint(
        not same(expected) and torch.allclose(values, right_values, atol=1e-5),
        f"{case}: right experts and right weights, but not side by side: was one of the two sorted, and not the other?",
    )
    hint(not same(expected), f"{case}: these weights are not the softmax over all {experts} experts at the chosen ones")
