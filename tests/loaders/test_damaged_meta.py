"""Meta's files, damaged, mixed up, or with a params.json of another model: all refused, and nothing is changed."""

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_helpers import CheckpointError, UnsafeFileError, load_model, load_weights
from tests.formats import META_CONFIG as CONFIG
from tests.formats import meta, meta_params
from tests.loaders.refusals import assert_untouched, refusal, refusal_in_hand
from tests.loaders.test_damaged_pytorch import Payload
from tests.loaders.test_folders import NOT_OBJECTS
from tests.tiny_models import theirs

FILES = ("consolidated.00.pth", "consolidated.01.pth")
both_cuts = pytest.mark.parametrize("embedding_cut", [0, 1])
any_number = pytest.mark.parametrize("shards", [1, 2])
either_file = pytest.mark.parametrize("name", FILES)


def refused(folder: Path, kind: type[CheckpointError] = CheckpointError) -> CheckpointError:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch, on pickle protocols that a damaged file claims
        error, in_hand = refusal(folder, kind=kind), refusal_in_hand(load_model(theirs(CONFIG, seed=5)), folder)
    assert str(error) == str(in_hand)
    return error


def change(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Rewrite one file after an edit of its tensors, which works in place."""
    tensors = torch.load(path)
    edit(tensors)
    torch.save(tensors, path)


def set_params(folder: Path, **fields: object) -> None:
    (folder / "params.json").write_text(json.dumps(meta_params(CONFIG) | fields))


@any_number
@pytest.mark.parametrize("raw", NOT_OBJECTS, ids=lambda raw: repr(raw[:9]))
def test_params_json_that_is_no_object_is_refused(shards, raw, tmp_path):
    meta(shards)(theirs(CONFIG), tmp_path)
    (tmp_path / "params.json").write_bytes(raw)
    error = refused(tmp_path)
    assert error.what == "the file is not a JSON object" and error.file == tmp_path / "params.json"


@any_number
def test_an_empty_object_is_refused(shards, tmp_path):
    meta(shards)(theirs(CONFIG), tmp_path)
    (tmp_path / "params.json").write_text("{}")
    assert refused(tmp_path).field == "dim"


@pytest.mark.parametrize(
    ("fields", "tensor", "cause"),
    [
        ({"dim": 64}, "tok_embeddings.weight", "the params.json of another model"),
        ({"vocab_size": 65}, "tok_embeddings.weight", "vocab_size"),
        ({"n_heads": 16}, "layers.0.attention.wk.weight", "the params.json of another model"),
        ({"n_heads": 16, "n_kv_heads": 8}, "rope.freqs", "n_heads"),
        ({"n_kv_heads": 8}, "layers.0.attention.wk.weight", "n_kv_heads"),
        ({"n_kv_heads": None}, "layers.0.attention.wk.weight", "n_kv_heads"),
        ({"multiple_of": 256}, "layers.0.feed_forward.w1.weight", "multiple_of"),
        ({"ffn_dim_multiplier": None}, "layers.0.feed_forward.w1.weight", "ffn_dim_multiplier"),
    ],
)
@any_number
def test_params_of_another_model_are_told_by_the_tensors(shards, fields, tensor, cause, tmp_path):
    meta(shards)(theirs(CONFIG), tmp_path)
    set_params(tmp_path, **fields)
    error = refused(tmp_path)
    assert error.what == "params.json and the weights disagree" and error.tensor == tensor and cause in error.cause
    assert "says params.json" in error.expected and ("2 files" if shards == 2 else FILES[0]) in error.found


@any_number
@pytest.mark.parametrize("layers", [1, 3, 2**31 - 1])
def test_another_number_of_layers_is_refused(shards, layers, tmp_path):
    meta(shards)(theirs(CONFIG), tmp_path)
    set_params(tmp_path, n_layers=layers)
    error = refused(tmp_path)
    assert error.field == "n_layers" and str(layers) in error.expected and "2 layers" in error.found


@both_cuts
@pytest.mark.parametrize("missing", range(4))
def test_any_missing_file_is_noticed(embedding_cut, missing, tmp_path):
    meta(4, embedding_cut)(theirs(CONFIG), tmp_path)
    (tmp_path / f"consolidated.{missing:02}.pth").unlink()
    error = refused(tmp_path)
    if missing < 3:
        assert error.what == "a file of the checkpoint is missing" and f".{missing:02}." not in error.found
    else:
        assert error.cause == "a file that is missing, or one too many" and "3 files" in error.found


@both_cuts
@pytest.mark.parametrize("number", [1, 2])
def test_a_file_too_many_is_noticed(embedding_cut, number, tmp_path):
    meta(number, embedding_cut)(theirs(CONFIG), tmp_path)
    shutil.copy(tmp_path / FILES[0], tmp_path / f"consolidated.{number:02}.pth")
    error = refused(tmp_path)
    assert error.cause == "a file that is missing, or one too many" and f"{number + 1} files" in error.found


def test_two_files_with_one_number_are_refused(tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    (tmp_path / FILES[1]).rename(tmp_path / "consolidated.0.pth")
    assert refused(tmp_path).what == "a file of the checkpoint is missing"


def test_files_of_two_models_are_told_by_what_each_has_all_of(tmp_path):
    meta(2)(theirs(CONFIG, seed=0), tmp_path)
    meta(2)(theirs(CONFIG, seed=1), tmp_path / "other")
    shutil.copy(tmp_path / "other" / FILES[1], tmp_path)
    error = refused(tmp_path)
    assert error.what == "the files are not parts of one model" and error.file == tmp_path / FILES[1]
    assert error.tensor == "layers.0.attention_norm.weight" and error.found == "other values"
    assert len(error.problems) == 5


def negative_zero(tensors: dict[str, Tensor]) -> None:
    tensors["norm.weight"][0] = -0.0


def one_ulp(tensors: dict[str, Tensor]) -> None:
    tensors["norm.weight"][3] = torch.nextafter(tensors["norm.weight"][3], torch.tensor(9.0))


@pytest.mark.parametrize("edit", [negative_zero, one_ulp])
def test_norms_must_be_equal_to_the_bit(edit, tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    for name in FILES:
        change(tmp_path / name, lambda tensors: tensors["norm.weight"][:1].zero_())
    change(tmp_path / FILES[1], edit)
    assert refused(tmp_path).tensor == "norm.weight"
    change(tmp_path / FILES[0], edit)
    assert torch.isfinite(load_model(tmp_path).final_norm.weight).all()


def test_a_norm_that_is_not_a_number_in_all_files_is_the_same_in_all(tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    for name in FILES:
        change(tmp_path / name, lambda tensors: tensors["norm.weight"].fill_(torch.nan))
    assert load_model(tmp_path).final_norm.weight.isnan().all()


W1 = "layers.0.feed_forward.w1.weight"
EDITS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "one more": (lambda t: t.update({"layers.2.ffn_norm.weight": torch.ones(32)}), "layers.2.ffn_norm.weight"),
    "one more kind": (lambda t: t.update({"layers.0.attention.wq.bias": torch.ones(16)}), "layers.0.attention.wq.bias"),
    "one less": (lambda t: t.pop("layers.1.attention.wo.weight"), "layers.1.attention.wo.weight"),
    "no norm": (lambda t: t.pop("norm.weight"), "norm.weight"),
    "another type": (lambda t: t.update({"output.weight": t["output.weight"].bfloat16()}), "output.weight"),
    "another length": (lambda t: t.update({"output.weight": t["output.weight"][1:]}), "output.weight"),
    "another width": (lambda t: t.update({"tok_embeddings.weight": torch.ones(64, 15)}), "tok_embeddings.weight"),
    "a longer norm": (lambda t: t.update({"norm.weight": torch.ones(33)}), "norm.weight"),
    "a number for a norm": (lambda t: t.update({"norm.weight": torch.tensor(1.0)}), "norm.weight"),
    "a row for a matrix": (lambda t: t.update({"output.weight": torch.ones(32)}), "output.weight"),
    "a cube for a matrix": (lambda t: t.update({"output.weight": t["output.weight"][None]}), "output.weight"),
    "transposed": (lambda t: t.update({W1: t[W1].T}), W1),
}


@either_file
@pytest.mark.parametrize("edit", EDITS)
def test_a_file_that_differs_from_the_others_is_refused(name, edit, tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    change(tmp_path / name, EDITS[edit][0])
    error = refused(tmp_path)
    assert EDITS[edit][1] in {problem.tensor for problem in error.problems}
    assert error.what == "the files are not parts of one model"


@any_number
@pytest.mark.parametrize("edit", EDITS)
def test_a_wrong_tensor_in_every_file_is_refused(shards, edit, tmp_path):
    meta(shards)(theirs(CONFIG), tmp_path)
    for path in tmp_path.glob("*.pth"):
        change(path, EDITS[edit][0])
    if edit == "another type":
        assert load_model(tmp_path).dtype == torch.float32  # the widest there is
        return
    error = refused(tmp_path)
    assert EDITS[edit][1] in {problem.tensor for problem in error.problems} or error.field == "n_layers"


@any_number
def test_a_vocabulary_that_neither_says_is_refused(shards, tmp_path):
    meta(shards)(theirs(CONFIG), tmp_path)
    for path in tmp_path.glob("*.pth"):
        change(path, lambda tensors: tensors.pop("tok_embeddings.weight"))
    error = refused(tmp_path)
    assert error.tensor == "tok_embeddings.weight" and "vocabulary" in error.what
    set_params(tmp_path, vocab_size=64)
    assert refused(tmp_path).what == "a tensor is missing"


@pytest.mark.parametrize("shape", [(), (64,), (64, 32, 1)])
def test_a_vocabulary_is_not_read_off_what_is_no_matrix(shape, tmp_path):
    meta()(theirs(CONFIG), tmp_path)
    change(tmp_path / FILES[0], lambda tensors: tensors.update({"tok_embeddings.weight": torch.ones(shape)}))
    error = refused(tmp_path)
    assert error.tensor == "tok_embeddings.weight" and error.found == shape and "vocabulary" in error.what


@either_file
@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"norm.weight": torch.ones(32), "x": p}])
def test_code_in_a_file_is_refused_and_does_not_run(name, wrap, tmp_path):
    meta(2)(theirs(CONFIG), tmp_path / "model")
    torch.save(wrap(Payload(f"touch '{tmp_path}/ran'")), tmp_path / "model" / name)
    assert refused(tmp_path / "model", UnsafeFileError).file == tmp_path / "model" / name
    (tmp_path / "model" / name).write_bytes(pickle.dumps(wrap(Payload(f"touch '{tmp_path}/ran'"))))
    assert refused(tmp_path / "model").next_step and not (tmp_path / "ran").exists()


@either_file
@pytest.mark.parametrize("content", [[], None, 7, {"a": 1}, {1: torch.zeros(1)}, {"model": {"a": 1}}, {}])
def test_anything_but_a_state_dict_is_refused(name, content, tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    torch.save(content, tmp_path / name)
    assert refused(tmp_path).next_step


@pytest.mark.parametrize("raw", [b"", b"<html>Not Found</html>", b"PK\x03\x04" + b"x" * 99, b"version https://git-lfs"])
@either_file
def test_a_file_of_another_kind_is_refused(name, raw, tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    (tmp_path / name).write_bytes(raw)
    assert refused(tmp_path).file == tmp_path / name


@either_file
@pytest.mark.parametrize("zipped", [True, False])
def test_no_cut_whatever_is_accepted(name, zipped, tmp_path):
    meta(2, zipped=zipped)(theirs(CONFIG), tmp_path)
    whole = (tmp_path / name).read_bytes()
    for keep in range(0, len(whole), len(whole) // 40):
        (tmp_path / name).write_bytes(whole[:keep])
        with warnings.catch_warnings(), pytest.raises(CheckpointError):
            warnings.simplefilter("ignore")
            load_model(tmp_path)


def test_a_folder_in_a_files_place_is_refused(tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    (tmp_path / FILES[1]).unlink()
    (tmp_path / FILES[1]).mkdir()
    assert refused(tmp_path).file == tmp_path / FILES[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    meta(2)(theirs(CONFIG), folder)
    return folder, [(folder / name).read_bytes() for name in FILES], load_model(theirs(CONFIG, seed=5))


@settings(max_examples=250)
@given(
    which=st.integers(0, 1),
    near_an_end=st.booleans(),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_no_damage_does_anything_but_load_or_be_refused(whole, which, near_an_end, edits):
    folder, contents, model = whole
    damaged = bytearray(contents[which])
    for place, value in edits:
        damaged[-1 - place % 6000 if near_an_end else place % len(damaged)] = value
    (folder / FILES[which]).write_bytes(damaged)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_weights(model, folder)
        except CheckpointError as error:
            assert str(error) and error.next_step
            assert_untouched(model, before)
    (folder / FILES[which]).write_bytes(contents[which])
