"""Norms: what they divide by, what they multiply with, when they round, and where they stand."""

from dataclasses import replace

import torch
from pytest import MonkeyPatch
from torch import Tensor

from course_helpers.architectures import olmo3
from course_helpers.architectures.gemma3 import Gemma3RMSNorm
from course_helpers.architectures.layers import Attention, RMSNorm
from course_helpers.architectures.olmo3 import Olmo3RMSNorm
from course_helpers.architectures.qwen3 import Qwen3Attention
from course_helpers.architectures.rope import apply_rotary
from course_helpers.loaders.weight_maps import GEMMA3
from tests.tiny_models import DECODER
from tests.traps.checks import norm_bits, parity
from tests.traps.trap import Trap, attribute, exchanged

right_olmo3 = Olmo3RMSNorm.forward


def epsilon_outside(self: RMSNorm, x: Tensor) -> Tensor:
    root = x.float().pow(2).mean(-1, keepdim=True).sqrt()
    return self.weight * (x.float() / (root + self.eps)).to(x.dtype)


def over_all_heads(self: RMSNorm, x: Tensor) -> Tensor:
    dims = (1, 3) if x.dim() == 4 else -1
    return self.weight * x * torch.rsqrt(x.pow(2).mean(dims, keepdim=True) + self.eps)


def over_each_head(self: Olmo3RMSNorm, x: Tensor) -> Tensor:
    if len(self.weight) == DECODER["hidden_size"]:
        return right_olmo3(self, x)
    heads = x.unflatten(-1, (-1, DECODER["head_dim"]))
    return self.weight * (heads * torch.rsqrt(heads.pow(2).mean(-1, keepdim=True) + self.eps)).flatten(-2)


def after_rotation(patch: MonkeyPatch) -> None:
    def forward(self, x_BTE, context, cache=None):
        self.tables = context.cos_B1TD, context.sin_B1TD
        return Attention.forward(self, x_BTE, replace(context, cos_B1TD=None, sin_B1TD=None), cache)

    def project(self, x_BTE):
        query, key, value = Attention.project(self, x_BTE)
        return self.query_norm(apply_rotary(query, *self.tables)), self.key_norm(apply_rotary(key, *self.tables)), value

    patch.setattr(Qwen3Attention, "forward", forward)
    patch.setattr(Qwen3Attention, "project", project)


def norms_first(self: olmo3.Block, x_BTE, context, cache) -> Tensor:
    x_BTE = x_BTE + self.attention(self.attention_post_norm(x_BTE), context, cache)
    return x_BTE + self.feed_forward(self.feed_forward_post_norm(x_BTE))


QUERY_NORM = "blocks.0.attention.query_norm output"
LAYER = "{trunk}layers.{layer}."

TRAPS = (
    Trap(
        "Gemma 3: weight instead of 1 + weight",
        "4.25",
        "gemma3",
        attribute(Gemma3RMSNorm, "forward", RMSNorm.forward),
        parity,
        seen_at="blocks.0.attention_norm output",
        word="(1 + weight)",
    ),
    Trap(
        "epsilon outside of the root",
        "4.5",
        "llama2",
        attribute(RMSNorm, "forward", epsilon_outside),
        parity,
        {"rms_norm_eps": 1e-3},
        seen_at="blocks.0.attention_norm output",
        word="epsilon",
    ),
    Trap(
        "Llama: rounded after the weight was applied",
        "4.8",
        "llama3",
        attribute(RMSNorm, "forward", Olmo3RMSNorm.forward),
        norm_bits,
    ),
    Trap(
        "OLMo 3: rounded before the weight is applied",
        "4.8",
        "olmo3",
        attribute(Olmo3RMSNorm, "forward", RMSNorm.forward),
        norm_bits,
    ),
    Trap(
        "QK-norm left out",
        "6.12",
        "qwen3",
        attribute(Qwen3Attention, "project", Attention.project),
        parity,
        seen_at=QUERY_NORM,
        word="left out",
    ),
    Trap(
        "QK-norm after the rotation",
        "1",
        "qwen3",
        after_rotation,
        parity,
        seen_at=QUERY_NORM,
        word="another place",
    ),
    Trap(
        "Qwen3: QK-norm over all heads at once",
        "4.24",
        "qwen3",
        attribute(RMSNorm, "forward", over_all_heads),
        parity,
        seen_at=QUERY_NORM,
        word="width",
    ),
    Trap(
        "OLMo 3: QK-norm over each head",
        "4.24",
        "olmo3",
        attribute(Olmo3RMSNorm, "forward", over_each_head),
        parity,
        seen_at=QUERY_NORM,
        word="width",
    ),
    Trap(
        "OLMo 3: norms before the sublayers, as in Llama",
        "1",
        "olmo3",
        attribute(olmo3.Block, "forward", norms_first),
        parity,
        seen_at="blocks.0.attention.query output",
        word="norm before it",
    ),
    Trap(
        "Gemma 3: post_attention_layernorm taken as in Llama",
        "4.24",
        "gemma3",
        exchanged(GEMMA3.rows, f"{LAYER}post_attention_layernorm.weight", f"{LAYER}pre_feedforward_layernorm.weight"),
        parity,
        seen_at="blocks.0.attention_post_norm.weight weight",
        word="swapped",
        loading=True,
    ),
)
