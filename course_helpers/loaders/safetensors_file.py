"""One `.safetensors` file: its header read and checked before any tensor is.

The format (https://huggingface.co/docs/safetensors): 8 bytes, the header's length N as a little-endian number; N bytes
of JSON, name -> dtype, shape and the first and last byte of its data; then the data. There is nothing to execute.
"""

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
#: The limit that the safetensors library itself sets, against headers that would exhaust memory.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # first byte, counted from the start of the file
    end: int  # one past the last byte


class SafetensorsFile:
    """Reads tensors one at a time, each straight into memory of its own. Raises CheckpointError for a bad header."""

    def __init__(self, path: Path):
        self.path = path
        self.tensors = read_header(path)

    def read(self, name: str) -> Tensor:
        """The tensor in private memory: one read, no copy; a later change of the file cannot reach it."""
        entry = self.tensors[name]
        return self.peek(name, torch.empty(entry.end - entry.start, dtype=torch.uint8))

    def peek(self, name: str, scratch: Tensor) -> Tensor:
        """The tensor for a moment, in the caller's memory: read there, and gone when that is used again."""
        entry = self.tensors[name]
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=entry.dtype)
        buffer = scratch[: entry.end - entry.start]
        with open(self.path, "rb", buffering=0) as file:
            file.seek(entry.start)
            view, filled = memoryview(buffer.numpy()), 0
            while filled < len(view):  # one call may read less than asked for: Linux stops at 2 GiB
                count = file.readinto(view[filled:])
                if not count:
                    raise truncated(self.path, entry.end, os.path.getsize(self.path), name)
                filled += count
        return buffer.view(entry.dtype).view(entry.shape)

    def map(self, name: str) -> Tensor:
        """The tensor as a window onto the file: nothing is read until it is used."""
        from safetensors import SafetensorError

        try:
            return self.mapping.get_tensor(name)
        except SafetensorError as error:
            raise malformed(self.path, "a file that the safetensors library accepts", str(error), name) from error

    @cached_property
    def mapping(self):
        """The library's own view of the file, opened once: it reads the whole header each time it is."""
        from safetensors import safe_open

        return safe_open(self.path, framework="pt")


def read_header(path: Path) -> dict[str, Entry]:
    """Every tensor's place. Checks lengths, types, duplicates, overlaps and gaps; raises CheckpointError."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > MAX_HEADER_BYTES or 8 + length > size:
            raise truncated(path, 8 + length, size)
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=lambda pairs: unique(pairs, path))
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise malformed(path, "a JSON object", f"{type(error).__name__}: {error}") from error
    if not isinstance(header, dict):
        raise malformed(path, "a JSON object", type(header).__name__)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(not isinstance(value, str) for value in metadata.values()):
        raise malformed(path, "text under every name of __metadata__", repr(metadata))
    entries = {name: entry(name, row, 8 + length, path) for name, row in header.items()}
    end = 8 + length
    for name, place in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if place.start != end:
            raise malformed(path, f"data that starts at byte {end}", f"byte {place.start}", name)
        end = place.end
    if end > size:
        raise truncated(path, end, size)
    if end < size:
        raise malformed(path, f"a file of {end} bytes", f"{size} bytes: something follows the last tensor")
    return entries


def entry(name: str, row: dict, data_start: int, path: Path) -> Entry:
    """One row of the header, checked. Raises CheckpointError."""
    try:
        dtype, shape, (start, end) = DTYPES[row["dtype"]], tuple(row["shape"]), row["data_offsets"]
        if any(type(number) is not int or number < 0 for number in (*shape, start, end)):
            raise ValueError("a negative or fractional number")
    except (KeyError, TypeError, ValueError) as error:
        raise malformed(path, "a known dtype, a shape and two offsets", f"{row} ({error})", name) from error
    if end - start != math.prod(shape) * dtype.itemsize:
        raise malformed(path, f"{math.prod(shape) * dtype.itemsize} bytes for {dtype} {shape}", f"{end - start}", name)
    return Entry(dtype, shape, data_start + start, data_start + end)


def unique(pairs: list[tuple[str, object]], path: Path) -> dict:
    """A JSON object without repeated names: most readers would keep the last one and drop the rest in silence."""
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise malformed(path, "every name once", "the name twice", twice)
    return result


def truncated(path: Path, expected: int, found: int, name: str | None = None) -> CheckpointError:
    return CheckpointError(
        "the file ends before its data does",
        file=path,
        tensor=name,
        expected=f"at least {expected} bytes",
        found=f"{found} bytes",
        cause="an interrupted download or copy, or not a safetensors file at all",
        next_step="delete the file and download it again",
    )


def malformed(path: Path, expected: str, found: str, name: str | None = None) -> CheckpointError:
    return CheckpointError(
        "the safetensors header contradicts itself",
        file=path,
        tensor=name,
        expected=expected,
        found=found,
        cause="a damaged file, or one written by a faulty program",
        next_step="download the file again; if it comes back the same, do not use it",
    )
