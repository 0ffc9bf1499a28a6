"""verify=True: what shows in the values alone is refused, by name and number, before anything is assigned."""

import re
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from course_helpers import FAMILIES, CheckpointError, load_model, load_weights
from course_helpers.loaders import verify
from course_helpers.loaders.verify import IMPLAUSIBLE, value_problems
from tests.formats import FORMATS
from tests.loaders.refusals import assert_untouched, check_answers
from tests.tiny_models import EXAMPLES, ours, same_parameters, theirs, write_config

TENSORS = {family: theirs(config).state_dict() for family, config in EXAMPLES.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_sound_is_loaded_all_the_same(family, format, tmp_path):
    source, config = FORMATS[format](theirs(EXAMPLES[family]), tmp_path)
    assert same_parameters(load_model(source, config=config, verify=True), ours(EXAMPLES[family]))


@settings(max_examples=60)
@given(
    size=st.sampled_from([1, 7, 63, 64, 65, 200]),
    nan=st.integers(0, 3),
    infinite=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    data=st.data(),
)
def test_every_wrong_value_is_counted_wherever_it_is(size, nan, infinite, dtype, data):
    values = torch.ones(size, dtype=dtype)
    places = data.draw(st.lists(st.integers(0, size - 1), max_size=nan + infinite, unique=True))
    for number, place in enumerate(places):
        values[place] = torch.nan if number < nan else -torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "CHUNK", 64)
        problems = list(value_problems(values, True, tensor="x", file="here"))
    assert len(problems) == bool(places)
    for problem in problems:
        counts = [min(nan, len(places)), max(len(places) - nan, 0)]
        assert [int(number) for number in re.findall(r"\d+", problem.found)] == [*counts, size]


@pytest.mark.parametrize("value", [IMPLAUSIBLE * 1.01, -1e30])
def test_values_that_no_training_arrives_at_are_refused(value):
    values = torch.ones(3, 3)
    assert not list(value_problems(values * IMPLAUSIBLE, True))
    values[1, 2] = value
    (problem,) = value_problems(values, True, tensor="x", file="here")
    assert problem.found == "1 of 9 values beyond 1e+09"
    assert not list(value_problems(values, False))  # a constant that is left out


def test_a_matrix_of_zeros_is_refused_and_a_vector_is_not():
    assert [problem.found for problem in value_problems(torch.zeros(2, 2), True)] == ["zeros only"]
    assert not list(value_problems(torch.zeros(2), True)) + list(value_problems(torch.zeros(2, 2), False))
    assert not list(value_problems(torch.tensor([[0.0, 1e-45]]), True))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_wrong_tensors_are_named_and_the_model_in_hand_stays(family, tmp_path):
    tensors = {
        name: tensor.contiguous().clone() for name, tensor in TENSORS[family].items() if name != "lm_head.weight"
    }
    wrong = sorted(name for name in tensors if tensors[name].dim() == 2)[:2]
    for name in wrong:
        tensors[name][0, 1] = torch.nan
    write_config(tmp_path, EXAMPLES[family] | {"tie_word_embeddings": True})
    save_file(tensors, tmp_path / "model.safetensors")
    model = ours(EXAMPLES[family] | {"tie_word_embeddings": True}, seed=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for load in (load_model, lambda source, verify: load_weights(model, source, verify=verify)):
        with pytest.raises(CheckpointError, match="no trained model has") as caught:
            load(tmp_path, verify=True)
        check_answers(caught.value)
        assert sorted(problem.tensor for problem in caught.value.problems) == wrong
        assert caught.value.file == tmp_path / "model.safetensors"
    assert_untouched(model, before)


def test_a_record_of_a_zip_archive_with_another_check_sum_is_refused(tmp_path):
    FORMATS["bin"](theirs(EXAMPLES["gpt2"]), tmp_path)
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        record = max(archive.infolist(), key=lambda info: info.file_size)
        content = archive.read(record)
    raw = path.read_bytes()
    place = raw.index(content) + len(content) // 2
    path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    load_model(tmp_path)
    with pytest.raises(CheckpointError, match="check sum") as caught:
        load_model(tmp_path, verify=True)
    check_answers(caught.value)
    assert caught.value.tensor == record.filename and caught.value.file == path
