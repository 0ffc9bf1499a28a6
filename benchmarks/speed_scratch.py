"""The package `llms-from-scratch` among what `benchmarks.speed` compares, with its cache.

It has GPT-2, Llama 3 and Qwen3. Where it cannot run a model, the reason is kept and shown.

Shape suffixes: B batch, T new tokens, V vocabulary.
"""

import contextlib
import importlib.util
import io
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed_systems import SCRATCH, Loader, Session, System, held
from course_helpers.architectures.config import ModelConfig


class ScratchSession(Session):
    """`llms-from-scratch`: the model counts the positions, a list of pairs holds keys and values."""

    def __init__(self, model: Any, rows: int, options: dict[str, object]):
        from llms_from_scratch.kv_cache.utils import KVCache

        self.model, self.options, self.rows = model, options, rows
        self.model.current_pos, self.cache = 0, KVCache(n_layers=len(model.trf_blocks))

    def logits(self, ids_BT: Tensor) -> Tensor:
        return self.model(ids_BT, cache=self.cache, **self.options)[:, -1]

    def skip(self, positions: int) -> None:
        for layer, pair in enumerate(self.cache.get_all()):
            longer = (torch.cat((one, one[:, :, :1].expand(-1, -1, positions, -1) * 0), dim=2) for one in pair)
            self.cache.update(layer, tuple(longer))
        self.model.current_pos += positions

    def nbytes(self) -> int:
        return held(tensor for pair in self.cache.get_all() for tensor in pair)


def scratch_llama(config: ModelConfig, dtype: torch.dtype, state: dict[str, Tensor]) -> tuple[Any, dict]:
    from llms_from_scratch.kv_cache.llama3 import Llama3Model, compute_rope_params
    from llms_from_scratch.llama3 import load_weights_into_llama

    settings = scratch_settings(config, dtype) | {"rope_freq": None}
    return scratch_model(Llama3Model, settings, compute_rope_params, load_weights_into_llama, state), {}


def scratch_qwen(config: ModelConfig, dtype: torch.dtype, state: dict[str, Tensor]) -> tuple[Any, dict]:
    from llms_from_scratch.kv_cache.qwen3 import Qwen3Model, compute_rope_params
    from llms_from_scratch.qwen3 import load_weights_into_qwen

    settings = scratch_settings(config, dtype) | {"qk_norm": True}
    for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size"):
        if hasattr(config, name):
            settings[name] = getattr(config, name)
    return scratch_model(Qwen3Model, settings, compute_rope_params, load_weights_into_qwen, state), {}


def scratch_gpt2(config: ModelConfig, dtype: torch.dtype, state: dict[str, Tensor]) -> tuple[Any, dict]:
    from llms_from_scratch.ch05 import load_weights_into_gpt
    from llms_from_scratch.kv_cache.gpt2 import GPTModel

    sizes = {"emb_dim": config.n_embd, "n_heads": config.n_head, "n_layers": config.n_layer, "drop_rate": 0.0}
    with torch.device("meta"):
        model = GPTModel(
            sizes | {"vocab_size": config.vocab_size, "context_length": config.n_positions, "qkv_bias": True}
        )
    load_weights_into_gpt(model, openai_params(state, config.n_layer))
    return model.to(dtype), {"use_cache": True}


def openai_params(state: dict[str, Tensor], layers: int) -> dict[str, Any]:
    """A GPT-2's tensors as OpenAI's own files nest them; that is what the package's loader takes."""
    arrays = {name.removeprefix("transformer."): tensor.float().numpy() for name, tensor in state.items()}

    def block(layer: int) -> dict[str, Any]:
        pairs = lambda part, first, second: {  # noqa: E731
            first: arrays[f"h.{layer}.{part}.weight"],
            second: arrays[f"h.{layer}.{part}.bias"],
        }
        return {
            "attn": {name: pairs(f"attn.{name}", "w", "b") for name in ("c_attn", "c_proj")},
            "mlp": {name: pairs(f"mlp.{name}", "w", "b") for name in ("c_fc", "c_proj")},
        } | {name: pairs(name, "g", "b") for name in ("ln_1", "ln_2")}

    ends = {"wte": arrays["wte.weight"], "wpe": arrays["wpe.weight"]}
    return ends | {
        "g": arrays["ln_f.weight"],
        "b": arrays["ln_f.bias"],
        "blocks": [block(layer) for layer in range(layers)],
    }


def scratch_settings(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "emb_dim": config.hidden_size,
        "n_heads": config.num_attention_heads,
        "head_dim": config.head_dim,
        "n_layers": config.num_hidden_layers,
        "hidden_dim": config.intermediate_size,
        "n_kv_groups": config.num_key_value_heads,
        "rope_base": config.rope_parameters.rope_theta,
        "dtype": dtype,
    }


def scratch_model(model_class: type, settings: dict[str, Any], rope: Callable, load: Callable, state: dict) -> Any:
    """Built without memory, because its random weights would only be overwritten; rotary tables made after that."""
    with torch.device("meta"):
        model = model_class(settings)
    with contextlib.redirect_stdout(io.StringIO()):
        load(model, settings, state)
    tables = rope(settings["head_dim"], theta_base=settings["rope_base"], context_length=settings["context_length"])
    model.cos, model.sin = tables
    return model


#: The architectures that it has with a cache, by their `model_type`. It has no Gemma 3 and no OLMo 3.
SCRATCH_MODELS = {"llama": scratch_llama, "qwen3": scratch_qwen, "qwen3_moe": scratch_qwen, "gpt2": scratch_gpt2}


def scratch_loader(config: ModelConfig) -> Loader:
    def load(folder: Path, dtype: torch.dtype, device: str) -> list[System]:
        from safetensors.torch import load_file

        if not importlib.util.find_spec("llms_from_scratch"):
            raise LookupError("not installed: pip install --no-deps -r benchmarks/requirements.txt")
        if config.model_type not in SCRATCH_MODELS:
            raise LookupError(f"{SCRATCH} {metadata.version(SCRATCH)} has no {config.model_type}")
        model, options = SCRATCH_MODELS[config.model_type](config, dtype, load_file(folder / "model.safetensors"))
        model = model.to(device).eval()
        note = "version " + metadata.version(SCRATCH) + ", with its cache, which grows by joining"
        return [System(SCRATCH, SCRATCH, lambda rows, positions: ScratchSession(model, rows, options), note=note)]

    # A tied head is a second copy there. What it cannot load takes no memory.
    return Loader(SCRATCH, load, (SCRATCH,), size=1.3 if config.model_type in SCRATCH_MODELS else 0.0)
