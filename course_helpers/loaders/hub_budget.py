"""What a download will cost, said before it begins; and the refusal of one that could not end well.

Counted are the bytes of the files themselves. Refused is a download

- above the limit: 20 GB, or as many as the environment variable COURSE_DOWNLOAD_LIMIT_GB says;
- that does not fit on the disk of the cache;
- of a model that no strategy could hold: larger than all memory and swap together (on a GPU: than its memory), and
  asked for in another dtype than its files have. In its own dtype, strategy="mmap" leaves the weights in the files and
  reads them again whenever they are needed: slow, but it works, and so there is only a warning.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ..errors import CheckpointError

LIMIT, DEFAULT_LIMIT_GB = "COURSE_DOWNLOAD_LIMIT_GB", 20.0


@dataclass(frozen=True)
class Cost:
    """A download before it begins. Sizes in bytes."""

    name: str  # hub id and commit, for the reader
    to_fetch: int
    files: int  # how many of them
    cached: int  # what is in the local cache already, and is not fetched again
    licence: str
    gated: bool
    folder: Path  # where it will lie
    memory: int | None  # of the weights, as the dtype that was asked for; None: no weights are fetched
    converted: bool  # whether that is another dtype than that of the files
    device: torch.device

    def check(self) -> None:
        """Say what the download costs, on standard error. Raises CheckpointError if it is refused."""
        limit, disk = download_limit(), free_disk(self.folder)
        available, total = memory_of(self.device)
        print(self.paragraph(disk, available), file=sys.stderr)
        if self.to_fetch > limit:
            raise self.refused(
                "the download is larger than the limit",
                expected=f"at most {readable(limit)}",
                found=f"{readable(self.to_fetch)} to fetch",
                cause=f"a large model; the limit is there so that none is fetched by accident ({LIMIT})",
                next_step=f"set {LIMIT}={-(-self.to_fetch // 10**9)} to fetch it all the same, or take a smaller size: "
                "`python -m course_helpers families` lists them",
            )
        if self.to_fetch > disk:
            raise self.refused(
                "the download does not fit on the disk",
                expected=f"{readable(self.to_fetch)} to fetch",
                found=f"{readable(disk)} free at {self.folder}",
                cause="other models in the cache, or a small disk",
                next_step="make room (`hf cache ls` lists what is there), or let HF_HOME name a folder on another disk",
            )
        if self.memory is not None and self.memory > total and (self.converted or self.device.type == "cuda"):
            raise self.refused(
                "the model cannot be held in memory",
                expected=f"{readable(self.memory)} for the weights as they were asked for",
                found=f"{readable(total)} in all, on {self.device}",
                cause="a model for a larger machine; a converted copy cannot be left in the files",
                next_step='take a smaller size or a smaller dtype; on the CPU, dtype=None with strategy="mmap" works',
            )

    def paragraph(self, disk: int, available: int) -> str:
        """All of it in a few sentences."""
        terms = "gated: its terms must be accepted" if self.gated else "not gated"
        text = (
            f"{self.name}: {readable(self.to_fetch)} to fetch in {self.files} file{'s' * (self.files != 1)}, "
            f"{readable(self.cached)} in the cache already. Licence: {self.licence}; {terms}. "
            f"Disk: {readable(disk)} free."
        )
        if self.memory is None:
            return text
        text += f" Memory: {readable(self.memory)} for the weights, {readable(available)} available on {self.device}."
        if self.memory > available:
            text += ' Warning: that is more than there is now; a smaller dtype, or strategy="mmap", takes less.'
        return text

    def refused(self, what: str, **answers: str) -> CheckpointError:
        return CheckpointError(what, file=self.name, **answers)


def download_limit() -> float:
    """Bytes that one download may have. Raises CheckpointError if the environment has no number for it."""
    text = os.environ.get(LIMIT, str(DEFAULT_LIMIT_GB))
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise CheckpointError(
            "the limit for downloads is not a number",
            file="the environment",
            field=LIMIT,
            expected="gigabytes (10**9 bytes), 0 or more",
            found=repr(text),
            cause="a typing mistake",
            next_step=f"set it to a number, or unset it: {DEFAULT_LIMIT_GB:g} is the default",
        )
    return limit


def free_disk(folder: Path) -> int:
    """Free bytes where the folder is, or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def memory_of(device: torch.device) -> tuple[int, int]:
    """Bytes available now, and bytes in all. Of a GPU its own; of anything else the machine's, swap counted in all."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    memory = psutil.virtual_memory()
    return memory.available, memory.total + psutil.swap_memory().total


def readable(size: float) -> str:
    """A size in the units in which the hub shows it: powers of ten."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= divisor:
            return f"{size / divisor:.1f} {unit}"
    return f"{size:.0f} bytes"
