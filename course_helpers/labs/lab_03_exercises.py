"""Check functions for the exercises of M9-LAB-03: each failure names the likely mistake."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..architectures.llama import LlamaConfig
from ..architectures.rope import RopeParameters
from ..sizes import kv_cache_bytes
from .checkpoint import hint
from .exercises import answer

#: Every size differs from every other that could be taken for it: heads x head_dim is not the width, and so on.
SMALL = LlamaConfig(
    vocab_size=29,
    hidden_size=26,
    intermediate_size=36,
    num_hidden_layers=7,
    num_attention_heads=12,
    num_key_value_heads=3,
    head_dim=10,
    max_position_embeddings=640,
    rms_norm_eps=1e-5,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
)


def whole(found: object, what: str) -> None:
    hint(type(found) is not int, f"expected a whole number of {what}, got a {type(found).__name__}")


def check_bytes_saved(bytes_saved: Callable[[LlamaConfig, int, int], int]) -> None:
    """Exercise 1: cache bytes that sharing saves, for two lengths and two number types."""
    for length, each in ((11, 4), (13, 2)):
        found = answer(bytes_saved, SMALL, length, each)
        whole(found, "bytes")
        hint_about_saving(found, length, each)
    print("Exercise 1: right. To the byte, in two number types.")


def hint_about_saving(found: int, length: int, each: int) -> None:
    """Say which factor was forgotten, or what was counted instead."""
    config = SMALL
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    one_head = 2 * config.num_hidden_layers * config.head_dim * length * each
    expected = (heads - shared) * one_head
    instead = {
        "that is the cache with sharing. What would it be without, and what is the difference?": shared * one_head,
        "that is the cache without sharing: how much of it is left when heads are shared?": heads * one_head,
        "the other way round: what is saved is what it would take without sharing, less what it takes": -expected,
        "you saved the heads of a group: there are fewer key/value heads by H - K, not by H / K": one_head
        * (heads // shared),
    }
    for advice, wrong in instead.items():
        hint(found == wrong, advice)
    hint(
        found * config.head_dim == expected * (config.hidden_size // heads),
        "you took hidden_size / heads for the numbers of one head: head_dim is a field of its own",
    )
    forgotten = {
        "keys and values are two tensors: where is the 2?": 2,
        f"each of the {config.num_hidden_layers} layers has a cache of its own": config.num_hidden_layers,
        "where is the length of the text?": length,
        "where is head_dim, the numbers of one head?": config.head_dim,
        "where are the bytes of one number?": each,
    }
    for advice, factor in forgotten.items():
        hint(found * factor == expected, advice)
    hint(found != expected, f"for {length} tokens of {each} bytes a number it is {expected:,} bytes, not {found:,}")


def check_longest_text(longest_text: Callable[[LlamaConfig, int, int, int], int]) -> None:
    """Exercise 2: how long a text fits beside the weights: some of it, all of it, none of it."""
    per_token = kv_cache_bytes(SMALL, 1, dtype=torch.bfloat16)
    weights, limit = 10_000, SMALL.max_position_embeddings
    cases = ((weights + 37 * per_token + 5, 37), (weights + 9 * limit * per_token, limit), (weights - 400, 0))
    for memory, expected in cases:
        found = answer(longest_text, SMALL, weights, memory, 2)
        case = f"{weights:,} bytes of weights in {memory:,} bytes of memory"
        hint(
            isinstance(found, float) and math.floor(found) == expected != 0,
            f"{case}: you got {found}, but a text has a whole number of tokens: round down",
        )
        whole(found, "tokens")
        free = memory - weights
        hint(found < 0, f"{case}: not even the weights fit, so no text does: the answer is 0, not {found}")
        hint(
            found > limit,
            f"{case}: {found:,} tokens fit, but the model was made for {limit}: take the smaller of the two",
        )
        hint(expected == 37 and found == memory // per_token, f"{case}: the weights take some of the memory, too")
        group = SMALL.num_attention_heads // SMALL.num_key_value_heads
        hint(
            expected == 37 and found == free // (per_token * group),
            f"{case}: you counted the query heads. The cache keeps key/value heads only",
        )
        hint(expected == 37 and found == free * 2 // per_token, f"{case}: keys and values are two: where is the 2?")
        layers = SMALL.num_hidden_layers
        hint(
            expected == 37 and found == min(limit, free * layers // per_token),
            f"{case}: each of the {layers} layers keeps keys and values of its own",
        )
        hint(expected == 37 and found == 38, f"{case}: one token too many. The last one fits in part only: round down")
        hint(found != expected, f"{case}, {per_token} bytes of cache a token: {expected} tokens, not {found}")
    print("Exercise 2: right. Whole tokens, never more than the model was made for, and none without its weights.")


class Copies(TorchFunctionMode):
    """Notes the names of torch's functions that repeat heads, or that do the whole exercise."""

    REPEATS = frozenset({"repeat", "repeat_interleave", "tile", "expand", "expand_as", "broadcast_to"})

    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.add(getattr(function, "__name__", ""))
        return function(*args, **kwargs or {})


def right_attention(query_BHTD: Tensor, key_BKSD: Tensor, value_BKSD: Tensor) -> Tensor:
    """The same by torch's own attention, with the mask for queries at the end of the keys."""
    new, seen = query_BHTD.shape[2], key_BKSD.shape[2]
    mask = torch.ones(new, seen, dtype=torch.bool).tril(seen - new)
    return F.scaled_dot_product_attention(query_BHTD, key_BKSD, value_BKSD, attn_mask=mask, enable_gqa=True)


def wrong_attention(
    query: Tensor, key: Tensor, value: Tensor, tiled: bool = False, mask: str = "right", scale: bool = True
) -> Tensor:
    """Attention with one of the mistakes that are easily made."""
    group, new, seen = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    if tiled:
        key, value = key.repeat(1, group, 1, 1), value.repeat(1, group, 1, 1)
    else:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.transpose(-1, -2) / (math.sqrt(query.shape[-1]) if scale else 1)
    diagonal = {"right": 1 + seen - new, "at the start": 1, "itself": seen - new}.get(mask)
    if diagonal is not None:
        scores = scores.masked_fill(torch.ones(new, seen, dtype=torch.bool).triu(diagonal), -math.inf)
    if mask == "of the stack":  # group x T rows, as if they were one text
        stack = torch.ones(group * new, seen, dtype=torch.bool).triu(1 + seen - new)
        scores = scores.masked_fill(stack.unflatten(0, (group, new)).repeat(key.shape[1] // group, 1, 1), -math.inf)
    return scores.softmax(-1) @ value


def check_grouped_attention(grouped_attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 3: against torch's own, for a whole text and for new tokens after cached ones."""
    generator = torch.Generator().manual_seed(5)
    for new, seen in ((7, 7), (3, 9)):
        shapes = (2, 6, new, 8), (2, 2, seen, 8), (2, 2, seen, 8)
        inputs = [torch.randn(shape, generator=generator) for shape in shapes]
        with Copies() as copies:
            found = answer(grouped_attention, *inputs)
        compare_attention(found, inputs, f"{new} new tokens, {seen} in sight")
        hint(
            "scaled_dot_product_attention" in copies.seen,
            "right, but that is torch's own function: write it with @ and softmax",
        )
        used = sorted(copies.seen & Copies.REPEATS)
        hint(
            bool(used),
            f"right, but {', '.join(used)} repeats the heads: stack the queries of a group instead, "
            "query.unflatten(1, (K, group)).flatten(2, 3)",
        )
    print("Exercise 3: right. With and without cached tokens, and nothing was repeated.")


def compare_attention(found: object, inputs: list[Tensor], case: str) -> None:
    """Say what is wrong with a result, if anything is."""
    expected = right_attention(*inputs)
    shape = tuple(expected.shape)
    hint(not isinstance(found, Tensor), f"expected a tensor, got a {type(found).__name__}")
    hint(
        tuple(found.shape) != shape,
        f"{case}: expected the shape {shape}, got {tuple(found.shape)}: K and group become H again: flatten(1, 2)",
    )
    hint(
        bool(found.isnan().any()),
        f"{case}: there are NaN in it: does every query see at least itself? The mask is for T rows, not for group x T",
    )

    def is_like(**mistakes: Any) -> bool:
        return torch.allclose(found, wrong_attention(*inputs, **mistakes), atol=1e-5)

    hint(
        is_like(tiled=True),
        f"{case}: query head 1 looked at key/value head 1, but neighbours share: heads 0, 1, 2 belong to head 0. "
        "In unflatten it is (K, group), not (group, K)",
    )
    hint(
        is_like(mask="of the stack"),
        f"{case}: the mask was made for group x T rows. Each query of a group needs the mask of T rows: split the rows "
        "again, unflatten(2, (group, T)), before you mask",
    )
    hint(is_like(mask="none"), f"{case}: tokens see the future: where is the mask?")
    hint(is_like(mask="none", scale=False), f"{case}: neither mask nor division by the root of D")
    hint(is_like(scale=False), f"{case}: the scores were not divided by the root of D")
    hint(
        inputs[0].shape[2] != inputs[1].shape[2] and is_like(mask="at the start"),
        f"{case}: the mask takes the first query for position 0. With cached tokens the *last* query stands at the "
        "last key: the diagonal moves by S - T",
    )
    off = (found - expected).abs().max().item()
    hint(not torch.allclose(found, expected, atol=1e-5), f"{case}: other numbers than torch's attention, by {off:.3f}")
