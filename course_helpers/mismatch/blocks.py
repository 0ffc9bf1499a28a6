"""Attention and the feed-forward, the sums around them, and the head.

Shape suffixes: B batch, T tokens, H query heads, K key/value heads, D head dimension.
"""

import math
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from .evidence import Cause, Evidence, Words, always, another_input, multiple, multiple_by_slice
from .points import exact


def heads_dealt_otherwise(evidence: Evidence) -> Words:
    """The first token sees itself only, so its result is its own value, once for each query head."""
    first = (value[:, 0].sort(dim=-1).values for value in (evidence.ours, evidence.theirs))
    return {} if evidence.position == 0 and evidence.close(*first) else None


def first_token(evidence: Evidence) -> Words:
    return {} if evidence.position == 0 else None


def at_the_window(evidence: Evidence) -> Words:
    """Only what is visible can make a difference that begins later than at the second token."""
    window = evidence.config.sliding_window
    if evidence.position < 2 and evidence.position != window:
        return None
    return {"window": window, "layer_type": evidence.layer_type}


def scores_scaled(evidence: Evidence) -> Words:
    """The second token mixes two values; the logarithm of their weights' ratio is the difference of two scores."""
    value = evidence.near(evidence.point.ours.removesuffix("output") + "value", "output")
    if evidence.position != 1 or value is None or value.their_value is None:
        return None
    heads, head_dim = evidence.config.num_attention_heads, evidence.config.head_dim
    value_B2KD = exact(value.their_value[:, :2]).unflatten(-1, (-1, head_dim))
    value_B2HD = value_B2KD.repeat_interleave(heads // value_B2KD.shape[2], dim=2)
    start_BHD, step_BHD = value_B2HD[:, 0], value_B2HD[:, 1] - value_B2HD[:, 0]
    score_BH = []
    for mixed in (evidence.ours, evidence.theirs):
        moved_BHD = mixed[:, 1].unflatten(-1, (heads, head_dim)) - start_BHD
        score_BH.append(((moved_BHD * step_BHD).sum(-1) / step_BHD.square().sum(-1)).logit())
    ratio_BH = score_BH[0] / score_BH[1]
    middle = ratio_BH.median()
    return {"ratio": f"{float(middle):.4g}"} if bool(((ratio_BH / middle - 1).abs() < 1e-2).all()) else None


def activation(evidence: Evidence, swapped: bool) -> Words:
    """Which function of the gate, or of gate and up exchanged, gives what ours has."""
    name = evidence.point.ours.removesuffix("down")
    points = [evidence.near(f"{name}{part}", "output") for part in ("gate", "up")]
    values = [exact(point.their_value) for point in points if point is not None and point.their_value is not None]
    first, *factors = reversed(values) if swapped else values  # GPT-2 has no gate: it activates up
    for function, apply in ACTIVATIONS.items():
        if evidence.close(evidence.ours, math.prod(factors, start=apply(first))):
            return {"function": function}
    return None


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "SiLU": F.silu,
    "GELU in its tanh form": partial(F.gelu, approximate="tanh"),
    "exact GELU": F.gelu,
    "ReLU": F.relu,
}
another_activation = partial(activation, swapped=False)
gate_and_up_exchanged = partial(activation, swapped=True)

PROJECTIONS = "|".join(f"*.attention.{part} output" for part in ("query", "key", "value"))
INTO_FEED_FORWARD = "|".join(f"*.feed_forward.{part} output" for part in ("gate", "up", "router"))
SUMS = "*.attention.output output|*.attention output|*.feed_forward.down output"

CAUSES = (
    Cause(
        f"{PROJECTIONS}|{INTO_FEED_FORWARD}",
        another_input,
        "the projection is given something else: the norm before it is missing, is another one, or is one too many",
        "Llama, Qwen3 and Gemma 3 have a norm before each half of a block, OLMo 3 has none",
    ),
    Cause(
        f"{PROJECTIONS}|{INTO_FEED_FORWARD}",
        always,
        "the same matrix gives another result: a bias on one side only (Qwen2 has one), or another precision",
        "compare the projections' biases",
    ),
    # Attention.
    Cause(
        "*.attention.output input",
        heads_dealt_otherwise,
        "the key/value heads are dealt out in another order: repeat in the place of repeat_interleave",
        "each serves consecutive query heads",
    ),
    Cause(
        "*.attention.output input",
        first_token,
        "the first token differs already, which may see itself only: the mask lets it see later ones, or the values "
        "are mixed up",
        "print the mask of four tokens: a lower triangle",
    ),
    Cause(
        "*.attention.output input",
        at_the_window,
        "the sliding window ({window} in ours, and to us this is a {layer_type} layer): one position too many or too "
        "few is seen, or the pattern of layers is shifted",
        "position j is visible to i if i - j < window; compare layer_types",
    ),
    Cause(
        "*.attention.output input",
        scores_scaled,
        "the scores are {ratio} times theirs: 1 / sqrt(head_dim), in Gemma 3 1 / sqrt(query_pre_attn_scalar)",
        "compare the factor that both give to attention",
    ),
    Cause(
        "*.attention.output input",
        always,
        "projections, norms and tables agree, the scores do not: another rotation (pairs are i and i + head_dim / 2), "
        "a mask that shows other positions, or another scale",
        "compare the scores of the second token",
    ),
    # Feed-forward.
    Cause(
        "*.feed_forward.down input",
        gate_and_up_exchanged,
        "gate and up are swapped: ours is {function} of up, times gate",
        "the activation belongs to the gate: down(activation(gate) * up)",
    ),
    Cause(
        "*.feed_forward.down input",
        another_activation,
        "another activation: ours is {function}",
        "config.json says which one, in hidden_act, hidden_activation or activation_function",
    ),
    Cause(
        "*.router chosen",
        always,
        "other experts are chosen though the scores agree: another number of them, or a near tie that rounding decides",
        "num_experts_per_tok says how many; for ties compare in float32",
    ),
    Cause(
        "*.router weights",
        multiple_by_slice,
        "the chosen experts' weights are {low} to {high} times theirs: they sum to 1 on one side only",
        "norm_topk_prob of config.json decides; transformers takes it for false where it is missing",
    ),
    Cause(
        "*.router weights",
        always,
        "the chosen experts are weighted otherwise",
        "softmax over all experts, then choose, then divide by the sum if norm_topk_prob says so",
    ),
    Cause(
        "*.feed_forward output",
        always,
        "the router agrees, so the experts or their mixture differ: gate and up rows exchanged, tokens given back in "
        "another order, weights not applied",
        "send one token through one expert by hand",
    ),
    # What is put together.
    Cause(
        SUMS,
        always,
        "what goes in agrees: a bias on one side only, or a factor after the projection",
        "compare the last lines of both forwards",
    ),
    Cause(
        "blocks.[*] output",
        always,
        "both halves of the block agree, so the residual sum differs",
        "x + attention, and then that + feed-forward",
    ),
    Cause(
        " logits",
        multiple,
        "the logits are {factor} times theirs, though the final norm agrees: they are scaled on one side only",
        "compare the last lines of both forwards",
    ),
    Cause(
        " logits",
        always,
        "the final norm agrees, so it is the head: another matrix (tied or not), a bias, or soft-capping",
        "tie_word_embeddings of config.json says whether the embedding is the head",
    ),
)
