"""The presets are the released models, to the parameter."""

import copy

import pytest
import torch

from course_helpers import FAMILIES
from course_helpers.architectures.config import ModelConfig
from course_helpers.memory import kv_cache_bytes

PRESETS = {name: (family, preset) for family in FAMILIES.values() for name, preset in family.presets.items()}

#: Parameters, each counted once, as the models' owners state them or their files add up.
PARAMETERS = {
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-medium": 354_823_168,
    "openai-community/gpt2-large": 774_030_080,
    "openai-community/gpt2-xl": 1_557_611_200,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 30_532_122_624,
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": 30_532_122_624,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
    "google/gemma-3-270m": 268_098_176,
    "google/gemma-3-1b-pt": 999_885_952,
    "google/gemma-3-4b-pt": 3_880_263_168,
    "allenai/Olmo-3-1025-7B": 7_298_011_136,
    "allenai/Olmo-3-1125-32B": 32_233_522_176,
}

#: KiB of keys and values that each token of a long text adds in bfloat16, as long as no window is full.
CACHE_KIB_PER_TOKEN = {
    "meta-llama/Llama-2-7b-hf": 512,
    "meta-llama/Llama-3.1-8B": 128,
    "meta-llama/Llama-3.2-1B": 32,
    "meta-llama/Llama-3.2-3B": 112,
    "Qwen/Qwen3-0.6B": 112,
    "Qwen/Qwen3-4B": 144,
    "Qwen/Qwen3-14B": 160,
    "Qwen/Qwen3-32B": 256,
    "Qwen/Qwen3-30B-A3B": 96,
    "google/gemma-3-270m": 18,
    "allenai/Olmo-3-1025-7B": 512,
    "allenai/Olmo-3-1125-32B": 256,
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
LLAMA2_COMMON = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
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
QWEN3_COMMON = {
    "attention_bias": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_MOE_COMMON = QWEN3_COMMON | {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "norm_topk_prob": True,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_key_value_heads": 4,
    "output_router_logits": False,
}
SIZE_30B_A3B = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_window_layers": 48,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_hidden_layers": 48,
}
LONG = {"max_position_embeddings": 262144, "rope_theta": 10000000}
GEMMA3_COMMON = {
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "vocab_size": 262144,
}
OLMO3_COMMON = {
    "attention_bias": False,
    "eos_token_id": 100257,
    "hidden_act": "silu",
    "max_position_embeddings": 65536,
    "model_type": "olmo3",
    "pad_token_id": 100277,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "attention_factor": 1.2079441541679836,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "yarn",
    },
    "rope_theta": 500000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 100278,
}
SLIDING, FULL = "sliding_attention", "full_attention"
RELEASED = {
    "openai-community/gpt2": GPT2_COMMON | {"n_embd": 768, "n_head": 12, "n_layer": 12},
    "openai-community/gpt2-medium": GPT2_COMMON | {"n_embd": 1024, "n_head": 16, "n_layer": 24},
    "openai-community/gpt2-large": GPT2_COMMON | {"n_embd": 1280, "n_head": 20, "n_layer": 36},
    "openai-community/gpt2-xl": GPT2_COMMON | {"n_embd": 1600, "n_head": 25, "n_layer": 48},
    "meta-llama/Llama-2-7b-hf": LLAMA2_COMMON
    | {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
    },
    "meta-llama/Llama-2-13b-hf": LLAMA2_COMMON
    | {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_hidden_layers": 40,
        "num_key_value_heads": 40,
    },
    "meta-llama/Llama-2-70b-hf": LLAMA2_COMMON
    | {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_attention_heads": 64,
        "num_hidden_layers": 80,
        "num_key_value_heads": 8,
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
    "Qwen/Qwen3-0.6B": QWEN3_COMMON
    | {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "max_window_layers": 28,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-1.7B": QWEN3_COMMON
    | {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_window_layers": 28,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-4B": QWEN3_COMMON
    | {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "max_window_layers": 36,
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-8B": QWEN3_COMMON
    | {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "max_window_layers": 36,
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
    },
    "Qwen/Qwen3-14B": QWEN3_COMMON
    | {
        "hidden_size": 5120,
        "intermediate_size": 17408,
        "max_window_layers": 40,
        "num_attention_heads": 40,
        "num_hidden_layers": 40,
    },
    "Qwen/Qwen3-32B": QWEN3_COMMON
    | {
        "hidden_size": 5120,
        "intermediate_size": 25600,
        "max_window_layers": 64,
        "num_attention_heads": 64,
        "num_hidden_layers": 64,
    },
    "Qwen/Qwen3-30B-A3B": QWEN3_MOE_COMMON | SIZE_30B_A3B,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": QWEN3_MOE_COMMON | SIZE_30B_A3B | LONG,
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": QWEN3_MOE_COMMON
    | SIZE_30B_A3B
    | LONG
    | {
        "bos_token_id": None,
        "intermediate_size": 5472,
        "max_window_layers": 28,
        "qkv_bias": False,
        "shared_expert_intermediate_size": 0,
        "use_qk_norm": True,
    },
    "Qwen/Qwen3-235B-A22B": QWEN3_MOE_COMMON
    | {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "max_window_layers": 94,
        "moe_intermediate_size": 1536,
        "num_attention_heads": 64,
        "num_hidden_layers": 94,
    },
    "google/gemma-3-270m": GEMMA3_COMMON
    | {
        "hidden_size": 640,
        "intermediate_size": 2048,
        "layer_types": [*[SLIDING] * 5, FULL] * 3,
        "num_hidden_layers": 18,
        "use_bidirectional_attention": False,
    },
    "google/gemma-3-1b-pt": GEMMA3_COMMON
    | {"hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26, "sliding_window_pattern": 6},
    "google/gemma-3-4b-pt": {
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27},
    },
    "allenai/Olmo-3-1025-7B": OLMO3_COMMON
    | {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "layer_types": [*[SLIDING] * 3, FULL] * 8,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
    },
    "allenai/Olmo-3-1125-32B": OLMO3_COMMON
    | {
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "layer_types": [*[SLIDING] * 3, FULL] * 16,
        "num_attention_heads": 40,
        "num_hidden_layers": 64,
        "num_key_value_heads": 8,
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


@pytest.mark.parametrize("name", RELEASED)
def test_a_preset_is_what_transformers_makes_of_the_released_config_json(name):
    from transformers import AutoConfig

    family, preset = PRESETS[name]
    fields = copy.deepcopy(RELEASED[name])
    language_part = AutoConfig.for_model(fields.pop("model_type"), **fields).get_text_config()
    assert family.config.from_hf(language_part.to_dict()) == preset


@pytest.mark.parametrize("name", CACHE_KIB_PER_TOKEN)
def test_a_token_takes_the_stated_room_in_the_cache(name):
    preset = PRESETS[name][1]
    assert kv_cache_bytes(preset, 101) - kv_cache_bytes(preset, 100) == 1024 * CACHE_KIB_PER_TOKEN[name]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_own_config_json(name):
    family, preset = PRESETS[name]
    assert isinstance(preset, ModelConfig) and family.config.from_hf(preset.to_hf()) == preset
