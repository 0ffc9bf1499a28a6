"""Tiny random models of every family, as transformers makes them: what the tests compare our models with.

A new family adds one strategy to `CONFIGS`. Everything else here knows no family.
"""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from course_helpers import load_model
from course_helpers.architectures.base import LanguageModel
from course_helpers.families import family_of

Data = dict[str, Any]
Model = TypeVar("Model", bound=nn.Module)
LONGEST = 56  # tokens in a test; beyond every `original_max_position_embeddings` drawn here
NARROWEST = 16  # see `decoder_configs`


def one_of(*values: Any) -> st.SearchStrategy:
    return st.sampled_from(values)


#: Ids that every vocabulary drawn here has room for, in the forms that real files use.
special_ids = st.fixed_dictionaries(
    {
        "bos_token_id": one_of(None, 0),
        "eos_token_id": one_of(None, 1, [1, 2]),
        "pad_token_id": one_of(None, 3),
    }
)


@st.composite
def gpt2_configs(draw: st.DrawFn) -> Data:
    heads = draw(st.integers(1, 4))
    config = {
        "model_type": "gpt2",
        "vocab_size": draw(st.integers(17, 64)),
        "n_positions": draw(st.integers(LONGEST, 64)),
        "n_embd": heads * draw(one_of(3, 4, 8)),
        "n_layer": draw(st.integers(1, 3)),
        "n_head": heads,
        "layer_norm_epsilon": draw(one_of(1e-6, 1e-5, 1e-2)),
        "activation_function": draw(one_of("gelu_new", "gelu_pytorch_tanh")),
        "tie_word_embeddings": draw(st.booleans()),
    } | draw(special_ids)
    inner = draw(one_of("absent", None, 12, 33))
    return config if inner == "absent" else config | {"n_inner": inner}


ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def rope_parameters(
    longest_original: int = 24, truncate: Sequence[bool] = (True, False), kinds: Sequence[str] = ROPE_TYPES
) -> st.SearchStrategy[Data]:
    """`rope_parameters` of all kinds, in the dialect of transformers 5."""
    thetas, factors = st.floats(50, 1e6), st.floats(1, 40)
    original = st.integers(8, longest_original)
    low = st.floats(0.5, 2)
    needed = {
        "default": {},
        "linear": {"factor": factors},
        "llama3": {
            "factor": factors,
            "low_freq_factor": low,
            "high_freq_factor": st.floats(2.5, 8),
            "original_max_position_embeddings": original,
        },
        "yarn": {"factor": factors, "original_max_position_embeddings": original},
    }
    optional = {
        "attention_factor": st.floats(0.5, 2),
        "beta_fast": st.floats(4, 64),
        "beta_slow": st.floats(0.25, 2),
        "truncate": one_of(*truncate),
    }
    return st.one_of(
        st.fixed_dictionaries(
            {"rope_type": st.just(kind), "rope_theta": thetas} | needed[kind],
            optional=optional if kind == "yarn" else {},
        )
        for kind in kinds
    )


#: For families with a set for each type of layer: transformers does not look for `truncate` there.
layered_rope_parameters = rope_parameters(truncate=(True,))


def rope_scaling(rope: Data) -> Data | None:
    """What transformers 4 has beside `rope_theta`."""
    plain = rope["rope_type"] == "default"
    return None if plain else {name: value for name, value in rope.items() if name != "rope_theta"}


@st.composite
def in_any_dialect(draw: st.DrawFn, rope: Data) -> Data:
    """The same rotary positions as transformers 5 writes them, as 4 did, or as early 4 did (`type`)."""
    dialect = draw(one_of("v5", "v4", "early v4"))
    if dialect == "v5":
        return {"rope_parameters": rope}
    scaling = rope_scaling(rope)
    if scaling and dialect == "early v4":
        scaling["type"] = scaling.pop("rope_type")
    return {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}


@st.composite
def llama_configs(draw: st.DrawFn, rope_types: Sequence[str] = ROPE_TYPES) -> Data:
    shared, ratio = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    heads = shared * ratio
    config = {
        "model_type": "llama",
        "vocab_size": draw(st.integers(17, 64)),
        "hidden_size": heads * draw(one_of(2, 4, 6)),
        "intermediate_size": draw(st.integers(5, 40)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(one_of(1e-6, 1e-5, 1e-2)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    config |= draw(special_ids) | draw(in_any_dialect(draw(rope_parameters(kinds=rope_types))))
    head_dim = draw(one_of(None, 2, 4, 10, 16))
    config |= {} if head_dim is None else {"head_dim": head_dim}
    return config if ratio == 1 and draw(st.booleans()) else config | {"num_key_value_heads": shared}


LAYER_TYPES = ("full_attention", "sliding_attention")


@st.composite
def windows(draw: st.DrawFn, layers: int) -> Data:
    """A plan of layers, and a window that is shorter than the texts of the tests."""
    plan = draw(st.lists(one_of(*LAYER_TYPES), min_size=layers, max_size=layers))
    return {"layer_types": plan, "sliding_window": draw(st.integers(1, 20))}


@st.composite
def decoder_configs(draw: st.DrawFn, model_type: str, most_layers: int = 3) -> Data:
    """What Qwen3, Gemma 3 and OLMo 3 have in common; heads are not tied to the width.

    No model is narrower than NARROWEST anywhere: these families normalise what attention gives, and now and then a few
    numbers are all near zero. A norm then enlarges nothing but rounding, beyond any tolerance.
    """
    shared, ratio = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    heads = shared * ratio
    least = math.ceil(NARROWEST / heads)
    return {
        "model_type": model_type,
        "vocab_size": draw(st.integers(17, 64)),
        "hidden_size": heads * draw(st.integers(least, least + 3)),
        "intermediate_size": draw(st.integers(NARROWEST, 40)),
        "num_hidden_layers": draw(st.integers(1, most_layers)),
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": draw(st.sampled_from([size for size in (4, 6, 10, 16) if heads * size >= NARROWEST])),
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(one_of(1e-6, 1e-5, 1e-2)),
        "tie_word_embeddings": draw(st.booleans()),
    } | draw(special_ids)


@st.composite
def qwen3_configs(draw: st.DrawFn) -> Data:
    config = draw(decoder_configs("qwen3")) | draw(in_any_dialect(draw(rope_parameters())))
    window = draw(one_of("none", "listed", "from a layer on"))
    if window == "listed":
        config |= draw(windows(config["num_hidden_layers"])) | {"use_sliding_window": True}
    if window == "from a layer on":
        config |= {"use_sliding_window": True, "sliding_window": draw(st.integers(1, 20))}
        config["max_window_layers"] = draw(st.integers(0, 3))
    return config


@st.composite
def qwen3_moe_configs(draw: st.DrawFn) -> Data:
    config = draw(decoder_configs("qwen3_moe")) | draw(in_any_dialect(draw(rope_parameters())))
    experts = draw(st.integers(1, 9))
    return config | {
        "num_experts": experts,
        "num_experts_per_tok": draw(st.integers(1, experts)),
        "moe_intermediate_size": draw(st.integers(3, 20)),
        "norm_topk_prob": draw(st.booleans()),
        "decoder_sparse_step": draw(one_of(1, 1, 2)),
        "mlp_only_layers": draw(one_of([], [], [0], [1])),
    }


@st.composite
def gemma3_configs(draw: st.DrawFn) -> Data:
    config = draw(decoder_configs("gemma3_text", most_layers=4))
    config |= {"query_pre_attn_scalar": draw(st.integers(8, 40)), "sliding_window": draw(st.integers(1, 20))}
    plan = draw(one_of("absent", "listed", "pattern"))
    if plan == "listed":
        config |= draw(windows(config["num_hidden_layers"]))
    if plan == "pattern":
        config["sliding_window_pattern"] = draw(st.integers(1, 4))
    full, sliding = draw(layered_rope_parameters), draw(layered_rope_parameters)
    if draw(st.booleans()):
        return config | {"rope_parameters": {"full_attention": full, "sliding_attention": sliding}}
    old = {"rope_theta": full["rope_theta"], "rope_local_base_freq": sliding["rope_theta"]}
    return config | old | {"rope_scaling": rope_scaling(full)}


@st.composite
def olmo3_configs(draw: st.DrawFn) -> Data:
    config = draw(decoder_configs("olmo3", most_layers=4))
    config |= {"sliding_window": draw(st.integers(1, 20))}
    if config["hidden_size"] // config["num_attention_heads"] % 2 == 0 and draw(st.booleans()):
        del config["head_dim"]
    if draw(st.booleans()):
        config |= draw(windows(config["num_hidden_layers"]))
    full, sliding = draw(layered_rope_parameters), draw(layered_rope_parameters)
    if draw(st.booleans()):
        return config | {"rope_parameters": {"full_attention": full, "sliding_attention": sliding}}
    full["rope_theta"] = 500_000.0  # the one value of which both transformers 4 and 5 make the same
    return config | {"rope_theta": 500_000.0, "rope_scaling": rope_scaling(full)}


#: Family of FAMILIES -> config.json of small random models of it.
CONFIGS: dict[str, st.SearchStrategy[Data]] = {
    "gpt2": gpt2_configs(),
    "llama2": llama_configs(rope_types=("default", "linear")),
    "llama3": llama_configs(),
    "qwen3": qwen3_configs(),
    "qwen3_moe": qwen3_moe_configs(),
    "gemma3": gemma3_configs(),
    "olmo3": olmo3_configs(),
}
families = st.sampled_from(sorted(CONFIGS)).flatmap(CONFIGS.__getitem__)

#: What the examples of the newer families have in common.
DECODER: Data = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

#: One fixed model a family, where a test needs a model and not many.
EXAMPLES: dict[str, Data] = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 61,
        "n_positions": 64,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 1,
    },
    "llama2": {
        "model_type": "llama",
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "rope_theta": 10000.0,
    },
    "llama3": {
        "model_type": "llama",
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen3": DECODER | {"model_type": "qwen3", "rope_theta": 1e6, "tie_word_embeddings": True},
    "qwen3_moe": DECODER
    | {
        "model_type": "qwen3_moe",
        "rope_theta": 1e6,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "norm_topk_prob": True,
        "mlp_only_layers": [1],
    },
    "gemma3": DECODER
    | {
        "model_type": "gemma3_text",
        "sliding_window": 7,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 20,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "olmo3": DECODER
    | {
        "model_type": "olmo3",
        "sliding_window": 7,
        "rope_theta": 5e5,
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16},
    },
}


def theirs(config: Data, seed: int = 0, deviation: float = 0.2, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The transformers model of a config.json, with random weights large enough for a mistake to show."""
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    fields = copy.deepcopy(config)  # transformers writes into what it is given
    made = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with mock.patch.object(PreTrainedModel, "initialize_weights"):  # every weight but those of norms is replaced below
        model = AutoModelForCausalLM.from_config(made, attn_implementation="eager", experts_implementation="eager")
    with_random_weights(model.eval(), seed, deviation)
    return model if model.dtype == dtype else cast(model, dtype)


def random_model(config: Data, seed: int = 0, deviation: float = 0.1) -> LanguageModel:
    """Our model of a config.json, with random weights of its own: for what needs no other model to compare with."""
    family = family_of(config)
    return with_random_weights(family.model(family.config.from_hf(config)).eval(), seed, deviation)


@torch.no_grad()
def with_random_weights(model: Model, seed: int, deviation: float) -> Model:
    """The same model, all weights replaced; those of norms vary around what the family's norm starts from, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1 or name.endswith("bias"):
            parameter.zero_()
        parameter.add_(deviation * noise)
    return model


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model of transformers in another type, as `from_pretrained(dtype=...)` gives it: rotary frequencies stay
    float32. `model.to(dtype)` alone would round them, and every rotation with them."""
    frequencies = {name: buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    model.to(dtype)
    for name, buffer in frequencies.items():
        owner, _, field = name.rpartition(".")
        setattr(model.get_submodule(owner), field, buffer)
    return model


def ours(config: Data, seed: int = 0, **options: Any) -> LanguageModel:
    """Our model of a config.json, with the weights of `theirs`."""
    return load_model(theirs(config, seed), config=config, **options)


def random_ids(config: Mapping[str, Any], rows: int, tokens: int, seed: int = 0) -> Tensor:
    return torch.randint(0, config["vocab_size"], (rows, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits_of(model: nn.Module, ids: Tensor, **options: Any) -> Tensor:
    """Logits of a model of ours or of transformers."""
    result = model(ids, **options)
    return result if isinstance(result, Tensor) else result.logits


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def same_parameters(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models hold the same parameters, to the bit."""
    first, second = dict(one.named_parameters()), dict(other.named_parameters())
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
