"""Mistakes put into a model in hand, with what `first_mismatch` must make of them. Those of code are in tests/traps."""

from collections.abc import Callable

import torch

from course_helpers.architectures.base import LanguageModel

Spoil = Callable[[LanguageModel], object]


def returns(module: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    """The module returns something else."""
    return lambda model: model.get_submodule(module).register_forward_hook(lambda m, args, output: change(output))


def is_given(module: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    return lambda model: model.get_submodule(module).register_forward_pre_hook(
        lambda m, args: (change(args[0]), *args[1:])
    )


def holds(parameter: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(model: LanguageModel) -> None:
        tensor = model.get_parameter(parameter)
        tensor.data = change(tensor.data)

    return spoil


def one_expert_less(model: LanguageModel) -> None:
    model.blocks[0].feed_forward.experts_per_token -= 1


def squared_weights(model: LanguageModel) -> None:
    mixture = model.blocks[2].feed_forward
    route = mixture.route

    def squared(x_NE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen_Nk, weight_Nk = route(x_NE)
        return chosen_Nk, weight_Nk.square()

    mixture.route = squared


def coarse_frequencies(model: LanguageModel) -> None:
    rotary = model.rotary_embeddings["full_attention"]
    rotary.inverse_frequencies = rotary.inverse_frequencies.bfloat16().float()


def paired(weight: torch.Tensor) -> torch.Tensor:
    """Rows of heads of 8 in pairs, as Meta's files have them."""
    return weight.unflatten(0, (-1, 2, 4)).transpose(1, 2).flatten(0, 2)


#: Mistake -> family, what is done, the place that must be named, and words of its first cause.
FAULTS: dict[str, tuple[str, Spoil, str, str]] = {
    "trained on": (
        "llama3",
        holds("blocks.1.attention.key.weight", lambda w: w + 0.1),
        "blocks.1.attention.key.weight weight",
        "trained in between",
    ),
    "rounded": (
        "olmo3",
        holds("final_norm.weight", lambda w: w.bfloat16().float()),
        "final_norm.weight weight",
        "rounded",
    ),
    "rows in pairs": (
        "llama3",
        holds("blocks.0.attention.query.weight", paired),
        "blocks.0.attention.query.weight weight",
        "in pairs",
    ),
    "norms stored with their 1": (
        "gemma3",
        holds("final_norm.weight", lambda w: w + 1),
        "final_norm.weight weight",
        "differ by 1",
    ),
    "a weight that is no number": (
        "qwen3",
        holds("blocks.2.feed_forward.up.weight", lambda w: w * torch.nan),
        "blocks.2.feed_forward.up.weight weight",
        "not finite",
    ),
    "experts mixed up": (
        "qwen3_moe",
        holds("blocks.2.feed_forward.experts.down", lambda w: w.roll(1, dims=0)),
        "blocks.2.feed_forward.experts.down weight",
        "another order",
    ),
    "positions from 1": (
        "gpt2",
        is_given("position_embedding", lambda p: p + 1),
        "position_embedding output",
        "positions",
    ),
    "other ids": (
        "qwen3",
        returns("token_embedding", lambda x: x.roll(1, dims=1)),
        "blocks.0 input",
        "put together otherwise",
    ),
    "frequencies rounded": (
        "llama2",
        coarse_frequencies,
        "rotary_embeddings.full_attention cos",
        "rounded to half precision",
    ),
    "a bias": (
        "llama3",
        returns("blocks.1.attention.value", lambda x: x + 0.1),
        "blocks.1.attention.value output",
        "a bias",
    ),
    "a bias in GPT-2's fused projection": (
        "gpt2",
        returns("blocks.1.attention.key", lambda x: x + 0.1),
        "blocks.1.attention.key output",
        "a bias",
    ),
    "a factor after attention": (
        "olmo3",
        returns("blocks.0.attention.output", lambda x: 2 * x),
        "blocks.0.attention.output output",
        "a factor",
    ),
    "a mean subtracted": (
        "llama2",
        returns("final_norm", lambda x: x - x.mean(-1, keepdim=True)),
        "final_norm output",
        "LayerNorm",
    ),
    "another sum before a norm": (
        "gemma3",
        is_given("blocks.3.feed_forward_norm", lambda x: x + x.roll(1, dims=1)),
        "blocks.3.feed_forward_norm output",
        "residual sum",
    ),
    "no norm before the feed-forward": (
        "llama3",
        is_given("blocks.1.feed_forward.gate", lambda x: 2 * x),
        "blocks.1.feed_forward.gate output",
        "norm before it",
    ),
    "infinity": (
        "qwen3",
        returns("blocks.3.feed_forward.down", lambda x: x * torch.inf),
        "blocks.3.feed_forward.down output",
        "not finite",
    ),
    "one expert too few": (
        "qwen3_moe",
        one_expert_less,
        "blocks.0.feed_forward.router chosen",
        "another number of them",
    ),
    "experts weighted otherwise": (
        "qwen3_moe",
        squared_weights,
        "blocks.2.feed_forward.router weights",
        "weighted otherwise",
    ),
    "another shape": (
        "llama2",
        returns("blocks.1.attention", lambda x: x[:1]),
        "blocks.1.attention output",
        "(1, 40, 24) and (2, 40, 24)",
    ),
    "the residual sum": (
        "qwen3",
        returns("blocks.1", lambda x: 2 * x),
        "blocks.1 output",
        "residual sum",
    ),
    "scaled logits": (
        "gemma3",
        returns("", lambda x: x / 4),
        " logits",
        "0.25 times",
    ),
    "soft-capped logits": (
        "gemma3",
        returns("", lambda x: 3 * torch.tanh(x / 3)),
        " logits",
        "soft-capping",
    ),
}
