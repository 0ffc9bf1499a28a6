"""The validation stack: right checkpoints pass, and each kind of damage stops at the layer that can see it."""

import json

import pytest
import safetensors.torch
import torch

from course_helpers import load_model, save_checkpoint, validate_checkpoint
from course_helpers.architectures import base
from course_helpers.validation import LAYERS
from tests.bundled import FOLDERS, copy_of, each

NAMES = list(LAYERS)


def outcome(report):
    return [(check.name, check.ok) for check in report.checks]


def stopped_at(layer):
    return [(name, True) for name in NAMES[: NAMES.index(layer)]] + [(layer, False)]


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def turn_square(tensors):
    name = "h.1.attn.c_proj.weight"
    tensors[name] = tensors[name].T.contiguous()


def flip_one_bit(tensors):
    tensors["wpe.weight"].view(torch.int32)[3, 3] ^= 1


def put_nan(tensors):
    tensors["ln_f.weight"][0] = float("nan")


def cut_a_row(tensors):
    tensors["wpe.weight"] = tensors["wpe.weight"][:-1].contiguous()


@each
def test_bundled_checkpoints_are_valid(folder):
    report = validate_checkpoint(folder)
    assert report.ok, str(report)
    assert [check.name for check in report.checks] == NAMES
    assert all(check.detail and check.seconds >= 0 for check in report.checks)
    assert json.loads(report.to_json())["ok"] is True


@pytest.mark.parametrize(
    ("change", "listed", "layer", "words"),
    [
        (flip_one_bit, True, "files", "SHA-256"),
        (cut_a_row, False, "shapes", "wrong shape"),
        (put_nan, False, "forward", "NaN"),
        (turn_square, False, "baseline", "but the card says"),
    ],
)
def test_damage_is_found_by_the_first_layer_that_can_see_it(tmp_path, change, listed, layer, words):
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path, listed)
    change_weights(folder, change)
    report = validate_checkpoint(folder)
    assert outcome(report) == stopped_at(layer)
    assert words in report.checks[-1].detail
    assert not report.ok and "NOT valid" in str(report)
    assert all(f"{name}" in str(report) for name in NAMES)


def test_a_wrong_rope_base_is_found_by_what_is_written(tmp_path):
    folder = copy_of(FOLDERS["tiny-llama3"], tmp_path, listed=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 10_000.0}))
    assert outcome(validate_checkpoint(folder)) == stopped_at("baseline")


def test_a_missing_tokenizer_is_found_by_generation(tmp_path):
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path, listed=False)
    (folder / "merges.txt").unlink()
    assert outcome(validate_checkpoint(folder)) == stopped_at("generation")


@each
def test_attention_that_sees_the_future_is_found(folder, monkeypatch):
    monkeypatch.setattr(base, "attention_mask", lambda *arguments, **options: (None, False))
    assert outcome(validate_checkpoint(folder)) == stopped_at("forward")


def test_a_checkpoint_without_a_card_is_judged_by_the_other_layers(tmp_path):
    folder = save_checkpoint(load_model(FOLDERS["tiny-gpt2"]), tmp_path / "mine")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((FOLDERS["tiny-gpt2"] / name).read_bytes())
    report = validate_checkpoint(folder)
    assert report.ok
    assert "no card" in report.checks[-1].detail


def test_what_is_not_there_is_reported_and_not_raised():
    report = validate_checkpoint("no/such-folder/anywhere")
    assert outcome(report) == [("files", False)]
    assert "no such checkpoint" in report.checks[0].detail
