"""Llama 2, 3, 3.1 and 3.2. Unlike GPT-2:

    norm        RMSNorm: no mean, no bias
    attention   no biases; grouped queries from Llama 3 on: several query heads share a key/value head
    position    rotary: queries and keys are turned by their position; nothing is added to the embedding
    feed-fwd    SwiGLU: a gated pair of projections, three matrices, no biases
    head        its own matrix (Llama 2, 3, 3.1), or tied to the token embedding (the 3.2 sizes 1B and 3B)

Llama 2 to 3: base frequency 10000 -> 500000, 8 key/value heads, a larger vocabulary. 3.1 and 3.2: slow rotary pairs
slowed further (`llama3` scaling, factor 8 and 32) to reach 131072 positions.

Shape suffixes: B batch, T new tokens, E model width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .base import LanguageModel
from .cache import LayerCache
from .config import ModelConfig, even_head_dim
from .layers import Attention, AttentionContext, Embedding, GatedFeedForward, Linear, RMSNorm
from .rope import RopeParameters, RotaryEmbedding, unsupported


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(ModelConfig):
    """Sizes of a Llama, by the names its config.json uses."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: RopeParameters
    tie_word_embeddings: bool = False

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    accepted: ClassVar[Mapping[str, tuple]] = {
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "sliding_window": (None,),
    }

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Self:
        cls.check_accepted(data)
        return cls(**cls.read_fields(dict(data) | {"rope_parameters": RopeParameters.from_hf(data)}))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_dim % 2:
            raise unsupported("head_dim", self.head_dim, "an even number: rotary positions turn pairs")

    @classmethod
    def derived(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Left out of config.json, these have one documented meaning in transformers: plain multi-head attention."""
        heads = data.get("num_attention_heads")
        head_dim = data.get("head_dim") or even_head_dim(data.get("hidden_size"), heads)
        return {"num_key_value_heads": heads, "head_dim": head_dim}

    def to_hf(self) -> dict[str, Any]:
        own = super().to_hf()
        del own["rope_parameters"]
        assumed = {name: values[0] for name, values in self.accepted.items() if values[0] is not None}
        return own | self.rope_to_hf() | assumed

    def rope_to_hf(self) -> dict[str, Any]:
        """The rotary positions as config.json has them."""
        return self.rope_parameters.to_hf()

    def rope(self, layer_type: str) -> RopeParameters:
        """The rotary positions of the layers of one type: in this family, all have the same."""
        return self.rope_parameters


class Block(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.attention_norm = RMSNorm(width, eps)
        self.attention = self.make_attention(config)
        self.feed_forward_norm = RMSNorm(width, eps)
        self.feed_forward = self.make_feed_forward(config, layer)

    def make_attention(self, config: LlamaConfig) -> Attention:
        return Attention(config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim)

    def make_feed_forward(self, config: LlamaConfig, layer: int) -> nn.Module:
        return GatedFeedForward(config.hidden_size, config.intermediate_size)

    def forward(self, x_BTE: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        x_BTE = context.needed(x_BTE) + self.attention(self.attention_norm(x_BTE), context, cache)
        return x_BTE + self.feed_forward(self.feed_forward_norm(x_BTE))


class LlamaModel(LanguageModel):
    block = Block
    norm = RMSNorm

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.rotary_embeddings = nn.ModuleDict(
            {kind: RotaryEmbedding(config.rope(kind), config.head_dim) for kind in dict.fromkeys(config.layer_plan)}
        )
        self.blocks = nn.ModuleList(self.block(config, layer) for layer in range(config.num_hidden_layers))
        self.final_norm = self.norm(config.hidden_size, config.rms_norm_eps)
        tied = config.tie_word_embeddings
        self.output_head = None if tied else Linear(config.hidden_size, config.vocab_size, bias=False)

    def rotation(self, layer_type: str, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.rotary_embeddings[layer_type](positions_BT, dtype)


def preset(
    rope: RopeParameters,
    context: int,
    vocab: int,
    width: int,
    heads: int,
    layers: int,
    feed_forward: int,
    **others: Any,
) -> LlamaConfig:
    values = {"num_key_value_heads": heads, "head_dim": width // heads, "rms_norm_eps": 1e-5} | others
    return LlamaConfig(
        rope_parameters=rope,
        max_position_embeddings=context,
        vocab_size=vocab,
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=feed_forward,
        **values,
    )


def scaled(factor: float) -> RopeParameters:
    return RopeParameters(
        rope_type="llama3",
        rope_theta=500_000.0,
        factor=factor,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )


LLAMA_2 = {"bos_token_id": 1, "eos_token_id": 2}
LLAMA_3 = {"bos_token_id": 128000, "eos_token_id": 128001, "num_key_value_heads": 8}
TIED = {"tie_word_embeddings": True}

PLAIN = RopeParameters(rope_theta=10_000.0)

#: The released sizes, by hub id.
LLAMA_2_PRESETS = {
    "meta-llama/Llama-2-7b-hf": preset(PLAIN, 4096, 32000, 4096, 32, 32, 11008, **LLAMA_2),
    "meta-llama/Llama-2-13b-hf": preset(PLAIN, 4096, 32000, 5120, 40, 40, 13824, **LLAMA_2),
    "meta-llama/Llama-2-70b-hf": preset(PLAIN, 4096, 32000, 8192, 64, 80, 28672, num_key_value_heads=8, **LLAMA_2),
}
LLAMA_3_PRESETS = {
    "meta-llama/Llama-3.2-1B": preset(scaled(32.0), 131072, 128256, 2048, 32, 16, 8192, **LLAMA_3, **TIED),
    "meta-llama/Llama-3.2-3B": preset(scaled(32.0), 131072, 128256, 3072, 24, 28, 8192, **LLAMA_3, **TIED),
    "meta-llama/Llama-3.1-8B": preset(scaled(8.0), 131072, 128256, 4096, 32, 32, 14336, **LLAMA_3),
    "meta-llama/Meta-Llama-3-8B": preset(
        RopeParameters(rope_theta=500_000.0), 8192, 128256, 4096, 32, 32, 14336, **LLAMA_3
    ),
}
