"""Writing TensorFlow checkpoints: the files are TensorFlow's own to the byte, and nothing is left half written."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import open_checkpoint
from course_helpers.loaders.tf_index import DTYPES
from course_helpers.loaders.tf_writer import write_bundle
from tests.loaders.tensorflow_files import DATA, FIXTURE, INDEX, expected


@pytest.mark.parametrize("folder", ["gpt2", "training", "types"])
def test_the_files_are_those_that_tensorflow_wrote(folder, tmp_path):
    with open_checkpoint(FIXTURE / folder) as checkpoint:
        write_bundle(tmp_path / "model.ckpt", {name: expected()[name] for name in reversed(checkpoint.names())})
    assert sorted(os.listdir(tmp_path)) == [DATA, INDEX]
    for name in (DATA, INDEX):
        assert (tmp_path / name).read_bytes() == (FIXTURE / folder / name).read_bytes()


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
shapes = st.lists(st.integers(0, 4), max_size=3)


@settings(max_examples=60)
@given(
    tensors=st.dictionaries(names, st.tuples(shapes, st.sampled_from(list(DTYPES.values()))), max_size=40),
    block_bytes=st.sampled_from([1, 100, 1000, 10**6]),
    seed=st.integers(0, 99),
)
def test_any_tensors_come_back_in_any_number_of_blocks(tensors, block_bytes, seed, tmp_path_factory):
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.randint(0, 2, shape, generator=generator).to(dtype) for name, (shape, dtype) in tensors.items()
    }
    index = write_bundle(tmp_path_factory.mktemp("written") / "x", values, block_bytes)
    with open_checkpoint(index) as checkpoint:
        assert checkpoint.names() == sorted(values, key=str.encode)
        for name, wanted in values.items():
            for found in (checkpoint.read(name), checkpoint.map(name)):
                assert found.dtype == wanted.dtype and found.shape == wanted.shape and torch.equal(found, wanted)


@pytest.mark.parametrize("tensor", [torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.float8_e5m2)])
def test_a_type_that_cannot_be_read_back_is_not_written(tensor, tmp_path):
    with pytest.raises(ValueError, match="'w': a tensor of torch"):
        write_bundle(tmp_path / "x", {"v": torch.ones(1), "w": tensor})
    assert os.listdir(tmp_path) == []


def test_tensors_that_are_views_are_written_as_they_look(tmp_path):
    matrix = torch.arange(12.0).view(3, 4)
    index = write_bundle(tmp_path / "x", {"turned": matrix.T, "row": matrix[1], "one": matrix[1, 2]})
    with open_checkpoint(index) as checkpoint:
        assert torch.equal(checkpoint.read("turned"), matrix.T) and torch.equal(checkpoint.read("row"), matrix[1])
        assert checkpoint.read("one").shape == () and checkpoint.read("one") == 6.0


@pytest.mark.parametrize("step", range(3))
def test_a_failure_leaves_the_older_checkpoint_or_one_that_is_refused(step, tmp_path, monkeypatch):
    """At the first step nothing was moved; at the second, new data stands beside the old index; after both, all new."""
    write_bundle(tmp_path / "x", {"w": torch.zeros(3)})
    real, calls = os.replace, []

    def replace(*paths):
        calls.append(paths)
        if len(calls) > step:
            raise OSError("the disk is gone")
        return real(*paths)

    monkeypatch.setattr(os, "replace", replace)
    try:
        write_bundle(tmp_path / "x", {"w": torch.ones(3)})
    except OSError:
        assert step < 2
    with open_checkpoint(tmp_path / "x.index") as checkpoint:
        if step == 1:
            with pytest.raises(ValueError, match="not those that were saved"):
                checkpoint.read("w")
        else:
            assert torch.equal(checkpoint.read("w"), torch.full((3,), float(step == 2)))
    assert len(os.listdir(tmp_path)) == 2
