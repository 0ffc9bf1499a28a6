"""Sound files that do not belong to the model are refused for the right reason, and change nothing."""

import copy
import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from course_helpers import FAMILIES, CheckpointError, ConfigError, load_model, load_weights
from course_helpers.architectures.base import LanguageModel
from course_helpers.loaders.rules import Rule
from tests.loaders.refusals import assert_untouched, refusal, refusal_in_hand
from tests.tiny_models import EXAMPLES, Data, ours, same_parameters, theirs, write_config

every_family = pytest.mark.parametrize("family", FAMILIES)
UNTIED = {family: config | {"tie_word_embeddings": False} for family, config in EXAMPLES.items()}
TIED = {family: config | {"tie_word_embeddings": True} for family, config in EXAMPLES.items()}
TENSORS = {family: theirs(config).state_dict() for family, config in UNTIED.items()}

TENSOR_CASES = [(family, name) for family, tensors in TENSORS.items() for name in tensors]
every_tensor = pytest.mark.parametrize(("family", "name"), TENSOR_CASES)


def is_oblong(tensor: torch.Tensor) -> bool:
    """Whether a transpose shows in the shape."""
    return tensor.dim() == 2 and tensor.shape[0] != tensor.shape[1]


def written(folder: Path, config: Data, tensors: dict[str, torch.Tensor]) -> Path:
    write_config(folder, config)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@functools.cache
def made(config: str) -> tuple[LanguageModel, dict[str, torch.Tensor]]:
    """A model of a config, and a copy of its weights."""
    model = ours(json.loads(config), seed=5)
    return model, copy.deepcopy(model.state_dict())


def in_hand(config: Data) -> LanguageModel:
    """A model with weights of its own: made once for each config, and filled anew each time."""
    model, weights = made(json.dumps(config))
    model.load_state_dict(weights)
    return model


def refused(folder: Path, family: str, tensors: dict[str, torch.Tensor], config: Data | None = None) -> CheckpointError:
    """The refusal of these tensors by load_model, and the same one by load_weights."""
    config = config or UNTIED[family]
    source = written(folder, config, tensors)
    error, other = refusal(source), refusal_in_hand(in_hand(config), source)
    assert str(other) == str(error) and error.file in (str(source), source / "model.safetensors")
    return error


@every_tensor
def test_any_missing_tensor_is_named(family, name, tmp_path):
    error = refused(tmp_path, family, {other: t for other, t in TENSORS[family].items() if other != name})
    assert (error.what, error.tensor) == ("a tensor is missing", name) and len(error.problems) == 1


@every_tensor
def test_any_wrong_shape_is_named(family, name, tmp_path):
    tensor = TENSORS[family][name]
    error = refused(tmp_path, family, TENSORS[family] | {name: torch.cat((tensor, tensor[:1]))})
    assert (error.tensor, error.found) == (name, (tensor.shape[0] + 1, *tensor.shape[1:]))
    assert error.expected == tuple(tensor.shape) and error.what == "a tensor has the wrong shape"


@pytest.mark.parametrize(("family", "name"), [case for case in TENSOR_CASES if is_oblong(TENSORS[case[0]][case[1]])])
def test_any_transposed_matrix_is_recognised(family, name, tmp_path):
    error = refused(tmp_path, family, TENSORS[family] | {name: TENSORS[family][name].T})
    assert error.tensor == name and "transposed" in error.cause


@every_tensor
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_a_weight_that_is_not_a_real_number_is_refused(family, name, dtype, tmp_path):
    error = refused(tmp_path, family, TENSORS[family] | {name: TENSORS[family][name].to(dtype)})
    assert error.tensor == name and error.found == dtype and "quantized" in error.cause


@every_family
@pytest.mark.parametrize("name", ["classifier.weight", "lm_head.bias", "model.layers.0.extra", "transformer.h.1.x"])
def test_an_extra_tensor_is_refused(family, name, tmp_path):
    error = refused(tmp_path, family, TENSORS[family] | {name: torch.zeros(3)})
    assert error.tensor == name and "no place for" in error.what and error.found == "shape (3,)"


@every_family
@pytest.mark.parametrize(("more", "what"), [(-1, "no place for"), (1, "is missing")])
def test_a_config_with_fewer_or_more_layers_is_refused(family, more, what, tmp_path):
    field = "n_layer" if "n_layer" in EXAMPLES[family] else "num_hidden_layers"
    layers = EXAMPLES[family][field]
    error = refused(tmp_path, family, TENSORS[family], UNTIED[family] | {field: layers + more})
    assert what in error.what and ("smaller" if more < 0 else "larger") in error.cause
    # The layer that is too many, or one that looks like the layer that is missing.
    count = sum(f".{layers - 1 if more < 0 else 0}." in name for name in TENSORS[family])
    assert len(error.problems) == count and f"and {count - 1} more problems" in str(error)


@every_family
@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_config_of_another_width_is_refused(family, factor, tmp_path):
    field = "n_embd" if "n_embd" in EXAMPLES[family] else "hidden_size"
    config = UNTIED[family] | {field: int(UNTIED[family][field] * factor)}
    error = refused(tmp_path, family, TENSORS[family], config)
    assert error.what == "a tensor has the wrong shape" and "another size" in error.cause


@every_family
def test_a_missing_untied_head_is_told_from_a_tied_one(family, tmp_path):
    tensors = {name: tensor for name, tensor in TENSORS[family].items() if name != "lm_head.weight"}
    error = refused(tmp_path, family, tensors)
    assert error.tensor == "lm_head.weight" and "tie_word_embeddings" in error.cause


@every_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tied_head_that_differs_is_refused_and_one_that_does_not_is_left_out(family, dtype, tmp_path):
    tensors = theirs(TIED[family]).state_dict()
    head = tensors["lm_head.weight"].to(dtype)
    assert "lm_head.weight" in load_model(tensors | {"lm_head.weight": head}, config=TIED[family]).load_report.dropped
    changed = head.clone()
    changed[-1, -1] += 1e-3
    error = refused(tmp_path, family, tensors | {"lm_head.weight": changed}, TIED[family])
    assert error.tensor == "lm_head.weight" and "not the token embedding" in error.what


@every_family
@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e4m3fn])
def test_a_tied_head_of_a_quantized_type_is_refused(family, dtype, tmp_path):
    tensors = theirs(TIED[family]).state_dict()
    tensors |= {"lm_head.weight": tensors["lm_head.weight"].to(dtype)}
    assert refused(tmp_path, family, tensors, TIED[family]).tensor == "lm_head.weight"


@pytest.mark.parametrize(("family", "other"), [(a, b) for a in FAMILIES for b in FAMILIES if a != b])
def test_weights_of_another_family_are_refused(family, other, tmp_path):
    error = refused(tmp_path, family, {n: t for n, t in TENSORS[other].items() if n != "lm_head.weight"})
    if "gpt2" in (family, other):  # no name in common; the others share some
        assert error.what == "none of the tensor names belongs to this family"
    (tmp_path / "with head").mkdir()  # a name that both families use does not make it the right family
    assert refused(tmp_path / "with head", family, TENSORS[other]).problems


def test_qwen2_style_biases_in_a_llama_file_are_refused(tmp_path):
    biases = {
        name.replace("weight", "bias"): torch.zeros(tensor.shape[0])
        for name, tensor in TENSORS["llama3"].items()
        if any(part in name for part in ("q_proj", "k_proj", "v_proj"))
    }
    error = refused(tmp_path, "llama3", TENSORS["llama3"] | biases)
    assert {problem.tensor for problem in error.problems} == biases.keys() and len(biases) == 6


@pytest.mark.parametrize(
    ("family", "change", "field"),
    [
        ("llama3", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type"),
        ("llama3", {"hidden_act": "gelu"}, "hidden_act"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        *[(family, {"model_type": "mamba"}, "model_type") for family in FAMILIES],
        *[(family, {"quantization_config": {"bits": 4}}, "quantization_config") for family in FAMILIES],
    ],
)
def test_an_unsupported_config_is_refused_with_its_file(family, change, field, tmp_path):
    source = written(tmp_path, UNTIED[family] | change, TENSORS[family])
    error, in_hand = refusal(source, kind=ConfigError), refusal_in_hand(ours(UNTIED[family]), source)
    assert error.field == in_hand.field == field and error.file == in_hand.file == str(tmp_path)


#: Changes that fit every shape and give another model.
SAME_SHAPES = {
    "gpt2": {"n_head": 2, "layer_norm_epsilon": 1e-3},
    "llama3": {"rope_theta": 5e5, "rms_norm_eps": 1e-3, "max_position_embeddings": 128, "rope_scaling": None},
}


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [(f, field, value) for f, fields in SAME_SHAPES.items() for field, value in fields.items()],
)
def test_weights_of_another_config_are_not_put_into_the_model_in_hand(family, field, value, tmp_path):
    source = written(tmp_path, UNTIED[family] | {field: value}, TENSORS[family])
    error = refusal_in_hand(ours(UNTIED[family], seed=5), source)
    assert error.field == ("rope_parameters" if "rope" in field else field) and error.file == str(tmp_path)


@every_family
def test_other_special_tokens_do_not_make_it_another_model(family, tmp_path):
    model = ours(UNTIED[family], seed=5)
    load_weights(model, written(tmp_path, UNTIED[family] | {"eos_token_id": [1, 2]}, TENSORS[family]))
    assert same_parameters(model, ours(UNTIED[family]))


@every_family
def test_a_read_that_fails_half_way_leaves_the_model_in_hand(family, tmp_path, monkeypatch):
    from course_helpers.loaders.safetensors_file import SafetensorsFile

    source, model, read = (
        written(tmp_path, UNTIED[family], TENSORS[family]),
        ours(UNTIED[family], 5),
        SafetensorsFile.read,
    )
    for fail_at in range(len(TENSORS[family])):
        calls = []

        def fail_late(self, name, calls=calls, fail_at=fail_at):
            calls.append(name)
            if len(calls) > fail_at:
                raise OSError("the disk is gone")
            return read(self, name)

        monkeypatch.setattr(SafetensorsFile, "read", fail_late)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(OSError, match="the disk is gone"):
            load_weights(model, source)
        assert_untouched(model, before)


@every_family
def test_an_interruption_half_way_leaves_the_model_in_hand(family, tmp_path, monkeypatch):
    source, model = written(tmp_path, UNTIED[family], TENSORS[family]), ours(UNTIED[family], seed=5)
    before, region = {name: tensor.clone() for name, tensor in model.state_dict().items()}, Rule.region
    for interrupted_at in range(len(before)):
        calls = []

        def interrupt_late(self, parameter, calls=calls, interrupted_at=interrupted_at):
            calls.append(self)
            if len(calls) > interrupted_at:
                raise KeyboardInterrupt
            return region(self, parameter)

        monkeypatch.setattr(Rule, "region", interrupt_late)
        with pytest.raises(KeyboardInterrupt):
            load_weights(model, source)
        assert_untouched(model, before)
    monkeypatch.setattr(Rule, "region", region)
    load_weights(model, source)
    assert same_parameters(model, ours(UNTIED[family]))


@every_family
def test_all_problems_are_reported_together_with_the_most_telling_first(family, tmp_path):
    names = [name for name in TENSORS[family] if TENSORS[family][name].dim() == 2]
    tensors = TENSORS[family] | {"extra": torch.zeros(1), names[2]: torch.zeros(1, 2)}
    del tensors[names[1]]
    error = refused(tmp_path, family, tensors)
    assert [problem.tensor for problem in error.problems] == [names[2], "extra", names[1]]
    assert all(problem.summary() in str(error) for problem in error.problems[1:])


@pytest.mark.parametrize("source", [{"a": 1}, {1: torch.zeros(1)}, {"model": {"a": torch.zeros(1)}}])
def test_a_dictionary_that_is_no_state_dict_is_refused(source):
    assert refusal(source, EXAMPLES["gpt2"]).what == "this is not a state dict of ordinary tensors"


@every_family
def test_a_state_dict_without_a_config_is_refused(family):
    assert "no config.json" in refusal(TENSORS[family]).what


@every_family
def test_a_model_without_memory_is_refused(family):
    assert "without memory" in refusal(theirs(EXAMPLES[family]).to("meta")).found


@every_family
def test_a_sparse_tensor_is_refused(family):
    name = next(name for name in TENSORS[family] if is_oblong(TENSORS[family][name]))
    tensors = TENSORS[family] | {name: TENSORS[family][name].to_sparse()}
    assert refusal(tensors, UNTIED[family]).tensor == name
