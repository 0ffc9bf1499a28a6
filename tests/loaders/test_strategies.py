"""What sets the strategies apart: when bytes are read, and what a later change of the file can do."""

import builtins
import os

import pytest
import torch

from course_helpers import FAMILIES, CheckpointError, load_model, load_weights, open_checkpoint, save_checkpoint
from course_helpers.loaders import load, reading
from course_helpers.loaders.sources import Checkpoint
from course_helpers.loaders.strategies import STRATEGIES
from course_helpers.memory import measure_in_subprocess, weight_bytes
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
def test_each_tensor_is_fetched_once_and_in_order_but_by_stream(family, strategy, tmp_path, monkeypatch):
    safetensors_single(theirs(EXAMPLES[family]), tmp_path)
    order = []

    def noted(fetch):
        return lambda self, name, *scratch: (order.append(name), fetch(self, name, *scratch))[1]

    for way in ("read", "peek", "map"):
        monkeypatch.setattr(Checkpoint, way, noted(getattr(Checkpoint, way)))
    model = load_model(tmp_path, strategy=strategy)
    expected = [row.source for row in model.load_report.rows]
    assert sorted(order) == sorted(expected)
    assert order == expected or strategy == "stream"  # which reads several at once


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


@pytest.mark.parametrize("empty", ["all", "one"])
def test_a_model_without_memory_is_not_filled_and_says_so(empty):
    source = theirs(EXAMPLES["llama3"])
    model = ours(EXAMPLES["llama3"])
    (model if empty == "all" else model.blocks[1]).to("meta")
    with pytest.raises(CheckpointError, match="no memory for its weights") as refusal:
        load_weights(model, source)
    assert model.get_parameter(refusal.value.tensor).is_meta
    load_weights(model.to_empty(device="cpu"), source)
    assert same_parameters(model, load_model(source))


def weights_in(folder):
    return next(path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin"))


@every_family
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_a_later_truncation_cannot_reach_a_streamed_model(family, format, tmp_path):
    reference = theirs(EXAMPLES[family])
    FORMATS[format](reference, tmp_path)
    model = load_model(tmp_path)
    os.truncate(weights_in(tmp_path), 0)
    assert same_parameters(model, load_model(reference))


def shrink(path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def exchange(path) -> None:
    """Another file of the same size under the same name, as a download that is repeated puts it there."""
    other = path.with_suffix(".new")
    other.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.replace(other, path)


def write_over(path) -> None:
    status = path.stat()
    overwrite_data(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # clocks of file systems may be coarse


@pytest.mark.parametrize("change", [shrink, exchange, write_over])
@pytest.mark.parametrize("format", ["safetensors", "bin", "safetensors, sharded"])
@pytest.mark.parametrize("after", [0, 9])
def test_a_file_that_changes_while_it_is_read_is_refused(change, format, after, tmp_path, monkeypatch):
    """It would give weights of two checkpoints in one model. The model in hand stays as it was."""
    FORMATS[format](theirs(EXAMPLES["llama3"], seed=1), tmp_path)
    model = ours(EXAMPLES["llama3"])
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    reads, read = [], Checkpoint.read

    def read_and_change(self, name):
        if len(reads) == after:
            change(self.where(name))
        reads.append(name)
        return read(self, name)

    monkeypatch.setattr(Checkpoint, "read", read_and_change)
    monkeypatch.setattr(reading, "THREADS", 1)  # so that it is known what was read before the change
    with pytest.raises(CheckpointError, match="changed while it was read"):
        load_weights(model, tmp_path)
    reads.clear()
    with pytest.raises(CheckpointError):
        load_model(tmp_path)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_file_that_changes_before_it_is_mapped_is_refused(tmp_path):
    safetensors_single(theirs(EXAMPLES["llama3"]), tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        exchange(tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match="changed while it was read"):
            checkpoint.map(checkpoint.names()[0])


@pytest.mark.parametrize(
    ("platform", "backend", "private"),
    [
        ("linux", "auto", False),
        ("darwin", "auto", False),
        ("win32", "auto", True),
        ("win32", "mmap", False),
        ("linux", "pread", True),
    ],
)
def test_where_mapping_is_not_safe_files_are_read_instead(platform, backend, private, tmp_path, monkeypatch):
    monkeypatch.setattr(load.sys, "platform", platform)
    reference = theirs(EXAMPLES["llama3"])
    safetensors_single(reference, tmp_path)
    model = load_model(tmp_path, strategy="mmap", backend=backend)
    assert same_parameters(model, load_model(reference))
    overwrite_data(tmp_path / "model.safetensors")
    assert same_parameters(model, load_model(reference)) == private


def test_an_unknown_backend_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there are: auto, mmap, pread"):
        load_model("tiny-gpt2", backend="io_uring")


@every_family
def test_a_default_device_does_not_reach_into_loading(family, tmp_path):
    safetensors_single(theirs(EXAMPLES[family]), tmp_path)
    with torch.device("meta"):
        models = [load_model(tmp_path, strategy=strategy) for strategy in STRATEGIES]
    assert all(same_parameters(model, load_model(tmp_path)) for model in models)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A checkpoint of some 60 MiB, in both formats, and its size in MiB."""
    sizes = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 2048, "head_dim": 64}
    model = ours(EXAMPLES["llama3"] | sizes | {"num_attention_heads": 8})
    folder = tmp_path_factory.mktemp("large")
    save_checkpoint(model, folder / "safetensors")
    (folder / "bin").mkdir()
    (folder / "bin/config.json").write_bytes((folder / "safetensors/config.json").read_bytes())
    with open_checkpoint(folder / "safetensors") as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
    torch.save(tensors, folder / "bin/pytorch_model.bin")
    largest = max(tensor.nbytes for tensor in tensors.values())
    return folder, weight_bytes(model.config, torch.float32) / 2**20, largest / 2**20


@pytest.mark.parametrize(
    ("options", "anonymous", "resident"),
    [
        ("strategy='stream'", (0.97, 1.05), (0.97, 1.08)),
        ("strategy='stream', dtype=torch.float64", (1.97, 2.05), (1.97, 2.08)),
        ("strategy='mmap'", (0.0, 0.05), (0.97, 1.05)),
    ],
)
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_peaks(options, anonymous, resident, format, large):
    """Of memory above the start, in models; a small allowance is for Python's own objects, and for the one tensor that
    a cast goes through."""
    folder, size, largest = large
    setup = "import torch, pickle, zipfile, concurrent.futures.thread; from course_helpers import load_model\n"
    setup += "load_model('tiny-llama3', strategy='mmap'); load_model('tiny-llama3')"
    load = f"model = load_model({str(folder / format)!r}, {options}); [p.sum() for p in model.parameters()]"
    use = measure_in_subprocess(load, setup)
    allowance = 6 + (largest if "dtype" in options else 0)
    assert anonymous[0] * size < use.added_anonymous_mb < anonymous[1] * size + allowance
    if "dtype" in options and format == "bin":
        resident = (resident[0], resident[1] + 1)  # the mapped file that is cast from is resident, too
    assert resident[0] * size < use.added_peak_mb < resident[1] * size + allowance
