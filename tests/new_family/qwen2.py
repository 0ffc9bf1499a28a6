"""Qwen2 and Qwen2.5: a family that the package does not have, added from outside. Unlike Qwen3:

    attention   queries, keys and values have biases, the output has none; no QK-norm
    head_dim    width / heads
    head        tied up to 3B, its own matrix from 7B on

Nothing else differs, and so nothing else is here: a config, an attention, a block, a model, rows of the weight map, and
the row of the registry. `FAMILIES["qwen2"] = QWEN2` makes the package know it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from course_helpers.architectures.config import FULL
from course_helpers.architectures.layers import Attention, Linear
from course_helpers.architectures.llama import Block as LlamaBlock
from course_helpers.architectures.llama import LlamaConfig, LlamaModel
from course_helpers.architectures.qwen3 import Qwen3Config
from course_helpers.architectures.rope import RopeParameters
from course_helpers.families import Family
from course_helpers.loaders.weight_maps import LLAMA
from course_helpers.parallelism import plans


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(Qwen3Config):
    """Sizes of a Qwen2, by the names its config.json uses; windows are read as in Qwen3."""

    model_type: ClassVar[str] = "qwen2"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    accepted: ClassVar[Mapping[str, tuple]] = {"hidden_act": ("silu",)}

    @classmethod
    def derived(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return super().derived(data) | LlamaConfig.derived(data)


class Qwen2Attention(Attention):
    """Attention with biases on all but its output."""

    def __init__(self, config: Qwen2Config):
        width, shared = config.hidden_size, config.num_key_value_heads
        super().__init__(width, config.num_attention_heads, shared, config.head_dim, bias=True)
        self.output = Linear(config.num_attention_heads * config.head_dim, width, bias=False)


class Block(LlamaBlock):
    def make_attention(self, config: Qwen2Config) -> Attention:
        return Qwen2Attention(config)


class Qwen2Model(LlamaModel):
    block = Block


WEIGHTS = LLAMA.derive(
    {
        "{trunk}layers.{layer}.self_attn.q_proj.bias": "blocks.{layer}.attention.query.bias",
        "{trunk}layers.{layer}.self_attn.k_proj.bias": "blocks.{layer}.attention.key.bias",
        "{trunk}layers.{layer}.self_attn.v_proj.bias": "blocks.{layer}.attention.value.bias",
    }
)

SMALLEST = Qwen2Config(
    vocab_size=151936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_parameters=RopeParameters(rope_theta=1_000_000.0),
    tie_word_embeddings=True,
    layer_types=(FULL,) * 24,
    bos_token_id=151643,
    eos_token_id=151643,
)

QWEN2 = Family(
    title="Qwen2, Qwen2.5",
    config=Qwen2Config,
    model=Qwen2Model,
    weight_maps=(WEIGHTS,),
    presets={"Qwen/Qwen2.5-0.5B": SMALLEST},
    tiny=None,  # a name below checkpoints/, or the path of a small checkpoint of your own
    tokenizer="byte-level BPE (tokenizer.json)",
    licence="Apache-2.0",
    gated=False,
    parallel=plans.LLAMA,  # biases are cut with their matrices
)
