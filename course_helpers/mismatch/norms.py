"""The embedding and the norms: differences by a factor."""

from .evidence import Cause, Evidence, Words, always, another_input, multiple, multiple_by_slice


def multiple_by_feature(evidence: Evidence) -> Words:
    return None if evidence.factors((0, 1)) is None else {}


def another_width(evidence: Evidence) -> Words:
    """Factors above and below 1, one a head: the mean over the heads was exchanged for each head's own."""
    factors = evidence.factors((3,), heads_of=evidence.config.head_dim)
    return {} if factors is not None and bool(factors.min() < 0.999 and factors.max() > 1.001) else None


CAUSES = (
    Cause(
        "position_embedding output",
        always,
        "positions are counted otherwise",
        "they begin at 0 with the first token that is no padding",
    ),
    Cause(
        "blocks.[*] input",
        multiple,
        "the embedding is {factor} times theirs: Gemma scales it by sqrt(width), rounded to the weights' own type",
        "compare `embed` with theirs",
    ),
    Cause(
        "blocks.[*] input",
        always,
        "the embedding is put together otherwise: learned positions missing, other ids, a norm too many",
        "compare `embed` with theirs",
    ),
    # Norms.
    Cause(
        "*_norm output",
        another_input,
        "the norm is given something else: it stands in another place (before or after its sublayer, before or after "
        "the rotation), or the residual sum before it differs",
        "compare the order of steps; post_attention_layernorm is another place in Llama than in Gemma 3 and OLMo 3",
    ),
    Cause(
        "*_norm output",
        multiple_by_feature,
        "each feature has a factor of its own: Gemma's norms scale by (1 + weight), all others by weight",
        "compare the norm's forward with theirs",
    ),
    Cause(
        "*.attention.*_norm output",
        another_width,
        "the mean is taken over another width: over each head in Qwen3 and Gemma 3, over all heads at once in OLMo 3",
        "look whether the norm comes before or after the cut into heads",
    ),
    Cause(
        "*_norm output",
        multiple_by_slice,
        "each slice is off by a factor of its own, {low} to {high}: another epsilon, or one outside of the root",
        "rms_norm_eps belongs inside: x / sqrt(mean(x^2) + eps)",
    ),
    Cause(
        "*_norm output",
        always,
        "the norm computes something else: with or without mean and bias (LayerNorm, RMSNorm), or, in half precision, "
        "rounded before the weight is applied or after it",
        "compare the norm's forward with theirs",
    ),
)
