"""The presets are the released models, to the parameter."""

import pytest
import torch

from course_helpers import FAMILIES
from course_helpers.architectures.config import ModelConfig

PRESETS = {name: (family, preset) for family in FAMILIES.values() for name, preset in family.presets.items()}

#: Parameters, each counted once, as the models' owners state them or their files add up.
PARAMETERS = {
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-medium": 354_823_168,
    "openai-community/gpt2-large": 774_030_080,
    "openai-community/gpt2-xl": 1_557_611_200,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
}

#: What the released config.json says, of the fields that change the numbers.
GPT2_COMMON = {
    "activation_function": "gelu_new",
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_positions": 1024,
    "vocab_size": 50257,
}
LLAMA3_COMMON = {
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "hidden_act": "silu",
    "model_type": "llama",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "vocab_size": 128256,
}
SCALING = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
SIZE_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
}
RELEASED = {
    "openai-community/gpt2": GPT2_COMMON | {"n_embd": 768, "n_head": 12, "n_layer": 12},
    "openai-community/gpt2-medium": GPT2_COMMON | {"n_embd": 1024, "n_head": 16, "n_layer": 24},
    "openai-community/gpt2-large": GPT2_COMMON | {"n_embd": 1280, "n_head": 20, "n_layer": 36},
    "openai-community/gpt2-xl": GPT2_COMMON | {"n_embd": 1600, "n_head": 25, "n_layer": 48},
    "meta-llama/Llama-2-7b-hf": {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": 32000,
    },
    "meta-llama/Meta-Llama-3-8B": LLAMA3_COMMON
    | SIZE_8B
    | {"max_position_embeddings": 8192, "rope_scaling": None, "tie_word_embeddings": False},
    "meta-llama/Llama-3.1-8B": LLAMA3_COMMON
    | SIZE_8B
    | {
        "max_position_embeddings": 131072,
        "rope_scaling": SCALING | {"factor": 8.0},
        "tie_word_embeddings": False,
    },
    "meta-llama/Llama-3.2-1B": LLAMA3_COMMON
    | {
        "head_dim": 64,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "rope_scaling": SCALING | {"factor": 32.0},
        "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.2-3B": LLAMA3_COMMON
    | {
        "head_dim": 128,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "num_attention_heads": 24,
        "num_hidden_layers": 28,
        "rope_scaling": SCALING | {"factor": 32.0},
        "tie_word_embeddings": True,
    },
}


def on_meta(name: str) -> torch.nn.Module:
    family, preset = PRESETS[name]
    with torch.device("meta"):
        return family.model(preset)


def test_every_preset_is_checked_here():
    assert PARAMETERS.keys() == RELEASED.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_preset_has_exactly_the_released_number_of_parameters(name):
    assert on_meta(name).num_parameters() == PARAMETERS[name]


@pytest.mark.parametrize("name", RELEASED)
def test_a_preset_is_what_the_released_config_json_says(name):
    family, preset = PRESETS[name]
    assert family.config.from_hf(RELEASED[name]) == preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_own_config_json(name):
    family, preset = PRESETS[name]
    assert isinstance(preset, ModelConfig) and family.config.from_hf(preset.to_hf()) == preset
