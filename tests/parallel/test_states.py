"""Written by 2 ranks, read by 4, written again, exported: the same bytes as at the start, for every family."""

from pathlib import Path

import pytest
import torch

from course_helpers import CheckpointError, load_model
from course_helpers.loaders.save import export
from course_helpers.parallel import export_sharded
from course_helpers.parallelism.apply import shares_of
from tests.parallel.launch import work
from tests.parallel.work import TINY
from tests.tiny_models import same_parameters

WRITERS, READERS = 2, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    for name, size in (("save", WRITERS), ("reshard", READERS)):
        ended = work(name, size, folder)
        assert [one.status for one in ended] == [0] * size, ended[0].err[-3000:]
    return folder


each = pytest.mark.parametrize("name", TINY)


@each
def test_other_ranks_read_their_own_parts(folder, name):
    whole = load_model(name)
    shares = shares_of(whole, READERS)
    for rank in range(READERS):
        found = torch.load(folder / f"reshard-{rank}-of-{READERS}.pt")[name]["parts"]
        for parameter, values in whole.named_parameters():
            cut = shares[parameter].cut(values.shape, rank, READERS)
            expected = values if cut is None else values.narrow(cut.dim, cut.start, cut.stop - cut.start)
            assert found[parameter].dtype == values.dtype and torch.equal(found[parameter], expected), parameter


@each
@pytest.mark.parametrize("saved", ["saved", f"saved again by {READERS}"])
def test_what_is_exported_is_what_was_loaded_to_the_byte(folder, name, saved, tmp_path):
    export_sharded(folder / saved / name, tmp_path / "exported")
    exported, original = load_model(tmp_path / "exported"), load_model(name)
    assert same_parameters(exported, original) and exported.config == original.config
    first, second = export(exported), export(original)
    assert first.keys() == second.keys()
    for tensor in first:
        assert torch.equal(first[tensor].view(torch.uint8), second[tensor].view(torch.uint8))


@each
def test_every_part_is_written_once(folder, name):
    """What several ranks hold (norms, shared heads) is in the files once, and what is cut is there completely."""
    total = sum(values.nbytes for values in load_model(name).parameters())
    written = sum(path.stat().st_size for path in (folder / "saved" / name).glob("*.distcp"))
    assert total <= written < 1.5 * total + 150_000  # torch.save's own words about each part


@each
def test_nothing_is_overwritten(folder, name):
    for rank in range(WRITERS):
        said = torch.load(folder / f"save-{rank}-of-{WRITERS}.pt")[name]
        assert "nothing was changed" in said


def test_an_unfinished_folder_is_refused(folder, tmp_path):
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(CheckpointError, match="not a finished sharded checkpoint"):
        export_sharded(tmp_path / "unfinished", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
