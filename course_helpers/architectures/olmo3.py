"""OLMo 3. Unlike Llama 3:

    norm        after attention and after the feed-forward, and none before them: x + norm(sublayer(x));
                rounded after the scaling, not before
    attention   QK-norm over all heads at once, before they are cut apart; three sliding layers (a window of 4096
                positions), then one that sees everything; the 32B size has 8 key/value heads for 40 query heads
    position    base frequency 500,000 everywhere; YaRN, x 8 from 8192 positions, in the full layers ONLY: a sliding
                layer never looks further back than it was trained to. Tables and turning stay in float32
    head        its own matrix

Shape suffixes: B batch, T new tokens, H query heads, K key/value heads, D head dimension, E model width.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..errors import CourseWarning
from .cache import LayerCache
from .config import FULL, SLIDING
from .layers import Attention, AttentionContext, GatedFeedForward
from .llama import LlamaConfig, LlamaModel
from .rope import RopeParameters, layered_from_hf, layered_to_hf

THETA_FIELDS = {FULL: "rope_theta", SLIDING: None}
USUAL_THETA = {FULL: 500_000.0, SLIDING: 500_000.0}


@dataclass(frozen=True, kw_only=True)
class Olmo3Config(LlamaConfig):
    """Sizes of an OLMo 3, by the names its config.json uses."""

    rope_parameters: dict[str, RopeParameters]
    sliding_window: int | None = None
    layer_types: tuple[str, ...]

    model_type: ClassVar[str] = "olmo3"
    architecture: ClassVar[str] = "Olmo3ForCausalLM"
    accepted: ClassVar[Mapping[str, tuple]] = {"hidden_act": ("silu",), "attention_bias": (False,)}

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Self:
        cls.check_accepted(data)
        rope = layered_from_hf(data, THETA_FIELDS, USUAL_THETA)
        differ, given = rope[FULL].rope_theta != rope[SLIDING].rope_theta, data.get("rope_parameters") or {}
        if differ and data.get("rope_theta") is not None and SLIDING not in given:
            warnings.warn(
                f"rope_theta {rope[FULL].rope_theta:g} is used in the full layers only and {USUAL_THETA[SLIDING]:g} in "
                "the sliding ones, as transformers 5 reads this file; transformers 4 used one value for both",
                CourseWarning,
                stacklevel=3,
            )
        return cls(**cls.read_fields(dict(data) | {"rope_parameters": rope}))

    @classmethod
    def derived(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """transformers' own rule: every fourth layer is a full one."""
        layers = data.get("num_hidden_layers")
        count = range(1, layers + 1) if isinstance(layers, int) else ()
        plan = {"layer_types": tuple(SLIDING if layer % 4 else FULL for layer in count)}
        return super().derived(data) | plan

    def rope(self, layer_type: str) -> RopeParameters:
        return self.rope_parameters[layer_type]

    def rope_to_hf(self) -> dict[str, Any]:
        return layered_to_hf(self.rope_parameters, THETA_FIELDS, USUAL_THETA)


class Olmo3RMSNorm(nn.Module):
    """RMSNorm that is rounded to x's type after the weight was applied."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        x_float = x_float * torch.rsqrt(x_float.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight * x_float).to(x.dtype)


class Olmo3Attention(Attention):
    """Attention whose queries and keys are normalised, all heads together."""

    def __init__(self, config: Olmo3Config):
        heads, shared, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        super().__init__(config.hidden_size, heads, shared, head_dim)
        self.query_norm = Olmo3RMSNorm(heads * head_dim, config.rms_norm_eps)
        self.key_norm = Olmo3RMSNorm(shared * head_dim, config.rms_norm_eps)

    def project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.flat(x_BTE)
        return self.in_heads(self.query_norm(query)), self.in_heads(self.key_norm(key)), self.in_heads(value)


class Block(nn.Module):
    def __init__(self, config: Olmo3Config, layer: int):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.attention = Olmo3Attention(config)
        self.attention_post_norm = Olmo3RMSNorm(width, eps)
        self.feed_forward = GatedFeedForward(width, config.intermediate_size)
        self.feed_forward_post_norm = Olmo3RMSNorm(width, eps)

    def forward(self, x_BTE: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        x_BTE = context.needed(x_BTE) + self.attention_post_norm(self.attention(x_BTE, context, cache))
        return x_BTE + self.feed_forward_post_norm(self.feed_forward(x_BTE))


class Olmo3Model(LlamaModel):
    block = Block
    norm = Olmo3RMSNorm

    def rotation(self, layer_type: str, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return super().rotation(layer_type, positions_BT, torch.promote_types(dtype, torch.float32))


def preset(width: int, heads: int, shared: int, layers: int, feed_forward: int) -> Olmo3Config:
    yarn = RopeParameters(
        rope_type="yarn",
        rope_theta=500_000.0,
        factor=8.0,
        original_max_position_embeddings=8192,
        attention_factor=1.2079441541679836,
        beta_fast=32.0,
        beta_slow=1.0,
    )
    return Olmo3Config(
        vocab_size=100278,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        head_dim=width // heads,
        num_hidden_layers=layers,
        intermediate_size=feed_forward,
        max_position_embeddings=65536,
        rms_norm_eps=1e-6,
        rope_parameters={FULL: yarn, SLIDING: RopeParameters(rope_theta=500_000.0)},
        sliding_window=4096,
        layer_types=Olmo3Config.derived({"num_hidden_layers": layers, "head_dim": width // heads})["layer_types"],
        eos_token_id=100257,
        pad_token_id=100277,
    )


#: The released sizes, by hub id.
PRESETS = {
    "allenai/Olmo-3-1025-7B": preset(4096, 32, 32, 32, 11008),
    "allenai/Olmo-3-1125-32B": preset(5120, 40, 8, 64, 27648),
}
