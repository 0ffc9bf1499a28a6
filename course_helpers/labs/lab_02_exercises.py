"""Check functions for exercises 1 and 2 of M9-LAB-02, the norm and the count: each failure names the likely mistake."""

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..architectures.layers import RMSNorm
from ..architectures.llama import LLAMA_2_PRESETS, LLAMA_3_PRESETS, LlamaConfig, LlamaModel
from ..architectures.rope import RopeParameters
from .checkpoint import hint
from .exercises import answer
from .lab_02 import close


def check_rms_norm(rms_norm: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Exercise 1: RMSNorm as a function, in float32 and in bfloat16."""
    generator = torch.Generator().manual_seed(1)
    x, eps = torch.randn(3, 5, 48, generator=generator) + 0.7, 1e-5
    weight = torch.rand(48, generator=generator) + 0.5
    for scale in (1.0, 1e-3):  # small values show where epsilon is
        given = x * scale
        found = answer(rms_norm, given, weight, eps)
        hint(not isinstance(found, Tensor), f"expected a tensor, got a {type(found).__name__}")
        hint(not torch.equal(given, x * scale), "x was changed: give back a new tensor")
        hint(found.shape != x.shape, f"the shape must stay {tuple(x.shape)}, yours is {tuple(found.shape)}")
        hint_about_norm(found, given, weight, eps)
    half = x.bfloat16()
    found = answer(rms_norm, half, weight.bfloat16(), eps)
    hint_about_rounding(found, half, weight.bfloat16(), eps)
    print("Exercise 1: right. In float32, and in bfloat16 to the last bit.")


def right_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The package's norm, with these weights."""
    norm = RMSNorm(len(weight), eps).to(x.dtype)
    with torch.no_grad():
        norm.weight.copy_(weight)
        return norm(x)


def hint_about_norm(found: Tensor, x: Tensor, weight: Tensor, eps: float) -> None:
    """Compare with what the usual mistakes would give."""
    square, width = x.pow(2).mean(-1, keepdim=True), x.shape[-1]
    centred = x - x.mean(-1, keepdim=True)
    right = right_norm(x, weight, eps)
    mistakes = {
        "the mean was subtracted (a variance does so, too): that is LayerNorm. RMSNorm leaves the mean where it is": (
            weight * x * torch.rsqrt(x.var(-1, keepdim=True) + eps),
            weight * x * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + eps),
            weight * F.layer_norm(x, (width,), eps=eps),
            weight * centred * torch.rsqrt(square + eps),
        ),
        "the weight is missing: multiply every feature by its own": (x * torch.rsqrt(square + eps),),
        "1 + weight is Gemma's way; Llama multiplies by the weight itself": (right + right / weight,),
        "you took the sum of the squares: the M in RMS is their mean": (
            weight * x * torch.rsqrt(square * width + eps),
        ),
        "is the root missing? divide by the square root of the mean square": (weight * x / (square + eps),),
        "multiplied, not divided, by the root mean square": (weight * x * (square + eps).sqrt(),),
        "is your epsilon inside the square root? it is added to the mean square, before the root": (
            weight * x / (square.sqrt() + eps),
        ),
        "where is epsilon? without it a vector of zeros is divided by 0": (weight * x * torch.rsqrt(square),),
        "the mean goes over the features of each token alone: mean(-1, keepdim=True)": (
            weight * x * torch.rsqrt(x.pow(2).mean() + eps),
            weight * x * torch.rsqrt(x.pow(2).mean(0, keepdim=True) + eps),
            weight * x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + eps),
        ),
    }
    if close(found, right):
        return
    for advice, wrongs in mistakes.items():
        hint(any(close(found, wrong) for wrong in wrongs), advice)
    hint(True, "other numbers than weight * x / sqrt(mean(x^2) + eps): compute one short vector by hand, and compare")


def hint_about_rounding(found: Tensor, x: Tensor, weight: Tensor, eps: float) -> None:
    """bfloat16: where the squares are taken, and when the result is rounded."""
    right = right_norm(x, weight, eps)
    hint(found.dtype != x.dtype, f"x is {x.dtype} and your result {found.dtype}: the next layer expects x's type")
    scaled = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    late = (weight.float() * scaled).to(x.dtype)
    hint(
        torch.equal(found, late) and not torch.equal(late, right),
        "right to within a rounding: Llama rounds to x's type first and multiplies by the weight then; you rounded "
        "after the weight, as Gemma and OLMo do",
    )
    hint(
        not torch.equal(found, right),
        "in bfloat16 the last bits differ: take the squares in float32 (x.float()), and go back to x's type before the "
        "weight is applied",
    )


#: Small, and every size another, so that one cannot be taken for another.
SMALL = LlamaConfig(
    vocab_size=101,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=6,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
)


def check_count(count_parameters: Callable[[LlamaConfig], int]) -> None:
    """Exercise 2: the parameters of a Llama from its config, held to models on the meta device."""
    seven, _, seventy = (LLAMA_2_PRESETS[f"meta-llama/Llama-2-{size}-hf"] for size in ("7b", "13b", "70b"))
    tied = LLAMA_3_PRESETS["meta-llama/Llama-3.2-1B"]
    cases = {
        "a small one": SMALL,
        "the same, tied": replace(SMALL, tie_word_embeddings=True),
        "Llama 2 7B": seven,
        "Llama 2 70B, with 8 key/value heads for 64 query heads": seventy,
        "Llama 3.2 1B, tied, with 8 key/value heads for 32": tied,
    }
    for name, config in cases.items():
        found = answer(count_parameters, config)
        hint(not isinstance(found, int), f"expected a whole number, got a {type(found).__name__}")
        hint_about_count(name, config, found - true_count(config), true_count(config))
    print("Exercise 2: right. Five models, from 20 thousand parameters to 69 billion.")


@functools.cache
def true_count(config: LlamaConfig) -> int:
    """The parameters of a model that is built, without memory."""
    with torch.device("meta"):
        return LlamaModel(config).num_parameters()


def hint_about_count(name: str, config: LlamaConfig, over: int, expected: int) -> None:
    """Say which part was forgotten or counted twice."""
    layers, width, hidden = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    inside = config.num_attention_heads * config.head_dim
    shared = config.num_key_value_heads * config.head_dim
    head = config.vocab_size * width
    causes = {
        "the output head is a matrix of its own here: tie_word_embeddings is false": -head,
        "tied: the embedding serves as the head and is counted once": head,
        "where are the norms? two in each block, and one at the end": -(2 * layers + 1) * width,
        "one norm is missing: the one after the last block": -width,
        "each block has two norms": -layers * width,
        "a norm of Llama has no bias": (2 * layers + 1) * width,
        "the feed-forward has three matrices: gate, up and down": -layers * width * hidden,
        "keys and values have num_key_value_heads heads, not as many as the queries": 2
        * layers
        * width
        * (inside - shared),
        "the attention has four matrices: query, key, value and output": -layers * width * inside,
        "there are no biases in a Llama's attention": layers * (inside + 2 * shared + width),
        "there are no biases in a Llama": layers * (inside + 2 * shared + 2 * hidden + 2 * width),
        "there are no learned positions: rotary positions have no parameters": config.max_position_embeddings * width,
        "all layers, please: num_hidden_layers": -(layers - 1)
        * (2 * width * (inside + shared) + 3 * width * hidden + 2 * width),
    }
    for advice, difference in causes.items():
        hint(difference != 0 and over == difference, f"{name}: {advice}")
    hint(over != 0, f"{name}: {expected:,} parameters, and you have {abs(over):,} too {'many' if over > 0 else 'few'}")
