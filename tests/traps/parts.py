"""Attention, feed-forward, embedding and head: the same matrices, used in another way."""

from dataclasses import replace
from types import SimpleNamespace

import torch.nn.functional as F
from pytest import MonkeyPatch
from torch import Tensor

from course_helpers.architectures import gemma3, layers
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.gemma3 import Gemma3Attention, Gemma3Model
from course_helpers.architectures.layers import GatedFeedForward
from course_helpers.architectures.qwen3 import Qwen3Attention, Qwen3Config
from course_helpers.loaders import load
from course_helpers.loaders.weight_maps import LLAMA
from tests.tiny_models import Data
from tests.traps.checks import embedding_bits, parity, tied
from tests.traps.trap import Trap, attribute, exchanged

right_from_hf, right_read_config = Qwen3Config.from_hf, load.read_config


def heads_repeated(query: Tensor, key: Tensor, value: Tensor, *, enable_gqa: bool, **options) -> Tensor:
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat(1, times, 1, 1), value.repeat(1, times, 1, 1)
    return F.scaled_dot_product_attention(query, key, value, **options)


def repeated(patch: MonkeyPatch) -> None:
    """In both of the package's attentions: of many tokens, and of one with a cache."""
    patch.setattr(layers, "F", wrong_attention)
    patch.setattr(
        layers,
        "attend_once",
        lambda query, key, value, mask, scale: (
            heads_repeated(query, key, value, enable_gqa=True, attn_mask=mask, scale=scale).transpose(1, 2).flatten(2)
        ),
    )


def unscaled(self: Gemma3Attention, config: gemma3.Gemma3Config, scale: float) -> None:
    Qwen3Attention.__init__(self, config)


@classmethod
def width_per_head(cls: type[Qwen3Config], data: Data) -> Qwen3Config:
    return replace(right_from_hf(data), head_dim=data["hidden_size"] // data["num_attention_heads"])


def up_activated(self: GatedFeedForward, x_BTE: Tensor) -> Tensor:
    return self.down(self.gate(x_BTE) * self.activation(self.up(x_BTE)))


def scale_not_rounded(self: Gemma3Model, token_ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
    return self.token_embedding(token_ids_BT) * self.config.hidden_size**0.5


def tied_by_presence(checkpoint):
    family, config = right_read_config(checkpoint)
    return family, replace(config, tie_word_embeddings="lm_head.weight" not in checkpoint.names())


HEADS, ACTIVATED = "blocks.0.attention.output input", "blocks.0.feed_forward.down input"
wrong_attention = SimpleNamespace(**vars(F) | {"scaled_dot_product_attention": heads_repeated})
exact_gelu = SimpleNamespace(gelu=lambda x, approximate: F.gelu(x))
copied_head = property(lambda self: self.token_embedding.weight.clone())

TRAPS = (
    Trap(
        "key/value heads in the wrong order: repeat",
        "4.22",
        "llama3",
        repeated,
        parity,
        seen_at=HEADS,
        word="repeat_interleave",
    ),
    Trap(
        "Gemma 3: query_pre_attn_scalar ignored",
        "1",
        "gemma3",
        attribute(Gemma3Attention, "__init__", unscaled),
        parity,
        seen_at=HEADS,
        word="the scores are 1.581 times theirs",
    ),
    Trap(
        "Qwen3: head_dim taken for width / heads",
        "2",
        "qwen3",
        attribute(Qwen3Config, "from_hf", width_per_head),
        parity,
    ),
    Trap(
        "gate and up exchanged in the forward pass",
        "4.24",
        "llama3",
        attribute(GatedFeedForward, "forward", up_activated),
        parity,
        seen_at=ACTIVATED,
        word="swapped",
    ),
    Trap(
        "gate and up exchanged in the weight map",
        "4.24",
        "llama3",
        exchanged(LLAMA.rows, "{trunk}layers.{layer}.mlp.gate_proj.weight", "{trunk}layers.{layer}.mlp.up_proj.weight"),
        parity,
        seen_at="blocks.0.feed_forward.gate.weight weight",
        word="swapped",
        loading=True,
    ),
    Trap(
        "GPT-2: exact GELU instead of the tanh form",
        "1",
        "gpt2",
        attribute(layers, "gelu_new", F.gelu),
        parity,
        seen_at=ACTIVATED,
        word="exact GELU",
    ),
    Trap(
        "Gemma 3: exact GELU instead of the tanh form",
        "1",
        "gemma3",
        attribute(gemma3, "F", exact_gelu),
        parity,
        seen_at=ACTIVATED,
        word="exact GELU",
    ),
    Trap(
        "Gemma 3: embedding not scaled",
        "1",
        "gemma3",
        attribute(Gemma3Model, "embed", LanguageModel.embed),
        parity,
        seen_at="blocks.0 input",
        word="sqrt(width)",
    ),
    Trap(
        "Gemma 3: embedding scale not rounded to bfloat16",
        "4.7",
        "gemma3",
        attribute(Gemma3Model, "embed", scale_not_rounded),
        embedding_bits,
    ),
    Trap(
        "the file decides about tying, and not the config",
        "0.6, 4.14",
        "qwen3",
        attribute(load, "read_config", tied_by_presence),
        tied,
    ),
    Trap(
        "the tied head is a copy",
        "4.15, 6.16",
        "gpt2",
        attribute(LanguageModel, "head_weight", copied_head),
        tied,
    ),
)
