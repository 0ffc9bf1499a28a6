"""A damaged TensorFlow checkpoint is refused, whatever the damage, and with no other kind of error."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import CheckpointError, load_model, open_checkpoint
from course_helpers.loaders import tf_index
from course_helpers.loaders.sstable import FOOTER_BYTES, TRAILER_BYTES, Cursor, read_place
from course_helpers.loaders.strategies import STRATEGIES
from course_helpers.loaders.tf_index import read_index
from course_helpers.loaders.tf_writer import field, header, table, varint, write_bundle
from tests.loaders.refusals import check_answers, refusal, refusal_in_hand
from tests.loaders.tensorflow_files import (
    DATA,
    FIXTURE,
    INDEX,
    block_of,
    copy_of,
    expected,
    fuzz_data,
    fuzz_index,
    table_of,
)
from tests.tiny_models import ours

TYPES = FIXTURE / "types"


def refused(folder: Path) -> CheckpointError:
    """Refused with the same error by loading and by replacing the weights of a model in hand, which is untouched."""
    error = refusal(folder)
    assert str(refusal_in_hand(ours(load_model(FIXTURE / "gpt2").config.to_hf(), seed=5), folder)) == str(error)
    return error


def index_error(data: bytes) -> CheckpointError:
    with pytest.raises(CheckpointError, match="index of the TensorFlow checkpoint cannot be used") as caught:
        read_index(data)
    check_answers(caught.value)
    return caught.value


def test_every_bit_of_an_index_counts():
    """All 4000 of them, one at a time."""
    raw = (TYPES / INDEX).read_bytes()
    for bit in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError):
            read_index(bytes(damaged))


def test_every_byte_of_the_data_counts(tmp_path):
    """A bit of each: the tensor that it belongs to is refused, and all others are as they were."""
    folder = copy_of("types", tmp_path)
    raw = (folder / DATA).read_bytes()
    with open_checkpoint(folder) as checkpoint:
        places = {name: entry for name, entry in checkpoint.file_of["int64"].tensors.items() if entry.end > entry.start}
        for at in range(len(raw)):
            damaged = bytearray(raw)
            damaged[at] ^= 1 << at % 8
            (folder / DATA).write_bytes(damaged)
            name = next(name for name, entry in places.items() if entry.start <= at < entry.end)
            with pytest.raises(CheckpointError, match="not those that were saved") as caught:
                checkpoint.read(name)
            assert caught.value.tensor == name
        others = [other for other in places if other != name]
        assert all(torch.equal(checkpoint.read(other), expected()[other]) for other in others)


@settings(max_examples=5)
@given(bit=st.integers(0, 8 * 30_864 - 1))
def test_a_bit_anywhere_in_the_weights_is_refused_by_every_strategy(bit, tmp_path_factory):
    folder = copy_of("gpt2", tmp_path_factory.mktemp("flipped"))
    damaged = bytearray((folder / DATA).read_bytes())
    damaged[bit // 8] ^= 1 << bit % 8
    (folder / DATA).write_bytes(damaged)
    error = refused(folder)
    assert error.file == folder / DATA and error.tensor.startswith("model/") and "CRC32C" in error.expected
    for strategy in STRATEGIES:
        with pytest.raises(CheckpointError, match="not those that were saved"):
            load_model(folder, strategy=strategy)


def test_no_cut_of_an_index_is_accepted():
    raw = (FIXTURE / "gpt2" / INDEX).read_bytes()
    for keep in range(len(raw)):
        index_error(raw[:keep])


@pytest.mark.parametrize("keep", [0, 1, 9000, -1])
def test_data_that_ends_early_is_refused_before_anything_is_read(keep, tmp_path):
    folder = copy_of("gpt2", tmp_path)
    raw = (folder / DATA).read_bytes()
    (folder / DATA).write_bytes(raw[:keep])
    error = refused(folder)
    assert error.file == folder / DATA and error.expected == f"{len(raw)} bytes, says the index"


def test_data_that_goes_on_is_refused(tmp_path):
    folder = copy_of("gpt2", tmp_path)
    with (folder / DATA).open("ab") as file:
        file.write(b"\0")
    assert "wrong size" in refused(folder).what


def in_shards(tmp_path: Path) -> tuple[Path, Path, Path]:
    folder = copy_of("sharded", tmp_path)
    shutil.copy(FIXTURE / "gpt2/hparams.json", folder)
    assert load_model(folder).num_parameters()
    return folder, *sorted(folder.glob("*.data-*"))


def test_swapped_shards_are_refused(tmp_path):
    folder, first, second = in_shards(tmp_path)
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert refused(folder).file == first
    # Of equal length, they are told apart by their CRCs.
    folder = copy_of("gpt2", tmp_path)
    other = {name: tensor + 1 for name, tensor in expected().items() if name in open_checkpoint(folder).names()}
    write_bundle(tmp_path / "model.ckpt", other)
    shutil.copy(tmp_path / DATA, folder)
    assert "not those that were saved" in refused(folder).what


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_shard_is_refused_by_name(number, tmp_path):
    folder, *shards = in_shards(tmp_path)
    shards[number].unlink()
    error = refused(folder)
    assert error.file == shards[number] and "missing" in error.what
    shards[number].mkdir()
    assert "missing" in refused(folder).what


def test_an_index_under_another_name_than_its_data_is_refused(tmp_path):
    folder = copy_of("gpt2", tmp_path)
    (folder / "checkpoint").unlink()
    (folder / INDEX).rename(folder / "best.index")
    assert refused(folder).file == folder / "best.data-00000-of-00001"


@pytest.mark.parametrize("shrink", ["read", "map"])
def test_a_file_that_shrinks_after_it_was_opened_is_noticed(shrink, tmp_path):
    folder = copy_of("types", tmp_path)
    with open_checkpoint(folder) as checkpoint:
        (folder / DATA).write_bytes((folder / DATA).read_bytes()[:-8])
        name = max(checkpoint.names(), key=lambda name: checkpoint.file_of[name].tensors[name].end)
        with pytest.raises(CheckpointError, match="wrong size") as caught:
            getattr(checkpoint, shrink)(name)
    assert caught.value.tensor == name


def test_what_is_no_list_of_weights_is_refused_by_the_tensors_name():
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(FIXTURE / "objects")
    assert caught.value.tensor == "_CHECKPOINTABLE_OBJECT_GRAPH" and "text" in caught.value.found
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(FIXTURE / "partitioned")
    assert "slices" in caught.value.found


def test_an_index_that_would_exhaust_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tf_index, "MAX_INDEX_BYTES", 100)
    with pytest.raises(CheckpointError, match="at most 100 bytes"):
        open_checkpoint(copy_of("types", tmp_path))


def entry(dtype=1, shape=(2,), shard=0, start=0, size=8, crc=0, extra=b"") -> bytes:
    """A tensor's row of an index, right unless something else is asked for."""
    dimensions = b"".join(field(2, field(1, length % 2**64), default=None) for length in shape)
    numbers = field(3, shard % 2**64) + field(4, start % 2**64) + field(5, size % 2**64)
    return field(1, dtype) + field(2, dimensions, default=None) + numbers + b"\x35" + crc.to_bytes(4, "little") + extra


def index_of(rows: dict[bytes, bytes]) -> bytes:
    return table_of(block_of({b"": header()} | rows))


def test_a_sound_index_made_by_hand_is_read():
    shards, entries = read_index(index_of({b"a": entry(), b"b": entry(start=8), b"c": entry(10, (0, 2**40), size=0)}))
    assert shards == 1 and list(entries) == ["a", "b", "c"] and entries["c"].shape == (0, 2**40)


HEADERS = {
    "no shards": field(3, field(1, 1)),
    "minus one shard": field(1, 2**64 - 1),
    "a hundred thousand shards": field(1, 100_000),
    "big-endian": header() + field(2, 1),
    "a later version": field(1, 1) + field(3, field(1, 3) + field(2, 2)),
    "a version that excludes ours": field(1, 1) + field(3, field(3, 1)),
    "an unknown field": header() + field(4, 1),
    "text in a number's place": field(1, b"1"),
    "a number twice": field(1, 1) + header(),
    "an endless number": b"\x08" + b"\xff" * 11,
    "a number that is longer than need be": b"\x08\x81\x00",
    "a number beyond 64 bits": b"\x08" + b"\xff" * 9 + b"\x7f",
    "a group": b"\x0b\x0c",
    "field 0": b"\x00\x01",
    "a length beyond the end": b"\x1a\x7f",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_cannot_be_right_is_refused(kind):
    index_error(table_of(block_of({b"": HEADERS[kind], b"w": entry()})))


def test_a_table_without_a_header_is_refused():
    index_error(table_of(block_of({b"w": entry()})))
    index_error(table_of(block_of({})))


ENTRIES = {
    "unknown dtype": entry(dtype=99),
    "text": entry(dtype=7),
    "no dtype": entry(dtype=0),
    "dtype of another size": entry(dtype=2),
    "wrong shape": entry(shape=(3,)),
    "negative shape": entry(shape=(-2,)),
    "two negative numbers": entry(shape=(-1, -2)),
    "giant shape": entry(shape=(2**62, 2**62)),
    "giant shape of nothing": entry(shape=(0, 2**62, 2**62), size=0),
    "65 dimensions": entry(shape=(1,) * 65, size=4),
    "unknown rank": entry(extra=b"")[:2] + field(2, field(3, 1)) + entry()[2:],
    "slices": entry(extra=field(7, b"", default=None)),
    "another shard": entry(shard=1),
    "a shard below zero": entry(shard=-1),
    "a place below zero": entry(start=-8),
    "a gap": entry(start=8),
    "too long": entry(size=12),
    "a size below zero": entry(size=-8),
    "an unknown field": entry(extra=field(8, 1)),
    "a number twice": entry(extra=field(5, 8)),
    "a crc twice": entry(extra=b"\x35\0\0\0\0"),
    "a crc of 64 bits": entry()[:-5] + b"\x31" + bytes(8),
    "cut short": entry()[:-1],
    "a dimension that is no message": field(1, 1) + field(2, field(2, b"\xff")) + entry()[2:],
    "nothing": b"",
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_that_cannot_be_right_is_refused(kind):
    error = index_error(index_of({b"w": ENTRIES[kind]}))
    assert error.tensor == "w" or kind == "a gap"


def test_tensors_that_overlap_are_refused():
    for start in (0, 4, 7):
        assert "from byte 8" in index_error(index_of({b"a": entry(), b"b": entry(start=start)})).expected


@pytest.mark.parametrize("name", [b"\xff", b"\xc3", b"a\xed\xa0\x80", b"\0a"])
def test_a_name_that_is_no_text_is_refused(name):
    index_error(index_of({name: entry()}))


GOOD = block_of({b"": header(), b"w": entry()})
ENTRIES_END = len(GOOD) - 8


def with_restarts(*restarts: int, count: int | None = None) -> bytes:
    numbers = (*restarts, len(restarts) if count is None else count)
    return GOOD[:ENTRIES_END] + b"".join(number.to_bytes(4, "little") for number in numbers)


TABLES = {
    "compressed": table_of(GOOD, kind=1),
    "of another kind": table_of(GOOD, kind=2),
    "a key twice": table_of(block_of([(b"", header()), (b"w", entry()), (b"w", entry())])),
    "keys out of order": table_of(block_of([(b"w", entry()), (b"", header())])),
    "a key beyond the row of the index": table_of(GOOD, bound=b"v"),
    "no block at all": table({}, 1),
    "an empty block": table_of(b""),
    "a block of 4 bytes": table_of(bytes(4)),
    "no restart points": table_of(with_restarts(count=0)),
    "more restart points than there is room for": table_of(with_restarts(0, count=10**6)),
    "a restart point in the middle of a key": table_of(with_restarts(0, 1)),
    "restart points out of order": table_of(with_restarts(0, 0)),
    "a first restart point that is not the first key": table_of(with_restarts(3)),
    "a key that shares more than there is": table_of(b"\x05" + GOOD[1:]),
    "an endless number": table_of(b"\xff" * 11 + GOOD),
    "a value beyond the end of the block": table_of(b"\x00\x01\xff\xff\x7fw" + GOOD[-8:]),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_that_cannot_be_right_is_refused(kind):
    assert read_index(table_of(GOOD))[0] == 1
    index_error(TABLES[kind])


@pytest.mark.parametrize("place", [(0, 10**6), (10**18, 1), (2**64 - 1, 2**64 - 1), (0, 0), (1, 5)])
@pytest.mark.parametrize("which", ["metaindex", "index"])
def test_a_footer_that_points_elsewhere_is_refused(which, place):
    raw = (TYPES / INDEX).read_bytes()
    places = [place, place] if which == "index" else [place, (len(raw), 0)]
    footer = b"".join(varint(number) for pair in places for number in pair)[:40].ljust(40, b"\0")
    index_error(raw[:-48] + footer + raw[-8:])


def test_bytes_that_belong_to_no_block_are_refused():
    raw = (TYPES / INDEX).read_bytes()
    assert "blocks of" in index_error(raw[:-48] + b"\0" * 7 + raw[-48:]).expected


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
def test_no_bytes_whatever_make_another_kind_of_error(data):
    fuzz_index(data)


@settings(max_examples=100)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    keep=st.none() | st.integers(0, 1000),
)
def test_no_damage_behind_a_right_crc_does_anything_but_load_or_be_refused(edits, keep):
    """The content of TensorFlow's own block, edited, and sealed again: the CRC cannot help."""
    raw = (FIXTURE / "gpt2" / INDEX).read_bytes()
    metaindex, _ = read_place(Cursor(raw[-FOOTER_BYTES:]))  # it follows the only data block
    content = bytearray(raw[: metaindex - TRAILER_BYTES])
    assert table_of(bytes(content))[:metaindex] == raw[:metaindex]
    for place, value in edits:
        content[place % len(content)] = value
    fuzz_index(bytes(content[:keep]))


@settings(max_examples=60)
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3), keep=st.integers(0, 9))
def test_no_data_does_anything_but_be_equal_or_be_refused(edits, keep):
    data = bytearray((TYPES / DATA).read_bytes())
    for place, value in edits:
        data[place % len(data)] = value
    fuzz_data(bytes(data[: len(data) - max(0, keep - 7)]))
