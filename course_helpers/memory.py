"""Measuring memory and time. What they will be is known beforehand: `sizes.py` has the formulas.

Two kinds of memory count as resident. Anonymous pages are the process's own, and nobody can take them back. Pages of a
mapped file can be dropped and read again at any time, so they are the cheaper kind.

What a process uses at its worst moment is what decides whether it runs at all, and a look now and then misses that
moment. So the peak is the operating system's own high-water mark where that can be reset (Linux). The two kinds, and
the timeline, are sampled. A fresh process serves where a figure must not depend on what ran before.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from .sampling import Sample, Sampler, look, reset_high_water_mark, status_mb
from .sizes import MIB, activation_bytes, kv_cache_bytes, parameter_count, training_bytes, training_parts, weight_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "MIB",
    "MemoryUse",
    "Sample",
    "activation_bytes",
    "kv_cache_bytes",
    "measure_in_subprocess",
    "parameter_count",
    "track_memory",
    "training_bytes",
    "training_parts",
    "weight_bytes",
]


@dataclass
class MemoryUse:
    """What a block of code used. Filled in when the block ends; all memory figures in MiB (2**20 bytes)."""

    start_rss_mb: float = 0.0  # resident memory of the process before
    peak_rss_mb: float = 0.0  # the most that the process held at once
    end_rss_mb: float = 0.0  # resident memory after
    start_anonymous_mb: float | None = None  # the process's own pages; None where the system does not tell
    peak_anonymous_mb: float | None = None  # sampled, as is the next but one
    start_file_mb: float | None = None  # pages of mapped files and of shared memory
    peak_file_mb: float | None = None
    peak_cuda_mb: float | None = None  # the most that torch's tensors took on the GPU; None without one
    peak_cuda_reserved_mb: float | None = None  # the most that torch took from the GPU for them, gaps included
    seconds: float = 0.0
    source: str = ""  # of the resident peak: "kernel high-water mark" or "sampled"
    timeline: list[Sample] = field(default_factory=list)

    @property
    def added_peak_mb(self) -> float:
        """The peak above the start: what the block itself needed."""
        return self.peak_rss_mb - self.start_rss_mb

    @property
    def added_anonymous_mb(self) -> float | None:
        """The same of the process's own pages alone."""
        return None if self.peak_anonymous_mb is None else self.peak_anonymous_mb - self.start_anonymous_mb

    @property
    def added_file_mb(self) -> float | None:
        """The same of mapped files alone."""
        return None if self.peak_file_mb is None else self.peak_file_mb - self.start_file_mb

    def add(self, samples: list[Sample]) -> None:
        """Take samples into the timeline and the peaks."""
        self.timeline += samples
        resident, anonymous, file = ([sample[kind] for sample in samples] for kind in (1, 2, 3))
        self.peak_rss_mb = max(self.peak_rss_mb, *resident)
        if self.start_anonymous_mb is not None:
            self.peak_anonymous_mb = max(self.peak_anonymous_mb, *anonymous)
            self.peak_file_mb = max(self.peak_file_mb, *file)

    def plot(self, ax: "Axes | None" = None, over_start: bool = False, title: str | None = None) -> "Axes":
        """Draw the timeline: anonymous memory, and on top of it that of mapped files. `over_start` leaves out what was
        there before the block. Returns the axes; their figure is `ax.figure`, for `labs.figures.show`."""
        from .labs.figures import memory_timeline

        return memory_timeline(self, ax, over_start, title)


@contextmanager
def track_memory(interval: float | None = 0.002) -> Iterator[MemoryUse]:
    """Measure a block: `with track_memory() as use: ...`, then read `use.peak_rss_mb` and the others.

    `interval` is the seconds between two samples; None takes none but at the start and the end. The sampling thread
    needs Python's lock, so code that holds on to it can hide from the sampled figures; `measure_in_subprocess` has no
    such gap. A block inside another resets the high-water mark for both: the outer one then has its samples only.
    """
    use = MemoryUse()
    pid = os.getpid()
    has_mark = reset_high_water_mark()
    use.source = "kernel high-water mark" if has_mark else "sampled"
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    first = look(pid, started)
    use.start_rss_mb, use.start_anonymous_mb, use.start_file_mb = first[1:]
    use.peak_rss_mb, use.peak_anonymous_mb, use.peak_file_mb = first[1:]
    sampler = None if interval is None else Sampler(pid, interval, started)
    try:
        yield use
    finally:
        use.seconds = time.perf_counter() - started
        samples = [] if sampler is None else sampler.stop()
        last = look(pid, started)
        use.end_rss_mb = last.resident_mb
        if has_mark:
            use.peak_rss_mb = max(use.peak_rss_mb, status_mb(pid)["VmHWM"])
        use.add([first, *samples, last])
        if torch.cuda.is_available():
            use.peak_cuda_mb = torch.cuda.max_memory_allocated() / MIB
            use.peak_cuda_reserved_mb = torch.cuda.max_memory_reserved() / MIB


def measure_in_subprocess(statement: str, setup: str = "", interval: float = 0.001) -> MemoryUse:
    """Run `setup`, then measure `statement`, in a new Python process, as `timeit` would.

    A fresh process holds nothing of what ran before, so figures of several runs can be compared; and it is sampled
    from this one, so no lock of its own can hide a moment. Relative paths mean the same as here. Raises RuntimeError
    with the process's own message if the code fails.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    arguments = [sys.executable, "-m", "course_helpers.memory"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment) as process,
    ):
        try:
            process.stdin.write(json.dumps({"setup": setup, "statement": statement}) + "\n")
            process.stdin.flush()
            if ready := process.stdout.readline():  # the process's own number: what was started may be a launcher
                sampler = Sampler(int(ready), interval, time.perf_counter())
                process.stdin.write("go\n")
                process.stdin.flush()
            result = process.stdout.readline() if ready else ""
            samples = sampler.stop() if ready else []
            process.stdin.close()
            process.wait()
        except BaseException:
            process.kill()
            raise
        if not result or process.returncode:
            log.seek(0)
            raise RuntimeError(f"the measured code failed in its own process:\n{log.read().strip()}")
    fields = json.loads(result)
    first, last = (Sample(*sample) for sample in fields.pop("timeline"))
    use = MemoryUse(**fields)
    use.add([first, *(sample for sample in samples if sample.seconds < last.seconds), last])
    return use


def main() -> None:
    """The fresh process of `measure_in_subprocess`: code on standard input, the result on standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the measured code prints goes elsewhere
    code = json.loads(sys.stdin.readline())
    names: dict[str, Any] = {}
    exec(code["setup"], names)
    print(os.getpid(), file=answers, flush=True)
    sys.stdin.readline()
    with track_memory(interval=None) as use:
        exec(code["statement"], names)
    print(json.dumps(asdict(use)), file=answers, flush=True)
    sys.stdin.readline()  # stay until the last sample has been taken


if __name__ == "__main__":
    main()
