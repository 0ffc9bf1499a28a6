"""FAMILIES: the adapter registry. One row a family says everything that differs between families.

The core (loading, generation, validation) asks this table and knows no family by name. To add one, write its file in
`architectures/`, its rows in `loaders/weight_maps.py`, a row here, and build its tiny checkpoint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .architectures import gpt2, llama
from .architectures.base import LanguageModel
from .architectures.config import ModelConfig
from .errors import ConfigError
from .loaders.weight_maps import GPT2, LLAMA, WeightMap
from .tokenizer_backends import Backend, gpt2_backend, llama3_backend


@dataclass(frozen=True)
class Family:
    """One model family, as the course treats it."""

    title: str
    config: type[ModelConfig]
    model: type[LanguageModel]
    weight_maps: tuple[WeightMap, ...]  # the layouts its checkpoints come in
    presets: Mapping[str, ModelConfig]  # hub id -> config
    hub_ladder: tuple[str, ...]  # hub ids to load, smallest first
    ungated: tuple[str, ...]  # those of the ladder that need neither account nor licence
    tiny: str  # the bundled trained checkpoint, a folder of checkpoints/
    tokenizer: Callable[[Path, Mapping[str, Any]], tuple[Backend, tuple[str, ...]]]  # reads the family's own files
    adds_bos: bool  # whether texts began with the beginning-of-text token in training
    chat_format: str | None = None


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        title="GPT-2",
        config=gpt2.GPT2Config,
        model=gpt2.GPT2Model,
        weight_maps=(GPT2,),
        presets=gpt2.PRESETS,
        hub_ladder=tuple(gpt2.PRESETS),
        ungated=tuple(gpt2.PRESETS),
        tiny="tiny-gpt2",
        tokenizer=gpt2_backend,
        adds_bos=False,
    ),
    "llama3": Family(
        title="Llama 3, 3.1, 3.2",
        config=llama.LlamaConfig,
        model=llama.LlamaModel,
        weight_maps=(LLAMA,),
        presets=llama.PRESETS,
        hub_ladder=("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.1-8B"),
        ungated=(),
        tiny="tiny-llama3",
        tokenizer=llama3_backend,
        adds_bos=True,
        chat_format="llama3",
    ),
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a parsed config.json belongs to, by its `model_type`. Raises ConfigError if there is none."""
    model_type = config.get("model_type")
    for family in FAMILIES.values():
        if family.config.model_type == model_type:
            return family
    raise ConfigError(
        "config.json belongs to a family that this package does not know",
        field="model_type",
        expected=" or ".join(sorted({family.config.model_type for family in FAMILIES.values()})),
        found=repr(model_type),
        cause="another architecture; loading it as a similar one would give a wrong model",
        next_step="`python -m course_helpers families` lists what can be loaded",
    )
