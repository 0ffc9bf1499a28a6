"""Measuring memory and time, and knowing beforehand what they will be.

What a process uses at its worst moment is what decides whether it runs at all, and a look now and then misses that
moment. So the operating system's own high-water mark is used where it can be reset (Linux), the sampling of a
background thread elsewhere, and a fresh process where a figure must not depend on what ran before.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from .architectures.config import ModelConfig

MIB = 2**20
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class MemoryUse:
    """What a block of code used. Filled in when the block ends; all memory figures in MiB (2**20 bytes)."""

    start_rss_mb: float = 0.0  # resident memory of the process before
    peak_rss_mb: float = 0.0  # the most that the process held at once
    end_rss_mb: float = 0.0  # resident memory after
    peak_cuda_mb: float | None = None  # the most that torch held on the GPU; None without one
    seconds: float = 0.0
    source: str = ""  # "kernel high-water mark" or "sampled"

    @property
    def added_peak_mb(self) -> float:
        """The peak above the start: what the block itself needed."""
        return self.peak_rss_mb - self.start_rss_mb


@contextmanager
def track_memory(interval: float = 0.002) -> Iterator[MemoryUse]:
    """Measure a block: `with track_memory() as use: ...`, then read `use.peak_rss_mb` and the others.

    `interval` is the seconds between two samples where the kernel's high-water mark cannot be reset. Resident memory
    counts pages of memory-mapped files, too: they can be given back at any time, so they are the cheaper kind.
    """
    use = MemoryUse()
    process = psutil.Process()
    has_mark = reset_high_water_mark()
    use.source = "kernel high-water mark" if has_mark else "sampled"
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    use.start_rss_mb = process.memory_info().rss / MIB
    sampler = None if has_mark else Sampler(process, interval)
    started = time.perf_counter()
    try:
        yield use
    finally:
        use.seconds = time.perf_counter() - started
        use.end_rss_mb = process.memory_info().rss / MIB
        peak = high_water_mark_mb() if sampler is None else sampler.stop()
        use.peak_rss_mb = max(peak, use.start_rss_mb, use.end_rss_mb)
        if torch.cuda.is_available():
            use.peak_cuda_mb = torch.cuda.max_memory_allocated() / MIB


class Sampler:
    """Looks at the resident memory again and again from a thread of its own, and remembers the most it saw."""

    def __init__(self, process: psutil.Process, interval: float):
        self.process, self.interval, self.peak_mb = process, interval, 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.stopped.wait(self.interval):
            self.peak_mb = max(self.peak_mb, self.process.memory_info().rss / MIB)

    def stop(self) -> float:
        self.stopped.set()
        self.thread.join()
        return self.peak_mb


def reset_high_water_mark() -> bool:
    """Make Linux forget the process's peak so far; False where that is not possible."""
    try:
        CLEAR_REFS.write_text("5")  # see `man 5 proc`, /proc/pid/clear_refs
    except OSError:
        return False
    return True


def high_water_mark_mb() -> float:
    """The peak resident memory since the last reset, from /proc/self/status (VmHWM, in KiB)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measure_in_fresh_process(statement: str, setup: str = "") -> MemoryUse:
    """Run `setup`, then measure `statement`, in a new Python process, as `timeit` would.

    A fresh process holds nothing of what ran before, so figures of several runs can be compared. Relative paths mean
    the same as here. Raises RuntimeError with the process's own message if the code fails.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    arguments = [sys.executable, "-m", "course_helpers.memory"]
    code = json.dumps({"setup": setup, "statement": statement})
    result = subprocess.run(arguments, input=code, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f"the measured code failed in its own process:\n{result.stderr.strip()}")
    return MemoryUse(**json.loads(result.stdout.splitlines()[-1]))


def kv_cache_bytes(config: ModelConfig, length: int, batch_size: int = 1, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of a cache for `length` positions: 2 (key and value) x key/value heads x head dimension x bytes each, for
    every position that a layer keeps: all of them, or at most its window."""
    kept = sum(min(length, config.window(layer_type) or length) for layer_type in config.layer_plan)
    return 2 * config.num_key_value_heads * config.head_dim * kept * batch_size * dtype.itemsize


def parameter_count(family_model: type, config: ModelConfig) -> int:
    """Parameters of a model of this config, counted on the meta device: exact, and without memory."""
    with torch.device("meta"):
        return family_model(config).num_parameters()


def main() -> None:
    """The fresh process of `measure_in_fresh_process`: code on standard input, the result on standard output."""
    code = json.load(sys.stdin)
    names: dict[str, Any] = {}
    exec(code["setup"], names)
    with track_memory() as use:
        exec(code["statement"], names)
    print(json.dumps(asdict(use)))


if __name__ == "__main__":
    main()
