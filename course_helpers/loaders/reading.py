"""From a file into memory: reads that notice when the file is changed meanwhile, and several of them at once."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self

from torch import Tensor

from ..errors import CheckpointError
from .disk import ordinary_size

#: Reading is copying from the system's cache, or waiting for a disk; more threads than this gain nothing on either.
THREADS = min(4, os.cpu_count() or 1)
#: A tensor of so many bytes is begun first: the threads would else wait for it at the end. Bytes.
LARGE = 2**26


class SteadyFile:
    """A file as it was when it was opened. Several reads make one checkpoint, so all must be of the same file: one that
    is exchanged or written to in between would give a mixture that no later check can see. Raises CheckpointError for
    what is no ordinary file."""

    def __init__(self, path: Path):
        ordinary_size(path)
        self.path = path
        self.stamp = stamp(path.stat())

    def read_into(self, buffer: Tensor, start: int, name: str) -> None:
        """Fill a uint8 tensor with the bytes from `start` on, without a copy on the way. Raises CheckpointError if the
        file is no longer what it was; `name` is the tensor's, for the message."""
        self.read_pieces([(buffer, start)], name)

    def read_pieces(self, pieces: Iterable[tuple[Tensor, int]], name: str) -> None:
        """The same for several tensors, each with the place where its bytes begin."""
        with open(self.path, "rb", buffering=0) as file:
            for buffer, start in pieces:
                view, filled = memoryview(buffer.numpy()), 0
                file.seek(start)
                while filled < len(view):  # one call may read less than asked for: Linux stops at 2 GiB
                    count = file.readinto(view[filled:])
                    if not count:
                        raise self.changed(name)
                    filled += count
        self.check(name)

    def check(self, name: str | None = None) -> None:
        """To be called after each read. Raises CheckpointError if the file is not the one that was met first, or was
        written to since."""
        try:
            found = stamp(self.path.stat())
        except OSError:
            found = None
        if found != self.stamp:
            raise self.changed(name)

    def changed(self, name: str | None) -> CheckpointError:
        return CheckpointError(
            "the file was changed while it was read",
            file=self.path,
            tensor=name,
            expected="the same file, of the same size and age, from the first byte to the last",
            found="another file, or other bytes in it",
            cause="a download, a copy or another program is writing to it",
            next_step="wait until that is done, and load again",
        )


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is exchanged or written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Readable(Protocol):
    """What tensors are read from: a checkpoint."""

    def size(self, name: str) -> int: ...
    def read(self, name: str) -> Tensor: ...


class ReadAhead:
    """Reads whole tensors on a few threads, while the caller takes them one by one, in any order. Use it in a `with`.

    Most of a read from the page cache is not copying: the kernel finds, clears and maps every page of the fresh memory,
    on one core. Python's lock is open meanwhile, so several threads share that work: benchmarks/results/loading.md has
    strategy stream beside one plain read of the file. An error in a thread is raised where its tensor is taken; what
    was not begun then never is.
    """

    def __init__(self, checkpoint: Readable, names: Iterable[str]):
        self.pool = ThreadPoolExecutor(THREADS, "read-ahead")
        large_first = sorted(names, key=lambda name: checkpoint.size(name) < LARGE)
        self.coming = {name: self.pool.submit(checkpoint.read, name) for name in large_first}

    def take(self, name: str) -> Tensor:
        """The tensor, in memory of its own. Each can be taken once."""
        return self.coming.pop(name).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown(cancel_futures=True)
