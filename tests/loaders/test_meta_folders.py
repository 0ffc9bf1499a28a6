"""Which folders hold a checkpoint in Meta's layout, what goes before what in them, and what is fetched from the hub."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from course_helpers import load_model, open_checkpoint
from tests.formats import META_CONFIG as CONFIG
from tests.formats import meta
from tests.loaders.refusals import refusal
from tests.tiny_models import same_parameters, theirs, write_config


def both_layouts(folder: Path, meta_folder: Path) -> None:
    meta()(theirs(CONFIG, seed=1), meta_folder)
    theirs(CONFIG, seed=0).save_pretrained(folder)


@pytest.mark.parametrize("place", [".", "original"])
def test_hugging_faces_files_are_taken_where_there_are_both(place, tmp_path):
    both_layouts(tmp_path, tmp_path / place)
    assert load_model(tmp_path).load_report.format == "safetensors"
    meta_file = tmp_path / place / "consolidated.00.pth"
    named = load_model(meta_file)
    assert named.load_report.format == "meta" and same_parameters(named, load_model(theirs(CONFIG, seed=1)))


@pytest.mark.parametrize("shards", [1, 2])
def test_the_subfolder_original_is_found(shards, tmp_path):
    meta(shards)(theirs(CONFIG), tmp_path / "original")
    assert same_parameters(load_model(tmp_path), load_model(theirs(CONFIG)))
    write_config(tmp_path, CONFIG | {"rms_norm_eps": 0.5})
    assert load_model(tmp_path).config.rms_norm_eps == 0.5
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "no" in refusal(tmp_path).what


@pytest.mark.parametrize("number", [0, 1])
def test_any_of_the_files_stands_for_all(number, tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    assert same_parameters(load_model(tmp_path / f"consolidated.{number:02}.pth"), load_model(theirs(CONFIG)))


@pytest.mark.parametrize("shards", [1, 2])
def test_a_config_that_is_handed_over_goes_before_params_json(shards, tmp_path):
    meta(shards)(theirs(CONFIG), tmp_path)
    (tmp_path / "params.json").write_bytes(b"\xff not read")
    model = load_model(tmp_path, config=CONFIG | {"rms_norm_eps": 0.5})
    assert model.config.rms_norm_eps == 0.5 and same_parameters(model, load_model(theirs(CONFIG)))
    write_config(tmp_path, CONFIG | {"rms_norm_eps": 0.25})
    assert load_model(tmp_path).config.rms_norm_eps == 0.25


def test_without_params_json_one_file_needs_a_config_and_several_are_not_recognised(tmp_path):
    for shards in (1, 2):
        meta(shards)(theirs(CONFIG), tmp_path)
        (tmp_path / "params.json").unlink()
        if shards == 1:
            assert "no config.json" in refusal(tmp_path).what
            model = load_model(tmp_path, config=CONFIG)
            assert (model.load_report.format, model.load_report.layout) == ("pytorch", "meta")
    error = refusal(tmp_path)
    assert error.found == "consolidated.00.pth, consolidated.01.pth" and "params.json" in error.expected


def test_other_weights_beside_metas_leave_a_choice(tmp_path):
    meta()(theirs(CONFIG), tmp_path)
    shutil.copy(tmp_path / "consolidated.00.pth", tmp_path / "finetuned.pth")
    assert refusal(tmp_path).found == "consolidated.00.pth, finetuned.pth"
    assert load_model(tmp_path / "consolidated.00.pth").load_report.format == "meta"


@pytest.mark.parametrize("names", ["consolidated.pth", "consolidated.00.bin", "Consolidated.00.pth"])
def test_other_names_are_not_taken_for_metas(names, tmp_path):
    meta()(theirs(CONFIG), tmp_path)
    (tmp_path / "consolidated.00.pth").rename(tmp_path / names)
    write_config(tmp_path, CONFIG)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "pytorch"
