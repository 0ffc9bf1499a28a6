"""Windows, caches and padding: who sees whom, and from which position."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from course_helpers.architectures import base
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.cache import SlidingLayerCache
from course_helpers.architectures.config import FULL, SLIDING, ModelConfig
from tests.traps.checks import cached, parity, ragged, something_seen
from tests.traps.trap import Trap, attribute

Mask = tuple[Tensor | None, bool]
right_mask, right_contexts, right_store = base.attention_mask, LanguageModel.contexts, SlidingLayerCache.store


def window_changed(by: int) -> Callable[..., Mask]:
    def mask(start, new_tokens, left_padding_B, device, window=None, max_length=None) -> Mask:
        return right_mask(start, new_tokens, left_padding_B, device, window and window + by, max_length)

    return mask


def padding_visible(start, new_tokens, left_padding_B, *others) -> Mask:
    return right_mask(start, new_tokens, None, *others)


def padding_sees_nothing(start, new_tokens, left_padding_B, *others) -> Mask:
    mask, is_causal = right_mask(start, new_tokens, left_padding_B, *others)
    if left_padding_B is not None:
        mask = mask & (torch.arange(start + new_tokens) >= left_padding_B[:, None, None, None])
    return mask, is_causal


def positions(of_cache: bool, of_padding: bool) -> Callable[..., Any]:
    """Positions that know of the cache, of the padding, or of both; the masks always know of both."""

    def contexts(self, start, new_tokens, left_padding_B, max_length):
        right = right_contexts(self, start, new_tokens, left_padding_B, max_length)
        known = start if of_cache else 0, new_tokens, left_padding_B if of_padding else None
        wrong = right_contexts(self, *known, max_length)
        return {kind: replace(wrong[kind], mask=right[kind].mask, is_causal=right[kind].is_causal) for kind in right}

    return contexts


def next_slot(self: SlidingLayerCache, stored_BKSD: Tensor, new_BKTD: Tensor) -> Tensor:
    if new_BKTD.shape[2] > 1 or self.cache.length < self.size:
        return right_store(self, stored_BKSD, new_BKTD)
    stored_BKSD[:, :, (self.cache.length + 1) % self.size] = new_BKTD[:, :, 0]
    return stored_BKSD


HEADS = "blocks.0.attention.output input"
TWO_TYPES = {"use_sliding_window": True, "sliding_window": 7, "layer_types": [SLIDING, FULL, SLIDING, FULL]}
shifted_plan = property(lambda self: self.layer_types[1:] + self.layer_types[:1])

TRAPS = (
    Trap(
        "window one too wide: i - j <= W",
        "1",
        "gemma3",
        attribute(base, "attention_mask", window_changed(1)),
        parity,
        seen_at=HEADS,
        word="window",
    ),
    Trap(
        "window one too narrow: a token does not count itself",
        "1",
        "olmo3",
        attribute(base, "attention_mask", window_changed(-1)),
        parity,
        seen_at=HEADS,
        word="window",
    ),
    Trap(
        "windows in the wrong layers: pattern shifted by one",
        "1",
        "qwen3",
        attribute(ModelConfig, "layer_plan", shifted_plan),
        parity,
        TWO_TYPES,
        seen_at=HEADS,
        word="pattern of layers",
    ),
    Trap(
        "ring cache: a new position in the wrong slot",
        "6.14",
        "gemma3",
        attribute(SlidingLayerCache, "store", next_slot),
        cached,
    ),
    Trap(
        "decoding begins at position 0 again",
        "0.2",
        "llama2",
        attribute(LanguageModel, "contexts", positions(of_cache=False, of_padding=True)),
        cached,
    ),
    Trap(
        "positions count the padding",
        "0.3, 6.8",
        "gpt2",
        attribute(LanguageModel, "contexts", positions(of_cache=True, of_padding=False)),
        ragged,
    ),
    Trap(
        "padding is seen",
        "0.3, 6.8",
        "llama2",
        attribute(base, "attention_mask", padding_visible),
        ragged,
    ),
    Trap(
        "padding sees nothing: softmax over nothing",
        "4.13",
        "llama2",
        attribute(base, "attention_mask", padding_sees_nothing),
        something_seen,
    ),
)
