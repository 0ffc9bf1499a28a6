"""FAMILIES: the adapter registry. One row a family says everything that differs between families.

The core (loading, generation, validation) asks this table and knows no family by name. To add one, write its file in
`architectures/`, its rows in `loaders/weight_maps.py`, a row here, and build its tiny checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .architectures import gemma3, gpt2, llama, olmo3, qwen3
from .architectures.base import LanguageModel
from .architectures.config import ModelConfig
from .errors import ConfigError
from .loaders.rules import WeightMap
from .loaders.weight_maps import (
    GEMMA3,
    GPT2,
    GPT2_TF,
    LLAMA,
    LLAMA_META,
    OLMO3,
    QWEN3,
    QWEN3_MOE,
    QWEN3_MOE_FUSED,
)
from .parallelism import plans


@dataclass(frozen=True)
class Family:
    """One model family, as the course treats it. Families that share a `model_type` share all that is code."""

    title: str
    config: type[ModelConfig]
    model: type[LanguageModel]
    weight_maps: tuple[WeightMap, ...]  # the layouts its checkpoints come in; the first is the one that is written
    presets: Mapping[str, ModelConfig]  # hub id -> config, smallest first
    tiny: str | None  # the bundled trained checkpoint, a folder of checkpoints/; None for a family that has none
    tokenizer: str  # what it is, in words; how to run it is read off a checkpoint's own files
    licence: str
    gated: bool  # whether the hub wants an account and the licence accepted
    parallel: plans.Plan = field(default_factory=dict)  # how its modules are cut up over several processes


META, APACHE = "Llama community licence", "Apache-2.0"

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        title="GPT-2",
        config=gpt2.GPT2Config,
        model=gpt2.GPT2Model,
        weight_maps=(GPT2, GPT2_TF),
        presets=gpt2.PRESETS,
        tiny="tiny-gpt2",
        tokenizer="byte-level BPE (tiktoken)",
        licence="MIT",
        gated=False,
        parallel=plans.GPT2,
    ),
    "llama2": Family(
        title="Llama 2",
        config=llama.LlamaConfig,
        model=llama.LlamaModel,
        weight_maps=(LLAMA, LLAMA_META),
        presets=llama.LLAMA_2_PRESETS,
        tiny="tiny-llama2",
        tokenizer="BPE (SentencePiece)",
        licence=META,
        gated=True,
        parallel=plans.LLAMA,
    ),
    "llama3": Family(
        title="Llama 3, 3.1, 3.2",
        config=llama.LlamaConfig,
        model=llama.LlamaModel,
        weight_maps=(LLAMA, LLAMA_META),
        presets=llama.LLAMA_3_PRESETS,
        tiny="tiny-llama3",
        tokenizer="byte-level BPE (tiktoken)",
        licence=META,
        gated=True,
        parallel=plans.LLAMA,
    ),
    "qwen3": Family(
        title="Qwen3",
        config=qwen3.Qwen3Config,
        model=qwen3.Qwen3Model,
        weight_maps=(QWEN3,),
        presets=qwen3.PRESETS,
        tiny="tiny-qwen3",
        tokenizer="byte-level BPE (tokenizer.json)",
        licence=APACHE,
        gated=False,
        parallel=plans.QWEN3,
    ),
    "qwen3_moe": Family(
        title="Qwen3, mixture of experts",
        config=qwen3.Qwen3MoeConfig,
        model=qwen3.Qwen3MoeModel,
        weight_maps=(QWEN3_MOE, QWEN3_MOE_FUSED),
        presets=qwen3.MOE_PRESETS,
        tiny="tiny-qwen3-moe",
        tokenizer="byte-level BPE (tokenizer.json)",
        licence=APACHE,
        gated=False,
        parallel=plans.QWEN3_MOE,
    ),
    "gemma3": Family(
        title="Gemma 3 (text)",
        config=gemma3.Gemma3Config,
        model=gemma3.Gemma3Model,
        weight_maps=(GEMMA3,),
        presets=gemma3.PRESETS,
        tiny="tiny-gemma3",
        tokenizer="BPE with bytes (tokenizer.json)",
        licence="Gemma terms of use",
        gated=True,
        parallel=plans.GEMMA3,
    ),
    "olmo3": Family(
        title="OLMo 3",
        config=olmo3.Olmo3Config,
        model=olmo3.Olmo3Model,
        weight_maps=(OLMO3,),
        presets=olmo3.PRESETS,
        tiny="tiny-olmo3",
        tokenizer="byte-level BPE (tokenizer.json)",
        licence=APACHE,
        gated=False,
        parallel=plans.OLMO3,
    ),
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a parsed config.json belongs to, by its `model_type`. Raises ConfigError if there is none."""
    model_type = config.get("model_type")
    for family in FAMILIES.values():
        if model_type in family.config.model_types():
            return family
    raise ConfigError(
        "config.json belongs to a family that this package does not know",
        field="model_type",
        expected=" or ".join(sorted({name for family in FAMILIES.values() for name in family.config.model_types()})),
        found=repr(model_type),
        cause="another architecture; loading it as a similar one would give a wrong model",
        next_step="`python -m course_helpers families` lists what can be loaded",
    )
