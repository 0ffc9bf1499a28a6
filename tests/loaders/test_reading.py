"""Reading: to the byte, from one file only, and several tensors at once."""

import sys
import threading
import zipfile

import numpy as np
import pytest
import torch

from course_helpers import CheckpointError, load_model
from course_helpers.loaders import reading
from course_helpers.loaders.pytorch_file import PyTorchFile
from course_helpers.loaders.reading import ReadAhead, SteadyFile
from tests.formats import FORMATS
from tests.tiny_models import EXAMPLES, theirs


@pytest.mark.parametrize(("start", "count"), [(0, 0), (0, 1), (3, 500), (999, 1), (0, 1000)])
def test_bytes_come_from_where_they_were_asked_for(start, count, tmp_path):
    data = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8)
    (tmp_path / "file").write_bytes(data.tobytes())
    buffer = torch.zeros(count, dtype=torch.uint8)
    SteadyFile(tmp_path / "file").read_into(buffer, start, "x")
    assert bytes(buffer.numpy()) == data.tobytes()[start : start + count]


def test_a_file_that_ends_too_early_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(bytes(10))
    with pytest.raises(CheckpointError) as caught:
        SteadyFile(tmp_path / "file").read_into(torch.zeros(11, dtype=torch.uint8), 0, "x")
    assert caught.value.tensor == "x" and caught.value.file == tmp_path / "file"


def test_reads_that_return_less_than_was_asked_for_are_continued(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(bytes(range(200)))
    file, opened = SteadyFile(tmp_path / "file"), open

    class Hesitant:
        def __init__(self, *args, **options):
            self.file = opened(*args, **options)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def readinto(self, view):
            return self.file.readinto(view[:7])

    monkeypatch.setattr(reading, "open", Hesitant, raising=False)
    buffer = torch.zeros(100, dtype=torch.uint8)
    file.read_into(buffer, 50, "x")
    assert bytes(buffer.numpy()) == bytes(range(50, 150))


class Source:
    """Tensors of given sizes; reading notes the name, and waits or fails on request."""

    def __init__(self, sizes, bad=(), slow=()):
        self.sizes, self.bad, self.slow, self.begun, self.gate = sizes, bad, slow, [], threading.Event()

    def size(self, name):
        return self.sizes[name]

    def read(self, name):
        self.begun.append(name)
        if name in self.slow:
            self.gate.wait()
        if name in self.bad:
            raise OSError(name)
        return torch.tensor(self.sizes[name])


def test_tensors_are_taken_in_any_order_and_read_once():
    source = Source({f"t{i}": i for i in range(50)})
    with ReadAhead(source, source.sizes) as ahead:
        assert [ahead.take(f"t{i}").item() for i in reversed(range(50))] == [*reversed(range(50))]
        with pytest.raises(KeyError):
            ahead.take("t0")
    assert sorted(source.begun) == sorted(source.sizes)


def test_large_tensors_are_begun_first_and_the_others_in_order(monkeypatch):
    monkeypatch.setattr(reading, "THREADS", 1)
    source = Source({"a": 1, "b": reading.LARGE, "c": 2, "d": 10 * reading.LARGE, "e": 1})
    with ReadAhead(source, source.sizes) as ahead:
        ahead.take("e")
    assert source.begun == ["b", "d", "a", "c", "e"]


def test_an_error_is_raised_where_its_tensor_is_taken_and_the_rest_is_not_begun(monkeypatch):
    monkeypatch.setattr(reading, "THREADS", 1)
    source = Source({f"t{i}": i for i in range(50)}, bad=("t3",), slow=("t4",))
    threads = threading.active_count()
    with pytest.raises(OSError, match="t3"), ReadAhead(source, source.sizes) as ahead:
        threading.Timer(0.5, source.gate.set).start()
        assert ahead.take("t2").item() == 2
        ahead.take("t3")
    assert source.begun == ["t0", "t1", "t2", "t3", "t4"] and threading.active_count() <= threads + 1


@pytest.fixture
def pytorch(tmp_path):
    path, generator = tmp_path / "x.bin", torch.Generator().manual_seed(0)
    base = torch.randn(40, 8, generator=generator)
    tensors = {"a": base, "rows": base[3:7], "turned": base.T, "half": base.bfloat16(), "none": torch.empty(0, 3)}
    torch.save({"model": tensors, "step": 7}, path)
    return path, tensors


def test_a_pytorch_file_is_read_from_where_its_tensors_lie(pytorch):
    path, tensors = pytorch
    file = PyTorchFile(path)
    assert file.starts.keys() == {"a", "rows", "half", "none"}
    for name, tensor in tensors.items():
        read = file.read(name)
        assert torch.equal(read, tensor) and read.is_contiguous() and read.dtype == tensor.dtype
        assert not read.numel() or read.untyped_storage().nbytes() == read.nbytes
    raw = path.read_bytes()
    for name in ("a", "rows", "half"):
        bits = tensors[name].contiguous().view(torch.uint8).numpy().tobytes()
        assert raw[file.starts[name] : file.starts[name] + len(bits)] == bits


def test_a_pytorch_file_of_another_byte_order_is_not_read_from_its_places(pytorch, tmp_path):
    """torch turns the bytes round in memory; in the file they stay as they were written."""
    path, tensors = pytorch
    turned = tmp_path / "turned.bin"
    other = {"little": "big", "big": "little"}[sys.byteorder]
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(turned, "w") as target:
        for record in source.infolist():
            data = source.read(record)
            if record.filename.endswith("byteorder"):
                data = other.encode()
            target.writestr(record.filename, data, zipfile.ZIP_STORED)
    assert PyTorchFile(turned).starts == {}
    expected = torch.from_numpy(tensors["a"].numpy().copy().byteswap())
    assert torch.equal(PyTorchFile(turned).read("a").view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("format", ["bin", "bin, legacy", "bin, sharded"])
def test_a_torch_that_does_not_tell_the_places_gives_the_same_model(format, tmp_path, monkeypatch):
    reference = theirs(EXAMPLES["qwen3"])
    source, config = FORMATS[format](reference, tmp_path)
    known = load_model(source, config=config)
    monkeypatch.setattr(PyTorchFile, "starts", {})
    unknown = load_model(source, config=config)
    assert all(torch.equal(one, other) for one, other in zip(known.parameters(), unknown.parameters(), strict=True))
