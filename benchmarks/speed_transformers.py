"""Transformers among what `benchmarks.speed` compares: its attentions, its caches, its ways with experts, compiled.

Shape suffixes: B batch, T new tokens, K key/value heads, S positions, D head dimension, V vocabulary.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed_systems import TRANSFORMERS, Loader, Session, System, held
from course_helpers.architectures.config import ModelConfig

ATTENTIONS, CACHES = ("eager", "sdpa"), ("dynamic", "static")


@dataclass(frozen=True)
class Setting:
    """How Transformers runs a model."""

    attention: str
    cache: str
    experts: str | None = None  # how steps of one token compute experts; None: as Transformers does by itself
    compiled: bool = False

    @property
    def name(self) -> str:
        words = (TRANSFORMERS, self.attention, self.cache, self.experts, "compiled" if self.compiled else None)
        return ", ".join(word for word in words if word)

    @property
    def note(self) -> str:
        cache = {"dynamic": "a cache that grows by joining", "static": "a cache taken once, of the text's full length"}
        words = f"{self.attention} attention, {cache[self.cache]}"
        words += f"; experts of a step by {self.experts}" if self.experts else ""
        return words + ("; a step by its own get_compiled_call" if self.compiled else "")


def settings_of(config: ModelConfig, device: str, compiled: bool) -> list[Setting]:
    """Attention and cache in all combinations; for experts also what its `generate` changes to on a GPU."""
    found = [Setting(*each) for each in itertools.product(ATTENTIONS, CACHES)]
    batched = "batched_mm" if hasattr(config, "num_experts") else None
    if batched:
        found += [Setting("sdpa", cache, batched) for cache in CACHES]
    if compiled:
        found.append(Setting("sdpa", "static", None if device == "cpu" else batched, compiled=True))
    return found


class TransformersSession(Session):
    def __init__(self, model: Any, setting: Setting, rows: int, positions: int, call: Callable):
        self.model, self.setting, self.rows, self.call = model, setting, rows, call
        self.cache = transformers_cache(model.config, setting.cache, positions)

    def logits(self, ids_BT: Tensor) -> Tensor:
        is_step = ids_BT.shape[1] == 1
        if self.setting.experts:
            use_experts(self.model, self.setting.experts if is_step else None)
        call = self.call if is_step else self.model
        return call(input_ids=ids_BT, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    def skip(self, positions: int) -> None:
        fill(self.cache, self.model.config, self.rows, positions, self.model.dtype, self.model.device)

    def nbytes(self) -> int:
        return held(tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values))


def transformers_cache(config: Any, kind: str, positions: int) -> Any:
    from transformers import DynamicCache, StaticCache

    return DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=positions)


def fill(cache: Any, config: Any, rows: int, positions: int, dtype: torch.dtype, device: Any) -> None:
    """Zeros for so many positions of every layer, by the cache's own `update`."""
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    zeros_BKSD = torch.zeros(1, dtype=dtype, device=device).expand(rows, heads, positions, head_dim)
    for layer in range(config.num_hidden_layers):
        cache.update(zeros_BKSD, zeros_BKSD, layer)


def use_experts(model: Any, how: str | None) -> None:
    """Choose how experts are computed; None: as after loading."""
    how = how or model.usual_experts
    if how and model.config._experts_implementation != how:
        model.set_experts_implementation(how)


def transformers_loader(config: ModelConfig, device: str, compiled: bool) -> Loader:
    settings = settings_of(config, device, compiled)

    def load(folder: Path, dtype: torch.dtype, device: str) -> list[System]:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        place = {} if device == "cpu" else {"device_map": device}  # straight to the device; that needs accelerate
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **place).eval()
        model.usual_experts = model.config._experts_implementation if hasattr(config, "num_experts") else None
        return [transformers_system(model, setting, device) for setting in settings]

    return Loader(TRANSFORMERS, load, tuple(setting.name for setting in settings))


def transformers_system(model: Any, setting: Setting, device: str) -> System:
    call = compiled_call(model, device) if setting.compiled else model

    def ready() -> None:
        model.set_attn_implementation(setting.attention)
        use_experts(model, None)

    return System(
        setting.name,
        TRANSFORMERS,
        lambda rows, positions: TransformersSession(model, setting, rows, positions, call),
        ready=ready,
        compiled=setting.compiled,
        note=setting.note,
        steps_only=setting.compiled or setting.experts is not None,
    )


def compiled_call(model: Any, device: str) -> Callable:
    """Transformers' own way to compile a step; on a CPU without the mode that is for CUDA's graphs."""
    from transformers import CompileConfig

    return model.get_compiled_call(None if device.startswith("cuda") else CompileConfig(mode="default"))


def cache_bytes(config: ModelConfig, kind: str, positions: int, dtype: torch.dtype) -> int:
    """What Transformers' cache of this kind holds for one row of so many positions. Its own class is asked, on torch's
    meta device, where tensors have sizes and no memory: one update for the text before, and one for the last token."""
    from transformers import AutoConfig

    about = AutoConfig.for_model(**config.to_hf())
    cache = transformers_cache(about, kind, positions)
    for new in (positions - 1, 1):
        fill(cache, about, 1, new, dtype, "meta")
    return held(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
