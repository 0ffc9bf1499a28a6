"""One TensorFlow checkpoint, read without TensorFlow: `NAME.index`, and `NAME.data-00000-of-00001` or more such files.

The data files hold the tensors' bytes, one after the other, and nothing else; `tf_index` reads which is which. Every
tensor has a CRC32C, which is compared whenever it is read or mapped. Source of the format:
tensorflow/core/util/tensor_bundle.
"""

import os
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .crc32c import masked_crc32c
from .tf_index import read_index


class TensorFlowFile:
    """Reads tensors one at a time, by the path of the index. Raises CheckpointError for an index that is damaged, and
    for data files that are missing or of another size."""

    def __init__(self, path: Path):
        self.path = path
        shards, self.tensors = read_index(path)
        self.windows: dict[int, Tensor] = {}
        used: dict[int, int] = {}
        for entry in self.tensors.values():
            used[entry.shard] = max(entry.end, used.get(entry.shard, 0))
        self.shards = {number: path.with_suffix(f".data-{number:05}-of-{shards:05}") for number in sorted(used)}
        self.paths = [path, *self.shards.values()]  # all that the checkpoint is made of
        for number, shard in self.shards.items():
            check_size(shard, used[number])

    def read(self, name: str) -> Tensor:
        """The tensor in private memory: one read, no copy; a later change of the file cannot reach it."""
        entry = self.tensors[name]
        return self.peek(name, torch.empty(entry.end - entry.start, dtype=torch.uint8))

    def peek(self, name: str, scratch: Tensor) -> Tensor:
        """The tensor for a moment, in the caller's memory: read there, and gone when that is used again."""
        entry = self.tensors[name]
        buffer, shard = scratch[: entry.end - entry.start], self.shards[entry.shard]
        with open(shard, "rb", buffering=0) as file:
            file.seek(entry.start)
            view, filled = memoryview(buffer.numpy()), 0
            while filled < len(view):  # one call may read less than asked for: Linux stops at 2 GiB
                count = file.readinto(view[filled:])
                if not count:
                    raise wrong_size(shard, f"at least {entry.end} bytes", os.path.getsize(shard), name)
                filled += count
        return self.checked(name, buffer)

    def map(self, name: str) -> Tensor:
        """The tensor as a window onto the file. The file's bytes are looked at once, for the CRC, but not copied. A
        tensor that does not start at a multiple of its type's size makes no window, and is read."""
        entry = self.tensors[name]
        if entry.start % entry.dtype.itemsize or entry.start == entry.end:
            return self.read(name)
        if entry.shard not in self.windows:
            self.windows[entry.shard] = window(self.shards[entry.shard])
        whole = self.windows[entry.shard]
        if entry.end > len(whole):
            raise wrong_size(self.shards[entry.shard], f"at least {entry.end} bytes", len(whole), name)
        return self.checked(name, whole[entry.start : entry.end])

    def checked(self, name: str, buffer: Tensor) -> Tensor:
        """A tensor's bytes as the tensor that they are. Raises CheckpointError if they are not what was saved."""
        entry = self.tensors[name]
        found = masked_crc32c(buffer.numpy())
        if found != entry.crc:
            raise CheckpointError(
                "a tensor's bytes are not those that were saved",
                file=self.shards[entry.shard],
                tensor=name,
                expected=f"masked CRC32C {entry.crc:#010x}, says the index",
                found=f"{found:#010x}",
                cause="a damaged file, or the data of another checkpoint beside this index",
                next_step="download the checkpoint again into an empty folder",
            )
        return buffer.view(entry.dtype).view(entry.shape)


def window(shard: Path) -> Tensor:
    """All bytes of a data file as one tensor: the file's own pages, of which one is copied when it is written to."""
    storage = torch.UntypedStorage.from_file(str(shard), False, os.path.getsize(shard))
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def check_size(shard: Path, expected: int) -> None:
    """A data file must be there, and as long as the index says. Raises CheckpointError."""
    if not shard.is_file():
        raise CheckpointError(
            "a data file of the TensorFlow checkpoint is missing",
            file=shard,
            expected="every data file that the index speaks of, under the index's own name",
            found="no such file",
            cause="an interrupted download, or files that were renamed",
            next_step="download the checkpoint again into an empty folder",
        )
    if os.path.getsize(shard) != expected:
        raise wrong_size(shard, f"{expected} bytes, says the index", os.path.getsize(shard))


def wrong_size(shard: Path, expected: str, found: int, name: str | None = None) -> CheckpointError:
    return CheckpointError(
        "a data file of the TensorFlow checkpoint has the wrong size",
        file=shard,
        tensor=name,
        expected=expected,
        found=f"{found} bytes",
        cause="an interrupted download, or the data of another checkpoint beside this index",
        next_step="download the checkpoint again into an empty folder",
    )
