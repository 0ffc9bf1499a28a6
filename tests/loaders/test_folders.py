"""Which files make a checkpoint: folders, indexes, config.json, and what must not be guessed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from course_helpers import CheckpointError, load_model, open_checkpoint
from course_helpers.loaders.sources import Checkpoint, MemoryTensors
from tests.formats import FORMATS
from tests.loaders.refusals import refusal, refusal_in_hand
from tests.tiny_models import EXAMPLES, ours, same_parameters, theirs, write_config

CONFIG = EXAMPLES["llama3"]
SHARDED = ["safetensors, sharded", "bin, sharded"]
every_sharding = pytest.mark.parametrize("format", SHARDED)


def sharded(folder: Path, format: str) -> tuple[Path, dict[str, str]]:
    """A sharded checkpoint's index file and its weight map."""
    FORMATS[format](theirs(CONFIG), folder)
    index = next(folder.glob("*.index.json"))
    return index, json.loads(index.read_text())["weight_map"]


def rewrite(index: Path, weight_map: object) -> None:
    index.write_text(json.dumps({"weight_map": weight_map}))


def refused(folder: Path) -> CheckpointError:
    error, in_hand = refusal(folder), refusal_in_hand(ours(CONFIG, seed=5), folder)
    assert str(error) == str(in_hand)
    return error


@every_sharding
def test_any_missing_shard_is_named(format, tmp_path):
    _, weight_map = sharded(tmp_path, format)
    for shard in sorted(set(weight_map.values())):
        content = (tmp_path / shard).read_bytes()
        (tmp_path / shard).unlink()
        error = refused(tmp_path)
        assert error.what == "a shard is missing" and error.file == tmp_path / shard
        (tmp_path / shard).write_bytes(content)
    assert same_parameters(load_model(tmp_path), ours(CONFIG))


@every_sharding
def test_a_shard_that_lacks_a_promised_tensor_is_refused(format, tmp_path):
    index, weight_map = sharded(tmp_path, format)
    rewrite(index, weight_map | {"model.ghost.weight": min(weight_map.values())})
    error = refused(tmp_path)
    assert error.tensor == "model.ghost.weight" and error.found == "not there"


@every_sharding
def test_a_shard_that_holds_more_than_promised_is_refused(format, tmp_path):
    index, weight_map = sharded(tmp_path, format)
    hidden = next(name for name in weight_map if "layers.1" in name)
    rewrite(index, {name: shard for name, shard in weight_map.items() if name != hidden})
    error = refused(tmp_path)
    assert error.tensor == hidden and error.found == "there" and error.file == tmp_path / weight_map[hidden]


@every_sharding
def test_shards_in_each_others_place_are_refused(format, tmp_path):
    _, weight_map = sharded(tmp_path, format)
    one, other = sorted(set(weight_map.values()))[:2]
    (tmp_path / one).rename(tmp_path / "aside")
    (tmp_path / other).rename(tmp_path / one)
    (tmp_path / "aside").rename(tmp_path / other)
    assert refused(tmp_path).what == "the index and the shard disagree"


@every_sharding
def test_a_stale_shard_of_a_smaller_checkpoint_is_refused(format, tmp_path):
    (tmp_path / "old").mkdir()
    _, weight_map = sharded(tmp_path, format)
    _, old_map = sharded(tmp_path / "old", format)
    shard = min(weight_map.values())
    name = next(name for name in old_map if old_map[name] == shard)
    if format.startswith("bin"):
        torch.save({name: torch.zeros(1)}, tmp_path / shard)
    else:
        save_file({name: torch.zeros(1)}, tmp_path / shard)
    error = refused(tmp_path)  # where the index gives the sum of bytes, that is what does not fit
    assert error.file == tmp_path / shard or (error.field == "metadata.total_size" and error.file.suffix == ".json")


@pytest.mark.parametrize(
    "shard",
    [
        "../outside.safetensors",
        "sub/inside.safetensors",
        "..\\outside.safetensors",
        "/etc/passwd",
        "..",
        "",
        "model.txt",
        "model-00001",
        7,
        None,
        ["a.safetensors"],
        {"a": 1},
    ],
)
def test_an_index_that_points_anywhere_but_beside_itself_is_refused(shard, tmp_path):
    (tmp_path / "model").mkdir()
    index, weight_map = sharded(tmp_path / "model", SHARDED[0])
    first = min(weight_map.values())
    shutil.copy(tmp_path / "model" / first, tmp_path / "outside.safetensors")
    (tmp_path / "model" / "sub").mkdir()
    shutil.copy(tmp_path / "model" / first, tmp_path / "model" / "sub" / "inside.safetensors")
    rewrite(index, {name: shard if old == first else old for name, old in weight_map.items()})
    error = refused(tmp_path / "model")
    assert error.field == "weight_map" and error.file == index and error.found == repr(shard)


@pytest.mark.parametrize("weight_map", [{}, [], None, "model.safetensors", 3])
def test_an_index_without_tensors_is_refused(weight_map, tmp_path):
    index, _ = sharded(tmp_path, SHARDED[0])
    rewrite(index, weight_map)
    assert refused(tmp_path).field == "weight_map"


NOT_OBJECTS = [b"", b"[]", b"3", b"{", b"<html>", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("raw", NOT_OBJECTS, ids=lambda raw: repr(raw[:9]))
def test_json_that_is_no_object_is_refused(name, raw, tmp_path):
    sharded(tmp_path, SHARDED[0])
    (tmp_path / name).write_bytes(raw)
    error = refused(tmp_path)
    assert error.what == "the file is not a JSON object" and error.file == tmp_path / name


def test_weights_without_a_config_are_refused(tmp_path):
    FORMATS["safetensors"](theirs(CONFIG), tmp_path)
    (tmp_path / "config.json").unlink()
    assert "no config.json" in refusal(tmp_path).what


def test_a_config_that_is_handed_over_replaces_the_one_in_the_folder(tmp_path):
    FORMATS["safetensors"](theirs(CONFIG), tmp_path)
    assert load_model(tmp_path, config=CONFIG | {"rms_norm_eps": 0.5}).config.rms_norm_eps == 0.5


def test_two_files_with_the_same_tensor_are_refused():
    files = [MemoryTensors({"a": torch.zeros(1)}), MemoryTensors({"a": torch.zeros(1)})]
    with pytest.raises(CheckpointError, match="two files hold the same tensor") as caught:
        Checkpoint("test", files, None, "here")
    assert caught.value.tensor == "a"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], "no weight file"),
        (["model.gguf"], "no weight file"),
        (["a.safetensors", "b.safetensors"], "a.safetensors, b.safetensors"),
        (["consolidated.00.pth", "consolidated.01.pth"], "consolidated.00.pth, consolidated.01.pth"),
        (["a.bin", "b.safetensors"], "a.bin, b.safetensors"),
    ],
)
def test_a_folder_that_leaves_a_choice_or_none_is_refused(names, found, tmp_path):
    write_config(tmp_path, CONFIG)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    error = refused(tmp_path)
    assert error.found == found and error.file == tmp_path


@pytest.mark.parametrize("name", ["weights.gguf", "weights", "weights.onnx", "config.json"])
def test_a_file_of_an_unknown_type_is_refused(name, tmp_path):
    write_config(tmp_path, CONFIG)
    (tmp_path / name).write_bytes(b"{}")
    assert refused(tmp_path / name).what == "no checkpoint was recognised here"


@pytest.mark.parametrize("place", ["absent", "absent/model.safetensors", "absent.bin"])
def test_a_path_with_nothing_there_is_refused(place, tmp_path):
    error = refused(tmp_path / place)
    assert error.what == "there is no such checkpoint" and error.file == tmp_path / place


@pytest.mark.parametrize("source", [None, 7, "", "no such name"])
def test_what_is_no_source_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(refusal(source), CheckpointError)


def test_safetensors_is_preferred_because_nothing_in_it_can_run(tmp_path):
    FORMATS["safetensors"](theirs(CONFIG), tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "safetensors"


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("live", "own state dict", "pth")])
@pytest.mark.parametrize("form", [Path, str])
def test_a_folder_may_be_a_path_or_text(format, form, tmp_path):
    FORMATS[format](theirs(CONFIG), tmp_path)
    assert same_parameters(load_model(form(tmp_path)), ours(CONFIG))


def test_an_index_file_or_a_single_file_may_be_named_itself(tmp_path):
    index, _ = sharded(tmp_path, SHARDED[0])
    assert same_parameters(load_model(index), ours(CONFIG))
