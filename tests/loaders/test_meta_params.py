"""params.json becomes the config that the model's Hugging Face version has, or is refused: never guessed."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import CheckpointError, load_model, load_weights
from course_helpers.architectures.llama import LLAMA_2_PRESETS, LLAMA_3_PRESETS, LlamaConfig
from course_helpers.errors import ConfigError
from course_helpers.loaders.meta import config_from_params
from tests.formats import META_CONFIG, meta
from tests.loaders.refusals import assert_untouched, refusal, refusal_in_hand
from tests.tiny_models import Data, same_parameters, theirs

LLAMA_2 = {"multiple_of": 256, "norm_eps": 1e-5, "vocab_size": -1}
LLAMA_3 = {"n_kv_heads": 8, "norm_eps": 1e-5, "rope_theta": 500_000.0, "vocab_size": 128_256}
LLAMA_3_2 = LLAMA_3 | {"multiple_of": 256, "use_scaled_rope": True, "rope_scaling_factor": 32}
WIDE = {"multiple_of": 1024, "ffn_dim_multiplier": 1.3}

#: What the released files say (but for rope_scaling_factor, which is not in them), by the hub id of the other version.
RELEASED: dict[str, Data] = {
    "meta-llama/Llama-2-7b-hf": LLAMA_2 | {"dim": 4096, "n_heads": 32, "n_layers": 32},
    "meta-llama/Llama-2-13b-hf": LLAMA_2 | {"dim": 5120, "n_heads": 40, "n_layers": 40},
    "meta-llama/Llama-2-70b-hf": LLAMA_2
    | {"dim": 8192, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80, "multiple_of": 4096, "ffn_dim_multiplier": 1.3},
    "meta-llama/Meta-Llama-3-8B": LLAMA_3 | WIDE | {"dim": 4096, "n_heads": 32, "n_layers": 32},
    "meta-llama/Llama-3.1-8B": LLAMA_3
    | WIDE
    | {"dim": 4096, "n_heads": 32, "n_layers": 32, "use_scaled_rope": True, "rope_scaling_factor": 8.0},
    "meta-llama/Llama-3.2-1B": LLAMA_3_2 | {"dim": 2048, "n_heads": 32, "n_layers": 16, "ffn_dim_multiplier": 1.5},
    "meta-llama/Llama-3.2-3B": LLAMA_3_2 | {"dim": 3072, "n_heads": 24, "n_layers": 28, "ffn_dim_multiplier": 1.0},
}
SMALL = {"dim": 32, "n_layers": 2, "n_heads": 8, "n_kv_heads": 4, "norm_eps": 1e-5, "vocab_size": 64}
SMALL |= {"multiple_of": 48, "ffn_dim_multiplier": 0.5, "rope_theta": 10_000.0}


def written(folder: Path, params: object) -> Path:
    (folder / "params.json").write_text(json.dumps(params))
    return folder


def stand_ins(config: LlamaConfig) -> dict[str, torch.Tensor]:
    """Tensors of the right shape without the memory."""
    names = ["tok_embeddings.weight"] if config.tie_word_embeddings else ["tok_embeddings.weight", "output.weight"]
    return {name: torch.zeros(1).expand(config.vocab_size, config.hidden_size) for name in names}


@pytest.mark.parametrize("hub_id", RELEASED)
def test_every_released_file_says_what_the_other_version_says(hub_id, tmp_path):
    preset = (LLAMA_2_PRESETS | LLAMA_3_PRESETS)[hub_id]
    config = config_from_params(written(tmp_path, RELEASED[hub_id]), stand_ins(preset))
    assert LlamaConfig.from_hf(config) == preset


def test_every_preset_is_tried():
    assert set(RELEASED) == {*LLAMA_2_PRESETS, *LLAMA_3_PRESETS}


@pytest.mark.parametrize(
    ("dim", "multiple_of", "multiplier", "hidden"),
    [
        (4096, 256, None, 11008),
        (5120, 256, None, 13824),
        (6656, 256, None, 17920),
        (8192, 256, None, 22016),
        (8192, 256, 1.0, 22016),
        (8192, 4096, 1.3, 28672),
        (4096, 1024, 1.3, 14336),
        (16384, 4096, 1.2, 53248),
        (2048, 256, 1.5, 8192),
    ],
)
def test_the_feed_forward_width_follows_metas_rule(dim, multiple_of, multiplier, hidden, tmp_path):
    params = SMALL | {"dim": dim, "multiple_of": multiple_of, "ffn_dim_multiplier": multiplier}
    assert config_from_params(written(tmp_path, params))["intermediate_size"] == hidden


def test_what_the_file_leaves_open_is_left_open_without_tensors(tmp_path):
    config = config_from_params(written(tmp_path, SMALL | {"vocab_size": -1}))
    assert config["vocab_size"] is None and config["bos_token_id"] is None and config["eos_token_id"] is None


@pytest.mark.parametrize(
    ("vocabulary", "ids"), [(32_000, (1, 2)), (32_016, (1, 2)), (128_256, (128_000, 128_001)), (64, (None, None))]
)
def test_first_and_last_token_go_by_the_vocabulary(vocabulary, ids, tmp_path):
    config = config_from_params(written(tmp_path, SMALL | {"vocab_size": vocabulary}))
    assert (config["bos_token_id"], config["eos_token_id"]) == ids


@pytest.mark.parametrize(
    ("change", "theta", "context"),
    [
        ({"rope_theta": None}, 10_000, 4096),
        ({}, 10_000, 4096),
        ({"rope_theta": 500_000}, 500_000, 8192),
        ({"rope_theta": 1e6}, 1_000_000, 16384),
        ({"rope_theta": 77.5}, 77.5, 4096),
        ({"rope_theta": 5e5, "use_scaled_rope": True, "rope_scaling_factor": 8}, 500_000, 131_072),
        ({"use_scaled_rope": False, "rope_scaling_factor": 8}, 10_000, 4096),
    ],
)
def test_base_frequency_and_context(change, theta, context, tmp_path):
    config = LlamaConfig.from_hf(config_from_params(written(tmp_path, SMALL | change)))
    assert (config.rope_parameters.rope_theta, config.max_position_embeddings) == (theta, context)
    assert (config.rope_parameters.rope_type == "llama3") == bool(context == 131_072)


def refused(folder: Path, params: object) -> CheckpointError:
    """The error for a params.json beside weights that are in order; also for a model in hand."""
    model = load_model(theirs(META_CONFIG, seed=5))
    meta(2)(theirs(META_CONFIG), folder)
    error, in_hand = refusal(written(folder, params)), refusal_in_hand(model, folder)
    assert str(error) == str(in_hand)
    return error


def test_the_small_file_is_in_order(tmp_path):
    meta(2)(theirs(META_CONFIG), tmp_path)
    assert same_parameters(load_model(written(tmp_path, SMALL)), load_model(theirs(META_CONFIG)))


def test_scaling_by_an_unknown_factor_is_refused_and_says_how_to_go_on(tmp_path):
    error = refused(tmp_path, SMALL | {"use_scaled_rope": True})
    assert type(error) is ConfigError and error.field == "rope_scaling_factor"
    assert "8 (Llama 3.1" in error.expected and "32 (Llama 3.2" in error.expected and "config=" in error.next_step
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = META_CONFIG | {"rope_scaling": scaling | {"original_max_position_embeddings": 8192}}
    assert load_model(tmp_path, config=config).config.rope_parameters.factor == 32.0


@pytest.mark.parametrize(
    ("field", "value"), [("use_scaled_rope", True), ("moe", {"num_experts": 8}), ("norm_eps", None)]
)
def test_what_the_file_leaves_open_can_be_said_for_a_model_in_hand_as_well(field, value, tmp_path):
    meta(2)(theirs(META_CONFIG), tmp_path)
    written(tmp_path, SMALL | {field: value})
    model = load_model(theirs(META_CONFIG, seed=5))
    assert refusal_in_hand(model, tmp_path).field in (field, "rope_scaling_factor")
    report = load_weights(model, tmp_path, config=META_CONFIG)
    assert same_parameters(model, load_model(tmp_path, config=META_CONFIG))
    assert same_parameters(model, load_model(theirs(META_CONFIG))) and report.format == "meta"


@pytest.mark.parametrize("change", [{"rope_theta": 5e5}, {"rms_norm_eps": 1e-6}, {"num_key_value_heads": 8}])
def test_a_config_that_is_not_the_models_is_refused_with_the_model_untouched(change, tmp_path):
    meta(2)(theirs(META_CONFIG), tmp_path)
    written(tmp_path, SMALL | {"use_scaled_rope": True})
    model = load_model(theirs(META_CONFIG, seed=5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="config is not the model's"):
        load_weights(model, tmp_path, config=META_CONFIG | change)
    assert_untouched(model, before)


def test_a_llama_3_without_its_base_frequency_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        config_from_params(written(tmp_path, SMALL | {"vocab_size": 128_256, "rope_theta": None}))
    assert caught.value.field == "rope_theta" and "500000" in caught.value.expected


@pytest.mark.parametrize("name", ["dim", "n_layers", "n_heads", "multiple_of", "norm_eps"])
def test_a_field_that_changes_the_numbers_must_be_there(name, tmp_path):
    for params in (SMALL | {name: None}, {key: value for key, value in SMALL.items() if key != name}):
        error = refused(tmp_path, params)
        assert error.field == name and error.found == "nothing"


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("value", [0, -2, "32", "", [], {}, [32], True, 1e300, 10**400])
def test_a_value_that_cannot_be_right_is_refused(name, value, tmp_path):
    error = refused(tmp_path, SMALL | {name: value})
    assert error.field == name and error.file == tmp_path / "params.json"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_of_json_is_refused_with_the_whole_file(value, tmp_path):
    path = written(tmp_path, SMALL) / "params.json"
    path.write_text(path.read_text().replace(f'"dim": {SMALL["dim"]}', f'"dim": {value}'))
    with pytest.raises(CheckpointError, match=f"{value}, which is no number of JSON") as caught:
        config_from_params(tmp_path)
    assert caught.value.file == path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("moe", {"num_experts": 8}),
        ("quantization_args", {"group_size": 32}),
        ("lora_args", {"rank": 16, "scale": 2.0}),
        ("sliding_window", 4096),
        ("head_dim", 4),
        ("vision_chunk_size", 448),
        ("anything", 0),
        ("use_qk_norm", True),
    ],
)
def test_a_field_that_nobody_here_knows_is_refused_by_name(name, value, tmp_path):
    error = refused(tmp_path, SMALL | {name: value})
    assert error.field == name and error.found == repr(value)


def test_fields_that_are_off_or_about_one_run_change_nothing(tmp_path):
    extra = {"quantization_args": None, "use_qk_norm": False, "max_batch_size": 32, "max_seq_len": 2048}
    assert config_from_params(written(tmp_path, SMALL | extra)) == config_from_params(written(tmp_path, SMALL))


@pytest.mark.parametrize(("name", "value"), [("n_heads", 3), ("n_heads", 5), ("n_kv_heads", 3), ("n_kv_heads", 16)])
def test_heads_that_cannot_be_shared_out_are_refused(name, value, tmp_path):
    error = refused(tmp_path, SMALL | {name: value})
    assert error.field == name and "divisor" in error.expected


json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-1, 70),
    st.floats(),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
)
names = st.sampled_from([*SMALL, "use_scaled_rope", "rope_scaling_factor", "other"])


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meta")
    meta(2)(theirs(META_CONFIG), folder)
    return folder


@settings(max_examples=400)
@given(changes=st.dictionaries(names, json_values, min_size=1, max_size=3))
def test_whatever_the_file_says_it_is_refused_or_the_model_is_of_that_config(small_folder, changes):
    written(small_folder, SMALL | changes)
    try:
        model = load_model(small_folder)
    except CheckpointError as error:
        assert str(error) and error.next_step
        return
    untied = {name: torch.zeros(64, 32) for name in ("tok_embeddings.weight", "output.weight")}
    assert model.config == LlamaConfig.from_hf(config_from_params(small_folder, untied))
    assert same_parameters(model, load_model(theirs(META_CONFIG)))
