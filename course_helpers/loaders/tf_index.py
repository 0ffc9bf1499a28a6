"""The index of a TensorFlow checkpoint: where each tensor lies, of which type, in which shape, and with which CRC.

It is a table (see `sstable`): a header under the empty key, then an entry for each tensor under its name, both as
Protocol Buffers. These are a few fields each, and are read by hand here. Source of the format:
tensorflow/core/protobuf/tensor_bundle.proto.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from .disk import ordinary_size
from .sstable import Cursor, Damage, read_table

#: TensorFlow's numbers for types (types.proto), those that torch has, too.
DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    17: torch.uint16,
    19: torch.float16,
    22: torch.uint32,
    23: torch.uint64,
}
#: The version of the format. A file says which version of the reader it needs at least.
VERSION = 1
#: Indexes are small (that of GPT-2 XL takes 40 kB); a larger one would only exhaust memory.
MAX_INDEX_BYTES = 100_000_000
MAX_DIMENSIONS = 64  # numpy allows no more

#: How a field of a Protocol Buffers message is written, and the messages of the index: number -> form.
VARINT, BYTES, FIXED32 = 0, 2, 5
HEADER = {1: VARINT, 2: VARINT, 3: BYTES}  # number of shards, endianness, version
VERSIONS = {1: VARINT, 2: VARINT, 3: VARINT}  # producer, least consumer, bad consumers
ENTRY = {1: VARINT, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: BYTES}  # as in `Entry`; last: slices
SHAPE = {2: BYTES, 3: VARINT}  # dimensions, whether their number is unknown
DIMENSION = {1: VARINT, 2: BYTES}  # size, name

SLICED = ("tensors in one piece", "a variable that was saved in slices")


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    shard: int
    start: int  # first byte in the shard
    end: int  # one past the last byte
    crc: int  # masked CRC32C of the bytes


def read_index(source: Path | bytes) -> tuple[int, dict[str, Entry]]:
    """How many data files there are, and every tensor's place. Checks all that can be checked without the data: CRCs,
    lengths, types, shapes, gaps, overlaps. Raises CheckpointError, and nothing else, whatever the bytes."""
    name, on_disk = None, isinstance(source, Path)
    try:
        if on_disk and (size := ordinary_size(source)) > MAX_INDEX_BYTES:
            raise Damage(f"at most {MAX_INDEX_BYTES} bytes", size)
        table = read_table(source.read_bytes() if on_disk else source)
        shards = read_header(table.pop(b"", b""))
        entries = {}
        for key, value in table.items():
            name = key.decode(errors="backslashreplace")
            if key.startswith(b"\0"):  # such names are no text
                name = None
                raise Damage(*SLICED)
            if name.encode() != key:
                raise Damage("a name in UTF-8", repr(key)[:200])
            entries[name] = read_entry(value, shards)
        name = None
        check_places(entries)
    except Damage as damage:
        raise CheckpointError(
            "the index of the TensorFlow checkpoint cannot be used",
            file=source if on_disk else "what was passed in memory",
            tensor=name,
            expected=damage.expected,
            found=damage.found,
            cause="an interrupted download, a damaged file, or a checkpoint that is not one model's weights",
            next_step="download the checkpoint again; if it comes back the same, do not use it",
        ) from damage
    return shards, entries


def read_header(data: bytes) -> int:
    """How many data files there are. Raises Damage for a format that this reader does not know."""
    header = fields(data, HEADER)
    shards, endianness = signed(header, 1), signed(header, 2)
    if not 0 < shards <= 99_999:
        raise Damage("from 1 to 99999 data files", shards)
    if endianness:
        raise Damage("little-endian numbers", "big-endian numbers, as some mainframes write them")
    version = fields(single(header, 3, b""), VERSIONS)
    if signed(version, 2) > VERSION or VERSION in version.get(3, []):
        raise Damage(f"a file for readers of version {VERSION}", f"one for version {signed(version, 2)} or later")
    return shards


def read_entry(data: bytes, shards: int) -> Entry:
    """One tensor's place. Raises Damage."""
    entry = fields(data, ENTRY)
    number, shard, start, size = (signed(entry, field) for field in (1, 3, 4, 5))
    if 7 in entry:
        raise Damage(*SLICED)
    if number not in DTYPES:
        raise Damage("a type that torch has, too", f"number {number} of TensorFlow's types (7: text)")
    shape = fields(single(entry, 2, b""), SHAPE)
    sizes = tuple(signed(fields(dimension, DIMENSION), 1) for dimension in shape.get(2, []))
    if signed(shape, 3) or len(sizes) > MAX_DIMENSIONS or any(length < 0 for length in sizes):
        raise Damage(f"a shape of at most {MAX_DIMENSIONS} dimensions", f"{sizes}"[:200])
    if math.prod(filter(None, sizes)) >= 1 << 60:
        raise Damage("a tensor that fits any memory", f"{sizes}"[:200])
    if not 0 <= shard < shards or start < 0:
        raise Damage(f"a place in one of {shards} data files", f"byte {start} of file {shard}")
    if size != math.prod(sizes) * DTYPES[number].itemsize:
        raise Damage(f"{math.prod(sizes) * DTYPES[number].itemsize} bytes for {DTYPES[number]} {sizes}"[:300], size)
    return Entry(DTYPES[number], sizes, shard, start, start + size, single(entry, 6, 0))


def fields(data: bytes, message: dict[int, int]) -> dict[int, list[Any]]:
    """The fields of a Protocol Buffers message: number -> values. Raises Damage for one that the message has not."""
    found: dict[int, list[Any]] = {}
    cursor = Cursor(data)
    while cursor.left:
        number, form = divmod(cursor.varint(), 8)
        if message.get(number) != form:
            raise Damage(f"fields {', '.join(map(str, message))}, each in its form", f"field {number} in form {form}")
        value = cursor.number(4) if form == FIXED32 else cursor.varint()
        found.setdefault(number, []).append(cursor.take(value) if form == BYTES else value)
    return found


def single(found: dict[int, list[Any]], number: int, default: Any) -> Any:
    """The value of a field; fields that have their default are left out of a message. Raises Damage for several."""
    values = found.get(number, [default])
    if len(values) > 1:
        raise Damage(f"field {number} once", f"{len(values)} times")
    return values[0]


def signed(found: dict[int, list[Any]], number: int) -> int:
    """A whole number, which Protocol Buffers write as if it had 64 bits."""
    value = single(found, number, 0)
    return value - (1 << 64) if value >> 63 else value


def check_places(entries: dict[str, Entry]) -> None:
    """The tensors of each data file must fill it from its first byte on, without gaps and overlaps. Raises Damage."""
    ends: dict[int, int] = {}
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].shard, item[1].start, item[1].end)):
        end = ends.get(entry.shard, 0)
        if entry.start != end:
            raise Damage(f"{name} from byte {end} of data file {entry.shard} on"[:300], f"from byte {entry.start} on")
        ends[entry.shard] = entry.end
