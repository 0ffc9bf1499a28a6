"""A config is read to the letter, or refused with a reason."""

import copy
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import FAMILIES, CheckpointError, ConfigError, CourseWarning
from course_helpers.families import family_of
from tests.tiny_models import CONFIGS, EXAMPLES, Data, families

every_family = pytest.mark.parametrize("family", FAMILIES)
ROPE = {
    "rope_theta": 10000.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def read(data: Data):
    return family_of(data).config.from_hf(data)


def refusal(data: Data) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(data)
    return caught.value


def without(data: Data, *names: str) -> Data:
    return {name: value for name, value in data.items() if name not in names}


def as_transformers_reads(data: Data) -> Data:
    """What transformers makes of a config.json, written out in full."""
    from transformers import AutoConfig

    fields = copy.deepcopy(data)
    return AutoConfig.for_model(fields.pop("model_type"), **fields).to_dict()


#: family -> what is changed in its example (None: left out), and the field that the refusal must name.
REFUSED = [
    *[(family, {"model_type": "mamba"}, "model_type") for family in FAMILIES],
    *[(family, {"quantization_config": {"bits": 4}}, "quantization_config") for family in FAMILIES],
    *[
        (family, {"vocab_size": bad}, "vocab_size")
        for family in FAMILIES
        for bad in (None, "61", 61.0, True, 0, -1, [])
    ],
    *[(family, {"tie_word_embeddings": bad}, "tie_word_embeddings") for family in FAMILIES for bad in ("yes", 1)],
    *[(family, {"bos_token_id": bad}, "bos_token_id") for family in FAMILIES for bad in ("<s>", 1.5, True, [1])],
    *[(family, {"eos_token_id": bad}, "eos_token_id") for family in FAMILIES for bad in ("</s>", [1, "2"], {}, [[1]])],
    *[("gpt2", {name: None}, name) for name in ("n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon")],
    *[
        ("gpt2", {"layer_norm_epsilon": bad}, "layer_norm_epsilon")
        for bad in (0, -1e-5, "1e-5", float("inf"), float("nan"))
    ],
    ("gpt2", {"activation_function": "relu"}, "activation_function"),
    *[
        (family, {name: None}, name)
        for family in ("qwen3", "qwen3_moe", "gemma3")
        for name in ("num_key_value_heads", "rms_norm_eps", "hidden_size", "num_hidden_layers")
    ],
    *[(family, {"attention_bias": True}, "attention_bias") for family in ("qwen3", "qwen3_moe", "gemma3", "olmo3")],
    *[(family, {"hidden_act": "gelu"}, "hidden_act") for family in ("qwen3", "qwen3_moe", "olmo3")],
    *[
        (family, {"layer_types": plan, "sliding_window": 8, "use_sliding_window": True}, "layer_types")
        for family in ("qwen3", "gemma3", "olmo3")
        for plan in (
            ["full_attention"] * 3,
            ["full_attention"] * 5,
            ["full_attention"] * 3 + ["linear"],
            "full",
            [4] * 4,
        )
    ],
    ("qwen3", {"layer_types": ["sliding_attention"] * 4, "sliding_window": 8}, "sliding_window"),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": "2"}, "max_window_layers"),
    ("qwen3_moe", {"use_sliding_window": True}, "use_sliding_window"),
    *[
        ("qwen3_moe", {name: None}, name)
        for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")
    ],
    ("qwen3_moe", {"num_experts_per_tok": 9}, "num_experts_per_tok"),
    ("qwen3_moe", {"mlp_only_layers": [0.5]}, "mlp_only_layers"),
    ("gemma3", {"query_pre_attn_scalar": None}, "query_pre_attn_scalar"),
    ("gemma3", {"sliding_window": None}, "sliding_window"),
    ("olmo3", {"sliding_window": None}, "sliding_window"),
    ("gemma3", {"hidden_activation": "gelu"}, "hidden_activation"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma3", {"model_type": "gemma3"}, "text_config"),
    ("gemma3", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type"),
    ("gemma3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("olmo3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_parameters"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("gpt2", {"n_head": 3}, "num_attention_heads"),
    ("gpt2", {"n_head": 3, "n_inner": 64, "pad_token_id": 2}, "num_attention_heads"),
    *[
        ("llama3", {name: None}, name)
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "rms_norm_eps",
        )
    ],
    ("llama3", {"max_position_embeddings": None}, "max_position_embeddings"),
    ("llama3", {"rms_norm_eps": True}, "rms_norm_eps"),
    ("llama3", {"hidden_act": "gelu"}, "hidden_act"),
    ("llama3", {"attention_bias": True}, "attention_bias"),
    ("llama3", {"mlp_bias": True}, "mlp_bias"),
    ("llama3", {"sliding_window": 4096}, "sliding_window"),
    ("llama3", {"num_key_value_heads": 4}, "num_key_value_heads"),
    ("llama3", {"head_dim": None, "num_attention_heads": 5, "num_key_value_heads": 5}, "num_attention_heads"),
    ("llama3", {"head_dim": 7}, "head_dim"),
    ("llama3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    (
        "llama3",
        {"rope_scaling": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
        "rope_parameters",
    ),
    (
        "llama3",
        {"rope_scaling": EXAMPLES["llama3"]["rope_scaling"] | {"low_freq_factor": 4.0}},
        "high_freq_factor",
    ),
    ("llama3", {"rope_theta": 0}, "rope_theta"),
    ("llama3", {"rope_theta": "10000"}, "rope_theta"),
    ("llama3", {"rope_scaling": "linear"}, "rope_scaling"),
    ("llama3", {"rope_scaling": ["linear"]}, "rope_scaling"),
    *[
        ("llama3", {"rope_scaling": {key: kind, "factor": 2.0}}, "rope_type")
        for key in ("rope_type", "type")
        for kind in ("dynamic", "longrope", "su", "mrope", 3, ["linear"])
    ],
    ("llama3", {"rope_scaling": {"type": "linear"}}, "factor"),
    ("llama3", {"rope_scaling": {"type": "linear", "factor": "2"}}, "factor"),
    ("llama3", {"rope_scaling": {"type": "linear", "factor": -2.0}}, "factor"),
    ("llama3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "original_max_position_embeddings"),
    (
        "llama3",
        {
            "rope_scaling": {
                "type": "yarn",
                "factor": 2.0,
                "original_max_position_embeddings": 8,
                "mscale": 0.7,
            }
        },
        "mscale",
    ),
    ("llama3", {"rope_scaling": None, "rope_parameters": ROPE}, "original_max_position_embeddings"),
    (
        "llama3",
        {"rope_scaling": None, "rope_parameters": ROPE | {"partial_rotary_factor": 0.5}},
        "partial_rotary_factor",
    ),
]


@pytest.mark.parametrize(("family", "change", "field"), REFUSED)
def test_what_is_not_implemented_is_refused_by_name(family, change, field):
    error = refusal(without(EXAMPLES[family], *change) | {k: v for k, v in change.items() if v is not None})
    assert error.field == field
    for answer in (error.field, error.expected, error.found, error.cause, error.next_step):
        assert answer and str(answer) in str(error)


@pytest.mark.parametrize("family", ["llama3"])
def test_a_missing_rope_theta_is_said_to_be_assumed(family):
    with pytest.warns(CourseWarning, match="no rope_theta; 10000 is assumed"):
        config = read(without(EXAMPLES[family], "rope_theta"))
    assert config == read(EXAMPLES[family] | {"rope_theta": 10000.0})


@every_family
def test_fields_that_change_nothing_are_ignored(family):
    harmless = {
        "use_cache": False,
        "torch_dtype": "float16",
        "transformers_version": "4.0",
        "attn_pdrop": 0.3,
    }
    assert read(EXAMPLES[family] | harmless) == read(EXAMPLES[family])


@settings(max_examples=100)
@given(data=families)
def test_a_config_survives_its_own_config_json(data):
    config = read(data)
    assert read(config.to_hf()) == config


@settings(max_examples=100)
@given(data=families)
def test_a_config_survives_transformers(data):
    config = read(data)
    assert read(as_transformers_reads(config.to_hf())) == config == read(as_transformers_reads(data))


@settings(max_examples=100)
@given(data=families)
def test_our_config_json_means_to_transformers_what_the_original_did(data):
    # Two names of one activation, a default written out, and an alias that transformers carries along.
    # And the rule of transformers that gives the list of layer types, which we write out.
    spelled_differently = ("activation_function", "architectures", "n_inner", "max_window_layers")
    expected, found = (without(as_transformers_reads(d), *spelled_differently) for d in (data, read(data).to_hf()))
    (expected.get("rope_parameters") or {}).pop("type", None)
    assert {name: found.get(name) for name in expected} == expected


any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@every_family
@settings(max_examples=400)
@given(data=st.data())
def test_no_value_of_any_field_does_more_than_be_refused(family, data):
    config = copy.deepcopy(data.draw(CONFIGS[family]))
    place = config
    name = data.draw(st.sampled_from(sorted(config)))
    if isinstance(config[name], dict) and config[name] and data.draw(st.booleans()):
        place, name = config[name], data.draw(st.sampled_from(sorted(config[name])))
    place[name] = data.draw(any_json)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CourseWarning)
        try:
            read(config).to_hf()
        except CheckpointError as error:
            assert error.field and error.next_step
