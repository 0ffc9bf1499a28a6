"""A file that is not the one its manifest describes is refused; always, or with verify=True where it is large."""

import json
import shutil
from pathlib import Path

import pytest

from course_helpers import CheckpointError, load_model, load_weights, open_checkpoint, save_checkpoint
from course_helpers.loaders.manifest_files import MANIFEST, manifest_beside, sha256
from tests.bundled import FOLDERS, copy_of, each
from tests.loaders.refusals import check_answers, refusal, refusal_in_hand
from tests.tiny_models import EXAMPLES, ours, same_parameters


@pytest.fixture
def folder(tmp_path):
    """A checkpoint with a manifest that lists all of it."""
    saved = save_checkpoint(ours(EXAMPLES["gpt2"]), tmp_path / "model")
    (saved / "tokenizer").mkdir()
    (saved / "tokenizer" / "words.txt").write_text("once upon a time")
    write(saved)
    return saved


def write(folder: Path, **changes: object) -> None:
    """The manifest of a folder as it is, with some sections put in another's place."""
    sections: dict = {"weights": {}, "files": {}}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            section = sections["weights" if path.suffix == ".safetensors" else "files"]
            name = path.relative_to(folder).as_posix()
            section[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (folder / MANIFEST).write_text(json.dumps({"name": "x"} | sections | changes))


def flip(path: Path, place: int = -1) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


@each
def test_bundled_checkpoints_are_what_their_manifest_says(folder):
    manifest = manifest_beside(folder)
    assert any(file.large for file in manifest.listed)
    manifest.check(every_byte=True)
    assert same_parameters(load_model(folder, verify=True), load_model(folder))


def test_what_is_as_listed_is_loaded(folder):
    model = ours(EXAMPLES["gpt2"], seed=5)
    load_weights(model, folder, verify=True)
    assert same_parameters(model, ours(EXAMPLES["gpt2"]))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer/words.txt"])
def test_a_bit_in_a_small_file_is_always_noticed(folder, name):
    flip(folder / name, 3)
    error = refusal(folder)
    assert error.what == f"{name} is not the file that its manifest describes" and error.file == folder / name
    assert error.expected.startswith("SHA-256") and error.field == f"files.{name} of card.json"
    assert str(refusal_in_hand(ours(EXAMPLES["gpt2"], seed=5), folder)) == str(error)
    with pytest.raises(CheckpointError):
        open_checkpoint(folder / "model.safetensors")


def test_a_bit_in_the_weights_is_noticed_on_request(folder):
    flip(folder / "model.safetensors")
    assert not same_parameters(load_model(folder), ours(EXAMPLES["gpt2"]))
    for load in (load_model, lambda source, verify: load_weights(ours(EXAMPLES["gpt2"]), source, verify=verify)):
        with pytest.raises(CheckpointError, match="not the file that its manifest describes") as caught:
            load(folder, verify=True)
        check_answers(caught.value)
        assert caught.value.file == folder / "model.safetensors"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes() + b"x")]
)
def test_another_size_and_a_missing_file_are_always_noticed(folder, name, change):
    change(folder / name)
    error = refusal(folder)
    assert (error.file == folder / name and "bytes" in error.expected) or error.found == "no such file"


def test_all_that_is_wrong_is_said_at_once(folder):
    for name in ("config.json", "generation_config.json"):
        flip(folder / name, 3)
    assert [problem.file.name for problem in refusal(folder).problems] == ["config.json", "generation_config.json"]


def test_the_tokenizer_of_another_family_beside_the_weights_is_noticed(tmp_path):
    folder = copy_of(FOLDERS["tiny-qwen3"], tmp_path)
    shutil.copy(FOLDERS["tiny-olmo3"] / "tokenizer.json", folder)
    assert refusal(folder).file == folder / "tokenizer.json"


def test_weights_that_the_manifest_does_not_list_are_refused_on_request(folder, tmp_path):
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    load_model(folder / "other.safetensors")
    with pytest.raises(CheckpointError, match="does not list") as caught:
        load_model(folder / "other.safetensors", verify=True)
    check_answers(caught.value)


@pytest.mark.parametrize(
    "section",
    [
        [],
        "text",
        None,
        {"../outside": {"bytes": 1, "sha256": "0" * 64}},
        {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}},
        {"a\\b": {"bytes": 1, "sha256": "0" * 64}},
        {"c:x": {"bytes": 1, "sha256": "0" * 64}},
        {"": {"bytes": 1, "sha256": "0" * 64}},
        {"\0": {"bytes": 1, "sha256": "0" * 64}},
        {"x": 7},
        {"x": {"bytes": 1}},
        {"x": {"bytes": -1, "sha256": "0" * 64}},
        {"x": {"bytes": True, "sha256": "0" * 64}},
        {"x": {"bytes": 1, "sha256": "0" * 63}},
        {"x": {"bytes": 1, "sha256": 7}},
    ],
    ids=str,
)
def test_a_manifest_that_is_not_understood_is_refused(folder, section):
    write(folder, files=section)
    error = refusal(folder)
    assert error.what == "the manifest cannot be understood" and error.file == folder / MANIFEST


def test_a_card_without_files_is_no_manifest(folder):
    (folder / MANIFEST).write_text('{"about": "a model"}')
    assert manifest_beside(folder) is None
    flip(folder / "model.safetensors")
    load_model(folder, verify=True)


def test_saving_leaves_no_manifest_of_the_old_checkpoint(tmp_path):
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path)
    save_checkpoint(ours(EXAMPLES["llama3"]), folder)
    assert not (folder / MANIFEST).exists() and same_parameters(
        load_model(folder, verify=True), ours(EXAMPLES["llama3"])
    )
