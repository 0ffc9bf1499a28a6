"""What each tiny checkpoint is: its config, its tokenizer and how its files are written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tokenizer_files
import torch

from course_helpers.architectures.config import FULL, SLIDING, ModelConfig
from course_helpers.architectures.gemma3 import Gemma3Config
from course_helpers.architectures.gpt2 import GPT2Config
from course_helpers.architectures.llama import LlamaConfig
from course_helpers.architectures.olmo3 import Olmo3Config
from course_helpers.architectures.qwen3 import Qwen3Config, Qwen3MoeConfig
from course_helpers.architectures.rope import RopeParameters

VOCABULARY = 1024


@dataclass(frozen=True)
class Recipe:
    """What is particular to one tiny checkpoint."""

    config: ModelConfig
    write_tokenizer: Callable[[Path, list[str], int, int], None]
    dtype: torch.dtype = torch.bfloat16  # that of the saved weights; real checkpoints of the family use the same
    max_shard_bytes: int | None = None  # set: several files and an index, as large checkpoints have
    learning_rate: float = 4e-3
    steps: tuple[int, int] = (2000, 400)  # of the two courses


#: What the tiny models have in common: four heads of 32, so that one head can hold a name.
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
}

RECIPES = {
    "tiny-gpt2": Recipe(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=256,
            n_embd=128,
            n_layer=4,
            n_head=4,
            n_inner=512,
            layer_norm_epsilon=1e-5,
            bos_token_id=VOCABULARY - 1,
            eos_token_id=VOCABULARY - 1,
        ),
        tokenizer_files.write_gpt2,
        steps=(2000, 0),  # the first course was enough
        dtype=torch.float32,
    ),
    "tiny-llama2": Recipe(
        LlamaConfig(
            **SIZES | {"num_key_value_heads": 4, "intermediate_size": 344},  # every head its own keys, 8/3 wide: as 7B
            rms_norm_eps=1e-5,
            rope_parameters=RopeParameters(rope_theta=10_000.0),
            bos_token_id=1,
            eos_token_id=2,
        ),
        tokenizer_files.write_llama2,
        max_shard_bytes=1_200_000,
    ),
    "tiny-llama3": Recipe(
        LlamaConfig(
            **SIZES,
            rms_norm_eps=1e-5,
            # As in Llama 3.2, with the original context as small as the model: half of the pairs are slowed down.
            rope_parameters=RopeParameters(
                rope_type="llama3",
                rope_theta=500_000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=128,
            ),
            tie_word_embeddings=True,
            bos_token_id=VOCABULARY - 16,
            eos_token_id=VOCABULARY - 15,
        ),
        tokenizer_files.write_llama3,
    ),
    "tiny-qwen3": Recipe(
        Qwen3Config(
            **SIZES | {"hidden_size": 112, "intermediate_size": 336},  # heads wider together than the model, as in 0.6B
            rms_norm_eps=1e-6,
            rope_parameters=RopeParameters(rope_theta=1_000_000.0),
            layer_types=(FULL,) * 4,
            tie_word_embeddings=True,
            bos_token_id=1000,
            eos_token_id=1000,
        ),
        tokenizer_files.write_qwen3,
        steps=(2000, 800),  # it takes this one twice as long to learn the seldom facts
    ),
    "tiny-qwen3-moe": Recipe(
        Qwen3MoeConfig(
            **SIZES | {"hidden_size": 96, "intermediate_size": 288},
            rms_norm_eps=1e-6,
            rope_parameters=RopeParameters(rope_theta=1_000_000.0),
            layer_types=(FULL,) * 4,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=96,
            norm_topk_prob=True,
            bos_token_id=1000,
            eos_token_id=1000,
        ),
        tokenizer_files.write_qwen3,
        max_shard_bytes=1_200_000,
    ),
    "tiny-gemma3": Recipe(
        Gemma3Config(
            **SIZES | {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 6, "num_key_value_heads": 1},
            rms_norm_eps=1e-6,
            rope_parameters={
                FULL: RopeParameters(rope_theta=1_000_000.0),
                SLIDING: RopeParameters(rope_theta=10_000.0),
            },
            sliding_window=48,  # a story is more than twice as long
            layer_types=(SLIDING,) * 5 + (FULL,),
            query_pre_attn_scalar=24,  # the model's width over its heads, and not head_dim: as in 27B
            bos_token_id=2,
            eos_token_id=1,
            pad_token_id=0,
        ),
        tokenizer_files.write_gemma3,
        steps=(2000, 0),
    ),
    "tiny-olmo3": Recipe(
        Olmo3Config(
            **SIZES | {"num_key_value_heads": 4, "intermediate_size": 344, "max_position_embeddings": 512},
            rms_norm_eps=1e-6,
            rope_parameters={
                FULL: RopeParameters(
                    rope_type="yarn",
                    rope_theta=500_000.0,
                    factor=8.0,
                    original_max_position_embeddings=64,
                    attention_factor=1.2079441541679836,
                    beta_fast=32.0,
                    beta_slow=1.0,
                ),
                SLIDING: RopeParameters(rope_theta=500_000.0),
            },
            sliding_window=48,
            layer_types=(SLIDING,) * 3 + (FULL,),
            eos_token_id=1000,
            pad_token_id=1020,
        ),
        tokenizer_files.write_olmo3,
    ),
}
