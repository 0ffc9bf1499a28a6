"""M9-LAB-06's checks of exercises: each failure names the likely mistake.

Shape suffixes: T positions, D head dimension.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..architectures.config import FULL, SLIDING
from ..architectures.olmo3 import Olmo3Config, preset
from ..architectures.rope import RotaryEmbedding
from ..memory import kv_cache_bytes, weight_bytes
from .checkpoint import hint
from .exercises import answer

#: A small OLMo 3 no two of whose sizes are equal, so that no factor passes for another. Two layers see everything.
SMALL = dataclasses.replace(
    preset(width=48, heads=6, shared=3, layers=8, feed_forward=100),
    vocab_size=300,
    sliding_window=50,
    max_position_embeddings=4000,
)
Sublayer = Callable[[Tensor], Tensor]


def check_post_norm_block(block: Callable[[Tensor, Sublayer, Sublayer, Sublayer, Sublayer], Tensor]) -> None:
    """Exercise 1: OLMo 3's block out of two sublayers and two norms."""
    draw = torch.Generator().manual_seed(0)
    x, first, second = (torch.randn(5, 8, generator=draw), *torch.randn(2, 8, 8, generator=draw))

    def attention(y: Tensor) -> Tensor:
        return torch.tanh(y @ first)

    def feed_forward(y: Tensor) -> Tensor:
        return torch.tanh(y @ second) * 3

    def attention_norm(y: Tensor) -> Tensor:
        return F.rms_norm(y, (8,)) * 0.5

    def feed_forward_norm(y: Tensor) -> Tensor:
        return F.rms_norm(y, (8,)) * 2

    parts = x, attention, attention_norm, feed_forward, feed_forward_norm
    found = answer(block, *parts)
    hint(not isinstance(found, Tensor), f"expected a tensor, got a {type(found).__name__}")
    hint(found.shape != x.shape, f"x has the shape {tuple(x.shape)}, and the result {tuple(found.shape)}")
    after = x + attention_norm(attention(x))
    before = x + attention(attention_norm(x))
    around = attention_norm(x + attention(x))
    mistakes = {
        "that is the order of Llama: the norms come before. Here a sublayer reads x as it is, and its *output* is "
        "normalised": before + feed_forward(feed_forward_norm(before)),
        "the norm has swallowed the residual: it takes the sublayer's output alone, and x is added outside": (
            feed_forward_norm(around + feed_forward(around))
        ),
        "there is no residual: where is x added?": feed_forward_norm(feed_forward(attention_norm(attention(x)))),
        "the attention half is right; the feed-forward half is missing": after,
        "the attention half is right; what the feed-forward gives back is not normalised": after + feed_forward(after),
        "the attention half is right; the feed-forward's norm comes before it, as in a Llama": (
            after + feed_forward(feed_forward_norm(after))
        ),
        "the feed-forward read the block's input. It reads what the attention half has made of it": (
            after + feed_forward_norm(feed_forward(x))
        ),
        "the second residual is the block's input: it must be what the attention half has made of it": (
            x + feed_forward_norm(feed_forward(after))
        ),
        "the two norms are exchanged: each belongs to one sublayer, and they have different weights": (
            y := x + feed_forward_norm(attention(x))
        )
        + attention_norm(feed_forward(y)),
        "nothing is normalised": (y := x + attention(x)) + feed_forward(y),
    }
    for advice, wrong in mistakes.items():
        hint(torch.allclose(found, wrong, atol=1e-5), advice)
    right = after + feed_forward_norm(feed_forward(after))
    hint(not torch.allclose(found, right, atol=1e-5), "other numbers: x + norm(sublayer(x)), and this twice")
    print("Exercise 1: right. The norms are behind the sublayers, and the residual is outside.")


def right_longest_text(config: Olmo3Config, budget: int, bytes_each: int) -> int:
    """The most tokens whose cache fits beside the weights, found by trying."""
    dtype = {2: torch.bfloat16, 4: torch.float32}[bytes_each]
    room = budget - weight_bytes(config, dtype)
    fits = (
        length
        for length in range(config.max_position_embeddings, 0, -1)
        if kv_cache_bytes(config, length, dtype=dtype) <= room
    )
    return next(fits, 0)


def check_longest_text(longest_text: Callable[[Olmo3Config, int, int], int]) -> None:
    """Exercise 2: the longest text for a budget of memory, with layers of two types."""
    for bytes_each, room in ((4, 300_000), (2, 300_000), (2, 20_000), (2, 10**9), (4, -1)):
        budget = weight_bytes(SMALL, torch.bfloat16) * bytes_each // 2 + room
        found = answer(longest_text, SMALL, budget, bytes_each)
        hint(not isinstance(found, int), f"expected a whole number of tokens, got a {type(found).__name__}")
        hint_about_length(found, budget, room, bytes_each)
    print("Exercise 2: right. Five budgets: within the window, beyond it, to the model's limit, and none.")


def hint_about_length(found: int, budget: int, room: int, bytes_each: int) -> None:
    """Say what was forgotten, or taken for another thing."""
    expected = right_longest_text(SMALL, budget, bytes_each)
    limit, window, layers = SMALL.max_position_embeddings, SMALL.sliding_window, SMALL.num_hidden_layers
    full = SMALL.layer_plan.count(FULL)
    one = 2 * SMALL.num_key_value_heads * SMALL.head_dim * bytes_each  # bytes of a position in one layer

    def longest(room: int, one: int) -> int:
        """By the right formula, with other numbers in it; not limited."""
        short = room // (one * layers)
        return short if short <= window else (room - (layers - full) * window * one) // (one * full)

    queries = one * SMALL.num_attention_heads // SMALL.num_key_value_heads
    mistakes = {
        f"the model was made for {limit:,} tokens: however much memory there is, it is not longer": (
            longest(room, one) if longest(room, one) > limit else None
        ),
        "the weights do not fit, so there is no room for a single token: 0, and no negative number": (
            found if expected == 0 and found < 0 else None
        ),
        "that is the room if the budget were for the cache alone: the weights are there, too": longest(budget, one),
        "you let every layer keep every token. The sliding ones stop growing at their window": room // (one * layers),
        "you let every layer stop growing, or left the sliding ones out: both kinds hold something": room
        // (one * full),
        "you took the query heads: what is kept are the keys and values": longest(room, queries),
        "keys and values are two tensors: where is the 2?": longest(room, one // 2),
        f"where are the {bytes_each} bytes of one number?": longest(room, one // bytes_each),
    }
    for advice, wrong in mistakes.items():
        hint(wrong is not None and found != expected and found in (wrong, min(wrong, limit)), advice)
    case = f"with a budget of {budget:,} bytes at {bytes_each} bytes a number"
    hint(
        found < expected <= window,
        f"{case}: {expected} tokens fit, you say {found}. This text is shorter than the window of {window}: as long "
        "as the windows are not full, all layers grow alike",
    )
    hint(found != expected, f"{case}: {expected:,} tokens fit, and not {found:,}")


#: Rotary positions as config.json has them, at a size where kept, blended and slowed pairs can be told apart.
ROTARY = {
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 2048,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    },
    "head_dim": 64,
}


def right_tables(rotary: dict, layer_type: str, positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin, by the package."""
    data = SMALL.to_hf() | {"rope_theta": rotary["rope_theta"], "rope_scaling": rotary["rope_scaling"]}
    rope = Olmo3Config.from_hf(data).rope(layer_type)
    cos, sin = RotaryEmbedding(rope, rotary["head_dim"])(torch.arange(positions)[None], torch.float32)
    return cos[0, 0], sin[0, 0]


def check_rotary_tables(rotary_tables: Callable[[dict, str, int], tuple[Tensor, Tensor]]) -> None:
    """Exercise 3: cos and sin of either type of layer, from what stands in config.json."""
    count = 300
    shape, half = (count, ROTARY["head_dim"]), ROTARY["head_dim"] // 2
    for layer_type in (SLIDING, FULL):
        found = answer(rotary_tables, ROTARY, layer_type, count)
        hint(not isinstance(found, tuple) or len(found) != 2, "return two tables: cos and sin")
        shapes = [tuple(getattr(table, "shape", ())) for table in found]
        halves = [(count, half)] * 2
        hint(
            shapes == halves,
            f"each angle is needed twice, for both numbers of its pair: (T, {half}) must become {shape}",
        )
        hint(shapes != [shape] * 2, f"both tables should have the shape {shape}, yours have {shapes}")
        hint_about_tables(*found, layer_type)
    print("Exercise 3: right. Plain in the sliding layers, YaRN in the full ones, and both tables enlarged.")


def ramped(slowed: Tensor, plain: Tensor) -> Tensor:
    """Frequencies of which the share `slowed` is divided by the factor."""
    return plain / ROTARY["rope_scaling"]["factor"] * slowed + plain * (1 - slowed)


def hint_about_tables(cos_TD: Tensor, sin_TD: Tensor, layer_type: str) -> None:
    right_cos, right_sin = right_tables(ROTARY, layer_type, cos_TD.shape[0])
    scaling, half = ROTARY["rope_scaling"], ROTARY["head_dim"] // 2
    factor = 0.1 * math.log(scaling["factor"]) + 1

    def close(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one.double(), other.double(), atol=1e-3)

    if close(cos_TD, right_cos) and close(sin_TD, right_sin):
        return
    if layer_type == SLIDING:
        yarn = right_tables(ROTARY, FULL, cos_TD.shape[0])
        spoilt = close(cos_TD, yarn[0]) or close(cos_TD, yarn[0] / factor)
        hint(spoilt, "a sliding layer got YaRN: it never looks further back than its window, and stays as trained")
        hint(close(cos_TD, right_cos * factor), "a sliding layer got the attention factor: it belongs to YaRN alone")
        hint(close(cos_TD, right_sin), "cos and sin are exchanged")
        interleaved = right_cos[:, :half].repeat_interleave(2, dim=-1)
        hint(close(cos_TD, interleaved), "pair i is (i, i + D/2): all angles once, and then all of them once more")
        hint(True, "the sliding layers have other numbers: position x theta ** (-2 i / D), as everywhere")
    hint(close(cos_TD, right_sin), "cos and sin are exchanged")
    only_cos = close(cos_TD, right_cos) and close(sin_TD, right_sin / factor)
    only_sin = close(cos_TD, right_cos / factor) and close(sin_TD, right_sin)
    hint(
        only_cos or only_sin,
        f"the attention factor {factor:.4f} is on one of the tables only: cos and sin are both multiplied by it",
    )
    hint(
        close(cos_TD, right_cos / factor),
        f"the frequencies are right. config.json gives no attention_factor: it is 0.1 x ln(factor) + 1 = {factor:.4f}",
    )
    hint(close(cos_TD, right_cos * factor), "the attention factor was applied twice")
    hint_about_ramp(cos_TD, factor)


def hint_about_ramp(cos_TD: Tensor, factor: float) -> None:
    """The cos table of a full layer is wrong: by which ramp was it made?"""
    scaling, size = ROTARY["rope_scaling"], ROTARY["head_dim"]
    theta, pairs = ROTARY["rope_theta"], torch.arange(size // 2)
    plain = theta ** (-2 * pairs.double() / size)

    def pair_with(turns: float) -> float:
        length = scaling["original_max_position_embeddings"]
        return size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    def ramp(low: float, high: float) -> Tensor:
        return ((pairs - low) / (high - low)).clamp(0, 1)

    fast, slow = pair_with(scaling["beta_fast"]), pair_with(scaling["beta_slow"])
    low, high = math.floor(fast), math.ceil(slow)
    slowed = ramp(low, high)
    no_2_pi = [pair_with(scaling[beta] / (2 * math.pi)) for beta in ("beta_fast", "beta_slow")]
    steep = (pairs >= (low + high) / 2).double()
    mistakes = {
        "the ramp is reversed: the fast pairs, at the beginning, are kept, and the slow ones are slowed": 1 - slowed,
        "that slows every pair alike: pairs that turned often enough in training are kept": torch.ones(size // 2),
        "that is plain RoPE: a full layer has YaRN": torch.zeros(size // 2),
        "the ramp goes over all pairs: it begins at the pair that makes beta_fast turns": pairs / (size // 2 - 1),
        "the ramp is not held between 0 and 1: clamp it": (pairs - low) / (high - low),
        "there is a step where the ramp should be: between the two pairs it rises in a straight line": steep,
        "low is rounded down and high is rounded up, to whole pairs": ramp(fast, slow),
        "high is rounded *up*, to a whole pair": ramp(low, math.floor(slow)),
        "the ramp begins at the pair that makes beta_fast turns, and you began at beta_slow's": (
            ramp(math.floor(slow), math.ceil(fast))
        ),
        "one turn is 2 pi radians: the original length is divided by turns x 2 pi": (
            ramp(math.floor(no_2_pi[0]), math.ceil(no_2_pi[1]))
        ),
    }
    faster = plain * scaling["factor"] * slowed + plain * (1 - slowed)
    candidates = {advice: ramped(share, plain) for advice, share in mistakes.items()}
    candidates["the slow pairs were sped up: they are *divided* by the factor"] = faster
    positions = torch.arange(cos_TD.shape[0], dtype=torch.float64)[:, None]
    for advice, frequencies in candidates.items():
        angles = torch.cat((positions * frequencies,) * 2, dim=-1)
        for scale in (factor, 1.0):
            hint(torch.allclose(cos_TD.double(), angles.cos() * scale, atol=1e-3), advice)
    hint(True, "the full layers have other numbers: compare your ramp, pair by pair, with section 4's")
