"""Saving: transformers and our own loader read back the same model, and a failure changes nothing."""

import json
import os

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from recipes import RECIPES

from course_helpers import CheckpointError, load_model, load_tokenizer, save_checkpoint
from tests.bundled import FOLDERS, copy_of, each
from tests.tiny_models import EXAMPLES, families, logits_of, ours, random_ids, same_parameters


@settings(max_examples=40)
@given(families)
def test_any_model_comes_back_equal_to_the_bit(tmp_path_factory, config):
    model = ours(config)
    folder = save_checkpoint(model, tmp_path_factory.mktemp("saved") / "model")
    again = load_model(folder)
    assert again.config == model.config
    assert same_parameters(again, model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_transformers_reads_what_is_saved(tmp_path, config, dtype):
    from transformers import AutoModelForCausalLM

    model = ours(config, dtype=dtype)
    theirs, info = AutoModelForCausalLM.from_pretrained(
        save_checkpoint(model, tmp_path / "model"), dtype="auto", output_loading_info=True
    )
    assert not any(info.values()), info
    assert theirs.dtype == dtype
    ids = random_ids(config, 2, 20)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    again = load_model(tmp_path / "model", dtype=torch.float32)
    torch.testing.assert_close(logits_of(again, ids), logits_of(theirs, ids), atol=1e-5, rtol=0)


@each
def test_a_bundled_checkpoint_survives_loading_and_saving(tmp_path, folder):
    limit = RECIPES[folder.name].max_shard_bytes
    saved = save_checkpoint(load_model(folder), tmp_path / "again", load_tokenizer(folder), max_shard_bytes=limit)
    for file in folder.rglob("*"):
        if file.is_file() and file.name not in ("card.json", "config.json"):
            assert (saved / file.relative_to(folder)).read_bytes() == file.read_bytes(), file.name
    one, other = (json.loads((place / "config.json").read_text()) for place in (saved, folder))
    assert one == other


def test_files_have_the_usual_access_rights(tmp_path):
    folder = save_checkpoint(ours(EXAMPLES["gpt2"]), tmp_path / "model")
    (tmp_path / "plain").write_text("")
    usual = os.stat(tmp_path / "plain").st_mode
    assert all(file.stat().st_mode == usual for file in folder.iterdir())


def test_an_older_checkpoint_is_replaced_as_a_whole(tmp_path):
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path)
    model = ours(EXAMPLES["llama3"])
    save_checkpoint(model, folder)
    assert same_parameters(load_model(folder), model)
    assert not (folder / "vocab.json").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_save_leaves_everything_as_it_was(tmp_path, monkeypatch, existing):
    folder = tmp_path / "model"
    old = ours(EXAMPLES["gpt2"], seed=1)
    if existing:
        save_checkpoint(old, folder)

    def full_disk(*arguments, **options):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(CheckpointError, match="the disk is full"):
        save_checkpoint(ours(EXAMPLES["gpt2"], seed=2), folder)
    assert [entry.name for entry in tmp_path.iterdir()] == ([folder.name] if existing else [])
    if existing:
        assert same_parameters(load_model(folder), old)


@pytest.mark.parametrize("occupant", ["file", "folder", "folder with a config.json", "git"])
def test_nothing_but_a_checkpoint_is_replaced(tmp_path, occupant):
    target = tmp_path / "thesis"
    if occupant == "file":
        target.write_text("years of work")
    else:
        target.mkdir()
        (target / "chapter.txt").write_text("years of work")
    if occupant == "folder with a config.json":
        (target / "config.json").write_text("{}")
    if occupant == "git":
        save_checkpoint(ours(EXAMPLES["gpt2"]), tmp_path / "clone")
        (tmp_path / "clone" / ".git").mkdir()
        with pytest.raises(CheckpointError, match=r"'.git' in it"):
            save_checkpoint(ours(EXAMPLES["gpt2"]), tmp_path / "clone")
    with pytest.raises(CheckpointError, match="something else") as caught:
        save_checkpoint(ours(EXAMPLES["gpt2"]), target)
    assert caught.value.file == target
    assert (target if occupant == "file" else target / "chapter.txt").read_text() == "years of work"
