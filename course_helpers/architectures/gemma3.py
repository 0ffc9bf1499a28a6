"""Gemma 3, the language part. Unlike Qwen3:

    norm        four a block: before and after attention, before and after the feed-forward; the result is scaled by
                1 + weight, so a weight of zero changes nothing; rounded after the scaling, not before
    attention   five sliding layers (each sees a window of 512 or 1024 positions), then one that sees everything;
                one key/value head in the small sizes; scores scaled by query_pre_attn_scalar instead of head_dim
    position    base frequency 10,000 in the sliding layers, 1,000,000 in the full ones, and there, from 4B up,
                every pair slowed down by 8
    feed-fwd    GeGLU: GELU (tanh form) in the place of SiLU
    embedding   multiplied by sqrt(width), a number rounded to the weights' own type; the head is tied to it

Shape suffixes: B batch, T new tokens, E model width.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .cache import LayerCache
from .config import FULL, SLIDING, checked
from .layers import AttentionContext, GatedFeedForward
from .llama import LlamaConfig, LlamaModel
from .qwen3 import Qwen3Attention
from .rope import RopeParameters, layered_from_hf, layered_to_hf

THETA_FIELDS = {FULL: "rope_theta", SLIDING: "rope_local_base_freq"}
USUAL_THETA = {FULL: 1_000_000.0, SLIDING: 10_000.0}

#: What a multimodal config.json leaves out of its `text_config`: the values that transformers' Gemma3TextConfig has.
TEXT_CONFIG = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "rope_theta": USUAL_THETA[FULL],
    "rope_local_base_freq": USUAL_THETA[SLIDING],
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


@dataclass(frozen=True, kw_only=True)
class Gemma3Config(LlamaConfig):
    """Sizes of a Gemma 3, by the names its config.json uses."""

    rope_parameters: dict[str, RopeParameters]
    sliding_window: int | None = None
    layer_types: tuple[str, ...]
    query_pre_attn_scalar: int
    tie_word_embeddings: bool = True

    model_type: ClassVar[str] = "gemma3_text"
    also: ClassVar[tuple[str, ...]] = ("gemma3",)
    architecture: ClassVar[str] = "Gemma3ForCausalLM"
    accepted: ClassVar[Mapping[str, tuple]] = {
        "hidden_activation": ("gelu_pytorch_tanh",),
        "attention_bias": (False,),
        "attn_logit_softcapping": (None,),
        "final_logit_softcapping": (None,),
        "use_bidirectional_attention": (False,),
    }

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Self:
        if data.get("model_type") in cls.also:  # a multimodal checkpoint: the language part is described within
            data = TEXT_CONFIG | text_config(data) | {"quantization_config": data.get("quantization_config")}
        cls.check_accepted(data)
        rope = layered_from_hf(data, THETA_FIELDS, USUAL_THETA)
        return cls(**cls.read_fields(dict(data) | {"rope_parameters": rope}))

    @classmethod
    def derived(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """transformers' own rules: heads of 256, and every sixth layer is a full one."""
        layers = data.get("num_hidden_layers")
        period = checked("sliding_window_pattern", int, data.get("sliding_window_pattern") or 6)
        count = range(1, layers + 1) if isinstance(layers, int) else ()
        return {"head_dim": 256, "layer_types": tuple(SLIDING if layer % period else FULL for layer in count)}

    def rope(self, layer_type: str) -> RopeParameters:
        return self.rope_parameters[layer_type]

    def rope_to_hf(self) -> dict[str, Any]:
        return layered_to_hf(self.rope_parameters, THETA_FIELDS, USUAL_THETA)


def text_config(data: Mapping[str, Any]) -> dict[str, Any]:
    """The language part of a multimodal config.json. Raises ConfigError if there is none."""
    found = data.get("text_config")
    if not isinstance(found, Mapping):
        raise ConfigError(
            "a multimodal config.json must describe its language part",
            field="text_config",
            expected="a JSON object",
            found=repr(found),
            cause="the file was edited by hand, or written by another program",
            next_step="take config.json from the same place as the weights",
        )
    return {name: value for name, value in found.items() if value is not None}


class Gemma3RMSNorm(nn.Module):
    """RMSNorm that scales by 1 + weight, all of it in float32."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        x_float = x_float * torch.rsqrt(x_float.pow(2).mean(-1, keepdim=True) + self.eps)
        return (x_float * (1.0 + self.weight.float())).to(x.dtype)


class Gemma3Attention(Qwen3Attention):
    norm = Gemma3RMSNorm


class Block(nn.Module):
    def __init__(self, config: Gemma3Config, layer: int):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.attention_norm = Gemma3RMSNorm(width, eps)
        self.attention = Gemma3Attention(config, scale=config.query_pre_attn_scalar**-0.5)
        self.attention_post_norm = Gemma3RMSNorm(width, eps)
        self.feed_forward_norm = Gemma3RMSNorm(width, eps)
        gelu = functools.partial(F.gelu, approximate="tanh")
        self.feed_forward = GatedFeedForward(width, config.intermediate_size, gelu)
        self.feed_forward_post_norm = Gemma3RMSNorm(width, eps)

    def forward(self, x_BTE: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        mixed_BTE = self.attention(self.attention_norm(x_BTE), context, cache)
        x_BTE = context.needed(x_BTE) + self.attention_post_norm(mixed_BTE)
        return x_BTE + self.feed_forward_post_norm(self.feed_forward(self.feed_forward_norm(x_BTE)))


class Gemma3Model(LlamaModel):
    block = Block
    norm = Gemma3RMSNorm

    def embed(self, token_ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        # In bfloat16 the square root of 640 is 25.25, and not 25.298: the weights were trained with the rounded one.
        scale = torch.tensor(self.config.hidden_size**0.5).to(self.dtype)
        return self.token_embedding(token_ids_BT) * scale.to(self.device)


def preset(width: int, layers: int, feed_forward: int, **others: Any) -> Gemma3Config:
    values = {"num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 512, "factor": None} | others
    factor = values.pop("factor")
    whole = RopeParameters(rope_theta=USUAL_THETA[FULL])
    if factor is not None:
        whole = RopeParameters(rope_theta=USUAL_THETA[FULL], rope_type="linear", factor=factor)
    sizes = {
        "vocab_size": 262144,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": feed_forward,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {FULL: whole, SLIDING: RopeParameters(rope_theta=USUAL_THETA[SLIDING])},
        "layer_types": Gemma3Config.derived({"num_hidden_layers": layers})["layer_types"],
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return Gemma3Config(**sizes | values)


#: The released sizes, by hub id; the larger ones are multimodal checkpoints, and this is their language part.
LARGE = {"vocab_size": 262208, "sliding_window": 1024, "max_position_embeddings": 131072, "factor": 8.0}
PRESETS = {
    "google/gemma-3-270m": preset(640, 18, 2048),
    "google/gemma-3-1b-pt": preset(1152, 26, 6912),
    "google/gemma-3-4b-pt": preset(2560, 34, 10240, num_attention_heads=8, num_key_value_heads=4, **LARGE),
}
