"""A damaged .safetensors file is refused, whatever the damage, and with no other kind of error."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from course_helpers import CheckpointError, load_model, open_checkpoint
from course_helpers.loaders.strategies import STRATEGIES
from tests.loaders.refusals import refusal, refusal_in_hand
from tests.tiny_models import EXAMPLES, ours, theirs, write_config

CONFIG = EXAMPLES["gpt2"]
Header = dict[str, dict]


def whole(tmp_path: Path) -> bytes:
    """The bytes of a sound file, whose config stands beside it."""
    write_config(tmp_path, CONFIG)
    save_file(
        {n: t.contiguous() for n, t in theirs(CONFIG).transformer.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    return (tmp_path / "model.safetensors").read_bytes()


def split(raw: bytes) -> tuple[Header, bytes]:
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def refused(tmp_path: Path, raw: bytes) -> CheckpointError:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    error = refusal(tmp_path)
    assert error.file == path and str(refusal_in_hand(ours(CONFIG, seed=5), tmp_path)) == str(error)
    return error


def test_the_sound_file_loads(tmp_path):
    header, data = split(whole(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(joined(header, data))
    assert load_model(tmp_path).num_parameters() == len(data) // 4


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 200, -4000, -5, -1])
def test_a_file_that_ends_early_is_refused(keep, tmp_path):
    """In the length, in the header, in the data."""
    raw = whole(tmp_path)
    assert "ends before its data does" in refused(tmp_path, raw[:keep]).what


def test_no_cut_whatever_is_accepted(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(5.0), "b": torch.ones(3)}, path)
    raw = path.read_bytes()
    for keep in range(len(raw)):
        path.write_bytes(raw[:keep])
        with pytest.raises(CheckpointError, match="ends before its data does"):
            open_checkpoint(path)


@pytest.mark.parametrize("length", [100_000_001, 2**40, 2**63, 2**64 - 1])
def test_a_giant_header_length_is_refused_before_it_is_believed(length, tmp_path):
    assert "ends before" in refused(tmp_path, length.to_bytes(8, "little") + whole(tmp_path)[8:]).what


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not json",
        b"[]",
        b"[1, 2]",
        b"17",
        b"null",
        b'"text"',
        b"\xff\xfe{}",
        b"{",
        b'{"a": 1}',
        b'{"a": null}',
        b'{"a": []}',
        b'{"a": "text"}',
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_header_that_is_no_table_of_tensors_is_refused(text, tmp_path):
    assert "header contradicts itself" in refused(tmp_path, joined(text, split(whole(tmp_path))[1])).what


def change(**fields: object) -> Callable[[Header, str], None]:
    return lambda header, name: header[name].update(fields)


def shift(start: int, end: int) -> Callable[[Header, str], None]:
    def apply(header: Header, name: str) -> None:
        old = header[name]["data_offsets"]
        header[name]["data_offsets"] = [old[0] + start, old[1] + end]

    return apply


CONTRADICTIONS = {
    "unknown dtype": change(dtype="F12"),
    "dtype of another size": change(dtype="F16"),
    "dtype that is no text": change(dtype=["F32"]),
    "no dtype": lambda header, name: header[name].pop("dtype"),
    "no shape": lambda header, name: header[name].pop("shape"),
    "no offsets": lambda header, name: header[name].pop("data_offsets"),
    "wrong shape": change(shape=[3]),
    "negative shape": change(shape=[-16]),
    "two negative numbers": change(shape=[-4, -4]),
    "fractional shape": change(shape=[16.0]),
    "shape that is no list": change(shape=16),
    "true in a shape": change(shape=[True, 16]),
    "giant shape": change(shape=[2**62, 2**62]),
    "one offset": change(data_offsets=[0]),
    "three offsets": change(data_offsets=[0, 64, 128]),
    "offsets that are text": change(data_offsets=["0", "64"]),
    "negative offset": change(data_offsets=[-64, 0]),
    "offsets the wrong way round": change(data_offsets=[64, 0]),
    "overlap": shift(-4, -4),
    "gap": shift(4, 4),
    "too long": shift(0, 4),
    "beyond the end": shift(10**9, 10**9),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_a_header_that_contradicts_itself_is_refused_by_the_tensors_name(contradiction, tmp_path):
    header, data = split(whole(tmp_path))
    first = min((name for name in header if header[name]["shape"] == [16]), key=lambda n: header[n]["data_offsets"])
    CONTRADICTIONS[contradiction](header, first)
    error = refused(tmp_path, joined(header, data))
    assert "header contradicts itself" in error.what and error.tensor in header


def test_a_name_that_stands_twice_is_refused(tmp_path):
    header, data = split(whole(tmp_path))
    text = json.dumps(header)
    entry = f'"ln_f.bias": {json.dumps(header["ln_f.bias"])}'
    error = refused(tmp_path, joined(text.replace(entry, f"{entry}, {entry}").encode(), data))
    assert error.tensor == "ln_f.bias" and error.expected == "every name once"


@pytest.mark.parametrize("extra", [b"\0", b"junk" * 100])
def test_bytes_after_the_last_tensor_are_refused(extra, tmp_path):
    assert "something follows" in refused(tmp_path, whole(tmp_path) + extra).found


def test_bytes_before_the_first_tensor_are_refused(tmp_path):
    header, data = split(whole(tmp_path))
    assert "header contradicts" in refused(tmp_path, joined(header, b"\0" * 4 + data)).what


@pytest.mark.parametrize("metadata", [None, [], "pt", {"format": 1}, {"format": None}, {"format": {}}])
def test_metadata_that_is_not_text_is_refused(metadata, tmp_path):
    header, data = split(whole(tmp_path))
    assert "__metadata__" in refused(tmp_path, joined({"__metadata__": metadata} | header, data)).expected


def test_metadata_is_not_a_tensor(tmp_path):
    header, data = split(whole(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(joined(header | {"__metadata__": {"format": "pt"}}, data))
    for strategy in STRATEGIES:
        load_model(tmp_path, strategy=strategy)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(tmp_path):
    raw = whole(tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        (tmp_path / "model.safetensors").write_bytes(raw[:-8])
        for name in checkpoint.names():
            with pytest.raises(CheckpointError, match="changed while it was read") as caught:
                checkpoint.read(name)
            assert caught.value.tensor == name


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    return folder, whole(folder)


edits = st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 255)), min_size=1, max_size=4)


@settings(max_examples=600)
@given(edits=edits, keep=st.none() | st.integers(0, 4000), strategy=st.sampled_from(["mmap", "stream"]))
def test_no_damage_to_the_header_does_anything_but_load_or_be_refused(sound, edits, keep, strategy):
    folder, raw = sound
    damaged = bytearray(raw)
    for place, value in edits:
        damaged[place] = value
    (folder / "model.safetensors").write_bytes(damaged[:keep])
    try:
        model = load_model(folder, strategy=strategy)
    except CheckpointError as error:
        assert str(error) and error.next_step
    else:
        assert not any(parameter.is_meta for parameter in model.parameters())


#: Tokens of a header, so that the fuzzer gets past the JSON parser.
header_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.sampled_from(["F32", "BOOL", "F4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape"]), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=400)
@given(data=st.data(), strategy=st.sampled_from(["mmap", "stream"]))
def test_no_value_in_the_header_does_anything_but_load_or_be_refused(sound, data, strategy):
    folder, raw = sound
    header, tensors = split(raw)
    name = data.draw(st.sampled_from([*sorted(header)[:3], "__metadata__", "new"]))
    if data.draw(st.booleans()) or name not in header:
        header[name] = data.draw(header_values)
    else:
        header[name][data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "new"]))] = data.draw(header_values)
    (folder / "model.safetensors").write_bytes(joined(header, tensors))
    try:
        load_model(folder, strategy=strategy)
    except CheckpointError as error:
        assert str(error) and error.next_step


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool]
)
def test_every_type_is_read_as_the_safetensors_library_wrote_it(dtype, tmp_path):
    tensors = {
        "a": torch.randn(3, 5).to(dtype),
        "empty": torch.zeros(0, 4).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        for name, tensor in tensors.items():
            for found in (checkpoint.read(name), checkpoint.map(name)):
                assert found.dtype == dtype and found.shape == tensor.shape and torch.equal(found, tensor)
