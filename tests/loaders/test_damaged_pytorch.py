"""A .bin or .pth file is a program; it is read as data, or not at all."""

import io
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import CheckpointError, UnsafeFileError, load_model, load_weights, open_checkpoint
from course_helpers.loaders.strategies import STRATEGIES
from tests.loaders.refusals import refusal, refusal_in_hand
from tests.tiny_models import EXAMPLES, ours, same_parameters, theirs, write_config

CONFIG = EXAMPLES["gpt2"]
TENSORS = theirs(CONFIG).transformer.state_dict()
SMALL = {}
for container in (True, False):
    file = io.BytesIO()
    torch.save({"a": torch.arange(50.0), "b": torch.ones(3)}, file, _use_new_zipfile_serialization=container)
    SMALL[container] = file.getvalue()

both_containers = pytest.mark.parametrize("zipped", [True, False])


def saved(folder: Path, content: object, zipped: bool = True) -> Path:
    write_config(folder, CONFIG)
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return folder / "pytorch_model.bin"


def refused(path: Path, kind: type[CheckpointError] = CheckpointError) -> CheckpointError:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch, on pickle protocols that a damaged file claims
        error, in_hand = refusal(path.parent, kind=kind), refusal_in_hand(ours(CONFIG, seed=5), path.parent)
    assert error.file == path and type(in_hand) is type(error)
    return error


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_the_payload_would_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(f"touch '{tmp_path}/ran'")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "wrap", [lambda p: p, lambda p: TENSORS | {"x": p}, lambda p: {"state_dict": TENSORS, "args": p}]
)
@both_containers
def test_code_in_a_pickle_is_refused_and_does_not_run(wrap, zipped, tmp_path):
    error = refused(saved(tmp_path, wrap(Payload(f"touch '{tmp_path}/ran'")), zipped), UnsafeFileError)
    assert not (tmp_path / "ran").exists() and "system" in error.found


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_bare_pickle_is_refused_and_does_not_run(protocol, tmp_path):
    path = saved(tmp_path, {})
    path.write_bytes(pickle.dumps({"x": Payload(f"touch '{tmp_path}/ran'")}, protocol=protocol))
    assert refused(path).next_step and not (tmp_path / "ran").exists()


@both_containers
def test_a_pickled_module_is_unsafe(zipped, tmp_path):
    error = refused(saved(tmp_path, torch.nn.Linear(2, 2), zipped), UnsafeFileError)
    assert "torch.nn.modules.linear.Linear" in error.found and "weights_only=False" in error.next_step


@both_containers
@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        torch.zeros(3),
        17,
        None,
        "text",
        {"epoch": 3},
        {"a": [torch.zeros(1)]},
        {1: torch.zeros(1)},
        {"a": torch.zeros(1, device="meta")},
        {"a": torch.eye(3).to_sparse()},
        {"model": {"a": 1}},
    ],
)
def test_anything_but_a_state_dict_is_refused(zipped, content, tmp_path):
    assert refused(saved(tmp_path, content, zipped)).what == "the file does not hold a state dict"


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_inside_a_training_checkpoint_is_found(wrapper, tmp_path):
    saved(tmp_path, {wrapper: TENSORS, "epoch": 3, "optimizer": {"lr": 0.1}})
    assert same_parameters(load_model(tmp_path), ours(CONFIG))


def test_parameters_and_views_are_read_like_tensors(tmp_path):
    odd = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in TENSORS.items()}
    odd["wpe.weight"] = TENSORS["wpe.weight"].T.contiguous().T
    odd["wte.weight"] = torch.stack((TENSORS["wte.weight"],) * 2, dim=-1)[..., 0]
    saved(tmp_path, odd)
    for source, config in ((tmp_path, None), (odd, CONFIG)):
        for strategy in STRATEGIES:
            model = load_model(source, config=config, strategy=strategy)
            assert same_parameters(model, ours(CONFIG))
            assert all(p.is_leaf and p.is_contiguous() for p in model.parameters())
    assert load_weights(ours(CONFIG, seed=3), tmp_path).format == "pytorch"


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 100, b"<html>Not Found</html>" * 9, b"PK\x03\x04" + b"x" * 99, b"\x80\x02}."]
)
def test_a_file_of_another_kind_is_damaged_and_not_unsafe(raw, tmp_path):
    path = saved(tmp_path, {})
    path.write_bytes(raw)
    assert type(refused(path)) is CheckpointError


@both_containers
def test_no_cut_whatever_is_accepted(zipped, tmp_path):
    path, raw = tmp_path / "x.bin", SMALL[zipped]
    for keep in range(0, len(raw), 7):
        path.write_bytes(raw[:keep])
        with warnings.catch_warnings(), pytest.raises(CheckpointError):
            warnings.simplefilter("ignore")
            open_checkpoint(path)


@both_containers
def test_a_file_that_ends_early_is_refused(zipped, tmp_path):
    path = saved(tmp_path, TENSORS, zipped)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "cannot be read" in refused(path).what


@both_containers
@settings(max_examples=400)
@given(edits=st.lists(st.tuples(st.integers(0, 1600), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_damage_does_anything_but_open_or_be_refused(tmp_path_factory, zipped, edits):
    path = tmp_path_factory.getbasetemp() / f"fuzz-{zipped}.bin"
    damaged = bytearray(SMALL[zipped])
    for place, value in edits:
        damaged[place % len(damaged)] = value
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_checkpoint(path) as checkpoint:
                [checkpoint.shape(name) for name in checkpoint.names()]
        except CheckpointError as error:
            assert str(error) and error.next_step
