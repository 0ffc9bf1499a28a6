"""A config is read to the letter, or refused with a reason."""

import copy
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import FAMILIES, CheckpointError, ConfigError, CourseWarning
from course_helpers.architectures.config import ModelConfig
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
    ("qwen3", {"use_sliding_window": "no"}, "use_sliding_window"),
    ("qwen3", {"use_sliding_window": True, "max_window_layers": 2}, "sliding_window"),  # transformers assumes 4096
    *[
        ("qwen3", {"use_sliding_window": True, "sliding_window": bad, "max_window_layers": 2}, "sliding_window")
        for bad in (0, -1, "8", 8.0, True)
    ],
    *[(family, {"sliding_window": bad}, "sliding_window") for family in ("gemma3", "olmo3") for bad in (0, -7, 7.0)],
    ("qwen3_moe", {"use_sliding_window": True}, "use_sliding_window"),
    ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window"),
    ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
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
    ("gemma3", {"sliding_window_pattern": -1}, "sliding_window_pattern"),
    *[("gemma3", {"model_type": "gemma3", "text_config": bad}, "text_config") for bad in (None, "text", [])],
    ("gemma3", {"model_type": "gemma3", "text_config": {"model_type": "llama"}}, "model_type"),
    ("gemma3", {"model_type": "gemma3", "text_config": {"final_logit_softcapping": 30.0}}, "final_logit_softcapping"),
    ("gemma3", {"model_type": "gemma3", "text_config": {}, "quantization_config": {"bits": 4}}, "quantization_config"),
    ("gemma3", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type"),
    ("gemma3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    *[
        (family, {"rope_parameters": bad}, "rope_parameters")
        for family in ("gemma3", "olmo3")
        for bad in (
            {"rope_type": "default", "rope_theta": 1e4},
            {"full_attention": "linear"},
            {"full_attention": {"rope_type": "default"}, "linear_attention": {"rope_type": "default"}},
            ["full_attention"],
        )
    ],
    *[
        (family, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0} | change}, field)
        for family in ("gemma3", "olmo3")
        for change, field in (
            ({}, "original_max_position_embeddings"),
            # transformers 5 would truncate all the same, and would not scale at all.
            ({"original_max_position_embeddings": 16, "truncate": False}, "truncate"),
            ({"type": "yarn", "rope_type": None, "original_max_position_embeddings": 16}, "rope_scaling"),
        )
    ],
    ("olmo3", {"rope_scaling": "yarn"}, "rope_parameters"),
    ("qwen3", {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}}, "rope_parameters"),
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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "ffff"),
        ({"sliding_window": 8, "max_window_layers": 1}, "ffff"),  # every released file has a window like this
        ({"use_sliding_window": True, "sliding_window": None, "max_window_layers": 1}, "ffff"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "fsss"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "ssss"),
        ({"use_sliding_window": True, "sliding_window": 8}, "ffff"),  # from layer 28 on
    ],
)
def test_qwen3_has_a_window_only_where_it_is_used(change, expected):
    config = read(EXAMPLES["qwen3"] | change)
    assert plan(config) == expected
    assert config.sliding_window == (change.get("sliding_window") if change.get("use_sliding_window") else None)
    assert as_transformers_reads(EXAMPLES["qwen3"] | change)["layer_types"] == list(config.layer_types)


def plan(config: ModelConfig) -> str:
    """The types of the layers, by their first letters."""
    return "".join(layer_type[0] for layer_type in config.layer_plan)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("google/gemma-3-270m", "sssssf" * 3),
        ("google/gemma-3-1b-pt", "sssssf" * 4 + "ss"),
        ("google/gemma-3-4b-pt", "sssssf" * 5 + "ssss"),
        ("allenai/Olmo-3-1025-7B", "sssf" * 8),
        ("allenai/Olmo-3-1125-32B", "sssf" * 16),
        ("Qwen/Qwen3-0.6B", "f" * 28),
        ("openai-community/gpt2", "f" * 12),
    ],
)
def test_the_plans_of_released_models_are_these(name, expected):
    presets = {name: preset for family in FAMILIES.values() for name, preset in family.presets.items()}
    assert plan(presets[name]) == expected


@pytest.mark.parametrize(
    ("step", "dense", "expected"),
    [(1, [], [True] * 4), (1, [0, 2], [False, True] * 2), (2, [], [False, True] * 2), (2, [3], [0, 1, 0, 0])],
)
def test_these_layers_of_a_mixture_have_experts(step, dense, expected):
    config = read(EXAMPLES["qwen3_moe"] | {"decoder_sparse_step": step, "mlp_only_layers": dense})
    assert [config.is_sparse(layer) for layer in range(4)] == expected


def test_the_number_of_experts_may_have_either_name():
    data = EXAMPLES["qwen3_moe"]
    assert read(without(data, "num_experts") | {"num_local_experts": 8}) == read(data)


def test_of_a_multimodal_gemma_the_language_part_is_read():
    text = EXAMPLES["gemma3"] | {"pad_token_id": 3}
    assert read({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}}) == read(text)
    assert read({"model_type": "gemma3", "text_config": without(text, "model_type")}) == read(text)


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
    # Two names of one activation, a default written out, an alias that transformers carries along, and the rules that
    # give the list of layer types, which we write out.
    rules = ("max_window_layers", "sliding_window_pattern", "_sliding_window_pattern")
    spelled_differently = ("activation_function", "architectures", "n_inner", *rules)
    expected, found = (without(as_transformers_reads(d), *spelled_differently) for d in (data, read(data).to_hf()))
    (expected.get("rope_parameters") or {}).pop("type", None)
    assert {name: found.get(name) for name in expected} == expected


any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


#: Fields that not every config drawn has, but that something is read from.
MORE_FIELDS = {
    "hidden_act",
    "layer_types",
    "max_window_layers",
    "num_local_experts",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_local_base_freq",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "sliding_window_pattern",
    "text_config",
    "use_sliding_window",
}


@every_family
@settings(max_examples=400)
@given(data=st.data())
def test_no_value_of_any_field_does_more_than_be_refused(family, data):
    config = copy.deepcopy(data.draw(CONFIGS[family]))
    place, name = config, data.draw(st.sampled_from(sorted(config.keys() | MORE_FIELDS)))
    while isinstance(place.get(name), dict) and place[name] and data.draw(st.booleans()):
        place = place[name]
        name = data.draw(st.sampled_from(sorted(place)))
    place[name] = data.draw(any_json)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CourseWarning)
        try:
            accepted = read(config)
        except CheckpointError as error:
            assert error.field and error.next_step
        else:
            assert read(accepted.to_hf()) == accepted
