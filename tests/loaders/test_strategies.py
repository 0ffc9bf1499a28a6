"""What sets the strategies apart: when bytes are read, and what a later change of the file can do."""

import builtins

import pytest
import torch

from course_helpers import FAMILIES, load_model, open_checkpoint
from course_helpers.loaders.sources import Checkpoint
from course_helpers.loaders.strategies import STRATEGIES
from tests.formats import FORMATS, safetensors_single
from tests.tiny_models import EXAMPLES, ours, same_parameters, theirs

every_family = pytest.mark.parametrize("family", FAMILIES)


def overwrite_data(path) -> None:
    """Zeros in place of the second half of a file, without a new file under its name."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


@every_family
@pytest.mark.parametrize("format", ["safetensors", "bin", "bin, legacy"])
@pytest.mark.parametrize("strategy", ["naive", "sequential", "stream"])
def test_a_later_overwrite_of_the_file_cannot_reach_the_model(family, format, strategy, tmp_path):
    reference = theirs(EXAMPLES[family])
    FORMATS[format](reference, tmp_path)
    model = load_model(tmp_path, strategy=strategy)
    overwrite_data(next(path for path in tmp_path.iterdir() if path.suffix in (".safetensors", ".bin")))
    assert same_parameters(model, load_model(reference))


@every_family
def test_a_later_overwrite_does_reach_a_mapped_model(family, tmp_path):
    reference = theirs(EXAMPLES[family])
    safetensors_single(reference, tmp_path)
    model = load_model(tmp_path, strategy="mmap")
    overwrite_data(tmp_path / "model.safetensors")
    assert not same_parameters(model, load_model(reference))


@every_family
def test_training_a_mapped_model_never_writes_to_the_file(family, tmp_path):
    safetensors_single(theirs(EXAMPLES[family]), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = load_model(tmp_path, strategy="mmap")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert (tmp_path / "model.safetensors").read_bytes() == before


@every_family
@pytest.mark.parametrize("strategy", ["naive", "sequential", "stream"])
def test_a_copy_of_a_live_model_shares_nothing_with_it(family, strategy):
    live = theirs(EXAMPLES[family])
    model = load_model(live, strategy=strategy)
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.zero_()
    assert same_parameters(model, ours(EXAMPLES[family]))


@every_family
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_tensor_is_fetched_once_and_in_order(family, strategy, tmp_path, monkeypatch):
    safetensors_single(theirs(EXAMPLES[family]), tmp_path)
    order = []

    def noted(fetch):
        return lambda self, name, *scratch: (order.append(name), fetch(self, name, *scratch))[1]

    for way in ("read", "peek", "map"):
        monkeypatch.setattr(Checkpoint, way, noted(getattr(Checkpoint, way)))
    model = load_model(tmp_path, strategy=strategy)
    assert order == [row.source for row in model.load_report.rows]


@every_family
def test_opening_reads_headers_and_nothing_else(family, tmp_path, monkeypatch):
    safetensors_single(theirs(EXAMPLES[family]), tmp_path)
    size, read = (tmp_path / "model.safetensors").stat().st_size, []

    class Counting:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def read(self, count=-1):
            read.append(self.file.read(count))
            return read[-1]

    opened = builtins.open
    monkeypatch.setattr(
        builtins,
        "open",
        lambda path, *args, **kw: (Counting if str(path).endswith(".safetensors") else lambda f: f)(
            opened(path, *args, **kw)
        ),
    )
    with open_checkpoint(tmp_path) as checkpoint:
        nbytes = checkpoint.nbytes
    assert sum(map(len, read)) == size - nbytes


@every_family
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_loading_leaves_the_default_dtype_and_the_weights_of_the_source(family, strategy):
    live = theirs(EXAMPLES[family])
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    load_model(live, dtype=torch.bfloat16, strategy=strategy)
    assert torch.get_default_dtype() == torch.float32
    assert all(torch.equal(tensor, before[name]) for name, tensor in live.state_dict().items())


@every_family
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_read_that_fails_half_way_gives_no_model(family, strategy, tmp_path, monkeypatch):
    safetensors_single(theirs(EXAMPLES[family]), tmp_path)
    calls = []

    def fail_late(self, name, *_):
        calls.append(name)
        if len(calls) > 5:
            raise OSError("the disk is gone")
        return self.file_of[name].read(name)

    for way in ("read", "peek", "map"):
        monkeypatch.setattr(Checkpoint, way, fail_late)
    with pytest.raises(OSError, match="the disk is gone"):
        load_model(tmp_path, strategy=strategy)
    assert torch.get_default_dtype() == torch.float32
