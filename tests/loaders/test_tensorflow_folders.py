"""Which files of a folder are a TensorFlow checkpoint, which of several counts, and what hparams.json may say."""

import json
import shutil

import pytest
import torch

from course_helpers import load_model, open_checkpoint
from tests.loaders.refusals import refusal
from tests.loaders.tensorflow_files import DATA, FIXTURE, INDEX, copy_of, reference
from tests.tiny_models import same_parameters

HPARAMS = json.loads((FIXTURE / "gpt2/hparams.json").read_text())


@pytest.fixture
def folder(tmp_path):
    return copy_of("gpt2", tmp_path)


def rename(folder, name):
    for path in folder.glob("model.ckpt.*"):
        path.rename(folder / path.name.replace("model.ckpt", name))


def add_older(folder, name):
    for file in (INDEX, DATA):
        shutil.copy(folder / file, folder / file.replace("model.ckpt", name))


@pytest.mark.parametrize("name", ["model.ckpt", "model-1000", "a", "a.b.c"])
def test_any_name_will_do_and_the_only_checkpoint_needs_no_file_that_names_it(name, folder):
    (folder / "checkpoint").unlink()
    rename(folder, name)
    for source in (folder, folder / name, folder / f"{name}.index"):
        assert same_parameters(load_model(source), load_model(reference()))


@pytest.mark.parametrize("written", ["model-2", "/elsewhere/run/model-2", "../../model-2", r"C:\\run\\model-2"])
def test_of_several_the_file_checkpoint_names_the_latest(written, folder):
    """Whatever folder it names, none but this one is looked at."""
    add_older(folder, "model-1")
    rename(folder, "model-2")
    (folder / "model-1.index").write_bytes(b"damaged")
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{written}"\n')
    assert same_parameters(load_model(folder), load_model(reference()))


def test_without_it_several_leave_a_choice(folder):
    add_older(folder, "model-1")
    (folder / "checkpoint").unlink()
    error = refusal(folder)
    assert error.found == f"model-1.index, {INDEX}" and "model.ckpt.index with" in error.expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'model_checkpoint_path: "other"',
        b'model_checkpoint_path: ""',
        b'model_checkpoint_path: "model.ckpt/"',
        b'all_model_checkpoint_paths: "model.ckpt"',
        b'model_checkpoint_path: "model.ckpt',
    ],
)
def test_a_file_that_names_no_checkpoint_of_the_folder_is_refused(content, folder):
    (folder / "checkpoint").write_bytes(content)
    error = refusal(folder)
    assert error.file == folder / "checkpoint" and error.expected == "model.ckpt"


def test_other_weights_beside_it_leave_a_choice(folder):
    torch.save({}, folder / "other.bin")
    assert refusal(folder).found == f"{INDEX}, other.bin"


def test_a_folder_without_a_checkpoint_says_what_was_looked_for(folder):
    (folder / INDEX).unlink()
    assert "model.ckpt.index with model.ckpt.data-* and hparams.json" in refusal(folder).expected


def test_weights_alone_can_be_opened_but_not_loaded(folder):
    (folder / "hparams.json").unlink()
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.config is None and checkpoint.names()
    assert "config" in refusal(folder).what


@pytest.mark.parametrize("name", HPARAMS)
@pytest.mark.parametrize("value", [None, 0, -1, 2.0, "2", True, [2], 2**31])
def test_values_that_cannot_be_right_are_refused(name, value, folder):
    (folder / "hparams.json").write_text(json.dumps(HPARAMS | {name: value}))
    error = refusal(folder)
    assert error.file == folder / "hparams.json" and error.field == name


@pytest.mark.parametrize("name", HPARAMS)
def test_a_field_that_is_missing_is_refused(name, folder):
    (folder / "hparams.json").write_text(json.dumps({key: HPARAMS[key] for key in HPARAMS if key != name}))
    error = refusal(folder)
    assert (error.field, error.found) == (name, "nothing")


def test_a_field_that_nobody_knows_is_refused(folder):
    (folder / "hparams.json").write_text(json.dumps(HPARAMS | {"res_dropout": 0}))
    assert refusal(folder).field == "res_dropout"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"n_vocab": 263'])
def test_a_file_that_is_no_object_is_refused(content, folder):
    (folder / "hparams.json").write_bytes(content)
    assert refusal(folder).file == folder / "hparams.json"


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("n_vocab", 50257, "model/wte"),
        ("n_ctx", 1024, "model/wpe"),
        ("n_embd", 24, "model/wte"),
        ("n_layer", 3, "n_layer"),
        ("n_layer", 1, "n_layer"),
        ("n_head", 5, "num_attention_heads"),
    ],
)
def test_hparams_of_another_size_are_refused(name, value, place, folder):
    (folder / "hparams.json").write_text(json.dumps(HPARAMS | {name: value}))
    error = refusal(folder)
    assert place in (error.tensor, error.field)
    assert name == "n_head" or "hparams.json" in error.what


def test_nothing_but_the_text_tells_another_number_of_heads(folder):
    """A divisor of the width fits every tensor: this is what the checks of behaviour are for."""
    (folder / "hparams.json").write_text(json.dumps(HPARAMS | {"n_head": 2}))
    ids = torch.arange(20).view(1, -1)
    assert not torch.allclose(load_model(folder)(ids), reference()(ids).logits, atol=1e-3)
