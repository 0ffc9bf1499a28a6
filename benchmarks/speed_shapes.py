"""What is run by `benchmarks.speed`: shapes of released models, or scaled down; and how long the texts are."""

import dataclasses
from dataclasses import dataclass

import torch

from benchmarks.loading import tiny
from course_helpers import FAMILIES
from course_helpers.architectures.config import ModelConfig
from course_helpers.sizes import weight_bytes

BRAIN, SINGLE = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Shape:
    """A model to run, with random weights."""

    title: str
    config: ModelConfig
    long: bool = False  # the cost of a token is followed to long contexts, too
    dtypes: tuple[torch.dtype, ...] = (SINGLE, BRAIN)

    def nbytes(self, dtype: torch.dtype) -> int:
        return weight_bytes(self.config, dtype)


@dataclass(frozen=True)
class Lengths:
    """Positions. Prompt and spans: what is decoded is measured between the ends of a span, in as many parts as there
    are rounds, `steps` tokens in each."""

    prompt: int = 32
    spans: tuple[int, ...] = (128, 512)
    prefills: tuple[int, ...] = (512, 2048)
    contexts: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    caches: tuple[int, ...] = (1024, 8192, 32768)
    steps: int = 8
    rows: int = 8  # of the larger batch
    checked: int = 8  # tokens whose logits are compared before anything is timed


USUAL = Lengths()
QUICK = Lengths(8, (16, 48), (16, 48), (32, 64), (32, 64, 128), steps=2, rows=2, checked=4)


def preset(hub_id: str) -> ModelConfig:
    return next(family.presets[hub_id] for family in FAMILIES.values() if hub_id in family.presets)


def scaled(hub_id: str, layers: int, **sizes: object) -> ModelConfig:
    """A released model's config with other sizes; its plan of layers begins as that of the large one."""
    config = preset(hub_id)
    plan = {"layer_types": config.layer_types[:layers]} if hasattr(config, "layer_types") else {}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    known = {field.name for field in dataclasses.fields(config)}
    kept = {name: value for name, value in (ends | sizes).items() if name in known}
    return dataclasses.replace(config, num_hidden_layers=layers, **plan, **kept)


def smollm() -> ModelConfig:
    return scaled(
        "meta-llama/Llama-3.2-1B",
        30,
        rope_parameters=preset("meta-llama/Llama-2-7b-hf").rope_parameters,
        max_position_embeddings=40960,
        vocab_size=49152,
        hidden_size=576,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        intermediate_size=1536,
    )


SCALED = {"vocab_size": 32000, "hidden_size": 1024, "num_attention_heads": 16, "head_dim": 64}

#: By the names that `--only` knows; what a CPU is asked.
SHAPES: dict[str, Shape] = {
    "llama": Shape("Llama 135M (SmolLM's shape)", smollm(), long=True),
    "qwen3": Shape("Qwen3 0.6B", preset("Qwen/Qwen3-0.6B")),
    "gemma3": Shape("Gemma 3 270M", preset("google/gemma-3-270m")),
    "olmo3": Shape(
        "OLMo 3, 8 layers of 1024",
        scaled(
            "allenai/Olmo-3-1025-7B",
            8,
            **SCALED,
            num_key_value_heads=16,
            intermediate_size=2816,
            sliding_window=1024,
        ),
        long=True,
    ),
    "moe": Shape(
        "Qwen3 MoE, 8 layers of 32 experts",
        scaled(
            "Qwen/Qwen3-30B-A3B",
            8,
            **SCALED,
            num_key_value_heads=4,
            num_experts=32,
            moe_intermediate_size=384,
        ),
    ),
    "gpt2": Shape("GPT-2 124M", preset("openai-community/gpt2")),
}

#: What a GPU is asked: released sizes, in bfloat16.
CUDA_SHAPES: dict[str, Shape] = {
    "qwen3": Shape("Qwen3 0.6B", preset("Qwen/Qwen3-0.6B"), long=True, dtypes=(BRAIN,)),
    "olmo3": Shape("OLMo 3 7B", preset("allenai/Olmo-3-1025-7B"), long=True, dtypes=(BRAIN,)),
    "moe": Shape("Qwen3 30B-A3B", preset("Qwen/Qwen3-30B-A3B"), dtypes=(BRAIN,)),
}


def shapes(device: str, quick: bool) -> dict[str, Shape]:
    found = SHAPES if torch.device(device).type == "cpu" else CUDA_SHAPES
    return {name: dataclasses.replace(one, config=small(one.config)) for name, one in found.items()} if quick else found


def small(config: ModelConfig) -> ModelConfig:
    """The same family, very small; windows so short that texts leave them."""
    if hasattr(config, "n_embd"):  # GPT-2 has sizes of other names
        return dataclasses.replace(config, n_embd=64, n_inner=256, n_layer=2, n_head=4, vocab_size=512, **NO_ENDS)
    window = {"sliding_window": 16} if getattr(config, "sliding_window", None) else {}
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    experts = experts if hasattr(config, "num_experts") else {}
    plan = {"layer_types": (config.layer_types[0], config.layer_types[-1])} if hasattr(config, "layer_types") else {}
    return dataclasses.replace(tiny(config), **window, **experts, **plan)


NO_ENDS = {"bos_token_id": None, "eos_token_id": None}
