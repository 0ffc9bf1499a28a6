"""Writing a TensorFlow checkpoint without TensorFlow: what `tf_checkpoint`, `tf_index` and `sstable` read, backwards.

One data file and no compression. The files are TensorFlow's own to the byte, as long as the index is one block: as that
of any GPT-2 is.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .crc32c import masked_crc32c
from .sstable import FOOTER_BYTES, MAGIC
from .tf_index import DTYPES, VERSION

NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
BLOCK_BYTES = 262_144  # a block ends with the entry that makes it this large, as TensorFlow has it
RESTART = 16  # every so many keys of a data block, one stands in full


def write_bundle(prefix: Path, tensors: Mapping[str, Tensor], block_bytes: int = BLOCK_BYTES) -> Path:
    """Write `prefix`.index and `prefix`.data-00000-of-00001; return the path of the index.

    Both are written under other names first, so an interruption leaves older files as they were; between the two
    renamings, the older index stands beside newer data, which every reader refuses. Raises ValueError for a tensor of a
    type that the format has no number for.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NUMBERS or not name:
            raise ValueError(f"{name!r}: a tensor of {tensor.dtype} cannot be written to a TensorFlow checkpoint")
    ordered = dict(sorted(tensors.items(), key=lambda item: item[0].encode()))
    with tempfile.TemporaryDirectory(prefix=f".{prefix.name}.", dir=prefix.parent) as draft:
        data, index = Path(draft, "data"), Path(draft, "index")
        rows = {b"": header()}
        with open(data, "wb") as file:
            for name, tensor in ordered.items():
                start, content = file.tell(), tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
                file.write(content.data)
                rows[name.encode()] = entry(tensor, start, masked_crc32c(content))
        index.write_bytes(table(rows, block_bytes))
        os.replace(data, prefix.with_name(f"{prefix.name}.data-00000-of-00001"))
        os.replace(index, prefix.with_name(f"{prefix.name}.index"))
    return prefix.with_name(f"{prefix.name}.index")


def header() -> bytes:
    """One shard, little-endian (the default, so it is left out), and the version."""
    return field(1, 1) + field(3, field(1, VERSION))


def entry(tensor: Tensor, start: int, crc: int) -> bytes:
    dimensions = b"".join(field(2, field(1, size), default=None) for size in tensor.shape)
    place = field(1, NUMBERS[tensor.dtype]) + field(2, dimensions, default=None) + field(4, start)
    return place + field(5, tensor.nbytes) + varint(6 << 3 | 5) + crc.to_bytes(4, "little")


def field(number: int, value: int | bytes, default: int | None = 0) -> bytes:
    """One field of a Protocol Buffers message; nothing for a number that is the default."""
    if value == default:
        return b""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """7 bits a byte, the lowest first; the highest bit says that there is more."""
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])


def table(rows: Mapping[bytes, bytes], block_bytes: int) -> bytes:
    """A table of sorted keys: data blocks, an empty metaindex block, the index block, the footer."""
    content, bounds = bytearray(), []
    for block in blocks(rows.items(), block_bytes):
        bounds.append((block[-1][0], append(content, block, RESTART)))
    bounds[-1:] = [(successor(bound), place) for bound, place in bounds[-1:]]
    metaindex = append(content, [], RESTART)
    footer = metaindex + append(content, bounds, 1)
    return bytes(content + footer.ljust(FOOTER_BYTES - 8, b"\0") + MAGIC.to_bytes(8, "little"))


def successor(key: bytes) -> bytes:
    """A short key that no key of the last block is above."""
    for at, byte in enumerate(key):
        if byte < 0xFF:
            return key[:at] + bytes([byte + 1])
    return key


def blocks(rows: Iterable[tuple[bytes, bytes]], block_bytes: int) -> Iterator[list[tuple[bytes, bytes]]]:
    block: list[tuple[bytes, bytes]] = []
    size = 0
    for row in rows:
        block.append(row)
        size += len(row[0]) + len(row[1])
        if size >= block_bytes:
            yield block
            block, size = [], 0
    if block:
        yield block


def append(content: bytearray, rows: list[tuple[bytes, bytes]], restart: int) -> bytes:
    """Add a block and its trailer; return its place, as the index and the footer have it."""
    block, restarts, before = bytearray(), [0], b""
    for count, (key, value) in enumerate(rows):
        alike = next((at for at, pair in enumerate(zip(key, before, strict=False)) if pair[0] != pair[1]), len(before))
        shared = alike if count % restart else 0
        if count and not count % restart:
            restarts.append(len(block))
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    for number in (*restarts, len(restarts)):
        block += number.to_bytes(4, "little")
    place = varint(len(content)) + varint(len(block))
    block.append(0)  # not compressed
    content += block + masked_crc32c(block).to_bytes(4, "little")
    return place
