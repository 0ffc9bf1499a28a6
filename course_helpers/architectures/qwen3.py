"""Qwen3, dense and mixture-of-experts. Unlike Llama 3:

    attention   queries and keys pass through an RMSNorm of their own, head by head, before they are turned (QK-norm)
    head_dim    given, and not width / heads: heads may be wider together than the model (0.6B: 16 x 128 > 1024)
    position    base frequency 1,000,000 (MoE "2507" and Coder: 10,000,000), not scaled
    feed-fwd    dense: SwiGLU as before. MoE: a router sends each token to a few of many small SwiGLU experts
    head        tied up to 4B, its own matrix from 8B on

Shape suffixes: B batch, T new tokens, H query heads, K key/value heads, D head dimension, E model width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ..errors import ConfigError
from .config import FULL, SLIDING, checked
from .experts import MixtureOfExperts
from .layers import Attention, RMSNorm
from .llama import Block as LlamaBlock
from .llama import LlamaConfig, LlamaModel
from .rope import RopeParameters


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(LlamaConfig):
    """Sizes of a dense Qwen3, by the names its config.json uses."""

    sliding_window: int | None = None
    layer_types: tuple[str, ...]

    model_type: ClassVar[str] = "qwen3"
    architecture: ClassVar[str] = "Qwen3ForCausalLM"
    accepted: ClassVar[Mapping[str, tuple]] = {"hidden_act": ("silu",), "attention_bias": (False,)}

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Self:
        used = checked("use_sliding_window", bool, data.get("use_sliding_window") or False)
        if not used:  # the window that stands in every file of the family then means nothing
            data = dict(data) | {"sliding_window": None}
        return super().from_hf(data)

    @classmethod
    def derived(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """transformers' own rules: heads of 128; a window, where one is used, from layer `max_window_layers` on."""
        layers = data.get("num_hidden_layers")
        first = checked("max_window_layers", int | None, data.get("max_window_layers"))
        first = 28 if first is None else first
        if data.get("sliding_window", "left out") is None:
            first = layers
        count = range(layers) if isinstance(layers, int) else ()
        return {"head_dim": 128, "layer_types": tuple(SLIDING if layer >= first else FULL for layer in count)}

    def to_hf(self) -> dict[str, Any]:
        return super().to_hf() | {"use_sliding_window": self.sliding_window is not None}


@dataclass(frozen=True, kw_only=True)
class Qwen3MoeConfig(Qwen3Config):
    """Sizes of a mixture-of-experts Qwen3, by the names its config.json uses."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    norm_topk_prob: bool  # transformers assumes False when it is left out, all released models say True: no default
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()

    model_type: ClassVar[str] = "qwen3_moe"
    architecture: ClassVar[str] = "Qwen3MoeForCausalLM"
    accepted: ClassVar[Mapping[str, tuple]] = Qwen3Config.accepted | {"use_sliding_window": (False,)}

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Self:
        if "num_local_experts" in data:  # what transformers 5 calls the field
            data = {"num_experts": data["num_local_experts"]} | dict(data)
        return super().from_hf(data)

    @classmethod
    def derived(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return super().derived(data) | {"head_dim": LlamaConfig.derived(data)["head_dim"]}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_experts_per_tok > self.num_experts:
            raise ConfigError(
                "a token cannot be sent to more experts than there are",
                field="num_experts_per_tok",
                expected=f"at most the {self.num_experts} experts",
                found=self.num_experts_per_tok,
                cause="a config.json of another size, or edited by hand",
                next_step="take config.json from the same place as the weights",
            )

    def is_sparse(self, layer: int) -> bool:
        """Whether a layer has experts, or one ordinary feed-forward."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0


class Qwen3Attention(Attention):
    """Attention whose queries and keys are normalised, each head on its own."""

    norm = RMSNorm

    def __init__(self, config: LlamaConfig, scale: float | None = None):
        sizes = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        super().__init__(*sizes, scale=scale)
        self.query_norm = self.norm(config.head_dim, config.rms_norm_eps)
        self.key_norm = self.norm(config.head_dim, config.rms_norm_eps)

    def project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_BHTD, key_BKTD, value_BKTD = super().project(x_BTE)
        return self.query_norm(query_BHTD), self.key_norm(key_BKTD), value_BKTD


class Block(LlamaBlock):
    def make_attention(self, config: LlamaConfig) -> Attention:
        return Qwen3Attention(config)


class MoeBlock(Block):
    def make_feed_forward(self, config: Qwen3MoeConfig, layer: int) -> nn.Module:
        if not config.is_sparse(layer):
            return super().make_feed_forward(config, layer)
        return MixtureOfExperts(
            config.hidden_size,
            config.moe_intermediate_size,
            config.num_experts,
            config.num_experts_per_tok,
            config.norm_topk_prob,
        )


class Qwen3Model(LlamaModel):
    block = Block


class Qwen3MoeModel(LlamaModel):
    block = MoeBlock


def sizes(width: int, heads: int, layers: int, feed_forward: int, **others: Any) -> dict[str, Any]:
    """What the released models share, and what differs."""
    shared = {
        "vocab_size": 151936,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_parameters": RopeParameters(rope_theta=1_000_000.0),
        "layer_types": (FULL,) * layers,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
    named = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers}
    return shared | named | {"intermediate_size": feed_forward} | others


def moe(width: int, heads: int, layers: int, feed_forward: int, expert: int, **others: Any) -> Qwen3MoeConfig:
    experts = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": expert, "norm_topk_prob": True}
    return Qwen3MoeConfig(**sizes(width, heads, layers, feed_forward, num_key_value_heads=4, **experts, **others))


TIED = {"tie_word_embeddings": True}
LONG = {"rope_parameters": RopeParameters(rope_theta=10_000_000.0), "max_position_embeddings": 262144}

#: The released sizes, by hub id.
PRESETS = {
    "Qwen/Qwen3-0.6B": Qwen3Config(**sizes(1024, 16, 28, 3072, **TIED)),
    "Qwen/Qwen3-1.7B": Qwen3Config(**sizes(2048, 16, 28, 6144, **TIED)),
    "Qwen/Qwen3-4B": Qwen3Config(**sizes(2560, 32, 36, 9728, **TIED)),
    "Qwen/Qwen3-8B": Qwen3Config(**sizes(4096, 32, 36, 12288)),
    "Qwen/Qwen3-14B": Qwen3Config(**sizes(5120, 40, 40, 17408)),
    "Qwen/Qwen3-32B": Qwen3Config(**sizes(5120, 64, 64, 25600)),
}
MOE_PRESETS = {
    "Qwen/Qwen3-30B-A3B": moe(2048, 32, 48, 6144, 768),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": moe(2048, 32, 48, 6144, 768, **LONG),
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": moe(2048, 32, 48, 5472, 768, bos_token_id=None, **LONG),
    "Qwen/Qwen3-235B-A22B": moe(4096, 64, 94, 12288, 1536),
}
